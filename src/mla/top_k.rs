//! The largest scores of each row.

use crate::card::Card;
use crate::device::abi::{NG_TOP_K_LARGEST, NgTopKParams};
use crate::device::{KernelLaunch, Stream};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;

const CHECK: Checks = Checks::of("TopK");
/// What the launch of the kernel must give, as in `kernels/variants`.
const THREADS: u32 = 512;
const SHARED: u32 = 82_080;
/// The kernel counts columns in i32 and reaches two of its steps beyond the last.
const REACH: usize = 4 * 4096;

/// The columns of the `K` largest scores of each row: the tokens that sparse attention attends to.
///
/// Of row `r` only the columns `starts[r] .. ends[r]` count. Of equal scores (the two zeros are equal) the lower columns are
/// chosen, so that the answer is one, whatever the card does. Answers stand in the order of their columns, and -1 behind the
/// last where fewer than `K` columns count.
///
/// - `scores`: f32 `[R, N]`, adjacent columns, any row stride
/// - `out`: i32 `[R, K]`, adjacent columns, `K` ≤ 2048
///
/// NaN is never chosen and sets the status `nan_score`. −∞ is a score like others, the lowest. Starts and ends outside
/// `0..=N` are clamped and set the status `bad_length`; a row whose end is not behind its start has no columns. What does not
/// count is not read beyond the vectors of 16 bytes that hold what does, and is never part of an answer.
///
/// A row's answer does not depend on other rows. Where rows are few, a cluster of blocks has parts of each. Rows (or parts) of
/// up to 32767 columns are read once, of longer ones a sixteenth or less twice; where scores rise along a row, a sample
/// misleads about it, or NaN is in it, some of it or all is read again.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct TopK<'a> {
    scores: &'a Tensor<f32>,
    out: &'a Tensor<i32>,
    starts: Option<&'a Tensor<i32>>,
    ends: Option<&'a Tensor<i32>>,
    pages: Option<Pages<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Pages<'a> {
    table: &'a Tensor<i32>,
    page_tokens: usize,
    cache_pages: usize,
}

impl<'a> TopK<'a> {
    /// The largest of `scores` `[R, N]`, as many as `out` `[R, K]` has columns.
    pub fn new(scores: &'a Tensor<f32>, out: &'a Tensor<i32>) -> Self {
        Self { scores, out, starts: None, ends: None, pages: None }
    }

    /// The first column of each row that counts, i32 `[R]`; 0 without.
    pub fn starts(mut self, starts: &'a Tensor<i32>) -> Self {
        self.starts = Some(starts);
        self
    }

    /// Where the columns of a row end, i32 `[R]`; `N` without.
    ///
    /// Or i32 `[R / S]`, the lengths of sequences with `S` rows each, the last of their tokens: then row `S · b + s` ends at
    /// `ends[b] - (S - 1 - s)`, as causal attention does.
    pub fn ends(mut self, ends: &'a Tensor<i32>) -> Self {
        self.ends = Some(ends);
        self
    }

    /// Answers with places in a paged cache, `table[b, column / page_tokens] · page_tokens + column % page_tokens`, instead of
    /// columns. `table` is i32 `[R / S, P]` of a cache of `cache_pages` pages; each `S` rows share a line of it. Columns in
    /// pages that the cache does not have become -1 where they stand, and set the status `bad_page`.
    pub fn page_table(mut self, table: &'a Tensor<i32>, page_tokens: usize, cache_pages: usize) -> Self {
        self.pages = Some(Pages { table, page_tokens, cache_pages });
        self
    }

    /// Enqueues the operation. No rows, or `K` = 0, is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, `K` above 2048, columns that are not adjacent,
    /// a table that is too narrow for `N`, an output that overlaps an input, or another device; otherwise what the device
    /// says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = CHECK;
        let Self { scores, out, .. } = *self;
        let device = stream.device();
        check.rank("scores", scores, 2)?;
        check.rank("out", out, 2)?;
        let (rows, columns, k) = (scores.dim(0), scores.dim(1), out.dim(1));
        check.shape("out", out, &[rows, k])?;
        if k > NG_TOP_K_LARGEST as usize {
            return check.fail(
                "out",
                format_args!("{k} columns"),
                format_args!("at most {NG_TOP_K_LARGEST}"),
            );
        }
        check.adjacent_columns("scores", scores)?;
        check.adjacent_columns("out", out)?;
        check.on("scores", scores, device)?;
        check.on("out", out, device)?;
        check.distinct("out", out)?;
        check.apart("out", out, "scores", scores)?;
        check.extent("columns", columns.saturating_add(REACH))?;
        let parts = parts(rows, columns, device.card());
        let blocks = check.extent("rows", rows.saturating_mul(parts))?;

