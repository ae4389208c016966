//! Routing of tokens to experts: the router, the permutation by expert, and what moves rows through it.
//!
//! A token's k experts are its *slots*; token × slot is an *entry*, numbered `token * k + slot`. The permutation orders
//! entries by expert, and by number inside an expert: one order, whatever the timing.

pub(crate) mod plan;
pub mod reference;

use crate::device::abi::{
    NgCombineParams, NgGatherRowsParams, NgPermuteParams, NgRouterParams, NgSwigluQuantizeParams,
};
use crate::device::{Device, KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::fp8::Fp8Rows;
use crate::row_plan::RowPlan;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// Chooses k experts for each token, as DeepSeek-V3's gate does (`noaux_tc`).
///
/// All in f32: `score = sigmoid(logit)`, `biased = score + bias`. With more than one group, a group's score is the sum of
/// its two best biased scores, and only the best `topk_group` groups are kept; of their experts the k with the best biased
/// scores are taken, best first. The lower index wins every tie. Weights are the scores without bias, divided by their sum
/// plus 1e-20 if [`normalize`](Self::normalize), times [`scale`](Self::scale).
///
/// A biased score that is NaN or -inf is never chosen. A slot without an expert has id -1 and weight 0 and sets the status
/// `unrouted`; NaN sets `nan_score`. A token's answer does not depend on the other tokens.
///
/// At most 512 experts (any number), 16 slots and 32 groups.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Router<'a> {
    logits: &'a Tensor<f32>,
    bias: &'a Tensor<f32>,
    weights: &'a Tensor<f32>,
    ids: &'a Tensor<i32>,
    groups: usize,
    kept_groups: usize,
    normalize: bool,
    scale: f32,
}

impl<'a> Router<'a> {
    /// Routes by `logits` `[T, E]` (any row stride) and `bias` `[E]` into `weights` and `ids` `[T, k]`.
    pub fn new(
        logits: &'a Tensor<f32>,
        bias: &'a Tensor<f32>,
        weights: &'a Tensor<f32>,
        ids: &'a Tensor<i32>,
    ) -> Self {
        Self { logits, bias, weights, ids, groups: 1, kept_groups: 1, normalize: true, scale: 1.0 }
    }

    /// Cuts the experts into `n_group` groups of neighbours and keeps `topk_group` of them. Default: 1 and 1.
    pub fn groups(mut self, n_group: usize, topk_group: usize) -> Self {
        (self.groups, self.kept_groups) = (n_group, topk_group);
        self
    }

    /// Whether weights are divided by their sum. Default: true.
    pub fn normalize(mut self, yes: bool) -> Self {
        self.normalize = yes;
        self
    }

