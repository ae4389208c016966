//! Attention over listed tokens in plain f64.

use half::bf16;

/// What a sparse attention reads, and its sizes.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// Query tokens.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Entries of a list.
    pub top_k: usize,
    /// `[tokens, heads, 576]`.
    pub query: &'a [bf16],
    /// `[cached tokens, 576]`.
    pub cache: &'a [f64],
    /// `[tokens, top_k]`.
    pub indices: &'a [i32],
    /// How many entries count, one for each run of as many query tokens; empty: all entries.
    pub lengths: &'a [i32],
    /// A logit without a value for each head; empty: none.
    pub sinks: &'a [f32],
    /// Scale of the scores.
    pub scale: f64,
}

/// What it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `[tokens, heads, 512]`.
    pub output: Vec<f64>,
    /// Natural logarithm of the sum of exp(scale · score), without the sink: `[tokens, heads]`.
    pub lse: Vec<f64>,
    /// The largest scaled score, `[tokens, heads]`.
    pub max_logits: Vec<f64>,
}

/// The cached tokens that a query token sees, in the order of its list: entries that the cache has, as often as they are
/// named.
pub fn keys(problem: &Problem<'_>, token: usize) -> Vec<usize> {
    let cached = problem.cache.len() / 576;
    let count = match problem.lengths.len() {
        0 => problem.top_k,
        lengths => {
            let length = problem.lengths[token / (problem.tokens / lengths)];
            (length.max(0) as usize).min(problem.top_k)
        }
    };
    problem.indices[token * problem.top_k..][..count]
        .iter()
        .filter(|index| **index >= 0 && (**index as usize) < cached)
        .map(|index| *index as usize)
        .collect()
}

/// Scores `q · k` of one row, unscaled.
pub fn scores(problem: &Problem<'_>, row: usize, keys: &[usize]) -> Vec<f64> {
    let query = &problem.query[row * 576..][..576];
    keys.iter()
        .map(|key| query.iter().zip(&problem.cache[key * 576..]).map(|(q, k)| q.to_f64() * k).sum())
        .collect()
}

/// Softmax-weighted mean of the first 512 columns of every key, of which the sink takes its share. A row without keys
/// answers zero, and -inf for the logarithm and the maximum.
pub fn attention(problem: &Problem<'_>) -> Answer {
    let rows = problem.tokens * problem.heads;
    let mut answer = Answer {
        output: vec![0.0; rows * 512],
        lse: vec![f64::NEG_INFINITY; rows],
        max_logits: vec![f64::NEG_INFINITY; rows],
    };
    for row in 0..rows {
        let (token, head) = (row / problem.heads, row % problem.heads);
        let keys = keys(problem, token);
        let scores = scores(problem, row, &keys);
        let Some(maximum) = scores.iter().copied().reduce(f64::max) else { continue };
        let weights: Vec<f64> = scores.iter().map(|s| ((s - maximum) * problem.scale).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let sink =
            problem.sinks.get(head).map_or(0.0, |sink| (f64::from(*sink) - maximum * problem.scale).exp());
        let output = &mut answer.output[row * 512..][..512];
        for (weight, key) in weights.iter().zip(&keys) {
            for (o, v) in output.iter_mut().zip(&problem.cache[key * 576..]) {
                *o += weight * v;
            }
        }
        output.iter_mut().for_each(|o| *o /= sum + sink);
        answer.lse[row] = maximum * problem.scale + sum.ln();
        answer.max_logits[row] = maximum * problem.scale;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_tokens_count_as_often_as_they_are_named() {
        let cache: Vec<f64> = (0..4).flat_map(|token| [f64::from(token); 576]).collect();
        let query = vec![bf16::ZERO; 3 * 2 * 576];
        let indices = [1, 3, -1, 1, 9, -7, 2, 0, 3, 3, 3, 3];
        let problem = Problem {
            tokens: 3,
            heads: 2,
            top_k: 4,
            query: &query,
            cache: &cache,
            indices: &indices,
            lengths: &[4, 2, 0],
            sinks: &[0.0, f32::NEG_INFINITY],
            scale: 1.0,
        };
        let answer = attention(&problem);
        assert_eq!(answer.lse[..2], [3f64.ln(); 2]);
        assert_eq!(answer.output[0], 5.0 / 4.0, "the sink counts as one more");
        assert_eq!(answer.output[512], 5.0 / 3.0);
        assert_eq!(answer.max_logits[..2], [0.0; 2]);
        assert_eq!(
            answer.lse[2..],
            [f64::NEG_INFINITY; 4],
            "neither 9 nor -7 is there, and the last list is empty"
        );
        assert!(answer.output[2 * 512..].iter().all(|o| *o == 0.0));
    }
}
