//! Attention over the latent cache: inputs, the error that the kernel may make, properties and cases.
//!
//! Of the four oracles, the first applies to special inputs whose answers are exact ([`uniform_attention`],
//! [`one_hot_attention`]) and the third to all. The other two want a product of matrices alone.

mod cases;
mod decode;
mod exact;
mod fp8_cache;
pub mod indexer;
pub mod indexer_write;
mod inputs;
mod merge;
mod pages;
pub mod prefill;
pub mod properties;
pub mod sparse;
pub mod top_k;

pub(super) use cases::cases;
pub use decode::DecodeCheck;
pub use exact::{one_hot_attention, uniform_attention};
pub use fp8_cache::CachedAttention;
pub use inputs::{AttentionInputs, AttentionOutputs, Pieces};
pub use merge::MergeCheck;

use crate::dtype::bf16;

/// bf16 values as f32, exactly.
pub fn widened(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}
