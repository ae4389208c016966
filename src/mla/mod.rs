//! Multi-head latent attention: rotary embedding, the paged latent cache, and attention over it.

pub mod plan;
pub mod reference;
