//! Matrix products: FP8 with scales, and 16-bit floats; one matrix of weights, or one for each group of rows.
//!
//! All compute `out = A · Bᵀ` for A `[M, K]` and B `[N, K]`, as linear layers of published checkpoints store their
//! weights; 16-bit operands may be transposed views. Sums are f32; a row's bits do not depend on what other
//! rows hold.
//!
//! # FP8 matrices whose K is not their last dimension
//!
//! Hopper's tensor core takes FP8 with K adjacent and no other way, so A `[K, M]` or B `[K, N]` is
//! [transposed](transposed_fp8) first. Weights once, when they are loaded. Scales are not moved: their view is.
//!
//! ```no_run
//! use narrowgauge::gemm::{Fp8Gemm, transposed_fp8};
//! use narrowgauge::{Card, Device, E4m3, Fp8Blocks, Fp8Rows, bf16};
//!
//! # fn main() -> narrowgauge::Result<()> {
//! let (device, m, n, k) = (Device::simulated(Card::H20)?, 64, 576, 512);
//! let stream = device.stream();
//! // B [K, N] with a scale for each 128×128: NN.
//! let (b, b_scales) = (device.zeros::<E4m3>(&[k, n])?, device.zeros::<f32>(&[k / 128, n.div_ceil(128)])?);
//! let b = Fp8Blocks::new(transposed_fp8(&b, &stream)?, b_scales.transpose(0, 1)?)?;
//! // A [K, M] with a scale for each column and 128 of K: TN, and with B from above TT in BLAS's words.
//! let (a, a_scales) = (device.zeros::<E4m3>(&[k, m])?, device.zeros::<f32>(&[k / 128, m])?);
//! let a = Fp8Rows::new(transposed_fp8(&a, &stream)?, a_scales.transpose(0, 1)?)?;
//! let out = device.zeros::<bf16>(&[m, n])?;
//! Fp8Gemm::new(&a, &b, &out).launch(&stream)
//! # }
//! ```
//!
//! # Weight absorption of latent attention
//!
//! Both products are [`BatchedFp8Gemm`], a head each, over weights `[H, D, R]` with 128×128 scales: `bhr,hdr->bhd` takes
//! them as they are, `bhd,hdr->bhr` transposed, data by a launch and scales as a view. Activations are `[B, H, ..]`
//! in memory, with the head as the first dimension of a view.
//!
//! ```no_run
//! use narrowgauge::gemm::{BatchedFp8Gemm, transposed_fp8};
//! use narrowgauge::{Card, Device, E4m3, Fp8Blocks, Fp8Rows, bf16};
//!
//! # fn main() -> narrowgauge::Result<()> {
//! let (device, b, h, d, r) = (Device::simulated(Card::H20)?, 4, 16, 128, 512);
//! let stream = device.stream();
//! let (data, scales) = (device.zeros::<E4m3>(&[h, d, r])?, device.zeros::<f32>(&[h, d / 128, r / 128])?);
//! let heads = |width: usize| -> narrowgauge::Result<Fp8Rows> {
//!     let (data, scales) = (device.zeros::<E4m3>(&[b, h, width])?, device.zeros(&[b, h, width / 128])?);
//!     Fp8Rows::new(data.transpose(0, 1)?, scales.transpose(0, 1)?)
//! };
//! // bhr,hdr->bhd
//! let weights = Fp8Blocks::new(data.clone(), scales.clone())?;
//! let out = device.zeros::<bf16>(&[b, h, d])?;
//! BatchedFp8Gemm::new(&heads(r)?, &weights, &out.transpose(0, 1)?).launch(&stream)?;
//! // bhd,hdr->bhr
//! let weights = Fp8Blocks::new(transposed_fp8(&data, &stream)?, scales.transpose(1, 2)?)?;
//! let out = device.zeros::<bf16>(&[b, h, r])?;
//! BatchedFp8Gemm::new(&heads(d)?, &weights, &out.transpose(0, 1)?).launch(&stream)
//! # }
//! ```

pub mod reference;

mod cost;
mod fp8_products;
mod gather;
mod gradient_products;
mod half_operand;
mod half_product;
mod half_products;
mod launch;
mod options;
mod output;
pub mod plan;
mod product;
pub mod published;
mod swiglu_products;
mod transpose;
mod variants;

use crate::dtype::{Element, bf16, f16};
use crate::tensor::Tensor;
use output::Out;
use plan::Output;

pub use fp8_products::{BatchedFp8Gemm, Fp8Gemm, GroupedFp8Gemm, MaskedFp8Gemm};
pub use gradient_products::{Fp8GradientGemm, KGroupedFp8Gemm};
pub use half_operand::Half;
pub use half_products::{BatchedHalfGemm, GroupedHalfGemm, HalfGemm, MaskedHalfGemm};
pub use output::Fp8GemmOutput;
pub use product::PreparedGemm;
pub use swiglu_products::{Fp8GemmSwiglu, GroupedFp8GemmSwiglu, MaskedFp8GemmSwiglu};
pub use transpose::{TransposeFp8, transposed_fp8};
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
