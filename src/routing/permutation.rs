//! The order of entries by expert, and rows in that order.

use super::{check_experts, check_slots, plan};
use crate::device::abi::{NgGatherRowsParams, NgPermuteParams};
use crate::device::{Device, KernelLaunch, Stream};
use crate::error::Result;
use crate::fp8::Fp8Rows;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// The order of entries by expert, made by [`Permute`].
///
/// Opaque, so that the kernels that follow it find what [`Permute`] wrote; they check every index all the same.
#[derive(Debug, Clone)]
pub struct Permutation {
    pub(super) tokens: usize,
    pub(super) slots: usize,
    pub(super) experts: usize,
    pub(super) counts: Tensor<i32>,
    pub(super) offsets: Tensor<i32>,
    pub(super) source: Tensor<i32>,
    pub(super) position: Tensor<i32>,
    pub(super) partial: Tensor<i32>,
}

impl Permutation {
    /// Room for the permutation of `tokens` × `k` entries among `experts`, with nothing routed yet.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for no or more than 32 slots, no or more than 512 experts, or 2^31 and
    /// more entries; [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn empty(device: &Device, tokens: usize, k: usize, experts: usize) -> Result<Self> {
        let check = Checks::of("Permutation");
        check_slots(check, k)?;
        check_experts(check, experts, plan::MAX_PERMUTED)?;
        check.extent("entries", tokens.saturating_mul(k))?;
        let chunks = plan::chunks(tokens * k);
        Ok(Self {
            tokens,
            slots: k,
            experts,
            counts: device.zeros(&[experts])?,
            offsets: device.zeros(&[experts + 1])?,
            source: device.full(&[tokens * k], -1)?,
            position: device.full(&[tokens, k], -1)?,
            partial: device.empty(&[if chunks > 1 { chunks } else { 0 }, experts])?,
        })
    }

    /// T.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// k.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// E.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Entries of each expert, `[E]`.
    pub fn counts(&self) -> &Tensor<i32> {
        &self.counts
    }

    /// First row of each expert, and the number of routed entries, `[E + 1]`.
    pub fn offsets(&self) -> &Tensor<i32> {
        &self.offsets
    }

    /// The entry of each row, `[T * k]`; -1 for rows behind the routed ones.
    pub fn source(&self) -> &Tensor<i32> {
        &self.source
    }

    /// The row of each entry, `[T, k]`; -1 for entries without an expert.
    pub fn position(&self) -> &Tensor<i32> {
        &self.position
    }
}

/// Orders entries by expert; stable, and the same bits every time.
///
/// An id of -1 is an entry without an expert. Any other id outside `0..E` is treated the same and sets the status
/// `bad_expert`. The same expert twice in one token is two entries.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Permute<'a> {
    ids: &'a Tensor<i32>,
    permutation: &'a Permutation,
}

impl<'a> Permute<'a> {
    /// Orders the entries of `ids` `[T, k]`.
    pub fn new(ids: &'a Tensor<i32>, permutation: &'a Permutation) -> Self {
        Self { ids, permutation }
    }

    /// Enqueues the operation. Without tokens all counts and offsets become zero.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for ids of another shape, ids that are not contiguous, or another
    /// device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Permute");
        let Self { ids, permutation } = *self;
        let Permutation { tokens, slots, experts, counts, offsets, source, position, partial } = permutation;
        check.shape("ids", ids, &[*tokens, *slots])?;
        check.contiguous("ids", ids)?;
        check.on("ids", ids, stream.device())?;
        check.on("permutation", source, stream.device())?;
        check.apart("permutation", source, "ids", ids)?;
        check.apart("permutation", position, "ids", ids)?;
        check.apart("permutation", counts, "ids", ids)?;
        check.apart("permutation", offsets, "ids", ids)?;
        let chunks = plan::chunks(ids.len());
        let params = NgPermuteParams {
            ids: ids.address(),
            counts: counts.address(),
            offsets: offsets.address(),
            source: source.address(),
            position: position.address(),
            partial: partial.address(),
            status: stream.status_address(),
            entries: ids.len() as u32,
            experts: *experts as u32,
            chunks: chunks as u32,
        };
        let pass = |entry, blocks: usize| {
            KernelLaunch::new(entry, &params).grid([blocks as u32, 1, 1]).block(plan::PERMUTE_THREADS)
        };
        if chunks <= 1 {
            let single = pass("permute_small_i32", 1);
            return single
                .reads(ids)
                .writes(counts)
                .writes(offsets)
                .writes(source)
                .writes(position)
                .launch(stream);
        }
        pass("permute_count_i32", chunks).reads(ids).writes(partial).launch(stream)?;
        pass("permute_scan_i32", 1).writes(partial).writes(counts).writes(offsets).launch(stream)?;
        pass("permute_scatter_i32", chunks)
            .reads(ids)
            .reads(partial)
            .reads(offsets)
            .writes(source)
            .writes(position)
            .launch(stream)
    }
}

