//! What the matrix products should be, in f64, and how far a correct kernel may be off.
//!
//! Plain loops over the definition; nothing here is shared with the kernels or the planner.

mod gradient;
mod swiglu;

use std::ops::Range;

pub use gradient::{AnyFp8, GradientProduct, gradient};
pub use swiglu::{Activation, swiglu};

/// The exact result of each element, and the largest error that a correct kernel can make in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Row-major, in f64.
    pub values: Vec<f64>,
    /// The bound of |computed − value|, element by element.
    pub bounds: Vec<f64>,
}

/// The type that the kernel rounds its f32 sums to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// The sums themselves.
    F32,
    /// Nearest bf16.
    Bf16,
    /// Nearest f16.
    F16,
}

/// What becomes of the sums of an FP8 product `[m, n]`, in the order of the fields. Empty slices stand for nothing.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Their factor.
    pub alpha: f32,
    /// Factors of columns, `[n]`.
    pub column_scales: &'a [f32],
    /// Added to columns, `[n]`.
    pub bias: &'a [f32],
    /// Added, `[m, n]`.
    pub old: &'a [f32],
    /// Factors of rows, `[m]`.
    pub row_weights: &'a [f32],
}

impl Epilogue<'_> {
    /// The sums themselves.
    pub const NONE: Self = Self { alpha: 1.0, column_scales: &[], bias: &[], old: &[], row_weights: &[] };

    /// The exact value, and the bound of its error, of a sum of which the kernel's is within `error`. Each step rounds once.
    fn apply(&self, (mut value, mut error): (f64, f64), row: usize, column: usize, n: usize) -> (f64, f64) {
        if self.alpha != 1.0 {
            scale(&mut value, &mut error, self.alpha);
        }
        if let Some(factor) = self.column_scales.get(column) {
            scale(&mut value, &mut error, *factor);
        }
        for addend in [self.bias.get(column), self.old.get(row * n + column)].into_iter().flatten() {
            value += f64::from(*addend);
            error += UNIT_F32 * (value.abs() + error);
        }
        if let Some(factor) = self.row_weights.get(row) {
            scale(&mut value, &mut error, *factor);
        }
        (value, error)
    }
}

/// A multiplication that rounds to f32.
fn scale(value: &mut f64, error: &mut f64, factor: f32) {
    *value *= f64::from(factor);
    *error *= f64::from(factor).abs();
    *error += UNIT_F32 * (value.abs() + *error);
}

/// An FP8 product `[m, k]` × `[n, k]`ᵀ with 1×128 scales of `a` and 128×128 scales of `b`, everything row-major.
#[derive(Debug, Clone, Copy)]
pub struct Fp8Product<'a> {
    /// Values of A, `[m, k]`.
    pub a: &'a [AnyFp8],
    /// Scales of A, `[m, ceil(k / 128)]`.
    pub a_scales: &'a [f32],
    /// Values of B, `[n, k]`.
    pub b: &'a [AnyFp8],
    /// Scales of B, `[ceil(n / 128), ceil(k / 128)]`.
    pub b_scales: &'a [f32],
    /// Extents (m, n, k).
    pub extents: (usize, usize, usize),
}

/// How a tensor core adds: `k` products and the accumulator at a time, each cut to `fraction_bits` below the largest
/// exponent among them, the sum cut to `result_bits` of fraction.
struct TensorCore {
    k: usize,
    fraction_bits: i32,
    result_bits: i32,
}

const FP8: TensorCore = TensorCore { k: 32, fraction_bits: 13, result_bits: 13 };
const HALF: TensorCore = TensorCore { k: 16, fraction_bits: 25, result_bits: 23 };

const UNIT_F32: f64 = 1.0 / (1u64 << 24) as f64;
const UNIT_BF16: f64 = 1.0 / 256.0;
const UNIT_F16: f64 = 1.0 / 2048.0;
/// Half of the smallest positive f16.
const LEAST_F16: f64 = 1.0 / (1u64 << 25) as f64;

/// A factor of a product: its value, and the exponent that the tensor core aligns by.
#[derive(Clone, Copy)]
struct Factor {
    value: f64,
    exponent: i32,
}

