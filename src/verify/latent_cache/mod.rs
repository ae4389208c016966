//! The latent cache: what is written into it in every layout, rows out of it, and pages moved.

mod gather;
mod pages;
mod write;

pub use gather::{GatherProblem, check_cache_gather};
pub use pages::{PagesProblem, check_cache_pages};
pub use write::{CacheProblem, check_cache_write};

use super::{Case, Source};
use crate::mla::CacheLayout;
use crate::tensor::Tensor;

/// A cached token's columns.
const COLUMNS: usize = 576;
const LATENT: usize = 512;

/// Every layout.
pub const LAYOUTS: [CacheLayout; 4] =
    [CacheLayout::Bf16, CacheLayout::F16, CacheLayout::Fp8Blocks, CacheLayout::Fp8Flat { scale: 0.03 }];

/// Normally distributed values, but some rows' blocks of 128 are larger or smaller by powers of ten, and some values are
/// zero, huge or not finite.
fn draw_values(count: usize, source: &mut Source) -> Vec<f32> {
    let mut values = source.normals(count, 1.0);
    for block in values.chunks_mut(128) {
        let factor = [1.0, 1.0, 1e3, 1e-6][source.below(4)];
        block.iter_mut().for_each(|value| *value *= factor);
        if source.below(3) == 0 {
            let at = source.below(block.len());
            block[at] = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38][source.below(6)];
        }
    }
    values
}

/// Bytes that no write makes of what tests write: NaN in every type, and not the usual one.
fn fill(memory: &Tensor<u8>) -> Result<(), String> {
    memory.write(&vec![0xFD; memory.len()]).map_err(super::surrounded::text)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    [write::cases(), gather::cases(), pages::cases()].concat()
}
