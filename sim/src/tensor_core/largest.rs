//! The largest exponent of each output's products.
//!
//! Written with vectors where the processor has them: left to itself, the compiler vectorises these loops along k
//! and gathers element by element.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128i, _mm_add_epi8, _mm_add_epi16, _mm_cvtsi64_si128, _mm_max_epi16, _mm_max_epu8, _mm_set1_epi8,
    _mm_set1_epi16,
};

/// An exponent in the width that its format needs.
pub(super) trait Exponent: Copy + Ord + Default {
    /// Under any sum of two exponents.
    const LEAST: Self;

    fn plus(self, other: Self) -> Self;

    #[cfg(target_arch = "x86_64")]
    fn splat(self) -> __m128i;
    #[cfg(target_arch = "x86_64")]
    fn plus_lanes(a: __m128i, b: __m128i) -> __m128i;
    #[cfg(target_arch = "x86_64")]
    fn max_lanes(a: __m128i, b: __m128i) -> __m128i;
}

impl Exponent for u8 {
    const LEAST: Self = 0;
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn splat(self) -> __m128i {
        // SAFETY: SSE2 belongs to every x86-64.
        unsafe { _mm_set1_epi8(self as i8) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn plus_lanes(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: SSE2 belongs to every x86-64.
        unsafe { _mm_add_epi8(a, b) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn max_lanes(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: SSE2 belongs to every x86-64.
        unsafe { _mm_max_epu8(a, b) }
    }
}

impl Exponent for i16 {
    const LEAST: Self = i16::MIN;
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn splat(self) -> __m128i {
        // SAFETY: SSE2 belongs to every x86-64.
        unsafe { _mm_set1_epi16(self) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn plus_lanes(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: SSE2 belongs to every x86-64.
        unsafe { _mm_add_epi16(a, b) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn max_lanes(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: SSE2 belongs to every x86-64.
        unsafe { _mm_max_epi16(a, b) }
    }
}

/// For each column j, the maximum over k of `a[k] + b[k][j]`.
#[inline(always)]
pub(super) fn largest<E: Exponent, const W: usize>(a: &[E], b: &[[E; W]]) -> [E; W] {
    #[cfg(target_arch = "x86_64")]
    if size_of::<[E; W]>() == 8 || size_of::<[E; W]>().is_multiple_of(16) {
        return largest_lanes(a, b);
    }
    let mut largest = [E::LEAST; W];
    for (a, row) in a.iter().zip(b) {
        for (largest, b) in largest.iter_mut().zip(row) {
            *largest = (*largest).max(a.plus(*b));
        }
    }
    largest
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn largest_lanes<E: Exponent, const W: usize>(a: &[E], b: &[[E; W]]) -> [E; W] {
    /// 32 16-bit exponents.
    const MOST: usize = 4;
    let size = size_of::<[E; W]>();
    let vectors = size.div_ceil(16);
    assert!(vectors <= MOST && (size == 8 || size == 16 * vectors), "a wide block at most");
    let mut largest = [E::LEAST.splat(); MOST];
    for (a, row) in a.iter().zip(b) {
        let a = a.splat();
        for (i, largest) in largest[..vectors].iter_mut().enumerate() {
            let b = if size == 8 {
                // SAFETY: the row is 8 bytes, read unaligned; SSE2 belongs to every x86-64.
                unsafe { _mm_cvtsi64_si128(row.as_ptr().cast::<i64>().read_unaligned()) }
            } else {
                // SAFETY: vector i < vectors lies inside the row, which is 16 · vectors bytes; the load is unaligned.
                unsafe { row.as_ptr().cast::<__m128i>().add(i).read_unaligned() }
            };
            *largest = E::max_lanes(*largest, E::plus_lanes(a, b));
        }
    }
    let mut out = [E::LEAST; W];
    for (i, largest) in largest[..vectors].iter().enumerate() {
        // SAFETY: the bytes from 16 · i on, at most 16 and at most up to the end of `out`, come from a local vector;
        // every bit pattern is an integer.
        unsafe {
            let to = out.as_mut_ptr().cast::<u8>().add(16 * i);
            std::ptr::copy_nonoverlapping((&raw const *largest).cast::<u8>(), to, (size - 16 * i).min(16));
        }
    }
    out
}
