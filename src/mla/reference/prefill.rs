//! Attention with keys and values of each head in plain f64.

use std::ops::Range;

/// Extents of an attention over packed sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefillShape {
    /// Rows of queries.
    pub queries: usize,
    /// Rows of keys and values.
    pub keys: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub key_heads: usize,
    /// Columns of queries and keys; values have 128.
    pub width: usize,
    /// Whether later keys are invisible.
    pub causal: bool,
}

/// The rows of each sequence: offsets that lie outside or decrease are pulled into range.
pub fn sequences(offsets: &[i32], rows: usize) -> Vec<Range<usize>> {
    let mut before = 0;
    let mut pulled = offsets.iter().map(|offset| {
        before = usize::try_from(*offset).unwrap_or(0).min(rows).max(before);
        before
    });
    let mut start = pulled.next().unwrap_or(0);
    pulled.map(|end| std::mem::replace(&mut start, end)..end).collect()
}

/// The rows of keys that a query sees: `place` counts in its sequence of these queries and keys.
pub fn visible(
    shape: &PrefillShape,
    place: usize,
    queries: &Range<usize>,
    keys: &Range<usize>,
) -> Range<usize> {
    let hidden = if shape.causal { queries.len() - 1 - place } else { 0 };
    keys.start..keys.start + keys.len().saturating_sub(hidden)
}

/// The scores of one query with the keys it sees, unscaled. `query` is one row, `keys` is `[keys, key_heads, width]`.
pub fn scores(
    shape: &PrefillShape,
    query: &[f64],
    keys: &[f64],
    head: usize,
    seen: Range<usize>,
) -> Vec<f64> {
    let key_head = head * shape.key_heads / shape.heads;
    let score = |key: usize| {
        let row = &keys[(key * shape.key_heads + key_head) * shape.width..][..shape.width];
        query.iter().zip(row).map(|(q, k)| q * k).sum()
    };
    seen.map(score).collect()
}

/// Softmax-weighted means of the values, `[queries, heads, 128]`, and logarithms, `[heads, queries]`. Queries of no sequence are
/// `None`.
#[expect(clippy::too_many_arguments, reason = "what the operation has")]
pub fn prefill(
    shape: &PrefillShape,
    query: &[f64],
    key: &[f64],
    value: &[f64],
    query_offsets: &[i32],
    key_offsets: &[i32],
    scale: f64,
    sinks: Option<&[f64]>,
) -> (Vec<Option<f64>>, Vec<Option<f64>>) {
    let PrefillShape { queries, keys, heads, key_heads, width, .. } = *shape;
    let mut output = vec![None; queries * heads * 128];
    let mut lse = vec![None; heads * queries];
    let rows = sequences(query_offsets, queries).into_iter().zip(sequences(key_offsets, keys));
    for (query_rows, key_rows) in rows {
        for (place, row) in query_rows.clone().enumerate() {
            for head in 0..heads {
                let at = row * heads + head;
                let seen = visible(shape, place, &query_rows, &key_rows);
                let scores = scores(shape, &query[at * width..][..width], key, head, seen.clone());
                let mut answer = [0.0; 128];
                let mut logarithm = f64::NEG_INFINITY;
                if let Some(maximum) = scores.iter().copied().reduce(f64::max) {
                    let weights: Vec<f64> =
                        scores.iter().map(|score| ((score - maximum) * scale).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    logarithm = maximum * scale + sum.ln();
                    let share = sinks.map_or(1.0, |sinks| 1.0 / (1.0 + (sinks[head] - logarithm).exp()));
                    for (weight, key) in weights.iter().zip(seen) {
                        let row = &value[(key * key_heads + head * key_heads / heads) * 128..][..128];
                        answer.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
                    }
                    answer.iter_mut().for_each(|value| *value *= share / sum);
                }
                output[at * 128..][..128].iter_mut().zip(answer).for_each(|(to, from)| *to = Some(from));
                lse[head * queries + row] = Some(logarithm);
            }
        }
    }
    (output, lse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_never_overlap() {
        assert_eq!(sequences(&[0, 3, 5], 5), [0..3, 3..5]);
        assert_eq!(sequences(&[-4, 9, 2, 7], 6), [0..6, 6..6, 6..6]);
        assert_eq!(sequences(&[1], 6), []);
    }

    #[test]
    fn equal_scores_average_what_is_visible() {
        let shape = PrefillShape { queries: 3, keys: 2, heads: 2, key_heads: 1, width: 1, causal: true };
        let value: Vec<f64> = [[1.0; 128], [3.0; 128]].concat();
        let (out, lse) = prefill(&shape, &[0.0; 6], &[1.0; 2], &value, &[0, 3], &[0, 2], 1.0, None);
        // The first of three queries stands before both keys.
        assert_eq!([out[0], out[256], out[512]], [Some(0.0), Some(1.0), Some(2.0)]);
        assert_eq!(lse[..3], [Some(f64::NEG_INFINITY), Some(0.0), Some(2f64.ln())]);
        assert_eq!(lse[3..], lse[..3]);
    }
}
