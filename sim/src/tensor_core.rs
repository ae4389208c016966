//! The arithmetic of Hopper's tensor core, bit for bit as it is modelled.
//!
//! Each output is one fused sum per instruction step: the products and the accumulator are aligned to the largest
//! exponent among them, each is truncated toward zero to a fixed number of fractional bits, the integers are added
//! exactly, and the normalised sum is truncated. (Model: MMA-Sim, arXiv 2511.10909.)

mod kernel;
mod largest;
mod operand;
mod scalar;
#[cfg(test)]
mod tests;

pub use operand::{Left, Right};
pub use scalar::{fused_sum, fused_sum_f16};

use crate::row::Row;

/// Format of a matrix operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 8 bits, 3 of fraction.
    E4m3,
    /// 8 bits, 2 of fraction.
    E5m2,
    /// The upper half of an f32.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Format {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Format::E4m3 | Format::E5m2 => 1,
            Format::Bf16 | Format::F16 => 2,
        }
    }

    /// Elements along k in one instruction step.
    pub const fn depth(self) -> usize {
        32 / self.bytes()
    }

    /// Exponent of the smallest normal number, which subnormals share.
    pub const fn least_exponent(self) -> i32 {
        match self {
            Format::E4m3 => -6,
            Format::E5m2 | Format::F16 => -14,
            Format::Bf16 => -126,
        }
    }
}

/// How products are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// FP8 `wgmma`: 13 fractional bits, result truncated to 1 + 8 + 13 bits.
    Truncated13,
    /// `mma.sync` before Hopper: 24 fractional bits, result truncated to f32.
    Truncated24,
    /// 16-bit `wgmma`, and `mma.sync` of Hopper and later: 25 fractional bits, result truncated to f32.
    Truncated25,
    /// Plain f32 additions in the order of k.
    ExactF32,
}

/// `D = A·B + D` (or `A·B` where `scale_d` is false) over one instruction step.
///
/// `d` holds the accumulator fragments, one slice a warp, each warp owning 16 rows of A: N/2 registers, laid out as
/// for `wgmma` (and, with N = 8, for `mma.sync`).
pub fn multiply_accumulate(
    left: &Left,
    right: &Right,
    d: &mut [&mut [Row]],
    scale_d: bool,
    arithmetic: Arithmetic,
) {
    assert_eq!(left.rows(), 16 * d.len(), "a warp owns 16 rows");
    assert!(d.iter().all(|fragment| fragment.len() == right.columns() / 2), "N/2 registers a lane");
    assert_eq!(left.depth(), right.depth(), "operands differ along k");
    if !scale_d {
        d.iter_mut().for_each(|fragment| fragment.fill([0; 32]));
    }
    kernel::run(left, right, d, arithmetic);
}
