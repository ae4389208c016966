//! FP8 products with fine scales on both sides, dense and for ranges of K.

use super::super::surrounded::{Place, Poison, Surrounded};
use super::super::tensor_core::gradient_element;
use super::super::{Evidence, Source};
use super::{Checked, Sampling, Values, compare, compare_with_model, projection};
use crate::device::Device;
use crate::dtype::{E4m3, E5m2};
use crate::error::Error;
use crate::fp8::{Fp8, Fp8Rows, ScaleLayout};
use crate::gemm::reference::{self, AnyFp8, Expected, GradientProduct, Rounding};
use crate::gemm::{Fp8GradientGemm, KGroupedFp8Gemm, Tile};
use crate::{Stream, Tensor};
use std::ops::Range;

/// Which columns of A and B make a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth<'a> {
    /// All of them, so many.
    Dense(usize),
    /// One product for each range of K: their ends, of which the first is where the first begins; and K.
    Groups(&'a [i32], usize),
}

/// A gradient product to run and compare with its oracles.
#[derive(Debug, Clone, Copy)]
pub struct GradientCheck<'a> {
    /// Rows of A.
    pub m: usize,
    /// Rows of B.
    pub n: usize,
    /// Columns of both.
    pub depth: Depth<'a>,
    /// Whether A and B are e5m2, not e4m3.
    pub e5m2: [bool; 2],
    /// How scales lie.
    pub layout: ScaleLayout,
    /// Whether the output's rows start at multiples of 16 bytes.
    pub aligned: bool,
    /// Whether the product is added to what was there.
    pub accumulate: bool,
    /// Times the product.
    pub alpha: f32,
    /// The planner's choice where `None`.
    pub tile: Option<Tile>,
    /// How inputs are drawn.
    pub values: Values,
    /// Seed of the inputs.
    pub seed: u64,
}

/// The inputs of a gradient product on the host, row-major.
#[derive(Debug, Clone)]
pub struct GradientInputs {
    /// `[m, k]`.
    pub a: Vec<AnyFp8>,
    /// `[m, ceil(k / 128)]`.
    pub a_scales: Vec<f32>,
    /// `[n, k]`.
    pub b: Vec<AnyFp8>,
    /// `[n, ceil(k / 128)]`.
    pub b_scales: Vec<f32>,
    /// What the output holds where it is added to, `[groups, m, n]`; bf16 values.
    pub old: Vec<f32>,
}

/// Makes a value of a type from its bits.
type FromBits<V> = fn(u8) -> V;

