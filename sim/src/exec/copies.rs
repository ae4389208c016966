//! `cp.async`: every thread copies a few bytes from global to shared memory, some time before it waits for them.

use super::access::Place;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Copy, Space};
use crate::memory::SHARED_WINDOW;
use crate::row::{Row, Row64};
use crate::schedule::Policy;

/// What the threads of a warp have asked for and not yet got.
#[derive(Debug)]
pub(super) struct Pending {
    warp: usize,
    /// Lanes that still wait.
    lanes: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    Copy {
        /// Groups that each lane had closed before.
        groups: Box<Row64>,
        /// Offset in shared memory.
        to: Box<Row>,
        from: Box<Row64>,
        bytes: u32,
        /// Bytes of the source; the rest is zero.
        source_bytes: Box<Row>,
    },
    /// Arrives at an mbarrier when every earlier copy of its lane is complete.
    Arrive { barriers: Vec<(u32, usize, u32)> },
}

impl Grid<'_> {
    pub(super) fn copy(&mut self, w: usize, mask: u32, copy: &Copy) -> Step<()> {
        match copy {
            Copy::Issue { .. } => self.issue_copy(w, mask, copy),
            Copy::Commit => {
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    self.warps[w].copy_groups[lane] += 1;
                }
                Ok(())
            }
            Copy::Wait { pending } => {
                let limits = self.warps[w].copy_groups.map(|g| g.saturating_sub(u64::from(*pending)));
                self.wait_copies(w, mask, &limits)
            }
            Copy::WaitAll => self.wait_copies(w, mask, &[u64::MAX; 32]),
            Copy::Arrive { at, counted } => {
                let barriers = self.barrier_lanes(w, at, mask, false)?;
                if !counted {
                    for &(lane, slot, address) in &barriers {
                        self.expect_arrival(slot, address, lane)?;
                    }
                }
                self.race_count_copies(w, &barriers)?;
                self.enqueue(w, mask, What::Arrive { barriers })
            }
        }
    }

    fn issue_copy(&mut self, w: usize, mask: u32, copy: &Copy) -> Step<()> {
        let Copy::Issue { to, from, bytes, source_bytes, ignore } = copy else {
            unreachable!("only copies come here");
        };
        let (targets, sources) = (self.addresses(w, to, mask)?, self.addresses(w, from, mask)?);
        let mut sizes = self.sure32(w, *source_bytes, mask, "a copy's source size")?;
        if let Some(p) = ignore {
            let ignored = self.decision(w, *p, mask, "a copy's ignore-src")?;
            (0..32).filter(|i| ignored >> i & 1 == 1).for_each(|i| sizes[i] = 0);
        }
        let mut offsets = [0; 32];
        let slot = self.slot(w);
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            let fault = |kind| Trouble { kind, lane: Some(lane as u32) };
            if sizes[lane] > *bytes {
                let what = format!("a copy of {bytes} bytes from a source of {}", sizes[lane]);
                return Err(fault(FaultKind::Barrier(what)));
            }
            let target = targets[lane];
            let target = if target >= SHARED_WINDOW { target - SHARED_WINDOW } else { target };
            for address in [target, sources[lane]] {
                if address % u64::from(*bytes) != 0 {
                    return Err(fault(FaultKind::Misaligned { address, align: *bytes }));
                }
            }
            let Place::Shared(_, at) = self.locate(w, lane, Space::Shared, target, *bytes)? else {
                unreachable!("shared addresses are in shared memory");
            };
            if sizes[lane] > 0 {
                self.locate(w, lane, Space::Global, sources[lane], sizes[lane])?;
            }
            // Poison until the bytes arrive.
            let shared = &mut self.blocks[slot].shared;
            shared.data[at..at + *bytes as usize].fill(0xff);
            shared.defined.put(at, *bytes as usize, false);
            offsets[lane] = at as u32;
        }
        self.race_issue_copies(w, mask, &offsets, &sources, *bytes, &sizes)?;
        let reading = (0..32).filter(|&i| mask >> i & 1 == 1 && sizes[i] > 0).fold(0, |m, i| m | 1 << i);
        if reading != 0 {
            self.count_access(Space::Global, &sources, reading, *bytes, false);
            for lane in (0..32).filter(|&i| reading >> i & 1 == 1) {
                self.touch(w, Space::Global, &sources, 1 << lane, sizes[lane], false);
            }
        }
        self.count_access(Space::Shared, &targets, mask, *bytes, true);
        let groups = Box::new(self.warps[w].copy_groups);
        let (to, from) = (Box::new(offsets), Box::new(sources));
        self.enqueue(w, mask, What::Copy { groups, to, from, bytes: *bytes, source_bytes: Box::new(sizes) })
    }

    fn enqueue(&mut self, w: usize, lanes: u32, what: What) -> Step<()> {
        let slot = self.slot(w);
        self.blocks[slot].copies.push_back(Pending { warp: w, lanes, what });
        if self.schedule.tma == Policy::Eager { self.finish_copies(slot) } else { Ok(()) }
    }

    /// The lanes go on when their copies of the groups before their limits are complete.
    fn wait_copies(&mut self, w: usize, mask: u32, limits: &Row64) -> Step<()> {
        let slot = self.slot(w);
        let mut index = 0;
        while let Some(pending) = self.blocks[slot].copies.get(index) {
            let due = match &pending.what {
                What::Copy { groups, .. } if pending.warp == w => (0..32)
                    .filter(|&i| mask >> i & 1 == 1 && groups[i] < limits[i])
                    .fold(0, |m, i| m | 1 << i),
                _ => 0,
            };
            if due & pending.lanes == 0 || !self.finish_copy(slot, index, due)? {
                index += 1;
            }
        }
        self.race_wait_copies(w, mask, limits);
        Ok(())
    }

    /// Completes everything, in order.
    pub(super) fn finish_copies(&mut self, slot: usize) -> Step<()> {
        while self.finish_first_copy(slot)? {}
        Ok(())
    }

    pub(super) fn finish_first_copy(&mut self, slot: usize) -> Step<bool> {
        if self.blocks[slot].copies.is_empty() {
            return Ok(false);
        }
        self.finish_copy(slot, 0, u32::MAX)
    }

    /// Completes some pending copy or arrival, drawn from the seed.
    pub(super) fn finish_some_copy(&mut self, slot: usize) -> Step<()> {
        let count = self.blocks[slot].copies.len();
        if count == 0 || self.random.below(4) != 0 {
            return Ok(());
        }
        let pick = self.random.below(count);
        let Pending { warp, lanes, what } = &self.blocks[slot].copies[pick];
        if let What::Arrive { .. } = what {
            // Only behind every earlier copy of these lanes.
            let (warp, lanes) = (*warp, *lanes);
            let (mut index, mut until) = (0, pick);
            while index < until {
                let earlier = &self.blocks[slot].copies[index];
                if earlier.warp == warp
                    && earlier.lanes & lanes != 0
                    && self.finish_copy(slot, index, lanes)?
                {
                    until -= 1;
                } else {
                    index += 1;
                }
            }
            self.finish_copy(slot, until, u32::MAX)?;
            return Ok(());
        }
        self.finish_copy(slot, pick, u32::MAX)?;
        Ok(())
    }

    /// Completes one entry for some lanes; true when it is gone.
    fn finish_copy(&mut self, slot: usize, index: usize, lanes: u32) -> Step<bool> {
        let entry = &mut self.blocks[slot].copies[index];
        let now = entry.lanes & lanes;
        entry.lanes &= !lanes;
        let gone = entry.lanes == 0;
        let what = if gone {
            self.blocks[slot].copies.remove(index).expect("the entry is there").what
        } else {
            std::mem::replace(&mut entry.what, What::Arrive { barriers: Vec::new() })
        };
        match &what {
            What::Copy { to, from, bytes, source_bytes, .. } => {
                for lane in (0..32).filter(|&i| now >> i & 1 == 1) {
                    self.land(
                        slot,
                        to[lane] as usize,
                        from[lane],
                        *bytes as usize,
                        source_bytes[lane] as usize,
                    );
                }
            }
            What::Arrive { barriers } => {
                for &(lane, slot, address) in barriers.iter().filter(|(lane, ..)| now >> lane & 1 == 1) {
                    self.arrive_at(slot, address, lane)?;
                }
            }
        }
        if !gone {
            self.blocks[slot].copies[index].what = what;
        }
        Ok(gone)
    }

    /// The bytes arrive.
    fn land(&mut self, slot: usize, at: usize, from: u64, bytes: usize, source_bytes: usize) {
        let shared = &mut self.blocks[slot].shared;
        shared.data[at..at + bytes].fill(0);
        shared.defined.put(at, bytes, true);
        if source_bytes == 0 {
            return;
        }
        let (allocation, from) = self
            .global
            .locate(from, source_bytes as u64)
            .expect("checked at issue, and nothing is freed in a launch");
        let allocation = self.global.slot(allocation);
        shared.data[at..at + source_bytes].copy_from_slice(&allocation.data[from..from + source_bytes]);
        let defined = allocation.defined(from, source_bytes);
        if self.schedule.checks && defined != (1 << source_bytes) - 1 {
            for i in 0..source_bytes {
                shared.defined.put(at + i, 1, defined >> i & 1 == 1);
            }
        }
    }
}
