//! The first product of gated layers: FP8 products whose sums go through SwiGLU and are quantised, all in one kernel.

use super::Tile;
use super::fp8_products::{options, product};
use super::plan::Mode;
use super::product::{PreparedGemm, Product};
use crate::device::{Device, Stream};
use crate::dtype::E4m3;
use crate::error::Result;
use crate::fp8::{Fp8Blocks, Fp8Rows, Scale};
use crate::tensor::Tensor;

/// `out = quantised(silu(gate) · up)` with `gate = a · b[..I]ᵀ` and `up = a · b[I..]ᵀ`: the first product of an expert, or
/// of a dense feed-forward layer, with its activation and the quantisation that the second product wants.
///
/// - `a`: activations `[M, K]`, e4m3, else as of [`Fp8Gemm`](super::Fp8Gemm).
/// - `b`: weights `[2·I, K]`, the gates' rows first; I is a multiple of 128. Published checkpoints store both apart (`w1`
///   or `gate_proj`, and `w3` or `up_proj`): they are joined when they are loaded.
/// - `out`: `[M, I]` e4m3, with a fresh scale for each row and 128 columns, made as [`Quantize`](crate::quant::Quantize)
///   makes them.
///
/// Sums are those of [`Fp8Gemm`](super::Fp8Gemm), bit for bit where K is split alike, as it always is with
/// [`batch_invariant`](Self::batch_invariant). Alpha, the scales of B's rows and the bias follow for gates
/// and ups alike; then, in f32, the [`clamp`](Self::clamp), `silu(x) = x / (1 + exp(-x))` (the exponential and the
/// reciprocal are within 2 and 1 ulp), the product with `up`, the row's weight, and the quantisation. Nothing is rounded to
/// bf16 in between. The formula is that of DeepSeek-V3's `Expert` (`inference/model.py`), with a clamp that of
/// DeepSeek-V4's.
///
/// M = 0 or I = 0 does nothing, K = 0 quantises what the bias alone gives.
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct Fp8GemmSwiglu(Product);

/// The product of [`Fp8GemmSwiglu`] for groups of adjacent rows: experts. Groups are those of
/// [`GroupedFp8Gemm`](super::GroupedFp8Gemm): `a` `[R, K]`, `b` `[G, 2·I, K]`, `offsets` `[G + 1]`, `out` `[R, I]`.
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct GroupedFp8GemmSwiglu(Product);

/// The product of [`Fp8GemmSwiglu`] for groups with room for M rows each: experts of a decode step. Groups are those of
/// [`MaskedFp8Gemm`](super::MaskedFp8Gemm): `a` `[G, M, K]`, `b` `[G, 2·I, K]`, `counts` `[G]`, `out` `[G, M, I]`.
#[derive(Debug, Clone)]
#[must_use = "a product runs when it is launched"]
#[non_exhaustive]
pub struct MaskedFp8GemmSwiglu(Product);

fn gated(product: Product) -> Product {
    Product { swiglu: true, ..product }
}

impl Fp8GemmSwiglu {
    /// A product of these operands.
    pub fn new<SA: Scale, SB: Scale>(a: &Fp8Rows<E4m3, SA>, b: &Fp8Blocks<E4m3, SB>, out: &Fp8Rows) -> Self {
        Self(gated(product("Fp8GemmSwiglu", Mode::Dense, a, b, None, out)))
    }
}

impl GroupedFp8GemmSwiglu {
    /// A product of these operands.
    pub fn new<SA: Scale, SB: Scale>(
        a: &Fp8Rows<E4m3, SA>,
        b: &Fp8Blocks<E4m3, SB>,
        offsets: &Tensor<i32>,
        out: &Fp8Rows,
    ) -> Self {
        Self(gated(product("GroupedFp8GemmSwiglu", Mode::Contiguous, a, b, Some(offsets), out)))
    }
}

impl MaskedFp8GemmSwiglu {
    /// A product of these operands.
    pub fn new<SA: Scale, SB: Scale>(
        a: &Fp8Rows<E4m3, SA>,
        b: &Fp8Blocks<E4m3, SB>,
        counts: &Tensor<i32>,
        out: &Fp8Rows,
    ) -> Self {
        Self(gated(product("MaskedFp8GemmSwiglu", Mode::Masked, a, b, Some(counts), out)))
    }

    /// How many rows of a group the plan is made for. It changes the time, and not the result's meaning. Default: M.
    pub fn expected_rows(mut self, rows: usize) -> Self {
        self.0.options.expected_rows = rows;
        self
    }
}

macro_rules! clamp {
    ($($operation:ident),+) => {$(
        impl $operation {
            /// Cuts gates from above at `limit` and ups at both `limit` and `-limit`, before the activation; NaN stays NaN.
            /// Finite and above zero. DeepSeek-V4 has 10. Default: none.
            pub fn clamp(mut self, limit: f32) -> Self {
                self.0.options.clamp = Some(limit);
                self
            }
        }
    )+};
}
clamp!(Fp8GemmSwiglu, GroupedFp8GemmSwiglu, MaskedFp8GemmSwiglu);

options! {
    Fp8GemmSwiglu: "`[2·I]`", "`[M]`";
    GroupedFp8GemmSwiglu: "`[2·I]`, or `[G, 2·I]`", "`[R]`";
    MaskedFp8GemmSwiglu: "`[2·I]`, or `[G, 2·I]`", "`[G, M]`";
}
