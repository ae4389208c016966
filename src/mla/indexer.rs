//! The lightning indexer's logits.

use crate::card::Card;
use crate::device::abi::NgIndexerLogitsParams;
use crate::device::{Device, KernelLaunch, Stream, Swizzle, TensorMapSpec};
use crate::dtype::{DType, E4m3};
use crate::error::Result;
use crate::fp8::{Fp8Rows, tma_readable};
use crate::tensor::Tensor;
use crate::validate::Checks;

const WIDTH: usize = 128;
const MAX_HEADS: usize = 64;
/// Threads of a block, and its shared memory by kernel, as in `kernels/variants`.
const THREADS: u32 = 384;
const SHARED: u32 = 168_112;
const SHARED_PAGED: [u32; 2] = [185_488, 201_872];
/// Keys of a tile, of one row and of pages.
const TILE_KEYS: usize = 128;
const PAGED_TILE_KEYS: usize = 256;
/// Keys that are copied at once where pages are as long.
const PART: usize = 64;

/// Logits of the lightning indexer, for prefill: which keys of one row matter to which query token.
///
/// ```text
/// out[m, n] = key_scale[n] · Σ_h weights[m, h] · max(0, q[m, h] · k[n])      for starts[m] ≤ n < ends[m]
/// ```
///
/// with FP8 products accumulated by the tensor core and f32 sums over heads. Formula: DeepSeek-V3.2-Exp, "DeepSeek Sparse
/// Attention", equation 1, with the softmax scale and the queries' FP8 scales multiplied into `weights` by the caller.
///
/// - `q`: e4m3 `[M, H, 128]`, `H` ≤ 64 (32 and 64 fill the tensor core)
/// - `keys`: [`Fp8Rows`] `[N, 128]`, one scale a key, adjacent
/// - `weights`: f32 `[M, H]`, heads adjacent
/// - `out`: f32 `[M, N]`, columns adjacent; what a token does not see is not written
///
/// Starts and ends outside `0..=N` are clamped and set the status `bad_length`. NaN in a token's queries or weights reaches
/// its row, in a key or its scale that key's logits. The bits of a logit depend on its token and its key alone; those of
/// [`PagedIndexerLogits`] are the same.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct IndexerLogits<'a> {
    q: &'a Tensor<E4m3>,
    keys: &'a Fp8Rows,
    weights: &'a Tensor<f32>,
    out: &'a Tensor<f32>,
    starts: Option<&'a Tensor<i32>>,
    ends: Option<&'a Tensor<i32>>,
}

impl<'a> IndexerLogits<'a> {
    /// Logits of `q` `[M, H, 128]` and `keys` `[N, 128]` into `out` `[M, N]`.
    pub fn new(
        q: &'a Tensor<E4m3>,
        keys: &'a Fp8Rows,
        weights: &'a Tensor<f32>,
        out: &'a Tensor<f32>,
    ) -> Self {
        Self { q, keys, weights, out, starts: None, ends: None }
    }

    /// The first key that each token sees, i32 `[M]`; 0 without.
    pub fn starts(mut self, starts: &'a Tensor<i32>) -> Self {
        self.starts = Some(starts);
        self
    }

    /// Where the keys that each token sees end, i32 `[M]`; `N` without. One that is not behind its start sees none.
    pub fn ends(mut self, ends: &'a Tensor<i32>) -> Self {
        self.ends = Some(ends);
        self
    }

    /// Enqueues the operation. No tokens, heads or keys is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, views that the tensor memory accelerator cannot
    /// walk, an output that overlaps an input, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("IndexerLogits");
        let Self { q, keys, weights, out, .. } = *self;
        check.rank("q", q, 3)?;
        let (tokens, heads, columns) = (q.dim(0), q.dim(1), keys.rows());
        check.shape("q", q, &[tokens, heads, WIDTH])?;
        check.shape("keys", keys.data(), &[columns, WIDTH])?;
        check.shape("weights", weights, &[tokens, heads])?;
        let strides = [0, q.strides()[0], q.strides()[1]];
        let weight_strides = [0, weights.strides()[0]];
        let shared = Common {
            check,
            q,
            keys,
            weights,
            out,
            batch: 1,
            tokens,
            heads,
            columns,
            strides,
            weight_strides,
        };
        for (name, bounds) in [("starts", self.starts), ("ends", self.ends)] {
            let Some(bounds) = bounds else { continue };
            check.shape(name, bounds, &[tokens])?;
            shared.index(name, bounds, stream.device())?;
        }
        shared.check(stream.device())?;
        let at_once = 2 * (128 / shared.padded_heads());
        let (chunks, chunk_tiles) = chunks(tokens.div_ceil(at_once), columns, stream.device().card());
        let blocks = check.extent("blocks", tokens.div_ceil(at_once).saturating_mul(chunks))?;
        if shared.is_empty() {
            return Ok(());
        }
        let address = |tensor: Option<&Tensor<i32>>| tensor.map_or(0, Tensor::address);
        let params = NgIndexerLogitsParams {
            starts: address(self.starts),
            ends: address(self.ends),
            page_tokens: PART as u32,
            chunks: chunks as u32,
            chunk_tiles: chunk_tiles as u32,
            ..shared.parameters(stream, PART, 128)?
        };
        KernelLaunch::new("indexer_logits_e4m3", &params)
            .grid([blocks, 1, 1])
            .block(THREADS)
            .shared(SHARED)
            .reads(q)
            .reads(keys.data())
            .reads(keys.scales())
            .reads(weights)
            .writes(out)
            .reads_each([self.starts, self.ends].into_iter().flatten())
            .launch(stream)
    }
}

