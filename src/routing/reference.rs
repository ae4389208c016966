//! The oracles of routing.

/// What is added to a sum of weights before it divides them, as the published models do.
pub const SUM_FLOOR: f64 = 1e-20;

/// How a gate chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// Experts of a token.
    pub slots: usize,
    /// Groups of experts.
    pub groups: usize,
    /// Groups that are kept.
    pub kept_groups: usize,
    /// Whether weights are divided by their sum.
    pub normalize: bool,
    /// What weights are multiplied by.
    pub scale: f64,
}

/// One token's experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Experts, best first; -1 for none.
    pub ids: Vec<i32>,
    /// Their weights.
    pub weights: Vec<f64>,
    /// The smallest difference between two unequal scores that the choice, or its order, hangs on. A computation whose
    /// scores are closer than half of it to these must choose the same.
    pub margin: f64,
}

/// The scores that experts are chosen by; `None` for one that may not be chosen.
fn candidates(logits: &[f32], bias: &[f32]) -> Vec<Option<f64>> {
    let biased = logits.iter().zip(bias).map(|(logit, bias)| sigmoid(f64::from(*logit)) + f64::from(*bias));
    biased.map(|score| (score > f64::NEG_INFINITY).then_some(score)).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Indices ordered by score, largest first, the lower index first among equals.
fn ranked(scores: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let mut ranked = scores.to_vec();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked
}

/// The smallest positive difference of neighbours in a ranking.
fn gap(ranked: &[(usize, f64)]) -> f64 {
    let gaps = ranked.windows(2).map(|pair| pair[0].1 - pair[1].1);
    gaps.filter(|gap| *gap > 0.0).fold(f64::INFINITY, f64::min)
}

/// Routes one token.
pub fn route(logits: &[f32], bias: &[f32], gate: &Gate) -> Choice {
    let candidates = candidates(logits, bias);
    let size = logits.len() / gate.groups;
    let scores: Vec<_> = candidates
        .chunks(size)
        .map(|group| {
            let scores: Vec<_> =
                group.iter().enumerate().map(|(i, s)| (i, s.unwrap_or(f64::NEG_INFINITY))).collect();
            let best = ranked(&scores);
            match best[best.len().min(2) - 1].1 {
                f64::NEG_INFINITY => f64::NEG_INFINITY,
                _ => best.iter().take(2).map(|(_, score)| score).sum(),
            }
        })
        .enumerate()
        .collect();
    let groups = ranked(&scores);
    // Which of the kept groups is better does not matter: only the border does.
    let mut margin = f64::INFINITY;
    if let (Some(last), Some(next)) = (groups.get(gate.kept_groups - 1), groups.get(gate.kept_groups))
        && last.1 > next.1
    {
        margin = last.1 - next.1;
    }
    let kept: Vec<_> = groups[..gate.kept_groups].iter().map(|(group, _)| *group).collect();
    let open: Vec<_> = candidates
        .iter()
        .enumerate()
        .filter(|(expert, _)| kept.contains(&(expert / size)))
        .filter_map(|(expert, score)| score.map(|score| (expert, score)))
        .collect();
    let order = ranked(&open);
    margin = margin.min(gap(&order[..order.len().min(gate.slots + 1)]));
    let chosen: Vec<_> = order.iter().take(gate.slots).map(|(expert, _)| *expert).collect();
    let mut weights: Vec<_> = chosen.iter().map(|expert| sigmoid(f64::from(logits[*expert]))).collect();
    if gate.normalize {
        let sum = weights.iter().sum::<f64>() + SUM_FLOOR;
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    weights.iter_mut().for_each(|weight| *weight *= gate.scale);
    let mut ids: Vec<_> = chosen.iter().map(|expert| *expert as i32).collect();
    ids.resize(gate.slots, -1);
    weights.resize(gate.slots, 0.0);
    Choice { ids, weights, margin }
}

/// The order of entries by expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Entries of each expert.
    pub counts: Vec<i32>,
    /// First row of each expert, and the number of routed entries.
    pub offsets: Vec<i32>,
    /// The entry of each row, -1 behind the routed ones.
    pub source: Vec<i32>,
    /// The row of each entry, -1 for one without an expert.
    pub position: Vec<i32>,
}

/// Orders entries by expert, stably.
pub fn permute(ids: &[i32], experts: usize) -> Order {
    let of = |expert: usize| {
        ids.iter().enumerate().filter(move |(_, id)| **id == expert as i32).map(|(entry, _)| entry)
    };
    let counts: Vec<_> = (0..experts).map(|expert| of(expert).count() as i32).collect();
    let mut offsets = vec![0];
    for count in &counts {
        offsets.push(offsets[offsets.len() - 1] + count);
    }
    let mut source: Vec<_> = (0..experts).flat_map(|expert| of(expert).map(|entry| entry as i32)).collect();
    let mut position = vec![-1; ids.len()];
    for (row, entry) in source.iter().enumerate() {
        position[*entry as usize] = row as i32;
    }
    source.resize(ids.len(), -1);
    Order { counts, offsets, source, position }
}

/// `silu(gate) * up`.
pub fn swiglu(gate: f64, up: f64) -> f64 {
    gate * sigmoid(gate) * up
}

/// The rows that one token's sum is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Experts' rows, row-major.
    pub rows: &'a [f64],
    /// Columns of a row.
    pub columns: usize,
    /// The token's rows; -1 for a slot without an expert.
    pub position: &'a [i32],
    /// The token's weights.
    pub weights: &'a [f64],
    /// The token's row of the shared experts, if there are any.
    pub shared: Option<&'a [f64]>,
}

