//! The structs of `kernels/abi.h`, by hand, with the same names; `tests/kernels/abi.rs` has the C++ compiler compare both.

#![allow(non_camel_case_types)]

/// A TMA tensor map, as kernels take it.
#[repr(C, align(128))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NgTensorMap {
    /// The encoded descriptor.
    pub bytes: [u8; 128],
}

impl std::fmt::Debug for NgTensorMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NgTensorMap")
    }
}

const _: () = assert!(size_of::<NgTensorMap>() == 128 && align_of::<NgTensorMap>() == 128);

/// An expert id outside -1..E.
pub const NG_STATUS_BAD_EXPERT: u32 = 1 << 0;
/// A page id in use outside the cache.
pub const NG_STATUS_BAD_PAGE: u32 = 1 << 1;
/// A sequence length that is negative or beyond its page table.
pub const NG_STATUS_BAD_LENGTH: u32 = 1 << 2;
/// A token id outside the vocabulary.
pub const NG_STATUS_BAD_TOKEN: u32 = 1 << 3;
/// A position outside the rotary tables.
pub const NG_STATUS_BAD_POSITION: u32 = 1 << 4;
/// A cache slot outside the cache.
pub const NG_STATUS_BAD_SLOT: u32 = 1 << 5;
/// Group offsets that decrease or leave the rows.
pub const NG_STATUS_BAD_OFFSETS: u32 = 1 << 6;
/// NaN among scores that were ranked.
pub const NG_STATUS_NAN_SCORE: u32 = 1 << 7;
/// A token that no expert takes.
pub const NG_STATUS_UNROUTED: u32 = 1 << 8;
/// An index of a row that a matrix does not have.
pub const NG_STATUS_BAD_ROW: u32 = 1 << 9;

/// bf16.
pub const NG_FLOAT_BF16: u32 = 0;
/// f16.
pub const NG_FLOAT_F16: u32 = 1;
/// f32.
pub const NG_FLOAT_F32: u32 = 2;

/// 1 / (1 + exp(-logit)).
pub const NG_SCORING_SIGMOID: u32 = 0;
/// Softmax over all experts.
pub const NG_SCORING_SOFTMAX: u32 = 1;
/// sqrt(ln(1 + exp(logit))).
pub const NG_SCORING_SQRT_SOFTPLUS: u32 = 2;
/// The logit itself.
pub const NG_SCORING_LOGITS: u32 = 3;
/// Weights are scores.
pub const NG_WEIGHTS_SCORES: u32 = 0;
/// Scores over their sum.
pub const NG_WEIGHTS_NORMALIZED: u32 = 1;
/// Softmax over the chosen logits.
pub const NG_WEIGHTS_SOFTMAX: u32 = 2;

/// A type without padding, which may be a field of a kernel's parameters.
///
/// # Safety
///
/// The type has no padding bytes.
pub(crate) unsafe trait Field: Copy {}

macro_rules! fields {
    ($($type:ty),+) => {$(
        // SAFETY: a plain number.
        unsafe impl Field for $type {}
    )+};
}
fields!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);
// SAFETY: 128 bytes and nothing else.
unsafe impl Field for NgTensorMap {}
// SAFETY: arrays add no padding between elements without any.
unsafe impl<T: Field, const N: usize> Field for [T; N] {}

/// A kernel's parameter struct: the mirror of one in `kernels/abi.h`. Implemented by [`parameters!`].
pub(crate) trait Parameters: Copy {
    /// The bytes that the kernel gets. Padding is zero.
    fn to_bytes(&self) -> Vec<u8>;
}

pub(crate) fn field_bytes<F: Field>(field: &F) -> &[u8] {
    // SAFETY: a `Field` has no padding, so all its bytes are initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(field).cast(), size_of::<F>()) }
}

/// Asserts a struct's size and the offset of **every** field, and makes it a kernel's [`Parameters`]:
/// `parameters!(Struct, 24, { source: 0, out: 8, rows: 16, columns: 20 });`
macro_rules! parameters {
    ($type:ident, $size:literal, { $($field:ident: $offset:literal),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(std::mem::offset_of!($type, $field) == $offset);)+
        };
        impl $crate::device::abi::Parameters for $type {
            fn to_bytes(&self) -> Vec<u8> {
                // Names every field: one that is not listed does not compile.
                let Self { $($field),+ } = self;
                let mut bytes = vec![0; size_of::<Self>()];
                $({
                    let field = $crate::device::abi::field_bytes($field);
                    bytes[$offset..$offset + field.len()].copy_from_slice(field);
                })+
                bytes
            }
        }
    };
}
#[allow(unused_imports, reason = "used by the families' structs below")]
pub(crate) use parameters;

