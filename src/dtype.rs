//! Element types of tensors.

mod e5m2;
mod ue8m0;

use std::fmt;

pub use e5m2::E5m2;
pub use half::{bf16, f16};
pub use ue8m0::Ue8m0;

/// The type of a tensor's elements, as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit IEEE float.
    F16,
    /// 8-bit float: 4 exponent bits, 3 fraction bits, no infinities ([`E4m3`]).
    E4m3,
    /// 8-bit float: 5 exponent bits, 2 fraction bits ([`E5m2`]).
    E5m2,
    /// A power of two in a byte ([`Ue8m0`]).
    Ue8m0,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// Byte.
    U8,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::E4m3 | DType::E5m2 | DType::Ue8m0 | DType::U8 => 1,
            DType::Bf16 | DType::F16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::I64 | DType::U64 => 8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::E4m3 => "e4m3",
            DType::E5m2 => "e5m2",
            DType::Ue8m0 => "ue8m0",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::U64 => "u64",
            DType::U8 => "u8",
        })
    }
}

/// A type that a [`Tensor`](crate::Tensor) may hold.
///
/// # Safety
///
/// Every bit pattern of `size_of::<Self>()` bytes must be a valid value, the type must have no padding, and
/// `DTYPE` must describe it: device memory is reinterpreted as the type without a check.
pub unsafe trait Element: Copy + Send + Sync + Default + fmt::Debug + 'static {
    /// The type as a value.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),+ $(,)?) => {$(
        // SAFETY: a plain number (or a transparent wrapper of one): no padding, every bit pattern valid.
        unsafe impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
        const _: () = assert!(size_of::<$type>() == DType::$dtype.size());
    )+};
}

elements!(
    f32 => F32, bf16 => Bf16, f16 => F16, E4m3 => E4m3, E5m2 => E5m2, Ue8m0 => Ue8m0,
    i32 => I32, u32 => U32, i64 => I64, u64 => U64, u8 => U8,
);

/// The code of an 8-bit float with `fraction` bits of fraction and this exponent bias: rounds to nearest even, saturates
/// at `largest`, NaN stays NaN (its sign too).
const fn narrowed(value: f32, fraction: u32, bias: u32, largest: u8) -> u8 {
    let bits = value.to_bits();
    let sign = ((bits >> 24) & 0x80) as u8;
    let magnitude = bits & 0x7FFF_FFFF;
    if magnitude > 0x7F80_0000 {
        return sign | 0x7F;
    }
    // The smallest normal is 2^(1 - bias).
    if magnitude < (128 - bias) << 23 {
        // Below it, values are multiples of 2^(1 - bias - fraction). Adding 2²³ of them makes the float adder round there.
        let addend = f32::from_bits((151 - bias - fraction) << 23);
        let rounded = f32::from_bits(magnitude) + addend;
        return sign | (rounded.to_bits() - addend.to_bits()) as u8;
    }
    // Round to the fraction's bits, ties to even, then move the exponent's bias from 127.
    let shift = 23 - fraction;
    let below_half = (1 << (shift - 1)) - 1;
    let odd = (magnitude >> shift) & 1;
    let rounded = ((magnitude as u64 + below_half + odd as u64) >> shift) as u32;
    let code = rounded - ((127 - bias) << fraction);
    sign | if code > largest as u32 { largest } else { code as u8 }
}

/// An 8-bit float `S.EEEE.MMM`, exponent bias 7, no infinities, NaN at 0x7F and 0xFF (OCP "E4M3FN").
///
/// Conversions from wider types round to nearest, ties to even, and saturate: everything beyond ±448,
/// infinities included, becomes ±448. NaN stays NaN. This is the `satfinite` conversion of the hardware.
/// Equality is of bits; compare values after [`to_f32`](Self::to_f32).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct E4m3(u8);

impl E4m3 {
    /// The largest finite value, 448.
    pub const MAX: Self = Self(0x7E);
    /// The smallest finite value, -448.
    pub const MIN: Self = Self(0xFE);
    /// The smallest positive value, 2⁻⁹.
    pub const MIN_POSITIVE: Self = Self(0x01);
    /// The positive NaN.
    pub const NAN: Self = Self(0x7F);
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(0x38);

    /// The value with these bits.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits of the value.
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// Whether the value is NaN.
    pub const fn is_nan(self) -> bool {
        self.0 & 0x7F == 0x7F
    }

    /// Rounds to nearest even; saturates at ±448; NaN stays NaN (its sign too).
    pub const fn from_f32(value: f32) -> Self {
        Self(narrowed(value, 3, 7, Self::MAX.0))
    }

    /// The exact value.
    pub const fn to_f32(self) -> f32 {
        let sign = (self.0 as u32 & 0x80) << 24;
        let exponent = (self.0 >> 3) as u32 & 15;
        let fraction = self.0 as u32 & 7;
        if self.is_nan() {
            return f32::from_bits(sign | 0x7FC0_0000);
        }
        let magnitude = if exponent == 0 {
            (fraction as f32) / 512.0
        } else {
            f32::from_bits(((exponent + 120) << 23) | (fraction << 20))
        };
        f32::from_bits(magnitude.to_bits() | sign)
    }
}

impl From<E4m3> for f32 {
    fn from(value: E4m3) -> f32 {
        value.to_f32()
    }
}

impl fmt::Debug for E4m3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}e4m3", self.to_f32())
    }
}

impl fmt::Display for E4m3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_f32(), f)
    }
}

