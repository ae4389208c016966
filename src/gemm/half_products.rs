//! Products of 16-bit floats: one matrix of weights, or one for each group of rows.

use super::half_operand::Half;
use super::half_product::HalfProduct;
use super::options::{Options, accumulate, common_options};
use super::plan::Mode;
use super::product::PreparedGemm;
use super::{GemmOutput, Tile};
use crate::device::{Device, Stream};
use crate::error::Result;
use crate::tensor::Tensor;

/// `out[m, n] = alpha · Σ_k a[m, k] · b[n, k] + bias[n]`, or added to what `out` holds, for bf16 or f16 A and B.
///
/// - `a`: `[M, K]`; `b`: `[N, K]`, of the same type. Either dimension may be the adjacent one, all other strides are
///   multiples of 8, and both start at multiples of 16 bytes: a [transposed view](Tensor::transpose) of `[K, M]` or
///   `[K, N]` is as good as a copy, so the forms that other libraries call NN, TN and TT are views. With
///   [`batch_invariant`](Self::batch_invariant) they give the same bits; without it a product whose A is transposed may
///   be split otherwise.
/// - `out`: `[M, N]` of bf16, f16 or f32, adjacent columns, any row stride.
///
/// Any M, N and K; N of a multiple of 8 is fastest. M = 0 or N = 0 does nothing, K = 0 sums nothing.
///
/// The tensor core adds all of K in f32, each time 16 products at once. Then alpha, the bias, the old output and the row's
/// weight follow in this order, each rounded to f32 once, and last the output's type.
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct HalfGemm(HalfProduct);

/// The product of [`HalfGemm`] for groups of adjacent rows, each with its own weights: experts.
///
/// `a` is `[R, K]`, the rows of all groups, ordered by group; `b` is `[G, N, K]`, G at most 1024; `offsets` is `[G + 1]`;
/// `out` is `[R, N]`. Offsets are as in [`GroupedFp8Gemm`](super::GroupedFp8Gemm).
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct GroupedHalfGemm(HalfProduct);

/// The product of [`HalfGemm`] for groups with room for M rows each, of which the device knows how many count.
///
/// `a` is `[G, M, K]`, `b` is `[G, N, K]`, G at most 1024; `counts` is `[G]`; `out` is `[G, M, N]`. Counts are as in
/// [`MaskedFp8Gemm`](super::MaskedFp8Gemm).
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct MaskedHalfGemm(HalfProduct);

/// The product of [`HalfGemm`] for each pair of several matrices: `a` `[H, M, K]`, `b` `[H, N, K]`, `out` `[H, M, N]`.
///
/// The first dimension may have any stride that is a multiple of 8, in `out` any: views of `[M, H, K]` with dimensions 0 and 1 [exchanged](Tensor::transpose)
/// do, for `a` and for `out`. Absorbed attention has two such products: `bhr,hdr->bhd` takes the weights as they are,
/// `bhd,hdr->bhr` takes a view of them with the last two dimensions exchanged.
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct BatchedHalfGemm(HalfProduct);

fn product<T: Half, O: GemmOutput>(
    name: &'static str,
    mode: Mode,
    a: &Tensor<T>,
    b: &Tensor<T>,
    groups: Option<&Tensor<i32>>,
    out: &Tensor<O>,
) -> HalfProduct {
    let (a, b, out) = (T::erase(a), T::erase(b), O::erase(out));
    HalfProduct { name, mode, a, b, groups: groups.cloned(), out, options: Options::default() }
}

impl HalfGemm {
    /// A product of these operands.
    pub fn new<T: Half, O: GemmOutput>(a: &Tensor<T>, b: &Tensor<T>, out: &Tensor<O>) -> Self {
        Self(product("HalfGemm", Mode::Dense, a, b, None, out))
    }
}

impl GroupedHalfGemm {
    /// A product of these operands.
    pub fn new<T: Half, O: GemmOutput>(
        a: &Tensor<T>,
        b: &Tensor<T>,
        offsets: &Tensor<i32>,
        out: &Tensor<O>,
    ) -> Self {
        Self(product("GroupedHalfGemm", Mode::Contiguous, a, b, Some(offsets), out))
    }
}

impl MaskedHalfGemm {
    /// A product of these operands.
    pub fn new<T: Half, O: GemmOutput>(
        a: &Tensor<T>,
        b: &Tensor<T>,
        counts: &Tensor<i32>,
        out: &Tensor<O>,
    ) -> Self {
        Self(product("MaskedHalfGemm", Mode::Masked, a, b, Some(counts), out))
    }

    /// How many rows of a group the plan is made for. It changes the time, and not the result's meaning. Default: M.
    pub fn expected_rows(mut self, rows: usize) -> Self {
        self.0.options.expected_rows = rows;
        self
    }
}

impl BatchedHalfGemm {
    /// A product of these operands.
    pub fn new<T: Half, O: GemmOutput>(a: &Tensor<T>, b: &Tensor<T>, out: &Tensor<O>) -> Self {
        Self(product("BatchedHalfGemm", Mode::Batched, a, b, None, out))
    }
}

accumulate!("Adds to what the output holds."; HalfGemm, GroupedHalfGemm, MaskedHalfGemm, BatchedHalfGemm);
common_options! {
    HalfGemm: "`[N]`", "`[M]`";
    GroupedHalfGemm: "`[N]`, or `[G, N]`", "`[R]`";
    MaskedHalfGemm: "`[N]`, or `[G, N]`", "`[G, M]`";
    BatchedHalfGemm: "`[N]`, or `[H, N]`", "`[H, M]`";
}
