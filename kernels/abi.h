// The only contract between kernels and the host: one plain struct per kernel, and the bits of the status word.
// src/device/abi.rs has the same structs; both sides assert sizes and offsets. In structs with
// tensor maps the maps come first.
#ifndef NARROWGAUGE_ABI_H
#define NARROWGAUGE_ABI_H

#include <stdint.h>

// A TMA tensor map. Ours, since the alignment of CUDA's own type differs between versions.
struct alignas(128) NgTensorMap {
    uint8_t bytes[128];
};
static_assert(sizeof(NgTensorMap) == 128 && alignof(NgTensorMap) == 128, "tensor map");

// Bits that kernels set in the stream's status word (atomicOr) when they masked bad data.
enum NgStatus : uint32_t {
    NG_STATUS_BAD_EXPERT = 1u << 0,    // an expert id outside -1..E
    NG_STATUS_BAD_PAGE = 1u << 1,      // a page id in use outside the cache
    NG_STATUS_BAD_LENGTH = 1u << 2,    // a sequence length that is negative or beyond its page table
    NG_STATUS_BAD_TOKEN = 1u << 3,     // a token id outside the vocabulary
    NG_STATUS_BAD_POSITION = 1u << 4,  // a position outside the rotary tables
    NG_STATUS_BAD_SLOT = 1u << 5,      // a cache slot outside the cache
    NG_STATUS_BAD_OFFSETS = 1u << 6,   // group offsets that decrease or leave the rows
    NG_STATUS_NAN_SCORE = 1u << 7,     // NaN among scores that were ranked
    NG_STATUS_UNROUTED = 1u << 8,      // a token that no expert takes
    NG_STATUS_BAD_ROW = 1u << 9,       // an index of a row that a matrix does not have
};

// Types of tensors that kernels take in several.
enum NgFloat : uint32_t {
    NG_FLOAT_BF16 = 0,
    NG_FLOAT_F16 = 1,
    NG_FLOAT_F32 = 2,
};

// ---- quantisation, norms, vocabulary, routing, rotary embedding ----
// Fields named like tensors are device addresses; strides count elements.

// Threads of a block that owns a row, at most.
#define NG_ROW_THREADS 512

// The tile of a transposition and its threads.
#define NG_TRANSPOSE_TILE 128
#define NG_TRANSPOSE_THREADS 256

struct NgTransposeParams {
    uint64_t x, out;
    int64_t x_batch_stride, x_row_stride, out_batch_stride, out_row_stride;
    uint32_t rows, columns;        // of x
    uint32_t x_words, out_words;  // rows start at multiples of four bytes
};
static_assert(sizeof(NgTransposeParams) == 64 && __builtin_offsetof(NgTransposeParams, rows) == 48, "NgTransposeParams");

struct NgQuantizeParams {
    uint64_t x, data, scales;
    uint64_t x_row_stride, data_row_stride, scale_row_stride, scale_group_stride;
    uint32_t rows, columns;
    uint32_t warps_per_row;
    uint32_t power_of_two;
    uint32_t vectorised;
};
static_assert(sizeof(NgQuantizeParams) == 80 && __builtin_offsetof(NgQuantizeParams, rows) == 56, "NgQuantizeParams");

struct NgRmsNormParams {
    uint64_t x, weight, out;
    uint64_t x_row_stride, out_row_stride;
    uint32_t columns;
    float epsilon;
    uint32_t vectorised;
};
static_assert(sizeof(NgRmsNormParams) == 56 && __builtin_offsetof(NgRmsNormParams, columns) == 40, "NgRmsNormParams");

struct NgRmsNormQuantizeParams {
    uint64_t x, weight, out;  // `out` 0: no bf16 output
    uint64_t data, scales;
    uint64_t x_row_stride, out_row_stride, data_row_stride, scale_row_stride, scale_group_stride;
    uint32_t columns;
    float epsilon;
    uint32_t power_of_two;
    uint32_t vectorised;
};
static_assert(sizeof(NgRmsNormQuantizeParams) == 96 && __builtin_offsetof(NgRmsNormQuantizeParams, columns) == 80, "NgRmsNormQuantizeParams");

