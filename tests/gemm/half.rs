//! Products of 16-bit floats: layouts, groups that only the device knows, walks of clusters, absorbed weights.

use super::{half, under_every_schedule};
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{BatchedHalfGemm, MaskedHalfGemm, Tile};
use narrowgauge::verify::gemm::{CheckedInput, HalfCheck, Rows, Values};
use narrowgauge::{Device, bf16, f16, verify};

/// Which dimension is adjacent changes no bit, of any tile.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn layouts_change_no_bit() {
    fn same<H: CheckedInput>(device: &Device, rows: Rows<'_>) -> Result<(), String> {
        let check = HalfCheck { values: Values::Normal, ..half(rows, 140, 530) };
        let inputs = check.inputs::<H>();
        let run = |transposed, tile| -> Result<Vec<u32>, String> {
            let check = HalfCheck { transposed, tile, ..check };
            Ok(check.run::<H, f32>(device, &inputs)?.into_iter().map(f32::to_bits).collect())
        };
        let want = run([false; 2], None)?;
        for tile in Tile::of(Input::Bf16, rows.mode()) {
            for transposed in [[false, true], [true, false], [true, true]] {
                if !(transposed[0] && tile.swapped()) && run(transposed, tile.split(1))? != want {
                    return Err(format!("{tile} {transposed:?} of {rows:?}"));
                }
            }
        }
        Ok(())
    }
    let device = super::device();
    for rows in [Rows::Dense(131), Rows::Groups(&[3, 0, 70]), Rows::Batched(3, 9)] {
        same::<bf16>(&device, rows).unwrap();
        same::<f16>(&device, rows).unwrap();
    }
}

/// More tiles than clusters are resident: the ring of stages, the partial sums and their barriers go on across tiles.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn clusters_walk_over_many_tiles() {
    under_every_schedule(|device| {
        let tile = Tile::of(Input::Bf16, Mode::Dense).into_iter().find(Tile::swapped).unwrap();
        for (parts, n) in [(1, 10_200), (4, 2_600)] {
            let values = Values::Normal;
            let check =
                HalfCheck { tile: tile.split(parts), values, ..half(Rows::Dense(tile.rows() + 1), n, 264) };
            check.check::<bf16>(device)?;
        }
        Ok(())
    })
    .unwrap();
}

/// A split of K rounds otherwise than none, the same each time: a plan that is not batch invariant may take it.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn splits_round_in_their_own_way() {
    let device = super::device();
    let check = HalfCheck { values: Values::Normal, ..half(Rows::Dense(9), 200, 2048) };
    let inputs = check.inputs::<bf16>();
    for tile in Tile::of(Input::Bf16, Mode::Dense).into_iter().filter(Tile::swapped) {
        let run = |parts| {
            HalfCheck { tile: tile.split(parts), ..check }.run::<bf16, f32>(&device, &inputs).unwrap()
        };
        assert_eq!(run(8), run(8));
        assert_ne!(run(8), run(1));
    }
}

/// Counts that only the device sees: pulled into range, reported, nothing outside touched.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bad_counts_are_masked_and_reported() {
    let device = super::device();
    let stream = device.stream();
    let (a, b) = (vec![bf16::ONE; 2 * 5 * 8], vec![bf16::ONE; 2 * 8 * 8]);
    let (a, b) = (device.tensor(&[2, 5, 8], &a).unwrap(), device.tensor(&[2, 8, 8], &b).unwrap());
    for tile in Tile::of(Input::Bf16, Mode::Masked) {
        let out = device.full(&[2, 5, 8], -1.0f32).unwrap();
        let counts = device.tensor(&[2], &[-3, 9]).unwrap();
        MaskedHalfGemm::new(&a, &b, &counts, &out).tile(tile).launch(&stream).unwrap();
        assert!(stream.status().unwrap().bad_offsets(), "{tile}");
        assert_eq!(out.to_vec().unwrap(), [[-1.0; 40], [8.0; 40]].concat(), "{tile}");
    }
}

/// Both products of absorbed attention, `bhd,hdr->bhr` and `bhr,hdr->bhd`, on one tensor of weights.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn absorbed_weights_lie_as_they_are() {
    let device = super::device();
    let stream = device.stream();
    let (tokens, heads, d, r) = (5, 3, 16, 72);
    let number = |i: usize| bf16::from_f32((i * 7 % 13) as f32 - 6.0);
    let numbers = |shape: [usize; 3]| (0..shape.iter().product()).map(number).collect::<Vec<bf16>>();
    let (x, y, w) = (numbers([tokens, heads, d]), numbers([tokens, heads, r]), numbers([heads, d, r]));
    let weights = device.tensor(&[heads, d, r], &w).unwrap();
    let at = |values: &[bf16], i: usize| values[i].to_f32();
    let across = |t: &narrowgauge::Tensor<bf16>| t.transpose(0, 1).unwrap();
    let absorbed = device.full(&[tokens, heads, r], 9.0f32).unwrap();
    BatchedHalfGemm::new(
        &across(&device.tensor(&[tokens, heads, d], &x).unwrap()),
        &weights.transpose(1, 2).unwrap(),
        &absorbed.transpose(0, 1).unwrap(),
    )
    .launch(&stream)
    .unwrap();
    let restored = device.full(&[tokens, heads, d], 9.0f32).unwrap();
    BatchedHalfGemm::new(
        &across(&device.tensor(&[tokens, heads, r], &y).unwrap()),
        &weights,
        &restored.transpose(0, 1).unwrap(),
    )
    .launch(&stream)
    .unwrap();
    let place = |i: usize, last: usize| (i / (heads * last), i / last % heads, i % last);
    let want: Vec<f32> = (0..tokens * heads * r)
        .map(|i| {
            let (t, h, r_at) = place(i, r);
            (0..d).map(|j| at(&x, (t * heads + h) * d + j) * at(&w, (h * d + j) * r + r_at)).sum()
        })
        .collect();
    verify::exact("bhd,hdr->bhr", &absorbed.to_vec().unwrap(), &want).unwrap();
    let want: Vec<f32> = (0..tokens * heads * d)
        .map(|i| {
            let (t, h, d_at) = place(i, d);
            (0..r).map(|j| at(&y, (t * heads + h) * r + j) * at(&w, (h * d + d_at) * r + j)).sum()
        })
        .collect();
    verify::exact("bhr,hdr->bhd", &restored.to_vec().unwrap(), &want).unwrap();
}
