//! Barriers of blocks and clusters, and mbarriers: who arrives leaves what it knows to those who pass.

use super::clock::{Key, Know, Space};
use super::lanes::Scope;
use super::{Races, lanes_of};

/// Why an mbarrier may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unseen {
    /// Its initialisation does not happen before.
    Unordered,
    /// No fence made it visible to the async proxy.
    Unfenced,
}

/// Something that collects knowledge and hands it on when a phase ends.
#[derive(Debug, Default)]
pub(super) struct Phased {
    gathering: Know,
    done: Know,
}

/// An mbarrier.
#[derive(Debug)]
pub(super) struct Barrier {
    pub(super) phased: Phased,
    /// Agent of the copies that it counts; its clock counts completed phases.
    pub(super) agent: Key,
    pub(super) clock: u32,
    /// Warp, lane and clock of its initialisation.
    pub(super) init: (u32, u32, u32),
    pub(super) fenced: bool,
    /// The clock by which the last copy is counted, the copy's warp and operation, and the clock that waiters saw.
    pub(super) counted: (u32, u32, u32),
    pub(super) watched: u32,
}

impl Races {
    /// Arrival at a barrier `id` of a block (or of a cluster, by a number that no barrier has).
    pub(crate) fn arrive(&mut self, place: (u32, u32), warp: u32, mask: u32, live: u32) {
        let know = self.lanes(warp).release(mask, live);
        self.phased.entry(place).or_default().gathering.join(&know);
    }

    /// A relaxed arrival carries what fences of its lanes made of their past: all of it, or the initialisation of
    /// mbarriers only.
    pub(crate) fn arrive_relaxed(&mut self, place: (u32, u32), warp: u32, mask: u32) {
        let mut know = Know::default();
        for lane in (0..32).filter(|&l| mask >> l & 1 == 1) {
            if let Some(carried) = self.lanes(warp).carried(lane, Scope::Cluster) {
                know.join(&carried);
            }
        }
        for barrier in self.barriers.values() {
            let (by, lane, clock) = barrier.init;
            if barrier.fenced && by == warp && mask >> lane & 1 == 1 {
                know.inits.raise(Key::lane(by, lane), clock);
            }
        }
        self.phased.entry(place).or_default().gathering.join(&know);
    }

    /// The barrier opens.
    pub(crate) fn open(&mut self, place: (u32, u32)) {
        let phased = self.phased.entry(place).or_default();
        phased.done = std::mem::take(&mut phased.gathering);
    }

    /// Passing an open barrier; lanes of a warp that pass together are ordered, too.
    pub(crate) fn pass(&mut self, place: (u32, u32), warp: u32, mask: u32, live: u32, foreign: bool) {
        if let Some(phased) = self.phased.get(&place) {
            let mut know = phased.done.clone();
            know.foreign |= foreign;
            self.lanes(warp).acquire(mask, live, &know);
        }
    }

    /// `mbarrier.init`.
    pub(crate) fn barrier_init(&mut self, place: (u32, u32), warp: u32, lane: u32) {
        let clock = self.lanes(warp).clock;
        let agent = match self.barriers.get(&place) {
            Some(old) => (old.agent, old.clock),
            None => (self.new_agent(), 0),
        };
        let barrier = Barrier {
            phased: Phased::default(),
            agent: agent.0,
            clock: agent.1,
            init: (warp, lane, clock),
            fenced: false,
            counted: (0, 0, 0),
            watched: 0,
        };
        self.barriers.insert(place, barrier);
    }

    /// Warp and operation of a copy into a block's shared memory for which nobody has waited.
    pub(crate) fn unwatched(&self, block: u32) -> Option<(u32, u32)> {
        let left = self.barriers.iter().filter(|(place, b)| place.0 == block && b.counted.0 > b.watched);
        left.min_by_key(|(place, _)| place.1).map(|(_, b)| (b.counted.1, b.counted.2))
    }

    /// `fence.mbarrier_init`, or a proxy fence that covers shared memory.
    pub(crate) fn barriers_fenced(&mut self, warp: u32, mask: u32) {
        for barrier in self.barriers.values_mut() {
            barrier.fenced |= barrier.init.0 == warp && mask >> barrier.init.1 & 1 == 1;
        }
    }

    /// Whether a lane may use an mbarrier, itself or through a copy.
    pub(crate) fn barrier_seen(
        &mut self,
        place: (u32, u32),
        warp: u32,
        lane: u32,
        asynchronous: bool,
    ) -> Result<(), Unseen> {
        let Some(barrier) = self.barriers.get(&place) else { return Ok(()) };
        let ((by, who, clock), fenced) = (barrier.init, barrier.fenced);
        let own = by == warp && who == lane;
        let know = self.lanes(warp).of(lane);
        if !own && !know.base.knows(by, 1 << who, clock) && !know.inits.knows(by, 1 << who, clock) {
            return Err(Unseen::Unordered);
        }
        if asynchronous && !fenced && !know.fenced[Space::Shared as usize].knows(by, 1 << who, clock) {
            return Err(Unseen::Unfenced);
        }
        Ok(())
    }

    /// Arrival at an mbarrier, a release.
    pub(crate) fn barrier_arrive(&mut self, place: (u32, u32), warp: u32, mask: u32, live: u32) {
        let mut know = self.lanes(warp).release(mask, live);
        know.foreign |= place.0 != self.layout.block(warp);
        if let Some(barrier) = self.barriers.get_mut(&place) {
            barrier.phased.gathering.join(&know);
        }
    }

    /// An mbarrier's phase is over.
    pub(crate) fn barrier_turn(&mut self, place: (u32, u32)) {
        if let Some(barrier) = self.barriers.get_mut(&place) {
            barrier.clock += 1;
            let gathered = std::mem::take(&mut barrier.phased.gathering);
            barrier.phased.done.join(&gathered);
            barrier.phased.done.base.raise(barrier.agent, barrier.clock);
        }
    }

    /// The lanes of `mask` know what an mbarrier counted up to `clock`.
    pub(crate) fn observe_barrier(&mut self, warp: u32, mask: u32, live: u32, place: (u32, u32), clock: u32) {
        if let Some(agent) = self.barriers.get(&place).map(|barrier| barrier.agent) {
            self.lanes(warp).observe(mask, live, agent, clock);
        }
    }

    /// The lanes of `mask` have seen that a phase is over.
    pub(crate) fn barrier_wait(&mut self, place: (u32, u32), warp: u32, mask: u32, live: u32) {
        let Some(barrier) = self.barriers.get_mut(&place) else { return };
        barrier.watched = barrier.clock;
        lanes_of(&mut self.warps, warp).acquire(mask, live, &barrier.phased.done);
    }
}
