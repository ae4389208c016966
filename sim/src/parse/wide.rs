//! Registers of 128 bits become two of 64: no operation computes with them, they are moved, loaded, stored and exchanged.

use crate::ast::{Function, Instruction, Operand, Space, Variable, Width};
use std::collections::HashSet;

/// The halves of a wide register.
fn halves(name: &str) -> [String; 2] {
    [format!("{name}.lo"), format!("{name}.hi")]
}

/// Rewrites the function: a wide register as an operand becomes the vector of its halves, a move becomes two.
pub(super) fn split(function: &mut Function) {
    let is_wide = |v: &Variable| v.space == Space::Reg && v.width == Width::B128;
    let wide: HashSet<String> =
        function.variables.iter().filter(|v| is_wide(v)).map(|v| v.name.clone()).collect();
    if wide.is_empty() {
        return;
    }
    function.variables = std::mem::take(&mut function.variables)
        .into_iter()
        .flat_map(|v| match is_wide(&v) {
            true => halves(&v.name)
                .map(|name| Variable { name, width: Width::B64, size: 8, align: 8, ..v.clone() })
                .to_vec(),
            false => vec![v],
        })
        .collect();
    // Where each instruction stands afterwards.
    let mut places = Vec::with_capacity(function.body.len() + 1);
    let mut body = Vec::with_capacity(function.body.len());
    for mut instruction in std::mem::take(&mut function.body) {
        places.push(body.len());
        for operand in &mut instruction.operands {
            if let Operand::Register(name) = operand
                && wide.contains(name)
            {
                *operand = Operand::Vector(halves(name).map(Operand::Register).to_vec());
            }
        }
        match moves(&instruction) {
            Some(pair) => body.extend(pair),
            None => body.push(instruction),
        }
    }
    places.push(body.len());
    function.body = body;
    function.labels.values_mut().for_each(|at| *at = places[*at]);
}

/// `mov.b128` as two moves.
fn moves(instruction: &Instruction) -> Option<[Instruction; 2]> {
    if instruction.opcode != ["mov", "b128"] {
        return None;
    }
    let [Operand::Vector(to), Operand::Vector(from)] = &instruction.operands[..] else { return None };
    let ([_, _], [_, _]) = (&to[..], &from[..]) else { return None };
    Some([0, 1].map(|half| Instruction {
        opcode: vec!["mov".to_owned(), "b64".to_owned()],
        operands: vec![to[half].clone(), from[half].clone()],
        ..instruction.clone()
    }))
}
