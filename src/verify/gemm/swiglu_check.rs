//! FP8 products with SwiGLU and quantisation, against their oracles.

use super::super::surrounded::{Surrounded, bits};
use super::super::tensor_core::{fp8_element, fp8_finish};
use super::super::{Evidence, Source};
use super::fp8_inputs::{Fp8Inputs, Granularity, Rows};
use super::fp8_operands::{A, B, Fp8Operands, ScaledBlocks, ScaledRows};
use super::properties::with_zero_block;
use super::{Fp8Check, Values};
use crate::card::Card;
use crate::device::{Device, Stream};
use crate::dtype::E4m3;
use crate::error::Error;
use crate::fp8::{Fp8Blocks, Fp8Rows, Scale};
use crate::gemm::plan::{Input, Output, Problem, plan};
use crate::gemm::reference::{Activation, Epilogue, Expected, Rounding, fp8_with, swiglu};
use crate::gemm::{Fp8GemmSwiglu, GroupedFp8GemmSwiglu, MaskedFp8GemmSwiglu, PreparedGemm, Tile};
use crate::quant::reference as quantization;
use crate::verify::rounding::F32 as UNIT;
use std::ops::Range;

/// Columns that share a scale.
const BLOCK: usize = 128;

/// A product with SwiGLU to run and compare with its oracles.
#[derive(Debug, Clone, Copy)]
pub struct SwigluCheck<'a> {
    /// The product of all gates and ups, `n` of them together. It accumulates nothing and is not batched.
    pub product: Fp8Check<'a>,
    /// Where operands of the activation are cut.
    pub clamp: Option<f32>,
    /// Whether fresh scales are powers of two.
    pub power_of_two: bool,
}

/// What it answers: codes `[m, I]` and scales `[m, I / 128]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// e4m3 codes.
    pub codes: Vec<u8>,
    /// Fresh scales.
    pub scales: Vec<f32>,
}

impl<'a> SwigluCheck<'a> {
    /// I.
    pub fn columns(&self) -> usize {
        self.product.n / 2
    }

