//! Grids of kernels that work on whole rows, some warps a row.

/// Columns that a warp takes at a time: eight a lane.
const COLUMNS_PER_WARP: usize = 256;
const MAX_WARPS: usize = 8;

/// The grid of a kernel in which some warps share a row and a block may hold several rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowPlan {
    /// Warps that share a row.
    pub(crate) warps_per_row: u32,
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Blocks.
    pub(crate) blocks: u32,
}

impl RowPlan {
    /// The plan for a matrix. Both extents must be positive and below 2^31.
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        let warps_per_row = columns.div_ceil(COLUMNS_PER_WARP).min(MAX_WARPS);
        let rows_per_block = (MAX_WARPS / warps_per_row).min(rows);
        Self {
            warps_per_row: warps_per_row as u32,
            threads: (32 * warps_per_row * rows_per_block) as u32,
            blocks: rows.div_ceil(rows_per_block) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_warps() {
        for rows in [1, 2, 3, 7, 8, 9, 4096, i32::MAX as usize] {
            for columns in [1, 128, 256, 257, 512, 1536, 2048, 2880, 7168, 18432, i32::MAX as usize] {
                let plan = RowPlan::new(rows, columns);
                let rows_per_block = plan.threads / 32 / plan.warps_per_row;
                assert!(plan.threads.is_multiple_of(32) && (32..=256).contains(&plan.threads));
                assert!(u64::from(plan.blocks) * u64::from(rows_per_block) >= rows as u64);
                assert!((u64::from(plan.blocks) - 1) * u64::from(rows_per_block) < rows as u64);
            }
        }
    }
}