    /// What weights are multiplied by in the end. Default: 1.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// Enqueues the operation. No tokens is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, more experts, slots or groups than the
    /// kernel takes, groups that do not divide the experts or hold fewer than k of them, a scale that is not finite,
    /// outputs that overlap, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Router");
        let Self { logits, bias, weights, ids, groups, kept_groups, normalize, scale } = *self;
        check.rank("logits", logits, 2)?;
        check.rank("ids", ids, 2)?;
        let (tokens, experts, slots) = (logits.dim(0), logits.dim(1), ids.dim(1));
        check.shape("bias", bias, &[experts])?;
        check.shape("ids", ids, &[tokens, slots])?;
        check.shape("weights", weights, &[tokens, slots])?;
        check.adjacent_columns("logits", logits)?;
        check.contiguous("bias", bias)?;
        check.contiguous("weights", weights)?;
        check.contiguous("ids", ids)?;
        for (name, tensor) in [("logits", logits), ("bias", bias), ("weights", weights)] {
            check.on(name, tensor, stream.device())?;
        }
        check.on("ids", ids, stream.device())?;
        check_experts(check, experts)?;
        check_slots(check, slots)?;
        if groups == 0 || groups > plan::MAX_GROUPS || !experts.is_multiple_of(groups) {
            let want = format!("1 to {}, dividing {experts} experts", plan::MAX_GROUPS);
            return check.fail("n_group", groups, want);
        }
        if kept_groups == 0 || kept_groups > groups {
            return check.fail("topk_group", kept_groups, format_args!("1 to {groups}"));
        }
        if slots > experts / groups * kept_groups {
            let want = format!("at most {}, the experts of the kept groups", experts / groups * kept_groups);
            return check.fail("k", slots, want);
        }
        if !scale.is_finite() {
            return check.fail("scale", scale, "finite");
        }
        for (name, input) in [("logits", logits), ("bias", bias)] {
            check.apart("weights", weights, name, input)?;
            check.apart("ids", ids, name, input)?;
        }
        check.apart("weights", weights, "ids", ids)?;
        let count = check.extent("tokens", tokens)?;
        if tokens == 0 {
            return Ok(());
        }
        let params = NgRouterParams {
            logits: logits.address(),
            bias: bias.address(),
            weights: weights.address(),
            ids: ids.address(),
            status: stream.status_address(),
            logits_row_stride: logits.strides()[0] as u64,
            tokens: count,
            experts: experts as u32,
            slots: slots as u32,
            groups: groups as u32,
            kept_groups: kept_groups as u32,
            normalize: normalize.into(),
            scale,
        };
        KernelLaunch::new("router_f32", &params)
            .grid([tokens.div_ceil(plan::ROUTER_TOKENS) as u32, 1, 1])
            .block(32 * plan::ROUTER_TOKENS as u32)
            .reads(logits)
            .reads(bias)
            .writes(weights)
            .writes(ids)
            .launch(stream)
    }
}

/// The order of entries by expert, made by [`Permute`].
///
/// Opaque, so that the kernels that follow it find what [`Permute`] wrote; they check every index all the same.
#[derive(Debug, Clone)]
pub struct Permutation {
    tokens: usize,
    slots: usize,
    experts: usize,
    counts: Tensor<i32>,
    offsets: Tensor<i32>,
    source: Tensor<i32>,
    position: Tensor<i32>,
    partial: Tensor<i32>,
}

impl Permutation {
    /// Room for the permutation of `tokens` × `k` entries among `experts`, with nothing routed yet.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for no or more than 16 slots, no or more than 512 experts, or 2^31 and
    /// more entries; [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn empty(device: &Device, tokens: usize, k: usize, experts: usize) -> Result<Self> {
        let check = Checks::of("Permutation");
        check_slots(check, k)?;
        check_experts(check, experts)?;
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

/// `silu(gate) * up`, in f32, quantised as [`Quantize`](crate::quant::Quantize) does without a rounding in between.
///
/// `silu(x) = x / (1 + exp(-x))`. Rows behind the routed ones become zeros with [`permutation`](Self::permutation).
/// A row's bits do not depend on the other rows.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct SwigluQuantize<'a> {
    gate_up: &'a Tensor<bf16>,
    out: &'a Fp8Rows,
    up_offset: Option<usize>,
    permutation: Option<&'a Permutation>,
    power_of_two: bool,
}

impl<'a> SwigluQuantize<'a> {
    /// Reads gate and up from `gate_up` `[R, W]`, writes `out` `[R, I]`. The gate has columns `0..I`.
    pub fn new(gate_up: &'a Tensor<bf16>, out: &'a Fp8Rows) -> Self {
        Self { gate_up, out, up_offset: None, permutation: None, power_of_two: false }
    }

    /// The first column of up, for a gate that is padded. Default: I.
    pub fn up_offset(mut self, columns: usize) -> Self {
        self.up_offset = Some(columns);
        self
    }

    /// The rows are those of a permutation: those that it routed nothing to are not read, and become zeros (with the
    /// scale of a group of zeros).
    pub fn permutation(mut self, permutation: &'a Permutation) -> Self {
        self.permutation = Some(permutation);
        self
    }

