//! FP8 products of every kind, against their oracles.

use super::super::surrounded::{Poison, Surrounded, bits};
use super::super::tensor_core::{fp8_element, fp8_finish};
use super::super::{Evidence, Source};
use super::fp8_inputs::{Form, Fp8Inputs, Rows};
use super::fp8_operands::{A, B, Fp8Operands, ScaledBlocks, ScaledRows};
use super::{Checked, Sampling, Values, compare, compare_with_model, projection};
use crate::card::Card;
use crate::device::{Device, Stream};
use crate::dtype::E4m3;
use crate::error::Error;
use crate::fp8::{Fp8, Fp8Blocks, Fp8Rows, Scale, ScaleLayout};
use crate::gemm::plan::{Input, Output, Problem, plan};
use crate::gemm::reference::{self, Epilogue, Expected, Fp8Product, Rounding};
use crate::gemm::{
    BatchedFp8Gemm, Fp8Gemm, Fp8GemmOutput, GroupedFp8Gemm, MaskedFp8Gemm, PreparedGemm, Tile,
};
use crate::quant::reference::quantize;
use std::ops::Range;

/// An FP8 product to run and compare with its oracles.
#[derive(Debug, Clone, Copy)]
pub struct Fp8Check<'a> {
    /// Rows of A.
    pub rows: Rows<'a>,
    /// Rows of B.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// How the scales of A lie.
    pub layout: ScaleLayout,
    /// The planner's choice where `None`.
    pub tile: Option<Tile>,
    /// How inputs are drawn.
    pub values: Values,
    /// What else is asked for.
    pub form: Form,
    /// Seed of the inputs.
    pub seed: u64,
}

