//! Copies, stores and reductions that a block sends into shared memory of its cluster.

use super::asynchronous::{Source, check_bulk};
use super::atomics::modify;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Kind, Rmw, Type};

/// What is on its way to another block.
#[derive(Debug)]
pub(super) enum Sent {
    /// Shared memory of the sender, read when it arrives.
    Copy {
        slot: usize,
        from: u32,
        to: u32,
        bytes: u32,
        /// How it combines with what is there, if it does not replace that.
        reduce: Option<(Rmw, Type)>,
    },
    /// Bytes, and which of them are defined.
    Values {
        to: u32,
        data: Vec<u8>,
        defined: u32,
    },
    Reduction {
        to: u32,
        ty: Type,
        rmw: Rmw,
        value: u64,
    },
}

impl Sent {
    /// Whether it reads a block's shared memory.
    pub(super) fn reads(&self, block: usize) -> bool {
        matches!(self, Self::Copy { slot, .. } if *slot == block)
    }

    /// Address and length of where it goes, and whether it overwrites that without looking.
    pub(super) fn destination(&self) -> (u32, u32, bool) {
        match self {
            Self::Copy { to, bytes, reduce, .. } => (*to, *bytes, reduce.is_none()),
            Self::Values { to, data, .. } => (*to, data.len() as u32, true),
            Self::Reduction { to, ty, .. } => (*to, ty.bytes(), false),
        }
    }
}

impl Grid<'_> {
    pub(super) fn send(&mut self, w: usize, kind: &Kind, mask: u32) -> Step<()> {
        match kind {
            Kind::BulkSend { to, from, bytes, barrier, reduce } => {
                let sizes = self.sure32(w, *bytes, mask, "a bulk copy's size")?;
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let bytes = sizes[lane as usize];
                    let from = self.shared_address(w, from, lane)?;
                    let route = self.route(w, lane, to, barrier, None)?;
                    check_bulk([from, route.to, bytes].map(u64::from), lane)?;
                    let slot = self.slot(w);
                    self.readable(slot, from, bytes).map_err(|kind| Trouble { kind, lane: Some(lane) })?;
                    let sent = Sent::Copy { slot, from, to: route.to, bytes, reduce: *reduce };
                    self.issue_load(w, lane, Source::Sent(sent), route, bytes)?;
                }
            }
            Kind::Send { ty, rmw, to, values, barrier } => {
                let each = ty.bytes() as usize;
                let bytes = (each * values.len()) as u32;
                let rows = values.iter().map(|v| self.get_bits(w, *v)).collect::<Step<Vec<_>>>()?;
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let i = lane as usize;
                    let route = self.route(w, lane, to, barrier, None)?;
                    let to = route.to;
                    if to % bytes != 0 {
                        let kind = FaultKind::Misaligned { address: to.into(), align: bytes };
                        return Err(Trouble { kind, lane: Some(lane) });
                    }
                    let sent = match rmw {
                        Some(rmw) => {
                            self.demand(&rows[0].1, 1 << lane, "an atomic's operand")?;
                            Sent::Reduction { to, ty: *ty, rmw: *rmw, value: rows[0].0[i] }
                        }
                        None => {
                            let (mut data, mut defined) = (Vec::new(), 0);
                            for (value, shadow) in &rows {
                                for byte in 0..each {
                                    let known = shadow[i] >> (8 * byte) & 0xff == 0 || !self.schedule.checks;
                                    defined |= u32::from(known) << data.len();
                                    data.push((value[i] >> (8 * byte)) as u8);
                                }
                            }
                            Sent::Values { to, data, defined }
                        }
                    };
                    self.issue_load(w, lane, Source::Sent(sent), route, bytes)?;
                }
            }
            _ => unreachable!("only what is sent comes here"),
        }
        Ok(())
    }

    /// Whether a copy may read this shared memory.
    fn readable(&self, slot: usize, from: u32, bytes: u32) -> Result<usize, FaultKind> {
        let shared = &self.blocks[slot].shared;
        let Some(at) = shared.locate(from, bytes) else {
            return Err(FaultKind::OutOfBounds { space: "shared", address: from.into(), bytes });
        };
        if self.schedule.checks && !shared.defined.all(at, bytes as usize) {
            return Err(FaultKind::Uninitialised { used_as: "a bulk copy's source" });
        }
        Ok(at)
    }

    /// Arrival in a block's shared memory.
    pub(super) fn deliver(&mut self, target: usize, sent: &Sent) -> Step<()> {
        let (to, bytes, _) = sent.destination();
        let (at, len) =
            (self.blocks[target].shared.locate(to, bytes).expect("checked at issue"), bytes as usize);
        match sent {
            Sent::Copy { slot, from, reduce, .. } => {
                let from = self.readable(*slot, *from, bytes)?;
                let mut data = self.blocks[*slot].shared.data[from..from + len].to_vec();
                let shared = &mut self.blocks[target].shared;
                if let Some((rmw, ty)) = reduce {
                    if self.schedule.checks && !shared.defined.all(at, len) {
                        let used_as = "a reduction's memory operand";
                        return Err(FaultKind::Uninitialised { used_as }.into());
                    }
                    let size = ty.bytes() as usize;
                    for (new, old) in data.chunks_exact_mut(size).zip(shared.data[at..].chunks(size)) {
                        let number =
                            |bytes: &[u8]| bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
                        let result = modify(*rmw, *ty, number(old), number(new), false);
                        new.copy_from_slice(&result.to_le_bytes()[..size]);
                    }
                }
                shared.data[at..at + len].copy_from_slice(&data);
                shared.defined.put(at, len, true);
            }
            Sent::Values { data, defined, .. } => {
                let shared = &mut self.blocks[target].shared;
                shared.data[at..at + len].copy_from_slice(data);
                for i in 0..len {
                    shared.defined.put(at + i, 1, defined >> i & 1 == 1);
                }
            }
            Sent::Reduction { ty, rmw, value, .. } => {
                let shared = &mut self.blocks[target].shared;
                if self.schedule.checks && !shared.defined.all(at, len) {
                    return Err(FaultKind::Uninitialised { used_as: "an atomic's memory operand" }.into());
                }
                let mut raw = [0; 8];
                raw[..len].copy_from_slice(&shared.data[at..at + len]);
                let new = modify(*rmw, *ty, u64::from_le_bytes(raw), *value, false);
                shared.data[at..at + len].copy_from_slice(&new.to_le_bytes()[..len]);
            }
        }
        Ok(())
    }
}
