//! The two 8-bit formats.

use super::magnitude_code;

const fn table(fraction: u32, bias: i32, infinities: bool) -> [f32; 256] {
    let mut values = [0f32; 256];
    let mut code = 0;
    while code < 256 {
        let sign = ((code as u32) >> 7) << 31;
        let magnitude = (code as u32) & 0x7f;
        let exponent = magnitude >> fraction;
        let top = (1 << (7 - fraction)) - 1;
        let digits = magnitude & ((1 << fraction) - 1);
        let bits = if infinities && exponent == top {
            if digits == 0 { 0x7f80_0000 } else { 0x7fff_ffff }
        } else if magnitude == 0x7f {
            0x7fff_ffff
        } else if exponent != 0 {
            ((exponent as i32 - bias + 127) as u32) << 23 | digits << (23 - fraction)
        } else if digits != 0 {
            let lead = 31 - digits.leading_zeros();
            let power = lead as i32 + 1 - bias - fraction as i32;
            ((power + 127) as u32) << 23 | (digits << (23 - lead)) & 0x007f_ffff
        } else {
            0
        };
        values[code] = f32::from_bits(sign | bits);
        code += 1;
    }
    values
}

static E4M3: [f32; 256] = table(3, 7, false);
static E5M2: [f32; 256] = table(2, 15, true);

/// The value of an e4m3 code; 0x7f and 0xff are NaN, there are no infinities.
#[inline]
pub fn e4m3_to_f32(code: u8) -> f32 {
    E4M3[code as usize]
}

/// The value of an e5m2 code.
#[inline]
pub fn e5m2_to_f32(code: u8) -> f32 {
    E5M2[code as usize]
}

fn encode(value: f32, fraction: u32, least: i32, limit: u32, overflow: u8) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let code =
        if magnitude == 0x7f80_0000 { u32::MAX } else { magnitude_code::<true>(magnitude, fraction, least) };
    let sign = ((bits >> 31) << 7) as u8;
    sign | if code > limit { overflow } else { code as u8 }
}

/// Nearest e4m3, ties to even, saturating at ±448 (infinities too); NaN gives 0x7f.
#[inline]
pub fn e4m3_from_f32(value: f32) -> u8 {
    encode(value, 3, -6, 0x7e, 0x7e)
}

/// Nearest e4m3, ties to even; what rounds past 448 becomes NaN.
#[inline]
pub fn e4m3_from_f32_unsaturated(value: f32) -> u8 {
    encode(value, 3, -6, 0x7e, 0x7f)
}

/// Nearest e5m2, ties to even, saturating at ±57344 (infinities too); NaN gives 0x7f.
#[inline]
pub fn e5m2_from_f32(value: f32) -> u8 {
    encode(value, 2, -14, 0x7b, 0x7b)
}

/// Nearest e5m2, ties to even; what rounds past 57344 becomes infinite.
#[inline]
pub fn e5m2_from_f32_unsaturated(value: f32) -> u8 {
    encode(value, 2, -14, 0x7b, 0x7c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(code: u8, fraction: i32, bias: i32, infinities: bool) -> f64 {
        let digits = f64::from(i32::from(code) & ((1 << fraction) - 1));
        let exponent = (i32::from(code) & 0x7f) >> fraction;
        let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
        let top = (1 << (7 - fraction)) - 1;
        if infinities && exponent == top {
            return if digits == 0.0 { sign * f64::INFINITY } else { f64::NAN };
        }
        if code & 0x7f == 0x7f {
            return f64::NAN;
        }
        let unit = 2f64.powi(-fraction);
        sign * if exponent == 0 {
            digits * unit * 2f64.powi(1 - bias)
        } else {
            (1.0 + digits * unit) * 2f64.powi(exponent - bias)
        }
    }

    #[test]
    fn every_code_decodes_and_comes_back() {
        for code in 0..=255u8 {
            for (got, want, back) in [
                (e4m3_to_f32(code), literal(code, 3, 7, false), e4m3_from_f32_unsaturated(e4m3_to_f32(code))),
                (e5m2_to_f32(code), literal(code, 2, 15, true), e5m2_from_f32_unsaturated(e5m2_to_f32(code))),
            ] {
                if want.is_nan() {
                    assert!(got.is_nan());
                    assert_eq!(back, 0x7f);
                } else {
                    assert_eq!(f64::from(got), want, "{code:#x}");
                    assert_eq!(got.is_sign_negative(), code & 0x80 != 0);
                    assert_eq!(back, code);
                }
            }
        }
    }

    /// Between every two neighbours: below the midpoint, on it (to even), above it.
    #[test]
    fn rounding_between_neighbours_is_to_nearest_even() {
        type Pair = (fn(u8) -> f32, fn(f32) -> u8, u8);
        let formats: [Pair; 2] = [(e4m3_to_f32, e4m3_from_f32, 0x7e), (e5m2_to_f32, e5m2_from_f32, 0x7b)];
        for (decode, encode, last) in formats {
            for code in 0..last {
                let middle = (decode(code) + decode(code + 1)) / 2.0;
                let even = if code % 2 == 0 { code } else { code + 1 };
                for (value, want) in
                    [(middle.next_down(), code), (middle, even), (middle.next_up(), code + 1)]
                {
                    assert_eq!(encode(value), want, "{value}");
                    assert_eq!(encode(-value), want | 0x80);
                }
            }
            assert_eq!(encode(f32::MAX), last);
            assert_eq!(encode(f32::NEG_INFINITY), last | 0x80);
            assert_eq!(encode(f32::MIN_POSITIVE / 4.0), 0);
        }
        assert_eq!(e4m3_from_f32(464.0), 0x7e);
        assert_eq!(e4m3_from_f32_unsaturated(464.0), 0x7e);
        assert_eq!(e4m3_from_f32_unsaturated(464.01), 0x7f);
        assert_eq!(e5m2_from_f32_unsaturated(61440.0), 0x7c);
        assert_eq!(e5m2_from_f32_unsaturated(61439.9), 0x7b);
    }
}
