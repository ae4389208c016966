//! What stands at both ends of a language model: the embedding gather and the greedy choice of a token.

pub(crate) mod plan;
pub mod reference;

use crate::device::abi::{NgArgmaxParams, NgEmbeddingParams};
use crate::device::{KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// Rows of an embedding table by token id: `out[t] = table[ids[t]]`.
///
/// An id outside `0..V` gives a row of zeros and sets the status `bad_token`.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Embedding<'a> {
    table: &'a Tensor<bf16>,
    ids: &'a Tensor<i32>,
    out: &'a Tensor<bf16>,
}

impl<'a> Embedding<'a> {
    /// Gathers rows of `table` `[V, H]` by `ids` `[T]` into `out` `[T, H]`.
    pub fn new(table: &'a Tensor<bf16>, ids: &'a Tensor<i32>, out: &'a Tensor<bf16>) -> Self {
        Self { table, ids, out }
    }

    /// Enqueues the operation. No tokens or no columns is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, columns that are not adjacent, an output
    /// that overlaps an input, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Embedding");
        let Self { table, ids, out } = *self;
        check.rank("table", table, 2)?;
        check.rank("ids", ids, 1)?;
        check.shape("out", out, &[ids.dim(0), table.dim(1)])?;
        check.contiguous("ids", ids)?;
        for (name, tensor) in [("table", table), ("out", out)] {
            check.adjacent_columns(name, tensor)?;
            check.on(name, tensor, stream.device())?;
        }
        check.on("ids", ids, stream.device())?;
        check.distinct("out", out)?;
        check.apart("out", out, "table", table)?;
        check.apart("out", out, "ids", ids)?;
        let tokens = check.extent("tokens", ids.dim(0))?;
        let vocabulary = check.extent("vocabulary", table.dim(0))?;
        let columns = check.extent("columns", table.dim(1))?;
        if out.is_empty() {
            return Ok(());
        }
        let params = NgEmbeddingParams {
            table: table.address(),
            ids: ids.address(),
            out: out.address(),
            status: stream.status_address(),
            table_row_stride: table.strides()[0] as u64,
            out_row_stride: out.strides()[0] as u64,
            vocabulary,
            columns,
            vectorised: (columns.is_multiple_of(8)
                && rows_aligned(table, VECTOR_BYTES)
                && rows_aligned(out, VECTOR_BYTES))
            .into(),
        };
        KernelLaunch::new("embedding_bf16", &params)
            .grid([tokens, 1, 1])
            .block(plan::gather_threads(table.dim(1)))
            .reads(table)
            .reads(ids)
            .writes(out)
            .launch(stream)
    }
}

/// Index of the largest value of each row of `logits` `[T, V]`; the lowest index wins ties.
///
/// NaN ranks below everything and sets the status `nan_score`; a row of nothing but NaN gives -1.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Argmax<'a> {
    logits: &'a Tensor<f32>,
    out: &'a Tensor<i32>,
}

impl<'a> Argmax<'a> {
    /// Reads `logits` `[T, V]` (adjacent columns, any row stride), writes `out` `[T]`.
    pub fn new(logits: &'a Tensor<f32>, out: &'a Tensor<i32>) -> Self {
        Self { logits, out }
    }

    /// Enqueues the operation. No rows is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, rows without columns, columns that are not
    /// adjacent, an output that overlaps the input, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Argmax");
        let Self { logits, out } = *self;
        check.rank("logits", logits, 2)?;
        check.shape("out", out, &[logits.dim(0)])?;
        check.adjacent_columns("logits", logits)?;
        check.contiguous("out", out)?;
        check.on("logits", logits, stream.device())?;
        check.on("out", out, stream.device())?;
        check.apart("out", out, "logits", logits)?;
        if logits.dim(1) == 0 {
            return check.fail("logits", "without columns", "of at least one column");
        }
        let rows = check.extent("rows", logits.dim(0))?;
        let vocabulary = check.extent("vocabulary", logits.dim(1))?;
        if rows == 0 {
            return Ok(());
        }
        let params = NgArgmaxParams {
            logits: logits.address(),
            out: out.address(),
            status: stream.status_address(),
            logits_row_stride: logits.strides()[0] as u64,
            vocabulary,
        };
        KernelLaunch::new("argmax_f32", &params)
            .grid([rows, 1, 1])
            .block(plan::argmax_threads(logits.dim(1)))
            .reads(logits)
            .writes(out)
            .launch(stream)
    }
}
