//! Products of 16-bit floats of every kind, against their oracles.

use super::super::surrounded::{Place, Poison, Surrounded};
use super::super::tensor_core::{Operand, fp8_finish, half_element};
use super::super::{Evidence, Source};
use super::fp8_inputs::{Form, Rows};
use super::{Checked, Sampling, Values, compare, compare_with_model, offsets, projection};
use crate::device::Device;
use crate::dtype::bf16;
use crate::error::Error;
use crate::gemm::reference::{self, Epilogue, Expected, Rounding};
use crate::gemm::{BatchedHalfGemm, GroupedHalfGemm, Half, HalfGemm, MaskedHalfGemm, PreparedGemm, Tile};
use crate::tensor::Tensor;
use std::ops::Range;

/// A product of bf16 or f16 to run and compare with its oracles.
#[derive(Debug, Clone, Copy)]
pub struct HalfCheck<'a> {
    /// Rows of A.
    pub rows: Rows<'a>,
    /// Rows of B.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// Whether the rows of A, and those of B, are adjacent in the place of columns.
    pub transposed: [bool; 2],
    /// The planner's choice without a split where `None`.
    pub tile: Option<Tile>,
    /// How inputs are drawn.
    pub values: Values,
    /// What else is asked for; nothing of scales.
    pub form: Form,
    /// Seed of the inputs.
    pub seed: u64,
}

/// What a check multiplies.
pub trait CheckedInput: Half + Checked + Operand {
    /// The exponent of the smallest normal number.
    const LEAST_EXPONENT: i32;
}

impl CheckedInput for bf16 {
    const LEAST_EXPONENT: i32 = -126;
}

impl CheckedInput for crate::f16 {
    const LEAST_EXPONENT: i32 = -14;
}

/// Inputs on the host: row-major, `b` by groups. What the form does not have is empty.
#[derive(Debug, Clone, Default)]
pub struct HalfInputs<H> {
    /// `[m, k]`.
    pub a: Vec<H>,
    /// `[groups, n, k]`.
    pub b: Vec<H>,
    /// `[groups, n]`.
    pub bias: Vec<f32>,
    /// `[m]`.
    pub row_weights: Vec<f32>,
    /// What the output holds before, `[m, n]`.
    pub old: Vec<f32>,
}

/// A group's rows, its A and B, and the rest of it.
type Part<'i, H> = (Range<usize>, [&'i [H]; 2], Epilogue<'i>);

/// Operands on a device.
#[derive(Debug)]
pub struct HalfOperands<H: Poison> {
    a: Surrounded<H>,
    b: Tensor<H>,
    groups: Option<Tensor<i32>>,
    bias: Option<Tensor<f32>>,
    row_weights: Option<Tensor<f32>>,
}

impl<H: Poison> HalfOperands<H> {
    /// Overwrites A, where it is.
    pub fn fill_a(&self, a: &[H]) -> Result<(), Error> {
        self.a.fill(a)
    }
}

