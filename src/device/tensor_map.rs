//! TMA tensor maps: descriptors that kernels copy tiles with.

use super::abi::NgTensorMap;
use crate::dtype::DType;
use crate::error::{Error, Result};

/// How a tile's 16-byte pieces are permuted in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(dead_code, reason = "all that the hardware has")]
pub(crate) enum Swizzle {
    /// Not at all.
    None,
    /// Within 32 bytes.
    B32,
    /// Within 64 bytes.
    B64,
    /// Within 128 bytes.
    B128,
}

/// What a tensor map describes: a tensor in global memory and the tile that one copy moves. Dimensions count from
/// the innermost, as in the hardware.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorMapSpec<'a> {
    /// Address of the first element; 16-byte aligned.
    pub(crate) address: u64,
    /// Element type.
    pub(crate) dtype: DType,
    /// Extents in elements, innermost first; rank 1 to 5.
    pub(crate) extents: &'a [u64],
    /// Strides in bytes of dimensions 1 and up (the innermost is dense): multiples of 16.
    pub(crate) strides: &'a [u64],
    /// The tile's extents in elements, innermost first; 1 to 256 each.
    pub(crate) tile: &'a [u32],
    /// Layout of the tile in shared memory.
    pub(crate) swizzle: Swizzle,
}

impl TensorMapSpec<'_> {
    /// The hardware's rules, so that both executors refuse the same maps with the same words.
    pub(super) fn check(&self) -> Result<()> {
        let fail =
            |argument, got: String, want: &str| Err(Error::argument("TensorMapSpec", argument, got, want));
        let rank = self.extents.len();
        if !(1..=5).contains(&rank) {
            return fail("extents", format!("{:?}", self.extents), "of rank 1 to 5");
        }
        if self.strides.len() != rank - 1 || self.tile.len() != rank {
            let got = format!("{} strides and a tile of rank {}", self.strides.len(), self.tile.len());
            return fail("strides", got, "one fewer than the extents, and the tile of their rank");
        }
        if self.address == 0 || !self.address.is_multiple_of(16) {
            return fail("address", format!("{:#x}", self.address), "non-zero and 16-byte aligned");
        }
        if self.extents.iter().any(|extent| !(1..=1 << 32).contains(extent)) {
            return fail("extents", format!("{:?}", self.extents), "1 to 2^32 each");
        }
        if self.strides.iter().any(|stride| !stride.is_multiple_of(16) || *stride >= 1 << 40) {
            return fail("strides", format!("{:?}", self.strides), "multiples of 16 bytes, below 2^40");
        }
        if self.tile.iter().any(|extent| !(1..=256).contains(extent)) {
            return fail("tile", format!("{:?}", self.tile), "1 to 256 each");
        }
        let inner = self.tile[0] as usize * self.dtype.size();
        let widest = match self.swizzle {
            Swizzle::None => usize::MAX,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        };
        if !inner.is_multiple_of(16) || inner > widest {
            let want = "a multiple of 16 bytes, not wider than the swizzle";
            return fail("tile", format!("{inner} bytes wide under {:?}", self.swizzle), want);
        }
        Ok(())
    }
}

impl super::Device {
    /// Encodes a tensor map. It holds the raw address: who launches a kernel with it registers the tensor's use.
    pub(crate) fn tensor_map(&self, spec: &TensorMapSpec<'_>) -> Result<NgTensorMap> {
        spec.check()?;
        self.executor().tensor_map(spec)
    }
}
