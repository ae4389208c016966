//! One instruction to one operation: arithmetic, comparison and control flow. The rest is in its neighbours.

use super::arithmetic::{self, Operation, Spelling};
use super::modifiers;
use super::opcodes::{self, Family};
use super::program::{Kind, S64, Type};
use super::{Lowered, Lowering};
use crate::ast::{Function, Instruction, Operand};
use crate::counters::Class;

pub(super) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "u8" | "b8" => Type::U8,
        "s8" => Type::S8,
        "u16" | "b16" => Type::U16,
        "s16" => Type::S16,
        "u32" | "b32" | "f16x2" | "bf16x2" => Type::U32,
        "s32" => Type::S32,
        "u64" | "b64" => Type::U64,
        "s64" => Type::S64,
        "f16" => Type::F16,
        "bf16" => Type::Bf16,
        "f32" => Type::F32,
        "f64" => Type::F64,
        "pred" => Type::Pred,
        _ => return None,
    })
}

impl Lowering<'_> {
    pub(super) fn unknown<T>(&self, instruction: &Instruction) -> Lowered<T> {
        self.error(format!("the simulator does not know `{}`", instruction.opcode.join(".")))
    }

    pub(super) fn instruction(&mut self, function: &Function, i: &Instruction) -> Lowered<(Kind, Class)> {
        let spelling = Spelling::new(&i.opcode);
        let operands = &i.operands;
        let want = |count: usize| {
            if operands.len() < count {
                self.error(format!("`{}` lacks operands", i.opcode.join(".")))
            } else {
                Ok(())
            }
        };
        if let Some(odd) = modifiers::stranger(spelling.name, &spelling.modifiers) {
            let whole = i.opcode.join(".");
            return self
                .error(format!("the simulator does not know `{whole}`: `.{odd}` means nothing to it"));
        }
        let Some(family) = opcodes::family(spelling.name) else { return self.unknown(i) };
        match family {
            Family::Arithmetic | Family::Predicate if spelling.last() == "pred" => {
                want(2)?;
                self.predicate_logic(i, &spelling)
            }
            Family::Arithmetic if spelling.has("cc") || matches!(spelling.name, "addc" | "subc" | "madc") => {
                self.carried(i, &spelling)
            }
            Family::Arithmetic => self.arithmetic(i, &spelling),
            Family::Predicate => self.predicates(i, &spelling),
            Family::Move => {
                want(match spelling.name {
                    "createpolicy" | "prefetch" | "prefetchu" => 1,
                    "mapa" => 3,
                    _ => 2,
                })?;
                self.moves(i, &spelling)
            }
            Family::Convert => {
                want(2)?;
                self.convert(i, &spelling)
            }
            Family::Transfer => {
                want(1)?;
                self.transfer(i, &spelling)
            }
            Family::Control => self.control(function, i, &spelling),
            Family::Sync => self.sync(i, &spelling),
        }
    }

    fn control(&self, function: &Function, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let operands = &i.operands;
        let kind = match (s.name, operands.len()) {
            ("bra", 1..) => Kind::Branch { target: self.label(&operands[0])? },
            ("brx", 2..) => {
                let Operand::Symbol(list, _) = &operands[1] else {
                    return self.error("a target list expected");
                };
                let Some(names) = function.target_lists.get(list) else {
                    return self.error(format!("target list `{list}` is not defined"));
                };
                let targets = names
                    .iter()
                    .map(|n| self.label(&Operand::Symbol(n.clone(), 0)))
                    .collect::<Lowered<Vec<_>>>()?;
                Kind::BranchIndexed { index: self.s32(&operands[0])?, targets }
            }
            // Patched once every function has its place.
            ("call", _) => Kind::Nothing,
            ("ret", _) if !function.entry => Kind::Return,
            ("ret" | "exit", _) => Kind::Exit,
            // A breakpoint without a debugger ends the kernel too.
            ("trap" | "brkpt", _) => Kind::Trap,
            _ => return self.unknown(i),
        };
        Ok((kind, Class::Control))
    }

    fn arithmetic(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let last = s.last();
        let class = if matches!(last, "f32" | "f64" | "f16" | "bf16" | "f16x2" | "bf16x2") {
            Class::Float
        } else {
            Class::Integer
        };
        let kind = match (s.name, last, o.len()) {
            ("lop3", "b32", 5) => {
                let Operand::Integer(lut) = o[4] else { return self.unknown(i) };
                let (a, b, c) = (self.s32(&o[1])?, self.s32(&o[2])?, self.s32(&o[3])?);
                Kind::Lop3 { d: self.d32(&o[0])?, a, b, c, lut: lut as u8 }
            }
            ("bfi", "b32" | "b64", 5) | ("bfe", "u64" | "s64", 4) => self.bitfield(s, o)?,
            _ => {
                let Some(operation) = arithmetic::operation(s, o.len()) else { return self.unknown(i) };
                self.operation(operation, o)?
            }
        };
        if !s.understood() {
            return self.unknown(i);
        }
        Ok((kind, class))
    }

    fn operation(&self, operation: Operation, o: &[Operand]) -> Lowered<Kind> {
        Ok(match operation {
            Operation::Un32(f, rule) => Kind::Un32 { f, rule, d: self.d32(&o[0])?, a: self.s32(&o[1])? },
            Operation::Bin32(f, rule) => {
                Kind::Bin32 { f, rule, d: self.d32(&o[0])?, a: self.s32(&o[1])?, b: self.s32(&o[2])? }
            }
            Operation::Tri32(f, rule) => {
                let (a, b, c) = (self.s32(&o[1])?, self.s32(&o[2])?, self.s32(&o[3])?);
                Kind::Tri32 { f, rule, d: self.d32(&o[0])?, a, b, c }
            }
            Operation::Un64(f, rule) => Kind::Un64 { f, rule, d: self.d64(&o[0])?, a: self.s64(&o[1])? },
            Operation::Bin64(f, rule) => {
                Kind::Bin64 { f, rule, d: self.d64(&o[0])?, a: self.s64(&o[1])?, b: self.s64(&o[2])? }
            }
            Operation::Tri64(f) => {
                let (a, b, c) = (self.s64(&o[1])?, self.s64(&o[2])?, self.s64(&o[3])?);
                Kind::Tri64 { f, d: self.d64(&o[0])?, a, b, c }
            }
            Operation::Shift64(f, rule) => {
                Kind::Shift64 { f, rule, d: self.d64(&o[0])?, a: self.s64(&o[1])?, b: self.s32(&o[2])? }
            }
            Operation::Narrow(f) => Kind::Narrow { f, d: self.d32(&o[0])?, a: self.s64(&o[1])? },
            Operation::MulWide(f) => {
                let c = o.get(3).map_or(Ok(S64::Imm(0)), |c| self.s64(c))?;
                Kind::MulWide { f, d: self.d64(&o[0])?, a: self.s32(&o[1])?, b: self.s32(&o[2])?, c }
            }
        })
    }

    fn bitfield(&self, s: &Spelling<'_>, o: &[Operand]) -> Lowered<Kind> {
        let at = if s.name == "bfi" { 3 } else { 2 };
        let (position, length) = (self.s32(&o[at])?, self.s32(&o[at + 1])?);
        let wide = s.last() != "b32";
        let bits = if wide { 8 } else { 4 };
        let a = self.src(&o[1], bits)?;
        let b = if s.name == "bfi" { Some(self.src(&o[2], bits)?) } else { None };
        let d = self.dst(&o[0])?;
        Ok(Kind::BitField { d, a, b, position, length, signed: s.last() == "s64", wide })
    }
}
