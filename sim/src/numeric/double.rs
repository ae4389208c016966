//! f64 arithmetic rounded in any direction.

use super::Round;

/// −1ˢ · digits · 2^exponent; the last digit says whether anything was cut off below it.
struct Exact {
    negative: bool,
    digits: u128,
    exponent: i32,
}

/// A finite value as digits below 2^53 and the exponent of the last.
fn open(x: f64) -> (u128, i32) {
    let (field, fraction) = ((x.to_bits() >> 52 & 0x7ff) as i32, x.to_bits() & ((1 << 52) - 1));
    if field == 0 { (fraction.into(), -1074) } else { ((fraction | 1 << 52).into(), field - 1075) }
}

/// What is shifted out leaves a trace in the last digit.
fn jam(digits: u128, by: u32) -> u128 {
    match by {
        0 => digits,
        1..128 => digits >> by | u128::from(digits << (128 - by) != 0),
        _ => u128::from(digits != 0),
    }
}

impl Exact {
    /// Rounded; a value of zero takes the sign that it has.
    fn round(self, round: Round) -> f64 {
        let sign = |x: f64| if self.negative { -x } else { x };
        let length = 128 - self.digits.leading_zeros() as i32;
        // The exponent of the last digit that f64 keeps.
        let last = (self.exponent + length - 53).max(-1074);
        let cut = last - self.exponent;
        let (kept, rest) = match cut {
            ..=0 => (self.digits << -cut, 0),
            1..128 => (self.digits >> cut, self.digits << (128 - cut)),
            _ => (0, jam(self.digits, 1)),
        };
        let half = 1u128 << 127;
        let outward = match round {
            Round::Nearest => rest > half || rest == half && kept & 1 == 1,
            Round::Away => rest >= half,
            Round::Zero => false,
            Round::Up => rest != 0 && !self.negative,
            Round::Down => rest != 0 && self.negative,
        };
        let kept = kept as u64 + u64::from(outward);
        // A power of two below f64's range is reached by way of its smallest normal number.
        let scale = |x: f64, by: i32| {
            if by < -1000 { x * 2f64.powi(by + 100) * 2f64.powi(-100) } else { x * 2f64.powi(by) }
        };
        let value = if last > 971 { f64::INFINITY } else { scale(kept as f64, last) };
        if value.is_infinite() && !matches!(round, Round::Nearest | Round::Away) {
            let inward = match round {
                Round::Up => self.negative,
                Round::Down => !self.negative,
                _ => true,
            };
            return sign(if inward { f64::MAX } else { value });
        }
        sign(value)
    }
}

/// a · b + c, rounded once.
#[must_use]
pub fn fma_f64(a: f64, b: f64, c: f64, round: Round) -> f64 {
    let near = a.mul_add(b, c);
    if round == Round::Nearest || !(a.is_finite() && b.is_finite() && c.is_finite()) {
        return near;
    }
    let negative = a.is_sign_negative() != b.is_sign_negative();
    let ((da, ea), (db, eb), (dc, ec)) = (open(a), open(b), open(c));
    let (product, at) = (da * db, ea + eb);
    if product == 0 && dc == 0 {
        // Zeros of unlike signs.
        return if negative != c.is_sign_negative() && round == Round::Down { -0.0 } else { near };
    }
    // The leading digits of both stand at 2^125, so that digits are lost only where they cannot cancel.
    let lead = |digits: u128, exponent: i32| {
        let up = digits.leading_zeros() as i32 - 2;
        if digits == 0 { (0, i32::MIN / 2) } else { (digits << up, exponent - up) }
    };
    let ((p, ep), (q, eq)) = (lead(product, at), lead(dc, ec));
    let exponent = ep.max(eq);
    let (p, q) = (jam(p, (exponent - ep) as u32), jam(q, (exponent - eq) as u32));
    if negative == c.is_sign_negative() {
        return Exact { negative, digits: p + q, exponent }.round(round);
    }
    if p == q {
        return if round == Round::Down { -0.0 } else { 0.0 };
    }
    let negative = if p > q { negative } else { !negative };
    Exact { negative, digits: p.abs_diff(q), exponent }.round(round)
}

