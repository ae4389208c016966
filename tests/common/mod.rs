//! What the families' property tests share.

use narrowgauge::{Device, verify};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;
use std::hash::{BuildHasher, RandomState};

/// The device that `NARROWGAUGE_DEVICE` names.
pub fn device() -> Device {
    verify::device().unwrap()
}

/// The device under the completion policy that a seed chooses.
pub fn device_under(seed: u64) -> Device {
    verify::device_under(seed).unwrap()
}

/// So many drawn cases (`PROPTEST_CASES` asks for others), from a fresh seed or that of `PROPTEST_RNG_SEED`. A failing test
/// shows the line that draws the same cases again.
pub fn config(cases: u32) -> ProptestConfig {
    let given = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = given("PROPTEST_RNG_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let cases = given("PROPTEST_CASES").map_or(cases, |cases| cases.min(u64::from(u32::MAX)) as u32);
    println!(
        "again: PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases} cargo test -p narrowgauge --test {} {}",
        env!("CARGO_CRATE_NAME"),
        std::thread::current().name().unwrap_or_default()
    );
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
