//! Registers of a warp: values, and a definedness bit for every bit of them.
//!
//! Most registers are wholly defined, so a state byte per register says whether the shadow bits need a look.

use crate::row::{Row, Row64};
use std::cell::Cell;

/// Every bit is defined.
pub(crate) const DEFINED: u8 = 0;
/// The shadow row says which bits are not.
pub(crate) const PARTIAL: u8 = 1;
/// Nothing was ever written.
pub(crate) const UNDEFINED: u8 = 2;
/// The accumulator of a completed wgmma: reading it is noted for the next `wgmma.fence`.
pub(crate) const RESULT: u8 = 4;
/// Owned by a wgmma in flight (accumulator): neither read nor written.
pub(crate) const IN_FLIGHT: u8 = 0x10;
/// Read by a wgmma in flight (A operand): not written.
pub(crate) const BEING_READ: u8 = 0x20;

pub(crate) const FULL: u32 = u32::MAX;

/// Registers of one width.
#[derive(Debug)]
pub(crate) struct File<T> {
    pub(crate) values: Vec<[T; 32]>,
    pub(crate) states: Vec<u8>,
    shadows: Vec<[T; 32]>,
    /// `wgmma.fence` so far, and how many there had been when each register was last written or, of a [`RESULT`], read.
    fences: u32,
    stamps: Vec<Cell<u32>>,
}

/// A register number that a wgmma in flight holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held(pub(crate) u32);

macro_rules! file {
    ($t:ty, $row:ty) => {
        impl File<$t> {
            pub(crate) fn new(count: usize) -> Self {
                Self {
                    values: vec![[0; 32]; count],
                    states: vec![UNDEFINED; count],
                    shadows: vec![[0; 32]; count],
                    fences: 0,
                    stamps: vec![Cell::new(0); count],
                }
            }

            pub(crate) fn reset(&mut self) {
                self.states.fill(UNDEFINED);
                self.fences = 0;
                self.stamps.fill(Cell::new(0));
            }

            /// Undefined bits of a register.
            pub(crate) fn shadow(&self, register: u32) -> $row {
                match self.states[register as usize] & 3 {
                    DEFINED => [0; 32],
                    PARTIAL => self.shadows[register as usize],
                    _ => [<$t>::MAX; 32],
                }
            }

            /// Replaces the undefined bits of a register, whoever holds it.
            pub(crate) fn set_shadow(&mut self, register: u32, shadow: &$row) {
                let at = register as usize;
                let holds = self.states[at] & !3;
                if shadow.iter().all(|&s| s == 0) {
                    self.states[at] = holds | DEFINED;
                } else {
                    self.shadows[at] = *shadow;
                    self.states[at] = holds | PARTIAL;
                }
            }

            /// Writes the lanes of `mask`; `undefined` are the undefined bits of the new value.
            #[inline]
            pub(crate) fn put(
                &mut self,
                register: u32,
                row: &$row,
                mask: u32,
                undefined: Option<&$row>,
            ) -> Result<(), Held> {
                let at = register as usize;
                let state = self.states[at];
                if state >= IN_FLIGHT {
                    return Err(Held(register));
                }
                self.stamps[at].set(self.fences);
                if mask == FULL && undefined.is_none() {
                    self.values[at] = *row;
                    self.states[at] = DEFINED;
                    return Ok(());
                }
                let value = &mut self.values[at];
                for i in 0..32 {
                    if mask >> i & 1 == 1 {
                        value[i] = row[i];
                    }
                }
                if state == DEFINED && undefined.is_none() {
                    return Ok(());
                }
                let mut shadow = self.shadow(register);
                for i in 0..32 {
                    if mask >> i & 1 == 1 {
                        shadow[i] = undefined.map_or(0, |u| u[i]);
                    }
                }
                self.set_shadow(register, &shadow);
                Ok(())
            }
        }
    };
}

file!(u32, Row);
file!(u64, Row64);

impl File<u32> {
    /// `wgmma.fence`.
    pub(crate) fn fence(&mut self) {
        self.fences += 1;
    }

    /// Somebody reads the result of a wgmma.
    pub(crate) fn result_read(&self, register: u32) {
        self.stamps[register as usize].set(self.fences);
    }

    /// Whether a register was touched since the last fence, or there was none.
    pub(crate) fn unfenced(&self, register: u32) -> bool {
        self.stamps[register as usize].get() == self.fences
    }
}

/// Predicates: a bit per lane, and which lanes are defined.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Predicate {
    pub(crate) value: u32,
    pub(crate) defined: u32,
}

impl Predicate {
    pub(crate) fn put(&mut self, value: u32, defined: u32, mask: u32) {
        self.value = self.value & !mask | value & mask;
        self.defined = self.defined & !mask | defined & mask;
    }
}
