//! Lane-wise functions over whole registers.

#![allow(clippy::needless_range_loop, reason = "lanes index several rows at once")]

use crate::row::{Row, Row64};

#[inline(always)]
pub(crate) fn map1<T: Copy, D: Copy + Default>(a: &[T; 32], f: impl Fn(T) -> D) -> [D; 32] {
    let mut out = [D::default(); 32];
    for i in 0..32 {
        out[i] = f(a[i]);
    }
    out
}

#[inline(always)]
pub(crate) fn map2<T: Copy, U: Copy, D: Copy + Default>(
    a: &[T; 32],
    b: &[U; 32],
    f: impl Fn(T, U) -> D,
) -> [D; 32] {
    let mut out = [D::default(); 32];
    for i in 0..32 {
        out[i] = f(a[i], b[i]);
    }
    out
}

#[inline(always)]
pub(crate) fn map3<T: Copy, U: Copy, V: Copy, D: Copy + Default>(
    a: &[T; 32],
    b: &[U; 32],
    c: &[V; 32],
    f: impl Fn(T, U, V) -> D,
) -> [D; 32] {
    let mut out = [D::default(); 32];
    for i in 0..32 {
        out[i] = f(a[i], b[i], c[i]);
    }
    out
}

/// A bit per lane.
#[inline(always)]
pub(crate) fn test2<T: Copy>(a: &[T; 32], b: &[T; 32], f: impl Fn(T, T) -> bool) -> u32 {
    let mut out = 0;
    for i in 0..32 {
        out |= u32::from(f(a[i], b[i])) << i;
    }
    out
}

#[inline(always)]
pub(crate) fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// Subnormals become zeros of the same sign.
#[inline(always)]
pub(crate) fn flush(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// NVIDIA's canonical NaN for any NaN.
#[inline(always)]
pub(crate) fn canonical(value: f32) -> u32 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() }
}

#[inline(always)]
pub(crate) fn canonical64(value: f64) -> u64 {
    if value.is_nan() { 0x7fff_ffff_ffff_ffff } else { value.to_bits() }
}

/// Fused multiply-add of a register: hardware where the host has it.
pub(crate) fn fma32() -> fn(&Row, &Row, &Row) -> Row {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2,fma")]
        fn fast(a: &Row, b: &Row, c: &Row) -> Row {
            map3(a, b, c, |a, b, c| canonical(f(a).mul_add(f(b), f(c))))
        }
        // SAFETY: `fast` needs only the features that were just detected.
        return |a, b, c| unsafe { fast(a, b, c) };
    }
    |a, b, c| map3(a, b, c, |a, b, c| canonical(f(a).mul_add(f(b), f(c))))
}

/// The same with subnormals flushed.
pub(crate) fn fma32_ftz() -> fn(&Row, &Row, &Row) -> Row {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2,fma")]
        fn fast(a: &Row, b: &Row, c: &Row) -> Row {
            map3(a, b, c, |a, b, c| flush(canonical(f(flush(a)).mul_add(f(flush(b)), f(flush(c))))))
        }
        // SAFETY: `fast` needs only the features that were just detected.
        return |a, b, c| unsafe { fast(a, b, c) };
    }
    |a, b, c| map3(a, b, c, |a, b, c| flush(canonical(f(flush(a)).mul_add(f(flush(b)), f(flush(c))))))
}

pub(crate) fn prmt(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(a) | u64::from(b) << 32;
    let mut out = 0;
    for i in 0..4 {
        let pick = selector >> (4 * i) & 15;
        let byte = (bytes >> (8 * (pick & 7))) as u8;
        let byte = if pick & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
        out |= u32::from(byte) << (8 * i);
    }
    out
}

pub(crate) fn lop3(a: u32, b: u32, c: u32, lut: u8) -> u32 {
    let mut out = 0;
    for i in 0..8u32 {
        if lut >> i & 1 == 1 {
            let pick = |x: u32, bit: u32| if i >> bit & 1 == 1 { x } else { !x };
            out |= pick(a, 2) & pick(b, 1) & pick(c, 0);
        }
    }
    out
}

pub(crate) fn bfe(a: u64, position: u32, length: u32, signed: bool, width: u32) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if length == 0 {
        return 0;
    }
    let msb = width - 1;
    let sign = signed && a >> (position + length - 1).min(msb) & 1 == 1;
    let mut out = if sign { u64::MAX } else { 0 };
    for i in 0..length.min(width) {
        if position + i <= msb {
            out = out & !(1 << i) | (a >> (position + i) & 1) << i;
        }
    }
    if width == 32 { out & 0xffff_ffff } else { out }
}

pub(crate) fn bfi(a: u64, b: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if position >= width || length == 0 {
        return b;
    }
    let length = length.min(width - position);
    let field = if length == 64 { u64::MAX } else { (1 << length) - 1 };
    let mask = field << position;
    b & !mask | (a << position) & mask
}

pub(crate) fn shift_left64(a: &Row64, b: &Row) -> Row64 {
    map2(a, b, |a, b| if b > 63 { 0 } else { a << b })
}

pub(crate) fn shift_right64(a: &Row64, b: &Row) -> Row64 {
    map2(a, b, |a, b| if b > 63 { 0 } else { a >> b })
}

pub(crate) fn shift_right_signed64(a: &Row64, b: &Row) -> Row64 {
    map2(a, b, |a, b| ((a as i64) >> b.min(63)) as u64)
}
