//! FP8 matrices turned so that K is their last dimension.

use super::launch::writable;
use crate::device::abi::{NG_TRANSPOSE_THREADS, NG_TRANSPOSE_TILE, NgTransposeParams};
use crate::device::{KernelLaunch, Stream};
use crate::error::Result;
use crate::fp8::{Fp8, TMA_ALIGNMENT};
use crate::tensor::Tensor;
use crate::validate::{Checks, rows_aligned};

/// `out[c, r] = x[r, c]`, for a matrix `[R, C]` or for each of several, `[G, R, C]`.
///
/// Columns of both are adjacent; rows and matrices lie at any strides. No alignment is needed, and multiples of 4 bytes are
/// fastest. An empty matrix does nothing. Codes are moved as they are, NaN too.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct TransposeFp8<'a, T: Fp8> {
    x: &'a Tensor<T>,
    out: &'a Tensor<T>,
}

impl<'a, T: Fp8> TransposeFp8<'a, T> {
    /// Transposes `x` `[R, C]` or `[G, R, C]` into `out` `[C, R]` or `[G, C, R]`.
    pub fn new(x: &'a Tensor<T>, out: &'a Tensor<T>) -> Self {
        Self { x, out }
    }

    /// Enqueues the operation.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for other ranks, shapes that do not fit, columns that are not adjacent, an
    /// output that overlaps the input or names an element twice, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let Self { x, out } = *self;
        let check = Checks::of("TransposeFp8");
        if !(2..=3).contains(&x.rank()) {
            return check.fail("x", format_args!("of rank {}", x.rank()), "of rank 2 or 3");
        }
        let [rows, columns] = [x.dim(x.rank() - 2), x.dim(x.rank() - 1)];
        let mut turned = x.shape().to_vec();
        turned[x.rank() - 2..].copy_from_slice(&[columns, rows]);
        check.shape("out", out, &turned)?;
        check.adjacent_columns("x", x)?;
        writable(check, out)?;
        check.on("x", x, stream.device())?;
        check.on("out", out, stream.device())?;
        check.apart("out", out, "x", x)?;
        let params = NgTransposeParams {
            x: x.address(),
            out: out.address(),
            x_batch_stride: batch_stride(x),
            x_row_stride: x.strides()[x.rank() - 2] as i64,
            out_batch_stride: batch_stride(out),
            out_row_stride: out.strides()[x.rank() - 2] as i64,
            rows: check.extent("rows", rows)?,
            columns: check.extent("columns", columns)?,
            x_words: rows_aligned(x, 4).into(),
            out_words: rows_aligned(out, 4).into(),
        };
        if x.is_empty() {
            return Ok(());
        }
        let tiles = |extent: usize| extent.div_ceil(NG_TRANSPOSE_TILE as usize);
        let matrices = if x.rank() == 3 { x.dim(0) } else { 1 };
        let blocks = tiles(rows).saturating_mul(tiles(columns)).saturating_mul(matrices);
        KernelLaunch::new("transpose_b8", &params)
            .grid([check.extent("tiles of 128×128", blocks)?, 1, 1])
            .block(NG_TRANSPOSE_THREADS)
            .reads(x)
            .writes(out)
            .launch(stream)
    }
}

fn batch_stride<T: Fp8>(tensor: &Tensor<T>) -> i64 {
    if tensor.rank() == 3 { tensor.strides()[0] as i64 } else { 0 }
}

/// The transpose of `x` `[R, C]` or `[G, R, C]` in memory of its own, whose rows start at multiples of 16 bytes, as FP8
/// products want them.
///
/// # Errors
///
/// As [`TransposeFp8::launch`], or [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub fn transposed_fp8<T: Fp8>(x: &Tensor<T>, stream: &Stream) -> Result<Tensor<T>> {
    if !(2..=3).contains(&x.rank()) {
        let got = format!("of rank {}", x.rank());
        return Checks::of("transposed_fp8").fail("x", got, "of rank 2 or 3");
    }
    let (rows, last) = (x.dim(x.rank() - 2), x.rank() - 1);
    let mut shape = x.shape().to_vec();
    shape.swap(last - 1, last);
    shape[last] = rows.next_multiple_of(TMA_ALIGNMENT);
    let out = stream.device().empty::<T>(&shape)?.slice(last, 0..rows)?;
    TransposeFp8::new(x, &out).launch(stream)?;
    Ok(out)
}
