//! The compiled variants of this family, read from the list that the build reads.

use super::plan::{Input, Mode, Output, Problem};
use std::fmt;
use std::sync::LazyLock;

/// The list of all kernels: `<entry> <source> <archs> [KEY=VALUE ..]`.
const LIST: &str = include_str!("../../kernels/variants");

/// Bytes of K in one stage of the pipeline: the span of the shared-memory swizzle.
pub(crate) const STAGE_BYTES: usize = 128;

/// What is true of every variant of one source file.
#[derive(Debug)]
pub(crate) struct Source {
    path: &'static str,
    /// Those of bf16 take f16 too.
    input: Input,
    /// Weights fill the side of the product that comes in 64 rows, tokens the other.
    pub(crate) swapped: bool,
    /// A warpgroup's promotion overlaps with its own next products, or there is none.
    pub(crate) overlapped: bool,
    /// Whether rows of A may be adjacent in the place of its columns.
    transposes_a: bool,
    modes: &'static [Mode],
    outputs: &'static [Output],
    /// Blocks of a cluster that may share a tile's K.
    splits: &'static [u32],
    /// Whether it takes rows of A from a list.
    gathers: bool,
}

/// Lines with other sources are no business of this family.
const SOURCES: &[Source] = &[
    Source {
        path: "gemm/fp8_sm90a.cu",
        input: Input::Fp8,
        swapped: false,
        overlapped: false,
        transposes_a: false,
        modes: &[Mode::Dense, Mode::Contiguous, Mode::Masked, Mode::Batched],
        outputs: &[Output::Bf16, Output::F16, Output::F32, Output::E4m3],
        splits: &[1],
        gathers: true,
    },
    Source {
        path: "gemm/fp8_swapped_sm90a.cu",
        input: Input::Fp8,
        swapped: true,
        overlapped: true,
        transposes_a: false,
        modes: &[Mode::Dense, Mode::Contiguous, Mode::Masked, Mode::Batched],
        outputs: &[Output::Bf16, Output::F16, Output::F32, Output::E4m3],
        splits: &[1, 2, 4, 8],
        gathers: true,
    },
    Source {
        path: "gemm/fp8_fine_sm90a.cu",
        input: Input::Fp8Fine,
        swapped: false,
        overlapped: false,
        transposes_a: false,
        modes: &[Mode::Dense, Mode::KGrouped],
        outputs: &[Output::Bf16, Output::F32],
        splits: &[1],
        gathers: false,
    },
    Source {
        path: "gemm/bf16_sm90a.cu",
        input: Input::Bf16,
        swapped: false,
        overlapped: true,
        transposes_a: true,
        modes: &[Mode::Dense, Mode::Contiguous, Mode::Masked, Mode::Batched],
        outputs: &[Output::Bf16, Output::F16, Output::F32],
        splits: &[1],
        gathers: false,
    },
    Source {
        path: "gemm/bf16_swapped_sm90a.cu",
        input: Input::Bf16,
        swapped: true,
        overlapped: true,
        transposes_a: false,
        modes: &[Mode::Dense, Mode::Contiguous, Mode::Masked, Mode::Batched],
        outputs: &[Output::Bf16, Output::F16, Output::F32],
        splits: &[1, 2, 4, 8],
        gathers: false,
    },
];

/// What of a line tells variants of one tile apart; each key is 0 where the line does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Purpose {
    a_e5m2: bool,
    b_e5m2: bool,
    swiglu: bool,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variant {
    pub entry: &'static str,
    pub threads: u32,
    /// Dynamic shared memory: so much, and more for each group and one.
    shared: u32,
    group_bytes: u32,
    purpose: Purpose,
}

/// The part of the output that one block computes at a time, and how: a kernel of this family, whatever its types.
#[derive(Debug)]
pub(crate) struct Shape {
    name: String,
    pub source: &'static Source,
    pub rows: usize,
    pub columns: usize,
    pub stages: usize,
    pub blocks_per_sm: usize,
    /// Blocks of a cluster that share loads.
    pub cluster: usize,
    /// Whether outputs are SwiGLU of two products.
    pub swiglu: bool,
    variants: Vec<Variant>,
}

