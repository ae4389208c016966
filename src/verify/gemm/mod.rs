//! Matrix products: inputs, runs with poisoned surroundings, all four oracles, properties and cases.

mod cases;
mod edge_cases;
mod forms;
mod fp8_check;
mod fp8_inputs;
mod fp8_operands;
mod gradient_check;
mod half_cases;
mod half_check;
pub mod properties;
mod swiglu_check;
mod transpose_check;

pub(super) use cases::{cases, large_cases};
pub use fp8_check::Fp8Check;
pub use fp8_inputs::{Form, Fp8Inputs, Granularity, Rows};
pub use fp8_operands::Fp8Operands;
pub use gradient_check::{Depth, GradientCheck, GradientInputs};
pub use half_check::{CheckedInput, HalfCheck, HalfInputs, HalfOperands};
pub use swiglu_check::{Answer, SwigluCheck, moderate};
pub use transpose_check::TransposeCheck;

use super::projection::Projection;
use super::{Evidence, Source};
use crate::dtype::{bf16, f16, nearest_bf16};
use crate::gemm::GemmOutput;
use crate::gemm::reference::{Expected, Rounding};

use super::surrounded::Poison;

/// What a check needs of an output type.
pub trait Checked: GemmOutput + Poison + PartialEq {
    /// How the kernel rounds to it.
    const ROUNDING: Rounding;
    /// The nearest value, ties to even.
    fn nearest(value: f64) -> Self;
    /// The exact value.
    fn widen(self) -> f32;
}

impl Checked for f32 {
    const ROUNDING: Rounding = Rounding::F32;

    fn nearest(value: f64) -> Self {
        value as f32
    }

    fn widen(self) -> f32 {
        self
    }
}

impl Checked for bf16 {
    const ROUNDING: Rounding = Rounding::Bf16;

    fn nearest(value: f64) -> Self {
        nearest_bf16(value)
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Checked for f16 {
    const ROUNDING: Rounding = Rounding::F16;

    /// Of what an f32 holds.
    fn nearest(value: f64) -> Self {
        f16::from_f32(value as f32)
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// How the values of an input are drawn. All but `Normal` make every sum exact, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Small integers, scales that are powers of two.
    Integers,
    /// The same without signs: sums as large as they get.
    Positive,
    /// The same with three of four values zero.
    Sparse,
    /// Normally distributed values, scales of any magnitude between 2⁻⁸ and 2⁸.
    Normal,
}

impl Values {
    /// Every kind.
    pub const ALL: [Values; 4] = [Values::Integers, Values::Positive, Values::Sparse, Values::Normal];

    /// Whether results are exact.
    pub fn exact(self) -> bool {
        self != Values::Normal
    }

    fn draw(self, source: &mut Source, largest: i32) -> f32 {
        match self {
            Values::Integers => source.integer(-largest, largest),
            Values::Positive => source.integer(0, largest),
            Values::Sparse if source.below(4) > 0 => 0.0,
            Values::Sparse => source.integer(-largest, largest),
            Values::Normal => source.normal(),
        }
    }

    /// With K above 8192 fewer scales, so that sums of the exact kinds stay below 2²⁴ of their units.
    fn scale(self, source: &mut Source, k: usize) -> f32 {
        match self {
            Values::Normal => {
                (1.0 + source.below(1000) as f32 / 1000.0) * 2f32.powi(source.below(16) as i32 - 8)
            }
            _ if k > 8192 => source.integer(0, 1).exp2(),
            _ => source.integer(-1, 1).exp2(),
        }
    }
}

/// Elements that a check compares with the model of the tensor core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// The corners of all tiles, and so many others that it is a matter of milliseconds.
    Quick,
    /// The corners of all tiles, and 4096 others.
    Thorough,
}

impl Sampling {
    /// Rows and columns, without repeats, in order.
    fn draw(self, m: usize, n: usize, k: usize, source: &mut Source) -> Vec<(usize, usize)> {
        let count = match self {
            Sampling::Quick => ((1 << 18) / k.max(1)).clamp(16, 4096),
            Sampling::Thorough => 4096,
        };
        if m * n <= count {
            return (0..m * n).map(|i| (i / n, i % n)).collect();
        }
        // Every tile's extents are multiples of 64.
        let edges = |extent: usize| (0..extent).filter(move |i| matches!(i % 64, 0 | 63) || i + 1 == extent);
        let corners = edges(m).flat_map(|row| edges(n).map(move |column| (row, column)));
        let mut drawn: Vec<_> = corners.collect();
        drawn.extend((0..count).map(|_| (source.below(m), source.below(n))));
        drawn.sort_unstable();
        drawn.dedup();
        drawn
    }
}

/// The offsets of groups of these sizes.
pub fn offsets(sizes: &[usize]) -> Vec<i32> {
    let mut offsets = vec![0];
    for size in sizes {
        offsets.push(offsets[offsets.len() - 1] + *size as i32);
    }
    offsets
}

/// The first oracle for exact inputs, the third for others.
fn compare<T: Checked + Default>(
    evidence: &mut Evidence,
    name: &str,
    values: Values,
    got: &[T],
    want: &Expected,
) -> Result<(), String> {
    if values.exact() {
        let want: Vec<T> = want.values.iter().map(|value| T::nearest(*value)).collect();
        return evidence.exact(name, got, &want);
    }
    let got: Vec<f32> = got.iter().map(|value| value.widen()).collect();
    match T::ROUNDING {
        Rounding::F32 => evidence.within(name, &got, &want.values, &want.bounds),
        Rounding::Bf16 | Rounding::F16 => evidence.within_rounded(name, &got, &want.values, &want.bounds),
    }
}

/// The second oracle: `model` gives the sums, which round to the output's type as the kernel's do.
fn compare_with_model<T: Checked>(
    evidence: &mut Evidence,
    name: &str,
    got: &[T],
    n: usize,
    samples: &[(usize, usize)],
    model: impl Fn(usize, usize) -> f32,
) -> Result<(), String> {
    let sampled: Vec<u32> = samples.iter().map(|(row, column)| got[row * n + column].bits()).collect();
    let want: Vec<u32> =
        samples.iter().map(|(row, column)| T::nearest(f64::from(model(*row, *column))).bits()).collect();
    evidence
        .modelled(name, &sampled, &want)
        .map_err(|error| format!("{error}\nof the elements {:?}..", &samples[..samples.len().min(4)]))
}

/// The projections that every check makes of its output.
fn projection<T: Checked>(values: Values, seed: u64) -> Projection {
    Projection { vectors: 2, exact: values.exact(), rounding: T::ROUNDING, seed: seed.rotate_left(32) }
}
