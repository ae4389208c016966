//! The wider of the two 8-bit floats.

use super::narrowed;
use half::f16;
use std::fmt;

/// An 8-bit float `S.EEEEE.MM`, exponent bias 15, with infinities and NaN (OCP "E5M2"): the upper half of an f16.
///
/// Conversions from wider types round to nearest, ties to even, and saturate: everything beyond ±57344, infinities
/// included, becomes ±57344. NaN stays NaN. This is the `satfinite` conversion of the hardware. Equality is of bits;
/// compare values after [`to_f32`](Self::to_f32).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct E5m2(u8);

impl E5m2 {
    /// The largest finite value, 57344.
    pub const MAX: Self = Self(0x7B);
    /// The smallest finite value, -57344.
    pub const MIN: Self = Self(0xFB);
    /// The smallest positive value, 2⁻¹⁶.
    pub const MIN_POSITIVE: Self = Self(0x01);
    /// Positive infinity.
    pub const INFINITY: Self = Self(0x7C);
    /// A NaN.
    pub const NAN: Self = Self(0x7F);
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(0x3C);

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
        self.0 & 0x7F > 0x7C
    }

    /// Whether the value is neither NaN nor infinite.
    pub const fn is_finite(self) -> bool {
        self.0 & 0x7F < 0x7C
    }

    /// Rounds to nearest even; saturates at ±57344; NaN stays NaN (its sign too).
    pub const fn from_f32(value: f32) -> Self {
        Self(narrowed(value, 2, 15, Self::MAX.0))
    }

    /// The exact value.
    pub const fn to_f32(self) -> f32 {
        f16::from_bits((self.0 as u16) << 8).to_f32_const()
    }
}

impl From<E5m2> for f32 {
    fn from(value: E5m2) -> f32 {
        value.to_f32()
    }
}

impl fmt::Debug for E5m2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}e5m2", self.to_f32())
    }
}

impl fmt::Display for E5m2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_f32(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a code, from the format's definition.
    fn decode(code: u8) -> f64 {
        let (exponent, fraction) = (i32::from(code >> 2) & 31, f64::from(code & 3));
        let magnitude = match (exponent, code & 3) {
            (31, 0) => f64::INFINITY,
            (31, _) => f64::NAN,
            (0, _) => fraction * 2f64.powi(-16),
            _ => (4.0 + fraction) * 2f64.powi(exponent - 17),
        };
        if code & 0x80 != 0 { -magnitude } else { magnitude }
    }

    #[test]
    fn every_code_decodes_and_comes_back() {
        for bits in 0..=255u8 {
            let (value, want) = (E5m2::from_bits(bits), decode(bits));
            if want.is_nan() {
                assert!(value.is_nan() && !value.is_finite() && value.to_f32().is_nan());
                assert!(E5m2::from_f32(value.to_f32()).is_nan());
            } else {
                assert_eq!(f64::from(value.to_f32()), want);
                let back = if want.is_finite() { bits } else { bits - 1 };
                assert_eq!(E5m2::from_f32(value.to_f32()).to_bits(), back);
                assert_eq!(value.is_finite(), want.is_finite());
            }
        }
    }

    #[test]
    fn every_midpoint_and_its_neighbours_round_to_nearest_even() {
        for low in 0..0x7Bu8 {
            let middle = ((decode(low) + decode(low + 1)) / 2.0) as f32;
            let want = [low, low + low % 2, low + 1];
            for (value, code) in [middle.next_down(), middle, middle.next_up()].into_iter().zip(want) {
                assert_eq!(E5m2::from_f32(value).to_bits(), code, "{value:e}");
                assert_eq!(E5m2::from_f32(-value).to_bits(), code | 0x80, "{value:e}");
            }
        }
    }

    #[test]
    fn out_of_range_saturates_and_nan_stays() {
        for value in [57_344.0, 61_440.0, 65_536.0, f32::MAX, f32::INFINITY] {
            assert_eq!((E5m2::from_f32(value), E5m2::from_f32(-value)), (E5m2::MAX, E5m2::MIN));
        }
        assert_eq!(E5m2::from_f32(f32::NAN).to_bits() & 0x7F, 0x7F);
        assert_eq!(E5m2::from_f32(-0.0).to_bits(), 0x80);
        assert_eq!((E5m2::ONE.to_f32(), E5m2::MIN_POSITIVE.to_f32()), (1.0, 2f32.powi(-16)));
    }
}
