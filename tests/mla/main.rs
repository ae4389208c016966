//! Multi-head latent attention on whatever device `NARROWGAUGE_DEVICE` names.

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod properties;
