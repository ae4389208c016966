//! What every product needs to be launched: checks, tensor maps, store widths.

use super::plan::{Plan, Problem, plan};
use super::variants::{STAGE_BYTES, Tile};
use crate::Card;
use crate::device::abi::{
    NG_GEMM_ACCUMULATE, NG_GEMM_PAIRED_STORES, NG_GEMM_WIDE_STORES, NgFp8GemmParams, NgTensorMap, Parameters,
};
use crate::device::{Device, KernelLaunch, Swizzle, TensorMapSpec};
use crate::dtype::Element;
use crate::error::Result;
use crate::fp8::TMA_ALIGNMENT;
use crate::tensor::Tensor;
use crate::validate::{Checks, rows_aligned};

/// Extents that the kernels count in 32 bits, with room for a tile behind the last.
const MAX_EXTENT: usize = (1 << 31) - 256;

/// The plan with the given tile, or the best one.
pub(super) fn planned(check: Checks, problem: &Problem, card: &Card, tile: Option<Tile>) -> Result<Plan> {
    match (plan(problem, card, tile), tile) {
        (Some(plan), _) => {
            // Blocks count tiles, and one round beyond them, in 32 bits.
            let blocks = problem.most_tiles(plan.tile).saturating_mul(plan.cluster as usize);
            if blocks.saturating_add(plan.grid as usize) > u32::MAX as usize {
                return check.fail("out", format_args!("of {blocks} tiles"), "of fewer than 2^32");
            }
            Ok(plan)
        }
        (None, Some(tile)) => check.fail("tile", tile, "one of a kernel that computes this product"),
        (None, None) => check.fail("out", format_args!("{:?}", problem.output), "what a kernel writes"),
    }
}

pub(super) fn kernel(plan: &Plan, params: &impl Parameters) -> KernelLaunch<'static> {
    KernelLaunch::new(plan.entry, params)
        .grid([plan.grid, 1, 1])
        .block(plan.threads)
        .cluster([plan.cluster, 1, 1])
        .shared(plan.shared_bytes)
}

/// The parameters that every product has. What only some have is nothing.
pub(super) fn parameters(problem: &Problem, [a, b]: [NgTensorMap; 2]) -> NgFp8GemmParams {
    NgFp8GemmParams {
        a,
        b,
        a_scales: 0,
        b_scales: 0,
        offsets: 0,
        gather: 0,
        out: 0,
        out_scales: 0,
        column_scales: 0,
        bias: 0,
        row_weights: 0,
        status: 0,
        a_scales_batch_stride: 0,
        a_scales_row_stride: 0,
        a_scales_block_stride: 0,
        b_scales_group_stride: 0,
        b_scales_row_stride: 0,
        b_scales_block_stride: 0,
        out_batch_stride: 0,
        out_row_stride: 0,
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
        flags: u32::from(problem.accumulate) * NG_GEMM_ACCUMULATE,
        a_rows: 0,
        a_data: 0,
        a_row_stride: 0,
        gather_multiplier: 0,
        gather_shift: 0,
        reserved: [0; 5],
    }
}

pub(super) fn writable<T: Element>(check: Checks, out: &Tensor<T>) -> Result<()> {
    check.adjacent_columns("out", out)?;
    check.distinct("out", out)
}

/// Kernels count rows, columns, K and matrices in 32 bits.
pub(super) fn extents(check: Checks, m: usize, n: usize, k: usize, groups: usize) -> Result<()> {
    for (name, extent) in [("M", m), ("N", n), ("K", k), ("groups", groups)] {
        if extent > MAX_EXTENT {
            return check.fail(name, extent, format_args!("at most {MAX_EXTENT}"));
        }
    }
    Ok(())
}

/// Whether every pair of outputs that a thread holds lies on an aligned address.
pub(super) fn paired_stores<T: Element>(out: &Tensor<T>) -> bool {
    out.strides()[out.rank() - 1] == 1 && rows_aligned(out, 2 * size_of::<T>())
}

/// The flags that say which stores the output's alignment allows.
pub(super) fn store_flags<T: Element>(out: &Tensor<T>) -> u32 {
    let wide = paired_stores(out) && rows_aligned(out, 16);
    u32::from(paired_stores(out)) * NG_GEMM_PAIRED_STORES + u32::from(wide) * NG_GEMM_WIDE_STORES
}

/// The map that loads `rows` × 128 bytes of an operand `[rows, K]` or `[batch, rows, K]`; it always has a batch
/// dimension. Reads past an end give zeros. An empty operand (K = 0) is not read, but its map must be lawful.
pub(super) fn operand<T: Element>(device: &Device, tensor: &Tensor<T>, rows: usize) -> Result<NgTensorMap> {
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
        tile: &[(STAGE_BYTES / size) as u32, rows as u32, 1],
        swizzle: Swizzle::B128,
    })
}