struct NgAddParams {
    uint64_t a, b, out;
    uint64_t a_row_stride, b_row_stride, out_row_stride;
    uint32_t columns;
    uint32_t vectorised;
};
static_assert(sizeof(NgAddParams) == 56 && __builtin_offsetof(NgAddParams, columns) == 48, "NgAddParams");

struct NgEmbeddingParams {
    uint64_t table, ids, out, status;
    uint64_t table_row_stride, out_row_stride;
    uint32_t vocabulary, columns;
    uint32_t vectorised;
};
static_assert(sizeof(NgEmbeddingParams) == 64 && __builtin_offsetof(NgEmbeddingParams, vocabulary) == 48, "NgEmbeddingParams");

struct NgArgmaxParams {
    uint64_t logits, out, status;
    uint64_t logits_row_stride;
    uint32_t vocabulary;
};
static_assert(sizeof(NgArgmaxParams) == 40 && __builtin_offsetof(NgArgmaxParams, vocabulary) == 32, "NgArgmaxParams");

// What experts are ranked by, how groups of them are, and what weights are made of.
enum NgScoring : uint32_t {
    NG_SCORING_SIGMOID = 0,
    NG_SCORING_SOFTMAX = 1,
    NG_SCORING_SQRT_SOFTPLUS = 2,
    NG_SCORING_LOGITS = 3,
};
enum NgRouteWeights : uint32_t {
    NG_WEIGHTS_SCORES = 0,
    NG_WEIGHTS_NORMALIZED = 1,
    NG_WEIGHTS_SOFTMAX = 2,  // of the chosen logits
};

struct NgRouterParams {
    uint64_t logits;
    uint64_t bias;         // f32[experts], 0: none
    uint64_t weights, ids;
    uint64_t token_count;  // i32*, 0: all tokens
    uint64_t table;        // i32[vocabulary, slots], 0: experts are ranked
    uint64_t table_rows;   // i32[tokens]
    uint64_t status;
    uint64_t logits_row_stride;
    uint32_t tokens, experts, slots, vocabulary;
    uint32_t groups, kept_groups, group_size;
    uint32_t group_lanes, lane_experts;  // lanes of a group, and the most experts that one has
    uint32_t pair_score;                 // groups are ranked by their two best, not by their best
    uint32_t scored;                     // ranked by scores, not by logits in the same order
    uint32_t scoring, weighting;         // NgScoring, NgRouteWeights
    uint32_t logit_type;                 // NgFloat
    uint32_t vectorised;
    float scale;
};
static_assert(sizeof(NgRouterParams) == 136 && __builtin_offsetof(NgRouterParams, tokens) == 72, "NgRouterParams");

// The three passes of the stable permutation share it.
struct NgPermuteParams {
    uint64_t ids;       // i32[entries]
    uint64_t counts;    // i32[experts]
    uint64_t offsets;   // i32[experts + 1]
    uint64_t source;    // i32[entries]
    uint64_t position;  // i32[entries]
    uint64_t partial;   // i32[chunks * experts]
    uint64_t status;
    uint32_t entries, experts, chunks;
};
static_assert(sizeof(NgPermuteParams) == 72 && __builtin_offsetof(NgPermuteParams, entries) == 56, "NgPermuteParams");

struct NgGatherRowsParams {
    uint64_t data, scales, source, out_data, out_scales;
    uint64_t data_row_stride, scale_row_stride, scale_group_stride;
    uint64_t out_data_row_stride, out_scale_row_stride, out_scale_group_stride;
    uint32_t tokens, slots, columns;
    uint32_t vectorised;
};
static_assert(sizeof(NgGatherRowsParams) == 104 && __builtin_offsetof(NgGatherRowsParams, tokens) == 88, "NgGatherRowsParams");

