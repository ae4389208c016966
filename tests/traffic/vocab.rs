use super::{one, ones, stops_at_the_end};
use narrowgauge::vocab::{Argmax, Embedding};
use narrowgauge::{Device, Result, Stream};

const ROWS: usize = 3;

fn embedding(device: &Device, stream: &Stream, id: i32, columns: usize) -> Result<()> {
    let (table, out) = (ones(device, &[2, columns])?, ones(device, &[ROWS, columns])?);
    Embedding::new(&table, &device.full(&[ROWS], id)?, &out).launch(stream)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_row_of_the_table_is_copied_once() {
    const THREADS: usize = 256;
    for columns in [6144usize, 2055] {
        let (row, ids) = (2 * (ROWS * columns) as u64, 4 * (ROWS * THREADS) as u64);
        let launched = one(|device, stream| embedding(device, stream, 1, columns));
        assert_eq!(launched.bytes(), (ids + row, row));
        // Reports, and nothing of the table.
        let launched = one(|device, stream| embedding(device, stream, 7, columns));
        assert_eq!(launched.bytes(), (ids + ids, row));
    }
    stops_at_the_end([2048, 2040], |device, stream, columns| embedding(device, stream, 1, columns));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_logit_is_read_once() {
    const WARPS: u64 = 32;
    let logits = 6144;
    let launched = one(|device, stream| {
        Argmax::new(&device.full(&[ROWS, logits], 0.5f32)?, &device.zeros(&[ROWS])?).launch(stream)
    });
    let rows = ROWS as u64;
    assert_eq!(launched.bytes(), (4 * rows * logits as u64, 4 * rows));
    // Each warp finds its best, and the first that of all: value and index, five times.
    assert_eq!(launched.exchanges(), 10 * rows * (WARPS + 1));
    launched.fills_its_shared_memory();
}
