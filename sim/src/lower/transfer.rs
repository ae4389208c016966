//! Loads, stores, atomics and matrix transfers.

use super::arithmetic::Spelling;
use super::instruction::type_named;
use super::program::{Dst, Kind, Rmw, Space, Src, Type};
use super::{Lowered, Lowering};
use crate::ast::{Instruction, Operand};
use crate::counters::Class;

fn space_of(s: &Spelling<'_>) -> Option<Space> {
    for modifier in &s.modifiers {
        match *modifier {
            "global" | "const" => return Some(Space::Global),
            "shared" | "shared::cta" => return Some(Space::Shared),
            "shared::cluster" => return Some(Space::Cluster),
            "local" => return Some(Space::Local),
            "param" | "param::entry" | "param::func" => return Some(Space::Param),
            _ => {}
        }
    }
    Some(Space::Generic)
}

fn rmw_of(s: &Spelling<'_>) -> Option<Rmw> {
    s.modifiers.iter().find_map(|m| {
        Some(match *m {
            "add" => Rmw::Add,
            "min" => Rmw::Min,
            "max" => Rmw::Max,
            "and" => Rmw::And,
            "or" => Rmw::Or,
            "xor" => Rmw::Xor,
            "exch" => Rmw::Exch,
            "cas" => Rmw::Cas,
            "inc" => Rmw::Inc,
            "dec" => Rmw::Dec,
            _ => return None,
        })
    })
}

/// Type and number of what one access moves; 128 bits count as two of 64.
fn elements(s: &Spelling<'_>) -> Option<(Type, Option<usize>)> {
    let count = s.modifiers.iter().find_map(|m| match *m {
        "v2" => Some(2),
        "v4" => Some(4),
        "v8" => Some(8),
        _ => None,
    });
    match s.last() {
        "b128" if count.is_none() => Some((Type::U64, Some(2))),
        last => Some((type_named(last)?, count)),
    }
}

fn class(space: Space) -> Class {
    match space {
        Space::Global | Space::Generic => Class::Global,
        Space::Shared | Space::Cluster => Class::Shared,
        Space::Param | Space::Local => Class::Other,
    }
}

