//! Attention's options: every value of every one, and pairs of them.

use crate::common::{config, device, device_under};
use crate::under_every_schedule;
use narrowgauge::mla::{Attention, CacheLayout, LatentCache};
use narrowgauge::verify::mla::{DecodeCheck, Pieces};
use narrowgauge::{Error, bf16, f16};
use proptest::prelude::*;

fn check(lengths: &[usize], queries: usize, heads: usize) -> DecodeCheck {
    DecodeCheck {
        lengths: lengths.to_vec(),
        queries: vec![queries; lengths.len()],
        ragged: false,
        heads,
        page_tokens: 64,
        causal: true,
        sinks: false,
        pieces: Pieces::Whole,
        seed: 7,
    }
}

fn holds(check: &DecodeCheck) {
    check.check::<bf16>(&device()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_page_size() {
    for (page_tokens, heads) in [(1, 16), (2, 65), (16, 128), (32, 8), (64, 128), (128, 128), (256, 16)] {
        for pieces in [Pieces::Whole, Pieces::Equal(2)] {
            holds(&DecodeCheck { page_tokens, pieces, ..check(&[130, 63], 1, heads) });
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn half_precision_queries_and_caches() {
    for (heads, pieces) in [(16, Pieces::Scheduled), (128, Pieces::Fixed(128))] {
        let check = DecodeCheck { pieces, sinks: true, ..check(&[300, 1, 64], 1, heads) };
        check.check::<f16>(&device()).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn ragged_queries_in_any_cut() {
    for pieces in [Pieces::Whole, Pieces::Scheduled, Pieces::Equal(3), Pieces::Fixed(64)] {
        for (heads, sinks) in [(16, false), (64, true)] {
            let queries = vec![2, 0, 5, 1];
            holds(&DecodeCheck {
                queries,
                ragged: true,
                pieces,
                sinks,
                ..check(&[200, 70, 3, 300], 0, heads)
            });
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn sinks_and_all_tokens() {
    for pieces in [Pieces::Whole, Pieces::Scheduled, Pieces::Equal(2)] {
        holds(&DecodeCheck { causal: false, sinks: true, pieces, ..check(&[70, 0, 330], 3, 16) });
    }
}

/// More sequences than workers, fewer, one long one, empty ones; pieces begin and end anywhere.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn schedules_of_any_batch() {
    let many: Vec<usize> = (0..90).map(|i| i * 7 % 200).collect();
    for (lengths, queries, heads) in
        [(&many[..], 1, 4), (&[2000][..], 1, 16), (&[0, 700, 0, 0, 64, 900][..], 2, 64), (&[0, 0][..], 1, 16)]
    {
        let device = device();
        under_every_schedule(&device, |_| {
            let check = DecodeCheck { pieces: Pieces::Scheduled, ..check(lengths, queries, heads) };
            check.check::<bf16>(&device).unwrap_or_else(|error| panic!("{error}"));
        });
    }
}

/// A sequence's bits are those it has alone, in batches of any size and with any others.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn fixed_pieces_are_batch_invariant() {
    let device = device();
    let run = |batch: usize| {
        let lengths: Vec<usize> = (0..batch).map(|i| if i == 0 { 300 } else { i * 37 % 150 }).collect();
        let check = DecodeCheck { pieces: Pieces::Fixed(128), ..check(&lengths, 1, 16) };
        let inputs = check.inputs::<bf16>();
        let first = DecodeCheck { lengths: vec![300], queries: vec![1], ..check.clone() };
        let mut alone = first.inputs::<bf16>();
        alone.query = inputs.query[..16 * 576].to_vec();
        alone.cache.clone_from(&inputs.cache);
        alone.shape.cache_pages = inputs.shape.cache_pages;
        alone.shape.table_pages = inputs.shape.table_pages;
        alone.table = inputs.table[..inputs.shape.table_pages].to_vec();
        let (all, one) = (
            inputs.run(&device, check.pieces).expect("runs"),
            alone.run(&device, first.pieces).expect("runs"),
        );
        assert_eq!(all.output[..16 * 512], one.output, "{batch} sequences");
        assert_eq!(all.lse[..16], one.lse, "{batch} sequences");
    };
    [1, 2, 3, 17, 64].into_iter().for_each(run);
}

/// The schedule is made when the graph runs.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_graph_schedules_lengths_that_change_in_place() {
    let device = device();
    let check = DecodeCheck { pieces: Pieces::Scheduled, ..check(&[900, 900], 1, 16) };
    let inputs = check.inputs::<bf16>();
    let decode = &inputs.shape;
    let query = device.tensor(&[2, 1, 16, 576], &inputs.query).expect("fits");
    let cache = LatentCache::new(&device, decode.cache_pages).expect("fits");
    cache.tensor().write(&inputs.cache).expect("contiguous");
    let table = device.tensor(&[2, decode.table_pages], &inputs.table).expect("fits");
    let lengths = device.tensor(&[2], &inputs.lengths).expect("fits");
    let out = device.full(&[2, 1, 16, 512], bf16::NAN).expect("fits");
    let operation = Attention::new(&query, &cache, &table, &lengths, &out);
    let workspace = device.zeros::<u8>(&[operation.workspace_bytes()]).expect("fits");
    let operation = operation.workspace(&workspace);
    let stream = device.stream();
    let graph = stream.capture(|s| operation.launch(s)).expect("captures");
    for changed in [[900, 900], [1, 840], [0, 64], [500, 0]] {
        lengths.write(&changed).expect("contiguous");
        out.write(&[bf16::NAN; 2 * 16 * 512]).expect("contiguous");
        graph.launch(&stream).expect("replays");
        let mut eager = inputs.clone();
        eager.lengths = changed.to_vec();
        let mut got = eager.run(&device, check.pieces).expect("runs");
        eager.compare(&mut got, check.pieces).unwrap_or_else(|error| panic!("{changed:?}: {error}"));
        assert_eq!(out.to_vec().expect("readable"), got.output, "{changed:?}");
    }
}

/// Offsets on the device that decrease or leave tokens to nobody: those tokens are not written, and it is reported.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn tokens_of_no_sequence_are_not_written() {
    let device = device();
    let check = DecodeCheck { queries: vec![2, 2], ragged: true, ..check(&[300, 80], 0, 16) };
    let inputs = check.inputs::<bf16>();
    let good = inputs.run(&device, check.pieces).expect("runs");
    let query = device.tensor(&[4, 16, 576], &inputs.query).expect("fits");
    let cache = LatentCache::new(&device, inputs.shape.cache_pages).expect("fits");
    cache.tensor().write(&inputs.cache).expect("contiguous");
    let table = device.tensor(&[2, inputs.shape.table_pages], &inputs.table).expect("fits");
    let lengths = device.tensor(&[2], &inputs.lengths).expect("fits");
    for (given, written) in [([0, 2, 1], 2), ([0, 4, 4], 2), ([4, 2, 0], 0)] {
        let offsets = device.tensor(&[3], &given).expect("fits");
        for scheduled in [false, true] {
            let out = device.full(&[4, 16, 512], bf16::ONE).expect("fits");
            let operation = Attention::new(&query, &cache, &table, &lengths, &out).ragged(&offsets, 2);
            let workspace = device.zeros::<u8>(&[operation.workspace_bytes()]).expect("fits");
            let stream = device.stream();
            let operation = if scheduled { operation.workspace(&workspace) } else { operation };
            operation.launch(&stream).expect("runs");
            assert!(stream.status().expect("runs").bad_offsets(), "{given:?}");
            let (got, rows) = (out.to_vec().expect("readable"), written * 16 * 512);
            if !scheduled {
                assert_eq!(got[..rows], good.output[..rows], "{given:?}");
            }
            assert!(got[rows..].iter().all(|value| *value == bf16::ONE), "{given:?}");
        }
    }
}

#[test]
fn bad_options_are_refused() {
    let device = device();
    let stream = device.stream();
    let out = device.full(&[4, 16, 512], bf16::ONE).expect("fits");
    let q = device.zeros::<bf16>(&[4, 16, 576]).expect("fits");
    let integers = |shape: &[usize]| device.zeros::<i32>(shape).expect("fits");
    let (table, lengths, offsets) = (integers(&[2, 2]), integers(&[2]), integers(&[3]));
    let sinks = device.zeros::<f32>(&[15]).expect("fits");
    let cache = LatentCache::new(&device, 4).expect("fits");
    let argument = |outcome: narrowgauge::Result<()>| match outcome {
        Err(Error::Argument { operation: "Attention", argument, .. }) => argument,
        other => panic!("wanted a refused argument, got {other:?}"),
    };
    let good = || Attention::new(&q, &cache, &table, &lengths, &out).ragged(&offsets, 4);
    assert_eq!(argument(good().sinks(&sinks).launch(&stream)), "sinks");
    assert_eq!(argument(good().piece_tokens(0).launch(&stream)), "piece_tokens");
    assert_eq!(argument(good().piece_tokens(64).launch(&stream)), "workspace");
    assert_eq!(argument(good().ragged(&lengths, 4).launch(&stream)), "offsets");
    let lse = device.zeros::<f32>(&[2, 16, 2]).expect("fits");
    assert_eq!(argument(good().lse(&lse).launch(&stream)), "lse");
    for (page_tokens, layout) in
        [(48, CacheLayout::Bf16), (64, CacheLayout::F16), (48, CacheLayout::Fp8Blocks)]
    {
        let other = LatentCache::with_layout(&device, 4, page_tokens, layout).expect("fits");
        let attention = Attention::new(&q, &other, &table, &lengths, &out).ragged(&offsets, 4);
        assert_eq!(argument(attention.launch(&stream)), "cache");
    }
    assert!(out.to_vec().expect("readable").iter().all(|value| *value == bf16::ONE));
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn drawn_options_stay_within_the_bound(
        sequences in prop::collection::vec((0usize..260, 0usize..4), 1..4),
        heads in prop_oneof![Just(1usize), Just(16), Just(32), Just(64), 1usize..129],
        page in 0u32..8,
        (ragged, causal, sinks, f16s) in any::<(bool, bool, bool, bool)>(),
        pieces in prop_oneof![
            Just(Pieces::Whole), Just(Pieces::Scheduled), (1usize..5).prop_map(Pieces::Equal), (1usize..200).prop_map(Pieces::Fixed)
        ],
        seed in any::<u64>(),
    ) {
        let (lengths, mut queries): (Vec<usize>, Vec<usize>) = sequences.into_iter().unzip();
        if !ragged {
            let first = queries[0].max(1);
            queries.fill(first);
        }
        let check = DecodeCheck { lengths, queries, ragged, heads, page_tokens: 1 << page, causal, sinks, pieces, seed };
        let device = device_under(seed);
        let outcome = if f16s { check.check::<f16>(&device) } else { check.check::<bf16>(&device) };
        prop_assert!(outcome.is_ok(), "{}", outcome.err().unwrap_or_default());
    }
}
