//! Hand-written CUDA kernels for low-precision mixture-of-experts inference, wrapped in safe Rust.
//!
//! A [`Device`] is a card, or the simulated card that runs the same kernels' PTX anywhere. [`Tensor`]s are typed
//! views of its memory; operations take them, check everything that the host can know, and launch on a [`Stream`].

pub mod card;
#[cfg(doctest)]
mod compile_fail;
pub mod device;
pub mod dtype;
pub mod error;
pub mod fp8;
pub mod gemm;
pub mod mla;
pub mod norm;
pub mod quant;
pub mod routing;
mod row_plan;
pub mod tensor;
mod validate;
pub mod verify;
pub mod vocab;

pub use card::Card;
pub use device::{Device, Graph, LaunchRecord, Status, Stream};
pub use dtype::{DType, E4m3, E5m2, Element, Ue8m0, bf16, f16};
pub use error::{Error, Result};
pub use fp8::{Fp8Blocks, Fp8Rows, ScaleLayout};
pub use tensor::Tensor;

/// The CUDA bindings that the crate's public types use.
#[cfg(feature = "cuda")]
pub use cudarc;
/// The simulated card by itself.
#[cfg(feature = "sim")]
pub use narrowgauge_sim as sim;
