//! How rows are given to blocks.

use crate::device::abi::NG_ROW_THREADS;

/// Threads of a block that owns one row, eight columns a thread and pass. Depends on nothing but the columns, so that a
/// row's sum has one order whatever the other rows are.
pub(crate) fn threads(columns: usize) -> u32 {
    columns.div_ceil(8).next_multiple_of(32).clamp(32, NG_ROW_THREADS as usize) as u32
}

#[cfg(test)]
mod tests {
    #[test]
    fn blocks_are_whole_warps() {
        for (columns, threads) in [(1, 32), (256, 32), (257, 64), (1536, 192), (7168, 512), (1 << 20, 512)] {
            assert_eq!(super::threads(columns), threads);
        }
    }
}
