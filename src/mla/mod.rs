//! Multi-head latent attention: rotary embedding, the paged latent cache, and attention over it.

mod attention;
mod cache;
pub mod plan;
pub mod reference;
mod rope;

pub use attention::Attention;
pub use cache::{CacheWrite, LatentCache};
pub use rope::{Rope, RopeParameters, RopeTables, Yarn};
