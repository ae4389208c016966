//! The kernel that fills the latent cache.

use super::rope::{ROPE, RopeTables};
use super::{Half, LatentCache};
use crate::device::abi::NgCacheWriteParams;
use crate::device::{KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// Columns of the compressed keys and values.
const LATENT: usize = 512;
/// 64 lanes have the latent columns, 8 the others.
const THREADS: u32 = 96;

/// Writes new tokens into the cache, in the cache's layout: the latent columns as they are, the rotary columns rotated as
/// [`Rope`] does.
///
/// - In a 16-bit cache, latent values of the cache's own type keep their bits; of the other type they are rounded to
///   nearest (f16 has nothing above 65504: infinity). Rotated values are rounded once.
/// - In [`CacheLayout::Fp8Blocks`] the scale of 128 latent columns is the power of two at or above their largest finite
///   magnitude / 448, at least 2⁻¹³, so that every value divides exactly; as DeepSeek's quantiser of V3.2 caches has it. The
///   rotated columns stay bf16.
/// - In [`CacheLayout::Fp8Flat`] all columns are divided by the cache's scale. Values beyond 448 scales saturate. Rotated
///   values are rounded to bf16 first.
/// - In both, infinities and NaN become NaN, and count for no scale.
///
/// A slot is `page * page_tokens + offset`; -1 skips the token. Any other slot outside the cache, or a position outside the
/// tables, skips the token too and sets the status `bad_slot` or `bad_position`. Two tokens must not have the same slot:
/// what it then holds is not defined. A token's bytes do not depend on the other tokens.
///
/// [`Rope`]: super::Rope
/// [`CacheLayout::Fp8Blocks`]: super::CacheLayout::Fp8Blocks
/// [`CacheLayout::Fp8Flat`]: super::CacheLayout::Fp8Flat
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct CacheWrite<'a, T: Half = bf16> {
    latent: &'a Tensor<T>,
    key_rope: &'a Tensor<T>,
    positions: &'a Tensor<i32>,
    slots: &'a Tensor<i32>,
    tables: &'a RopeTables,
    cache: &'a LatentCache,
}

impl<'a, T: Half> CacheWrite<'a, T> {
    /// Writes `latent` `[T, 512]` and `key_rope` `[T, 64]`, bf16 or f16 of any row strides, to `slots` `[T]`, rotated by
    /// `positions` `[T]`.
    pub fn new(
        latent: &'a Tensor<T>,
        key_rope: &'a Tensor<T>,
        positions: &'a Tensor<i32>,
        slots: &'a Tensor<i32>,
        tables: &'a RopeTables,
        cache: &'a LatentCache,
    ) -> Self {
        Self { latent, key_rope, positions, slots, tables, cache }
    }

    /// Enqueues the operation. No tokens is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, columns that are not adjacent, inputs that
    /// overlap the cache, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("CacheWrite");
        let Self { latent, key_rope, positions, slots, tables, cache } = *self;
        let memory = cache.memory();
        check.rank("latent", latent, 2)?;
        let tokens = latent.dim(0);
        check.shape("latent", latent, &[tokens, LATENT])?;
        check.shape("key_rope", key_rope, &[tokens, ROPE])?;
        for (name, tensor) in [("latent", latent), ("key_rope", key_rope)] {
            check.adjacent_columns(name, tensor)?;
            check.on(name, tensor, stream.device())?;
            check.apart("cache", memory, name, tensor)?;
        }
        for (name, tensor) in [("positions", positions), ("slots", slots)] {
            check.shape(name, tensor, &[tokens])?;
            check.contiguous(name, tensor)?;
            check.on(name, tensor, stream.device())?;
            check.apart("cache", memory, name, tensor)?;
        }
        check.on("cache", memory, stream.device())?;
        tables.check(check, stream.device())?;
        let count = check.extent("tokens", tokens)?;
        if tokens == 0 {
            return Ok(());
        }
        let (layout, scale) = cache.layout().code();
        let params = NgCacheWriteParams {
            latent: latent.address(),
            key_rope: key_rope.address(),
            positions: positions.address(),
            slots: slots.address(),
            cosines: tables.cosines().address(),
            sines: tables.sines().address(),
            cache: memory.address(),
            status: stream.status_address(),
            latent_row_stride: latent.strides()[0] as u64,
            key_rope_row_stride: key_rope.strides()[0] as u64,
            cache_rows: cache.tokens() as u64,
            max_positions: tables.max_positions() as u32,
            vectorised: (rows_aligned(latent, VECTOR_BYTES) && rows_aligned(key_rope, VECTOR_BYTES)).into(),
            layout,
            input_f16: T::IS_F16.into(),
            scale,
        };
        KernelLaunch::new("cache_write_half", &params)
            .grid([count, 1, 1])
            .block(THREADS)
            .reads(latent)
            .reads(key_rope)
            .reads(positions)
            .reads(slots)
            .reads(tables.cosines())
            .reads(tables.sines())
            .writes(memory)
            .launch(stream)
    }
}
