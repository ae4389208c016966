//! The kernel that fills the latent cache.

use super::rope::{ROPE, RopeTables};
use super::{CacheLayout, LatentCache};
use crate::device::abi::NgCacheWriteParams;
use crate::device::{KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// Columns of the compressed keys and values.
const LATENT: usize = 512;
/// 64 lanes copy the latent columns, 8 rotate the others.
const THREADS: u32 = 96;

/// Writes new tokens into the cache: the latent columns as they are, the rotary columns rotated as [`Rope`] does.
///
/// A slot is `page * page_tokens + offset`; -1 skips the token. Any other slot outside the cache, or a position outside the tables,
/// skips the token too and sets the status `bad_slot` or `bad_position`. Two tokens must not have the same slot: which of
/// them stays is not defined.
///
/// [`Rope`]: super::Rope
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct CacheWrite<'a> {
    latent: &'a Tensor<bf16>,
    key_rope: &'a Tensor<bf16>,
    positions: &'a Tensor<i32>,
    slots: &'a Tensor<i32>,
    tables: &'a RopeTables,
    cache: &'a LatentCache,
}

impl<'a> CacheWrite<'a> {
    /// Writes `latent` `[T, 512]` and `key_rope` `[T, 64]` (any row strides) to `slots` `[T]`, rotated by `positions`
    /// `[T]`.
    pub fn new(
        latent: &'a Tensor<bf16>,
        key_rope: &'a Tensor<bf16>,
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
        if cache.layout() != CacheLayout::Bf16 {
            return check.fail("cache", cache.layout(), CacheLayout::Bf16);
        }
        check.rank("latent", latent, 2)?;
        let tokens = latent.dim(0);
        check.shape("latent", latent, &[tokens, LATENT])?;
        check.shape("key_rope", key_rope, &[tokens, ROPE])?;
        for (name, tensor) in [("latent", latent), ("key_rope", key_rope)] {
            check.adjacent_columns(name, tensor)?;
            check.on(name, tensor, stream.device())?;
            check.apart("cache", cache.memory(), name, tensor)?;
        }
        for (name, tensor) in [("positions", positions), ("slots", slots)] {
            check.shape(name, tensor, &[tokens])?;
            check.contiguous(name, tensor)?;
            check.on(name, tensor, stream.device())?;
            check.apart("cache", cache.memory(), name, tensor)?;
        }
        check.on("cache", cache.memory(), stream.device())?;
        tables.check(check, stream.device())?;
        let count = check.extent("tokens", tokens)?;
        if tokens == 0 {
            return Ok(());
        }
        let params = NgCacheWriteParams {
            latent: latent.address(),
            key_rope: key_rope.address(),
            positions: positions.address(),
            slots: slots.address(),
            cosines: tables.cosines().address(),
            sines: tables.sines().address(),
            cache: cache.memory().address(),
            status: stream.status_address(),
            latent_row_stride: latent.strides()[0] as u64,
            key_rope_row_stride: key_rope.strides()[0] as u64,
            cache_rows: cache.tokens() as u64,
            tokens: count,
            max_positions: tables.max_positions() as u32,
            vectorised: (rows_aligned(latent, VECTOR_BYTES) && rows_aligned(key_rope, VECTOR_BYTES)).into(),
        };
        KernelLaunch::new("cache_write_bf16", &params)
            .grid([count, 1, 1])
            .block(THREADS)
            .reads(latent)
            .reads(key_rope)
            .reads(positions)
            .reads(slots)
            .reads(tables.cosines())
            .reads(tables.sines())
            .writes(cache.memory())
            .launch(stream)
    }
}
