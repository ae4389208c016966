//! `cvt`.

use super::arithmetic::{F1, F2, Spelling};
use super::instruction::type_named;
use super::program::{Kind, Rule, Type};
use super::rows::{self, f};
use super::{Lowered, Lowering};
use crate::ast::Instruction;
use crate::counters::Class;
use crate::numeric::{self, Round};
use crate::row::Row;

const TOWARD_ZERO: u32 = 1;
const RELU: u32 = 2;
const SATFINITE: u32 = 4;

const F16: u8 = 0;
const BF16: u8 = 1;
const E4M3: u8 = 2;
const E5M2: u8 = 3;

/// Code of a value in a narrow format.
#[inline(always)]
fn code<const FORMAT: u8, const M: u32>(value: f32) -> u32 {
    let value = if M & RELU != 0 && value <= 0.0 { 0.0 } else { value };
    let toward_zero = M & TOWARD_ZERO != 0;
    let code = match FORMAT {
        F16 if toward_zero => numeric::f16_from_f32_rz(value),
        F16 => numeric::f16_from_f32(value),
        BF16 if toward_zero => numeric::bf16_from_f32_rz(value),
        BF16 => numeric::bf16_from_f32(value),
        E4M3 => numeric::e4m3_from_f32(value).into(),
        _ => numeric::e5m2_from_f32(value).into(),
    };
    let infinity = if FORMAT == F16 { 0x7c00 } else { 0x7f80 };
    if M & SATFINITE != 0 && FORMAT <= BF16 && code & 0x7fff == infinity {
        return u32::from(code - 1);
    }
    code.into()
}

/// The first source goes into the upper half.
fn pair<const FORMAT: u8, const M: u32>(a: &Row, b: &Row) -> Row {
    let width = if FORMAT <= BF16 { 16 } else { 8 };
    rows::map2(a, b, |a, b| code::<FORMAT, M>(f(a)) << width | code::<FORMAT, M>(f(b)))
}

fn single<const FORMAT: u8, const M: u32>(a: &Row) -> Row {
    rows::map1(a, |a| code::<FORMAT, M>(f(a)))
}

fn shortened<const FORMAT: u8, const M: u32>(a: &Row) -> Row {
    rows::map1(a, |a| {
        let part = |half: u32| code::<FORMAT, M>(numeric::f16_to_f32(half as u16));
        part(a >> 16) << 8 | part(a & 0xffff)
    })
}

fn lengthened<const FORMAT: u8, const M: u32>(a: &Row) -> Row {
    rows::map1(a, |a| {
        let decode = if FORMAT == E4M3 { numeric::e4m3_to_f32 } else { numeric::e5m2_to_f32 };
        let part = |byte: u32| code::<F16, M>(decode(byte as u8));
        part(a >> 8 & 255) << 16 | part(a & 255)
    })
}

fn tf32(round: Round, relu: bool, satfinite: bool) -> Option<F1> {
    fn convert<const AWAY: bool, const M: u32>(a: &Row) -> Row {
        rows::map1(a, |a| {
            let value = if M & RELU != 0 && f(a) <= 0.0 { 0.0 } else { f(a) };
            let round = match (AWAY, M & TOWARD_ZERO != 0) {
                (true, _) => Round::Away,
                (_, true) => Round::Zero,
                _ => Round::Nearest,
            };
            let bits = numeric::tf32_rounded(value.into(), round);
            if M & SATFINITE != 0 && bits & 0x7fff_ffff == 0x7f80_0000 { bits - 0x2000 } else { bits }
        })
    }
    Some(match (round, relu, satfinite) {
        (Round::Away, false, false) => convert::<true, 0>,
        (Round::Away, false, true) => convert::<true, SATFINITE>,
        (Round::Nearest, false, false) => convert::<false, 0>,
        (Round::Nearest, true, false) => convert::<false, RELU>,
        (Round::Nearest, false, true) => convert::<false, SATFINITE>,
        (Round::Nearest, true, true) => convert::<false, { RELU | SATFINITE }>,
        (Round::Zero, false, false) => convert::<false, TOWARD_ZERO>,
        (Round::Zero, true, false) => convert::<false, { TOWARD_ZERO | RELU }>,
        _ => return None,
    })
}

