//! Scales that are powers of two.

use std::fmt;

/// A power of two in a byte: code c is 2^(c - 127), code 255 is NaN (OCP "E8M0"). No sign, no zero; the
/// default is code 0, as of cleared memory.
///
/// A type of its own, so that no f32 scale is ever taken for one. From f32 either [exactly](Self::from_f32), or
/// [rounded up](Self::from_f32_up) as quantisation to powers of two does.
///
/// ```
/// use narrowgauge::Ue8m0;
/// assert_eq!(Ue8m0::from_f32(0.25).map(Ue8m0::to_f32), Some(0.25));
/// assert_eq!(Ue8m0::from_f32(0.3), None);
/// assert_eq!(Ue8m0::from_f32_up(0.3).map(Ue8m0::to_f32), Some(0.5));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ue8m0(u8);

impl Ue8m0 {
    /// 2¹²⁷.
    pub const MAX: Self = Self(254);
    /// 2⁻¹²⁷.
    pub const MIN: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(127);
    /// NaN.
    pub const NAN: Self = Self(255);

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
        self.0 == 255
    }

    /// The same value; `None` unless it is a power of two from 2⁻¹²⁷ to 2¹²⁷. NaN stays NaN.
    pub const fn from_f32(value: f32) -> Option<Self> {
        let bits = value.to_bits();
        if value.is_nan() {
            return Some(Self::NAN);
        }
        match (bits & 0x007F_FFFF, bits >> 23) {
            (0x0040_0000, 0) => Some(Self::MIN),
            (0, exponent @ 1..=254) => Some(Self(exponent as u8)),
            _ => None,
        }
    }

    /// The smallest power of two that is not less; `None` for zero, negative and infinite values, and those above 2¹²⁷.
    /// NaN stays NaN.
    pub const fn from_f32_up(value: f32) -> Option<Self> {
        let bits = value.to_bits();
        if value.is_nan() {
            return Some(Self::NAN);
        }
        match bits {
            1..=0x0040_0000 => Some(Self::MIN),
            // A carry out of the fraction steps to the next power.
            0x0040_0001..=0x7F00_0000 => Some(Self(((bits + 0x007F_FFFF) >> 23) as u8)),
            _ => None,
        }
    }

    /// The exact value.
    pub const fn to_f32(self) -> f32 {
        match self.0 {
            0 => f32::from_bits(0x0040_0000),
            255 => f32::NAN,
            code => f32::from_bits((code as u32) << 23),
        }
    }
}

impl From<Ue8m0> for f32 {
    fn from(value: Ue8m0) -> f32 {
        value.to_f32()
    }
}

impl fmt::Debug for Ue8m0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nan() { f.write_str("NaN") } else { write!(f, "2^{}", i32::from(self.0) - 127) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_power_and_comes_back() {
        for bits in 0..=254u8 {
            let value = Ue8m0::from_bits(bits);
            assert_eq!(f64::from(value.to_f32()), 2f64.powi(i32::from(bits) - 127));
            assert_eq!(Ue8m0::from_f32(value.to_f32()), Some(value));
            assert_eq!(Ue8m0::from_f32_up(value.to_f32()), Some(value));
            assert_eq!(Ue8m0::from_f32_up(value.to_f32().next_down()), Some(value));
            assert_eq!(Ue8m0::from_f32(value.to_f32().next_down()), None);
            assert_eq!(Ue8m0::from_f32(value.to_f32().next_up()), None);
            let next = (bits < 254).then(|| Ue8m0::from_bits(bits + 1));
            assert_eq!(Ue8m0::from_f32_up(value.to_f32().next_up()), next);
        }
        assert!(Ue8m0::NAN.to_f32().is_nan());
    }

    #[test]
    fn what_is_no_power_of_two_is_refused() {
        for value in [0.0, -0.0, -1.0, 3.0, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE / 4.0] {
            assert_eq!(Ue8m0::from_f32(value), None, "{value}");
        }
        for value in [0.0, -0.0, -1.0, f32::INFINITY, f32::MAX, f32::NEG_INFINITY] {
            assert_eq!(Ue8m0::from_f32_up(value), None, "{value}");
        }
        assert_eq!(Ue8m0::from_f32(f32::NAN), Some(Ue8m0::NAN));
        assert_eq!(Ue8m0::from_f32_up(f32::NAN), Some(Ue8m0::NAN));
        assert_eq!(Ue8m0::from_f32_up(f32::from_bits(1)), Some(Ue8m0::MIN));
    }
}