impl GradientCheck<'_> {
    /// Columns of A and B.
    pub fn k(&self) -> usize {
        match self.depth {
            Depth::Dense(k) | Depth::Groups(_, k) => k,
        }
    }

    /// Blocks of K that have a scale.
    pub fn blocks(&self) -> usize {
        self.k().div_ceil(128)
    }

    /// The columns of every product, as the kernel takes them.
    pub fn ranges(&self) -> Vec<Range<usize>> {
        let Depth::Groups(offsets, k) = self.depth else { return vec![Range { start: 0, end: self.k() }] };
        let mut last = 0;
        let bounds = offsets.iter().map(|offset| {
            last = last.max((*offset).clamp(0, k as i32) as usize / 128 * 128);
            last
        });
        let bounds: Vec<usize> = bounds.collect();
        bounds.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// Draws the inputs.
    pub fn inputs(&self) -> GradientInputs {
        let mut source = Source::new(self.seed);
        let (m, n, k, blocks) = (self.m, self.n, self.k(), self.blocks());
        let mut data = |count: usize, e5m2: bool| -> Vec<AnyFp8> {
            let draw = |_| match e5m2 {
                // Integers up to 8 are e5m2; with those up to 11 of the other side, sums of 128 products stay exact.
                true => AnyFp8::E5m2(E5m2::from_f32(self.values.draw(&mut source, 8))),
                false => AnyFp8::E4m3(E4m3::from_f32(self.values.draw(&mut source, 11))),
            };
            (0..count).map(draw).collect()
        };
        let (a, b) = (data(m * k, self.e5m2[0]), data(n * k, self.e5m2[1]));
        let mut scales =
            |count: usize| -> Vec<f32> { (0..count).map(|_| self.values.scale(&mut source, k)).collect() };
        let (a_scales, b_scales) = (scales(m * blocks), scales(n * blocks));
        let old = (0..self.ranges().len() * m * n).map(|_| source.integer(-200, 200)).collect();
        GradientInputs { a, a_scales, b, b_scales, old }
    }

    /// The inputs of one of the products.
    pub fn part(&self, inputs: &GradientInputs, group: usize) -> GradientInputs {
        let range = self.ranges()[group].clone();
        let blocks = range.start / 128..range.end.div_ceil(128);
        let columns = |values: &[AnyFp8]| part_of(values, self.k(), range.clone());
        let scales = |values: &[f32]| part_of(values, self.blocks(), blocks.clone());
        GradientInputs {
            a: columns(&inputs.a),
            a_scales: scales(&inputs.a_scales),
            b: columns(&inputs.b),
            b_scales: scales(&inputs.b_scales),
            old: inputs.old[group * self.m * self.n..][..self.m * self.n].to_vec(),
        }
    }

    /// What the oracles take of one of the products, whose inputs these are.
    fn product<'i>(&self, part: &'i GradientInputs, columns: usize) -> GradientProduct<'i> {
        GradientProduct {
            a: &part.a,
            a_scales: &part.a_scales,
            b: &part.b,
            b_scales: &part.b_scales,
            extents: (self.m, self.n, columns),
            alpha: self.alpha,
            old: self.accumulate.then_some(&part.old[..]),
        }
    }

    /// What the products should be, `[groups, m, n]`.
    pub fn expected(&self, inputs: &GradientInputs, rounding: Rounding) -> Expected {
        let mut all = Expected { values: Vec::new(), bounds: Vec::new() };
        for (group, range) in self.ranges().into_iter().enumerate() {
            let part = self.part(inputs, group);
            let one = reference::gradient(&self.product(&part, range.len()), rounding);
            all.values.extend(one.values);
            all.bounds.extend(one.bounds);
        }
        all
    }

    /// Runs the kernel. Everything around the inputs is NaN, and so is the output unless it is added to; everything around
    /// the output must stay as it was. `reported`: whether the offsets are.
    pub fn run_counted<T: Checked>(
        &self,
        device: &Device,
        inputs: &GradientInputs,
        reported: bool,
        evidence: &mut Evidence,
    ) -> Result<Vec<T>, String> {
        let stream = device.stream();
        let run = || {
            let place = if self.aligned {
                Place { offset: 0, padding: self.n.next_multiple_of(8) - self.n + 8 }
            } else {
                Place { offset: 2, padding: 3 }
            };
            let shape = [self.ranges().len(), self.m, self.n];
            let shape = if matches!(self.depth, Depth::Dense(_)) { &shape[1..] } else { &shape[..] };
            let out = Surrounded::output(device, shape, place)?;
            if self.accumulate {
                out.fill(&inputs.old.iter().map(|x| T::nearest(f64::from(*x))).collect::<Vec<T>>())?;
            }
            self.launch(device, inputs, out.view(), &stream)?;
            Ok((out, stream.status()?))
        };
        let (out, status) = run().map_err(|error: Error| format!("{self:?}: {error}"))?;
        if status.bad_offsets() != reported || !reported && !status.is_clear() {
            return Err(format!("{self:?}: status {status}"));
        }
        out.finish("the output", evidence).map_err(|error| format!("{self:?}: {error}"))
    }

    /// Enqueues the product of these inputs, put on the device first.
    pub fn launch<T: Checked>(
        &self,
        device: &Device,
        inputs: &GradientInputs,
        out: &Tensor<T>,
        stream: &Stream,
    ) -> Result<(), Error> {
        let e4m3: FromBits<E4m3> = E4m3::from_bits;
        let e5m2: FromBits<E5m2> = E5m2::from_bits;
        match self.e5m2 {
            [false, false] => self.launch_as(device, inputs, (e4m3, e4m3), out, stream),
            [false, true] => self.launch_as(device, inputs, (e4m3, e5m2), out, stream),
            [true, false] => self.launch_as(device, inputs, (e5m2, e4m3), out, stream),
            [true, true] => self.launch_as(device, inputs, (e5m2, e5m2), out, stream),
        }
    }

    fn launch_as<T: Checked, A: Fp8 + Poison, B: Fp8 + Poison>(
        &self,
        device: &Device,
        inputs: &GradientInputs,
        types: (FromBits<A>, FromBits<B>),
        out: &Tensor<T>,
        stream: &Stream,
    ) -> Result<(), Error> {
        let a = self.operand(device, self.m, &inputs.a, &inputs.a_scales, types.0)?;
        let b = self.operand(device, self.n, &inputs.b, &inputs.b_scales, types.1)?;
        macro_rules! launch {
            ($product:expr) => {{
                let mut product = $product.alpha(self.alpha);
                if self.accumulate {
                    product = product.accumulate();
                }
                if let Some(tile) = self.tile {
                    product = product.tile(tile);
                }
                product.launch(stream)
            }};
        }
        match self.depth {
            Depth::Dense(_) => launch!(Fp8GradientGemm::new(&a, &b, out)),
            Depth::Groups(offsets, _) => {
                let offsets = device.tensor(&[offsets.len()], offsets)?;
                launch!(KGroupedFp8Gemm::new(&a, &b, &offsets, out))
            }
        }
    }

    fn operand<V: Fp8 + Poison>(
        &self,
        device: &Device,
        rows: usize,
        values: &[AnyFp8],
        scales: &[f32],
        from_bits: FromBits<V>,
    ) -> Result<Fp8Rows<V>, Error> {
        let (k, blocks) = (self.k(), self.blocks());
        // Rows start at multiples of 16 bytes.
        let place = Place { offset: 16, padding: k.next_multiple_of(16) + 16 - k };
        let strides = match self.layout {
            ScaleLayout::RowMajor => [blocks + 1, 1],
            ScaleLayout::MnMajor => [1, rows.next_multiple_of(4) + 4],
        };
        let scales = Surrounded::strided(device, &[rows, blocks], &strides, 4)?.filled(scales)?;
        let codes: Vec<V> = values.iter().map(|value| from_bits(value.to_bits())).collect();
        let data = Surrounded::input(device, &[rows, k], place, &codes)?;
        Fp8Rows::join(data.view().clone(), scales.view().clone())
    }

    /// Runs and compares all elements (bit for bit where inputs are exact, within the bound otherwise), a few elements with
    /// the model of the tensor core, and random projections of all rows where nothing follows the product.
    pub fn check<T: Checked + Default>(&self, device: &Device) -> Result<Evidence, String> {
        self.check_reported::<T>(device, false)
    }

    /// [`check`](Self::check) of a product whose offsets are to be reported, or not.
    pub fn check_reported<T: Checked + Default>(
        &self,
        device: &Device,
        reported: bool,
    ) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let inputs = self.inputs();
        let got = self.run_counted::<T>(device, &inputs, reported, &mut evidence)?;
        let want = self.expected(&inputs, T::ROUNDING);
        compare(&mut evidence, &format!("{self:?}"), self.values, &got, &want)?;
        let mut source = Source::new(!self.seed);
        let wide: Vec<f32> = got.iter().map(|value| value.widen()).collect();
        for (group, range) in self.ranges().into_iter().enumerate() {
            let part = self.part(&inputs, group);
            let product = self.product(&part, range.len());
            let samples = Sampling::Quick.draw(self.m, self.n, range.len(), &mut source);
            let elements = group * self.m * self.n..(group + 1) * self.m * self.n;
            let name = format!("{self:?}, bits");
            let model = |row: usize, column: usize| gradient_element(&product, row, column);
            compare_with_model(&mut evidence, &name, &got[elements.clone()], self.n, &samples, model)?;
            if self.alpha == 1.0 && !self.accumulate && !range.is_empty() {
                evidence.projected += projection::<T>(self.values, self.seed)
                    .check_gradient(&product, &wide[elements])
                    .map_err(|error| format!("{self:?}: {error}"))?;
            }
        }
        Ok(evidence)
    }

    /// The products of ranges of K are those of their columns alone, bit for bit.
    pub fn holds_alone<T: Checked + Default>(&self, device: &Device) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let inputs = self.inputs();
        let got = self.run_counted::<T>(device, &inputs, false, &mut evidence)?;
        for (group, range) in self.ranges().into_iter().enumerate() {
            let alone = GradientCheck { depth: Depth::Dense(range.len()), ..*self };
            let part = self.part(&inputs, group);
            let want = alone.run_counted::<T>(device, &part, false, &mut evidence)?;
            evidence
                .repeated(
                    &format!("group {group}"),
                    &got[group * self.m * self.n..][..self.m * self.n],
                    &want,
                )
                .map_err(|error| format!("{self:?}: {error}"))?;
        }
        Ok(evidence)
    }

    /// Scales of rows of A and of B times powers of two give the elements times both, bit for bit.
    pub fn holds_powers_of_two(&self, device: &Device) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let mut inputs = self.inputs();
        let got = self.run_counted::<f32>(device, &inputs, false, &mut evidence)?;
        let mut source = Source::new(self.seed ^ 0x2E);
        let (rows, columns) = (source.powers(self.m, -4, 4), source.powers(self.n, -4, 4));
        for (scales, powers) in [(&mut inputs.a_scales, &rows), (&mut inputs.b_scales, &columns)] {
            for (scales, power) in scales.chunks_mut(self.blocks().max(1)).zip(powers) {
                scales.iter_mut().for_each(|scale| *scale *= power);
            }
        }
        let again = self.run_counted::<f32>(device, &inputs, false, &mut evidence)?;
        let (m, n) = (self.m, self.n);
        let want: Vec<f32> = got.iter().zip(0..).map(|(x, i)| x * rows[i / n % m] * columns[i % n]).collect();
        evidence
            .repeated("times powers of two", &again, &want)
            .map_err(|error| format!("{self:?}: {error}"))?;
        Ok(evidence)
    }
}

