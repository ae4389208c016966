//! `wmma`: products of fragments whose layout PTX leaves open.
//!
//! Accumulators lie as those of `mma.sync` side by side, which is what Ampere and later cards do. A and B lie row by
//! row, a stretch a lane; where PTX asks for more registers than a stretch fills, its elements are repeated.

#![allow(clippy::needless_range_loop, reason = "lanes index several rows at once")]

use crate::mma::{self, Accumulator, Element, Shape};
use crate::numeric;
use crate::row::Row;

/// Which operand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Role {
    A,
    B,
    /// C and D.
    Sum,
}

/// One matrix of an m×n×k product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) role: Role,
    pub(crate) size: [usize; 3],
    /// Bytes of an element.
    pub(crate) bytes: usize,
}

impl Matrix {
    pub(crate) fn rows(&self) -> usize {
        if self.role == Role::B { self.size[2] } else { self.size[0] }
    }

    pub(crate) fn columns(&self) -> usize {
        if self.role == Role::A { self.size[2] } else { self.size[1] }
    }

    /// Elements of a lane.
    pub(crate) fn each(&self) -> usize {
        self.rows() * self.columns() / 32
    }

    /// Registers of a lane, `halves` being f16.
    pub(crate) fn registers(&self, halves: bool) -> usize {
        if halves && self.role != Role::Sum { 8 } else { self.each() * self.bytes / 4 }
    }

    /// Row and column of a lane's element.
    pub(crate) fn place(&self, lane: usize, slot: usize) -> (usize, usize) {
        let slot = slot % self.each();
        if self.role == Role::Sum {
            let (g, q) = (lane / 4, 2 * (lane % 4) + slot % 2);
            return match self.size {
                [8, ..] => (g, q + 8 * (slot / 2)),
                [16, ..] => (g + 8 * (slot / 2 % 2), q + 8 * (slot / 4)),
                _ => (g + 8 * (slot / 2), q),
            };
        }
        let at = lane * self.each() + slot;
        (at / self.columns(), at % self.columns())
    }

    /// The register and the shift of a lane's element.
    pub(crate) fn within(&self, slot: usize) -> (usize, usize) {
        (slot * self.bytes / 4, 8 * (slot * self.bytes % 4))
    }

    /// The codes, row by row.
    fn gather(&self, registers: &[Row]) -> Vec<u32> {
        let mask = u32::MAX >> (32 - 8 * self.bytes);
        let mut out = vec![0; self.rows() * self.columns()];
        for lane in 0..32 {
            for slot in 0..self.each() {
                let ((row, column), (word, by)) = (self.place(lane, slot), self.within(slot));
                out[row * self.columns() + column] = registers[word][lane] >> by & mask;
            }
        }
        out
    }

    fn scatter(&self, codes: &[u32]) -> Vec<Row> {
        let mut out = vec![[0; 32]; self.registers(false)];
        for lane in 0..32 {
            for slot in 0..self.each() {
                let ((row, column), (word, by)) = (self.place(lane, slot), self.within(slot));
                out[word][lane] |= codes[row * self.columns() + column] << by;
            }
        }
        out
    }
}

/// One `wmma.mma`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) size: [usize; 3],
    pub(crate) element: Element,
    pub(crate) other: Element,
    pub(crate) from: Accumulator,
    pub(crate) to: Accumulator,
}

impl Product {
    pub(crate) fn matrix(&self, role: Role, result: bool) -> Matrix {
        let sum = if result { self.to } else { self.from };
        let bytes = match role {
            Role::Sum if sum == Accumulator::F16 => 2,
            Role::Sum => 4,
            _ => self.element.bytes(),
        };
        Matrix { role, size: self.size, bytes }
    }

