//! Which function computes which arithmetic instruction.

use super::program::{Rule, Type};
use super::rows::{self, canonical, canonical64, f, flush, map1, map2, map3};
use crate::numeric;
use crate::row::{Row, Row64};

pub(crate) type F1 = fn(&Row) -> Row;
pub(crate) type F2 = fn(&Row, &Row) -> Row;
pub(crate) type F3 = fn(&Row, &Row, &Row) -> Row;
pub(crate) type G1 = fn(&Row64) -> Row64;
pub(crate) type G2 = fn(&Row64, &Row64) -> Row64;
pub(crate) type G3 = fn(&Row64, &Row64, &Row64) -> Row64;

/// Opcode after its name: modifiers and types.
pub(crate) struct Spelling<'a> {
    pub(crate) name: &'a str,
    pub(crate) modifiers: Vec<&'a str>,
}

impl Spelling<'_> {
    pub(crate) fn has(&self, modifier: &str) -> bool {
        self.modifiers.contains(&modifier)
    }

    pub(crate) fn last(&self) -> &str {
        self.modifiers.last().copied().unwrap_or("")
    }
}

fn s16(x: u32) -> i32 {
    i32::from(x as i16)
}

fn halves(a: u32, b: u32, op: impl Fn(u32, u32) -> u32) -> u32 {
    op(a & 0xffff, b & 0xffff) | op(a >> 16, b >> 16) << 16
}

fn bf(x: u32) -> f32 {
    f32::from_bits(x << 16)
}

fn to_bf(x: f32) -> u32 {
    u32::from(numeric::bf16_from_f32(x))
}

fn hf(x: u32) -> f32 {
    numeric::f16_to_f32(x as u16)
}

fn to_hf(x: f32) -> u32 {
    u32::from(numeric::f16_from_f32(x))
}

/// PTX min and max: the operand that is not NaN, and −0 below +0.
fn min(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == 0.0 && b == 0.0 => f32::from_bits(a.to_bits() | b.to_bits()),
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

fn max(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == 0.0 && b == 0.0 => f32::from_bits(a.to_bits() & b.to_bits()),
        _ => {
            if a > b {
                a
            } else {
                b
            }
        }
    }
}

fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

fn binary_f32(s: &Spelling<'_>) -> Option<F2> {
    let ftz = s.has("ftz");
    macro_rules! pick {
        ($op:expr) => {{
            let plain: F2 = |a, b| map2(a, b, |a, b| canonical($op(f(a), f(b))));
            let flushed: F2 = |a, b| map2(a, b, |a, b| flush(canonical($op(f(flush(a)), f(flush(b))))));
            Some(if ftz { flushed } else { plain })
        }};
    }
    if s.modifiers.iter().any(|m| matches!(*m, "rz" | "rm" | "rp")) && s.name != "min" && s.name != "max" {
        return directed(s);
    }
    match s.name {
        "add" if s.has("sat") => pick!(|a: f32, b: f32| saturate(a + b)),
        "mul" if s.has("sat") => pick!(|a: f32, b: f32| saturate(a * b)),
        "add" => pick!(|a: f32, b: f32| a + b),
        "sub" => pick!(|a: f32, b: f32| a - b),
        "mul" => pick!(|a: f32, b: f32| a * b),
        "div" => pick!(|a: f32, b: f32| a / b),
        "min" if s.has("NaN") => {
            pick!(|a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { min(a, b) })
        }
        "max" if s.has("NaN") => {
            pick!(|a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { max(a, b) })
        }
        "min" => pick!(min),
        "max" => pick!(max),
        "copysign" => Some(|a, b| map2(a, b, |a, b| b & 0x7fff_ffff | a & 0x8000_0000)),
        _ => None,
    }
}

