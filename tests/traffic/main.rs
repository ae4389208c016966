//! Kernels on whole rows move each byte of their operands once: sectors that loads and stores request on the simulated card,
//! against what the operands hold. The tests are named as the families are.

#![cfg(feature = "sim")]

use narrowgauge::norm::{Add, RmsNorm, RmsNormQuantize};
use narrowgauge::quant::Quantize;
use narrowgauge::vocab::{Argmax, Embedding};
use narrowgauge::{Card, Device, Fp8Rows, Result, ScaleLayout, Stream, Tensor, bf16};

const ROWS: usize = 3;
/// More than one pass of every block.
const COLUMNS: usize = 6144;

fn sectors(elements: usize, bytes: usize) -> u64 {
    (elements * bytes).div_ceil(32) as u64
}

/// Loads and stores of one launch, in sectors.
fn moved(launch: impl Fn(&Device, &Stream) -> Result<()>) -> (u64, u64) {
    let device = Device::simulated(Card::find("h20").unwrap()).unwrap();
    launch(&device, &device.stream()).unwrap();
    let records = device.records().unwrap();
    assert_eq!(records.len(), 1);
    let counters = records[0].counters.as_ref().unwrap();
    (counters.load_sectors, counters.store_sectors)
}

fn ones(device: &Device, shape: &[usize]) -> Result<Tensor<bf16>> {
    device.full(shape, bf16::ONE)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn quant() {
    let got = moved(|device, stream| {
        let out = Fp8Rows::empty(device, ROWS, COLUMNS, ScaleLayout::RowMajor)?;
        Quantize::new(&ones(device, &[ROWS, COLUMNS])?, &out).launch(stream)
    });
    // A warp writes two neighbouring scales at once.
    let scales = (ROWS * COLUMNS / 256) as u64;
    assert_eq!(got, (sectors(ROWS * COLUMNS, 2), sectors(ROWS * COLUMNS, 1) + scales));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn norm() {
    let row = sectors(ROWS * COLUMNS, 2);
    let got = moved(|device, stream| {
        let x = ones(device, &[ROWS, COLUMNS])?;
        Add::new(&x, &x, &ones(device, &[ROWS, COLUMNS])?).launch(stream)
    });
    assert_eq!(got, (2 * row, row));
    // The statistics take a pass of their own over the row.
    let got = moved(|device, stream| {
        let (x, weight) = (ones(device, &[ROWS, COLUMNS])?, ones(device, &[COLUMNS])?);
        RmsNorm::new(&x, &weight, &ones(device, &[ROWS, COLUMNS])?).launch(stream)
    });
    assert_eq!(got, (3 * row, row));
    let got = moved(|device, stream| {
        let (x, weight) = (ones(device, &[ROWS, COLUMNS])?, ones(device, &[COLUMNS])?);
        let out = Fp8Rows::empty(device, ROWS, COLUMNS, ScaleLayout::RowMajor)?;
        RmsNormQuantize::new(&x, &weight, &out).launch(stream)
    });
    assert_eq!(got, (3 * row, row / 2 + (ROWS * COLUMNS / 256) as u64));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn vocab() {
    let row = sectors(ROWS * COLUMNS, 2);
    let embedding = |id: i32, columns: usize| {
        moved(move |device, stream| {
            let (table, out) = (ones(device, &[2, columns])?, ones(device, &[ROWS, columns])?);
            Embedding::new(&table, &device.full(&[ROWS], id)?, &out).launch(stream)
        })
    };
    let warps = 8 * ROWS as u64;
    assert_eq!(embedding(1, COLUMNS), (row + warps, row), "each warp reads the id");
    assert_eq!(
        embedding(7, COLUMNS),
        (ROWS as u64 + warps, row),
        "one report a row, and nothing of the table"
    );
    let got = moved(|device, stream| {
        Argmax::new(&device.full(&[ROWS, COLUMNS], 0.5f32)?, &device.zeros(&[ROWS])?).launch(stream)
    });
    assert_eq!(got, (sectors(ROWS * COLUMNS, 4), ROWS as u64));
    // Columns that are no vectors: two elements that lanes store at once share a sector, and each is stored once.
    let (_, stores) = embedding(1, 2055);
    assert!(stores <= ROWS as u64 * 1200, "{stores}");
}
