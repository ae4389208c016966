//! Products of 16-bit floats, of rows that a list names, of e5m2, and with SwiGLU: what moves, and that nobody waits for a bank.

use super::products::{BLOCK, is_clean, moved, prefetched, rows, weights};
use super::{Launched, one};
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{Fp8Gemm, Fp8GemmSwiglu, HalfGemm, Tile};
use narrowgauge::{E5m2, Fp8Blocks, Fp8Rows, ScaleLayout, bf16, f16};
use std::cell::Cell;

const HALF_BLOCK: usize = 64;

/// Two tiles of rows (or clusters of them) by two of columns.
fn extents(tile: Tile) -> (usize, usize) {
    (2 * tile.cluster() * tile.rows(), 2 * tile.columns())
}

/// A and B come twice, B in part early where a kernel says so, and the output goes once.
#[track_caller]
fn moves_whole_tiles(launched: &Launched, addresses: [u64; 3], sizes: [usize; 3], early: bool) {
    let told = &launched.kernel;
    let [a, b, out] = addresses.map(|address| moved(launched, address));
    let [a_bytes, b_bytes, out_bytes] = sizes.map(|bytes| bytes as u64);
    assert_eq!(a, (a_bytes, 2 * a_bytes), "A of {told}");
    assert_eq!(b, (b_bytes, 2 * b_bytes), "B of {told}");
    assert_eq!(out, (out_bytes, out_bytes), "output of {told}");
    let weights = if early { 2 * b_bytes } else { 0 };
    assert_eq!(addresses.map(|address| prefetched(launched, address)), [0, weights, 0], "{told}");
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_half_variant_moves_what_its_tiles_say() {
    for tile in Tile::of(Input::Bf16, Mode::Dense) {
        for (turn, &parts) in tile.splits().iter().enumerate() {
            let (m, n) = extents(tile);
            let k = HALF_BLOCK * (parts as usize).max(4);
            // Layouts in turn; rows of A in the place of columns where a kernel takes them.
            for [a_turned, b_turned] in [[false, turn % 2 == 1], [!tile.swapped(), turn % 2 == 0]] {
                let addresses = Cell::default();
                let launched = one(|device, stream| {
                    let operand = |rows: usize, turned: bool| {
                        if turned {
                            device.full(&[k, rows], f16::ONE)?.transpose(0, 1)
                        } else {
                            device.full(&[rows, k], f16::ONE)
                        }
                    };
                    let (a, b, out) =
                        (operand(m, a_turned)?, operand(n, b_turned)?, device.empty::<bf16>(&[m, n])?);
                    addresses.set([a.address(), b.address(), out.address()]);
                    HalfGemm::new(&a, &b, &out).tile(tile.split(parts).unwrap()).launch(stream)
                });
                let sizes = [2 * m * k, 2 * n * k, 2 * m * n];
                moves_whole_tiles(&launched, addresses.get(), sizes, tile.swapped());
                is_clean(&launched, sizes.iter().sum(), m * n * k);
            }
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn e5m2_moves_what_e4m3_does() {
    for tile in Tile::of(Input::Fp8, Mode::Dense)
        .into_iter()
        .filter(|tile| (tile.rows(), tile.columns()) == (64, 128))
    {
        if tile.swapped() {
            continue;
        }
        let ((m, n), k) = (extents(tile), 4 * BLOCK);
        for [a_e5m2, b_e5m2] in [[false, true], [true, false], [true, true]] {
            let addresses = Cell::default();
            let launched = one(|device, stream| {
                let five = |shape: &[usize]| device.full(shape, E5m2::from_f32(1.0));
                let (a4, b4) = (rows(device, &[m, k])?, weights(device, &[n, k])?);
                let a5 = Fp8Rows::join(five(&[m, k])?, a4.scales().clone())?;
                let b5 = Fp8Blocks::join(five(&[n, k])?, b4.scales().clone())?;
                let out = device.empty::<bf16>(&[m, n])?;
                let a = if a_e5m2 { a5.data().address() } else { a4.data().address() };
                let b = if b_e5m2 { b5.data().address() } else { b4.data().address() };
                addresses.set([a, b, out.address()]);
                let product = match (a_e5m2, b_e5m2) {
                    (false, _) => Fp8Gemm::new(&a4, &b5, &out),
                    (true, false) => Fp8Gemm::new(&a5, &b4, &out),
                    (true, true) => Fp8Gemm::new(&a5, &b5, &out),
                };
                product.tile(tile).launch(stream)
            });
            moves_whole_tiles(&launched, addresses.get(), [m * k, n * k, 2 * m * n], false);
            let scales = 4 * (m + n.div_ceil(BLOCK)) * (k / BLOCK);
            is_clean(&launched, m * k + n * k + scales + 2 * m * n, m * n * k);
        }
    }
}

/// Rows that a list names are read where they lie: A no more than as if its copy were, and nothing of rows that none names.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn named_rows_are_read_where_they_lie() {
    for tile in Tile::of(Input::Fp8, Mode::Dense) {
        if tile.cluster() > 1 {
            continue;
        }
        let ((m, n), k) = (extents(tile), 4 * BLOCK);
        let addresses = Cell::default();
        let launched = one(|device, stream| {
            let (a, b) = (rows(device, &[3 * m, k])?, weights(device, &[n, k])?);
            let list = device
                .tensor(&[m], &(0..m as i32).map(|row| 3 * (row * 7 % m as i32)).collect::<Vec<_>>())?;
            let out = device.empty::<bf16>(&[m, n])?;
            addresses.set([a.data().address(), b.data().address(), out.address()]);
            Fp8Gemm::new(&a, &b, &out).gather(&list).tile(tile.split(1).unwrap()).launch(stream)
        });
        let sizes = [m * k, n * k, 2 * m * n];
        moves_whole_tiles(&launched, addresses.get(), sizes, tile.swapped());
        // Scales of rows that lie apart: a sector of 32 bytes for each.
        let scales = 32 * m + 4 * n.div_ceil(BLOCK) * (k / BLOCK);
        is_clean(&launched, sizes.iter().sum::<usize>() + scales + 4 * m, m * n * k);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_swiglu_variant_moves_what_its_tiles_say() {
    for tile in Tile::of_swiglu(Mode::Dense) {
        for &parts in tile.splits() {
            let (m, n) = extents(tile);
            let k = BLOCK * (parts as usize).max(2);
            let addresses = Cell::default();
            let launched = one(|device, stream| {
                let (a, b) = (rows(device, &[m, k])?, weights(device, &[2 * n, k])?);
                let out = Fp8Rows::empty(device, m, n, ScaleLayout::RowMajor)?;
                addresses.set([a.data().address(), b.data().address(), out.data().address()]);
                Fp8GemmSwiglu::new(&a, &b, &out).tile(tile.split(parts).unwrap()).launch(stream)
            });
            let sizes = [m * k, 2 * n * k, m * n];
            moves_whole_tiles(&launched, addresses.get(), sizes, tile.swapped());
            let scales = 4 * (m + (2 * n).div_ceil(BLOCK)) * (k / BLOCK) + 4 * m * n / BLOCK;
            is_clean(&launched, sizes.iter().sum::<usize>() + scales, 2 * m * n * k);
        }
    }
}
