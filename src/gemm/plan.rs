//! The choice of kernel variant and grid: a pure function of problem and card.
//!
//! The variants are those of `kernels/variants`; what each would cost is in the cost model. A choice allocates
//! nothing and reads no data, so the same problem on the same card always runs the same kernel.

pub use super::cost::{Floor, Terms};
use super::cost::{Rates, usable_sms};
use super::variants::{STAGE_BYTES, Tile, Variant};
use crate::Card;
use crate::device::abi;

/// What the operands are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Input {
    /// FP8; A has a scale for each 1×128, B for each 128×128 (or coarser ones).
    #[default]
    Fp8,
    /// FP8; both have a scale for each 1×128.
    Fp8Fine,
    /// bf16.
    Bf16,
    /// f16.
    F16,
}

/// How rows of A find their weights. The numbers are those of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// One matrix B for all rows.
    #[default]
    Dense = abi::NG_GEMM_DENSE as isize,
    /// Adjacent groups of rows; `m` is the rows of all of them.
    Contiguous = abi::NG_GEMM_CONTIGUOUS as isize,
    /// Groups of `m` rows each, of which a number that only the device knows counts.
    Masked = abi::NG_GEMM_MASKED as isize,
    /// Groups of `m` rows each.
    Batched = abi::NG_GEMM_BATCHED as isize,
    /// One product for each range of K; `k` is the length of all of them.
    KGrouped = abi::NG_GEMM_K_GROUPED as isize,
}

/// What the output holds. The numbers are those of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Output {
    /// bf16.
    #[default]
    Bf16 = abi::NG_GEMM_OUT_BF16 as isize,
    /// f16.
    F16 = abi::NG_GEMM_OUT_F16 as isize,
    /// f32.
    F32 = abi::NG_GEMM_OUT_F32 as isize,
    /// e4m3 with a fresh scale for each 1×128.
    E4m3 = abi::NG_GEMM_OUT_E4M3 as isize,
}

/// What is to be multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Problem {
    /// Types of the operands.
    pub input: Input,
    /// Whether A is e5m2 instead of e4m3.
    pub a_e5m2: bool,
    /// Whether B is e5m2 instead of e4m3.
    pub b_e5m2: bool,
    /// Whether the rows of a 16-bit A, not its columns, are adjacent.
    pub a_transposed: bool,
    /// How rows find their weights.
    pub mode: Mode,
    /// What the output holds.
    pub output: Output,
    /// Whether the product is added to what the output holds.
    pub accumulate: bool,
    /// Whether rows of A are named by a list.
    pub gather: bool,
    /// Rows of A, where a list names them; 0: as many as the list.
    pub a_rows: usize,
    /// Whether the output is SwiGLU of two products of `n` columns each: gates and ups.
    pub swiglu: bool,
    /// Groups, or pairs of matrices; 1 where there is one.
    pub groups: usize,
    /// Rows: of all groups, or of each; see [`Mode`].
    pub m: usize,
    /// Columns of the output.
    pub n: usize,
    /// The extent that is summed over.
    pub k: usize,
    /// Rows that each group is expected to have, where only the device knows; 0: no idea.
    pub expected_rows: usize,
    /// Whether a row's bits must not depend on the number of rows: K is never split among blocks.
    pub batch_invariant: bool,
}

/// Groups whose tables fit beside the pipeline in every variant.
pub(crate) const MAX_GROUPS: usize = 1024;

/// A chosen variant and its launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The kernel's name.
    pub entry: &'static str,
    /// Its tile.
    pub tile: Tile,
    /// Blocks; they walk over the tiles.
    pub grid: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Blocks of a cluster, which divides the grid.
    pub cluster: u32,
    /// Blocks among which the K of a tile is split.
    pub split: u32,
    /// Stages of K.
    pub k_blocks: u32,
}

/// A plan and what the cost model expects of it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Ranked {
    /// The plan.
    pub plan: Plan,
    /// Its cost.
    pub terms: Terms,
}

impl Input {
    pub(crate) const FAMILIES: usize = 3;

    /// Inputs that share their kernels' sources.
    pub(crate) fn family(self) -> usize {
        match self {
            Input::Fp8 => 0,
            Input::Fp8Fine => 1,
            Input::Bf16 | Input::F16 => 2,
        }
    }

    pub(crate) fn element_bytes(self) -> usize {
        match self {
            Input::Fp8 | Input::Fp8Fine => 1,
            Input::Bf16 | Input::F16 => 2,
        }
    }

    /// K that one stage holds.
    pub(crate) fn k_per_stage(self) -> usize {
        STAGE_BYTES / self.element_bytes()
    }
}

impl Output {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Output::Bf16 | Output::F16 => 2,
            Output::F32 => 4,
            Output::E4m3 => 1,
        }
    }
}