/// A kernel of this family: the part of the output that one block computes at a time, and how it does so.
///
/// Every tile of an operation gives the same bits, unless K is split among blocks.
#[derive(Clone, Copy)]
pub struct Tile {
    shape: &'static Shape,
    /// In how many parts K goes to a cluster's blocks; 0: as the plan says.
    parts: u32,
}

impl PartialEq for Tile {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.shape, other.shape) && self.parts == other.parts
    }
}

impl Eq for Tile {}

impl fmt::Debug for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shape.name)?;
        if self.parts > 0 { write!(f, " k/{}", self.parts) } else { Ok(()) }
    }
}

impl Tile {
    /// The tiles that multiply such operands in such groups, in the order of the list; those of SwiGLU apart.
    pub fn of(input: Input, mode: Mode) -> Vec<Tile> {
        Self::serving(input, mode, false)
    }

    /// The tiles whose outputs are SwiGLU of two FP8 products in such groups.
    pub fn of_swiglu(mode: Mode) -> Vec<Tile> {
        Self::serving(Input::Fp8, mode, true)
    }

    fn serving(input: Input, mode: Mode, swiglu: bool) -> Vec<Tile> {
        let serves = |tile: &&Tile| tile.shape.swiglu == swiglu && tile.shape.source.modes.contains(&mode);
        Self::candidates(input).iter().filter(serves).copied().collect()
    }

    /// Rows of the output.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Columns of the output.
    pub fn columns(&self) -> usize {
        self.shape.columns
    }

    /// Rows of the weights that it multiplies: its columns, or twice as many for SwiGLU.
    pub fn weight_rows(&self) -> usize {
        self.shape.columns * (1 + usize::from(self.shape.swiglu))
    }

    /// Stages of 128 bytes of K in shared memory.
    pub fn stages(&self) -> usize {
        self.shape.stages
    }

    /// Blocks of a cluster that share loads of the same weights.
    pub fn cluster(&self) -> usize {
        self.shape.cluster
    }

    /// Whether the columns of the output, not its rows, come in units of 64.
    pub fn swapped(&self) -> bool {
        self.shape.source.swapped
    }

    /// Every tile of the family, in the order of the list for each kind of operands.
    pub fn all() -> impl Iterator<Item = Tile> {
        TILES.iter().flatten().copied()
    }

    /// What it multiplies; f16 too where it says bf16.
    pub fn input(&self) -> Input {
        self.shape.source.input
    }

    /// Warpgroups of a block that multiply.
    pub fn warpgroups(&self) -> usize {
        self.shape.variants[0].consumers() as usize
    }

    /// The extent of K that one stage holds.
    pub fn k_per_stage(&self) -> usize {
        self.input().k_per_stage()
    }

    /// The kernels of this tile, each with the types of A and B.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, [&'static str; 2])> {
        let half = self.input() == Input::Bf16;
        self.shape.variants.iter().map(move |variant| {
            let name = |e5m2| match (half, e5m2) {
                (true, _) => "bf16 or f16",
                (false, false) => "e4m3",
                (false, true) => "e5m2",
            };
            (variant.entry, [name(variant.purpose.a_e5m2), name(variant.purpose.b_e5m2)])
        })
    }

    /// Entry names of the kernels of this tile, one for each combination of types that is compiled by itself.
    pub fn entries(&self) -> impl Iterator<Item = &'static str> {
        self.shape.variants.iter().map(|variant| variant.entry)
    }

    /// Whether products of this problem can be computed with this tile.
    pub fn computes(&self, problem: &Problem) -> bool {
        self.shape.variant(problem).is_some()
    }

    /// Numbers of blocks that may share a tile's K; 1 is always among them.
    pub fn splits(&self) -> &'static [u32] {
        self.shape.splits()
    }

    /// This tile with K in so many parts, one for each block of a cluster, added in the order of the parts; `None` where
    /// the kernel has no such split. Other numbers of parts round differently.
    pub fn split(self, parts: u32) -> Option<Tile> {
        self.splits().contains(&parts).then_some(Tile { parts, ..self })
    }

    /// In how many parts K goes to a cluster's blocks, where somebody has said so.
    pub fn parts(&self) -> Option<u32> {
        (self.parts > 0).then_some(self.parts)
    }

    /// Rows of A and of B in one copy to shared memory.
    pub(crate) fn copied_rows(self) -> [usize; 2] {
        let Shape { rows, columns, cluster, source, .. } = *self.shape;
        match (source.swapped, source.input) {
            (true, _) => [rows, columns],
            (false, Input::Bf16 | Input::F16) => [64; 2],
            (false, _) => [rows.min(64), columns / cluster],
        }
    }

    pub(crate) fn shape(self) -> &'static Shape {
        self.shape
    }

    /// Whether somebody who asked for `wanted` gets this tile with `parts` parts of K; `None` where he left them to the plan.
    pub(crate) fn answers(self, wanted: Tile, parts: u32) -> Option<bool> {
        if !std::ptr::eq(self.shape, wanted.shape) {
            return Some(false);
        }
        (wanted.parts > 0).then_some(wanted.parts == parts)
    }

    /// Every tile that could compute it.
    pub(crate) fn candidates(input: Input) -> &'static [Tile] {
        &TILES[input.family()]
    }
}

