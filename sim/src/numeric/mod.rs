//! Conversions between the narrow floating-point formats and `f32`, bit for bit as `cvt` makes them.

mod double;
mod fp8;
mod half;
mod rounding;

pub use double::{add_f64, div_f64, fma_f64, mul_f64, sqrt_f64};
pub use fp8::{
    e4m3_from_f32, e4m3_from_f32_unsaturated, e4m3_to_f32, e5m2_from_f32, e5m2_from_f32_unsaturated,
    e5m2_to_f32,
};
pub use half::{
    bf16_from_f32, bf16_from_f32_rz, bf16_to_f32, f16_from_f32, f16_from_f32_rz, f16_from_f32_satfinite,
    f16_to_f32,
};

pub use rounding::{
    Round, bf16_rounded, f16_rounded, f32_rounded, integer_to_odd, sum_to_odd, tf32_rounded, to_odd,
};

/// Exponent and fraction code of a magnitude in a format with `fraction` fraction bits whose smallest
/// normal exponent is `least`, rounded to nearest even (`NEAREST`) or toward zero. The code may lie past the
/// format's largest finite value; the caller saturates.
fn magnitude_code<const NEAREST: bool>(bits: u32, fraction: u32, least: i32) -> u32 {
    let shift = 23 - fraction;
    let exponent = (bits >> 23) as i32 - 127;
    if exponent >= least {
        let rebased = bits - (((least - 1 + 127) as u32) << 23);
        if NEAREST {
            (rebased + ((1 << (shift - 1)) - 1) + ((rebased >> shift) & 1)) >> shift
        } else {
            rebased >> shift
        }
    } else {
        // A power of two times a smaller number: exact in f64, one unit is the subnormal step.
        let steps = f64::from(f32::from_bits(bits)) * 2f64.powi(fraction as i32 - least);
        if NEAREST { steps.round_ties_even() as u32 } else { steps as u32 }
    }
}
