//! Weights.

use super::operand::{Fp8, Operand, Scale, Scales};
use super::{SCALE_BLOCK, matrix, same_device};
use crate::device::Device;
use crate::dtype::E4m3;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;

/// Weights: FP8 `[N, K]`, or `[G, N, K]` for G experts, with one scale for each 128×128 block.
///
/// The value of element (n, k) is `data[n, k] * scales[n / 128, k / 128]`, as `weight_scale_inv` of published FP8
/// checkpoints has it. Data is [`E4m3`] or [`E5m2`](crate::E5m2), scales are `f32` or [`Ue8m0`](crate::Ue8m0). Cloning copies
/// the handles, not the data.
#[derive(Debug, Clone)]
pub struct Fp8Blocks<T: Fp8 = E4m3, S: Scale = f32> {
    data: Tensor<T>,
    scales: Tensor<S>,
    /// Scales are of rows, so `[N]` or `[G, N]`.
    per_row: bool,
}

impl Fp8Blocks {
    /// Joins e4m3 data `[N, K]` and f32 scales `[ceil(N / 128), ceil(K / 128)]`, or both with a leading `G` (any strides of
    /// the scales).
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) if a shape does not fit, if the columns of the data are not adjacent,
    /// if rows or groups are not 16 bytes aligned, or if the two are on different devices.
    pub fn new(data: Tensor<E4m3>, scales: Tensor<f32>) -> Result<Self> {
        Self::join(data, scales)
    }
}

impl<T: Fp8, S: Scale> Fp8Blocks<T, S> {
    /// [`new`](Fp8Blocks::new) for data and scales of any of their types.
    ///
    /// # Errors
    ///
    /// As [`new`](Fp8Blocks::new).
    pub fn join(data: Tensor<T>, scales: Tensor<S>) -> Result<Self> {
        let check = Checks::of("Fp8Blocks::new");
        matrix(check, &data)?;
        check.shape("scales", &scales, &scale_shape(&data))?;
        same_device(check, &data, &scales)?;
        Ok(Self { data, scales, per_row: false })
    }

    /// Joins data and one scale for each matrix, `[1]` for `[N, K]` and `[G]` for `[G, N, K]`: numbers on the device.
    ///
    /// # Errors
    ///
    /// As [`new`](Fp8Blocks::new).
    pub fn per_tensor(data: Tensor<T>, scales: Tensor<S>) -> Result<Self> {
        let check = Checks::of("Fp8Blocks::per_tensor");
        matrix(check, &data)?;
        let groups = if data.rank() == 3 { data.dim(0) } else { 1 };
        check.shape("scales", &scales, &[groups])?;
        same_device(check, &data, &scales)?;
        let strides: &[usize] = if data.rank() == 3 { &[scales.strides()[0], 0, 0] } else { &[0, 0] };
        let scales = scales.as_strided(0, &scale_shape(&data), strides)?;
        Ok(Self { data, scales, per_row: false })
    }

    /// G, or 1 for a single matrix.
    pub fn groups(&self) -> usize {
        if self.is_grouped() { self.data.dim(0) } else { 1 }
    }

    /// Whether the tensors have a leading G.
    pub fn is_grouped(&self) -> bool {
        self.data.rank() == 3
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.data.dim(self.data.rank() - 2)
    }

    /// K.
    pub fn cols(&self) -> usize {
        self.data.dim(self.data.rank() - 1)
    }

    /// The values before scaling.
    pub fn data(&self) -> &Tensor<T> {
        &self.data
    }

    /// The scales: of blocks, of which coarser ones are a view that repeats them, or of [rows](Self::is_per_row).
    pub fn scales(&self) -> &Tensor<S> {
        &self.scales
    }

    /// Whether there is one scale for each row, `[N]` or `[G, N]`, instead of one for each block.
    pub fn is_per_row(&self) -> bool {
        self.per_row
    }

    /// The device that holds both tensors.
    pub fn device(&self) -> &Device {
        self.data.device()
    }

    pub(crate) fn operand(&self) -> Operand {
        let (data, e5m2, scales) = (self.data.bytes(), T::E5M2, S::erase(&self.scales));
        match scales {
            Scales::F32(scales) if self.per_row => {
                Operand { data, e5m2, scales: Scales::Ones, column_scales: Some(scales) }
            }
            scales => Operand { data, e5m2, scales, column_scales: None },
        }
    }
}

impl<T: Fp8> Fp8Blocks<T, f32> {
    /// Joins data `[N, K]` and one scale for each row, `[N]`; or `[G, N, K]` and `[G, N]` (adjacent scales of a group). A
    /// row is a column of the product, which is scaled after all of K is summed.
    ///
    /// # Errors
    ///
    /// As [`new`](Fp8Blocks::new).
    pub fn per_row(data: Tensor<T>, scales: Tensor<f32>) -> Result<Self> {
        let check = Checks::of("Fp8Blocks::per_row");
        matrix(check, &data)?;
        check.shape("scales", &scales, &data.shape()[..data.rank() - 1])?;
        check.adjacent_columns("scales", &scales)?;
        same_device(check, &data, &scales)?;
        Ok(Self { data, scales, per_row: true })
    }
}

fn scale_shape<T: Fp8>(data: &Tensor<T>) -> Vec<usize> {
    let mut shape = data.shape().to_vec();
    let rank = shape.len();
    for extent in &mut shape[rank - 2..] {
        *extent = extent.div_ceil(SCALE_BLOCK);
    }
    shape
}
