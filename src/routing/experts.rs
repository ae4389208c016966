//! Between the experts' two products, and back to the tokens.

use super::{Permutation, plan};
use crate::device::abi::{NgCombineParams, NgSwigluQuantizeParams};
use crate::device::{KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::fp8::Fp8Rows;
use crate::row_plan::RowPlan;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// `silu(gate) * up`, in f32, quantised as [`Quantize`](crate::quant::Quantize) does without a rounding in between.
///
/// `silu(x) = x / (1 + exp(-x))`, the exponential and the reciprocal within 2 and 1 ulp. Where the gates and ups come from a
/// product, [`Fp8GemmSwiglu`](crate::gemm::Fp8GemmSwiglu) does both at once, and does not round to bf16 in between. Rows behind the routed ones become zeros with [`permutation`](Self::permutation).
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
        KernelLaunch::new("swiglu_quantize_bf16", &params)
            .grid([plan.blocks, 1, 1])
            .block(plan.threads)
            .reads(gate_up)
            .writes(data)
            .writes(scales)
            .reads_each(&valid_rows)
            .launch(stream)
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
        KernelLaunch::new("combine_bf16", &params)
            .grid([tokens as u32, 1, 1])
            .block(plan::row_threads(out.dim(1), 8))
            .reads(rows)
            .reads(position)
            .reads(weights)
            .writes(out)
            .reads_each(shared)
            .launch(stream)
    }
}
