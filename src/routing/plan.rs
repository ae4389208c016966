//! Which kernels route and permute, and how they are cut into blocks.

/// Experts that the router and the permutation take.
pub(crate) const MAX_EXPERTS: usize = 512;
/// Experts of one token.
pub(crate) const MAX_SLOTS: usize = 16;
/// Groups of experts that the router ranks: one a lane.
pub(crate) const MAX_GROUPS: usize = 32;

/// Tokens of a router block: one a warp.
pub(crate) const ROUTER_TOKENS: usize = 4;

/// Threads of every permutation kernel.
pub(crate) const PERMUTE_THREADS: u32 = 512;
/// Entries of a permutation block.
const CHUNK: usize = 2048;

/// Chunks that the entries of a permutation are cut into. One chunk is done by a single kernel, more take three passes.
pub(crate) fn chunks(entries: usize) -> usize {
    entries.div_ceil(CHUNK)
}

/// Threads of a block that copies or sums one row, `width` columns a thread and pass.
pub(crate) fn row_threads(columns: usize, width: usize) -> u32 {
    columns.div_ceil(width).next_multiple_of(32).clamp(32, 256) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_chunk_until_it_is_full() {
        assert_eq!([0, 1, 2048, 2049, 1 << 20].map(chunks), [0, 1, 1, 2, 512]);
    }

    #[test]
    fn rows_are_whole_warps() {
        assert_eq!(row_threads(7168, 8), 256);
        assert_eq!(row_threads(7168, 16), 256);
        assert_eq!(row_threads(1, 8), 32);
    }
}
