//! FP8 products of three experts with room for four rows each, of which the device knows how many count: a decode step.
//!
//! `cargo run --example masked_fp8_gemm` runs on the first CUDA device, or on a simulated H20 where there is none.

use narrowgauge::gemm::MaskedFp8Gemm;
use narrowgauge::{Card, Device, E4m3, Fp8Blocks, Fp8Rows, Result, bf16};

fn main() -> Result<()> {
    let device = device()?;
    let (experts, room, n, k) = (3, 4, 256, 384);

    let counts = device.tensor(&[experts], &[2, 0, 1])?;
    let values =
        |count: usize| -> Vec<E4m3> { (0..count).map(|i| E4m3::from_f32((i % 7) as f32 - 3.0)).collect() };
    let rows = device.tensor(&[experts, room, k], &values(experts * room * k))?;
    let a = Fp8Rows::new(rows, device.full(&[experts, room, k / 128], 0.5)?)?;
    let weights = device.tensor(&[experts, n, k], &values(experts * n * k))?;
    let b = Fp8Blocks::new(weights, device.full(&[experts, n / 128, k / 128], 2.0)?)?;
    // Rows that do not count stay as they are.
    let out = device.zeros::<bf16>(&[experts, room, n])?;

    let stream = device.stream();
    MaskedFp8Gemm::new(&a, &b, &counts, &out).launch(&stream)?;

    println!("on {}", device.name());
    for (row, values) in out.to_vec()?.chunks(n).enumerate() {
        println!("expert {} row {}: {:?} ...", row / room, row % room, &values[..4]);
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
