//! Rounding of exact results in any direction.

/// Direction of a rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To nearest, ties to even.
    Nearest,
    /// Toward zero.
    Zero,
    /// Toward negative infinity.
    Down,
    /// Toward positive infinity.
    Up,
    /// To nearest, ties away from zero.
    Away,
}

/// `near` is an exact value rounded to nearest, which lies on the side of it that the sign of `rest` says: the exact
/// value rounded to odd. Rounded once more to a format at least two bits shorter, in any direction, that gives what
/// rounding the exact value would have.
#[inline]
#[must_use]
pub fn to_odd(near: f64, rest: f64) -> f64 {
    if rest == 0.0 || rest.is_nan() || !near.is_finite() || near.to_bits() & 1 == 1 {
        near
    } else if rest > 0.0 {
        near.next_up()
    } else {
        near.next_down()
    }
}

/// a + b rounded to odd. An exact zero has the sign that addition in `round` gives it.
#[inline]
#[must_use]
pub fn sum_to_odd(a: f64, b: f64, round: Round) -> f64 {
    let sum = a + b;
    if sum == 0.0 && a.is_sign_negative() != b.is_sign_negative() {
        return if round == Round::Down { -0.0 } else { 0.0 };
    }
    let part = sum - a;
    to_odd(sum, (a - (sum - part)) + (b - part))
}

/// An integer rounded to odd.
#[must_use]
pub fn integer_to_odd(value: i128) -> f64 {
    let near = value as f64;
    to_odd(near, (value - near as i128) as f64)
}

/// `value` in a format with `fraction` fraction bits whose smallest normal exponent is `least` and whose largest is
/// `-least + 1`, as its bits without the sign.
fn magnitude(value: f64, fraction: u32, least: i32, round: Round) -> u64 {
    let infinity = ((2 - 2 * least) as u64 + 1) << fraction;
    let size = value.abs();
    if size.is_infinite() {
        return infinity;
    }
    let exponent = ((size.to_bits() >> 52) as i32 - 1023).max(least);
    // One power of two could leave the range of f64, two do not.
    let shift = fraction as i32 - exponent;
    let steps = size * 2f64.powi(shift / 2) * 2f64.powi(shift - shift / 2);
    let outward = match round {
        Round::Up => value > 0.0,
        Round::Down => value < 0.0,
        _ => false,
    };
    let steps = match round {
        Round::Nearest => steps.round_ties_even(),
        Round::Away => steps.round(),
        _ if outward => steps.ceil(),
        _ => steps.floor(),
    };
    let code = (((exponent - least) as u64) << fraction) + steps as u64;
    if code < infinity {
        code
    } else if outward || matches!(round, Round::Nearest | Round::Away) {
        infinity
    } else {
        infinity - 1
    }
}

fn bits(value: f64, fraction: u32, least: i32, width: u32, round: Round) -> u64 {
    if value.is_nan() {
        return (1 << (width - 1)) - 1;
    }
    u64::from(value.is_sign_negative()) << (width - 1) | magnitude(value, fraction, least, round)
}

/// f32 bits of `value`; NaN gives 0x7fffffff.
#[must_use]
pub fn f32_rounded(value: f64, round: Round) -> u32 {
    bits(value, 23, -126, 32, round) as u32
}

/// f16 bits of `value`; NaN gives 0x7fff.
#[must_use]
pub fn f16_rounded(value: f64, round: Round) -> u16 {
    bits(value, 10, -14, 16, round) as u16
}

/// bf16 bits of `value`; NaN gives 0x7fff.
#[must_use]
pub fn bf16_rounded(value: f64, round: Round) -> u16 {
    bits(value, 7, -126, 16, round) as u16
}

/// tf32 bits of `value`, as f32 bits whose lowest 13 are zero; NaN gives 0x7fffffff.
#[must_use]
pub fn tf32_rounded(value: f64, round: Round) -> u32 {
    if value.is_nan() {
        return 0x7fff_ffff;
    }
    (bits(value, 10, -126, 19, round) as u32) << 13
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Round; 5] = [Round::Nearest, Round::Zero, Round::Down, Round::Up, Round::Away];

    /// Between every two neighbours of bf16: a little above the lower, the middle, a little below the upper.
    #[test]
    fn neighbours_bound_every_rounding() {
        let value = |code: u16| f64::from(f32::from_bits(u32::from(code) << 16));
        for code in 0..0x7f7fu16 {
            let (low, high) = (value(code), value(code + 1));
            let middle = (low + high) / 2.0;
            let even = code + (code & 1);
            for (x, near, away) in [
                (low, code, code),
                (low.next_up(), code, code),
                (middle.next_down(), code, code),
                (middle, even, code + 1),
                (middle.next_up(), code + 1, code + 1),
                (high.next_down(), code + 1, code + 1),
            ] {
                let up = if x == low { code } else { code + 1 };
                let want = [near, code, code, up, away];
                let minus = [near, code, up, code, away];
                for (i, round) in ALL.into_iter().enumerate() {
                    assert_eq!(bf16_rounded(x, round), want[i], "{x:e} {round:?}");
                    assert_eq!(bf16_rounded(-x, round), minus[i] | 0x8000, "{:e} {round:?}", -x);
                }
            }
        }
    }

    #[test]
    fn overflow_and_specials() {
        for (round, plus, minus) in [
            (Round::Nearest, 0x7f80_0000, 0xff80_0000),
            (Round::Zero, 0x7f7f_ffff, 0xff7f_ffff),
            (Round::Down, 0x7f7f_ffff, 0xff80_0000),
            (Round::Up, 0x7f80_0000, 0xff7f_ffff),
        ] {
            assert_eq!(f32_rounded(1e300, round), plus);
            assert_eq!(f32_rounded(-1e300, round), minus);
            assert_eq!(f32_rounded(f64::INFINITY, round), 0x7f80_0000);
        }
        assert_eq!(f16_rounded(65519.999, Round::Nearest), 0x7bff);
        assert_eq!(f16_rounded(65520.0, Round::Nearest), 0x7c00);
        assert_eq!(f16_rounded(f64::NAN, Round::Nearest), 0x7fff);
        assert_eq!(f32_rounded(f64::from_bits(1), Round::Up), 1);
        assert_eq!(tf32_rounded(1.0 + 2f64.powi(-11), Round::Away), 0x3f80_2000);
        assert_eq!(integer_to_odd((1 << 60) + 1), (1i64 << 60) as f64 + 256.0);
    }

    #[test]
    fn sums_know_what_they_lost() {
        assert_eq!(f32_rounded(sum_to_odd(1.0, 2f64.powi(-100), Round::Up), Round::Up), 0x3f80_0001);
        assert_eq!(f32_rounded(sum_to_odd(1.0, -(2f64.powi(-100)), Round::Zero), Round::Zero), 0x3f7f_ffff);
        assert!(sum_to_odd(1.0, -1.0, Round::Down).is_sign_negative());
        assert!(sum_to_odd(-0.0, -0.0, Round::Nearest).is_sign_negative());
    }
}
