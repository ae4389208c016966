//! One register of a warp.

/// 32-bit register: one value per lane.
pub type Row = [u32; 32];

/// 64-bit register: one value per lane.
pub type Row64 = [u64; 32];
