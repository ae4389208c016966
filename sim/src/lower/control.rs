//! Control flow: where do lanes that a branch split meet again?

use super::program::{AT_RETURN, Kind, Op};

/// Basic blocks of operations and the edges between them. Calls fall through; block `starts.len()` is the exit.
pub(crate) struct FlowGraph {
    /// First operation of each block, ascending.
    pub(crate) starts: Vec<usize>,
    pub(crate) successors: Vec<Vec<usize>>,
    end: usize,
}

impl FlowGraph {
    /// Of `ops[first..]`, which no branch enters or leaves.
    pub(crate) fn new(ops: &[Op], first: usize) -> Self {
        let end = ops.len();
        let mut leaders = vec![false; end - first + 1];
        leaders[0] = true;
        for at in first..end {
            let targets = targets(&ops[at]);
            let ends = !targets.is_empty() || matches!(ops[at].kind, Kind::Return | Kind::Exit | Kind::Trap);
            for target in targets {
                leaders[target - first] = true;
            }
            if ends {
                leaders[at + 1 - first] = true;
            }
        }
        let starts: Vec<usize> = (first..end).filter(|at| leaders[at - first]).collect();
        let mut graph = Self { starts, successors: Vec::new(), end };
        let exit = graph.starts.len();
        for block in 0..exit {
            let last = graph.last(block);
            let mut next: Vec<usize> = targets(&ops[last]).into_iter().map(|at| graph.block_of(at)).collect();
            let leaves = matches!(ops[last].kind, Kind::Return | Kind::Exit | Kind::Trap);
            let falls = match ops[last].kind {
                Kind::Branch { .. } | Kind::Return | Kind::Exit | Kind::Trap => ops[last].guard.is_some(),
                Kind::BranchIndexed { .. } => ops[last].guard.is_some(),
                _ => true,
            };
            if leaves {
                next.push(exit);
            }
            if falls {
                next.push(if last + 1 < end { graph.block_of(last + 1) } else { exit });
            }
            next.dedup();
            graph.successors.push(next);
        }
        graph
    }

    /// The last operation of a block.
    pub(crate) fn last(&self, block: usize) -> usize {
        self.starts.get(block + 1).map_or(self.end, |&next| next) - 1
    }

    /// The block of an operation.
    pub(crate) fn block_of(&self, at: usize) -> usize {
        self.starts.partition_point(|&s| s <= at) - 1
    }

    /// The immediate dominator of every block when execution begins at `entries`; [`usize::MAX`] for blocks that no
    /// entry reaches, the number of blocks for those that nothing else dominates.
    pub(crate) fn dominators(&self, entries: &[usize]) -> Vec<usize> {
        let root = self.starts.len();
        // Dominators are post-dominators of the reversed graph.
        let mut reversed = vec![Vec::new(); root];
        for (block, next) in self.successors.iter().enumerate() {
            for &n in next.iter().filter(|&&n| n != root) {
                reversed[n].push(block);
            }
        }
        for &entry in entries {
            reversed[entry].push(root);
        }
        post_dominators(&reversed, root)
    }
}

/// Fills in `meet` of every operation of one function, `ops[first..]`.
pub(crate) fn meeting_points(ops: &mut [Op], first: usize) {
    let graph = FlowGraph::new(ops, first);
    let exit = graph.starts.len();
    // Blocks of an endless loop never reach the exit.
    let idom = post_dominators(&graph.successors, exit);
    for (block, &start) in graph.starts.iter().enumerate() {
        let meet = idom[block];
        let point = if meet == exit || meet == usize::MAX { AT_RETURN } else { graph.starts[meet] as u32 };
        for op in &mut ops[start..=graph.last(block)] {
            op.meet = point;
        }
    }
}

fn targets(op: &Op) -> Vec<usize> {
    match &op.kind {
        Kind::Branch { target } => vec![*target as usize],
        Kind::BranchIndexed { targets, .. } => targets.iter().map(|&t| t as usize).collect(),
        _ => Vec::new(),
    }
}

/// Immediate post-dominators by the iteration of Cooper, Harvey and Kennedy on the reversed graph; [`usize::MAX`] for
/// blocks that do not reach the exit.
fn post_dominators(successors: &[Vec<usize>], exit: usize) -> Vec<usize> {
    let count = successors.len();
    let mut predecessors = vec![Vec::new(); count + 1];
    for (block, next) in successors.iter().enumerate() {
        for &n in next {
            predecessors[n].push(block);
        }
    }
    // Reverse postorder of the reversed graph, from the exit.
    let mut order = Vec::with_capacity(count + 1);
    let mut seen = vec![false; count + 1];
    let mut stack = vec![(exit, 0)];
    seen[exit] = true;
    while let Some((node, edge)) = stack.pop() {
        if edge < predecessors[node].len() {
            stack.push((node, edge + 1));
            let next = predecessors[node][edge];
            if !seen[next] {
                seen[next] = true;
                stack.push((next, 0));
            }
        } else {
            order.push(node);
        }
    }
    order.reverse();
    let mut rank = vec![usize::MAX; count + 1];
    for (i, &node) in order.iter().enumerate() {
        rank[node] = i;
    }
    let mut idom = vec![usize::MAX; count + 1];
    idom[exit] = exit;
    let mut changed = true;
    while changed {
        changed = false;
        for &node in &order[1..] {
            let mut best = usize::MAX;
            for &next in &successors[node] {
                if idom[next] == usize::MAX {
                    continue;
                }
                best = if best == usize::MAX { next } else { meet(&idom, &rank, best, next) };
            }
            if idom[node] != best {
                idom[node] = best;
                changed = true;
            }
        }
    }
    idom
}

fn meet(idom: &[usize], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        while rank[a] > rank[b] {
            a = idom[a];
        }
        while rank[b] > rank[a] {
            b = idom[b];
        }
    }
    a
}
