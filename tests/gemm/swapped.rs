//! Products of few rows, with weights on the side of 64: every kernel, every split of K.

use super::{FP8, fp8, under_every_schedule};
use narrowgauge::gemm::Tile;
use narrowgauge::gemm::plan::{Input, Mode, Output};
use narrowgauge::verify::gemm::{Form, Fp8Check, Rows, Values};
use narrowgauge::{Device, ScaleLayout, bf16};

fn swapped(mode: Mode) -> Vec<Tile> {
    let tiles: Vec<_> = Tile::of(Input::Fp8, mode).into_iter().filter(Tile::swapped).collect();
    assert!(tiles.len() >= 8, "{tiles:?}");
    tiles
}

/// Every tile with every split of K.
fn split(mode: Mode) -> impl Iterator<Item = Tile> {
    swapped(mode)
        .into_iter()
        .flat_map(|tile| tile.splits().iter().map(move |parts| tile.split(*parts).unwrap()))
}

/// Rows, columns and K where something ends: each value occurs with every tile, and all of them over the splits.
const EDGES: [(usize, usize, usize); 12] = [
    (1, 8, 7168),
    (7, 64, 128),
    (8, 72, 112),
    (9, 576, 16),
    (15, 8, 1040),
    (16, 576, 128),
    (17, 72, 272),
    (63, 64, 640),
    (64, 8, 112),
    (65, 72, 1552),
    (1, 576, 400),
    (64, 136, 16),
];

fn edges(device: &Device, tile: Tile, which: usize) -> Result<(), String> {
    let (m, n, k) = EDGES[which % EDGES.len()];
    let layout = if which.is_multiple_of(2) { ScaleLayout::RowMajor } else { ScaleLayout::MnMajor };
    let values = Values::ALL[which % 4];
    let check =
        Fp8Check { tile: Some(tile), layout, values, seed: which as u64, ..fp8(Rows::Dense(m), n, k) };
    if which.is_multiple_of(3) {
        check.check::<f32>(device)?
    } else {
        check.check::<bf16>(device)?
    };
    Ok(())
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_split_is_right_at_every_edge() {
    under_every_schedule(|device| {
        for (i, tile) in split(Mode::Dense).enumerate() {
            // Over the four splits of a tile, all edges.
            for which in 0..EDGES.len() / 4 {
                edges(device, tile, i * (EDGES.len() / 4) + which)?;
            }
        }
        Ok(())
    })
    .unwrap();
}

/// Groups that are empty, one huge, one row each; more groups than tables of a warp's lanes.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_split_is_right_for_groups() {
    let many: Vec<usize> = (0..70).map(|i| usize::from(i % 9 == 4)).collect();
    let lists: [&[usize]; 5] = [&[0, 9, 0, 1], &[0, 0, 70, 0], &[1; 11], &many, &[8, 16, 7, 65]];
    under_every_schedule(|device| {
        for (i, tile) in split(Mode::Contiguous).enumerate() {
            let values = Values::ALL[i % 4];
            let check = Fp8Check { tile: Some(tile), values, seed: i as u64, ..FP8 };
            let rows = Rows::Groups(lists[i % lists.len()]);
            Fp8Check { rows, n: [72, 200, 8][i % 3], k: [272, 16, 528][i % 3], ..check }
                .check::<bf16>(device)?;
        }
        Ok(())
    })
    .unwrap();
}

/// Counted and batched groups, and everything that an epilogue does, with every split; fresh scales where a tile has their
/// 128 columns.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_split_is_right_in_every_mode_with_every_epilogue() {
    let device = super::device();
    let forms = Form::covering();
    for mode in [Mode::Masked, Mode::Batched] {
        for (i, tile) in split(mode).enumerate() {
            let rows = if mode == Mode::Masked { Rows::Masked(&[3, 0, 17], 17) } else { Rows::Batched(2, 9) };
            let (values, form) = (Values::ALL[i % 4], forms[i % forms.len()]);
            let check = Fp8Check { rows, n: [72, 200][i % 2], k: 400, tile: Some(tile), values, form, ..FP8 };
            if check.is_possible(Output::F32) {
                check.check::<f32>(&device).unwrap();
            }
            // Accumulating to e4m3 is refused, and a bound of what was rounded to codes needs sums in order.
            if values.exact() && !form.accumulate && check.is_possible(Output::E4m3) {
                check.check_quantized(&device, i % 2 == 0).unwrap();
            }
        }
    }
}

/// More tiles than clusters are resident: the ring of stages, the partial sums and their barriers go on across tiles.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn clusters_walk_over_many_tiles() {
    under_every_schedule(|device| {
        for tile in swapped(Mode::Dense).into_iter().filter(|tile| tile.rows() == 8) {
            for (parts, n) in [(1, 11_400), (2, 6_000), (4, 3_200), (8, 1_600)] {
                let tile = tile.split(parts);
                let check = Fp8Check { tile, values: Values::Normal, ..fp8(Rows::Dense(17), n, 640) };
                check.check::<bf16>(device)?;
            }
        }
        Ok(())
    })
    .unwrap();
}

/// Neither the side of the weights nor the size of a tile changes a bit, and a split gives the same bits each time.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn without_a_split_the_bits_are_those_of_every_tile() {
    under_every_schedule(|device| {
        for (m, n, k) in [(5, 200, 1552), (33, 72, 400), (66, 136, 272)] {
            let check = Fp8Check { values: Values::Normal, ..fp8(Rows::Dense(m), n, k) };
            let inputs = check.inputs();
            let other = Tile::of(Input::Fp8, Mode::Dense).into_iter().find(|tile| !tile.swapped());
            let want = Fp8Check { tile: other, ..check }.run::<f32>(device, &inputs)?;
            for tile in swapped(Mode::Dense) {
                let run = |parts| {
                    let got = Fp8Check { tile: tile.split(parts), ..check }.run::<f32>(device, &inputs)?;
                    Ok::<_, String>(got.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                };
                let same = run(1)?.iter().zip(&want).all(|(a, b)| *a == b.to_bits());
                assert!(same, "{tile} of {m}x{n}x{k}");
                assert_eq!(run(4)?, run(4)?, "{tile} of {m}x{n}x{k}");
            }
        }
        Ok(())
    })
    .unwrap();
}