/// The indexer's keys of several sequences, in pages.
#[derive(Debug, Clone, Copy)]
pub struct IndexerPages<'a> {
    keys: &'a Fp8Rows,
    table: &'a Tensor<i32>,
    lengths: &'a Tensor<i32>,
}

impl<'a> IndexerPages<'a> {
    /// - `keys`: [`Fp8Rows`] `[pages, T, 128]`, one scale a key; `T` is 32 or a multiple of 64. Scales of a page are adjacent,
    ///   pages a multiple of 16 bytes apart, so that a page may have its keys and behind them its scales.
    /// - `table`: i32 `[B, P]`; entries past a sequence's pages may hold anything
    /// - `lengths`: i32 `[B]`, keys of each sequence, those of the query tokens included
    pub fn new(keys: &'a Fp8Rows, table: &'a Tensor<i32>, lengths: &'a Tensor<i32>) -> Self {
        Self { keys, table, lengths }
    }
}

/// Logits of the lightning indexer, for decode: each sequence has its keys in pages, and its `S` query tokens are its last.
///
/// ```text
/// out[b · S + s, t] = key_scale[page, t % T] · Σ_h weights[b, s, h] · max(0, q[b, s, h] · k[page, t % T])
/// ```
///
/// with `page = table[b, t / T]`, for `t < lengths[b] - (S - 1 - s)`. As [`IndexerLogits`] otherwise.
///
/// - `q`: e4m3 `[B, S, H, 128]`, `H` ≤ 64
/// - `weights`: f32 `[B, S, H]`
/// - `out`: f32 `[B · S, N]`, `N` ≤ `P · T`; what a token does not see is not written
///
/// Lengths outside `0..=N` are clamped and set the status `bad_length`. Keys in pages that the cache does not have answer −∞
/// and set the status `bad_page`. Blocks share the keys of all sequences evenly by what the lengths are on the device, so that
/// a graph may be replayed with others.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct PagedIndexerLogits<'a> {
    q: &'a Tensor<E4m3>,
    pages: IndexerPages<'a>,
    weights: &'a Tensor<f32>,
    out: &'a Tensor<f32>,
}

impl<'a> PagedIndexerLogits<'a> {
    /// Logits of `q` `[B, S, H, 128]` and the keys in `pages` into `out` `[B · S, N]`.
    pub fn new(
        q: &'a Tensor<E4m3>,
        pages: IndexerPages<'a>,
        weights: &'a Tensor<f32>,
        out: &'a Tensor<f32>,
    ) -> Self {
        Self { q, pages, weights, out }
    }

