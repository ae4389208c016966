//! FP8 matrices with block scales: the operands of the FP8 kernels.

use crate::device::Device;
use crate::dtype::{E4m3, Element};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;
use std::ops::Range;

/// Columns (and for weights also rows) that share one scale.
pub const SCALE_BLOCK: usize = 128;

/// Bytes that every stride of an operand of the tensor memory accelerator is a multiple of.
pub(crate) const TMA_ALIGNMENT: usize = 16;

/// How the scales of [`Fp8Rows`] lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleLayout {
    /// The scales of one row are adjacent.
    RowMajor,
    /// The scales of one block of 128 columns are adjacent; the number of rows is padded to a multiple of 4.
    MnMajor,
}

/// Activations: e4m3 `[M, K]` with one f32 scale for each row and 128 columns.
///
/// The value of element (m, k) is `data[m, k] * scales[m, k / 128]`. Cloning copies the handles, not the data.
#[derive(Debug, Clone)]
pub struct Fp8Rows {
    data: Tensor<E4m3>,
    scales: Tensor<f32>,
}

impl Fp8Rows {
    /// Joins data `[M, K]` and scales `[M, ceil(K / 128)]` (any strides).
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) if a shape does not fit, if the columns of the data are not adjacent, if its rows are not
    /// 16 bytes aligned, or if the two are on different devices.
    pub fn new(data: Tensor<E4m3>, scales: Tensor<f32>) -> Result<Self> {
        let check = Checks::of("Fp8Rows::new");
        check.rank("data", &data, 2)?;
        tma_readable(check, "data", &data)?;
        check.shape("scales", &scales, &[data.dim(0), data.dim(1).div_ceil(SCALE_BLOCK)])?;
        same_device(check, &data, &scales)?;
        Ok(Self { data, scales })
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

    /// M.
    pub fn rows(&self) -> usize {
        self.data.dim(0)
    }

    /// K.
    pub fn cols(&self) -> usize {
        self.data.dim(1)
    }

    /// The values before scaling, `[M, K]`.
    pub fn data(&self) -> &Tensor<E4m3> {
        &self.data
    }

    /// The scales, `[M, ceil(K / 128)]`.
    pub fn scales(&self) -> &Tensor<f32> {
        &self.scales
    }

    /// The device that holds both tensors.
    pub fn device(&self) -> &Device {
        self.data.device()
    }

    /// A view of some rows and their scales.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) if the range leaves the matrix.
    pub fn slice_rows(&self, range: Range<usize>) -> Result<Self> {
        Ok(Self { data: self.data.slice(0, range.clone())?, scales: self.scales.slice(0, range)? })
    }
}

/// Weights: e4m3 `[N, K]`, or `[G, N, K]` for G experts, with one f32 scale for each 128×128 block.
///
/// The value of element (n, k) is `data[n, k] * scales[n / 128, k / 128]`, as `weight_scale_inv` of published FP8
/// checkpoints has it. Cloning copies the handles, not the data.
#[derive(Debug, Clone)]
pub struct Fp8Blocks {
    data: Tensor<E4m3>,
    scales: Tensor<f32>,
}

impl Fp8Blocks {
    /// Joins data `[N, K]` and scales `[ceil(N / 128), ceil(K / 128)]`, or both with a leading `G` (any strides of the
    /// scales).
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) if a shape does not fit, if the columns of the data are not adjacent, if rows or groups are
    /// not 16 bytes aligned, or if the two are on different devices.
    pub fn new(data: Tensor<E4m3>, scales: Tensor<f32>) -> Result<Self> {
        let check = Checks::of("Fp8Blocks::new");
        if !(2..=3).contains(&data.rank()) {
            return check.fail("data", format_args!("of rank {}", data.rank()), "of rank 2 or 3");
        }
        tma_readable(check, "data", &data)?;
        let mut want = data.shape().to_vec();
        let rank = want.len();
        for extent in &mut want[rank - 2..] {
            *extent = extent.div_ceil(SCALE_BLOCK);
        }
        check.shape("scales", &scales, &want)?;
        same_device(check, &data, &scales)?;
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

    /// N.
    pub fn rows(&self) -> usize {
        self.data.dim(self.data.rank() - 2)
    }

    /// K.
    pub fn cols(&self) -> usize {
        self.data.dim(self.data.rank() - 1)
    }

    /// The values before scaling.
    pub fn data(&self) -> &Tensor<E4m3> {
        &self.data
    }

    /// The scales.
    pub fn scales(&self) -> &Tensor<f32> {
        &self.scales
    }

    /// The device that holds both tensors.
    pub fn device(&self) -> &Device {
        self.data.device()
    }
}

fn same_device(check: Checks, data: &Tensor<E4m3>, scales: &Tensor<f32>) -> Result<()> {
    if data.device() == scales.device() {
        return Ok(());
    }
    check.fail("scales", format_args!("on {}", scales.device().name()), "on the device of the data")
}

/// What the tensor memory accelerator can read: adjacent columns, everything else in steps of 16 bytes.
pub(crate) fn tma_readable<T: Element>(
    check: Checks,
    argument: &'static str,
    tensor: &Tensor<T>,
) -> Result<()> {
    check.adjacent_columns(argument, tensor)?;
    if tensor.is_empty() {
        return Ok(());
    }
    for dim in 0..tensor.rank() - 1 {
        let bytes = tensor.strides()[dim] * size_of::<T>();
        if tensor.dim(dim) > 1 && !bytes.is_multiple_of(TMA_ALIGNMENT) {
            let got = format!("with a stride of {bytes} bytes in dimension {dim}");
            return check.fail(argument, got, "of strides that are multiples of 16 bytes");
        }
    }
    if !tensor.address().is_multiple_of(TMA_ALIGNMENT as u64) {
        return check.fail(argument, format!("at {:#x}", tensor.address()), "16-byte aligned");
    }
    Ok(())
}
