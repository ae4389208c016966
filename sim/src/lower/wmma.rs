//! `wmma.load`, `wmma.store` and `wmma.mma`.

use super::arithmetic::Spelling;
use super::program::{Form, Fragment, Kind, S32, Space};
use super::{Lowered, Lowering};
use crate::ast::{Instruction, Operand};
use crate::fragments::{Matrix, Product, Role};
use crate::mma::{Accumulator, Element};

fn size_named(name: &str) -> Option<[usize; 3]> {
    Some(match name {
        "m16n16k16" => [16, 16, 16],
        "m32n8k16" => [32, 8, 16],
        "m8n32k16" => [8, 32, 16],
        "m16n16k8" => [16, 16, 8],
        _ => return None,
    })
}

fn sum_named(name: &str, saturate: bool) -> Option<Accumulator> {
    Some(match (name, saturate) {
        ("f32", false) => Accumulator::F32,
        ("f16", false) => Accumulator::F16,
        ("s32", saturate) => Accumulator::S32 { saturate },
        _ => return None,
    })
}

/// Only tf32 has products of eight along k.
fn fits(size: [usize; 3], element: Element) -> bool {
    !element.is_fp8() && (size[2] == 8) == (element == Element::Tf32)
}

fn list(operand: &Operand) -> Vec<Operand> {
    match operand {
        Operand::Vector(list) => list.clone(),
        one => vec![one.clone()],
    }
}

impl Lowering<'_> {
    pub(super) fn wmma(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        match s.at(0) {
            "mma" => self.wmma_multiply(i, s),
            "load" | "store" => self.wmma_transfer(i, s),
            _ => self.unknown(i),
        }
    }

    fn wmma_transfer(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let (o, load) = (&i.operands, s.at(0) == "load");
        let [_, role, "sync", "aligned", layout @ ("row" | "col"), size, rest @ .., ty] =
            s.modifiers.as_slice()
        else {
            return self.unknown(i);
        };
        let space = match rest {
            [] => Space::Generic,
            ["global"] => Space::Global,
            ["shared" | "shared::cta"] => Space::Shared,
            _ => return self.unknown(i),
        };
        let (Some(size), 2..=3) = (size_named(size), o.len()) else { return self.unknown(i) };
        let (role, bytes) = match (*role, Element::named(ty)) {
            ("a", Some(element)) if load && fits(size, element) => (Role::A, element.bytes()),
            ("b", Some(element)) if load && fits(size, element) => (Role::B, element.bytes()),
            ("c" | "d", _) if load == (*role == "c") => match sum_named(ty, false) {
                Some(Accumulator::F16) => (Role::Sum, 2),
                Some(_) => (Role::Sum, 4),
                None => return self.unknown(i),
            },
            _ => return self.unknown(i),
        };
        let form = Form { matrix: Matrix { role, size, bytes }, by_rows: *layout == "row" };
        let (registers, at) = if load { (list(&o[0]), &o[1]) } else { (list(&o[1]), &o[0]) };
        if registers.len() != form.matrix.registers(*ty == "f16") {
            return self.error(format!("`{}` has the wrong number of registers", i.opcode.join(".")));
        }
        let at = self.address(at)?;
        let stride = o.get(2).map(|stride| self.s32(stride)).transpose()?;
        Ok(Kind::Fragment(Box::new(if load {
            let to = registers.iter().map(|d| self.dst(d)).collect::<Lowered<_>>()?;
            Fragment::Load { form, to, space, at, stride }
        } else {
            let from = registers.iter().map(|r| self.s32(r)).collect::<Lowered<_>>()?;
            Fragment::Store { form, from, space, at, stride }
        })))
    }

    fn wmma_multiply(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let ([_, "sync", "aligned", "row" | "col", "row" | "col", size, rest @ ..], [d, a, b, c]) =
            (s.modifiers.as_slice(), i.operands.as_slice())
        else {
            return self.unknown(i);
        };
        let (saturate, rest) = match rest {
            [rest @ .., "satfinite"] => (true, rest),
            rest => (false, rest),
        };
        let (to, element, other, from) = match rest {
            [to, from] => (to, "f16", "f16", from),
            [to, a, b, from] => (to, *a, *b, from),
            _ => return self.unknown(i),
        };
        let (Some(size), Some(element), Some(other), Some(to), Some(from)) = (
            size_named(size),
            Element::named(element),
            Element::named(other),
            sum_named(to, saturate),
            sum_named(from, saturate),
        ) else {
            return self.unknown(i);
        };
        let integer = |sum| matches!(sum, Accumulator::S32 { .. });
        let legal = match element {
            Element::F16 => !integer(to) && !integer(from),
            Element::S8 | Element::U8 => integer(to) && integer(from),
            _ => to == Accumulator::F32 && from == Accumulator::F32,
        };
        if element != other || !legal || !fits(size, element) {
            return self.unknown(i);
        }
        let product = Product { size, element, other, from, to };
        let sources =
            |operand: &Operand| -> Lowered<Vec<S32>> { list(operand).iter().map(|r| self.s32(r)).collect() };
        let (a, b, c) = (sources(a)?, sources(b)?, sources(c)?);
        let d = list(d).iter().map(|r| self.d32(r)).collect::<Lowered<Vec<_>>>()?;
        let halves = element == Element::F16;
        let count = |role, result| product.matrix(role, result).registers(halves);
        if [a.len(), b.len(), c.len(), d.len()]
            != [count(Role::A, false), count(Role::B, false), count(Role::Sum, false), count(Role::Sum, true)]
        {
            return self.error(format!("`{}` has the wrong number of registers", i.opcode.join(".")));
        }
        Ok(Kind::Fragment(Box::new(Fragment::Multiply { product, d, a, b, c })))
    }
}
