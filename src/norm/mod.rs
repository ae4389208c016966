//! RMS norm, with and without fused quantisation, and the residual add.

pub(crate) mod plan;
pub mod reference;

use crate::device::abi::{NgAddParams, NgRmsNormParams, NgRmsNormQuantizeParams};
use crate::device::{KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::fp8::Fp8Rows;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// The epsilon of DeepSeek-V3's published configuration.
const DEFAULT_EPSILON: f32 = 1e-6;

/// RMS norm of the rows of `x` `[M, N]`: `weight * bf16(x / sqrt(mean(x²) + epsilon))`.
///
/// The order of roundings is that of `DeepseekV3RMSNorm` in the published model code: statistics and division in f32, the
/// result rounded to bf16, then multiplied by the weight and rounded again. A row's bits do not depend on the other rows.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct RmsNorm<'a> {
    x: &'a Tensor<bf16>,
    weight: &'a Tensor<bf16>,
    out: &'a Tensor<bf16>,
    epsilon: f32,
}

impl<'a> RmsNorm<'a> {
    /// Normalises `x` `[M, N]` by `weight` `[N]` into `out` `[M, N]`. Rows may have any stride; `out` may be `x` itself.
    pub fn new(x: &'a Tensor<bf16>, weight: &'a Tensor<bf16>, out: &'a Tensor<bf16>) -> Self {
        Self { x, weight, out, epsilon: DEFAULT_EPSILON }
    }

    /// What is added to the mean of squares. Default: 1e-6.
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Enqueues the operation. An empty matrix is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that differ, columns that are not adjacent, an output that
    /// overlaps an input, a bad epsilon, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("RmsNorm");
        let Self { x, weight, out, epsilon } = *self;
        let (rows, columns) = check_norm(check, stream, x, weight, epsilon)?;
        check_bf16_out(check, stream, "out", out, x, weight)?;
        if x.is_empty() {
            return Ok(());
        }
        let params = NgRmsNormParams {
            x: x.address(),
            weight: weight.address(),
            out: out.address(),
            x_row_stride: x.strides()[0] as u64,
            out_row_stride: out.strides()[0] as u64,
            columns,
            epsilon,
            vectorised: (columns.is_multiple_of(8)
                && rows_aligned(x, VECTOR_BYTES)
                && rows_aligned(weight, VECTOR_BYTES)
                && rows_aligned(out, VECTOR_BYTES))
            .into(),
        };
        KernelLaunch::new("rms_norm_bf16", &params)
            .grid([rows, 1, 1])
            .block(plan::threads(x.dim(1)))
            .reads(x)
            .reads(weight)
            .writes(out)
            .launch(stream)
    }
}

/// [`RmsNorm`] followed by [`Quantize`](crate::quant::Quantize) of its bf16 result, in one pass and with the same bits.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct RmsNormQuantize<'a> {
    x: &'a Tensor<bf16>,
    weight: &'a Tensor<bf16>,
    out: &'a Fp8Rows,
    bf16_output: Option<&'a Tensor<bf16>>,
    epsilon: f32,
    power_of_two: bool,
}

impl<'a> RmsNormQuantize<'a> {
    /// Normalises `x` `[M, N]` by `weight` `[N]` and quantises into `out` `[M, N]`.
    pub fn new(x: &'a Tensor<bf16>, weight: &'a Tensor<bf16>, out: &'a Fp8Rows) -> Self {
        Self { x, weight, out, bf16_output: None, epsilon: DEFAULT_EPSILON, power_of_two: false }
    }

    /// What is added to the mean of squares. Default: 1e-6.
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Whether scales are rounded up to powers of two. Default: false.
    pub fn power_of_two(mut self, yes: bool) -> Self {
        self.power_of_two = yes;
        self
    }

    /// Also stores the normalised rows before quantisation, bf16 `[M, N]`.
    pub fn bf16_output(mut self, out: &'a Tensor<bf16>) -> Self {
        self.bf16_output = Some(out);
        self
    }

