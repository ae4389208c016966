//! One instruction to one operation: arithmetic, comparison and control flow. The rest is in its neighbours.

use super::arithmetic::{self, Spelling};
use super::opcodes::{self, Family};
use super::program::{Kind, Round, Rule, S64, Type};
use super::rows;
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
        let spelling =
            Spelling { name: &i.opcode[0], modifiers: i.opcode[1..].iter().map(String::as_str).collect() };
        let operands = &i.operands;
        let want = |count: usize| {
            if operands.len() < count {
                self.error(format!("`{}` lacks operands", i.opcode.join(".")))
            } else {
                Ok(())
            }
        };
        let Some(family) = opcodes::family(spelling.name) else { return self.unknown(i) };
        match family {
            Family::Arithmetic | Family::Predicate if spelling.last() == "pred" => {
                want(2)?;
                self.predicate_logic(i, &spelling)
            }
            Family::Arithmetic => self.arithmetic(i, &spelling),
            Family::Predicate => {
                want(3)?;
                self.predicates(i, &spelling)
            }
            Family::Move => {
                want(1)?;
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
            ("trap", _) => Kind::Trap,
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
            ("lop3", _, 5) => {
                let Operand::Integer(lut) = o[4] else { return self.unknown(i) };
                let (a, b, c) = (self.s32(&o[1])?, self.s32(&o[2])?, self.s32(&o[3])?);
                Kind::Lop3 { d: self.d32(&o[0])?, a, b, c, lut: lut as u8 }
            }
            ("bfi", "b32", 5) | ("bfi", "b64", 5) | ("bfe", "u64" | "s64", 4) => return self.bitfield(i, s),
            ("popc", "b64", 2) => Kind::Narrow {
                f: |a| rows::map1(a, u64::count_ones),
                d: self.d32(&o[0])?,
                a: self.s64(&o[1])?,
            },
            ("clz", "b64", 2) => Kind::Narrow {
                f: |a| rows::map1(a, u64::leading_zeros),
                d: self.d32(&o[0])?,
                a: self.s64(&o[1])?,
            },
            ("bfind", "u64", 2) => Kind::Narrow {
                f: |a| rows::map1(a, |a: u64| 63u32.wrapping_sub(a.leading_zeros())),
                d: self.d32(&o[0])?,
                a: self.s64(&o[1])?,
            },
            ("shl", "b64", 3) => Kind::Shift64 {
                f: rows::shift_left64,
                rule: Rule::Shl,
                d: self.d64(&o[0])?,
                a: self.s64(&o[1])?,
                b: self.s32(&o[2])?,
            },
            ("shr", "b64" | "u64", 3) => Kind::Shift64 {
                f: rows::shift_right64,
                rule: Rule::Shr,
                d: self.d64(&o[0])?,
                a: self.s64(&o[1])?,
                b: self.s32(&o[2])?,
            },
            ("shr", "s64", 3) => Kind::Shift64 {
                f: rows::shift_right_signed64,
                rule: Rule::Spread,
                d: self.d64(&o[0])?,
                a: self.s64(&o[1])?,
                b: self.s32(&o[2])?,
            },
            ("mul" | "mad", "u32" | "s32", 3 | 4) if s.has("wide") => {
                let c = if o.len() == 4 { self.s64(&o[3])? } else { S64::Imm(0) };
                let f: fn(&crate::row::Row, &crate::row::Row, &crate::row::Row64) -> crate::row::Row64 =
                    if last == "u32" {
                        |a, b, c| {
                            rows::map3(a, b, c, |a, b, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c))
                        }
                    } else {
                        |a, b, c| {
                            rows::map3(a, b, c, |a, b, c: u64| {
                                ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)
                            })
                        }
                    };
                Kind::MulWide { f, d: self.d64(&o[0])?, a: self.s32(&o[1])?, b: self.s32(&o[2])?, c }
            }
            (_, _, 2) => {
                if let Some((f, rule)) = arithmetic::unary32(s) {
                    Kind::Un32 { f, rule, d: self.d32(&o[0])?, a: self.s32(&o[1])? }
                } else if let Some((f, rule)) = arithmetic::unary64(s) {
                    Kind::Un64 { f, rule, d: self.d64(&o[0])?, a: self.s64(&o[1])? }
                } else {
                    return self.unknown(i);
                }
            }
            (_, _, 3) => {
                if let Some((f, rule)) = arithmetic::binary32(s) {
                    Kind::Bin32 { f, rule, d: self.d32(&o[0])?, a: self.s32(&o[1])?, b: self.s32(&o[2])? }
                } else if let Some((f, rule)) = arithmetic::binary64(s) {
                    Kind::Bin64 { f, rule, d: self.d64(&o[0])?, a: self.s64(&o[1])?, b: self.s64(&o[2])? }
                } else {
                    return self.unknown(i);
                }
            }
            (_, _, 4) => {
                if let Some((f, rule)) = arithmetic::ternary32(s) {
                    let (a, b, c) = (self.s32(&o[1])?, self.s32(&o[2])?, self.s32(&o[3])?);
                    Kind::Tri32 { f, rule, d: self.d32(&o[0])?, a, b, c }
                } else if let Some(f) = arithmetic::ternary64(s) {
                    let (a, b, c) = (self.s64(&o[1])?, self.s64(&o[2])?, self.s64(&o[3])?);
                    Kind::Tri64 { f, d: self.d64(&o[0])?, a, b, c }
                } else {
                    return self.unknown(i);
                }
            }
            _ => return self.unknown(i),
        };
        Ok((kind, class))
    }

    fn bitfield(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let at = if s.name == "bfi" { 3 } else { 2 };
        let (position, length) = (self.s32(&o[at])?, self.s32(&o[at + 1])?);
        let wide = s.last() != "b32";
        let bits = if wide { 8 } else { 4 };
        let a = self.src(&o[1], bits)?;
        let b = if s.name == "bfi" { Some(self.src(&o[2], bits)?) } else { None };
        let d = self.dst(&o[0])?;
        Ok((Kind::BitField { d, a, b, position, length, signed: s.last() == "s64", wide }, Class::Integer))
    }

    fn convert(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        if let Some(kind) = self.convert_packed(i, s)? {
            return Ok((kind, Class::Convert));
        }
        let types: Vec<Type> = s.modifiers.iter().filter_map(|m| type_named(m)).collect();
        let &[to, from] = types.as_slice() else { return self.unknown(i) };
        if s.modifiers.iter().any(|m| matches!(*m, "relu" | "rna" | "satfinite" | "rs")) {
            return self.unknown(i);
        }
        let mut round = Round::Zero;
        let mut integral = false;
        for modifier in &s.modifiers {
            (round, integral) = match *modifier {
                "rn" => (Round::Nearest, integral),
                "rz" => (Round::Zero, integral),
                "rm" => (Round::Down, integral),
                "rp" => (Round::Up, integral),
                "rni" => (Round::Nearest, true),
                "rzi" => (Round::Zero, true),
                "rmi" => (Round::Down, true),
                "rpi" => (Round::Up, true),
                _ => (round, integral),
            };
        }
        let d = self.dst(&i.operands[0])?;
        let a = self.src_any(&i.operands[1], from.bytes())?;
        let kind = Kind::Convert { to, from, round, integral, ftz: s.has("ftz"), sat: s.has("sat"), d, a };
        Ok((kind, Class::Convert))
    }

    /// Conversions that make or read a pair of narrow floats.
    fn convert_packed(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Option<Kind>> {
        use crate::numeric as n;
        let o = &i.operands;
        let tail: Vec<&str> = s
            .modifiers
            .iter()
            .copied()
            .filter(|m| m.contains('f') || m.contains("e4") || m.contains("e5"))
            .collect();
        let rz = s.has("rz");
        let relu = s.has("relu");
        macro_rules! pair {
            ($f:expr, $shift:expr) => {{
                let f: arithmetic::F2 = |a, b| {
                    rows::map2(a, b, |a, b| {
                        u32::from($f(f32::from_bits(a))) << $shift | u32::from($f(f32::from_bits(b)))
                    })
                };
                Some(Kind::Bin32 {
                    f,
                    rule: Rule::Spread,
                    d: self.d32(&o[0])?,
                    a: self.s32(&o[1])?,
                    b: self.s32(&o[2])?,
                })
            }};
        }
        macro_rules! unpair {
            ($f:expr) => {{
                let f: arithmetic::F1 = |a| {
                    rows::map1(a, |a| {
                        let part = |x: u32| u32::from(n::f16_from_f32($f(x as u8)));
                        part(a & 255) | part(a >> 8 & 255) << 16
                    })
                };
                Some(Kind::Un32 { f, rule: Rule::Spread, d: self.d32(&o[0])?, a: self.s32(&o[1])? })
            }};
        }
        let types: Vec<&str> = tail.into_iter().filter(|m| !matches!(*m, "ftz" | "satfinite")).collect();
        Ok(match (types.as_slice(), o.len()) {
            (["bf16x2", "f32"], 3) if relu => {
                pair!(|x: f32| n::bf16_from_f32(if x < 0.0 { 0.0 } else { x }), 16)
            }
            (["bf16x2", "f32"], 3) if rz => pair!(n::bf16_from_f32_rz, 16),
            (["bf16x2", "f32"], 3) => pair!(n::bf16_from_f32, 16),
            (["f16x2", "f32"], 3) if rz => pair!(n::f16_from_f32_rz, 16),
            (["f16x2", "f32"], 3) => pair!(n::f16_from_f32, 16),
            (["e4m3x2", "f32"], 3) if s.has("satfinite") => pair!(n::e4m3_from_f32, 8),
            (["e5m2x2", "f32"], 3) if s.has("satfinite") => pair!(n::e5m2_from_f32, 8),
            (["f16x2", "e4m3x2"], 2) => unpair!(n::e4m3_to_f32),
            (["f16x2", "e5m2x2"], 2) => unpair!(n::e5m2_to_f32),
            _ => None,
        })
    }
}
