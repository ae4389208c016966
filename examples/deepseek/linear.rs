//! FP8 linear layers: weights as the checkpoint stores them, inputs quantised beforehand.

use narrowgauge::dtype::{E4m3, bf16};
use narrowgauge::fp8::{Fp8Blocks, Fp8Rows, ScaleLayout};
use narrowgauge::gemm::Fp8Gemm;
use narrowgauge::{Device, Stream, Tensor};

use super::checkpoint::{Checkpoint, Fp8Matrix};
use super::config::BLOCK;
use super::failure::Outcome;

pub struct Linear {
    weight: Fp8Blocks,
}

impl Linear {
    pub fn load(
        device: &Device,
        checkpoint: &Checkpoint,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Outcome<Linear> {
        let mut stack = Stack::new(cols);
        stack.push(&checkpoint.fp8(name, rows, cols)?);
        Ok(Linear { weight: stack.upload(device)? })
    }

    /// Two matrices of the same shape above each other, for one GEMM instead of two. The lower one starts at
    /// [`padded`]`(rows)`, so that both keep their 128-row scale blocks.
    pub fn load_pair(
        device: &Device,
        checkpoint: &Checkpoint,
        names: &[String; 2],
        rows: usize,
        cols: usize,
    ) -> Outcome<Linear> {
        let mut stack = Stack::new(cols);
        for name in names {
            stack.push(&checkpoint.fp8(name, rows, cols)?);
        }
        Ok(Linear { weight: stack.upload(device)? })
    }

    pub fn forward(&self, device: &Device, stream: &Stream, x: &Fp8Rows) -> Outcome<Tensor<bf16>> {
        let out = device.empty(&[x.rows(), self.weight.rows()])?;
        Fp8Gemm::new(x, &self.weight, &out).batch_invariant().launch(stream)?;
        Ok(out)
    }
}

/// Room for quantised activations, with the scales as the GEMMs read them fastest.
pub fn quantized(device: &Device, rows: usize, cols: usize) -> Outcome<Fp8Rows> {
    Ok(Fp8Rows::empty(device, rows, cols, ScaleLayout::MnMajor)?)
}

/// Where the second of two stacked matrices of `rows` rows starts.
pub fn padded(rows: usize) -> usize {
    rows.next_multiple_of(BLOCK)
}

/// FP8 matrices of the same width above each other, each one from a new scale block on; the rows between are zero.
#[derive(Default)]
pub struct Stack {
    cols: usize,
    data: Vec<E4m3>,
    scales: Vec<f32>,
}

impl Stack {
    pub fn new(cols: usize) -> Stack {
        Stack { cols, ..Stack::default() }
    }

    pub fn push(&mut self, matrix: &Fp8Matrix) {
        let rows = self.data.len() / self.cols;
        self.data.resize(padded(rows) * self.cols, E4m3::default());
        self.data.extend(matrix.data.iter().map(|bits| E4m3::from_bits(*bits)));
        self.scales.extend_from_slice(&matrix.scales);
    }

    pub fn upload(&self, device: &Device) -> Outcome<Fp8Blocks> {
        let rows = self.data.len() / self.cols;
        let data = device.tensor(&[rows, self.cols], &self.data)?;
        let scales = device.tensor(&[rows.div_ceil(BLOCK), self.cols.div_ceil(BLOCK)], &self.scales)?;
        Ok(Fp8Blocks::new(data, scales)?)
    }

    /// Stacks of the same shape, one a group.
    pub fn upload_groups(device: &Device, groups: &[Stack]) -> Outcome<Fp8Blocks> {
        let cols = groups[0].cols;
        let rows = groups[0].data.len() / cols;
        let all: Vec<E4m3> = groups.iter().flat_map(|group| group.data.iter().copied()).collect();
        let scales: Vec<f32> = groups.iter().flat_map(|group| group.scales.iter().copied()).collect();
        let data = device.tensor(&[groups.len(), rows, cols], &all)?;
        let scales = device.tensor(&[groups.len(), rows.div_ceil(BLOCK), cols.div_ceil(BLOCK)], &scales)?;
        Ok(Fp8Blocks::new(data, scales)?)
    }
}
