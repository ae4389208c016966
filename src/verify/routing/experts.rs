//! SwiGLU with quantisation, and the weighted sum.

use super::super::quant::Fp8Output;
use super::super::surrounded::{Place, Surrounded, rounded_to_bf16, text};
use super::super::{Evidence, Source, exact};
use super::UNIT;
use super::permutation::{draw_ids, permuted};
use crate::device::Device;
use crate::dtype::bf16;
use crate::fp8::ScaleLayout;
use crate::quant::reference as quantization;
use crate::routing::reference::{self, Parts};
use crate::routing::{Combine, SwigluQuantize};

/// One SwiGLU with quantisation.
#[derive(Debug, Clone, Copy)]
pub struct SwigluProblem {
    /// Rows; a multiple of two where some are not routed.
    pub rows: usize,
    /// I.
    pub columns: usize,
    /// Columns between gate and up.
    pub gap: usize,
    /// Whether scales are powers of two.
    pub power_of_two: bool,
    /// Whether the last rows belong to no entry; the memory there is NaN.
    pub unrouted: bool,
    /// How the input lies.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// Runs one SwiGLU with quantisation. Scales may differ by the error of the activation, codes by what that error and the
/// scale that came out allow: mostly not at all.
pub fn check_swiglu(device: &Device, problem: &SwigluProblem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let SwigluProblem { rows, columns, gap, power_of_two, unrouted, place, seed } = *problem;
    let mut source = Source::new(seed);
    let width = 2 * columns + gap;
    let valid = if unrouted { rows / 2 } else { rows };
    let mut input = Source::to_bf16(&source.normals(rows * width, 4.0));
    input[valid * width..].fill(bf16::NAN);
    for row in input.chunks_mut(width.max(1)) {
        row[columns..columns + gap].fill(bf16::NAN);
    }
    let gate_up = Surrounded::input(device, &[rows, width], place, &input).map_err(text)?;
    let out = Fp8Output::new(device, rows, columns, ScaleLayout::MnMajor).map_err(text)?;
    let stream = device.stream();
    let mut swiglu =
        SwigluQuantize::new(gate_up.view(), &out.rows).up_offset(columns + gap).power_of_two(power_of_two);
    let permutation;
    if unrouted {
        let ids: Vec<_> = (0..rows).map(|row| if row % 2 == 0 { 0 } else { -1 }).collect();
        (permutation, _) = permuted(device, [rows / 2, 2, 4], &ids)?;
        swiglu = swiglu.permutation(&permutation);
    }
    swiglu.launch(&stream).map_err(text)?;
    let (codes, scales) = out.finish(&mut evidence)?;

    // Exponential 4 roundings, its sum with 1 one more, reciprocal two, both products one each, and one to spare.
    let error = 10.0 * UNIT;
    let wide: Vec<_> = input.iter().map(|x| x.to_f64()).collect();
    let groups = columns.div_ceil(128);
    for row in 0..rows {
        for group in 0..groups {
            let range = group * 128..columns.min((group + 1) * 128);
            let values: Vec<_> = range
                .clone()
                .map(|column| match row < valid {
                    true => {
                        let at = row * width + column;
                        reference::swiglu(wide[at], wide[at + columns + gap])
                    }
                    false => 0.0,
                })
                .collect();
            let scale = scales[row * groups + group];
            let scale_of = |error: f64| {
                let values: Vec<_> = values.iter().map(|value| value * (1.0 + error)).collect();
                quantization::scale(&values, power_of_two)
            };
            let (low, high) = (scale_of(-error), scale_of(error));
            if !(low..=high).contains(&scale) {
                return Err(format!(
                    "scale of row {row}, group {group}: got {scale:e}, want {low:e} to {high:e}"
                ));
            }
            for (column, value) in range.zip(values) {
                // The reciprocal of the scale and the product round once each.
                let encode = |sign: f64| {
                    let scaled = value / f64::from(scale);
                    quantization::decode_e4m3(quantization::encode_e4m3(
                        scaled * (1.0 + sign * (error + 3.0 * UNIT)),
                    ))
                };
                let (a, b) = (encode(-1.0), encode(1.0));
                let got = quantization::decode_e4m3(codes[row * columns + column]);
                if !(a.min(b)..=a.max(b)).contains(&got) {
                    return Err(format!(
                        "row {row}, column {column}: got {got}, want {a} to {b} of {value:e} / {scale:e}"
                    ));
                }
            }
        }
    }
    evidence.bounded += (codes.len() + scales.len()) as u64;
    evidence.zeros += codes.iter().filter(|code| **code & 0x7F == 0).count() as u64;
    exact("status", &[stream.status().map_err(text)?.bits()], &[0])?;
    Ok(evidence)
}

/// One weighted sum.
#[derive(Debug, Clone, Copy)]
pub struct CombineProblem {
    /// T, k and E.
    pub shape: [usize; 3],
    /// H.
    pub columns: usize,
    /// Whether shared experts are added.
    pub shared: bool,
    /// Whether values are integers and weights powers of two, so that the sum is exact.
    pub exact: bool,
    /// Whether some ids are outside the experts.
    pub bad: bool,
    /// How inputs and output lie.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// Runs one weighted sum.
pub fn check_combine(device: &Device, problem: &CombineProblem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let CombineProblem { shape, columns, shared, exact: exact_values, bad, place, seed } = *problem;
    let [tokens, slots, experts] = shape;
    let entries = tokens * slots;
    let (permutation, order) = permuted(device, shape, &draw_ids(entries, experts, bad, seed))?;
    let mut source = Source::new(seed);
    let mut draw = |len| match exact_values {
        true => source.integers(len, 8),
        false => source.normals(len, 3.0),
    };
    let mut rows = Source::to_bf16(&draw(entries * columns));
    let shared_rows = Source::to_bf16(&draw(tokens * columns));
    // No entry was routed to the rows behind the last offset.
    rows[order.offsets[experts] as usize * columns..].fill(bf16::NAN);
    let weights: Vec<f32> = match exact_values {
        true => source.powers(entries, -2, 1),
        false => source.uniforms(entries, 0.0, 1.0),
    };
    let inputs = Surrounded::input(device, &[entries, columns], place, &rows).map_err(text)?;
    let added =
        Surrounded::input(device, &[tokens, columns], Place::default(), &shared_rows).map_err(text)?;
    let factors = Surrounded::input(device, &[tokens, slots], Place::default(), &weights).map_err(text)?;
    let out = Surrounded::output(device, &[tokens, columns], place).map_err(text)?;
    let mut combine = Combine::new(inputs.view(), &permutation, factors.view(), out.view());
    if shared {
        combine = combine.shared(added.view());
    }
    combine.launch(&device.stream()).map_err(text)?;
    let got = out.finish("sums", &mut evidence)?;

    let wide = |values: &[bf16]| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let (rows, shared_rows) = (wide(&rows), wide(&shared_rows));
    let weights: Vec<_> = weights.iter().map(|w| f64::from(*w)).collect();
    let (mut want, mut bound) = (Vec::new(), Vec::new());
    for token in 0..tokens {
        let (sums, magnitudes) = reference::combine(&Parts {
            rows: &rows,
            columns,
            position: &order.position[token * slots..(token + 1) * slots],
            weights: &weights[token * slots..(token + 1) * slots],
            shared: shared.then(|| &shared_rows[token * columns..(token + 1) * columns]),
        });
        for (sum, magnitude) in sums.into_iter().zip(magnitudes) {
            // A chain of k fused multiply-adds and an addition.
            let error = if exact_values { 0.0 } else { (slots + 1) as f64 * UNIT * magnitude };
            let (rounded, off) = rounded_to_bf16(sum, error);
            want.push(rounded);
            bound.push(off);
        }
    }
    let got: Vec<_> = got.iter().map(|x| x.to_f32()).collect();
    evidence.within_rounded("sums", &got, &want, &bound)?;
    device.stream().status().map(drop).map_err(text)?;
    Ok(evidence)
}
