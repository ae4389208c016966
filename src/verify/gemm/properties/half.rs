//! Properties of products of 16-bit floats.

use super::fp8::widened;
use super::{Property, close, columns_in_order, places, rows_in_order, widen};
use crate::device::Device;
use crate::dtype::bf16;
use crate::error::Error;
use crate::gemm::Tile;
use crate::gemm::plan::Input;
use crate::verify::gemm::{Checked, HalfCheck, HalfInputs, Rows};
use crate::verify::surrounded::text;
use crate::verify::{Evidence, Source};

/// Products that one tensor instruction adds.
const DEPTH: usize = 16;

pub(super) fn holds<T: Checked + Default>(
    check: &HalfCheck<'_>,
    device: &Device,
    property: Property,
) -> Result<Evidence, String> {
    let HalfCheck { n, k, .. } = *check;
    let m = check.rows.count();
    let inputs = check.inputs::<bf16>();
    let HalfInputs { a, b, .. } = &inputs;
    let mut source = Source::new(check.seed ^ 0xB0);
    let mut all = Evidence::default();
    let evidence = &mut all;
    let got = check.run_counted::<bf16, T>(device, &inputs, evidence)?;
    let again = |evidence: &mut Evidence, check: &HalfCheck<'_>, a: Vec<bf16>, b: Vec<bf16>| {
        check.run_counted::<bf16, T>(device, &HalfInputs { a, b, ..inputs.clone() }, evidence)
    };
    match property {
        Property::RowOrder => {
            let order = source.permutation(m);
            let again = again(evidence, check, rows_in_order(a, k, &order), b.clone())?;
            evidence.repeated("rows", &again, &rows_in_order(&got, n, &order))?;
        }
        Property::ColumnOrder => {
            let order = source.permutation(n);
            let again = again(evidence, check, a.clone(), rows_in_order(b, k, &order))?;
            evidence.repeated("columns", &again, &columns_in_order(&got, n, &order))?;
        }
        Property::PowersOfTwo => {
            let powers = source.powers(m, -4, 4);
            let scaled = a.iter().zip(0..).map(|(x, i)| bf16::from_f32(x.to_f32() * powers[i / k]));
            let again = again(evidence, check, scaled.collect(), b.clone())?;
            let want = widen(&got).iter().zip(0..).map(|(x, i)| x * powers[i / n]).collect::<Vec<_>>();
            evidence.repeated("rows times powers of two", &widen(&again), &want)?;
        }
        Property::Negation => {
            let again = again(evidence, check, a.iter().map(|x| -*x).collect(), b.clone())?;
            let want: Vec<f32> = widen(&got).iter().map(|x| -x).collect();
            evidence.repeated("negated", &widen(&again), &want)?;
        }
        Property::ZeroBlocks => {
            let at = source.below(k / DEPTH + 1) * DEPTH;
            let other = Source::to_bf16(&source.normals(DEPTH, 1.0));
            let wide = HalfCheck { k: k + DEPTH, ..*check };
            let again =
                again(evidence, &wide, widened(a, k, at, &[bf16::ZERO; DEPTH]), widened(b, k, at, &other))?;
            evidence.repeated("with a block of zeros", &again, &got)?;
        }
        Property::OneHot => {
            let mut one_hot = vec![bf16::ZERO; m * k];
            let mut want = Vec::new();
            for row in 0..m {
                let at = source.below(k);
                one_hot[row * k + at] = bf16::ONE;
                want.extend((0..n).map(|column| b[column * k + at].to_f32()));
            }
            let again = again(evidence, check, one_hot, b.clone())?;
            evidence.exact("rows of B", &widen(&again), &want)?;
        }
        Property::BlockOrder => {
            let order = source.permutation(k);
            let changed = (columns_in_order(a, k, &order), columns_in_order(b, k, &order));
            let again = again(evidence, check, changed.0.clone(), changed.1.clone())?;
            let changed = HalfInputs { a: changed.0, b: changed.1, ..inputs.clone() };
            let bounds = [&inputs, &changed].map(|inputs| check.expected(inputs, T::ROUNDING).bounds);
            let want: Vec<f64> = widen(&got).iter().map(|x| f64::from(*x)).collect();
            close(evidence, "K in another order", &again, &want, [&bounds[0], &bounds[1]])?;
        }
        Property::Linearity => {
            let part = |keep: bool| -> Vec<bf16> {
                a.iter().zip(0..).map(|(x, i)| if (i % 3 == 0) == keep { *x } else { bf16::ZERO }).collect()
            };
            let mut want = vec![0.0; m * n];
            let mut bound = vec![0.0; m * n];
            for part in [part(true), part(false)] {
                let inputs = HalfInputs { a: part, ..inputs.clone() };
                let sums = check.run_counted::<bf16, f32>(device, &inputs, evidence)?;
                let bounds = check.expected(&inputs, f32::ROUNDING).bounds;
                for i in 0..m * n {
                    want[i] += f64::from(sums[i]);
                    bound[i] += bounds[i];
                }
            }
            let bounds = check.expected(&inputs, T::ROUNDING).bounds;
            close(evidence, "sum of two products", &got, &want, [&bounds, &bound])?;
        }
        Property::Tiles => {
            // Those that split no K, with every layout of the operands.
            for (tile, turn) in Tile::of(Input::Bf16, check.rows.mode()).into_iter().zip(0..) {
                let transposed = [turn & 1 == 1 && !tile.swapped(), turn & 2 == 2];
                let other = HalfCheck { tile: tile.split(1), transposed, ..*check };
                let again = again(evidence, &other, a.clone(), b.clone())?;
                evidence.repeated(&format!("{tile:?} {transposed:?}"), &again, &got)?;
            }
        }
        Property::Repetition => {
            for _ in 0..if device.is_simulated() { 2 } else { 100 } {
                let again = again(evidence, check, a.clone(), b.clone())?;
                evidence.repeated("again", &again, &got)?;
            }
        }
        Property::Graph => graph(check, device, evidence, &got)?,
        Property::Parts => {
            for (rows, part, inputs) in check.parts(&inputs) {
                let want = part.run_counted::<bf16, T>(device, &inputs, evidence)?;
                evidence.repeated(&format!("rows {rows:?}"), &got[rows.start * n..rows.end * n], &want)?;
            }
        }
    }
    Ok(all)
}

