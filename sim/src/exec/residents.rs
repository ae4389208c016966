//! Which blocks are on the card.
//!
//! Clusters start in the order of the grid. By default one cluster is resident at a time. Others join it, as far as
//! the card has room, when the resident ones cannot go on by themselves (see [`super::turns`]), and under the random
//! policy when the seed asks for several from the start, so that blocks interleave.

use super::cluster::Cluster;
use super::warp::Warp;
use super::{Block, Grid, Step, wgmma};
use crate::fault::FaultKind;
use crate::lower::program::Program;
use crate::machine::Launch;
use crate::memory::shared::Shared;
use crate::profile::CardProfile;
use crate::schedule::{InFlight, Random};
use std::collections::{HashMap, VecDeque};

/// Threads that fit a multiprocessor.
const THREADS_PER_SM: u32 = 2048;
const BLOCKS_PER_SM: u32 = 32;
/// Shared memory that the system takes of every block's.
const RESERVED_SHARED: u32 = 1024;

/// Who is resident, who may be, and who comes next.
pub(super) struct Residents {
    /// Blocks of a cluster.
    each: usize,
    /// Clusters of the grid, and the next to start.
    clusters: u64,
    next: u64,
    /// Clusters that fit the card.
    most: usize,
    /// Clusters that start without need.
    wanted: usize,
    /// Resident now.
    now: usize,
}

impl Residents {
    pub(super) fn new(
        profile: &CardProfile,
        program: &Program,
        launch: &Launch<'_>,
        cluster: [u32; 3],
        random: &mut Random,
    ) -> Self {
        let each = cluster.iter().product::<u32>();
        let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
        let threads = launch.block.iter().product::<u32>().next_multiple_of(32);
        let shared = program.static_shared + launch.shared_bytes + RESERVED_SHARED;
        let per_sm = (profile.shared_per_sm / shared).min(THREADS_PER_SM / threads).clamp(1, BLOCKS_PER_SM);
        let wanted = if launch.schedule.is_random() { [1, 1, 2, 4][random.below(4)] } else { 1 };
        Self {
            each: each as usize,
            clusters: blocks / u64::from(each),
            next: 0,
            most: ((profile.sms * per_sm / each) as usize).max(1),
            wanted,
            now: 0,
        }
    }

    /// Every cluster of the grid can be on the card at once.
    pub(super) fn all_fit(&self) -> bool {
        self.clusters <= self.most as u64
    }

    pub(super) fn count(&self) -> usize {
        self.now
    }
}

