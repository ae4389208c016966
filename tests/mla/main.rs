//! Multi-head latent attention on whatever device `NARROWGAUGE_DEVICE` names.

mod attention;
mod cache;
#[path = "../common/mod.rs"]
mod common;
mod decode;
mod indexer;
mod merge;
mod prefill;
mod properties;
mod sparse;
mod top_k;