struct NgSwigluQuantizeParams {
    uint64_t gate_up, data, scales;
    uint64_t valid_rows;  // i32*, 0: every row
    uint64_t gate_up_row_stride, data_row_stride, scale_row_stride, scale_group_stride;
    uint64_t up_offset;
    uint32_t rows, columns;
    uint32_t warps_per_row;
    uint32_t power_of_two;
    uint32_t vectorised;
};
static_assert(sizeof(NgSwigluQuantizeParams) == 96 && __builtin_offsetof(NgSwigluQuantizeParams, rows) == 72, "NgSwigluQuantizeParams");

struct NgCombineParams {
    uint64_t rows, position, weights, shared, out;  // `shared` 0: nothing is added
    uint64_t rows_row_stride, shared_row_stride, out_row_stride;
    uint32_t row_count, slots, columns;
    uint32_t vectorised;
};
static_assert(sizeof(NgCombineParams) == 80 && __builtin_offsetof(NgCombineParams, row_count) == 64, "NgCombineParams");

struct NgRopeParams {
    uint64_t x, positions, cosines, sines, out, status;
    uint64_t x_token_stride, x_head_stride, out_token_stride, out_head_stride;
    uint64_t rows;  // tokens * heads
    uint32_t heads, max_positions;
    uint32_t vectorised;
};
static_assert(sizeof(NgRopeParams) == 104 && __builtin_offsetof(NgRopeParams, heads) == 88, "NgRopeParams");

// How a token of the latent cache lies in memory.
enum NgCacheLayout : uint32_t {
    NG_CACHE_BF16 = 0,        // 576 bf16
    NG_CACHE_F16 = 1,         // 576 f16
    NG_CACHE_FP8_BLOCKS = 2,  // 512 e4m3, 4 f32 scales, 64 bf16
    NG_CACHE_FP8_FLAT = 3,    // 576 e4m3 with the scale of the whole cache
};

struct NgCacheWriteParams {
    uint64_t latent, key_rope, positions, slots, cosines, sines, cache, status;
    uint64_t latent_row_stride, key_rope_row_stride;
    uint64_t cache_rows;
    uint32_t max_positions;
    uint32_t vectorised;
    uint32_t layout;     // NgCacheLayout
    uint32_t input_f16;  // latent and key_rope are f16, not bf16
    float scale;         // of a flat cache
};
static_assert(sizeof(NgCacheWriteParams) == 112 && __builtin_offsetof(NgCacheWriteParams, max_positions) == 88, "NgCacheWriteParams");

// Rows of sequences out of a cache of any layout.
struct NgCacheGatherParams {
    uint64_t cache, page_table, offsets, starts, out, status;  // `starts` 0: from the first token
    uint64_t table_stride, out_row_stride;
    uint32_t rows, sequences, table_pages, cache_pages, page_tokens;
    uint32_t vectorised;
    uint32_t layout;      // NgCacheLayout
    uint32_t output_f16;  // not bf16
    float scale;          // of a flat cache
};
static_assert(sizeof(NgCacheGatherParams) == 104 && __builtin_offsetof(NgCacheGatherParams, rows) == 64, "NgCacheGatherParams");

// Whole pages from one cache to another, or exchanged.
struct NgCachePagesParams {
    uint64_t source, target, pairs, status;  // `pairs` i32 [pairs, 2]
    uint64_t page_bytes;
    uint32_t source_pages, target_pages;
    uint32_t pieces;  // blocks of one pair
    uint32_t exchange;
};
static_assert(sizeof(NgCachePagesParams) == 56 && __builtin_offsetof(NgCachePagesParams, source_pages) == 40, "NgCachePagesParams");

// ---- matrix products ----
// Strides count elements.

// How rows of A find their weights.
enum NgGemmMode : uint32_t {
    NG_GEMM_DENSE = 0,       // one matrix B for all rows
    NG_GEMM_CONTIGUOUS = 1,  // adjacent groups of rows, ends in `offsets`
    NG_GEMM_MASKED = 2,      // [groups, rows, k], of which the first `offsets[g]` rows count
    NG_GEMM_BATCHED = 3,     // [groups, rows, k], all of it
    NG_GEMM_K_GROUPED = 4,   // one product for each range of K in `offsets`
};

