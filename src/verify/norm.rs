//! Norms and the residual add against their oracles.

use super::quant::{Fp8Output, Values, draw};
use super::surrounded::{Place, Surrounded, bits, text};
use super::{Case, Evidence, Source};
use crate::device::Device;
use crate::dtype::bf16;
use crate::fp8::ScaleLayout;
use crate::norm::{Add, RmsNorm, RmsNormQuantize, reference};
use crate::quant::reference as quantization;

/// One norm.
#[derive(Debug, Clone, Copy)]
pub struct Problem {
    /// M.
    pub rows: usize,
    /// N.
    pub columns: usize,
    /// What is added to the mean of squares.
    pub epsilon: f32,
    /// Whether scales of the fused quantisation are powers of two.
    pub power_of_two: bool,
    /// Whether rows have one magnitude, so that the answer is exact.
    pub exact: bool,
    /// How inputs and outputs lie.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

impl Default for Problem {
    fn default() -> Self {
        Self {
            rows: 3,
            columns: 1536,
            epsilon: 1e-6,
            power_of_two: false,
            exact: false,
            place: Place::default(),
            seed: 1,
        }
    }
}

impl Problem {
    fn inputs(&self) -> (Vec<bf16>, Vec<bf16>) {
        let mut source = Source::new(self.seed);
        let x = if self.exact {
            let row = |source: &mut Source| {
                let magnitude = source.integer(-6, 6).exp2();
                (0..self.columns).map(|_| magnitude * (source.integer(0, 1) * 2.0 - 1.0)).collect::<Vec<_>>()
            };
            Source::to_bf16(&(0..self.rows).flat_map(|_| row(&mut source)).collect::<Vec<_>>())
        } else {
            draw(Values::Normal, self.rows, self.columns, self.seed)
        };
        let weight = source.uniforms(self.columns, -2.0, 2.0);
        (x, Source::to_bf16(&weight))
    }

    /// Oracle and bound of every output.
    fn expected(&self, x: &[bf16], weight: &[bf16]) -> (Vec<f64>, Vec<f64>) {
        let wide = |values: &[bf16]| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
        let (x, weight) = (wide(x), wide(weight));
        let epsilon = if self.exact { 0.0 } else { f64::from(self.epsilon) };
        // Squares are summed in chains of at most columns / 512 + 8 and two trees of 5 and 4 levels; half of their relative
        // error survives the root. Division, addition, root, reciprocal and the product add one rounding each. Equal
        // powers of two sum without any.
        let depth = self.columns as f64 / 512.0 + 8.0 + 5.0 + 16.0;
        let error = if self.exact { 0.0 } else { (depth / 2.0 + 6.0) * 2f64.powi(-24) };
        let answer = |error| {
            x.chunks(self.columns.max(1))
                .flat_map(|row| reference::rms_norm(row, &weight, epsilon, error))
                .collect::<Vec<_>>()
        };
        let (want, low, high) = (answer(0.0), answer(-error), answer(error));
        let bound =
            want.iter().zip(low.iter().zip(&high)).map(|(w, (l, h))| (w - l).abs().max((w - h).abs()));
        (want.clone(), bound.collect())
    }
}

fn widen(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|x| x.to_f32()).collect()
}

/// Runs the norm and compares it with the oracle.
pub fn check(device: &Device, problem: &Problem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let (x, weight) = problem.inputs();
    let shape = [problem.rows, problem.columns];
    let input = Surrounded::input(device, &shape, problem.place, &x).map_err(text)?;
    let weights = Surrounded::input(device, &[problem.columns], Place::default(), &weight).map_err(text)?;
    let out = Surrounded::output(device, &shape, problem.place).map_err(text)?;
    let stream = device.stream();
    RmsNorm::new(input.view(), weights.view(), out.view())
        .epsilon(if problem.exact { 0.0 } else { problem.epsilon })
        .launch(&stream)
        .map_err(text)?;
    let (want, bound) = problem.expected(&x, &weight);
    let got = out.finish("norm", &mut evidence)?;
    evidence.within_rounded("norm", &widen(&got), &want, &bound)?;
    Ok(evidence)
}

