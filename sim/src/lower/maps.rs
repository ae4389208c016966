//! `tensormap`: maps that a kernel makes itself.

use super::arithmetic::Spelling;
use super::program::{Kind, S32, S64, Space, Src};
use super::{Lowered, Lowering};
use crate::ast::{Instruction, Operand};
use crate::counters::Class;
use crate::tensor_map::Field;

fn space(name: &str) -> Option<Space> {
    Some(match name {
        "global" => Space::Global,
        "shared::cta" => Space::Shared,
        _ => return None,
    })
}

impl Lowering<'_> {
    pub(super) fn tensormap(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let kind = match s.modifiers.as_slice() {
            ["replace", "tile", field, place @ .., "b1024", ty] => {
                let space = match place {
                    [] => Space::Generic,
                    [one] => match space(one) {
                        Some(space) => space,
                        None => return self.unknown(i),
                    },
                    _ => return self.unknown(i),
                };
                self.replacement(i, field, space, *ty == "b64")?
            }
            [
                "cp_fenceproxy",
                "global",
                "shared::cta",
                "tensormap::generic",
                "release",
                _,
                "sync",
                "aligned",
            ] => {
                let [to, from, Operand::Integer(128)] = i.operands.as_slice() else {
                    return self.unknown(i);
                };
                Kind::MapCopy { to: self.address(to)?, from: self.address(from)? }
            }
            _ => return self.unknown(i),
        };
        Ok((kind, Class::Other))
    }

    fn replacement(&self, i: &Instruction, name: &str, space: Space, wide: bool) -> Lowered<Kind> {
        let (field, value) = match (name, i.operands.as_slice()) {
            ("global_address", [_, value]) => (Field::Address, value),
            ("rank", [_, value]) => (Field::Rank, value),
            ("elemtype", [_, value @ Operand::Integer(_)]) => (Field::Element, value),
            ("interleave_layout", [_, value @ Operand::Integer(_)]) => (Field::Interleave, value),
            ("swizzle_mode", [_, value @ Operand::Integer(_)]) => (Field::Swizzle, value),
            ("fill_mode", [_, value @ Operand::Integer(_)]) => (Field::Fill, value),
            (_, [_, Operand::Integer(d @ 0..=4), value]) => {
                let d = *d as usize;
                let field = match name {
                    "box_dim" => Field::Tile(d),
                    "global_dim" => Field::Extent(d),
                    "global_stride" if d < 4 => Field::Stride(d),
                    "element_stride" => Field::ElementStride(d),
                    _ => return self.unknown(i),
                };
                (field, value)
            }
            _ => return self.unknown(i),
        };
        let value = match value {
            Operand::Integer(value) if wide => Src::W64(S64::Imm(*value as u64)),
            Operand::Integer(value) => Src::W32(S32::Imm(*value as u32)),
            register => self.src(register, if wide { 8 } else { 4 })?,
        };
        Ok(Kind::MapReplace { field, space, at: self.address(&i.operands[0])?, value })
    }
}
