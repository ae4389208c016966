//! Relations between routings, over drawn tokens and schedules.

use crate::common::{config, device_under};
use narrowgauge::verify::routing::properties::{Property, holds};
use proptest::prelude::*;

proptest! {
    #![proptest_config(config(60))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn routings_are_related(
        property in prop::sample::select(&Property::ALL[..]),
        tokens in 1usize..40,
        seed in any::<u64>(),
    ) {
        holds(&device_under(seed), property, tokens, seed).map_err(TestCaseError::fail)?;
    }
}
