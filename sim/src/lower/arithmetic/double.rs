//! `.f64`.

use super::Operation::{self, Bin64, Tri64, Un64};
use super::{Rule, Spelling};
use crate::lower::rows::{canonical64, map1, map2, map3};
use crate::numeric::{Round, add_f64, div_f64, fma_f64, mul_f64, sqrt_f64};
use crate::row::Row64;

/// PTX min: the operand that is not NaN, and −0 below +0.
fn min(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == 0.0 && b == 0.0 => f64::from_bits(a.to_bits() | b.to_bits()),
        _ if a < b => a,
        _ => b,
    }
}

/// The upper word of a quick approximation, subnormals flushed.
fn gross(value: f64) -> u64 {
    if value.is_subnormal() {
        0f64.copysign(value).to_bits()
    } else {
        canonical64(value) & 0xffff_ffff_0000_0000
    }
}

fn flushed(bits: u64) -> f64 {
    let value = f64::from_bits(bits);
    if value.is_subnormal() { 0f64.copysign(value) } else { value }
}

fn direction(round: u8) -> Round {
    [Round::Zero, Round::Down, Round::Up][round as usize]
}

macro_rules! lanes {
    ($name:ident($($x:ident),*) = $map:ident, |$round:ident| $value:expr) => {
        fn $name<const R: u8>($($x: &Row64),*) -> Row64 {
            let $round = direction(R);
            $map($($x),*, |$($x),*| {
                $(let $x = f64::from_bits($x);)*
                canonical64($value)
            })
        }
    };
}

lanes!(add(a, b) = map2, |round| add_f64(a, b, round));
lanes!(sub(a, b) = map2, |round| add_f64(a, -b, round));
lanes!(mul(a, b) = map2, |round| mul_f64(a, b, round));
lanes!(div(a, b) = map2, |round| div_f64(a, b, round));
lanes!(fma(a, b, c) = map3, |round| fma_f64(a, b, c, round));
lanes!(rcp(a) = map1, |round| div_f64(1.0, a, round));
lanes!(sqrt(a) = map1, |round| sqrt_f64(a, round));

/// Not to nearest.
fn directed(s: &Spelling<'_>, operands: usize, round: Round) -> Option<Operation> {
    macro_rules! by {
        ($name:ident) => {
            match round {
                Round::Zero => $name::<0>,
                Round::Down => $name::<1>,
                _ => $name::<2>,
            }
        };
    }
    let rule = Rule::Spread;
    Some(match (s.name, operands) {
        ("add", 3) => Bin64(by!(add), rule),
        ("sub", 3) => Bin64(by!(sub), rule),
        ("mul", 3) => Bin64(by!(mul), rule),
        ("div", 3) => Bin64(by!(div), rule),
        ("fma" | "mad", 4) => Tri64(by!(fma)),
        ("rcp", 2) => Un64(by!(rcp), rule),
        ("sqrt", 2) => Un64(by!(sqrt), rule),
        _ => return None,
    })
}

pub(super) fn operation(s: &Spelling<'_>, operands: usize) -> Option<Operation> {
    macro_rules! one {
        ($op:expr) => {
            Un64(|a| map1(a, |a| canonical64($op(f64::from_bits(a)))), Rule::Spread)
        };
    }
    macro_rules! two {
        ($op:expr) => {
            Bin64(
                |a, b| map2(a, b, |a, b| canonical64($op(f64::from_bits(a), f64::from_bits(b)))),
                Rule::Spread,
            )
        };
    }
    let round = s.round();
    if round != Round::Nearest {
        return directed(s, operands, round);
    }
    Some(match (s.name, operands) {
        ("add", 3) => two!(|a: f64, b: f64| a + b),
        ("sub", 3) => two!(|a: f64, b: f64| a - b),
        ("mul", 3) => two!(|a: f64, b: f64| a * b),
        ("div", 3) => two!(|a: f64, b: f64| a / b),
        ("min", 3) => two!(min),
        ("max", 3) => two!(|a: f64, b: f64| -min(-a, -b)),
        ("copysign", 3) => {
            Bin64(|a, b| map2(a, b, |a: u64, b: u64| b & !(1 << 63) | a & 1 << 63), Rule::Spread)
        }
        ("fma" | "mad", 4) => Tri64(|a, b, c| {
            map3(a, b, c, |a, b, c| {
                canonical64(f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)))
            })
        }),
        ("neg", 2) => Un64(|a| map1(a, |a| a ^ 1 << 63), Rule::Spread),
        ("abs", 2) => Un64(|a| map1(a, |a| a & !(1 << 63)), Rule::Spread),
        ("rcp", 2) if s.has("approx") && s.has("ftz") => {
            Un64(|a| map1(a, |a| gross(1.0 / flushed(a))), Rule::Spread)
        }
        ("rsqrt", 2) if s.has("approx") && s.has("ftz") => {
            Un64(|a| map1(a, |a| gross(1.0 / flushed(a).sqrt())), Rule::Spread)
        }
        ("rsqrt", 2) if s.has("approx") => one!(|a: f64| 1.0 / a.sqrt()),
        ("rcp", 2) => one!(|a: f64| 1.0 / a),
        ("sqrt", 2) => one!(f64::sqrt),
        _ => return None,
    })
}
