//! Cases of what products are asked for beside a shape, and of the shapes at the edges.

use super::cases::DENSE;
use super::{Checked, Form, Fp8Check, Granularity, Rows, Values};
use crate::device::Device;
use crate::dtype::{bf16, f16};
use crate::fp8::ScaleLayout;
use crate::gemm::Tile;
use crate::gemm::plan::{Input, Mode, Output};
use crate::verify::{Evidence, Source};

type Outcome = Result<Evidence, String>;

/// Runs a check with each output whose turn it is, if a kernel writes it.
fn run(device: &Device, all: &mut Evidence, check: &Fp8Check<'_>, output: Output) -> Result<(), String> {
    fn float<T: Checked + Default>(device: &Device, check: &Fp8Check<'_>, output: Output) -> Outcome {
        if check.is_possible(output) { check.check::<T>(device) } else { Ok(Evidence::default()) }
    }
    all.add(&match output {
        Output::Bf16 => float::<bf16>(device, check, output)?,
        Output::F16 => float::<f16>(device, check, output)?,
        Output::F32 => float::<f32>(device, check, output)?,
        Output::E4m3 => {
            let check = Fp8Check { form: Form { accumulate: false, ..check.form }, ..*check };
            match check.is_possible(output) && check.is_possible(Output::F32) {
                true => check.check_quantized(device, check.seed.is_multiple_of(2))?,
                false => Evidence::default(),
            }
        }
    });
    Ok(())
}

const OUTPUTS: [Output; 4] = [Output::Bf16, Output::F32, Output::E4m3, Output::F16];