enum NgGemmOutput : uint32_t {
    NG_GEMM_OUT_BF16 = 0,
    NG_GEMM_OUT_F16 = 1,
    NG_GEMM_OUT_F32 = 2,
    NG_GEMM_OUT_E4M3 = 3,  // with fresh scales of 1x128
};

enum NgGemmFlags : uint32_t {
    NG_GEMM_ACCUMULATE = 1u << 0,           // adds what `out` holds
    NG_GEMM_A_SCALES_UE8M0 = 1u << 1,
    NG_GEMM_B_SCALES_UE8M0 = 1u << 2,
    NG_GEMM_PAIRED_STORES = 1u << 3,        // two adjacent outputs may be stored at once
    NG_GEMM_WIDE_STORES = 1u << 4,          // rows of `out` start at multiples of 16 bytes
    NG_GEMM_SCALES_POWER_OF_TWO = 1u << 5,  // fresh scales are rounded up to powers of two
    NG_GEMM_F16 = 1u << 16,                 // 16-bit operands are f16, not bf16
    NG_GEMM_A_TRANSPOSED = 1u << 17,        // rows of A, not its columns, are adjacent
    NG_GEMM_B_TRANSPOSED = 1u << 18,        // rows of B, not its columns, are adjacent
};

// out = alpha * sum over blocks of K of (a_scale * b_scale) * (A * B^T), times column_scales, plus bias, plus the old
// output; rows times row_weights.
struct NgFp8GemmParams {
    NgTensorMap a;  // [groups or 1, rows, k], FP8 or, without scales, 16-bit floats
    NgTensorMap b;  // [groups, n, k], likewise
    uint64_t a_scales;  // f32, or UE8M0 codes by `flags`; 0: all ones
    uint64_t b_scales;  // likewise
    uint64_t offsets;  // i32: [groups + 1] rows (contiguous) or K (k-grouped), or [groups] counts (masked)
    uint64_t gather;  // i32 [rows of all groups]: the row of A for each row of the product; 0: the same row
    uint64_t out;
    uint64_t out_scales;  // f32, for an e4m3 output
    uint64_t column_scales;  // f32 [groups, n], or 0
    uint64_t bias;  // f32 [groups, n], or 0
    uint64_t row_weights;  // f32 [rows], or 0
    uint64_t status;
    int64_t a_scales_batch_stride;
    int64_t a_scales_row_stride;
    int64_t a_scales_block_stride;
    int64_t b_scales_group_stride;
    int64_t b_scales_row_stride;
    int64_t b_scales_block_stride;
    int64_t out_batch_stride;
    int64_t out_row_stride;
    int64_t out_scales_row_stride;
    int64_t out_scales_block_stride;
    int64_t column_scales_group_stride;
    int64_t bias_group_stride;
    float alpha;
    float clamp;  // of the SwiGLU epilogue; 0: none
    uint32_t rows;
    uint32_t n;
    uint32_t k;
    uint32_t groups;
    uint32_t mode;
    uint32_t out_type;
    uint32_t flags;
    // With `gather`: an index names row 2 * index * gather_multiplier >> (32 + gather_shift) of A, which has a_rows; -1 and
    // what A does not have stand for zeros.
    uint32_t a_rows;
    uint64_t a_data;
    uint32_t a_row_stride;
    uint32_t gather_multiplier;
    uint32_t gather_shift;
    uint32_t reserved[5];
};
static_assert(sizeof(NgFp8GemmParams) == 512 && __builtin_offsetof(NgFp8GemmParams, rows) == 440, "NgFp8GemmParams");

// ---- attention over the latent cache ----

// Columns of the output: the latent part of a cached token.
#define NG_MLA_LATENT 512

