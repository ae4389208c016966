//! `cvt` between scalar types.

use super::operands::any64;
use super::{Grid, Step};
use crate::lower::program::{Kind, Round, Type};
use crate::lower::rows::{canonical, canonical64, flush};
use crate::numeric;
use crate::row::Row64;

impl Grid<'_> {
    pub(super) fn convert(&mut self, w: usize, kind: &Kind, mask: u32) -> Step<()> {
        let Kind::Convert { to, from, round, integral, ftz, sat, d, a } = kind else {
            unreachable!("only conversions come here");
        };
        let (value, shadow) = self.get(w, *a)?;
        let convert = |x: u64| scalar(x, *to, *from, *round, *integral, *ftz, *sat);
        let row: Row64 = match (from, to) {
            (Type::U32, Type::U64) => value,
            (Type::U64 | Type::S64, Type::U32 | Type::S32) if !sat => value.map(|x| x & 0xffff_ffff),
            (Type::S32, Type::S64) => value.map(|x| x as i32 as i64 as u64),
            _ => value.map(convert),
        };
        let shadow = shadow.map(|s| {
            let keep = mask_of(*from);
            s.map(|s| match (from, to) {
                // Zero extension and truncation keep bits where they are.
                (Type::U8 | Type::U16 | Type::U32 | Type::U64, _) if !to_float(*to) => {
                    s & keep & mask_of(*to)
                }
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

fn scalar(x: u64, to: Type, from: Type, round: Round, integral: bool, ftz: bool, sat: bool) -> u64 {
    let keep = mask_of(to);
    if to_float(from) {
        let value = match from {
            Type::F16 => f64::from(numeric::f16_to_f32(x as u16)),
            Type::Bf16 => f64::from(numeric::bf16_to_f32(x as u16)),
            Type::F32 => f64::from(f32::from_bits(if ftz { flush(x as u32) } else { x as u32 })),
            _ => f64::from_bits(x),
        };
        if !to_float(to) {
            return to_integer(value, to, round) & keep;
        }
        let value = if integral { rounded(value, round) } else { value };
        let value = if sat { if value > 0.0 { value.min(1.0) } else { 0.0 } } else { value };
        return from_real(value, to, round, ftz);
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
        return from_integer(integer, to, round);
    }
    let integer = if sat { integer.clamp(least(to), most(to)) } else { integer };
    integer as u64 & keep
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
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

/// Out-of-range values clamp; NaN is 0, or the top bit for 64-bit results and u32's all-ones convention's zero.
fn to_integer(value: f64, to: Type, round: Round) -> u64 {
    if value.is_nan() {
        return if to.bytes() == 8 { 1 << 63 } else { 0 };
    }
    (rounded(value, round) as i128).clamp(least(to), most(to)) as u64
}

fn from_integer(integer: i128, to: Type, round: Round) -> u64 {
    match to {
        Type::F64 => directed(integer as f64, integer, round).to_bits(),
        Type::F32 => {
            let near = integer as f32;
            let error = near as i128 - integer;
            u64::from(step32(near, error.signum() as i32, round).to_bits())
        }
        // Integers that a half can hold are exact in f32.
        _ => from_real(integer as f64, to, round, false),
    }
}

fn directed(near: f64, exact: i128, round: Round) -> f64 {
    let error = (near as i128 - exact).signum();
    let down = |x: f64| x.next_down();
    match (round, error) {
        (Round::Zero, 1) if near > 0.0 => down(near),
        (Round::Zero, -1) if near < 0.0 => near.next_up(),
        (Round::Down, 1) => down(near),
        (Round::Up, -1) => near.next_up(),
        _ => near,
    }
}

/// Moves a nearest result one step where the rounding mode asks; `error` is the sign of near − exact.
fn step32(near: f32, error: i32, round: Round) -> f32 {
    match (round, error) {
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
            let near = value as f32;
            let error = (f64::from(near) - value).partial_cmp(&0.0).map_or(0, |o| o as i32);
            let bits = canonical(step32(near, error, round));
            u64::from(if ftz { flush(bits) } else { bits })
        }
        Type::F16 if round == Round::Zero => u64::from(numeric::f16_from_f32_rz(value as f32)),
        Type::F16 => u64::from(numeric::f16_from_f32(value as f32)),
        Type::Bf16 if round == Round::Zero => u64::from(numeric::bf16_from_f32_rz(value as f32)),
        _ => u64::from(numeric::bf16_from_f32(value as f32)),
    }
}