/// FP8 rows of tokens in the order of a permutation: row r is that of token `source[r] / k`.
///
/// Rows behind the routed ones become zeros, scales included.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct GatherRows<'a> {
    rows: &'a Fp8Rows,
    permutation: &'a Permutation,
    out: &'a Fp8Rows,
}

impl<'a> GatherRows<'a> {
    /// Gathers `rows` `[T, K]` into `out` `[T * k, K]`.
    pub fn new(rows: &'a Fp8Rows, permutation: &'a Permutation, out: &'a Fp8Rows) -> Self {
        Self { rows, permutation, out }
    }

    /// Enqueues the operation. Nothing to gather is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit the permutation, outputs that overlap, or
    /// another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("GatherRows");
        let Self { rows, permutation, out } = *self;
        let (data, scales, source) = (rows.data(), rows.scales(), &permutation.source);
        let columns = data.dim(1);
        check.shape("rows", data, &[permutation.tokens, columns])?;
        check.shape("out", out.data(), &[source.dim(0), columns])?;
        check.on("rows", data, stream.device())?;
        check.on("permutation", source, stream.device())?;
        check.on("out", out.data(), stream.device())?;
        check.distinct("out.data", out.data())?;
        check.distinct("out.scales", out.scales())?;
        check.apart("out.data", out.data(), "rows.data", data)?;
        check.apart("out.data", out.data(), "rows.scales", scales)?;
        check.apart("out.data", out.data(), "out.scales", out.scales())?;
        check.apart("out.data", out.data(), "permutation", source)?;
        check.apart("out.scales", out.scales(), "rows.data", data)?;
        check.apart("out.scales", out.scales(), "rows.scales", scales)?;
        check.apart("out.scales", out.scales(), "permutation", source)?;
        let count = check.extent("columns", columns)?;
        if out.data().is_empty() {
            return Ok(());
        }
        let params = NgGatherRowsParams {
            data: data.address(),
            scales: scales.address(),
            source: source.address(),
            out_data: out.data().address(),
            out_scales: out.scales().address(),
            data_row_stride: data.strides()[0] as u64,
            scale_row_stride: scales.strides()[0] as u64,
            scale_group_stride: scales.strides()[1] as u64,
            out_data_row_stride: out.data().strides()[0] as u64,
            out_scale_row_stride: out.scales().strides()[0] as u64,
            out_scale_group_stride: out.scales().strides()[1] as u64,
            tokens: permutation.tokens as u32,
            slots: permutation.slots as u32,
            columns: count,
            vectorised: (columns.is_multiple_of(VECTOR_BYTES)
                && rows_aligned(data, VECTOR_BYTES)
                && rows_aligned(out.data(), VECTOR_BYTES))
            .into(),
        };
        KernelLaunch::new("gather_rows_e4m3", &params)
            .grid([source.dim(0) as u32, 1, 1])
            .block(plan::row_threads(columns, VECTOR_BYTES))
            .reads(data)
            .reads(scales)
            .reads(source)
            .writes(out.data())
            .writes(out.scales())
            .launch(stream)
    }
}
