//! Who runs next.
//!
//! Blocks take turns, and the warps of a block. A warp that polls memory in vain gives up its turn. When every warp
//! that could run polls in vain, something else must happen first: a pending operation completes, or more blocks
//! start.

use super::dependent::Outcome;
use super::warp::Wait;
use super::{Grid, Trouble};
use crate::fault::{Fault, FaultKind};

/// Warp instructions without the start or end of a cluster after which something must happen although not everybody
/// polls: a loop around a poll may hold a barrier of the block.
const PATIENCE: u64 = 1 << 20;
/// The same where nobody polls at all: the loop may be around a plain load.
const MORE_PATIENCE: u64 = 1 << 22;

/// Warp instructions within which lanes missing elsewhere may show that an assertion fails.
const LOOK_AHEAD: u32 = 4096;

/// What the scheduler remembers.
#[derive(Default)]
pub(super) struct Turns {
    /// The slot after the one that ran last.
    slot: usize,
    /// Turns in a row that only polled, and their warp instructions.
    idle: usize,
    idle_steps: u64,
    /// Warp instructions since a cluster started or ended, and whether some turn of them was idle.
    since: u64,
    polled: bool,
}

/// What became of a turn.
pub(super) struct Turn {
    /// It did nothing but poll in vain.
    pub(super) idle: bool,
    pub(super) steps: u32,
}

