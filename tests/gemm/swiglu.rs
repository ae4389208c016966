//! Products with SwiGLU and quantisation: every kernel, every way of rows, every option.

use super::{device, fp8, refused, under_every_schedule};
use narrowgauge::gemm::plan::{Input, Mode, Output, Problem, plan};
use narrowgauge::gemm::reference::AnyFp8;
use narrowgauge::gemm::{Fp8GemmSwiglu, GroupedFp8GemmSwiglu, MaskedFp8GemmSwiglu, Tile};
use narrowgauge::verify::gemm::{Form, Fp8Check, Rows, SwigluCheck, Values, moderate};
use narrowgauge::{Card, E4m3, Fp8Blocks, Fp8Rows, ScaleLayout};

fn gated(product: Fp8Check<'_>) -> SwigluCheck<'_> {
    SwigluCheck { product, clamp: None, power_of_two: false }
}

const ROWS: [Rows<'_>; 3] = [Rows::Dense(67), Rows::Groups(&[3, 0, 70, 1]), Rows::Masked(&[2, 0, 65, 9], 65)];

fn tiles(mode: Mode) -> Vec<Tile> {
    let tiles = Tile::of_swiglu(mode);
    assert!(!tiles.is_empty());
    tiles
}

/// Every tile in every mode, splits and kinds of values in turn: exact, saturated, and where the activation bends.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_tile_is_right_under_every_schedule() {
    under_every_schedule(|device| {
        for (j, rows) in ROWS.into_iter().enumerate() {
            for (i, tile) in tiles(rows.mode()).into_iter().enumerate() {
                let parts = tile.splits()[(i + j) % tile.splits().len()];
                let (values, turn) = (Values::ALL[(i + j) % 4], i + j);
                let check =
                    Fp8Check { tile: tile.split(parts), values, seed: i as u64, ..fp8(rows, 256, 656) };
                let check = if turn % 3 == 0 { check } else { moderate(check) };
                let clamp = [None, Some(3.0)][turn / 2 % 2];
                SwigluCheck { clamp, power_of_two: turn % 2 == 0, ..gated(check) }.check(device)?;
            }
        }
        Ok(())
    })
    .unwrap();
}

/// Every split of every tile, with K that leaves parts of every length.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_split_is_right() {
    let device = device();
    let split = |tile: Tile| tile.splits().iter().map(move |parts| tile.split(*parts));
    for (i, tile) in tiles(Mode::Dense).into_iter().flat_map(split).enumerate() {
        let check = Fp8Check { tile, values: Values::ALL[i % 4], ..fp8(Rows::Dense(9), 512, 1168) };
        gated(moderate(check)).check(&device).unwrap();
    }
}

/// Sums so large that the activation is exact: codes and scales bit for bit, the clamp included.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn large_gates_give_exact_codes() {
    let device = device();
    for rows in ROWS {
        for (i, tile) in tiles(rows.mode()).into_iter().enumerate() {
            let values = Values::Positive;
            let product = Fp8Check { tile: Some(tile), values, ..fp8(rows, 256, 640) };
            let clamp = [None, Some(1024.0)][i % 2];
            let evidence = SwigluCheck { clamp, ..gated(product) }.check(&device).unwrap();
            assert_eq!(evidence.bounded, 0, "{tile}");
            assert!(evidence.exact > 0);
        }
    }
}

/// Every pair of options, in turn over tiles and ways of rows.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_option_is_right() {
    let device = device();
    for (i, form) in Form::covering().into_iter().enumerate() {
        let rows = ROWS[i % 3];
        let tiles = tiles(rows.mode());
        let check = Fp8Check {
            form: Form { accumulate: false, ..form },
            values: Values::ALL[i / 2 % 4],
            layout: [ScaleLayout::RowMajor, ScaleLayout::MnMajor][i / 3 % 2],
            tile: Some(tiles[i % tiles.len()]),
            seed: i as u64,
            ..fp8(rows, 256, 272)
        };
        let clamp = [None, Some(10.0)][i / 4 % 2];
        SwigluCheck { clamp, power_of_two: i % 5 < 2, ..gated(check) }.check(&device).unwrap();
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn groups_rows_tiles_and_powers_of_two_are_related() {
    let forms = [Form::PLAIN, Form { row_weights: true, alpha: 0.25, codes: [true, true], ..Form::PLAIN }];
    under_every_schedule(|device| {
        for (i, rows) in ROWS.into_iter().enumerate() {
            let form = forms[i % 2];
            let check = Fp8Check { values: Values::Normal, form, ..fp8(rows, 256, 272) };
            let check = if i == 0 { check } else { moderate(check) };
            SwigluCheck { power_of_two: i == 2, ..gated(check) }.relations(device)?;
        }
        Ok(())
    })
    .unwrap();
}

/// Extents where something ends: rows of tiles and their halves, K of blocks, stages and nothing at all.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn edges_are_right() {
    let device = device();
    for (i, m) in [1, 7, 8, 17, 63, 64, 65, 127, 128, 129].into_iter().enumerate() {
        for (j, tile) in tiles(Mode::Dense).into_iter().enumerate() {
            let k = [16, 112, 128, 512, 640, 0][(i + j) % 6];
            let values = Values::ALL[(i + j) % 4];
            let form = Form { bias: k == 0, ..Form::PLAIN };
            let check = Fp8Check { tile: Some(tile), values, form, ..fp8(Rows::Dense(m), 256, k) };
            gated(check).check(&device).unwrap();
        }
    }
    // More tiles than blocks: the ring goes on across them.
    for tile in tiles(Mode::Dense) {
        gated(Fp8Check { tile: Some(tile), ..fp8(Rows::Dense(5), 256 * 85, 144) }).check(&device).unwrap();
    }
}