impl Shape {
    /// The kernel that computes the problem with this tile.
    pub(crate) fn variant(&self, problem: &Problem) -> Option<&Variant> {
        let e4m3 = problem.output == Output::E4m3;
        if e4m3 && !self.columns.is_multiple_of(128) {
            // Fresh scales are of 128 columns of one block.
            return None;
        }
        if problem.gather && !self.source.gathers {
            return None;
        }
        let suits = |variant: &&Variant| variant.purpose.suits(self.source, problem);
        self.variants.iter().find(suits)
    }

    /// In how many parts K may go to the blocks of a cluster.
    pub(crate) fn splits(&self) -> &'static [u32] {
        self.source.splits
    }
}

impl Variant {
    /// Warpgroups that multiply; the one more loads.
    pub(crate) fn consumers(&self) -> u32 {
        self.threads / 128 - 1
    }

    /// Dynamic shared memory of a launch for so many groups; 0 where there are no tables of them.
    pub(crate) fn shared_bytes(&self, groups: usize) -> usize {
        let tables = if groups > 0 { self.group_bytes as usize * (groups + 1) } else { 0 };
        self.shared as usize + tables
    }
}

impl Purpose {
    fn suits(&self, source: &Source, problem: &Problem) -> bool {
        let output = match self.swiglu {
            true => problem.output == Output::E4m3,
            false => source.outputs.contains(&problem.output),
        };
        source.modes.contains(&problem.mode)
            && output
            && (source.transposes_a || !problem.a_transposed)
            && (self.a_e5m2, self.b_e5m2) == (problem.a_e5m2, problem.b_e5m2)
            && self.swiglu == problem.swiglu
    }
}

static SHAPES: LazyLock<Vec<Shape>> =
    LazyLock::new(|| parse(LIST).unwrap_or_else(|error| panic!("kernels/variants: {error}")));

/// By family of inputs, in the order of the list.
static TILES: LazyLock<[Vec<Tile>; Input::FAMILIES]> = LazyLock::new(|| {
    let mut tiles: [Vec<Tile>; Input::FAMILIES] = Default::default();
    for shape in SHAPES.iter() {
        tiles[shape.source.input.family()].push(Tile { shape, parts: 0 });
    }
    tiles
});

/// The tiles of this family's lines, each with the variants that share it.
fn parse(list: &'static str) -> Result<Vec<Shape>, String> {
    let mut shapes: Vec<Shape> = Vec::new();
    for line in list.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let (Some(entry), Some(path)) = (words.next(), words.next()) else { continue };
        let Some(source) = SOURCES.iter().find(|source| source.path == path) else { continue };
        let (shape, variant) =
            read(entry, source, words.skip(1)).map_err(|error| format!("{entry}: {error}"))?;
        match shapes.iter_mut().find(|other| other.same(&shape)) {
            Some(other) => other.variants.push(variant),
            None => shapes.push(Shape { variants: vec![variant], ..shape }),
        }
    }
    Ok(shapes)
}

