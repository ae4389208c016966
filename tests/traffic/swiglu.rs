//! Products with SwiGLU: what they store, and what two kernels would move beside it.

use super::{Launched, all, narrow, narrow_out, one, ones};
use narrowgauge::gemm::plan::Mode;
use narrowgauge::gemm::{Fp8Gemm, Fp8GemmSwiglu, Tile};
use narrowgauge::routing::SwigluQuantize;
use narrowgauge::{Fp8Blocks, Tensor, bf16};

const ROWS: usize = 48;
const COLUMNS: usize = 384;
const K: usize = 640;

fn fused(tile: Option<Tile>) -> Launched {
    one(|device, stream| {
        let a = narrow(device, ROWS, K)?;
        let b = narrow(device, 2 * COLUMNS, K)?;
        let scales = device.full(&[2 * COLUMNS / 128, K / 128], 1.0f32)?;
        let b = Fp8Blocks::new(b.data().clone(), scales)?;
        let out = narrow_out(device, ROWS, COLUMNS)?;
        let product = Fp8GemmSwiglu::new(&a, &b, &out).batch_invariant();
        tile.into_iter().fold(product, Fp8GemmSwiglu::tile).launch(stream)
    })
}

/// A byte for each output and four for each scale leave the kernel, once, and no operand is read in vain.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn codes_and_scales_are_stored_once() {
    for tile in Tile::of_swiglu(Mode::Dense) {
        let launched = fused(tile.split(1));
        let (loaded, stored) = launched.bytes();
        assert_eq!(stored, (ROWS * COLUMNS + ROWS * COLUMNS / 128 * 4) as u64, "{tile}");
        // A comes once for each tile of columns, B once for each tile of rows; rows that do not exist are not counted. Every
        // lane of a warp reads the scales of B.
        let (row_tiles, column_tiles) = (ROWS.div_ceil(tile.rows()), COLUMNS / 128);
        let operands = column_tiles * ROWS * K + row_tiles * 2 * COLUMNS * K;
        let scales = column_tiles * ROWS * (K / 128) + row_tiles * column_tiles * 32 * 2 * (K / 128);
        assert_eq!(loaded, (operands + scales * 4) as u64, "{tile}");
    }
}

/// The product and the activation by themselves store and load the sums as bf16 on top of that.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn two_kernels_move_the_sums_too() {
    let apart = all(|device, stream| {
        let a = narrow(device, ROWS, K)?;
        let b = narrow(device, 2 * COLUMNS, K)?;
        let b = Fp8Blocks::new(b.data().clone(), device.full(&[2 * COLUMNS / 128, K / 128], 1.0f32)?)?;
        let sums: Tensor<bf16> = ones(device, &[ROWS, 2 * COLUMNS])?;
        Fp8Gemm::new(&a, &b, &sums).batch_invariant().launch(stream)?;
        SwigluQuantize::new(&sums, &narrow_out(device, ROWS, COLUMNS)?).launch(stream)
    });
    let stored: u64 = apart.iter().map(|launched| launched.bytes().1).sum();
    let sums = (ROWS * 2 * COLUMNS * 2) as u64;
    assert_eq!(stored, fused(None).bytes().1 + sums);
    assert!(apart[1].bytes().0 >= sums, "the activation reads them again");
}