impl Problem {
    /// One matrix times another.
    pub fn dense(input: Input, output: Output, m: usize, n: usize, k: usize) -> Self {
        Self { input, output, groups: 1, m, n, k, ..Self::default() }
    }

    /// Matrices of weights `[n, k]` that each output takes.
    pub(crate) fn sides(&self) -> usize {
        1 + usize::from(self.swiglu)
    }

    /// An upper bound of the tiles, or clusters of tiles, that the output needs, whatever the device knows.
    pub(super) fn most_tiles(&self, tile: Tile) -> usize {
        let rows = self.m.div_ceil(tile.rows() * tile.cluster());
        let rows = match self.mode {
            Mode::Dense => rows,
            // Every group may end in the middle of a tile.
            Mode::Contiguous => rows + self.groups.min(self.m).saturating_sub(1),
            Mode::Masked | Mode::Batched | Mode::KGrouped => rows.saturating_mul(self.groups),
        };
        rows.saturating_mul(self.n.div_ceil(tile.columns()))
    }
}

/// The cheapest plan, or the cheapest with the given tile; the first of equals in the order of the list. Where tiles fill
/// the card four times, no further split of K is looked at: it could save a last wave, and no more than a twentieth.
/// `None` where no variant computes the problem. M, N and the groups are at least 1; K may be 0.
pub fn plan(problem: &Problem, card: &Card, tile: Option<Tile>) -> Option<Plan> {
    let rates = Rates::of(problem, card);
    let mut best: Option<(f64, Candidate)> = None;
    each(problem, tile, |candidate| {
        let total = rates.terms(problem, &candidate).total;
        let more = !rates.filled(problem, &candidate);
        if best.as_ref().is_none_or(|(least, _)| total < *least) {
            best = Some((total, candidate));
        }
        more
    });
    best.map(|(_, candidate)| candidate.plan(problem, card))
}

/// Every plan there is for the problem, the cheapest first.
pub fn rank(problem: &Problem, card: &Card) -> Vec<Ranked> {
    let rates = Rates::of(problem, card);
    let mut all = Vec::new();
    each(problem, None, |candidate| {
        let terms = rates.terms(problem, &candidate);
        all.push(Ranked { plan: candidate.plan(problem, card), terms });
        true
    });
    all.sort_by(|a, b| a.terms.total.total_cmp(&b.terms.total));
    all
}

/// A variant with a split of K.
pub(crate) struct Candidate {
    pub tile: Tile,
    pub variant: &'static Variant,
    pub split: u32,
}

/// Every candidate; `take` says whether larger splits of the same tile shall follow.
fn each(problem: &Problem, tile: Option<Tile>, mut take: impl FnMut(Candidate) -> bool) {
    let k_blocks = problem.k.div_ceil(problem.input.k_per_stage());
    for &candidate in Tile::candidates(problem.input) {
        let Some(variant) = candidate.shape().variant(problem) else { continue };
        for &split in candidate.shape().splits() {
            let asked = tile.and_then(|wanted| candidate.answers(wanted, split));
            // Every part has some of K.
            let sensible = split == 1 || !problem.batch_invariant && split as usize <= k_blocks;
            if asked.unwrap_or(sensible) && !take(Candidate { tile: candidate, variant, split }) {
                break;
            }
        }
    }
}

impl Candidate {
    /// Blocks of a cluster: those that share loads, or those that share a tile's K.
    pub(crate) fn cluster(&self) -> usize {
        self.tile.cluster() * self.split as usize
    }

