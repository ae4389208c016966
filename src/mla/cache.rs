//! The paged latent cache and the layouts of its tokens.

use std::fmt;

use crate::device::{Device, abi};
use crate::dtype::{DType, Element, bf16};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES};

const CHECK: Checks = Checks::of("LatentCache");
/// Tokens of a page, unless something else is asked for.
const PAGE_TOKENS: usize = 64;
/// Columns of a cached token: 512 latent, 64 rotated.
const COLUMNS: usize = 576;

/// How a cached token of 512 latent and 64 rotated columns lies in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum CacheLayout {
    /// 576 bf16: 1152 bytes.
    Bf16,
    /// 576 f16: 1152 bytes.
    F16,
    /// 656 bytes, as FlashMLA and vLLM have it for DeepSeek-V3.2: 512 e4m3, then the f32 scale of each 128 of them, then
    /// the 64 rotated columns in bf16. A latent value is its code times its scale.
    Fp8Blocks,
    /// 576 e4m3, all with one scale: 576 bytes. A value is its code times `scale`.
    Fp8Flat {
        /// The whole cache's scale, finite and positive.
        scale: f32,
    },
}

impl CacheLayout {
    /// Bytes of a token.
    pub const fn token_bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2 * COLUMNS,
            Self::Fp8Blocks => 656,
            Self::Fp8Flat { .. } => COLUMNS,
        }
    }

    /// Whether latent columns are e4m3.
    pub const fn is_fp8(self) -> bool {
        matches!(self, Self::Fp8Blocks | Self::Fp8Flat { .. })
    }

    /// What kernels call it, and its scale.
    pub(super) const fn code(self) -> (u32, f32) {
        match self {
            Self::Bf16 => (abi::NG_CACHE_BF16, 1.0),
            Self::F16 => (abi::NG_CACHE_F16, 1.0),
            Self::Fp8Blocks => (abi::NG_CACHE_FP8_BLOCKS, 1.0),
            Self::Fp8Flat { scale } => (abi::NG_CACHE_FP8_FLAT, scale),
        }
    }

    /// The type of all 576 columns, where they have one type.
    pub const fn dtype(self) -> Option<DType> {
        match self {
            Self::Bf16 => Some(DType::Bf16),
            Self::F16 => Some(DType::F16),
            Self::Fp8Blocks => None,
            Self::Fp8Flat { .. } => Some(DType::E4m3),
        }
    }
}

impl fmt::Display for CacheLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bf16 => f.write_str("bf16"),
            Self::F16 => f.write_str("f16"),
            Self::Fp8Blocks => f.write_str("e4m3 in blocks (656 bytes)"),
            Self::Fp8Flat { scale } => write!(f, "flat e4m3 with the scale {scale}"),
        }
    }
}

/// Latent rows of many sequences in pages: of every token 512 latent columns, then 64 rotated ones, in one of the
/// [`CacheLayout`]s, without gaps between tokens and pages.
///
/// A slot is `page * page_tokens + offset`. Which page belongs to which sequence is the caller's page table.
#[derive(Debug, Clone)]
pub struct LatentCache {
    memory: Tensor<u8>,
    bf16: Tensor<bf16>,
    layout: CacheLayout,
}

impl LatentCache {
    /// A cache of zeros in bf16 with pages of 64 tokens.
    ///
    /// # Errors
    ///
    /// As [`with_layout`](Self::with_layout).
    pub fn new(device: &Device, pages: usize) -> Result<Self> {
        Self::with_layout(device, pages, PAGE_TOKENS, CacheLayout::Bf16)
    }

    /// A cache of zero bytes.
    ///
    /// Pages may have any number of tokens; [`Attention`](super::Attention) takes powers of two,
    /// [`SparseAttention`](super::SparseAttention) all.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for no pages, pages of no tokens, 2^31 tokens and more (slots are i32), or
    /// a scale that is not finite and positive; [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn with_layout(
        device: &Device,
        pages: usize,
        page_tokens: usize,
        layout: CacheLayout,
    ) -> Result<Self> {
        check_extents(pages, page_tokens, layout)?;
        Self::checked(device.zeros(&[pages, page_tokens, layout.token_bytes()])?, layout)
    }

    /// A cache in memory that exists already, bytes `[pages, page_tokens, token_bytes]`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for a shape that is not this layout's, memory with gaps or not aligned to 16
    /// bytes, and as [`with_layout`](Self::with_layout).
    pub fn over(memory: Tensor<u8>, layout: CacheLayout) -> Result<Self> {
        CHECK.rank("memory", &memory, 3)?;
        CHECK.shape("memory", &memory, &[memory.dim(0), memory.dim(1), layout.token_bytes()])?;
        CHECK.contiguous("memory", &memory)?;
        if !memory.address().is_multiple_of(VECTOR_BYTES as u64) {
            return CHECK.fail("memory", "at an odd address", "aligned to 16 bytes");
        }
        check_extents(memory.dim(0), memory.dim(1), layout)?;
        Self::checked(memory, layout)
    }

    fn checked(memory: Tensor<u8>, layout: CacheLayout) -> Result<Self> {
        let bf16 = match layout {
            CacheLayout::Bf16 => memory.reinterpreted(),
            _ => memory.device().empty(&[0, memory.dim(1), COLUMNS])?,
        };
        Ok(Self { memory, bf16, layout })
    }

    /// Pages.
    pub fn pages(&self) -> usize {
        self.memory.dim(0)
    }

    /// Tokens of a page.
    pub fn page_tokens(&self) -> usize {
        self.memory.dim(1)
    }

    /// Tokens of all pages.
    pub fn tokens(&self) -> usize {
        self.pages() * self.page_tokens()
    }

    /// How a token lies in memory.
    pub fn layout(&self) -> CacheLayout {
        self.layout
    }

    /// Bytes of a token.
    pub fn token_bytes(&self) -> usize {
        self.layout.token_bytes()
    }

    /// Bytes of the cache.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// The memory, `[pages, page_tokens, token_bytes]`.
    pub fn memory(&self) -> &Tensor<u8> {
        &self.memory
    }

    /// The memory of a bf16 cache, `[pages, page_tokens, 576]`; an empty view of any other.
    pub fn tensor(&self) -> &Tensor<bf16> {
        &self.bf16
    }

    /// The memory as `[pages, page_tokens, 576]` of the layout's type, where all columns have this one.
    pub fn columns<T: Element>(&self) -> Option<Tensor<T>> {
        (self.layout.dtype() == Some(T::DTYPE)).then(|| self.memory.reinterpreted())
    }
}