impl HalfCheck<'_> {
    /// Draws the inputs.
    pub fn inputs<H: CheckedInput>(&self) -> HalfInputs<H> {
        let mut source = Source::new(self.seed);
        let Self { n, k, values, form, .. } = *self;
        let (m, groups) = (self.rows.count(), self.rows.groups());
        // So that sums stay below 2²⁴.
        let largest = if k <= 4096 { 64 } else { 16 };
        let mut data = |count: usize| -> Vec<H> {
            (0..count).map(|_| H::nearest(f64::from(values.draw(&mut source, largest)))).collect()
        };
        let (a, b) = (data(m * k), data(groups * n * k));
        let [bias, row_weights, old] = form.draw_rest(&mut source, values, [m, n, groups]);
        HalfInputs { a, b, bias, row_weights, old }
    }

    /// The parts of K that are summed apart.
    fn parts_of_k(&self) -> Vec<Range<usize>> {
        let parts = self.tile.and_then(|tile| tile.parts()).unwrap_or(1) as usize;
        let blocks = self.k.div_ceil(64);
        let start = |part: usize| (blocks * part / parts * 64).min(self.k);
        (0..parts).map(|part| start(part)..start(part + 1)).collect()
    }

    /// The rows, the weights and the rest of every group.
    fn products<'i, H>(&self, inputs: &'i HalfInputs<H>) -> Vec<Part<'i, H>> {
        let (n, k) = (self.n, self.k);
        fn part(values: &[f32], range: Range<usize>) -> &[f32] {
            if values.is_empty() { &[] } else { &values[range] }
        }
        let product = |(group, rows): (usize, Range<usize>)| {
            let epilogue = Epilogue {
                alpha: self.form.alpha,
                column_scales: &[],
                bias: part(&inputs.bias, group * n..(group + 1) * n),
                old: part(&inputs.old, rows.start * n..rows.end * n),
                row_weights: part(&inputs.row_weights, rows.clone()),
            };
            let operands = [&inputs.a[rows.start * k..rows.end * k], &inputs.b[group * n * k..][..n * k]];
            (rows, operands, epilogue)
        };
        self.rows.ranges().into_iter().enumerate().map(product).collect()
    }

    /// Every group's product by itself, as a dense one.
    pub fn parts<H: CheckedInput>(
        &self,
        inputs: &HalfInputs<H>,
    ) -> Vec<(Range<usize>, HalfCheck<'static>, HalfInputs<H>)> {
        let part = |(rows, [a, b], epilogue): (Range<usize>, [&[H]; 2], Epilogue<'_>)| {
            let Self { n, k, transposed, values, form, seed, .. } = *self;
            let dense = Rows::Dense(rows.len());
            let check = HalfCheck { rows: dense, n, k, transposed, tile: None, values, form, seed };
            let inputs = HalfInputs {
                a: a.to_vec(),
                b: b.to_vec(),
                bias: epilogue.bias.to_vec(),
                row_weights: epilogue.row_weights.to_vec(),
                old: epilogue.old.to_vec(),
            };
            (rows, check, inputs)
        };
        self.products(inputs).into_iter().map(part).collect()
    }

    /// What the product should be, row-major `[m, n]`, of the rows that count.
    pub fn expected<H: CheckedInput>(&self, inputs: &HalfInputs<H>, rounding: Rounding) -> Expected {
        let mut all = Expected { values: Vec::new(), bounds: Vec::new() };
        let wide = |values: &[H]| -> Vec<f32> { values.iter().map(|value| value.widen()).collect() };
        for (rows, [a, b], epilogue) in self.products(inputs) {
            let product = reference::HalfProduct {
                a: &wide(a),
                b: &wide(b),
                least_exponent: H::LEAST_EXPONENT,
                parts: &self.parts_of_k(),
                extents: (rows.len(), self.n, self.k),
            };
            let part = reference::half_with(&product, &epilogue, rounding);
            all.values.extend(part.values);
            all.bounds.extend(part.bounds);
        }
        all
    }

    /// The elements of the rows that count.
    fn counting<V: Copy>(&self, all: &[V]) -> Vec<V> {
        let ranges = self.rows.ranges().into_iter();
        ranges.flat_map(|rows| all[rows.start * self.n..rows.end * self.n].iter().copied()).collect()
    }

    /// Elements of rows that do not count are as they were.
    fn others_are_kept<T: Poison>(&self, got: &[T], before: &[T]) -> Result<(), String> {
        let ranges = self.rows.ranges();
        let kept = |at: &usize| !ranges.iter().any(|rows| rows.contains(&(at / self.n.max(1))));
        match (0..got.len()).filter(kept).find(|at| got[*at].bits() != before[*at].bits()) {
            None => Ok(()),
            Some(at) => Err(format!("{self:?}: row {}, which does not count, was written", at / self.n)),
        }
    }

    /// The operands on the device, with NaN around them. Rows that do not count are NaN.
    pub fn operands<H: CheckedInput>(
        &self,
        device: &Device,
        inputs: &HalfInputs<H>,
    ) -> Result<HalfOperands<H>, Error> {
        let Self { rows, n, k, form, transposed, .. } = *self;
        let mut data = inputs.a.clone();
        let ranges = rows.ranges();
        for row in (0..rows.count()).filter(|row| !ranges.iter().any(|range| range.contains(row))) {
            data[row * k..][..k].fill(H::POISON);
        }
        // Whatever is not adjacent lies at multiples of 16 bytes.
        let padded = |extent: usize| extent.next_multiple_of(8) + 8;
        let shape = [&rows.shape()[..], &[k]].concat();
        let room = shape[shape.len() - 2];
        let strides = match (transposed[0], shape.len()) {
            (false, _) => rows.strides(padded(k)),
            (true, 2) => vec![1, padded(room)],
            (true, _) => vec![k.max(1) * padded(room), 1, padded(room)],
        };
        let a = Surrounded::strided(device, &shape, &strides, 8)?.filled(&data)?;
        let single = matches!(rows, Rows::Dense(_));
        let grouped = |shape: &[usize]| {
            if single { shape.to_vec() } else { [&[rows.groups()][..], shape].concat() }
        };
        let strides = match transposed[1] {
            false => [n * padded(k), padded(k), 1],
            true => [k.max(1) * padded(n), 1, padded(n)],
        };
        let strides = &strides[usize::from(single)..];
        let b = Surrounded::strided(device, &grouped(&[n, k]), strides, 8)?.filled(&inputs.b)?;
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
        let row_weights = vector(rows.shape(), &inputs.row_weights, form.row_weights)?;
        Ok(HalfOperands { a, b: b.view().clone(), groups, bias, row_weights })
    }

    /// Prepares the product.
    pub fn prepare<H: CheckedInput, T: Checked>(
        &self,
        operands: &HalfOperands<H>,
        out: &Tensor<T>,
        device: &Device,
    ) -> Result<PreparedGemm, Error> {
        let (a, b) = (operands.a.view(), &operands.b);
        // Each operation is a type of its own.
        macro_rules! prepare {
            ($operation:expr) => {{
                let mut operation = $operation.batch_invariant();
                if let Some(tile) = self.tile {
                    operation = operation.tile(tile);
                }
                if self.form.alpha != 1.0 {
                    operation = operation.alpha(self.form.alpha);
                }
                if let Some(bias) = &operands.bias {
                    operation = operation.bias(bias);
                }
                if let Some(weights) = &operands.row_weights {
                    operation = operation.row_weights(weights);
                }
                if self.form.accumulate {
                    operation = operation.accumulate();
                }
                operation.prepare(device)
            }};
        }
        match (self.rows, &operands.groups) {
            (Rows::Groups(_), Some(offsets)) => prepare!(GroupedHalfGemm::new(a, b, offsets, out)),
            (Rows::Masked(..), Some(counts)) => prepare!(MaskedHalfGemm::new(a, b, counts, out)),
            (Rows::Batched(..), _) => prepare!(BatchedHalfGemm::new(a, b, out)),
            _ => prepare!(HalfGemm::new(a, b, out)),
        }
    }

    /// Runs the kernel. Everything around the inputs is NaN; everything around the output must stay as it was.
    pub fn run<H: CheckedInput, T: Checked>(
        &self,
        device: &Device,
        inputs: &HalfInputs<H>,
    ) -> Result<Vec<T>, String> {
        self.run_counted(device, inputs, &mut Evidence::default())
    }

    /// [`run`](Self::run), with what was found around the output.
    pub fn run_counted<H: CheckedInput, T: Checked>(
        &self,
        device: &Device,
        inputs: &HalfInputs<H>,
        evidence: &mut Evidence,
    ) -> Result<Vec<T>, String> {
        let stream = device.stream();
        let shape = [&self.rows.shape()[..], &[self.n]].concat();
        let strides = self.rows.strides(self.n + 2);
        let before: Vec<T> = match inputs.old.is_empty() {
            true => vec![T::POISON; self.rows.count() * self.n],
            false => inputs.old.iter().map(|value| T::nearest(f64::from(*value))).collect(),
        };
        let run = || {
            let operands = self.operands(device, inputs)?;
            let out = Surrounded::strided(device, &shape, &strides, 2)?.filled(&before)?;
            self.prepare(&operands, out.view(), device)?.launch(&stream)?;
            Ok((out, stream.status()?))
        };
        let (out, status) = run().map_err(|error: Error| format!("{self:?}: {error}"))?;
        if !status.is_clear() {
            return Err(format!("{self:?}: status {status}"));
        }
        let got = out.finish("the output", evidence).map_err(|error| format!("{self:?}: {error}"))?;
        self.others_are_kept(&got, &before)?;
        Ok(got)
    }

    /// Runs and compares as [`Fp8Check::check`](super::Fp8Check::check) does, for inputs of bf16.
    pub fn check<T: Checked + Default>(&self, device: &Device) -> Result<Evidence, String> {
        self.check_of::<bf16, T>(device)
    }

    /// Runs and compares as [`Fp8Check::check`](super::Fp8Check::check) does.
    pub fn check_of<H: CheckedInput, T: Checked + Default>(
        &self,
        device: &Device,
    ) -> Result<Evidence, String> {
        self.check_sampled::<H, T>(device, Sampling::Quick)
    }

    /// [`check_of`](Self::check_of), with that many elements against the model.
    pub fn check_sampled<H: CheckedInput, T: Checked + Default>(
        &self,
        device: &Device,
        sampling: Sampling,
    ) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let inputs = self.inputs::<H>();
        let got = self.run_counted::<H, T>(device, &inputs, &mut evidence)?;
        let want = self.expected(&inputs, T::ROUNDING);
        compare(&mut evidence, &self.name::<H>(), self.values, &self.counting(&got), &want)?;
        self.check_rest(&mut evidence, &inputs, &got, sampling)?;
        Ok(evidence)
    }

    /// Runs and compares, for inputs of bf16, what costs less than the product itself: elements with the model, and
    /// projections.
    pub fn check_large<T: Checked>(&self, device: &Device) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let inputs = self.inputs::<bf16>();
        let got = self.run_counted::<bf16, T>(device, &inputs, &mut evidence)?;
        self.check_rest(&mut evidence, &inputs, &got, Sampling::Thorough)?;
        Ok(evidence)
    }

    fn name<H: CheckedInput>(&self) -> String {
        format!("{} {self:?}", H::DTYPE)
    }

    fn check_rest<H: CheckedInput, T: Checked>(
        &self,
        evidence: &mut Evidence,
        inputs: &HalfInputs<H>,
        got: &[T],
        sampling: Sampling,
    ) -> Result<(), String> {
        let (n, k) = (self.n, self.k);
        let mut source = Source::new(!self.seed);
        let wide: Vec<f32> = got.iter().map(|value| value.widen()).collect();
        let projection = projection::<T>(self.values, self.seed);
        let (parts, name) = (self.parts_of_k(), self.name::<H>());
        for (rows, [a, b], epilogue) in self.products(inputs) {
            let samples = sampling.draw(rows.len(), n, k, &mut source);
            let part = rows.start * n..rows.end * n;
            compare_with_model(
                evidence,
                &format!("{name}, bits"),
                &got[part.clone()],
                n,
                &samples,
                |row, column| {
                    let sum = half_element(&a[row * k..][..k], &b[column * k..][..k], &parts);
                    fp8_finish(sum, &epilogue, (row, column), n)
                },
            )?;
            // A projection knows of no epilogue.
            if self.form != Form::PLAIN {
                continue;
            }
            evidence.projected += projection
                .check_half(a, b, (rows.len(), n, k), &wide[part])
                .map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }

    /// A place for the output of a dense product, and the graph of its launch.
    pub(super) fn output<T: Checked>(&self, device: &Device) -> Result<Surrounded<T>, Error> {
        Surrounded::output(device, &[self.rows.count(), self.n], Place::default())
    }
}
