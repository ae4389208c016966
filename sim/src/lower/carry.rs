//! Sums and products that keep a carry: `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`.

use super::arithmetic::Spelling;
use super::instruction::type_named;
use super::program::{Kind, SP, Type};
use super::{Lowered, Lowering};
use crate::ast::Instruction;
use crate::counters::Class;

/// The condition code is the predicate that every program has first.
pub(super) const CONDITION_CODE: u32 = 0;

/// What is done before the carry is added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Carried {
    Add,
    Sub,
    /// The product's lower half, and c.
    MadLow,
    /// Its upper half.
    MadHigh,
}

impl Lowering<'_> {
    pub(super) fn carried(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let Some(ty) = type_named(s.last()) else { return self.unknown(i) };
        let how = match (s.name, s.has("lo"), s.has("hi"), o.len()) {
            ("add" | "addc", false, false, 3) => Carried::Add,
            ("sub" | "subc", false, false, 3) => Carried::Sub,
            ("mad" | "madc", true, false, 4) => Carried::MadLow,
            ("mad" | "madc", false, true, 4) => Carried::MadHigh,
            _ => return self.unknown(i),
        };
        if !matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64) {
            return self.unknown(i);
        }
        let sources =
            o[1..].iter().map(|operand| self.src(operand, ty.bytes())).collect::<Lowered<Vec<_>>>()?;
        let (takes, gives) = (s.name.ends_with('c'), s.has("cc"));
        let kind = Kind::Carry {
            how,
            ty,
            d: self.dst(&o[0])?,
            sources,
            takes: takes.then_some(SP { reg: CONDITION_CODE, negated: false }),
            gives: gives.then_some(CONDITION_CODE),
        };
        if s.understood() { Ok((kind, Class::Integer)) } else { self.unknown(i) }
    }
}