// The decode kernels. A group is 64 * `cluster` rows (query token * heads + head) of one sequence, a block 64 tokens.
struct NgMlaAttentionParams {
    NgTensorMap query;  // 16-bit [batch, tokens * heads, 576], or [1, query_tokens * heads, 576] with query_offsets
    NgTensorMap cache;  // 16-bit [cache_pages, 9, page_tokens, 64]; not of FP8 caches
    uint64_t tokens_at;      // the cache's memory
    uint64_t page_table;     // i32 [batch, table_tokens / page_tokens]
    uint64_t lengths;        // i32 [batch]
    uint64_t query_offsets;  // i32 [batch + 1], or null: every sequence has `tokens` query tokens
    uint64_t sinks;          // f32 [heads], or null
    uint64_t cuts;           // i32 [workers + 1, 2]: group and block where a worker begins; or null: `pieces` of every group
    uint64_t output;         // 16-bit [.., 512]
    uint64_t lse;            // f32, or null
    uint64_t partial_output;      // f32 [slots, 64 * cluster, 512], not normalised
    uint64_t partial_statistics;  // f32 [slots, 64 * cluster, 2]: reference among the raw scores, sum
    uint64_t status;
    int64_t table_stride;
    int64_t output_batch_stride;
    int64_t output_row_stride;
    int64_t lse_batch_stride;
    int64_t lse_head_stride;
    int64_t lse_token_stride;
    int32_t tokens;        // most query tokens of a sequence
    int32_t query_tokens;  // of all sequences
    int32_t heads;
    int32_t groups;  // of a sequence
    int32_t cluster;
    int32_t table_tokens;
    int32_t page_shift;  // log2 of a page's tokens
    int32_t cache_pages;
    int32_t pieces;
    int32_t piece_blocks;  // of each piece, or 0: equal pieces
    int32_t causal;
    uint32_t cache_layout;  // NgCacheLayout
    float value_scale;
    float scale;
    float scale_log2;  // scale * log2(e)
};
static_assert(sizeof(NgMlaAttentionParams) == 512 && __builtin_offsetof(NgMlaAttentionParams, tokens) == 392, "NgMlaAttentionParams");

struct NgMlaScheduleParams {
    uint64_t lengths;
    uint64_t query_offsets;
    uint64_t cuts;
    uint64_t status;
    int32_t batch;
    int32_t tokens;
    int32_t query_tokens;
    int32_t heads;
    int32_t groups;
    int32_t cluster;
    int32_t table_tokens;
    int32_t causal;
    int32_t workers;
};
static_assert(sizeof(NgMlaScheduleParams) == 72 && __builtin_offsetof(NgMlaScheduleParams, batch) == 32, "NgMlaScheduleParams");

struct NgMlaCombineParams {
    uint64_t lengths;
    uint64_t query_offsets;
    uint64_t sinks;
    uint64_t cuts;
    uint64_t output;
    uint64_t lse;
    uint64_t partial_output;
    uint64_t partial_statistics;
    int64_t output_batch_stride;
    int64_t output_row_stride;
    int64_t lse_batch_stride;
    int64_t lse_head_stride;
    int64_t lse_token_stride;
    int32_t tokens;
    int32_t query_tokens;
    int32_t heads;
    int32_t groups;
    int32_t cluster;
    int32_t table_tokens;
    int32_t pieces;
    int32_t piece_blocks;
    int32_t causal;
    float value_scale;
    float scale;
    float scale_log2;
};
static_assert(sizeof(NgMlaCombineParams) == 152 && __builtin_offsetof(NgMlaCombineParams, tokens) == 104, "NgMlaCombineParams");

// ---- lightning indexer ----

// The largest k of a selection.
#define NG_TOP_K_LARGEST 2048

struct NgTopKParams {
    uint64_t scores;      // f32 [rows, columns]
    uint64_t starts;      // i32 [rows]: the first column that counts, or 0: all start at 0
    uint64_t ends;        // i32 [rows / rows_per_end]: where columns end for the last of the rows, or 0: at `columns`
    uint64_t page_table;  // i32 [rows / rows_per_end, table_pages], or 0: answers are columns
    uint64_t out;         // i32 [rows, k]
    uint64_t status;
    int64_t scores_row_stride;
    int64_t table_stride;
    int64_t out_row_stride;
    uint32_t columns;
    uint32_t k;
    uint32_t rows_per_end;  // a row ends one column before the next of the same end
    uint32_t page_tokens;
    uint32_t cache_pages;
    uint32_t reserved;
};
static_assert(sizeof(NgTopKParams) == 96 && __builtin_offsetof(NgTopKParams, columns) == 72, "NgTopKParams");