/// Runs the norm with fused quantisation: its bf16 output as in [`check`], codes and scales exactly those of that output.
pub fn check_quantized(device: &Device, problem: &Problem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let (x, weight) = problem.inputs();
    let shape = [problem.rows, problem.columns];
    let input = Surrounded::input(device, &shape, problem.place, &x).map_err(text)?;
    let weights = Surrounded::input(device, &[problem.columns], Place::default(), &weight).map_err(text)?;
    let out = Surrounded::output(device, &shape, problem.place).map_err(text)?;
    let codes = Fp8Output::new(device, problem.rows, problem.columns, ScaleLayout::MnMajor).map_err(text)?;
    let only_codes =
        Fp8Output::new(device, problem.rows, problem.columns, ScaleLayout::RowMajor).map_err(text)?;
    let stream = device.stream();
    let launch = |codes: &Fp8Output, bf16_output| {
        let mut norm = RmsNormQuantize::new(input.view(), weights.view(), &codes.rows)
            .epsilon(if problem.exact { 0.0 } else { problem.epsilon })
            .power_of_two(problem.power_of_two);
        if bf16_output {
            norm = norm.bf16_output(out.view());
        }
        norm.launch(&stream).map_err(text)
    };
    launch(&codes, true)?;
    launch(&only_codes, false)?;
    let got = out.finish("norm", &mut evidence)?;
    let (want, bound) = problem.expected(&x, &weight);
    evidence.within_rounded("norm", &widen(&got), &want, &bound)?;
    let wide: Vec<_> = got.iter().map(|x| x.to_f64()).collect();
    let want = quantization::quantize(&wide, problem.columns, problem.power_of_two);
    for codes in [codes, only_codes] {
        let (codes, scales) = codes.finish(&mut evidence)?;
        evidence.exact("scales", &bits(&scales), &bits(&want.scales))?;
        evidence.exact("codes", &codes, &want.codes)?;
    }
    Ok(evidence)
}

/// Runs the residual add, into an output of its own or into its first operand.
pub fn check_add(device: &Device, problem: &Problem, in_place: bool) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let shape = [problem.rows, problem.columns];
    let a = draw(Values::Normal, problem.rows, problem.columns, problem.seed);
    let b = draw(Values::Normal, problem.rows, problem.columns, problem.seed + 1);
    let left = Surrounded::input(device, &shape, problem.place, &a).map_err(text)?;
    let right = Surrounded::input(device, &shape, Place::default(), &b).map_err(text)?;
    let out = if in_place {
        left.clone()
    } else {
        Surrounded::output(device, &shape, problem.place).map_err(text)?
    };
    Add::new(left.view(), right.view(), out.view()).launch(&device.stream()).map_err(text)?;
    let wide = |values: &[bf16]| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let want: Vec<_> = reference::add(&wide(&a), &wide(&b)).iter().map(|x| *x as f32).collect();
    let got = out.finish("sum", &mut evidence)?;
    evidence.exact("sum", &widen(&got), &want)?;
    Ok(evidence)
}

/// All three operations on one drawn shape.
fn drawn(device: &Device, seed: u64) -> Result<Evidence, String> {
    let source = &mut Source::new(seed ^ 0x5173);
    let columns = source.columns(700);
    let problem = Problem {
        rows: 1 + source.below(8),
        columns,
        epsilon: [Problem::default().epsilon, 1.0][source.below(2)],
        power_of_two: source.below(2) == 0,
        exact: columns.is_power_of_two(),
        place: Place::draw(source),
        seed,
    };
    let mut all = check(device, &problem)?;
    all.add(&check_quantized(device, &problem)?);
    all.add(&check_add(device, &problem, source.below(2) == 0)?);
    Ok(all)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, $check:ident, { $($field:ident: $value:expr),* } $(, $more:expr)*) => {
            Case {
                family: "norm",
                name: $name,
                run: |device, seed| {
                    $check(device, &Problem { $($field: $value,)* seed, ..Problem::default() } $(, $more)*)
                },
            }
        };
    }
    vec![
        case!("norm 3x7168", check, { columns: 7168 }),
        case!("norm 9x512, exact", check, { rows: 9, columns: 512, exact: true }),
        case!("norm 2x100 of an unaligned view", check, { columns: 100, place: Place { offset: 1, padding: 3 } }),
        case!("norm 2x20000", check, { rows: 2, columns: 20_000 }),
        case!("norm and quantisation 3x7168", check_quantized, { columns: 7168 }),
        case!("norm and quantisation 5x1536, powers of two", check_quantized, { rows: 5, power_of_two: true }),
        case!("norm and quantisation 1x18432", check_quantized, { rows: 1, columns: 18432 }),
        case!("norm and quantisation 3x200", check_quantized, { columns: 200, place: Place { offset: 1, padding: 0 } }),
        case!("add 4x7168", check_add, { rows: 4, columns: 7168 }, false),
        case!("add 4x100 in place", check_add, { columns: 100, place: Place { offset: 5, padding: 1 } }, true),
        Case { family: "norm", name: "a drawn shape", run: drawn },
    ]
}
