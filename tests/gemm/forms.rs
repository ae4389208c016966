//! Masked groups, prepared products, and the long sweep.

use super::{FP8, device, fp8, offsets, under_every_schedule};
use narrowgauge::gemm::plan::{Input, Mode, Output, Problem, plan};
use narrowgauge::gemm::{Fp8Gemm, MaskedFp8Gemm, Tile};
use narrowgauge::verify::gemm::properties::Property;
use narrowgauge::verify::gemm::{Form, Fp8Check, Granularity, Rows, Values};
use narrowgauge::{Fp8Blocks, Fp8Rows, ScaleLayout, bf16, verify};

/// Counts that only the device sees: pulled into range, reported, nothing outside touched.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bad_counts_are_masked_and_reported() {
    let device = device();
    let stream = device.stream();
    let check = fp8(Rows::Masked(&[5, 5, 5], 5), 64, 64);
    if !check.is_possible(Output::Bf16) {
        eprintln!("skipped: no kernel computes masked groups");
        return;
    }
    let inputs = check.inputs();
    let [a_codes, b_codes] = inputs.e4m3();
    let want = check.run::<bf16>(&device, &inputs).unwrap();
    let a = Fp8Rows::new(
        device.tensor(&[3, 5, 64], &a_codes).unwrap(),
        device.tensor(&[3, 5, 1], &inputs.a_scales).unwrap(),
    )
    .unwrap();
    let b = Fp8Blocks::new(
        device.tensor(&[3, 64, 64], &b_codes).unwrap(),
        device.tensor(&[3, 1, 1], &inputs.b_scales).unwrap(),
    )
    .unwrap();
    let cases: [([i32; 3], [usize; 3], bool); 4] = [
        ([5, 0, 3], [5, 0, 3], false),
        ([6, 1, -1], [5, 1, 0], true),
        ([i32::MAX, i32::MIN, 2], [5, 0, 2], true),
        ([0, 0, 0], [0, 0, 0], false),
    ];
    for (given, counts, reported) in cases {
        let canary = bf16::from_bits(0xFEDC);
        let out = device.full(&[3, 5, 64], canary).unwrap();
        let on_device = device.tensor(&[3], &given).unwrap();
        MaskedFp8Gemm::new(&a, &b, &on_device, &out).batch_invariant().launch(&stream).unwrap();
        assert_eq!(stream.status().unwrap().bad_offsets(), reported, "{given:?}");
        let mut masked = vec![canary; want.len()];
        for (group, count) in counts.into_iter().enumerate() {
            let rows = group * 5 * 64..(group * 5 + count) * 64;
            masked[rows.clone()].copy_from_slice(&want[rows]);
        }
        verify::exact(&format!("{given:?}"), &out.to_vec().unwrap(), &masked).unwrap();
    }
}

