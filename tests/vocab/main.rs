//! Embedding and argmax against their oracles, on whatever device there is.

#[path = "../common/mod.rs"]
mod common;

use common::{config, device, device_under};
use narrowgauge::verify::surrounded::Place;
use narrowgauge::verify::vocab::{Logits, check_argmax, check_embedding};
use narrowgauge::vocab::{Argmax, Embedding};
use narrowgauge::{Error, Result, Tensor, bf16, verify};
use proptest::prelude::*;

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_case_passes_under_every_schedule() {
    verify::check_family(&device(), "vocab", 1).unwrap();
}

fn place() -> impl Strategy<Value = Place> {
    (0usize..=9, 0usize..=9).prop_map(|(offset, padding)| Place { offset, padding })
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn embeddings_are_rows_of_the_table(
        vocabulary in 1usize..=40,
        columns in prop_oneof![0usize..=70, (1usize..=40).prop_map(|n| n * 8)],
        tokens in 0usize..=12,
        place in place(),
        bad: bool,
        seed: u64,
    ) {
        let shape = [vocabulary, columns, tokens];
        check_embedding(&device_under(seed), shape, place, bad, seed).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn the_first_largest_wins(
        rows in 0usize..=8,
        vocabulary in prop_oneof![1usize..=70, 1000usize..=3000],
        place in place(),
        logits in prop_oneof![Just(Logits::Normal), Just(Logits::Ties), Just(Logits::Wild)],
        seed: u64,
    ) {
        check_argmax(&device_under(seed), [rows, vocabulary], place, logits, seed).map_err(TestCaseError::fail)?;
    }
}

/// Rows as long as a block of each size: every warp takes part in the search, and no more than there are.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn blocks_of_every_size_search_their_row() {
    let device = device();
    for warps in 1..=32 {
        let shape = [3, 32 * warps];
        check_argmax(&device, shape, Place::default(), Logits::Normal, warps as u64)
            .unwrap_or_else(|error| panic!("{shape:?}: {error}"));
    }
}

#[test]
fn bad_arguments_are_named() {
    let device = device();
    let stream = device.stream();
    let wrong = |result: Result<()>| match result {
        Err(Error::Argument { argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    let table: Tensor<bf16> = device.zeros(&[10, 64]).unwrap();
    let ids: Tensor<i32> = device.zeros(&[3]).unwrap();
    let out: Tensor<bf16> = device.zeros(&[3, 64]).unwrap();
    let embed = |table: &Tensor<bf16>, ids: &Tensor<i32>, out: &Tensor<bf16>| {
        wrong(Embedding::new(table, ids, out).launch(&stream))
    };
    assert_eq!(embed(&table.select(0, 0).unwrap(), &ids, &out), "table");
    assert_eq!(embed(&table, &ids.reshape(&[3, 1]).unwrap(), &out), "ids");
    assert_eq!(embed(&table, &ids, &out.slice(0, 0..2).unwrap()), "out");
    assert_eq!(embed(&table, &ids, &table.slice(0, 0..3).unwrap()), "out");

    let logits: Tensor<f32> = device.zeros(&[3, 64]).unwrap();
    let argmax = |logits: &Tensor<f32>, out: &Tensor<i32>| wrong(Argmax::new(logits, out).launch(&stream));
    assert_eq!(argmax(&logits, &ids.slice(0, 0..2).unwrap()), "out");
    assert_eq!(argmax(&logits.slice(1, 0..0).unwrap(), &ids), "logits");
    assert_eq!(argmax(&logits.transpose(0, 1).unwrap().slice(0, 0..3).unwrap(), &ids), "logits");
}
