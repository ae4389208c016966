//! The lightning indexer.

use crate::common::{config, device, device_under};
use narrowgauge::mla::{IndexerLogits, IndexerPages, IndexerWrite, PagedIndexerLogits, TopK};
use narrowgauge::verify::mla::indexer::{IndexerCheck, Operands};
use narrowgauge::verify::mla::indexer_write::IndexerWriteCheck;
use narrowgauge::verify::{self, Source, under_every_schedule};
use narrowgauge::{Device, E4m3, Error, Fp8Rows, Result, Tensor, bf16};
use proptest::prelude::*;

/// Heads, tokens and keys about what fills a tile, in one row and in pages of every size.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn shapes_at_the_tiles_edges() {
    let device = device();
    let checked = |check: IndexerCheck| {
        check.check(&device, 3).unwrap_or_else(|error| panic!("{error}"));
    };
    for (tokens, heads, keys) in
        [(1, 1, 1), (4, 64, 128), (5, 64, 129), (8, 32, 127), (9, 33, 64), (3, 31, 257)]
    {
        checked(IndexerCheck::prefill(tokens, heads, keys));
    }
    for page_tokens in [32, 64, 128] {
        for (tokens, heads, keys) in
            [(1, 64, 257), (1, 32, 255), (2, 32, 256), (2, 64, 64), (3, 64, 65), (5, 32, 513)]
        {
            checked(IndexerCheck { page_tokens, ..IndexerCheck::decode(2, tokens, heads, keys) });
        }
    }
}