/// Threads of a block that owns a row, at most.
pub const NG_ROW_THREADS: u32 = 512;
pub const NG_TRANSPOSE_TILE: u32 = 128;
pub const NG_TRANSPOSE_THREADS: u32 = 256;

// ---- attention over the latent cache ----

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NgMlaAttentionParams {
    pub query: NgTensorMap,
    pub cache: NgTensorMap,
    pub tokens_at: u64,
    pub page_table: u64,
    pub lengths: u64,
    pub query_offsets: u64,
    pub sinks: u64,
    pub cuts: u64,
    pub output: u64,
    pub lse: u64,
    pub partial_output: u64,
    pub partial_statistics: u64,
    pub status: u64,
    pub table_stride: i64,
    pub output_batch_stride: i64,
    pub output_row_stride: i64,
    pub lse_batch_stride: i64,
    pub lse_head_stride: i64,
    pub lse_token_stride: i64,
    pub tokens: i32,
    pub query_tokens: i32,
    pub heads: i32,
    pub groups: i32,
    pub cluster: i32,
    pub table_tokens: i32,
    pub page_shift: i32,
    pub cache_pages: i32,
    pub pieces: i32,
    pub piece_blocks: i32,
    pub causal: i32,
    pub cache_layout: u32,
    pub value_scale: f32,
    pub scale: f32,
    pub scale_log2: f32,
}
parameters!(NgMlaAttentionParams, 512, {
    query: 0, cache: 128, tokens_at: 256, page_table: 264, lengths: 272,
    query_offsets: 280, sinks: 288, cuts: 296, output: 304, lse: 312,
    partial_output: 320, partial_statistics: 328, status: 336, table_stride: 344, output_batch_stride: 352,
    output_row_stride: 360, lse_batch_stride: 368, lse_head_stride: 376, lse_token_stride: 384, tokens: 392,
    query_tokens: 396, heads: 400, groups: 404, cluster: 408, table_tokens: 412,
    page_shift: 416, cache_pages: 420, pieces: 424, piece_blocks: 428, causal: 432,
    cache_layout: 436, value_scale: 440, scale: 444, scale_log2: 448,
});

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NgMlaScheduleParams {
    pub lengths: u64,
    pub query_offsets: u64,
    pub cuts: u64,
    pub status: u64,
    pub batch: i32,
    pub tokens: i32,
    pub query_tokens: i32,
    pub heads: i32,
    pub groups: i32,
    pub cluster: i32,
    pub table_tokens: i32,
    pub causal: i32,
    pub workers: i32,
}
parameters!(NgMlaScheduleParams, 72, {
    lengths: 0, query_offsets: 8, cuts: 16, status: 24, batch: 32, tokens: 36, query_tokens: 40,
    heads: 44, groups: 48, cluster: 52, table_tokens: 56, causal: 60, workers: 64,
});

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NgMlaCombineParams {
    pub lengths: u64,
    pub query_offsets: u64,
    pub sinks: u64,
    pub cuts: u64,
    pub output: u64,
    pub lse: u64,
    pub partial_output: u64,
    pub partial_statistics: u64,
    pub output_batch_stride: i64,
    pub output_row_stride: i64,
    pub lse_batch_stride: i64,
    pub lse_head_stride: i64,
    pub lse_token_stride: i64,
    pub tokens: i32,
    pub query_tokens: i32,
    pub heads: i32,
    pub groups: i32,
    pub cluster: i32,
    pub table_tokens: i32,
    pub pieces: i32,
    pub piece_blocks: i32,
    pub causal: i32,
    pub value_scale: f32,
    pub scale: f32,
    pub scale_log2: f32,
}
parameters!(NgMlaCombineParams, 152, {
    lengths: 0, query_offsets: 8, sinks: 16, cuts: 24, output: 32, lse: 40, partial_output: 48,
    partial_statistics: 56, output_batch_stride: 64, output_row_stride: 72, lse_batch_stride: 80,
    lse_head_stride: 88, lse_token_stride: 96, tokens: 104, query_tokens: 108, heads: 112, groups: 116,
    cluster: 120, table_tokens: 124, pieces: 128, piece_blocks: 132, causal: 136, value_scale: 140,
    scale: 144, scale_log2: 148,
});

