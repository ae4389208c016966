//! Extents at the edges of tiles, blocks and groups for the operations beside the dense ones: each value of each at least once,
//! and pairs of them as far as the reference, which is slow, allows.

use super::cases::{DENSE, GRADIENT, HALF, SWIGLU};
use super::half_cases;
use super::{Depth, Form, Fp8Check, GradientCheck, HalfCheck, Rows, SwigluCheck, Values};
use crate::device::Device;
use crate::dtype::bf16;
use crate::fp8::ScaleLayout;
use crate::verify::Evidence;

type Outcome = Result<Evidence, String>;

const ROWS: [usize; 7] = [0, 1, 7, 63, 64, 65, 129];
const COLUMNS: [usize; 3] = [2112, 576, 8];
const DEPTHS: [usize; 4] = [16, 112, 128, 7168];
/// Empty but for one row, one huge, all of one row, at the edges of tiles.
const GROUPS: [&[usize]; 4] = [&[0, 0, 1], &[0, 129, 0, 0], &[1; 7], &[7, 63, 0, 64, 65]];
/// Multiply-accumulates of a case.
const MOST: usize = 2 << 20;

/// Columns whose turn it is, or the next fewer that keep the case small.
fn columns(turn: usize, rows: usize, k: usize) -> usize {
    let fits = |n: &&usize| **n * rows * k <= MOST;
    *COLUMNS[turn % 3..].iter().find(fits).unwrap_or(&8)
}

/// Every kind of rows that finds weights by group, for each list of sizes.
fn grouped<'a>(sizes: &'a [usize], turn: usize) -> [Rows<'a>; 3] {
    let room = sizes.iter().copied().max().unwrap_or(0);
    [Rows::Groups(sizes), Rows::Masked(sizes, room), Rows::Batched(2, ROWS[turn % 7])]
}

pub(super) fn fp8_groups(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let mut turn = seed as usize;
    for sizes in GROUPS {
        for k in DEPTHS {
            for rows in grouped(sizes, turn) {
                turn += 1;
                let n = columns(turn, rows.count(), k);
                let layout = [ScaleLayout::RowMajor, ScaleLayout::MnMajor][turn / 2 % 2];
                let form = Form { gathers: [0, 0, 1, 3][turn % 4], ..Form::PLAIN };
                let values = Values::ALL[turn / 3 % 4];
                let check = Fp8Check { rows, n, k, layout, values, form, seed, ..DENSE };
                all.add(&match turn % 2 {
                    0 => check.check::<bf16>(device)?,
                    _ => check.check::<f32>(device)?,
                });
            }
        }
    }
    Ok(all)
}

pub(super) fn half_groups(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let mut turn = seed as usize;
    for sizes in GROUPS {
        for k in DEPTHS {
            for rows in grouped(sizes, turn) {
                turn += 1;
                let n = columns(turn, rows.count(), k);
                let transposed = [turn.is_multiple_of(3), turn.is_multiple_of(2)];
                let values = Values::ALL[turn / 3 % 4];
                let check = HalfCheck { rows, n, k, transposed, values, seed, ..HALF };
                all.add(&half_cases::run(device, &check, turn)?);
            }
        }
    }
    Ok(all)
}

/// A SwiGLU's N is whole blocks.
pub(super) fn swiglu(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let mut turn = seed as usize;
    let dense = ROWS.map(Rows::Dense).into_iter();
    for rows in dense.chain(GROUPS.into_iter().flat_map(|sizes| [grouped(sizes, 0)[0], grouped(sizes, 0)[1]]))
    {
        for k in DEPTHS {
            turn += 1;
            if rows.count() * k > 52 << 10 {
                continue;
            }
            let n = [256, 512][turn % 2];
            let product = Fp8Check { rows, n, k, values: Values::ALL[turn / 2 % 4], seed, ..DENSE };
            let power_of_two = turn.is_multiple_of(3);
            all.add(&SwigluCheck { product, power_of_two, ..SWIGLU }.check(device)?);
        }
    }
    Ok(all)
}

/// Rows of both sides, and K of one product or of groups that are empty, one huge, or all of one block.
pub(super) fn gradients(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let mut turn = seed as usize;
    let groups: [&[i32]; 3] = [&[0, 0, 0, 128], &[0, 0, 7168, 7168], &[0, 128, 256, 384]];
    let of_groups = groups.map(|offsets| Depth::Groups(offsets, offsets[offsets.len() - 1] as usize));
    for depth in DEPTHS.map(Depth::Dense).into_iter().chain(of_groups) {
        for m in ROWS {
            turn += 1;
            let check = GradientCheck { m, depth, values: Values::ALL[turn / 2 % 4], seed, ..GRADIENT };
            let e5m2 = [turn.is_multiple_of(3), turn.is_multiple_of(5)];
            let check =
                GradientCheck { n: columns(turn, m, check.k()), e5m2, accumulate: turn % 2 == 1, ..check };
            all.add(&check.check::<f32>(device)?);
        }
    }
    Ok(all)
}
