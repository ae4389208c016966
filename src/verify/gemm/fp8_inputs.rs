//! The inputs of an FP8 product: which rows, which scales, what else, and their way to the device.

use super::super::Source;
use super::super::surrounded::{Place, Surrounded};
use super::{Fp8Check, Values, offsets};
use crate::device::Device;
use crate::dtype::{E4m3, Ue8m0};
use crate::error::{Error, Result};
use crate::fp8::{Fp8Blocks, Fp8Rows, ScaleLayout};
use crate::gemm::plan::Mode;
use crate::tensor::Tensor;
use std::ops::Range;

/// Which rows of A go with which weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows<'a> {
    /// One matrix for this many rows.
    Dense(usize),
    /// Groups of these sizes.
    Groups(&'a [usize]),
    /// Groups of which these numbers of rows count, and the room of each.
    Masked(&'a [usize], usize),
    /// Matrices, and rows of each; A and the output have the matrices as their middle dimension in memory.
    Batched(usize, usize),
}

impl Rows<'_> {
    /// How they find their weights.
    pub fn mode(&self) -> Mode {
        match self {
            Rows::Dense(_) => Mode::Dense,
            Rows::Groups(_) => Mode::Contiguous,
            Rows::Masked(..) => Mode::Masked,
            Rows::Batched(..) => Mode::Batched,
        }
    }

    /// Rows of A in all, those included that do not count.
    pub fn count(&self) -> usize {
        match self {
            Rows::Dense(rows) => *rows,
            Rows::Groups(sizes) => sizes.iter().sum(),
            Rows::Masked(counts, room) => counts.len() * room,
            Rows::Batched(matrices, rows) => matrices * rows,
        }
    }

    /// Matrices of weights.
    pub fn groups(&self) -> usize {
        match self {
            Rows::Dense(_) => 1,
            Rows::Groups(sizes) | Rows::Masked(sizes, _) => sizes.len(),
            Rows::Batched(matrices, _) => *matrices,
        }
    }

    /// The rows of each group.
    pub fn ranges(&self) -> Vec<Range<usize>> {
        match *self {
            Rows::Dense(rows) => std::iter::once(0..rows).collect(),
            Rows::Groups(sizes) => {
                offsets(sizes).windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect()
            }
            Rows::Masked(counts, room) => {
                counts.iter().enumerate().map(|(group, count)| group * room..group * room + count).collect()
            }
            Rows::Batched(matrices, rows) => (0..matrices).map(|i| i * rows..(i + 1) * rows).collect(),
        }
    }

    /// The shape of A and the output without columns.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Rows::Dense(_) | Rows::Groups(_) => vec![self.count()],
            Rows::Masked(counts, room) => vec![counts.len(), *room],
            Rows::Batched(matrices, rows) => vec![*matrices, *rows],
        }
    }

    /// Strides of A and the output with rows of this width.
    pub(super) fn strides(&self, width: usize) -> Vec<usize> {
        match self {
            Rows::Dense(_) | Rows::Groups(_) => vec![width, 1],
            Rows::Masked(_, room) => vec![room * width, width, 1],
            Rows::Batched(matrices, _) => vec![width, matrices * width, 1],
        }
    }
}

/// How many elements share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// 1×128 of A, 128×128 of B.
    Blocks,
    /// A row of A, a row of B.
    Rows,
    /// All of A, each matrix of B.
    Tensor,
}

/// What a product is asked for beside its shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Form {
    /// How many elements share a scale.
    pub granularity: Granularity,
    /// Whether the scales of A and of B are UE8M0. Those of rows of B are not.
    pub codes: [bool; 2],
    /// A factor of all sums.
    pub alpha: f32,
    /// Whether there is a bias for each column.
    pub bias: bool,
    /// Whether the output is added to.
    pub accumulate: bool,
    /// Whether rows have weights.
    pub row_weights: bool,
}

