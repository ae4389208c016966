//! `.f16` and `.bf16`, one or two in a register.

use super::Operation::{self, Bin32, Tri32, Un32};
use super::single::{by_magnitude, max, min, or_nan};
use super::{F1, F2, F3, Rule, Spelling};
use crate::lower::rows::{map1, map2, map3};
use crate::numeric::{self, Round};
use crate::row::Row;

const FTZ: u32 = 1;
const SAT: u32 = 2;
const RELU: u32 = 4;
const NAN: u32 = 8;
const XORSIGN: u32 = 16;

/// A 16-bit format.
trait Half {
    /// Bits of the exponent field.
    const EXPONENT: u32;
    fn value(bits: u32) -> f32;
    /// To nearest, of an exact value or one rounded to odd.
    fn bits(value: f64) -> u32;
}

struct F16;
struct Bf16;

impl Half for F16 {
    const EXPONENT: u32 = 0x7c00;

    fn value(bits: u32) -> f32 {
        numeric::f16_to_f32(bits as u16)
    }

    fn bits(value: f64) -> u32 {
        numeric::f16_rounded(value, Round::Nearest).into()
    }
}

impl Half for Bf16 {
    const EXPONENT: u32 = 0x7f80;

    fn value(bits: u32) -> f32 {
        numeric::bf16_to_f32(bits as u16)
    }

    fn bits(value: f64) -> u32 {
        numeric::bf16_rounded(value, Round::Nearest).into()
    }
}

fn flushed<H: Half, const M: u32>(bits: u32) -> u32 {
    if M & FTZ != 0 && bits & H::EXPONENT == 0 { bits & 0x8000 } else { bits }
}

fn opened<H: Half, const M: u32>(bits: u32) -> f32 {
    H::value(flushed::<H, M>(bits & 0xffff))
}

fn closed<H: Half, const M: u32>(value: f64) -> u32 {
    let value = if M & SAT != 0 { if value > 0.0 { value.min(1.0) } else { 0.0 } } else { value };
    let value = if M & RELU != 0 && value <= 0.0 { 0.0 } else { value };
    flushed::<H, M>(H::bits(value))
}

/// Once, or on each half.
fn each<const PACKED: bool, const N: usize>(x: [u32; N], op: impl Fn([u32; N]) -> u32) -> u32 {
    if PACKED { op(x.map(|x| x & 0xffff)) | op(x.map(|x| x >> 16)) << 16 } else { op(x.map(|x| x & 0xffff)) }
}

macro_rules! binary {
    ($name:ident, |$a:ident, $b:ident| $value:expr) => {
        fn $name<H: Half, const P: bool, const M: u32>(a: &Row, b: &Row) -> Row {
            map2(a, b, |a, b| {
                each::<P, 2>([a, b], |[a, b]| {
                    let ($a, $b) = (opened::<H, M>(a), opened::<H, M>(b));
                    closed::<H, M>($value)
                })
            })
        }
    };
}

binary!(add, |a, b| numeric::sum_to_odd(a.into(), b.into(), Round::Nearest));
binary!(sub, |a, b| numeric::sum_to_odd(a.into(), (-b).into(), Round::Nearest));
binary!(mul, |a, b| f64::from(a) * f64::from(b));
binary!(lesser, |a, b| chosen::<M>(min, a, b).into());
binary!(greater, |a, b| chosen::<M>(max, a, b).into());

fn chosen<const M: u32>(pick: fn(f32, f32) -> f32, a: f32, b: f32) -> f32 {
    let choose = |a, b| if M & NAN != 0 { or_nan(pick, a, b) } else { pick(a, b) };
    if M & XORSIGN == 0 {
        return choose(a, b);
    }
    if M & NAN != 0 && (a.is_nan() || b.is_nan()) { f32::NAN } else { by_magnitude(pick, a, b) }
}

fn fma<H: Half, const P: bool, const M: u32>(a: &Row, b: &Row, c: &Row) -> Row {
    map3(a, b, c, |a, b, c| {
        each::<P, 3>([a, b, c], |[a, b, c]| {
            let (a, b, c) = (opened::<H, M>(a), opened::<H, M>(b), opened::<H, M>(c));
            closed::<H, M>(numeric::sum_to_odd(f64::from(a) * f64::from(b), c.into(), Round::Nearest))
        })
    })
}

macro_rules! unary {
    ($name:ident, $op:expr) => {
        fn $name<H: Half, const P: bool, const M: u32>(a: &Row) -> Row {
            map1(a, |a| each::<P, 1>([a], |[a]| closed::<H, M>($op(f64::from(opened::<H, M>(a))))))
        }
    };
}

unary!(exp2, f64::exp2);
unary!(tanh, f64::tanh);

pub(super) fn operation(s: &Spelling<'_>, operands: usize) -> Option<Operation> {
    let brain = s.last().starts_with('b');
    let packed = s.last().ends_with("x2");
    let mut modifiers = 0;
    for (name, bit) in [("ftz", FTZ), ("sat", SAT), ("relu", RELU), ("NaN", NAN)] {
        if s.has(name) {
            modifiers |= bit;
        }
    }
    if s.has("xorsign") && s.has("abs") {
        modifiers |= XORSIGN;
    }
    macro_rules! pick {
        ($name:ident, f16 [$($m:literal),*], bf16 [$($n:literal),*]) => {
            match (brain, packed, modifiers) {
                $(
                    (false, false, $m) => $name::<F16, false, $m>,
                    (false, true, $m) => $name::<F16, true, $m>,
                )*
                $(
                    (true, false, $n) => $name::<Bf16, false, $n>,
                    (true, true, $n) => $name::<Bf16, true, $n>,
                )*
                _ => return None,
            }
        };
    }
    s.has("rn");
    let rule = if packed { Rule::Halves } else { Rule::Spread };
    let two = |f: F2| Bin32(f, rule);
    let one = |f: F1| Un32(f, rule);
    Some(match (s.name, operands) {
        ("add", 3) => two(pick!(add, f16[0, 1, 2, 3], bf16[0])),
        ("sub", 3) => two(pick!(sub, f16[0, 1, 2, 3], bf16[0])),
        ("mul", 3) => two(pick!(mul, f16[0, 1, 2, 3], bf16[0])),
        ("min", 3) => two(pick!(lesser, f16[0, 1, 8, 9, 16, 17, 24, 25], bf16[0, 8, 16, 24])),
        ("max", 3) => two(pick!(greater, f16[0, 1, 8, 9, 16, 17, 24, 25], bf16[0, 8, 16, 24])),
        ("fma", 4) => {
            let f: F3 = pick!(fma, f16[0, 1, 2, 3, 4, 5], bf16[0, 4]);
            Tri32(f, rule)
        }
        ("ex2", 2) if s.has("approx") => one(pick!(exp2, f16[0], bf16[1])),
        ("tanh", 2) if s.has("approx") => one(pick!(tanh, f16[0], bf16[0])),
        ("neg", 2) if modifiers == 0 => Un32(
            if packed { |a| map1(a, |a| a ^ 0x8000_8000) } else { |a| map1(a, |a| a ^ 0x8000) },
            Rule::Move,
        ),
        ("abs", 2) if modifiers == 0 => Un32(
            if packed { |a| map1(a, |a| a & 0x7fff_7fff) } else { |a| map1(a, |a| a & 0x7fff) },
            Rule::Move,
        ),
        _ => return None,
    })
}
