//! `tensormap`: changes one field of a map in memory, and copies a map to where copies read it.
//!
//! A multiprocessor keeps the maps that its copies use. One that changes in global memory afterwards, or that
//! `tensormap.*` changed at any time, is used only after `fence.proxy.tensormap` has acquired it.

use super::access::Place;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Address, Program, Space, Src};
use crate::memory::SHARED_WINDOW;
use crate::tensor_map::{Field, TensorMap};

const BYTES: usize = 128;
/// As much as one access moves.
const PART: usize = 16;

/// What a block knows of a map in global memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fetched {
    /// Changes by `tensormap.*` that it has acquired.
    version: u64,
    bytes: Option<[u8; BYTES]>,
}

impl Grid<'_> {
    pub(super) fn map_replace(
        &mut self,
        w: usize,
        mask: u32,
        field: Field,
        space: Space,
        at: &Address,
        value: Src,
    ) -> Step<()> {
        let addresses = self.addresses(w, at, mask)?;
        let (values, shadow) = self.get(w, value)?;
        if let Some(shadow) = shadow {
            self.demand(&shadow, mask, "a field of a tensor map")?;
        }
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            let mut map = self.map_at(w, lane, space, addresses[lane])?;
            TensorMap::replace(&mut map, field, values[lane])
                .map_err(|what| Trouble { kind: FaultKind::Descriptor(what), lane: Some(lane as u32) })?;
            self.put_map(w, lane, space, addresses[lane], &map)?;
        }
        Ok(())
    }

    /// One copy for the warp.
    pub(super) fn map_copy(&mut self, w: usize, mask: u32, to: &Address, from: &Address) -> Step<()> {
        self.together(w, mask)?;
        let (to, from) = (self.addresses(w, to, mask)?, self.addresses(w, from, mask)?);
        let lane = mask.trailing_zeros() as usize;
        let map = self.map_at(w, lane, Space::Shared, from[lane])?;
        self.put_map(w, lane, Space::Global, to[lane], &map)?;
        let program: &Program = self.program;
        self.race_fence(w, &program.ops[self.current_pc as usize], mask);
        Ok(())
    }

    fn map_at(&mut self, w: usize, lane: usize, space: Space, address: u64) -> Step<[u8; BYTES]> {
        self.aligned(lane, address, 64)?;
        let mut map = [0; BYTES];
        for (part, bytes) in map.chunks_exact_mut(PART).enumerate() {
            let place = self.locate(w, lane, space, address + (PART * part) as u64, PART as u32)?;
            let (data, defined) = self.bytes_at(w, place, PART);
            if defined != (1 << PART) - 1 && self.schedule.checks {
                let kind = FaultKind::Uninitialised { used_as: "a tensor map" };
                return Err(Trouble { kind, lane: Some(lane as u32) });
            }
            bytes.copy_from_slice(data);
            if self.races.is_some() {
                let mut places = [None; 32];
                places[lane] = Some(place);
                self.race_read(w, &places, PART)?;
            }
        }
        Ok(map)
    }

    fn put_map(&mut self, w: usize, lane: usize, space: Space, address: u64, map: &[u8]) -> Step<()> {
        self.aligned(lane, address, 64)?;
        let touch = self.race_begin(w, true);
        for (part, bytes) in map.chunks_exact(PART).enumerate() {
            let place = self.locate(w, lane, space, address + (PART * part) as u64, PART as u32)?;
            if let Some(touch) = &touch {
                self.race_touch(w, touch, place, PART, 1 << lane, Some(bytes))?;
            }
            self.write_at(w, place, bytes, (1 << PART) - 1);
            if let (0, Place::Global(..)) = (part, place) {
                *self.map_versions.entry(address).or_default() += 1;
            }
        }
        Ok(())
    }

    /// `fence.proxy.tensormap::generic.acquire`: the block fetches the maps anew.
    pub(super) fn map_acquire(&mut self, w: usize, mask: u32, at: &Address) -> Step<()> {
        let addresses = self.addresses(w, at, mask)?;
        let slot = self.slot(w);
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            let version = self.map_versions.get(&addresses[lane]).copied().unwrap_or(0);
            self.blocks[slot].maps.insert(addresses[lane], Fetched { version, bytes: None });
        }
        let program: &Program = self.program;
        self.race_fence(w, &program.ops[self.current_pc as usize], mask);
        Ok(())
    }

    /// A copy uses a map: it must be the one that the block would fetch now.
    pub(super) fn map_use(&mut self, w: usize, lane: u32, map: &Address, bytes: &[u8; BYTES]) -> Step<()> {
        let address = self.addresses(w, map, 1 << lane)?[lane as usize];
        if address >= SHARED_WINDOW {
            return Ok(());
        }
        let version = self.map_versions.get(&address).copied().unwrap_or(0);
        let slot = self.slot(w);
        let fetched = self.blocks[slot].maps.entry(address).or_default();
        if fetched.version != version || fetched.bytes.is_some_and(|old| old != *bytes) {
            let what = format!(
                "the tensor map at {address:#x} was changed, and no fence.proxy.tensormap acquired it"
            );
            return Err(Trouble { kind: FaultKind::Descriptor(what), lane: Some(lane) });
        }
        fetched.bytes = Some(*bytes);
        Ok(())
    }
}