/// Dynamic shared memory of the sparse attention.
pub const NG_MLA_SPARSE_SHARED_BYTES: u32 = 223_360;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NgMlaSparseParams {
    pub query: NgTensorMap,
    pub output: NgTensorMap,
    pub cache: u64,
    pub indices: u64,
    pub lengths: u64,
    pub sinks: u64,
    pub lse: u64,
    pub max_logits: u64,
    pub partial_output: u64,
    pub partial_statistics: u64,
    pub status: u64,
    pub index_stride: i64,
    pub lse_token_stride: i64,
    pub lse_head_stride: i64,
    pub max_token_stride: i64,
    pub max_head_stride: i64,
    pub tokens: i32,
    pub heads: i32,
    pub top_k: i32,
    pub tokens_per_length: i32,
    pub cache_tokens: i32,
    pub splits: i32,
    pub scale: f32,
    pub scale_log2: f32,
}
parameters!(NgMlaSparseParams, 512, {
    query: 0, output: 128, cache: 256, indices: 264, lengths: 272, sinks: 280, lse: 288, max_logits: 296,
    partial_output: 304, partial_statistics: 312, status: 320, index_stride: 328, lse_token_stride: 336,
    lse_head_stride: 344, max_token_stride: 352, max_head_stride: 360, tokens: 368, heads: 372, top_k: 376,
    tokens_per_length: 380, cache_tokens: 384, splits: 388, scale: 392, scale_log2: 396,
});

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NgMlaSparseCombineParams {
    pub partial_output: u64,
    pub partial_statistics: u64,
    pub output: u64,
    pub sinks: u64,
    pub lse: u64,
    pub max_logits: u64,
    pub output_token_stride: i64,
    pub output_head_stride: i64,
    pub lse_token_stride: i64,
    pub lse_head_stride: i64,
    pub max_token_stride: i64,
    pub max_head_stride: i64,
    pub tokens: i32,
    pub heads: i32,
    pub splits: i32,
    pub scale: f32,
}
parameters!(NgMlaSparseCombineParams, 112, {
    partial_output: 0, partial_statistics: 8, output: 16, sinks: 24, lse: 32, max_logits: 40, output_token_stride: 48,
    output_head_stride: 56, lse_token_stride: 64, lse_head_stride: 72, max_token_stride: 80, max_head_stride: 88,
    tokens: 96, heads: 100, splits: 104, scale: 108,
});

// ---- matrix products ----

/// One matrix B for all rows.
pub const NG_GEMM_DENSE: u32 = 0;
/// Adjacent groups of rows.
pub const NG_GEMM_CONTIGUOUS: u32 = 1;
/// Groups of as many rows, of which the first count.
pub const NG_GEMM_MASKED: u32 = 2;
/// Groups of as many rows.
pub const NG_GEMM_BATCHED: u32 = 3;
/// One product for each range of K.
pub const NG_GEMM_K_GROUPED: u32 = 4;

/// An output in bf16.
pub const NG_GEMM_OUT_BF16: u32 = 0;
/// An output in f16.
pub const NG_GEMM_OUT_F16: u32 = 1;
/// An output in f32.
pub const NG_GEMM_OUT_F32: u32 = 2;
/// An output in e4m3 with fresh scales of 1×128.
pub const NG_GEMM_OUT_E4M3: u32 = 3;

/// Adds what the output holds.
pub const NG_GEMM_ACCUMULATE: u32 = 1 << 0;
/// A's scales are UE8M0 codes.
pub const NG_GEMM_A_SCALES_UE8M0: u32 = 1 << 1;
/// B's scales are UE8M0 codes.
pub const NG_GEMM_B_SCALES_UE8M0: u32 = 1 << 2;
/// Two adjacent outputs may be stored at once.
pub const NG_GEMM_PAIRED_STORES: u32 = 1 << 3;
/// Rows of the output start at multiples of 16 bytes.
pub const NG_GEMM_WIDE_STORES: u32 = 1 << 4;
/// Fresh scales are rounded up to powers of two.
pub const NG_GEMM_SCALES_POWER_OF_TWO: u32 = 1 << 5;
/// 16-bit operands are f16, not bf16.
pub const NG_GEMM_F16: u32 = 1 << 16;
/// Rows of A, not its columns, are adjacent.
pub const NG_GEMM_A_TRANSPOSED: u32 = 1 << 17;
/// Rows of B, not its columns, are adjacent.
pub const NG_GEMM_B_TRANSPOSED: u32 = 1 << 18;

