//! The fast loops: eight or more outputs of one row at a time.
//!
//! A term truncated to `BITS` fractional bits at the largest exponent e is the integer part of
//! `a·b·2^(BITS-e)`. All three factors and the products are exact in f32 where it matters, and the conversion to
//! an integer truncates toward zero, so three vector operations make the aligned term.

use super::largest::largest;
use super::operand::{BIAS, Decoded, Exponents, NARROW, WIDE};
use super::{Arithmetic, Left, Right, fused_sum};
use crate::row::Row;

/// Below this exponent the scale would leave f32's range; such outputs (all terms under 2^-90) go the slow way.
const FLOOR: i32 = -90;

pub(super) fn run(left: &Left, right: &Right, d: &mut [&mut [Row]], arithmetic: Arithmetic) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, the only feature that the function needs beyond the baseline.
        return unsafe { run_avx2(left, right, d, arithmetic) };
    }
    run_baseline(left, right, d, arithmetic);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(left: &Left, right: &Right, d: &mut [&mut [Row]], arithmetic: Arithmetic) {
    dispatch(&left.decoded, &right.decoded, d, arithmetic);
}

/// What every processor of the target can do.
pub(super) fn run_baseline(left: &Left, right: &Right, d: &mut [&mut [Row]], arithmetic: Arithmetic) {
    dispatch(&left.decoded, &right.decoded, d, arithmetic);
}

#[inline(always)]
fn dispatch(a: &Decoded, b: &Decoded, d: &mut [&mut [Row]], arithmetic: Arithmetic) {
    // Products must stay finite in f32: a·b < 4·2^(ea+eb).
    let tame = a.finite && b.finite && a.largest + b.largest <= 125;
    let slow = |row: usize, column: usize, c: f32| slow_output(a, b, row, column, c, arithmetic);
    match (&a.exponents, &b.exponents, arithmetic) {
        (Exponents::Bytes(_), _, Arithmetic::ExactF32) => all::<32>(a, b, d, Exact, slow),
        (_, _, Arithmetic::ExactF32) => all::<16>(a, b, d, Exact, slow),
        (Exponents::Bytes(ea), Exponents::Bytes(eb), Arithmetic::Truncated13) if tame => {
            all::<32>(a, b, d, Thirteen { a: ea, b: eb }, slow)
        }
        (Exponents::Words(ea), Exponents::Words(eb), Arithmetic::Truncated25) if tame => {
            all::<16>(a, b, d, TwentyFive { a: ea, b: eb }, slow)
        }
        (Exponents::Bytes(_), _, _) => all::<32>(a, b, d, Never, slow),
        _ => all::<16>(a, b, d, Never, slow),
    }
}

/// One output by the scalar model.
#[cold]
#[inline(never)]
fn slow_output(a: &Decoded, b: &Decoded, row: usize, column: usize, c: f32, arithmetic: Arithmetic) -> f32 {
    let depth = a.format.depth();
    let (start, step) = Right::place(column, b.values.len() / depth, depth);
    let mut values = [0f32; 32];
    for (k, value) in values[..depth].iter_mut().enumerate() {
        *value = b.values[start + k * step];
    }
    fused_sum(c, &a.values[row * depth..][..depth], a.format, &values[..depth], b.format, arithmetic)
}

/// A way to sum one row of a block; false when some output must be made by the scalar model.
trait Summation: Copy {
    fn row<const W: usize, const K: usize>(
        self,
        a: (&[f32; K], usize),
        b: (&[[f32; W]], usize),
        c: &mut [f32; W],
    ) -> bool;
}

#[inline(always)]
fn all<const K: usize>(
    a: &Decoded,
    b: &Decoded,
    d: &mut [&mut [Row]],
    sum: impl Summation,
    slow: impl Fn(usize, usize, f32) -> f32 + Copy,
) {
    let columns = b.values.len() / K;
    let wide = columns / WIDE * WIDE;
    for start in (0..wide).step_by(WIDE) {
        block::<WIDE, K>(a, b, d, start, sum, slow);
    }
    for start in (wide..columns).step_by(NARROW) {
        block::<NARROW, K>(a, b, d, start, sum, slow);
    }
}