    /// Enqueues the operation. No sequences, tokens, heads or columns is a no-op.
    ///
    /// # Errors
    ///
    /// As [`IndexerLogits::launch`]; also for pages of other sizes, no pages, and a table with fewer keys than `out` has columns.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("PagedIndexerLogits");
        let Self { q, pages: IndexerPages { keys, table, lengths }, weights, out } = *self;
        check.rank("q", q, 4)?;
        check.rank("out", out, 2)?;
        check.rank("keys", keys.data(), 3)?;
        check.rank("table", table, 2)?;
        let [batch, tokens, heads] = [q.dim(0), q.dim(1), q.dim(2)];
        let (columns, page_tokens) = (out.dim(1), keys.rows());
        check.shape("q", q, &[batch, tokens, heads, WIDTH])?;
        check.shape("keys", keys.data(), &[keys.groups(), page_tokens, WIDTH])?;
        check.shape("weights", weights, &[batch, tokens, heads])?;
        check.shape("table", table, &[batch, table.dim(1)])?;
        check.shape("lengths", lengths, &[batch])?;
        if page_tokens != 32 && (page_tokens == 0 || !page_tokens.is_multiple_of(PART)) {
            return check.fail(
                "keys",
                format_args!("pages of {page_tokens}"),
                "pages of 32 or a multiple of 64",
            );
        }
        let capacity = table.dim(1).saturating_mul(page_tokens);
        if columns > capacity {
            let want = format_args!("at most the {capacity} that the table has keys for").to_string();
            return check.fail("out", format_args!("{columns} columns"), want);
        }
        if keys.groups() == 0 && columns > 0 {
            return check.fail("keys", "no pages", "at least one, since `out` has columns");
        }
        let strides = [q.strides()[0], q.strides()[1], q.strides()[2]];
        let weight_strides = [weights.strides()[0], weights.strides()[1]];
        let shared =
            Common { check, q, keys, weights, out, batch, tokens, heads, columns, strides, weight_strides };
        shared.index("table", table, stream.device())?;
        shared.index("lengths", lengths, stream.device())?;
        shared.check(stream.device())?;
        let padded = shared.padded_heads();
        // A token alone leaves no room unused; more share the keys that are copied.
        let accumulated = if tokens * padded <= 64 { 64 } else { 128 };
        let tiles = columns.div_ceil(PAGED_TILE_KEYS);
        let groups = tokens.div_ceil(accumulated / padded);
        check.extent("tiles", batch.saturating_mul(groups).saturating_mul(tiles))?;
        if shared.is_empty() {
            return Ok(());
        }
        let params = NgIndexerLogitsParams {
            ends: lengths.address(),
            page_table: table.address(),
            table_stride: table.strides()[0] as i64,
            page_tokens: page_tokens as u32,
            ..shared.parameters(stream, page_tokens.min(PART), accumulated)?
        };
        let (entry, memory) = match accumulated {
            64 => ("indexer_logits_paged_e4m3_64", SHARED_PAGED[0]),
            _ => ("indexer_logits_paged_e4m3_128", SHARED_PAGED[1]),
        };
        KernelLaunch::new(entry, &params)
            .grid([stream.device().card().sms.min((batch * groups * tiles) as u32), 1, 1])
            .block(THREADS)
            .shared(memory)
            .reads(q)
            .reads(keys.data())
            .reads(keys.scales())
            .reads(weights)
            .reads(table)
            .reads(lengths)
            .writes(out)
            .launch(stream)
    }
}

/// How many parts each group of tokens has its keys in, and the tiles of one: enough blocks to fill the card some times, none
/// of them short.
fn chunks(groups: usize, columns: usize, card: &Card) -> (usize, usize) {
    const LEAST: usize = 16;
    const MOST: usize = 64;
    let tiles = columns.div_ceil(TILE_KEYS).max(1);
    let wanted = (4 * card.sms as usize).div_ceil(groups.max(1)).max(tiles.div_ceil(MOST));
    let chunk_tiles = tiles.div_ceil(wanted).max(LEAST).min(tiles);
    (tiles.div_ceil(chunk_tiles), chunk_tiles)
}

/// What both forms have.
struct Common<'a> {
    check: Checks,
    q: &'a Tensor<E4m3>,
    keys: &'a Fp8Rows,
    weights: &'a Tensor<f32>,
    out: &'a Tensor<f32>,
    batch: usize,
    tokens: usize,
    heads: usize,
    columns: usize,
    /// Of the queries' sequences, tokens and heads.
    strides: [usize; 3],
    /// Of the weights' sequences and tokens.
    weight_strides: [usize; 2],
}

