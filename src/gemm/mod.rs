//! Matrix products: FP8 with block scales, the same for groups of rows, and bf16.
//!
//! All compute `out = A · Bᵀ` for row-major A `[M, K]` and B `[N, K]`, as linear layers of published checkpoints store
//! their weights. Sums are f32; a row's bits do not depend on the other rows of A.

pub mod reference;

mod bf16_products;
mod cost;
mod fp8_products;
mod launch;
pub mod plan;
mod variants;

use crate::dtype::{Element, bf16};
use plan::Output;

pub use bf16_products::{BatchedBf16Gemm, Bf16Gemm};
pub use fp8_products::{Fp8Gemm, GroupedFp8Gemm};
pub use variants::Tile;

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
