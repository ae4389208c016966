//! Properties of FP8 products.

use super::{Property, blocks_in_order, close, columns_in_order, places, rows_in_order, widen};
use crate::device::Device;
use crate::gemm::Tile;
use crate::gemm::plan::{Input, Mode};
use crate::gemm::reference::AnyFp8;
use crate::verify::gemm::{Checked, Fp8Check, Fp8Inputs, Rows};
use crate::verify::surrounded::{Place, Surrounded, text};
use crate::verify::{Evidence, Source};

pub(super) fn holds<T: Checked + Default>(
    check: &Fp8Check<'_>,
    device: &Device,
    property: Property,
) -> Result<Evidence, String> {
    let (m, n, k, blocks) = (check.rows.count(), check.n, check.k, check.blocks());
    let inputs = check.inputs();
    let mut source = Source::new(check.seed ^ 0x70);
    let mut evidence = Evidence::default();
    let got = check.run_counted::<T>(device, &inputs, &mut evidence)?;
    let mut changed = inputs.clone();
    match property {
        Property::RowOrder => {
            let order = source.permutation(m);
            changed.a = rows_in_order(&inputs.a, k, &order);
            changed.a_scales = rows_in_order(&inputs.a_scales, blocks, &order);
            let again = check.run_counted::<T>(device, &changed, &mut evidence)?;
            evidence.repeated("rows", &again, &rows_in_order(&got, n, &order))?;
        }
        Property::ColumnOrder => {
            let order = source.permutation(n / 128);
            let columns = blocks_in_order(n, 128, &order);
            changed.b = rows_in_order(&inputs.b, k, &columns);
            changed.b_scales =
                rows_in_order(&inputs.b_scales, blocks, &blocks_in_order(n.div_ceil(128), 1, &order));
            let again = check.run_counted::<T>(device, &changed, &mut evidence)?;
            evidence.repeated("columns", &again, &columns_in_order(&got, n, &columns))?;
        }
        Property::PowersOfTwo => {
            let powers = source.powers(m, -4, 4);
            for (scales, power) in changed.a_scales.chunks_mut(blocks).zip(&powers) {
                scales.iter_mut().for_each(|scale| *scale *= power);
            }
            let again = check.run_counted::<T>(device, &changed, &mut evidence)?;
            let want = widen(&got).iter().zip(0..).map(|(x, i)| x * powers[i / n]).collect::<Vec<_>>();
            evidence.repeated("rows times powers of two", &widen(&again), &want)?;
        }
        Property::Negation => {
            changed.a = inputs.a.iter().map(|x| x.with_bits(x.to_bits() ^ 0x80)).collect();
            let again = check.run_counted::<T>(device, &changed, &mut evidence)?;
            let want: Vec<f32> = widen(&got).iter().map(|x| -x).collect();
            evidence.repeated("negated", &widen(&again), &want)?;
        }
        Property::ZeroBlocks => {
            let at = source.below(k / 128 + 1);
            let (wide, changed) = with_zero_block(check, &inputs, at, &mut source);
            let again = wide.run_counted::<T>(device, &changed, &mut evidence)?;
            evidence.repeated("with a block of zeros", &again, &got)?;
        }
        Property::OneHot => {
            let [a_e5m2, _] = check.form.e5m2;
            changed.a.fill(AnyFp8::nearest(0.0, a_e5m2));
            let mut want = Vec::new();
            for row in 0..m {
                let at = source.below(k);
                changed.a[row * k + at] = AnyFp8::nearest(1.0, a_e5m2);
                for column in 0..n {
                    let block = at / 128;
                    let scale = inputs.a_scales[row * blocks + block]
                        * inputs.b_scales[column / 128 * blocks + block];
                    let value = inputs.b[column * k + at].to_f32() * scale;
                    want.push(T::nearest(f64::from(value)));
                }
            }
            let again = check.run_counted::<T>(device, &changed, &mut evidence)?;
            evidence.exact("rows of B", &widen(&again), &widen(&want))?;
        }
        Property::BlockOrder => {
            let order = source.permutation(k / 128);
            let (columns, scales) = (blocks_in_order(k, 128, &order), blocks_in_order(blocks, 1, &order));
            changed.a = columns_in_order(&inputs.a, k, &columns);
            changed.b = columns_in_order(&inputs.b, k, &columns);
            changed.a_scales = columns_in_order(&inputs.a_scales, blocks, &scales);
            changed.b_scales = columns_in_order(&inputs.b_scales, blocks, &scales);
            let again = check.run_counted::<T>(device, &changed, &mut evidence)?;
            let bounds = [&inputs, &changed].map(|inputs| check.expected(inputs, T::ROUNDING).bounds);
            let want: Vec<f64> = widen(&got).iter().map(|x| f64::from(*x)).collect();
            close(&mut evidence, "blocks in another order", &again, &want, [&bounds[0], &bounds[1]])?;
        }
        Property::Linearity => {
            let mut other = inputs.clone();
            for (i, (left, right)) in changed.a.iter_mut().zip(&mut other.a).enumerate() {
                let zeroed = if i % 3 == 0 { left } else { right };
                *zeroed = zeroed.with_bits(0);
            }
            let parts = [&changed, &other];
            let mut want = vec![0.0; m * n];
            let mut bound = vec![0.0; m * n];
            for part in parts {
                let sums = check.run_counted::<f32>(device, part, &mut evidence)?;
                let bounds = check.expected(part, f32::ROUNDING).bounds;
                for i in 0..m * n {
                    want[i] += f64::from(sums[i]);
                    bound[i] += bounds[i];
                }
            }
            let bounds = check.expected(&inputs, T::ROUNDING).bounds;
            close(&mut evidence, "sum of two products", &got, &want, [&bounds, &bound])?;
        }
        Property::Tiles => {
            for tile in Tile::of(Input::Fp8, check.rows.mode()) {
                let other = Fp8Check { tile: Some(tile), ..*check };
                let again = other.run_counted::<T>(device, &inputs, &mut evidence)?;
                evidence.repeated(&format!("{tile:?}"), &again, &got)?;
            }
        }
        Property::Repetition => {
            let operands = check.operands(device, &inputs).map_err(text)?;
            let streams = [device.stream(), device.new_stream().map_err(text)?];
            for _ in 0..if device.is_simulated() { 2 } else { 100 } {
                let mut outputs = Vec::new();
                for stream in &streams {
                    let out = Surrounded::<T>::output(device, &[m, n], Place::default()).map_err(text)?;
                    check.launch(&operands, out.view(), stream).map_err(text)?;
                    outputs.push(out);
                }
                for out in outputs {
                    evidence.repeated("again", &out.finish("the output", &mut Evidence::default())?, &got)?;
                }
            }
        }
        Property::Graph => {
            let operands = check.operands(device, &inputs).map_err(text)?;
            let out = Surrounded::<T>::output(device, &[m, n], Place::default()).map_err(text)?;
            let stream = device.stream();
            let graph = stream.capture(|stream| check.launch(&operands, out.view(), stream)).map_err(text)?;
            for inputs in [inputs, Fp8Check { seed: !check.seed, ..*check }.inputs()] {
                let mixed = Fp8Inputs { a: inputs.a, a_scales: inputs.a_scales, ..changed.clone() };
                operands.fill_a(&mixed).map_err(text)?;
                out.clear().map_err(text)?;
                graph.launch(&stream).map_err(text)?;
                let want = check.run::<T>(device, &mixed)?;
                if mixed.a != changed.a && want == got {
                    return Err("other inputs give the same output".to_owned());
                }
                evidence.repeated("replayed", &out.finish("the output", &mut Evidence::default())?, &want)?;
            }
        }
        Property::Parts => {
            if check.rows.mode() == Mode::Dense {
                return Err("needs groups".to_owned());
            }
            for (group, (rows, dense, part)) in check.parts(&inputs).into_iter().enumerate() {
                if rows.is_empty() {
                    continue;
                }
                let want = dense.run_counted::<T>(device, &part, &mut evidence)?;
                evidence.repeated(&format!("group {group}"), &got[rows.start * n..rows.end * n], &want)?;
            }
        }
    }
    Ok(evidence)
}

