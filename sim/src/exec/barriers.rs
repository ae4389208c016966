//! Named barriers and mbarriers.

use super::step::Flow;
use super::warp::{Split, Wait, Warp};
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Address, Arrive, Kind, Op, Program, S32, Vote};
use crate::mbarrier::{Mbarrier, MbarrierError};
use crate::row::Row;
use crate::schedule::Policy;

/// A named barrier between two openings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Named {
    /// Threads that arrived.
    pub(super) arrived: u32,
    /// Threads that open it; none while nobody arrived with a number.
    pub(super) wanted: Option<u32>,
    open: bool,
    count: u32,
    all: bool,
    any: bool,
    /// Warps that arrived, for the default count and for double arrivals.
    warps: u32,
}

fn misuse(error: MbarrierError, lane: u32) -> Trouble {
    Trouble { kind: FaultKind::Barrier(error.to_string()), lane: Some(lane) }
}

impl Grid<'_> {
    /// The warps of a block.
    pub(super) fn warps_of(&self, slot: usize) -> &[Warp] {
        &self.warps[slot * self.per_block..][..self.per_block]
    }

    pub(super) fn warps_of_mut(&mut self, slot: usize) -> &mut [Warp] {
        &mut self.warps[slot * self.per_block..][..self.per_block]
    }

    pub(super) fn threads_of(&self, slot: usize, named: &Named) -> u32 {
        let live = || self.warps_of(slot).iter().filter(|w| w.live != 0).count();
        named.wanted.unwrap_or_else(|| 32 * live() as u32)
    }

    pub(super) fn synchronise(&mut self, w: usize, split: &mut Split, op: &Op, mask: u32) -> Step<Flow> {
        match &op.kind {
            Kind::Barrier { id, threads, wait, aligned } => {
                self.named_barrier(w, mask, *id, *threads, *wait, *aligned, None)
            }
            Kind::BarrierReduce { id, threads, p, aligned, .. } => {
                let value = self.decision(w, *p, mask, "a barrier's predicate")?;
                self.named_barrier(w, mask, *id, *threads, true, *aligned, Some(value))
            }
            Kind::ClusterArrive { aligned } => {
                self.cluster_arrive(w, mask, *aligned)?;
                Ok(Flow::Next)
            }
            Kind::ClusterWait { aligned } => self.cluster_wait(w, mask, *aligned),
            Kind::MbarrierWait { at, p, parity, blocking } => {
                let (at, p, parity, blocking) = (*at, *p, *parity, *blocking);
                self.wait_parity(w, split, mask, &at, p, parity, blocking)
            }
            Kind::MbarrierWaitState { at, p, state, blocking } => {
                let (slot, lanes) = (self.slot(w), self.own_barriers(w, at, mask)?);
                let state = self.sure64(w, *state, mask, "an mbarrier state")?;
                let mut done = 0;
                for &(lane, _, address) in &lanes {
                    let over = self.mbarrier(slot, address).test_state(state[lane as usize]);
                    done |= u32::from(over.map_err(|e| misuse(e, lane))?) << lane;
                }
                self.race_barrier_wait(w, &lanes, done)?;
                let one = lanes.iter().all(|&(.., address)| address == lanes[0].2);
                if done == 0 && *blocking && one {
                    return Ok(Flow::Wait(Wait::Mbarrier(lanes[0].2)));
                }
                self.warps[w].predicates[*p as usize].put(done, u32::MAX, mask);
                Ok(if done == mask { Flow::Next } else { Flow::Yield })
            }
            Kind::MbarrierInit { at, count } => {
                let count = self.sure32(w, *count, mask, "an mbarrier's count")?;
                for (lane, slot, address) in self.barrier_lanes(w, at, mask, false)? {
                    let shared = &mut self.blocks[slot].shared;
                    let at = shared.locate(address, 8).expect("located with its lane");
                    shared.defined.put(at, 8, true);
                    self.mbarrier(slot, address).init(count[lane as usize]).map_err(|e| misuse(e, lane))?;
                    self.race_barrier_storage(w, lane, slot, address, true)?;
                }
                Ok(Flow::Next)
            }
            Kind::MbarrierInvalidate { at } => {
                for (lane, slot, address) in self.barrier_lanes(w, at, mask, false)? {
                    self.mbarrier(slot, address).inval().map_err(|e| misuse(e, lane))?;
                    self.race_barrier_storage(w, lane, slot, address, false)?;
                }
                Ok(Flow::Next)
            }
            Kind::MbarrierExpect { at, bytes, peers } => {
                let bytes = self.sure32(w, *bytes, mask, "an mbarrier's byte count")?;
                for (lane, slot, address) in self.barrier_lanes(w, at, mask, *peers)? {
                    self.race_barrier_use(w, lane, slot, address, false)?;
                    let barrier = self.mbarrier(slot, address);
                    barrier.expect_tx(bytes[lane as usize]).map_err(|e| misuse(e, lane))?;
                }
                Ok(Flow::Next)
            }
            Kind::MbarrierComplete { at, bytes, peers } => {
                let bytes = self.sure32(w, *bytes, mask, "an mbarrier's byte count")?;
                for (lane, slot, address) in self.barrier_lanes(w, at, mask, *peers)? {
                    let blame = |t: Trouble| Trouble { lane: Some(lane), ..t };
                    self.complete_bytes(slot, address, bytes[lane as usize]).map_err(blame)?;
                }
                Ok(Flow::Next)
            }
            Kind::MbarrierArrive { at, state, how, drop, goes_on, peers } => {
                let amount = match how {
                    Arrive::Plain { count } => self.sure32(w, *count, mask, "an mbarrier's arrival count")?,
                    Arrive::ExpectTx { bytes } => self.sure32(w, *bytes, mask, "an mbarrier's byte count")?,
                };
                let mut tokens = [0; 32];
                let lanes = self.barrier_lanes(w, at, mask, *peers)?;
                self.race_barrier_arrivals(w, &lanes)?;
                for (lane, slot, address) in lanes {
                    if state.is_some() && slot != self.slot(w) {
                        let what = "an arrival at another block's mbarrier has no state to give".into();
                        return Err(Trouble { kind: FaultKind::Cluster(what), lane: Some(lane) });
                    }
                    let barrier = self.mbarrier(slot, address);
                    let before = barrier.phase();
                    let amount = amount[lane as usize];
                    if *goes_on {
                        barrier.promise_open(amount).map_err(|e| misuse(e, lane))?;
                    }
                    let token = match (how, drop) {
                        (Arrive::Plain { .. }, false) => barrier.arrive(amount),
                        (Arrive::Plain { .. }, true) => barrier.arrive_drop(amount),
                        (Arrive::ExpectTx { .. }, false) => barrier.arrive_expect_tx(amount),
                        (Arrive::ExpectTx { .. }, true) => barrier.arrive_drop_expect_tx(amount),
                    };
                    tokens[lane as usize] = token.map_err(|e| misuse(e, lane))?;
                    if self.mbarrier(slot, address).phase() != before {
                        self.race_barrier_turn(slot, address);
                        self.wake(slot, address);
                    }
                }
                if let Some(d) = state {
                    self.put64(w, *d, &tokens, mask, None)?;
                }
                Ok(Flow::Next)
            }
            _ => self.asynchronous(w, split, op, mask),
        }
    }

    fn mbarrier(&mut self, slot: usize, address: u32) -> &mut Mbarrier {
        self.blocks[slot].mbarriers.entry(address).or_default()
    }

    /// An arrival will come that nobody counted.
    pub(super) fn expect_arrival(&mut self, slot: usize, address: u32, lane: u32) -> Step<()> {
        self.mbarrier(slot, address).expect_arrival().map_err(|e| misuse(e, lane))
    }

    /// A thread's copies are complete.
    pub(super) fn arrive_at(&mut self, slot: usize, address: u32, lane: u32) -> Step<()> {
        let barrier = self.mbarrier(slot, address);
        let before = barrier.phase();
        barrier.arrive(1).map_err(|e| misuse(e, lane))?;
        if barrier.phase() != before {
            self.race_barrier_turn(slot, address);
            self.wake(slot, address);
        }
        Ok(())
    }

    /// Bytes of a copy arrived.
    pub(super) fn complete_bytes(&mut self, slot: usize, address: u32, bytes: u32) -> Step<()> {
        let barrier = self.mbarrier(slot, address);
        let before = barrier.phase();
        barrier.complete_tx(bytes).map_err(|e| misuse(e, 0))?;
        if barrier.phase() != before {
            self.race_barrier_turn(slot, address);
            self.wake(slot, address);
        }
        Ok(())
    }

    fn wake(&mut self, slot: usize, address: u32) {
        for warp in self.warps_of_mut(slot) {
            for split in &mut warp.splits {
                if split.wait == Wait::Mbarrier(address) {
                    split.wait = Wait::Nothing;
                }
            }
        }
    }

    /// The barriers that the active lanes name: lane, slot of the block, shared address without the rank.
    pub(super) fn barrier_lanes(
        &self,
        w: usize,
        at: &Address,
        mask: u32,
        peers: bool,
    ) -> Step<Vec<(u32, usize, u32)>> {
        let addresses = self.addresses(w, at, mask)?;
        let mut out = Vec::new();
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            let (address, lane) = (addresses[lane], lane as u32);
            if address % 8 != 0 {
                let kind = FaultKind::Misaligned { address, align: 8 };
                return Err(Trouble { kind, lane: Some(lane) });
            }
            let (slot, address) = self.shared_place(w, lane, address, 8, peers)?;
            out.push((lane, slot, address));
        }
        Ok(out)
    }

    /// The barriers that the active lanes want to wait for.
    fn own_barriers(&self, w: usize, at: &Address, mask: u32) -> Step<Vec<(u32, usize, u32)>> {
        let lanes = self.barrier_lanes(w, at, mask, true)?;
        match lanes.iter().find(|(_, slot, _)| *slot != self.slot(w)) {
            Some(&(lane, ..)) => {
                let what = "waits for another block's mbarrier; only the owner may".into();
                Err(Trouble { kind: FaultKind::Cluster(what), lane: Some(lane) })
            }
            None => Ok(lanes),
        }
    }

    /// Lanes that ask about different phases: each has its own answer, and nobody is put to sleep.
    fn wait_apart(
        &mut self,
        w: usize,
        pc: u32,
        mask: u32,
        lanes: &[(u32, usize, u32)],
        parities: &Row,
        p: u32,
    ) -> Step<Flow> {
        let mut done = 0;
        for &(lane, slot, address) in lanes {
            let key = (32 * w + lane as usize, address, pc | 1 << 31);
            let mut seen = self.blocks[slot].parity_seen.get(&key).copied().flatten();
            let over = self.mbarrier(slot, address).test_parity(parities[lane as usize], &mut seen);
            done |= u32::from(over.map_err(|e| misuse(e, lane))?) << lane;
            self.blocks[slot].parity_seen.insert(key, seen);
        }
        self.race_barrier_wait(w, lanes, done)?;
        self.warps[w].predicates[p as usize].put(done, u32::MAX, mask);
        if done == mask {
            return Ok(Flow::Next);
        }
        self.counters.waits += 1;
        Ok(Flow::Yield)
    }

    fn wait_parity(
        &mut self,
        w: usize,
        split: &Split,
        mask: u32,
        at: &Address,
        p: u32,
        parity: S32,
        blocking: bool,
    ) -> Step<Flow> {
        let lanes = self.own_barriers(w, at, mask)?;
        let parities = self.sure32(w, parity, mask, "an mbarrier's parity")?;
        let (address, parity) = (lanes[0].2, parities[lanes[0].0 as usize]);
        if lanes.iter().any(|&(lane, _, at)| (at, parities[lane as usize]) != (address, parity)) {
            return self.wait_apart(w, split.pc, mask, &lanes, &parities, p);
        }
        let random = self.schedule.tma == Policy::Random;
        let key = (w, address, split.pc);
        let slot = self.slot(w);
        let mut seen = self.blocks[slot].parity_seen.get(&key).copied().flatten();
        let done = self
            .mbarrier(slot, address)
            .test_parity(parity, &mut seen)
            .map_err(|e| misuse(e, mask.trailing_zeros()))?;
        self.blocks[slot].parity_seen.insert(key, seen);
        // A wait may fail for no reason.
        let spurious = random && self.random.below(8) == 0;
        let done = done && !(spurious && blocking);
        self.race_barrier_wait(w, &lanes, if done { mask } else { 0 })?;
        if !done && blocking && !spurious {
            return Ok(Flow::Wait(Wait::Mbarrier(address)));
        }
        self.warps[w].predicates[p as usize].put(if done { u32::MAX } else { 0 }, u32::MAX, mask);
        if done {
            return Ok(Flow::Next);
        }
        self.counters.waits += 1;
        Ok(Flow::Yield)
    }

    #[allow(clippy::too_many_arguments, reason = "the operands of one instruction")]
    fn named_barrier(
        &mut self,
        w: usize,
        mask: u32,
        id: S32,
        threads: Option<S32>,
        wait: bool,
        aligned: bool,
        vote: Option<u32>,
    ) -> Step<Flow> {
        if aligned {
            self.together(w, mask)?;
        }
        let id = self.uniform32(w, id, mask, "a barrier's number")?;
        if id > 15 {
            return Err(FaultKind::Barrier(format!("barrier {id} of 16")).into());
        }
        let wanted = threads.map(|t| self.uniform32(w, t, mask, "a barrier's thread count")).transpose()?;
        if let Some(wanted) = wanted.filter(|&t| t == 0 || t % 32 != 0) {
            return Err(FaultKind::Barrier(format!(
                "barrier {id} with {wanted} threads, not a multiple of 32"
            ))
            .into());
        }
        let whole = mask == self.warps[w].live;
        let (slot, index) = (self.slot(w), self.warps[w].index);
        let named = &mut self.blocks[slot].named[id as usize];
        if named.open && named.wanted != wanted {
            let (had, has) = (named.wanted, wanted);
            return Err(
                FaultKind::Barrier(format!("barrier {id} is open for {had:?} threads, now {has:?}")).into()
            );
        }
        if whole && named.warps >> index & 1 == 1 {
            return Err(FaultKind::Barrier(format!("warp {index} arrives twice at barrier {id}")).into());
        }
        if !named.open {
            *named = Named { open: true, wanted, all: true, ..Named::default() };
        }
        named.arrived += if whole { 32 } else { mask.count_ones() };
        if whole {
            named.warps |= 1 << index;
        }
        if let Some(value) = vote {
            named.count += value.count_ones();
            named.all &= value == mask;
            named.any |= value != 0;
        }
        self.race_arrive(w, id, mask);
        let named = &self.blocks[slot].named[id as usize];
        let (wanted, arrived) = (self.threads_of(slot, named), named.arrived);
        if arrived > wanted {
            return Err(FaultKind::Barrier(format!(
                "{arrived} threads at barrier {id}, which {wanted} open"
            ))
            .into());
        }
        if arrived < wanted {
            return Ok(if wait { Flow::Wait(Wait::Barrier(id)) } else { Flow::Next });
        }
        let done = self.release(slot, id);
        if wait {
            self.race_pass(w, id, mask);
        }
        if vote.is_some() {
            let program: &Program = self.program;
            let split_pc = self.current_pc;
            self.reduction(w, &program.ops[split_pc as usize].kind, mask, &done)?;
        }
        Ok(Flow::Next)
    }

    /// Opens a barrier: its waiters go on.
    fn release(&mut self, slot: usize, id: u32) -> Named {
        let program: &Program = self.program;
        let done = std::mem::take(&mut self.blocks[slot].named[id as usize]);
        self.race_open(slot, id);
        for w in slot * self.per_block..(slot + 1) * self.per_block {
            for s in 0..self.warps[w].splits.len() {
                let split = &mut self.warps[w].splits[s];
                if split.wait != Wait::Barrier(id) {
                    continue;
                }
                split.wait = Wait::Nothing;
                let (pc, mask) = (split.pc, split.mask);
                split.pc += 1;
                self.race_pass(w, id, mask);
                // The registers of a waiter cannot be held by a wgmma: it has waited at an aligned barrier.
                let _ = self.reduction(w, &program.ops[pc as usize].kind, mask, &done);
            }
        }
        done
    }

    fn reduction(&mut self, w: usize, kind: &Kind, mask: u32, done: &Named) -> Step<()> {
        let Kind::BarrierReduce { vote, d, .. } = kind else { return Ok(()) };
        let flag = match vote {
            Vote::Ballot => return self.put32(w, *d, &[done.count; 32], mask, None),
            Vote::All => done.all,
            _ => done.any,
        };
        self.warps[w].predicates[*d as usize].put(if flag { u32::MAX } else { 0 }, u32::MAX, mask);
        Ok(())
    }

    /// A warp has exited: barriers that count every warp may open.
    pub(super) fn warp_left(&mut self, w: usize) -> Step<()> {
        let slot = self.slot(w);
        for id in 0..16 {
            let named = self.blocks[slot].named[id as usize];
            if named.open && named.wanted.is_none() && named.arrived >= self.threads_of(slot, &named) {
                self.release(slot, id);
            }
        }
        Ok(())
    }
}
