//! Bulk copies: issued by a lane, completed when the schedule says.

use super::step::Flow;
use super::warp::Split;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Address, Kind, Op, S32, Space};
use crate::memory::SHARED_WINDOW;
use crate::schedule::Policy;
use crate::tensor_map::TensorMap;
use crate::tma::{self, Segment};

/// A load whose bytes have not arrived.
#[derive(Debug)]
pub(super) struct PendingLoad {
    segments: Vec<Segment>,
    fill: [u8; 8],
    barrier: u32,
    bytes: u32,
}

/// A store that has not reached global memory.
#[derive(Debug)]
pub(super) struct PendingStore {
    segments: Vec<Segment>,
    warp: usize,
    lane: u32,
    /// Bulk group of its lane.
    group: u64,
    /// What it read of shared memory, once it has.
    pub(super) data: Option<Vec<u8>>,
}

impl Grid<'_> {
    pub(super) fn asynchronous(&mut self, w: usize, split: &mut Split, op: &Op, mask: u32) -> Step<Flow> {
        match &op.kind {
            Kind::TensorLoad { to, map, coordinates, barrier } => {
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let one = 1 << lane;
                    let (map, at) = self.tensor_operands(w, lane, map, coordinates)?;
                    let to = self.shared_address(w, to, lane)?;
                    let barrier = self.barrier_lanes(w, barrier, one)?[0].1;
                    let segments = tma::segments(&map, &at, to, false).map_err(|e| illegal(e, lane))?;
                    let bytes = tma::box_bytes(&map);
                    let load = PendingLoad { segments, fill: map.fill_pattern(), barrier, bytes };
                    self.issue_load(self.slot(w), load, lane)?;
                }
            }
            Kind::BulkLoad { to, from, bytes, barrier } => {
                let sizes = self.sure32(w, *bytes, mask, "a bulk copy's size")?;
                let sources = self.addresses(w, from, mask)?;
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (global, bytes) = (sources[lane as usize], sizes[lane as usize]);
                    let shared = self.shared_address(w, to, lane)?;
                    check_bulk(global, shared, bytes, lane)?;
                    let barrier = self.barrier_lanes(w, barrier, 1 << lane)?[0].1;
                    let segments = vec![Segment { global: Some(global), shared, bytes }];
                    let load = PendingLoad { segments, fill: [0; 8], barrier, bytes };
                    self.issue_load(self.slot(w), load, lane)?;
                }
            }
            Kind::TensorStore { map, coordinates, from } => {
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (map, at) = self.tensor_operands(w, lane, map, coordinates)?;
                    let from = self.shared_address(w, from, lane)?;
                    let segments = tma::segments(&map, &at, from, true).map_err(|e| illegal(e, lane))?;
                    self.issue_store(w, lane, segments)?;
                }
            }
            Kind::BulkStore { to, from, bytes } => {
                let sizes = self.sure32(w, *bytes, mask, "a bulk copy's size")?;
                let targets = self.addresses(w, to, mask)?;
                for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                    let (global, bytes) = (targets[lane as usize], sizes[lane as usize]);
                    let shared = self.shared_address(w, from, lane)?;
                    check_bulk(global, shared, bytes, lane)?;
                    self.issue_store(w, lane, vec![Segment { global: Some(global), shared, bytes }])?;
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

    fn shared_address(&self, w: usize, at: &Address, lane: u32) -> Step<u32> {
        let address = self.addresses(w, at, 1 << lane)?[lane as usize];
        let address = if address >= SHARED_WINDOW { address - SHARED_WINDOW } else { address };
        u32::try_from(address).map_err(|_| Trouble {
            kind: FaultKind::OutOfBounds { space: "shared", address, bytes: 16 },
            lane: Some(lane),
        })
    }

    fn tensor_operands(&self, w: usize, lane: u32, map: &Address, at: &[S32]) -> Step<(TensorMap, Vec<i32>)> {
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
        let map = TensorMap::decode(&bytes).map_err(|e| illegal(e, lane))?;
        let mut coordinates = Vec::with_capacity(at.len());
        for &c in at {
            coordinates.push(self.sure32(w, c, 1 << lane, "a tensor coordinate")?[lane as usize] as i32);
        }
        Ok((map, coordinates))
    }

    /// Whether global memory has what a copy names: asked at issue, where the instruction to blame is known.
    fn check_global(&self, segments: &[Segment], space: &'static str, lane: u32) -> Step<()> {
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

    fn issue_load(&mut self, slot: usize, load: PendingLoad, lane: u32) -> Step<()> {
        self.check_global(&load.segments, "global (bulk load)", lane)?;
        let shared = &mut self.blocks[slot].shared;
        for segment in &load.segments {
            let Some(at) = shared.locate(segment.shared, segment.bytes) else {
                let (address, bytes) = (u64::from(segment.shared), segment.bytes);
                let kind = FaultKind::OutOfBounds { space: "shared", address, bytes };
                return Err(Trouble { kind, lane: Some(lane) });
            };
            // Poison until the bytes arrive.
            let len = segment.bytes as usize;
            shared.data[at..at + len].fill(0xff);
            shared.defined.put(at, len, false);
        }
        self.profile_bulk(&load.segments, false);
        if self.schedule.tma == Policy::Eager {
            return self.finish_load(slot, load);
        }
        self.blocks[slot].loads.push_back(load);
        Ok(())
    }

    fn finish_load(&mut self, slot: usize, load: PendingLoad) -> Step<()> {
        let shared = &mut self.blocks[slot].shared;
        for segment in &load.segments {
            let at = shared.locate(segment.shared, segment.bytes).expect("checked at issue");
            let len = segment.bytes as usize;
            match segment.global {
                None => {
                    for (i, byte) in shared.data[at..at + len].iter_mut().enumerate() {
                        *byte = load.fill[i % 8];
                    }
                    shared.defined.put(at, len, true);
                }
                Some(address) => {
                    let (slot, from) = self.global.locate(address, len as u64).expect("checked at issue");
                    let allocation = self.global.slot(slot);
                    shared.data[at..at + len].copy_from_slice(&allocation.data[from..from + len]);
                    self.counters.bulk_load_bytes += len as u64;
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
        }
        self.complete_bytes(slot, load.barrier, load.bytes)
    }

    fn issue_store(&mut self, w: usize, lane: u32, segments: Vec<Segment>) -> Step<()> {
        self.check_global(&segments, "global (bulk store)", lane)?;
        let group = self.warps[w].bulk.get(&lane).map_or(0, |g| g.committed);
        self.profile_bulk(&segments, true);
        let slot = self.slot(w);
        let stores = &mut self.blocks[slot].stores;
        stores.push(PendingStore { segments, warp: w, lane, group, data: None });
        let last = stores.len() - 1;
        if self.schedule.tma == Policy::Eager { self.finish_store(slot, last) } else { Ok(()) }
    }

    fn read_store(&mut self, slot: usize, index: usize) -> Step<()> {
        let block = &mut self.blocks[slot];
        let store = &mut block.stores[index];
        if store.data.is_some() {
            return Ok(());
        }
        let mut data = Vec::new();
        for segment in &store.segments {
            let Some(at) = block.shared.locate(segment.shared, segment.bytes) else {
                let (address, bytes) = (u64::from(segment.shared), segment.bytes);
                return Err(FaultKind::OutOfBounds { space: "shared", address, bytes }.into());
            };
            let len = segment.bytes as usize;
            if self.schedule.checks && !block.shared.defined.all(at, len) {
                let kind = FaultKind::Uninitialised { used_as: "a bulk store's source" };
                return Err(Trouble { kind, lane: Some(store.lane) });
            }
            data.extend_from_slice(&block.shared.data[at..at + len]);
        }
        store.data = Some(data);
        Ok(())
    }

    /// Reads what was not read yet, writes, and forgets the store.
    pub(super) fn finish_store(&mut self, slot: usize, index: usize) -> Step<()> {
        self.read_store(slot, index)?;
        let store = self.blocks[slot].stores.remove(index);
        let data = store.data.unwrap_or_default();
        let mut at = 0;
        for segment in &store.segments {
            let len = segment.bytes as usize;
            if let Some(address) = segment.global {
                self.global.write(address, &data[at..at + len]).expect("checked at issue");
                self.counters.bulk_store_bytes += len as u64;
            }
            at += len;
        }
        Ok(())
    }

    fn wait_stores(&mut self, w: usize, lane: u32, limit: u64, read: bool) -> Step<()> {
        let (slot, mut index) = (self.slot(w), 0);
        while let Some(store) = self.blocks[slot].stores.get(index) {
            let due = store.warp == w && store.lane == lane && store.group < limit;
            match (due, read) {
                (false, _) => index += 1,
                (true, true) => {
                    self.read_store(slot, index)?;
                    index += 1;
                }
                (true, false) => self.finish_store(slot, index)?,
            }
        }
        Ok(())
    }

    /// Completes the oldest pending operation of a block, if there is one.
    pub(super) fn complete_first(&mut self, slot: usize) -> Step<bool> {
        if let Some(load) = self.blocks[slot].loads.pop_front() {
            self.finish_load(slot, load)?;
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
            let block = &mut self.blocks[slot];
            if !block.loads.is_empty() && self.random.below(4) == 0 {
                let pick = self.random.below(block.loads.len());
                let load = block.loads.remove(pick).expect("below the length");
                self.finish_load(slot, load)?;
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

fn illegal(what: String, lane: u32) -> Trouble {
    Trouble { kind: FaultKind::Descriptor(what), lane: Some(lane) }
}

fn check_bulk(global: u64, shared: u32, bytes: u32, lane: u32) -> Step<()> {
    for address in [global, u64::from(shared), u64::from(bytes)] {
        if address % 16 != 0 {
            return Err(Trouble { kind: FaultKind::Misaligned { address, align: 16 }, lane: Some(lane) });
        }
    }
    Ok(())
}
