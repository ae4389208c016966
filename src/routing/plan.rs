//! Which kernels route and permute, and how they are cut into blocks.

/// Experts that the router takes.
pub(crate) const MAX_EXPERTS: usize = 1024;
/// Experts that the permutation takes.
pub(crate) const MAX_PERMUTED: usize = 512;
/// Experts of one token.
pub(crate) const MAX_SLOTS: usize = 32;
/// Groups of experts that the router ranks: one a lane.
pub(crate) const MAX_GROUPS: usize = 32;

/// Tokens of a router block: one a warp.
pub(crate) const ROUTER_TOKENS: usize = 4;

/// The routers, by the experts that a lane of theirs takes at most.
pub(crate) const ROUTERS: [(u32, &str); 6] = [
    (4, "router_4"),
    (8, "router_8"),
    (12, "router_12"),
    (16, "router_16"),
    (32, "router_32"),
    (64, "router_64"),
];

/// How a warp's lanes share a token's experts: each takes neighbours of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lanes {
    /// Lanes of a group.
    pub(crate) per_group: u32,
    /// Experts of a lane, a multiple of four.
    pub(crate) experts: u32,
    /// The smallest kernel that takes so many.
    pub(crate) kernel: &'static str,
}

impl Lanes {
    pub(crate) fn of(experts: usize, groups: usize) -> Self {
        let per_group = 32 / groups;
        let each = (experts / groups).div_ceil(per_group).next_multiple_of(4) as u32;
        let fits = ROUTERS.iter().find(|(most, _)| each <= *most);
        let (_, kernel) = fits.expect("1024 experts in any groups are at most 64 a lane");
        Self { per_group: per_group as u32, experts: each, kernel }
    }
}

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
    fn lanes_hold_all_experts_of_any_groups() {
        for groups in 1..=MAX_GROUPS {
            for size in 1..=MAX_EXPERTS / groups {
                let lanes = Lanes::of(groups * size, groups);
                assert!(lanes.per_group as usize * groups <= 32, "{groups} groups of {size}");
                assert!((lanes.per_group * lanes.experts) as usize >= size, "{groups} groups of {size}");
            }
        }
        let of = |experts, groups| Lanes::of(experts, groups).kernel;
        assert_eq!(
            [of(256, 8), of(384, 1), of(160, 8), of(8, 1)],
            ["router_8", "router_12", "router_8", "router_4"]
        );
    }

    #[test]
    fn rows_are_whole_warps() {
        assert_eq!(row_threads(7168, 8), 256);
        assert_eq!(row_threads(7168, 16), 256);
        assert_eq!(row_threads(1, 8), 32);
    }
}
