//! FP8 products: one matrix of weights, or one for each group of rows.

use super::GemmOutput;
use super::Tile;
use super::launch::{extents, kernel, operand, planned, store_flags, writable};
use super::plan::{self, Input, Mode, Problem};
use crate::device::abi::NgFp8GemmParams;
use crate::device::{Device, Stream};
use crate::error::Result;
use crate::fp8::{Fp8Blocks, Fp8Rows};
use crate::tensor::Tensor;
use crate::validate::Checks;

/// `out[m, n] = Σ_k a[m, k] · b[n, k]` for FP8 A and B with block scales.
///
/// - `a`: activations `[M, K]`, one scale for each row and 128 of K, in either layout.
/// - `b`: weights `[N, K]`, one scale for each block of 128×128; blocks at the ends may be ragged.
/// - `out`: `[M, N]`, bf16 or f32, adjacent columns, any row stride.
///
/// Any M, N and K; rows of the data start at multiples of 16 bytes. M = 0 or N = 0 does nothing, K = 0 writes zeros. The
/// tensor core's sums of 128 products are scaled and added in f32, as in DeepSeek-V3 (arXiv 2412.19437, section 3.5.2).
#[derive(Debug)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct Fp8Gemm<'a, T: GemmOutput> {
    a: &'a Fp8Rows,
    b: &'a Fp8Blocks,
    out: &'a Tensor<T>,
    tile: Option<Tile>,
}

impl<'a, T: GemmOutput> Fp8Gemm<'a, T> {
    /// A product of these operands.
    pub fn new(a: &'a Fp8Rows, b: &'a Fp8Blocks, out: &'a Tensor<T>) -> Self {
        Self { a, b, out, tile: None }
    }

    /// Takes this tile instead of the planned one. It changes the time, and not a bit of the result.
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Enqueues the product.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) before anything runs if shapes, strides, devices do not fit or `out`
    /// overlaps an input; otherwise what launching says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Fp8Gemm");
        if self.b.is_grouped() {
            return check.fail("b", "grouped", "a single matrix (GroupedFp8Gemm takes groups)");
        }
        let launch = Fp8Launch { check, a: self.a, b: self.b, out: self.out, tile: self.tile, offsets: None };
        launch.run(stream)
    }
}

/// The product of [`Fp8Gemm`] for groups of adjacent rows, each with its own weights: experts.
///
/// - `a`: `[R, K]`, the rows of all groups, ordered by group.
/// - `b`: `[G, N, K]`, G at most 1024.
/// - `offsets`: `[G + 1]` on the device; rows `offsets[g]..offsets[g + 1]` belong to group g. Groups may be empty and
///   need no alignment. Rows outside of all groups are not written.
/// - `out`: `[R, N]`.
///
/// Offsets that decrease or leave `0..=R` are pulled into that range, in order, and reported by
/// [`Status::bad_offsets`](crate::Status::bad_offsets).
#[derive(Debug)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct GroupedFp8Gemm<'a, T: GemmOutput> {
    a: &'a Fp8Rows,
    b: &'a Fp8Blocks,
    offsets: &'a Tensor<i32>,
    out: &'a Tensor<T>,
    tile: Option<Tile>,
}

impl<'a, T: GemmOutput> GroupedFp8Gemm<'a, T> {
    /// A product of these operands.
    pub fn new(a: &'a Fp8Rows, b: &'a Fp8Blocks, offsets: &'a Tensor<i32>, out: &'a Tensor<T>) -> Self {
        Self { a, b, offsets, out, tile: None }
    }

    /// Takes this tile instead of the planned one. It changes the time, and not a bit of the result.
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Enqueues the product.
    ///
    /// # Errors
    ///
    /// As [`Fp8Gemm::launch`].
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("GroupedFp8Gemm");
        if !self.b.is_grouped() {
            return check.fail("b", "a single matrix", "of shape [G, N, K]");
        }
        let launch = Fp8Launch {
            check,
            a: self.a,
            b: self.b,
            out: self.out,
            tile: self.tile,
            offsets: Some(self.offsets),
        };
        launch.run(stream)
    }
}

struct Fp8Launch<'a, T: GemmOutput> {
    check: Checks,
    a: &'a Fp8Rows,
    b: &'a Fp8Blocks,
    out: &'a Tensor<T>,
    tile: Option<Tile>,
    offsets: Option<&'a Tensor<i32>>,
}

