//! The latent cache: what is written into it, rows out of it, and pages moved.

use super::common::{config, device, device_under};
use super::place;
use narrowgauge::mla::{
    CacheGather, CacheLayout, CachePageCopy, CachePageSwap, CacheWrite, LatentCache, RopeTables,
};
use narrowgauge::verify::latent_cache::{
    CacheProblem, GatherProblem, LAYOUTS, PagesProblem, check_cache_gather, check_cache_pages,
    check_cache_write,
};
use narrowgauge::verify::mla::CachedAttention;
use narrowgauge::verify::rope::parameters;
use narrowgauge::{Error, Result, Tensor, bf16, verify};
use proptest::prelude::*;

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_case_passes_under_every_schedule() {
    verify::check_family(&device(), "cache", 1).unwrap();
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn tokens_are_cached(
        tokens in 0usize..=64,
        pages in 1usize..=9,
        page_tokens in prop_oneof![Just(1usize), Just(16), Just(32), Just(64), Just(128), 1usize..=80],
        layout in 0usize..4,
        f16: bool,
        bad: bool,
        place in place(),
        seed: u64,
    ) {
        let layout = LAYOUTS[layout];
        let problem = CacheProblem { tokens, pages, page_tokens, layout, f16, bad, place, seed };
        check_cache_write(&device_under(seed), &problem).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn rows_are_gathered(
        rows in prop::collection::vec(0usize..=70, 0..=40),
        starts: bool,
        page_tokens in prop_oneof![Just(1usize), Just(16), Just(32), Just(64), Just(128), 1usize..=80],
        layout in 0usize..4,
        f16: bool,
        bad: bool,
        place in place(),
        seed: u64,
    ) {
        let layout = LAYOUTS[layout];
        let problem = GatherProblem { rows, starts, page_tokens, layout, f16, bad, place, seed };
        check_cache_gather(&device_under(seed), &problem).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn pages_are_moved(
        pairs in 0usize..=9,
        page_tokens in prop_oneof![Just(1usize), Just(16), Just(64), 1usize..=40],
        layout in 0usize..4,
        swap: bool,
        within: bool,
        bad: bool,
        seed: u64,
    ) {
        let layout = LAYOUTS[layout];
        let problem = PagesProblem { pairs, page_tokens, layout, swap, within, bad, seed };
        check_cache_pages(&device_under(seed), &problem).map_err(TestCaseError::fail)?;
    }
}

fn wrong(result: Result<()>) -> &'static str {
    match result {
        Err(Error::Argument { argument, .. }) => argument,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_arguments_of_writes_are_named() {
    let device = device();
    let stream = device.stream();
    let tables = RopeTables::new(&device, &parameters(false)).unwrap();
    let latent: Tensor<bf16> = device.zeros(&[4, 512]).unwrap();
    let key: Tensor<bf16> = device.zeros(&[4, 64]).unwrap();
    let positions: Tensor<i32> = device.zeros(&[4]).unwrap();
    let cache = LatentCache::with_layout(&device, 1, 64, CacheLayout::Bf16).unwrap();
    let write = |latent: &Tensor<bf16>, key: &Tensor<bf16>, slots: &Tensor<i32>| {
        wrong(CacheWrite::new(latent, key, &positions, slots, &tables, &cache).launch(&stream))
    };
    assert_eq!(write(&latent.slice(1, 0..511).unwrap(), &key, &positions), "latent");
    assert_eq!(write(&latent, &key.slice(0, 0..3).unwrap(), &positions), "key_rope");
    assert_eq!(write(&latent, &key, &positions.slice(0, 0..3).unwrap()), "slots");
    let inside = cache.tensor().select(0, 0).unwrap().slice(0, 0..4).unwrap().slice(1, 0..512).unwrap();
    assert_eq!(write(&inside, &key, &positions), "cache");
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn decreasing_offsets_stay_inside() {
    let device = device_under(3);
    let stream = device.stream();
    let cache = LatentCache::new(&device, 2).unwrap();
    let out = device.full(&[6, 576], bf16::ONE).unwrap();
    let table: Tensor<i32> = device.zeros(&[3, 1]).unwrap();
    for offsets in [[0, 4, 2, 6], [-3, 1, 2, 3], [0, 1, 2, 7], [i32::MAX, i32::MIN, i32::MAX, i32::MIN]] {
        let offsets = device.tensor(&[4], &offsets).unwrap();
        CacheGather::new(&cache, &table, &offsets, &out).launch(&stream).unwrap();
        assert!(stream.status().unwrap().bad_offsets());
    }
}

#[test]
fn bad_arguments_of_gatherings_and_moves_are_named() {
    let device = device();
    let stream = device.stream();
    let cache = LatentCache::with_layout(&device, 4, 16, CacheLayout::Fp8Blocks).unwrap();
    let out: Tensor<bf16> = device.zeros(&[8, 576]).unwrap();
    let (table, offsets) = (device.zeros(&[2, 3]).unwrap(), device.zeros(&[3]).unwrap());
    let gather = |table: &Tensor<i32>, offsets: &Tensor<i32>, out: &Tensor<bf16>| {
        wrong(CacheGather::new(&cache, table, offsets, out).launch(&stream))
    };
    assert_eq!(gather(&table.select(0, 0).unwrap(), &offsets, &out), "page_table");
    assert_eq!(gather(&table, &offsets.slice(0, 0..2).unwrap(), &out), "offsets");
    assert_eq!(gather(&table, &offsets, &out.slice(1, 0..512).unwrap()), "out");
    assert_eq!(gather(&table, &offsets, &out.slice(0, 0..1).unwrap().expand(0, 4).unwrap()), "out");
    let short = CacheGather::new(&cache, &table, &offsets, &out);
    assert_eq!(wrong(short.starts(&offsets).launch(&stream)), "starts");

    let pairs: Tensor<i32> = device.zeros(&[2, 2]).unwrap();
    let flat = LatentCache::with_layout(&device, 4, 16, CacheLayout::Fp8Flat { scale: 1.0 }).unwrap();
    let wide = LatentCache::with_layout(&device, 4, 32, CacheLayout::Fp8Blocks).unwrap();
    let half = LatentCache::over(cache.memory().slice(0, 1..3).unwrap(), CacheLayout::Fp8Blocks).unwrap();
    assert_eq!(wrong(CachePageCopy::new(&cache, &cache, &offsets).launch(&stream)), "pairs");
    assert_eq!(wrong(CachePageCopy::new(&cache, &flat, &pairs).launch(&stream)), "target");
    assert_eq!(wrong(CachePageSwap::new(&cache, &wide, &pairs).launch(&stream)), "second");
    assert_eq!(wrong(CachePageSwap::new(&cache, &half, &pairs).launch(&stream)), "second");
    let odd = device.zeros::<i32>(&[5]).unwrap().as_strided(1, &[2, 2], &[2, 1]).unwrap();
    assert_eq!(wrong(CachePageCopy::new(&cache, &cache, &odd).launch(&stream)), "pairs");
}

/// Both layouts, both types, every page size, one block of threads and clusters of two.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn attention_over_fp8_is_that_over_the_same_tokens() {
    let device = device();
    let flat = CacheLayout::Fp8Flat { scale: 0.02 };
    for (layout, page_tokens, rows, splits, f16) in [
        (CacheLayout::Fp8Blocks, 64, [1, 16], None, false),
        (flat, 64, [1, 16], Some(1), false),
        (CacheLayout::Fp8Blocks, 16, [2, 64], Some(2), false),
        (flat, 1, [1, 128], Some(3), false),
        (CacheLayout::Fp8Blocks, 128, [1, 65], Some(1), true),
        (flat, 32, [1, 6], None, true),
        (CacheLayout::Fp8Blocks, 1, [3, 5], None, true),
    ] {
        let lengths = vec![200, 0, 65, 64, 1];
        let check = CachedAttention { lengths, rows, layout, page_tokens, splits, f16, seed: 5 };
        check.check(&device).unwrap_or_else(|error| panic!("{check:?}: {error}"));
    }
}