impl Grid<'_> {
    /// Runs until the launch ends, or can do no more before the launches ahead of it have ended.
    pub(super) fn advance(&mut self) -> Result<Outcome, Box<Fault>> {
        let random = self.schedule.is_random();
        loop {
            self.admit_wanted();
            if self.residents.count() == 0 {
                return Ok(Outcome::Ended);
            }
            if random {
                let slot = self.random.below(self.blocks.len());
                self.complete_some(slot).map_err(|t| self.fault(t, slot))?;
            }
            let Some(w) = self.pick(random) else {
                // Whoever waits for another launch does so on all of the card.
                if self.complete_one()? || self.depends() && self.admit() {
                    continue;
                }
                if self.depends() {
                    return Ok(Outcome::Parked);
                }
                let slot = self.blocks.iter().position(|b| b.live).unwrap_or(0);
                return Err(self.fault(FaultKind::Deadlock(self.who_waits()).into(), slot));
            };
            let quantum = if random { 1 + self.random.below(64) as u32 } else { 512 };
            let before = self.residents.count();
            let turn = self.run_warp(w, quantum, random)?;
            self.turns.since += u64::from(turn.steps);
            self.turns.polled |= turn.idle;
            if self.residents.count() != before {
                (self.turns.since, self.turns.polled) = (0, false);
            } else if self.turns.since > PATIENCE && self.turns.polled {
                (self.turns.since, self.turns.polled) = (0, false);
                self.unstick()?;
            } else if self.turns.since > MORE_PATIENCE {
                self.turns.since = 0;
                self.admit();
            }
            if !turn.idle {
                (self.turns.idle, self.turns.idle_steps) = (0, 0);
                continue;
            }
            self.turns.idle += 1;
            self.turns.idle_steps += u64::from(turn.steps);
            if self.turns.idle > 2 * self.warps.len() {
                self.turns.idle = 0;
                if !self.unstick()? && self.depends() {
                    return Ok(Outcome::Parked);
                }
            }
            if self.turns.idle_steps > self.schedule.step_limit {
                return Err(self.stuck(w, None));
            }
        }
    }

    /// Everybody polls in vain: whether something could be done about it.
    fn unstick(&mut self) -> Result<bool, Box<Fault>> {
        if self.complete_one()? {
            return Ok(true);
        }
        let before = self.residents.count();
        // As many as there are, so that a barrier over the whole grid fills quickly.
        for _ in 0..self.residents.count() {
            if !self.admit() {
                break;
            }
            (self.turns.since, self.turns.polled) = (0, false);
        }
        Ok(self.residents.count() > before)
    }

    /// The warp that runs next, if one can.
    fn pick(&mut self, random: bool) -> Option<usize> {
        let count = self.blocks.len();
        let first = if random { self.random.below(count) } else { self.turns.slot };
        for step in 0..count {
            let slot = (first + step) % count;
            if self.blocks[slot].live
                && let Some(index) = self.pick_in(slot, random)
            {
                self.turns.slot = slot + 1;
                self.blocks[slot].turn = index + 1;
                return Some(slot * self.per_block + index);
            }
        }
        None
    }

    fn pick_in(&mut self, slot: usize, random: bool) -> Option<usize> {
        let count = self.per_block;
        let warps = &self.warps[slot * count..][..count];
        let ready = |index: &usize| warps[*index].splits.iter().any(|s| s.wait == Wait::Nothing);
        if !random {
            let turn = self.blocks[slot].turn;
            return (turn..turn + count).map(|i| i % count).find(ready);
        }
        match (0..count).filter(ready).count() {
            0 => None,
            some => (0..count).filter(ready).nth(self.random.below(some)),
        }
    }

    fn run_warp(&mut self, w: usize, quantum: u32, random: bool) -> Result<Turn, Box<Fault>> {
        let ready = |s: &usize| self.warps[w].splits[*s].wait == Wait::Nothing;
        let splits = 0..self.warps[w].splits.len();
        let pick = if random {
            let some = splits.clone().filter(ready).count();
            splits.filter(ready).nth(self.random.below(some))
        } else {
            splits.clone().find(ready)
        };
        // Removal keeps the order, so that splits take turns.
        let split = self.warps[w].splits.remove(pick.expect("a ready warp has a ready split"));
        let mut state = Some(split);
        let (mut steps, slot) = (0, self.slot(w));
        let result = self.run_split(w, &mut state, quantum, &mut steps);
        let pc = state.as_ref().map(|s| s.pc);
        let gave_up = match result {
            Ok(gave_up) => gave_up,
            Err(trouble) => {
                let (trouble, pc) = self.explained(w, trouble, pc);
                return Err(self.fault_at(trouble, w, pc));
            }
        };
        // Whoever waits or ends has got somewhere.
        let runs = state.as_ref().is_some_and(|split| split.wait == Wait::Nothing);
        if let Some(split) = state {
            self.warps[w].splits.push(split);
        }
        let idle = runs && self.warps[w].spins(steps, gave_up);
        self.blocks[slot].steps += u64::from(steps);
        if self.blocks[slot].steps > self.schedule.step_limit {
            return Err(self.stuck(w, pc));
        }
        if self.warps[w].splits.is_empty() && self.block_is_over(slot) {
            self.finish(slot).map_err(|t| self.fault(t, slot))?;
        }
        Ok(Turn { idle, steps })
    }

    /// Lanes may be missing at an aligned instruction because they fail an assertion, and have only not come to it: then
    /// that is what is wrong.
    fn explained(&mut self, w: usize, trouble: Trouble, pc: Option<u32>) -> (Trouble, Option<u32>) {
        if !matches!(trouble.kind, FaultKind::Divergence { .. }) {
            return (trouble, pc);
        }
        // Nothing runs after a fault, so no split is put back.
        while let Some(at) = self.warps[w].splits.iter().position(|s| s.wait == Wait::Nothing) {
            let mut other = Some(self.warps[w].splits.remove(at));
            if let Err(cause) = self.run_split(w, &mut other, LOOK_AHEAD, &mut 0)
                && matches!(cause.kind, FaultKind::Assertion(_))
            {
                return (cause, other.map(|split| split.pc));
            }
        }
        (trouble, pc)
    }

    fn block_is_over(&self, slot: usize) -> bool {
        self.warps[slot * self.per_block..][..self.per_block].iter().all(|w| w.splits.is_empty())
    }

    /// Completes one pending operation of any block, the oldest of its block first.
    fn complete_one(&mut self) -> Result<bool, Box<Fault>> {
        for slot in 0..self.blocks.len() {
            if self.blocks[slot].live
                && self.complete_first(slot).map_err(|t: Trouble| self.fault(t, slot))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn stuck(&self, w: usize, pc: Option<u32>) -> Box<Fault> {
        let limit = self.schedule.step_limit;
        let mut ready = self.warps[w].splits.iter().filter(|s| s.wait == Wait::Nothing);
        let pc = pc.or_else(|| ready.next().map(|s| s.pc));
        self.fault_at(FaultKind::StepLimit { limit, spinning: self.who_spins() }.into(), w, pc)
    }
}