/// No product has so small an exponent: stands for zero.
const NOTHING: i32 = -10_000;

/// The factor of a float with smallest exponent `least` (subnormals keep it).
fn factor(value: f64, least: i32) -> Factor {
    let exponent = if value == 0.0 { NOTHING } else { exponent(value).max(least) };
    Factor { value, exponent }
}

/// floor(log2(|x|)).
fn exponent(x: f64) -> i32 {
    if x == 0.0 || x.is_subnormal() {
        return NOTHING;
    }
    ((x.to_bits() >> 52) & 0x7FF) as i32 - 1023
}

fn power(exponent: i32) -> f64 {
    if exponent < -1022 { 0.0 } else { f64::from_bits(((exponent + 1023) as u64) << 52) }
}

impl TensorCore {
    /// The exact sum of products, its magnitude (the sum of absolute products), and a bound of the error of the
    /// tensor core's sum.
    fn dot(&self, a: &[Factor], b: &[Factor]) -> (f64, f64, f64) {
        let (mut sum, mut magnitude, mut error) = (0f64, 0f64, 0f64);
        for (a, b) in a.chunks(self.k).zip(b.chunks(self.k)) {
            // The accumulator that the hardware holds is within `error` of `sum`.
            let mut largest = exponent(sum.abs() + error);
            let mut terms = 1;
            for (a, b) in a.iter().zip(b) {
                let product = a.value * b.value;
                if product != 0.0 {
                    largest = largest.max(a.exponent + b.exponent);
                    terms += 1;
                }
                sum += product;
                magnitude += product.abs();
            }
            if largest <= NOTHING {
                continue;
            }
            error += f64::from(terms) * power(largest - self.fraction_bits);
            error += power(exponent(sum.abs() + error) - self.result_bits);
        }
        (sum, magnitude, error)
    }
}

impl Rounding {
    /// The error of rounding a value that is itself off by `error`.
    fn error(self, value: f64, error: f64) -> f64 {
        match self {
            Rounding::F32 => 0.0,
            Rounding::Bf16 => UNIT_BF16 * (value.abs() + error),
            Rounding::F16 => (UNIT_F16 * (value.abs() + error)).max(LEAST_F16),
        }
    }
}

/// The FP8 product and its bound.
pub fn fp8(product: &Fp8Product<'_>, rounding: Rounding) -> Expected {
    fp8_with(product, &Epilogue::NONE, rounding)
}

/// The FP8 product, what becomes of it, and the bound.
pub fn fp8_with(product: &Fp8Product<'_>, epilogue: &Epilogue<'_>, rounding: Rounding) -> Expected {
    let (m, n, k) = product.extents;
    let blocks = k.div_ceil(128);
    let decode = |values: &[AnyFp8]| -> Vec<Factor> { values.iter().map(|value| value.factor()).collect() };
    let (a, b) = (decode(product.a), decode(product.b));
    let mut expected = Expected { values: Vec::with_capacity(m * n), bounds: Vec::with_capacity(m * n) };
    for row in 0..m {
        for column in 0..n {
            let (mut value, mut magnitude, mut partial, mut error) = (0.0, 0.0, 0.0, 0.0);
            for block in 0..blocks {
                let range = block * 128..(block * 128 + 128).min(k);
                let scale = f64::from(product.a_scales[row * blocks + block])
                    * f64::from(product.b_scales[column / 128 * blocks + block]);
                let (a, b) = (&a[row * k..][range.clone()], &b[column * k..][range]);
                let (sum, absolute, off) = FP8.dot(a, b);
                value += scale * sum;
                magnitude += scale.abs() * absolute;
                partial += scale.abs() * (sum.abs() + off);
                error += scale.abs() * off;
            }
            // One rounding of each product of scales, and one of each fused multiply-add.
            error += UNIT_F32 * (blocks as f64 + 1.0) * partial + 2.0 * UNIT_F32 * magnitude;
            let (value, mut error) = epilogue.apply((value, error), row, column, n);
            error += rounding.error(value, error);
            expected.values.push(value);
            expected.bounds.push(error);
        }
    }
    expected
}