fn read<'a>(
    entry: &'static str,
    source: &'static Source,
    keys: impl Iterator<Item = &'a str>,
) -> Result<(Shape, Variant), String> {
    let mut purpose = Purpose::default();
    let [mut rows, mut columns, mut stages, mut threads, mut shared] = [None; 5];
    let (mut blocks, mut cluster, mut group_bytes) = (1, 1, 0);
    for word in keys {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not KEY=VALUE"))?;
        let value: usize = value.parse().map_err(|_| format!("`{word}` is not a number"))?;
        let on = value != 0;
        match key {
            "BM" => rows = Some(value),
            "BN" => columns = Some(value),
            "STAGES" => stages = Some(value),
            "BLOCKS" => blocks = value,
            "CLUSTER" => cluster = value,
            "THREADS" => threads = Some(value),
            "SHARED" => shared = Some(value),
            "GROUP_BYTES" => group_bytes = value,
            "A_E5M2" => purpose.a_e5m2 = on,
            "B_E5M2" => purpose.b_e5m2 = on,
            "SWIGLU" => purpose.swiglu = on,
            _ => return Err(format!("src/gemm/variants.rs does not know what {key} means")),
        }
    }
    let need = |key: &str, value: Option<usize>| value.ok_or_else(|| format!("{key}= is missing"));
    let (rows, columns, stages) = (need("BM", rows)?, need("BN", columns)?, need("STAGES", stages)?);
    let multicast = if cluster > 1 { format!(" c{cluster}") } else { String::new() };
    let swapped = if source.swapped { " swapped" } else { "" };
    let swiglu = if purpose.swiglu { " swiglu" } else { "" };
    let shape = Shape {
        name: format!("{rows}x{columns} s{stages}{multicast}{swapped}{swiglu}"),
        source,
        rows,
        columns,
        stages,
        blocks_per_sm: blocks,
        cluster,
        swiglu: purpose.swiglu,
        variants: Vec::new(),
    };
    let (threads, shared) = (need("THREADS", threads)? as u32, need("SHARED", shared)? as u32);
    Ok((shape, Variant { entry, threads, shared, group_bytes: group_bytes as u32, purpose }))
}

impl Shape {
    /// Whether a variant of the other is one of this.
    fn same(&self, other: &Self) -> bool {
        // The name holds the other numbers.
        self.name == other.name
            && self.source.path == other.source.path
            && self.blocks_per_sm == other.blocks_per_sm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let all = [Tile::of(Input::Fp8, Mode::Dense), Tile::of(Input::Bf16, Mode::Batched)];
        for tile in all.iter().flatten() {
            assert!(tile.entries().count() > 0 && tile.stages() > 1, "{tile}");
        }
        // Every line of this family that has a tile is a variant of exactly one.
        let lines = |entry: &str| LIST.lines().filter(|line| line.split(' ').next() == Some(entry)).count();
        let entries: Vec<_> = SHAPES.iter().flat_map(|shape| &shape.variants).map(|v| v.entry).collect();
        assert!(entries.iter().all(|entry| lines(entry) == 1));
        // Kernels of the folder without a tile are no products.
        let of_family = |line: &&str| {
            line.split(' ').nth(1).is_some_and(|path| path.starts_with("gemm/")) && line.contains(" BM=")
        };
        assert_eq!(entries.len(), LIST.lines().filter(of_family).count());
    }

    #[test]
    fn tiles_of_an_input_have_names_of_their_own() {
        for tiles in TILES.iter() {
            let mut names: Vec<_> = tiles.iter().map(Tile::to_string).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), tiles.len(), "{names:?}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let line = |keys: &str| {
            let text = format!("e gemm/fp8_sm90a.cu 90a BM=64 BN=64 STAGES=2 {keys}");
            parse(text.leak()).map(|shapes| shapes.len())
        };
        assert_eq!(line("THREADS=256 SHARED=100"), Ok(1));
        assert_eq!(line("THREADS=256"), Err("e: SHARED= is missing".to_owned()));
        assert!(line("THREADS=256 SHARED=100 COLOUR=3").unwrap_err().contains("COLOUR"));
        assert_eq!(parse("e other/file.cu 90a COLOUR=3").unwrap().len(), 0);
    }
}
