//! Attention of at most 32 rows a sequence, which is not padded to 64 where the device cuts.

use crate::common::device;
use crate::under_every_schedule;
use narrowgauge::verify::mla::{AttentionInputs, DecodeCheck, Pieces, one_hot_attention, uniform_attention};
use narrowgauge::verify::{self, Source};
use narrowgauge::{Device, bf16, f16};

/// So few multiprocessors that each has many blocks of tokens and several pieces; the card there is otherwise.
fn busy() -> Device {
    let device = device();
    if !device.is_simulated() {
        return device;
    }
    let mut card = device.card().clone();
    card.sms = 2;
    Device::simulated(card).expect("a simulated device")
}

fn check(lengths: &[usize], queries: usize, heads: usize, seed: u64) -> DecodeCheck {
    DecodeCheck {
        lengths: lengths.to_vec(),
        queries: vec![queries; lengths.len()],
        ragged: false,
        heads,
        page_tokens: 64,
        causal: true,
        sinks: false,
        pieces: Pieces::Scheduled,
        seed,
    }
}

/// Every head count with every number of query tokens and page size, each under one policy.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn rows_and_pages() {
    let device = device();
    let mut number = 0;
    for heads in [1, 3, 8, 9, 16, 32] {
        for queries in [1, 2, 4] {
            if heads * queries > 32 {
                continue;
            }
            if device.is_simulated() {
                device.set_schedule(verify::schedules()[number % 3].1).expect("a simulated device");
            }
            let check = DecodeCheck {
                page_tokens: [1, 16, 64, 128, 4][number % 5],
                ragged: number % 2 == 1,
                sinks: number % 3 == 1,
                ..check(&[150, 0, 64], queries, heads, number as u64)
            };
            let outcome =
                if number % 4 < 2 { check.check::<bf16>(&device) } else { check.check::<f16>(&device) };
            outcome.unwrap_or_else(|error| panic!("{error}"));
            number += 1;
        }
    }
}

/// Sequences that turn the ring, pieces that follow each other in one worker.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn long_sequences_under_every_schedule() {
    let device = busy();
    under_every_schedule(&device, |_| {
        for (heads, lengths) in [(8, &[900][..]), (16, &[500, 330, 0]), (32, &[700, 1]), (24, &[640])] {
            check(lengths, 1, heads, 5).check::<bf16>(&device).unwrap_or_else(|error| panic!("{error}"));
        }
        let ragged = DecodeCheck {
            queries: vec![2, 0, 3, 1],
            ragged: true,
            sinks: true,
            page_tokens: 16,
            ..check(&[400, 90, 300, 7], 1, 6, 8)
        };
        ragged.check::<f16>(&device).unwrap_or_else(|error| panic!("{error}"));
    });
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn sums_of_integers_and_selected_tokens_are_exact() {
    let device = busy();
    for (tokens, heads) in [(1, 8), (1, 16), (3, 8), (2, 16)] {
        for (inputs, want) in [
            uniform_attention(&mut Source::new(3), &[200, 64, 1], tokens, heads),
            one_hot_attention(&mut Source::new(4), &[300, 70], tokens, heads),
        ] {
            let got = inputs.run(&device, Pieces::Scheduled).expect("runs");
            verify::exact("output", &got.output, &want)
                .unwrap_or_else(|error| panic!("{heads} heads: {error}"));
        }
    }
}

/// A row's bits depend neither on the rows beside it nor on how many the products are made for.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_row_is_its_own() {
    let device = busy();
    // Scores that grow now and then, in other blocks for other rows.
    let mut inputs = AttentionInputs::normal(&mut Source::new(6), &[500], 1, 30);
    for value in &mut inputs.query {
        *value = bf16::from_f32(value.to_f32() * 8.0);
    }
    let all = inputs.run(&device, Pieces::Scheduled).expect("runs");
    for heads in [1, 7, 12, 20] {
        let mut fewer = inputs.clone();
        fewer.shape.heads = heads;
        fewer.query.truncate(heads * 576);
        let got = fewer.run(&device, Pieces::Scheduled).expect("runs");
        assert_eq!(got.output[..], all.output[..heads * 512], "{heads} heads");
        assert_eq!(got.lse[..], all.lse[..heads], "{heads} heads");
    }
}
