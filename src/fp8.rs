//! FP8 matrices with their scales: the operands of the FP8 kernels.
//!
//! Data and scales are one value. Its type says what the data is ([`E4m3`](crate::E4m3) or [`E5m2`](crate::E5m2)) and what the scales
//! are (`f32` or [`Ue8m0`](crate::Ue8m0), powers of two), so that neither can be taken for the other. How many elements
//! share a scale:
//!
//! | | [`Fp8Rows`]: A | [`Fp8Blocks`]: B |
//! |---|---|---|
//! | 1×128, 128×128 (DeepSeek) | [`Fp8Rows::new`] | [`Fp8Blocks::new`] |
//! | a row, a column of the product (W8A8) | [`Fp8Rows::per_row`] | [`Fp8Blocks::per_row`] |
//! | the whole tensor, one number on the device | [`Fp8Rows::per_tensor`] | [`Fp8Blocks::per_tensor`] |
//!
//! Other types than e4m3 and f32 are joined by [`Fp8Rows::join`] and [`Fp8Blocks::join`]. Coarser scales are views of the same kind with strides of zero: they cost no memory and no other kernel.

mod blocks;
mod operand;
mod rows;

use crate::dtype::Element;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;

pub use blocks::Fp8Blocks;
pub(crate) use operand::Operand;
pub use operand::{Fp8, Scale};
pub use rows::{Fp8Rows, ScaleLayout};

/// Columns (and for weights also rows) that share one scale.
pub const SCALE_BLOCK: usize = 128;

/// Bytes that every stride of an operand of the tensor memory accelerator is a multiple of.
pub(crate) const TMA_ALIGNMENT: usize = 16;

/// Data comes as a matrix, or as several of one shape.
fn matrix<T: Element>(check: Checks, data: &Tensor<T>) -> Result<()> {
    if !(2..=3).contains(&data.rank()) {
        return check.fail("data", format_args!("of rank {}", data.rank()), "of rank 2 or 3");
    }
    tma_readable(check, "data", data)
}

fn same_device<T: Element, S: Element>(check: Checks, data: &Tensor<T>, scales: &Tensor<S>) -> Result<()> {
    if data.device() == scales.device() {
        return Ok(());
    }
    check.fail("scales", format_args!("on {}", scales.device().name()), "on the device of the data")
}

/// What the tensor memory accelerator can read: adjacent columns, everything else in steps of 16 bytes.
pub(crate) fn tma_readable<T: Element>(
    check: Checks,
    argument: &'static str,
    tensor: &Tensor<T>,
) -> Result<()> {
    check.adjacent_columns(argument, tensor)?;
    if tensor.is_empty() {
        return Ok(());
    }
    for dim in 0..tensor.rank() - 1 {
        let bytes = tensor.strides()[dim] * size_of::<T>();
        if tensor.dim(dim) > 1 && !bytes.is_multiple_of(TMA_ALIGNMENT) {
            let got = format!("with a stride of {bytes} bytes in dimension {dim}");
            return check.fail(argument, got, "of strides that are multiples of 16 bytes");
        }
    }
    if !tensor.address().is_multiple_of(TMA_ALIGNMENT as u64) {
        return check.fail(argument, format!("at {:#x}", tensor.address()), "16-byte aligned");
    }
    Ok(())
}
