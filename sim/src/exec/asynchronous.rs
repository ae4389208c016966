//! Bulk copies: issued by a lane, completed when the schedule says.

use super::races::Issued;
use super::sent::Sent;
use super::step::Flow;
use super::stores::combination;
use super::warp::Split;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Address, Kind, Op, S32, Space};
use crate::profiler::Access;
use crate::schedule::Policy;
use crate::tensor_map::TensorMap;
use crate::tma::{self, Segment};

/// A load whose bytes have not arrived.
#[derive(Debug)]
pub(super) struct PendingLoad {
    pub(super) source: Source,
    /// Slots of the blocks that get the bytes, each in its own shared memory.
    pub(super) targets: Vec<usize>,
    /// Address of the mbarrier in each of them, and the bytes that it counts.
    pub(super) barrier: u32,
    pub(super) bytes: u32,
    issued: Option<Issued>,
}

/// The way of a load into shared memory.
pub(super) struct Route {
    /// Slots of the blocks that get it.
    pub(super) targets: Vec<usize>,
    /// Address of the first byte and of the mbarrier, in each of them.
    pub(super) to: u32,
    pub(super) barrier: u32,
}

/// Where a load's bytes come from, and where they go in a block's shared memory.
#[derive(Debug)]
pub(super) enum Source {
    Global { segments: Vec<Segment>, fill: [u8; 8] },
    Sent(Sent),
}

impl PendingLoad {
    /// Whether it reads or writes a block's shared memory.
    pub(super) fn uses(&self, slot: usize) -> bool {
        self.targets.contains(&slot) || matches!(&self.source, Source::Sent(sent) if sent.reads(slot))
    }
}