/// Sums and products with a rounding direction.
fn directed(s: &Spelling<'_>) -> Option<F2> {
    if s.has("ftz") || s.has("sat") {
        return None;
    }
    macro_rules! round {
        ($direction:expr) => {
            match s.name {
                "add" => {
                    Some(|a, b| map2(a, b, |a, b| canonical(rows::fma_directed(f(a), 1.0, f(b), $direction))))
                }
                "sub" => Some(|a, b| {
                    map2(a, b, |a, b| canonical(rows::fma_directed(f(a), 1.0, -f(b), $direction)))
                }),
                "mul" => Some(|a, b| {
                    map2(a, b, |a, b| canonical(rows::fma_directed(f(a), f(b), -0.0, $direction)))
                }),
                _ => None,
            }
        };
    }
    if s.has("rm") {
        round!(-1)
    } else if s.has("rp") {
        round!(1)
    } else {
        round!(0)
    }
}

/// Two sources, one 32-bit (or narrower) result.
pub(crate) fn binary32(s: &Spelling<'_>) -> Option<(F2, Rule)> {
    let ty = s.last();
    let spread = |f: F2| Some((f, Rule::Spread));
    match (s.name, ty) {
        (_, "f32") => spread(binary_f32(s)?),
        ("add", "u32" | "s32") if s.has("sat") => {
            spread(|a, b| map2(a, b, |a, b| (a as i32).saturating_add(b as i32) as u32))
        }
        ("add", "u32" | "s32") => spread(|a, b| map2(a, b, u32::wrapping_add)),
        ("add", "u16" | "s16") => spread(|a, b| map2(a, b, |a, b| a.wrapping_add(b) & 0xffff)),
        ("sub", "u32" | "s32") => spread(|a, b| map2(a, b, u32::wrapping_sub)),
        ("sub", "u16" | "s16") => spread(|a, b| map2(a, b, |a, b| a.wrapping_sub(b) & 0xffff)),
        ("mul", "u32" | "s32") if s.has("lo") => spread(|a, b| map2(a, b, u32::wrapping_mul)),
        ("mul", "u16" | "s16") if s.has("lo") => spread(|a, b| map2(a, b, |a, b| a.wrapping_mul(b) & 0xffff)),
        ("mul", "u16") if s.has("wide") => spread(|a, b| map2(a, b, |a, b| (a & 0xffff) * (b & 0xffff))),
        ("mul", "s16") if s.has("wide") => spread(|a, b| map2(a, b, |a, b| (s16(a) * s16(b)) as u32)),
        ("mul", "u16") if s.has("hi") => {
            spread(|a, b| map2(a, b, |a, b| ((a & 0xffff) * (b & 0xffff)) >> 16))
        }
        ("mul", "s16") if s.has("hi") => {
            spread(|a, b| map2(a, b, |a, b| ((s16(a) * s16(b)) >> 16) as u32 & 0xffff))
        }
        ("mul", "u32") if s.has("hi") => {
            spread(|a, b| map2(a, b, |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32))
        }
        ("mul", "s32") if s.has("hi") => {
            spread(|a, b| map2(a, b, |a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32))
        }
        ("div", "u32") => spread(|a, b| map2(a, b, |a: u32, b| a.checked_div(b).unwrap_or(u32::MAX))),
        ("div", "s32") => spread(|a, b| {
            map2(a, b, |a, b| if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 })
        }),
        ("div", "u16") => {
            spread(|a, b| map2(a, b, |a, b| (a & 0xffff).checked_div(b & 0xffff).unwrap_or(0xffff)))
        }
        ("div", "s16") => spread(|a, b| {
            map2(a, b, |a, b| if s16(b) == 0 { 0xffff } else { (s16(a) / s16(b)) as u32 & 0xffff })
        }),
        ("rem", "u32") => spread(|a, b| map2(a, b, |a: u32, b| a.checked_rem(b).unwrap_or(a))),
        ("rem", "s32") => spread(|a, b| {
            map2(a, b, |a, b| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 })
        }),
        ("rem", "u16") => spread(|a, b| map2(a, b, |a, b| (a & 0xffff).checked_rem(b & 0xffff).unwrap_or(a))),
        ("rem", "s16") => {
            spread(|a, b| map2(a, b, |a, b| if s16(b) == 0 { a } else { (s16(a) % s16(b)) as u32 & 0xffff }))
        }
        ("min", "u32" | "u16") => spread(|a, b| map2(a, b, u32::min)),
        ("max", "u32" | "u16") => spread(|a, b| map2(a, b, u32::max)),
        ("min", "s32") => spread(|a, b| map2(a, b, |a, b| (a as i32).min(b as i32) as u32)),
        ("max", "s32") => spread(|a, b| map2(a, b, |a, b| (a as i32).max(b as i32) as u32)),
        ("min", "s16") => spread(|a, b| map2(a, b, |a, b| s16(a).min(s16(b)) as u32 & 0xffff)),
        ("max", "s16") => spread(|a, b| map2(a, b, |a, b| s16(a).max(s16(b)) as u32 & 0xffff)),
        ("and", "b16" | "b32") => Some((|a, b| map2(a, b, |a, b| a & b), Rule::And)),
        ("or", "b16" | "b32") => Some((|a, b| map2(a, b, |a, b| a | b), Rule::Or)),
        ("xor", "b16" | "b32") => Some((|a, b| map2(a, b, |a, b| a ^ b), Rule::Xor)),
        ("shl", "b32") => Some((|a, b| map2(a, b, |a, b| if b > 31 { 0 } else { a << b }), Rule::Shl)),
        ("shl", "b16") => {
            Some((|a, b| map2(a, b, |a, b| if b > 15 { 0 } else { a << b & 0xffff }), Rule::Shl))
        }
        ("shr", "b32" | "u32") => {
            Some((|a, b| map2(a, b, |a, b| if b > 31 { 0 } else { a >> b }), Rule::Shr))
        }
        ("shr", "b16" | "u16") => {
            Some((|a, b| map2(a, b, |a, b| if b > 15 { 0 } else { (a & 0xffff) >> b }), Rule::Shr))
        }
        ("shr", "s32") => spread(|a, b| map2(a, b, |a, b| ((a as i32) >> b.min(31)) as u32)),
        ("shr", "s16") => spread(|a, b| map2(a, b, |a, b| (s16(a) >> b.min(15)) as u32 & 0xffff)),
        ("add", "bf16x2") => spread(|a, b| map2(a, b, |a, b| halves(a, b, |a, b| to_bf(bf(a) + bf(b))))),
        ("sub", "bf16x2") => spread(|a, b| map2(a, b, |a, b| halves(a, b, |a, b| to_bf(bf(a) - bf(b))))),
        ("mul", "bf16x2") => spread(|a, b| map2(a, b, |a, b| halves(a, b, |a, b| to_bf(bf(a) * bf(b))))),
        ("min", "bf16x2") => spread(|a, b| map2(a, b, |a, b| halves(a, b, |a, b| to_bf(min(bf(a), bf(b)))))),
        ("max", "bf16x2") => spread(|a, b| map2(a, b, |a, b| halves(a, b, |a, b| to_bf(max(bf(a), bf(b)))))),
        ("add", "bf16") => spread(|a, b| map2(a, b, |a, b| to_bf(bf(a) + bf(b)))),
        ("sub", "bf16") => spread(|a, b| map2(a, b, |a, b| to_bf(bf(a) - bf(b)))),
        ("mul", "bf16") => spread(|a, b| map2(a, b, |a, b| to_bf(bf(a) * bf(b)))),
        ("min", "bf16") => spread(|a, b| map2(a, b, |a, b| to_bf(min(bf(a), bf(b))))),
        ("max", "bf16") => spread(|a, b| map2(a, b, |a, b| to_bf(max(bf(a), bf(b))))),
        ("add", "f16x2") => spread(|a, b| map2(a, b, |a, b| halves(a, b, |a, b| to_hf(hf(a) + hf(b))))),
        ("sub", "f16x2") => spread(|a, b| map2(a, b, |a, b| halves(a, b, |a, b| to_hf(hf(a) - hf(b))))),
        ("mul", "f16x2") => spread(|a, b| map2(a, b, |a, b| halves(a, b, |a, b| to_hf(hf(a) * hf(b))))),
        ("add", "f16") => spread(|a, b| map2(a, b, |a, b| to_hf(hf(a) + hf(b)))),
        ("sub", "f16") => spread(|a, b| map2(a, b, |a, b| to_hf(hf(a) - hf(b)))),
        ("mul", "f16") => spread(|a, b| map2(a, b, |a, b| to_hf(hf(a) * hf(b)))),
        _ => None,
    }
}