/// The same product again, on inputs of the moment, on two streams and in a graph.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_prepared_product_is_launched_again_and_again() {
    under_every_schedule(|device| {
        let check = fp8(Rows::Groups(&[3, 0, 66]), 72, 272);
        let text = |error: narrowgauge::Error| error.to_string();
        let operands = check.operands(device, &check.inputs()).map_err(text)?;
        let out = device.zeros::<bf16>(&[69, 72]).map_err(text)?;
        let prepared = check.prepare(&operands, &out, device, false).map_err(text)?;
        let other = device.new_stream().map_err(text)?;
        let graph = other.capture(|stream| prepared.launch(stream)).map_err(text)?;
        for seed in 0..3 {
            let drawn = Fp8Check { seed, ..check }.inputs();
            let mut inputs = check.inputs();
            (inputs.a, inputs.a_scales) = (drawn.a, drawn.a_scales);
            operands.fill_a(&inputs).map_err(text)?;
            let want = check.run::<bf16>(device, &inputs)?;
            out.write(&vec![bf16::NAN; want.len()]).map_err(text)?;
            match seed {
                0 => prepared.launch(&device.stream()).map_err(text)?,
                1 => prepared.clone().launch(&other).map_err(text)?,
                _ => graph.launch(&other).map_err(text)?,
            }
            verify::exact("prepared", &out.to_vec().map_err(text)?, &want)?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn options_that_do_not_fit_are_refused_by_name() {
    let device = device();
    let stream = device.stream();
    let a = Fp8Rows::empty(&device, 4, 128, ScaleLayout::RowMajor).unwrap();
    let b = Fp8Blocks::new(device.zeros(&[8, 128]).unwrap(), device.zeros(&[1, 1]).unwrap()).unwrap();
    let out = device.zeros::<f32>(&[4, 8]).unwrap();
    let product = || Fp8Gemm::new(&a, &b, &out);
    let floats = |shape: &[usize]| device.zeros::<f32>(shape).unwrap();
    super::refused(product().alpha(f32::NAN).launch(&stream), "alpha");
    super::refused(product().bias(&floats(&[7])).launch(&stream), "bias");
    super::refused(product().bias(&floats(&[1, 8])).launch(&stream), "bias");
    super::refused(product().bias(&out.select(0, 1).unwrap()).launch(&stream), "out");
    super::refused(product().row_weights(&floats(&[8])).launch(&stream), "row_weights");
    let rows = Fp8Rows::empty(&device, 4, 8, ScaleLayout::RowMajor).unwrap();
    super::refused(Fp8Gemm::new(&a, &b, &rows).accumulate().launch(&stream), "accumulate");
    let one = Fp8Rows::per_tensor(device.zeros::<narrowgauge::E4m3>(&[4, 16]).unwrap(), floats(&[1]));
    super::refused(Fp8Gemm::new(&a, &b, &one.unwrap()).launch(&stream), "out");
    let weights = Fp8Blocks::per_row(device.zeros::<narrowgauge::E4m3>(&[8, 128]).unwrap(), floats(&[7]));
    super::refused(weights.map(drop), "scales");
    // A matrix of A for each of B, and a count for each.
    let many = Fp8Rows::new(device.zeros(&[3, 4, 128]).unwrap(), floats(&[3, 4, 1])).unwrap();
    let groups = Fp8Blocks::new(device.zeros(&[2, 8, 128]).unwrap(), floats(&[2, 1, 1])).unwrap();
    let out = device.zeros::<f32>(&[3, 4, 8]).unwrap();
    let counts = device.tensor(&[3], &offsets(&[1, 1])).unwrap();
    super::refused(MaskedFp8Gemm::new(&many, &groups, &counts, &out).launch(&stream), "b");
    super::refused(MaskedFp8Gemm::new(&a, &groups, &counts, &out).launch(&stream), "a");
    super::refused(Fp8Gemm::new(&many, &b, &out).launch(&stream), "a");
}

/// With everything that an epilogue does, in every mode, tiles that no plan takes give the bits of the one that it takes,
/// which is held against the oracle.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_tile_gives_the_same_bits_in_every_mode_with_every_epilogue() {
    let device = device();
    let everything = Form {
        alpha: 0.5,
        bias: true,
        accumulate: true,
        row_weights: true,
        codes: [true, false],
        ..Form::PLAIN
    };
    let rows =
        [Rows::Dense(19), Rows::Groups(&[3, 0, 18]), Rows::Masked(&[2, 0, 17], 17), Rows::Batched(2, 18)];
    for (index, rows) in rows.into_iter().enumerate() {
        let granularity = [Granularity::Blocks, Granularity::Rows][index % 2];
        let form = Form { granularity, ..everything };
        let check = Fp8Check { form, values: Values::Normal, ..fp8(rows, 136, 144) };
        check.check::<f32>(&device).unwrap();
        check.holds::<f32>(&device, Property::Tiles).unwrap();
        check.holds::<bf16>(&device, Property::Tiles).unwrap();
    }
}

/// Whatever split the planner takes, sums stay within their bound, and exact ones exact.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn splits_of_the_planner_are_right() {
    let device = device();
    let mut split = 0;
    for (index, form) in Form::covering().into_iter().enumerate().step_by(3) {
        let (m, n, k) = ([1, 9, 17, 40][index % 4], [72, 264][index % 2], [1040, 2064][index / 2 % 2]);
        let form = Form { splits: true, ..form };
        let values = [Values::Normal, Values::Integers][index / 4 % 2];
        for (mode, rows) in [(Mode::Dense, Rows::Dense(m)), (Mode::Masked, Rows::Masked(&[1, 9], 9))] {
            let check = Fp8Check { form, values, ..fp8(rows, n, k) };
            let (m, groups) = if mode == Mode::Dense { (m, 1) } else { (9, 2) };
            let problem = Problem { mode, groups, ..Problem::dense(Input::Fp8, Output::F32, m, n, k) };
            split += u32::from(plan(&problem, device.card(), None).unwrap().split > 1);
            check.check::<f32>(&device).unwrap();
        }
    }
    assert!(split > 4, "only {split} of the products are split");
}

/// FP8 rows of masked groups whose fresh scales lie column by column.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn masked_groups_write_scales_in_either_layout() {
    let device = device();
    for tile in Tile::of(Input::Fp8, Mode::Masked).into_iter().filter(|tile| tile.columns() == 128) {
        for (layout, values) in
            [(ScaleLayout::RowMajor, Values::Integers), (ScaleLayout::MnMajor, Values::Normal)]
        {
            let check =
                Fp8Check { tile: Some(tile), layout, values, ..fp8(Rows::Masked(&[3, 0, 17], 17), 200, 144) };
            check.check_quantized(&device, layout == ScaleLayout::MnMajor).unwrap();
        }
    }
}

