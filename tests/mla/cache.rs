//! The latent cache: what is written into it.

use super::common::{config, device, device_under};
use narrowgauge::mla::{CacheLayout, CacheWrite, LatentCache, RopeTables};
use narrowgauge::verify::latent_cache::{CacheProblem, LAYOUTS, check_cache_write};
use narrowgauge::verify::rope::parameters;
use narrowgauge::verify::surrounded::Place;
use narrowgauge::{Error, Result, Tensor, bf16, verify};
use proptest::prelude::*;

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_case_passes_under_every_schedule() {
    verify::check_family(&device(), "cache", 1).unwrap();
}

/// Aligned and unaligned, alone and as columns of wider rows.
fn place() -> impl Strategy<Value = Place> {
    let aligned = (0usize..=2, 0usize..=2).prop_map(|(offset, padding)| (offset * 8, padding * 64));
    prop_oneof![aligned, (0usize..=9, 0usize..=9)].prop_map(|(offset, padding)| Place { offset, padding })
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