fn graph<T: Checked + Default>(
    check: &HalfCheck<'_>,
    device: &Device,
    evidence: &mut Evidence,
    got: &[T],
) -> Result<(), String> {
    let inputs = check.inputs::<bf16>();
    let prepare = || -> Result<_, Error> {
        let (operands, out) = (check.operands(device, &inputs)?, check.output::<T>(device)?);
        let prepared = check.prepare(&operands, out.view(), device)?;
        let graph = device.stream().capture(|stream| prepared.launch(stream))?;
        Ok((operands, out, graph))
    };
    let (operands, out, graph) = prepare().map_err(text)?;
    let other = HalfCheck { seed: !check.seed, ..*check }.inputs::<bf16>().a;
    let want = check.run::<bf16, T>(device, &HalfInputs { a: other.clone(), ..inputs.clone() })?;
    if want == got {
        return Err("other inputs give the same output".to_owned());
    }
    for (a, want) in [(&inputs.a, got), (&other, &want)] {
        operands.fill_a(a).map_err(text)?;
        out.clear().map_err(text)?;
        graph.launch(&device.stream()).map_err(text)?;
        evidence.repeated("replayed", &out.finish("the output", &mut Evidence::default())?, want)?;
    }
    Ok(())
}

pub(super) fn alone<T: Checked + Default>(
    check: &HalfCheck<'_>,
    device: &Device,
    counts: &[usize],
) -> Result<Evidence, String> {
    let HalfCheck { n, k, .. } = *check;
    let mut evidence = Evidence::default();
    let single = HalfCheck { rows: Rows::Dense(1), ..*check };
    let inputs = single.inputs::<bf16>();
    let want = single.run_counted::<bf16, T>(device, &inputs, &mut evidence)?;
    for count in counts {
        let many = HalfCheck { rows: Rows::Dense(*count), seed: check.seed ^ *count as u64, ..single };
        let others = many.inputs::<bf16>().a;
        for place in places(*count) {
            let mut a = others.clone();
            a[place * k..][..k].copy_from_slice(&inputs.a);
            let all = HalfInputs { a, ..inputs.clone() };
            let got = many.run_counted::<bf16, T>(device, &all, &mut evidence)?;
            evidence.repeated(&format!("row {place} of {count}"), &got[place * n..][..n], &want)?;
        }
    }
    Ok(evidence)
}
