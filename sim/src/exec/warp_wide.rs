//! Operations of the lanes of a warp together.

use super::operands::any;
use super::registers::FULL;
use super::step::Flow;
use super::warp::{Split, Wait};
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Kind, Program, S32, Shuffle, Vote};
use crate::schedule::InFlight;

impl Grid<'_> {
    /// The member mask of a warp-wide operation; it must name every lane that executes it. Hardware goes on when it does
    /// not, as if it had.
    pub(super) fn members(&mut self, w: usize, members: S32, mask: u32) -> Step<u32> {
        let row = self.sure32(w, members, mask, "a member mask")?;
        let wanted = row[mask.trailing_zeros() as usize];
        let Some(lane) = (0..32).find(|&i| mask >> i & 1 == 1 && row[i] >> i & 1 == 0) else {
            return Ok(wanted);
        };
        if self.schedule.in_flight == InFlight::Strict {
            let kind = FaultKind::Divergence { present: mask, wanted: row[lane] };
            return Err(Trouble { kind, lane: Some(lane as u32) });
        }
        let op = &self.program.ops[self.current_pc as usize];
        let opcode = &self.program.opcodes[op.opcode as usize];
        self.warnings.insert(format!(
            "{opcode} (PTX line {}) by lanes that its member mask {:#x} does not name",
            op.line, row[lane]
        ));
        Ok(wanted | mask)
    }

    /// Lanes that execute a warp-wide operation together, or none while some are missing.
    pub(super) fn assemble(&mut self, w: usize, pc: u32, mask: u32, members: u32) -> Option<u32> {
        let warp = &mut self.warps[w];
        let wanted = members & warp.live;
        if wanted & !mask == 0 {
            return Some(mask);
        }
        let waits = |s: &&mut Split| s.pc == pc && s.wait == Wait::Lanes(members);
        let present = warp.splits.iter_mut().filter(waits).fold(mask, |m, s| m | s.mask);
        if wanted & !present != 0 {
            return None;
        }
        for split in warp.splits.iter_mut().filter(waits) {
            split.wait = Wait::Nothing;
            split.pc += 1;
        }
        Some(present)
    }

    pub(super) fn warp_barrier(&mut self, w: usize, mask: u32, members: u32) -> Flow {
        let program: &Program = self.program;
        let warp = &mut self.warps[w];
        let wanted = members & warp.live;
        let waits = |s: &&mut Split| {
            s.wait == Wait::Lanes(members)
                && matches!(program.ops[s.pc as usize].kind, Kind::WarpBarrier { .. })
        };
        let present = warp.splits.iter_mut().filter(waits).fold(mask, |m, s| m | s.mask);
        if wanted & !present != 0 {
            return Flow::Wait(Wait::Lanes(members));
        }
        for split in warp.splits.iter_mut().filter(waits) {
            split.wait = Wait::Nothing;
            split.pc += 1;
        }
        self.race_warp_barrier(w, present);
        Flow::Next
    }

    pub(super) fn warp_wide(&mut self, w: usize, kind: &Kind, mask: u32, members: u32) -> Step<()> {
        match kind {
            Kind::Shuffle { mode, d, p, a, b, c, .. } => {
                let (value, shadow) = self.get32(w, *a)?;
                let b = self.sure32(w, *b, mask, "a shuffle's lane")?;
                let c = self.sure32(w, *c, mask, "a shuffle's clamp")?;
                let (mut row, mut undefined, mut valid) = ([0; 32], [0; 32], 0);
                for i in 0..32usize {
                    if mask >> i & 1 == 0 {
                        continue;
                    }
                    let segment = c[i] >> 8 & 31;
                    let lane = i as u32;
                    let limit = (lane & segment) | (c[i] & 31 & !segment);
                    let by = b[i] & 31;
                    let (from, inside) = match mode {
                        Shuffle::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= limit as i32),
                        Shuffle::Down => (lane + by, lane + by <= limit),
                        Shuffle::Bfly => (lane ^ by, lane ^ by <= limit),
                        Shuffle::Idx => {
                            let from = (lane & segment) | (by & !segment);
                            (from, from <= limit)
                        }
                    };
                    let inside = match mode {
                        Shuffle::Bfly => (lane ^ by) <= limit,
                        _ => inside,
                    };
                    let from = if inside { from as usize } else { i };
                    valid |= u32::from(inside) << i;
                    row[i] = value[from];
                    undefined[i] = shadow.as_ref().map_or(0, |s| s[from]);
                    // A lane that does not take part has no value to give.
                    if mask >> from & 1 == 0 {
                        undefined[i] = u32::MAX;
                    }
                }
                let undefined = Some(&undefined).filter(|s| any(s, mask));
                self.put32(w, *d, &row, mask, undefined)?;
                if let Some(p) = p {
                    self.warps[w].predicates[*p as usize].put(valid, FULL, mask);
                }
            }
            Kind::Vote { vote, d, a, .. } => {
                let value = self.decision(w, *a, mask, "a vote")?;
                let result = match vote {
                    Vote::Ballot => return self.put32(w, *d, &[value; 32], mask, None),
                    Vote::All => value == mask,
                    Vote::Any => value != 0,
                    Vote::Uni => value == mask || value == 0,
                };
                self.warps[w].predicates[*d as usize].put(if result { FULL } else { 0 }, FULL, mask);
            }
            Kind::Match { d, a, .. } => {
                let (value, shadow) = self.get(w, *a)?;
                if let Some(shadow) = shadow {
                    self.demand(&shadow, mask, "a match")?;
                }
                let mut row = [0; 32];
                for i in 0..32 {
                    row[i] = (0..32)
                        .filter(|&j| mask >> j & 1 == 1 && value[j] == value[i])
                        .fold(0, |m, j| m | 1 << j);
                }
                self.put32(w, *d, &row, mask, None)?;
            }
            Kind::MatchAll { d, p, a, .. } => {
                let (value, shadow) = self.get(w, *a)?;
                if let Some(shadow) = shadow {
                    self.demand(&shadow, mask, "a match")?;
                }
                let first = value[mask.trailing_zeros() as usize & 31];
                let agree = (0..32).all(|i| mask >> i & 1 == 0 || value[i] == first);
                self.put32(w, *d, &[if agree { mask } else { 0 }; 32], mask, None)?;
                if let Some(p) = p {
                    self.warps[w].predicates[*p as usize].put(if agree { FULL } else { 0 }, FULL, mask);
                }
            }
            Kind::Redux { f, d, a, .. } => {
                let (value, shadow) = self.get32(w, *a)?;
                let result = (0..32).filter(|&i| mask >> i & 1 == 1).map(|i| value[i]).reduce(f).unwrap_or(0);
                let undefined = shadow.filter(|s| any(s, mask)).map(|_| [u32::MAX; 32]);
                self.put32(w, *d, &[result; 32], mask, undefined.as_ref())?;
            }
            Kind::Elect { d, p, .. } => {
                let leader = (members & mask).trailing_zeros();
                if let Some(d) = d {
                    self.put32(w, *d, &[leader; 32], mask, None)?;
                }
                self.warps[w].predicates[*p as usize].put(1 << leader, FULL, mask);
            }
            _ => unreachable!("only warp-wide operations come here"),
        }
        Ok(())
    }

    /// An aligned operation: every lane that has not exited takes part.
    pub(super) fn together(&self, w: usize, mask: u32) -> Step<()> {
        let live = self.warps[w].live;
        if mask == live { Ok(()) } else { Err(FaultKind::Divergence { present: mask, wanted: live }.into()) }
    }
}