/// a + b, rounded once.
#[must_use]
pub fn add_f64(a: f64, b: f64, round: Round) -> f64 {
    fma_f64(a, 1.0, b, round)
}

/// a · b, rounded once.
#[must_use]
pub fn mul_f64(a: f64, b: f64, round: Round) -> f64 {
    // A zero of the product's sign changes nothing.
    let zero = if a.is_sign_negative() != b.is_sign_negative() { -0.0 } else { 0.0 };
    fma_f64(a, b, zero, round)
}

/// a / b, rounded once.
#[must_use]
pub fn div_f64(a: f64, b: f64, round: Round) -> f64 {
    let near = a / b;
    if round == Round::Nearest || !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return near;
    }
    let ((da, ea), (db, eb)) = (open(a), open(b));
    let up = da.leading_zeros() as i32 - 1;
    let da = da << up;
    let digits = (da / db) << 1 | u128::from(!da.is_multiple_of(db));
    Exact { negative: near.is_sign_negative(), digits, exponent: ea - up - eb - 1 }.round(round)
}

/// √a, rounded once.
#[must_use]
pub fn sqrt_f64(a: f64, round: Round) -> f64 {
    if round == Round::Nearest || a.is_nan() || a <= 0.0 || a.is_infinite() {
        return a.sqrt();
    }
    let (digits, exponent) = open(a);
    let up = (digits.leading_zeros() as i32 - 2) & !1;
    let up = up + ((exponent - up) & 1);
    let digits = digits << up;
    let root = digits.isqrt();
    let rest = u128::from(root * root != digits);
    Exact { negative: false, digits: root << 1 | rest, exponent: (exponent - up) / 2 - 1 }.round(round)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbours: the exact value lies between down and up, and nearest, as the host has it, is one of the two.
    #[test]
    fn directions_enclose_the_nearest() {
        let values = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            3.0,
            0.1,
            -0.7,
            1e308,
            -1.7e308,
            5e-324,
            -2.2e-308,
            1e-160,
            1e200,
            -7e-170,
            2f64.powi(53),
            1.0 + f64::EPSILON,
            4503599627370497.5,
        ];
        let check = |of: &dyn Fn(Round) -> f64, near: f64, what: String| {
            let (down, up, zero) = (of(Round::Down), of(Round::Up), of(Round::Zero));
            assert!(near.is_nan() || down <= near && near <= up, "{what}: {down:e} {near:e} {up:e}");
            assert!(near.is_nan() || down == up || down.next_up() == up, "{what}: {down:e} {up:e}");
            let inner = if near.is_sign_negative() { up } else { down };
            assert!(near.is_nan() || zero == inner, "{what}: {zero:e} {inner:e}");
        };
        for a in values {
            check(&|r| sqrt_f64(a, r), a.sqrt(), format!("sqrt {a:e}"));
            for b in values {
                check(&|r| add_f64(a, b, r), a + b, format!("{a:e} + {b:e}"));
                check(&|r| mul_f64(a, b, r), a * b, format!("{a:e} * {b:e}"));
                check(&|r| div_f64(a, b, r), a / b, format!("{a:e} / {b:e}"));
                for c in values {
                    check(&|r| fma_f64(a, b, c, r), a.mul_add(b, c), format!("{a:e} * {b:e} + {c:e}"));
                }
            }
        }
    }

    #[test]
    fn a_single_digit_far_below_counts() {
        let tiny = f64::from_bits(1);
        assert_eq!(add_f64(1.0, tiny, Round::Up), 1.0f64.next_up());
        assert_eq!(add_f64(1.0, -tiny, Round::Zero), 1.0f64.next_down());
        assert_eq!(fma_f64(tiny, tiny, 0.0, Round::Up), tiny);
        assert_eq!(mul_f64(f64::MAX, 2.0, Round::Zero), f64::MAX);
        assert_eq!(mul_f64(f64::MAX, 2.0, Round::Up), f64::INFINITY);
        assert_eq!(div_f64(1.0, 3.0, Round::Up), (1.0f64 / 3.0).next_up());
        assert_eq!(sqrt_f64(2.0, Round::Down), 2f64.sqrt().next_down());
        assert!(add_f64(1.0, -1.0, Round::Down).is_sign_negative());
    }
}