/// One source, one 32-bit (or narrower) result.
pub(crate) fn unary32(s: &Spelling<'_>) -> Option<(F1, Rule)> {
    let ftz = s.has("ftz");
    macro_rules! float {
        ($op:expr) => {{
            let plain: F1 = |a| map1(a, |a| canonical($op(f(a))));
            let flushed: F1 = |a| map1(a, |a| flush(canonical($op(f(flush(a))))));
            Some((if ftz { flushed } else { plain }, Rule::Spread))
        }};
    }
    let spread = |f: F1| Some((f, Rule::Spread));
    match (s.name, s.last()) {
        ("not", "b32") => Some((|a| map1(a, |a| !a), Rule::Move)),
        ("not", "b16") => Some((|a| map1(a, |a| !a & 0xffff), Rule::Move)),
        ("cnot", "b32") => spread(|a| map1(a, |a| u32::from(a == 0))),
        ("neg", "s32") => spread(|a| map1(a, u32::wrapping_neg)),
        ("neg", "s16") => spread(|a| map1(a, |a| a.wrapping_neg() & 0xffff)),
        ("abs", "s32") => spread(|a| map1(a, |a| (a as i32).wrapping_abs() as u32)),
        ("abs", "s16") => spread(|a| map1(a, |a| s16(a).wrapping_abs() as u32 & 0xffff)),
        ("neg", "f32") => float!(|a: f32| -a),
        ("abs", "f32") => float!(f32::abs),
        ("neg", "bf16x2" | "f16x2") => Some((|a| map1(a, |a| a ^ 0x8000_8000), Rule::Move)),
        ("abs", "bf16x2" | "f16x2") => Some((|a| map1(a, |a| a & 0x7fff_7fff), Rule::Move)),
        ("neg", "bf16" | "f16") => Some((|a| map1(a, |a| a ^ 0x8000), Rule::Move)),
        ("abs", "bf16" | "f16") => Some((|a| map1(a, |a| a & 0x7fff), Rule::Move)),
        ("popc", "b32") => spread(|a| map1(a, u32::count_ones)),
        ("clz", "b32") => spread(|a| map1(a, u32::leading_zeros)),
        ("brev", "b32") => spread(|a| map1(a, u32::reverse_bits)),
        ("bfind", "u32") if s.has("shiftamt") => {
            spread(|a| map1(a, |a| if a == 0 { u32::MAX } else { a.leading_zeros() }))
        }
        ("bfind", "u32") => spread(|a| map1(a, |a| 31u32.wrapping_sub(a.leading_zeros()))),
        ("bfind", "s32") => {
            spread(|a| map1(a, |a| 31u32.wrapping_sub(if (a as i32) < 0 { !a } else { a }.leading_zeros())))
        }
        ("rcp", "f32") => float!(|a: f32| 1.0 / a),
        ("sqrt", "f32") => float!(f32::sqrt),
        ("rsqrt", "f32") => float!(|a: f32| (1.0 / f64::from(a).sqrt()) as f32),
        ("ex2", "f32") => float!(f32::exp2),
        ("lg2", "f32") => float!(f32::log2),
        ("sin", "f32") => float!(|a: f32| f64::from(a).sin() as f32),
        ("cos", "f32") => float!(|a: f32| f64::from(a).cos() as f32),
        ("tanh", "f32") => float!(|a: f32| f64::from(a).tanh() as f32),
        _ => None,
    }
}

