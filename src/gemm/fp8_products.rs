//! FP8 products: one matrix of weights, or one for each group of rows.

use super::Tile;
use super::options::{Options, accumulate};
use super::output::Fp8GemmOutput;
use super::plan::Mode;
use super::product::{PreparedGemm, Product};
use crate::device::{Device, Stream};
use crate::error::Result;
use crate::fp8::{Fp8, Fp8Blocks, Fp8Rows, Scale};
use crate::tensor::Tensor;

/// `out[m, n] = alpha · Σ_k a[m, k] · b[n, k] + bias[n]`, or added to what `out` holds, for FP8 A and B with scales.
///
/// - `a`: activations `[M, K]`, e4m3 or e5m2, scales f32 or UE8M0 for each row and 128 of K (in either layout), for each
///   row, or for all.
/// - `b`: weights `[N, K]`, scales for each block of 128×128 (blocks at the ends may be ragged), for each row, or for all.
/// - `out`: `[M, N]` of bf16, f16, f32 (adjacent columns, any row stride), or [`Fp8Rows`] with fresh scales.
///
/// Any M, N and K; rows of the data start at multiples of 16 bytes; N of a multiple of 8 is fastest. M = 0 or N = 0 does
/// nothing, K = 0 sums nothing.
///
/// The tensor core's sums of 128 products are scaled by the product of both scales (rounded to f32) and added in f32, as
/// in DeepSeek-V3 (arXiv 2412.19437, section 3.5.2). Then alpha, the scales of B's rows, the bias, the old output and the
/// row's weight follow in this order, each rounded to f32 once, and last the output's type.
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct Fp8Gemm(Product);

/// The product of [`Fp8Gemm`] for groups of adjacent rows, each with its own weights: experts.
///
/// - `a`: `[R, K]`, the rows of all groups, ordered by group.
/// - `b`: `[G, N, K]`, G at most 1024.
/// - `offsets`: `[G + 1]` on the device; rows `offsets[g]..offsets[g + 1]` belong to group g. Groups may be empty and
///   need no alignment. Rows outside of all groups are not written.
/// - `out`: `[R, N]`.
///
/// Offsets that decrease or leave `0..=R` are pulled into that range, in order, and reported by
/// [`Status::bad_offsets`](crate::Status::bad_offsets).
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct GroupedFp8Gemm(Product);

/// The product of [`Fp8Gemm`] for groups with room for M rows each, of which the device knows how many count: experts of
/// a decode step whose launches are captured.
///
/// - `a`: `[G, M, K]`, G at most 1024.
/// - `b`: `[G, N, K]`.
/// - `counts`: `[G]` on the device; the first `counts[g]` rows of group g count. The others are not used and not written.
/// - `out`: `[G, M, N]`; of FP8 rows, the scales of a group follow those of the group before it.
///
/// Counts outside `0..=M` are pulled into that range and reported by [`Status::bad_offsets`](crate::Status::bad_offsets).
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct MaskedFp8Gemm(Product);

/// The product of [`Fp8Gemm`] for each pair of several matrices: `a` `[H, M, K]`, `b` `[H, N, K]`, `out` `[H, M, N]`.
///
/// The first dimensions of `a` and `out` may have any strides that are multiples of 16 bytes, so views of `[M, H, K]` with
/// dimensions 0 and 1 [exchanged](Tensor::transpose) do. Absorbed attention has two such products, with 128×128 scales of
/// the weights: `bhr,hdr->bhd` takes the weights as they are, `bhd,hdr->bhr` takes them transposed.
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct BatchedFp8Gemm(Product);

pub(super) fn product<A: Fp8, SA: Scale, B: Fp8, SB: Scale>(
    name: &'static str,
    mode: Mode,
    a: &Fp8Rows<A, SA>,
    b: &Fp8Blocks<B, SB>,
    groups: Option<&Tensor<i32>>,
    out: &impl Fp8GemmOutput,
) -> Product {
    let (a, b, out) = (a.operand(), b.operand(), out.erase());
    Product { name, mode, a, b, groups: groups.cloned(), out, swiglu: false, options: Options::default() }
}