#[inline(always)]
fn block<const W: usize, const K: usize>(
    a: &Decoded,
    b: &Decoded,
    d: &mut [&mut [Row]],
    start: usize,
    sum: impl Summation,
    slow: impl Fn(usize, usize, f32) -> f32,
) {
    let (b_values, _) = b.values[start * K..][..W * K].as_chunks::<W>();
    let (rows, _) = a.values.as_chunks::<K>();
    for (row, a_values) in rows.iter().enumerate() {
        let (warp, lane, half) = (row / 16, row % 8 * 4, row / 8 % 2 * 2);
        let fragment = &mut d[warp][start / 2..][..W / 2];
        let mut c = [0f32; W];
        for (eight, registers) in c.as_chunks_mut::<8>().0.iter_mut().zip(fragment.as_chunks::<4>().0) {
            for i in 0..4 {
                eight[i] = f32::from_bits(registers[half][lane + i]);
                eight[i + 4] = f32::from_bits(registers[half + 1][lane + i]);
            }
        }
        let before = c;
        if !sum.row((a_values, row * K), (b_values, start * K), &mut c) {
            for (index, value) in c.iter_mut().enumerate() {
                let column = start + index / 8 * 8 + index % 4 * 2 + index % 8 / 4;
                *value = slow(row, column, before[index]);
            }
        }
        for (eight, registers) in c.as_chunks::<8>().0.iter().zip(fragment.as_chunks_mut::<4>().0) {
            for i in 0..4 {
                registers[half][lane + i] = eight[i].to_bits();
                registers[half + 1][lane + i] = eight[i + 4].to_bits();
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Never;

impl Summation for Never {
    #[inline(always)]
    fn row<const W: usize, const K: usize>(
        self,
        _: (&[f32; K], usize),
        _: (&[[f32; W]], usize),
        _: &mut [f32; W],
    ) -> bool {
        false
    }
}

#[derive(Clone, Copy)]
struct Exact;

impl Summation for Exact {
    #[inline(always)]
    fn row<const W: usize, const K: usize>(
        self,
        (a, _): (&[f32; K], usize),
        (b, _): (&[[f32; W]], usize),
        c: &mut [f32; W],
    ) -> bool {
        let mut sum = *c;
        for k in 0..K {
            for j in 0..W {
                sum[j] += a[k] * b[k][j];
            }
        }
        *c = sum;
        true
    }
}

/// 2^-25.
const UNIT: f64 = 1.0 / (1 << 25) as f64;

/// For exponents of normal numbers. (Wrapping arithmetic here and below keeps checked builds vectorised.)
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// Scales of one row of outputs: up to integers and down again.
struct Scales<const W: usize> {
    up: [f32; W],
    exponent: [i32; W],
    regular: bool,
}

/// `products[j]`: the largest exponent of a nonzero product, or anything under -126 where there is none.
#[inline(always)]
fn scales<const W: usize, const BITS: i32>(c: &[f32; W], products: &[i32; W]) -> Scales<W> {
    let mut out = Scales { up: [0.0; W], exponent: [0; W], regular: true };
    let mut irregular = 0u32;
    for j in 0..W {
        let bits = c[j].to_bits();
        let biased = (bits >> 23 & 255) as i32;
        let exponent = biased.max(1).wrapping_sub(127).max(products[j]);
        let nothing = (bits << 1 == 0) & (products[j] < -126);
        irregular |= u32::from(biased == 255) | (u32::from(exponent < FLOOR) & u32::from(!nothing));
        let exponent = exponent.max(FLOOR);
        out.exponent[j] = exponent;
        out.up[j] = power_of_two(BITS.wrapping_sub(exponent));
    }
    out.regular = irregular == 0;
    out
}

/// Sums of the aligned, truncated terms.
#[inline(always)]
fn sum_terms<const W: usize, const K: usize>(a: &[f32; K], b: &[[f32; W]], up: &[f32; W]) -> [i32; W] {
    let mut sum = [0i32; W];
    for k in 0..K {
        for j in 0..W {
            // SAFETY: operands are finite and a·b finite (`tame`), |a·b| < 4·2^e with e at most the exponent behind
            // `up`, so the value is finite and under 2^27.
            sum[j] = sum[j].wrapping_add(unsafe { (a[k] * b[k][j] * up[j]).to_int_unchecked::<i32>() });
        }
    }
    sum
}

#[derive(Clone, Copy)]
struct Thirteen<'a> {
    a: &'a [u8],
    b: &'a [u8],
}

impl Summation for Thirteen<'_> {
    #[inline(always)]
    fn row<const W: usize, const K: usize>(
        self,
        (a, at): (&[f32; K], usize),
        (b, from): (&[[f32; W]], usize),
        c: &mut [f32; W],
    ) -> bool {
        let ea = &self.a[at..][..K];
        let (eb, _) = self.b[from..][..W * K].as_chunks::<W>();
        let largest = largest(ea, eb);
        let mut products = [0i32; W];
        for j in 0..W {
            // Two zeros' worth of bias apart: a product with a zero factor stays under 80, others reach 100 at least.
            products[j] =
                if largest[j] < 90 { -1000 } else { i32::from(largest[j]).wrapping_sub(2 * i32::from(BIAS)) };
        }
        let scales = scales::<W, 13>(c, &products);
        if !scales.regular {
            return false;
        }
        let sum = sum_terms(a, b, &scales.up);
        for j in 0..W {
            // SAFETY: C is finite (regular) and under 2^(e+1), so the scaled value is under 2^14.
            let own = unsafe { (c[j] * scales.up[j]).to_int_unchecked::<i32>() };
            let down = power_of_two(scales.exponent[j].wrapping_sub(13));
            // Under 2^24: exact in f32, and so is the product, as the exponent is not near the subnormals.
            let value = sum[j].wrapping_add(own) as f32 * down;
            c[j] = f32::from_bits(value.to_bits() & 0xffff_fc00);
        }
        true
    }
}

#[derive(Clone, Copy)]
struct TwentyFive<'a> {
    a: &'a [i16],
    b: &'a [i16],
}

impl Summation for TwentyFive<'_> {
    #[inline(always)]
    fn row<const W: usize, const K: usize>(
        self,
        (a, at): (&[f32; K], usize),
        (b, from): (&[[f32; W]], usize),
        c: &mut [f32; W],
    ) -> bool {
        let ea = &self.a[at..][..K];
        let (eb, _) = self.b[from..][..W * K].as_chunks::<W>();
        let largest = largest(ea, eb);
        let mut products = [0i32; W];
        for j in 0..W {
            products[j] = i32::from(largest[j]);
        }
        let scales = scales::<W, 25>(c, &products);
        if !scales.regular {
            return false;
        }
        // Sixteen terms of at most 2047·2047·2^5 fit an i32; C is added in f64, where everything is exact.
        let sum = sum_terms(a, b, &scales.up);
        for j in 0..W {
            // SAFETY: C is finite (regular) and under 2^(e+1), so the scaled value is under 2^26.
            let own = unsafe { (c[j] * scales.up[j]).to_int_unchecked::<i32>() };
            let down = f64::from(power_of_two(scales.exponent[j])) * UNIT;
            let value = (f64::from(sum[j]) + f64::from(own)) * down;
            c[j] = f64::from_bits(value.to_bits() & !0x1fff_ffff) as f32;
        }
        true
    }
}
