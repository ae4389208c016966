//! Quantisation of activations to FP8.

pub mod reference;

use crate::device::abi::NgQuantizeParams;
use crate::device::{KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::fp8::Fp8Rows;
use crate::row_plan::RowPlan;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// Quantises bf16 `[M, K]` to e4m3 with one f32 scale for each row and 128 columns.
///
/// As DeepSeek's `act_quant` does: `scale = max(amax, 1e-4) / 448` over the group's finite elements, with
/// [`power_of_two`](Self::power_of_two) rounded up to a power of two; the code is `x * (1 / scale)`, each of the two
/// operations rounded in f32, rounded to the nearest e4m3, ties to even. NaN and infinities become NaN codes (0x7F) and
/// do not touch their neighbours. K need not be a multiple of 128: the last group has the columns that are left.
/// A row's bits do not depend on the other rows.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Quantize<'a> {
    x: &'a Tensor<bf16>,
    out: &'a Fp8Rows,
    power_of_two: bool,
}

impl<'a> Quantize<'a> {
    /// Quantises `x` `[M, K]` (adjacent columns, any row stride) into `out` of the same shape.
    pub fn new(x: &'a Tensor<bf16>, out: &'a Fp8Rows) -> Self {
        Self { x, out, power_of_two: false }
    }

    /// Whether scales are rounded up to powers of two. Default: false.
    pub fn power_of_two(mut self, yes: bool) -> Self {
        self.power_of_two = yes;
        self
    }

    /// Enqueues the operation. An empty matrix is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that differ, columns that are not adjacent, outputs that
    /// overlap, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Quantize");
        let (x, data, scales) = (self.x, self.out.data(), self.out.scales());
        check.rank("x", x, 2)?;
        check.on("x", x, stream.device())?;
        check.on("out", data, stream.device())?;
        check.adjacent_columns("x", x)?;
        check.shape("out", data, x.shape())?;
        check.distinct("out.data", data)?;
        check.distinct("out.scales", scales)?;
        check.apart("out.data", data, "x", x)?;
        check.apart("out.scales", scales, "x", x)?;
        check.apart("out.data", data, "out.scales", scales)?;
        let rows = check.extent("rows", x.dim(0))?;
        let columns = check.extent("columns", x.dim(1))?;
        if x.is_empty() {
            return Ok(());
        }
        let plan = RowPlan::new(x.dim(0), x.dim(1));
        let params = NgQuantizeParams {
            x: x.address(),
            data: data.address(),
            scales: scales.address(),
            x_row_stride: x.strides()[0] as u64,
            data_row_stride: data.strides()[0] as u64,
            scale_row_stride: scales.strides()[0] as u64,
            scale_group_stride: scales.strides()[1] as u64,
            rows,
            columns,
            warps_per_row: plan.warps_per_row,
            power_of_two: self.power_of_two.into(),
            vectorised: (columns.is_multiple_of(8)
                && rows_aligned(x, VECTOR_BYTES)
                && rows_aligned(data, VECTOR_BYTES / 2))
            .into(),
        };
        KernelLaunch::new("quantize_bf16", &params)
            .grid([plan.blocks, 1, 1])
            .block(plan.threads)
            .reads(x)
            .writes(data)
            .writes(scales)
            .launch(stream)
    }
}