    /// Enqueues the operation. An empty matrix is a no-op.
    ///
    /// # Errors
    ///
    /// As [`RmsNorm::launch`] and [`Quantize::launch`](crate::quant::Quantize::launch).
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("RmsNormQuantize");
        let Self { x, weight, out, bf16_output, epsilon, power_of_two } = *self;
        let (data, scales) = (out.data(), out.scales());
        let (rows, columns) = check_norm(check, stream, x, weight, epsilon)?;
        check.shape("out", data, x.shape())?;
        check.on("out", data, stream.device())?;
        check.distinct("out.data", data)?;
        check.distinct("out.scales", scales)?;
        check.apart("out.data", data, "out.scales", scales)?;
        for input in [x, weight] {
            check.apart("out.data", data, "an input", input)?;
            check.apart("out.scales", scales, "an input", input)?;
        }
        if let Some(out) = bf16_output {
            check_bf16_out(check, stream, "bf16_output", out, x, weight)?;
            check.apart("bf16_output", out, "out.data", data)?;
            check.apart("bf16_output", out, "out.scales", scales)?;
        }
        if x.is_empty() {
            return Ok(());
        }
        let params = NgRmsNormQuantizeParams {
            x: x.address(),
            weight: weight.address(),
            out: bf16_output.map_or(0, Tensor::address),
            data: data.address(),
            scales: scales.address(),
            x_row_stride: x.strides()[0] as u64,
            out_row_stride: bf16_output.map_or(0, |out| out.strides()[0] as u64),
            data_row_stride: data.strides()[0] as u64,
            scale_row_stride: scales.strides()[0] as u64,
            scale_group_stride: scales.strides()[1] as u64,
            columns,
            epsilon,
            power_of_two: power_of_two.into(),
            vectorised: (columns.is_multiple_of(8)
                && rows_aligned(x, VECTOR_BYTES)
                && rows_aligned(weight, VECTOR_BYTES)
                && rows_aligned(data, VECTOR_BYTES / 2)
                && bf16_output.is_none_or(|out| rows_aligned(out, VECTOR_BYTES)))
            .into(),
        };
        KernelLaunch::new("rms_norm_quantize_bf16", &params)
            .grid([rows, 1, 1])
            .block(plan::threads(x.dim(1)))
            .reads(x)
            .reads(weight)
            .writes(data)
            .writes(scales)
            .writes_each(bf16_output)
            .launch(stream)
    }
}

/// The sum of two bf16 matrices `[M, N]`, added in f32 and rounded to bf16.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Add<'a> {
    a: &'a Tensor<bf16>,
    b: &'a Tensor<bf16>,
    out: &'a Tensor<bf16>,
}

impl<'a> Add<'a> {
    /// Adds `a` and `b` into `out`, all `[M, N]` with any row stride. `out` may be `a` or `b` itself.
    pub fn new(a: &'a Tensor<bf16>, b: &'a Tensor<bf16>, out: &'a Tensor<bf16>) -> Self {
        Self { a, b, out }
    }

    /// Enqueues the operation. An empty matrix is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that differ, columns that are not adjacent, an output that
    /// overlaps an input without being it, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Add");
        let Self { a, b, out } = *self;
        check.rank("a", a, 2)?;
        for (name, tensor) in [("a", a), ("b", b), ("out", out)] {
            check.shape(name, tensor, a.shape())?;
            check.adjacent_columns(name, tensor)?;
            check.on(name, tensor, stream.device())?;
        }
        check.distinct("out", out)?;
        for (name, input) in [("a", a), ("b", b)] {
            if !out.same_as(input) {
                check.apart("out", out, name, input)?;
            }
        }
        let rows = check.extent("rows", a.dim(0))?;
        let columns = check.extent("columns", a.dim(1))?;
        if a.is_empty() {
            return Ok(());
        }
        let params = NgAddParams {
            a: a.address(),
            b: b.address(),
            out: out.address(),
            a_row_stride: a.strides()[0] as u64,
            b_row_stride: b.strides()[0] as u64,
            out_row_stride: out.strides()[0] as u64,
            columns,
            vectorised: (columns.is_multiple_of(8)
                && [a, b, out].iter().all(|t| rows_aligned(t, VECTOR_BYTES)))
            .into(),
        };
        KernelLaunch::new("add_bf16", &params)
            .grid([rows, 1, 1])
            .block(plan::threads(a.dim(1)))
            .reads(a)
            .reads(b)
            .writes(out)
            .launch(stream)
    }
}

/// The checks of both norms; rows and columns.
fn check_norm(
    check: Checks,
    stream: &Stream,
    x: &Tensor<bf16>,
    weight: &Tensor<bf16>,
    epsilon: f32,
) -> Result<(u32, u32)> {
    check.rank("x", x, 2)?;
    check.adjacent_columns("x", x)?;
    check.shape("weight", weight, &[x.dim(1)])?;
    check.contiguous("weight", weight)?;
    check.on("x", x, stream.device())?;
    check.on("weight", weight, stream.device())?;
    check.non_negative("epsilon", epsilon)?;
    Ok((check.extent("rows", x.dim(0))?, check.extent("columns", x.dim(1))?))
}

fn check_bf16_out(
    check: Checks,
    stream: &Stream,
    name: &'static str,
    out: &Tensor<bf16>,
    x: &Tensor<bf16>,
    weight: &Tensor<bf16>,
) -> Result<()> {
    check.shape(name, out, x.shape())?;
    check.adjacent_columns(name, out)?;
    check.on(name, out, stream.device())?;
    check.distinct(name, out)?;
    check.apart(name, out, "weight", weight)?;
    // A block reads and writes only its own row, each thread its own columns.
    if out.same_as(x) { Ok(()) } else { check.apart(name, out, "x", x) }
}
