//! Whole pages of the latent cache: copied (a shared prefix that a sequence is about to write into) or exchanged.

use super::LatentCache;
use crate::device::abi::NgCachePagesParams;
use crate::device::{KernelLaunch, Stream};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES};

/// Bytes that a block moves.
const PIECE: usize = 256 * 4 * 16;
const THREADS: u32 = 256;

/// Copies pages of one cache to pages of another, or of the same, by a list on the device.
///
/// `pairs` is i32 `[N, 2]`: the source's page, then the target's. A pair with a -1 is skipped, so that a captured graph can
/// have room for more. A pair with another page that does not exist is skipped too, and the status says `bad_page`. No page
/// may be the target of two pairs, nor the source of one and the target of another: what it then holds is not defined.
///
/// Both caches have the same layout and page size. To move pages to the host and back, use
/// [`LatentCache::memory`]'s slices.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct CachePageCopy<'a> {
    source: &'a LatentCache,
    target: &'a LatentCache,
    pairs: &'a Tensor<i32>,
}

impl<'a> CachePageCopy<'a> {
    /// Pages of `source` into pages of `target`, which may be the same cache.
    pub fn new(source: &'a LatentCache, target: &'a LatentCache, pairs: &'a Tensor<i32>) -> Self {
        Self { source, target, pairs }
    }

    /// Enqueues the operation. No pairs is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for caches of different layouts or page sizes, caches that overlap without
    /// being the same, a list of another shape, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        move_pages(Checks::of("CachePageCopy"), [self.source, self.target], self.pairs, false, stream)
    }
}

/// Exchanges pages of one cache with pages of another, or of the same, by a list on the device.
///
/// As [`CachePageCopy`], but both pages change: no page may be in two pairs.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct CachePageSwap<'a> {
    first: &'a LatentCache,
    second: &'a LatentCache,
    pairs: &'a Tensor<i32>,
}

impl<'a> CachePageSwap<'a> {
    /// Pages of `first` against pages of `second`, which may be the same cache.
    pub fn new(first: &'a LatentCache, second: &'a LatentCache, pairs: &'a Tensor<i32>) -> Self {
        Self { first, second, pairs }
    }

    /// Enqueues the operation. No pairs is a no-op.
    ///
    /// # Errors
    ///
    /// As [`CachePageCopy::launch`].
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        move_pages(Checks::of("CachePageSwap"), [self.first, self.second], self.pairs, true, stream)
    }
}

fn move_pages(
    check: Checks,
    [source, target]: [&LatentCache; 2],
    pairs: &Tensor<i32>,
    exchange: bool,
    stream: &Stream,
) -> Result<()> {
    let names = if exchange { ["first", "second"] } else { ["source", "target"] };
    check.rank("pairs", pairs, 2)?;
    let count = pairs.dim(0);
    check.shape("pairs", pairs, &[count, 2])?;
    check.contiguous("pairs", pairs)?;
    check.on("pairs", pairs, stream.device())?;
    if !pairs.address().is_multiple_of(8) {
        return check.fail("pairs", "at an odd address", "aligned to 8 bytes");
    }
    if target.layout() != source.layout() {
        return check.fail(names[1], target.layout(), source.layout());
    }
    if target.page_tokens() != source.page_tokens() {
        let pages = |cache: &LatentCache| format!("pages of {} tokens", cache.page_tokens());
        return check.fail(names[1], pages(target), pages(source));
    }
    let (from, to) = (source.memory(), target.memory());
    for (name, memory) in names.into_iter().zip([from, to]) {
        check.on(name, memory, stream.device())?;
        check.apart(name, memory, "pairs", pairs)?;
    }
    if !to.same_as(from) {
        check.apart(names[1], to, names[0], from)?;
    }
    let page_bytes = source.page_tokens() * source.token_bytes();
    check.extent("bytes of a page / 16", page_bytes / VECTOR_BYTES)?;
    let pieces = page_bytes.div_ceil(PIECE);
    let blocks = check.extent("pairs", count.saturating_mul(pieces))?;
    if count == 0 {
        return Ok(());
    }
    let params = NgCachePagesParams {
        source: from.address(),
        target: to.address(),
        pairs: pairs.address(),
        status: stream.status_address(),
        page_bytes: page_bytes as u64,
        source_pages: check.extent("pages", source.pages())?,
        target_pages: check.extent("pages", target.pages())?,
        pieces: pieces as u32,
        exchange: exchange.into(),
    };
    let launch =
        KernelLaunch::new("cache_pages_b8", &params).grid([blocks, 1, 1]).block(THREADS).reads(pairs);
    let launch = if exchange { launch.writes(from) } else { launch.reads(from) };
    launch.writes(to).launch(stream)
}
