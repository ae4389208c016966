//! Bulk stores and reductions: shared memory is read, then global memory is written, when the schedule says.

use super::atomics::modify;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Rmw, Type};
use crate::profiler::Access;
use crate::schedule::Policy;
use crate::tensor_map::Element;
use crate::tma::Segment;

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
    /// How it combines with what is there, if it does not replace that.
    reduce: Option<(Rmw, Type)>,
}

impl Grid<'_> {
    pub(super) fn issue_store(
        &mut self,
        w: usize,
        lane: u32,
        segments: Vec<Segment>,
        reduce: Option<(Rmw, Type)>,
    ) -> Step<()> {
        self.check_global(&segments, "global (bulk store)", lane)?;
        let group = self.warps[w].bulk.get(&lane).map_or(0, |g| g.committed);
        let slot = self.slot(w);
        let shared = &self.blocks[slot].shared;
        if let Some(s) = segments.iter().find(|s| shared.locate(s.shared, s.bytes).is_none()) {
            let (address, bytes) = (u64::from(s.shared), s.bytes);
            return Err(Trouble {
                kind: FaultKind::OutOfBounds { space: "shared", address, bytes },
                lane: Some(lane),
            });
        }
        self.race_issue_store(w, lane, group, &segments, reduce.is_some())?;
        self.profile_bulk(&segments, Access::Store);
        self.touch_segments(w, &segments, true);
        let stores = &mut self.blocks[slot].stores;
        stores.push(PendingStore { segments, warp: w, lane, group, data: None, reduce });
        let last = stores.len() - 1;
        if self.schedule.tma == Policy::Eager { self.finish_store(slot, last) } else { Ok(()) }
    }

    pub(super) fn read_store(&mut self, slot: usize, index: usize) -> Step<()> {
        let block = &mut self.blocks[slot];
        let store = &mut block.stores[index];
        if store.data.is_some() {
            return Ok(());
        }
        let mut data = Vec::new();
        for segment in &store.segments {
            let at = block.shared.locate(segment.shared, segment.bytes).expect("checked at issue");
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
                match store.reduce {
                    None => self.global.write(address, &data[at..at + len]).expect("checked at issue"),
                    Some((rmw, ty)) => self.combine(address, &data[at..at + len], rmw, ty)?,
                }
                self.counters.bulk_store_bytes += len as u64;
            }
            at += len;
        }
        Ok(())
    }

    /// Combines bytes with those of global memory, element by element.
    fn combine(&mut self, address: u64, data: &[u8], rmw: Rmw, ty: Type) -> Step<()> {
        let size = ty.bytes() as usize;
        let (slot, at) = self.global.locate(address, data.len() as u64).expect("checked at issue");
        for (i, new) in data.chunks_exact(size).enumerate() {
            let at = at + i * size;
            if self.schedule.checks && self.global.slot(slot).defined(at, size) != (1 << size) - 1 {
                return Err(FaultKind::Uninitialised { used_as: "a reduction's memory operand" }.into());
            }
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
            let there = &mut self.global.slot_mut(slot).data[at..at + size];
            let result = modify(rmw, ty, number(there), number(new), true);
            there.copy_from_slice(&result.to_le_bytes()[..size]);
        }
        Ok(())
    }

    pub(super) fn wait_stores(&mut self, w: usize, lane: u32, limit: u64, read: bool) -> Step<()> {
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
        self.race_wait_stores(w, lane, limit, read);
        Ok(())
    }
}

/// What a tensor reduction does to elements of a type.
pub(super) fn combination(rmw: Rmw, element: Element) -> Result<(Rmw, Type), String> {
    let ty = match element {
        Element::U32 => Type::U32,
        Element::I32 => Type::S32,
        Element::U64 => Type::U64,
        Element::I64 => Type::S64,
        Element::F16 => Type::F16,
        Element::Bf16 => Type::Bf16,
        Element::F32 => Type::F32,
        Element::F64 => Type::F64,
        Element::U8 => Type::U8,
        Element::U16 => Type::U16,
    };
    let integers = matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64);
    let halves = matches!(ty, Type::F16 | Type::Bf16);
    let legal = match rmw {
        Rmw::Add => integers && ty != Type::S64 || halves || ty == Type::F32,
        Rmw::Min | Rmw::Max => integers || halves,
        Rmw::Inc | Rmw::Dec => ty == Type::U32,
        _ => integers,
    };
    let name = format!("{rmw:?}").to_lowercase();
    if legal { Ok((rmw, ty)) } else { Err(format!("a tensor reduction by {name} of {element:?} elements")) }
}
