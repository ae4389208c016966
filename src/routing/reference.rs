//! The oracles of routing.

use super::{Gate, GroupScore, Scoring, Weights};

/// What is added to a sum of weights before it divides them, as the published models do.
pub const SUM_FLOOR: f64 = 1e-20;

/// One token's experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Experts, best first; -1 for none.
    pub ids: Vec<i32>,
    /// Their weights.
    pub weights: Vec<f64>,
    /// Biased scores of the chosen.
    pub scores: Vec<f64>,
    /// The smallest difference between two unequal scores that the choice, or its order, hangs on. A computation whose
    /// scores are closer than half of it to these must choose the same.
    pub margin: f64,
    /// The same of the groups that are kept.
    pub group_margin: f64,
}

/// Scores of one token's experts without bias.
pub fn scores(logits: &[f32], scoring: Scoring) -> Vec<f64> {
    let wide = logits.iter().map(|x| f64::from(*x));
    match scoring {
        Scoring::Sigmoid => wide.map(sigmoid).collect(),
        Scoring::SqrtSoftplus => wide.map(|x| (x.max(0.0) + (-x.abs()).exp().ln_1p()).sqrt()).collect(),
        Scoring::Softmax => softmax(&wide.collect::<Vec<_>>()),
        Scoring::Logits => wide.collect(),
    }
}

/// Softmax of what is not NaN; infinite values count as the largest finite ones of f32.
fn softmax(x: &[f64]) -> Vec<f64> {
    let x: Vec<_> = x.iter().map(|x| x.clamp(f32::MIN.into(), f32::MAX.into())).collect();
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().filter(|x| !x.is_nan()).map(|x| (x - largest).exp()).sum();
    x.iter().map(|x| (x - largest).exp() / sum).collect()
}

/// Weights of these experts (-1 for none) for one token.
pub fn weights(logits: &[f32], ids: &[i32], gate: &Gate) -> Vec<f64> {
    let finite: Vec<_> = logits.iter().map(|x| x.clamp(f32::MIN, f32::MAX)).collect();
    let all = scores(&finite, gate.scoring);
    let chosen: Vec<_> = ids.iter().filter_map(|id| usize::try_from(*id).ok()).collect();
    let mut values: Vec<_> = match (gate.weights, gate.scoring) {
        (Weights::SoftmaxOfChosen, _) | (Weights::Normalized, Scoring::Softmax) => {
            softmax(&chosen.iter().map(|id| f64::from(finite[*id])).collect::<Vec<_>>())
        }
        _ => chosen.iter().map(|id| all[*id]).collect(),
    };
    if gate.weights == Weights::Normalized && gate.scoring != Scoring::Softmax {
        let sum = values.iter().sum::<f64>() + SUM_FLOOR;
        values.iter_mut().for_each(|value| *value /= sum);
    }
    let scaled = |value| f64::clamp(value * f64::from(gate.scale), f32::MIN.into(), f32::MAX.into());
    let mut values = values.into_iter().map(scaled);
    ids.iter().map(|id| if *id < 0 { 0.0 } else { values.next().unwrap_or_default() }).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Indices ordered by score, largest first, the lower index first among equals.
fn ranked(scores: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let mut ranked = scores.to_vec();
    // -0 becomes +0.
    ranked.sort_by(|a, b| (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then(a.0.cmp(&b.0)));
    ranked
}

/// The smallest positive difference of neighbours in a ranking.
fn gap(ranked: &[(usize, f64)]) -> f64 {
    let gaps = ranked.windows(2).map(|pair| pair[0].1 - pair[1].1);
    gaps.filter(|gap| *gap > 0.0).fold(f64::INFINITY, f64::min)
}

/// Routes one token; a biased score of NaN or -inf is never chosen.
pub fn route(logits: &[f32], bias: &[f32], gate: &Gate) -> Choice {
    let biased =
        scores(logits, gate.scoring).into_iter().zip(bias).map(|(score, bias)| score + f64::from(*bias));
    let candidates: Vec<_> = biased.map(|score| (score > f64::NEG_INFINITY).then_some(score)).collect();
    let size = logits.len() / gate.groups;
    let ranks: Vec<_> = candidates
        .chunks(size)
        .map(|group| {
            let scores: Vec<_> =
                group.iter().enumerate().map(|(i, s)| (i, s.unwrap_or(f64::NEG_INFINITY))).collect();
            let best = ranked(&scores);
            let taken = match gate.group_score {
                GroupScore::TopTwo => best.len().min(2),
                GroupScore::Max => 1,
            };
            match best[taken - 1].1 {
                f64::NEG_INFINITY => f64::NEG_INFINITY,
                _ => best.iter().take(taken).map(|(_, score)| score).sum(),
            }
        })
        .enumerate()
        .collect();
    let groups = ranked(&ranks);
    // Which of the kept groups is better does not matter: only the border does.
    let mut group_margin = f64::INFINITY;
    if let (Some(last), Some(next)) = (groups.get(gate.kept_groups - 1), groups.get(gate.kept_groups))
        && last.1 > next.1
    {
        group_margin = last.1 - next.1;
    }
    let kept: Vec<_> = groups[..gate.kept_groups].iter().map(|(group, _)| *group).collect();
    let open: Vec<_> = candidates
        .iter()
        .enumerate()
        .filter(|(expert, _)| kept.contains(&(expert / size)))
        .filter_map(|(expert, score)| score.map(|score| (expert, score)))
        .collect();
    let order = ranked(&open);
    let margin = group_margin.min(gap(&order[..order.len().min(gate.slots + 1)]));
    let order = &order[..order.len().min(gate.slots)];
    let mut ids: Vec<_> = order.iter().map(|(expert, _)| *expert as i32).collect();
    ids.resize(gate.slots, -1);
    let weights = weights(logits, &ids, gate);
    Choice { ids, weights, scores: order.iter().map(|(_, score)| *score).collect(), margin, group_margin }
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

    const GATE: Gate = Gate::new(Scoring::Sigmoid, 2).groups(2, 1, GroupScore::TopTwo).scale(2.5);

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