impl Fp8Gemm {
    /// A product of these operands.
    pub fn new<A: Fp8, SA: Scale, B: Fp8, SB: Scale>(
        a: &Fp8Rows<A, SA>,
        b: &Fp8Blocks<B, SB>,
        out: &impl Fp8GemmOutput,
    ) -> Self {
        Self(product("Fp8Gemm", Mode::Dense, a, b, None, out))
    }
}

impl GroupedFp8Gemm {
    /// A product of these operands.
    pub fn new<A: Fp8, SA: Scale, B: Fp8, SB: Scale>(
        a: &Fp8Rows<A, SA>,
        b: &Fp8Blocks<B, SB>,
        offsets: &Tensor<i32>,
        out: &impl Fp8GemmOutput,
    ) -> Self {
        Self(product("GroupedFp8Gemm", Mode::Contiguous, a, b, Some(offsets), out))
    }
}

impl MaskedFp8Gemm {
    /// A product of these operands.
    pub fn new<A: Fp8, SA: Scale, B: Fp8, SB: Scale>(
        a: &Fp8Rows<A, SA>,
        b: &Fp8Blocks<B, SB>,
        counts: &Tensor<i32>,
        out: &impl Fp8GemmOutput,
    ) -> Self {
        Self(product("MaskedFp8Gemm", Mode::Masked, a, b, Some(counts), out))
    }

    /// How many rows of a group the plan is made for. It changes the time, and not the result's meaning. Default: M.
    pub fn expected_rows(mut self, rows: usize) -> Self {
        self.0.options.expected_rows = rows;
        self
    }
}

impl BatchedFp8Gemm {
    /// A product of these operands.
    pub fn new<A: Fp8, SA: Scale, B: Fp8, SB: Scale>(
        a: &Fp8Rows<A, SA>,
        b: &Fp8Blocks<B, SB>,
        out: &impl Fp8GemmOutput,
    ) -> Self {
        Self(product("BatchedFp8Gemm", Mode::Batched, a, b, None, out))
    }
}

accumulate!(
    "Adds to what the output holds. Not for an output of FP8 rows.";
    Fp8Gemm, GroupedFp8Gemm, MaskedFp8Gemm, BatchedFp8Gemm
);

/// What all of them can be asked for, and their launch.
macro_rules! options {
    ($($operation:ident: $bias:literal, $weights:literal);+ $(;)?) => {
        super::options::common_options! { $($operation: $bias, $weights);+ }
        $(impl $operation {
            #[doc = concat!(
                "Takes row `indices[i]` of A for row i of the product; `indices`: ", $weights, ", contiguous, on the device."
            )]
            ///
            /// A is then `[T, K]` in every kind of product, with K a multiple of 16, and no copy of its rows is made. Rows
            /// may be named any number of times. -1 stands for a row of zeros; so does an index that A does not have, which
            /// [`Status::bad_row`](crate::Status::bad_row) reports where K > 0.
            pub fn gather(self, indices: &Tensor<i32>) -> Self {
                self.gather_entries(indices, 1)
            }

            /// As [`gather`](Self::gather), where each row of A has `slots` entries: row `entries[i] / slots` of A becomes
            /// row i of the product. So the rows of
            /// [`Permutation::source`](crate::routing::Permutation::source) need no division.
            pub fn gather_entries(mut self, entries: &Tensor<i32>, slots: usize) -> Self {
                self.0.options.gather = Some(super::gather::Gather { entries: entries.clone(), slots });
                self
            }

            /// Rounds the scales of an output of FP8 rows up to powers of two.
            pub fn power_of_two_scales(mut self) -> Self {
                self.0.options.power_of_two = true;
                self
            }
        })+
    };
}
pub(super) use options;

options! {
    Fp8Gemm: "`[N]`", "`[M]`";
    GroupedFp8Gemm: "`[N]`, or `[G, N]`", "`[R]`";
    MaskedFp8Gemm: "`[N]`, or `[G, N]`", "`[G, M]`";
    BatchedFp8Gemm: "`[N]`, or `[H, N]`", "`[H, M]`";
}
