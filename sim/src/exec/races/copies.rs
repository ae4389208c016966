//! Copies and wgmma, for the race checker.

use super::id;
use crate::exec::access::Place;
use crate::exec::asynchronous::Source;
use crate::exec::sent::Sent;
use crate::exec::{Grid, Step, Trouble};
use crate::fault::{FaultKind, TENSOR_MAP};
use crate::lower::program::Space;
use crate::memory::shared::WINDOW;
use crate::race::{Access, Agent, Know, Manner, Races, Region, Scope, Spot};
use crate::row::{Row, Row64};
use crate::schedule::InFlight;
use crate::tma::Segment;

/// A copy as it was issued.
#[derive(Debug)]
pub(in crate::exec) struct Issued {
    /// By number of the block that gets it: the write in flight.
    writes: Vec<(u32, Access)>,
    know: Know,
    warp: u32,
    w: usize,
    lane: u32,
    pc: u32,
}

/// A `cp.async` of a lane that has not waited for it.
#[derive(Debug)]
pub(super) struct Flying {
    lane: u32,
    group: u64,
    access: Access,
    spot: Spot,
    pc: u32,
    /// The mbarrier that counts it, and the barrier's clock by then.
    counted: Option<((u32, u32), u32)>,
}

impl Grid<'_> {
    /// A lane issues a copy whose tensor map lies at an address.
    pub(in crate::exec) fn race_map(&mut self, w: usize, lane: u32, address: u64) -> Step<()> {
        if self.races.is_none() {
            return Ok(());
        }
        let Place::Global(slot, at) = self.locate(w, lane as usize, Space::Generic, address, 128)? else {
            return Ok(());
        };
        let (warp, pc) = (id(&self.warps[w]), self.current_pc);
        let Some(sanitizer) = self.races.as_mut() else { return Ok(()) };
        let spot = Spot { region: Region::Global(slot), at, bytes: 128 };
        let result = sanitizer.races.access_map(warp, pc, lane, spot);
        result.map_err(|clash| {
            let mut trouble = self.clash(&clash);
            if let FaultKind::Proxy { space, .. } = &mut trouble.kind {
                *space = TENSOR_MAP;
            }
            trouble
        })
    }

    /// A lane issues a copy into the shared memory of blocks, which an mbarrier in each of them counts.
    pub(in crate::exec) fn race_issue_load(
        &mut self,
        w: usize,
        lane: u32,
        source: &Source,
        targets: &[usize],
        barrier: u32,
    ) -> Step<Option<Issued>> {
        let (warp, pc) = (id(&self.warps[w]), self.current_pc);
        let Some(sanitizer) = self.races.as_mut() else { return Ok(None) };
        let know = sanitizer.races.lanes(warp).of(lane).clone();
        let mut writes = Vec::new();
        for &slot in targets {
            self.race_barrier_use(w, lane, slot, barrier, true)?;
            // What is sent from register or shared memory is looked at when it arrives.
            let Source::Global { segments, .. } = source else { continue };
            for segment in segments {
                let at = (segment.shared - WINDOW) as usize;
                self.off_barriers(slot, at, segment.bytes as usize, 1 << lane)?;
            }
            let block = self.number(slot);
            let Some(sanitizer) = self.races.as_mut() else { continue };
            let races = &mut sanitizer.races;
            let write = races.begin_copy((block, barrier), false, warp, pc, Manner::ASYNC_WRITE);
            let result = segments.iter().try_for_each(|segment| {
                let (at, bytes) = ((segment.shared - WINDOW) as usize, segment.bytes as usize);
                races.access_async(
                    &write,
                    &know,
                    Some(lane),
                    Spot { region: Region::Shared(block), at, bytes },
                )
            });
            if let Err(clash) = result {
                self.found(&clash, None)?;
            }
            writes.push((block, write));
        }
        Ok(Some(Issued { writes, know, w, warp, lane, pc }))
    }

    /// The copy's bytes have arrived in a block.
    pub(in crate::exec) fn race_finish_load(
        &mut self,
        issued: &Issued,
        source: &Source,
        slot: usize,
        barrier: u32,
    ) -> Step<()> {
        let block = self.number(slot);
        let (warp, pc) = (issued.warp, issued.pc);
        let Some(mut sanitizer) = self.races.take() else { return Ok(()) };
        let races = &mut sanitizer.races;
        let place = (block, barrier);
        let begin = |races: &mut Races, manner| races.begin_copy(place, true, warp, pc, manner);
        let read = begin(races, Manner::ASYNC_READ);
        let mut accesses = Vec::new();
        match source {
            Source::Global { segments, .. } => {
                let written = begin(races, Manner::ASYNC_WRITE);
                let flying = issued.writes.iter().find(|write| write.0 == block);
                for segment in segments {
                    let (at, bytes) = ((segment.shared - WINDOW) as usize, segment.bytes as usize);
                    if let Some((_, flying)) = flying {
                        races.complete(
                            flying,
                            &written,
                            Spot { region: Region::Shared(block), at, bytes },
                            0,
                        );
                    }
                    if let Some(address) = segment.global
                        && let Some((slot, at)) = self.global.locate(address, bytes as u64)
                    {
                        accesses.push((read, Spot { region: Region::Global(slot), at, bytes }));
                    }
                }
            }
            Source::Sent(sent) => {
                let (to, bytes, plain) = sent.destination();
                let shared = |block, at: u32, bytes: u32| Spot {
                    region: Region::Shared(block),
                    at: (at - WINDOW) as usize,
                    bytes: bytes as usize,
                };
                let manner = match sent {
                    Sent::Copy { slot, from, .. } => {
                        accesses.push((read, shared(self.number(*slot), *from, bytes)));
                        Manner::ASYNC_WRITE
                    }
                    _ if plain => Manner::WRITE,
                    _ => Manner { strong: Some(Scope::Cluster), ..Manner::WRITE },
                };
                accesses.push((begin(races, manner), shared(block, to, bytes)));
            }
        }
        let result = accesses.iter().try_for_each(|(access, spot)| {
            races.access_async(access, &issued.know, Some(issued.lane), *spot)
        });
        self.races = Some(sanitizer);
        // Its instruction is to blame, not the running one.
        result.or_else(|clash| self.found(&clash, Some((issued.w, issued.pc))))
    }

    /// A lane issues a store of a bulk group.
    pub(in crate::exec) fn race_issue_store(
        &mut self,
        w: usize,
        lane: u32,
        group: u64,
        segments: &[Segment],
        strong: bool,
    ) -> Step<()> {
        let (block, warp, pc) = (self.number(self.slot(w)), id(&self.warps[w]), self.current_pc);
        let Some(mut sanitizer) = self.races.take() else { return Ok(()) };
        let races = &mut sanitizer.races;
        let know = races.lanes(warp).of(lane).clone();
        let clock = group as u32 + 1;
        let reading = Agent::StoreRead(warp, lane);
        let read = races.begin_async(reading, clock, warp, pc, Manner::ASYNC_READ);
        let strong = strong.then_some(Scope::Card);
        let manner = Manner { strong, ..Manner::ASYNC_WRITE };
        let written = races.begin_async(Agent::StoreWrite(warp, lane), clock, warp, pc, manner);
        let mut result = Ok(());
        for segment in segments.iter() {
            let (at, bytes) = ((segment.shared - WINDOW) as usize, segment.bytes as usize);
            let shared = Region::Shared(block);
            result = result.and_then(|()| {
                races.access_async(&read, &know, Some(lane), Spot { region: shared, at, bytes })
            });
            if let Some((slot, at)) =
                segment.global.and_then(|address| self.global.locate(address, u64::from(segment.bytes)))
            {
                let global = Region::Global(slot);
                result = result.and_then(|()| {
                    races.access_async(&written, &know, Some(lane), Spot { region: global, at, bytes })
                });
            }
        }
        sanitizer.stores.insert((warp, lane), pc);
        self.races = Some(sanitizer);
        result.or_else(|clash| self.found(&clash, None))
    }

    /// Lanes exit: nobody can wait any more for what they have in flight.
    pub(in crate::exec) fn leaves_nothing(&mut self, w: usize, mask: u32) -> Step<()> {
        let strict = self.schedule.in_flight == InFlight::Strict;
        if mask == self.warps[w].live
            && let Some(&(_, pc)) = self.warps[w].wgmma_held.first()
        {
            let what = "a warp exits before it has waited for its wgmma".to_owned();
            if strict {
                self.blame = Some((w, pc));
                return Err(FaultKind::Exit(what).into());
            }
            self.warnings.insert(what);
        }
        let warp = id(&self.warps[w]);
        let Some(sanitizer) = self.races.as_mut() else { return Ok(()) };
        for lane in (0..32).filter(|&l| mask >> l & 1 == 1) {
            let Some(pc) = sanitizer.stores.remove(&(warp, lane)) else { continue };
            let what = "a thread exits before its bulk stores have read shared memory".to_owned();
            if strict {
                self.blame = Some((w, pc));
                return Err(Trouble { kind: FaultKind::Exit(what), lane: Some(lane) });
            }
            self.warnings.insert(what);
            return Ok(());
        }
        Ok(())
    }

    /// A block ends: somebody must have waited for every copy into its shared memory.
    pub(in crate::exec) fn race_unwatched(&mut self, slot: usize) -> Step<()> {
        let block = self.number(slot);
        let Some((warp, pc)) = self.races.as_ref().and_then(|s| s.races.unwatched(block)) else {
            return Ok(());
        };
        let what = "a block ends without having waited for a copy into its shared memory".to_owned();
        if self.schedule.in_flight == InFlight::Compatible {
            self.warnings.insert(what);
            return Ok(());
        }
        let by = self.warps.iter().position(|w| id(w) == warp).unwrap_or(slot * self.per_block);
        self.blame = Some((by, pc));
        Err(FaultKind::Exit(what).into())
    }

    /// A lane has waited for its bulk groups before `limit`, or for their reads.
    pub(in crate::exec) fn race_wait_stores(&mut self, w: usize, lane: u32, limit: u64, read: bool) {
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        let committed = self.warps[w].bulk.get(&lane).map_or(0, |g| g.committed);
        let Some(sanitizer) = self.races.as_mut() else { return };
        if limit >= committed {
            sanitizer.stores.remove(&(warp, lane));
        }
        let races = &mut sanitizer.races;
        races.observe(warp, 1 << lane, live, Agent::StoreRead(warp, lane), limit as u32);
        if !read {
            races.observe(warp, 1 << lane, live, Agent::StoreWrite(warp, lane), limit as u32);
        }
    }

    /// A warpgroup issues a wgmma: each warp reads ranges of shared memory.
    pub(in crate::exec) fn race_wgmma(
        &mut self,
        first: usize,
        group: u64,
        ranges: &[Vec<std::ops::Range<u32>>; 4],
    ) -> Step<()> {
        let (block, pc) = (self.number(self.slot(first)), self.current_pc);
        let Some(mut sanitizer) = self.races.take() else { return Ok(()) };
        let races = &mut sanitizer.races;
        let agent = Agent::Wgmma(id(&self.warps[first]));
        let mut result = Ok(());
        for (member, ranges) in ranges.iter().enumerate() {
            let warp = id(&self.warps[first + member]);
            let know = races.lanes(warp).together();
            let read = races.begin_async(agent, group as u32 + 1, warp, pc, Manner::ASYNC_READ);
            for range in ranges {
                let (at, bytes) = (range.start as usize, (range.end - range.start) as usize);
                let region = Region::Shared(block);
                result = result.and_then(|()| {
                    races
                        .access_async(&read, &know, None, Spot { region, at, bytes })
                        .map_err(|clash| (member, clash))
                });
            }
        }
        self.races = Some(sanitizer);
        result.or_else(|(member, clash)| self.found(&clash, Some((first + member, pc))))
    }

    /// A warp has waited for the wgmma groups of its warpgroup before `limit`.
    pub(in crate::exec) fn race_wait_wgmma(&mut self, w: usize, limit: u64) {
        let first = w - self.warps[w].index as usize % 4;
        let (leader, warp) = (id(&self.warps[first]), id(&self.warps[w]));
        let live = self.warps[w].live;
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.observe(warp, live, live, Agent::Wgmma(leader), limit as u32);
        }
    }

    /// Lanes issue `cp.async`: what they read is read now, what they write is in flight until they wait.
    pub(in crate::exec) fn race_issue_copies(
        &mut self,
        w: usize,
        mask: u32,
        to: &Row,
        from: &Row64,
        bytes: u32,
        source_bytes: &Row,
    ) -> Step<()> {
        let slot = self.slot(w);
        let Some(read) = self.race_begin(w, false) else { return Ok(()) };
        let (block, warp, pc) = (self.number(slot), id(&self.warps[w]), self.current_pc);
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            let at = to[lane] as usize;
            self.off_barriers(slot, at, bytes as usize, 1 << lane)?;
            if source_bytes[lane] > 0
                && let Some((slot, at)) = self.global.locate(from[lane], u64::from(source_bytes[lane]))
            {
                let place = Place::Global(slot, at);
                self.race_touch(w, &read, place, source_bytes[lane] as usize, 1 << lane, None)?;
            }
            let group = self.warps[w].copy_groups[lane];
            let spot = Spot { region: Region::Shared(block), at, bytes: bytes as usize };
            let Some(sanitizer) = self.races.as_mut() else { return Ok(()) };
            let access = sanitizer.races.begin_unseen(warp, pc, Manner::WRITE);
            let know = sanitizer.races.lanes(warp).of(lane as u32).clone();
            let result = sanitizer.races.access_async(&access, &know, Some(lane as u32), spot);
            let flying = Flying { lane: lane as u32, group, access, spot, pc, counted: None };
            sanitizer.flying.entry(warp).or_default().push(flying);
            result.or_else(|clash| self.found(&clash, None))?;
        }
        Ok(())
    }

    /// The lanes of `mask` have waited for their copies of the groups before their limits.
    pub(in crate::exec) fn race_wait_copies(&mut self, w: usize, mask: u32, limits: &Row64) {
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        let Some(sanitizer) = self.races.as_mut() else { return };
        let (races, flying) = (&mut sanitizer.races, sanitizer.flying.entry(warp).or_default());
        flying.retain(|copy| {
            if mask >> copy.lane & 1 == 0 || copy.group >= limits[copy.lane as usize] {
                return true;
            }
            match copy.counted {
                Some((barrier, clock)) => races.observe_barrier(warp, 1 << copy.lane, live, barrier, clock),
                None => {
                    // From now on they are like stores of the lane.
                    let done = races.begin(warp, copy.pc, Manner::WRITE);
                    races.complete(&copy.access, &done, copy.spot, copy.lane);
                }
            }
            false
        });
    }

    /// `cp.async.mbarrier.arrive`: the lanes' copies are seen by whoever waits for the barriers' present phase.
    pub(in crate::exec) fn race_count_copies(
        &mut self,
        w: usize,
        barriers: &[(u32, usize, u32)],
    ) -> Step<()> {
        let warp = id(&self.warps[w]);
        for &(lane, slot, address) in barriers {
            self.race_barrier_use(w, lane, slot, address, false)?;
            let place = (self.number(slot), address);
            let Some(sanitizer) = self.races.as_mut() else { return Ok(()) };
            let (races, flying) = (&mut sanitizer.races, sanitizer.flying.entry(warp).or_default());
            for copy in flying.iter_mut().filter(|copy| copy.lane == lane && copy.counted.is_none()) {
                let counted = races.begin_copy(place, true, warp, copy.pc, Manner::WRITE);
                races.complete(&copy.access, &counted, copy.spot, 0);
                copy.counted = Some((place, counted.clock()));
            }
        }
        Ok(())
    }
}
