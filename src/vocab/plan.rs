//! How rows are given to blocks.

/// Threads of a block that copies one row, eight columns a thread and pass.
pub(crate) fn gather_threads(columns: usize) -> u32 {
    columns.div_ceil(8).next_multiple_of(32).clamp(32, 256) as u32
}

/// Threads of a block that searches one row, one column a thread and pass.
pub(crate) fn argmax_threads(vocabulary: usize) -> u32 {
    vocabulary.next_multiple_of(32).clamp(32, 1024) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_warps() {
        assert_eq!([1, 512, 7168].map(gather_threads), [32, 64, 256]);
        assert_eq!([1, 33, 129_280].map(argmax_threads), [32, 64, 1024]);
    }
}
