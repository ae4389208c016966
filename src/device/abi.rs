//! The structs of `kernels/abi.h`, by hand in bindgen's style, with the same names.

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

/// An expert id outside -1..E, or a duplicate.
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

// ---- attention over the latent cache ----

/// Dynamic shared memory of the attention kernel.
pub const NG_MLA_SHARED_BYTES: u32 = 230_464;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NgMlaAttentionParams {
    pub query: NgTensorMap,
    pub cache: NgTensorMap,
    pub output: NgTensorMap,
    pub page_table: u64,
    pub lengths: u64,
    pub lse: u64,
    pub partial_output: u64,
    pub partial_statistics: u64,
    pub status: u64,
    pub table_stride: i64,
    pub lse_batch_stride: i64,
    pub lse_head_stride: i64,
    pub lse_token_stride: i64,
    pub batch: i32,
    pub tokens: i32,
    pub heads: i32,
    pub table_pages: i32,
    pub cache_pages: i32,
    pub splits: i32,
    pub scale: f32,
    pub scale_log2: f32,
}
parameters!(NgMlaAttentionParams, 512, {
    query: 0, cache: 128, output: 256, page_table: 384, lengths: 392, lse: 400, partial_output: 408,
    partial_statistics: 416, status: 424, table_stride: 432, lse_batch_stride: 440, lse_head_stride: 448,
    lse_token_stride: 456, batch: 464, tokens: 468, heads: 472, table_pages: 476, cache_pages: 480, splits: 484,
    scale: 488, scale_log2: 492,
});

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NgMlaCombineParams {
    pub partial_output: u64,
    pub partial_statistics: u64,
    pub output: u64,
    pub lse: u64,
    pub output_batch_stride: i64,
    pub output_row_stride: i64,
    pub lse_batch_stride: i64,
    pub lse_head_stride: i64,
    pub lse_token_stride: i64,
    pub batch: i32,
    pub tokens: i32,
    pub heads: i32,
    pub splits: i32,
    pub scale: f32,
    pub scale_log2: f32,
}
parameters!(NgMlaCombineParams, 96, {
    partial_output: 0, partial_statistics: 8, output: 16, lse: 24, output_batch_stride: 32, output_row_stride: 40,
    lse_batch_stride: 48, lse_head_stride: 56, lse_token_stride: 64, batch: 72, tokens: 76, heads: 80, splits: 84,
    scale: 88, scale_log2: 92,
});

// ---- matrix products ----

/// Parameters of the FP8 products.
#[repr(C, align(128))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct NgFp8GemmParams {
    pub a: NgTensorMap,
    pub b: NgTensorMap,
    pub a_scales: u64,
    pub b_scales: u64,
    pub offsets: u64,
    pub out: u64,
    pub status: u64,
    pub a_scales_row_stride: i64,
    pub a_scales_block_stride: i64,
    pub b_scales_group_stride: i64,
    pub b_scales_row_stride: i64,
    pub b_scales_block_stride: i64,
    pub out_row_stride: i64,
    pub rows: u32,
    pub n: u32,
    pub k_blocks: u32,
    pub groups: u32,
    pub paired_stores: u32,
    pub reserved: [u32; 5],
}
parameters!(NgFp8GemmParams, 384, {
    a: 0, b: 128, a_scales: 256, b_scales: 264, offsets: 272, out: 280, status: 288, a_scales_row_stride: 296,
    a_scales_block_stride: 304, b_scales_group_stride: 312, b_scales_row_stride: 320, b_scales_block_stride: 328,
    out_row_stride: 336, rows: 344, n: 348, k_blocks: 352, groups: 356, paired_stores: 360, reserved: 364,
});

/// Parameters of the bf16 products.
#[repr(C, align(128))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct NgBf16GemmParams {
    pub a: NgTensorMap,
    pub b: NgTensorMap,
    pub out: u64,
    pub out_batch_stride: i64,
    pub out_row_stride: i64,
    pub m: u32,
    pub n: u32,
    pub k_blocks: u32,
    pub batch: u32,
    pub paired_stores: u32,
    pub reserved: [u32; 21],
}
parameters!(NgBf16GemmParams, 384, {
    a: 0, b: 128, out: 256, out_batch_stride: 264, out_row_stride: 272, m: 280, n: 284, k_blocks: 288, batch: 292,
    paired_stores: 296, reserved: 300,
});
