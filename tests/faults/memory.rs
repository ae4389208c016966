//! A card whose memory ends at any place, and kernels and images that are no good, on the simulated card.

#![cfg(feature = "sim")]

use narrowgauge::gemm::Fp8Gemm;
use narrowgauge::norm::Add;
use narrowgauge::quant::Quantize;
use narrowgauge::{Card, Device, E4m3, Error, Fp8Blocks, Fp8Rows, Result, ScaleLayout, Tensor, bf16};

/// A card of an H20's shape with little memory.
fn small(bytes: u64) -> Result<Device> {
    let mut card = Card::find("h20").expect("a known card");
    card.memory_bytes = bytes;
    Device::simulated(card)
}

/// What an engine does before its first token: tensors, a stream, quantisation, a product, a graph.
fn program(device: &Device) -> Result<Vec<f32>> {
    let x: Tensor<bf16> = device.full(&[3, 128], bf16::ONE)?;
    let rows = Fp8Rows::empty(device, 3, 128, ScaleLayout::RowMajor)?;
    let stream = device.new_stream()?;
    Quantize::new(&x, &rows).launch(&stream)?;
    let weights = Fp8Blocks::new(device.full(&[8, 128], E4m3::from_f32(1.0))?, device.full(&[1, 1], 0.5)?)?;
    let out: Tensor<bf16> = device.zeros(&[3, 8])?;
    Fp8Gemm::new(&rows, &weights, &out).launch(&stream)?;
    let twice = device.zeros(&[3, 8])?;
    let graph = stream.capture(|stream| Add::new(&out, &out, &twice).launch(stream))?;
    graph.launch(&stream)?;
    assert!(stream.status()?.is_clear());
    Ok(twice.to_vec()?.into_iter().map(bf16::to_f32).collect())
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn memory_may_end_at_every_allocation() {
    let want = program(&small(1 << 20).unwrap()).unwrap();
    let mut failures = 0;
    let mut bytes = 0;
    loop {
        bytes += 16;
        assert!(bytes < 1 << 20, "never enough");
        let device = match small(bytes) {
            Ok(device) => device,
            Err(error) => {
                assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
                continue;
            }
        };
        match program(&device) {
            Ok(got) => {
                assert_eq!(got, want);
                break;
            }
            Err(error) => {
                assert!(matches!(error, Error::OutOfMemory { .. }), "with {bytes} bytes: {error}");
                failures += 1;
                // Everything came back: what did fit fits again, to the last byte.
                assert_eq!(program(&device).unwrap_err(), error);
                assert!(!device.is_lost());
            }
        }
    }
    assert!(failures > 10, "{failures}");
    println!("{failures} sizes of memory at which the program ends early, and then the same way again");
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn retrying_after_a_free_is_fine() {
    let device = small(64 << 10).unwrap();
    let ballast = device.zeros::<u8>(&[60 << 10]).unwrap();
    assert!(matches!(device.zeros::<u8>(&[16 << 10]), Err(Error::OutOfMemory { .. })));
    drop(ballast);
    device.zeros::<u8>(&[16 << 10]).unwrap();
    program(&device).unwrap();
}