/// Parameters of the FP8 and 16-bit products.
#[repr(C, align(128))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct NgFp8GemmParams {
    pub a: NgTensorMap,
    pub b: NgTensorMap,
    pub a_scales: u64,
    pub b_scales: u64,
    pub offsets: u64,
    pub gather: u64,
    pub out: u64,
    pub out_scales: u64,
    pub column_scales: u64,
    pub bias: u64,
    pub row_weights: u64,
    pub status: u64,
    pub a_scales_batch_stride: i64,
    pub a_scales_row_stride: i64,
    pub a_scales_block_stride: i64,
    pub b_scales_group_stride: i64,
    pub b_scales_row_stride: i64,
    pub b_scales_block_stride: i64,
    pub out_batch_stride: i64,
    pub out_row_stride: i64,
    pub out_scales_row_stride: i64,
    pub out_scales_block_stride: i64,
    pub column_scales_group_stride: i64,
    pub bias_group_stride: i64,
    pub alpha: f32,
    pub clamp: f32,
    pub rows: u32,
    pub n: u32,
    pub k: u32,
    pub groups: u32,
    pub mode: u32,
    pub out_type: u32,
    pub flags: u32,
    pub a_rows: u32,
    pub a_data: u64,
    pub a_row_stride: u32,
    pub gather_multiplier: u32,
    pub gather_shift: u32,
    pub reserved: [u32; 5],
}
parameters!(NgFp8GemmParams, 512, {
    a: 0, b: 128, a_scales: 256, b_scales: 264, offsets: 272, gather: 280, out: 288, out_scales: 296,
    column_scales: 304, bias: 312, row_weights: 320, status: 328, a_scales_batch_stride: 336,
    a_scales_row_stride: 344, a_scales_block_stride: 352, b_scales_group_stride: 360,
    b_scales_row_stride: 368, b_scales_block_stride: 376, out_batch_stride: 384, out_row_stride: 392,
    out_scales_row_stride: 400, out_scales_block_stride: 408, column_scales_group_stride: 416,
    bias_group_stride: 424, alpha: 432, clamp: 436, rows: 440, n: 444, k: 448, groups: 452, mode: 456,
    out_type: 460, flags: 464, a_rows: 468, a_data: 472, a_row_stride: 480, gather_multiplier: 484,
    gather_shift: 488, reserved: 492,
});

// ---- quantisation, norms, vocabulary, routing, rotary embedding ----
// Fields named like tensors are device addresses; strides count elements.

/// Parameters of `quantize_bf16`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgQuantizeParams {
    pub(crate) x: u64,
    pub(crate) data: u64,
    pub(crate) scales: u64,
    pub(crate) x_row_stride: u64,
    pub(crate) data_row_stride: u64,
    pub(crate) scale_row_stride: u64,
    pub(crate) scale_group_stride: u64,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) warps_per_row: u32,
    pub(crate) power_of_two: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgQuantizeParams, 80, {
    x: 0,
    data: 8,
    scales: 16,
    x_row_stride: 24,
    data_row_stride: 32,
    scale_row_stride: 40,
    scale_group_stride: 48,
    rows: 56,
    columns: 60,
    warps_per_row: 64,
    power_of_two: 68,
    vectorised: 72,
});

/// Parameters of `transpose_b8`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgTransposeParams {
    pub(crate) x: u64,
    pub(crate) out: u64,
    pub(crate) x_batch_stride: i64,
    pub(crate) x_row_stride: i64,
    pub(crate) out_batch_stride: i64,
    pub(crate) out_row_stride: i64,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) x_words: u32,
    pub(crate) out_words: u32,
}
parameters!(NgTransposeParams, 64, {
    x: 0,
    out: 8,
    x_batch_stride: 16,
    x_row_stride: 24,
    out_batch_stride: 32,
    out_row_stride: 40,
    rows: 48,
    columns: 52,
    x_words: 56,
    out_words: 60,
});

/// Parameters of `rms_norm_bf16`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgRmsNormParams {
    pub(crate) x: u64,
    pub(crate) weight: u64,
    pub(crate) out: u64,
    pub(crate) x_row_stride: u64,
    pub(crate) out_row_stride: u64,
    pub(crate) columns: u32,
    pub(crate) epsilon: f32,
    pub(crate) vectorised: u32,
}
parameters!(NgRmsNormParams, 56, {
    x: 0,
    weight: 8,
    out: 16,
    x_row_stride: 24,
    out_row_stride: 32,
    columns: 40,
    epsilon: 44,
    vectorised: 48,
});

/// Parameters of `rms_norm_quantize_bf16`; `out` 0: no bf16 output.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgRmsNormQuantizeParams {
    pub(crate) x: u64,
    pub(crate) weight: u64,
    pub(crate) out: u64,
    pub(crate) data: u64,
    pub(crate) scales: u64,
    pub(crate) x_row_stride: u64,
    pub(crate) out_row_stride: u64,
    pub(crate) data_row_stride: u64,
    pub(crate) scale_row_stride: u64,
    pub(crate) scale_group_stride: u64,
    pub(crate) columns: u32,
    pub(crate) epsilon: f32,
    pub(crate) power_of_two: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgRmsNormQuantizeParams, 96, {
    x: 0,
    weight: 8,
    out: 16,
    data: 24,
    scales: 32,
    x_row_stride: 40,
    out_row_stride: 48,
    data_row_stride: 56,
    scale_row_stride: 64,
    scale_group_stride: 72,
    columns: 80,
    epsilon: 84,
    power_of_two: 88,
    vectorised: 92,
});

