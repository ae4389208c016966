//! Properties of FP8 products.

use super::{Property, blocks_in_order, close, columns_in_order, places, rows_in_order, widen};
use crate::device::Device;
use crate::gemm::Tile;
use crate::gemm::plan::{Input, Mode, Output};
use crate::gemm::reference::AnyFp8;
use crate::verify::gemm::{Checked, Form, Fp8Check, Fp8Inputs, Granularity, Rows};
use crate::verify::surrounded::{Place, Surrounded, text};
use crate::verify::{Evidence, Source};

/// The output with zeros for rows that do not count.
fn run<T: Checked + Default>(
    check: &Fp8Check<'_>,
    device: &Device,
    inputs: &Fp8Inputs,
    evidence: &mut Evidence,
) -> Result<Vec<T>, String> {
    let got = check.run_counted::<T>(device, inputs, evidence)?;
    let mut counting = vec![T::default(); got.len()];
    for rows in check.rows.ranges() {
        let part = rows.start * check.n..rows.end * check.n;
        counting[part.clone()].copy_from_slice(&got[part]);
    }
    Ok(counting)
}

/// Rows in another order within their groups.
fn order_of_rows(check: &Fp8Check<'_>, source: &mut Source) -> Vec<usize> {
    let mut order: Vec<usize> = (0..check.rows.count()).collect();
    for rows in check.rows.ranges() {
        let drawn = source.permutation(rows.len());
        for (at, other) in rows.clone().zip(drawn) {
            order[at] = rows.start + other;
        }
    }
    order
}

/// The same order for the rows of each of several matrices.
fn rows_of_each<V: Copy>(values: &[V], columns: usize, order: &[usize]) -> Vec<V> {
    values
        .chunks((order.len() * columns).max(1))
        .flat_map(|matrix| rows_in_order(matrix, columns, order))
        .collect()
}

/// Times powers of two, by row.
fn times(values: &[f32], columns: usize, power: impl Fn(usize) -> f32) -> Vec<f32> {
    values.iter().enumerate().map(|(at, value)| value * power(at / columns)).collect()
}

