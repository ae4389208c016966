//! FP8 products with fine scales on both sides: weight gradients.

use super::GemmOutput;
use super::launch::{extents, kernel, operand, parameters, planned, store_flags, writable};
use super::plan::{Input, MAX_GROUPS, Mode, Problem};
use super::variants::Tile;
use crate::device::abi::{NG_GEMM_A_SCALES_UE8M0, NG_GEMM_B_SCALES_UE8M0, NgFp8GemmParams};
use crate::device::{Device, Stream};
use crate::error::Result;
use crate::fp8::{Fp8, Fp8Rows, Operand, Scale};
use crate::tensor::Tensor;
use crate::validate::Checks;

/// What the two products have in common.
#[derive(Debug)]
struct Gradient<'a, T: GemmOutput> {
    check: Checks,
    a: Operand,
    b: Operand,
    offsets: Option<&'a Tensor<i32>>,
    out: &'a Tensor<T>,
    accumulate: bool,
    alpha: f32,
    tile: Option<Tile>,
}

/// `out[m, n] = α · Σ_k a[m, k] · b[n, k]`, or that plus what `out` held: a weight gradient (DeepGEMM's 1D1D product).
///
/// - `a`: `[M, K]` and `b`: `[N, K]`, both with one scale for each row and 128 of K. For the gradient of a linear layer's
///   weights, K counts tokens: A is the transposed gradient of the output, B the transposed input. Either may be e5m2.
/// - `out`: `[M, N]`, f32 or bf16, adjacent columns, any row stride.
///
/// Any M, N and K; rows of the data start at multiples of 16 bytes. M = 0 or N = 0 does nothing; K = 0 writes zeros, or
/// leaves `out` as it is where it accumulates. Each 128 of K is summed by the tensor core, multiplied by the product of its
/// two scales (rounded to f32) and added to an f32 sum by one fused multiply-add, in ascending order. Then, each rounded
/// once: times α, plus the old value, to the type of `out`. One block owns an element, so the same input gives the same bits.
#[derive(Debug)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct Fp8GradientGemm<'a, T: GemmOutput>(Gradient<'a, T>);

/// One product of [`Fp8GradientGemm`] for each of several ranges of K: the weight gradients of experts, whose tokens are
/// ordered by expert.
///
/// - `a`: `[M, K]` and `b`: `[N, K]` packed: a row holds the K of all groups, one group after the other. The scales are those
///   of the packed matrices, `[M, ceil(K / 128)]` and `[N, ceil(K / 128)]`.
/// - `offsets`: `[G + 1]` on the device, G at most 1024, multiples of 128; group g has columns
///   `offsets[g]..offsets[g + 1]`. Other columns belong to nobody.
/// - `out`: `[G, M, N]`.
///
/// An empty group's matrix becomes zeros, or stays as it is where the product accumulates. Offsets that decrease, leave
/// `0..=K` or are no multiples of 128 are pulled into that (downwards) and reported by
/// [`Status::bad_offsets`](crate::Status::bad_offsets).
///
/// This is what one transposition of all tokens gives. DeepGEMM's `k_grouped_fp8_gemm_nt_contiguous` wants a matrix of
/// its own, `[M, K of the group]`, for each group, and so writes a tensor map per group on the device; here a
/// coordinate along K is enough.
#[derive(Debug)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct KGroupedFp8Gemm<'a, T: GemmOutput>(Gradient<'a, T>);

macro_rules! options {
    ($name:ident) => {
        impl<T: GemmOutput> $name<'_, T> {
            /// Adds the product to what `out` holds.
            pub fn accumulate(mut self) -> Self {
                self.0.accumulate = true;
                self
            }

            /// Multiplies the product (not what it is added to) by this number, 1 unless given.
            pub fn alpha(mut self, alpha: f32) -> Self {
                self.0.alpha = alpha;
                self
            }

            /// Takes this tile instead of the planned one. It changes the time, and not a bit of the result.
            pub fn tile(mut self, tile: Tile) -> Self {
                self.0.tile = Some(tile);
                self
            }

            /// Enqueues the product.
            ///
            /// # Errors
            ///
            /// [`Error::Argument`](crate::Error::Argument) before anything runs if shapes, strides, devices do not fit or
            /// `out` overlaps an input; otherwise what launching says.
            pub fn launch(&self, stream: &Stream) -> Result<()> {
                self.0.run(stream)
            }
        }
    };
}
options!(Fp8GradientGemm);
options!(KGroupedFp8Gemm);

impl<'a, T: GemmOutput> Fp8GradientGemm<'a, T> {
    /// A product of these operands.
    pub fn new<A: Fp8, B: Fp8, R: Scale, S: Scale>(
        a: &Fp8Rows<A, R>,
        b: &Fp8Rows<B, S>,
        out: &'a Tensor<T>,
    ) -> Self {
        Self(Gradient::new(Checks::of("Fp8GradientGemm"), [a.operand(), b.operand()], None, out))
    }
}

