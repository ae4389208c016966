//! Attention of any numbers of query tokens over a cache in pages of any size, in plain f64.

/// Sizes and rules of an attention.
#[derive(Debug, Clone)]
pub struct Decode {
    /// Query heads.
    pub heads: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Columns of the page table.
    pub table_pages: usize,
    /// Pages of the cache.
    pub cache_pages: usize,
    /// Where each sequence's query tokens begin, and where the last one's end.
    pub offsets: Vec<usize>,
    /// Whether a query token sees only the tokens up to its own.
    pub causal: bool,
    /// Scale of the scores.
    pub scale: f64,
}

/// What an attention answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `[query tokens, heads, 512]`.
    pub output: Vec<f64>,
    /// Natural logarithm of the sum of exp(scale · score), `[query tokens, heads]`.
    pub lse: Vec<f64>,
}

impl Decode {
    /// Sequences.
    pub fn batch(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Where the tokens end that query token `query` of sequence `sequence` sees, were all their pages in the cache. A length
    /// is clamped to its table.
    pub fn end(&self, lengths: &[i32], sequence: usize, query: usize) -> usize {
        let capacity = (self.table_pages * self.page_tokens) as i64;
        let length = i64::from(lengths[sequence]).clamp(0, capacity);
        let queries = (self.offsets[sequence + 1] - self.offsets[sequence]) as i64;
        let end = if self.causal { length - queries + query as i64 + 1 } else { length };
        end.max(0) as usize
    }

    /// The keys, by number in the cache, that query token `query` of sequence `sequence` sees, counted within the sequence.
    pub fn keys(&self, table: &[i32], lengths: &[i32], sequence: usize, query: usize) -> Vec<usize> {
        let page = |place: usize| table[sequence * self.table_pages + place / self.page_tokens];
        (0..self.end(lengths, sequence, query))
            .filter(|place| (0..self.cache_pages as i64).contains(&i64::from(page(*place))))
            .map(|place| page(place) as usize * self.page_tokens + place % self.page_tokens)
            .collect()
    }

    /// Softmax-weighted mean of the first 512 columns of every visible key, times `exp(lse) / (exp(lse) + exp(sink))` of the
    /// head. A row without keys answers zero, and -inf for the logarithm.
    ///
    /// `query` is `[query tokens, heads, 576]`, `cache` `[cache_pages · page_tokens, 576]`, `sinks` `[heads]`.
    pub fn attention(
        &self,
        query: &[f64],
        cache: &[f64],
        table: &[i32],
        lengths: &[i32],
        sinks: Option<&[f64]>,
    ) -> Answer {
        let rows = query.len() / 576;
        let mut answer = Answer { output: vec![0.0; rows * 512], lse: vec![f64::NEG_INFINITY; rows] };
        for sequence in 0..self.batch() {
            for token in self.offsets[sequence]..self.offsets[sequence + 1] {
                let keys = self.keys(table, lengths, sequence, token - self.offsets[sequence]);
                for head in 0..self.heads {
                    let row = token * self.heads + head;
                    let scores = keys.iter().map(|key| {
                        let key = &cache[key * 576..][..576];
                        self.scale
                            * query[row * 576..][..576].iter().zip(key).map(|(q, k)| q * k).sum::<f64>()
                    });
                    let scores: Vec<f64> = scores.collect();
                    let Some(largest) = scores.iter().copied().reduce(f64::max) else { continue };
                    let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
                    let lse = largest + sum.ln();
                    let share = sinks.map_or(1.0, |sinks| 1.0 / (1.0 + (sinks[head] - lse).exp()));
                    for (score, key) in scores.iter().zip(&keys) {
                        let weight = (score - largest).exp() / sum * share;
                        for (o, v) in answer.output[row * 512..][..512].iter_mut().zip(&cache[key * 576..]) {
                            *o += weight * v;
                        }
                    }
                    answer.lse[row] = lse;
                }
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_queries_and_sinks_have_their_places() {
        let mut decode = Decode {
            heads: 2,
            page_tokens: 2,
            table_pages: 2,
            cache_pages: 3,
            offsets: vec![0, 1, 3],
            causal: true,
            scale: 1.0,
        };
        let (table, lengths) = ([2, 9, 1, 0], [3, 3]);
        assert_eq!(decode.keys(&table, &lengths, 0, 0), [4, 5], "page 9 does not exist");
        assert_eq!(decode.keys(&table, &lengths, 1, 0), [2, 3]);
        assert_eq!(decode.keys(&table, &lengths, 1, 1), [2, 3, 0]);
        decode.causal = false;
        assert_eq!(decode.keys(&table, &lengths, 1, 0), [2, 3, 0]);

        let cache: Vec<f64> = (0..6).flat_map(|token| vec![f64::from(token); 576]).collect();
        let sinks = [f64::NEG_INFINITY, 3f64.ln()];
        let answer = decode.attention(&vec![0.0; 6 * 576], &cache, &table, &lengths, Some(&sinks));
        assert!((answer.lse[2] - 3f64.ln()).abs() < 1e-15);
        // The mean of 2, 3 and 0; a sink as heavy as the three keys takes half.
        assert!((answer.output[2 * 512] - 5.0 / 3.0).abs() < 1e-15);
        assert!((answer.output[3 * 512] - 5.0 / 6.0).abs() < 1e-15);
    }
    /// Pages of 64 tokens, scores as they are.
    fn plain(offsets: Vec<usize>, table_pages: usize, cache_pages: usize, scale: f64) -> Decode {
        Decode { heads: 1, page_tokens: 64, table_pages, cache_pages, offsets, causal: true, scale }
    }

    #[test]
    fn equal_scores_average_what_is_visible() {
        let decode = plain(vec![0, 2], 2, 3, 0.1);
        let mut cache = vec![f64::NAN; 3 * 64 * 576];
        for place in 0..66 {
            let page = [2, 0][place / 64];
            cache[(page * 64 + place % 64) * 576..][..576].fill(place as f64);
        }
        let answer = decode.attention(&[0.0; 2 * 576], &cache, &[2, 0], &[66], None);
        // 66 weights, each rounded twice, and their sum.
        let near = |got: f64, want: f64| (got - want).abs() <= 134.0 * want * f64::EPSILON;
        assert!(near(answer.output[0], 32.0) && near(answer.output[512], 32.5));
        assert_eq!(answer.lse, [65f64.ln(), 66f64.ln()]);
    }

    #[test]
    fn rows_without_keys_answer_zero() {
        let decode = plain(vec![0, 2, 4, 6], 1, 1, 1.0);
        let answer = decode.attention(&[1.0; 6 * 576], &vec![1.0; 64 * 576], &[0, 0, 9], &[0, 1, 2], None);
        assert_eq!(answer.lse[..3], [f64::NEG_INFINITY; 3]);
        assert_eq!(answer.lse[3], 576.0);
        assert_eq!(answer.lse[4..], [f64::NEG_INFINITY; 2], "an unmapped page has no keys");
        assert_eq!(answer.output[3 * 512], 1.0);
        assert_eq!(answer.output[0], 0.0);
    }
}
