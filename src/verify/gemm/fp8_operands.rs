//! The inputs of an FP8 product on a device, in each of their types.

use super::super::surrounded::{Place, Poison, Surrounded};
use super::{Fp8Check, Fp8Inputs, Granularity, Rows, offsets};
use crate::device::Device;
use crate::dtype::{E4m3, E5m2, Ue8m0};
use crate::error::{Error, Result};
use crate::fp8::{Fp8, Fp8Blocks, Fp8Rows, ScaleLayout};
use crate::gemm::reference::AnyFp8;
use crate::tensor::Tensor;

/// Rows with scales of either type.
#[derive(Debug)]
pub(super) enum ScaledRows<T: Fp8> {
    F32(Fp8Rows<T>),
    Codes(Fp8Rows<T, Ue8m0>),
}

/// Blocks with scales of either type.
#[derive(Debug)]
pub(super) enum ScaledBlocks<T: Fp8> {
    F32(Fp8Blocks<T>),
    Codes(Fp8Blocks<T, Ue8m0>),
}

#[derive(Debug)]
pub(super) enum A {
    E4m3(Surrounded<E4m3>, ScaledRows<E4m3>),
    E5m2(Surrounded<E5m2>, ScaledRows<E5m2>),
}

#[derive(Debug)]
pub(super) enum B {
    E4m3(ScaledBlocks<E4m3>),
    E5m2(ScaledBlocks<E5m2>),
}

/// Operands of an FP8 product on a device.
#[derive(Debug)]
pub struct Fp8Operands {
    pub(super) a: A,
    a_scales: Option<Surrounded<f32>>,
    pub(super) b: B,
    pub(super) groups: Option<Tensor<i32>>,
    pub(super) bias: Option<Tensor<f32>>,
    pub(super) row_weights: Option<Tensor<f32>>,
    pub(super) entries: Option<Tensor<i32>>,
}

impl Fp8Operands {
    /// Overwrites A, where it is; of its scales only f32 ones of blocks.
    pub fn fill_a(&self, inputs: &Fp8Inputs) -> Result<(), Error> {
        match &self.a {
            A::E4m3(data, _) => data.fill(&coded(&inputs.a, E4m3::from_bits))?,
            A::E5m2(data, _) => data.fill(&coded(&inputs.a, E5m2::from_bits))?,
        }
        self.a_scales.iter().try_for_each(|scales| scales.fill(&inputs.a_scales))
    }
}

fn coded<T>(values: &[AnyFp8], from_bits: fn(u8) -> T) -> Vec<T> {
    values.iter().map(|value| from_bits(value.to_bits())).collect()
}

fn exponents(scales: &[f32]) -> Vec<Ue8m0> {
    scales.iter().map(|scale| Ue8m0::from_f32(*scale).expect("powers of two, and NaN")).collect()
}

/// The scale of every row, of which each has so many copies; ones where there are none.
fn per_row(scales: &[f32], copies: usize, rows: usize) -> Vec<f32> {
    if copies == 0 { vec![1.0; rows] } else { scales.iter().step_by(copies).copied().collect() }
}