impl<'a, T: GemmOutput> KGroupedFp8Gemm<'a, T> {
    /// Products of these operands.
    pub fn new<A: Fp8, B: Fp8, R: Scale, S: Scale>(
        a: &Fp8Rows<A, R>,
        b: &Fp8Rows<B, S>,
        offsets: &'a Tensor<i32>,
        out: &'a Tensor<T>,
    ) -> Self {
        Self(Gradient::new(Checks::of("KGroupedFp8Gemm"), [a.operand(), b.operand()], Some(offsets), out))
    }
}

impl<'a, T: GemmOutput> Gradient<'a, T> {
    fn new(
        check: Checks,
        [a, b]: [Operand; 2],
        offsets: Option<&'a Tensor<i32>>,
        out: &'a Tensor<T>,
    ) -> Self {
        Self { check, a, b, offsets, out, accumulate: false, alpha: 1.0, tile: None }
    }

    fn validate(&self, device: &Device) -> Result<()> {
        let Self { check, a, b, out, offsets, .. } = self;
        check.rank("a", &a.data, 2)?;
        check.rank("b", &b.data, 2)?;
        let (m, n, k) = (a.extent(1), b.extent(1), a.extent(0));
        if b.extent(0) != k {
            return check.fail("b", format_args!("of K = {}", b.extent(0)), format_args!("of a's K = {k}"));
        }
        if !self.alpha.is_finite() {
            return check.fail("alpha", self.alpha, "finite");
        }
        match offsets {
            None => check.shape("out", out, &[m, n])?,
            Some(offsets) => {
                check.rank("offsets", offsets, 1)?;
                if offsets.is_empty() || offsets.len() > MAX_GROUPS + 1 {
                    let want = format!("1 to {}: one more than groups", MAX_GROUPS + 1);
                    return check.fail("offsets", offsets.len(), want);
                }
                check.adjacent_columns("offsets", offsets)?;
                check.on("offsets", offsets, device)?;
                check.shape("out", out, &[offsets.len() - 1, m, n])?;
                check.apart("out", out, "offsets", offsets)?;
            }
        }
        writable(*check, out)?;
        check.on("out", out, device)?;
        for (operand, names) in [(a, ["a", "the scales of a"]), (b, ["b", "the scales of b"])] {
            operand.on(*check, names[0], device)?;
            operand.apart(*check, out, names)?;
        }
        extents(*check, m, n, k, 1)
    }

    fn run(&self, stream: &Stream) -> Result<()> {
        let Self { a, b, out, offsets, .. } = self;
        let device = stream.device();
        self.validate(device)?;
        if out.is_empty() {
            return Ok(());
        }
        let (mode, groups) = match offsets {
            None => (Mode::Dense, 1),
            Some(offsets) => (Mode::KGrouped, offsets.len() - 1),
        };
        let problem = Problem {
            a_e5m2: a.e5m2,
            b_e5m2: b.e5m2,
            mode,
            groups,
            accumulate: self.accumulate,
            ..Problem::dense(Input::Fp8Fine, T::OUTPUT, a.extent(1), b.extent(1), a.extent(0))
        };
        let plan = planned(self.check, &problem, device.card(), self.tile)?;
        let (a_scales, [_, a_scales_row_stride, a_scales_block_stride]) = a.scales.placed();
        let (b_scales, [_, b_scales_row_stride, b_scales_block_stride]) = b.scales.placed();
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let out_strides = out.strides();
        let common = parameters(
            &problem,
            [operand(device, &a.data, plan.tile.rows())?, operand(device, &b.data, plan.tile.columns())?],
        );
        let params = NgFp8GemmParams {
            a_scales,
            b_scales,
            offsets: offsets.map_or(0, Tensor::address),
            out: out.address(),
            status: stream.status_address(),
            a_scales_row_stride,
            a_scales_block_stride,
            b_scales_row_stride,
            b_scales_block_stride,
            out_batch_stride: if out.rank() == 3 { out_strides[0] as i64 } else { 0 },
            out_row_stride: out_strides[out.rank() - 2] as i64,
            alpha: self.alpha,
            flags: store_flags(out)
                | common.flags
                | flag(a.scales.are_codes(), NG_GEMM_A_SCALES_UE8M0)
                | flag(b.scales.are_codes(), NG_GEMM_B_SCALES_UE8M0),
            ..common
        };
        let launch = b.read_by(a.read_by(kernel(&plan, &params))).writes(*out);
        offsets.iter().fold(launch, |launch, offsets| launch.reads(offsets)).launch(stream)
    }
}
