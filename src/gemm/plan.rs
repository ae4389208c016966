//! The choice of kernel variant and grid: a pure function of problem and card.

use crate::Card;
use std::fmt;

/// Whether the inputs are FP8 with block scales or bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    Fp8,
    Fp8Grouped,
    Bf16,
}

/// What the output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    Bf16,
    F32,
}

/// What is to be multiplied. Grouped problems have `batch` groups that share `m` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Problem {
    pub input: Input,
    pub output: Output,
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// The part of the output that one block computes at a time: the kernel variants of this family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    rows: usize,
    columns: usize,
    stages: usize,
    blocks_per_sm: usize,
    /// Entry names by input and output.
    entries: [[&'static str; 2]; 3],
}

macro_rules! tile {
    ($rows:literal x $columns:literal, stages $stages:literal, blocks $blocks:literal) => {
        Tile {
            rows: $rows,
            columns: $columns,
            stages: $stages,
            blocks_per_sm: $blocks,
            entries: [
                tile!(@ "gemm_fp8_", $rows, $columns),
                tile!(@ "gemm_fp8_grouped_", $rows, $columns),
                tile!(@ "gemm_bf16_", $rows, $columns),
            ],
        }
    };
    (@ $name:literal, $rows:literal, $columns:literal) => {
        [concat!($name, $rows, "x", $columns, "_bf16"), concat!($name, $rows, "x", $columns, "_f32")]
    };
}

/// Every tile that is compiled, for each input and output. The first of equals is chosen.
const TILES: [Tile; 3] = [
    tile!(128 x 128, stages 6, blocks 1),
    tile!(64 x 128, stages 4, blocks 2),
    tile!(64 x 64, stages 6, blocks 2),
];

impl fmt::Debug for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.columns)
    }
}

/// Bytes of K in one stage of the pipeline: the span of the shared-memory swizzle.
pub(crate) const STAGE_BYTES: usize = 128;

/// Groups whose tables fit beside the pipeline in every variant.
pub(crate) const MAX_GROUPS: usize = 1024;

const THREADS_PER_WARPGROUP: usize = 128;

/// A chosen variant and its launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub entry: &'static str,
    pub tile: Tile,
    pub grid: u32,
    pub threads: u32,
    pub shared_bytes: u32,
    pub k_blocks: u32,
}

impl Input {
    fn element_bytes(self) -> usize {
        match self {
            Input::Fp8 | Input::Fp8Grouped => 1,
            Input::Bf16 => 2,
        }
    }

    /// K that one stage holds.
    pub(crate) fn k_per_stage(self) -> usize {
        STAGE_BYTES / self.element_bytes()
    }
}

impl Tile {
    /// Every tile there is.
    pub const ALL: &'static [Tile] = &TILES;

    /// Rows of the output.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the output.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// An upper bound of the tiles of a problem: grouped, every group may end in the middle of one.
    fn count(&self, problem: &Problem) -> usize {
        let rows = problem.m.div_ceil(self.rows);
        let rows = match problem.input {
            Input::Fp8 => rows,
            Input::Fp8Grouped => rows + problem.batch.min(problem.m).saturating_sub(1),
            Input::Bf16 => rows * problem.batch,
        };
        rows.saturating_mul(problem.n.div_ceil(self.columns))
    }

    /// Cycles that the card needs for the problem, up to what all tiles share.
    fn cycles(&self, problem: &Problem, card: &Card) -> f64 {
        let waves = self.count(problem).div_ceil(card.sms as usize * self.blocks_per_sm) as f64;
        let element = problem.input.element_bytes();
        let tflops = if element == 1 { card.fp8_tflops } else { card.bf16_tflops };
        let macs_per_cycle = tflops * 1e3 / 2.0 / (f64::from(card.sms) * card.clock_ghz);
        let (rows, columns, k) = (self.rows as f64, self.columns as f64, problem.k as f64);
        let tensor = rows * columns * k / macs_per_cycle;
        // 128 fused multiply-adds a cycle add every 128 of K to the f32 sums; the tensor core waits for them, unless
        // another warpgroup keeps it busy.
        let promotion = if element == 1 { rows * columns * k / 128.0 / 128.0 } else { 0.0 };
        let other_warpgroups = self.rows / 64 * self.blocks_per_sm > 1;
        let arithmetic = if other_warpgroups { tensor.max(promotion) } else { tensor + promotion };
        let l2 = (rows + columns) * k * element as f64 / L2_BYTES_PER_CYCLE;
        let store = rows * columns * problem.output.bytes() as f64 / L2_BYTES_PER_CYCLE;
        waves * self.blocks_per_sm as f64 * (arithmetic.max(l2) + store)
    }

