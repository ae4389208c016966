//! One output at a time, for every case that the fast loop leaves out.

use super::{Arithmetic, Format};
use crate::numeric;

/// Significand with 23 fraction bits and exponent, not normalised below `least`.
fn split(value: f32, least: i32) -> (u64, i32) {
    let bits = value.to_bits();
    let digits = u64::from(bits & 0x007f_ffff);
    let (digits, exponent) = match bits >> 23 & 255 {
        0 => (digits, -126),
        biased => (digits | 1 << 23, biased as i32 - 127),
    };
    if exponent < least { (digits >> (least - exponent).min(63), least) } else { (digits, exponent) }
}

/// The sum as an integer and its power of two; or what it is when it is not finite.
fn aligned(
    (c, c_least): (f32, i32),
    (a, a_least): (&[f32], i32),
    (b, b_least): (&[f32], i32),
    bits: i32,
) -> Result<(i64, i32), f32> {
    let pairs = || a.iter().zip(b);
    let exceptional = pairs().fold(f64::from(c), |sum, (a, b)| sum + f64::from(*a) * f64::from(*b));
    if exceptional.is_nan() {
        return Err(f32::from_bits(0x7fff_ffff));
    }
    if exceptional.is_infinite() {
        return Err(exceptional as f32);
    }
    let product = |a: f32, b: f32| {
        let (digits_a, exponent_a) = split(a, a_least);
        let (digits_b, exponent_b) = split(b, b_least);
        let exponent = if a == 0.0 || b == 0.0 { -126 } else { exponent_a + exponent_b };
        (digits_a * digits_b, exponent, a.is_sign_negative() != b.is_sign_negative())
    };
    let (digits_c, exponent_c) = split(c, c_least);
    let exponent_c = if c == 0.0 { -126 } else { exponent_c };
    let largest = pairs().map(|(a, b)| product(*a, *b).1).fold(exponent_c, i32::max);
    // Products carry 46 fraction bits, C carries 23.
    let term = |digits: u64, fraction: i32, exponent: i32, negative: bool| {
        let shift = fraction - bits + largest - exponent;
        let magnitude = match shift {
            64.. => 0,
            0.. => digits >> shift,
            _ => digits << -shift,
        } as i64;
        if negative { -magnitude } else { magnitude }
    };
    let sum = pairs().fold(term(digits_c, 23, exponent_c, c.is_sign_negative()), |sum, (a, b)| {
        let (digits, exponent, negative) = product(*a, *b);
        sum + term(digits, 46, exponent, negative)
    });
    Ok((sum, largest - bits))
}

/// `c + Σ a[i]·b[i]` as the tensor core sums it. The elements are exact values of their formats.
pub fn fused_sum(
    c: f32,
    a: &[f32],
    a_format: Format,
    b: &[f32],
    b_format: Format,
    arithmetic: Arithmetic,
) -> f32 {
    let bits = match arithmetic {
        Arithmetic::ExactF32 => return a.iter().zip(b).fold(c, |sum, (a, b)| sum + a * b),
        Arithmetic::Truncated13 => 13,
        Arithmetic::Truncated24 => 24,
        Arithmetic::Truncated25 => 25,
    };
    let (a, b) = ((a, a_format.least_exponent()), (b, b_format.least_exponent()));
    match aligned((c, -126), a, b, bits) {
        Ok((sum, power)) => truncate(sum, power, if bits == 13 { 13 } else { 23 }),
        Err(value) => value,
    }
}

/// The same with an f16 accumulator: aligned and truncated terms, and the sum rounded to the nearest f16.
pub fn fused_sum_f16(
    c: u16,
    a: &[f32],
    a_format: Format,
    b: &[f32],
    b_format: Format,
    arithmetic: Arithmetic,
) -> u16 {
    let bits = match arithmetic {
        Arithmetic::Truncated13 => 13,
        Arithmetic::Truncated24 => 24,
        Arithmetic::Truncated25 => 25,
        // Nothing that f16 operands and their sum can hold is lost.
        Arithmetic::ExactF32 => 40,
    };
    let (a, b) = ((a, a_format.least_exponent()), (b, b_format.least_exponent()));
    match aligned((numeric::f16_to_f32(c), -14), a, b, bits) {
        Ok((sum, power)) => numeric::f16_from_f32(to_odd(sum, power)),
        Err(value) => numeric::f16_from_f32(value),
    }
}

/// `sum · 2^power` as an f32 that rounds to the same shorter number: inexact results have an odd last bit.
fn to_odd(sum: i64, power: i32) -> f32 {
    let magnitude = sum.unsigned_abs();
    let surplus = (64 - magnitude.leading_zeros() as i32 - 24).max(0);
    let digits = magnitude >> surplus;
    let sticky = u64::from(digits << surplus != magnitude);
    // At most 24 significant bits, and exponents that f32 has: products of halves stay above 2^-90.
    let value = ((digits | sticky) as f64 * 2f64.powi(power + surplus)) as f32;
    if sum < 0 { -value } else { value }
}

/// `sum · 2^power` truncated to a float with `fraction` fraction bits.
fn truncate(sum: i64, power: i32, fraction: i32) -> f32 {
    if sum == 0 {
        return 0.0;
    }
    let magnitude = sum.unsigned_abs();
    let exponent = (63 - magnitude.leading_zeros() as i32 + power).max(-126);
    let step = exponent - fraction;
    let digits =
        if power >= step { magnitude << (power - step) } else { magnitude >> (step - power).min(63) };
    // At most 24 significant bits, so both the product and the conversion are exact (or overflow to infinity).
    let value = (digits as f64 * 2f64.powi(step)) as f32;
    if sum < 0 { -value } else { value }
}