impl Grid<'_> {
    pub(super) fn asynchronous(&mut self, w: usize, split: &mut Split, op: &Op, mask: u32) -> Step<Flow> {
        match &op.kind {
            Kind::TensorLoad { to, map, coordinates, barrier, multicast } => {
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (map, at) = self.tensor_operands(w, lane, map, coordinates)?;
                    let route = self.route(w, lane, to, barrier, *multicast)?;
                    let segments = tma::segments(&map, &at, route.to, false).map_err(|e| illegal(e, lane))?;
                    let source = Source::Global { segments, fill: map.fill_pattern() };
                    self.issue_load(w, lane, source, route, tma::box_bytes(&map))?;
                }
            }
            Kind::BulkLoad { to, from, bytes, barrier, multicast } => {
                let sizes = self.sure32(w, *bytes, mask, "a bulk copy's size")?;
                let sources = self.addresses(w, from, mask)?;
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (global, bytes) = (sources[lane as usize], sizes[lane as usize]);
                    let route = self.route(w, lane, to, barrier, *multicast)?;
                    check_bulk([global, u64::from(route.to), u64::from(bytes)], lane)?;
                    let segments = vec![Segment { global: Some(global), shared: route.to, bytes }];
                    self.issue_load(w, lane, Source::Global { segments, fill: [0; 8] }, route, bytes)?;
                }
            }
            Kind::BulkSend { .. } | Kind::Send { .. } => self.send(w, &op.kind, mask)?,
            Kind::TensorPrefetch { map, coordinates } => {
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (map, at) = self.tensor_operands(w, lane, map, coordinates)?;
                    // No shared address to be wrong.
                    let segments = tma::segments(&map, &at, 1024, false).map_err(|e| illegal(e, lane))?;
                    self.prefetch(&segments, lane)?;
                }
            }
            Kind::BulkPrefetch { from, bytes } => {
                let sizes = self.sure32(w, *bytes, mask, "a bulk prefetch's size")?;
                let sources = self.addresses(w, from, mask)?;
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (global, bytes) = (sources[lane as usize], sizes[lane as usize]);
                    check_bulk([global, 0, u64::from(bytes)], lane)?;
                    self.prefetch(&[Segment { global: Some(global), shared: 0, bytes }], lane)?;
                }
            }
            Kind::TensorStore { map, coordinates, from, reduce } => {
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (map, at) = self.tensor_operands(w, lane, map, coordinates)?;
                    let from = self.shared_address(w, from, lane)?;
                    let segments = tma::segments(&map, &at, from, true).map_err(|e| illegal(e, lane))?;
                    let reduce = reduce.map(|rmw| combination(rmw, map.element)).transpose();
                    self.issue_store(w, lane, segments, reduce.map_err(|e| illegal(e, lane))?)?;
                }
            }
            Kind::BulkStore { to, from, bytes, reduce } => {
                let sizes = self.sure32(w, *bytes, mask, "a bulk copy's size")?;
                let targets = self.addresses(w, to, mask)?;
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (global, bytes) = (targets[lane as usize], sizes[lane as usize]);
                    let shared = self.shared_address(w, from, lane)?;
                    check_bulk([global, u64::from(shared), u64::from(bytes)], lane)?;
                    let segments = vec![Segment { global: Some(global), shared, bytes }];
                    self.issue_store(w, lane, segments, *reduce)?;
                }
            }
            Kind::BulkCommit => {
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    self.warps[w].bulk.entry(lane).or_default().committed += 1;
                }
            }
            Kind::BulkWait { pending, read } => {
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let committed = self.warps[w].bulk.get(&lane).map_or(0, |g| g.committed);
                    let limit = committed.saturating_sub(u64::from(*pending));
                    self.wait_stores(w, lane, limit, *read)?;
                }
            }
            _ => return self.tensor(w, split, op, mask),
        }
        Ok(Flow::Next)
    }

    /// An address in the block's own shared memory.
    pub(super) fn shared_address(&self, w: usize, at: &Address, lane: u32) -> Step<u32> {
        let address = self.addresses(w, at, 1 << lane)?[lane as usize];
        Ok(self.shared_place(w, lane, address, 1, false)?.1)
    }

    /// Who gets a load, where, and which barrier it counts on.
    pub(super) fn route(
        &self,
        w: usize,
        lane: u32,
        to: &Address,
        barrier: &Address,
        multicast: Option<S32>,
    ) -> Step<Route> {
        let fault = |kind| Trouble { kind, lane: Some(lane) };
        let address = self.addresses(w, to, 1 << lane)?[lane as usize];
        let (slot, to) = self.shared_place(w, lane, address, 1, true)?;
        let (_, owner, barrier) = self.barrier_lanes(w, barrier, 1 << lane, true)?[0];
        if owner != slot {
            let what = "a copy goes to one block and counts on another block's mbarrier".into();
            return Err(fault(FaultKind::Cluster(what)));
        }
        let targets = match multicast {
            None => vec![slot],
            Some(mask) => {
                let mask = self.sure32(w, mask, 1 << lane, "a multicast mask")?[lane as usize] & 0xffff;
                if mask == 0 {
                    return Err(fault(FaultKind::Cluster("a multicast to no block at all".into())));
                }
                let ranks = (0..16).filter(|rank| mask >> rank & 1 == 1);
                ranks.map(|rank| self.live_peer(self.slot(w), rank).map_err(fault)).collect::<Step<_>>()?
            }
        };
        Ok(Route { targets, to, barrier })
    }

    fn tensor_operands(
        &mut self,
        w: usize,
        lane: u32,
        map: &Address,
        at: &[S32],
    ) -> Step<(TensorMap, Vec<i32>)> {
        let address = self.addresses(w, map, 1 << lane)?[lane as usize];
        if address % 64 != 0 {
            return Err(Trouble { kind: FaultKind::Misaligned { address, align: 64 }, lane: Some(lane) });
        }
        let mut bytes = [0; 128];
        for part in 0..16 {
            let place = self.locate(w, lane as usize, Space::Generic, address + 8 * part, 8)?;
            let from = self.bytes_of(w, place, 8);
            bytes[8 * part as usize..][..8].copy_from_slice(from);
        }
        self.map_use(w, lane, map, &bytes)?;
        self.race_map(w, lane, address)?;
        let map = TensorMap::decode(&bytes).map_err(|e| illegal(e, lane))?;
        let mut coordinates = Vec::with_capacity(at.len());
        for &c in at {
            coordinates.push(self.sure32(w, c, 1 << lane, "a tensor coordinate")?[lane as usize] as i32);
        }
        Ok((map, coordinates))
    }

    /// Whether global memory has what a copy names: asked at issue, where the instruction to blame is known.
    pub(super) fn check_global(&self, segments: &[Segment], space: &'static str, lane: u32) -> Step<()> {
        for segment in segments {
            if let Some(address) = segment.global
                && self.global.locate(address, u64::from(segment.bytes)).is_none()
            {
                let kind = FaultKind::OutOfBounds { space, address, bytes: segment.bytes };
                return Err(Trouble { kind, lane: Some(lane) });
            }
        }
        Ok(())
    }

    /// Bytes of memory come into L2. There all multiprocessors see the same, so a prefetch reads nothing that another
    /// access could change behind its back: it is neither a race nor too early before a wait.
    fn prefetch(&mut self, segments: &[Segment], lane: u32) -> Step<()> {
        self.check_global(segments, "global (bulk prefetch)", lane)?;
        let there = segments.iter().filter(|s| s.global.is_some());
        self.counters.bulk_prefetch_bytes += there.map(|s| u64::from(s.bytes)).sum::<u64>();
        self.profile_bulk(segments, Access::Prefetch);
        Ok(())
    }

    pub(super) fn issue_load(
        &mut self,
        w: usize,
        lane: u32,
        source: Source,
        route: Route,
        bytes: u32,
    ) -> Step<()> {
        if let Source::Global { segments, .. } = &source {
            self.check_global(segments, "global (bulk load)", lane)?;
        }
        let Route { targets, barrier, .. } = route;
        for &target in &targets {
            let shared = &mut self.blocks[target].shared;
            let mut reach = |address: u32, len: u32, poison: bool| {
                let Some(at) = shared.locate(address, len) else {
                    let kind =
                        FaultKind::OutOfBounds { space: "shared", address: address.into(), bytes: len };
                    return Err(Trouble { kind, lane: Some(lane) });
                };
                if poison {
                    // Until the bytes arrive.
                    shared.data[at..at + len as usize].fill(0xff);
                    shared.defined.put(at, len as usize, false);
                }
                Ok(())
            };
            match &source {
                Source::Global { segments, .. } => {
                    segments.iter().try_for_each(|s| reach(s.shared, s.bytes, true))?;
                }
                Source::Sent(sent) => {
                    let (at, len, poison) = sent.destination();
                    reach(at, len, poison)?;
                }
            }
        }
        if let Source::Global { segments, .. } = &source {
            self.profile_bulk(segments, Access::Load);
            self.touch_segments(w, segments, false);
        }
        let issued = self.race_issue_load(w, lane, &source, &targets, barrier)?;
        let (slot, load) = (self.slot(w), PendingLoad { source, targets, barrier, bytes, issued });
        if self.schedule.tma == Policy::Eager {
            return self.finish_load(load);
        }
        self.blocks[slot].loads.push_back(load);
        Ok(())
    }

    fn finish_load(&mut self, load: PendingLoad) -> Step<()> {
        for &target in &load.targets {
            match &load.source {
                Source::Global { segments, fill } => self.fill(target, segments, *fill),
                Source::Sent(sent) => self.deliver(target, sent)?,
            }
            if let Some(issued) = &load.issued {
                self.race_finish_load(issued, &load.source, target, load.barrier)?;
            }
            self.complete_bytes(target, load.barrier, load.bytes)?;
        }
        if let Source::Global { segments, .. } = &load.source {
            // One read of global memory, however many blocks get it.
            let read = segments.iter().filter(|s| s.global.is_some());
            self.counters.bulk_load_bytes += read.map(|s| u64::from(s.bytes)).sum::<u64>();
        }
        Ok(())
    }

    /// Brings the bytes of global memory into a block's shared memory.
    fn fill(&mut self, slot: usize, segments: &[Segment], fill: [u8; 8]) {
        let shared = &mut self.blocks[slot].shared;
        for segment in segments {
            let at = shared.locate(segment.shared, segment.bytes).expect("checked at issue");
            let len = segment.bytes as usize;
            let Some(address) = segment.global else {
                for (i, byte) in shared.data[at..at + len].iter_mut().enumerate() {
                    *byte = fill[i % 8];
                }
                shared.defined.put(at, len, true);
                continue;
            };
            let (slot, from) = self.global.locate(address, len as u64).expect("checked at issue");
            let allocation = self.global.slot(slot);
            shared.data[at..at + len].copy_from_slice(&allocation.data[from..from + len]);
            for part in (0..len).step_by(16) {
                let count = 16.min(len - part);
                let defined = allocation.defined(from + part, count);
                if defined == (1 << count) - 1 || !self.schedule.checks {
                    shared.defined.put(at + part, count, true);
                } else {
                    for i in 0..count {
                        shared.defined.put(at + part + i, 1, defined >> i & 1 == 1);
                    }
                }
            }
        }
    }

    /// Completes the oldest pending operation of a block, if there is one.
    pub(super) fn complete_first(&mut self, slot: usize) -> Step<bool> {
        if self.finish_first_copy(slot)? {
            return Ok(true);
        }
        if let Some(load) = self.blocks[slot].loads.pop_front() {
            self.finish_load(load)?;
            return Ok(true);
        }
        if !self.blocks[slot].stores.is_empty() {
            self.finish_store(slot, 0)?;
            return Ok(true);
        }
        for group in 0..self.blocks[slot].warpgroups.len() {
            if self.compute_next(slot, group)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Random policy: some pending operations complete now.
    pub(super) fn complete_some(&mut self, slot: usize) -> Step<()> {
        if self.schedule.tma == Policy::Random {
            self.finish_some_copy(slot)?;
            let block = &mut self.blocks[slot];
            if !block.loads.is_empty() && self.random.below(4) == 0 {
                let pick = self.random.below(block.loads.len());
                let load = block.loads.remove(pick).expect("below the length");
                self.finish_load(load)?;
            }
            if !self.blocks[slot].stores.is_empty() && self.random.below(8) == 0 {
                if self.random.below(2) == 0 {
                    self.read_store(slot, 0)?
                } else {
                    self.finish_store(slot, 0)?
                }
            }
        }
        if self.schedule.wgmma == Policy::Random {
            for group in 0..self.blocks[slot].warpgroups.len() {
                if self.random.below(4) == 0 {
                    self.compute_next(slot, group)?;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn illegal(what: String, lane: u32) -> Trouble {
    Trouble { kind: FaultKind::Descriptor(what), lane: Some(lane) }
}

/// Addresses and size of a bulk copy.
pub(super) fn check_bulk(numbers: [u64; 3], lane: u32) -> Step<()> {
    match numbers.into_iter().find(|n| n % 16 != 0) {
        Some(address) => {
            Err(Trouble { kind: FaultKind::Misaligned { address, align: 16 }, lane: Some(lane) })
        }
        None => Ok(()),
    }
}
