//! Selections of the largest scores.

use crate::common::{config, device, device_under};
use narrowgauge::mla::TopK;
use narrowgauge::verify::mla::top_k::{Scores, TopKCheck};
use narrowgauge::verify::surrounded::Place;
use narrowgauge::verify::{Source, under_every_schedule};
use narrowgauge::{Error, Result, Tensor};
use proptest::prelude::*;

fn checked(check: TopKCheck, seed: u64) {
    check.check(&device(), seed).unwrap_or_else(|error| panic!("{error}"));
}

/// About the block's step, the list's capacity and the first length that is sampled.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn lengths_at_the_kernels_edges() {
    for columns in
        [1, 3, 4, 5, 511, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 8193, 32767, 32768, 32769]
    {
        checked(TopKCheck::plain(1, columns, 2048, Scores::Normal), columns as u64);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_kind_of_scores_whether_sampled_or_not() {
    for scores in Scores::ALL {
        for columns in [8000, 33_000, 132_000] {
            checked(TopKCheck::plain(1, columns, 2048, scores), 5);
            checked(TopKCheck::plain(1, columns, 1, scores), 6);
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn many_long_rows_have_a_block_each() {
    checked(TopKCheck::plain(70, 33_000, 2048, Scores::Normal), 7);
}

/// Rows that begin and end anywhere among vectors of four.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn rows_lie_anywhere() {
    for offset in 0..4 {
        for padding in 0..4 {
            let plain = TopKCheck::plain(4, 37, 20, Scores::Ties);
            checked(
                TopKCheck { rows_per_end: 1, starts: true, place: Place { offset, padding }, ..plain },
                offset as u64,
            );
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_schedule_gives_the_oracles_answer() {
    for (columns, scores) in [(9000, Scores::Ties), (33_000, Scores::Normal)] {
        under_every_schedule(&device(), |device| TopKCheck::plain(2, columns, 1000, scores).check(device, 9))
            .unwrap();
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn drawn_selections(seed: u64) {
        let check = TopKCheck::draw(&mut Source::new(seed), 5000);
        check.check(&device_under(seed), seed).map_err(TestCaseError::fail)?;
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bad_arguments_are_named() {
    let device = device();
    let stream = device.stream();
    let wrong = |result: Result<()>| match result {
        Err(Error::Argument { argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    let scores: Tensor<f32> = device.zeros(&[6, 100]).unwrap();
    let out: Tensor<i32> = device.zeros(&[6, 10]).unwrap();
    let integers = |shape: &[usize]| device.zeros::<i32>(shape).unwrap();
    let plain = TopK::new(&scores, &out);
    assert_eq!(wrong(TopK::new(&scores.select(0, 0).unwrap(), &out).launch(&stream)), "scores");
    assert_eq!(wrong(TopK::new(&scores, &integers(&[5, 10])).launch(&stream)), "out");
    assert_eq!(wrong(TopK::new(&scores, &integers(&[6, 2049])).launch(&stream)), "out");
    assert_eq!(wrong(plain.starts(&integers(&[3])).launch(&stream)), "starts");
    assert_eq!(wrong(plain.ends(&integers(&[4])).launch(&stream)), "ends");
    assert_eq!(wrong(plain.ends(&out.slice(1, 0..1).unwrap()).launch(&stream)), "ends");
    assert_eq!(wrong(plain.page_table(&integers(&[3, 1]), 64, 9).launch(&stream)), "page_table");
    assert_eq!(wrong(plain.page_table(&integers(&[3, 2]), 0, 9).launch(&stream)), "page_tokens");
    assert_eq!(
        wrong(plain.page_table(&integers(&[3, 2]), 64, 1 << 26).launch(&stream)),
        "cache_pages * page_tokens"
    );
    let table = integers(&[3, 1]);
    assert_eq!(wrong(plain.page_table(&table, (1 << 32) + 1, 0).launch(&stream)), "page_tokens");
    plain.page_table(&integers(&[3, 2]), 64, 9).ends(&integers(&[3])).launch(&stream).unwrap();
    TopK::new(&device.zeros(&[0, 100]).unwrap(), &integers(&[0, 10])).launch(&stream).unwrap();
    TopK::new(&scores, &integers(&[6, 0])).launch(&stream).unwrap();
}