/// Parameters of `add_bf16`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgAddParams {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) out: u64,
    pub(crate) a_row_stride: u64,
    pub(crate) b_row_stride: u64,
    pub(crate) out_row_stride: u64,
    pub(crate) columns: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgAddParams, 56, {
    a: 0,
    b: 8,
    out: 16,
    a_row_stride: 24,
    b_row_stride: 32,
    out_row_stride: 40,
    columns: 48,
    vectorised: 52,
});

/// Parameters of `embedding_bf16`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgEmbeddingParams {
    pub(crate) table: u64,
    pub(crate) ids: u64,
    pub(crate) out: u64,
    pub(crate) status: u64,
    pub(crate) table_row_stride: u64,
    pub(crate) out_row_stride: u64,
    pub(crate) vocabulary: u32,
    pub(crate) columns: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgEmbeddingParams, 64, {
    table: 0,
    ids: 8,
    out: 16,
    status: 24,
    table_row_stride: 32,
    out_row_stride: 40,
    vocabulary: 48,
    columns: 52,
    vectorised: 56,
});

/// Parameters of `argmax_f32`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgArgmaxParams {
    pub(crate) logits: u64,
    pub(crate) out: u64,
    pub(crate) status: u64,
    pub(crate) logits_row_stride: u64,
    pub(crate) vocabulary: u32,
}
parameters!(NgArgmaxParams, 40, {
    logits: 0,
    out: 8,
    status: 16,
    logits_row_stride: 24,
    vocabulary: 32,
});

/// Parameters of the routers.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgRouterParams {
    pub(crate) logits: u64,
    pub(crate) bias: u64,
    pub(crate) weights: u64,
    pub(crate) ids: u64,
    pub(crate) token_count: u64,
    pub(crate) table: u64,
    pub(crate) table_rows: u64,
    pub(crate) status: u64,
    pub(crate) logits_row_stride: u64,
    pub(crate) tokens: u32,
    pub(crate) experts: u32,
    pub(crate) slots: u32,
    pub(crate) vocabulary: u32,
    pub(crate) groups: u32,
    pub(crate) kept_groups: u32,
    pub(crate) group_size: u32,
    pub(crate) group_lanes: u32,
    pub(crate) lane_experts: u32,
    pub(crate) pair_score: u32,
    pub(crate) scored: u32,
    pub(crate) scoring: u32,
    pub(crate) weighting: u32,
    pub(crate) logit_type: u32,
    pub(crate) vectorised: u32,
    pub(crate) scale: f32,
}
parameters!(NgRouterParams, 136, {
    logits: 0,
    bias: 8,
    weights: 16,
    ids: 24,
    token_count: 32,
    table: 40,
    table_rows: 48,
    status: 56,
    logits_row_stride: 64,
    tokens: 72,
    experts: 76,
    slots: 80,
    vocabulary: 84,
    groups: 88,
    kept_groups: 92,
    group_size: 96,
    group_lanes: 100,
    lane_experts: 104,
    pair_score: 108,
    scored: 112,
    scoring: 116,
    weighting: 120,
    logit_type: 124,
    vectorised: 128,
    scale: 132,
});

/// Parameters of the passes of the permutation.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgPermuteParams {
    pub(crate) ids: u64,
    pub(crate) counts: u64,
    pub(crate) offsets: u64,
    pub(crate) source: u64,
    pub(crate) position: u64,
    pub(crate) partial: u64,
    pub(crate) status: u64,
    pub(crate) entries: u32,
    pub(crate) experts: u32,
    pub(crate) chunks: u32,
}
parameters!(NgPermuteParams, 72, {
    ids: 0,
    counts: 8,
    offsets: 16,
    source: 24,
    position: 32,
    partial: 40,
    status: 48,
    entries: 56,
    experts: 60,
    chunks: 64,
});

/// Parameters of `gather_rows_e4m3`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgGatherRowsParams {
    pub(crate) data: u64,
    pub(crate) scales: u64,
    pub(crate) source: u64,
    pub(crate) out_data: u64,
    pub(crate) out_scales: u64,
    pub(crate) data_row_stride: u64,
    pub(crate) scale_row_stride: u64,
    pub(crate) scale_group_stride: u64,
    pub(crate) out_data_row_stride: u64,
    pub(crate) out_scale_row_stride: u64,
    pub(crate) out_scale_group_stride: u64,
    pub(crate) tokens: u32,
    pub(crate) slots: u32,
    pub(crate) columns: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgGatherRowsParams, 104, {
    data: 0,
    scales: 8,
    source: 16,
    out_data: 24,
    out_scales: 32,
    data_row_stride: 40,
    scale_row_stride: 48,
    scale_group_stride: 56,
    out_data_row_stride: 64,
    out_scale_row_stride: 72,
    out_scale_group_stride: 80,
    tokens: 88,
    slots: 92,
    columns: 96,
    vectorised: 100,
});

