//! How an attention is cut into blocks: a pure function of its shape and the card.

use crate::card::Card;

/// Tokens of a page of the latent cache.
pub const PAGE: usize = 64;
/// Query rows (token × head) of one block.
pub const ROW_TILE: usize = 64;
/// The largest number of splits.
pub const MAX_SPLITS: usize = 128;

/// The shape that a plan is made for. Lengths are data and play no part: a table that is wider than the longest
/// sequence makes plans with more splits than needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// Sequences.
    pub batch: usize,
    /// Query tokens of each sequence.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Columns of the page table.
    pub table_pages: usize,
}

impl Problem {
    /// Blocks of one split: a row of the answer belongs to exactly one of them.
    pub fn row_blocks(&self) -> usize {
        self.batch * (self.tokens * self.heads).div_ceil(ROW_TILE)
    }

    /// Bytes of partial results: per split and row, 512 sums, a maximum and a weight, all f32. None for one split.
    pub fn workspace_bytes(&self, splits: usize) -> usize {
        if splits < 2 {
            0
        } else {
            splits * self.batch * self.tokens * self.heads * (512 + 2) * size_of::<f32>()
        }
    }
}

/// Where the time of an attention goes, in clock cycles of the card.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// Waves of blocks, one block a multiprocessor.
    pub waves: f64,
    /// The tensor cores' share of one page in one block.
    pub tensor_per_page: f64,
    /// The memory's share of one page in one block, all multiprocessors loading.
    pub memory_per_page: f64,
    /// Pages of the longest block.
    pub pages: f64,
    /// Start, query load, first page's latency and output of one block.
    pub fixed: f64,
    /// The second kernel and its traffic; 0 for one split.
    pub combine: f64,
}

impl Cost {
    /// Cycles from start to end.
    pub fn total(&self) -> f64 {
        self.waves * (self.fixed + self.pages * self.tensor_per_page.max(self.memory_per_page)) + self.combine
    }
}

/// The choice for one attention.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Parts that each sequence's pages are cut into.
    pub splits: usize,
    /// What it is expected to cost if every sequence fills its table.
    pub cost: Cost,
}

/// The cost of a number of splits. `splits` ≥ 1.
pub fn cost(problem: &Problem, splits: usize, card: &Card) -> Cost {
    let hertz = card.clock_ghz * 1e9;
    let sms = f64::from(card.sms);
    let macs_per_cycle = card.bf16_tflops * 1e12 / 2.0 / hertz / sms;
    let bytes_per_cycle = card.memory_gbps * 1e9 / hertz;
    let blocks = problem.row_blocks() * splits;
    let busy = (blocks as f64).min(sms);
    let rows = (problem.batch * problem.tokens * problem.heads) as f64;
    Cost {
        waves: (blocks as f64 / sms).ceil(),
        tensor_per_page: (ROW_TILE * PAGE * (576 + 512)) as f64 / macs_per_cycle,
        // Blocks of the same sequence and split load the same pages, mostly from L2.
        memory_per_page: (PAGE * 576 * 2) as f64 * busy
            / (problem.tokens * problem.heads).div_ceil(ROW_TILE).max(1) as f64
            / bytes_per_cycle,
        pages: problem.table_pages.div_ceil(splits) as f64,
        fixed: 4000.0,
        combine: if splits == 1 {
            0.0
        } else {
            3000.0 + 2.0 * splits as f64 * rows * 514.0 * 4.0 / bytes_per_cycle
        },
    }
}

/// The number of splits with the least cost; the smaller of equals.
pub fn plan(problem: &Problem, card: &Card) -> Plan {
    let most = problem.table_pages.clamp(1, MAX_SPLITS);
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

    fn problem(batch: usize, tokens: usize, heads: usize, length: usize) -> Problem {
        Problem { batch, tokens, heads, table_pages: length.div_ceil(PAGE) }
    }

    #[test]
    fn every_published_shape_has_a_plan_on_every_card() {
        for card in Card::ALL {
            for batch in [0, 1, 2, 16, 128, 768] {
                for tokens in [1, 2, 4, 4096] {
                    for heads in [1, 16, 64, 128] {
                        for length in [0, 1, 64, 1024, 4096, 32768, 131072] {
                            let p = problem(batch, tokens, heads, length);
                            let plan = plan(&p, card);
                            assert!((1..=MAX_SPLITS).contains(&plan.splits));
                            assert!(plan.splits <= p.table_pages.max(1));
                            assert!(plan.cost.total().is_finite());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn long_contexts_of_small_batches_split_and_full_cards_do_not() {
        let card = Card::H20;
        assert!(plan(&problem(1, 1, 128, 32768), &card).splits > 8);
        assert_eq!(plan(&problem(1, 1, 16, 64), &card).splits, 1);
        assert_eq!(plan(&problem(128, 64, 128, 4096), &card).splits, 1);
    }

    #[test]
    fn workspace_counts_partial_rows() {
        let p = problem(2, 3, 5, 640);
        assert_eq!(p.workspace_bytes(1), 0);
        assert_eq!(p.workspace_bytes(4), 4 * 30 * 514 * 4);
    }
}
