//! The kernel that fills the lightning indexer's cache.

use super::Half;
use crate::device::abi::NgIndexerWriteParams;
use crate::device::{KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::fp8::Fp8Rows;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

const WIDTH: usize = 128;
const THREADS: u32 = 256;
/// Keys of a block.
const KEYS: usize = 16;

/// Quantises new keys of the lightning indexer to e4m3 with one f32 scale a key, and writes both to their slots in the cache that
/// [`PagedIndexerLogits`] and [`IndexerLogits`] read.
///
/// ```text
/// scale = max(amax, 1e-4) / 448                amax over the key's finite columns
/// code  = e4m3(x · (1 / scale))                each operation rounded in f32
/// ```
///
/// with [`power_of_two`](Self::power_of_two) the scale is rounded up to one. As DeepSeek-V3.2-Exp's reference quantises them
/// (`act_quant` over all 128 columns, with scales of its `scale_fmt`), and as [`Quantize`](crate::quant::Quantize) does rows.
/// Norm, rotation and Hadamard transform come before and are the caller's. NaN and infinities become NaN and count for no
/// scale.
///
/// - `keys`: bf16 or f16 `[T, 128]`, columns adjacent, any row stride
/// - `slots`: i32 `[T]`; a slot is `page * page_tokens + offset`, and −1 skips the key
/// - `cache`: [`Fp8Rows`] with a scale a key, `[pages, page_tokens, 128]` as [`IndexerPages`] takes it, or `[N, 128]`, one row of
///   keys; pages of any size
///
/// Any other slot outside the cache skips the key and sets the status `bad_slot`. Two keys must not have the same slot: what it then
/// holds is not defined. A key's bytes do not depend on the other keys.
///
/// [`PagedIndexerLogits`]: super::PagedIndexerLogits
/// [`IndexerLogits`]: super::IndexerLogits
/// [`IndexerPages`]: super::IndexerPages
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct IndexerWrite<'a, T: Half = bf16> {
    keys: &'a Tensor<T>,
    slots: &'a Tensor<i32>,
    cache: &'a Fp8Rows,
    power_of_two: bool,
}

impl<'a, T: Half> IndexerWrite<'a, T> {
    /// Writes `keys` `[T, 128]` to `slots` `[T]` of `cache`.
    pub fn new(keys: &'a Tensor<T>, slots: &'a Tensor<i32>, cache: &'a Fp8Rows) -> Self {
        Self { keys, slots, cache, power_of_two: false }
    }

    /// Whether scales are rounded up to powers of two. Default: false.
    pub fn power_of_two(mut self, yes: bool) -> Self {
        self.power_of_two = yes;
        self
    }

    /// Enqueues the operation. No keys is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, scales that keys share, inputs that overlap the
    /// cache, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("IndexerWrite");
        let Self { keys, slots, cache, .. } = *self;
        let (data, scales) = (cache.data(), cache.scales());
        check.rank("keys", keys, 2)?;
        let tokens = keys.dim(0);
        check.shape("keys", keys, &[tokens, WIDTH])?;
        check.shape("slots", slots, &[tokens])?;
        if cache.cols() != WIDTH {
            return check.fail(
                "cache",
                format_args!("of {} columns", cache.cols()),
                format_args!("of {WIDTH}"),
            );
        }
        check.on("keys", keys, stream.device())?;
        check.on("slots", slots, stream.device())?;
        check.on("cache", data, stream.device())?;
        check.adjacent_columns("keys", keys)?;
        check.contiguous("slots", slots)?;
        check.distinct("cache", data)?;
        check.distinct("cache.scales", scales)?;
        check.apart("cache.scales", scales, "cache", data)?;
        check.apart("cache", data, "keys", keys)?;
        check.apart("cache", data, "slots", slots)?;
        check.apart("cache.scales", scales, "keys", keys)?;
        check.apart("cache.scales", scales, "slots", slots)?;
        let count = check.extent("keys", tokens.saturating_add(KEYS))? - KEYS as u32;
        let rows = check.extent("slots of the cache", cache.groups().saturating_mul(cache.rows()))?;
        if tokens == 0 {
            return Ok(());
        }
        // Strides of a dimension that is not there step nothing.
        let strides =
            |strides: &[usize]| [strides[0] * usize::from(strides.len() == 3), strides[strides.len() - 2]];
        let ([data_page, data_row], [scale_page, scale_row]) =
            (strides(data.strides()), strides(scales.strides()));
        let params = NgIndexerWriteParams {
            keys: keys.address(),
            slots: slots.address(),
            data: data.address(),
            scales: scales.address(),
            status: stream.status_address(),
            key_row_stride: keys.strides()[0] as u64,
            data_page_stride: data_page as u64,
            data_row_stride: data_row as u64,
            scale_page_stride: scale_page as u64,
            scale_row_stride: scale_row as u64,
            tokens: count,
            page_tokens: cache.rows().max(1) as u32,
            cache_rows: rows,
            power_of_two: self.power_of_two.into(),
            vectorised: rows_aligned(keys, VECTOR_BYTES).into(),
            input_f16: T::IS_F16.into(),
        };
        KernelLaunch::new("indexer_write_half", &params)
            .grid([count.div_ceil(KEYS as u32), 1, 1])
            .block(THREADS)
            .reads(keys)
            .reads(slots)
            .writes(data)
            .writes(scales)
            .launch(stream)
    }
}
