use super::{Launched, one};
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{BatchedFp8Gemm, Fp8Gemm, Fp8GradientGemm, GroupedFp8Gemm, MaskedFp8Gemm, Tile};
use narrowgauge::{Device, E4m3, Fp8Blocks, Fp8Rows, Result, bf16};
use std::cell::Cell;

const SECTOR: u64 = 32;
pub(super) const BLOCK: usize = 128;

pub(super) fn rows(device: &Device, shape: &[usize]) -> Result<Fp8Rows> {
    let mut blocks = shape.to_vec();
    *blocks.last_mut().unwrap() /= BLOCK;
    Fp8Rows::new(device.full(shape, E4m3::from_f32(1.0))?, device.full(&blocks, 0.5f32)?)
}

pub(super) fn weights(device: &Device, shape: &[usize]) -> Result<Fp8Blocks> {
    let mut blocks = shape.to_vec();
    blocks.iter_mut().rev().take(2).for_each(|extent| *extent = extent.div_ceil(BLOCK));
    Fp8Blocks::new(device.full(shape, E4m3::from_f32(1.0))?, device.full(&blocks, 0.5f32)?)
}

/// Bytes of the allocation at an address, each once and as requested.
pub(super) fn moved(launched: &Launched, address: u64) -> (u64, u64) {
    let mut regions = launched.profile.regions.iter();
    let region = regions.find(|r| (r.address..r.address + r.bytes).contains(&address)).unwrap();
    (
        SECTOR * (region.unique_loads + region.unique_stores),
        SECTOR * (region.load_sectors + region.store_sectors),
    )
}

/// Bytes of the allocation at an address that came into L2 ahead of their use.
pub(super) fn prefetched(launched: &Launched, address: u64) -> u64 {
    let mut regions = launched.profile.regions.iter();
    SECTOR * regions.find(|r| (r.address..r.address + r.bytes).contains(&address)).unwrap().prefetch_sectors
}

/// What holds of each product: nothing moves that need not, nobody waits for a bank, and the tensor cores do the tiles' work.
#[track_caller]
pub(super) fn is_clean(launched: &Launched, ideal: usize, macs: usize) {
    let (loads, stores) = launched.profile.unique_sectors();
    let unique = SECTOR * (loads + stores);
    let kernel = &launched.kernel;
    assert!(unique as f64 <= 1.02 * ideal as f64, "{kernel}: {unique} bytes of {ideal}");
    assert_eq!(launched.profile.tensor_macs(), macs as u64, "{kernel}");
    for line in &launched.profile.lines {
        assert_eq!(line.bank_conflicts, 0, "{kernel}: line {}, {}", line.line, line.opcode);
        let opcode = &line.opcode;
        assert!(!opcode.starts_with("ld.local") && !opcode.starts_with("st.local"), "{kernel}: {opcode}");
    }
    assert!(launched.bounded, "{kernel}");
}

