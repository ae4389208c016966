//! Values of scales and data: kinds 14 to 20.

use super::lab::{Lab, is};
use super::{Row, row};
use crate::dtype::{E4m3, bf16};
use crate::fp8::ScaleLayout;
use crate::gemm::reference::AnyFp8;
use crate::verify::gemm::{Form, Fp8Check, Fp8Inputs, Rows, Values};
use crate::verify::{exact, norm, quant, within};

type Done = Result<(), String>;

const DENSE: Fp8Check<'_> = Fp8Check {
    rows: Rows::Dense(70),
    n: 200,
    k: 256,
    layout: ScaleLayout::RowMajor,
    tile: None,
    values: Values::Normal,
    form: Form::PLAIN,
    seed: 14,
};
const GROUPED: Fp8Check<'_> = Fp8Check { rows: Rows::Groups(&[3, 0, 67]), ..DENSE };

/// The kernel on changed inputs: what the change reaches is as told, everything else has the bits that it had.
fn reaches(
    lab: &Lab<'_>,
    check: Fp8Check<'_>,
    change: impl FnOnce(&mut Fp8Inputs),
    reached: impl Fn(usize, usize) -> bool,
    becomes: impl Fn(f32, f32) -> bool,
) -> Done {
    let inputs = check.inputs();
    let mut changed = inputs.clone();
    change(&mut changed);
    let (before, after) = (check.run::<f32>(lab.device, &inputs)?, check.run::<f32>(lab.device, &changed)?);
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        let (row, column) = (at / check.n, at % check.n);
        let right = match reached(row, column) {
            true => becomes(*before, *after),
            false => before.to_bits() == after.to_bits(),
        };
        is(right, &format!("element ({row}, {column}), which was {before}, may be {after}"))?;
    }
    Ok(())
}

/// The product with changed inputs is what the oracle says.
fn agrees(lab: &Lab<'_>, check: Fp8Check<'_>, change: impl FnOnce(&mut Fp8Inputs)) -> Done {
    let mut inputs = check.inputs();
    change(&mut inputs);
    let got = check.run::<f32>(lab.device, &inputs)?;
    let want = check.expected(&inputs, crate::gemm::reference::Rounding::F32);
    within("the product", &got, &want.values, &want.bounds)
}

fn nan(_: f32, after: f32) -> bool {
    after.is_nan()
}

