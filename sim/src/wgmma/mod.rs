//! `wgmma.mma_async`: one m64nNk32 (8-bit) or m64nNk16 (16-bit) step of a warpgroup.

mod descriptor;
mod operands;
mod scalar;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::mma::{Accumulator, Element};
use crate::row::Row;
pub use crate::schedule::Fp8Accumulation as Fp8Mode;
use crate::tensor_core::{Arithmetic, Format, multiply_accumulate};
use descriptor::Matrix;

/// Element types of A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `.e4m3.e4m3`
    E4m3E4m3,
    /// `.e4m3.e5m2`
    E4m3E5m2,
    /// `.e5m2.e4m3`
    E5m2E4m3,
    /// `.e5m2.e5m2`
    E5m2E5m2,
    /// `.bf16.bf16`
    Bf16,
    /// `.f16.f16`
    F16,
    /// Any other combination, f16 accumulators of the types above included.
    Other {
        /// Elements of A.
        a: Element,
        /// Elements of B.
        b: Element,
        /// Type of D.
        accumulator: Accumulator,
    },
}

impl Kind {
    /// Formats of A and B, where f32 sums of them are made by the fast loop.
    pub const fn formats(self) -> Option<(Format, Format)> {
        Some(match self {
            Kind::E4m3E4m3 => (Format::E4m3, Format::E4m3),
            Kind::E4m3E5m2 => (Format::E4m3, Format::E5m2),
            Kind::E5m2E4m3 => (Format::E5m2, Format::E4m3),
            Kind::E5m2E5m2 => (Format::E5m2, Format::E5m2),
            Kind::Bf16 => (Format::Bf16, Format::Bf16),
            Kind::F16 => (Format::F16, Format::F16),
            Kind::Other { .. } => return None,
        })
    }

    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Kind::Bf16 | Kind::F16 => 2,
            Kind::Other { a, .. } => a.bytes(),
            _ => 1,
        }
    }

    /// Accumulator registers of each lane for `n` columns.
    pub const fn registers(self, n: usize) -> usize {
        match self {
            Kind::Other { accumulator: Accumulator::F16, .. } => n / 4,
            _ => n / 2,
        }
    }

    /// Whether an operand in shared memory may lie M- or N-major.
    pub const fn may_transpose(self) -> bool {
        self.bytes() == 2
    }

    /// Elements along k in one instruction.
    pub const fn depth(self) -> usize {
        32 / self.bytes()
    }
}

/// The instruction's qualifiers and immediates.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Columns of B and D: a multiple of 8 up to 256.
    pub n: usize,
    /// Element types.
    pub kind: Kind,
    /// `imm-trans-a`: A lies M-major (16-bit elements in shared memory only).
    pub trans_a: bool,
    /// `imm-trans-b`: B lies N-major (16-bit elements only).
    pub trans_b: bool,
    /// `imm-scale-a` is -1.
    pub negate_a: bool,
    /// `imm-scale-b` is -1.
    pub negate_b: bool,
    /// A comes from registers.
    pub a_in_registers: bool,
}

/// Where A comes from.
#[derive(Debug, Clone, Copy)]
pub enum Operand<'a> {
    /// A shared-memory matrix descriptor.
    Descriptor(u64),
    /// Four registers of each of the four warps.
    Registers(&'a [[Row; 4]; 4]),
}

/// One of the two factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The left one, 64 rows.
    A,
    /// The right one, N columns.
    B,
}

impl Shape {
    fn validate(&self) -> Result<(), String> {
        if self.n == 0 || self.n > 256 || !self.n.is_multiple_of(8) {
            return Err(format!("wgmma with N = {}: N is a multiple of 8 from 8 to 256", self.n));
        }
        if !self.kind.may_transpose() && (self.trans_a || self.trans_b) {
            return Err("wgmma takes K-major operands only, unless their elements have 16 bits".into());
        }
        if self.a_in_registers && self.trans_a {
            return Err("wgmma cannot transpose an A that lies in registers".into());
        }
        Ok(())
    }

