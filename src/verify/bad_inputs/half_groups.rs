//! Groups of 16-bit products that are not what they should be.

use super::lab::Lab;
use crate::device::abi::NG_STATUS_BAD_OFFSETS;
use crate::dtype::bf16;
use crate::error::Result;
use crate::gemm::{GroupedHalfGemm, MaskedHalfGemm};
use crate::tensor::Tensor;
use crate::verify::surrounded::{Poison, Surrounded, text};
use crate::verify::{Evidence, exact};

type Done = std::result::Result<(), String>;

const K: usize = 64;
const N: usize = 8;

fn ones(lab: &Lab<'_>, shape: &[usize]) -> Result<Tensor<bf16>> {
    lab.device.full(shape, bf16::ONE)
}

/// Weights of the numbers 1, 2 and 3.
fn weights(lab: &Lab<'_>) -> Tensor<bf16> {
    lab.tensor(
        &[3, N, K],
        &(1..4u8).flat_map(|group| [bf16::from_f32(group.into()); N * K]).collect::<Vec<_>>(),
    )
}

/// For each row its group's number, or none where the row belongs to nobody: what an output of ones times weights holds.
fn answers(groups: impl Iterator<Item = Option<u8>>) -> Vec<bf16> {
    let row =
        |group: Option<u8>| group.map_or(bf16::POISON, |group| bf16::from_f32(f32::from(group) * K as f32));
    groups.flat_map(|group| [row(group); N]).collect()
}

/// What an output holds, bit for bit: poison where no row was written.
fn holds(out: &Surrounded<bf16>, groups: impl Iterator<Item = Option<u8>>) -> Done {
    let bits = |values: &[bf16]| -> Vec<u32> { values.iter().map(|value| Poison::bits(*value)).collect() };
    let got = out.finish("the output", &mut Evidence::default())?;
    exact("rows of groups", &bits(&got), &bits(&answers(groups)))
}

/// Offsets into twenty rows, and where the groups end that they are pulled to; the first begins at 0.
pub(super) fn offsets(lab: &Lab<'_>, offsets: [i32; 4], ends: [usize; 3]) -> Done {
    let out = lab.out::<bf16>(&[20, N]);
    let run = || {
        let (a, offsets) = (ones(lab, &[20, K])?, lab.tensor(&[4], &offsets));
        GroupedHalfGemm::new(&a, &weights(lab), &offsets, out.view()).launch(&lab.stream)
    };
    run().map_err(text)?;
    lab.reported(NG_STATUS_BAD_OFFSETS)?;
    let group = |row: usize| ends.iter().position(|end| row < *end).map(|group| group as u8 + 1);
    holds(&out, (0..20).map(group))
}

/// Counts of groups with room for five rows, and how many are left of each.
pub(super) fn counts(lab: &Lab<'_>, counts: [i32; 3], left: [usize; 3]) -> Done {
    const ROOM: usize = 5;
    let out = lab.out::<bf16>(&[3, ROOM, N]);
    let run = || {
        let (a, counts) = (ones(lab, &[3, ROOM, K])?, lab.tensor(&[3], &counts));
        MaskedHalfGemm::new(&a, &weights(lab), &counts, out.view()).launch(&lab.stream)
    };
    run().map_err(text)?;
    lab.reported(NG_STATUS_BAD_OFFSETS)?;
    let group = |row: usize| (row % ROOM < left[row / ROOM]).then_some((row / ROOM) as u8 + 1);
    holds(&out, (0..3 * ROOM).map(group))
}

/// Refuses offsets or counts of this many groups.
pub(super) fn refused(lab: &Lab<'_>, masked: bool, length: usize) -> Done {
    let (b, groups) = (weights(lab), lab.integers(&[length]));
    if masked {
        return lab.refuses::<bf16>(&[3, 5, N], "counts", |out, stream| {
            MaskedHalfGemm::new(&lab.halves(&[3, 5, K]), &b, &groups, out).launch(stream)
        });
    }
    lab.refuses::<bf16>(&[5, N], "offsets", |out, stream| {
        GroupedHalfGemm::new(&lab.halves(&[5, K]), &b, &groups, out).launch(stream)
    })
}