impl Fp8Check<'_> {
    /// The operands on the device. Rows that do not count are NaN.
    pub fn operands(&self, device: &Device, inputs: &Fp8Inputs) -> Result<Fp8Operands, Error> {
        let Self { rows, n, k, form, .. } = *self;
        let blocks = self.blocks();
        let mut data = inputs.a.clone();
        let mut scales = inputs.a_scales.clone();
        if form.gathers > 0 {
            // What no entry names is NaN too.
            data = vec![AnyFp8::nearest(0.0, form.e5m2[0]).with_bits(0x7F); self.named_rows() * k];
            scales = match form.granularity {
                Granularity::Tensor => scales,
                _ => vec![f32::NAN; self.named_rows() * blocks],
            };
            for (row, entry) in inputs.entries.iter().enumerate().filter(|(row, _)| self.counts(*row)) {
                let entry = usize::try_from(*entry).ok();
                let Some(at) = entry.and_then(|entry| entry.checked_div(form.gathers)) else { continue };
                data[at * k..][..k].copy_from_slice(&inputs.a[row * k..][..k]);
                if form.granularity != Granularity::Tensor {
                    scales[at * blocks..][..blocks]
                        .copy_from_slice(&inputs.a_scales[row * blocks..][..blocks]);
                }
            }
        }
        for row in (0..rows.count()).filter(|row| form.gathers == 0 && !self.counts(*row)) {
            data[row * k..][..k].iter_mut().for_each(|value| *value = value.with_bits(0x7F));
            if form.granularity != Granularity::Tensor {
                scales[row * blocks..][..blocks].fill(f32::NAN);
            }
        }
        let mut a_scales = None;
        let a = if form.e5m2[0] {
            let placed = self.placed_a(device, &coded(&data, E5m2::from_bits))?;
            let scaled = self.scaled_a(device, placed.view().clone(), &scales, &mut a_scales)?;
            A::E5m2(placed, scaled)
        } else {
            let placed = self.placed_a(device, &coded(&data, E4m3::from_bits))?;
            let scaled = self.scaled_a(device, placed.view().clone(), &scales, &mut a_scales)?;
            A::E4m3(placed, scaled)
        };
        let b = match form.e5m2[1] {
            true => B::E5m2(self.scaled_b(device, inputs, E5m2::from_bits)?),
            false => B::E4m3(self.scaled_b(device, inputs, E4m3::from_bits)?),
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
        let bias = vector(self.grouped(&[n]), &inputs.bias, form.bias)?;
        let row_weights = vector(rows.shape(), &inputs.row_weights, form.row_weights)?;
        let entries = match form.gathers {
            0 => None,
            _ => Some(device.tensor(&rows.shape(), &inputs.entries)?),
        };
        Ok(Fp8Operands { a, a_scales, b, groups, bias, row_weights, entries })
    }

    /// Elements from a row of data to the next. Rows start at multiples of 16 bytes.
    fn width(&self) -> usize {
        self.k.next_multiple_of(16) + 16
    }

    /// The shape with a leading extent for the matrices of B, where there may be several.
    fn grouped(&self, shape: &[usize]) -> Vec<usize> {
        match self.rows {
            Rows::Dense(_) => shape.to_vec(),
            _ => [&[self.rows.groups()][..], shape].concat(),
        }
    }

    /// The rows of A as they lie on the device.
    fn rows_of_a(&self) -> Rows<'_> {
        if self.form.gathers > 0 { Rows::Dense(self.named_rows()) } else { self.rows }
    }

    /// Whether a row, counted over all groups, counts.
    fn counts(&self, row: usize) -> bool {
        self.rows.ranges().iter().any(|range| range.contains(&row))
    }

    fn placed_a<T: Poison>(&self, device: &Device, codes: &[T]) -> Result<Surrounded<T>> {
        let rows = self.rows_of_a();
        let shape = [&rows.shape()[..], &[self.k]].concat();
        Surrounded::strided(device, &shape, &rows.strides(self.width()), 16)?.filled(codes)
    }

    fn scaled_a<T: Fp8>(
        &self,
        device: &Device,
        data: Tensor<T>,
        scales: &[f32],
        in_blocks: &mut Option<Surrounded<f32>>,
    ) -> Result<ScaledRows<T>> {
        let (blocks, matrices) = (self.blocks(), self.rows_of_a().shape());
        let shape = [&matrices[..], &[blocks]].concat();
        let room = matrices[matrices.len() - 1];
        let pad = room.next_multiple_of(4) + 4;
        let strides = match self.layout {
            ScaleLayout::RowMajor => [room * (blocks + 1), blocks + 1, 1],
            ScaleLayout::MnMajor => [blocks.max(1) * pad, 1, pad],
        };
        let strides = &strides[3 - shape.len()..];
        let of_rows = || per_row(scales, blocks, self.rows_of_a().count());
        let of_all = [scales.first().copied().unwrap_or(1.0)];
        Ok(match (self.form.granularity, self.form.codes[0]) {
            (Granularity::Blocks, false) => {
                let placed = Surrounded::strided(device, &shape, strides, 4)?.filled(scales)?;
                let rows = Fp8Rows::join(data, placed.view().clone())?;
                *in_blocks = Some(placed);
                ScaledRows::F32(rows)
            }
            (Granularity::Blocks, true) => {
                let placed = Surrounded::strided(device, &shape, strides, 4)?.filled(&exponents(scales))?;
                ScaledRows::Codes(Fp8Rows::join(data, placed.view().clone())?)
            }
            (Granularity::Rows, false) => {
                ScaledRows::F32(Fp8Rows::per_row(data, device.tensor(&matrices, &of_rows())?)?)
            }
            (Granularity::Rows, true) => {
                ScaledRows::Codes(Fp8Rows::per_row(data, device.tensor(&matrices, &exponents(&of_rows()))?)?)
            }
            (Granularity::Tensor, false) => {
                ScaledRows::F32(Fp8Rows::per_tensor(data, device.tensor(&[1], &of_all)?)?)
            }
            (Granularity::Tensor, true) => {
                ScaledRows::Codes(Fp8Rows::per_tensor(data, device.tensor(&[1], &exponents(&of_all))?)?)
            }
        })
    }

    fn scaled_b<T: Fp8 + Poison>(
        &self,
        device: &Device,
        inputs: &Fp8Inputs,
        from_bits: fn(u8) -> T,
    ) -> Result<ScaledBlocks<T>> {
        let Self { rows, n, k, .. } = *self;
        let of_matrix = n.div_ceil(128) * self.blocks();
        let place = Place { offset: 16, padding: self.width() - k };
        let codes = coded(&inputs.b, from_bits);
        let data = Surrounded::input(device, &self.grouped(&[n, k]), place, &codes)?.view().clone();
        let shape = self.grouped(&[n.div_ceil(128), self.blocks()]);
        let beside = Place { offset: 1, padding: 1 };
        let each = per_row(&inputs.b_scales, of_matrix, rows.groups());
        Ok(match (self.form.granularity, self.form.codes[1]) {
            (Granularity::Blocks, false) => {
                let scales = Surrounded::input(device, &shape, beside, &inputs.b_scales)?;
                ScaledBlocks::F32(Fp8Blocks::join(data, scales.view().clone())?)
            }
            (Granularity::Blocks, true) => {
                let scales = Surrounded::input(device, &shape, beside, &exponents(&inputs.b_scales))?;
                ScaledBlocks::Codes(Fp8Blocks::join(data, scales.view().clone())?)
            }
            (Granularity::Rows, _) => {
                let scales = device.tensor(&self.grouped(&[n]), &inputs.column_scales)?;
                ScaledBlocks::F32(Fp8Blocks::per_row(data, scales)?)
            }
            (Granularity::Tensor, false) => {
                ScaledBlocks::F32(Fp8Blocks::per_tensor(data, device.tensor(&[each.len()], &each)?)?)
            }
            (Granularity::Tensor, true) => {
                let scales = device.tensor(&[each.len()], &exponents(&each))?;
                ScaledBlocks::Codes(Fp8Blocks::per_tensor(data, scales)?)
            }
        })
    }
}
