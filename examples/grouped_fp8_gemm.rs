//! FP8 products of three experts, whose rows follow each other without padding.
//!
//! `cargo run --example grouped_fp8_gemm` runs on the first CUDA device, or on a simulated H20 where there is none.

use narrowgauge::gemm::GroupedFp8Gemm;
use narrowgauge::{Card, Device, E4m3, Fp8Blocks, Fp8Rows, Result, bf16};

fn main() -> Result<()> {
    let device = device()?;
    let (experts, rows, n, k) = (3, 8, 256, 384);

    // Rows ordered by expert. The first has five of them, the second none, the last three: only the device needs to know.
    let offsets = device.tensor(&[experts + 1], &[0, 5, 5, 8])?;
    let values =
        |count: usize| -> Vec<E4m3> { (0..count).map(|i| E4m3::from_f32((i % 7) as f32 - 3.0)).collect() };
    let a = Fp8Rows::new(device.tensor(&[rows, k], &values(rows * k))?, device.full(&[rows, k / 128], 0.5)?)?;
    let weights = device.tensor(&[experts, n, k], &values(experts * n * k))?;
    let b = Fp8Blocks::new(weights, device.full(&[experts, n / 128, k / 128], 2.0)?)?;
    let out = device.empty::<bf16>(&[rows, n])?;

    let stream = device.stream();
    GroupedFp8Gemm::new(&a, &b, &offsets, &out).launch(&stream)?;

    println!("on {}", device.name());
    for (row, values) in out.to_vec()?.chunks(n).enumerate() {
        println!("row {row}: {:?} ...", &values[..4]);
    }
    Ok(())
}

/// Feature `cuda` on a machine with a card; the simulated one otherwise.
fn device() -> Result<Device> {
    #[cfg(feature = "cuda")]
    if let Ok(device) = Device::cuda(0) {
        return Ok(device);
    }
    Device::simulated(Card::H20)
}
