//! Which function computes which arithmetic instruction.

mod compare;
mod double;
mod half;
mod integer;
mod single;

pub(crate) use compare::{class32, class64, compare32, compare64};

use super::program::Rule;
use crate::numeric::Round;
use crate::row::{Row, Row64};
use std::cell::Cell;

pub(crate) type F1 = fn(&Row) -> Row;
pub(crate) type F2 = fn(&Row, &Row) -> Row;
pub(crate) type F3 = fn(&Row, &Row, &Row) -> Row;
pub(crate) type G1 = fn(&Row64) -> Row64;
pub(crate) type G2 = fn(&Row64, &Row64) -> Row64;
pub(crate) type G3 = fn(&Row64, &Row64, &Row64) -> Row64;

/// Opcode after its name: modifiers and types.
pub(crate) struct Spelling<'a> {
    pub(crate) name: &'a str,
    pub(crate) modifiers: Vec<&'a str>,
    /// Modifiers that somebody asked for: one that nobody understood must not be ignored.
    read: Cell<u64>,
}

impl<'a> Spelling<'a> {
    pub(crate) fn new(opcode: &'a [String]) -> Self {
        Self {
            name: &opcode[0],
            modifiers: opcode[1..].iter().map(String::as_str).collect(),
            read: Cell::new(0),
        }
    }

    fn mark(&self, index: usize) {
        self.read.set(self.read.get() | 1 << index);
    }

    pub(crate) fn has(&self, modifier: &str) -> bool {
        let found = self.modifiers.iter().position(|m| *m == modifier);
        if let Some(index) = found {
            self.mark(index);
        }
        found.is_some()
    }

    /// The modifier at an index, or "".
    pub(crate) fn at(&self, index: usize) -> &'a str {
        let Some(modifier) = self.modifiers.get(index) else { return "" };
        self.mark(index);
        modifier
    }

    pub(crate) fn last(&self) -> &'a str {
        self.at(self.modifiers.len().wrapping_sub(1))
    }

    /// Whether every modifier was asked for.
    pub(crate) fn understood(&self) -> bool {
        self.read.get().count_ones() as usize == self.modifiers.len()
    }

    fn round(&self) -> Round {
        if self.has("rz") {
            Round::Zero
        } else if self.has("rm") {
            Round::Down
        } else if self.has("rp") {
            Round::Up
        } else {
            self.has("rn");
            Round::Nearest
        }
    }
}

/// A function over whole registers and how undefined bits go through it.
pub(crate) enum Operation {
    Un32(F1, Rule),
    Bin32(F2, Rule),
    Tri32(F3, Rule),
    Un64(G1, Rule),
    Bin64(G2, Rule),
    Tri64(G3),
    /// 64-bit value and 32-bit count.
    Shift64(fn(&Row64, &Row) -> Row64, Rule),
    /// 64-bit source, 32-bit result.
    Narrow(fn(&Row64) -> Row),
    /// Product of two 32-bit values, plus a 64-bit one.
    MulWide(fn(&Row, &Row, &Row64) -> Row64),
}

/// The operation of an opcode with so many operands.
pub(crate) fn operation(s: &Spelling<'_>, operands: usize) -> Option<Operation> {
    match s.last() {
        "f32" => single::operation(s, operands),
        "f64" => double::operation(s, operands),
        "f16" | "f16x2" | "bf16" | "bf16x2" => half::operation(s, operands),
        _ => integer::operation(s, operands),
    }
}