impl Form {
    /// Nothing special.
    pub const PLAIN: Self = Self {
        granularity: Granularity::Blocks,
        codes: [false; 2],
        alpha: 1.0,
        bias: false,
        accumulate: false,
        row_weights: false,
    };

    /// Every value of each part, and every pair of values of two parts. Bits of the row numbers of an orthogonal array.
    pub fn covering() -> Vec<Self> {
        let granularities = [Granularity::Blocks, Granularity::Rows, Granularity::Tensor];
        let form = |index: usize| {
            let (bits, granularity) = (index % 8, granularities[index / 8]);
            // Three columns of a full array, and the sums of them that keep pairs apart.
            let [x, y, z] = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
            Self {
                granularity,
                codes: [x, y && granularity != Granularity::Rows],
                alpha: if z { 0.5 } else { 1.0 },
                bias: x ^ y,
                accumulate: x ^ z,
                row_weights: y ^ z,
            }
        };
        (0..24).map(form).collect()
    }
}

/// The inputs of an FP8 product on the host: row-major, `b` by groups. What its form does not have is empty.
#[derive(Debug, Clone, Default)]
pub struct Fp8Inputs {
    /// `[m, k]`.
    pub a: Vec<E4m3>,
    /// `[m, ceil(k / 128)]`, coarser ones repeated.
    pub a_scales: Vec<f32>,
    /// `[groups, n, k]`.
    pub b: Vec<E4m3>,
    /// `[groups, ceil(n / 128), ceil(k / 128)]`, coarser ones repeated; ones where columns have scales.
    pub b_scales: Vec<f32>,
    /// `[groups, n]`.
    pub column_scales: Vec<f32>,
    /// `[groups, n]`.
    pub bias: Vec<f32>,
    /// `[m]`.
    pub row_weights: Vec<f32>,
    /// What the output holds before, `[m, n]`.
    pub old: Vec<f32>,
}

