//! Simulated memories. Every byte knows whether somebody wrote it.

pub(crate) mod bits;
pub(crate) mod global;
pub(crate) mod shared;