    /// The same rows with as many columns as the output has.
    fn output(&self) -> Fp8Check<'a> {
        Fp8Check { n: self.columns(), ..self.product }
    }

    /// Whether the planner has a kernel for it, which the given tile is if there is one.
    pub fn is_possible(&self) -> bool {
        let Fp8Check { rows, k, tile, .. } = self.product;
        let problem = Problem {
            mode: rows.mode(),
            swiglu: true,
            groups: rows.groups().max(1),
            batch_invariant: true,
            ..Problem::dense(Input::Fp8, Output::E4m3, rows.count().max(1), self.columns(), k)
        };
        plan(&problem, &Card::H20, tile).is_some()
    }

    fn activation<'i>(&self, rows: &Range<usize>, inputs: &'i Fp8Inputs) -> Activation<'i> {
        let row_weights = if inputs.row_weights.is_empty() { &[] } else { &inputs.row_weights[rows.clone()] };
        Activation { columns: self.columns(), clamp: self.clamp, row_weights }
    }

    /// Runs the kernel. Everything around the inputs is NaN; everything around the output must stay as it was.
    pub fn run(
        &self,
        device: &Device,
        inputs: &Fp8Inputs,
        evidence: &mut Evidence,
    ) -> Result<Answer, String> {
        let (stream, rows, columns) = (device.stream(), self.product.rows, self.columns());
        let shape = |last: usize| [&rows.shape()[..], &[last]].concat();
        // The scales of a group follow those of the group before it.
        let (blocks, width) = (columns / BLOCK, columns / BLOCK + 1);
        let packed = match rows {
            Rows::Masked(_, room) => vec![room * width, width, 1],
            _ => vec![width, 1],
        };
        let run = || {
            let operands = self.product.operands(device, inputs)?;
            let data = Surrounded::<E4m3>::strided(device, &shape(columns), &rows.strides(columns + 16), 0)?;
            let scales = Surrounded::<f32>::strided(device, &shape(blocks), &packed, 1)?;
            let out = Fp8Rows::new(data.view().clone(), scales.view().clone())?;
            self.launch(&operands, &out, &stream)?;
            Ok((data, scales, stream.status()?))
        };
        let told = |error: String| format!("{self:?}: {error}");
        let (data, scales, status) = run().map_err(|error: Error| told(error.to_string()))?;
        if !status.is_clear() {
            return Err(told(format!("status {status}")));
        }
        let codes = data.finish("the codes", evidence).map_err(told)?;
        let scales = scales.finish("the scales", evidence).map_err(told)?;
        self.output().others_are_kept(&codes, &vec![E4m3::from_bits(0xFF); codes.len()])?;
        Ok(Answer { codes: codes.into_iter().map(E4m3::to_bits).collect(), scales })
    }

    /// Enqueues the product.
    ///
    /// # Panics
    ///
    /// If the operands are not e4m3.
    pub fn launch(&self, operands: &Fp8Operands, out: &Fp8Rows, stream: &Stream) -> Result<(), Error> {
        self.prepare(operands, out, stream.device())?.launch(stream)
    }

    /// Prepares the product.
    ///
    /// # Panics
    ///
    /// If the operands are not e4m3.
    pub fn prepare(
        &self,
        operands: &Fp8Operands,
        out: &Fp8Rows,
        device: &Device,
    ) -> Result<PreparedGemm, Error> {
        // Each pair of types is an instance of its own.
        let (A::E4m3(_, a), B::E4m3(b)) = (&operands.a, &operands.b) else {
            panic!("SwiGLU products take e4m3");
        };
        match (a, b) {
            (ScaledRows::F32(a), ScaledBlocks::F32(b)) => self.prepared(operands, (a, b), out, device),
            (ScaledRows::F32(a), ScaledBlocks::Codes(b)) => self.prepared(operands, (a, b), out, device),
            (ScaledRows::Codes(a), ScaledBlocks::F32(b)) => self.prepared(operands, (a, b), out, device),
            (ScaledRows::Codes(a), ScaledBlocks::Codes(b)) => self.prepared(operands, (a, b), out, device),
        }
    }

    fn prepared<SA: Scale, SB: Scale>(
        &self,
        operands: &Fp8Operands,
        (a, b): (&Fp8Rows<E4m3, SA>, &Fp8Blocks<E4m3, SB>),
        out: &Fp8Rows,
        device: &Device,
    ) -> Result<PreparedGemm, Error> {
        let Fp8Check { tile, form, rows, .. } = self.product;
        // Each operation is a type of its own.
        macro_rules! prepare {
            ($operation:expr) => {{
                let mut operation = $operation.batch_invariant();
                if let Some(tile) = tile {
                    operation = operation.tile(tile);
                }
                if form.alpha != 1.0 {
                    operation = operation.alpha(form.alpha);
                }
                if let Some(limit) = self.clamp {
                    operation = operation.clamp(limit);
                }
                if let Some(bias) = &operands.bias {
                    operation = operation.bias(bias);
                }
                if let Some(weights) = &operands.row_weights {
                    operation = operation.row_weights(weights);
                }
                if self.power_of_two {
                    operation = operation.power_of_two_scales();
                }
                operation.prepare(device)
            }};
        }
        match (rows, &operands.groups) {
            (Rows::Groups(_), Some(offsets)) => prepare!(GroupedFp8GemmSwiglu::new(a, b, offsets, out)),
            (Rows::Masked(..), Some(counts)) => prepare!(MaskedFp8GemmSwiglu::new(a, b, counts, out)),
            _ => prepare!(Fp8GemmSwiglu::new(a, b, out)),
        }
    }

    /// Runs and compares every scale and code with the oracle: bit for bit where sums and activation are exact, within the
    /// bound otherwise; and some scales with their codes with what the model of the tensor core's bits allows.
    pub fn check(&self, device: &Device) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let inputs = self.product.inputs();
        let got = self.run(device, &inputs, &mut evidence)?;
        let (columns, blocks) = (self.columns(), self.columns() / BLOCK);
        let source = &mut Source::new(!self.product.seed);
        for (rows, product, epilogue) in self.product.products(&inputs) {
            let activation = self.activation(&rows, &inputs);
            // Row weights come behind the activation.
            let epilogue = Epilogue { row_weights: &[], ..epilogue };
            let mut sums = fp8_with(&product, &epilogue, Rounding::F32);
            if self.product.values.exact() {
                sums.bounds.fill(0.0);
            }
            let want = swiglu(&sums, &activation);
            for at in 0..rows.len() * blocks {
                let (row, block) = (at / blocks, at % blocks);
                let part = row * columns + block * BLOCK..row * columns + (block + 1) * BLOCK;
                let want = Expected {
                    values: want.values[part.clone()].to_vec(),
                    bounds: want.bounds[part].to_vec(),
                };
                self.judge(&mut evidence, &got, (rows.start + row, block), &want)?;
            }
            if self.product.in_order_of_k() && !rows.is_empty() {
                let samples = ((1 << 20) / (2 * BLOCK * self.product.k.max(1))).clamp(2, 64);
                for _ in 0..samples.min(rows.len() * blocks) {
                    let (row, block) = (source.below(rows.len()), source.below(blocks));
                    let side = |first: usize| {
                        let element = move |column: usize| {
                            let column = first + block * BLOCK + column;
                            let sum = fp8_element(&product, row, column);
                            f64::from(fp8_finish(sum, &epilogue, (row, column), self.product.n))
                        };
                        (0..BLOCK).map(element)
                    };
                    let sums = Expected {
                        values: side(0).chain(side(columns)).collect(),
                        bounds: vec![0.0; 2 * BLOCK],
                    };
                    let weight = activation.row_weights.get(row..row + 1).unwrap_or(&[]);
                    let want =
                        swiglu(&sums, &Activation { columns: BLOCK, row_weights: weight, ..activation });
                    self.judge(&mut evidence, &got, (rows.start + row, block), &want)?;
                }
            }
        }
        Ok(evidence)
    }

    /// Compares one scale and its codes.
    fn judge(
        &self,
        evidence: &mut Evidence,
        got: &Answer,
        (row, block): (usize, usize),
        want: &Expected,
    ) -> Result<(), String> {
        let scale = got.scales[row * (self.columns() / BLOCK) + block];
        let codes = &got.codes[row * self.columns() + block * BLOCK..][..BLOCK];
        let name = |what: &str| format!("{self:?}: {what} of row {row}, block {block}");
        if want.bounds.iter().all(|bound| *bound == 0.0) {
            let exact = quantization::quantize(&want.values, BLOCK, self.power_of_two);
            evidence.exact(&name("scale"), &bits(&[scale]), &bits(&exact.scales))?;
            return evidence.exact(&name("codes"), codes, &exact.codes);
        }
        let moved = |sign: f64| -> Vec<f64> {
            let pairs = want.values.iter().zip(&want.bounds);
            pairs.map(|(value, bound)| (value.abs() + sign * bound).max(0.0)).collect()
        };
        let [low, high] = [-1.0, 1.0].map(|sign| quantization::scale(&moved(sign), self.power_of_two));
        if !(low..=high).contains(&scale) {
            return Err(format!("{}: got {scale:e}, want {low:e} to {high:e}", name("scale")));
        }
        for (column, code) in codes.iter().enumerate() {
            let (value, bound) = (want.values[column], want.bounds[column]);
            // The reciprocal of the scale and the product with it round once each.
            let reach = bound + 3.0 * UNIT * (value.abs() + bound);
            let [low, high] = [-reach, reach].map(|reach| {
                let scaled = (value + reach) / f64::from(scale);
                quantization::decode_e4m3(quantization::encode_e4m3(scaled))
            });
            let got = quantization::decode_e4m3(*code);
            if !(low..=high).contains(&got) {
                let what = name(&format!("column {column}"));
                return Err(format!("{what}: got {got}, want {low} to {high} of {value:e} / {scale:e}"));
            }
        }
        evidence.bounded += (BLOCK + 1) as u64;
        evidence.zeros += codes.iter().filter(|code| **code & 0x7F == 0).count() as u64;
        Ok(())
    }

    fn equal(
        &self,
        evidence: &mut Evidence,
        what: &str,
        got: (&[u8], &[f32]),
        want: (&[u8], &[f32]),
    ) -> Result<(), String> {
        evidence.repeated(&format!("{self:?}: codes, {what}"), got.0, want.0)?;
        evidence.repeated(&format!("{self:?}: scales, {what}"), &bits(got.1), &bits(want.1))
    }

    /// Relations that hold bit for bit: every tile gives the same; a group, and a row, give the same alone; rows in another
    /// order give the answer in that order; a block of zeros in K changes nothing; ups times a power of two give scales times it, and the same codes.
    pub fn relations(&self, device: &Device) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let Fp8Check { k, rows, form, seed, .. } = self.product;
        let (columns, blocks) = (self.columns(), self.columns() / BLOCK);
        let source = &mut Source::new(seed ^ 0x5816);
        let inputs = self.product.inputs();
        let got = self.run(device, &inputs, &mut evidence)?;
        let part = |answer: &Answer, rows: &Range<usize>| {
            let codes = answer.codes[rows.start * columns..rows.end * columns].to_vec();
            (codes, answer.scales[rows.start * blocks..rows.end * blocks].to_vec())
        };
        let counting = |answer: &Answer| -> (Vec<u8>, Vec<f32>) {
            let output = self.output();
            (output.counting(&answer.codes, columns), output.counting(&answer.scales, blocks))
        };
        let ((codes, scales), evidence) = (counting(&got), &mut evidence);
        for tile in Tile::of_swiglu(rows.mode()) {
            let product = Fp8Check { tile: tile.split(1), ..self.product };
            let (again, again_scales) = counting(&Self { product, ..*self }.run(device, &inputs, evidence)?);
            self.equal(evidence, &tile.to_string(), (&again, &again_scales), (&codes, &scales))?;
        }
        let (product, padded) = with_zero_block(&self.product, &inputs, self.product.k / BLOCK, source);
        let (again, again_scales) = counting(&Self { product, ..*self }.run(device, &padded, evidence)?);
        self.equal(evidence, "with a block of zeros", (&again, &again_scales), (&codes, &scales))?;
        for (rows, product, inputs) in self.product.parts(&inputs) {
            let alone = SwigluCheck { product, clamp: self.clamp, power_of_two: self.power_of_two };
            if rows.is_empty() {
                continue;
            }
            let answer = alone.run(device, &inputs, evidence)?;
            let (codes, scales) = part(&got, &rows);
            self.equal(evidence, "a group alone", (&answer.codes, &answer.scales), (&codes, &scales))?;

            // Rows in another order, and one of them alone.
            let order = source.permutation(rows.len());
            for order in [&order[..], &order[..1]] {
                let of = |width: usize| move |row: &usize| row * width..(row + 1) * width;
                let blocks_of_k = alone.product.blocks();
                let mut moved = Fp8Inputs {
                    a: order.iter().flat_map(|row| inputs.a[of(k)(row)].to_vec()).collect(),
                    ..inputs.clone()
                };
                moved.a_scales =
                    order.iter().flat_map(|row| inputs.a_scales[of(blocks_of_k)(row)].to_vec()).collect();
                if form.row_weights {
                    moved.row_weights = order.iter().map(|row| inputs.row_weights[*row]).collect();
                }
                let product = Fp8Check { rows: Rows::Dense(order.len()), ..alone.product };
                let answer = SwigluCheck { product, ..alone }.run(device, &moved, evidence)?;
                let want: Vec<u8> = order.iter().flat_map(|row| codes[of(columns)(row)].to_vec()).collect();
                let want_scales: Vec<f32> =
                    order.iter().flat_map(|row| scales[of(blocks)(row)].to_vec()).collect();
                self.equal(
                    evidence,
                    "rows in another order",
                    (&answer.codes, &answer.scales),
                    (&want, &want_scales),
                )?;
            }
        }
        if form.granularity == Granularity::Blocks && !form.bias && self.clamp.is_none() {
            let mut louder = inputs;
            let of_group = 2 * blocks * self.product.blocks();
            for group in louder.b_scales.chunks_mut(of_group.max(1)) {
                let ups = group.len() / 2;
                group[ups..].iter_mut().for_each(|scale| *scale *= 8.0);
            }
            let (again, again_scales) = counting(&self.run(device, &louder, evidence)?);
            // The smallest scale stands for anything.
            let least = quantization::scale(&[], self.power_of_two);
            for (at, (again_scale, scale)) in again_scales.iter().zip(&scales).enumerate() {
                if *scale > least {
                    let part = at * BLOCK..(at + 1) * BLOCK;
                    let want = (&codes[part.clone()], &[scale * 8.0][..]);
                    self.equal(evidence, "louder ups", (&again[part], &[*again_scale]), want)?;
                }
            }
        }
        Ok(evidence.clone())
    }
}

/// Values that reach every part of the activation: sums of a few units.
pub fn moderate(check: Fp8Check<'_>) -> Fp8Check<'_> {
    let alpha = if check.values == Values::Normal { 2f32.powi(-8) } else { 2f32.powi(-5) };
    Fp8Check { form: super::Form { alpha, ..check.form }, ..check }
}
