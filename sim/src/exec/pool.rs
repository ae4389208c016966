//! `setmaxnreg`: warpgroups that hand registers to each other.

use super::step::Flow;
use super::warp::{Wait, Warp};
use super::{Grid, Step};
use crate::fault::FaultKind;

/// Registers of a multiprocessor.
const ALL: u32 = 65_536;
/// What a thread may have at most, in the unit of eight in which they are handed out.
const MOST: u32 = 248;

impl Grid<'_> {
    /// Registers that a thread begins with, as the assembler gives them to a kernel that names its block's size or a
    /// number: no more than the kernel's largest `setmaxnreg.inc` asks for. A kernel that does neither cannot use
    /// `setmaxnreg`, and nothing is known of it.
    pub(super) fn initial_registers(&self) -> Option<u32> {
        if let Some(count) = self.program.registers {
            return Some(count.min(256).next_multiple_of(8));
        }
        let threads = match self.program.required_threads {
            Some(threads) => threads.iter().map(|&n| u64::from(n)).product(),
            None => u64::from(self.program.max_threads?),
        };
        let blocks = u64::from(self.program.least_blocks.unwrap_or(1).max(1));
        let each = u64::from(ALL) / (threads.clamp(1, 1024).next_multiple_of(128) * blocks);
        Some((each as u32 / 8 * 8).min(self.program.most_registers.unwrap_or(MOST)).min(MOST))
    }

    pub(super) fn set_registers(&mut self, w: usize, mask: u32, count: u32, more: bool) -> Step<Flow> {
        self.together(w, mask)?;
        let Some(initial) = self.initial_registers().filter(|_| self.schedule.checks) else {
            return Ok(Flow::Next);
        };
        let slot = self.slot(w);
        let has = |warp: &Warp| if warp.live == 0 { 0 } else { warp.registers.unwrap_or(initial) };
        let (own, group) = (has(&self.warps[w]), self.warps[w].index as usize / 4);
        if self.per_block < 4 * group + 4 {
            let what = "setmaxnreg in a warp that is in no whole warpgroup".into();
            return Err(FaultKind::Registers(what).into());
        }
        if more && count < own || !more && count > own {
            let (how, than) = if more { ("inc", "fewer") } else { ("dec", "more") };
            let what = format!("setmaxnreg.{how} to {count} registers, {than} than the {own} that it has");
            return Err(FaultKind::Registers(what).into());
        }
        // A warp that leaves gives its registers back with its block only.
        let kept = |warp: &Warp| warp.registers.unwrap_or(initial);
        let used: u32 = self.warps_of(slot).iter().map(kept).sum();
        let pool = initial * self.per_block as u32;
        if more && used - own + count > pool {
            return Ok(Flow::Wait(Wait::Registers(count)));
        }
        self.warps[w].registers = Some(count);
        self.warps[w].registers_set.push(self.current_pc);
        for warp in self.warps_of_mut(slot) {
            for split in &mut warp.splits {
                if matches!(split.wait, Wait::Registers(_)) {
                    split.wait = Wait::Nothing;
                }
            }
        }
        Ok(Flow::Next)
    }

    /// A warp has exited: those of its warpgroup that exited before must have executed the same `setmaxnreg`.
    pub(super) fn same_registers(&mut self, w: usize) -> Step<()> {
        let first = w - self.warps[w].index as usize % 4;
        let end = (first + 4).min((self.slot(w) + 1) * self.per_block);
        let own = &self.warps[w].registers_set;
        let gone = |at: &usize| self.warps[*at].live == 0;
        let Some(peer) = (first..end).filter(gone).find(|&at| self.warps[at].registers_set != *own) else {
            return Ok(());
        };
        let longer = if self.warps[peer].registers_set.len() > own.len() { peer } else { w };
        self.blame = self.warps[longer].registers_set.last().map(|&pc| (longer, pc));
        let what = "setmaxnreg by some warps of a warpgroup, but not by all".into();
        Err(FaultKind::Registers(what).into())
    }

    /// What the pool has left, for a deadlock's report.
    pub(super) fn registers_left(&self, slot: usize, wanted: u32) -> String {
        let initial = self.initial_registers().unwrap_or(0);
        let used: u32 = self.warps_of(slot).iter().map(|w| w.registers.unwrap_or(initial)).sum();
        let left = initial * self.per_block as u32 - used;
        format!("{wanted} registers a thread, and {} are left to share", 32 * left)
    }
}
