//! Matrix products: FP8 with block scales, the same for groups of rows, and bf16.
//!
//! All compute `out = A · Bᵀ` for row-major A `[M, K]` and B `[N, K]`, as linear layers of published checkpoints store
//! their weights. Sums are f32; a row's bits do not depend on the other rows of A.

pub mod reference;

mod bf16_products;
mod cost;
mod fp8_products;
mod gradient_products;
mod launch;
mod output;
pub mod plan;
mod product;
pub mod published;
mod swiglu_products;
mod variants;

use crate::dtype::{Element, bf16, f16};
use crate::tensor::Tensor;
use output::Out;
use plan::Output;

pub use bf16_products::{BatchedBf16Gemm, Bf16Gemm};
pub use fp8_products::{BatchedFp8Gemm, Fp8Gemm, GroupedFp8Gemm, MaskedFp8Gemm};
pub use gradient_products::{Fp8GradientGemm, KGroupedFp8Gemm};
pub use output::Fp8GemmOutput;
pub use product::PreparedGemm;
pub use swiglu_products::{Fp8GemmSwiglu, GroupedFp8GemmSwiglu, MaskedFp8GemmSwiglu};
pub use variants::Tile;

mod sealed {
    pub trait Sealed: Sized + crate::dtype::Element {
        const OUTPUT: super::Output;

        fn erase(tensor: &crate::Tensor<Self>) -> super::output::Out;
    }
}

/// The floats that products are written as, rounded to nearest even: [`bf16`], [`f16`](struct@crate::f16) or `f32`.
pub trait GemmOutput: Element + sealed::Sealed {}

macro_rules! outputs {
    ($($type:ty => $output:ident),+) => {$(
        impl sealed::Sealed for $type {
            const OUTPUT: Output = Output::$output;

            fn erase(tensor: &Tensor<Self>) -> Out {
                Out::$output(tensor.clone())
            }
        }
        impl GemmOutput for $type {}
    )+};
}
outputs!(f32 => F32, bf16 => Bf16, f16 => F16);
