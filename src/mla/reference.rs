//! Attention over the paged latent cache in plain f64, and in modules the family's other operations: what kernels should
//! have answered.

pub mod cache;
pub mod decode;
pub mod indexer;
pub mod merge;
pub mod prefill;
pub mod sparse;
pub mod top_k;

use half::bf16;

/// Sizes of an attention problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Query tokens of each sequence, the last of its cached tokens.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Columns of the page table.
    pub table_pages: usize,
    /// Pages of the cache.
    pub cache_pages: usize,
}

/// One query row's view of the cache.
#[derive(Debug, Clone)]
pub struct Row {
    /// `(place in the sequence, first element in the cache)` of every key that the row sees, in order.
    pub keys: Vec<(usize, usize)>,
    /// Pages that the row's keys reach across.
    pub pages: usize,
}

/// What an attention answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `[batch, tokens, heads, 512]`.
    pub output: Vec<f64>,
    /// Natural logarithm of the sum of exp(scale · score), `[batch, heads, tokens]`.
    pub lse: Vec<f64>,
}

/// The keys that query `token` of sequence `batch` sees: those before `length - tokens + token + 1`, causal and
/// aligned at the end, without those in pages that the cache does not have. A length is clamped to its table.
pub fn row(shape: &Shape, table: &[i32], lengths: &[i32], batch: usize, token: usize) -> Row {
    let length = i64::from(lengths[batch]).clamp(0, (shape.table_pages * 64) as i64);
    let end = (length - shape.tokens as i64 + token as i64 + 1).max(0) as usize;
    let mut keys = Vec::new();
    for place in 0..end {
        let page = table[batch * shape.table_pages + place / 64];
        if page >= 0 && (page as usize) < shape.cache_pages {
            keys.push((place, (page as usize * 64 + place % 64) * 576));
        }
    }
    Row { keys, pages: end.div_ceil(64) }
}

/// bf16 values as f64, exactly.
pub fn widened(values: &[bf16]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// Scores `q · k` of one row, unscaled, from widened values.
pub fn scores(query: &[f64], cache: &[f64], row: &Row) -> Vec<f64> {
    row.keys.iter().map(|&(_, at)| query.iter().zip(&cache[at..at + 576]).map(|(q, k)| q * k).sum()).collect()
}

/// Softmax-weighted mean of the first 512 columns of every visible key. A row without keys answers zero, and -inf
/// for the logarithm.
///
/// `query` is `[batch, tokens, heads, 576]`, `cache` is `[cache_pages, 64, 576]`, `table` is
/// `[batch, table_pages]`, `lengths` is `[batch]`.
pub fn attention(
    shape: &Shape,
    query: &[bf16],
    cache: &[bf16],
    table: &[i32],
    lengths: &[i32],
    scale: f64,
) -> Answer {
    let (query, cache) = (widened(query), widened(cache));
    let mut output = vec![0.0; shape.batch * shape.tokens * shape.heads * 512];
    let mut lse = vec![f64::NEG_INFINITY; shape.batch * shape.heads * shape.tokens];
    for batch in 0..shape.batch {
        for token in 0..shape.tokens {
            let row = row(shape, table, lengths, batch, token);
            for head in 0..shape.heads {
                let at = (batch * shape.tokens + token) * shape.heads + head;
                let scores = scores(&query[at * 576..][..576], &cache, &row);
                let Some(maximum) = scores.iter().copied().reduce(f64::max) else { continue };
                let weights: Vec<f64> = scores.iter().map(|s| ((s - maximum) * scale).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (weight, &(_, key)) in weights.iter().zip(&row.keys) {
                    for (o, v) in output[at * 512..][..512].iter_mut().zip(&cache[key..key + 512]) {
                        *o += weight * v;
                    }
                }
                output[at * 512..][..512].iter_mut().for_each(|o| *o /= sum);
                lse[(batch * shape.heads + head) * shape.tokens + token] = maximum * scale + sum.ln();
            }
        }
    }
    Answer { output, lse }
}

/// Rotates one row of neighbouring pairs by the angles of a position: first members' half, then second members'. Also the
/// sum of each answer's terms' magnitudes.
pub fn rotate(row: &[f64], position: i32, frequencies: &[f64], factor: f64) -> (Vec<f64>, Vec<f64>) {
    let turned = |second: bool| {
        row.chunks(2).zip(frequencies).map(move |(pair, frequency)| {
            let (sine, cosine) = (f64::from(position) * frequency).sin_cos();
            let terms = match second {
                false => [pair[0] * cosine, -pair[1] * sine],
                true => [pair[1] * cosine, pair[0] * sine],
            };
            (factor * (terms[0] + terms[1]), factor * (terms[0].abs() + terms[1].abs()))
        })
    };
    turned(false).chain(turned(true)).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_average_what_is_visible() {
        let shape = Shape { batch: 1, tokens: 2, heads: 1, table_pages: 2, cache_pages: 3 };
        let query = vec![bf16::ZERO; 2 * 576];
        let mut cache = vec![bf16::NAN; 3 * 64 * 576];
        for place in 0..66 {
            let page = [2, 0][place / 64];
            cache[(page * 64 + place % 64) * 576..][..576].fill(bf16::from_f32(place as f32));
        }
        let answer = attention(&shape, &query, &cache, &[2, 0], &[66], 0.1);
        assert_eq!(answer.output[0], (0..65).sum::<usize>() as f64 / 65.0);
        // 66 weights and their sum, each rounded.
        assert!((answer.output[512] - 32.5).abs() <= 67.0 * 32.5 * f64::EPSILON);
        assert_eq!(answer.lse, [65f64.ln(), 66f64.ln()]);
    }

    #[test]
    fn rows_without_keys_answer_zero() {
        let shape = Shape { batch: 3, tokens: 2, heads: 1, table_pages: 1, cache_pages: 1 };
        let answer = attention(
            &shape,
            &vec![bf16::ONE; 6 * 576],
            &vec![bf16::ONE; 64 * 576],
            &[0, 0, 9],
            &[0, 1, 2],
            1.0,
        );
        assert_eq!(answer.lse[..3], [f64::NEG_INFINITY; 3]);
        assert_eq!(answer.lse[3], 576.0);
        assert_eq!(answer.lse[4..], [f64::NEG_INFINITY; 2], "an unmapped page has no keys");
        assert_eq!(answer.output[3 * 512], 1.0);
        assert_eq!(answer.output[0], 0.0);
    }
}
