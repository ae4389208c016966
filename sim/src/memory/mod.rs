//! Simulated memories. Every byte knows whether somebody wrote it.

pub(crate) mod bits;
pub(crate) mod global;
pub(crate) mod shared;

/// Generic address of shared address 0. The windows lie above every global allocation.
pub(crate) const SHARED_WINDOW: u64 = 0x7000_0000_0000;
/// Generic address of local offset 0.
pub(crate) const LOCAL_WINDOW: u64 = 0x7100_0000_0000;
/// Generic address of parameter offset 0.
pub(crate) const PARAM_WINDOW: u64 = 0x7200_0000_0000;
