//! Partial attentions joined into one.

use super::Float;
use crate::device::abi::{NG_MERGE_THREADS, NgMergeParams};
use crate::device::{KernelLaunch, Stream};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// Attentions of the same queries over disjoint keys, joined into the attention over all of them: what chunked prefill,
/// shared prefixes (cascades) and context-parallel ranks need.
///
/// For every row of `D` columns:
///
/// ```text
/// lse    = ln Σ_n exp(partial_lse[n])
/// out    = Σ_n exp(partial_lse[n] - lse) · partial[n]
/// ```
///
/// - `partial`: bf16, f16 or f32 `[N, T, H, D]`, any number of parts `N`; any strides, but adjacent columns. Attentions
///   write into its parts directly: `select` gives each of them a view.
/// - `partial_lse`: f32 `[N, H, T]` with any strides, natural logarithms, as `Attention` and `Prefill` write them
/// - `out`: bf16, f16 or f32 `[T, H, D]`
///
/// A part whose logarithm is −inf saw no key: what it holds plays no part, NaN neither. Rows where all parts are so, and
/// all rows where `N` is 0, answer 0 and −inf. A logarithm that is NaN or +inf makes its row NaN. Sums are f32, in the
/// order of the parts; a row's bits depend on nothing but its own parts, and a single part that counts is copied exactly (rounded to
/// the type of `out`; −0 becomes 0). Formula: FlashAttention, arXiv 2205.14135, section 3.1.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Merge<'a, P: Float, O: Float> {
    partial: &'a Tensor<P>,
    partial_lse: &'a Tensor<f32>,
    out: &'a Tensor<O>,
    lse: Option<&'a Tensor<f32>>,
    sinks: Option<&'a Tensor<f32>>,
}

impl<'a, P: Float, O: Float> Merge<'a, P, O> {
    /// Joins the parts of `partial` into `out`.
    pub fn new(partial: &'a Tensor<P>, partial_lse: &'a Tensor<f32>, out: &'a Tensor<O>) -> Self {
        Self { partial, partial_lse, out, lse: None, sinks: None }
    }

    /// Also writes the joined natural logarithms, f32 `[H, T]`, so that merges may follow each other.
    pub fn lse(mut self, lse: &'a Tensor<f32>) -> Self {
        self.lse = Some(lse);
        self
    }

    /// A logit for each head, f32 `[H]`, that takes its share of the softmax and adds nothing: `out` is multiplied by
    /// `1 / (1 + exp(sink - lse))`; +inf gives 0, −inf changes nothing. The logarithms stay without it, so the
    /// sinks belong into the last merge.
    pub fn sinks(mut self, sinks: &'a Tensor<f32>) -> Self {
        self.sinks = Some(sinks);
        self
    }

    /// Enqueues the operation. No rows or no columns is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, columns that are not adjacent, outputs that
    /// overlap anything else, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Merge");
        let Self { partial, partial_lse, out, lse, sinks } = *self;
        check.rank("partial", partial, 4)?;
        let [parts, tokens, heads, columns] = [0, 1, 2, 3].map(|dim| partial.dim(dim));
        check.shape("partial_lse", partial_lse, &[parts, heads, tokens])?;
        check.shape("out", out, &[tokens, heads, columns])?;
        check.on("partial", partial, stream.device())?;
        check.on("partial_lse", partial_lse, stream.device())?;
        check.on("out", out, stream.device())?;
        check.adjacent_columns("partial", partial)?;
        check.adjacent_columns("out", out)?;
        check.distinct("out", out)?;
        check.apart("out", out, "partial", partial)?;
        check.apart("out", out, "partial_lse", partial_lse)?;
        if let Some(sinks) = sinks {
            check.shape("sinks", sinks, &[heads])?;
            check.contiguous("sinks", sinks)?;
            check.on("sinks", sinks, stream.device())?;
            check.apart("out", out, "sinks", sinks)?;
        }
        if let Some(lse) = lse {
            check.shape("lse", lse, &[heads, tokens])?;
            check.on("lse", lse, stream.device())?;
            check.distinct("lse", lse)?;
            check.apart("lse", lse, "partial", partial)?;
            check.apart("lse", lse, "partial_lse", partial_lse)?;
            check.apart("lse", lse, "out", out)?;
            if let Some(sinks) = sinks {
                check.apart("lse", lse, "sinks", sinks)?;
            }
        }
        let rows = check.extent("rows", tokens.saturating_mul(heads))?;
        let parts = check.extent("parts", parts)?;
        let columns = check.extent("columns", columns)?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }

        let piece = (VECTOR_BYTES / size_of::<P>()) as u32;
        let vectorised = columns.is_multiple_of(piece)
            && rows_aligned(partial, VECTOR_BYTES)
            && rows_aligned(out, VECTOR_BYTES.min(piece as usize * size_of::<O>()));
        let pieces = if vectorised { columns / piece } else { columns };
        let block_rows = (NG_MERGE_THREADS / pieces).max(1);
        let (from, logarithm, to) = (partial.strides(), partial_lse.strides(), out.strides());
        let [lse_head, lse_token] = lse.map_or([0; 2], |lse| [lse.strides()[0], lse.strides()[1]]);
        let params = NgMergeParams {
            partial: partial.address(),
            lse: partial_lse.address(),
            sinks: sinks.map_or(0, Tensor::address),
            out: out.address(),
            out_lse: lse.map_or(0, Tensor::address),
            partial_part_stride: from[0] as i64,
            partial_token_stride: from[1] as i64,
            partial_head_stride: from[2] as i64,
            lse_part_stride: logarithm[0] as i64,
            lse_head_stride: logarithm[1] as i64,
            lse_token_stride: logarithm[2] as i64,
            out_token_stride: to[0] as i64,
            out_head_stride: to[1] as i64,
            out_lse_head_stride: lse_head as i64,
            out_lse_token_stride: lse_token as i64,
            rows,
            block_rows,
            parts,
            heads: heads as u32,
            columns,
            partial_type: P::TYPE,
            out_type: O::TYPE,
            vectorised: vectorised.into(),
        };
        KernelLaunch::new("mla_merge", &params)
            .grid([rows.div_ceil(block_rows), 1, 1])
            .block(NG_MERGE_THREADS)
            .reads(partial)
            .reads(partial_lse)
            .writes(out)
            .reads_each(sinks)
            .writes_each(lse)
            .launch(stream)
    }
}