impl Fp8Check<'_> {
    /// Draws the inputs.
    pub fn inputs(&self) -> Fp8Inputs {
        let mut source = Source::new(self.seed);
        let Self { n, k, values, form, .. } = *self;
        let (m, groups, blocks) = (self.rows.count(), self.rows.groups(), self.blocks());
        // Sums of 128 products of integers up to 11 are exact in the tensor core, and of 12 are not.
        let mut data = |count: usize| -> Vec<E4m3> {
            (0..count).map(|_| E4m3::from_f32(values.draw(&mut source, 11))).collect()
        };
        let (a, b) = (data(m * k), data(groups * n * k));
        let mut scales = |count: usize, codes: bool| -> Vec<f32> {
            let scale = |_| match codes && values == Values::Normal {
                true => source.integer(-8, 8).exp2(),
                false => values.scale(&mut source, k),
            };
            (0..count).map(scale).collect()
        };
        let (column_blocks, [a_codes, b_codes]) = (n.div_ceil(128), form.codes);
        let spread = |values: Vec<f32>, times: usize| -> Vec<f32> {
            values.into_iter().flat_map(|value| std::iter::repeat_n(value, times)).collect()
        };
        let mut column_scales = Vec::new();
        let (a_scales, b_scales) = match form.granularity {
            Granularity::Blocks => {
                (scales(m * blocks, a_codes), scales(groups * column_blocks * blocks, b_codes))
            }
            Granularity::Rows => {
                column_scales = scales(groups * n, false);
                (spread(scales(m, a_codes), blocks), vec![1.0; groups * column_blocks * blocks])
            }
            Granularity::Tensor => (
                spread(scales(1, a_codes), m * blocks),
                spread(scales(groups, b_codes), column_blocks * blocks),
            ),
        };
        let normal = values == Values::Normal;
        let mut drawn = |wanted: bool, count: usize, draw: &dyn Fn(&mut Source) -> f32| -> Vec<f32> {
            if wanted { (0..count).map(|_| draw(&mut source)).collect() } else { Vec::new() }
        };
        let bias = drawn(form.bias, groups * n, &|source| match normal {
            true => 100.0 * source.normal(),
            false => source.integer(-40, 40),
        });
        let row_weights = drawn(form.row_weights, m, &|source| match normal {
            true => source.unit(),
            false => source.integer(-2, 0).exp2(),
        });
        // Any output type has them.
        let old = drawn(form.accumulate, m * n, &|source| source.integer(-100, 100));
        Fp8Inputs { a, a_scales, b, b_scales, column_scales, bias, row_weights, old }
    }

    /// The operands on the device. Rows that do not count are NaN.
    pub fn operands(&self, device: &Device, inputs: &Fp8Inputs) -> Result<Fp8Operands, Error> {
        let Self { rows, n, k, form, .. } = *self;
        let blocks = self.blocks();
        let (matrices, shape) = (rows.shape(), |last: usize| [&rows.shape()[..], &[last]].concat());
        // Rows start at multiples of 16 bytes.
        let width = k.next_multiple_of(16) + 16;
        let mut data = inputs.a.clone();
        let mut scales = inputs.a_scales.clone();
        let ranges = rows.ranges();
        for row in (0..rows.count()).filter(|row| !ranges.iter().any(|range| range.contains(row))) {
            data[row * k..][..k].fill(E4m3::NAN);
            if form.granularity != Granularity::Tensor {
                scales[row * blocks..][..blocks].fill(f32::NAN);
            }
        }
        let a_data = Surrounded::strided(device, &shape(k), &rows.strides(width), 16)?.filled(&data)?;
        let room = matrices[matrices.len() - 1];
        let pad = room.next_multiple_of(4) + 4;
        let strides = match self.layout {
            ScaleLayout::RowMajor => [room * (blocks + 1), blocks + 1, 1],
            ScaleLayout::MnMajor => [blocks.max(1) * pad, 1, pad],
        };
        let strides = &strides[3 - (matrices.len() + 1)..];
        let mut a_scales = None;
        let view = a_data.view().clone();
        let codes = |scales: &[f32]| -> Vec<Ue8m0> {
            scales.iter().map(|scale| Ue8m0::from_f32(*scale).expect("powers of two, and NaN")).collect()
        };
        let every = |scales: &[f32], step: usize| -> Vec<f32> {
            scales.iter().step_by(step.max(1)).copied().collect()
        };
        let a = match (form.granularity, form.codes[0]) {
            (Granularity::Blocks, false) => {
                let placed = Surrounded::strided(device, &shape(blocks), strides, 4)?.filled(&scales)?;
                let a = Fp8Rows::new(view, placed.view().clone())?;
                a_scales = Some(placed);
                A::F32(a)
            }
            (Granularity::Blocks, true) => {
                let placed =
                    Surrounded::strided(device, &shape(blocks), strides, 4)?.filled(&codes(&scales))?;
                A::Codes(Fp8Rows::join(view, placed.view().clone())?)
            }
            (Granularity::Rows, false) => A::F32(Fp8Rows::per_row(
                view,
                device.tensor(&matrices, &per_row(&scales, blocks, rows.count()))?,
            )?),
            (Granularity::Rows, true) => {
                let codes = codes(&per_row(&scales, blocks, rows.count()));
                A::Codes(Fp8Rows::per_row(view, device.tensor(&matrices, &codes)?)?)
            }
            (Granularity::Tensor, coded) => {
                let scale = scales.first().copied().unwrap_or(1.0);
                match coded {
                    false => A::F32(Fp8Rows::per_tensor(view, device.tensor(&[1], &[scale])?)?),
                    true => A::Codes(Fp8Rows::per_tensor(view, device.tensor(&[1], &codes(&[scale]))?)?),
                }
            }
        };
        let single = matches!(rows, Rows::Dense(_));
        let grouped = |shape: &[usize]| {
            if single { shape.to_vec() } else { [&[rows.groups()][..], shape].concat() }
        };
        let place = Place { offset: 16, padding: width - k };
        let data = Surrounded::input(device, &grouped(&[n, k]), place, &inputs.b)?.view().clone();
        let shape = grouped(&[n.div_ceil(128), blocks]);
        let beside = Place { offset: 1, padding: 1 };
        let each = every(&inputs.b_scales, n.div_ceil(128) * blocks);
        let each = if each.len() == rows.groups() { each } else { vec![1.0; rows.groups()] };
        let b = match (form.granularity, form.codes[1]) {
            (Granularity::Blocks, false) => {
                let scales = Surrounded::input(device, &shape, beside, &inputs.b_scales)?;
                B::F32(Fp8Blocks::new(data, scales.view().clone())?)
            }
            (Granularity::Blocks, true) => {
                let scales = Surrounded::input(device, &shape, beside, &codes(&inputs.b_scales))?;
                B::Codes(Fp8Blocks::join(data, scales.view().clone())?)
            }
            (Granularity::Rows, _) => {
                B::F32(Fp8Blocks::per_row(data, device.tensor(&grouped(&[n]), &inputs.column_scales)?)?)
            }
            (Granularity::Tensor, false) => {
                B::F32(Fp8Blocks::per_tensor(data, device.tensor(&[each.len()], &each)?)?)
            }
            (Granularity::Tensor, true) => {
                B::Codes(Fp8Blocks::per_tensor(data, device.tensor(&[each.len()], &codes(&each))?)?)
            }
        };
        let numbers = |sizes: &[usize]| sizes.iter().map(|size| *size as i32).collect::<Vec<_>>();
        let groups = match rows {
            Rows::Groups(sizes) => Some(device.tensor(&[sizes.len() + 1], &offsets(sizes))?),
            Rows::Masked(counts, _) => Some(device.tensor(&[counts.len()], &numbers(counts))?),
            Rows::Dense(_) | Rows::Batched(..) => None,
        };
        let vector = |shape: Vec<usize>, values: &[f32], wanted: bool| {
            wanted.then(|| device.tensor(&shape, values)).transpose()
        };
        let bias = vector(grouped(&[n]), &inputs.bias, form.bias)?;
        let row_weights = vector(matrices, &inputs.row_weights, form.row_weights)?;
        Ok(Fp8Operands { a_data, a_scales, a, b, groups, bias, row_weights })
    }
}

