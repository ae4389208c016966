//! Matrix products against their oracles, on whatever device there is.

#[path = "../common/mod.rs"]
mod common;
mod forms;
mod gather;
mod gradient;
mod half;
mod large;
mod plans;
mod properties;
mod swapped;
mod swiglu;
mod transpose;

use common::{config, device};
use narrowgauge::dtype::nearest_bf16;
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{
    BatchedHalfGemm, Fp8Gemm, GroupedFp8Gemm, GroupedHalfGemm, HalfGemm, MaskedHalfGemm, Tile,
};
use narrowgauge::verify::gemm::{Form, Fp8Check, HalfCheck, Rows, Values, offsets};
use narrowgauge::{Device, Error, Fp8Blocks, Fp8Rows, ScaleLayout, bf16, f16, verify};
use proptest::prelude::*;

const LAYOUTS: [ScaleLayout; 2] = [ScaleLayout::RowMajor, ScaleLayout::MnMajor];

/// Under each completion policy (once on a real card).
fn under_every_schedule<R>(check: impl FnMut(&Device) -> Result<R, String>) -> Result<(), TestCaseError> {
    verify::under_every_schedule(&device(), check).map_err(TestCaseError::fail)
}

const FP8: Fp8Check<'_> = Fp8Check {
    rows: Rows::Dense(1),
    n: 1,
    k: 1,
    layout: ScaleLayout::RowMajor,
    tile: None,
    values: Values::Integers,
    form: Form::PLAIN,
    seed: 7,
};
const HALF: HalfCheck<'_> = HalfCheck {
    rows: Rows::Dense(1),
    n: 1,
    k: 1,
    transposed: [false; 2],
    tile: None,
    values: Values::Integers,
    form: Form::PLAIN,
    seed: 7,
};

