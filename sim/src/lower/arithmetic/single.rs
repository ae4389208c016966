//! `.f32`.

use super::Operation::{self, Bin32, Tri32, Un32};
use super::{F1, F2, F3, Rule, Spelling};
use crate::lower::rows::{self, canonical, f, flush, map1, map2, map3};
use crate::numeric::{Round, f32_rounded, sum_to_odd, to_odd};
use crate::row::Row;

const NEAREST: u8 = 0;

fn direction(round: u8) -> Round {
    [Round::Nearest, Round::Zero, Round::Down, Round::Up][round as usize]
}

fn opened<const FTZ: bool>(bits: u32) -> f32 {
    f(if FTZ { flush(bits) } else { bits })
}

fn closed<const FTZ: bool, const SAT: bool>(value: f32) -> u32 {
    let bits = canonical(if SAT { saturate(value) } else { value });
    if FTZ { flush(bits) } else { bits }
}

/// [0, 1]; NaN is 0.
fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

fn directed_sum<const R: u8>(a: f64, b: f64) -> f32 {
    f(f32_rounded(sum_to_odd(a, b, direction(R)), direction(R)))
}

fn add<const R: u8, const FTZ: bool, const SAT: bool>(a: &Row, b: &Row) -> Row {
    map2(a, b, |a, b| {
        let (a, b) = (opened::<FTZ>(a), opened::<FTZ>(b));
        closed::<FTZ, SAT>(if R == NEAREST { a + b } else { directed_sum::<R>(a.into(), b.into()) })
    })
}

fn sub<const R: u8, const FTZ: bool, const SAT: bool>(a: &Row, b: &Row) -> Row {
    map2(a, b, |a, b| {
        let (a, b) = (opened::<FTZ>(a), opened::<FTZ>(b));
        closed::<FTZ, SAT>(if R == NEAREST { a - b } else { directed_sum::<R>(a.into(), (-b).into()) })
    })
}

fn mul<const R: u8, const FTZ: bool, const SAT: bool>(a: &Row, b: &Row) -> Row {
    map2(a, b, |a, b| {
        let (a, b) = (opened::<FTZ>(a), opened::<FTZ>(b));
        let product =
            if R == NEAREST { a * b } else { f(f32_rounded(f64::from(a) * f64::from(b), direction(R))) };
        closed::<FTZ, SAT>(product)
    })
}

fn fma<const R: u8, const FTZ: bool, const SAT: bool>(a: &Row, b: &Row, c: &Row) -> Row {
    map3(a, b, c, |a, b, c| {
        let (a, b, c) = (opened::<FTZ>(a), opened::<FTZ>(b), opened::<FTZ>(c));
        closed::<FTZ, SAT>(if R == NEAREST {
            a.mul_add(b, c)
        } else {
            directed_sum::<R>(f64::from(a) * f64::from(b), c.into())
        })
    })
}

fn quotient(a: f32, b: f32, round: Round) -> f32 {
    let (a, b) = (f64::from(a), f64::from(b));
    let near = a / b;
    f(f32_rounded(to_odd(near, (-near).mul_add(b, a) * b.signum()), round))
}

fn div<const R: u8, const FTZ: bool, const SAT: bool>(a: &Row, b: &Row) -> Row {
    map2(a, b, |a, b| {
        let (a, b) = (opened::<FTZ>(a), opened::<FTZ>(b));
        closed::<FTZ, SAT>(if R == NEAREST { a / b } else { quotient(a, b, direction(R)) })
    })
}

fn rcp<const R: u8, const FTZ: bool, const SAT: bool>(a: &Row) -> Row {
    map1(a, |a| {
        let a = opened::<FTZ>(a);
        closed::<FTZ, SAT>(if R == NEAREST { 1.0 / a } else { quotient(1.0, a, direction(R)) })
    })
}

fn sqrt<const R: u8, const FTZ: bool, const SAT: bool>(a: &Row) -> Row {
    map1(a, |a| {
        let a = opened::<FTZ>(a);
        closed::<FTZ, SAT>(if R == NEAREST {
            a.sqrt()
        } else {
            let near = f64::from(a).sqrt();
            f(f32_rounded(to_odd(near, (-near).mul_add(near, a.into())), direction(R)))
        })
    })
}

/// a · (1/b), whose reciprocal underflows for the largest b.
fn div_approx(a: f32, b: f32) -> f32 {
    if b.is_finite() && b.abs() > 2f32.powi(126) { a * (0.0 * b) } else { a / b }
}

/// PTX min and max: the operand that is not NaN, and −0 below +0.
pub(super) fn min(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == 0.0 && b == 0.0 => f32::from_bits(a.to_bits() | b.to_bits()),
        _ if a < b => a,
        _ => b,
    }
}

pub(super) fn max(a: f32, b: f32) -> f32 {
    -min(-a, -b)
}

pub(super) fn or_nan(pick: fn(f32, f32) -> f32, a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { pick(a, b) }
}

