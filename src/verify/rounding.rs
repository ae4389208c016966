//! The roundings that bounds are made of.

use super::gemm::Checked;
use crate::gemm::reference::Rounding;

/// The largest relative error of one operation in f32.
pub(super) const F32: f64 = 1.0 / (1u64 << 24) as f64;
/// The same of bf16.
pub(super) const BF16: f64 = 1.0 / 256.0;
/// The same of f16.
pub(super) const F16: f64 = 1.0 / 2048.0;
/// Half of the smallest spacing of f16.
pub(super) const LEAST_F16: f64 = 1.0 / (1u64 << 25) as f64;
/// A tensor instruction of 16 products of 16-bit floats aligns its 17 terms to the largest, cuts them to 25 fractional bits,
/// and rounds to f32 toward zero: the error as a share of the terms' magnitudes.
pub(super) const TENSOR: f64 = 17.0 / (1 << 25) as f64 + 1.0 / (1 << 23) as f64;

/// The largest relative rounding of a type, and half of its smallest spacing where tests come near it.
pub(super) fn of<T: Checked>() -> (f64, f64) {
    match T::ROUNDING {
        Rounding::F32 => (F32, 0.0),
        Rounding::Bf16 => (BF16, 0.0),
        Rounding::F16 => (F16, LEAST_F16),
    }
}
