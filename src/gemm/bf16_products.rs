//! bf16 products, alone and in batches.

use super::GemmOutput;
use super::Tile;
use super::launch::{extents, kernel, operand, paired_stores, planned, writable};
use super::plan::{Input, Mode, Problem};
use crate::device::abi::NgBf16GemmParams;
use crate::device::{Device, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::fp8::tma_readable;
use crate::tensor::Tensor;
use crate::validate::Checks;

/// `out[m, n] = Σ_k a[m, k] · b[n, k]` in bf16 with f32 sums.
///
/// `a` is `[M, K]`, `b` is `[N, K]`, `out` is `[M, N]` in bf16 or f32. Columns are adjacent; rows of `a` and `b` start at
/// multiples of 16 bytes. Any M, N and K; M = 0 or N = 0 does nothing, K = 0 writes zeros.
#[derive(Debug)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct Bf16Gemm<'a, T: GemmOutput> {
    a: &'a Tensor<bf16>,
    b: &'a Tensor<bf16>,
    out: &'a Tensor<T>,
    tile: Option<Tile>,
}

impl<'a, T: GemmOutput> Bf16Gemm<'a, T> {
    /// A product of these operands.
    pub fn new(a: &'a Tensor<bf16>, b: &'a Tensor<bf16>, out: &'a Tensor<T>) -> Self {
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
    /// As [`Fp8Gemm::launch`](super::Fp8Gemm::launch).
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        Bf16Launch {
            check: Checks::of("Bf16Gemm"),
            rank: 2,
            a: self.a,
            b: self.b,
            out: self.out,
            tile: self.tile,
        }
        .run(stream)
    }
}

/// [`Bf16Gemm`] for each of `B` pairs of matrices.
///
/// `a` is `[B, M, K]`, `b` is `[B, N, K]`, `out` is `[B, M, N]`. Columns are adjacent, rows and batches of `a` and `b`
/// start at multiples of 16 bytes; otherwise the strides are free: the batch may be the middle dimension of a tensor
/// `[M, B, K]` seen through [`Tensor::transpose`].
#[derive(Debug)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct BatchedBf16Gemm<'a, T: GemmOutput> {
    a: &'a Tensor<bf16>,
    b: &'a Tensor<bf16>,
    out: &'a Tensor<T>,
    tile: Option<Tile>,
}

impl<'a, T: GemmOutput> BatchedBf16Gemm<'a, T> {
    /// A product of these operands.
    pub fn new(a: &'a Tensor<bf16>, b: &'a Tensor<bf16>, out: &'a Tensor<T>) -> Self {
        Self { a, b, out, tile: None }
    }

    /// Takes this tile instead of the planned one. It changes the time, and not a bit of the result.
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Enqueues the products.
    ///
    /// # Errors
    ///
    /// As [`Fp8Gemm::launch`](super::Fp8Gemm::launch).
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        Bf16Launch {
            check: Checks::of("BatchedBf16Gemm"),
            rank: 3,
            a: self.a,
            b: self.b,
            out: self.out,
            tile: self.tile,
        }
        .run(stream)
    }
}

struct Bf16Launch<'a, T: GemmOutput> {
    check: Checks,
    rank: usize,
    a: &'a Tensor<bf16>,
    b: &'a Tensor<bf16>,
    out: &'a Tensor<T>,
    tile: Option<Tile>,
}

impl<T: GemmOutput> Bf16Launch<'_, T> {
    fn validate(&self, device: &Device) -> Result<()> {
        let Self { check, rank, a, b, out, .. } = self;
        check.rank("a", a, *rank)?;
        let mut b_shape = a.shape().to_vec();
        let mut out_shape = b_shape.clone();
        check.rank("b", b, *rank)?;
        b_shape[rank - 2] = b.dim(rank - 2);
        check.shape("b", b, &b_shape)?;
        out_shape[rank - 1] = b.dim(rank - 2);
        check.shape("out", out, &out_shape)?;
        tma_readable(*check, "a", a)?;
        tma_readable(*check, "b", b)?;
        writable(*check, out)?;
        check.on("a", a, device)?;
        check.on("b", b, device)?;
        check.on("out", out, device)?;
        check.apart("out", out, "a", a)?;
        check.apart("out", out, "b", b)?;
        extents(*check, a.dim(rank - 2), b.dim(rank - 2), a.dim(rank - 1))
    }

    fn run(&self, stream: &Stream) -> Result<()> {
        let Self { check, rank, a, b, out, .. } = self;
        let device = stream.device();
        self.validate(device)?;
        if out.is_empty() {
            return Ok(());
        }
        let (m, n, k) = (a.dim(rank - 2), b.dim(rank - 2), a.dim(rank - 1));
        let problem = Problem {
            mode: if *rank == 3 { Mode::Batched } else { Mode::Dense },
            groups: if *rank == 3 { a.dim(0) } else { 1 },
            ..Problem::dense(Input::Bf16, T::OUTPUT, m, n, k)
        };
        let plan = planned(*check, &problem, device.card(), self.tile)?;
        let params = NgBf16GemmParams {
            a: operand(device, a, plan.tile.rows())?,
            b: operand(device, b, plan.tile.columns())?,
            out: out.address(),
            out_batch_stride: if *rank == 3 { out.strides()[0] as i64 } else { 0 },
            out_row_stride: out.strides()[rank - 2] as i64,
            m: problem.m as u32,
            n: problem.n as u32,
            k_blocks: plan.k_blocks,
            batch: problem.groups as u32,
            paired_stores: u32::from(paired_stores(out)),
            reserved: [0; 21],
        };
        kernel(&plan, &params).reads(*a).reads(*b).writes(*out).launch(stream)
    }
}
