//! `cvt` between scalar types.

use super::operands::any64;
use super::{Grid, Step};
use crate::lower::program::{Kind, Type};
use crate::lower::rows::{canonical64, flush};
use crate::numeric::{self, Round};
use crate::row::Row64;

impl Grid<'_> {
    pub(super) fn convert(&mut self, w: usize, kind: &Kind, mask: u32) -> Step<()> {
        let Kind::Convert { to, from, round, integral, ftz, sat, d, a } = kind else {
            unreachable!("only conversions come here");
        };
        let (value, shadow) = self.get(w, *a)?;
        let convert = |x: u64| scalar(x, *to, *from, *round, *integral, *ftz, *sat);
        let row: Row64 = match (from, to) {
            (Type::U32, Type::U64) => value.map(|x| x & 0xffff_ffff),
            (Type::U64 | Type::S64, Type::U32 | Type::S32) if !sat => value.map(|x| x & 0xffff_ffff),
            (Type::S32, Type::S64) => value.map(|x| x as i32 as i64 as u64),
            _ => value.map(convert),
        };
        let shadow = shadow.map(|s| {
            let keep = mask_of(*from);
            s.map(|s| match (from, to) {
                // Extension and truncation keep bits where they are.
                _ if !sat && !to_float(*from) && !to_float(*to) => extended(s & keep, *from) & mask_of(*to),
                _ => {
                    if s & keep == 0 {
                        0
                    } else {
                        u64::MAX
                    }
                }
            })
        });
        self.put(w, *d, &row, mask, shadow.filter(|s| any64(s, mask)).as_ref())
    }
}

fn to_float(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
}

fn mask_of(ty: Type) -> u64 {
    match ty.bytes() {
        8 => u64::MAX,
        bytes => (1 << (8 * bytes)) - 1,
    }
}

/// The low bits of an integer, extended to the register's width as its type says.
fn extended(bits: u64, ty: Type) -> u64 {
    let up = 64 - 8 * ty.bytes();
    if ty.signed() { (((bits << up) as i64) >> up) as u64 } else { bits << up >> up }
}

fn scalar(x: u64, to: Type, from: Type, round: Round, integral: bool, ftz: bool, sat: bool) -> u64 {
    if to_float(from) {
        let value = match from {
            Type::F16 => f64::from(numeric::f16_to_f32(x as u16)),
            Type::Bf16 => f64::from(numeric::bf16_to_f32(x as u16)),
            Type::F32 => f64::from(f32::from_bits(if ftz { flush(x as u32) } else { x as u32 })),
            _ => f64::from_bits(x),
        };
        if !to_float(to) {
            return extended(to_integer(value, to, from, round), to);
        }
        let value = if integral { rounded(value, round) } else { value };
        return from_real(if sat { saturated(value) } else { value }, to, round, ftz);
    }
    let integer = match from {
        Type::U8 | Type::Pred => i128::from(x as u8),
        Type::S8 => i128::from(x as i8),
        Type::U16 => i128::from(x as u16),
        Type::S16 => i128::from(x as i16),
        Type::U32 => i128::from(x as u32),
        Type::S32 => i128::from(x as i32),
        Type::S64 => i128::from(x as i64),
        _ => i128::from(x),
    };
    if to_float(to) {
        return from_integer(if sat { integer.clamp(0, 1) } else { integer }, to, round);
    }
    let integer = if sat { integer.clamp(least(to), most(to)) } else { integer };
    extended(integer as u64, to)
}

/// [0, 1]; NaN is 0.
fn saturated(value: f64) -> f64 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

fn least(ty: Type) -> i128 {
    if ty.signed() { -(1 << (8 * ty.bytes() - 1)) } else { 0 }
}

fn most(ty: Type) -> i128 {
    (1 << (8 * ty.bytes() - u32::from(ty.signed()))) - 1
}

fn rounded(value: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => value.round_ties_even(),
        Round::Away => value.round(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

/// Out-of-range values clamp. NaN is 0, or the top bit where either type has 64 bits.
fn to_integer(value: f64, to: Type, from: Type, round: Round) -> u64 {
    if value.is_nan() {
        return if to.bytes() == 8 || from.bytes() == 8 { 1 << (8 * to.bytes() - 1) } else { 0 };
    }
    (rounded(value, round) as i128).clamp(least(to), most(to)) as u64
}

fn from_integer(integer: i128, to: Type, round: Round) -> u64 {
    if to == Type::F64 {
        return directed(integer, round).to_bits();
    }
    from_real(numeric::integer_to_odd(integer), to, round, false)
}

fn directed(exact: i128, round: Round) -> f64 {
    let near = exact as f64;
    match (round, (near as i128 - exact).signum()) {
        (Round::Zero, 1) if near > 0.0 => near.next_down(),
        (Round::Zero, -1) if near < 0.0 => near.next_up(),
        (Round::Down, 1) => near.next_down(),
        (Round::Up, -1) => near.next_up(),
        _ => near,
    }
}

fn from_real(value: f64, to: Type, round: Round, ftz: bool) -> u64 {
    match to {
        Type::F64 => canonical64(value),
        Type::F32 => {
            let bits = numeric::f32_rounded(value, round);
            u64::from(if ftz { flush(bits) } else { bits })
        }
        Type::F16 => numeric::f16_rounded(value, round).into(),
        _ => numeric::bf16_rounded(value, round).into(),
    }
}
