//! Multi-head latent attention: rotary embedding, the paged latent cache, attention over it (dense or over listed tokens),
//! attention with keys of each head for prompts, the merge of partial attentions, and the lightning indexer with its
//! selection.

mod attention;
mod attention_launch;
mod cache;
mod cache_gather;
mod cache_pages;
mod cache_write;
mod float;
mod half;
mod indexer;
mod indexer_write;
mod merge;
pub(crate) mod plan;
mod prefill;
pub mod reference;
mod rope;
mod sparse;
mod sparse_plan;
mod top_k;

pub use attention::Attention;
pub use cache::{CacheLayout, LatentCache};
pub use cache_gather::CacheGather;
pub use cache_pages::{CachePageCopy, CachePageSwap};
pub use cache_write::CacheWrite;
pub use float::Float;
pub use half::Half;
pub use indexer::{IndexerLogits, IndexerPages, PagedIndexerLogits};
pub use indexer_write::IndexerWrite;
pub use merge::Merge;
pub use prefill::Prefill;
pub use rope::{Rope, RopeParameters, RopeTables, Yarn};
pub use sparse::SparseAttention;
pub use top_k::TopK;
