//! All 64 kinds of bad input, on whatever device there is: what must come of each, and how many came out so.

use narrowgauge::verify;
use narrowgauge::verify::bad_inputs::{Entry, rows, run_all};
use std::collections::BTreeMap;

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_bad_input_comes_out_as_it_should() {
    let device = verify::device().unwrap();
    let outcomes = run_all(&device);
    println!("{outcomes}");
    for (what, list) in [
        ("refused by the compiler", &outcomes.cannot_compile),
        ("tried by fault tests", &outcomes.elsewhere),
        ("not offered", &outcomes.not_offered),
    ] {
        list.iter().for_each(|entry| println!("{what}: {entry}"));
    }
    assert!(outcomes.failures.is_empty(), "{:#?}", outcomes.failures);
    assert!(outcomes.calls() > 150, "{}", outcomes.calls());
}

/// No kind is left out, and each is met in some way.
#[test]
fn every_kind_is_there_once() {
    let rows = rows();
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), (1..=64).collect::<Vec<_>>());
    for row in &rows {
        assert!(!row.entries.is_empty(), "{} ({})", row.number, row.input);
        assert!(!row.input.is_empty());
    }
}

/// Every operation of the crate is tried with some of them.
#[test]
fn every_operation_meets_bad_inputs() {
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows() {
        for entry in row.entries {
            if let Entry::Call { operation, .. } = entry {
                let operation = operation.split(',').next().unwrap_or(operation);
                *calls.entry(operation).or_default() += 1;
            }
        }
    }
    for operation in [
        "Quantize",
        "Fp8Gemm",
        "GroupedFp8Gemm",
        "Fp8GemmSwiglu",
        "GroupedFp8GemmSwiglu",
        "MaskedFp8GemmSwiglu",
        "HalfGemm",
        "BatchedHalfGemm",
        "Router",
        "Permute",
        "GatherRows",
        "SwigluQuantize",
        "Combine",
        "SparseAttention",
        "RmsNorm",
        "RmsNormQuantize",
        "Add",
        "Embedding",
        "Argmax",
        "Rope",
        "CacheWrite",
        "CacheGather",
        "CachePageCopy",
        "Attention",
        "IndexerLogits",
        "PagedIndexerLogits",
        "TopK",
        "Merge",
        "Prefill",
    ] {
        assert!(calls.contains_key(operation), "{operation} is not among {calls:?}");
    }
    println!("{calls:?}");
}
