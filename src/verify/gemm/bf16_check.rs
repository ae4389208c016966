//! bf16 products, alone and in batches.

use super::super::surrounded::{Place, Surrounded};
use super::super::tensor_core::bf16_element;
use super::super::{Evidence, Source};
use super::{Checked, Sampling, Values, compare, compare_with_model, projection};
use crate::device::Device;
use crate::dtype::bf16;
use crate::error::Error;
use crate::gemm::reference::{self, Expected, Rounding};
use crate::gemm::{BatchedBf16Gemm, Bf16Gemm, Tile};

/// A bf16 product to run and compare with its oracles.
#[derive(Debug, Clone, Copy)]
pub struct Bf16Check {
    /// `None` runs `Bf16Gemm`.
    pub batch: Option<usize>,
    /// Rows of A.
    pub m: usize,
    /// Rows of B.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// Whether A and the output have the batch as their middle dimension in memory, as attention heads do.
    pub interleaved: bool,
    /// The planner's choice where `None`.
    pub tile: Option<Tile>,
    /// How inputs are drawn.
    pub values: Values,
    /// Seed of the inputs.
    pub seed: u64,
}

/// A `[batch, m, k]` and B `[batch, n, k]`, row-major.
pub type Bf16Inputs = (Vec<bf16>, Vec<bf16>);

impl Bf16Check {
    /// Draws the inputs.
    pub fn inputs(&self) -> Bf16Inputs {
        let mut source = Source::new(self.seed);
        let batch = self.batch.unwrap_or(1);
        // So that sums stay below 2²⁴.
        let largest = if self.k <= 4096 { 64 } else { 16 };
        let mut data = |count: usize| -> Vec<bf16> {
            (0..count).map(|_| bf16::from_f32(self.values.draw(&mut source, largest))).collect()
        };
        (data(batch * self.m * self.k), data(batch * self.n * self.k))
    }

    /// The rows of A and of B of every product.
    fn products<'i>(&self, (a, b): &'i Bf16Inputs) -> impl Iterator<Item = (&'i [bf16], &'i [bf16])> {
        let (m, n, k) = (self.m, self.n, self.k);
        (0..self.batch.unwrap_or(1)).map(move |i| (&a[i * m * k..][..m * k], &b[i * n * k..][..n * k]))
    }

    /// What the product should be, row-major `[batch, m, n]`.
    pub fn expected(&self, inputs: &Bf16Inputs, rounding: Rounding) -> Expected {
        let mut all = Expected { values: Vec::new(), bounds: Vec::new() };
        for (a, b) in self.products(inputs) {
            let part = reference::bf16_product(a, b, (self.m, self.n, self.k), rounding);
            all.values.extend(part.values);
            all.bounds.extend(part.bounds);
        }
        all
    }

    /// Runs the kernel. Everything around the inputs is NaN; everything around the output must stay as it was.
    pub fn run<T: Checked>(&self, device: &Device, inputs: &Bf16Inputs) -> Result<Vec<T>, String> {
        self.run_counted(device, inputs, &mut Evidence::default())
    }

    /// [`run`](Self::run), with what was found around the output.
    pub fn run_counted<T: Checked>(
        &self,
        device: &Device,
        (a, b): &Bf16Inputs,
        evidence: &mut Evidence,
    ) -> Result<Vec<T>, String> {
        let (m, n, k, batch) = (self.m, self.n, self.k, self.batch.unwrap_or(1));
        // Rows start at multiples of 16 bytes.
        let width = k.next_multiple_of(8) + 8;
        let strides = |rows: usize, width: usize| match self.interleaved {
            true => [width, batch * width, 1],
            false => [(rows + 1) * width, width, 1],
        };
        let run = || {
            let a = Surrounded::strided(device, &[batch, m, k], &strides(m, width), 8)?.filled(a)?;
            let b = Surrounded::input(device, &[batch, n, k], Place { offset: 8, padding: width - k }, b)?;
            let out = Surrounded::strided(device, &[batch, m, n], &strides(m, n + 2), 2)?;
            let stream = device.stream();
            if self.batch.is_some() {
                let operation = BatchedBf16Gemm::new(a.view(), b.view(), out.view());
                match self.tile {
                    None => operation.launch(&stream)?,
                    Some(tile) => operation.tile(tile).launch(&stream)?,
                }
            } else {
                let (a, b, out) = (a.view().select(0, 0)?, b.view().select(0, 0)?, out.view().select(0, 0)?);
                let operation = Bf16Gemm::new(&a, &b, &out);
                match self.tile {
                    None => operation.launch(&stream)?,
                    Some(tile) => operation.tile(tile).launch(&stream)?,
                }
            }
            Ok(out)
        };
        let out = run().map_err(|error: Error| format!("{self:?}: {error}"))?;
        out.finish("the output", evidence).map_err(|error| format!("{self:?}: {error}"))
    }

    /// Runs and compares as [`Fp8Check::check`](super::Fp8Check::check) does.
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
        inputs: &Bf16Inputs,
        got: &[T],
        sampling: Sampling,
    ) -> Result<(), String> {
        let (m, n, k) = (self.m, self.n, self.k);
        let mut source = Source::new(!self.seed);
        let wide: Vec<f32> = got.iter().map(|value| value.widen()).collect();
        let projection = projection::<T>(self.values, self.seed);
        for (i, (a, b)) in self.products(inputs).enumerate() {
            let samples = sampling.draw(m, n, k, &mut source);
            let part = i * m * n..(i + 1) * m * n;
            let name = format!("{self:?}, bits");
            compare_with_model(evidence, &name, &got[part.clone()], n, &samples, |row, column| {
                bf16_element(&a[row * k..][..k], &b[column * k..][..k])
            })?;
            evidence.projected += projection
                .check_bf16(a, b, (m, n, k), &wide[part])
                .map_err(|error| format!("{self:?}: {error}"))?;
        }
        Ok(())
    }
}
