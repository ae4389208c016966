//! How an attention is cut into blocks: a pure function of its shape and the card. Lengths are data: where they matter, the
//! device deals the work out.

use crate::card::Card;

/// Tokens of a block, the unit that work is cut into.
pub const BLOCK: usize = 64;
/// Query rows (token × head) of one block of threads.
pub const ROW_TILE: usize = 64;
/// The most rows of a sequence that are not padded to [`ROW_TILE`]: tokens take the 64-row side of the products instead.
pub const FEW_ROWS: usize = 32;
/// The largest number of splits.
pub const MAX_SPLITS: usize = 128;
/// Fewer blocks than this are never worth two pieces.
const LEAST_BLOCKS: usize = 4;

/// The shape that a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// Sequences.
    pub batch: usize,
    /// The most query tokens of a sequence.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Cached tokens that the page table has room for.
    pub capacity: usize,
}

/// How the tokens of each group of rows are cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// Every group's blocks in at most as many equal pieces.
    Equal {
        /// At least 1.
        pieces: usize,
    },
    /// Pieces of a fixed number of blocks, whatever else is in the batch.
    Fixed {
        /// Blocks of a piece.
        blocks: usize,
        /// Pieces of the longest sequence.
        pieces: usize,
    },
    /// Every worker gets as many blocks, from lengths that the device reads.
    Scheduled {
        /// Blocks of threads, or clusters of them, that the card runs at a time.
        workers: usize,
    },
}

impl Problem {
    /// Tiles of 64 rows of a sequence.
    fn tiles(&self) -> usize {
        self.tokens.saturating_mul(self.heads).div_ceil(ROW_TILE)
    }

    /// Rows that the products are made for where a sequence has at most [`FEW_ROWS`]: a multiple of 8.
    pub fn few_rows(&self) -> Option<usize> {
        let rows = self.tokens.saturating_mul(self.heads);
        (1..=FEW_ROWS).contains(&rows).then(|| rows.next_multiple_of(8))
    }

    /// Blocks of threads that share the tokens they load: 2 where tiles come in pairs.
    pub fn cluster(&self) -> usize {
        if self.tiles() > 0 && self.tiles().is_multiple_of(2) { 2 } else { 1 }
    }

    /// Groups of 64 rows for each block of a cluster, in one sequence.
    pub fn groups(&self) -> usize {
        self.tiles() / self.cluster()
    }

    /// Blocks of tokens of the longest sequence that the page table has room for.
    pub fn blocks(&self) -> usize {
        self.capacity.div_ceil(BLOCK)
    }

    /// How the device deals the tokens out; in one piece where there is nothing to gain.
    pub fn scheduled(&self, card: &Card) -> Cut {
        if self.blocks() < LEAST_BLOCKS {
            return Cut::Equal { pieces: 1 };
        }
        Cut::Scheduled { workers: (card.sms as usize / self.cluster()).max(1) }
    }

    /// Pieces of a fixed number of tokens, rounded up to blocks.
    pub fn fixed(&self, tokens: usize) -> Cut {
        let blocks = tokens.div_ceil(BLOCK).max(1);
        Cut::Fixed { blocks, pieces: self.blocks().div_ceil(blocks).max(1) }
    }

    /// Blocks of threads, or clusters of them, that one launch has.
    pub fn workers(&self, cut: Cut) -> usize {
        match cut {
            Cut::Equal { pieces } | Cut::Fixed { pieces, .. } => {
                self.batch.saturating_mul(self.groups()).saturating_mul(pieces)
            }
            Cut::Scheduled { workers } => workers,
        }
    }

    /// Partial results that a launch may leave. A scheduled worker leaves at most two: what the one before it began, and
    /// what the one after it ends.
    pub(crate) fn slots(&self, cut: Cut) -> usize {
        match cut {
            Cut::Equal { pieces: 1 } | Cut::Fixed { pieces: 1, .. } => 0,
            Cut::Scheduled { workers } => 2 * workers,
            _ => self.workers(cut),
        }
    }

    /// Bytes of partial results (per slot and row 512 sums, a reference and a sum of weights, all f32) and of the
    /// schedule. None for one piece.
    pub fn workspace_bytes(&self, cut: Cut) -> usize {
        let slot = self.cluster() * ROW_TILE * (512 + 2) * size_of::<f32>();
        let cuts = match cut {
            Cut::Scheduled { workers } => 8 * (workers + 1),
            _ => 0,
        };
        self.slots(cut).saturating_mul(slot).saturating_add(cuts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(batch: usize, tokens: usize, heads: usize, length: usize) -> Problem {
        Problem { batch, tokens, heads, capacity: length }
    }

    #[test]
    fn every_published_shape_has_a_plan_on_every_card() {
        for card in Card::ALL {
            for batch in [0, 1, 2, 16, 128, 768] {
                for tokens in [1, 2, 4, 4096] {
                    for heads in [1, 16, 64, 128] {
                        for length in [0, 1, 64, 1024, 4096, 32768, 131072] {
                            let p = problem(batch, tokens, heads, length);
                            let cut = p.scheduled(card);
                            if let Cut::Scheduled { workers } = cut {
                                assert!(workers * p.cluster() <= card.sms as usize);
                            }
                            assert!(p.groups() * p.cluster() * ROW_TILE >= tokens * heads);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn tokens_are_shared_where_tiles_come_in_pairs() {
        let cluster = |tokens, heads| problem(1, tokens, heads, 4096).cluster();
        assert_eq!([cluster(1, 128), cluster(2, 64), cluster(1, 65), cluster(2, 128)], [2; 4]);
        assert_eq!([cluster(1, 64), cluster(1, 16), cluster(3, 64), cluster(0, 64)], [1; 4]);
    }

    #[test]
    fn few_rows_are_rounded_up_to_eight() {
        let rows = |tokens, heads| problem(3, tokens, heads, 4096).few_rows();
        assert_eq!([rows(1, 1), rows(1, 16), rows(3, 6), rows(2, 16)], [8, 16, 24, 32].map(Some));
        assert_eq!([rows(1, 33), rows(2, 17), rows(0, 16), rows(1, 0)], [None; 4]);
    }

    #[test]
    fn short_tables_are_not_cut() {
        assert_eq!(problem(1, 1, 16, 192).scheduled(&Card::H20), Cut::Equal { pieces: 1 });
        assert_eq!(problem(1, 1, 16, 32768).scheduled(&Card::H20), Cut::Scheduled { workers: 78 });
        assert_eq!(problem(1, 1, 128, 32768).scheduled(&Card::H20), Cut::Scheduled { workers: 39 });
    }

    #[test]
    fn workspace_counts_slots() {
        let p = problem(2, 3, 5, 640);
        let slot = 64 * 514 * 4;
        assert_eq!(p.workspace_bytes(Cut::Equal { pieces: 1 }), 0);
        assert_eq!(p.workspace_bytes(Cut::Equal { pieces: 4 }), 8 * slot);
        assert_eq!(p.fixed(200), Cut::Fixed { blocks: 4, pieces: 3 });
        assert_eq!(p.workspace_bytes(p.fixed(200)), 6 * slot);
        assert_eq!(p.workspace_bytes(p.fixed(6400)), 0);
        assert_eq!(p.workspace_bytes(Cut::Scheduled { workers: 78 }), 156 * slot + 79 * 8);
    }
}
