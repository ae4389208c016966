//! Products with fine scales on both sides: weight gradients.

use super::common::{config, device};
use super::{layouts, refused, under_every_schedule, values};
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{Fp8GradientGemm, KGroupedFp8Gemm, Tile};
use narrowgauge::verify::Evidence;
use narrowgauge::verify::gemm::{Depth, Form, Fp8Check, GradientCheck, Rows, Values};
use narrowgauge::{E4m3, Fp8Rows, ScaleLayout, Ue8m0, bf16, f16};
use proptest::prelude::*;

const GRADIENT: GradientCheck<'_> = GradientCheck {
    m: 65,
    n: 129,
    depth: Depth::Dense(256),
    e5m2: [false; 2],
    layout: ScaleLayout::RowMajor,
    aligned: true,
    accumulate: false,
    alpha: 1.0,
    tile: None,
    values: Values::Integers,
    seed: 11,
};

const TYPES: [[bool; 2]; 4] = [[false, false], [true, false], [false, true], [true, true]];

fn tiles() -> Vec<Tile> {
    Tile::of(Input::Fp8Fine, Mode::KGrouped)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_variant_is_right_under_every_schedule() {
    assert_eq!(Tile::of(Input::Fp8Fine, Mode::Dense), tiles());
    under_every_schedule(|device| {
        for (tile, e5m2) in tiles().into_iter().flat_map(|tile| TYPES.map(|types| (tile, types))) {
            let check = GradientCheck { tile: Some(tile), e5m2, ..GRADIENT };
            // More blocks of K than stages; ragged in every direction.
            GradientCheck { depth: Depth::Dense(1040), ..check }.check::<f32>(device)?;
            let (accumulate, alpha, aligned) = (true, 2.0, false);
            let normal = GradientCheck { values: Values::Normal, accumulate, alpha, aligned, ..check };
            normal.check::<f32>(device)?;
            GradientCheck { m: 130, aligned: true, ..normal }.check::<bf16>(device)?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn edges_of_m_and_n_are_right() {
    let device = device();
    let edges = [1, 7, 8, 63, 64, 65, 129];
    for (i, m) in edges.into_iter().enumerate() {
        for (j, n) in edges.into_iter().enumerate() {
            let tile = Some(tiles()[(i + j) % 2]);
            let values = Values::ALL[(i + 2 * j) % 4];
            let (accumulate, aligned) = (i % 2 == 1, j % 2 == 0);
            let check = GradientCheck { m, n, tile, values, accumulate, aligned, ..GRADIENT };
            GradientCheck { depth: Depth::Dense(128), ..check }.check::<f32>(&device).unwrap();
            GradientCheck { alpha: 2.0, ..check }.check::<bf16>(&device).unwrap();
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn long_sums_are_right() {
    let device = device();
    for (values, layout) in
        Values::ALL.into_iter().zip([ScaleLayout::RowMajor, ScaleLayout::MnMajor].repeat(2))
    {
        for tile in tiles() {
            let check = GradientCheck { m: 9, n: 24, depth: Depth::Dense(7168), ..GRADIENT };
            GradientCheck { values, layout, tile: Some(tile), ..check }.check::<f32>(&device).unwrap();
        }
    }
}

/// Empty groups become zeros or stay; columns outside of the groups belong to nobody; offsets that only the device sees
/// are pulled into order and reported.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn groups_of_k_are_right_whatever_their_offsets() {
    let cases: [(&[i32], bool); 9] = [
        (&[0, 128, 128, 512, 512, 1152], false),
        (&[256, 256, 384], false),
        (&[0, 0, 0], false),
        (&[1152, 1152], false),
        (&[0, 100, 256], true),
        (&[0, 512, 256, 1280], true),
        (&[-1, 128, i32::MIN, i32::MAX], true),
        (&[i32::MAX, 0], true),
        (&[0, 1153], true),
    ];
    under_every_schedule(|device| {
        for (at, (offsets, reported)) in cases.into_iter().enumerate() {
            for accumulate in [false, true] {
                let depth = Depth::Groups(offsets, 1152);
                let values = if at % 2 == 0 { Values::Normal } else { Values::Integers };
                let tile = Some(tiles()[(at + usize::from(accumulate)) % 2]);
                let check = GradientCheck { m: 66, n: 136, depth, values, accumulate, tile, ..GRADIENT };
                check.check_reported::<f32>(device, reported)?;
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn many_groups_are_right() {
    let device = device();
    let mut offsets = vec![0];
    offsets.extend((0..70).map(|group| (group * 5 % 71 % 3 + group) / 5 * 128));
    let last = offsets[offsets.len() - 1];
    offsets.sort_unstable();
    let depth = Depth::Groups(&offsets, last as usize + 200);
    for tile in tiles() {
        GradientCheck { m: 3, n: 5, depth, tile: Some(tile), ..GRADIENT }.check::<f32>(&device).unwrap();
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn more_tiles_than_blocks_are_walked() {
    let device = device();
    // 9 bands' rows and a bit by 10 columns, twice: 180 tiles on the 156 or 78 resident blocks of an H20.
    let depth = Depth::Groups(&[0, 256, 384], 384);
    for tile in tiles() {
        let m = tile.rows() * 9 + 1;
        let check = GradientCheck { m, n: 1160, depth, tile: Some(tile), accumulate: true, ..GRADIENT };
        check.check::<bf16>(&device).unwrap();
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn adding_twice_doubles() {
    let device = device();
    let stream = device.stream();
    let check = GradientCheck { accumulate: true, ..GRADIENT };
    let mut inputs = check.inputs();
    inputs.old.fill(0.0);
    let once = check.run_counted::<f32>(&device, &inputs, false, &mut Evidence::default()).unwrap();
    let out = device.zeros::<f32>(&[check.m, check.n]).unwrap();
    for _ in 0..2 {
        check.launch(&device, &inputs, &out, &stream).unwrap();
    }
    let twice: Vec<f32> = once.iter().map(|x| 2.0 * x).collect();
    assert!(once.iter().any(|x| *x != 0.0));
    assert_eq!(out.to_vec().unwrap(), twice);
}

/// With one scale for each 128×128 block of B, the product is that of the inference kernel.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn equal_scales_give_the_product_of_blocks() {
    let device = device();
    let (m, n, k, values, seed) = (70, 200, 400, Values::Normal, 5);
    let layout = ScaleLayout::RowMajor;
    let blocks = Fp8Check { rows: Rows::Dense(m), n, k, layout, tile: None, values, form: Form::PLAIN, seed };
    let inputs = blocks.inputs();
    let fine: Vec<f32> = (0..n * 4).map(|i| inputs.b_scales[i / 4 / 128 * 4 + i % 4]).collect();
    let rows = |values: &[E4m3], scales: &[f32], rows: usize| {
        let data = device.tensor(&[rows, k], values).unwrap();
        Fp8Rows::new(data, device.tensor(&[rows, 4], scales).unwrap()).unwrap()
    };
    let [a, b] = inputs.e4m3();
    let (left, right) = (rows(&a, &inputs.a_scales, m), rows(&b, &fine, n));
    let out = device.zeros::<f32>(&[m, n]).unwrap();
    Fp8GradientGemm::new(&left, &right, &out).launch(&device.stream()).unwrap();
    let want = blocks.run::<f32>(&device, &inputs).unwrap();
    assert_eq!(out.to_vec().unwrap(), want);
}

/// Scales stored as exponents are the powers of two that they name.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn exponents_are_scales() {
    let device = device();
    let check = GradientCheck { m: 66, n: 72, ..GRADIENT };
    let inputs = check.inputs();
    let want = check.run_counted::<f32>(&device, &inputs, false, &mut Evidence::default()).unwrap();
    let codes: Vec<E4m3> = inputs.a.iter().chain(&inputs.b).map(|x| E4m3::from_bits(x.to_bits())).collect();
    let data = device.tensor(&[66 + 72, 256], &codes).unwrap();
    let scales = inputs.a_scales.iter().chain(&inputs.b_scales);
    // The code of 2^e is e + 127, the biased exponent of an f32.
    let exponents: Vec<Ue8m0> = scales.map(|x| Ue8m0::from_bits((x.to_bits() >> 23) as u8)).collect();
    let whole = Fp8Rows::join(data, device.tensor(&[66 + 72, 2], &exponents).unwrap()).unwrap();
    let out = device.zeros::<f32>(&[66, 72]).unwrap();
    let (a, b) = (whole.slice_rows(0..66).unwrap(), whole.slice_rows(66..138).unwrap());
    Fp8GradientGemm::new(&a, &b, &out).launch(&device.stream()).unwrap();
    assert_eq!(out.to_vec().unwrap(), want);
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn gradients_match_the_oracle(
        (m, n, k) in (1..140usize, 1..200usize, 1..700usize),
        (layout, tile, values, types, seed) in
            (layouts(), prop::option::of(0..2usize), values(), 0..4usize, any::<u64>()),
        (wide, aligned, accumulate, double) in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let (e5m2, tile, alpha) = (TYPES[types], tile.map(|at| tiles()[at]), if double { 2.0 } else { 1.0 });
        let depth = Depth::Dense(k);
        let check = GradientCheck { m, n, depth, e5m2, layout, aligned, accumulate, alpha, tile, values, seed };
        under_every_schedule(|device| if wide { check.check::<f32>(device) } else { check.check::<bf16>(device) })?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn groups_are_a_loop_and_scales_are_factors(
        sizes in prop::collection::vec(0..4i32, 1..8),
        (m, n, tile, layout, types, seed) in
            (1..80usize, 1..140usize, 0..2usize, layouts(), 0..4usize, any::<u64>()),
        accumulate in any::<bool>(),
    ) {
        let mut offsets = vec![0];
        sizes.iter().for_each(|size| offsets.push(offsets[offsets.len() - 1] + size * 128));
        let depth = Depth::Groups(&offsets, offsets[sizes.len()] as usize);
        let (e5m2, tile, values) = (TYPES[types], Some(tiles()[tile]), Values::Normal);
        let check = GradientCheck { m, n, depth, e5m2, layout, tile, values, seed, ..GRADIENT };
        under_every_schedule(|device| {
            GradientCheck { accumulate, ..check }.holds_alone::<f32>(device)?;
            check.holds_in_any_order(device)?;
            let dense = GradientCheck { depth: Depth::Dense(77 + 100 * sizes.len()), accumulate, ..check };
            dense.holds_in_any_order(device)?;
            check.holds_powers_of_two(device)
        })?;
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn no_k_writes_zeros_or_nothing() {
    let device = device();
    for tile in tiles() {
        for accumulate in [false, true] {
            let check = GradientCheck { depth: Depth::Dense(0), tile: Some(tile), accumulate, ..GRADIENT };
            check.check::<f32>(&device).unwrap();
            GradientCheck { depth: Depth::Groups(&[0, 0, 0], 0), ..check }.check::<bf16>(&device).unwrap();
        }
    }
}

#[test]
fn unfit_operands_are_refused() {
    let device = device();
    let stream = device.stream();
    let rows = |rows: usize, k: usize| Fp8Rows::empty(&device, rows, k, ScaleLayout::RowMajor).unwrap();
    let (a, b, out) = (rows(4, 256), rows(8, 256), device.zeros::<f32>(&[4, 8]).unwrap());
    refused(Fp8GradientGemm::new(&a, &rows(8, 128), &out).launch(&stream), "b");
    refused(Fp8GradientGemm::new(&b, &a, &out).launch(&stream), "out");
    let one = out.slice(0, 0..1).unwrap().expand(0, 4).unwrap();
    refused(Fp8GradientGemm::new(&a, &b, &one).launch(&stream), "out");
    let offsets = device.tensor(&[2], &[0, 256]).unwrap();
    refused(KGroupedFp8Gemm::new(&a, &b, &offsets, &out).launch(&stream), "out");
    let none = device.zeros::<i32>(&[0]).unwrap();
    refused(KGroupedFp8Gemm::new(&a, &b, &none, &out).launch(&stream), "offsets");
    let many = device.zeros::<i32>(&[1026]).unwrap();
    refused(KGroupedFp8Gemm::new(&a, &b, &many, &out).launch(&stream), "offsets");
    let other = Tile::of(Input::Fp8, Mode::Dense)[0];
    refused(Fp8GradientGemm::new(&a, &b, &out).tile(other).launch(&stream), "tile");
    refused(Fp8GradientGemm::new(&a, &b, &out).alpha(f32::NAN).launch(&stream), "alpha");
    let half = device.zeros::<f16>(&[4, 8]).unwrap();
    refused(Fp8GradientGemm::new(&a, &b, &half).launch(&stream), "out");
    let nothing = device.zeros::<f32>(&[0, 8]).unwrap();
    Fp8GradientGemm::new(&rows(0, 256), &b, &nothing).launch(&stream).unwrap();
}