    fn shared_bytes(&self, problem: &Problem) -> usize {
        let stages = self.stages * (self.rows + self.columns) * STAGE_BYTES;
        // Products of scales, one f32 a row.
        let products = if problem.input == Input::Bf16 { 0 } else { self.stages * self.rows * 4 };
        let barriers = self.stages * 16;
        let tables = if problem.input == Input::Fp8Grouped { (problem.batch + 1) * 8 } else { 0 };
        stages + products + barriers + tables
    }
}

/// What one multiprocessor gets from L2 in a cycle when all of them ask.
const L2_BYTES_PER_CYCLE: f64 = 64.0;

impl Output {
    fn bytes(self) -> usize {
        match self {
            Output::Bf16 => 2,
            Output::F32 => 4,
        }
    }
}

/// The given variant, or the cheapest, for the problem. M, N and the batch are at least 1; K may be 0.
pub(crate) fn plan(problem: &Problem, card: &Card, tile: Option<Tile>) -> Plan {
    let best = tile.unwrap_or_else(|| cheapest(problem, card));
    // The grid never exceeds what runs at once: blocks walk over the tiles.
    let grid = best.count(problem).min(card.sms as usize * best.blocks_per_sm);
    Plan {
        entry: best.entries[problem.input as usize][problem.output as usize],
        tile: best,
        grid: grid as u32,
        threads: ((1 + best.rows / 64) * THREADS_PER_WARPGROUP) as u32,
        shared_bytes: best.shared_bytes(problem) as u32,
        k_blocks: problem.k.div_ceil(problem.input.k_per_stage()) as u32,
    }
}

fn cheapest(problem: &Problem, card: &Card) -> Tile {
    let mut best = TILES[0];
    for tile in &TILES[1..] {
        if tile.cycles(problem, card) < best.cycles(problem, card) {
            best = *tile;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIANTS: &str = include_str!("../../kernels/variants");

    fn problems() -> impl Iterator<Item = Problem> {
        let shapes = [
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
        let inputs = [
            (Input::Fp8, 1),
            (Input::Fp8Grouped, 1),
            (Input::Fp8Grouped, 256),
            (Input::Bf16, 1),
            (Input::Bf16, 128),
        ];
        inputs.into_iter().flat_map(move |(input, batch)| {
            shapes.into_iter().flat_map(move |(n, k)| {
                [1, 17, 64, 128, 4096].into_iter().flat_map(move |m| {
                    [Output::Bf16, Output::F32].map(|output| Problem { input, output, batch, m, n, k })
                })
            })
        })
    }

    #[test]
    fn every_plan_is_compiled_and_fits_its_card() {
        for card in Card::ALL.iter().filter(|card| card.compute_capability == (9, 0)) {
            for problem in problems() {
                let plan = plan(&problem, card, None);
                let line = VARIANTS
                    .lines()
                    .find(|line| line.split_whitespace().next() == Some(plan.entry))
                    .unwrap_or_else(|| panic!("{} is not in kernels/variants", plan.entry));
                let has = |key: &str, value: usize| {
                    let word = format!("{key}={value}");
                    assert!(line.split_whitespace().any(|other| other == word), "{line}: {word}");
                };
                has("BM", plan.tile.rows);
                has("BN", plan.tile.columns);
                has("STAGES", plan.tile.stages);
                has("BLOCKS", plan.tile.blocks_per_sm);
                has("OUT_F32", usize::from(problem.output == Output::F32));
                if problem.input != Input::Bf16 {
                    has("GROUPED", usize::from(problem.input == Input::Fp8Grouped));
                }
                let largest = Problem { batch: MAX_GROUPS, ..problem };
                let shared = plan.tile.shared_bytes(&largest);
                assert!(shared <= card.shared_per_block as usize);
                // The runtime keeps 1 KiB of every block's shared memory for itself.
                assert!((shared + 1024) * plan.tile.blocks_per_sm <= card.shared_per_sm as usize);
                assert!(plan.grid >= 1);
            }
        }
    }

    #[test]
    fn few_rows_take_small_tiles_and_many_rows_large_ones() {
        let problem = |m| Problem { input: Input::Fp8, output: Output::Bf16, batch: 1, m, n: 4096, k: 7168 };
        for card in [Card::H20, Card::H800] {
            assert_eq!(plan(&problem(1), &card, None).tile.rows, 64);
        }
        // The tensor cores of an H20 are so slow that every tile feeds them.
        assert_eq!(plan(&problem(4096), &Card::H800, None).tile, TILES[0]);
    }

    #[test]
    fn a_grid_never_exceeds_the_tiles() {
        let problem = Problem { input: Input::Bf16, output: Output::F32, batch: 2, m: 1, n: 24, k: 64 };
        assert_eq!(plan(&problem, &Card::H20, None).grid, 2);
    }
}