impl Common<'_> {
    fn is_empty(&self) -> bool {
        self.batch == 0 || self.tokens == 0 || self.heads == 0 || self.columns == 0 || self.keys.groups() == 0
    }

    fn padded_heads(&self) -> usize {
        if self.heads <= 32 { 32 } else { 64 }
    }

    /// Integers on the device, adjacent, apart from the output.
    fn index(&self, name: &'static str, tensor: &Tensor<i32>, device: &Device) -> Result<()> {
        self.check.adjacent_columns(name, tensor)?;
        self.check.on(name, tensor, device)?;
        self.check.apart("out", self.out, name, tensor)
    }

    fn check(&self, device: &Device) -> Result<()> {
        let Self { check, q, keys, weights, out, batch, tokens, heads, columns, .. } = *self;
        if heads > MAX_HEADS {
            return check.fail("q", format_args!("{heads} heads"), format_args!("at most {MAX_HEADS}"));
        }
        check.shape("out", out, &[batch * tokens, columns])?;
        check.on("q", q, device)?;
        check.on("keys", keys.data(), device)?;
        check.on("weights", weights, device)?;
        check.on("out", out, device)?;
        tma_readable(check, "q", q)?;
        check.adjacent_columns("weights", weights)?;
        check.adjacent_columns("out", out)?;
        check.distinct("out", out)?;
        check.apart("out", out, "q", q)?;
        check.apart("out", out, "keys", keys.data())?;
        check.apart("out", out, "keys", keys.scales())?;
        check.apart("out", out, "weights", weights)?;
        let scales = keys.scales();
        let rank = scales.rank();
        let adjacent = scales.dim(rank - 2) <= 1 || scales.strides()[rank - 2] == 1;
        let apart = rank == 2 || scales.dim(0) <= 1 || (scales.strides()[0] * 4).is_multiple_of(16);
        let walkable = adjacent && apart && scales.address().is_multiple_of(16);
        if !(scales.is_empty() || walkable) {
            let got = format!("with scales of strides {:?} at {:#x}", scales.strides(), scales.address());
            return check.fail("keys", got, "scales of adjacent keys, 16-byte aligned");
        }
        check.extent("tokens", tokens.saturating_add(128))?;
        check.extent("sequences", batch.saturating_mul(tokens))?;
        check.extent("pages", keys.groups())?;
        check.extent("columns", columns.saturating_add(2 * PAGED_TILE_KEYS))?;
        check.extent("page_tokens", keys.rows().saturating_add(2 * PAGED_TILE_KEYS)).map(drop)
    }

    /// All but what tells the two apart. `piece` keys are copied at once, and a warpgroup has `accumulated` columns.
    fn parameters(&self, stream: &Stream, piece: usize, accumulated: usize) -> Result<NgIndexerLogitsParams> {
        let Self { q, keys, weights, out, batch, tokens, heads, columns, strides, .. } = *self;
        let device = stream.device();
        let padded = self.padded_heads();
        // A stride that nothing is stepped by may be anything; tensor maps want a multiple of 16 bytes.
        let step = |stride: usize, extent: usize, bytes: usize| {
            if extent > 1 { (stride * bytes) as u64 } else { WIDTH as u64 * 16 }
        };
        let pages = keys.groups();
        let (data, scales) = (keys.data(), keys.scales());
        let page_stride = |of: &[usize]| if keys.is_grouped() { of[0] } else { 0 };
        let rank = data.rank();
        Ok(NgIndexerLogitsParams {
            query: device.tensor_map(&TensorMapSpec {
                address: q.address(),
                dtype: DType::E4m3,
                extents: &[WIDTH as u64, heads as u64, tokens as u64, batch as u64],
                strides: &[
                    step(strides[2], heads, 1),
                    step(strides[1], tokens, 1),
                    step(strides[0], batch, 1),
                ],
                tile: &[WIDTH as u32, padded as u32, (accumulated / padded) as u32, 1],
                swizzle: Swizzle::B128,
            })?,
            keys: device.tensor_map(&TensorMapSpec {
                address: data.address(),
                dtype: DType::E4m3,
                extents: &[WIDTH as u64, keys.rows() as u64, pages as u64],
                strides: &[
                    step(data.strides()[rank - 2], keys.rows(), 1),
                    step(page_stride(data.strides()), pages, 1),
                ],
                tile: &[WIDTH as u32, piece as u32, 1],
                swizzle: Swizzle::B128,
            })?,
            scales: device.tensor_map(&TensorMapSpec {
                address: scales.address(),
                dtype: DType::F32,
                extents: &[keys.rows() as u64, pages as u64],
                strides: &[step(page_stride(scales.strides()), pages, 4)],
                tile: &[piece as u32, 1],
                swizzle: Swizzle::None,
            })?,
            weights: weights.address(),
            starts: 0,
            ends: 0,
            page_table: 0,
            out: out.address(),
            status: stream.status_address(),
            weights_batch_stride: self.weight_strides[0] as i64,
            weights_token_stride: self.weight_strides[1] as i64,
            table_stride: 0,
            out_row_stride: out.strides()[0] as i64,
            batch: batch as u32,
            tokens: tokens as u32,
            heads: heads as u32,
            padded_heads: padded as u32,
            columns: columns as u32,
            page_tokens: 0,
            cache_pages: pages as u32,
            chunks: 0,
            chunk_tiles: 0,
            reserved: [0; 3],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_keys_and_fill_every_card() {
        for card in Card::ALL {
            for groups in [1, 3, 100, 4096] {
                for columns in [1, 128, 129, 4096, 65_536, 1 << 20] {
                    let (chunks, tiles) = chunks(groups, columns, card);
                    assert!(
                        chunks * tiles * TILE_KEYS >= columns && (chunks - 1) * tiles * TILE_KEYS < columns
                    );
                    assert!(tiles <= 64 && (chunks == 1 || tiles >= 16));
                    assert!(groups * chunks >= card.sms as usize || tiles == 16 || chunks == 1);
                }
            }
        }
    }
}
