//! `mma.sync` and `movmatrix`.

use super::arithmetic::Spelling;
use super::program::{Kind, Mma, S32};
use super::{Lowered, Lowering};
use crate::ast::{Instruction, Operand};
use crate::mma::{Accumulator, Element, Shape};

impl Lowering<'_> {
    pub(super) fn mma(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let (m, o) = (s.modifiers.as_slice(), &i.operands);
        let (["sync", "aligned", size, "row", "col", rest @ ..], [d, a, b, c]) = (m, o.as_slice()) else {
            return self.unknown(i);
        };
        let (saturate, rest) = match rest {
            ["satfinite", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let &[to, ta, tb, from] = rest else { return self.unknown(i) };
        let accumulator = match (to, from, saturate) {
            ("f32", "f32", false) => Accumulator::F32,
            ("f16", "f16", false) => Accumulator::F16,
            ("s32", "s32", saturate) => Accumulator::S32 { saturate },
            _ => return self.unknown(i),
        };
        let dimensions = size.strip_prefix('m').and_then(|rest| {
            let (rows, rest) = rest.split_once("n8k")?;
            Some((rows.parse::<usize>().ok()?, rest.parse::<usize>().ok()?))
        });
        let (Some((rows, depth)), Some(a_type), Some(b_type)) =
            (dimensions, Element::named(ta), Element::named(tb))
        else {
            return self.unknown(i);
        };
        let shape = Shape { rows, depth, a: a_type, b: b_type, accumulator };
        if !shape.is_legal() {
            return self.unknown(i);
        }
        let sources = |operand: &Operand| -> Lowered<Vec<S32>> {
            match operand {
                Operand::Vector(list) => list.iter().map(|r| self.s32(r)).collect(),
                one => Ok(vec![self.s32(one)?]),
            }
        };
        let d = match d {
            Operand::Vector(list) => list.iter().map(|r| self.dst(r)).collect::<Lowered<Vec<_>>>()?,
            one => vec![self.dst(one)?],
        };
        let (a, b, c) = (sources(a)?, sources(b)?, sources(c)?);
        if (a.len(), b.len(), c.len()) != shape.registers() || d.len() != c.len() {
            let (a, b, c) = shape.registers();
            return self.error(format!("`{}` takes {a}, {b} and {c} registers", i.opcode.join(".")));
        }
        Ok(Kind::Mma(Box::new(Mma { shape, d, a, b, c })))
    }

    /// `mma.sync` of f64.
    pub(super) fn mma_double(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let (["sync", "aligned", size, "row", "col", rest @ ..], [d, a, b, c]) =
            (s.modifiers.as_slice(), i.operands.as_slice())
        else {
            return self.unknown(i);
        };
        let (rows, depth) = match *size {
            "m8n8k4" => (8, 4),
            "m16n8k4" => (16, 4),
            "m16n8k8" => (16, 8),
            "m16n8k16" => (16, 16),
            _ => return self.unknown(i),
        };
        if rest.strip_prefix(&["rn"]).unwrap_or(rest) != ["f64"; 4] {
            return self.unknown(i);
        }
        let list = |operand: &Operand| match operand {
            Operand::Vector(list) => list.clone(),
            one => vec![one.clone()],
        };
        let sources =
            |operand: &Operand| list(operand).iter().map(|r| self.s64(r)).collect::<Lowered<Vec<_>>>();
        let (a, b, c) = (sources(a)?, sources(b)?, sources(c)?);
        let d = list(d).iter().map(|r| self.d64(r)).collect::<Lowered<Vec<_>>>()?;
        let counts = [rows / 8 * depth / 4, depth / 4, rows / 4, rows / 4];
        if [a.len(), b.len(), c.len(), d.len()] != counts {
            return self.error(format!("`{}` has the wrong number of registers", i.opcode.join(".")));
        }
        Ok(Kind::MmaDouble { rows, depth, d, a, b, c })
    }

    pub(super) fn transposition(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        match (s.modifiers.as_slice(), i.operands.as_slice()) {
            (["sync", "aligned", "m8n8", "trans", "b16"], [d, a]) => {
                Ok(Kind::Transpose { d: self.d32(d)?, a: self.s32(a)? })
            }
            _ => self.unknown(i),
        }
    }
}
