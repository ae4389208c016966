//! Where the executor tells the profiler what happens. Without a profiler each of these is one comparison.

use super::Grid;
use crate::profiler::Access;
use crate::tma::Segment;

impl Grid<'_> {
    /// A split is about to run an operation.
    #[inline]
    pub(super) fn profile_step(&mut self, w: usize, pc: u32, mask: u32) {
        if let Some(recorder) = &mut self.recorder {
            recorder.step(pc, mask, &self.counters);
            self.warps[w].executed[pc as usize] += 1;
        }
    }

    /// A warp instruction accessed these sectors of global memory, ascending, with repeats; its lanes wanted so many
    /// bytes in all.
    #[inline]
    pub(super) fn profile_sectors(&mut self, sectors: &[u64], store: bool, bytes: u32) {
        match &mut self.recorder {
            Some(recorder) => recorder.bytes(self.current_pc, u64::from(bytes)),
            None => return,
        }
        let mut rest = sectors;
        while let Some(&first) = rest.first() {
            let Some((slot, _)) = self.global.locate(32 * first, 1) else { return };
            let allocation = self.global.slot(slot);
            let (base, bytes) = (allocation.base, allocation.data.len() as u64);
            let inside = rest.partition_point(|&sector| 32 * sector < base + bytes);
            let mut last = u64::MAX;
            let unique = rest[..inside].iter().copied().filter(|&s| std::mem::replace(&mut last, s) != s);
            if let Some(recorder) = &mut self.recorder {
                let access = if store { Access::Store } else { Access::Load };
                recorder.sectors((base, bytes), unique, access, None);
            }
            rest = &rest[inside..];
        }
    }

    /// The operation that runs issued a bulk copy.
    #[inline]
    pub(super) fn profile_bulk(&mut self, segments: &[Segment], access: Access) {
        let Some(recorder) = &mut self.recorder else { return };
        // Segments are as short as the swizzle's pieces; neighbours share sectors.
        let mut sectors = Vec::new();
        let mut region = None;
        for segment in segments {
            // A segment outside of memory is a fault when the copy runs.
            if let Some(address) = segment.global
                && let Some((slot, _)) = self.global.locate(address, u64::from(segment.bytes))
            {
                let allocation = self.global.slot(slot);
                region = Some((allocation.base, allocation.data.len() as u64));
                sectors.extend(address / 32..(address + u64::from(segment.bytes)).div_ceil(32));
            }
        }
        if access != Access::Prefetch {
            let moved = segments.iter().filter(|segment| segment.global.is_some());
            recorder.bytes(self.current_pc, moved.map(|segment| u64::from(segment.bytes)).sum());
        }
        sectors.sort_unstable();
        sectors.dedup();
        // A copy stays within one allocation, or is a fault.
        if let Some(region) = region {
            recorder.sectors(region, sectors.into_iter(), access, Some(self.current_pc));
        }
    }

    /// Readies the warps for a block.
    pub(super) fn profile_begin(&mut self, slot: usize) {
        if self.recorder.is_some() {
            for warp in &mut self.warps[slot * self.per_block..][..self.per_block] {
                warp.executed.clear();
                warp.executed.resize(self.program.ops.len(), 0);
            }
        }
    }

    /// Every warp of the block has ended.
    pub(super) fn profile_end(&mut self, slot: usize) {
        if let Some(recorder) = &mut self.recorder {
            recorder.shared(self.blocks[slot].shared.defined.count());
            for warp in &self.warps[slot * self.per_block..][..self.per_block] {
                recorder.warp(&warp.executed, &self.counters);
            }
        }
    }
}
