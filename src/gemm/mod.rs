//! Matrix products: FP8 with block scales, the same for groups of rows, and bf16.
//!
//! All compute `out = A · Bᵀ` for row-major A `[M, K]` and B `[N, K]`, as linear layers of published checkpoints store
//! their weights. Sums are f32; a row's bits do not depend on the other rows of A.

pub mod reference;

mod plan;

use crate::device::abi::{NgBf16GemmParams, NgFp8GemmParams, NgTensorMap, Parameters};
use crate::device::{Device, KernelLaunch, Stream, Swizzle, TensorMapSpec};
use crate::dtype::{Element, bf16};
use crate::error::Result;
use crate::fp8::{Fp8Blocks, Fp8Rows, TMA_ALIGNMENT, tma_readable};
use crate::tensor::Tensor;
use crate::validate::{Checks, rows_aligned};
use plan::{Input, Output, Plan, Problem, plan};

pub use plan::Tile;

mod sealed {
    pub trait Sealed {
        const OUTPUT: super::Output;
    }
}

/// What a product can be written as: `f32`, or `bf16` (rounded to nearest even).
pub trait GemmOutput: Element + sealed::Sealed {}

impl sealed::Sealed for f32 {
    const OUTPUT: Output = Output::F32;
}
impl GemmOutput for f32 {}

impl sealed::Sealed for bf16 {
    const OUTPUT: Output = Output::Bf16;
}
impl GemmOutput for bf16 {}

/// Extents that the kernels count in 32 bits, with room for a tile behind the last.
const MAX_EXTENT: usize = (1 << 31) - 256;

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
        let Self { a, b, out, offsets, .. } = self;
        let device = stream.device();
        self.validate(device)?;
        let problem = Problem {
            input: if offsets.is_some() { Input::Fp8Grouped } else { Input::Fp8 },
            output: T::OUTPUT,
            batch: b.groups(),
            m: a.rows(),
            n: b.rows(),
            k: a.cols(),
        };
        if out.is_empty() || problem.batch == 0 {
            return Ok(());
        }
        let plan = plan(&problem, device.card(), self.tile);
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
            out: out.address(),
            status: stream.status_address(),
            a_scales_row_stride,
            a_scales_block_stride,
            b_scales_group_stride,
            b_scales_row_stride,
            b_scales_block_stride,
            out_row_stride: out.strides()[0] as i64,
            rows: problem.m as u32,
            n: problem.n as u32,
            k_blocks: plan.k_blocks,
            groups: problem.batch as u32,
            paired_stores: paired_stores(out),
            reserved: [0; 5],
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
    /// As [`Fp8Gemm::launch`].
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
    /// As [`Fp8Gemm::launch`].
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
        let Self { rank, a, b, out, .. } = self;
        let device = stream.device();
        self.validate(device)?;
        if out.is_empty() {
            return Ok(());
        }
        let problem = Problem {
            input: Input::Bf16,
            output: T::OUTPUT,
            batch: if *rank == 3 { a.dim(0) } else { 1 },
            m: a.dim(rank - 2),
            n: b.dim(rank - 2),
            k: a.dim(rank - 1),
        };
        let plan = plan(&problem, device.card(), self.tile);
        let params = NgBf16GemmParams {
            a: operand(device, a, plan.tile.rows())?,
            b: operand(device, b, plan.tile.columns())?,
            out: out.address(),
            out_batch_stride: if *rank == 3 { out.strides()[0] as i64 } else { 0 },
            out_row_stride: out.strides()[rank - 2] as i64,
            m: problem.m as u32,
            n: problem.n as u32,
            k_blocks: plan.k_blocks,
            batch: problem.batch as u32,
            paired_stores: paired_stores(out),
            reserved: [0; 21],
        };
        kernel(&plan, &params).reads(*a).reads(*b).writes(*out).launch(stream)
    }
}

fn kernel<'a, P: Parameters>(plan: &Plan, params: &'a P) -> KernelLaunch<'a> {
    KernelLaunch::new(plan.entry, params)
        .grid([plan.grid, 1, 1])
        .block(plan.threads)
        .shared(plan.shared_bytes)
}

fn writable<T: Element>(check: Checks, out: &Tensor<T>) -> Result<()> {
    check.adjacent_columns("out", out)?;
    check.distinct("out", out)
}

fn extents(check: Checks, m: usize, n: usize, k: usize) -> Result<()> {
    for (name, extent) in [("M", m), ("N", n), ("K", k)] {
        if extent > MAX_EXTENT {
            return check.fail(name, extent, format_args!("at most {MAX_EXTENT}"));
        }
    }
    Ok(())
}

/// Whether every pair of outputs that a thread holds lies on an aligned address.
fn paired_stores<T: Element>(out: &Tensor<T>) -> u32 {
    u32::from(out.strides()[out.rank() - 1] == 1 && rows_aligned(out, 2 * size_of::<T>()))
}

/// The map that loads `rows` × 128 bytes of an operand `[rows, K]` or `[batch, rows, K]`; it always has a batch
/// dimension. Reads past an end give zeros. An empty operand (K = 0) is not read, but its map must be lawful.
fn operand<T: Element>(device: &Device, tensor: &Tensor<T>, rows: usize) -> Result<NgTensorMap> {
    let rank = tensor.rank();
    let size = size_of::<T>();
    let dim = |from_last: usize| {
        if from_last < rank && !tensor.is_empty() { tensor.dim(rank - 1 - from_last) } else { 1 }
    };
    let stride = |from_last: usize| {
        if dim(from_last) == 1 {
            // Never used for an address, but the hardware's rules hold for it all the same.
            (dim(0) * size).next_multiple_of(TMA_ALIGNMENT) as u64
        } else {
            (tensor.strides()[rank - 1 - from_last] * size) as u64
        }
    };
    device.tensor_map(&TensorMapSpec {
        address: if tensor.is_empty() { TMA_ALIGNMENT as u64 } else { tensor.address() },
        dtype: T::DTYPE,
        extents: &[dim(0) as u64, dim(1) as u64, dim(2) as u64],
        strides: &[stride(1), stride(2)],
        tile: &[(plan::STAGE_BYTES / size) as u32, rows as u32, 1],
        swizzle: Swizzle::B128,
    })
}
