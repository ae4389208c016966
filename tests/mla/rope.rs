//! Rotary embedding against its oracle, on whatever device there is.

use super::common::{config, device, device_under};
use super::place;
use narrowgauge::mla::{Rope, RopeParameters, RopeTables};
use narrowgauge::verify::rope::{RopeProblem, check_rope, parameters};
use narrowgauge::{Error, Result, Tensor, bf16, verify};
use proptest::prelude::*;

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_case_passes_under_every_schedule() {
    verify::check_family(&device(), "rope", 1).unwrap();
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn queries_are_rotated(
        shape in [0usize..=9, 0usize..=20],
        yarn: bool,
        bad: bool,
        input in place(),
        output in place(),
        seed: u64,
    ) {
        let problem = RopeProblem { shape, yarn, bad, input, output, seed };
        check_rope(&device_under(seed), &problem).map_err(TestCaseError::fail)?;
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
    let made = |parameters: &RopeParameters| wrong(RopeTables::new(&device, parameters).map(drop));
    let plain = parameters(false);
    assert_eq!(made(&RopeParameters { dim: 63, ..plain.clone() }), "dim");
    assert_eq!(made(&RopeParameters { base: 1.0, ..plain.clone() }), "base");
    assert_eq!(made(&RopeParameters { max_positions: 0, ..plain.clone() }), "max_positions");
    let mut yarn = parameters(true);
    yarn.yarn.as_mut().unwrap().factor = f64::NAN;
    assert_eq!(made(&yarn), "yarn.factor");

    let tables = RopeTables::new(&device, &plain).unwrap();
    let narrow = RopeTables::new(&device, &RopeParameters { dim: 32, ..plain }).unwrap();
    let x: Tensor<bf16> = device.zeros(&[4, 2, 64]).unwrap();
    let out: Tensor<bf16> = device.zeros(&[4, 2, 64]).unwrap();
    let positions: Tensor<i32> = device.zeros(&[4]).unwrap();
    let rope = |x: &Tensor<bf16>, positions: &Tensor<i32>, tables: &RopeTables, out: &Tensor<bf16>| {
        wrong(Rope::new(x, positions, tables, out).launch(&stream))
    };
    assert_eq!(rope(&x.slice(2, 0..32).unwrap(), &positions, &tables, &out), "x");
    assert_eq!(rope(&x, &positions.slice(0, 0..3).unwrap(), &tables, &out), "positions");
    assert_eq!(rope(&x, &positions, &narrow, &out), "tables");
    assert_eq!(rope(&x, &positions, &tables, &x), "out");
}