/// The bf16 nearest to a value, ties to even. (`bf16::from_f64` cuts the lowest 32 bits off before it rounds, so that what
/// lies just above a tie goes to even.)
pub fn nearest_bf16(value: f64) -> bf16 {
    let near = value as f32;
    let mut bits = near.to_bits();
    // Rounded to odd: towards zero, with the lowest bit standing for everything that was cut off.
    if f64::from(near).abs() > value.abs() {
        bits -= 1;
    }
    if f64::from(near) != value && !value.is_nan() {
        bits |= 1;
    }
    bf16::from_f32(f32::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_once() {
        for bits in (0..0x7F80u16).step_by(7).chain([0x7F7F]) {
            let (low, above) = (bf16::from_bits(bits), bf16::from_bits(bits + 1));
            let middle = (low.to_f64() + above.to_f64()) / 2.0;
            if middle.is_finite() {
                let even = bits + bits % 2;
                assert_eq!(nearest_bf16(middle).to_bits(), even);
                assert_eq!(nearest_bf16(middle * (1.0 + f64::EPSILON)).to_bits(), bits + 1);
                assert_eq!(nearest_bf16(middle * (1.0 - f64::EPSILON)).to_bits(), bits);
                assert_eq!(nearest_bf16(-middle).to_bits(), even | 0x8000);
            }
            assert_eq!(nearest_bf16(low.to_f64()).to_bits(), bits);
        }
        assert_eq!(nearest_bf16(1e300), bf16::INFINITY);
        assert_eq!(nearest_bf16(f64::NEG_INFINITY), bf16::NEG_INFINITY);
        assert_eq!(nearest_bf16(-1e-300).to_bits(), 0x8000);
        assert!(nearest_bf16(f64::NAN).is_nan());
    }

    /// The value of a code, from the format's definition.
    fn decode(code: u8) -> f64 {
        let (exponent, fraction) = (i32::from(code >> 3) & 15, f64::from(code & 7));
        let magnitude = if exponent == 0 {
            fraction * 2f64.powi(-9)
        } else {
            (8.0 + fraction) * 2f64.powi(exponent - 10)
        };
        if code & 0x80 != 0 { -magnitude } else { magnitude }
    }

    /// Nearest code by search, ties to the even code, saturating.
    fn nearest(value: f32) -> u8 {
        let magnitude = f64::from(value.abs());
        let mut best = 0u8;
        for code in 1..=0x7Eu8 {
            let (old, new) = ((decode(best) - magnitude).abs(), (decode(code) - magnitude).abs());
            if new < old || (new == old && code % 2 == 0) {
                best = code;
            }
        }
        best | if value.is_sign_negative() { 0x80 } else { 0 }
    }

    #[test]
    fn every_code_decodes_and_comes_back() {
        for bits in 0..=255u8 {
            let value = E4m3::from_bits(bits);
            if bits & 0x7F == 0x7F {
                assert!(value.is_nan() && value.to_f32().is_nan());
                assert!(E4m3::from_f32(value.to_f32()).is_nan());
            } else {
                assert_eq!(f64::from(value.to_f32()), decode(bits));
                assert_eq!(E4m3::from_f32(value.to_f32()).to_bits(), bits);
            }
        }
    }

    #[test]
    fn every_midpoint_and_its_neighbours_round_to_nearest_even() {
        for low in 0..0x7Eu8 {
            let middle = ((decode(low) + decode(low + 1)) / 2.0) as f32;
            assert_eq!(f64::from(middle), (decode(low) + decode(low + 1)) / 2.0);
            for value in [middle.next_down(), middle, middle.next_up()] {
                for value in [value, -value] {
                    assert_eq!(E4m3::from_f32(value).to_bits(), nearest(value), "{value:e}");
                }
            }
        }
    }

    #[test]
    fn a_bf16_rounds_as_the_search_does() {
        for bits in 0..=u16::MAX {
            let value = bf16::from_bits(bits).to_f32();
            let code = E4m3::from_f32(value);
            if value.is_nan() {
                assert!(code.is_nan());
            } else if value.is_finite() {
                assert_eq!(code.to_bits(), nearest(value), "{value:e}");
            }
        }
    }

    /// Rounding is monotone and piecewise constant, so all 2³² inputs follow from the steps' ends: between two
    /// neighbouring steps the code must not change.
    #[test]
    fn the_steps_are_the_only_changes() {
        let mut bits = 0u32;
        let mut last = E4m3::from_f32(0.0).to_bits();
        let mut changes = 0;
        while bits < 0x7F80_0000 {
            let code = E4m3::from_f32(f32::from_bits(bits)).to_bits();
            assert!(code == last || code == last + 1, "{bits:#x}");
            changes += u32::from(code != last);
            last = code;
            bits += 4093;
        }
        assert_eq!(changes, 0x7E);
    }

    #[test]
    fn out_of_range_saturates_and_nan_stays() {
        for value in [448.0, 449.0, 464.0, 465.0, 1e30, f32::MAX, f32::INFINITY] {
            assert_eq!(E4m3::from_f32(value), E4m3::MAX);
            assert_eq!(E4m3::from_f32(-value), E4m3::MIN);
        }
        assert_eq!(E4m3::from_f32(f32::NAN).to_bits() & 0x7F, 0x7F);
        assert_eq!(E4m3::from_f32(-f32::NAN).to_bits(), 0xFF);
        assert_eq!(E4m3::from_f32(-0.0).to_bits(), 0x80);
        assert_eq!(E4m3::MAX.to_f32(), 448.0);
        assert_eq!(E4m3::ONE.to_f32(), 1.0);
        assert_eq!(E4m3::MIN_POSITIVE.to_f32(), 2f32.powi(-9));
    }
}
