use super::one;
use narrowgauge::gemm::TransposeFp8;
use narrowgauge::{Device, E4m3, Result, Stream};

fn transpose(device: &Device, stream: &Stream, [rows, columns]: [usize; 2]) -> Result<()> {
    let x = device.full(&[rows, columns], E4m3::ONE)?;
    TransposeFp8::new(&x, &device.empty(&[columns, rows])?).launch(stream)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_transposition_reads_and_writes_each_byte_once() {
    for extents in [[256, 384], [132, 260], [70, 33]] {
        let launched = one(|device, stream| transpose(device, stream, extents));
        let bytes = extents.iter().product::<usize>() as u64;
        assert_eq!(launched.bytes(), (bytes, bytes), "{extents:?}");
        // Neither way through shared memory meets a bank twice.
        let extra: u64 = launched.profile.lines.iter().map(|line| line.bank_conflicts).sum();
        assert_eq!(extra, 0, "{extents:?}");
        launched.fills_its_shared_memory();
    }
    // Whole runs of 128 bytes: four sectors a warp.
    let launched = one(|device, stream| transpose(device, stream, [256, 384]));
    let sectors = |of: fn(&narrowgauge::sim::profiler::LineProfile) -> u64| -> u64 {
        launched.profile.lines.iter().map(of).sum()
    };
    assert_eq!(sectors(|line| line.load_sectors), 256 * 384 / 32);
    assert_eq!(sectors(|line| line.store_sectors), 256 * 384 / 32);
}
