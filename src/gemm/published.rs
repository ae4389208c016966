//! The shapes that DeepGEMM is tested and timed on (its `tests/generators.py`), as problems for the planner.

use super::plan::{Input, Mode, Output, Problem};

/// Output columns and K of DeepSeek-V3's linear layers.
pub const LAYERS: [(usize, usize); 7] =
    [(2112, 7168), (576, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048)];

/// The same of experts.
const EXPERTS: [(usize, usize); 4] = [(6144, 7168), (7168, 3072), (4096, 4096), (4096, 2048)];

/// Rows that a dense layer is published for.
const ROWS: [usize; 6] = [1, 16, 64, 128, 256, 4096];

/// Groups and rows of each; the masked ones have room for 4096.
const CONTIGUOUS: [(usize, usize); 2] = [(4, 8192), (8, 4096)];
const MASKED: [(usize, usize); 4] = [(32, 192), (6, 1024), (32, 20), (6, 20)];
const MASKED_ROOM: usize = 4096;

/// Groups, rows, columns and K of each.
const K_GROUPED: [[usize; 4]; 6] = [
    [4, 4096, 7168, 8192],
    [4, 7168, 2048, 8192],
    [8, 4096, 7168, 4096],
    [8, 7168, 2048, 4096],
    [16, 4096, 7168, 2048],
    [16, 7168, 2048, 2048],
];

/// Columns and K of DeepSeek-V3's experts and shared expert behind SwiGLU: gates and ups are 2048 rows of weights each.
const SWIGLU: (usize, usize) = (2048, 7168);

/// A published shape.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The mode and the extents: `dense 4096x7168x2048`, `masked 32x192x6144x7168`.
    pub name: String,
    /// What is to be multiplied.
    pub problem: Problem,
}

/// Every published shape of the FP8 products, and the same rows through the first products of an expert with SwiGLU.
pub fn shapes() -> Vec<Published> {
    let mut all = Vec::new();
    let mut add = |mode: &str, extents: &[usize], problem| {
        let extents: Vec<_> = extents.iter().map(usize::to_string).collect();
        all.push(Published { name: format!("{mode} {}", extents.join("x")), problem });
    };
    let dense = |m, n, k| Problem::dense(Input::Fp8, Output::Bf16, m, n, k);
    let gradient =
        |m, n, k| Problem { accumulate: true, ..Problem::dense(Input::Fp8Fine, Output::F32, m, n, k) };
    for (n, k) in LAYERS {
        for m in ROWS {
            add("dense", &[m, n, k], dense(m, n, k));
        }
        add("weight gradient", &[n, k, 4096], gradient(n, k, 4096));
    }
    for (n, k) in EXPERTS {
        for (groups, m) in CONTIGUOUS {
            let problem = Problem { mode: Mode::Contiguous, groups, ..dense(groups * m, n, k) };
            add("contiguous", &[groups, m, n, k], problem);
        }
        for (groups, expected_rows) in MASKED {
            let problem = Problem { mode: Mode::Masked, groups, expected_rows, ..dense(MASKED_ROOM, n, k) };
            add("masked", &[groups, expected_rows, n, k], problem);
        }
    }
    for [groups, m, n, k] in K_GROUPED {
        let problem = Problem { mode: Mode::KGrouped, groups, ..gradient(m, n, groups * k) };
        add("k-grouped", &[groups, m, n, k], problem);
    }
    let (n, k) = SWIGLU;
    let swiglu = |m| Problem { swiglu: true, ..Problem::dense(Input::Fp8, Output::E4m3, m, n, k) };
    for m in ROWS {
        add("SwiGLU", &[m, n, k], swiglu(m));
    }
    for (groups, m) in CONTIGUOUS {
        let problem = Problem { mode: Mode::Contiguous, groups, ..swiglu(groups * m) };
        add("SwiGLU contiguous", &[groups, m, n, k], problem);
    }
    all
}