    fn matrix(&self, which: Which, descriptor: u64, base: u32, len: usize) -> Result<Matrix, String> {
        let (name, extent, mn_major) = match which {
            Which::A => ("A", 64, self.trans_a),
            Which::B => ("B", self.n, self.trans_b),
        };
        Matrix::new(descriptor, extent, mn_major, base, len)
            .map_err(|what| format!("descriptor of {name} ({descriptor:#018x}): {what}"))
    }
}

/// Executes one step: `D = A·B + D`, or `A·B` where `scale_d` is false.
///
/// `d` holds the accumulator registers of each warp: N/2 of f32 or s32 bits, or N/4 of two f16. `shared` is the block's shared memory, whose
/// first byte has the shared-window address `shared_base`.
#[allow(clippy::too_many_arguments)]
pub fn execute(
    shape: &Shape,
    d: [&mut [Row]; 4],
    a: Operand<'_>,
    b: u64,
    scale_d: bool,
    shared: &[u8],
    shared_base: u32,
    mode: Fp8Mode,
) -> Result<(), String> {
    shape.validate()?;
    if let Some(fragment) = d.iter().find(|fragment| fragment.len() != shape.kind.registers(shape.n)) {
        return Err(format!("wgmma with N = {} and {} accumulator registers", shape.n, fragment.len()));
    }
    let rows = match a {
        Operand::Registers(registers) if shape.a_in_registers => operands::rows_from_registers(registers),
        Operand::Descriptor(descriptor) if !shape.a_in_registers => {
            let matrix = shape.matrix(Which::A, descriptor, shared_base, shared.len())?;
            operands::rows_from_shared(&matrix, shared)
        }
        _ => return Err("wgmma's A does not lie where the instruction says".into()),
    };
    let matrix = shape.matrix(Which::B, b, shared_base, shared.len())?;
    let mut d = d;
    let (a_format, b_format) = match (shape.kind.formats(), shape.kind) {
        (Some(formats), _) => formats,
        (None, Kind::Other { a, b, accumulator }) => {
            if !scale_d {
                d.iter_mut().for_each(|fragment| fragment.fill([0; 32]));
            }
            let negate = shape.negate_a != shape.negate_b;
            let sums = scalar::Sums { elements: (a, b), accumulator, mode, negate };
            sums.add(&rows, &operands::columns_from_shared(&matrix, shared), &mut d);
            return Ok(());
        }
        (None, _) => unreachable!("every named kind has its formats"),
    };
    let left = operands::left(&rows, a_format, shape.negate_a);
    let right = operands::right_from_shared(&matrix, shared, b_format, shape.negate_b);
    let arithmetic = match (shape.kind.bytes(), mode) {
        (2, _) => Arithmetic::Truncated25,
        (_, Fp8Mode::Hopper) => Arithmetic::Truncated13,
        (_, Fp8Mode::ExactF32) => Arithmetic::ExactF32,
    };
    multiply_accumulate(&left, &right, &mut d, scale_d, arithmetic);
    Ok(())
}

/// The bytes of A that each of the four warps reads: 16 rows each.
pub(crate) fn a_ranges_of_warps(
    shape: &Shape,
    descriptor: u64,
    shared_base: u32,
    shared_len: usize,
) -> Result<[Vec<Range<u32>>; 4], String> {
    let matrix = shape.matrix(Which::A, descriptor, shared_base, shared_len)?;
    Ok(std::array::from_fn(|warp| matrix.ranges_of_rows(16 * warp..16 * warp + 16)))
}

/// The bytes of shared memory that an operand reads, as coalesced offsets from the start of shared memory.
pub fn operand_ranges(
    shape: &Shape,
    which: Which,
    descriptor: u64,
    shared_base: u32,
    shared_len: usize,
) -> Result<Vec<Range<u32>>, String> {
    shape.validate()?;
    Ok(shape.matrix(which, descriptor, shared_base, shared_len)?.ranges())
}