fn check_extents(pages: usize, page_tokens: usize, layout: CacheLayout) -> Result<()> {
    for (name, extent) in [("pages", pages), ("page_tokens", page_tokens)] {
        if extent == 0 {
            return CHECK.fail(name, 0, "at least 1");
        }
    }
    CHECK.extent("pages * page_tokens", pages.saturating_mul(page_tokens))?;
    match layout {
        CacheLayout::Fp8Flat { scale } if !(scale > 0.0 && scale.is_finite()) => {
            CHECK.fail("layout.scale", scale, "finite and positive")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Card;
    use crate::dtype::{E4m3, f16};
    use crate::error::Error;

    fn device() -> Device {
        Device::simulated(Card::H20).expect("the simulated card needs nothing")
    }

    #[test]
    fn layouts_have_their_bytes_and_types() {
        let device = device();
        let flat = CacheLayout::Fp8Flat { scale: 0.5 };
        for (layout, bytes) in
            [(CacheLayout::Bf16, 1152), (CacheLayout::F16, 1152), (CacheLayout::Fp8Blocks, 656), (flat, 576)]
        {
            let cache = LatentCache::with_layout(&device, 3, 16, layout).expect("fits");
            assert_eq!((cache.pages(), cache.page_tokens(), cache.tokens()), (3, 16, 48));
            assert_eq!((cache.token_bytes(), cache.bytes()), (bytes, 48 * bytes));
            assert_eq!(cache.memory().shape(), [3, 16, bytes]);
            let columns = [
                cache.columns::<bf16>().map(|view| view.shape().to_vec()),
                cache.columns::<f16>().map(|view| view.shape().to_vec()),
                cache.columns::<E4m3>().map(|view| view.shape().to_vec()),
            ];
            let typed = [DType::Bf16, DType::F16, DType::E4m3].map(|dtype| layout.dtype() == Some(dtype));
            assert_eq!(columns, typed.map(|typed| typed.then(|| vec![3, 16, 576])));
            assert_eq!(cache.tensor().dim(0), if layout == CacheLayout::Bf16 { 3 } else { 0 });
        }
    }

    #[test]
    fn memory_of_others_becomes_a_cache() {
        let device = device();
        let memory = device.zeros::<u8>(&[5, 1, 1168]).expect("fits");
        let cache = LatentCache::over(memory.slice(0, 0..0).expect("in range"), CacheLayout::Bf16);
        assert!(matches!(cache, Err(Error::Argument { argument: "memory", .. })));
        let gaps = LatentCache::over(memory.slice(2, 0..656).expect("in range"), CacheLayout::Fp8Blocks);
        assert!(matches!(gaps, Err(Error::Argument { argument: "memory", .. })));
        let shifted = memory.as_strided(8, &[2, 1, 1152], &[1152, 1152, 1]).expect("in range");
        assert!(LatentCache::over(shifted, CacheLayout::Bf16).is_err());
        let inside = memory.as_strided(16, &[2, 1, 1152], &[1152, 1152, 1]).expect("in range");
        let cache = LatentCache::over(inside, CacheLayout::Bf16).expect("aligned");
        assert_eq!(cache.tensor().address(), memory.address() + 16);
        cache.tensor().write(&vec![bf16::ONE; 2 * 576]).expect("contiguous");
        assert_eq!(memory.to_vec().expect("readable")[..18], [[0; 16].as_slice(), &[0x80, 0x3F]].concat());
    }

    #[test]
    fn bad_extents_and_scales_are_named() {
        let device = device();
        let made = |pages, tokens, layout| match LatentCache::with_layout(&device, pages, tokens, layout) {
            Err(Error::Argument { argument, .. }) => argument,
            other => panic!("{other:?}"),
        };
        assert_eq!(made(0, 64, CacheLayout::Bf16), "pages");
        assert_eq!(made(1, 0, CacheLayout::Bf16), "page_tokens");
        assert_eq!(made(1 << 24, 128, CacheLayout::Fp8Blocks), "pages * page_tokens");
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(made(1, 1, CacheLayout::Fp8Flat { scale }), "layout.scale");
        }
    }
}