/// Whole tiles: A comes once for each column of tiles, B once for each row of clusters, the output goes once.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_fp8_variant_moves_what_its_tiles_say() {
    for tile in Tile::of(Input::Fp8, Mode::Dense) {
        for &parts in tile.splits() {
            let [down, across] = [2, 2];
            let (m, n) = (down * tile.cluster() * tile.rows(), across * tile.columns());
            let k = BLOCK * (parts as usize).max(4);
            let addresses = Cell::default();
            let launched = one(|device, stream| {
                let (a, b) = (rows(device, &[m, k])?, weights(device, &[n, k])?);
                let out = device.empty::<bf16>(&[m, n])?;
                addresses.set([a.data().address(), b.data().address(), out.address()]);
                Fp8Gemm::new(&a, &b, &out).tile(tile.split(parts).unwrap()).launch(stream)
            });
            let told = format!("{} in {parts} parts", launched.kernel);
            let [a, b, out] = addresses.get().map(|address| moved(&launched, address));
            assert_eq!(a, ((m * k) as u64, (across * m * k) as u64), "A of {told}");
            assert_eq!(b, ((n * k) as u64, (down * n * k) as u64), "B of {told}");
            // The ring of stages is longer than a block's K here: all that it will load.
            let early = addresses.get().map(|address| prefetched(&launched, address));
            let weights = if tile.swapped() { (down * n * k) as u64 } else { 0 };
            assert_eq!(early, [0, weights, 0], "{told}");
            assert_eq!(out, ((2 * m * n) as u64, (2 * m * n) as u64), "output of {told}");
            let scales = 4 * (m + n.div_ceil(BLOCK)) * (k / BLOCK);
            is_clean(&launched, m * k + n * k + scales + 2 * m * n, m * n * k);
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_gradient_variant_moves_what_its_tiles_say() {
    for tile in Tile::of(Input::Fp8Fine, Mode::Dense) {
        let (m, n, k) = (2 * tile.rows(), 3 * tile.columns(), 4 * BLOCK);
        let addresses = Cell::default();
        let launched = one(|device, stream| {
            let (a, b) = (rows(device, &[m, k])?, rows(device, &[n, k])?);
            let out = device.zeros::<f32>(&[m, n])?;
            addresses.set([a.data().address(), b.data().address(), out.address()]);
            Fp8GradientGemm::new(&a, &b, &out).accumulate().tile(tile).launch(stream)
        });
        let [a, b, out] = addresses.get().map(|address| moved(&launched, address));
        assert_eq!(a, ((m * k) as u64, (3 * m * k) as u64), "A of {}", launched.kernel);
        assert_eq!(b, ((n * k) as u64, (2 * n * k) as u64), "B of {}", launched.kernel);
        // Read and written.
        assert_eq!(out, ((8 * m * n) as u64, (8 * m * n) as u64), "output of {}", launched.kernel);
        is_clean(&launched, (m + n) * (k + 4 * k / BLOCK) + 8 * m * n, m * n * k);
    }
}

/// A block sends for a ring of stages of its own weights, no more, and for none where only the device knows whose they are.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn weights_are_sent_for_early_as_far_as_the_ring_reaches() {
    let (groups, m, blocks) = (3, 5, 40);
    for tile in Tile::of(Input::Fp8, Mode::Batched).into_iter().filter(Tile::swapped) {
        let tile = tile.split(1).unwrap();
        let (n, k) = (tile.columns(), blocks * BLOCK);
        let weight = Cell::default();
        let batched = one(|device, stream| {
            let b = weights(device, &[groups, n, k])?;
            weight.set(b.data().address());
            let out = device.empty::<bf16>(&[groups, m, n])?;
            BatchedFp8Gemm::new(&rows(device, &[groups, m, k])?, &b, &out).tile(tile).launch(stream)
        });
        let ring = (groups * tile.stages() * n * BLOCK) as u64;
        assert_eq!(prefetched(&batched, weight.get()), ring, "{}", batched.kernel);
        // A ring goes on in the next tile where a tile's K is shorter.
        let (n, k) = (400 * tile.columns(), 2 * BLOCK);
        let many = one(|device, stream| {
            let b = weights(device, &[n, k])?;
            weight.set(b.data().address());
            let out = device.empty::<bf16>(&[m, n])?;
            Fp8Gemm::new(&rows(device, &[m, k])?, &b, &out).tile(tile).launch(stream)
        });
        let slots = many.profile.grid[0] as usize;
        let stages: usize =
            (0..slots).map(|slot| (2 * (400 - slot).div_ceil(slots)).min(tile.stages())).sum();
        let early = (stages * tile.columns() * BLOCK) as u64;
        assert_eq!(prefetched(&many, weight.get()), early, "{}", many.kernel);
        let offsets = [0, 2, 2, m as i32];
        let grouped = one(|device, stream| {
            let b = weights(device, &[groups, BLOCK, k])?;
            weight.set(b.data().address());
            let (offsets, out) = (device.tensor(&[4], &offsets)?, device.empty::<bf16>(&[m, BLOCK])?);
            GroupedFp8Gemm::new(&rows(device, &[m, k])?, &b, &offsets, &out).tile(tile).launch(stream)
        });
        assert_eq!(prefetched(&grouped, weight.get()), 0, "{}", grouped.kernel);
    }
}

/// Experts without rows cost nothing, and those with rows only their own tiles: neither weights nor products of padding.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn groups_without_rows_are_not_loaded() {
    let (groups, n, k) = (5, 256, 4 * BLOCK);
    for tile in Tile::of(Input::Fp8, Mode::Contiguous) {
        let each = [2 * tile.rows(), 0, 1, tile.rows(), 0];
        let offsets: Vec<i32> =
            (0..=groups).map(|group| each[..group].iter().sum::<usize>() as i32).collect();
        let m: usize = each.iter().sum();
        let tiles: usize = each.iter().map(|rows| rows.div_ceil(tile.rows())).sum();
        for masked in [false, true] {
            // A pair shares B, where a group has a pair: what an odd one at its end asks for, it asks for alone.
            let clusters: usize = each.iter().map(|rows| rows.div_ceil(tile.rows() * tile.cluster())).sum();
            let weight = Cell::default();
            let launched = one(|device, stream| {
                let b = weights(device, &[groups, n, k])?;
                weight.set(b.data().address());
                let tile = tile.split(1).unwrap();
                if masked {
                    let room = 3 * tile.rows();
                    let counts = device.tensor(&[groups], &each.map(|rows| rows as i32))?;
                    let out = device.empty::<bf16>(&[groups, room, n])?;
                    MaskedFp8Gemm::new(&rows(device, &[groups, room, k])?, &b, &counts, &out)
                        .tile(tile)
                        .launch(stream)
                } else {
                    let offsets = device.tensor(&[groups + 1], &offsets)?;
                    let out = device.empty::<bf16>(&[m, n])?;
                    GroupedFp8Gemm::new(&rows(device, &[m, k])?, &b, &offsets, &out).tile(tile).launch(stream)
                }
            });
            let told = format!("{}, masked: {masked}", launched.kernel);
            let (unique, requested) = moved(&launched, weight.get());
            assert_eq!(unique, (3 * n * k) as u64, "{told}");
            assert_eq!(requested, (clusters * n * k) as u64, "{told}");
            let padded = (tiles * tile.rows() * n * k) as u64;
            assert!(launched.profile.tensor_macs() <= padded, "{told}: {}", launched.profile.tensor_macs());
        }
    }
}
