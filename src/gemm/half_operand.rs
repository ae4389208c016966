//! Matrices of 16-bit floats as operands: which dimension is adjacent, and how tiles of them are copied.

use super::plan::Input;
use crate::device::abi::NgTensorMap;
use crate::device::{Device, KernelLaunch, Swizzle, TensorMapSpec};
use crate::dtype::{Element, bf16, f16};
use crate::error::Result;
use crate::fp8::TMA_ALIGNMENT;
use crate::tensor::Tensor;
use crate::validate::Checks;

pub(super) mod sealed {
    use super::{Element, Input, Tensor, Values};

    pub trait Half: Element {
        const INPUT: Input;

        fn erase(tensor: &Tensor<Self>) -> Values;
    }
}

/// A 16-bit float that tensor cores multiply: [`bf16`] or [`f16`](struct@crate::f16).
pub trait Half: Element + sealed::Half {}

impl sealed::Half for bf16 {
    const INPUT: Input = Input::Bf16;

    fn erase(tensor: &Tensor<Self>) -> Values {
        Values::Bf16(tensor.clone())
    }
}
impl Half for bf16 {}

impl sealed::Half for f16 {
    const INPUT: Input = Input::F16;

    fn erase(tensor: &Tensor<Self>) -> Values {
        Values::F16(tensor.clone())
    }
}
impl Half for f16 {}

/// A matrix, or several, whatever its type.
#[derive(Debug, Clone)]
pub enum Values {
    /// bf16.
    Bf16(Tensor<bf16>),
    /// f16.
    F16(Tensor<f16>),
}

macro_rules! values {
    ($values:expr, $tensor:ident => $use:expr) => {
        match $values {
            Values::Bf16($tensor) => $use,
            Values::F16($tensor) => $use,
        }
    };
}

/// Rows and a k-block of one copy of an operand that lies transposed.
const PART: u32 = 64;

impl Values {
    pub(super) fn input(&self) -> Input {
        match self {
            Values::Bf16(_) => Input::Bf16,
            Values::F16(_) => Input::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        values!(self, tensor => tensor.shape())
    }

    fn strides(&self) -> &[usize] {
        values!(self, tensor => tensor.strides())
    }

    /// The extent of a dimension, counted from the last; 1 beyond the rank.
    pub(super) fn extent(&self, from_last: usize) -> usize {
        self.shape().iter().rev().nth(from_last).copied().unwrap_or(1)
    }

    pub(super) fn rank(&self) -> usize {
        self.shape().len()
    }

    fn is_empty(&self) -> bool {
        self.shape().contains(&0)
    }

    /// Whether elements of a dimension, counted from the last, are neighbours and everything else lies in steps of 16 bytes.
    fn adjacent(&self, from_last: usize) -> bool {
        let adjacent = self.rank() - 1 - from_last;
        self.shape().iter().zip(self.strides()).enumerate().all(|(dim, (extent, stride))| {
            *extent == 1
                || if dim == adjacent { *stride == 1 } else { (stride * 2).is_multiple_of(TMA_ALIGNMENT) }
        })
    }

    /// Whether the rows, and not the columns, are adjacent.
    pub(super) fn transposed(&self) -> bool {
        !self.is_empty() && !self.adjacent(0)
    }

    /// The tensor memory accelerator can read it.
    pub(super) fn check(
        &self,
        check: Checks,
        name: &'static str,
        rank: usize,
        device: &Device,
    ) -> Result<()> {
        values!(self, tensor => {
            check.rank(name, tensor, rank)?;
            check.on(name, tensor, device)?;
        });
        if self.is_empty() || self.adjacent(0) || self.adjacent(1) {
            let address = values!(self, tensor => tensor.address());
            if self.is_empty() || address.is_multiple_of(TMA_ALIGNMENT as u64) {
                return Ok(());
            }
            return check.fail(name, format_args!("at {address:#x}"), "16-byte aligned");
        }
        let want = "of adjacent columns, or of adjacent rows, and of other strides that are multiples of 8";
        check.fail(name, format_args!("with strides {:?}", self.strides()), want)
    }

    pub(super) fn read_by<'a>(&self, launch: KernelLaunch<'a>) -> KernelLaunch<'a> {
        values!(self, tensor => launch.reads(tensor))
    }

    /// An output shares no memory with it.
    pub(super) fn apart(&self, check: Checks, out: &super::output::Out, name: &'static str) -> Result<()> {
        values!(self, tensor => out.apart(check, name, tensor))
    }

    /// The map that loads `rows` rows of 64 columns, or where they lie transposed 64 columns of 64 rows; it always has a
    /// batch dimension. Reads past an end give zeros. An empty operand (K = 0) is not read, but its map must be lawful.
    pub(super) fn map(&self, device: &Device, rows: usize) -> Result<NgTensorMap> {
        let transposed = self.transposed();
        // Of the adjacent dimension, the other one, and the batch.
        let order = if transposed { [1, 0, 2] } else { [0, 1, 2] };
        let dim = |at: usize| if self.is_empty() { 1 } else { self.extent(order[at]) };
        let stride = |at: usize| {
            if dim(at) == 1 {
                // Never used for an address, but the hardware's rules hold for it all the same.
                (dim(0) * 2).next_multiple_of(TMA_ALIGNMENT) as u64
            } else {
                (self.strides()[self.rank() - 1 - order[at]] * 2) as u64
            }
        };
        let (dtype, address) = values!(self, tensor => (tensor.dtype(), tensor.address()));
        device.tensor_map(&TensorMapSpec {
            address: if self.is_empty() { TMA_ALIGNMENT as u64 } else { address },
            dtype,
            extents: &[dim(0) as u64, dim(1) as u64, dim(2) as u64],
            strides: &[stride(1), stride(2)],
            tile: &[PART, if transposed { PART } else { rows as u32 }, 1],
            swizzle: Swizzle::B128,
        })
    }
}
