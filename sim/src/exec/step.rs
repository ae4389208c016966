//! One operation after the other.

use super::warp::{Split, Wait};
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{AT_RETURN, Dst, Kind, Op, Program, S32, Src};
use crate::row::Row64;
use crate::schedule::InFlight;

/// What a split does after an operation.
pub(super) enum Flow {
    /// The next operation.
    Next,
    /// Waits; whoever ends the wait may move it on.
    Wait(Wait),
    /// Lets others run, then the next operation.
    Yield,
    /// The same operation again, of fewer lanes.
    Again,
}

impl Grid<'_> {
    /// Runs a split until it blocks, ends, or has had its turn; whether it gave up its turn by polling in vain.
    pub(super) fn run_split(
        &mut self,
        w: usize,
        state: &mut Option<Split>,
        quantum: u32,
        steps: &mut u32,
    ) -> Step<bool> {
        let program: &Program = self.program;
        while *steps < quantum {
            let Some(split) = state.as_mut() else { return Ok(false) };
            if split.pc == split.meet {
                if !self.warps[w].arrive(split) {
                    *state = None;
                }
                continue;
            }
            if split.pc == AT_RETURN {
                self.leave(w, split)?;
                continue;
            }
            let op = &program.ops[split.pc as usize];
            self.current_pc = split.pc;
            self.profile_step(w, split.pc, split.mask);
            self.counters.instructions += 1;
            self.counters.by_class[op.class as usize] += 1;
            self.clock += 1;
            *steps += 1;
            let mut mask = split.mask;
            if let Some(guard) = op.guard {
                let used_as =
                    if matches!(op.kind, Kind::Branch { .. }) { "a branch condition" } else { "a guard" };
                mask = match self.decision(w, guard, mask, used_as) {
                    Ok(mask) => mask,
                    // Kernels compute rows that nobody loaded and nobody stores; which way those go is of no interest.
                    Err(_) if self.schedule.in_flight == InFlight::Compatible => {
                        let (value, line) = (self.predicate(w, guard).0, op.line);
                        self.warnings
                            .insert(format!("uninitialised data used as {used_as} (PTX line {line})"));
                        value & mask
                    }
                    Err(trouble) => return Err(trouble),
                };
                if mask == 0 {
                    split.pc += 1;
                    continue;
                }
            }
            match &op.kind {
                Kind::Branch { target } => {
                    if mask == split.mask {
                        split.pc = *target;
                    } else {
                        self.warps[w].diverge(split, mask, *target, op.meet);
                    }
                }
                Kind::BranchIndexed { index, targets } => {
                    self.branch_indexed(w, split, mask, *index, targets, op)?
                }
                Kind::Return => {
                    if mask == split.mask {
                        self.leave(w, split)?;
                    } else {
                        self.warps[w].diverge(split, mask, AT_RETURN, op.meet);
                    }
                }
                Kind::Exit => {
                    self.leaves_nothing(w, mask)?;
                    split.mask &= !mask;
                    split.pc += 1;
                    let gone = split.mask == 0;
                    if gone {
                        *state = None;
                    }
                    self.warps[w].exit(mask);
                    self.cluster_exit(w, mask);
                    for other in &mut self.warps[w].splits {
                        if matches!(other.wait, Wait::Lanes(_)) {
                            other.wait = Wait::Nothing;
                        }
                    }
                    if self.warps[w].live == 0 {
                        self.same_registers(w)?;
                        self.warp_left(w)?;
                    }
                }
                Kind::Call { target, arguments, .. } => {
                    if mask != split.mask {
                        // The lanes that call part from the others, and meet them behind the call.
                        let here = split.pc;
                        self.warps[w].diverge(split, mask, here, here + 1);
                        continue;
                    }
                    self.copy_local(w, mask, arguments);
                    let at = split.pc;
                    self.warps[w].call(split, at, *target);
                }
                Kind::CallIndirect { target, candidates } => {
                    if mask != split.mask {
                        let here = split.pc;
                        self.warps[w].diverge(split, mask, here, here + 1);
                        continue;
                    }
                    self.call_indirect(w, split, *target, candidates)?;
                }
                Kind::Trap => {
                    return Err(Trouble { kind: FaultKind::Trap, lane: Some(mask.trailing_zeros()) });
                }
                _ => match self.execute(w, split, op, mask) {
                    Ok(Flow::Next) => {
                        split.pc += 1;
                        if op.poll && self.polls_in_vain(w, op, mask) {
                            return Ok(true);
                        }
                    }
                    Ok(Flow::Again) => {}
                    Ok(Flow::Yield) => {
                        split.pc += 1;
                        return Ok(true);
                    }
                    Ok(Flow::Wait(wait)) => {
                        split.wait = wait;
                        self.counters.waits += 1;
                        return Ok(false);
                    }
                    Err(trouble) => {
                        let register = match (&trouble.kind, self.schedule.in_flight) {
                            (FaultKind::InFlight { register }, InFlight::Compatible) => register.clone(),
                            _ => return Err(trouble),
                        };
                        self.force_wgmma(w)?;
                        self.warnings
                            .insert(format!("serialised: {register} touched before the covering wgmma wait"));
                    }
                },
            }
        }
        Ok(false)
    }

    /// Whether a load or atomic at this operation brought what it brought the last time.
    fn polls_in_vain(&mut self, w: usize, op: &Op, mask: u32) -> bool {
        let to: Vec<Dst> = match &op.kind {
            Kind::Load { to, .. } => to.clone(),
            Kind::Atomic { parts, .. } => parts.iter().map(|&(d, _)| d).collect(),
            _ => return false,
        };
        let mut seen = u64::from(mask);
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            for &d in &to {
                let value = match d {
                    Dst::R32(d) | Dst::R16(d) => u64::from(self.warps[w].r32.values[d as usize][lane]),
                    Dst::R64(d) => self.warps[w].r64.values[d as usize][lane],
                    Dst::Sink => 0,
                };
                seen = (seen ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            }
        }
        self.warps[w].polled(self.current_pc, seen)
    }

    fn leave(&mut self, w: usize, split: &mut Split) -> Step<()> {
        let program: &Program = self.program;
        if let Some((op, callee)) = self.warps[w].leave(split) {
            match &program.ops[op as usize].kind {
                Kind::Call { results, .. } => self.copy_local(w, split.mask, results),
                Kind::CallIndirect { candidates, .. } => {
                    if let Some(candidate) = candidates.iter().find(|c| c.target == callee) {
                        self.copy_local(w, split.mask, &candidate.results);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn branch_indexed(
        &mut self,
        w: usize,
        split: &mut Split,
        mask: u32,
        index: S32,
        targets: &[u32],
        op: &Op,
    ) -> Step<()> {
        let row = self.sure32(w, index, mask, "a branch condition")?;
        if let Some(lane) = (0..32).find(|&i| mask >> i & 1 == 1 && row[i] as usize >= targets.len()) {
            let what = format!("branch index {} of {} targets", row[lane], targets.len());
            return Err(Trouble { kind: FaultKind::Barrier(what), lane: Some(lane as u32) });
        }
        let mut rest = mask;
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let same =
                (0..32).filter(|&i| rest >> i & 1 == 1 && row[i] == row[first]).fold(0, |m, i| m | 1 << i);
            rest &= !same;
            let target = targets[row[first] as usize];
            if same == split.mask {
                split.pc = target;
            } else {
                let here = split.pc;
                self.warps[w].diverge(split, same, target, op.meet);
                if rest != 0 {
                    split.pc = here;
                }
            }
        }
        Ok(())
    }

    pub(super) fn copy_local(&mut self, w: usize, mask: u32, moves: &[(u32, u32, u32)]) {
        let size = self.program.local_bytes as usize;
        let warp = &mut self.warps[w];
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            for &(from, to, bytes) in moves {
                let (from, to) = (lane * size + from as usize, lane * size + to as usize);
                warp.local.copy_within(from..from + bytes as usize, to);
                for i in 0..bytes as usize {
                    let defined = warp.local_defined.get(from + i, 1) == 1;
                    warp.local_defined.put(to + i, 1, defined);
                }
            }
        }
    }

    /// A value and its undefined bits.
    pub(super) fn get_bits(&self, w: usize, s: Src) -> Step<(Row64, Row64)> {
        let (row, shadow) = self.get(w, s)?;
        Ok((row, shadow.map_or([0; 32], |s| *s)))
    }
}
