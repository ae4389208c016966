//! The second oracle: Hopper's tensor core bit for bit, as it is modelled, in integers.
//!
//! One instruction step adds `depth` products and the accumulator at once. All terms are aligned to the largest exponent
//! among them (of products not yet normalised, of subnormals the least exponent, of zeros -126), cut toward zero to some
//! bits behind the point, added exactly, and the sum is cut to the accumulator's bits. Model: MMA-Sim, arXiv 2511.10909.
//!
//! Nothing is shared with the simulated card, whose own model a test compares with this one.

use crate::dtype::{E4m3, E5m2, bf16, f16};
use crate::gemm::reference::{AnyFp8, Epilogue, Fp8Product, GradientProduct};
use std::ops::Range;

/// How a kind of tensor instruction adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorCore {
    pub(super) depth: usize,
    pub(super) aligned_bits: i32,
    pub(super) kept_bits: i32,
}

/// A float in integers: `digits · 2^(exponent - fraction)`.
#[derive(Debug, Clone, Copy)]
pub struct Digits {
    digits: i64,
    exponent: i32,
    fraction: i32,
}

/// What the tensor core multiplies.
pub trait Operand: Copy {
    /// The value as the tensor core takes it apart; `None` for infinities and NaN.
    fn digits(self) -> Option<Digits>;
    /// The value.
    fn value(self) -> f32;
}

/// The exponent that zeros are aligned by.
const OF_ZERO: i32 = -126;

fn digits(negative: bool, biased: i32, mantissa: i64, fraction: i32, bias: i32) -> Digits {
    let magnitude = if biased == 0 { mantissa } else { mantissa | 1 << fraction };
    let exponent = if magnitude == 0 { OF_ZERO } else { biased.max(1) - bias };
    Digits { digits: if negative { -magnitude } else { magnitude }, exponent, fraction }
}

