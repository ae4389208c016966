//! Norms and the residual add against their oracles, on whatever device there is.

#[path = "../common/mod.rs"]
mod common;

use common::{config, device, device_under};
use narrowgauge::norm::{Add, RmsNorm, RmsNormQuantize};
use narrowgauge::verify::norm::{Problem, check, check_add, check_quantized};
use narrowgauge::verify::surrounded::Place;
use narrowgauge::{Device, Error, Fp8Rows, Result, ScaleLayout, Tensor, bf16, verify};
use proptest::prelude::*;

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_case_passes_under_every_schedule() {
    verify::check_family(&device(), "norm", 1).unwrap();
}

fn problems() -> impl Strategy<Value = Problem> {
    let columns = prop_oneof![1usize..=700, (1usize..=12).prop_map(|groups| groups * 128)];
    let epsilon = prop_oneof![Just(1e-6f32), Just(1e-5), Just(1.0)];
    (0usize..=7, columns, epsilon, any::<bool>(), (0usize..=9, 0usize..=9), any::<u64>()).prop_map(
        |(rows, columns, epsilon, power_of_two, (offset, padding), seed)| Problem {
            rows,
            columns,
            epsilon,
            power_of_two,
            // A mean of equal powers of two is exact where the division by the number of columns is.
            exact: columns.is_power_of_two(),
            place: Place { offset, padding },
            seed: seed >> 1,
        },
    )
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn norms_are_within_the_bound(problem in problems()) {
        check(&device_under(problem.seed), &problem).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn fused_quantisation_is_that_of_the_norm(problem in problems()) {
        check_quantized(&device_under(problem.seed), &problem).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn sums_are_exact(problem in problems(), in_place: bool) {
        check_add(&device_under(problem.seed), &problem, in_place).map_err(TestCaseError::fail)?;
    }
}

fn normed(device: &Device, x: &[bf16], weight: &[bf16]) -> Vec<bf16> {
    let columns = weight.len();
    let x = device.tensor(&[x.len() / columns, columns], x).unwrap();
    let weight = device.tensor(&[columns], weight).unwrap();
    let out = device.empty(x.shape()).unwrap();
    RmsNorm::new(&x, &weight, &out).launch(&device.stream()).unwrap();
    out.to_vec().unwrap()
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_row_does_not_depend_on_the_others() {
    let device = device();
    const COLUMNS: usize = 1536;
    let mut source = verify::Source::new(5);
    let mut draw = |len| verify::Source::to_bf16(&source.normals(len, 1.0));
    let (weight, row) = (draw(COLUMNS), draw(COLUMNS));
    let alone = normed(&device, &row, &weight);
    for rows in [2, 17] {
        for at in [0, rows / 2, rows - 1] {
            let mut x = draw(rows * COLUMNS);
            x[at * COLUMNS..][..COLUMNS].copy_from_slice(&row);
            assert_eq!(normed(&device, &x, &weight)[at * COLUMNS..][..COLUMNS], alone);
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn nan_stays_in_its_row_and_zeros_stay_zeros() {
    let device = device();
    let mut x = vec![bf16::ZERO; 3 * 256];
    x[256 + 7] = bf16::NAN;
    let got = normed(&device, &x, &[bf16::ONE; 256]);
    assert!(got[..256].iter().chain(&got[512..]).all(|x| *x == bf16::ZERO));
    assert!(got[256..512].iter().all(|x| x.is_nan()));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_norm_may_overwrite_its_input() {
    let device = device();
    let x = verify::Source::to_bf16(&verify::Source::new(6).normals(4 * 300, 1.0));
    let weight = vec![bf16::from_f32(1.5); 300];
    let want = normed(&device, &x, &weight);
    let x = device.tensor(&[4, 300], &x).unwrap();
    let weight = device.tensor(&[300], &weight).unwrap();
    RmsNorm::new(&x, &weight, &x).launch(&device.stream()).unwrap();
    assert_eq!(x.to_vec().unwrap(), want);
}

#[test]
fn bad_arguments_are_named() {
    let device = device();
    let stream = device.stream();
    let zeros = |shape: &[usize]| -> Tensor<bf16> { device.zeros(shape).unwrap() };
    let wrong = |result: Result<()>| match result {
        Err(Error::Argument { argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    let (x, weight, out) = (zeros(&[4, 64]), zeros(&[64]), zeros(&[4, 64]));
    let norm = |x: &Tensor<bf16>, weight: &Tensor<bf16>, out: &Tensor<bf16>| {
        wrong(RmsNorm::new(x, weight, out).launch(&stream))
    };
    assert_eq!(norm(&zeros(&[64]), &weight, &out), "x");
    assert_eq!(norm(&x, &zeros(&[63]), &out), "weight");
    assert_eq!(norm(&x, &weight, &zeros(&[5, 64])), "out");
    assert_eq!(norm(&x, &weight, &zeros(&[64, 4]).transpose(0, 1).unwrap()), "out");
    let wide = zeros(&[5, 64]);
    assert_eq!(norm(&wide.slice(0, 0..4).unwrap(), &weight, &wide.slice(0, 1..5).unwrap()), "out");
    assert_eq!(wrong(RmsNorm::new(&x, &weight, &out).epsilon(f32::NAN).launch(&stream)), "epsilon");
    assert_eq!(wrong(RmsNorm::new(&x, &weight, &out).epsilon(-1.0).launch(&stream)), "epsilon");

    let codes = Fp8Rows::empty(&device, 4, 64, ScaleLayout::MnMajor).unwrap();
    let fused = RmsNormQuantize::new(&x, &weight, &codes);
    assert_eq!(wrong(fused.bf16_output(&zeros(&[4, 65])).launch(&stream)), "bf16_output");
    let short = codes.slice_rows(0..3).unwrap();
    assert_eq!(wrong(RmsNormQuantize::new(&x, &weight, &short).launch(&stream)), "out");

    assert_eq!(wrong(Add::new(&x, &zeros(&[4, 65]), &out).launch(&stream)), "b");
    assert_eq!(
        wrong(Add::new(&wide.slice(0, 0..4).unwrap(), &x, &wide.slice(0, 1..5).unwrap()).launch(&stream)),
        "out"
    );
}