/// One token's weighted sum, and the sum of its terms' magnitudes.
pub fn combine(parts: &Parts<'_>) -> (Vec<f64>, Vec<f64>) {
    let column = |column: usize| {
        let routed = parts.position.iter().zip(parts.weights).filter(|(row, _)| **row >= 0);
        let terms = routed.map(|(row, weight)| weight * parts.rows[*row as usize * parts.columns + column]);
        let terms: Vec<_> = terms.chain(parts.shared.map(|shared| shared[column])).collect();
        (terms.iter().sum::<f64>(), terms.iter().map(|term| term.abs()).sum::<f64>())
    };
    (0..parts.columns).map(column).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: Gate = Gate { slots: 2, groups: 2, kept_groups: 1, normalize: true, scale: 2.5 };

    #[test]
    fn ties_go_to_the_lower_index() {
        let choice = route(&[0.0; 8], &[0.0; 8], &GATE);
        assert_eq!(choice.ids, [0, 1]);
        assert_eq!(choice.weights, [1.25, 1.25]);
        assert_eq!(choice.margin, f64::INFINITY);
    }

    #[test]
    fn the_bias_moves_the_choice_and_not_the_weight() {
        let choice = route(&[0.0; 4], &[0.0, 0.0, 0.0, 1.0], &Gate { slots: 1, ..GATE });
        assert_eq!((choice.ids, choice.weights), (vec![3], vec![2.5]));
    }

    #[test]
    fn nan_is_never_chosen() {
        let logits = [f32::NAN, 1.0, f32::NAN, f32::NAN];
        let choice = route(&logits, &[0.0; 4], &Gate { kept_groups: 2, ..GATE });
        assert_eq!((choice.ids, choice.weights), (vec![1, -1], vec![2.5, 0.0]));
    }

    #[test]
    fn the_permutation_is_stable() {
        let order = permute(&[1, 0, 1, 7, 0, -1], 2);
        assert_eq!(order.counts, [2, 2]);
        assert_eq!(order.offsets, [0, 2, 4]);
        assert_eq!(order.source, [1, 4, 0, 2, -1, -1]);
        assert_eq!(order.position, [2, 0, 3, -1, 1, -1]);
    }
}