/// More tiles than blocks, and more sequences than lanes, so that blocks begin inside of sequences.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn blocks_share_many_sequences() {
    let device = device();
    for (batch, keys) in [(40, 300), (3, 12_000)] {
        let check = IndexerCheck { operands: Operands::Integers, ..IndexerCheck::decode(batch, 1, 4, keys) };
        check.check(&device, 4).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Long rows of keys are cut into chunks.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn chunks_join() {
    let check = IndexerCheck { operands: Operands::Integers, ..IndexerCheck::prefill(9, 4, 5000) };
    check.check(&device(), 5).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_schedule_gives_logits_within_the_bound() {
    for check in [IndexerCheck::prefill(5, 64, 1200), IndexerCheck::decode(2, 2, 64, 1500)] {
        let check = IndexerCheck { operands: Operands::Integers, ..check };
        under_every_schedule(&device(), |device| check.check(device, 6)).unwrap();
    }
}

/// Bounds that leave nothing to multiply are reported too.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn lengths_outside_are_reported() {
    let device = device();
    for seed in 0..8 {
        for check in [IndexerCheck::prefill(3, 8, 40), IndexerCheck::decode(2, 1, 8, 40)] {
            let check = IndexerCheck { bad: true, ..check };
            check.check(&device, seed).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// Where all logits are equal the first keys are chosen, as many as the lengths say when the graph runs.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_graph_takes_new_lengths() {
    const K: usize = 256;
    under_every_schedule(&device(), |device| {
        let run = || -> Result<Vec<Vec<i32>>> {
            let one = E4m3::from_f32(1.0);
            let (q, weights) = (device.full(&[2, 1, 64, 128], one)?, device.full(&[2, 1, 64], 1.0f32)?);
            let keys = Fp8Rows::per_row(device.full(&[12, 64, 128], one)?, device.full(&[12, 64], 1.0f32)?)?;
            let table = device.tensor(&[2, 5], &[4, 2, 0, 11, 7, 1, 3, 5, 6, 8])?;
            let lengths = device.tensor(&[2], &[5, 300])?;
            let (logits, chosen) = (device.zeros::<f32>(&[2, 320])?, device.zeros::<i32>(&[2, K])?);
            let stream = device.stream();
            let graph = stream.capture(|stream| {
                let pages = IndexerPages::new(&keys, &table, &lengths);
                PagedIndexerLogits::new(&q, pages, &weights, &logits).launch(stream)?;
                TopK::new(&logits, &chosen).ends(&lengths).launch(stream)
            })?;
            let mut answers = Vec::new();
            for new in [[5, 300], [200, 0], [320, 256]] {
                lengths.write(&new)?;
                chosen.write(&[-7; 2 * K])?;
                graph.launch(&stream)?;
                answers.push(chosen.to_vec()?);
            }
            Ok(answers)
        };
        let answers = run().map_err(|error| error.to_string())?;
        for (new, answer) in [[5, 300], [200, 0], [320, 256]].into_iter().zip(&answers) {
            for (row, length) in new.into_iter().enumerate() {
                let want: Vec<i32> =
                    (0..K as i32).map(|column| if column < length { column } else { -1 }).collect();
                verify::exact(&format!("of {length} keys"), &answer[row * K..(row + 1) * K], &want)?;
            }
        }
        Ok(())
    })
    .unwrap();
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn drawn_logits(seed: u64) {
        let check = IndexerCheck::draw(&mut Source::new(seed));
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
    let codes = |shape: &[usize]| device.zeros::<E4m3>(shape).unwrap();
    let floats = |shape: &[usize]| device.zeros::<f32>(shape).unwrap();
    let integers = |shape: &[usize]| device.zeros::<i32>(shape).unwrap();
    let rows = |shape: &[usize]| Fp8Rows::per_row(codes(shape), floats(&shape[..shape.len() - 1])).unwrap();
    let (q, keys, weights, out) =
        (codes(&[3, 64, 128]), rows(&[100, 128]), floats(&[3, 64]), floats(&[3, 100]));
    let prefill = |q: &Tensor<E4m3>, keys: &Fp8Rows, weights: &Tensor<f32>, out: &Tensor<f32>| {
        wrong(IndexerLogits::new(q, keys, weights, out).launch(&stream))
    };
    assert_eq!(prefill(&codes(&[3, 64, 64]), &keys, &weights, &out), "q");
    assert_eq!(prefill(&codes(&[3, 65, 128]), &keys, &floats(&[3, 65]), &out), "q");
    assert_eq!(prefill(&q, &rows(&[100, 64]), &weights, &out), "keys");
    assert_eq!(prefill(&q, &rows(&[101, 128]).slice_rows(1..101).unwrap(), &weights, &out), "keys");
    assert_eq!(prefill(&q, &keys, &floats(&[3, 63]), &out), "weights");
    assert_eq!(prefill(&q, &keys, &weights, &floats(&[3, 99])), "out");
    let plain = IndexerLogits::new(&q, &keys, &weights, &out);
    assert_eq!(wrong(plain.starts(&integers(&[2])).launch(&stream)), "starts");
    assert_eq!(wrong(plain.ends(&integers(&[4])).launch(&stream)), "ends");
    plain.ends(&integers(&[3])).launch(&stream).unwrap();

    let (q, weights, out) = (codes(&[3, 2, 64, 128]), floats(&[3, 2, 64]), floats(&[6, 100]));
    let (table, lengths) = (integers(&[3, 2]), integers(&[3]));
    let decode = |keys: &Fp8Rows, table: &Tensor<i32>, lengths: &Tensor<i32>, out: &Tensor<f32>| {
        wrong(
            PagedIndexerLogits::new(&q, IndexerPages::new(keys, table, lengths), &weights, out)
                .launch(&stream),
        )
    };
    let keys = rows(&[5, 64, 128]);
    assert_eq!(decode(&rows(&[5, 48, 128]), &table, &lengths, &out), "keys");
    assert_eq!(decode(&rows(&[320, 128]), &table, &lengths, &out), "keys");
    assert_eq!(decode(&keys, &integers(&[3, 1]), &lengths, &out), "out");
    assert_eq!(decode(&keys, &integers(&[2, 2]), &lengths, &out), "table");
    assert_eq!(decode(&keys, &table, &integers(&[2]), &out), "lengths");
    assert_eq!(decode(&keys, &table, &lengths, &floats(&[3, 100])), "out");
    let pages = IndexerPages::new(&keys, &table, &lengths);
    PagedIndexerLogits::new(&q, pages, &weights, &out).launch(&stream).unwrap();
}

/// Every byte of the cache is as the quantisation has it: in pages of every size, beside scales of their own or with them.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn keys_are_written_to_any_pages() {
    let device = device();
    for (page_tokens, together, f16) in [
        (0, false, false),
        (1, true, false),
        (5, true, true),
        (32, false, true),
        (64, true, false),
        (128, false, true),
    ] {
        for (power_of_two, bad) in [(false, true), (true, false)] {
            let check = IndexerWriteCheck {
                page_tokens,
                together,
                power_of_two,
                f16,
                bad,
                ..IndexerWriteCheck::paged(37, 9)
            };
            under_every_schedule(&device, |device| check.check(device, 7)).unwrap();
        }
    }
}

#[test]
fn bad_arguments_of_writes_are_named() {
    let device = device();
    let stream = device.stream();
    let wrong = |keys: &Tensor<bf16>, slots: &Tensor<i32>, cache: &Fp8Rows| match IndexerWrite::new(
        keys, slots, cache,
    )
    .launch(&stream)
    {
        Err(Error::Argument { operation: "IndexerWrite", argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    let (keys, slots) = (device.zeros(&[4, 128]).unwrap(), device.zeros(&[4]).unwrap());
    let cache = |columns: usize| {
        let data = device.zeros(&[2, 64, columns]).unwrap();
        Fp8Rows::per_row(data, device.zeros(&[2, 64]).unwrap()).unwrap()
    };
    assert_eq!(wrong(&keys.slice(1, 0..64).unwrap(), &slots, &cache(128)), "keys");
    assert_eq!(wrong(&keys, &slots.slice(0, 1..4).unwrap(), &cache(128)), "slots");
    assert_eq!(wrong(&keys, &slots, &cache(64)), "cache");
    let one = Fp8Rows::per_tensor(device.zeros(&[2, 64, 128]).unwrap(), device.zeros(&[1]).unwrap()).unwrap();
    assert_eq!(wrong(&keys, &slots, &one), "cache.scales");
    let elsewhere = Device::simulated(narrowgauge::Card::H20).unwrap();
    assert_eq!(wrong(&keys, &elsewhere.zeros(&[4]).unwrap(), &cache(128)), "slots");
}
