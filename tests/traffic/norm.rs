use super::{narrow_out, one, ones, stops_at_the_end};
use narrowgauge::norm::{Add, RmsNorm, RmsNormQuantize};
use narrowgauge::{Device, Result, Stream};

const ROWS: usize = 3;
/// More than one pass of every block; whole pieces of eight, and not.
const COLUMNS: [usize; 2] = [6144, 4103];
/// Of the largest block.
const WARPS: usize = 16;

fn add(device: &Device, stream: &Stream, columns: usize) -> Result<()> {
    let x = ones(device, &[ROWS, columns])?;
    Add::new(&x, &x, &ones(device, &[ROWS, columns])?).launch(stream)
}

fn norm(device: &Device, stream: &Stream, columns: usize) -> Result<()> {
    let (x, weight) = (ones(device, &[ROWS, columns])?, ones(device, &[columns])?);
    RmsNorm::new(&x, &weight, &ones(device, &[ROWS, columns])?).launch(stream)
}

fn fused(device: &Device, stream: &Stream, columns: usize) -> Result<()> {
    let (x, weight) = (ones(device, &[ROWS, columns])?, ones(device, &[columns])?);
    RmsNormQuantize::new(&x, &weight, &narrow_out(device, ROWS, columns)?).launch(stream)
}

fn fused_with_output(device: &Device, stream: &Stream, columns: usize) -> Result<()> {
    let (x, weight) = (ones(device, &[ROWS, columns])?, ones(device, &[columns])?);
    let (out, narrow) = (ones(device, &[ROWS, columns])?, narrow_out(device, ROWS, columns)?);
    RmsNormQuantize::new(&x, &weight, &narrow).bf16_output(&out).launch(stream)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_element_is_read_once_a_pass_and_written_once() {
    for columns in COLUMNS {
        let row = 2 * (ROWS * columns) as u64;
        let codes = (ROWS * columns + 4 * ROWS * columns.div_ceil(128)) as u64;
        let sums = 5 * (ROWS * WARPS) as u64;
        assert_eq!(one(|device, stream| add(device, stream, columns)).bytes(), (2 * row, row));
        // The statistics take a pass of their own over the row.
        let launched = one(|device, stream| norm(device, stream, columns));
        assert_eq!((launched.bytes(), launched.exchanges()), ((3 * row, row), sums));
        launched.fills_its_shared_memory();
        let maxima = 4 * (ROWS * columns.div_ceil(256)) as u64;
        let launched = one(|device, stream| fused(device, stream, columns));
        assert_eq!((launched.bytes(), launched.exchanges()), ((3 * row, codes), sums + maxima));
        launched.fills_its_shared_memory();
        let launched = one(|device, stream| fused_with_output(device, stream, columns));
        assert_eq!(launched.bytes(), (3 * row, row + codes));
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn rows_end_where_they_end() {
    for launch in [add, norm, fused, fused_with_output] {
        stops_at_the_end([4096, 4088], launch);
    }
}
