//! Operands: names become registers, addresses and labels.

use super::program::{Address, Base, Dst, S32, S64, SP, Src};
use super::{Lowered, Lowering, Place, Register};
use crate::ast::Operand;

impl Lowering<'_> {
    pub(super) fn predicate_named(&self, name: &str) -> Lowered<u32> {
        match self.registers.get(name) {
            Some(Register::Predicate(index)) => Ok(*index),
            _ => self.error(format!("`{name}` is not a predicate")),
        }
    }

    pub(super) fn sp(&self, operand: &Operand) -> Lowered<SP> {
        match operand {
            Operand::Register(name) => Ok(SP { reg: self.predicate_named(name)?, negated: false }),
            Operand::Not(name) => Ok(SP { reg: self.predicate_named(name)?, negated: true }),
            _ => self.error("a predicate expected"),
        }
    }

    pub(super) fn predicate(&self, operand: &Operand) -> Lowered<u32> {
        match operand {
            Operand::Register(name) => self.predicate_named(name),
            _ => self.error("a predicate expected"),
        }
    }

    pub(super) fn s32(&self, operand: &Operand) -> Lowered<S32> {
        Ok(match operand {
            Operand::Register(name) if name == "WARP_SZ" => S32::Imm(32),
            Operand::Register(name) => match self.registers.get(name) {
                Some(Register::R32(index)) => S32::Reg(*index),
                _ => return self.error(format!("`{name}` is not a register of at most 32 bits")),
            },
            Operand::Integer(value) => S32::Imm(*value as u32),
            Operand::Float32(bits) => S32::Imm(*bits),
            Operand::Float64(bits) => S32::Imm((f64::from_bits(*bits) as f32).to_bits()),
            Operand::Symbol(name, addend) => match self.places.get(name) {
                Some(Place::Shared(at)) => S32::Shared(at.wrapping_add(*addend as u32)),
                Some(Place::Local(at) | Place::Param(at)) => S32::Imm(at.wrapping_add(*addend as u32)),
                _ => return self.error(format!("`{name}` has no 32-bit address")),
            },
            _ => return self.error("a 32-bit operand expected"),
        })
    }

    pub(super) fn s64(&self, operand: &Operand) -> Lowered<S64> {
        Ok(match operand {
            Operand::Register(name) => match self.registers.get(name) {
                Some(Register::R64(index)) => S64::Reg(*index),
                _ => return self.error(format!("`{name}` is not a 64-bit register")),
            },
            Operand::Integer(value) => S64::Imm(*value as u64),
            Operand::Float64(bits) => S64::Imm(*bits),
            Operand::Float32(bits) => S64::Imm(f64::from(f32::from_bits(*bits)).to_bits()),
            Operand::Symbol(name, addend) => match self.places.get(name) {
                Some(Place::Shared(at)) => S64::Shared(at.wrapping_add(*addend as u32)),
                Some(Place::Local(at) | Place::Param(at)) => S64::Imm((i64::from(*at) + addend) as u64),
                None => match super::code_address(self.ast, name) {
                    Some(code) => S64::Imm(code),
                    None => return self.error(format!("`{name}` has no address here")),
                },
                _ => return self.error(format!("`{name}` has no address here")),
            },
            _ => return self.error("a 64-bit operand expected"),
        })
    }

    pub(super) fn src(&self, operand: &Operand, bytes: u32) -> Lowered<Src> {
        Ok(if bytes == 8 { Src::W64(self.s64(operand)?) } else { Src::W32(self.s32(operand)?) })
    }

    /// A source whose own register says how wide it is.
    pub(super) fn src_any(&self, operand: &Operand, bytes: u32) -> Lowered<Src> {
        if let Operand::Register(name) = operand {
            return match self.registers.get(name) {
                Some(Register::R32(index)) => Ok(Src::W32(S32::Reg(*index))),
                Some(Register::R64(index)) => Ok(Src::W64(S64::Reg(*index))),
                _ => self.error(format!("`{name}` is not a register")),
            };
        }
        self.src(operand, bytes)
    }

    pub(super) fn d32(&self, operand: &Operand) -> Lowered<u32> {
        match self.dst(operand)? {
            Dst::R32(index) => Ok(index),
            _ => self.error("a 32-bit destination expected"),
        }
    }

    pub(super) fn d64(&self, operand: &Operand) -> Lowered<u32> {
        match self.dst(operand)? {
            Dst::R64(index) => Ok(index),
            _ => self.error("a 64-bit destination expected"),
        }
    }

    pub(super) fn dst(&self, operand: &Operand) -> Lowered<Dst> {
        match operand {
            Operand::Register(name) => match self.registers.get(name) {
                Some(Register::R32(index)) => Ok(Dst::R32(*index)),
                Some(Register::R64(index)) => Ok(Dst::R64(*index)),
                _ => self.error(format!("`{name}` is not a register")),
            },
            Operand::Sink => Ok(Dst::Sink),
            _ => self.error("a destination register expected"),
        }
    }

    pub(super) fn address(&self, operand: &Operand) -> Lowered<Address> {
        let (base, offset) = match operand {
            Operand::Address(base, offset) => (base.as_deref(), *offset),
            Operand::Register(_) | Operand::Symbol(..) => (Some(operand), 0),
            _ => return self.error("an address expected"),
        };
        let Some(base) = base else { return Ok(Address { base: Base::None, offset }) };
        match base {
            Operand::Register(name) => match self.registers.get(name) {
                Some(Register::R32(index)) => Ok(Address { base: Base::R32(*index), offset }),
                Some(Register::R64(index)) => Ok(Address { base: Base::R64(*index), offset }),
                _ => self.error(format!("`{name}` is not an address")),
            },
            Operand::Symbol(name, addend) => match self.places.get(name) {
                Some(Place::Shared(at)) => {
                    let offset = (i64::from(*at) + addend + offset) & 0xff_ffff;
                    Ok(Address { base: Base::Shared, offset })
                }
                Some(Place::Local(at) | Place::Param(at)) => {
                    Ok(Address { base: Base::None, offset: i64::from(*at) + addend + offset })
                }
                Some(Place::Module(index)) => {
                    Ok(Address { base: Base::Variable(*index), offset: addend + offset })
                }
                None => self.error(format!("`{name}` is not declared")),
            },
            _ => self.error("an address expected"),
        }
    }

    pub(super) fn label(&self, operand: &Operand) -> Lowered<u32> {
        match operand {
            Operand::Symbol(name, 0) => match self.labels.get(name) {
                Some(at) => Ok(*at),
                None => self.error(format!("label `{name}` is not defined")),
            },
            _ => self.error("a label expected"),
        }
    }
}
