//! Barriers and mbarriers, for the race checker.

use super::id;
use crate::exec::access::Place;
use crate::exec::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::memory::shared::WINDOW;
use crate::race::{CLUSTER_BARRIER, Order, Races, Unseen};

impl Grid<'_> {
    /// `bar.warp.sync` of these lanes is complete.
    pub(in crate::exec) fn race_warp_barrier(&mut self, w: usize, lanes: u32) {
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.lanes(warp).synchronise(lanes, live);
        }
    }

    /// Lanes arrive at a barrier of a block.
    pub(in crate::exec) fn race_arrive(&mut self, w: usize, barrier: u32, mask: u32) {
        let (block, warp) = (self.number(self.slot(w)), id(&self.warps[w]));
        let live = self.warps[w].live;
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.arrive((block, barrier), warp, mask, live);
        }
    }

    /// It opens.
    pub(in crate::exec) fn race_open(&mut self, slot: usize, barrier: u32) {
        let block = self.number(slot);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.open((block, barrier));
        }
    }

    /// Lanes pass it.
    pub(in crate::exec) fn race_pass(&mut self, w: usize, barrier: u32, mask: u32) {
        let (block, warp) = (self.number(self.slot(w)), id(&self.warps[w]));
        let live = self.warps[w].live;
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.pass((block, barrier), warp, mask, live, false);
        }
    }

    /// Lanes arrive at the barrier of their cluster.
    pub(in crate::exec) fn race_cluster_arrive(&mut self, w: usize, mask: u32) {
        let place = self.cluster_place(self.slot(w));
        let relaxed = self.order(&self.program.ops[self.current_pc as usize]) == Order::Relaxed;
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        let Some(sanitizer) = self.races.as_mut() else { return };
        if relaxed {
            sanitizer.races.arrive_relaxed(place, warp, mask);
        } else {
            sanitizer.races.arrive(place, warp, mask, live);
        }
    }

    /// It opens; `slot` is one of the cluster's.
    pub(in crate::exec) fn race_cluster_open(&mut self, slot: usize) {
        let place = self.cluster_place(slot);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.open(place);
        }
    }

    /// Lanes pass it.
    pub(in crate::exec) fn race_cluster_pass(&mut self, w: usize, mask: u32) {
        let place = self.cluster_place(self.slot(w));
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.pass(place, warp, mask, live, true);
        }
    }

    fn cluster_place(&self, slot: usize) -> (u32, u32) {
        (self.number(slot - self.blocks[slot].rank as usize), CLUSTER_BARRIER)
    }

    /// `mbarrier.init` and `mbarrier.inval` by a lane.
    pub(in crate::exec) fn race_barrier_storage(
        &mut self,
        w: usize,
        lane: u32,
        slot: usize,
        address: u32,
        init: bool,
    ) -> Step<()> {
        let Some(touch) = self.race_begin(w, true) else { return Ok(()) };
        let place = Place::Shared(slot, (address - WINDOW) as usize);
        self.race_place(w, &touch, place, 8, 1 << lane, None)?;
        let (block, warp) = (self.number(slot), id(&self.warps[w]));
        if let Some(sanitizer) = self.races.as_mut().filter(|_| init) {
            sanitizer.races.barrier_init((block, address), warp, lane);
            let span = sanitizer.span(slot);
            *span = (span.0.min(address), span.1.max(address + 8));
        }
        Ok(())
    }

    /// A lane uses an mbarrier of a block, itself or through a copy.
    pub(in crate::exec) fn race_barrier_use(
        &mut self,
        w: usize,
        lane: u32,
        slot: usize,
        address: u32,
        asynchronous: bool,
    ) -> Step<()> {
        let (block, warp) = (self.number(slot), id(&self.warps[w]));
        let Some(sanitizer) = self.races.as_mut() else { return Ok(()) };
        sanitizer.races.barrier_seen((block, address), warp, lane, asynchronous).or_else(|unseen| {
            let fence = unseen == Unseen::Unfenced;
            let kind = FaultKind::BarrierUnseen { address, fence };
            self.tolerate(Trouble { kind, lane: Some(lane) }, (self.current_pc, u32::MAX), None)
        })
    }

    /// Lanes arrive at mbarriers: those that name the same one arrive together.
    pub(in crate::exec) fn race_barrier_arrivals(
        &mut self,
        w: usize,
        lanes: &[(u32, usize, u32)],
    ) -> Step<()> {
        self.for_each_barrier(w, lanes, |races, place, warp, live, mask| {
            races.barrier_arrive(place, warp, mask, live);
        })
    }

    /// Lanes look at mbarriers; those of `over` see that a phase is over.
    pub(in crate::exec) fn race_barrier_wait(
        &mut self,
        w: usize,
        lanes: &[(u32, usize, u32)],
        over: u32,
    ) -> Step<()> {
        self.for_each_barrier(w, lanes, |races, place, warp, live, mask| {
            if mask & over != 0 {
                races.barrier_wait(place, warp, mask & over, live);
            }
        })
    }

    /// Checks that lanes may use their barriers, then tells of each barrier and its lanes, unless the instruction is
    /// relaxed.
    fn for_each_barrier(
        &mut self,
        w: usize,
        lanes: &[(u32, usize, u32)],
        tell: impl Fn(&mut Races, (u32, u32), u32, u32, u32),
    ) -> Step<()> {
        if self.races.is_none() {
            return Ok(());
        }
        let relaxed = self.order(&self.program.ops[self.current_pc as usize]) == Order::Relaxed;
        let mut told = 0u32;
        for &(first, slot, address) in lanes {
            if told >> first & 1 == 1 {
                continue;
            }
            let same = |l: &&(u32, usize, u32)| (l.1, l.2) == (slot, address);
            let same = lanes.iter().filter(same).fold(0u32, |m, l| m | 1 << l.0);
            told |= same;
            for lane in (0..32).filter(|&l| same >> l & 1 == 1) {
                self.race_barrier_use(w, lane, slot, address, false)?;
            }
            let (block, warp, live) = (self.number(slot), id(&self.warps[w]), self.warps[w].live);
            if let Some(sanitizer) = self.races.as_mut().filter(|_| !relaxed) {
                tell(&mut sanitizer.races, (block, address), warp, live, same);
            }
        }
        Ok(())
    }

    /// A phase of an mbarrier is over.
    pub(in crate::exec) fn race_barrier_turn(&mut self, slot: usize, address: u32) {
        let block = self.number(slot);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.barrier_turn((block, address));
        }
    }
}