/// Only kernels of SwiGLU serve it, and they serve nothing else.
#[test]
fn plans_keep_to_their_kernels() {
    for (m, mode, groups) in [(1, Mode::Dense, 1), (4096, Mode::Contiguous, 32), (64, Mode::Masked, 9)] {
        let problem =
            Problem { mode, groups, swiglu: true, ..Problem::dense(Input::Fp8, Output::E4m3, m, 2048, 7168) };
        for card in [Card::H20, Card::H200] {
            let chosen = plan(&problem, &card, None).unwrap();
            assert!(Tile::of_swiglu(mode).contains(&chosen.tile), "{chosen:?}");
            let plain = plan(&Problem { swiglu: false, ..problem }, &card, None).unwrap();
            assert!(Tile::of(Input::Fp8, mode).contains(&plain.tile), "{plain:?}");
            assert_eq!(plan(&problem, &card, Some(plain.tile)), None);
        }
        assert_eq!(plan(&Problem { output: Output::Bf16, ..problem }, &Card::H20, None), None);
        assert_eq!(plan(&Problem { a_e5m2: true, ..problem }, &Card::H20, None), None);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = device();
    let stream = device.stream();
    let a = Fp8Rows::empty(&device, 4, 128, ScaleLayout::RowMajor).unwrap();
    let weights = |rows: usize| {
        let scales = device.zeros(&[rows.div_ceil(128), 1]).unwrap();
        Fp8Blocks::new(device.zeros::<E4m3>(&[rows, 128]).unwrap(), scales).unwrap()
    };
    let (b, out) = (weights(256), Fp8Rows::empty(&device, 4, 128, ScaleLayout::RowMajor).unwrap());
    let product = || Fp8GemmSwiglu::new(&a, &b, &out);
    let floats = |shape: &[usize]| device.zeros::<f32>(shape).unwrap();
    for limit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(product().clamp(limit).launch(&stream), "clamp");
    }
    refused(product().bias(&floats(&[128])).launch(&stream), "bias");
    refused(product().row_weights(&floats(&[3])).launch(&stream), "row_weights");
    for rows in [0, 128, 192, 257].into_iter().filter(|rows| *rows > 0) {
        refused(Fp8GemmSwiglu::new(&a, &weights(rows), &out).launch(&stream), "b");
    }
    let wide = Fp8Rows::empty(&device, 4, 256, ScaleLayout::RowMajor).unwrap();
    refused(Fp8GemmSwiglu::new(&a, &b, &wide).launch(&stream), "out");
    refused(product().tile(Tile::of(Input::Fp8, Mode::Dense)[0]).launch(&stream), "tile");
    let groups = Fp8Blocks::new(device.zeros(&[2, 256, 128]).unwrap(), floats(&[2, 2, 1])).unwrap();
    let offsets = device.zeros::<i32>(&[2]).unwrap();
    refused(GroupedFp8GemmSwiglu::new(&a, &groups, &offsets, &out).launch(&stream), "offsets");
    refused(MaskedFp8GemmSwiglu::new(&a, &groups, &offsets, &out).launch(&stream), "a");
}

/// Nothing to do is no error, and NaN stays with its row and block.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn no_rows_and_nan() {
    let device = device();
    let none = Fp8Check { ..fp8(Rows::Dense(0), 256, 128) };
    gated(none).check(&device).unwrap();
    for tile in tiles(Mode::Dense) {
        let check =
            gated(Fp8Check { tile: Some(tile), values: Values::Positive, ..fp8(Rows::Dense(5), 512, 256) });
        let mut inputs = check.product.inputs();
        let clean = check.run(&device, &inputs, &mut Default::default()).unwrap();
        inputs.a[2 * 256] = AnyFp8::E4m3(E4m3::NAN);
        for clamp in [None, Some(8.0)] {
            let got = SwigluCheck { clamp, ..check }.run(&device, &inputs, &mut Default::default()).unwrap();
            for row in 0..5 {
                let codes = &got.codes[row * 256..][..256];
                if row == 2 {
                    assert!(codes.iter().all(|code| code & 0x7F == 0x7F), "{tile} {clamp:?}");
                } else if clamp.is_none() {
                    assert_eq!(codes, &clean.codes[row * 256..][..256], "{tile}");
                }
            }
        }
    }
}