/// Parameters of `swiglu_quantize_bf16`; `valid_rows` 0: every row.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgSwigluQuantizeParams {
    pub(crate) gate_up: u64,
    pub(crate) data: u64,
    pub(crate) scales: u64,
    pub(crate) valid_rows: u64,
    pub(crate) gate_up_row_stride: u64,
    pub(crate) data_row_stride: u64,
    pub(crate) scale_row_stride: u64,
    pub(crate) scale_group_stride: u64,
    pub(crate) up_offset: u64,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) warps_per_row: u32,
    pub(crate) power_of_two: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgSwigluQuantizeParams, 96, {
    gate_up: 0,
    data: 8,
    scales: 16,
    valid_rows: 24,
    gate_up_row_stride: 32,
    data_row_stride: 40,
    scale_row_stride: 48,
    scale_group_stride: 56,
    up_offset: 64,
    rows: 72,
    columns: 76,
    warps_per_row: 80,
    power_of_two: 84,
    vectorised: 88,
});

/// Parameters of `combine_bf16`; `shared` 0: nothing is added.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgCombineParams {
    pub(crate) rows: u64,
    pub(crate) position: u64,
    pub(crate) weights: u64,
    pub(crate) shared: u64,
    pub(crate) out: u64,
    pub(crate) rows_row_stride: u64,
    pub(crate) shared_row_stride: u64,
    pub(crate) out_row_stride: u64,
    pub(crate) row_count: u32,
    pub(crate) slots: u32,
    pub(crate) columns: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgCombineParams, 80, {
    rows: 0,
    position: 8,
    weights: 16,
    shared: 24,
    out: 32,
    rows_row_stride: 40,
    shared_row_stride: 48,
    out_row_stride: 56,
    row_count: 64,
    slots: 68,
    columns: 72,
    vectorised: 76,
});

/// Parameters of `rope_bf16`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgRopeParams {
    pub(crate) x: u64,
    pub(crate) positions: u64,
    pub(crate) cosines: u64,
    pub(crate) sines: u64,
    pub(crate) out: u64,
    pub(crate) status: u64,
    pub(crate) x_token_stride: u64,
    pub(crate) x_head_stride: u64,
    pub(crate) out_token_stride: u64,
    pub(crate) out_head_stride: u64,
    pub(crate) rows: u64,
    pub(crate) heads: u32,
    pub(crate) max_positions: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgRopeParams, 104, {
    x: 0,
    positions: 8,
    cosines: 16,
    sines: 24,
    out: 32,
    status: 40,
    x_token_stride: 48,
    x_head_stride: 56,
    out_token_stride: 64,
    out_head_stride: 72,
    rows: 80,
    heads: 88,
    max_positions: 92,
    vectorised: 96,
});

/// 576 bf16 a token.
pub const NG_CACHE_BF16: u32 = 0;
/// 576 f16 a token.
pub const NG_CACHE_F16: u32 = 1;
/// 512 e4m3, 4 f32 scales and 64 bf16 a token.
pub const NG_CACHE_FP8_BLOCKS: u32 = 2;
/// 576 e4m3 a token, with the scale of the whole cache.
pub const NG_CACHE_FP8_FLAT: u32 = 3;

/// Parameters of `cache_write_half`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgCacheWriteParams {
    pub(crate) latent: u64,
    pub(crate) key_rope: u64,
    pub(crate) positions: u64,
    pub(crate) slots: u64,
    pub(crate) cosines: u64,
    pub(crate) sines: u64,
    pub(crate) cache: u64,
    pub(crate) status: u64,
    pub(crate) latent_row_stride: u64,
    pub(crate) key_rope_row_stride: u64,
    pub(crate) cache_rows: u64,
    pub(crate) max_positions: u32,
    pub(crate) vectorised: u32,
    pub(crate) layout: u32,
    pub(crate) input_f16: u32,
    pub(crate) scale: f32,
}
parameters!(NgCacheWriteParams, 112, {
    latent: 0,
    key_rope: 8,
    positions: 16,
    slots: 24,
    cosines: 32,
    sines: 40,
    cache: 48,
    status: 56,
    latent_row_stride: 64,
    key_rope_row_stride: 72,
    cache_rows: 80,
    max_positions: 88,
    vectorised: 92,
    layout: 96,
    input_f16: 100,
    scale: 104,
});

