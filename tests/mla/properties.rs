//! Relations between attentions, over drawn shapes and schedules.

use crate::common::{config, device_under};
use narrowgauge::verify::mla::properties::{Property, holds};
use proptest::prelude::*;

proptest! {
    #![proptest_config(config(24))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn attentions_are_related(
        property in prop::sample::select(&Property::ALL[..]),
        lengths in prop::collection::vec(1usize..170, 1..4),
        (tokens, heads) in (1usize..5, 1usize..24),
        splits in prop_oneof![Just(None), (1usize..5).prop_map(Some)],
        seed in any::<u64>(),
    ) {
        let device = device_under(seed);
        holds(&device, property, &lengths, [tokens, heads], splits, seed).map_err(TestCaseError::fail)?;
    }
}
