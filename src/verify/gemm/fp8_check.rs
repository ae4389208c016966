//! FP8 products, dense and grouped.

use super::super::surrounded::{Place, Surrounded};
use super::super::tensor_core::fp8_element;
use super::super::{Evidence, Source};
use super::{Checked, Sampling, Values, compare, compare_with_model, offsets, projection};
use crate::device::Device;
use crate::dtype::E4m3;
use crate::error::Error;
use crate::fp8::{Fp8Blocks, Fp8Rows, ScaleLayout};
use crate::gemm::plan::Mode;
use crate::gemm::reference::{self, Expected, Fp8Product, Rounding};
use crate::gemm::{Fp8Gemm, GroupedFp8Gemm, Tile};
use crate::{Stream, Tensor};
use std::ops::Range;

/// Which rows of A go with which weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows<'a> {
    /// One matrix for this many rows.
    Dense(usize),
    /// Groups of these sizes.
    Groups(&'a [usize]),
}

impl Rows<'_> {
    /// How they find their weights.
    pub fn mode(&self) -> Mode {
        match self {
            Rows::Dense(_) => Mode::Dense,
            Rows::Groups(_) => Mode::Contiguous,
        }
    }

    /// M.
    pub fn count(&self) -> usize {
        match self {
            Rows::Dense(rows) => *rows,
            Rows::Groups(sizes) => sizes.iter().sum(),
        }
    }

    fn groups(&self) -> usize {
        match self {
            Rows::Dense(_) => 1,
            Rows::Groups(sizes) => sizes.len(),
        }
    }
}

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
    /// Seed of the inputs.
    pub seed: u64,
}

/// The inputs of an FP8 product on the host: row-major, `b` by groups.
#[derive(Debug, Clone)]
pub struct Fp8Inputs {
    /// `[m, k]`.
    pub a: Vec<E4m3>,
    /// `[m, ceil(k / 128)]`.
    pub a_scales: Vec<f32>,
    /// `[groups, n, k]`.
    pub b: Vec<E4m3>,
    /// `[groups, ceil(n / 128), ceil(k / 128)]`.
    pub b_scales: Vec<f32>,
}

