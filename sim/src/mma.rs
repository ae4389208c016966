//! `mma.sync`: one small product of a warp, its fragments and its arithmetic.
//!
//! Lane l of a warp, g = l / 4 and q = l mod 4, holds 32-bit words of the operands. Word r of A covers row
//! g + 8·(r mod 2) (of sixteen rows; row g of eight) and the elements of k that begin at `each`·(q + 4·⌊r / 2⌋), `each`
//! being the elements of a word; word r of B covers column g and the elements of k from `each`·(q + 4·r) on. C and D
//! hold columns 2q and 2q + 1 of rows g and g + 8.

use crate::numeric;
use crate::row::Row;
use crate::tensor_core::{self, Arithmetic, Format, Left, Right, fused_sum, fused_sum_f16};
use std::sync::LazyLock;

/// Element type of A or B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// `.e4m3`
    E4m3,
    /// `.e5m2`
    E5m2,
    /// `.f16`
    F16,
    /// `.bf16`
    Bf16,
    /// `.tf32`: an f32 whose last thirteen bits are ignored.
    Tf32,
    /// `.s8`
    S8,
    /// `.u8`
    U8,
}

impl Element {
    /// The element type of a PTX name without its dot.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "e4m3" => Self::E4m3,
            "e5m2" => Self::E5m2,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "tf32" => Self::Tf32,
            "s8" => Self::S8,
            "u8" => Self::U8,
            _ => return None,
        })
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Element::E4m3 | Element::E5m2 | Element::S8 | Element::U8 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::Tf32 => 4,
        }
    }

    /// Whether the element is an integer.
    pub const fn is_integer(self) -> bool {
        matches!(self, Element::S8 | Element::U8)
    }

    /// Whether the element is an 8-bit float.
    pub const fn is_fp8(self) -> bool {
        matches!(self, Element::E4m3 | Element::E5m2)
    }

    /// The value of a code, as a float.
    pub fn value(self, code: u32) -> f32 {
        match self {
            Element::E4m3 => numeric::e4m3_to_f32(code as u8),
            Element::E5m2 => numeric::e5m2_to_f32(code as u8),
            Element::F16 => numeric::f16_to_f32(code as u16),
            Element::Bf16 => numeric::bf16_to_f32(code as u16),
            Element::Tf32 => f32::from_bits(code & !0x1fff),
            Element::S8 | Element::U8 => self.integer(code) as f32,
        }
    }

    pub(crate) fn integer(self, code: u32) -> i64 {
        if self == Element::S8 { i64::from(code as i8) } else { i64::from(code as u8) }
    }

    /// The format whose exponents the tensor core sees.
    pub(crate) fn format(self) -> Format {
        match self {
            Element::E4m3 => Format::E4m3,
            Element::E5m2 => Format::E5m2,
            Element::F16 => Format::F16,
            _ => Format::Bf16,
        }
    }
}

/// Type of C and D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accumulator {
    /// `.f32`
    F32,
    /// `.f16`, two in a register.
    F16,
    /// `.s32`; saturating where `.satfinite` says so.
    S32 {
        /// `.satfinite`
        saturate: bool,
    },
}

/// Shape and types of one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of A: 8 or 16. There are always 8 columns of B.
    pub rows: usize,
    /// Elements along k.
    pub depth: usize,
    /// Elements of A.
    pub a: Element,
    /// Elements of B.
    pub b: Element,
    /// Type of C and D.
    pub accumulator: Accumulator,
}

impl Shape {
    /// Whether PTX has this combination.
    pub fn is_legal(&self) -> bool {
        let Shape { rows, depth, a, b, accumulator } = *self;
        let floats = matches!(accumulator, Accumulator::F32 | Accumulator::F16);
        match (rows, depth) {
            (16, 8 | 16) if a == Element::F16 && b == a => floats,
            (16, 8 | 16) if a == Element::Bf16 && b == a => accumulator == Accumulator::F32,
            (16, 4 | 8) if a == Element::Tf32 && b == a => accumulator == Accumulator::F32,
            (16, 16 | 32) if a.is_fp8() && b.is_fp8() => floats,
            (8, 16) | (16, 16 | 32) if a.is_integer() && b.is_integer() => !floats,
            _ => false,
        }
    }