/// The scale of every row, of which each has so many copies; ones where there are none.
fn per_row(scales: &[f32], copies: usize, rows: usize) -> Vec<f32> {
    if copies == 0 { vec![1.0; rows] } else { scales.iter().step_by(copies).copied().collect() }
}

#[derive(Debug)]
pub(super) enum A {
    F32(Fp8Rows),
    Codes(Fp8Rows<E4m3, Ue8m0>),
}

#[derive(Debug)]
pub(super) enum B {
    F32(Fp8Blocks),
    Codes(Fp8Blocks<E4m3, Ue8m0>),
}

/// Operands of an FP8 product on a device.
#[derive(Debug)]
pub struct Fp8Operands {
    a_data: Surrounded<E4m3>,
    a_scales: Option<Surrounded<f32>>,
    pub(super) a: A,
    pub(super) b: B,
    pub(super) groups: Option<Tensor<i32>>,
    pub(super) bias: Option<Tensor<f32>>,
    pub(super) row_weights: Option<Tensor<f32>>,
}

impl Fp8Operands {
    /// Overwrites A, where it is; of its scales only f32 ones of blocks.
    pub fn fill_a(&self, inputs: &Fp8Inputs) -> Result<(), Error> {
        self.a_data.fill(&inputs.a)?;
        self.a_scales.iter().try_for_each(|scales| scales.fill(&inputs.a_scales))
    }
}
