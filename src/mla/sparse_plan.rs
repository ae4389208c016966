//! How a sparse attention is cut into blocks: a pure function of its shape and the card.

use super::plan::MAX_SPLITS;
use crate::card::Card;

/// Heads of one block.
pub const BLOCK_HEADS: usize = 64;
/// Keys of one buffer.
pub const BLOCK_KEYS: usize = 64;

/// The shape that a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// Query tokens.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Entries of each token's list.
    pub top_k: usize,
    /// Bytes of a cached token.
    pub token_bytes: usize,
}

impl Problem {
    /// Blocks of one split: a row of the answer belongs to exactly one of them.
    pub fn row_blocks(&self) -> usize {
        self.tokens.saturating_mul(self.heads.div_ceil(BLOCK_HEADS))
    }

    /// Whether two blocks share what they gather.
    pub fn in_pairs(&self) -> bool {
        self.heads > 0 && self.heads.div_ceil(BLOCK_HEADS).is_multiple_of(2)
    }

    /// Bytes of partial results: per split and row 512 sums and four statistics, all f32. None for one split.
    pub fn workspace_bytes(&self, splits: usize) -> usize {
        if splits < 2 {
            return 0;
        }
        let rows = splits.saturating_mul(self.tokens).saturating_mul(self.heads);
        rows.saturating_mul((512 + 4) * size_of::<f32>())
    }
}

/// Where the time of a sparse attention goes, in clock cycles of the card.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// Waves of blocks, one block a multiprocessor.
    pub waves: f64,
    /// The tensor cores' share of two buffers of keys in one block.
    pub tensor: f64,
    /// The memory's share of the same, all multiprocessors gathering.
    pub memory: f64,
    /// The producer's work on them: bringing FP8 to bf16; 0 for bf16.
    pub dequantise: f64,
    /// Pairs of buffers that a block goes through.
    pub steps: f64,
    /// Start, query load, the first keys' latency and output of one block.
    pub fixed: f64,
    /// The second kernel and its traffic; 0 for one split.
    pub combine: f64,
}

impl Cost {
    /// Cycles from start to end.
    pub fn total(&self) -> f64 {
        let step = self.tensor.max(self.memory).max(self.dequantise);
        self.waves * (self.fixed + self.steps * step) + self.combine
    }
}

/// The choice for one sparse attention.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Parts that each list is cut into.
    pub splits: usize,
    /// What it is expected to cost if every list is full.
    pub cost: Cost,
}

/// The cost of a number of splits. `splits` ≥ 1.
pub fn cost(problem: &Problem, splits: usize, card: &Card) -> Cost {
    let hertz = card.clock_ghz * 1e9;
    // Clusters of two take multiprocessors in pairs.
    let share = if problem.in_pairs() { 2.0 } else { 1.0 };
    let sms = (f64::from(card.sms) / share).floor() * share;
    let macs_per_cycle = card.bf16_tflops * 1e12 / 2.0 / hertz / f64::from(card.sms);
    let bytes_per_cycle = card.memory_gbps * 1e9 / hertz;
    let blocks = (problem.row_blocks() * splits) as f64;
    let keys = 2.0 * BLOCK_KEYS as f64;
    let rows = (problem.tokens * problem.heads) as f64;
    Cost {
        waves: (blocks / sms).ceil(),
        tensor: BLOCK_HEADS as f64 * keys * (576.0 + 512.0) / macs_per_cycle,
        memory: keys * problem.token_bytes as f64 * blocks.min(sms) / share / bytes_per_cycle,
        // Six instructions for two of 512 values, a warp of each scheduler at work.
        dequantise: if problem.token_bytes == 656 { keys * 512.0 * 3.0 / 128.0 / share } else { 0.0 },
        steps: problem.top_k.div_ceil(2 * BLOCK_KEYS).div_ceil(splits) as f64,
        fixed: 5000.0,
        combine: if splits == 1 {
            0.0
        } else {
            3000.0 + 2.0 * splits as f64 * rows * 516.0 * 4.0 / bytes_per_cycle
        },
    }
}

/// The number of splits with the least cost; the smaller of equals.
pub fn plan(problem: &Problem, card: &Card) -> Plan {
    let most = problem.top_k.div_ceil(2 * BLOCK_KEYS).clamp(1, MAX_SPLITS);
    let mut best = Plan { splits: 1, cost: cost(problem, 1, card) };
    for splits in 2..=most {
        let candidate = cost(problem, splits, card);
        if candidate.total() < best.cost.total() {
            best = Plan { splits, cost: candidate };
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(tokens: usize, heads: usize, top_k: usize) -> Problem {
        Problem { tokens, heads, top_k, token_bytes: 656 }
    }

    #[test]
    fn every_published_shape_has_a_plan_on_every_card() {
        for card in Card::ALL {
            for tokens in [0, 1, 2, 128, 256, 4096, 70_000] {
                for heads in [1, 16, 64, 128, 192] {
                    for top_k in [0, 1, 64, 2048, 32_768] {
                        let plan = plan(&problem(tokens, heads, top_k), card);
                        assert!((1..=MAX_SPLITS).contains(&plan.splits));
                        assert!(plan.splits <= top_k.div_ceil(128).max(1));
                        assert!(plan.cost.total().is_finite());
                    }
                }
            }
        }
    }

    #[test]
    fn single_tokens_split_and_full_cards_do_not() {
        assert!(plan(&problem(1, 128, 2048), &Card::H20).splits > 4);
        assert_eq!(plan(&problem(4096, 128, 2048), &Card::H20).splits, 1);
        assert_eq!(plan(&problem(1, 16, 128), &Card::H20).splits, 1);
    }

    #[test]
    fn even_numbers_of_tiles_pair_up() {
        let pairs = [1, 64, 65, 128, 129, 192, 193, 256].map(|heads| problem(1, heads, 64).in_pairs());
        assert_eq!(pairs, [false, false, true, true, false, false, true, true]);
    }

    #[test]
    fn workspace_counts_partial_rows() {
        assert_eq!(problem(6, 5, 640).workspace_bytes(1), 0);
        assert_eq!(problem(6, 5, 640).workspace_bytes(4), 4 * 30 * 516 * 4);
    }
}