pub(super) fn holds<T: Checked + Default>(
    check: &Fp8Check<'_>,
    device: &Device,
    property: Property,
) -> Result<Evidence, String> {
    let (m, n, k, blocks) = (check.rows.count(), check.n, check.k, check.blocks());
    let inputs = check.inputs();
    let mut source = Source::new(check.seed ^ 0x70);
    let mut evidence = Evidence::default();
    let got = run::<T>(check, device, &inputs, &mut evidence)?;
    let mut changed = inputs.clone();
    let single =
        matches!(check.rows, Rows::Dense(_)) && Form { e5m2: [false; 2], ..check.form } == Form::PLAIN;
    let demanding =
        matches!(property, Property::OneHot | Property::Linearity | Property::Repetition | Property::Graph);
    if demanding && !single {
        return Err("needs a single product without an epilogue".to_owned());
    }
    match property {
        Property::RowOrder => {
            let order = order_of_rows(check, &mut source);
            changed.a = rows_in_order(&inputs.a, k, &order);
            changed.a_scales = rows_in_order(&inputs.a_scales, blocks, &order);
            changed.row_weights = rows_of_each(&inputs.row_weights, 1, &order);
            changed.old = rows_of_each(&inputs.old, n, &order);
            let again = run::<T>(check, device, &changed, &mut evidence)?;
            evidence.repeated("rows", &again, &rows_in_order(&got, n, &order))?;
        }
        Property::ColumnOrder => {
            let order = source.permutation(n / 128);
            let columns = blocks_in_order(n, 128, &order);
            let of_scales = blocks_in_order(n.div_ceil(128), 1, &order);
            changed.b = rows_of_each(&inputs.b, k, &columns);
            changed.b_scales = rows_of_each(&inputs.b_scales, blocks, &of_scales);
            changed.column_scales = rows_of_each(&inputs.column_scales, 1, &columns);
            changed.bias = rows_of_each(&inputs.bias, 1, &columns);
            changed.old = columns_in_order(&inputs.old, n, &columns);
            let again = run::<T>(check, device, &changed, &mut evidence)?;
            evidence.repeated("columns", &again, &columns_in_order(&got, n, &columns))?;
        }
        Property::PowersOfTwo => {
            // Of scales of rows, with what is added to them, unless all rows share it.
            let form = check.form;
            if form.granularity != Granularity::Tensor && !form.bias {
                let powers = source.powers(m, -4, 4);
                changed.a_scales = times(&inputs.a_scales, blocks, |row| powers[row]);
                changed.old = times(&inputs.old, n, |row| powers[row]);
                let again = run::<T>(check, device, &changed, &mut evidence)?;
                let want = times(&widen(&got), n, |row| powers[row]);
                evidence.repeated("rows times powers of two", &widen(&again), &want)?;
            }
            // Of alpha.
            let all = |_| 4.0;
            let changed = Fp8Inputs {
                bias: times(&inputs.bias, 1, all),
                old: times(&inputs.old, 1, all),
                ..inputs.clone()
            };
            let louder = Fp8Check { form: Form { alpha: 4.0 * form.alpha, ..form }, ..*check };
            let again = run::<T>(&louder, device, &changed, &mut evidence)?;
            evidence.repeated("four times alpha", &widen(&again), &times(&widen(&got), 1, all))?;
        }
        Property::Negation => {
            changed.a = inputs.a.iter().map(|x| x.with_bits(x.to_bits() ^ 0x80)).collect();
            changed.bias = times(&inputs.bias, 1, |_| -1.0);
            changed.old = times(&inputs.old, 1, |_| -1.0);
            let again = run::<T>(check, device, &changed, &mut evidence)?;
            let want: Vec<f32> = widen(&got).iter().map(|x| -x).collect();
            evidence.repeated("negated", &widen(&again), &want)?;
        }
        Property::ZeroBlocks => {
            let at = source.below(k / 128 + 1);
            let (wide, changed) = with_zero_block(check, &inputs, at, &mut source);
            let again = run::<T>(&wide, device, &changed, &mut evidence)?;
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
            let again = run::<T>(check, device, &changed, &mut evidence)?;
            let bounds = [&inputs, &changed].map(|inputs| check.expected(inputs, T::ROUNDING).bounds);
            let [again, got] = [&again, &got].map(|all| check.counting(all, n));
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
                // All outputs but FP8 rows are the same kernels'.
                if !other.is_possible(Output::F32) {
                    continue;
                }
                let again = run::<T>(&other, device, &inputs, &mut evidence)?;
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
pub(in crate::verify::gemm) fn with_zero_block<'a>(
    check: &Fp8Check<'a>,
    inputs: &Fp8Inputs,
    at: usize,
    source: &mut Source,
) -> (Fp8Check<'a>, Fp8Inputs) {
    let (k, blocks) = (check.k, check.blocks());
    let [a_e5m2, b_e5m2] = check.form.e5m2;
    let zeros = vec![AnyFp8::nearest(0.0, a_e5m2); 128];
    let other: Vec<AnyFp8> = source.normals(128, 1.0).iter().map(|x| AnyFp8::nearest(*x, b_e5m2)).collect();
    // Coarser scales are the same for every block.
    let scales = |scales: &[f32], scale: f32| -> Vec<f32> {
        let of_row = |row: &[f32]| if check.form.granularity == Granularity::Blocks { scale } else { row[0] };
        scales.chunks(blocks).flat_map(|row| [&row[..at], &[of_row(row)], &row[at..]].concat()).collect()
    };
    let wide = Fp8Inputs {
        a: widened(&inputs.a, k, at * 128, &zeros),
        b: widened(&inputs.b, k, at * 128, &other),
        a_scales: scales(&inputs.a_scales, if check.form.codes[0] { 2.0 } else { 3.0 }),
        b_scales: scales(&inputs.b_scales, if check.form.codes[1] { 0.5 } else { 0.75 }),
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
        let mut others = many.inputs();
        (others.b, others.b_scales) = (one.b.clone(), one.b_scales.clone());
        (others.bias, others.column_scales) = (one.bias.clone(), one.column_scales.clone());
        if check.form.granularity == Granularity::Tensor {
            others.a_scales.fill(scales[0]);
        }
        for place in places(*count) {
            let mut inputs = others.clone();
            if check.form.row_weights {
                inputs.row_weights[place] = one.row_weights[0];
            }
            if check.form.accumulate {
                inputs.old[place * n..][..n].copy_from_slice(&one.old);
            }
            inputs.a[place * k..][..k].copy_from_slice(&row);
            inputs.a_scales[place * blocks..][..blocks].copy_from_slice(&scales);
            let got = many.run_counted::<T>(device, &inputs, &mut evidence)?;
            evidence.repeated(&format!("row {place} of {count}"), &got[place * n..][..n], &want)?;
        }
    }
    Ok(evidence)
}
