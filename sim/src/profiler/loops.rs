//! Natural loops of a program: which operations repeat, and which of them only wait.

use crate::counters::Class;
use crate::lower::control::FlowGraph;
use crate::lower::program::{Kind, Op, Rmw};

/// A natural loop: a header that dominates the source of a jump back to it, and all between them.
#[derive(Debug)]
pub(super) struct Loop {
    /// First operation of the header.
    pub(super) header: usize,
    /// The last operations of the blocks that jump back.
    pub(super) latches: Vec<usize>,
    /// Whether each block of the graph is in it.
    blocks: Vec<bool>,
    /// The smallest loop around it.
    pub(super) parent: Option<usize>,
    /// Nothing happens in it but polling a barrier or memory.
    pub(super) waits: bool,
}

/// Every natural loop of a program, by header. Loops that have two entries have no header and are not found.
#[derive(Debug)]
pub(super) struct Loops {
    pub(super) all: Vec<Loop>,
    /// The smallest loop around each operation.
    pub(super) innermost: Vec<Option<usize>>,
}

impl Loops {
    pub(super) fn of(ops: &[Op]) -> Self {
        let graph = FlowGraph::new(ops, 0);
        let mut entries = vec![0];
        for op in ops {
            if let Kind::Call { target, .. } = op.kind {
                let block = graph.block_of(target as usize);
                if !entries.contains(&block) {
                    entries.push(block);
                }
            }
        }
        let mut all = natural(&graph, &entries);
        for index in 0..all.len() {
            let header = graph.block_of(all[index].header);
            let around = (0..all.len()).filter(|&other| other != index && all[other].blocks[header]);
            all[index].parent = around.min_by_key(|&other| size(&all[other]));
        }
        let mut innermost = vec![None; ops.len()];
        for (at, slot) in innermost.iter_mut().enumerate() {
            let block = graph.block_of(at);
            *slot = (0..all.len()).filter(|&l| all[l].blocks[block]).min_by_key(|&l| size(&all[l]));
        }
        for repeated in &mut all {
            let inside = ops.iter().enumerate().filter(|(at, _)| repeated.blocks[graph.block_of(*at)]);
            repeated.waits = only_waits(inside.map(|(_, op)| op));
        }
        Self { all, innermost }
    }

    /// Whether `inner` is `outer` or inside of it.
    pub(super) fn within(&self, inner: usize, outer: usize) -> bool {
        let mut at = Some(inner);
        while let Some(index) = at {
            if index == outer {
                return true;
            }
            at = self.all[index].parent;
        }
        false
    }

    /// Whether an operation is in a loop that only waits.
    pub(super) fn polls(&self, op: usize) -> bool {
        self.innermost[op].is_some_and(|index| self.all[index].waits)
    }
}

fn size(repeated: &Loop) -> usize {
    repeated.blocks.iter().filter(|inside| **inside).count()
}

fn natural(graph: &FlowGraph, entries: &[usize]) -> Vec<Loop> {
    let count = graph.starts.len();
    let idom = graph.dominators(entries);
    let dominates = |header: usize, block: usize| {
        let mut at = block;
        while at < count {
            if at == header {
                return true;
            }
            at = idom[at];
        }
        false
    };
    let mut predecessors = vec![Vec::new(); count];
    for (block, next) in graph.successors.iter().enumerate() {
        for &n in next.iter().filter(|&&n| n < count) {
            predecessors[n].push(block);
        }
    }
    let mut all = Vec::new();
    for header in 0..count {
        let back: Vec<usize> = predecessors[header]
            .iter()
            .copied()
            .filter(|&b| idom[b] != usize::MAX && dominates(header, b))
            .collect();
        if back.is_empty() {
            continue;
        }
        let mut blocks = vec![false; count];
        blocks[header] = true;
        let mut left = back.clone();
        while let Some(block) = left.pop() {
            if !std::mem::replace(&mut blocks[block], true) {
                left.extend(&predecessors[block]);
            }
        }
        let latches = back.into_iter().map(|block| graph.last(block)).collect();
        all.push(Loop { header: graph.starts[header], latches, blocks, parent: None, waits: false });
    }
    all
}

fn only_waits<'a>(ops: impl Iterator<Item = &'a Op>) -> bool {
    let mut wait = false;
    for op in ops {
        let polls = match op.kind {
            Kind::MbarrierWait { .. } | Kind::MbarrierWaitState { .. } | Kind::Yield => true,
            Kind::Load { .. } => op.poll,
            Kind::Atomic { rmw, .. } => rmw == Rmw::Cas,
            _ => false,
        };
        wait |= polls;
        if !polls && !matches!(op.class, Class::Integer | Class::Control | Class::Barrier) {
            return false;
        }
    }
    wait
}
