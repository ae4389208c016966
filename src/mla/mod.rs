//! Multi-head latent attention: rotary embedding, the paged latent cache, and attention over it.

mod attention;
mod cache;
mod cache_write;
mod half;
pub mod plan;
pub mod reference;
mod rope;
mod top_k;

pub use attention::Attention;
pub use cache::{CacheLayout, LatentCache};
pub use cache_write::CacheWrite;
pub use half::Half;
pub use rope::{Rope, RopeParameters, RopeTables, Yarn};
pub use top_k::TopK;
