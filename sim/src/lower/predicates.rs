//! Comparisons, selections and the logic of predicates.

use super::arithmetic::{self, Spelling};
use super::instruction::type_named;
use super::program::{Kind, Logic, SP, Test, Type};
use super::{Lowered, Lowering};
use crate::ast::{Instruction, Operand};
use crate::counters::Class;

impl Lowering<'_> {
    pub(super) fn predicates(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let need = if s.name == "testp" { 2 } else { 3 };
        if i.operands.len() < need || s.modifiers.len() < 1 + usize::from(matches!(s.name, "set" | "slct")) {
            return self.unknown(i);
        }
        let lowered = match s.name {
            "setp" => self.setp(i, s),
            "set" => self.set(i, s),
            "selp" => self.selp(i, s),
            "slct" => self.slct(i, s),
            "testp" => self.testp(i, s),
            _ => self.unknown(i),
        }?;
        if s.understood() { Ok(lowered) } else { self.unknown(i) }
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
        let (d, other) = match &i.operands[0] {
            Operand::Pair(first, second) => {
                let other = if **second == Operand::Sink { None } else { Some(self.predicate(second)?) };
                (self.predicate(first)?, other)
            }
            single => (self.predicate(single)?, None),
        };
        let with = self.combination(i, s)?;
        let (how, ftz) = (s.at(0), s.has("ftz"));
        let (a, b) = (&i.operands[1], &i.operands[2]);
        let Some(ty) = compared(s.last()) else { return self.unknown(i) };
        let class = if float(ty) { Class::Float } else { Class::Integer };
        if ty.bytes() == 8 {
            let Some(f) = arithmetic::compare64(how, ty) else { return self.unknown(i) };
            return Ok((Kind::Set64 { f, d, other, a: self.s64(a)?, b: self.s64(b)?, with }, class));
        }
        let Some(f) = arithmetic::compare32(how, ty, ftz) else { return self.unknown(i) };
        let (a, b) = (self.s32(a)?, self.s32(b)?);
        if s.last().ends_with("x2") {
            return Ok((Kind::SetPacked { f, d, other, a, b, with }, class));
        }
        Ok((Kind::Set32 { f, d, other, a, b, with }, class))
    }

    /// `set`: a comparison whose result is all ones or 1.0.
    fn set(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let with = self.combination(i, s)?;
        let (how, ftz) = (s.at(0), s.has("ftz"));
        let packed = s.last().ends_with("x2");
        let Some(ty) = compared(s.last()) else { return self.unknown(i) };
        let yes = match (s.at(s.modifiers.len() - 2), packed) {
            ("u32" | "s32", false) => u32::MAX,
            ("u32" | "s32", true) | ("u16" | "s16", false) => 0xffff,
            ("f32", false) => 1f32.to_bits(),
            ("f16", false) | ("f16x2", true) => 0x3c00,
            ("bf16", false) | ("bf16x2", true) => 0x3f80,
            _ => return self.unknown(i),
        };
        let test = if ty.bytes() == 8 {
            arithmetic::compare64(how, ty).map(Test::Wide)
        } else {
            arithmetic::compare32(how, ty, ftz).map(Test::Narrow)
        };
        let Some(test) = test else { return self.unknown(i) };
        let (a, b) = (self.src(&o[1], ty.bytes())?, self.src(&o[2], ty.bytes())?);
        let class = if float(ty) { Class::Float } else { Class::Integer };
        Ok((Kind::SetValue { test, d: self.d32(&o[0])?, yes, packed, a, b, with }, class))
    }

    /// The predicate that a comparison's result is combined with.
    fn combination(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Option<(Logic, SP)>> {
        let logic = match (s.has("and"), s.has("or"), s.has("xor")) {
            (true, ..) => Some(Logic::And),
            (_, true, _) => Some(Logic::Or),
            (.., true) => Some(Logic::Xor),
            _ => None,
        };
        match (logic, i.operands.get(3)) {
            (Some(logic), Some(p)) => Ok(Some((logic, self.sp(p)?))),
            (None, None) => Ok(None),
            _ => self.unknown(i),
        }
    }

    fn testp(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let d = self.predicate(&o[0])?;
        let (how, other, with) = (s.at(0), None, None);
        let kind = match s.last() {
            "f32" => arithmetic::class32(how).map(|f| {
                let a = self.s32(&o[1])?;
                Ok(Kind::Set32 { f, d, other, a, b: a, with })
            }),
            "f64" => arithmetic::class64(how).map(|f| {
                let a = self.s64(&o[1])?;
                Ok(Kind::Set64 { f, d, other, a, b: a, with })
            }),
            _ => None,
        };
        match kind {
            Some(kind) => Ok((kind?, Class::Float)),
            None => self.unknown(i),
        }
    }

    fn slct(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let (Some(ty), 4) = (type_named(s.at(s.modifiers.len() - 2)), o.len()) else {
            return self.unknown(i);
        };
        let float = match s.last() {
            "s32" => false,
            // Flushing changes no sign, and a zero of either sign counts as not negative.
            "f32" => {
                s.has("ftz");
                true
            }
            _ => return self.unknown(i),
        };
        let (a, b, c) = (self.src(&o[1], ty.bytes())?, self.src(&o[2], ty.bytes())?, self.s32(&o[3])?);
        Ok((Kind::SelectSign { d: self.dst(&o[0])?, a, b, c, float }, Class::Integer))
    }
}

fn float(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
}

/// Type of the values that a comparison compares, of one half where they are packed.
fn compared(name: &str) -> Option<Type> {
    match name {
        "f16x2" => Some(Type::F16),
        "bf16x2" => Some(Type::Bf16),
        _ => type_named(name),
    }
}