impl Fp8Check<'_> {
    /// Blocks of K that have a scale.
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(128)
    }

    /// Draws the inputs.
    pub fn inputs(&self) -> Fp8Inputs {
        let mut source = Source::new(self.seed);
        let (m, groups, blocks) = (self.rows.count(), self.rows.groups(), self.blocks());
        // Sums of 128 products of integers up to 11 are exact in the tensor core, and of 12 are not.
        let mut data = |count: usize| -> Vec<E4m3> {
            (0..count).map(|_| E4m3::from_f32(self.values.draw(&mut source, 11))).collect()
        };
        let (a, b) = (data(m * self.k), data(groups * self.n * self.k));
        let mut scales = |count: usize| -> Vec<f32> {
            (0..count).map(|_| self.values.scale(&mut source, self.k)).collect()
        };
        let a_scales = scales(m * blocks);
        let b_scales = scales(groups * self.n.div_ceil(128) * blocks);
        Fp8Inputs { a, a_scales, b, b_scales }
    }

    /// The rows and the product of every group.
    fn products<'i>(&self, inputs: &'i Fp8Inputs) -> Vec<(Range<usize>, Fp8Product<'i>)> {
        let (n, k, blocks) = (self.n, self.k, self.blocks());
        let column_blocks = n.div_ceil(128);
        let dense = [self.rows.count()];
        let sizes = match &self.rows {
            Rows::Dense(_) => &dense[..],
            Rows::Groups(sizes) => sizes,
        };
        let mut row = 0;
        let product = |(group, size): (usize, &usize)| {
            let rows = row..row + size;
            row = rows.end;
            let product = Fp8Product {
                a: &inputs.a[rows.start * k..rows.end * k],
                a_scales: &inputs.a_scales[rows.start * blocks..rows.end * blocks],
                b: &inputs.b[group * n * k..][..n * k],
                b_scales: &inputs.b_scales[group * column_blocks * blocks..][..column_blocks * blocks],
                extents: (*size, n, k),
            };
            (rows, product)
        };
        sizes.iter().enumerate().map(product).collect()
    }

    /// What the product should be, row-major `[m, n]`.
    pub fn expected(&self, inputs: &Fp8Inputs, rounding: Rounding) -> Expected {
        let mut all = Expected { values: Vec::new(), bounds: Vec::new() };
        for (_, product) in self.products(inputs) {
            let part = reference::fp8(&product, rounding);
            all.values.extend(part.values);
            all.bounds.extend(part.bounds);
        }
        all
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
        let run = || {
            let operands = self.operands(device, inputs)?;
            let out =
                Surrounded::output(device, &[self.rows.count(), self.n], Place { offset: 2, padding: 2 })?;
            self.launch(&operands, out.view(), &stream)?;
            Ok((out, stream.status()?))
        };
        let (out, status) = run().map_err(|error: Error| format!("{self:?}: {error}"))?;
        if !status.is_clear() {
            return Err(format!("{self:?}: status {status}"));
        }
        out.finish("the output", evidence).map_err(|error| format!("{self:?}: {error}"))
    }

    /// The operands on the device.
    pub fn operands(&self, device: &Device, inputs: &Fp8Inputs) -> Result<Fp8Operands, Error> {
        let (m, n, k, blocks) = (self.rows.count(), self.n, self.k, self.blocks());
        // Rows start at multiples of 16 bytes.
        let place = Place { offset: 16, padding: k.next_multiple_of(16) + 16 - k };
        let strides = match self.layout {
            ScaleLayout::RowMajor => [blocks + 1, 1],
            ScaleLayout::MnMajor => [1, m.next_multiple_of(4) + 4],
        };
        let a_data = Surrounded::input(device, &[m, k], place, &inputs.a)?;
        let a_scales = Surrounded::strided(device, &[m, blocks], &strides, 4)?.filled(&inputs.a_scales)?;
        let a = Fp8Rows::new(a_data.view().clone(), a_scales.view().clone())?;
        let groups = match self.rows {
            Rows::Dense(_) => None,
            Rows::Groups(sizes) => Some(sizes),
        };
        let shape = |rows: usize, columns: usize| match groups {
            None => vec![rows, columns],
            Some(sizes) => vec![sizes.len(), rows, columns],
        };
        let data = Surrounded::input(device, &shape(n, k), place, &inputs.b)?;
        let beside = Place { offset: 1, padding: 1 };
        let scales = Surrounded::input(device, &shape(n.div_ceil(128), blocks), beside, &inputs.b_scales)?;
        let b = Fp8Blocks::new(data.view().clone(), scales.view().clone())?;
        let offsets = groups.map(|sizes| device.tensor(&[sizes.len() + 1], &offsets(sizes))).transpose()?;
        Ok(Fp8Operands { a_data, a_scales, a, b, offsets })
    }

    /// Enqueues the product.
    pub fn launch<T: Checked>(
        &self,
        operands: &Fp8Operands,
        out: &Tensor<T>,
        stream: &Stream,
    ) -> Result<(), Error> {
        let Fp8Operands { a, b, offsets, .. } = operands;
        match (offsets, self.tile) {
            (None, None) => Fp8Gemm::new(a, b, out).launch(stream),
            (None, Some(tile)) => Fp8Gemm::new(a, b, out).tile(tile).launch(stream),
            (Some(offsets), None) => GroupedFp8Gemm::new(a, b, offsets, out).launch(stream),
            (Some(offsets), Some(tile)) => GroupedFp8Gemm::new(a, b, offsets, out).tile(tile).launch(stream),
        }
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
            &got,
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
        for (rows, product) in self.products(inputs) {
            let samples = sampling.draw(rows.len(), self.n, self.k, &mut source);
            let part = rows.start * self.n..rows.end * self.n;
            let name = format!("{self:?}, bits");
            compare_with_model(evidence, &name, &got[part.clone()], self.n, &samples, |row, column| {
                fp8_element(&product, row, column)
            })?;
            evidence.projected +=
                projection.check_fp8(&product, &wide[part]).map_err(|error| format!("{self:?}: {error}"))?;
        }
        Ok(())
    }
}

/// Operands of an FP8 product on a device.
#[derive(Debug)]
pub struct Fp8Operands {
    a_data: Surrounded<E4m3>,
    a_scales: Surrounded<f32>,
    a: Fp8Rows,
    b: Fp8Blocks,
    offsets: Option<Tensor<i32>>,
}

impl Fp8Operands {
    /// Overwrites A, where it is.
    pub fn fill_a(&self, inputs: &Fp8Inputs) -> Result<(), Error> {
        self.a_data.fill(&inputs.a)?;
        self.a_scales.fill(&inputs.a_scales)
    }
}