    /// D = A · B + C, by the products of `mma.sync` that a card makes of it.
    pub(crate) fn multiply(&self, [a, b, c]: [&[Row]; 3], capability: (u32, u32)) -> Vec<Row> {
        let [m, n, k] = self.size;
        let (a, b, c) = self.codes([a, b, c]);
        // Sums of one type only: C is exact in f32, and D is rounded at the end.
        let mixed = self.from != self.to;
        let accumulator = if mixed { Accumulator::F32 } else { self.to };
        let depth = if self.element.bytes() == 4 { 8 } else { 16 };
        let shape = Shape { rows: 16, depth, a: self.element, b: self.other, accumulator };
        let each = 4 / self.element.bytes();
        let pack = |code: &dyn Fn(usize) -> u32, k: usize| {
            (0..each).fold(0, |word, i| word | code(k + i) << (32 / each * i))
        };
        let mut d = vec![0; m * n];
        for row in (0..m).step_by(16) {
            for column in (0..n).step_by(8) {
                let value = |code: u32| match (mixed, self.from) {
                    (true, Accumulator::F16) => numeric::f16_to_f32(code as u16).to_bits(),
                    _ => code,
                };
                let halves = accumulator == Accumulator::F16;
                let at = |lane: usize, r: usize| {
                    let (down, right) = if halves { (r, 0) } else { (r / 2, r % 2) };
                    (row + lane / 4 + 8 * down, column + 2 * (lane % 4) + right)
                };
                let inside = |(r, s): (usize, usize)| (r < m).then_some(r * n + s);
                let mut sums: Vec<Row> = vec![[0; 32]; if halves { 2 } else { 4 }];
                for (r, sum) in sums.iter_mut().enumerate() {
                    for (lane, word) in sum.iter_mut().enumerate() {
                        let Some(from) = inside(at(lane, r)) else { continue };
                        *word = if halves { c[from] | c[from + 1] << 16 } else { value(c[from]) };
                    }
                }
                for k0 in (0..k).step_by(depth) {
                    let (words, _, _) = shape.registers();
                    let left: Vec<Row> = (0..words)
                        .map(|r| {
                            std::array::from_fn(|lane| {
                                let line = row + lane / 4 + 8 * (r % 2);
                                let code = |i: usize| if line < m { a[line * k + k0 + i] } else { 0 };
                                pack(&code, each * (lane % 4 + 4 * (r / 2)))
                            })
                        })
                        .collect();
                    let right: Vec<Row> = (0..words / 2)
                        .map(|r| {
                            std::array::from_fn(|lane| {
                                let code = |i: usize| b[(k0 + i) * n + column + lane / 4];
                                pack(&code, each * (lane % 4 + 4 * r))
                            })
                        })
                        .collect();
                    sums = mma::multiply(&shape, &left, &right, &sums, capability);
                }
                for (r, sum) in sums.iter().enumerate() {
                    for (lane, &word) in sum.iter().enumerate() {
                        let Some(to) = inside(at(lane, r)) else { continue };
                        if halves {
                            (d[to], d[to + 1]) = (word & 0xffff, word >> 16);
                        } else if self.to == Accumulator::F16 {
                            d[to] = numeric::f16_from_f32(f32::from_bits(word)).into();
                        } else {
                            d[to] = word;
                        }
                    }
                }
            }
        }
        self.matrix(Role::Sum, true).scatter(&d)
    }

    /// Undefined bits of D: an output depends on its row of A, its column of B and its own C.
    pub(crate) fn undefined(&self, shadows: [&[Row]; 3]) -> Vec<Row> {
        let [m, n, k] = self.size;
        let (a, b, c) = self.codes(shadows);
        let to = self.matrix(Role::Sum, true);
        let whole = u32::MAX >> (32 - 8 * to.bytes);
        let mut d = vec![0; m * n];
        for row in 0..m {
            for column in 0..n {
                let spoilt =
                    c[row * n + column] != 0 || (0..k).any(|i| a[row * k + i] != 0 || b[i * n + column] != 0);
                d[row * n + column] = if spoilt { whole } else { 0 };
            }
        }
        to.scatter(&d)
    }

    fn codes(&self, [a, b, c]: [&[Row]; 3]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
        let of = |role, registers| self.matrix(role, false).gather(registers);
        (of(Role::A, a), of(Role::B, b), of(Role::Sum, c))
    }
}
