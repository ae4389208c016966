//! One FP8 matrix product: quantised activations times a weight matrix with 128×128 scales.
//!
//! `cargo run --example fp8_gemm` runs on the first CUDA device, or on a simulated H20 where there is none.

use narrowgauge::gemm::Fp8Gemm;
use narrowgauge::{Card, Device, E4m3, Fp8Blocks, Fp8Rows, Result, bf16};

fn main() -> Result<()> {
    let device = device()?;
    let (m, n, k) = (4, 256, 384);

    // Activations: one scale for each row and 128 columns. Weights: one for each block of 128×128.
    let values =
        |count: usize| -> Vec<E4m3> { (0..count).map(|i| E4m3::from_f32((i % 7) as f32 - 3.0)).collect() };
    let a = Fp8Rows::new(device.tensor(&[m, k], &values(m * k))?, device.full(&[m, k / 128], 0.5)?)?;
    let b = Fp8Blocks::new(device.tensor(&[n, k], &values(n * k))?, device.full(&[n / 128, k / 128], 2.0)?)?;
    let out = device.empty::<bf16>(&[m, n])?;

    let stream = device.stream();
    Fp8Gemm::new(&a, &b, &out).launch(&stream)?;

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