        let mut sequences = rows;
        if let Some(ends) = self.ends {
            sequences = self.sequences("ends", ends)?;
            check.shape("ends", ends, &[sequences])?;
        } else if let Some(pages) = self.pages {
            sequences = self.sequences("page_table", pages.table)?;
        }
        for (name, bounds) in [("starts", self.starts), ("ends", self.ends)] {
            let Some(bounds) = bounds else { continue };
            check.shape(name, bounds, &[if name == "ends" { sequences } else { rows }])?;
            check.contiguous(name, bounds)?;
            check.on(name, bounds, device)?;
            check.apart("out", out, name, bounds)?;
        }
        let (mut page_tokens, mut cache_pages) = (1, 0);
        if let Some(pages) = self.pages {
            let table = pages.table;
            check.rank("page_table", table, 2)?;
            check.shape("page_table", table, &[sequences, table.dim(1)])?;
            check.adjacent_columns("page_table", table)?;
            check.on("page_table", table, device)?;
            check.apart("out", out, "page_table", table)?;
            if pages.page_tokens == 0 {
                return check.fail("page_tokens", 0, "at least 1");
            }
            if table.dim(1).saturating_mul(pages.page_tokens) < columns {
                let want = format_args!("room for {columns} columns").to_string();
                return check.fail("page_table", format_args!("{} pages a row", table.dim(1)), want);
            }
            check.extent("page_tokens", pages.page_tokens)?;
            check.extent("cache_pages * page_tokens", pages.cache_pages.saturating_mul(pages.page_tokens))?;
            (page_tokens, cache_pages) = (pages.page_tokens, pages.cache_pages);
        }
        if out.is_empty() {
            return Ok(());
        }

        let address = |tensor: Option<&Tensor<i32>>| tensor.map_or(0, Tensor::address);
        let table = self.pages.map(|pages| pages.table);
        let params = NgTopKParams {
            scores: scores.address(),
            starts: address(self.starts),
            ends: address(self.ends),
            page_table: address(table),
            out: out.address(),
            status: stream.status_address(),
            scores_row_stride: scores.strides()[0] as i64,
            table_stride: table.map_or(0, |table| table.strides()[0] as i64),
            out_row_stride: out.strides()[0] as i64,
            columns: columns as u32,
            k: k as u32,
            rows_per_end: (rows / sequences) as u32,
            page_tokens: page_tokens as u32,
            cache_pages: cache_pages as u32,
            reserved: 0,
        };
        KernelLaunch::new("top_k_f32", &params)
            .grid([blocks, 1, 1])
            .cluster([parts as u32, 1, 1])
            .block(THREADS)
            .shared(SHARED)
            .reads(scores)
            .writes(out)
            .reads_each([self.starts, self.ends, table].into_iter().flatten())
            .launch(stream)
    }

    /// How many sequences the rows belong to, as an operand with a line for each says.
    fn sequences(&self, argument: &'static str, lines: &Tensor<i32>) -> Result<usize> {
        let (rows, sequences) = (self.scores.dim(0), lines.dim(0));
        if rows == 0 || (sequences > 0 && rows.is_multiple_of(sequences)) {
            return Ok(sequences);
        }
        CHECK.fail(argument, format_args!("{sequences} lines"), format_args!("a divisor of {rows} rows"))
    }
}

/// Blocks of a row's cluster: more where the card has room for them and each still has a list's worth of columns.
fn parts(rows: usize, columns: usize, card: &Card) -> usize {
    const LEAST: usize = 8192;
    let fits = |parts: usize| rows.saturating_mul(parts) <= card.sms as usize && columns / parts >= LEAST;
    if fits(4) {
        4
    } else if fits(2) {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_long_rows_are_cut() {
        for card in Card::ALL {
            let sms = card.sms as usize;
            assert_eq!(parts(1, 65_536, card), 4);
            assert_eq!(parts(1, 20_000, card), 2);
            assert_eq!(parts(1, 8192, card), 1);
            assert_eq!(parts(sms / 2, 65_536, card), 2);
            assert_eq!(parts(sms, 65_536, card), 1);
            assert_eq!(parts(usize::MAX, 65_536, card), 1);
        }
    }
}