// ---- partial attentions ----

#define NG_MERGE_THREADS 256

// Strides count elements.
struct NgMergeParams {
    uint64_t partial;  // [parts, tokens, heads, columns]
    uint64_t lse;      // f32 [parts, heads, tokens]
    uint64_t sinks;    // f32 [heads], or 0
    uint64_t out;      // [tokens, heads, columns]
    uint64_t out_lse;  // f32 [heads, tokens], or 0
    int64_t partial_part_stride;
    int64_t partial_token_stride;
    int64_t partial_head_stride;
    int64_t lse_part_stride;
    int64_t lse_head_stride;
    int64_t lse_token_stride;
    int64_t out_token_stride;
    int64_t out_head_stride;
    int64_t out_lse_head_stride;
    int64_t out_lse_token_stride;
    uint32_t rows;  // tokens * heads
    uint32_t block_rows;
    uint32_t parts;
    uint32_t heads;
    uint32_t columns;
    uint32_t partial_type;  // NgFloat
    uint32_t out_type;
    uint32_t vectorised;
};
static_assert(sizeof(NgMergeParams) == 152 && __builtin_offsetof(NgMergeParams, rows) == 120, "NgMergeParams");

// out[token, n] = scale[n] * sum over heads of weight[token, head] * relu(q[token, head] . k[n]) for the keys n that a token
// sees. Keys in one row are a single page.
struct NgIndexerLogitsParams {
    NgTensorMap query;   // e4m3 [batch, tokens, heads, 128]
    NgTensorMap keys;    // e4m3 [cache_pages, page_tokens, 128]
    NgTensorMap scales;  // f32 [cache_pages, page_tokens]
    uint64_t weights;     // f32 [batch, tokens, heads]
    uint64_t starts;      // i32 [tokens], or 0: a token's keys start at 0
    uint64_t ends;        // i32 [tokens], or 0: they end at `columns`; with pages i32 [batch], the sequences' lengths
    uint64_t page_table;  // i32 [batch, table_pages]
    uint64_t out;         // f32 [batch * tokens, columns]
    uint64_t status;
    int64_t weights_batch_stride;
    int64_t weights_token_stride;
    int64_t table_stride;
    int64_t out_row_stride;
    uint32_t batch;
    uint32_t tokens;
    uint32_t heads;
    uint32_t padded_heads;  // 32 or 64
    uint32_t columns;
    uint32_t page_tokens;  // keys in one row: 64
    uint32_t cache_pages;
    uint32_t chunks;       // parts of a row of keys, for as many blocks
    uint32_t chunk_tiles;  // tiles of a part
    uint32_t reserved[3];
};
static_assert(sizeof(NgIndexerLogitsParams) == 512 && __builtin_offsetof(NgIndexerLogitsParams, batch) == 464, "NgIndexerLogitsParams");

// New keys of 128 columns into the cache that the indexer reads. Keys in one row are a single page.
struct NgIndexerWriteParams {
    uint64_t keys;    // bf16 or f16 [tokens, 128]
    uint64_t slots;   // i32 [tokens]
    uint64_t data;    // e4m3 [cache_pages, page_tokens, 128]
    uint64_t scales;  // f32 [cache_pages, page_tokens]
    uint64_t status;
    uint64_t key_row_stride, data_page_stride, data_row_stride, scale_page_stride, scale_row_stride;
    uint32_t tokens, page_tokens;
    uint32_t cache_rows;  // of all pages
    uint32_t power_of_two;
    uint32_t vectorised;
    uint32_t input_f16;  // not bf16
};
static_assert(sizeof(NgIndexerWriteParams) == 104 && __builtin_offsetof(NgIndexerWriteParams, tokens) == 80, "NgIndexerWriteParams");

