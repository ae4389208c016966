//! Activations.

use super::operand::{Fp8, Operand, Scale};
use super::{SCALE_BLOCK, TMA_ALIGNMENT, matrix, same_device};
use crate::device::Device;
use crate::dtype::E4m3;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;
use std::ops::Range;

/// How the scales of [`Fp8Rows`] lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleLayout {
    /// The scales of one row are adjacent.
    RowMajor,
    /// The scales of one block of 128 columns are adjacent; the number of rows is padded to a multiple of 4.
    MnMajor,
}

/// Activations: FP8 `[M, K]`, or `[G, M, K]` for G groups, with one scale for each row and 128 columns.
///
/// The value of element (m, k) is `data[m, k] * scales[m, k / 128]`. Data is [`E4m3`] or [`E5m2`](crate::E5m2), scales are
/// `f32` or [`Ue8m0`](crate::Ue8m0). Cloning copies the handles, not the data.
#[derive(Debug, Clone)]
pub struct Fp8Rows<T: Fp8 = E4m3, S: Scale = f32> {
    data: Tensor<T>,
    scales: Tensor<S>,
}

impl Fp8Rows {
    /// Joins e4m3 data `[M, K]` and f32 scales `[M, ceil(K / 128)]`, or both with a leading `G` (any strides of the
    /// scales).
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) if a shape does not fit, if the columns of the data are not adjacent,
    /// if its rows or groups are not 16 bytes aligned, or if the two are on different devices.
    pub fn new(data: Tensor<E4m3>, scales: Tensor<f32>) -> Result<Self> {
        Self::join(data, scales)
    }

    /// Uninitialised room for `rows` × `columns` values. Rows of data are padded to a multiple of 16 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), or what else the device says.
    pub fn empty(device: &Device, rows: usize, columns: usize, layout: ScaleLayout) -> Result<Self> {
        let data =
            device.empty::<E4m3>(&[rows, columns.next_multiple_of(TMA_ALIGNMENT)])?.slice(1, 0..columns)?;
        let blocks = columns.div_ceil(SCALE_BLOCK);
        let scales = match layout {
            ScaleLayout::RowMajor => device.empty::<f32>(&[rows, blocks])?,
            ScaleLayout::MnMajor => device
                .empty::<f32>(&[blocks, rows.next_multiple_of(4)])?
                .slice(1, 0..rows)?
                .transpose(0, 1)?,
        };
        Self::new(data, scales)
    }
}

impl<T: Fp8, S: Scale> Fp8Rows<T, S> {
    /// [`new`](Fp8Rows::new) for data and scales of any of their types.
    ///
    /// # Errors
    ///
    /// As [`new`](Fp8Rows::new).
    pub fn join(data: Tensor<T>, scales: Tensor<S>) -> Result<Self> {
        let check = Checks::of("Fp8Rows::new");
        matrix(check, &data)?;
        check.shape("scales", &scales, &scale_shape(&data))?;
        same_device(check, &data, &scales)?;
        Ok(Self { data, scales })
    }

    /// Joins data `[M, K]` and one scale for each row, `[M]`; or `[G, M, K]` and `[G, M]`.
    ///
    /// # Errors
    ///
    /// As [`new`](Fp8Rows::new).
    pub fn per_row(data: Tensor<T>, scales: Tensor<S>) -> Result<Self> {
        let check = Checks::of("Fp8Rows::per_row");
        matrix(check, &data)?;
        check.shape("scales", &scales, &data.shape()[..data.rank() - 1])?;
        same_device(check, &data, &scales)?;
        let strides = [scales.strides(), &[0]].concat();
        let scales = scales.as_strided(0, &scale_shape(&data), &strides)?;
        Ok(Self { data, scales })
    }

    /// Joins data and one scale for all of it, `[1]`: a number on the device, which a kernel may have made.
    ///
    /// # Errors
    ///
    /// As [`new`](Fp8Rows::new).
    pub fn per_tensor(data: Tensor<T>, scale: Tensor<S>) -> Result<Self> {
        let check = Checks::of("Fp8Rows::per_tensor");
        matrix(check, &data)?;
        check.shape("scale", &scale, &[1])?;
        same_device(check, &data, &scale)?;
        let scales = scale.as_strided(0, &scale_shape(&data), &[0; 3][..data.rank()])?;
        Ok(Self { data, scales })
    }

    /// G, or 1 for a single matrix.
    pub fn groups(&self) -> usize {
        if self.is_grouped() { self.data.dim(0) } else { 1 }
    }

    /// Whether the tensors have a leading G.
    pub fn is_grouped(&self) -> bool {
        self.data.rank() == 3
    }

    /// M.
    pub fn rows(&self) -> usize {
        self.data.dim(self.data.rank() - 2)
    }

    /// K.
    pub fn cols(&self) -> usize {
        self.data.dim(self.data.rank() - 1)
    }

    /// The values before scaling, `[M, K]` or `[G, M, K]`.
    pub fn data(&self) -> &Tensor<T> {
        &self.data
    }

    /// The scales, `[M, ceil(K / 128)]` or `[G, M, ceil(K / 128)]`; of coarser ones a view that repeats them.
    pub fn scales(&self) -> &Tensor<S> {
        &self.scales
    }

    /// The device that holds both tensors.
    pub fn device(&self) -> &Device {
        self.data.device()
    }

    /// A view of some rows (of every group) and their scales.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) if the range leaves the matrix.
    pub fn slice_rows(&self, range: Range<usize>) -> Result<Self> {
        let dim = self.data.rank() - 2;
        Ok(Self { data: self.data.slice(dim, range.clone())?, scales: self.scales.slice(dim, range)? })
    }

    pub(crate) fn operand(&self) -> Operand {
        Operand {
            data: self.data.bytes(),
            e5m2: T::E5M2,
            scales: S::erase(&self.scales),
            column_scales: None,
        }
    }
}

fn scale_shape<T: Fp8>(data: &Tensor<T>) -> Vec<usize> {
    let mut shape = data.shape().to_vec();
    let last = shape.len() - 1;
    shape[last] = shape[last].div_ceil(SCALE_BLOCK);
    shape
}
