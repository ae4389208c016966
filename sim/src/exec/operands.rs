//! Operands of an operation: values with their definedness.

use super::cluster::RANK_SHIFT;
use super::registers::{DEFINED, FULL, Held, IN_FLIGHT, RESULT};
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Address, Base, Dst, S32, S64, SP, Src};
use crate::row::{Row, Row64};

/// A value and, if any bit of it may be undefined, which ones.
pub(super) type Value32 = (Row, Option<Box<Row>>);
pub(super) type Value64 = (Row64, Option<Box<Row64>>);

impl Grid<'_> {
    /// What the block's rank adds to a shared address.
    fn window(&self, w: usize) -> u32 {
        self.blocks[self.slot(w)].rank << RANK_SHIFT
    }

    fn held32(&self, register: u32) -> Trouble {
        FaultKind::InFlight { register: self.program.names32[register as usize].clone() }.into()
    }

    fn held64(&self, register: u32) -> Trouble {
        FaultKind::InFlight { register: self.program.names64[register as usize].clone() }.into()
    }

    #[inline]
    pub(super) fn get32(&self, w: usize, s: S32) -> Step<Value32> {
        match s {
            S32::Imm(value) => Ok(([value; 32], None)),
            S32::Shared(at) => Ok(([at | self.window(w); 32], None)),
            S32::Reg(register) => {
                let file = &self.warps[w].r32;
                let state = file.states[register as usize];
                if state == DEFINED {
                    return Ok((file.values[register as usize], None));
                }
                if state & IN_FLIGHT != 0 {
                    return Err(self.held32(register));
                }
                if state & RESULT != 0 {
                    file.result_read(register);
                }
                let shadow = if state & 3 == DEFINED { None } else { Some(Box::new(file.shadow(register))) };
                Ok((file.values[register as usize], shadow))
            }
        }
    }

    #[inline]
    pub(super) fn get64(&self, w: usize, s: S64) -> Step<Value64> {
        match s {
            S64::Imm(value) => Ok(([value; 32], None)),
            S64::Shared(at) => Ok(([u64::from(at | self.window(w)); 32], None)),
            S64::Reg(register) => {
                let file = &self.warps[w].r64;
                let state = file.states[register as usize];
                if state == DEFINED {
                    return Ok((file.values[register as usize], None));
                }
                if state & IN_FLIGHT != 0 {
                    return Err(self.held64(register));
                }
                Ok((file.values[register as usize], Some(Box::new(file.shadow(register)))))
            }
        }
    }

    /// Either width, as 64 bits.
    pub(super) fn get(&self, w: usize, s: Src) -> Step<Value64> {
        match s {
            Src::W64(s) => self.get64(w, s),
            Src::W32(s) => {
                let (value, shadow) = self.get32(w, s)?;
                Ok((value.map(u64::from), shadow.map(|s| Box::new(s.map(u64::from)))))
            }
        }
    }

    #[inline]
    pub(super) fn put32(
        &mut self,
        w: usize,
        d: u32,
        row: &Row,
        mask: u32,
        undefined: Option<&Row>,
    ) -> Step<()> {
        match self.warps[w].r32.put(d, row, mask, undefined) {
            Ok(()) => Ok(()),
            Err(Held(register)) => Err(self.held32(register)),
        }
    }

    #[inline]
    pub(super) fn put64(
        &mut self,
        w: usize,
        d: u32,
        row: &Row64,
        mask: u32,
        undefined: Option<&Row64>,
    ) -> Step<()> {
        match self.warps[w].r64.put(d, row, mask, undefined) {
            Ok(()) => Ok(()),
            Err(Held(register)) => Err(self.held64(register)),
        }
    }

    pub(super) fn put(
        &mut self,
        w: usize,
        d: Dst,
        row: &Row64,
        mask: u32,
        undefined: Option<&Row64>,
    ) -> Step<()> {
        match d {
            Dst::Sink => Ok(()),
            Dst::R64(d) => self.put64(w, d, row, mask, undefined),
            Dst::R16(d) => {
                let narrow = undefined.map(|u| u.map(|x| x as u16 as u32)).filter(|u| any(u, mask));
                self.put32(w, d, &row.map(|x| u32::from(x as u16)), mask, narrow.as_ref())
            }
            Dst::R32(d) => {
                let narrow = undefined.map(|u| u.map(|x| x as u32)).filter(|u| any(u, mask));
                self.put32(w, d, &row.map(|x| x as u32), mask, narrow.as_ref())
            }
        }
    }

    /// Predicate values and defined lanes.
    pub(super) fn predicate(&self, w: usize, p: SP) -> (u32, u32) {
        let predicate = self.warps[w].predicates[p.reg as usize];
        (if p.negated { !predicate.value } else { predicate.value }, predicate.defined)
    }

    /// A predicate that decides something: every lane of `mask` must be defined.
    pub(super) fn decision(&self, w: usize, p: SP, mask: u32, used_as: &'static str) -> Step<u32> {
        let (value, defined) = self.predicate(w, p);
        let missing = mask & !defined;
        if missing != 0 && self.schedule.checks {
            return Err(uninitialised(used_as, missing.trailing_zeros()));
        }
        Ok(value & mask)
    }

    /// A value that must be defined in every lane of `mask`.
    pub(super) fn sure32(&self, w: usize, s: S32, mask: u32, used_as: &'static str) -> Step<Row> {
        let (value, shadow) = self.get32(w, s)?;
        if let Some(shadow) = shadow {
            self.demand(&shadow.map(u64::from), mask, used_as)?;
        }
        Ok(value)
    }

    pub(super) fn sure64(&self, w: usize, s: S64, mask: u32, used_as: &'static str) -> Step<Row64> {
        let (value, shadow) = self.get64(w, s)?;
        if let Some(shadow) = shadow {
            self.demand(&shadow, mask, used_as)?;
        }
        Ok(value)
    }

    pub(super) fn demand(&self, shadow: &Row64, mask: u32, used_as: &'static str) -> Step<()> {
        if self.schedule.checks
            && let Some(lane) = (0..32).find(|&i| mask >> i & 1 == 1 && shadow[i] != 0)
        {
            return Err(uninitialised(used_as, lane as u32));
        }
        Ok(())
    }

    /// The same value in every lane of `mask`.
    pub(super) fn uniform32(&self, w: usize, s: S32, mask: u32, used_as: &'static str) -> Step<u32> {
        let row = self.sure32(w, s, mask, used_as)?;
        let first = row[mask.trailing_zeros() as usize & 31];
        if (0..32).any(|i| mask >> i & 1 == 1 && row[i] != first) {
            return Err(FaultKind::Barrier(format!("{used_as} differs between the lanes of a warp")).into());
        }
        Ok(first)
    }

    /// Addresses of the active lanes, as the address's own space counts.
    pub(super) fn addresses(&self, w: usize, address: &Address, mask: u32) -> Step<Row64> {
        let offset = address.offset;
        Ok(match address.base {
            Base::None => [offset as u64; 32],
            Base::Shared => [offset as u64 | u64::from(self.window(w)); 32],
            Base::R32(register) => {
                let row = self.sure32(w, S32::Reg(register), mask, "an address")?;
                row.map(|a| u64::from(a.wrapping_add(offset as u32)))
            }
            Base::R64(register) => {
                let row = self.sure64(w, S64::Reg(register), mask, "an address")?;
                row.map(|a| a.wrapping_add(offset as u64))
            }
            Base::Variable(index) => [self.variables[index as usize].wrapping_add(offset as u64); 32],
        })
    }
}

fn uninitialised(used_as: &'static str, lane: u32) -> Trouble {
    Trouble { kind: FaultKind::Uninitialised { used_as }, lane: Some(lane) }
}

/// Whether any lane of `mask` has an undefined bit.
#[inline]
pub(super) fn any(shadow: &Row, mask: u32) -> bool {
    if mask == FULL {
        return shadow.iter().any(|&s| s != 0);
    }
    (0..32).any(|i| mask >> i & 1 == 1 && shadow[i] != 0)
}

pub(super) fn any64(shadow: &Row64, mask: u32) -> bool {
    (0..32).any(|i| mask >> i & 1 == 1 && shadow[i] != 0)
}

/// Lanes in which any of `bits` is undefined.
pub(super) fn lanes(shadow: &Option<Box<Row64>>, bits: u64) -> u32 {
    shadow.as_ref().map_or(0, |s| (0..32).fold(0, |m, i| m | u32::from(s[i] & bits != 0) << i))
}
