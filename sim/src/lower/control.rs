//! Control flow: where do lanes that a branch split meet again?

use super::program::{AT_RETURN, Kind, Op};

/// Fills in `meet` of every operation of one function, `ops[first..]`.
pub(crate) fn meeting_points(ops: &mut [Op], first: usize) {
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
    let block_of = |at: usize| starts.partition_point(|&s| s <= at) - 1;
    let exit = starts.len();
    let mut successors: Vec<Vec<usize>> = Vec::with_capacity(exit);
    for (block, &start) in starts.iter().enumerate() {
        let last = starts.get(block + 1).map_or(end, |&next| next) - 1;
        let mut next: Vec<usize> = targets(&ops[last]).into_iter().map(block_of).collect();
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
            next.push(if last + 1 < end { block_of(last + 1) } else { exit });
        }
        debug_assert!(start <= last);
        next.dedup();
        successors.push(next);
    }
    let idom = post_dominators(&successors, exit);
    for (block, &start) in starts.iter().enumerate() {
        let last = starts.get(block + 1).map_or(end, |&next| next) - 1;
        let meet = idom[block];
        let point = if meet == exit { AT_RETURN } else { starts[meet] as u32 };
        for op in &mut ops[start..=last] {
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

/// Immediate post-dominators by the iteration of Cooper, Harvey and Kennedy on the reversed graph.
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
    // Blocks of an endless loop never reach the exit.
    idom.iter().map(|&d| if d == usize::MAX { exit } else { d }).collect()
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
