//! Comparisons, selections and the logic of predicates.

use super::arithmetic::{self, Spelling};
use super::instruction::type_named;
use super::program::{Kind, Logic, S32, SP, Type};
use super::{Lowered, Lowering};
use crate::ast::{Instruction, Operand};
use crate::counters::Class;

impl Lowering<'_> {
    pub(super) fn predicates(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        match s.name {
            "setp" => self.setp(i, s),
            "selp" => self.selp(i, s),
            _ => self.unknown(i),
        }
    }

    /// `and`, `or`, `xor` and `not` of predicates.
    pub(super) fn predicate_logic(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let (d, a) = (self.predicate(&o[0])?, self.sp(&o[1])?);
        let logic = match (s.name, o.len()) {
            ("not", 2) => {
                let a = SP { reg: a.reg, negated: !a.negated };
                return Ok((Kind::PredMove { d, a }, Class::Integer));
            }
            ("and", 3) => Logic::And,
            ("or", 3) => Logic::Or,
            ("xor", 3) => Logic::Xor,
            _ => return self.unknown(i),
        };
        Ok((Kind::PredLogic { logic, d, a, b: self.sp(&o[2])? }, Class::Integer))
    }

    fn selp(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let (Some(ty), 4) = (type_named(s.last()), o.len()) else { return self.unknown(i) };
        let p = self.sp(&o[3])?;
        let kind = if ty.bytes() == 8 {
            Kind::Select64 { d: self.d64(&o[0])?, a: self.s64(&o[1])?, b: self.s64(&o[2])?, p }
        } else {
            Kind::Select32 { d: self.d32(&o[0])?, a: self.s32(&o[1])?, b: self.s32(&o[2])?, p }
        };
        Ok((kind, Class::Integer))
    }

    fn setp(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let Some(ty) = type_named(s.last()) else { return self.unknown(i) };
        let how = s.modifiers[0];
        let logic = s.modifiers.iter().find_map(|m| match *m {
            "and" => Some(Logic::And),
            "or" => Some(Logic::Or),
            "xor" => Some(Logic::Xor),
            _ => None,
        });
        let (d, other) = match &i.operands[0] {
            Operand::Pair(first, second) => {
                let other = if **second == Operand::Sink { None } else { Some(self.predicate(second)?) };
                (self.predicate(first)?, other)
            }
            single => (self.predicate(single)?, None),
        };
        let with = match (logic, i.operands.get(3)) {
            (Some(logic), Some(p)) => Some((logic, self.sp(p)?)),
            (None, None) => None,
            _ => return self.unknown(i),
        };
        let (a, b) = (&i.operands[1], &i.operands[2]);
        if ty.bytes() == 8 {
            let Some(f) = arithmetic::compare64(how, ty) else { return self.unknown(i) };
            return Ok((Kind::Set64 { f, d, other, a: self.s64(a)?, b: self.s64(b)?, with }, Class::Integer));
        }
        let Some(f) = arithmetic::compare32(how, ty, s.has("ftz")) else { return self.unknown(i) };
        let class = if ty == Type::F32 { Class::Float } else { Class::Integer };
        let (mut a, mut b) = (self.s32(a)?, self.s32(b)?);
        if ty.bytes() == 2 {
            // Immediates of 16-bit comparisons arrive sign-extended.
            for side in [&mut a, &mut b] {
                if let S32::Imm(value) = side {
                    *value &= 0xffff;
                }
            }
        }
        Ok((Kind::Set32 { f, d, other, a, b, with }, class))
    }
}