impl<T: GemmOutput> Fp8Launch<'_, T> {
    fn validate(&self, device: &Device) -> Result<()> {
        let Self { check, a, b, out, offsets, .. } = self;
        let (m, n, k) = (a.rows(), b.rows(), a.cols());
        if b.cols() != k {
            return check.fail("b", format_args!("of K = {}", b.cols()), format_args!("of a's K = {k}"));
        }
        check.shape("out", out, &[m, n])?;
        writable(*check, out)?;
        check.on("a", a.data(), device)?;
        check.on("b", b.data(), device)?;
        check.on("out", out, device)?;
        check.apart("out", out, "a", a.data())?;
        check.apart("out", out, "the scales of a", a.scales())?;
        check.apart("out", out, "b", b.data())?;
        check.apart("out", out, "the scales of b", b.scales())?;
        if let Some(offsets) = offsets {
            if b.groups() > plan::MAX_GROUPS {
                return check.fail("groups", b.groups(), format!("at most {}", plan::MAX_GROUPS));
            }
            check.shape("offsets", offsets, &[b.groups() + 1])?;
            check.adjacent_columns("offsets", offsets)?;
            check.on("offsets", offsets, device)?;
            check.apart("out", out, "offsets", offsets)?;
        }
        extents(*check, m, n, k)
    }

    fn run(&self, stream: &Stream) -> Result<()> {
        let Self { check, a, b, out, offsets, .. } = self;
        let device = stream.device();
        self.validate(device)?;
        let problem = Problem {
            mode: if offsets.is_some() { Mode::Contiguous } else { Mode::Dense },
            groups: b.groups(),
            ..Problem::dense(Input::Fp8, T::OUTPUT, a.rows(), b.rows(), a.cols())
        };
        if out.is_empty() || problem.groups == 0 {
            return Ok(());
        }
        let plan = planned(*check, &problem, device.card(), self.tile)?;
        // The kernel reads ahead, so without K it still reads one scale, which it does not use: of memory that every
        // launch has and this one does not write.
        let unused = offsets.map_or(stream.status_address(), Tensor::address);
        let scales = |scales: &Tensor<f32>| {
            let mut strides = [0; 3];
            if problem.k == 0 {
                return (unused, strides);
            }
            for (to, stride) in strides[3 - scales.rank()..].iter_mut().zip(scales.strides()) {
                *to = *stride as i64;
            }
            (scales.address(), strides)
        };
        let (a_scales, [_, a_scales_row_stride, a_scales_block_stride]) = scales(a.scales());
        let (b_scales, [b_scales_group_stride, b_scales_row_stride, b_scales_block_stride]) =
            scales(b.scales());
        let params = NgFp8GemmParams {
            a: operand(device, a.data(), plan.tile.rows())?,
            b: operand(device, b.data(), plan.tile.columns())?,
            a_scales,
            b_scales,
            offsets: offsets.map_or(0, Tensor::address),
            gather: 0,
            out: out.address(),
            out_scales: 0,
            column_scales: 0,
            bias: 0,
            row_weights: 0,
            status: stream.status_address(),
            a_scales_batch_stride: 0,
            a_scales_row_stride,
            a_scales_block_stride,
            b_scales_group_stride,
            b_scales_row_stride,
            b_scales_block_stride,
            out_batch_stride: 0,
            out_row_stride: out.strides()[0] as i64,
            out_scales_row_stride: 0,
            out_scales_block_stride: 0,
            column_scales_group_stride: 0,
            bias_group_stride: 0,
            alpha: 1.0,
            clamp: 0.0,
            rows: problem.m as u32,
            n: problem.n as u32,
            k: problem.k as u32,
            groups: problem.groups as u32,
            mode: problem.mode as u32,
            out_type: problem.output as u32,
            flags: store_flags(out),
            reserved: [0; 11],
        };
        let mut launch = kernel(&plan, &params)
            .reads(a.data())
            .reads(a.scales())
            .reads(b.data())
            .reads(b.scales())
            .writes(*out);
        if let Some(offsets) = offsets {
            launch = launch.reads(*offsets);
        }
        launch.launch(stream)
    }
}
