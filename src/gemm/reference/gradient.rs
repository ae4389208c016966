//! Products with fine scales on both sides.

use super::{Expected, FP8, Factor, Rounding, UNIT_F32, factor};
use crate::{E4m3, E5m2};

/// A value of either 8-bit type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnyFp8 {
    /// Four bits of exponent.
    E4m3(E4m3),
    /// Five bits of exponent.
    E5m2(E5m2),
}

impl AnyFp8 {
    /// The nearest value of one of the types, ties to even.
    pub fn nearest(value: f32, e5m2: bool) -> Self {
        if e5m2 { Self::E5m2(E5m2::from_f32(value)) } else { Self::E4m3(E4m3::from_f32(value)) }
    }

    /// Other bits of the same type.
    pub fn with_bits(self, bits: u8) -> Self {
        match self {
            AnyFp8::E4m3(_) => AnyFp8::E4m3(E4m3::from_bits(bits)),
            AnyFp8::E5m2(_) => AnyFp8::E5m2(E5m2::from_bits(bits)),
        }
    }

    /// The exact value.
    pub fn to_f32(self) -> f32 {
        match self {
            AnyFp8::E4m3(value) => value.to_f32(),
            AnyFp8::E5m2(value) => value.to_f32(),
        }
    }

    /// The bits of the value.
    pub fn to_bits(self) -> u8 {
        match self {
            AnyFp8::E4m3(value) => value.to_bits(),
            AnyFp8::E5m2(value) => value.to_bits(),
        }
    }

    pub(super) fn factor(self) -> Factor {
        let least = match self {
            AnyFp8::E4m3(_) => -6,
            AnyFp8::E5m2(_) => -14,
        };
        factor(f64::from(self.to_f32()), least)
    }
}

/// A product `[m, k]` × `[n, k]`ᵀ with 1×128 scales on both sides, everything row-major, and what follows it.
///
/// In the kernel's order: each 128 of K by the tensor core; `sum = fma(that, a_scale · b_scale, sum)` with the product of
/// scales rounded to f32; `alpha · sum`; plus `old`; the output's type.
#[derive(Debug, Clone, Copy)]
pub struct GradientProduct<'a> {
    /// Values of A, `[m, k]`.
    pub a: &'a [AnyFp8],
    /// Scales of A, `[m, ceil(k / 128)]`.
    pub a_scales: &'a [f32],
    /// Values of B, `[n, k]`.
    pub b: &'a [AnyFp8],
    /// Scales of B, `[n, ceil(k / 128)]`.
    pub b_scales: &'a [f32],
    /// Extents (m, n, k).
    pub extents: (usize, usize, usize),
    /// Times the sum.
    pub alpha: f32,
    /// What the output held, `[m, n]`, where the product is added to it.
    pub old: Option<&'a [f32]>,
}

/// The product and its bound. Without K nothing is added to the old values.
pub fn gradient(product: &GradientProduct<'_>, rounding: Rounding) -> Expected {
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
                    * f64::from(product.b_scales[column * blocks + block]);
                let (sum, absolute, off) =
                    FP8.dot(&a[row * k..][range.clone()], &b[column * k..][range.clone()]);
                value += scale * sum;
                magnitude += scale.abs() * absolute;
                partial += scale.abs() * (sum.abs() + off);
                error += scale.abs() * off;
            }
            // One rounding of each product of scales, and one of each fused multiply-add.
            error += UNIT_F32 * (blocks as f64 + 1.0) * partial + 2.0 * UNIT_F32 * magnitude;
            if product.alpha != 1.0 {
                let alpha = f64::from(product.alpha);
                value *= alpha;
                error *= alpha.abs();
                error += UNIT_F32 * (value.abs() + error);
            }
            if let Some(old) = product.old {
                value += f64::from(old[row * n + column]);
                error += UNIT_F32 * (value.abs() + error);
            }
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

    #[test]
    fn a_small_product_by_hand() {
        let a: Vec<_> = (0..256).map(|i| AnyFp8::E5m2(E5m2::from_f32([1.0, 2.0][i / 128]))).collect();
        let b = vec![AnyFp8::E4m3(E4m3::from_f32(0.5)); 512];
        let product = GradientProduct {
            a: &a,
            a_scales: &[1.0, 4.0],
            b: &b,
            b_scales: &[2.0, 1.0, 0.5, 0.25],
            extents: (1, 2, 256),
            alpha: 2.0,
            old: Some(&[1.0, -3.0]),
        };
        let expected = gradient(&product, Rounding::F32);
        assert_eq!(expected.values, [1.0 + 2.0 * (128.0 + 512.0), -3.0 + 2.0 * (32.0 + 128.0)]);
        assert!(expected.bounds[0] > 0.0 && expected.bounds[0] < 0.034 * 640.0);
    }

    #[test]
    fn what_was_there_stays_without_k() {
        let product = GradientProduct {
            a: &[],
            a_scales: &[],
            b: &[],
            b_scales: &[],
            extents: (1, 1, 0),
            alpha: 0.5,
            old: Some(&[7.0]),
        };
        assert_eq!(gradient(&product, Rounding::Bf16).values, [7.0]);
    }
}