    /// Whether scales are rounded up to powers of two. Default: false.
    pub fn power_of_two(mut self, yes: bool) -> Self {
        self.power_of_two = yes;
        self
    }

    /// Enqueues the operation. An empty output is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, columns that are not adjacent, outputs that
    /// overlap, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("SwigluQuantize");
        let Self { gate_up, out, up_offset, permutation, power_of_two } = *self;
        let (data, scales) = (out.data(), out.scales());
        check.rank("gate_up", gate_up, 2)?;
        check.adjacent_columns("gate_up", gate_up)?;
        check.on("gate_up", gate_up, stream.device())?;
        check.on("out", data, stream.device())?;
        let (rows, columns) = (gate_up.dim(0), data.dim(1));
        check.shape("out", data, &[rows, columns])?;
        let up_offset = up_offset.unwrap_or(columns);
        if up_offset < columns || up_offset.checked_add(columns).is_none_or(|end| end > gate_up.dim(1)) {
            let got = format!("{up_offset} for {columns} columns in rows of {}", gate_up.dim(1));
            return check.fail("up_offset", got, "behind the gate, with all of up inside the row");
        }
        check.distinct("out.data", data)?;
        check.distinct("out.scales", scales)?;
        check.apart("out.data", data, "gate_up", gate_up)?;
        check.apart("out.scales", scales, "gate_up", gate_up)?;
        check.apart("out.data", data, "out.scales", scales)?;
        let valid_rows = match permutation {
            None => None,
            Some(permutation) => {
                let offsets = permutation.offsets();
                if permutation.source.dim(0) != rows {
                    return check.fail(
                        "permutation",
                        permutation.source.dim(0),
                        format_args!("of {rows} rows"),
                    );
                }
                check.on("permutation", offsets, stream.device())?;
                check.apart("out.data", data, "permutation", offsets)?;
                check.apart("out.scales", scales, "permutation", offsets)?;
                Some(offsets.slice(0, permutation.experts..permutation.experts + 1)?)
            }
        };
        let row_count = check.extent("rows", rows)?;
        let column_count = check.extent("columns", columns)?;
        if data.is_empty() {
            return Ok(());
        }
        let plan = RowPlan::new(rows, columns);
        let up = gate_up.slice(1, up_offset..up_offset + columns)?;
        let params = NgSwigluQuantizeParams {
            gate_up: gate_up.address(),
            data: data.address(),
            scales: scales.address(),
            valid_rows: valid_rows.as_ref().map_or(0, Tensor::address),
            gate_up_row_stride: gate_up.strides()[0] as u64,
            data_row_stride: data.strides()[0] as u64,
            scale_row_stride: scales.strides()[0] as u64,
            scale_group_stride: scales.strides()[1] as u64,
            up_offset: up_offset as u64,
            rows: row_count,
            columns: column_count,
            warps_per_row: plan.warps_per_row,
            power_of_two: power_of_two.into(),
            vectorised: (columns.is_multiple_of(8)
                && rows_aligned(gate_up, VECTOR_BYTES)
                && rows_aligned(&up, VECTOR_BYTES)
                && rows_aligned(data, VECTOR_BYTES / 2))
            .into(),
        };
        let mut launch = KernelLaunch::new("swiglu_quantize_bf16", &params)
            .grid([plan.blocks, 1, 1])
            .block(plan.threads)
            .reads(gate_up)
            .writes(data)
            .writes(scales);
        if let Some(offsets) = &valid_rows {
            launch = launch.reads(offsets);
        }
        launch.launch(stream)
    }
}

/// Brings experts' rows back to their tokens: `out[t] = Σ_slot weights[t, slot] * rows[position[t, slot]] + shared[t]`.
///
/// Summed in f32 (fused multiply-adds) in the order of the slots, `shared` last, rounded to bf16 once. Entries without an
/// expert are skipped. A token's bits do not depend on the other tokens.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Combine<'a> {
    rows: &'a Tensor<bf16>,
    permutation: &'a Permutation,
    weights: &'a Tensor<f32>,
    out: &'a Tensor<bf16>,
    shared: Option<&'a Tensor<bf16>>,
}