fn fp8(rows: Rows<'_>, n: usize, k: usize) -> Fp8Check<'_> {
    Fp8Check { rows, n, k, ..FP8 }
}

fn half(rows: Rows<'_>, n: usize, k: usize) -> HalfCheck<'_> {
    HalfCheck { rows, n, k, ..HALF }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_case_passes_under_every_schedule() {
    verify::check_family(&device(), "gemm", 1).unwrap();
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_tile_is_exact_under_every_schedule() {
    under_every_schedule(|device| {
        // Ragged in every direction, more K blocks than stages, more than one tile per block's walk.
        for tile in tiles(Mode::Dense) {
            Fp8Check { tile, ..fp8(Rows::Dense(130), 136, 1040) }.check::<bf16>(device)?;
        }
        for tile in tiles(Mode::Contiguous) {
            Fp8Check { tile, ..fp8(Rows::Groups(&[1, 0, 66, 5]), 72, 272) }.check::<f32>(device)?;
        }
        for tile in half_tiles() {
            HalfCheck { tile, ..half(Rows::Dense(130), 136, 520) }.check::<f32>(device)?;
            HalfCheck { tile, ..half(Rows::Batched(3, 5), 72, 72) }.check::<bf16>(device)?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn more_tiles_than_blocks_are_walked() {
    let device = device();
    // 2 × 100 tiles of 64×64 on 156 resident blocks of an H20; the ring of stages goes on across tiles.
    let smallest = |tiles: Vec<Tile>| tiles.into_iter().min_by_key(|tile| tile.rows() * tile.columns());
    let tile = smallest(Tile::of(Input::Fp8, Mode::Dense));
    Fp8Check { tile, ..fp8(Rows::Dense(65), 6400, 16) }.check::<bf16>(&device).unwrap();
    let tile = smallest(Tile::of(Input::Bf16, Mode::Dense));
    HalfCheck { tile, ..half(Rows::Dense(65), 6400, 8) }.check::<bf16>(&device).unwrap();
}

fn layouts() -> impl Strategy<Value = ScaleLayout> {
    prop::sample::select(&LAYOUTS[..])
}

fn tiles(mode: Mode) -> impl Iterator<Item = Option<Tile>> {
    Tile::of(Input::Fp8, mode).into_iter().map(Some)
}

fn half_tiles() -> impl Iterator<Item = Option<Tile>> {
    Tile::of(Input::Bf16, Mode::Batched).into_iter().map(Some)
}

fn fp8_tile(mode: Mode) -> impl Strategy<Value = Option<Tile>> {
    prop::option::of(prop::sample::select(Tile::of(Input::Fp8, mode)))
}

fn half_tile() -> impl Strategy<Value = Option<Tile>> {
    prop::option::of(prop::sample::select(Tile::of(Input::Bf16, Mode::Batched)))
}

fn values() -> impl Strategy<Value = Values> {
    prop::sample::select(&Values::ALL[..])
}

fn extent() -> impl Strategy<Value = usize> {
    prop_oneof![1..40usize, prop::sample::select(&[63, 64, 65, 127, 128, 129, 136][..])]
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn fp8_products_match_the_oracle(
        (m, n, k) in (extent(), extent(), 1..480usize),
        (layout, tile, values, wide, seed) in (layouts(), fp8_tile(Mode::Dense), values(), any::<bool>(), any::<u64>()),
    ) {
        let check = Fp8Check { rows: Rows::Dense(m), n, k, layout, tile, values, form: Form::PLAIN, seed };
        under_every_schedule(|device| if wide { check.check::<f32>(device) } else { check.check::<bf16>(device) })?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn grouped_products_match_the_oracle(
        sizes in prop::collection::vec(prop_oneof![Just(0), 0..9usize, 60..70usize], 1..40),
        (n, k) in (1..140usize, 1..200usize),
        (layout, tile, values, wide, seed) in (layouts(), fp8_tile(Mode::Contiguous), values(), any::<bool>(), any::<u64>()),
    ) {
        let sizes = if sizes.iter().sum::<usize>() == 0 { vec![1] } else { sizes };
        let check = Fp8Check { rows: Rows::Groups(&sizes), n, k, layout, tile, values, form: Form::PLAIN, seed };
        under_every_schedule(|device| if wide { check.check::<f32>(device) } else { check.check::<bf16>(device) })?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn half_products_match_the_oracle(
        (m, n, k) in (extent(), extent(), 1..400usize),
        batch in prop::option::of(1..4usize),
        (transposed, tile, values, half, seed) in (any::<[bool; 2]>(), half_tile(), values(), any::<bool>(), any::<u64>()),
    ) {
        let rows = batch.map_or(Rows::Dense(m), |batch| Rows::Batched(batch, m));
        let transposed = [transposed[0] && !tile.is_some_and(|tile| tile.swapped()), transposed[1]];
        let check = HalfCheck { rows, n, k, transposed, tile, values, form: Form::PLAIN, seed };
        under_every_schedule(|device| {
            if half { check.check_of::<f16, f32>(device) } else { check.check::<bf16>(device) }
        })?;
    }
}

/// As few blocks as a grouped product can have: the first one reports.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bad_offsets_of_one_small_group_are_reported() {
    let device = device();
    let a = Fp8Rows::new(device.zeros(&[4, 128]).unwrap(), device.zeros(&[4, 1]).unwrap()).unwrap();
    let b = Fp8Blocks::new(device.zeros(&[1, 8, 128]).unwrap(), device.zeros(&[1, 1, 1]).unwrap()).unwrap();
    let out = device.zeros::<bf16>(&[4, 8]).unwrap();
    let offsets = device.tensor(&[2], &[0, 5]).unwrap();
    for tile in Tile::of(Input::Fp8, Mode::Contiguous) {
        GroupedFp8Gemm::new(&a, &b, &offsets, &out).tile(tile).launch(&device.stream()).unwrap();
        assert!(device.stream().status().unwrap().bad_offsets(), "{tile:?}");
    }
}

/// Offsets that only the device sees: pulled into order, reported, nothing outside touched.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bad_offsets_are_masked_and_reported() {
    let device = device();
    let stream = device.stream();
    let (rows, n, k) = (20, 64, 64);
    let sizes = [8, 4, 8];
    let check = fp8(Rows::Groups(&sizes), n, k);
    let inputs = check.inputs();
    let [a_codes, b_codes] = inputs.e4m3();
    let a = Fp8Rows::new(
        device.tensor(&[rows, k], &a_codes).unwrap(),
        device.tensor(&[rows, 1], &inputs.a_scales).unwrap(),
    )
    .unwrap();
    let b = Fp8Blocks::new(
        device.tensor(&[3, n, k], &b_codes).unwrap(),
        device.tensor(&[3, 1, 1], &inputs.b_scales).unwrap(),
    )
    .unwrap();
    // Given offsets, the sizes they mean, and whether that is worth a report.
    let cases: [([i32; 4], [std::ops::Range<usize>; 3], bool); 7] = [
        ([0, 8, 12, 20], [0..8, 8..12, 12..20], false),
        ([2, 8, 8, 10], [2..8, 8..8, 8..10], false),
        ([0, 8, 4, 20], [0..8, 8..8, 8..20], true),
        ([0, 8, 12, 21], [0..8, 8..12, 12..20], true),
        ([-3, 8, 12, 20], [0..8, 8..12, 12..20], true),
        ([0, -1, i32::MIN, 7], [0..0, 0..0, 0..7], true),
        ([i32::MAX, i32::MAX, 0, 5], [20..20, 20..20, 20..20], true),
    ];
    for (given, ranges, reported) in cases {
        let canary = bf16::from_bits(0xFEDC);
        let out = device.full(&[rows, n], canary).unwrap();
        let offsets = device.tensor(&[4], &given).unwrap();
        GroupedFp8Gemm::new(&a, &b, &offsets, &out).launch(&stream).unwrap();
        let status = stream.status().unwrap();
        assert_eq!(status.bad_offsets(), reported, "{given:?}: {status}");
        let mut want = vec![canary; rows * n];
        for (group, range) in ranges.into_iter().enumerate() {
            for row in range {
                let product = narrowgauge::gemm::reference::Fp8Product {
                    a: &inputs.a[row * k..][..k],
                    a_scales: &inputs.a_scales[row..][..1],
                    b: &inputs.b[group * n * k..][..n * k],
                    b_scales: &inputs.b_scales[group..][..1],
                    extents: (1, n, k),
                };
                let values =
                    narrowgauge::gemm::reference::fp8(&product, narrowgauge::gemm::reference::Rounding::Bf16);
                for (to, value) in want[row * n..][..n].iter_mut().zip(values.values) {
                    *to = nearest_bf16(value);
                }
            }
        }
        verify::exact(&format!("{given:?}"), &out.to_vec().unwrap(), &want).unwrap();
    }
}

#[test]
fn nothing_to_do_is_no_error() {
    let device = device();
    let stream = device.stream();
    let a = Fp8Rows::empty(&device, 0, 128, ScaleLayout::RowMajor).unwrap();
    let b = Fp8Blocks::new(device.zeros(&[64, 128]).unwrap(), device.zeros(&[1, 1]).unwrap()).unwrap();
    let out = device.empty::<bf16>(&[0, 64]).unwrap();
    Fp8Gemm::new(&a, &b, &out).launch(&stream).unwrap();
    let groups =
        Fp8Blocks::new(device.zeros(&[2, 64, 128]).unwrap(), device.zeros(&[2, 1, 1]).unwrap()).unwrap();
    let zero = device.zeros::<i32>(&[3]).unwrap();
    GroupedFp8Gemm::new(&a, &groups, &zero, &out).launch(&stream).unwrap();
    let (a, b) = (device.zeros::<bf16>(&[0, 64]).unwrap(), device.zeros::<bf16>(&[64, 64]).unwrap());
    HalfGemm::new(&a, &b, &out).launch(&stream).unwrap();
}

/// A sum of no products is zero; the output and no more is written, by a launch that a graph can hold.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn no_k_writes_zeros() {
    under_every_schedule(|device| {
        for layout in LAYOUTS {
            for tile in tiles(Mode::Dense) {
                Fp8Check { tile, layout, ..fp8(Rows::Dense(130), 136, 0) }.check::<bf16>(device)?;
            }
            for tile in tiles(Mode::Contiguous) {
                Fp8Check { tile, layout, ..fp8(Rows::Groups(&[1, 0, 66]), 72, 0) }.check::<f32>(device)?;
            }
        }
        for tile in half_tiles() {
            HalfCheck { tile, ..half(Rows::Dense(67), 136, 0) }.check::<f32>(device)?;
            HalfCheck { tile, ..half(Rows::Batched(3, 5), 72, 0) }.check::<bf16>(device)?;
        }
        Ok(())
    })
    .unwrap();

    let device = device();
    let stream = device.stream();
    let empty = device.empty::<bf16>(&[4, 0]).unwrap();
    let out = device.full(&[4, 4], 7.0f32).unwrap();
    let graph = stream.capture(|stream| HalfGemm::new(&empty, &empty, &out).launch(stream)).unwrap();
    graph.launch(&stream).unwrap();
    assert_eq!(out.to_vec().unwrap(), [0.0; 16]);
}

#[track_caller]
fn refused(result: narrowgauge::Result<()>, argument: &str) {
    match result {
        Err(Error::Argument { argument: found, .. }) => assert_eq!(found, argument),
        other => panic!("{other:?}, expected an error about {argument}"),
    }
}

#[test]
fn unfit_operands_are_refused_by_name() {
    let device = device();
    let stream = device.stream();
    let zeros = |shape: &[usize]| device.zeros::<bf16>(shape).unwrap();
    let (a, b, out) = (zeros(&[4, 64]), zeros(&[8, 64]), zeros(&[4, 8]));
    refused(HalfGemm::new(&a, &zeros(&[8, 72]), &out).launch(&stream), "b");
    refused(HalfGemm::new(&a, &b, &zeros(&[4, 9])).launch(&stream), "out");
    refused(HalfGemm::new(&a, &zeros(&[1, 8, 64]), &out).launch(&stream), "b");
    refused(BatchedHalfGemm::new(&a, &b, &out).launch(&stream), "a");
    refused(HalfGemm::new(&a, &b, &out.slice(0, 0..1).unwrap().expand(0, 4).unwrap()).launch(&stream), "out");
    refused(HalfGemm::new(&zeros(&[4, 65]).slice(1, 1..65).unwrap(), &b, &out).launch(&stream), "a");
    // Rows in the place of columns may be adjacent, but not neither.
    let wide = zeros(&[4, 64, 2]).select(2, 0).unwrap();
    refused(HalfGemm::new(&wide, &b, &out).launch(&stream), "a");
    refused(HalfGemm::new(&zeros(&[64, 4]).transpose(0, 1).unwrap(), &b, &out).launch(&stream), "a");
    refused(HalfGemm::new(&a, &b, &out).bias(&device.zeros(&[7]).unwrap()).launch(&stream), "bias");
    refused(HalfGemm::new(&a, &b, &out).alpha(f32::NAN).launch(&stream), "alpha");
    let three = device.tensor(&[3], &[0, 1, 2]).unwrap();
    refused(GroupedHalfGemm::new(&a, &zeros(&[1, 8, 64]), &three, &out).launch(&stream), "offsets");
    let pair = zeros(&[2, 8, 64]);
    refused(MaskedHalfGemm::new(&pair, &pair, &three, &zeros(&[2, 8, 8])).launch(&stream), "counts");
    let swapped = Tile::of(Input::Bf16, Mode::Dense).into_iter().find(Tile::swapped).unwrap();
    let across = zeros(&[64, 8]).transpose(0, 1).unwrap();
    refused(HalfGemm::new(&across, &b, &zeros(&[8, 8])).tile(swapped).launch(&stream), "tile");
    let shared = zeros(&[16, 64]);
    let (top, bottom) =
        (shared.slice(0, 0..8).unwrap(), shared.slice(0, 4..8).unwrap().slice(1, 0..8).unwrap());
    refused(HalfGemm::new(&a, &top, &bottom).launch(&stream), "out");

    let rows = Fp8Rows::empty(&device, 4, 128, ScaleLayout::MnMajor).unwrap();
    let blocks = |shape: &[usize], scales: &[usize]| {
        Fp8Blocks::new(device.zeros(shape).unwrap(), device.zeros(scales).unwrap()).unwrap()
    };
    refused(Fp8Gemm::new(&rows, &blocks(&[8, 256], &[1, 2]), &out).launch(&stream), "b");
    refused(Fp8Gemm::new(&rows, &blocks(&[1, 8, 128], &[1, 1, 1]), &out).launch(&stream), "b");
    let offsets = device.tensor(&[2], &offsets(&[4])).unwrap();
    refused(GroupedFp8Gemm::new(&rows, &blocks(&[8, 128], &[1, 1]), &offsets, &out).launch(&stream), "b");
    let two = blocks(&[2, 8, 128], &[2, 1, 1]);
    refused(GroupedFp8Gemm::new(&rows, &two, &offsets, &out).launch(&stream), "offsets");
    let many = blocks(&[1025, 8, 128], &[1025, 1, 1]);
    let long = device.zeros::<i32>(&[1026]).unwrap();
    refused(GroupedFp8Gemm::new(&rows, &many, &long, &out).launch(&stream), "groups");
    let other = verify::device().unwrap();
    let elsewhere = other.zeros::<bf16>(&[4, 8]).unwrap();
    if other != device {
        refused(HalfGemm::new(&a, &b, &elsewhere).launch(&stream), "out");
    }
}

#[test]
fn unfit_scales_and_rows_are_refused_by_name() {
    let device = device();
    let new = |data: &[usize], scales: &[usize]| {
        Fp8Rows::new(device.zeros(data).unwrap(), device.zeros(scales).unwrap()).map(drop)
    };
    new(&[3, 144], &[3, 2]).unwrap();
    refused(new(&[3, 144], &[3, 1]), "scales");
    refused(new(&[3, 144], &[2, 3]), "scales");
    refused(new(&[3, 150], &[3, 2]), "data");
    refused(new(&[144], &[2]), "data");
    let blocks = |data: &[usize], scales: &[usize]| {
        Fp8Blocks::new(device.zeros(data).unwrap(), device.zeros(scales).unwrap()).map(drop)
    };
    blocks(&[576, 144], &[5, 2]).unwrap();
    refused(blocks(&[576, 144], &[4, 2]), "scales");
    refused(blocks(&[2, 576, 144], &[5, 2]), "scales");
    let padded = Fp8Rows::empty(&device, 5, 130, ScaleLayout::MnMajor).unwrap();
    assert_eq!((padded.rows(), padded.cols(), padded.scales().strides()), (5, 130, &[1, 8][..]));
    assert_eq!(padded.slice_rows(2..4).unwrap().rows(), 2);
    refused(padded.slice_rows(2..6).map(drop), "range");
}