    /// Registers of A, of B, and of C or D.
    pub fn registers(&self) -> (usize, usize, usize) {
        let words = self.depth * self.a.bytes() / 16;
        let pairs = if self.accumulator == Accumulator::F16 { 1 } else { 2 };
        (words * self.rows / 8, words, self.rows / 8 * pairs)
    }
}

/// Codes of a matrix, line by line (rows of A, columns of B), k along a line.
struct Codes {
    codes: Vec<u32>,
    depth: usize,
}

impl Codes {
    /// `halves`: two rows of eight lines in turn (A of sixteen rows).
    fn new(registers: &[Row], element: Element, depth: usize, halves: usize) -> Self {
        let (bytes, each) = (element.bytes(), 4 / element.bytes());
        let mut codes = vec![0; 8 * halves * depth];
        for (r, register) in registers.iter().enumerate() {
            for (lane, word) in register.iter().enumerate() {
                let line = lane / 4 + 8 * (r % halves);
                let first = each * (lane % 4 + 4 * (r / halves));
                for i in 0..each {
                    let code =
                        if bytes == 4 { *word } else { word >> (8 * bytes * i) & ((1 << (8 * bytes)) - 1) };
                    codes[line * depth + first + i] = code;
                }
            }
        }
        Self { codes, depth }
    }

    fn line(&self, line: usize) -> &[u32] {
        &self.codes[line * self.depth..][..self.depth]
    }
}

/// `D = A·B + C` as the tensor core of a compute capability computes it.
pub fn multiply(shape: &Shape, a: &[Row], b: &[Row], c: &[Row], capability: (u32, u32)) -> Vec<Row> {
    let (in_a, in_b, in_c) = shape.registers();
    assert!(a.len() == in_a && b.len() == in_b && c.len() == in_c, "registers of the shape");
    if capability.0 == 9 && shape.a.is_fp8() {
        return converted(shape, a, b, c);
    }
    if capability.0 == 9 && shape.a.bytes() == 2 && shape.accumulator == Accumulator::F32 {
        let mut d = c.to_vec();
        fast(shape.a.format(), a, b, &mut d);
        return d;
    }
    let left = Codes::new(a, shape.a, shape.depth, shape.rows / 8);
    let right = Codes::new(b, shape.b, shape.depth, 1);
    match shape.accumulator {
        Accumulator::S32 { saturate } => each_output(shape, c, |row, column, c| {
            let pairs = left.line(row).iter().zip(right.line(column));
            let sum: i64 = pairs.map(|(a, b)| shape.a.integer(*a) * shape.b.integer(*b)).sum();
            let sum = sum + i64::from(c as i32);
            if saturate { sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32 } else { sum as u32 }
        }),
        _ => summed(shape, &left, &right, c, capability),
    }
}

/// Hopper has no 8-bit `mma.sync`: the assembler converts to f16, multiplies the first two elements of every word,
/// then the other two on top, and adds C last.
fn converted(shape: &Shape, a: &[Row], b: &[Row], c: &[Row]) -> Vec<Row> {
    // Two elements of every word make a word of halves, and those the fragments of a product half as deep.
    let part = |registers: &[Row], element: Element, second: usize| -> Vec<Row> {
        let table = if element == Element::E4m3 { &HALVES[0] } else { &HALVES[1] };
        let half = |word: u32| {
            let [low, high] = [word, word >> 8].map(|code| u32::from(table[code as usize & 255]));
            low | high << 16
        };
        registers.iter().map(|register| register.map(|word| half(word >> (16 * second)))).collect()
    };
    let halves = Shape { depth: shape.depth / 2, a: Element::F16, b: Element::F16, ..*shape };
    let mut d = vec![[0; 32]; c.len()];
    for second in 0..2 {
        d = multiply(&halves, &part(a, shape.a, second), &part(b, shape.b, second), &d, (9, 0));
    }
    let add = |c: u32, d: u32| match shape.accumulator {
        Accumulator::F16 => {
            let sum = |by: u32| {
                let value = |x: u32| numeric::f16_to_f32((x >> by) as u16);
                u32::from(numeric::f16_from_f32(value(c) + value(d))) << by
            };
            sum(0) | sum(16)
        }
        _ => {
            let sum = f32::from_bits(c) + f32::from_bits(d);
            if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits() }
        }
    };
    c.iter().zip(&d).map(|(c, d)| std::array::from_fn(|lane| add(c[lane], d[lane]))).collect()
}

