//! A warp: registers, local memory, and the splits into which divergence cut its lanes.

use super::registers::{File, Predicate};
use crate::lower::program::{AT_RETURN, Program};
use crate::memory::bits::Bits;
use crate::row::Row64;
use std::collections::HashMap;

/// Lanes that run together.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    /// Innermost open join or call.
    pub(crate) top: Option<usize>,
    /// Where the top join waits, or [`NOWHERE`].
    pub(crate) meet: u32,
    pub(crate) wait: Wait,
}

/// No operation has this number.
pub(crate) const NOWHERE: u32 = u32::MAX - 1;

/// Steps of the longest loop that counts as polling.
const SPIN: u32 = 256;

/// What a split waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wait {
    Nothing,
    /// Named barrier.
    Barrier(u32),
    /// Phase of an mbarrier, by shared address.
    Mbarrier(u32),
    /// Other lanes of the warp.
    Lanes(u32),
    /// Other warps of the warpgroup.
    Warpgroup,
    ClusterBarrier,
    /// So many registers a thread.
    Registers(u32),
    /// The launch before it, in a chain.
    Dependency,
}

/// Where diverged lanes meet, or a call returns.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Join { pc: u32, expected: u32, arrived: u32, parent: Option<usize> },
    Call { op: u32, target: u32, parent: Option<usize> },
    Free,
}

/// Groups of bulk copies of one lane.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BulkGroups {
    /// Groups closed so far; an open copy belongs to the next.
    pub(crate) committed: u64,
}

pub(crate) struct Warp {
    /// Number in the grid: no two warps of a launch share it.
    pub(crate) id: u64,
    /// Slot of its block.
    pub(crate) slot: usize,
    /// Number in its block.
    pub(crate) index: u32,
    pub(crate) r32: File<u32>,
    pub(crate) r64: File<u64>,
    pub(crate) predicates: Vec<Predicate>,
    /// Lanes that have not exited.
    pub(crate) live: u32,
    pub(crate) splits: Vec<Split>,
    nodes: Vec<Node>,
    free: Vec<usize>,
    pub(crate) local: Vec<u8>,
    pub(crate) local_defined: Bits,
    pub(crate) bulk: HashMap<u32, BulkGroups>,
    /// Groups of `cp.async` that each lane has closed.
    pub(crate) copy_groups: Row64,
    /// Registers of a thread, once `setmaxnreg` has said.
    pub(crate) registers: Option<u32>,
    /// The `setmaxnreg` that it executed.
    pub(crate) registers_set: Vec<u32>,
    /// wgmma groups closed so far.
    pub(crate) wgmma_committed: u64,
    /// (group, operation) of every wgmma whose registers are still held.
    pub(crate) wgmma_held: Vec<(u64, u32)>,
    /// wgmma since the last fence, each operation once.
    pub(crate) wgmma_unfenced: Vec<u32>,
    /// Lanes that arrived at the cluster barrier and have not waited, by the phase's parity.
    pub(crate) cluster_arrived: [u32; 2],
    /// What polls of memory saw, by operation.
    polls: HashMap<u32, u64>,
    /// The last poll saw nothing new; and the steps since then.
    vain: bool,
    since_poll: u32,
    /// Executions of each operation; empty without a profiler.
    pub(crate) executed: Vec<u32>,
}

impl Warp {
    pub(crate) fn new(program: &Program, slot: usize, index: u32) -> Self {
        let local = program.local_bytes as usize * 32;
        Self {
            id: 0,
            slot,
            index,
            r32: File::<u32>::new(program.names32.len()),
            r64: File::<u64>::new(program.names64.len()),
            predicates: vec![Predicate::default(); program.predicates],
            live: 0,
            splits: Vec::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            local: vec![0; local],
            local_defined: Bits::new(local),
            bulk: HashMap::new(),
            copy_groups: [0; 32],
            registers: None,
            registers_set: Vec::new(),
            wgmma_committed: 0,
            wgmma_held: Vec::new(),
            wgmma_unfenced: Vec::new(),
            cluster_arrived: [0; 2],
            polls: HashMap::new(),
            vain: false,
            since_poll: 0,
            executed: Vec::new(),
        }
    }

    /// Ready for a new block.
    pub(crate) fn reset(&mut self, live: u32) {
        self.r32.reset();
        self.r64.reset();
        self.predicates.fill(Predicate::default());
        self.live = live;
        self.splits.clear();
        self.nodes.clear();
        self.free.clear();
        let len = self.local.len();
        self.local_defined.put(0, len, false);
        self.bulk.clear();
        self.copy_groups = [0; 32];
        self.registers = None;
        self.registers_set.clear();
        self.wgmma_committed = 0;
        self.wgmma_held.clear();
        self.wgmma_unfenced.clear();
        self.cluster_arrived = [0; 2];
        self.polls.clear();
        self.vain = false;
        self.splits.push(Split { pc: 0, mask: live, top: None, meet: NOWHERE, wait: Wait::Nothing });
    }