// Dynamic shared memory of the sparse attention.
#define NG_MLA_SPARSE_SHARED_BYTES 223360

// Entries for pairs run in clusters of two blocks: tiles 2i and 2i + 1 of 64 heads.
struct NgMlaSparseParams {
    NgTensorMap query;   // bf16 [tokens, heads, 576]
    NgTensorMap output;  // bf16 [tokens, heads, 512]
    uint64_t cache;      // tokens of 1152 bytes (bf16) or 656 (e4m3 in blocks)
    uint64_t indices;    // i32 [tokens, top_k]
    uint64_t lengths;    // i32 [tokens / tokens_per_length]: entries of a list that count; 0: all
    uint64_t sinks;      // f32 [heads], or 0
    uint64_t lse;        // f32 [tokens, heads], or 0
    uint64_t max_logits;  // f32 [tokens, heads], or 0
    uint64_t partial_output;      // f32 [splits, tokens, heads, 512], not normalised
    uint64_t partial_statistics;  // f32 [splits, tokens, heads, 4]: reference (base 2), sum, maximum of the raw scores, reference's raw score
    uint64_t status;
    int64_t index_stride;
    int64_t lse_token_stride;
    int64_t lse_head_stride;
    int64_t max_token_stride;
    int64_t max_head_stride;
    int32_t tokens;
    int32_t heads;
    int32_t top_k;
    int32_t tokens_per_length;
    int32_t cache_tokens;
    int32_t splits;
    float scale;
    float scale_log2;  // scale * log2(e)
};
static_assert(sizeof(NgMlaSparseParams) == 512 && __builtin_offsetof(NgMlaSparseParams, tokens) == 368, "NgMlaSparseParams");

struct NgMlaSparseCombineParams {
    uint64_t partial_output;
    uint64_t partial_statistics;
    uint64_t output;
    uint64_t sinks;
    uint64_t lse;
    uint64_t max_logits;
    int64_t output_token_stride;
    int64_t output_head_stride;
    int64_t lse_token_stride;
    int64_t lse_head_stride;
    int64_t max_token_stride;
    int64_t max_head_stride;
    int32_t tokens;
    int32_t heads;
    int32_t splits;
    float scale;
};
static_assert(sizeof(NgMlaSparseCombineParams) == 112 && __builtin_offsetof(NgMlaSparseCombineParams, tokens) == 96, "NgMlaSparseCombineParams");

// ---- attention with keys and values of each head ----

// Queries of a block.
#define NG_PREFILL_ROWS 128

struct NgPrefillParams {
    NgTensorMap query;     // bf16 or f16 [queries, heads, 192 or 128]
    NgTensorMap key;       // [keys, key heads, 128], the first 128 columns
    NgTensorMap key_rope;  // [keys, key heads or 1, 64], the rest, where there is one
    NgTensorMap value;     // [keys, key heads, 128]
    uint64_t query_offsets;  // i32 [sequences + 1], or 0: one sequence
    uint64_t key_offsets;
    uint64_t sinks;  // f32 [heads], or 0
    uint64_t out;    // [queries, heads, 128]
    uint64_t lse;    // f32 [heads, queries], or 0
    uint64_t status;
    int64_t out_token_stride;
    int64_t out_head_stride;
    int64_t lse_head_stride;
    int64_t lse_token_stride;
    uint32_t sequences;
    uint32_t queries;
    uint32_t keys;
    uint32_t heads;
    uint32_t group;          // heads that share a key's head
    uint32_t tiles;          // of queries, at most, over all sequences
    uint32_t section_heads;  // heads whose blocks stand together
    uint32_t shared_rope;    // `key_rope` has one head
    uint32_t causal;
    uint32_t f16;
    float scale_log2;  // scale * log2(e)
    uint32_t reserved;
};
static_assert(sizeof(NgPrefillParams) == 640 && __builtin_offsetof(NgPrefillParams, sequences) == 592, "NgPrefillParams");

#endif