/// Three sources, one 32-bit result.
pub(crate) fn ternary32(s: &Spelling<'_>) -> Option<(F3, Rule)> {
    let spread = |f: F3| Some((f, Rule::Spread));
    match (s.name, s.last()) {
        ("mad" | "fma", "f32") if s.has("sat") => None,
        ("mad" | "fma", "f32") if s.has("ftz") && (s.has("rz") || s.has("rm") || s.has("rp")) => None,
        ("mad" | "fma", "f32") if s.has("rm") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| canonical(rows::fma_directed(f(a), f(b), f(c), -1))))
        }
        ("mad" | "fma", "f32") if s.has("rp") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| canonical(rows::fma_directed(f(a), f(b), f(c), 1))))
        }
        ("mad" | "fma", "f32") if s.has("rz") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| canonical(rows::fma_directed(f(a), f(b), f(c), 0))))
        }
        ("mad" | "fma", "f32") => spread(if s.has("ftz") { rows::fma32_ftz() } else { rows::fma32() }),
        ("mad", "u32" | "s32") if s.has("lo") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c)))
        }
        ("mad", "u16" | "s16") if s.has("lo") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff))
        }
        ("mad", "u16") if s.has("wide") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| ((a & 0xffff) * (b & 0xffff)).wrapping_add(c)))
        }
        ("mad", "s16") if s.has("wide") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| ((s16(a) * s16(b)) as u32).wrapping_add(c)))
        }
        ("mad", "u32") if s.has("hi") => spread(|a, b, c| {
            map3(a, b, c, |a, b, c| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c))
        }),
        ("mad", "s32") if s.has("hi") => spread(|a, b, c| {
            map3(a, b, c, |a, b, c| {
                (((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32).wrapping_add(c)
            })
        }),
        ("fma", "bf16x2") => spread(|a, b, c| {
            map3(a, b, c, |a, b, c| {
                let low = to_bf(bf(a & 0xffff).mul_add(bf(b & 0xffff), bf(c & 0xffff)));
                low | to_bf(bf(a >> 16).mul_add(bf(b >> 16), bf(c >> 16))) << 16
            })
        }),
        ("fma", "bf16") => spread(|a, b, c| map3(a, b, c, |a, b, c| to_bf(bf(a).mul_add(bf(b), bf(c))))),
        ("prmt", "b32") if s.modifiers.len() == 1 => Some((|a, b, c| map3(a, b, c, rows::prmt), Rule::Prmt)),
        ("bfe", "u32") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| rows::bfe(a.into(), b, c, false, 32) as u32))
        }
        ("bfe", "s32") => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| rows::bfe(a.into(), b, c, true, 32) as u32))
        }
        ("shf", "b32") => {
            let clamp = s.has("clamp");
            spread(match (s.has("l"), clamp) {
                (true, false) => |a, b, c| map3(a, b, c, |a, b, c| funnel_left(a, b, c & 31)),
                (true, true) => |a, b, c| map3(a, b, c, |a, b, c| funnel_left(a, b, c.min(32))),
                (false, false) => |a, b, c| map3(a, b, c, |a, b, c| funnel_right(a, b, c & 31)),
                (false, true) => |a, b, c| map3(a, b, c, |a, b, c| funnel_right(a, b, c.min(32))),
            })
        }
        ("sad", "u32") => spread(|a, b, c| map3(a, b, c, |a, b, c| a.abs_diff(b).wrapping_add(c))),
        ("min", "f32") if s.modifiers.len() == 1 => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| canonical(min(min(f(a), f(b)), f(c)))))
        }
        ("max", "f32") if s.modifiers.len() == 1 => {
            spread(|a, b, c| map3(a, b, c, |a, b, c| canonical(max(max(f(a), f(b)), f(c)))))
        }
        _ => None,
    }
}