/// Every e4m3 and every e5m2 as f16.
static HALVES: LazyLock<[[u16; 256]; 2]> = LazyLock::new(|| {
    [Element::E4m3, Element::E5m2]
        .map(|element| std::array::from_fn(|code| numeric::f16_from_f32(element.value(code as u32))))
});

/// 16-bit operands and f32 sums of 25 fractional bits, by the loop that `wgmma` runs on: k of eight is filled up with
/// zeros, which change no sum.
fn fast(format: Format, a: &[Row], b: &[Row], d: &mut [Row]) {
    const DEPTH: usize = 16;
    let halves = |word: u32| [word as u16, (word >> 16) as u16];
    let mut rows = [0; 16 * DEPTH];
    for (r, register) in a.iter().enumerate() {
        for (lane, word) in register.iter().enumerate() {
            let at = (lane / 4 + 8 * (r % 2)) * DEPTH + 2 * (lane % 4) + 8 * (r / 2);
            rows[at..at + 2].copy_from_slice(&halves(*word));
        }
    }
    let mut columns = [0; 8 * DEPTH];
    for (r, register) in b.iter().enumerate() {
        for (lane, word) in register.iter().enumerate() {
            let (start, step) = Right::place(lane / 4, 8, DEPTH);
            let k = 2 * (lane % 4) + 8 * r;
            let [first, second] = halves(*word);
            columns[start + k * step] = first;
            columns[start + (k + 1) * step] = second;
        }
    }
    let (left, right) = (Left::from_words(&rows, format, false), Right::from_words(&columns, format, false));
    tensor_core::multiply_accumulate(&left, &right, &mut [d], true, Arithmetic::Truncated25);
}

/// Output by output.
fn summed(shape: &Shape, left: &Codes, right: &Codes, c: &[Row], capability: (u32, u32)) -> Vec<Row> {
    // Ampere and Ada sum k in two halves; Ada's 8-bit sums are as short as those of Hopper's wgmma.
    let old = capability.0 == 8;
    let arithmetic = match (old, shape.a.is_fp8()) {
        (true, true) => Arithmetic::Truncated13,
        (true, false) => Arithmetic::Truncated24,
        (false, _) => Arithmetic::Truncated25,
    };
    let split = old && shape.depth * shape.a.bytes() == 32;
    let step = if split { shape.depth / 2 } else { shape.depth };
    let values =
        |codes: &[u32], element: Element| codes.iter().map(|c| element.value(*c)).collect::<Vec<_>>();
    let (fa, fb) = (shape.a.format(), shape.b.format());
    each_output(shape, c, |row, column, c| {
        let (a, b) = (values(left.line(row), shape.a), values(right.line(column), shape.b));
        let parts = a.chunks_exact(step).zip(b.chunks_exact(step));
        match shape.accumulator {
            Accumulator::F16 => {
                u32::from(parts.fold(c as u16, |c, (a, b)| fused_sum_f16(c, a, fa, b, fb, arithmetic)))
            }
            _ => parts.fold(f32::from_bits(c), |c, (a, b)| fused_sum(c, a, fa, b, fb, arithmetic)).to_bits(),
        }
    })
}

/// Applies `f` to (row, column, bits of C) of every output.
fn each_output(shape: &Shape, c: &[Row], f: impl Fn(usize, usize, u32) -> u32) -> Vec<Row> {
    let packed = shape.accumulator == Accumulator::F16;
    let mut d = vec![[0; 32]; c.len()];
    for (r, register) in d.iter_mut().enumerate() {
        for (lane, word) in register.iter_mut().enumerate() {
            let (g, q) = (lane / 4, lane % 4);
            if packed {
                let half = |i: usize| f(g + 8 * r, 2 * q + i, c[r][lane] >> (16 * i) & 0xffff);
                *word = half(0) | half(1) << 16;
            } else {
                *word = f(g + 8 * (r / 2), 2 * q + r % 2, c[r][lane]);
            }
        }
    }
    d
}