impl Lowering<'_> {
    pub(super) fn transfer(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        match s.name {
            "st" | "red" if s.modifiers.first() == Some(&"async") => return self.send(i, s),
            "ldmatrix" | "stmatrix" => return self.matrix(i, s),
            "tensormap" => return self.tensormap(i, s),
            "atom" | "red" => return self.atomic(i, s),
            _ => {}
        }
        let Some((ty, count)) = elements(s) else { return self.unknown(i) };
        let Some(space) = space_of(s) else { return self.unknown(i) };
        let list = |operand: &Operand| match operand {
            Operand::Vector(list) => list.clone(),
            single => vec![single.clone()],
        };
        if ty.bytes() as usize * count.unwrap_or(1) > 16 {
            return self.error(format!("`{}`: this card moves at most 16 bytes at once", i.opcode.join(".")));
        }
        let address = if s.name == "st" { o.first() } else { o.get(1) };
        let Some(address) = address else { return self.unknown(i) };
        let mut at = self.address(address)?;
        let mut space = space;
        // `.param` of a call sequence is local memory; of an entry, the parameter block.
        if space == Space::Param && self.is_local(address) {
            space = Space::Local;
        }
        if let (Space::Param, super::program::Base::Variable(_)) = (space, at.base) {
            return self.error("a parameter expected");
        }
        if space == Space::Local && s.name == "st" && !self.is_local(address) && s.has("param") {
            return self.error("kernel parameters cannot be stored to");
        }
        at.offset =
            if matches!(at.base, super::program::Base::None) { at.offset & 0xffff_ffff } else { at.offset };
        if s.name == "st" {
            let Some(value) = o.get(1) else { return self.unknown(i) };
            let from =
                list(value).iter().map(|v| self.src_any(v, ty.bytes())).collect::<Lowered<Vec<Src>>>()?;
            if from.len() != count.unwrap_or(1) {
                return self.unknown(i);
            }
            Ok((Kind::Store { space, ty, to: at, from }, class(space)))
        } else {
            let extended = |d| match d {
                Dst::R32(register) if ty == Type::S8 && self.is_narrow(register) => Dst::R16(register),
                d => d,
            };
            let to = list(&o[0]).iter().map(|d| Ok(extended(self.dst(d)?))).collect::<Lowered<Vec<Dst>>>()?;
            if to.len() != count.unwrap_or(1) {
                return self.unknown(i);
            }
            Ok((Kind::Load { space, ty, to, from: at }, class(space)))
        }
    }

    fn is_local(&self, operand: &Operand) -> bool {
        let base = match operand {
            Operand::Address(Some(base), _) => base,
            _ => return false,
        };
        match base.as_ref() {
            Operand::Symbol(name, _) => matches!(self.places.get(name), Some(super::Place::Local(_))),
            _ => false,
        }
    }

    fn atomic(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let Some((ty, elements)) = elements(s) else { return self.unknown(i) };
        let Some(space) = space_of(s) else { return self.unknown(i) };
        let reduction = s.name == "red";
        let Some(rmw) = rmw_of(s) else { return self.unknown(i) };
        let rmw = match (rmw, s.last()) {
            (Rmw::Add, "f16x2") => Rmw::AddPair(Type::F16),
            (Rmw::Add, "bf16x2") => Rmw::AddPair(Type::Bf16),
            (Rmw::Add, "f16" | "bf16" | "u32" | "s32" | "u64" | "f32" | "f64") => rmw,
            (Rmw::Min | Rmw::Max, "u32" | "s32" | "u64" | "s64") => rmw,
            (Rmw::And | Rmw::Or | Rmw::Xor, "b32" | "b64") | (Rmw::Inc | Rmw::Dec, "u32") => rmw,
            (Rmw::Exch, "b32" | "b64" | "b128") | (Rmw::Cas, "b16" | "b32" | "b64" | "b128")
                if !reduction =>
            {
                rmw
            }
            _ => return self.unknown(i),
        };
        // Vectors are of floats, in global memory, and of at most 16 bytes.
        let floating = matches!(s.last(), "f32" | "f16" | "bf16" | "f16x2" | "bf16x2");
        let vector = elements.filter(|_| s.last() != "b128");
        if vector.is_some_and(|count| {
            !floating || matches!(space, Space::Shared | Space::Cluster) || count as u32 * ty.bytes() > 16
        }) {
            return self.unknown(i);
        }
        let list = |operand: &Operand| match operand {
            Operand::Vector(list) => list.clone(),
            single => vec![single.clone()],
        };
        let rest = if reduction { &o[..] } else { &o[1..] };
        if rest.len() < 2 {
            return self.unknown(i);
        }
        let sources = list(&rest[1]);
        let targets = if reduction { vec![Operand::Sink; sources.len()] } else { list(&o[0]) };
        if sources.len() != elements.unwrap_or(1) || targets.len() != sources.len() {
            return self.unknown(i);
        }
        let parts = targets
            .iter()
            .zip(&sources)
            .map(|(d, b)| Ok((self.dst(d)?, self.src(b, ty.bytes())?)))
            .collect::<Lowered<Vec<_>>>()?;
        let c = match (rmw, rest.get(2)) {
            (Rmw::Cas, Some(c)) => {
                list(c).iter().map(|c| self.src(c, ty.bytes())).collect::<Lowered<Vec<_>>>()?
            }
            (Rmw::Cas, None) => return self.unknown(i),
            _ => Vec::new(),
        };
        if rmw == Rmw::Cas && c.len() != parts.len() {
            return self.unknown(i);
        }
        Ok((Kind::Atomic { space, ty, rmw, parts, at: self.address(&rest[0])?, c }, class(space)))
    }

    /// `st.async` and `red.async` to shared memory of the cluster.
    fn send(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let (o, rmw) = (&i.operands, rmw_of(s));
        let (Some(ty), true) = (type_named(s.last()), s.has("mbarrier::complete_tx::bytes")) else {
            return self.unknown(i);
        };
        if o.len() != 3
            || ty.bytes() < 4
            || (s.name == "red") != rmw.is_some()
            || matches!(rmw, Some(Rmw::Exch | Rmw::Cas))
        {
            return self.unknown(i);
        }
        let values = match &o[1] {
            Operand::Vector(list) => {
                list.iter().map(|v| self.src_any(v, ty.bytes())).collect::<Lowered<_>>()?
            }
            single => vec![self.src_any(single, ty.bytes())?],
        };
        let (to, barrier) = (self.address(&o[0])?, self.address(&o[2])?);
        Ok((Kind::Send { ty, rmw, to, values, barrier }, Class::Shared))
    }

    fn matrix(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        if !s.has("m8n8") || s.last() != "b16" || o.len() < 2 {
            return self.unknown(i);
        }
        let trans = s.has("trans");
        let list = |operand: &Operand| match operand {
            Operand::Vector(list) => list.clone(),
            single => vec![single.clone()],
        };
        let kind = if s.name == "ldmatrix" {
            let to = list(&o[0]).iter().map(|d| self.d32(d)).collect::<Lowered<Vec<_>>>()?;
            Kind::LoadMatrix { to, trans, at: self.address(&o[1])? }
        } else {
            let from = list(&o[1]).iter().map(|d| self.s32(d)).collect::<Lowered<Vec<_>>>()?;
            Kind::StoreMatrix { from, trans, at: self.address(&o[0])? }
        };
        Ok((kind, Class::Shared))
    }
}