fn funnel_left(a: u32, b: u32, by: u32) -> u32 {
    (((u64::from(b) << 32 | u64::from(a)) << by) >> 32) as u32
}

fn funnel_right(a: u32, b: u32, by: u32) -> u32 {
    ((u64::from(b) << 32 | u64::from(a)) >> by) as u32
}

/// One 64-bit source and result.
pub(crate) fn unary64(s: &Spelling<'_>) -> Option<(G1, Rule)> {
    let spread = |f: G1| Some((f, Rule::Spread));
    match (s.name, s.last()) {
        ("not", "b64") => Some((|a| map1(a, |a: u64| !a), Rule::Move)),
        ("neg", "s64") => spread(|a| map1(a, u64::wrapping_neg)),
        ("abs", "s64") => spread(|a| map1(a, |a| (a as i64).wrapping_abs() as u64)),
        ("brev", "b64") => spread(|a| map1(a, u64::reverse_bits)),
        ("neg", "f64") => spread(|a| map1(a, |a| a ^ 1 << 63)),
        ("abs", "f64") => spread(|a| map1(a, |a| a & !(1 << 63))),
        ("rcp", "f64") => spread(|a| map1(a, |a| canonical64(1.0 / f64::from_bits(a)))),
        ("sqrt", "f64") => spread(|a| map1(a, |a| canonical64(f64::from_bits(a).sqrt()))),
        _ => None,
    }
}