impl Grid<'_> {
    /// Every block has started.
    pub(super) fn all_started(&self) -> bool {
        self.residents.next == self.residents.clusters
    }

    /// Starts the clusters that need no reason to start.
    pub(super) fn admit_wanted(&mut self) {
        while self.residents.now < self.residents.wanted && self.admit() {}
    }

    /// Starts the next cluster, if there is one and the card has room.
    pub(super) fn admit(&mut self) -> bool {
        let Residents { each, next, clusters, now, most, .. } = self.residents;
        if next == clusters || now == most {
            return false;
        }
        let place = match self.clusters.iter().position(|cluster| cluster.live == 0) {
            Some(place) => place,
            None => {
                self.clusters.push(Cluster::default());
                self.make_room(each);
                self.clusters.len() - 1
            }
        };
        let [cx, cy, cz] = self.cluster;
        let [gx, gy] = [self.size[0] / cx, self.size[1] / cy].map(u64::from);
        let origin = [next % gx, next / gx % gy, next / gx / gy];
        let mut rank = 0;
        for z in 0..cz {
            for y in 0..cy {
                for x in 0..cx {
                    let at = |axis: usize, inside: u32| origin[axis] as u32 * self.cluster[axis] + inside;
                    let index = [at(0, x), at(1, y), at(2, z)];
                    self.start(place * each + rank, index, rank as u32);
                    rank += 1;
                }
            }
        }
        self.clusters[place] = Cluster::new(each);
        self.residents.next += 1;
        self.residents.now += 1;
        true
    }

    fn make_room(&mut self, blocks: usize) {
        let shared = (self.program.static_shared + self.dynamic_shared) as usize;
        for _ in 0..blocks {
            let slot = self.blocks.len();
            for index in 0..self.per_block {
                self.warps.push(Warp::new(self.program, slot, index as u32));
            }
            self.blocks.push(Block::new(shared));
        }
    }

    fn start(&mut self, slot: usize, index: [u32; 3], rank: u32) {
        let [x, y, z] = index.map(u64::from);
        let linear = x + u64::from(self.size[0]) * (y + u64::from(self.size[1]) * z);
        let threads: u32 = self.threads.iter().product();
        for warp in &mut self.warps[slot * self.per_block..][..self.per_block] {
            let lanes = (threads - 32 * warp.index).min(32);
            warp.id = linear * self.per_block as u64 + u64::from(warp.index);
            warp.reset(if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 });
        }
        let block = &mut self.blocks[slot];
        (block.linear, block.index, block.rank) = (linear, index, rank);
        block.reset(self.per_block);
        self.profile_begin(slot);
        self.counters.blocks += 1;
    }

    /// The last warp of a block has exited: nothing of it may still be in flight.
    pub(super) fn finish(&mut self, slot: usize) -> Step<()> {
        self.finish_copies(slot)?;
        if let Some(dependence) =
            self.dependence.as_ref().filter(|d| d.programmatic && !self.blocks[slot].waited)
        {
            let what =
                "a block ends without griddepcontrol.wait: launches after it may overtake those before it";
            if dependence.unknown {
                return Err(FaultKind::Dependency(what.into()).into());
            }
            self.warnings.insert(what.into());
        }
        let block = &self.blocks[slot];
        let unread = block.stores.iter().filter(|s| s.data.is_none()).count();
        if unread > 0 {
            let what = format!("the block ends before {unread} bulk stores have read its shared memory");
            if self.schedule.in_flight == InFlight::Strict {
                return Err(FaultKind::Barrier(what).into());
            }
            self.warnings.insert(what);
        }
        self.race_unwatched(slot)?;
        let block = &self.blocks[slot];
        let own = block.loads.iter().filter(|load| load.uses(slot)).count();
        if own > 0 {
            let what =
                format!("the block ends while {own} copies from or to its shared memory are in flight");
            return Err(FaultKind::Barrier(what).into());
        }
        let first = slot - block.rank as usize;
        for peer in first..first + self.residents.each {
            if self.blocks[peer].loads.iter().any(|load| load.uses(slot)) {
                let what = format!(
                    "the block ends while a copy that rank {} issued into its shared memory is in flight",
                    peer - first
                );
                return Err(FaultKind::Cluster(what).into());
            }
        }
        // What goes to others is theirs from now on.
        while let Some(load) = self.blocks[slot].loads.pop_front() {
            self.blocks[load.targets[0]].loads.push_back(load);
        }
        while !self.blocks[slot].stores.is_empty() {
            self.finish_store(slot, 0)?;
        }
        self.profile_end(slot);
        self.race_end_block(slot);
        self.blocks[slot].live = false;
        let cluster = &mut self.clusters[slot / self.residents.each];
        cluster.live -= 1;
        if cluster.live == 0 {
            self.residents.now -= 1;
        }
        Ok(())
    }
}

impl Block {
    fn new(shared: usize) -> Self {
        Self {
            linear: 0,
            index: [0; 3],
            rank: 0,
            live: false,
            waited: false,
            released: false,
            shared: Shared::new(shared),
            named: Default::default(),
            mbarriers: HashMap::new(),
            loads: VecDeque::new(),
            stores: Vec::new(),
            copies: VecDeque::new(),
            maps: HashMap::new(),
            warpgroups: Vec::new(),
            parity_seen: HashMap::new(),
            steps: 0,
            turn: 0,
        }
    }

    fn reset(&mut self, warps: usize) {
        (self.live, self.waited, self.released) = (true, false, false);
        self.shared.reset();
        self.named = Default::default();
        self.mbarriers.clear();
        self.maps.clear();
        self.parity_seen.clear();
        self.warpgroups = (0..warps.div_ceil(4)).map(|_| wgmma::Warpgroup::default()).collect();
        self.steps = 0;
        self.turn = 0;
    }
}