/// Undefined bits of D: an output depends on its row of A, its column of B and its own C.
pub fn undefined(shape: &Shape, a: &[Row], b: &[Row], c: &[Row]) -> Vec<Row> {
    let left = Codes::new(a, shape.a, shape.depth, shape.rows / 8);
    let right = Codes::new(b, shape.b, shape.depth, 1);
    let bits = if shape.accumulator == Accumulator::F16 { 0xffff } else { u32::MAX };
    each_output(shape, c, |row, column, c| {
        let any = |line: &[u32]| line.iter().any(|&s| s != 0);
        if c != 0 || any(left.line(row)) || any(right.line(column)) { bits } else { 0 }
    })
}

/// `movmatrix.trans`: an 8×8 matrix of 16-bit elements, two neighbours of a row in each lane, transposed.
pub fn transpose(a: &Row) -> Row {
    std::array::from_fn(|lane| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        // Element (row, column) of the result is element (column, row) of the source.
        let element = |r: usize, c: usize| a[4 * r + c / 2] >> (16 * (c % 2)) & 0xffff;
        element(column, row) | element(column + 1, row) << 16
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 0 of A and column 0 of B as given, everything else zero; D's first element.
    fn first(shape: &Shape, a: &[u32], b: &[u32], c: f32, capability: (u32, u32)) -> f32 {
        let (in_a, in_b, in_c) = shape.registers();
        let fill = |count: usize, halves: usize, codes: &[u32]| {
            let (bits, each) = (8 * shape.a.bytes(), 4 / shape.a.bytes());
            let mut out = vec![[0; 32]; count];
            for (k, code) in codes.iter().enumerate() {
                let (word, within) = (k / each, k % each);
                out[word / 4 * halves][word % 4] |= code << (bits * within);
            }
            out
        };
        let mut sums = vec![[0; 32]; in_c];
        sums[0][0] = c.to_bits();
        let d = multiply(shape, &fill(in_a, shape.rows / 8, a), &fill(in_b, 1, b), &sums, capability);
        f32::from_bits(d[0][0])
    }

    #[test]
    fn the_running_card_decides_how_sums_are_cut() {
        let f32_of = |a, b, depth| Shape { rows: 16, depth, a, b, accumulator: Accumulator::F32 };
        let bf16 = f32_of(Element::Bf16, Element::Bf16, 16);
        let power = |e: i32| ((127 + e) as u32) << 7;
        // Four terms of 2^-25 beside 1: 25 bits keep them, 24 do not.
        let (a, b) = ([0, -12, -12, -12, -12].map(power), [0, -13, -13, -13, -13].map(power));
        let last = 1.0 + 2f32.powi(-23);
        assert_eq!(first(&bf16, &a, &b, 0.0, (9, 0)), last);
        assert_eq!(first(&bf16, &a, &b, 0.0, (12, 0)), last);
        assert_eq!(first(&bf16, &a, &b, 0.0, (8, 0)), 1.0);
        // Ampere sums eight elements and then the other eight: each half's 2^-24 is cut off 1 by itself.
        let mut halves = [0; 16];
        (halves[0], halves[1], halves[8]) = (power(0), power(-12), power(-12));
        assert_eq!(first(&bf16, &halves, &halves, 0.0, (9, 0)), last);
        assert_eq!(first(&bf16, &halves, &halves, 0.0, (8, 9)), 1.0);
        // 8-bit products: Ada's keep 13 bits, Hopper's are halves', those of later cards 25 bits in one sum.
        let e5m2 = f32_of(Element::E5m2, Element::E5m2, 32);
        let small = [15 << 2, (15 - 7) << 2];
        assert_eq!(first(&e5m2, &small, &small, 0.0, (8, 9)), 1.0);
        assert_eq!(first(&e5m2, &small, &small, 0.0, (9, 0)), 1.0 + 2f32.powi(-14));
        assert_eq!(first(&e5m2, &small, &small, 0.0, (12, 0)), 1.0 + 2f32.powi(-14));
        let big = 2f32.powi(24);
        assert_eq!(first(&e5m2, &[0x42], &[15 << 2], big, (9, 0)), big + 4.0);
        assert_eq!(first(&e5m2, &[0x42], &[15 << 2], big, (12, 0)), big + 2.0);
    }
}