/// Two 64-bit sources.
pub(crate) fn binary64(s: &Spelling<'_>) -> Option<(G2, Rule)> {
    let spread = |f: G2| Some((f, Rule::Spread));
    macro_rules! double {
        ($op:expr) => {
            spread(|a, b| map2(a, b, |a, b| canonical64($op(f64::from_bits(a), f64::from_bits(b)))))
        };
    }
    match (s.name, s.last()) {
        ("add", "u64" | "s64") => spread(|a, b| map2(a, b, u64::wrapping_add)),
        ("sub", "u64" | "s64") => spread(|a, b| map2(a, b, u64::wrapping_sub)),
        ("mul", "u64" | "s64") if s.has("lo") => spread(|a, b| map2(a, b, u64::wrapping_mul)),
        ("mul", "u64") if s.has("hi") => {
            spread(|a, b| map2(a, b, |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64))
        }
        ("mul", "s64") if s.has("hi") => {
            spread(|a, b| map2(a, b, |a, b| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64))
        }
        ("div", "u64") => spread(|a, b| map2(a, b, |a: u64, b| a.checked_div(b).unwrap_or(u64::MAX))),
        ("div", "s64") => spread(|a, b| {
            map2(a, b, |a, b| if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 })
        }),
        ("rem", "u64") => spread(|a, b| map2(a, b, |a: u64, b| a.checked_rem(b).unwrap_or(a))),
        ("rem", "s64") => spread(|a, b| {
            map2(a, b, |a, b| if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 })
        }),
        ("min", "u64") => spread(|a, b| map2(a, b, u64::min)),
        ("max", "u64") => spread(|a, b| map2(a, b, u64::max)),
        ("min", "s64") => spread(|a, b| map2(a, b, |a, b| (a as i64).min(b as i64) as u64)),
        ("max", "s64") => spread(|a, b| map2(a, b, |a, b| (a as i64).max(b as i64) as u64)),
        ("and", "b64") => Some((|a, b| map2(a, b, |a, b| a & b), Rule::And)),
        ("or", "b64") => Some((|a, b| map2(a, b, |a, b| a | b), Rule::Or)),
        ("xor", "b64") => Some((|a, b| map2(a, b, |a, b| a ^ b), Rule::Xor)),
        ("add", "f64") => double!(|a: f64, b: f64| a + b),
        ("sub", "f64") => double!(|a: f64, b: f64| a - b),
        ("mul", "f64") => double!(|a: f64, b: f64| a * b),
        ("div", "f64") => double!(|a: f64, b: f64| a / b),
        ("min", "f64") => double!(f64::min),
        ("max", "f64") => double!(f64::max),
        _ => None,
    }
}

