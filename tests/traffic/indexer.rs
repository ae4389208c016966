use super::one;
use narrowgauge::mla::{IndexerLogits, IndexerPages, PagedIndexerLogits, TopK};
use narrowgauge::verify::Source;
use narrowgauge::{Device, E4m3, Fp8Rows, Result};

/// Threads that look lengths and weights up.
const MATH: usize = 256;

fn keys(device: &Device, shape: &[usize]) -> Result<Fp8Rows> {
    let one = E4m3::from_f32(1.0);
    Fp8Rows::per_row(device.full(shape, one)?, device.full(&shape[..shape.len() - 1], 1.0f32)?)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_score_is_read_once_but_for_a_sample() {
    const K: usize = 2048;
    // Each of four parts of the longer row is sampled, one score in sixteen.
    for (columns, sample) in [(20_000usize, 0), (131_072, 4 * 2048)] {
        let launched = one(|device, stream| {
            let scores = device.tensor(&[2, columns], &Source::new(1).normals(2 * columns, 1.0))?;
            TopK::new(&scores, &device.zeros(&[2, K])?).launch(stream)
        });
        assert!(launched.bounded);
        assert_eq!(launched.bytes(), (2 * 4 * (columns + sample) as u64, 2 * 4 * K as u64));
    }
}

/// What a row costs each of four schedulers, in PTX instructions of warps; an H200's memory brings it in 13,200 cycles, and
/// machine code, which predicates stores instead of branching around them, has fewer.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn choosing_takes_about_as_many_instructions_as_memory_takes_cycles() {
    const COLUMNS: usize = 65_536;
    let launched = one(|device, stream| {
        let rows = device.card().sms as usize / 2 + 1;
        let scores = device.tensor(&[rows, COLUMNS], &Source::new(2).normals(rows * COLUMNS, 1.0))?;
        TopK::new(&scores, &device.zeros(&[rows, 2048])?).launch(stream)
    });
    let row = launched.counters.instructions / launched.counters.blocks / 4;
    assert!(row <= 14_700, "{row} instructions");
}

/// Four tokens see two tiles of keys: these and the queries are copied once, every logit is stored once.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_row_of_keys_is_read_once_for_four_tokens() {
    const KEYS: usize = 256;
    let launched = one(|device, stream| {
        let q = device.full(&[4, 64, 128], E4m3::from_f32(1.0))?;
        let weights = device.full(&[4, 64], 1.0f32)?;
        let out = device.zeros(&[4, KEYS])?;
        IndexerLogits::new(&q, &keys(device, &[KEYS, 128])?, &weights, &out).launch(stream)
    });
    assert!(launched.bounded);
    let weights = MATH * 32 * 4;
    let loaded = 4 * 64 * 128 + KEYS * (128 + 4) + weights;
    assert_eq!(launched.bytes(), (loaded as u64, 4 * 4 * KEYS as u64));
    assert_eq!(launched.counters.tensor_macs, (4 * 64 * 128 * KEYS) as u64);
    assert_eq!(launched.counters.bank_conflicts, 0);
}

/// One token of 64 heads: nothing is multiplied for rows that are not there, and pages past the length are not read.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn pages_in_use_are_read_once() {
    let launched = one(|device, stream| {
        let q = device.full(&[1, 1, 64, 128], E4m3::from_f32(1.0))?;
        let weights = device.full(&[1, 1, 64], 1.0f32)?;
        let (keys, out) = (keys(device, &[9, 64, 128])?, device.zeros(&[1, 512])?);
        let (table, lengths) =
            (device.tensor(&[1, 8], &[3, 1, 4, 7, 5, 0, 2, 6])?, device.tensor(&[1], &[300])?);
        PagedIndexerLogits::new(&q, IndexerPages::new(&keys, &table, &lengths), &weights, &out).launch(stream)
    });
    assert!(launched.bounded);
    assert_eq!(launched.counters.tensor_macs, (2 * 256 * 64 * 128) as u64);
    assert_eq!(launched.counters.bank_conflicts, 0);
    assert_eq!(launched.bytes().1, 4 * 300);
    // Five pages in use, and the queries once for each of two blocks; what the boxes of other pages get is not read.
    assert_eq!(launched.counters.bulk_load_bytes, (5 * 64 * (128 + 4) + 2 * 64 * 128) as u64);
}