/// Parameters of `cache_gather_half`; `starts` 0: from the first token.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgCacheGatherParams {
    pub(crate) cache: u64,
    pub(crate) page_table: u64,
    pub(crate) offsets: u64,
    pub(crate) starts: u64,
    pub(crate) out: u64,
    pub(crate) status: u64,
    pub(crate) table_stride: u64,
    pub(crate) out_row_stride: u64,
    pub(crate) rows: u32,
    pub(crate) sequences: u32,
    pub(crate) table_pages: u32,
    pub(crate) cache_pages: u32,
    pub(crate) page_tokens: u32,
    pub(crate) vectorised: u32,
    pub(crate) layout: u32,
    pub(crate) output_f16: u32,
    pub(crate) scale: f32,
}
parameters!(NgCacheGatherParams, 104, {
    cache: 0,
    page_table: 8,
    offsets: 16,
    starts: 24,
    out: 32,
    status: 40,
    table_stride: 48,
    out_row_stride: 56,
    rows: 64,
    sequences: 68,
    table_pages: 72,
    cache_pages: 76,
    page_tokens: 80,
    vectorised: 84,
    layout: 88,
    output_f16: 92,
    scale: 96,
});

/// Parameters of `cache_pages_b8`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgCachePagesParams {
    pub(crate) source: u64,
    pub(crate) target: u64,
    pub(crate) pairs: u64,
    pub(crate) status: u64,
    pub(crate) page_bytes: u64,
    pub(crate) source_pages: u32,
    pub(crate) target_pages: u32,
    pub(crate) pieces: u32,
    pub(crate) exchange: u32,
}
parameters!(NgCachePagesParams, 56, {
    source: 0,
    target: 8,
    pairs: 16,
    status: 24,
    page_bytes: 32,
    source_pages: 40,
    target_pages: 44,
    pieces: 48,
    exchange: 52,
});

// ---- lightning indexer ----

/// The largest `k` of a selection.
pub const NG_TOP_K_LARGEST: u32 = 2048;

/// Parameters of `top_k_f32`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgTopKParams {
    pub(crate) scores: u64,
    pub(crate) starts: u64,
    pub(crate) ends: u64,
    pub(crate) page_table: u64,
    pub(crate) out: u64,
    pub(crate) status: u64,
    pub(crate) scores_row_stride: i64,
    pub(crate) table_stride: i64,
    pub(crate) out_row_stride: i64,
    pub(crate) columns: u32,
    pub(crate) k: u32,
    pub(crate) rows_per_end: u32,
    pub(crate) page_tokens: u32,
    pub(crate) cache_pages: u32,
    pub(crate) reserved: u32,
}
parameters!(NgTopKParams, 96, {
    scores: 0, starts: 8, ends: 16, page_table: 24, out: 32, status: 40, scores_row_stride: 48, table_stride: 56,
    out_row_stride: 64, columns: 72, k: 76, rows_per_end: 80, page_tokens: 84, cache_pages: 88, reserved: 92,
});

/// Threads of a block that merges.
pub const NG_MERGE_THREADS: u32 = 256;

/// Parameters of `merge`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgMergeParams {
    pub(crate) partial: u64,
    pub(crate) lse: u64,
    pub(crate) sinks: u64,
    pub(crate) out: u64,
    pub(crate) out_lse: u64,
    pub(crate) partial_part_stride: i64,
    pub(crate) partial_token_stride: i64,
    pub(crate) partial_head_stride: i64,
    pub(crate) lse_part_stride: i64,
    pub(crate) lse_head_stride: i64,
    pub(crate) lse_token_stride: i64,
    pub(crate) out_token_stride: i64,
    pub(crate) out_head_stride: i64,
    pub(crate) out_lse_head_stride: i64,
    pub(crate) out_lse_token_stride: i64,
    pub(crate) rows: u32,
    pub(crate) block_rows: u32,
    pub(crate) parts: u32,
    pub(crate) heads: u32,
    pub(crate) columns: u32,
    pub(crate) partial_type: u32,
    pub(crate) out_type: u32,
    pub(crate) vectorised: u32,
}
parameters!(NgMergeParams, 152, {
    partial: 0,
    lse: 8,
    sinks: 16,
    out: 24,
    out_lse: 32,
    partial_part_stride: 40,
    partial_token_stride: 48,
    partial_head_stride: 56,
    lse_part_stride: 64,
    lse_head_stride: 72,
    lse_token_stride: 80,
    out_token_stride: 88,
    out_head_stride: 96,
    out_lse_head_stride: 104,
    out_lse_token_stride: 112,
    rows: 120,
    block_rows: 124,
    parts: 128,
    heads: 132,
    columns: 136,
    partial_type: 140,
    out_type: 144,
    vectorised: 148,
});