/// A product `[m, k]` × `[n, k]`ᵀ of 16-bit floats, everything row-major.
#[derive(Debug, Clone, Copy)]
pub struct HalfProduct<'a> {
    /// Values of A, `[m, k]`.
    pub a: &'a [f32],
    /// Values of B, `[n, k]`.
    pub b: &'a [f32],
    /// The exponent of the smallest normal number of their type: -126 of bf16, -14 of f16.
    pub least_exponent: i32,
    /// Parts of K that are summed apart; their sums are added one after the other.
    pub parts: &'a [Range<usize>],
    /// Extents (m, n, k).
    pub extents: (usize, usize, usize),
}

/// The product of 16-bit floats, what becomes of it, and the bound.
pub fn half_with(product: &HalfProduct<'_>, epilogue: &Epilogue<'_>, rounding: Rounding) -> Expected {
    let (m, n, k) = product.extents;
    let decode = |values: &[f32]| -> Vec<Factor> {
        values.iter().map(|value| factor(f64::from(*value), product.least_exponent)).collect()
    };
    let (a, b) = (decode(product.a), decode(product.b));
    let mut expected = Expected { values: Vec::with_capacity(m * n), bounds: Vec::with_capacity(m * n) };
    for row in 0..m {
        for column in 0..n {
            let (a, b) = (&a[row * k..][..k], &b[column * k..][..k]);
            let (mut value, mut error) = (0.0, 0.0);
            for (at, part) in product.parts.iter().enumerate() {
                let (sum, _, off) = HALF.dot(&a[part.clone()], &b[part.clone()]);
                value += sum;
                error += off;
                if at > 0 {
                    error += UNIT_F32 * (f64::abs(value) + error);
                }
            }
            let (value, mut error) = epilogue.apply((value, error), row, column, n);
            error += rounding.error(value, error);
            expected.values.push(value);
            expected.bounds.push(error);
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::E4m3;

    #[test]
    fn a_small_product_by_hand() {
        let value = |x: f32| AnyFp8::nearest(x, false);
        let a: Vec<_> = (0..256).map(|i| value(if i < 128 { 1.0 } else { 2.0 })).collect();
        let b = vec![value(0.5); 256];
        let product =
            Fp8Product { a: &a, a_scales: &[1.0, 4.0], b: &b, b_scales: &[2.0, 1.0], extents: (1, 1, 256) };
        let expected = fp8(&product, Rounding::F32);
        assert_eq!(expected.values, [64.0 * 2.0 + 128.0 * 4.0]);
        // Four steps of 34 terms, each cut at 2⁻¹³ of the largest, is the most that is ever lost.
        assert!(expected.bounds[0] > 0.0 && expected.bounds[0] < 0.0167 * 640.0);
    }

    #[test]
    fn the_bound_covers_a_cut_addend_and_no_more_than_a_few() {
        // 448·448 beside 2⁻⁹·2⁻⁹: the small product is lost entirely.
        let mut a = vec![AnyFp8::E4m3(E4m3::ZERO); 32];
        let mut b = a.clone();
        (a[0], b[0]) = (AnyFp8::E4m3(E4m3::MAX), AnyFp8::E4m3(E4m3::MAX));
        (a[1], b[1]) = (AnyFp8::E4m3(E4m3::MIN_POSITIVE), AnyFp8::E4m3(E4m3::MIN_POSITIVE));
        let product = Fp8Product { a: &a, a_scales: &[1.0], b: &b, b_scales: &[1.0], extents: (1, 1, 32) };
        let expected = fp8(&product, Rounding::F32);
        let lost = 2f64.powi(-18);
        assert!(expected.bounds[0] >= lost);
        assert!(expected.bounds[0] <= 5.0 * 2f64.powi(17 - 13));
    }

    #[test]
    fn zeros_are_exact() {
        let zero = [0.0; 16];
        let product = HalfProduct {
            a: &zero,
            b: &zero,
            least_exponent: -126,
            parts: std::slice::from_ref(&(0..16)),
            extents: (1, 1, 16),
        };
        let expected = half_with(&product, &Epilogue::NONE, Rounding::Bf16);
        assert_eq!((expected.values[0], expected.bounds[0]), (0.0, 0.0));
    }
}