impl Operand for E4m3 {
    fn digits(self) -> Option<Digits> {
        let bits = i32::from(self.to_bits());
        (!self.is_nan()).then(|| digits(bits & 0x80 != 0, bits >> 3 & 15, i64::from(bits & 7), 3, 7))
    }

    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Operand for E5m2 {
    fn digits(self) -> Option<Digits> {
        let bits = i32::from(self.to_bits());
        self.is_finite().then(|| digits(bits & 0x80 != 0, bits >> 2 & 31, i64::from(bits & 3), 2, 15))
    }

    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Operand for AnyFp8 {
    fn digits(self) -> Option<Digits> {
        match self {
            AnyFp8::E4m3(value) => value.digits(),
            AnyFp8::E5m2(value) => value.digits(),
        }
    }

    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Operand for bf16 {
    fn digits(self) -> Option<Digits> {
        let bits = i32::from(self.to_bits());
        self.is_finite().then(|| digits(bits & 0x8000 != 0, bits >> 7 & 255, i64::from(bits & 127), 7, 127))
    }

    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Operand for f16 {
    fn digits(self) -> Option<Digits> {
        let bits = i32::from(self.to_bits());
        self.is_finite().then(|| digits(bits & 0x8000 != 0, bits >> 10 & 31, i64::from(bits & 1023), 10, 15))
    }

    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Operand for f32 {
    fn digits(self) -> Option<Digits> {
        let bits = self.to_bits();
        let mantissa = i64::from(bits & 0x007F_FFFF);
        self.is_finite().then(|| digits(bits >> 31 == 1, (bits >> 23 & 255) as i32, mantissa, 23, 127))
    }

    fn value(self) -> f32 {
        self
    }
}

impl Digits {
    fn times(self, other: Digits) -> Digits {
        let digits = self.digits * other.digits;
        let exponent = if digits == 0 { OF_ZERO } else { self.exponent + other.exponent };
        Digits { digits, exponent, fraction: self.fraction + other.fraction }
    }

    /// The power of two that the value is aligned by; 0 for zero.
    pub(super) fn peak(self) -> f64 {
        if self.digits == 0 { 0.0 } else { 2f64.powi(self.exponent) }
    }

    /// The value in units of `2^unit`, cut toward zero.
    fn cut(self, unit: i32) -> i64 {
        match self.exponent - self.fraction - unit {
            shift @ 0.. => self.digits << shift,
            shift @ -62.. => self.digits / (1 << -shift),
            _ => 0,
        }
    }
}

impl TensorCore {
    /// `wgmma` of FP8: 32 products, 13 bits behind the point, sums of 13 bits.
    pub const FP8: Self = Self { depth: 32, aligned_bits: 13, kept_bits: 13 };
    /// `wgmma` of bf16 or f16: 16 products, 25 bits behind the point, sums cut to f32.
    pub const HALF: Self = Self { depth: 16, aligned_bits: 25, kept_bits: 23 };

    /// `accumulator + Σ a·b`, one instruction after the other.
    pub fn dot<T: Operand>(&self, accumulator: f32, a: &[T], b: &[T]) -> f32 {
        let steps = a.chunks(self.depth).zip(b.chunks(self.depth));
        steps.fold(accumulator, |sum, (a, b)| self.step(sum, a, b))
    }

    /// One instruction.
    fn step<T: Operand>(&self, accumulator: f32, a: &[T], b: &[T]) -> f32 {
        let Some(terms) = terms(accumulator, a, b) else {
            let sum = a.iter().zip(b).fold(f64::from(accumulator), |sum, (a, b)| {
                sum + f64::from(a.value()) * f64::from(b.value())
            });
            return if sum.is_nan() { f32::from_bits(0x7FFF_FFFF) } else { sum as f32 };
        };
        let largest = terms.iter().map(|term| term.exponent).max().unwrap_or(OF_ZERO);
        let unit = largest - self.aligned_bits;
        let sum: i64 = terms.iter().map(|term| term.cut(unit)).sum();
        self.normalised(sum, unit)
    }

    /// `sum · 2^unit`, cut toward zero to the bits that an accumulator keeps.
    fn normalised(&self, sum: i64, unit: i32) -> f32 {
        let length = 64 - sum.unsigned_abs().leading_zeros() as i32;
        let least = OF_ZERO - self.kept_bits - unit;
        let excess = (length - 1 - self.kept_bits).max(least).clamp(0, 62);
        let kept = sum / (1 << excess) * (1 << excess);
        // At most 24 bits, so that the product is exact; an overflow becomes an infinity.
        (kept as f64 * 2f64.powi(unit)) as f32
    }
}

/// The terms of one instruction; `None` if any is infinite or NaN.
fn terms<T: Operand>(accumulator: f32, a: &[T], b: &[T]) -> Option<Vec<Digits>> {
    let products = a.iter().zip(b).map(|(a, b)| Some(a.digits()?.times(b.digits()?)));
    products.chain([accumulator.digits()]).collect()
}

/// One element of an FP8 product in the order of the kernel's operations: every 128 of K is summed by the tensor core, then
/// scaled and added in f32.
pub fn fp8_element(product: &Fp8Product<'_>, row: usize, column: usize) -> f32 {
    let (_, _, k) = product.extents;
    let blocks = k.div_ceil(128);
    let (a, b) = (&product.a[row * k..][..k], &product.b[column * k..][..k]);
    a.chunks(128).zip(b.chunks(128)).enumerate().fold(0f32, |total, (block, (a, b))| {
        let scale = product.a_scales[row * blocks + block] * product.b_scales[column / 128 * blocks + block];
        TensorCore::FP8.dot(0.0, a, b).mul_add(scale, total)
    })
}

/// What becomes of a sum, in the order of the kernel's operations, each rounded to f32.
pub fn fp8_finish(sum: f32, epilogue: &Epilogue<'_>, (row, column): (usize, usize), n: usize) -> f32 {
    let scaled = if epilogue.alpha == 1.0 { sum } else { sum * epilogue.alpha };
    let scaled = epilogue.column_scales.get(column).map_or(scaled, |scale| scaled * scale);
    let biased = epilogue.bias.get(column).map_or(scaled, |bias| scaled + bias);
    let added = epilogue.old.get(row * n + column).map_or(biased, |old| biased + old);
    epilogue.row_weights.get(row).map_or(added, |weight| added * weight)
}

/// One element of a product with fine scales on both sides, before it is rounded to the output's type.
pub fn gradient_element(product: &GradientProduct<'_>, row: usize, column: usize) -> f32 {
    let (_, n, k) = product.extents;
    let blocks = k.div_ceil(128);
    let (a, b) = (&product.a[row * k..][..k], &product.b[column * k..][..k]);
    let sum = a.chunks(128).zip(b.chunks(128)).enumerate().fold(0f32, |total, (block, (a, b))| {
        let scale = product.a_scales[row * blocks + block] * product.b_scales[column * blocks + block];
        TensorCore::FP8.dot(0.0, a, b).mul_add(scale, total)
    });
    match product.old {
        None => sum * product.alpha,
        Some(old) if k == 0 => old[row * n + column],
        Some(old) => sum * product.alpha + old[row * n + column],
    }
}

/// One element of a product of 16-bit floats, of which these are the row of A and the row of B: the sums of each of
/// `parts`, added one after the other.
pub fn half_element<T: Operand>(a: &[T], b: &[T], parts: &[Range<usize>]) -> f32 {
    let sums = parts.iter().map(|part| TensorCore::HALF.dot(0.0, &a[part.clone()], &b[part.clone()]));
    sums.reduce(|total, sum| total + sum).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Source;

    #[test]
    fn what_lies_too_low_is_cut() {
        let (mut a, mut b) = ([E4m3::ZERO; 32], [E4m3::ZERO; 32]);
        (a[0], b[0]) = (E4m3::from_f32(16.0), E4m3::from_f32(16.0));
        (a[1], b[1]) = (E4m3::from_f32(0.25), E4m3::from_f32(0.125));
        // 2^8 has its last bit at 2^-5.
        assert_eq!(TensorCore::FP8.dot(0.0, &a, &b), 256.03125);
        b[1] = E4m3::from_f32(0.0625);
        assert_eq!(TensorCore::FP8.dot(0.0, &a, &b), 256.0);
        a[1] = E4m3::from_f32(-0.25);
        assert_eq!(TensorCore::FP8.dot(0.0, &a, &b), 256.0, "toward zero, of both signs");
    }

    #[test]
    fn integers_of_eleven_are_exact_and_of_twelve_are_not() {
        let eleven = vec![E4m3::from_f32(11.0); 128];
        assert_eq!(TensorCore::FP8.dot(0.0, &eleven, &eleven), 15_488.0);
        let mut odd = vec![E4m3::from_f32(15.0); 128];
        let last = vec![E4m3::from_f32(15.0); 128];
        odd[127] = E4m3::ONE;
        assert!(TensorCore::FP8.dot(0.0, &odd, &last) < 127.0 * 225.0 + 15.0);
    }

    #[test]
    fn nan_and_infinities_come_through() {
        assert!(TensorCore::FP8.dot(0.0, &[E4m3::NAN], &[E4m3::ZERO]).is_nan());
        assert_eq!(TensorCore::HALF.dot(0.0, &[bf16::INFINITY], &[bf16::ONE]), f32::INFINITY);
        assert!(TensorCore::HALF.dot(0.0, &[bf16::INFINITY], &[bf16::ZERO]).is_nan());
    }

    /// Two programs of the same model, written apart.
    #[cfg(feature = "sim")]
    #[test]
    fn the_simulated_card_has_the_same_model() {
        use narrowgauge_sim::tensor_core::{Arithmetic, Format, fused_sum};
        let mut source = Source::new(31);
        for round in 0..20_000 {
            let spread = round % 40;
            let accumulator = source.normal() * source.integer(-spread, spread).exp2();
            let fp8: Vec<E4m3> = (0..64).map(|_| E4m3::from_bits(source.bits() as u8 & 0xBF)).collect();
            let accumulator13 = f32::from_bits(accumulator.to_bits() & 0xFFFF_FC00);
            let values: Vec<f32> = fp8.iter().map(|x| x.to_f32()).collect();
            let (a, b) = values.split_at(32);
            let want = fused_sum(accumulator13, a, Format::E4m3, b, Format::E4m3, Arithmetic::Truncated13);
            let got = TensorCore::FP8.dot(accumulator13, &fp8[..32], &fp8[32..]);
            assert_eq!(got.to_bits(), want.to_bits(), "{accumulator13:e} + {a:?} · {b:?}");

            let wide: Vec<AnyFp8> = (0..64)
                .map(|i| match (round & 3, i / 32) {
                    (0 | 1, 0) | (1 | 2, 1) => AnyFp8::E5m2(E5m2::from_bits(source.bits() as u8 & 0xBB)),
                    _ => AnyFp8::E4m3(E4m3::from_bits(source.bits() as u8 & 0xBF)),
                })
                .collect();
            let values: Vec<f32> = wide.iter().map(|x| x.to_f32()).collect();
            let format = |value: AnyFp8| match value {
                AnyFp8::E4m3(_) => Format::E4m3,
                AnyFp8::E5m2(_) => Format::E5m2,
            };
            let ((a, b), kinds) = (values.split_at(32), (format(wide[0]), format(wide[32])));
            let want = fused_sum(accumulator13, a, kinds.0, b, kinds.1, Arithmetic::Truncated13);
            let got = TensorCore::FP8.dot(accumulator13, &wide[..32], &wide[32..]);
            assert_eq!(got.to_bits(), want.to_bits(), "{accumulator13:e} + {a:?} · {b:?}, {kinds:?}");

            let mut half =
                || bf16::from_f32(source.normal() * source.integer(-3 * spread, 2 * spread).exp2());
            let halves: Vec<bf16> = (0..32).map(|_| half()).collect();
            let values: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
            let (a, b) = values.split_at(16);
            let want = fused_sum(accumulator, a, Format::Bf16, b, Format::Bf16, Arithmetic::Truncated25);
            let got = TensorCore::HALF.dot(accumulator, &halves[..16], &halves[16..]);
            assert_eq!(got.to_bits(), want.to_bits(), "{accumulator:e} + {a:?} · {b:?}");

            let narrow: Vec<f16> = values.iter().map(|x| f16::from_f32(x.clamp(-6e4, 6e4))).collect();
            let values: Vec<f32> = narrow.iter().map(|x| x.to_f32()).collect();
            let (a, b) = values.split_at(16);
            let want = fused_sum(accumulator, a, Format::F16, b, Format::F16, Arithmetic::Truncated25);
            let got = TensorCore::HALF.dot(accumulator, &narrow[..16], &narrow[16..]);
            assert_eq!(got.to_bits(), want.to_bits(), "{accumulator:e} + {a:?} · {b:?}");
        }
    }
}
