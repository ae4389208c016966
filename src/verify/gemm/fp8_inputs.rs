//! The inputs of an FP8 product: which rows, which scales, what else.

use super::super::Source;
use super::{Fp8Check, Values, offsets};
use crate::dtype::E4m3;
use crate::gemm::plan::Mode;
use crate::gemm::reference::AnyFp8;
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
    /// Whether A and B are e5m2, not e4m3.
    pub e5m2: [bool; 2],
    /// Entries that name one row of A, where a list names its rows: 1 is a list of rows. 0: there is no list.
    pub gathers: usize,
    /// A factor of all sums.
    pub alpha: f32,
    /// Whether there is a bias for each column.
    pub bias: bool,
    /// Whether the output is added to.
    pub accumulate: bool,
    /// Whether rows have weights.
    pub row_weights: bool,
    /// Whether the planner may split K, so that a row's bits may depend on their number.
    pub splits: bool,
}

impl Form {
    /// Nothing special.
    pub const PLAIN: Self = Self {
        granularity: Granularity::Blocks,
        codes: [false; 2],
        e5m2: [false; 2],
        gathers: 0,
        alpha: 1.0,
        bias: false,
        accumulate: false,
        row_weights: false,
        splits: false,
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
                e5m2: [false; 2],
                gathers: 0,
                alpha: if z { 0.5 } else { 1.0 },
                bias: x ^ y,
                accumulate: x ^ z,
                row_weights: y ^ z,
                splits: false,
            }
        };
        (0..24).map(form).collect()
    }

    /// Biases `[groups, n]`, weights of rows `[m]` and an old output `[m, n]`; empty where there are none.
    pub(super) fn draw_rest(
        &self,
        source: &mut Source,
        values: Values,
        [m, n, groups]: [usize; 3],
    ) -> [Vec<f32>; 3] {
        let normal = values == Values::Normal;
        let mut drawn = |wanted: bool, count: usize, draw: &dyn Fn(&mut Source) -> f32| -> Vec<f32> {
            if wanted { (0..count).map(|_| draw(source)).collect() } else { Vec::new() }
        };
        let bias = drawn(self.bias, groups * n, &|source| match normal {
            true => 100.0 * source.normal(),
            false => source.integer(-40, 40),
        });
        let row_weights = drawn(self.row_weights, m, &|source| match normal {
            true => source.unit(),
            false => source.integer(-2, 0).exp2(),
        });
        // Any output type has them.
        let old = drawn(self.accumulate, m * n, &|source| source.integer(-100, 100));
        [bias, row_weights, old]
    }
}

/// The inputs of an FP8 product on the host: row-major, `b` by groups. What its form does not have is empty.
#[derive(Debug, Clone, Default)]
pub struct Fp8Inputs {
    /// `[m, k]`.
    pub a: Vec<AnyFp8>,
    /// `[m, ceil(k / 128)]`, coarser ones repeated.
    pub a_scales: Vec<f32>,
    /// `[groups, n, k]`.
    pub b: Vec<AnyFp8>,
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
    /// Which entry each row of `a` is, `[m]`: rows that are the same entry are equal, those of -1 zero.
    pub entries: Vec<i32>,
}

impl Fp8Inputs {
    /// A and B as e4m3, which they are unless the form says otherwise.
    pub fn e4m3(&self) -> [Vec<E4m3>; 2] {
        [&self.a, &self.b].map(|codes| codes.iter().map(|code| E4m3::from_bits(code.to_bits())).collect())
    }
}

impl Fp8Check<'_> {
    /// Draws the inputs.
    pub fn inputs(&self) -> Fp8Inputs {
        let mut source = Source::new(self.seed);
        let Self { n, k, values, form, .. } = *self;
        let (m, groups, blocks) = (self.rows.count(), self.rows.groups(), self.blocks());
        // Sums of 128 products of integers up to 11 are exact in the tensor core, and of 12 are not. Those up to 8 are e5m2.
        let mut data = |count: usize, e5m2: bool| -> Vec<AnyFp8> {
            let most = if e5m2 { 8 } else { 11 };
            (0..count).map(|_| AnyFp8::nearest(values.draw(&mut source, most), e5m2)).collect()
        };
        let (a, b) = (data(m * k, form.e5m2[0]), data(groups * n * k, form.e5m2[1]));
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
        let [bias, row_weights, old] = form.draw_rest(&mut source, values, [m, n, groups]);
        let mut inputs = Fp8Inputs {
            a,
            a_scales,
            b,
            b_scales,
            column_scales,
            bias,
            row_weights,
            old,
            entries: Vec::new(),
        };
        if form.gathers > 0 {
            self.draw_entries(&mut inputs, &mut source);
        }
        inputs
    }

    /// Rows of A where a list names them: more than any list names.
    pub(super) fn named_rows(&self) -> usize {
        self.rows.count() + 3
    }

    /// A list that leaves rows out, repeats others and has rows of none. Rows that do not count are any number.
    fn draw_entries(&self, inputs: &mut Fp8Inputs, source: &mut Source) {
        let (k, blocks) = (self.k, self.blocks());
        let places = source.permutation(self.named_rows());
        let ranges = self.rows.ranges();
        let mut named: Vec<usize> = Vec::new();
        for row in 0..self.rows.count() {
            let entry = |place: usize, slot: usize| (place * self.form.gathers + slot) as i32;
            let slot = source.below(self.form.gathers);
            if !ranges.iter().any(|range| range.contains(&row)) {
                inputs.entries.push([i32::MAX, i32::MIN, -2][row % 3]);
                continue;
            }
            match source.below(8) {
                0 => {
                    inputs.a[row * k..][..k].iter_mut().for_each(|value| *value = value.with_bits(0));
                    inputs.entries.push(-1);
                }
                1 | 2 if !named.is_empty() => {
                    let other = named[source.below(named.len())];
                    inputs.a.copy_within(other * k..(other + 1) * k, row * k);
                    inputs.a_scales.copy_within(other * blocks..(other + 1) * blocks, row * blocks);
                    inputs.entries.push(entry(places[other], slot));
                }
                _ => {
                    inputs.entries.push(entry(places[row], slot));
                    named.push(row);
                }
            }
        }
    }
}