fn quantised(lab: &Lab<'_>, x: &[f32]) -> Result<(Vec<E4m3>, Vec<f32>), String> {
    let run = || {
        let out = lab.rows(1, x.len());
        let values: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
        crate::quant::Quantize::new(&lab.tensor(&[1, x.len()], &values), &out).launch(&lab.stream)?;
        Ok::<_, crate::Error>((out.data().to_vec()?, out.scales().to_vec()?))
    };
    run().map_err(|error| error.to_string())
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row!(14, "a NaN scale", [
            Propagated "Fp8Gemm, of a" |lab| {
                reaches(lab, DENSE, |inputs| inputs.a_scales[69 * 2] = f32::NAN, |row, _| row == 69, nan)
            },
            Propagated "Fp8Gemm, of b" |lab| {
                reaches(lab, DENSE, |inputs| inputs.b_scales[3] = f32::NAN, |_, column| column >= 128, nan)
            },
            Propagated "GroupedFp8Gemm, of b" |lab| {
                let reached = |row, column| row < 3 && column < 128;
                reaches(lab, GROUPED, |inputs| inputs.b_scales[1] = f32::NAN, reached, nan)
            },
        ]),
        row!(15, "an infinite scale", [
            Propagated "Fp8Gemm" |lab| {
                let change = |inputs: &mut Fp8Inputs| inputs.a_scales[2 * 2 + 1] = f32::INFINITY;
                reaches(lab, DENSE, change, |row, _| row == 2, |_, after| !after.is_finite())
            },
            Propagated "GroupedFp8Gemm" |lab| {
                let change = |inputs: &mut Fp8Inputs| inputs.b_scales[2 * 4] = f32::INFINITY;
                let reached = |row, column| row >= 3 && column < 128;
                reaches(lab, GROUPED, change, reached, |_, after| !after.is_finite())
            },
        ]),
        row!(16, "a scale of zero", [
            Works "Fp8Gemm" |lab| {
                let change = |inputs: &mut Fp8Inputs| inputs.a_scales[7 * 2..8 * 2].fill(0.0);
                reaches(lab, DENSE, change, |row, _| row == 7, |_, after| after == 0.0)
            },
            Works "GroupedFp8Gemm" |lab| agrees(lab, GROUPED, |inputs| inputs.b_scales.fill(0.0)),
        ]),
        row!(17, "a negative or subnormal scale", [
            Works "Fp8Gemm, negative" |lab| {
                let change = |inputs: &mut Fp8Inputs| inputs.a_scales[5 * 2..6 * 2].iter_mut().for_each(|x| *x = -*x);
                reaches(lab, DENSE, change, |row, _| row == 5, |before, after| after == -before)
            },
            // Two values of this size would multiply to nothing: only one side has it.
            Works "Fp8Gemm, subnormal" |lab| {
                let tiny = f32::MIN_POSITIVE / 8.0;
                let change = |inputs: &mut Fp8Inputs| {
                    inputs.a_scales.fill(tiny);
                    inputs.b_scales.fill(1.0 / f32::MIN_POSITIVE);
                };
                agrees(lab, DENSE, change)
            },
        ]),
        row!(18, "FP8 data that is NaN", [
            Propagated "Fp8Gemm, a" |lab| {
                reaches(lab, DENSE, |inputs| inputs.a[3 * 256 + 200] = AnyFp8::E4m3(E4m3::NAN), |row, _| row == 3, nan)
            },
            Propagated "Fp8Gemm, b" |lab| {
                let change = |inputs: &mut Fp8Inputs| inputs.b[66 * 256] = AnyFp8::E4m3(E4m3::from_bits(0xFF));
                reaches(lab, DENSE, change, |_, column| column == 66, nan)
            },
            Propagated "GroupedFp8Gemm, b" |lab| {
                let change = |inputs: &mut Fp8Inputs| inputs.b[(2 * 200 + 131) * 256 + 1] = AnyFp8::E4m3(E4m3::NAN);
                reaches(lab, GROUPED, change, |row, column| row >= 3 && column == 131, nan)
            },
        ]),
        row!(19, "infinities, NaN, zeros and subnormals to quantise", [
            Works "Quantize" |lab| {
                let values = quant::Values::AnyBits;
                quant::check(lab.device, &quant::Problem { rows: 20, values, ..Default::default() }).map(drop)
            },
            Works "Quantize, all zeros" |lab| {
                let (codes, scales) = quantised(lab, &[0.0; 128])?;
                is(scales[0] > 0.0 && scales[0].is_normal(), "the scale is a normal number")?;
                exact("codes", &codes, &[E4m3::ZERO; 128])
            },
            Propagated "Quantize, NaN" |lab| {
                let mut x = [1.0; 256];
                x[200] = f32::NAN;
                let (codes, scales) = quantised(lab, &x)?;
                is(scales.iter().all(|scale| scale.is_finite() && *scale > 0.0), "scales are numbers")?;
                is(codes[200].is_nan(), "the NaN is kept")?;
                is(codes.iter().filter(|code| code.is_nan()).count() == 1, "and is alone")
            },
            Propagated "RmsNorm, NaN" |lab| {
                let mut x = [bf16::ONE; 3 * 64];
                x[64 + 5] = bf16::NAN;
                let (x, weight) = (lab.tensor(&[3, 64], &x), lab.tensor(&[64], &[bf16::ONE; 64]));
                let got = lab.writes::<bf16>(&[3, 64], |out, stream| {
                    crate::norm::RmsNorm::new(&x, &weight, out).launch(stream)
                })?;
                is(got[64..128].iter().all(|x| x.is_nan()), "its row is NaN")?;
                is(got[..64].iter().chain(&got[128..]).all(|x| x.is_finite()), "and no other")
            },
            Works "RmsNorm, zeros" |lab| {
                let (x, weight) = (lab.halves(&[2, 64]), lab.tensor(&[64], &[bf16::ONE; 64]));
                let got = lab.writes::<bf16>(&[2, 64], |out, stream| {
                    crate::norm::RmsNorm::new(&x, &weight, out).launch(stream)
                })?;
                exact("zeros", &got, &[bf16::ZERO; 128])
            },
            Works "RmsNormQuantize" |lab| norm::check_quantized(lab.device, &norm::Problem::default()).map(drop),
        ]),
        row!(20, "values beyond 448 to quantise", [
            Works "Quantize" |lab| {
                let (codes, scales) = quantised(lab, &[1e30, -1e30, 1e29, 0.0])?;
                let back: Vec<f32> = codes.iter().map(|code| code.to_f32()).collect();
                exact("codes", &back[..2], &[448.0, -448.0])?;
                is(scales[0].is_finite(), "the scale takes it all")
            },
            Works "E4m3::from_f32" |_lab| {
                let codes = [1e9, -449.0, f32::INFINITY, 448.0].map(|x| E4m3::from_f32(x).to_f32());
                exact("codes", &codes, &[448.0, -448.0, 448.0, 448.0])
            },
        ]),
    ]
}