/// The same product with 128 more of K, where A is zero and B is not.
fn with_zero_block<'a>(
    check: &Fp8Check<'a>,
    inputs: &Fp8Inputs,
    at: usize,
    source: &mut Source,
) -> (Fp8Check<'a>, Fp8Inputs) {
    let (k, blocks) = (check.k, check.blocks());
    let [a_e5m2, b_e5m2] = check.form.e5m2;
    let zeros = vec![AnyFp8::nearest(0.0, a_e5m2); 128];
    let other: Vec<AnyFp8> = source.normals(128, 1.0).iter().map(|x| AnyFp8::nearest(*x, b_e5m2)).collect();
    let wide = Fp8Inputs {
        a: widened(&inputs.a, k, at * 128, &zeros),
        b: widened(&inputs.b, k, at * 128, &other),
        a_scales: widened(&inputs.a_scales, blocks, at, &[3.0]),
        b_scales: widened(&inputs.b_scales, blocks, at, &[0.75]),
        ..inputs.clone()
    };
    (Fp8Check { k: k + 128, ..*check }, wide)
}

/// Every row with further columns at `at`.
pub(super) fn widened<V: Copy>(values: &[V], columns: usize, at: usize, inserted: &[V]) -> Vec<V> {
    values.chunks(columns).flat_map(|row| [&row[..at], inserted, &row[at..]].concat()).collect()
}

pub(super) fn alone<T: Checked + Default>(
    check: &Fp8Check<'_>,
    device: &Device,
    counts: &[usize],
) -> Result<Evidence, String> {
    let (n, k, blocks) = (check.n, check.k, check.blocks());
    let mut evidence = Evidence::default();
    let mut one = Fp8Check { rows: Rows::Dense(1), ..*check }.inputs();
    let want = Fp8Check { rows: Rows::Dense(1), ..*check }.run_counted::<T>(device, &one, &mut evidence)?;
    let (row, scales) = (std::mem::take(&mut one.a), std::mem::take(&mut one.a_scales));
    for count in counts {
        let many = Fp8Check { rows: Rows::Dense(*count), seed: check.seed ^ *count as u64, ..*check };
        let others = Fp8Inputs { b: one.b.clone(), b_scales: one.b_scales.clone(), ..many.inputs() };
        for place in places(*count) {
            let mut inputs = others.clone();
            inputs.a[place * k..][..k].copy_from_slice(&row);
            inputs.a_scales[place * blocks..][..blocks].copy_from_slice(&scales);
            let got = many.run_counted::<T>(device, &inputs, &mut evidence)?;
            evidence.repeated(&format!("row {place} of {count}"), &got[place * n..][..n], &want)?;
        }
    }
    Ok(evidence)
}
