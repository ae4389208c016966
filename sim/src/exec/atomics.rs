//! What an atomic operation leaves in memory.

use crate::lower::program::{Rmw, Type};
use crate::lower::rows::{canonical, canonical64, flush};
use crate::numeric;

/// The new value of an element. Additions of f32 in global memory flush subnormal numbers, those in shared memory do
/// not.
pub(super) fn modify(rmw: Rmw, ty: Type, old: u64, b: u64, global: bool) -> u64 {
    let signed = |f: fn(i64, i64) -> i64| match ty {
        Type::S32 => f(i64::from(old as i32), i64::from(b as i32)) as u64,
        _ => f(old as i64, b as i64) as u64,
    };
    match (rmw, ty) {
        (Rmw::Add, Type::F32) => {
            let flushed = |x: u32| if global { flush(x) } else { x };
            let value = |x: u64| f32::from_bits(flushed(x as u32));
            u64::from(flushed(canonical(value(old) + value(b))))
        }
        (Rmw::Add, Type::F64) => canonical64(f64::from_bits(old) + f64::from_bits(b)),
        (Rmw::Add, Type::F16 | Type::Bf16) => add_half(ty, old as u16, b as u16),
        (Rmw::AddPair(half), _) => {
            add_half(half, old as u16, b as u16) | add_half(half, (old >> 16) as u16, (b >> 16) as u16) << 16
        }
        (Rmw::Add, _) => old.wrapping_add(b),
        (Rmw::Min | Rmw::Max, Type::F16 | Type::Bf16) => {
            let value = |x: u64| half_value(ty, x as u16);
            // A NaN gives way to a number.
            let kept = match (value(old), value(b)) {
                (x, _) if x.is_nan() => b,
                (_, y) if y.is_nan() => old,
                (x, y) if (x < y || x == y && x.is_sign_negative()) == (rmw == Rmw::Min) => old,
                _ => b,
            };
            kept & 0xffff
        }
        (Rmw::Min, Type::S32 | Type::S64) => signed(i64::min),
        (Rmw::Max, Type::S32 | Type::S64) => signed(i64::max),
        (Rmw::Min, _) => old.min(b),
        (Rmw::Max, _) => old.max(b),
        (Rmw::And, _) => old & b,
        (Rmw::Or, _) => old | b,
        (Rmw::Xor, _) => old ^ b,
        (Rmw::Exch, _) => b,
        (Rmw::Cas, _) => unreachable!("a swap depends on all elements, which its caller compares"),
        (Rmw::Inc, _) => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        (Rmw::Dec, _) => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

fn half_value(ty: Type, x: u16) -> f32 {
    if ty == Type::Bf16 { numeric::bf16_to_f32(x) } else { numeric::f16_to_f32(x) }
}

fn add_half(ty: Type, a: u16, b: u16) -> u64 {
    u64::from(if ty == Type::Bf16 {
        numeric::bf16_from_f32(numeric::bf16_to_f32(a) + numeric::bf16_to_f32(b))
    } else {
        numeric::f16_from_f32(numeric::f16_to_f32(a) + numeric::f16_to_f32(b))
    })
}
