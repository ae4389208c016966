//! The types that the fast loop leaves out, output by output: f16 and s32 accumulators, tf32 operands.

use super::Fp8Mode;
use crate::mma::{Accumulator, Element};
use crate::row::Row;
use crate::tensor_core::{Arithmetic, fused_sum, fused_sum_f16};

/// One line of an operand along k.
pub(super) type Line = [u8; 32];

fn code(line: &Line, k: usize, bytes: usize) -> u32 {
    line[k * bytes..][..bytes].iter().rev().fold(0, |code, byte| code << 8 | u32::from(*byte))
}

/// Types of a product and how its sums are made.
pub(super) struct Sums {
    pub(super) elements: (Element, Element),
    pub(super) accumulator: Accumulator,
    pub(super) mode: Fp8Mode,
    /// A or B, but not both, is negated.
    pub(super) negate: bool,
}

impl Sums {
    /// `D = A·B + D`; D's fragments hold two columns of f16 in a register, or one of 32 bits.
    pub(super) fn add(&self, rows: &[Line; 64], columns: &[Line], d: &mut [&mut [Row]; 4]) {
        let packed = self.accumulator == Accumulator::F16;
        for (warp, fragment) in d.iter_mut().enumerate() {
            for (r, register) in fragment.iter_mut().enumerate() {
                for (lane, word) in register.iter_mut().enumerate() {
                    let (g, q) = (16 * warp + lane / 4, 2 * (lane % 4));
                    if packed {
                        let (row, column) = (g + 8 * (r % 2), 8 * (r / 2) + q);
                        let half = |i: usize| {
                            self.output(&rows[row], &columns[column + i], *word >> (16 * i) & 0xffff)
                        };
                        *word = half(0) | half(1) << 16;
                    } else {
                        let (row, column) = (g + 8 * (r / 2 % 2), 8 * (r / 4) + q + r % 2);
                        *word = self.output(&rows[row], &columns[column], *word);
                    }
                }
            }
        }
    }

    fn output(&self, row: &Line, column: &Line, c: u32) -> u32 {
        let (ea, eb) = self.elements;
        let depth = 32 / ea.bytes();
        if let Accumulator::S32 { saturate } = self.accumulator {
            let product = |k| ea.integer(code(row, k, 1)) * eb.integer(code(column, k, 1));
            let sum = i64::from(c as i32) + (0..depth).map(product).sum::<i64>();
            return if saturate { sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32 } else { sum as u32 };
        }
        let (mut a, mut b) = ([0f32; 32], [0f32; 32]);
        for k in 0..depth {
            let value = ea.value(code(row, k, ea.bytes()));
            a[k] = if self.negate { -value } else { value };
            b[k] = eb.value(code(column, k, eb.bytes()));
        }
        let (a, b, fa, fb) = (&a[..depth], &b[..depth], ea.format(), eb.format());
        let arithmetic = match (ea.is_fp8(), self.mode) {
            (false, _) => Arithmetic::Truncated25,
            (true, Fp8Mode::Hopper) => Arithmetic::Truncated13,
            (true, Fp8Mode::ExactF32) => Arithmetic::ExactF32,
        };
        match self.accumulator {
            Accumulator::F16 => u32::from(fused_sum_f16(c as u16, a, fa, b, fb, arithmetic)),
            _ => fused_sum(f32::from_bits(c), a, fa, b, fb, arithmetic).to_bits(),
        }
    }
}