    fn plan(&self, problem: &Problem, card: &Card) -> Plan {
        let cluster = self.cluster();
        // The grid never exceeds what runs at once: blocks walk over the tiles.
        let slots = usable_sms(card, cluster) * self.tile.shape().blocks_per_sm;
        let clusters = problem.most_tiles(self.tile).min(slots / cluster).max(1);
        let groups = match problem.mode {
            Mode::Dense | Mode::Batched => 0,
            Mode::Contiguous | Mode::Masked | Mode::KGrouped => problem.groups,
        };
        Plan {
            entry: self.variant.entry,
            tile: self.tile,
            grid: (clusters * cluster) as u32,
            threads: self.variant.threads,
            shared_bytes: self.variant.shared_bytes(groups) as u32,
            cluster: cluster as u32,
            split: self.split,
            k_blocks: problem.k.div_ceil(problem.input.k_per_stage()) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output extents and K of DeepSeek-V3's layers, and of nobody's.
    const SHAPES: [(usize, usize); 9] = [
        (2112, 7168),
        (576, 7168),
        (24576, 1536),
        (32768, 512),
        (7168, 16384),
        (4096, 7168),
        (7168, 2048),
        (24, 64),
        (1, 16),
    ];

    fn problems() -> impl Iterator<Item = Problem> {
        let kinds = [
            (Input::Fp8, Mode::Dense, 1),
            (Input::Fp8, Mode::Contiguous, 1),
            (Input::Fp8, Mode::Contiguous, MAX_GROUPS),
            (Input::Bf16, Mode::Dense, 1),
            (Input::Bf16, Mode::Batched, 128),
        ];
        kinds.into_iter().flat_map(move |(input, mode, groups)| {
            SHAPES.into_iter().flat_map(move |(n, k)| {
                [1, 17, 64, 128, 4096].into_iter().flat_map(move |m| {
                    [Output::Bf16, Output::F32].map(|output| Problem {
                        mode,
                        groups,
                        ..Problem::dense(input, output, m, n, k)
                    })
                })
            })
        })
    }

    fn hoppers() -> impl Iterator<Item = &'static Card> {
        Card::ALL.iter().filter(|card| card.compute_capability == (9, 0))
    }

    #[test]
    fn every_plan_fits_its_card() {
        for card in hoppers() {
            for problem in problems() {
                for Ranked { plan, terms } in rank(&problem, card) {
                    let blocks = plan.tile.shape().blocks_per_sm as u32;
                    let told = format!("{card}: {problem:?}: {plan:?}");
                    assert!(plan.shared_bytes <= card.shared_per_block, "{told}");
                    // The runtime keeps 1 KiB of every block's shared memory for itself.
                    assert!((plan.shared_bytes + 1024) * blocks <= card.shared_per_sm, "{told}");
                    assert!(plan.threads.is_multiple_of(128) && plan.threads * blocks <= 2048, "{told}");
                    // A box of TMA has at most 256 rows.
                    assert!(plan.tile.rows().max(plan.tile.columns()) <= 256, "{told}");
                    assert!(plan.grid >= 1 && plan.grid.is_multiple_of(plan.cluster), "{told}");
                    assert!(plan.grid <= card.sms * blocks, "{told}");
                    assert!([1, 2, 4, 8].contains(&plan.cluster), "{told}");
                    assert!(terms.total.is_finite() && terms.total > 0.0, "{told}: {terms:?}");
                }
                assert!(plan(&problem, card, None).is_some(), "{card}: {problem:?}");
            }
        }
    }

    #[test]
    fn the_plan_is_the_first_of_the_ranking_or_near_it() {
        for card in hoppers() {
            for problem in problems() {
                let all = rank(&problem, card);
                let best = all[0];
                // Where a plan leaves splits out, it says so.
                let of = |plan: Option<Plan>| {
                    all.iter().find(|ranked| Some(ranked.plan) == plan).expect("a ranked plan").terms.total
                };
                for tile in [None, Some(best.plan.tile)] {
                    assert!(of(plan(&problem, card, tile)) <= 1.05 * best.terms.total, "{card}: {problem:?}");
                }
            }
        }
    }

    #[test]
    fn few_rows_take_small_tiles_and_many_rows_large_ones() {
        let rows = |m, card| {
            let problem = Problem::dense(Input::Fp8, Output::Bf16, m, 4096, 7168);
            plan(&problem, card, None).unwrap().tile.rows()
        };
        assert!([Card::H20, Card::H800].iter().all(|card| rows(1, card) <= 64));
        // The tensor cores of an H20 are so slow that every tile feeds them.
        assert!(rows(4096, &Card::H800) >= 128);
    }

    #[test]
    fn a_grid_never_exceeds_the_tiles() {
        let pairs =
            Problem { mode: Mode::Batched, groups: 2, ..Problem::dense(Input::Bf16, Output::F32, 1, 24, 64) };
        assert_eq!(plan(&pairs, &Card::H20, None).unwrap().grid, 2);
    }

    #[test]
    fn a_tile_of_another_kernel_is_refused() {
        let problem = Problem::dense(Input::Fp8, Output::Bf16, 1, 24, 64);
        let other = Tile::of(Input::Bf16, Mode::Dense)[0];
        assert_eq!(plan(&problem, &Card::H20, Some(other)), None);
        // No kernel of 16-bit floats adds up ranges of K.
        assert_eq!(
            plan(&Problem { input: Input::Bf16, mode: Mode::KGrouped, ..problem }, &Card::H20, None),
            None
        );
    }

    #[test]
    fn codes_are_those_of_the_kernels() {
        let header = include_str!("../../kernels/abi.h");
        for (mode, name) in [
            (Mode::Dense, "DENSE"),
            (Mode::Contiguous, "CONTIGUOUS"),
            (Mode::Masked, "MASKED"),
            (Mode::Batched, "BATCHED"),
            (Mode::KGrouped, "K_GROUPED"),
        ] {
            assert!(header.contains(&format!("NG_GEMM_{name} = {},", mode as u32)), "{name}");
        }
        for (output, name) in
            [(Output::Bf16, "BF16"), (Output::F16, "F16"), (Output::F32, "F32"), (Output::E4m3, "E4M3")]
        {
            assert!(header.contains(&format!("NG_GEMM_OUT_{name} = {},", output as u32)), "{name}");
        }
    }
}