/// Rounding of a conversion, and whether it is to an integral value.
fn rounding(s: &Spelling<'_>) -> (Option<Round>, bool) {
    let mut found = (None, false);
    for (name, round, integral) in [
        ("rn", Round::Nearest, false),
        ("rz", Round::Zero, false),
        ("rm", Round::Down, false),
        ("rp", Round::Up, false),
        ("rna", Round::Away, false),
        ("rni", Round::Nearest, true),
        ("rzi", Round::Zero, true),
        ("rmi", Round::Down, true),
        ("rpi", Round::Up, true),
    ] {
        if s.has(name) {
            found = (Some(round), integral);
        }
    }
    found
}

macro_rules! by_modifiers {
    ($name:ident::<$format:ident>, $modifiers:expr, [$($m:literal),*]) => {
        match $modifiers {
            $($m => $name::<$format, $m>,)*
            _ => return None,
        }
    };
}

fn one_source(to: &str, from: &str, modifiers: u32) -> Option<F1> {
    Some(match (to, from) {
        // Without `.relu` and `.satfinite` these are scalar conversions like any other.
        ("f16", "f32") => by_modifiers!(single::<F16>, modifiers, [2, 3, 4, 5, 6, 7]),
        ("bf16", "f32") => by_modifiers!(single::<BF16>, modifiers, [2, 3, 4, 5, 6, 7]),
        ("e4m3x2", "f16x2") => by_modifiers!(shortened::<E4M3>, modifiers, [4, 6]),
        ("e5m2x2", "f16x2") => by_modifiers!(shortened::<E5M2>, modifiers, [4, 6]),
        ("f16x2", "e4m3x2") => by_modifiers!(lengthened::<E4M3>, modifiers, [0, 2]),
        ("f16x2", "e5m2x2") => by_modifiers!(lengthened::<E5M2>, modifiers, [0, 2]),
        _ => return None,
    })
}

fn two_sources(to: &str, from: &str, modifiers: u32) -> Option<F2> {
    Some(match (to, from) {
        ("f16x2", "f32") => by_modifiers!(pair::<F16>, modifiers, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("bf16x2", "f32") => by_modifiers!(pair::<BF16>, modifiers, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("e4m3x2", "f32") => by_modifiers!(pair::<E4M3>, modifiers, [4, 6]),
        ("e5m2x2", "f32") => by_modifiers!(pair::<E5M2>, modifiers, [4, 6]),
        _ => return None,
    })
}

impl Lowering<'_> {
    pub(super) fn convert(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let count = s.modifiers.len();
        let (to, from) = (s.at(count.wrapping_sub(2)), s.last());
        let (round, integral) = rounding(s);
        let (relu, satfinite) = (s.has("relu"), s.has("satfinite"));
        let modifiers = u32::from(round == Some(Round::Zero)) * TOWARD_ZERO
            + u32::from(relu) * RELU
            + u32::from(satfinite) * SATFINITE;
        let rule = match (to, from) {
            ("f16x2" | "bf16x2", "f32") => Rule::Join(16),
            ("e4m3x2" | "e5m2x2", "f32") => Rule::Join(8),
            ("e4m3x2" | "e5m2x2", _) => Rule::Shorten,
            ("f16x2", _) => Rule::Lengthen,
            _ => Rule::Spread,
        };
        let kind = if o.len() == 3 {
            let Some(f) = two_sources(to, from, modifiers) else { return self.unknown(i) };
            Kind::Bin32 { f, rule, d: self.d32(&o[0])?, a: self.s32(&o[1])?, b: self.s32(&o[2])? }
        } else if to == "tf32" {
            let Some(f) = round.and_then(|r| tf32(r, relu, satfinite)) else { return self.unknown(i) };
            Kind::Un32 { f, rule, d: self.d32(&o[0])?, a: self.s32(&o[1])? }
        } else if let Some(f) = one_source(to, from, modifiers) {
            Kind::Un32 { f, rule, d: self.d32(&o[0])?, a: self.s32(&o[1])? }
        } else {
            let (Some(to), Some(from)) = (scalar(to), scalar(from)) else { return self.unknown(i) };
            if relu || satfinite || round == Some(Round::Away) {
                return self.unknown(i);
            }
            let round = round.unwrap_or(Round::Zero);
            let (d, a) = (self.dst(&o[0])?, self.src_any(&o[1], from.bytes())?);
            Kind::Convert { to, from, round, integral, ftz: s.has("ftz"), sat: s.has("sat"), d, a }
        };
        if s.understood() { Ok((kind, Class::Convert)) } else { self.unknown(i) }
    }
}

fn scalar(name: &str) -> Option<Type> {
    type_named(name).filter(|ty| !name.ends_with("x2") && *ty != Type::Pred)
}