impl Fp8Check<'_> {
    /// Blocks of K that have a scale.
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(128)
    }

    /// Whether the blocks of K are added one after the other, as the model of the bits does it.
    pub(super) fn in_order_of_k(&self) -> bool {
        let parts = self.tile.and_then(|tile| tile.parts());
        self.values.exact() || parts.map_or(!self.form.splits, |parts| parts == 1)
    }

    /// Whether the planner has a kernel for it, which the given tile is if there is one.
    pub fn is_possible(&self, output: Output) -> bool {
        let Self { form, n, k, .. } = *self;
        let problem = Problem {
            a_e5m2: form.e5m2[0],
            b_e5m2: form.e5m2[1],
            gather: form.gathers > 0,
            mode: self.rows.mode(),
            groups: self.rows.groups().max(1),
            accumulate: form.accumulate,
            batch_invariant: !form.splits,
            ..Problem::dense(Input::Fp8, output, self.rows.count().max(1), n.max(1), k)
        };
        plan(&problem, &Card::H20, self.tile).is_some()
    }

    /// The rows, the product and the rest of every group.
    pub(super) fn products<'i>(
        &self,
        inputs: &'i Fp8Inputs,
    ) -> Vec<(Range<usize>, Fp8Product<'i>, Epilogue<'i>)> {
        let (n, k, blocks) = (self.n, self.k, self.blocks());
        let of_group = n.div_ceil(128) * blocks;
        fn part(values: &[f32], range: Range<usize>) -> &[f32] {
            if values.is_empty() { &[] } else { &values[range] }
        }
        let product = |(group, rows): (usize, Range<usize>)| {
            let product = Fp8Product {
                a: &inputs.a[rows.start * k..rows.end * k],
                a_scales: &inputs.a_scales[rows.start * blocks..rows.end * blocks],
                b: &inputs.b[group * n * k..][..n * k],
                b_scales: &inputs.b_scales[group * of_group..][..of_group],
                extents: (rows.len(), n, k),
            };
            let epilogue = Epilogue {
                alpha: self.form.alpha,
                column_scales: part(&inputs.column_scales, group * n..(group + 1) * n),
                bias: part(&inputs.bias, group * n..(group + 1) * n),
                old: part(&inputs.old, rows.start * n..rows.end * n),
                row_weights: part(&inputs.row_weights, rows.clone()),
            };
            (rows, product, epilogue)
        };
        self.rows.ranges().into_iter().enumerate().map(product).collect()
    }

    /// Every group's product by itself, as a dense one.
    pub fn parts(&self, inputs: &Fp8Inputs) -> Vec<(Range<usize>, Fp8Check<'static>, Fp8Inputs)> {
        let part = |(rows, product, epilogue): (Range<usize>, Fp8Product<'_>, Epilogue<'_>)| {
            let Self { n, k, layout, values, form, seed, .. } = *self;
            let form = Form { gathers: 0, ..form };
            let check =
                Fp8Check { rows: Rows::Dense(rows.len()), n, k, layout, tile: None, values, form, seed };
            let inputs = Fp8Inputs {
                a: product.a.to_vec(),
                a_scales: product.a_scales.to_vec(),
                b: product.b.to_vec(),
                b_scales: product.b_scales.to_vec(),
                column_scales: epilogue.column_scales.to_vec(),
                bias: epilogue.bias.to_vec(),
                row_weights: epilogue.row_weights.to_vec(),
                old: epilogue.old.to_vec(),
                entries: Vec::new(),
            };
            (rows, check, inputs)
        };
        self.products(inputs).into_iter().map(part).collect()
    }

    /// What the product should be, row-major `[m, n]`, of the rows that count.
    pub fn expected(&self, inputs: &Fp8Inputs, rounding: Rounding) -> Expected {
        let mut all = Expected { values: Vec::new(), bounds: Vec::new() };
        for (_, product, epilogue) in self.products(inputs) {
            let part = reference::fp8_with(&product, &epilogue, rounding);
            all.values.extend(part.values);
            all.bounds.extend(part.bounds);
        }
        all
    }

    /// The elements of the rows that count.
    pub(super) fn counting<V: Copy>(&self, all: &[V], columns: usize) -> Vec<V> {
        let ranges = self.rows.ranges().into_iter();
        ranges.flat_map(|rows| all[rows.start * columns..rows.end * columns].iter().copied()).collect()
    }

    /// Elements of rows that do not count are as they were.
    pub(super) fn others_are_kept<T: Poison>(&self, got: &[T], before: &[T]) -> Result<(), String> {
        let ranges = self.rows.ranges();
        let kept = |at: &usize| !ranges.iter().any(|rows| rows.contains(&(at / self.n.max(1))));
        match (0..got.len()).filter(kept).find(|at| got[*at].bits() != before[*at].bits()) {
            None => Ok(()),
            Some(at) => Err(format!("{self:?}: row {}, which does not count, was written", at / self.n)),
        }
    }

    /// Runs the kernel. Everything around the inputs is NaN; everything around the output must stay as it was.
    pub fn run<T: Checked>(&self, device: &Device, inputs: &Fp8Inputs) -> Result<Vec<T>, String> {
        self.run_counted(device, inputs, &mut Evidence::default())
    }

    /// [`run`](Self::run), with what was found around the output.
    pub fn run_counted<T: Checked>(
        &self,
        device: &Device,
        inputs: &Fp8Inputs,
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
            self.launch(&operands, out.view(), &stream)?;
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

    /// Enqueues the product.
    pub fn launch(
        &self,
        operands: &Fp8Operands,
        out: &impl Fp8GemmOutput,
        stream: &Stream,
    ) -> Result<(), Error> {
        self.prepare(operands, out, stream.device(), false)?.launch(stream)
    }

    /// Prepares the product.
    pub fn prepare(
        &self,
        operands: &Fp8Operands,
        out: &impl Fp8GemmOutput,
        device: &Device,
        power_of_two: bool,
    ) -> Result<PreparedGemm, Error> {
        // Each pair of types is an instance of its own.
        macro_rules! of_scales {
            ($a:ident, $b:ident) => {
                match ($a, $b) {
                    (ScaledRows::F32(a), ScaledBlocks::F32(b)) => {
                        self.prepared(operands, (a, b), out, device, power_of_two)
                    }
                    (ScaledRows::F32(a), ScaledBlocks::Codes(b)) => {
                        self.prepared(operands, (a, b), out, device, power_of_two)
                    }
                    (ScaledRows::Codes(a), ScaledBlocks::F32(b)) => {
                        self.prepared(operands, (a, b), out, device, power_of_two)
                    }
                    (ScaledRows::Codes(a), ScaledBlocks::Codes(b)) => {
                        self.prepared(operands, (a, b), out, device, power_of_two)
                    }
                }
            };
        }
        match (&operands.a, &operands.b) {
            (A::E4m3(_, a), B::E4m3(b)) => of_scales!(a, b),
            (A::E4m3(_, a), B::E5m2(b)) => of_scales!(a, b),
            (A::E5m2(_, a), B::E4m3(b)) => of_scales!(a, b),
            (A::E5m2(_, a), B::E5m2(b)) => of_scales!(a, b),
        }
    }

    fn prepared<TA: Fp8, SA: Scale, TB: Fp8, SB: Scale>(
        &self,
        operands: &Fp8Operands,
        (a, b): (&Fp8Rows<TA, SA>, &Fp8Blocks<TB, SB>),
        out: &impl Fp8GemmOutput,
        device: &Device,
        power_of_two: bool,
    ) -> Result<PreparedGemm, Error> {
        // Each operation is a type of its own.
        macro_rules! prepare {
            ($operation:expr) => {{
                let mut operation = $operation;
                if !self.form.splits {
                    operation = operation.batch_invariant();
                }
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
                if let Some(entries) = &operands.entries {
                    operation = match self.form.gathers {
                        1 => operation.gather(entries),
                        slots => operation.gather_entries(entries, slots),
                    };
                }
                if power_of_two {
                    operation = operation.power_of_two_scales();
                }
                operation.prepare(device)
            }};
        }
        match (self.rows, &operands.groups) {
            (Rows::Groups(_), Some(offsets)) => prepare!(GroupedFp8Gemm::new(a, b, offsets, out)),
            (Rows::Masked(..), Some(counts)) => prepare!(MaskedFp8Gemm::new(a, b, counts, out)),
            (Rows::Batched(..), _) => prepare!(BatchedFp8Gemm::new(a, b, out)),
            _ => prepare!(Fp8Gemm::new(a, b, out)),
        }
    }

    /// The product of rows that a list names has the bits of that of a copy of these rows.
    pub fn is_that_of_a_copy(&self, device: &Device) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let inputs = self.inputs();
        let copied = Fp8Check { form: Form { gathers: 0, ..self.form }, ..*self };
        let [got, want] = [self, &copied].map(|check| check.run::<f32>(device, &inputs));
        let (got, want) = (self.counting(&got?, self.n), self.counting(&want?, self.n));
        evidence.exact(&format!("{self:?} and that of a copy"), &bits(&got), &bits(&want))?;
        Ok(evidence)
    }

    /// Runs it to FP8 rows and compares codes and scales, bit for bit, with what quantisation makes of the sums: the exact
    /// ones where inputs are exact, and otherwise those of the same product to f32, which is checked too.
    pub fn check_quantized(&self, device: &Device, power_of_two: bool) -> Result<Evidence, String> {
        let inputs = self.inputs();
        let mut evidence = self.check::<f32>(device)?;
        let sums: Vec<f64> = if self.values.exact() {
            self.expected(&inputs, Rounding::F32).values
        } else {
            let sums = self.run::<f32>(device, &inputs)?;
            self.counting(&sums, self.n).into_iter().map(f64::from).collect()
        };
        let want = quantize(&sums, self.n, power_of_two);
        let (rows, blocks) = (self.rows.shape(), self.n.div_ceil(128));
        let shape = |last: usize| [&rows[..], &[last]].concat();
        // Those of a matrix follow those of the one before it.
        let pad = self.rows.count().next_multiple_of(4) + 4;
        let [row, block] = match self.layout {
            ScaleLayout::RowMajor => [blocks + 1, 1],
            ScaleLayout::MnMajor => [1, pad],
        };
        let packed = match rows[..] {
            [_, room] => vec![room * row, row, block],
            _ => vec![row, block],
        };
        let stream = device.stream();
        let run = || {
            let operands = self.operands(device, &inputs)?;
            let strides = self.rows.strides(self.n.next_multiple_of(16) + 16);
            let data = Surrounded::<E4m3>::strided(device, &shape(self.n), &strides, 0)?;
            let scales = Surrounded::<f32>::strided(device, &shape(blocks), &packed, 1)?;
            let out = Fp8Rows::new(data.view().clone(), scales.view().clone())?;
            self.prepare(&operands, &out, device, power_of_two)?.launch(&stream)?;
            Ok((data, scales))
        };
        let (data, scales) = run().map_err(|error: Error| format!("{self:?} to e4m3: {error}"))?;
        let codes = data.finish("the codes", &mut evidence)?;
        let scales = scales.finish("the scales", &mut evidence)?;
        self.others_are_kept(&codes, &vec![E4m3::POISON; codes.len()])?;
        let name = |what: &str| format!("{self:?} to e4m3, {what}");
        let got: Vec<u8> = self.counting(&codes, self.n).iter().map(|code| code.to_bits()).collect();
        evidence.exact(&name("scales"), &bits(&self.counting(&scales, blocks)), &bits(&want.scales))?;
        evidence.exact(&name("codes"), &got, &want.codes)?;
        Ok(evidence)
    }

    /// Runs and compares all elements (bit for bit where inputs are exact, within the bound otherwise), a few elements with
    /// the model of the tensor core, and random projections of all rows.
    pub fn check<T: Checked + Default>(&self, device: &Device) -> Result<Evidence, String> {
        self.check_sampled::<T>(device, Sampling::Quick)
    }

    /// [`check`](Self::check), with that many elements against the model.
    pub fn check_sampled<T: Checked + Default>(
        &self,
        device: &Device,
        sampling: Sampling,
    ) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let inputs = self.inputs();
        let got = self.run_counted::<T>(device, &inputs, &mut evidence)?;
        compare(
            &mut evidence,
            &format!("{self:?}"),
            self.values,
            &self.counting(&got, self.n),
            &self.expected(&inputs, T::ROUNDING),
        )?;
        self.check_rest(&mut evidence, &inputs, &got, sampling)?;
        Ok(evidence)
    }

    /// Runs and compares what costs less than the product itself: elements with the model, and projections.
    pub fn check_large<T: Checked>(&self, device: &Device) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let inputs = self.inputs();
        let got = self.run_counted::<T>(device, &inputs, &mut evidence)?;
        self.check_rest(&mut evidence, &inputs, &got, Sampling::Thorough)?;
        Ok(evidence)
    }

    fn check_rest<T: Checked>(
        &self,
        evidence: &mut Evidence,
        inputs: &Fp8Inputs,
        got: &[T],
        sampling: Sampling,
    ) -> Result<(), String> {
        let mut source = Source::new(!self.seed);
        let wide: Vec<f32> = got.iter().map(|value| value.widen()).collect();
        let projection = projection::<T>(self.values, self.seed);
        for (rows, product, epilogue) in self.products(inputs) {
            let samples = sampling.draw(rows.len(), self.n, self.k, &mut source);
            let part = rows.start * self.n..rows.end * self.n;
            if self.in_order_of_k() {
                let name = format!("{self:?}, bits");
                compare_with_model(evidence, &name, &got[part.clone()], self.n, &samples, |row, column| {
                    fp8_finish(fp8_element(&product, row, column), &epilogue, (row, column), self.n)
                })?;
            }
            evidence.projected += projection
                .check_fp8(&product, &epilogue, &wide[part])
                .map_err(|error| format!("{self:?}: {error}"))?;
        }
        Ok(())
    }
}
