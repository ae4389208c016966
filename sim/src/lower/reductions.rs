//! `cp.reduce.async.bulk`: bulk copies that combine with what is there.

use super::arithmetic::Spelling;
use super::program::{Kind, Rmw, Type};
use super::{Lowered, Lowering};
use crate::ast::{Instruction, Operand};

fn operation(name: &str) -> Option<Rmw> {
    Some(match name {
        "add" => Rmw::Add,
        "min" => Rmw::Min,
        "max" => Rmw::Max,
        "inc" => Rmw::Inc,
        "dec" => Rmw::Dec,
        "and" => Rmw::And,
        "or" => Rmw::Or,
        "xor" => Rmw::Xor,
        _ => return None,
    })
}

/// The operation on a type, where PTX has it; fewer are there for shared memory.
fn reduction(rmw: Rmw, ty: &str, noftz: bool, shared: bool) -> Option<(Rmw, Type)> {
    let halves = matches!(ty, "f16" | "bf16");
    let legal = match rmw {
        Rmw::Add if halves => noftz && !shared,
        _ if noftz => false,
        Rmw::Add => matches!(ty, "u32" | "s32" | "u64") || !shared && matches!(ty, "f32" | "f64"),
        Rmw::Min | Rmw::Max => {
            matches!(ty, "u32" | "s32") || !shared && (halves || matches!(ty, "u64" | "s64"))
        }
        Rmw::Inc | Rmw::Dec => ty == "u32",
        Rmw::And | Rmw::Or | Rmw::Xor => ty == "b32" || !shared && ty == "b64",
        _ => false,
    };
    legal.then(|| super::instruction::type_named(ty)).flatten().map(|ty| (rmw, ty))
}

/// `.add.u32`, `.add.noftz.f16` and the like.
fn named(name: &str, rest: &[&str], shared: bool) -> Option<(Rmw, Type)> {
    let rmw = operation(name)?;
    match rest {
        ["noftz", ty] => reduction(rmw, ty, true, shared),
        [ty] => reduction(rmw, ty, false, shared),
        _ => None,
    }
}

impl Lowering<'_> {
    /// After `cp.reduce`.
    pub(super) fn bulk_reduction(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let hinted = s.has("L2::cache_hint");
        let m: Vec<&str> = s.modifiers[1..].iter().copied().filter(|m| *m != "L2::cache_hint").collect();
        let o = &i.operands;
        let o = if hinted && !o.is_empty() { &o[..o.len() - 1] } else { o };
        let ["async", "bulk", rest @ ..] = m.as_slice() else { return self.unknown(i) };
        match (rest, o) {
            (["tensor", _, "global", "shared::cta", name, rest @ ..], [Operand::Tensor(map, list), from]) => {
                let (Some(rmw), ["tile", "bulk_group"] | ["bulk_group"]) = (operation(name), rest) else {
                    return self.unknown(i);
                };
                let coordinates = list.iter().map(|c| self.s32(c)).collect::<Lowered<Vec<_>>>()?;
                let (map, from) = (self.address(map)?, self.address(from)?);
                Ok(Kind::TensorStore { map, coordinates, from, reduce: Some(rmw) })
            }
            (["global", "shared::cta", "bulk_group", name, rest @ ..], [to, from, bytes]) => {
                let Some(reduce) = named(name, rest, false) else { return self.unknown(i) };
                let (to, from, bytes) = (self.address(to)?, self.address(from)?, self.s32(bytes)?);
                Ok(Kind::BulkStore { to, from, bytes, reduce: Some(reduce) })
            }
            (
                ["shared::cluster", "shared::cta", "mbarrier::complete_tx::bytes", name, rest @ ..],
                [to, from, bytes, barrier],
            ) => {
                let Some(reduce) = named(name, rest, true) else { return self.unknown(i) };
                let (to, from, bytes) = (self.address(to)?, self.address(from)?, self.s32(bytes)?);
                Ok(Kind::BulkSend { to, from, bytes, barrier: self.address(barrier)?, reduce: Some(reduce) })
            }
            _ => self.unknown(i),
        }
    }
}