/// Parameters of `indexer_write_half`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgIndexerWriteParams {
    pub(crate) keys: u64,
    pub(crate) slots: u64,
    pub(crate) data: u64,
    pub(crate) scales: u64,
    pub(crate) status: u64,
    pub(crate) key_row_stride: u64,
    pub(crate) data_page_stride: u64,
    pub(crate) data_row_stride: u64,
    pub(crate) scale_page_stride: u64,
    pub(crate) scale_row_stride: u64,
    pub(crate) tokens: u32,
    pub(crate) page_tokens: u32,
    pub(crate) cache_rows: u32,
    pub(crate) power_of_two: u32,
    pub(crate) vectorised: u32,
    pub(crate) input_f16: u32,
}
parameters!(NgIndexerWriteParams, 104, {
    keys: 0,
    slots: 8,
    data: 16,
    scales: 24,
    status: 32,
    key_row_stride: 40,
    data_page_stride: 48,
    data_row_stride: 56,
    scale_page_stride: 64,
    scale_row_stride: 72,
    tokens: 80,
    page_tokens: 84,
    cache_rows: 88,
    power_of_two: 92,
    vectorised: 96,
    input_f16: 100,
});

/// Parameters of the kernels `indexer_logits…`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgIndexerLogitsParams {
    pub(crate) query: NgTensorMap,
    pub(crate) keys: NgTensorMap,
    pub(crate) scales: NgTensorMap,
    pub(crate) weights: u64,
    pub(crate) starts: u64,
    pub(crate) ends: u64,
    pub(crate) page_table: u64,
    pub(crate) out: u64,
    pub(crate) status: u64,
    pub(crate) weights_batch_stride: i64,
    pub(crate) weights_token_stride: i64,
    pub(crate) table_stride: i64,
    pub(crate) out_row_stride: i64,
    pub(crate) batch: u32,
    pub(crate) tokens: u32,
    pub(crate) heads: u32,
    pub(crate) padded_heads: u32,
    pub(crate) columns: u32,
    pub(crate) page_tokens: u32,
    pub(crate) cache_pages: u32,
    pub(crate) chunks: u32,
    pub(crate) chunk_tiles: u32,
    pub(crate) reserved: [u32; 3],
}
parameters!(NgIndexerLogitsParams, 512, {
    query: 0, keys: 128, scales: 256, weights: 384, starts: 392, ends: 400, page_table: 408, out: 416, status: 424,
    weights_batch_stride: 432, weights_token_stride: 440, table_stride: 448, out_row_stride: 456, batch: 464, tokens: 468,
    heads: 472, padded_heads: 476, columns: 480, page_tokens: 484, cache_pages: 488, chunks: 492, chunk_tiles: 496,
    reserved: 500,
});

/// Queries of a block.
pub const NG_PREFILL_ROWS: u32 = 128;

/// Parameters of `mla_prefill_*`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NgPrefillParams {
    pub(crate) query: NgTensorMap,
    pub(crate) key: NgTensorMap,
    pub(crate) key_rope: NgTensorMap,
    pub(crate) value: NgTensorMap,
    pub(crate) query_offsets: u64,
    pub(crate) key_offsets: u64,
    pub(crate) sinks: u64,
    pub(crate) out: u64,
    pub(crate) lse: u64,
    pub(crate) status: u64,
    pub(crate) out_token_stride: i64,
    pub(crate) out_head_stride: i64,
    pub(crate) lse_head_stride: i64,
    pub(crate) lse_token_stride: i64,
    pub(crate) sequences: u32,
    pub(crate) queries: u32,
    pub(crate) keys: u32,
    pub(crate) heads: u32,
    pub(crate) group: u32,
    pub(crate) tiles: u32,
    pub(crate) section_heads: u32,
    pub(crate) shared_rope: u32,
    pub(crate) causal: u32,
    pub(crate) f16: u32,
    pub(crate) scale_log2: f32,
    pub(crate) reserved: u32,
}
parameters!(NgPrefillParams, 640, {
    query: 0,
    key: 128,
    key_rope: 256,
    value: 384,
    query_offsets: 512,
    key_offsets: 520,
    sinks: 528,
    out: 536,
    lse: 544,
    status: 552,
    out_token_stride: 560,
    out_head_stride: 568,
    lse_head_stride: 576,
    lse_token_stride: 584,
    sequences: 592,
    queries: 596,
    keys: 600,
    heads: 604,
    group: 608,
    tiles: 612,
    section_heads: 616,
    shared_rope: 620,
    causal: 624,
    f16: 628,
    scale_log2: 632,
    reserved: 636,
});
