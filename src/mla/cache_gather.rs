//! Rows of sequences out of the latent cache.

use super::{Half, LatentCache};
use crate::device::abi::NgCacheGatherParams;
use crate::device::{KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// Columns of a cached token.
const COLUMNS: usize = 576;
/// Rows of a block, a warp each.
const ROWS: usize = 4;

/// Copies cached tokens of many sequences into adjacent rows of 16-bit floats, whatever the cache's layout: what prefill in
/// chunks multiplies by the up-projections.
///
/// ```text
/// out[offsets[b] + i] = cache[page_table[b, t / page_tokens], t % page_tokens],  t = starts[b] + i
/// ```
///
/// for every `i` below `offsets[b + 1] - offsets[b]`.
///
/// - `cache`: any layout and page size. FP8 codes are multiplied by their scale in f32 and rounded to the type of `out`;
///   16-bit values of this type keep their bits.
/// - `page_table`: i32 `[B, P]`; entries that no row needs may hold anything
/// - `offsets`: i32 `[B + 1]`, ascending: where each sequence's rows begin in `out`, and where the last one's end
/// - `out`: bf16 or f16 `[T, 576]`, any row stride; rows that no sequence has are left alone
///
/// On the device, a row whose token is beyond the page table, or in a page that the cache does not have, becomes zero, and
/// the status says `bad_length` or `bad_page`. Offsets that decrease or leave `out` set `bad_offsets`; which rows are then
/// written is not defined, but none outside `out`.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct CacheGather<'a, T: Half = bf16> {
    cache: &'a LatentCache,
    page_table: &'a Tensor<i32>,
    offsets: &'a Tensor<i32>,
    out: &'a Tensor<T>,
    starts: Option<&'a Tensor<i32>>,
}

impl<'a, T: Half> CacheGather<'a, T> {
    /// The rows of `offsets` from each sequence's first token on.
    pub fn new(
        cache: &'a LatentCache,
        page_table: &'a Tensor<i32>,
        offsets: &'a Tensor<i32>,
        out: &'a Tensor<T>,
    ) -> Self {
        Self { cache, page_table, offsets, out, starts: None }
    }

    /// The token of each sequence that its first row has, i32 `[B]`.
    pub fn starts(mut self, starts: &'a Tensor<i32>) -> Self {
        self.starts = Some(starts);
        self
    }

    /// Enqueues the operation. No rows or no sequences is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, columns that are not adjacent, an output that
    /// overlaps anything else, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("CacheGather");
        let Self { cache, page_table, offsets, out, starts } = *self;
        let memory = cache.memory();
        check.rank("page_table", page_table, 2)?;
        check.rank("out", out, 2)?;
        let (sequences, table_pages, rows) = (page_table.dim(0), page_table.dim(1), out.dim(0));
        check.shape("offsets", offsets, &[sequences.saturating_add(1)])?;
        check.shape("out", out, &[rows, COLUMNS])?;
        check.adjacent_columns("page_table", page_table)?;
        check.adjacent_columns("out", out)?;
        check.distinct("out", out)?;
        check.on("cache", memory, stream.device())?;
        check.on("out", out, stream.device())?;
        check.apart("out", out, "cache", memory)?;
        for (name, tensor) in
            [("page_table", Some(page_table)), ("offsets", Some(offsets)), ("starts", starts)]
        {
            let Some(tensor) = tensor else { continue };
            check.on(name, tensor, stream.device())?;
            check.apart("out", out, name, tensor)?;
        }
        check.contiguous("offsets", offsets)?;
        if let Some(starts) = starts {
            check.shape("starts", starts, &[sequences])?;
            check.contiguous("starts", starts)?;
        }
        check.extent("page_table columns * page_tokens", table_pages.saturating_mul(cache.page_tokens()))?;
        let (layout, scale) = cache.layout().code();
        let params = NgCacheGatherParams {
            cache: memory.address(),
            page_table: page_table.address(),
            offsets: offsets.address(),
            starts: starts.map_or(0, Tensor::address),
            out: out.address(),
            status: stream.status_address(),
            table_stride: page_table.strides()[0] as u64,
            out_row_stride: out.strides()[0] as u64,
            rows: check.extent("rows", rows)?,
            sequences: check.extent("sequences", sequences)?,
            table_pages: check.extent("page_table columns", table_pages)?,
            cache_pages: check.extent("cache pages", cache.pages())?,
            page_tokens: check.extent("page_tokens", cache.page_tokens())?,
            vectorised: rows_aligned(out, VECTOR_BYTES).into(),
            layout,
            output_f16: T::IS_F16.into(),
            scale,
        };
        if rows == 0 || sequences == 0 {
            return Ok(());
        }
        KernelLaunch::new("cache_gather_half", &params)
            .grid([rows.div_ceil(ROWS) as u32, 1, 1])
            .block(32 * ROWS as u32)
            .reads(memory)
            .reads(page_table)
            .reads(offsets)
            .writes(out)
            .reads_each(starts)
            .launch(stream)
    }
}