/// Of the magnitudes; the sign is the product's.
pub(super) fn by_magnitude(pick: fn(f32, f32) -> f32, a: f32, b: f32) -> f32 {
    let negative = a.is_sign_negative() != b.is_sign_negative();
    let size = pick(a.abs(), b.abs());
    if negative { -size } else { size }
}

pub(super) fn operation(s: &Spelling<'_>, operands: usize) -> Option<Operation> {
    let ftz = s.has("ftz");
    macro_rules! by {
        ($name:ident) => {{
            let round = match s.round() {
                Round::Nearest => 0,
                Round::Zero => 1,
                Round::Down => 2,
                _ => 3u8,
            };
            by!($name, round, (0, 1, 2, 3))
        }};
        ($name:ident, $round:expr, ($($r:literal),*)) => {
            match ($round, ftz, s.has("sat")) {
                $(
                    ($r, false, false) => $name::<$r, false, false>,
                    ($r, false, true) => $name::<$r, false, true>,
                    ($r, true, false) => $name::<$r, true, false>,
                    ($r, true, true) => $name::<$r, true, true>,
                )*
                _ => return None,
            }
        };
    }
    macro_rules! one {
        ($op:expr) => {{
            let (plain, flushed): (F1, F1) =
                (|a| map1(a, |a| canonical($op(f(a)))), |a| map1(a, |a| flush(canonical($op(f(flush(a)))))));
            Un32(if ftz { flushed } else { plain }, Rule::Spread)
        }};
    }
    macro_rules! two {
        ($op:expr) => {{
            let (plain, flushed): (F2, F2) = (
                |a, b| map2(a, b, |a, b| canonical($op(f(a), f(b)))),
                |a, b| map2(a, b, |a, b| flush(canonical($op(f(flush(a)), f(flush(b)))))),
            );
            Bin32(if ftz { flushed } else { plain }, Rule::Spread)
        }};
    }
    let approximate = s.has("approx");
    Some(match (s.name, operands) {
        ("add", 3) => {
            let f: F2 = by!(add);
            Bin32(f, Rule::Spread)
        }
        ("sub", 3) => {
            let f: F2 = by!(sub);
            Bin32(f, Rule::Spread)
        }
        ("mul", 3) => {
            let f: F2 = by!(mul);
            Bin32(f, Rule::Spread)
        }
        ("fma" | "mad", 4) => {
            let f: F3 = by!(fma);
            let nearest = !s.has("sat") && s.round() == Round::Nearest;
            Tri32(
                match (nearest, ftz) {
                    (true, true) => rows::fma32_ftz(),
                    (true, false) => rows::fma32(),
                    _ => f,
                },
                Rule::Spread,
            )
        }
        ("div", 3) if approximate => two!(div_approx),
        ("div", 3) if s.has("full") => two!(|a: f32, b: f32| a / b),
        ("div", 3) => {
            let f: F2 = by!(div);
            Bin32(f, Rule::Spread)
        }
        ("rcp", 2) => {
            let f: F1 = by!(rcp);
            Un32(f, Rule::Spread)
        }
        ("sqrt", 2) => {
            let f: F1 = by!(sqrt);
            Un32(f, Rule::Spread)
        }
        ("min" | "max", 3) => {
            let (nan, magnitude) = (s.has("NaN"), s.has("xorsign") && s.has("abs"));
            match (s.name, nan, magnitude) {
                ("min", false, false) => two!(min),
                ("min", true, false) => two!(|a, b| or_nan(min, a, b)),
                ("min", false, true) => two!(|a, b| by_magnitude(min, a, b)),
                ("min", true, true) => two!(|a, b| by_magnitude(|a, b| or_nan(min, a, b), a, b)),
                (_, false, false) => two!(max),
                (_, true, false) => two!(|a, b| or_nan(max, a, b)),
                (_, false, true) => two!(|a, b| by_magnitude(max, a, b)),
                (_, true, true) => two!(|a, b| by_magnitude(|a, b| or_nan(max, a, b), a, b)),
            }
        }
        ("copysign", 3) => Bin32(|a, b| map2(a, b, |a, b| b & 0x7fff_ffff | a & 0x8000_0000), Rule::Spread),
        ("neg", 2) => one!(|a: f32| -a),
        ("abs", 2) => one!(f32::abs),
        ("rsqrt", 2) if approximate => one!(|a: f32| (1.0 / f64::from(a).sqrt()) as f32),
        ("ex2", 2) if approximate => one!(f32::exp2),
        ("lg2", 2) if approximate => one!(f32::log2),
        ("sin", 2) if approximate => one!(|a: f32| f64::from(a).sin() as f32),
        ("cos", 2) if approximate => one!(|a: f32| f64::from(a).cos() as f32),
        ("tanh", 2) if approximate => one!(|a: f32| f64::from(a).tanh() as f32),
        _ => return None,
    })
}
