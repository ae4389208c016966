//! Gathers counts while a launch runs.

use super::loops::Loops;
use super::{RegionProfile, roles};
use crate::counters::Counters;
use crate::lower::program::Program;
use std::collections::BTreeMap;

/// What an instruction counted beside its executions, in the order of [`watched`].
pub(super) type Watched = [u64; 5];

/// The counters that are attributed to lines: loads, stores, bank conflicts, waits, tensor operations.
fn watched(counters: &Counters) -> Watched {
    [
        counters.load_sectors,
        counters.store_sectors,
        counters.bank_conflicts,
        counters.waits,
        counters.tensor_macs,
    ]
}

/// Counts of one operation over all warps.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub(super) lanes: u64,
    pub(super) watched: Watched,
    pub(super) bytes: u64,
    pub(super) bulk_loads: u64,
    pub(super) bulk_stores: u64,
}

/// Warps with one main loop.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) warps: u64,
    pub(super) executions: Vec<u64>,
}

/// An allocation: which sectors were touched.
#[derive(Debug)]
struct Region {
    counts: RegionProfile,
    loads: Vec<u64>,
    stores: Vec<u64>,
}

/// What an access does with sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Load,
    Store,
    /// Into L2 and no further.
    Prefetch,
}

/// Gathers counts while a launch runs.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(super) loops: Loops,
    pub(super) lines: Vec<Line>,
    /// By main loop.
    pub(super) roles: BTreeMap<Option<usize>, Role>,
    regions: BTreeMap<u64, Region>,
    /// Bytes of shared memory that hold something at the end of a block, at most.
    pub(super) shared_written: u32,
    /// The operation that runs, and the counters before it.
    current: Option<(u32, Watched)>,
}

impl Recorder {
    pub(crate) fn new(program: &Program) -> Self {
        Self {
            loops: Loops::of(&program.ops),
            lines: vec![Line::default(); program.ops.len()],
            roles: BTreeMap::new(),
            regions: BTreeMap::new(),
            shared_written: 0,
            current: None,
        }
    }

    /// An operation begins; what was counted since the last one began is that one's.
    pub(crate) fn step(&mut self, pc: u32, lanes: u32, counters: &Counters) {
        let now = watched(counters);
        self.settle(now);
        self.lines[pc as usize].lanes += u64::from(lanes.count_ones());
        self.current = Some((pc, now));
    }

    fn settle(&mut self, now: Watched) {
        if let Some((pc, before)) = self.current.take() {
            let line = &mut self.lines[pc as usize];
            for ((sum, now), before) in line.watched.iter_mut().zip(now).zip(before) {
                *sum += now - before;
            }
        }
    }

    /// A warp has ended, with these executions of each operation.
    pub(crate) fn warp(&mut self, executions: &[u32], counters: &Counters) {
        self.settle(watched(counters));
        let main = roles::main_loop(&self.loops, executions);
        let role = self
            .roles
            .entry(main)
            .or_insert_with(|| Role { warps: 0, executions: vec![0; executions.len()] });
        role.warps += 1;
        for (sum, &count) in role.executions.iter_mut().zip(executions) {
            *sum += u64::from(count);
        }
    }

    /// A block has ended, with so many defined bytes of shared memory.
    pub(crate) fn shared(&mut self, bytes: u32) {
        self.shared_written = self.shared_written.max(bytes);
    }

    /// An operation moves bytes of global memory.
    pub(crate) fn bytes(&mut self, pc: u32, bytes: u64) {
        self.lines[pc as usize].bytes += bytes;
    }

    /// An access to the sectors of an allocation of this base and size; `bulk` for a copy, by its operation.
    pub(crate) fn sectors(
        &mut self,
        (base, bytes): (u64, u64),
        sectors: impl Iterator<Item = u64>,
        access: Access,
        bulk: Option<u32>,
    ) {
        let words = bytes.div_ceil(32).div_ceil(64) as usize;
        let region = self.regions.entry(base).or_insert_with(|| Region {
            counts: RegionProfile {
                address: base,
                bytes,
                unique_loads: 0,
                unique_stores: 0,
                load_sectors: 0,
                store_sectors: 0,
                prefetch_sectors: 0,
            },
            loads: vec![0; words],
            stores: vec![0; words],
        });
        // What comes into L2 comes from memory.
        let bits = if access == Access::Store { &mut region.stores } else { &mut region.loads };
        let mut requested = 0;
        for sector in sectors {
            let at = sector - base / 32;
            bits[at as usize / 64] |= 1 << (at % 64);
            requested += 1;
        }
        let counts = &mut region.counts;
        *match access {
            Access::Load => &mut counts.load_sectors,
            Access::Store => &mut counts.store_sectors,
            Access::Prefetch => &mut counts.prefetch_sectors,
        } += requested;
        if let Some(pc) = bulk {
            let line = &mut self.lines[pc as usize];
            match access {
                Access::Load => line.bulk_loads += requested,
                Access::Store => line.bulk_stores += requested,
                Access::Prefetch => {}
            }
        }
    }

    pub(super) fn regions(&self) -> Vec<RegionProfile> {
        let ones = |words: &[u64]| words.iter().map(|word| u64::from(word.count_ones())).sum();
        self.regions
            .values()
            .map(|region| RegionProfile {
                unique_loads: ones(&region.loads),
                unique_stores: ones(&region.stores),
                ..region.counts.clone()
            })
            .collect()
    }
}
