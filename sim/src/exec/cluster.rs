//! Clusters: blocks that see each other's shared memory and meet at a barrier.
//!
//! A shared address is the rank of its block in the cluster (bits 24 and up) and an address in that block's window, so
//! a block of rank 0, and every block without a cluster, has addresses that begin at the window's start.

use super::step::Flow;
use super::warp::Wait;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Dst, S32, S64, Src};
use crate::memory::SHARED_WINDOW;
use crate::row::Row64;

/// Where the rank begins in a shared address.
pub(super) const RANK_SHIFT: u32 = 24;
const LOCAL: u64 = (1 << RANK_SHIFT) - 1;
/// Bytes of the whole shared window.
const WINDOW_BYTES: u64 = 1 << 32;

/// A resident cluster.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// Blocks that have not ended.
    pub(super) live: usize,
    /// Completed phases of the barrier, and threads that arrived in the present one.
    phase: u64,
    arrived: u32,
}

impl Cluster {
    pub(super) fn new(live: usize) -> Self {
        Self { live, ..Self::default() }
    }
}

impl Grid<'_> {
    /// Blocks of a cluster.
    #[inline]
    pub(super) fn cluster_size(&self) -> usize {
        self.cluster.iter().product::<u32>() as usize
    }

    /// Where a shared address lies: a block's slot and the address without the rank. None when it is no address of the
    /// cluster.
    #[inline]
    pub(super) fn owner(
        &self,
        w: usize,
        address: u64,
        peers: bool,
    ) -> Result<Option<(usize, u32)>, FaultKind> {
        let (slot, rank) = (self.slot(w), address >> RANK_SHIFT);
        let (own, local) = (self.blocks[slot].rank, (address & LOCAL) as u32);
        if rank == u64::from(own) {
            return Ok(Some((slot, local)));
        }
        if rank >= self.cluster_size() as u64 {
            return Ok(None);
        }
        if !peers {
            let what =
                format!("{address:#x} lies in the shared memory of rank {rank}, not in the block's own");
            return Err(FaultKind::Cluster(what));
        }
        let slot = self.live_peer(slot, rank as u32)?;
        Ok(Some((slot, local)))
    }

    /// The slot of a rank of the same cluster, which must not have exited.
    pub(super) fn live_peer(&self, slot: usize, rank: u32) -> Result<usize, FaultKind> {
        if rank as usize >= self.cluster_size() {
            let what = format!("rank {rank} in a cluster of {} blocks", self.cluster_size());
            return Err(FaultKind::Cluster(what));
        }
        let peer = slot - self.blocks[slot].rank as usize + rank as usize;
        if !self.blocks[peer].live {
            let [x, y, z] = self.blocks[peer].index;
            let what = format!("the shared memory of rank {rank}, whose block ({x}, {y}, {z}) has exited");
            return Err(FaultKind::Cluster(what));
        }
        Ok(peer)
    }

    /// A shared or generic address of a lane as slot and address without the rank, for `bytes` inside the block.
    pub(super) fn shared_place(
        &self,
        w: usize,
        lane: u32,
        address: u64,
        bytes: u32,
        peers: bool,
    ) -> Step<(usize, u32)> {
        let inside = if address >= SHARED_WINDOW { address - SHARED_WINDOW } else { address };
        let fault = |kind| Trouble { kind, lane: Some(lane) };
        let place = if inside < WINDOW_BYTES { self.owner(w, inside, peers).map_err(fault)? } else { None };
        place
            .filter(|&(slot, local)| self.blocks[slot].shared.locate(local, bytes).is_some())
            .ok_or_else(|| fault(FaultKind::OutOfBounds { space: "shared", address, bytes }))
    }

    /// `mapa`: the same place in another block.
    pub(super) fn map_rank(&mut self, w: usize, mask: u32, d: Dst, a: Src, rank: S32) -> Step<()> {
        let rank = self.sure32(w, rank, mask, "a cluster rank")?;
        let (address, shadow) = self.get(w, a)?;
        let mut row = [0; 32];
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            self.ranked(address[lane], lane)?;
            if rank[lane] as usize >= self.cluster_size() {
                let what = format!("rank {} in a cluster of {} blocks", rank[lane], self.cluster_size());
                return Err(Trouble { kind: FaultKind::Cluster(what), lane: Some(lane as u32) });
            }
            row[lane] = address[lane] & !(0xff << RANK_SHIFT) | u64::from(rank[lane]) << RANK_SHIFT;
        }
        self.put(w, d, &row, mask, shadow.as_deref())
    }

    /// `getctarank`.
    pub(super) fn rank_of(&mut self, w: usize, mask: u32, d: u32, a: Src) -> Step<()> {
        let (address, shadow) = self.get(w, a)?;
        if let Some(shadow) = shadow {
            self.demand(&shadow, mask, "an address")?;
        }
        let mut row = [0; 32];
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            row[lane] = self.ranked(address[lane], lane)?;
        }
        self.put32(w, d, &row, mask, None)
    }

    /// The rank in a shared or generic address, which must be one of the cluster.
    fn ranked(&self, address: u64, lane: usize) -> Step<u32> {
        let inside = if address >= SHARED_WINDOW { address - SHARED_WINDOW } else { address };
        match inside >> RANK_SHIFT {
            rank if rank < self.cluster_size() as u64 => Ok(rank as u32),
            _ => {
                let what = format!("{address:#x} is no address of the cluster's shared memory");
                Err(Trouble { kind: FaultKind::Cluster(what), lane: Some(lane as u32) })
            }
        }
    }

    /// `isspacep.shared`.
    pub(super) fn in_shared(&mut self, w: usize, mask: u32, d: u32, a: S64, cluster: bool) -> Step<()> {
        let (address, shadow): (Row64, _) = self.get64(w, a)?;
        let own = u64::from(self.blocks[self.slot(w)].rank);
        let ranks = if cluster { 0..self.cluster_size() as u64 } else { own..own + 1 };
        let mut value = 0;
        for lane in 0..32 {
            let inside = address[lane].wrapping_sub(SHARED_WINDOW);
            value |= u32::from(ranks.contains(&(inside >> RANK_SHIFT))) << lane;
        }
        let unknown = shadow.map_or(0, |s| (0..32).fold(0, |m, i| m | u32::from(s[i] != 0) << i));
        self.warps[w].predicates[d as usize].put(value, !unknown, mask);
        Ok(())
    }

    pub(super) fn cluster_arrive(&mut self, w: usize, mask: u32, aligned: bool) -> Step<()> {
        if aligned {
            self.together(w, mask)?;
        }
        let place = self.slot(w) / self.cluster_size();
        let phase = self.clusters[place].phase as usize % 2;
        let twice = (self.warps[w].cluster_arrived[0] | self.warps[w].cluster_arrived[1]) & mask;
        if twice != 0 {
            let what = "arrives at the cluster barrier again without having waited for it".into();
            return Err(Trouble { kind: FaultKind::Barrier(what), lane: Some(twice.trailing_zeros()) });
        }
        self.warps[w].cluster_arrived[phase] |= mask;
        self.clusters[place].arrived += mask.count_ones();
        self.race_cluster_arrive(w, mask);
        self.cluster_turn(place);
        Ok(())
    }

    pub(super) fn cluster_wait(&mut self, w: usize, mask: u32, aligned: bool) -> Step<Flow> {
        if aligned {
            self.together(w, mask)?;
        }
        let phase = self.clusters[self.slot(w) / self.cluster_size()].phase as usize;
        let [even, odd] = self.warps[w].cluster_arrived;
        let missing = mask & !(even | odd);
        if missing != 0 {
            let what = "waits at the cluster barrier without having arrived".into();
            return Err(Trouble { kind: FaultKind::Barrier(what), lane: Some(missing.trailing_zeros()) });
        }
        if self.warps[w].cluster_arrived[phase % 2] & mask != 0 {
            return Ok(Flow::Wait(Wait::ClusterBarrier));
        }
        self.warps[w].cluster_arrived[(phase + 1) % 2] &= !mask;
        self.race_cluster_pass(w, mask);
        Ok(Flow::Next)
    }

    /// Lanes exit: the barrier no longer counts them.
    pub(super) fn cluster_exit(&mut self, w: usize, lanes: u32) {
        let place = self.slot(w) / self.cluster_size();
        let phase = self.clusters[place].phase as usize % 2;
        let arrived = &mut self.warps[w].cluster_arrived;
        self.clusters[place].arrived -= (arrived[phase] & lanes).count_ones();
        arrived.iter_mut().for_each(|a| *a &= !lanes);
        self.cluster_turn(place);
    }

    /// Ends the barrier's phase if every thread of the cluster that has not exited arrived.
    fn cluster_turn(&mut self, place: usize) {
        let cluster = &mut self.clusters[place];
        if cluster.arrived == 0 {
            return;
        }
        let warps = self.per_block * self.cluster.iter().product::<u32>() as usize;
        let warps = &mut self.warps[place * warps..][..warps];
        if cluster.arrived < warps.iter().map(|w| w.live.count_ones()).sum() {
            return;
        }
        (cluster.arrived, cluster.phase) = (0, cluster.phase + 1);
        for split in warps.iter_mut().flat_map(|w| &mut w.splits) {
            if split.wait == Wait::ClusterBarrier {
                split.wait = Wait::Nothing;
            }
        }
        self.race_cluster_open(place * self.cluster_size());
    }

    /// Who has not arrived at the cluster barrier, for a deadlock's report.
    pub(super) fn cluster_state(&self, slot: usize) -> String {
        let size = self.cluster_size();
        let place = slot / size;
        let warps = &self.warps[place * size * self.per_block..][..size * self.per_block];
        let live: u32 = warps.iter().map(|w| w.live.count_ones()).sum();
        format!("the cluster barrier ({} of {live} threads arrived)", self.clusters[place].arrived)
    }
}