impl<'a> Combine<'a> {
    /// Sums `rows` `[T * k, H]`, in the order of the permutation, by `weights` `[T, k]` into `out` `[T, H]`.
    pub fn new(
        rows: &'a Tensor<bf16>,
        permutation: &'a Permutation,
        weights: &'a Tensor<f32>,
        out: &'a Tensor<bf16>,
    ) -> Self {
        Self { rows, permutation, weights, out, shared: None }
    }

    /// Adds the output of shared experts, `[T, H]`. `out` may be `shared` itself.
    pub fn shared(mut self, shared: &'a Tensor<bf16>) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Enqueues the operation. An empty output is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit the permutation, columns that are not
    /// adjacent, an output that overlaps an input, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Combine");
        let Self { rows, permutation, weights, out, shared } = *self;
        let (tokens, slots, position) = (permutation.tokens, permutation.slots, &permutation.position);
        check.rank("out", out, 2)?;
        check.shape("out", out, &[tokens, out.dim(1)])?;
        check.shape("rows", rows, &[tokens * slots, out.dim(1)])?;
        check.shape("weights", weights, &[tokens, slots])?;
        check.contiguous("weights", weights)?;
        for (name, tensor) in [("rows", rows), ("out", out)] {
            check.adjacent_columns(name, tensor)?;
            check.on(name, tensor, stream.device())?;
        }
        check.on("weights", weights, stream.device())?;
        check.on("permutation", position, stream.device())?;
        check.distinct("out", out)?;
        check.apart("out", out, "rows", rows)?;
        check.apart("out", out, "weights", weights)?;
        check.apart("out", out, "permutation", position)?;
        if let Some(shared) = shared {
            check.shape("shared", shared, out.shape())?;
            check.adjacent_columns("shared", shared)?;
            check.on("shared", shared, stream.device())?;
            if !out.same_as(shared) {
                check.apart("out", out, "shared", shared)?;
            }
        }
        let columns = check.extent("columns", out.dim(1))?;
        if out.is_empty() {
            return Ok(());
        }
        let params = NgCombineParams {
            rows: rows.address(),
            position: position.address(),
            weights: weights.address(),
            shared: shared.map_or(0, Tensor::address),
            out: out.address(),
            rows_row_stride: rows.strides()[0] as u64,
            shared_row_stride: shared.map_or(0, |shared| shared.strides()[0] as u64),
            out_row_stride: out.strides()[0] as u64,
            row_count: rows.dim(0) as u32,
            slots: slots as u32,
            columns,
            vectorised: (columns.is_multiple_of(8)
                && rows_aligned(rows, VECTOR_BYTES)
                && rows_aligned(out, VECTOR_BYTES)
                && shared.is_none_or(|shared| rows_aligned(shared, VECTOR_BYTES)))
            .into(),
        };
        let mut launch = KernelLaunch::new("combine_bf16", &params)
            .grid([tokens as u32, 1, 1])
            .block(plan::row_threads(out.dim(1), 8))
            .reads(rows)
            .reads(position)
            .reads(weights)
            .writes(out);
        if let Some(shared) = shared {
            launch = launch.reads(shared);
        }
        launch.launch(stream)
    }
}

fn check_experts(check: Checks, experts: usize) -> Result<()> {
    if (1..=plan::MAX_EXPERTS).contains(&experts) {
        return Ok(());
    }
    check.fail("experts", experts, format_args!("1 to {}", plan::MAX_EXPERTS))
}

fn check_slots(check: Checks, slots: usize) -> Result<()> {
    if (1..=plan::MAX_SLOTS).contains(&slots) {
        return Ok(());
    }
    check.fail("k", slots, format_args!("1 to {}", plan::MAX_SLOTS))
}