    /// Remembers what a poll saw; whether the last one saw the same.
    pub(crate) fn polled(&mut self, pc: u32, seen: u64) -> bool {
        self.vain = self.polls.insert(pc, seen) == Some(seen);
        self.vain
    }

    /// A turn of so many steps is over, and ended in vain or did not: whether all it did belongs to a loop that polls.
    pub(crate) fn spins(&mut self, steps: u32, gave_up: bool) -> bool {
        if gave_up {
            (self.vain, self.since_poll) = (true, 0);
            return true;
        }
        self.since_poll = if self.vain { self.since_poll + steps } else { 0 };
        self.vain &= self.since_poll <= SPIN;
        self.vain
    }

    fn node(&mut self, node: Node) -> usize {
        match self.free.pop() {
            Some(at) => {
                self.nodes[at] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    fn meet_of(&self, top: Option<usize>) -> u32 {
        match top.map(|t| &self.nodes[t]) {
            Some(Node::Join { pc, .. }) => *pc,
            _ => NOWHERE,
        }
    }

    /// Splits `split` at a branch: `taken` lanes go to `target`, the others fall through; they meet at `meet`.
    pub(crate) fn diverge(&mut self, split: &mut Split, taken: u32, target: u32, meet: u32) {
        let top = if split.meet == meet && split.top.is_some() {
            split.top
        } else {
            Some(self.node(Node::Join { pc: meet, expected: split.mask, arrived: 0, parent: split.top }))
        };
        let other = Split { pc: target, mask: taken, top, meet, wait: Wait::Nothing };
        split.mask &= !taken;
        split.pc += 1;
        split.top = top;
        split.meet = meet;
        self.splits.push(other);
    }

    /// The split stands at the meeting point of its top join: it merges there. False when it must wait for others,
    /// in which case it is gone.
    pub(crate) fn arrive(&mut self, split: &mut Split) -> bool {
        let top = split.top.expect("a split with a meeting point has a join");
        let Node::Join { pc, expected, arrived, parent } = &mut self.nodes[top] else {
            unreachable!("the top of a split with a meeting point is a join");
        };
        *arrived |= split.mask;
        if *arrived != *expected {
            return false;
        }
        let (pc, mask, parent) = (*pc, *arrived, *parent);
        self.nodes[top] = Node::Free;
        self.free.push(top);
        *split = Split { pc, mask, top: parent, meet: self.meet_of(parent), wait: Wait::Nothing };
        true
    }

    /// Lanes exit: joins no longer expect them. Joins that complete by this become splits again.
    pub(crate) fn exit(&mut self, lanes: u32) {
        self.live &= !lanes;
        let mut at = 0;
        while at < self.nodes.len() {
            if let Node::Join { pc, expected, arrived, parent } = &mut self.nodes[at]
                && *expected & lanes != 0
            {
                *expected &= !lanes;
                let (pc, expected, arrived, parent) = (*pc, *expected, *arrived, *parent);
                if expected == 0 {
                    self.nodes[at] = Node::Free;
                    self.free.push(at);
                } else if expected == arrived {
                    self.nodes[at] = Node::Free;
                    self.free.push(at);
                    let meet = self.meet_of(parent);
                    self.splits.push(Split { pc, mask: expected, top: parent, meet, wait: Wait::Nothing });
                }
            }
            at += 1;
        }
    }

    pub(crate) fn call(&mut self, split: &mut Split, op: u32, target: u32) {
        let node = self.node(Node::Call { op, target, parent: split.top });
        split.top = Some(node);
        split.meet = NOWHERE;
        split.pc = target;
    }

    /// Whether a split is in the function that begins at an operation.
    pub(crate) fn is_in(&self, split: &Split, start: u32) -> bool {
        let mut top = split.top;
        while let Some(at) = top {
            top = match self.nodes[at] {
                Node::Call { target, .. } if target == start => return true,
                Node::Call { parent, .. } | Node::Join { parent, .. } => parent,
                Node::Free => None,
            };
        }
        false
    }

    /// Leaves a function: the calling operation, and where the function begins. None when the lanes first have to meet.
    pub(crate) fn leave(&mut self, split: &mut Split) -> Option<(u32, u32)> {
        if split.meet == AT_RETURN {
            split.pc = AT_RETURN;
            return None;
        }
        let top = split.top.expect("a return outside any call is an exit");
        let Node::Call { op, target, parent } = self.nodes[top] else {
            unreachable!("joins inside a function end before or at its return");
        };
        self.nodes[top] = Node::Free;
        self.free.push(top);
        split.top = parent;
        split.meet = self.meet_of(parent);
        split.pc = op + 1;
        Some((op, target))
    }
}