/// Values whose products f16 can hold.
fn small(check: Fp8Check<'_>) -> Fp8Check<'_> {
    let alpha = if check.values.exact() { 2f32.powi(-9) } else { 2f32.powi(-24) };
    Fp8Check { form: Form { alpha, ..check.form }, ..check }
}

/// Every form, with every way that rows find weights, output and kind of values in turn.
pub(super) fn forms(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let rows =
        [Rows::Dense(67), Rows::Groups(&[3, 0, 70]), Rows::Masked(&[2, 0, 65, 9], 65), Rows::Batched(3, 9)];
    for (index, form) in Form::covering().into_iter().enumerate() {
        let turn = index + seed as usize;
        let check = Fp8Check {
            rows: rows[(turn + index / 4) % rows.len()],
            n: [136, 72][index % 2],
            k: [272, 144][index / 2 % 2],
            layout: [ScaleLayout::RowMajor, ScaleLayout::MnMajor][turn / 3 % 2],
            values: Values::ALL[turn / 2 % 4],
            form,
            seed: seed ^ (index as u64) << 8,
            ..DENSE
        };
        let output = OUTPUTS[turn % 4];
        run(device, &mut all, &if output == Output::F16 { small(check) } else { check }, output)?;
    }
    Ok(all)
}

/// One way that rows find weights, to every output, plain and with everything.
pub(super) fn mode(device: &Device, seed: u64, rows: Rows<'_>) -> Outcome {
    let mut all = Evidence::default();
    let full = Form {
        granularity: Granularity::Blocks,
        codes: [true, true],
        e5m2: [false; 2],
        gathers: 0,
        alpha: 0.5,
        bias: true,
        accumulate: true,
        row_weights: true,
        splits: false,
    };
    for (turn, output) in OUTPUTS.into_iter().enumerate() {
        for form in [Form::PLAIN, full] {
            let values = Values::ALL[(turn + seed as usize) % 4];
            let check = Fp8Check { rows, n: 200, k: 400, form, values, seed, ..DENSE };
            run(device, &mut all, &if output == Output::F16 { small(check) } else { check }, output)?;
        }
    }
    Ok(all)
}

/// Every pair of 8-bit types, with every way that rows find weights, output, form and kind of values in turn.
pub(super) fn types(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let rows =
        [Rows::Dense(67), Rows::Groups(&[3, 0, 70]), Rows::Masked(&[2, 0, 65, 9], 65), Rows::Batched(3, 9)];
    let forms = Form::covering();
    for (index, e5m2) in [[false, true], [true, false], [true, true]].into_iter().enumerate() {
        for (at, output) in OUTPUTS.into_iter().enumerate() {
            let turn = 4 * index + at + seed as usize;
            let form = match at {
                0 => Form::PLAIN,
                _ => forms[turn * 5 % forms.len()],
            };
            let check = Fp8Check {
                rows: rows[(index + at) % rows.len()],
                n: [136, 72][at % 2],
                k: [400, 144, 1040][index],
                values: Values::ALL[turn % 4],
                form: Form { e5m2, ..form },
                seed: seed ^ (turn as u64) << 8,
                ..DENSE
            };
            run(device, &mut all, &if output == Output::F16 { small(check) } else { check }, output)?;
        }
    }
    Ok(all)
}

/// Rows of A that a list names, with every way that rows find weights and a quarter of the tiles; also as the product of a
/// copy of these rows, bit for bit.
pub(super) fn gathered(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let rows =
        [Rows::Dense(197), Rows::Groups(&[3, 0, 130]), Rows::Masked(&[2, 0, 65], 67), Rows::Batched(2, 9)];
    let mut forms = Form::covering().into_iter().cycle().skip(seed as usize % 24);
    for (index, rows) in rows.into_iter().enumerate() {
        let tiles = Tile::of(Input::Fp8, rows.mode());
        let candidates = std::iter::once(None).chain(tiles.into_iter().map(Some)).enumerate();
        for (at, tile) in candidates.skip((index + seed as usize) % 4).step_by(4) {
            let turn = 5 * index + at + seed as usize;
            let form = if turn.is_multiple_of(3) { Form::PLAIN } else { forms.next().unwrap_or(Form::PLAIN) };
            let check = Fp8Check {
                rows,
                n: [136, 72][at % 2],
                k: [272, 1040, 400, 16][turn % 4],
                layout: [ScaleLayout::RowMajor, ScaleLayout::MnMajor][turn / 2 % 2],
                tile,
                values: Values::ALL[turn / 3 % 4],
                form: Form { gathers: [1, 1, 3, 8][turn % 4], ..form },
                seed: seed ^ (turn as u64) << 8,
            };
            if !check.is_possible(Output::F32) {
                continue;
            }
            run(device, &mut all, &check, [Output::F32, Output::Bf16][turn % 2])?;
            all.add(&check.is_that_of_a_copy(device)?);
        }
    }
    Ok(all)
}

/// Extents at the edges of tiles, blocks and groups, each with each at least once: M with N and K in turn.
pub(super) fn edges(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let (rows, columns, depths) = ([0, 1, 7, 63, 64, 65, 129], [8, 576, 2112], [16, 112, 128, 7168]);
    let mut turn = seed as usize;
    for m in rows {
        for k in depths {
            turn += 1;
            // The longest K goes with few columns, and the most columns with few rows: a case stays small.
            let n = if k == 7168 { 8 } else { columns[turn % 3] };
            let values = Values::ALL[turn % 4];
            let check = Fp8Check { rows: Rows::Dense(m), n, k, values, seed: seed ^ turn as u64, ..DENSE };
            run(device, &mut all, &check, [Output::Bf16, Output::F32][turn % 2])?;
        }
    }
    for n in columns {
        run(device, &mut all, &Fp8Check { rows: Rows::Dense(2), n, k: 7168, seed, ..DENSE }, Output::Bf16)?;
    }
    Ok(all)
}

/// Groups that are empty, one huge, all of one row; contiguous and, where there are kernels, masked.
pub(super) fn groups(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let sizes: [&[usize]; 4] = [&[0, 0, 1], &[0, 257, 0, 0], &[1; 40], &[64, 128, 63, 65]];
    for (turn, sizes) in sizes.into_iter().enumerate() {
        let room = sizes.iter().copied().max().unwrap_or(0);
        for rows in [Rows::Groups(sizes), Rows::Masked(sizes, room)] {
            let values = Values::ALL[(turn + seed as usize) % 4];
            let check = Fp8Check { rows, n: 72, k: 272, values, seed, ..DENSE };
            run(device, &mut all, &check, [Output::Bf16, Output::F32][turn % 2])?;
        }
    }
    Ok(all)
}

/// Masked groups and batches are loops of dense products, bit for bit, with any form.
pub(super) fn parts(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let source = &mut Source::new(seed ^ 0x9A27);
    let forms = Form::covering();
    for rows in [Rows::Groups(&[3, 0, 66]), Rows::Masked(&[5, 0, 64, 1], 66), Rows::Batched(3, 17)] {
        let form = forms[source.below(forms.len())];
        let check = Fp8Check { rows, n: 136, k: 272, values: Values::Normal, form, seed, ..DENSE };
        let form = if check.is_possible(Output::F32) { form } else { Form::PLAIN };
        let check = Fp8Check { form, ..check };
        if rows.mode() == Mode::Contiguous || check.is_possible(Output::F32) {
            all.add(&check.holds::<f32>(device, super::properties::Property::Parts)?);
        }
    }
    Ok(all)
}
