//! Quantisation against its oracle, on whatever device there is.

#[path = "../common/mod.rs"]
mod common;

use common::{config, device, device_under};
use narrowgauge::quant::Quantize;
use narrowgauge::verify::quant::{Problem, Values, check};
use narrowgauge::verify::surrounded::Place;
use narrowgauge::{Device, E4m3, Error, Fp8Rows, ScaleLayout, Tensor, bf16, verify};
use proptest::prelude::*;

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_case_passes_under_every_schedule() {
    verify::check_family(&device(), "quant", 1).unwrap();
}

fn problems() -> impl Strategy<Value = Problem> {
    let columns = prop_oneof![1usize..=700, (1usize..=12).prop_map(|groups| groups * 128)];
    let values = prop_oneof![Just(Values::Normal), Just(Values::Integers), Just(Values::AnyBits)];
    let layout = prop_oneof![Just(ScaleLayout::RowMajor), Just(ScaleLayout::MnMajor)];
    (0usize..=20, columns, layout, any::<bool>(), values, (0usize..=9, 0usize..=9), any::<u64>()).prop_map(
        |(rows, columns, layout, power_of_two, values, (offset, padding), seed)| Problem {
            rows,
            columns,
            layout,
            power_of_two,
            values,
            place: Place { offset, padding },
            seed,
        },
    )
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn codes_and_scales_are_those_of_the_oracle(problem in problems()) {
        check(&device_under(problem.seed), &problem).map_err(TestCaseError::fail)?;
    }
}

fn quantized(device: &Device, x: &[bf16], rows: usize, columns: usize) -> (Vec<E4m3>, Vec<f32>) {
    let out = Fp8Rows::empty(device, rows, columns, ScaleLayout::RowMajor).unwrap();
    let x = device.tensor(&[rows, columns], x).unwrap();
    Quantize::new(&x, &out).launch(&device.stream()).unwrap();
    (out.data().to_vec().unwrap(), out.scales().to_vec().unwrap())
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_row_does_not_depend_on_the_others() {
    let device = device();
    const COLUMNS: usize = 640;
    let row = verify::quant::draw(Values::Normal, 1, COLUMNS, 3);
    let alone = quantized(&device, &row, 1, COLUMNS);
    for rows in [2, 9, 33] {
        for at in [0, rows / 2, rows - 1] {
            let mut x = verify::quant::draw(Values::AnyBits, rows, COLUMNS, 4);
            x[at * COLUMNS..(at + 1) * COLUMNS].copy_from_slice(&row);
            let (codes, scales) = quantized(&device, &x, rows, COLUMNS);
            assert_eq!(codes[at * COLUMNS..(at + 1) * COLUMNS], alone.0);
            assert_eq!(scales[at * 5..(at + 1) * 5], alone.1);
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn dequantised_values_are_within_half_a_step() {
    let device = device();
    const COLUMNS: usize = 1024;
    let x = verify::Source::to_bf16(&verify::Source::new(9).normals(4 * COLUMNS, 10.0));
    let (codes, scales) = quantized(&device, &x, 4, COLUMNS);
    for (index, (x, code)) in x.iter().zip(&codes).enumerate() {
        let scale = f64::from(scales[index / 128]);
        // Three bits behind the point: half a step is 1/16 of the value, or half of the smallest step, 2^-9.
        let bound = (x.to_f64().abs() / 16.0).max(scale * 2f64.powi(-10)) * (1.0 + 2f64.powi(-22));
        let error = (f64::from(code.to_f32()) * scale - x.to_f64()).abs();
        assert!(error <= bound, "element {index}: {x} became {code:?} times {scale}");
    }
}

#[test]
fn bad_arguments_are_named() {
    let device = device();
    let stream = device.stream();
    let x: Tensor<bf16> = device.zeros(&[4, 256]).unwrap();
    let out = Fp8Rows::empty(&device, 4, 256, ScaleLayout::RowMajor).unwrap();
    let wrong = |x: &Tensor<bf16>, out: &Fp8Rows| match Quantize::new(x, out).launch(&stream) {
        Err(Error::Argument { operation: "Quantize", argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    assert_eq!(wrong(&device.zeros(&[4, 256, 1]).unwrap(), &out), "x");
    assert_eq!(wrong(&device.zeros(&[5, 256]).unwrap(), &out), "out");
    assert_eq!(wrong(&device.zeros::<bf16>(&[256, 4]).unwrap().transpose(0, 1).unwrap(), &out), "x");
    let one_scale = device.zeros::<f32>(&[1, 2]).unwrap().expand(0, 4).unwrap();
    let same = Fp8Rows::new(out.data().clone(), one_scale).unwrap();
    assert_eq!(wrong(&x, &same), "out.scales");
    let elsewhere = verify::device().unwrap();
    let foreign: Tensor<bf16> = elsewhere.zeros(&[4, 256]).unwrap();
    if elsewhere != device {
        assert_eq!(wrong(&foreign, &out), "x");
    }
}