/// Extents at the edges of everything, each with each, and every way of rows: minutes on the simulated card.
#[test]
#[ignore = "long: cargo test --test gemm -- --ignored every_edge --nocapture"]
fn every_edge_with_every_edge() {
    let device = device();
    let forms = Form::covering();
    let mut all = narrowgauge::verify::Evidence::default();
    let mut turn = 0;
    for n in [8, 576, 2112] {
        for k in [16, 112, 128, 7168] {
            let dense = [0, 1, 7, 63, 64, 65, 129].map(Rows::Dense);
            let groups: [&[usize]; 3] = [&[0, 0, 1], &[0, 129, 0, 0], &[1; 7]];
            let groups =
                groups.map(Rows::Groups).into_iter().chain(groups.map(|sizes| Rows::Masked(sizes, 129)));
            for rows in dense.into_iter().chain(groups).chain([Rows::Batched(3, 7)]) {
                turn += 1;
                let form = if turn % 2 == 0 { Form::PLAIN } else { forms[turn % forms.len()] };
                let check =
                    Fp8Check { form, values: Values::ALL[turn % 4], seed: turn as u64, ..fp8(rows, n, k) };
                // All elements where that is a matter of seconds, else the model and projections.
                let small = rows.count() * n * k < 30_000_000;
                all.add(&match (turn / 4 % 2, small) {
                    (0, true) => check.check::<f32>(&device).unwrap(),
                    (0, false) => check.check_large::<f32>(&device).unwrap(),
                    (_, true) => check.check::<bf16>(&device).unwrap(),
                    (_, false) => check.check_large::<bf16>(&device).unwrap(),
                });
            }
        }
    }
    println!("{turn} products, {} comparisons: {all:?}", all.compared());
    assert!(turn == 168 && all.compared() > 1_000_000);
}

/// Every form with every way of rows, every output: minutes on the simulated card.
#[test]
#[ignore = "long: cargo test --test gemm -- --ignored every_form"]
fn every_form_with_every_kind_of_rows() {
    let device = device();
    let rows =
        [Rows::Dense(67), Rows::Groups(&[3, 0, 70]), Rows::Masked(&[2, 0, 65, 9], 65), Rows::Batched(3, 9)];
    let mut compared = 0;
    for (index, form) in Form::covering().into_iter().enumerate() {
        for rows in rows {
            for tile in Tile::of(Input::Fp8, rows.mode()) {
                let values = Values::ALL[index % 4];
                let check = Fp8Check { rows, n: 136, k: 272, form, values, tile: Some(tile), ..FP8 };
                if check.is_possible(Output::F32) {
                    compared += check.check::<f32>(&device).unwrap().compared();
                }
                if check.is_possible(Output::Bf16) {
                    compared += check.check::<bf16>(&device).unwrap().compared();
                }
                if check.is_possible(Output::E4m3) && !form.accumulate {
                    compared += check.check_quantized(&device, index % 2 == 0).unwrap().compared();
                }
            }
        }
    }
    assert!(compared > 0);
}

/// Every kernel of other types than e4m3 by e4m3, in each of them; the properties of sums do not depend on the types.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_pair_of_types_is_right_and_has_the_properties() {
    let device = device();
    let types = [[false, true], [true, false], [true, true]];
    for (e5m2, property) in
        types.into_iter().zip([Property::PowersOfTwo, Property::RowOrder, Property::ZeroBlocks])
    {
        let form = Form { e5m2, ..Form::PLAIN };
        let check = Fp8Check { form, values: Values::Normal, ..fp8(Rows::Dense(66), 136, 656) };
        check.check::<f32>(&device).unwrap();
        check.holds::<bf16>(&device, property).unwrap();
        let rows = Rows::Groups(&[1, 0, 66]);
        Fp8Check { rows, values: Values::Integers, ..check }.check::<bf16>(&device).unwrap();
    }
}
