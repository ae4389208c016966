//! The two 16-bit formats.

use super::magnitude_code;

/// The value of bf16 bits.
#[inline]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Nearest bf16, ties to even; NaN gives 0x7fff.
#[inline]
pub fn bf16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return 0x7fff;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// bf16 toward zero; NaN gives 0x7fff.
#[inline]
pub fn bf16_from_f32_rz(value: f32) -> u16 {
    if value.is_nan() { 0x7fff } else { (value.to_bits() >> 16) as u16 }
}

/// The value of f16 bits.
#[inline]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let magnitude = u32::from(bits & 0x7fff);
    let value = if magnitude >= 0x7c00 {
        0x7f80_0000 | (magnitude & 0x3ff) << 13
    } else {
        // The f16 bits read with f32's bias, then moved: subnormals come out right by themselves.
        (f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23)).to_bits()
    };
    f32::from_bits(sign | value)
}

fn f16<const NEAREST: bool>(value: f32, overflow: u32) -> u16 {
    if value.is_nan() {
        return 0x7fff;
    }
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let code = if magnitude == 0x7f80_0000 {
        if NEAREST { overflow } else { 0x7c00 }
    } else {
        let code = magnitude_code::<NEAREST>(magnitude, 10, -14);
        if code >= 0x7c00 { overflow } else { code }
    };
    ((bits >> 31) << 15 | code) as u16
}

/// Nearest f16, ties to even; past 65504 infinite; NaN gives 0x7fff.
#[inline]
pub fn f16_from_f32(value: f32) -> u16 {
    f16::<true>(value, 0x7c00)
}

/// Nearest f16, ties to even, saturating at ±65504 (infinities too); NaN gives 0x7fff.
#[inline]
pub fn f16_from_f32_satfinite(value: f32) -> u16 {
    f16::<true>(value, 0x7bff)
}

/// f16 toward zero; infinities stay; NaN gives 0x7fff.
#[inline]
pub fn f16_from_f32_rz(value: f32) -> u16 {
    f16::<false>(value, 0x7bff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_decodes_and_comes_back() {
        for bits in 0..=u16::MAX {
            let exponent = i32::from(bits >> 10 & 31);
            let digits = f64::from(bits & 0x3ff) / 1024.0;
            let value = f16_to_f32(bits);
            if exponent == 31 && digits != 0.0 {
                assert!(value.is_nan());
                assert_eq!(f16_from_f32(value), 0x7fff);
                continue;
            }
            let magnitude = match exponent {
                31 => f64::INFINITY,
                0 => digits * 2f64.powi(-14),
                _ => (1.0 + digits) * 2f64.powi(exponent - 15),
            };
            assert_eq!(f64::from(value), if bits >> 15 == 1 { -magnitude } else { magnitude });
            assert_eq!(f16_from_f32(value), bits);
            assert_eq!(f16_from_f32_rz(value), bits);
        }
    }

    #[test]
    fn neighbours_round_as_they_should() {
        type Format = (fn(u16) -> f32, fn(f32) -> u16, fn(f32) -> u16, u16);
        let formats: [Format; 2] = [
            (f16_to_f32, f16_from_f32, f16_from_f32_rz, 0x7bff),
            (bf16_to_f32, bf16_from_f32, bf16_from_f32_rz, 0x7f7f),
        ];
        for (decode, nearest, toward_zero, last) in formats {
            for code in 0..last {
                let middle = ((f64::from(decode(code)) + f64::from(decode(code + 1))) / 2.0) as f32;
                let even = if code % 2 == 0 { code } else { code + 1 };
                for (value, want) in
                    [(middle.next_down(), code), (middle, even), (middle.next_up(), code + 1)]
                {
                    assert_eq!(nearest(value), want, "{value:e}");
                    assert_eq!(nearest(-value), want | 0x8000);
                    assert_eq!(toward_zero(value), code);
                    assert_eq!(toward_zero(-value), code | 0x8000);
                }
            }
        }
        assert_eq!(f16_from_f32(65520.0), 0x7c00);
        assert_eq!(f16_from_f32_satfinite(65520.0), 0x7bff);
        assert_eq!(f16_from_f32_rz(1e9), 0x7bff);
        assert_eq!(bf16_from_f32(f32::MAX), 0x7f80);
        assert_eq!(bf16_from_f32_rz(f32::NAN), 0x7fff);
    }
}