/// Three 64-bit sources.
pub(crate) fn ternary64(s: &Spelling<'_>) -> Option<G3> {
    match (s.name, s.last()) {
        ("mad", "u64" | "s64") if s.has("lo") => {
            Some(|a, b, c| map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c)))
        }
        ("fma" | "mad", "f64") => Some(|a, b, c| {
            map3(a, b, c, |a, b, c| {
                canonical64(f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)))
            })
        }),
        _ => None,
    }
}

/// Comparison of 32-bit (or narrower) values.
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "unordered comparisons hold for NaN")]
pub(crate) fn compare32(how: &str, ty: Type, ftz: bool) -> Option<fn(&Row, &Row) -> u32> {
    macro_rules! by {
        ($view:expr) => {{
            Some(match how {
                "eq" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| $view(a) == $view(b)),
                "ne" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| $view(a) != $view(b)),
                "lt" | "lo" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| $view(a) < $view(b)),
                "le" | "ls" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| $view(a) <= $view(b)),
                "gt" | "hi" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| $view(a) > $view(b)),
                "ge" | "hs" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| $view(a) >= $view(b)),
                _ => return None,
            })
        }};
    }
    macro_rules! floats {
        ($view:expr) => {{
            Some(match how {
                "ne" => {
                    |a: &Row, b: &Row| rows::test2(a, b, |a, b| $view(a) < $view(b) || $view(a) > $view(b))
                }
                "equ" => {
                    |a: &Row, b: &Row| rows::test2(a, b, |a, b| !($view(a) < $view(b) || $view(a) > $view(b)))
                }
                "neu" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| $view(a) != $view(b)),
                "ltu" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| !($view(a) >= $view(b))),
                "leu" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| !($view(a) > $view(b))),
                "gtu" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| !($view(a) <= $view(b))),
                "geu" => |a: &Row, b: &Row| rows::test2(a, b, |a, b| !($view(a) < $view(b))),
                "num" => |a: &Row, b: &Row| {
                    rows::test2(a, b, |a, b| !f32::is_nan($view(a)) && !f32::is_nan($view(b)))
                },
                "nan" => |a: &Row, b: &Row| {
                    rows::test2(a, b, |a, b| f32::is_nan($view(a)) || f32::is_nan($view(b)))
                },
                _ => return by!($view),
            })
        }};
    }
    match ty {
        Type::U32 | Type::U16 | Type::U8 => by!(|x: u32| x),
        Type::S32 => by!(|x: u32| x as i32),
        Type::S16 => by!(s16),
        Type::F32 if ftz => floats!(|x: u32| f(flush(x))),
        Type::F32 => floats!(f),
        Type::Bf16 => floats!(bf),
        Type::F16 => floats!(hf),
        _ => None,
    }
}

/// Comparison of 64-bit values.
pub(crate) fn compare64(how: &str, ty: Type) -> Option<fn(&Row64, &Row64) -> u32> {
    macro_rules! by {
        ($view:expr) => {
            Some(match how {
                "eq" => |a: &Row64, b: &Row64| rows::test2(a, b, |a, b| $view(a) == $view(b)),
                "ne" => |a: &Row64, b: &Row64| rows::test2(a, b, |a, b| $view(a) != $view(b)),
                "lt" | "lo" => |a: &Row64, b: &Row64| rows::test2(a, b, |a, b| $view(a) < $view(b)),
                "le" | "ls" => |a: &Row64, b: &Row64| rows::test2(a, b, |a, b| $view(a) <= $view(b)),
                "gt" | "hi" => |a: &Row64, b: &Row64| rows::test2(a, b, |a, b| $view(a) > $view(b)),
                "ge" | "hs" => |a: &Row64, b: &Row64| rows::test2(a, b, |a, b| $view(a) >= $view(b)),
                _ => return None,
            })
        };
    }
    match ty {
        Type::U64 => by!(|x: u64| x),
        Type::S64 => by!(|x: u64| x as i64),
        Type::F64 => by!(f64::from_bits),
        _ => None,
    }
}
