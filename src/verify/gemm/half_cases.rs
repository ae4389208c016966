//! Cases of products of 16-bit floats: layouts, groups, edges, splits.

use super::cases::{HALF, extent, pick, tile};
use super::{Checked, CheckedInput, Form, HalfCheck, Rows, Sampling, Values};
use crate::device::Device;
use crate::dtype::{bf16, f16};
use crate::gemm::Tile;
use crate::gemm::plan::{Input, Mode};
use crate::verify::{Evidence, Source};

type Outcome = Result<Evidence, String>;

/// With inputs and an output whose turn it is.
pub(super) fn run(device: &Device, check: &HalfCheck<'_>, turn: usize) -> Outcome {
    fn of<H: CheckedInput>(device: &Device, check: &HalfCheck<'_>, turn: usize) -> Outcome {
        fn to<H: CheckedInput, T: Checked + Default>(device: &Device, check: &HalfCheck<'_>) -> Outcome {
            check.check_of::<H, T>(device)
        }
        // Integers whose sums f16 can hold.
        let alpha = if check.values.exact() { 2f32.powi(-10) } else { check.form.alpha };
        match turn % 3 {
            0 => to::<H, bf16>(device, check),
            1 => to::<H, f32>(device, check),
            _ => to::<H, f16>(device, &HalfCheck { form: Form { alpha, ..check.form }, ..*check }),
        }
    }
    match turn / 3 % 2 {
        0 => of::<bf16>(device, check, turn),
        _ => of::<f16>(device, check, turn),
    }
}

const LAYOUTS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

/// Every tile that can, with every layout, type and, in turn, output; more k-blocks than stages, and a last one that is not
/// whole.
pub(super) fn layouts(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let mut turn = seed as usize;
    for tile in Tile::of(Input::Bf16, Mode::Dense) {
        for transposed in LAYOUTS {
            if transposed[0] && tile.swapped() {
                continue;
            }
            for half in 0..2 {
                let values = Values::ALL[turn % 4];
                let (rows, n, k) = ([Rows::Dense(70), Rows::Dense(131)][turn / 2 % 2], 140, 530);
                let check = HalfCheck { rows, n, k, transposed, tile: Some(tile), values, seed, ..HALF };
                all.add(&run(device, &check, turn % 3 + 3 * half)?);
                turn += 1;
            }
        }
    }
    Ok(all)
}

/// Rows, columns and K where something ends; with the planner's tile.
pub(super) fn edges(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let (columns, depths) = ([2112, 576, 8], [8, 16, 112, 128, 7168]);
    for (i, m) in [0, 1, 7, 63, 64, 65, 129].into_iter().enumerate() {
        for (j, k) in depths.into_iter().enumerate() {
            let turn = i + j + seed as usize;
            // The reference is slow.
            let fits = |n: &&usize| **n * m * k <= 3 << 20;
            let n = *columns[(turn + j) % 3..].iter().find(fits).unwrap_or(&8);
            let values = Values::ALL[turn % 4];
            let transposed = LAYOUTS[(i + 2 * j) % 4];
            let check = HalfCheck { rows: Rows::Dense(m), n, k, transposed, values, seed, ..HALF };
            all.add(&run(device, &check, turn)?);
        }
    }
    Ok(all)
}

/// Groups empty, huge and of one row, in every mode, with all that an epilogue does.
pub(super) fn groups(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let rows = [
        Rows::Groups(&[3, 0, 70]),
        Rows::Groups(&[1; 9]),
        Rows::Groups(&[0, 0, 130, 0]),
        Rows::Masked(&[2, 0, 65, 9], 66),
        Rows::Batched(3, 20),
        Rows::Dense(67),
    ];
    for (index, form) in Form::covering().into_iter().enumerate() {
        let turn = index + seed as usize;
        let form = Form {
            alpha: form.alpha,
            bias: form.bias,
            accumulate: form.accumulate,
            row_weights: form.row_weights,
            ..Form::PLAIN
        };
        let check = HalfCheck {
            rows: rows[turn % rows.len()],
            n: [136, 72][index % 2],
            k: [272, 144][index / 2 % 2],
            transposed: LAYOUTS[index / 3 % 4],
            tile: None,
            values: Values::ALL[turn / 2 % 4],
            form,
            seed: seed ^ (index as u64) << 8,
        };
        all.add(&run(device, &check, turn)?);
    }
    Ok(all)
}

/// Every split of every tile that has some, in every mode, more tiles than one for a cluster.
pub(super) fn splits(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let mut turn = seed as usize;
    for (mode, rows) in [
        (Mode::Dense, Rows::Dense(67)),
        (Mode::Contiguous, Rows::Groups(&[1, 0, 40])),
        (Mode::Masked, Rows::Masked(&[3, 0, 17], 17)),
        (Mode::Batched, Rows::Batched(2, 9)),
    ] {
        for tile in Tile::of(Input::F16, mode).into_iter().filter(Tile::swapped) {
            for parts in tile.splits().iter().copied().filter(|parts| *parts > 1) {
                let form = if turn.is_multiple_of(3) {
                    Form { bias: true, accumulate: true, ..Form::PLAIN }
                } else {
                    Form::PLAIN
                };
                let check = HalfCheck {
                    rows,
                    n: [72, 200][turn % 2],
                    k: [656, 1040][turn / 2 % 2],
                    transposed: [false, turn.is_multiple_of(2)],
                    tile: tile.split(parts),
                    values: Values::ALL[turn % 4],
                    form,
                    seed,
                };
                all.add(&run(device, &check, turn)?);
                turn += 1;
            }
        }
    }
    Ok(all)
}

/// Any shape, layout, tile, kind of values, type and output.
pub(super) fn drawn(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0xB16);
    let m = extent(source, 150);
    let rows = pick(
        source,
        &[Rows::Dense(m), Rows::Batched(1, m), Rows::Batched(5, m), Rows::Masked(&[7, 0, 4], 9)],
    );
    let tile = tile(source, Input::Bf16, rows.mode());
    let swapped = tile.is_some_and(|tile| tile.swapped());
    let check = HalfCheck {
        rows,
        n: extent(source, 200),
        k: 1 + source.below(500),
        transposed: [!swapped && source.below(2) == 0, source.below(2) == 0],
        tile: tile.map(|tile| tile.split(1).unwrap_or(tile)),
        values: pick(source, &Values::ALL),
        form: Form::PLAIN,
        seed,
    };
    match source.below(4) {
        0 => check.check_sampled::<bf16, f32>(device, Sampling::Thorough),
        1 => check.check_sampled::<bf16, bf16>(device, Sampling::Thorough),
        2 => check.check_sampled::<f16, f32>(device, Sampling::Thorough),
        _ => check.check_sampled::<f16, bf16>(device, Sampling::Thorough),
    }
}