impl GradientCheck<'_> {
    /// Rows of A and of B in another order give the elements in that order, and columns of zeros behind a dense product's K
    /// change nothing, bit for bit.
    pub fn holds_in_any_order(&self, device: &Device) -> Result<Evidence, String> {
        let mut evidence = Evidence::default();
        let (m, n, k, blocks) = (self.m, self.n, self.k(), self.blocks());
        let inputs = self.inputs();
        let got = self.run_counted::<f32>(device, &inputs, false, &mut evidence)?;
        let told = |error: String| format!("{self:?}: {error}");
        let mut source = Source::new(self.seed ^ 0x0DE);
        let (rows, columns) = (source.permutation(m), source.permutation(n));
        fn of<V: Copy>(values: &[V], width: usize, order: &[usize]) -> Vec<V> {
            order.iter().flat_map(|row| values[row * width..][..width].iter().copied()).collect()
        }
        let elements = |values: &[f32]| -> Vec<f32> {
            let matrices = values.chunks(m * n);
            let of_matrix = |matrix: &[f32]| -> Vec<f32> {
                rows.iter()
                    .flat_map(|row| columns.iter().map(move |column| (row * n) + column))
                    .map(|at| matrix[at])
                    .collect()
            };
            matrices.flat_map(of_matrix).collect()
        };
        let moved = GradientInputs {
            a: of(&inputs.a, k, &rows),
            a_scales: of(&inputs.a_scales, blocks, &rows),
            b: of(&inputs.b, k, &columns),
            b_scales: of(&inputs.b_scales, blocks, &columns),
            old: elements(&inputs.old),
        };
        let again = self.run_counted::<f32>(device, &moved, false, &mut evidence)?;
        evidence.repeated("rows and columns in another order", &again, &elements(&got)).map_err(told)?;
        if matches!(self.depth, Depth::Dense(_)) {
            let wide = GradientCheck { depth: Depth::Dense(blocks * 128 + 144), ..*self };
            let mut padded = GradientInputs { old: inputs.old.clone(), ..wide.inputs() };
            for (to, from) in [(&mut padded.a, &inputs.a), (&mut padded.b, &inputs.b)] {
                for (to, from) in to.chunks_mut(wide.k()).zip(from.chunks(k)) {
                    to.iter_mut().for_each(|value| *value = value.with_bits(0));
                    to[..k].copy_from_slice(from);
                }
            }
            for (to, from) in
                [(&mut padded.a_scales, &inputs.a_scales), (&mut padded.b_scales, &inputs.b_scales)]
            {
                to.chunks_mut(wide.blocks())
                    .zip(from.chunks(blocks))
                    .for_each(|(to, from)| to[..blocks].copy_from_slice(from));
            }
            let again = wide.run_counted::<f32>(device, &padded, false, &mut evidence)?;
            evidence.repeated("with zeros behind K", &again, &got).map_err(told)?;
        }
        Ok(evidence)
    }
}

/// Some columns of a row-major matrix.
fn part_of<V: Copy>(values: &[V], columns: usize, range: Range<usize>) -> Vec<V> {
    if columns == 0 {
        return Vec::new();
    }
    values.chunks(columns).flat_map(|row| &row[range.clone()]).copied().collect()
}
