use super::{narrow_out, one, ones, stops_at_the_end};
use narrowgauge::quant::Quantize;
use narrowgauge::{Device, Result, Stream};

const ROWS: usize = 3;

fn quantize(device: &Device, stream: &Stream, columns: usize) -> Result<()> {
    Quantize::new(&ones(device, &[ROWS, columns])?, &narrow_out(device, ROWS, columns)?).launch(stream)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_element_is_read_and_written_once() {
    for columns in [6144usize, 2055] {
        let launched = one(|device, stream| quantize(device, stream, columns));
        let (elements, groups) = ((ROWS * columns) as u64, (ROWS * columns.div_ceil(128)) as u64);
        assert_eq!(launched.bytes(), (2 * elements, elements + 4 * groups));
        // The maxima of 16 lanes, for two groups at once.
        assert_eq!(launched.exchanges(), 4 * (ROWS * columns.div_ceil(256)) as u64);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn rows_end_where_they_end() {
    stops_at_the_end([1024, 1016], quantize);
}
