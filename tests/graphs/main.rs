//! Each kernel twice in a graph: on the simulated card, as on a real one, the second launch starts while the first has
//! not ended, and must wait before it touches what the first one writes. The tests are named as the families are.

use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{Fp8Gemm, GroupedFp8Gemm, HalfGemm, Tile};
use narrowgauge::mla::{Attention, CacheWrite, LatentCache, Rope, RopeParameters, RopeTables};
use narrowgauge::norm::{Add, RmsNorm, RmsNormQuantize};
use narrowgauge::quant::Quantize;
use narrowgauge::routing::{
    Combine, Gate, GatherRows, Permutation, Permute, Router, Scoring, SwigluQuantize,
};
use narrowgauge::vocab::{Argmax, Embedding};
use narrowgauge::{Device, E4m3, Fp8Blocks, Fp8Rows, Result, ScaleLayout, Stream, Tensor, bf16, verify};

/// Runs the launches twice over under every schedule, and no grid is early.
fn twice(launches: impl Fn(&Device, &Stream) -> Result<()>) {
    let device = verify::device().unwrap();
    for (name, schedule) in verify::schedules() {
        if device.is_simulated() {
            device.set_schedule(schedule).unwrap();
        }
        let stream = device.stream();
        let outcome = launches(&device, &stream).and_then(|()| stream.synchronize());
        outcome.unwrap_or_else(|error| panic!("{error}\nunder the {name} schedule"));
    }
}

fn ones(device: &Device, shape: &[usize]) -> Result<Tensor<bf16>> {
    device.full(shape, bf16::ONE)
}

/// Captures two rounds of `body` and runs them.
fn rounds(stream: &Stream, body: impl Fn(&Stream) -> Result<()>) -> Result<()> {
    stream.capture(|stream| body(stream).and_then(|()| body(stream)))?.launch(stream)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn quant() {
    twice(|device, stream| {
        let (x, out) = (ones(device, &[3, 256])?, Fp8Rows::empty(device, 3, 256, ScaleLayout::RowMajor)?);
        rounds(stream, |s| Quantize::new(&x, &out).launch(s))
    });
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn norm() {
    twice(|device, stream| {
        let (x, weight, out) = (ones(device, &[3, 256])?, ones(device, &[256])?, ones(device, &[3, 256])?);
        let narrow = Fp8Rows::empty(device, 3, 256, ScaleLayout::RowMajor)?;
        rounds(stream, |s| RmsNorm::new(&x, &weight, &out).launch(s))?;
        rounds(stream, |s| RmsNormQuantize::new(&x, &weight, &narrow).launch(s))?;
        rounds(stream, |s| Add::new(&x, &x, &out).launch(s))
    });
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn vocab() {
    twice(|device, stream| {
        let (table, out) = (ones(device, &[5, 16])?, ones(device, &[2, 16])?);
        let ids = device.tensor(&[2], &[4, 0])?;
        rounds(stream, |s| Embedding::new(&table, &ids, &out).launch(s))?;
        let (logits, best) = (device.full(&[2, 40], 0.5f32)?, device.zeros(&[2])?);
        rounds(stream, |s| Argmax::new(&logits, &best).launch(s))
    });
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn routing() {
    twice(|device, stream| {
        let (tokens, slots, experts, columns) = (5, 2, 8, 128);
        let (logits, bias) = (device.full(&[tokens, experts], 0.5f32)?, device.zeros(&[experts])?);
        let (weights, ids) = (device.zeros(&[tokens, slots])?, device.zeros(&[tokens, slots])?);
        let gate = Gate::new(Scoring::Sigmoid, slots);
        rounds(stream, |s| Router::new(&logits, gate, &weights, &ids).bias(&bias).launch(s))?;
        let order = Permutation::empty(device, tokens, slots, experts)?;
        rounds(stream, |s| Permute::new(&ids, &order).launch(s))?;
        // So many entries that the passes are kernels of their own.
        let many = device.zeros::<i32>(&[4096, slots])?;
        let wide = Permutation::empty(device, 4096, slots, experts)?;
        rounds(stream, |s| Permute::new(&many, &wide).launch(s))?;
        let narrow = |rows| Fp8Rows::empty(device, rows, columns, ScaleLayout::RowMajor);
        let (rows, gathered, hidden) = (narrow(tokens)?, narrow(tokens * slots)?, narrow(tokens * slots)?);
        rows.data().write(&vec![E4m3::from_f32(1.0); tokens * columns])?;
        rows.scales().write(&vec![1.0; tokens])?;
        rounds(stream, |s| GatherRows::new(&rows, &order, &gathered).launch(s))?;
        let gate_up = ones(device, &[tokens * slots, 2 * columns])?;
        rounds(stream, |s| SwigluQuantize::new(&gate_up, &hidden).permutation(&order).launch(s))?;
        let (parts, out) = (ones(device, &[tokens * slots, columns])?, ones(device, &[tokens, columns])?);
        rounds(stream, |s| Combine::new(&parts, &order, &weights, &out).launch(s))
    });
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn mla() {
    twice(|device, stream| {
        let parameters = RopeParameters { dim: 64, base: 10_000.0, max_positions: 128, yarn: None };
        let (tables, cache) = (RopeTables::new(device, &parameters)?, LatentCache::new(device, 2)?);
        let (x, turned) = (ones(device, &[2, 3, 64])?, ones(device, &[2, 3, 64])?);
        let positions = device.tensor(&[2], &[0, 1])?;
        rounds(stream, |s| Rope::new(&x, &positions, &tables, &turned).launch(s))?;
        let (latent, key) = (ones(device, &[2, 512])?, ones(device, &[2, 64])?);
        rounds(stream, |s| {
            CacheWrite::new(&latent, &key, &positions, &positions, &tables, &cache).launch(s)
        })?;
        let (q, out) = (ones(device, &[1, 1, 4, 576])?, ones(device, &[1, 1, 4, 512])?);
        let (table, lengths) = (device.tensor(&[1, 2], &[0, 1])?, device.tensor(&[1], &[2])?);
        let attention = Attention::new(&q, &cache, &table, &lengths, &out);
        rounds(stream, |s| attention.launch(s))?;
        let workspace = device.zeros::<u8>(&[attention.splits(2).workspace_bytes()])?;
        rounds(stream, |s| attention.splits(2).workspace(&workspace).launch(s))
    });
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn gemm() {
    twice(|device, stream| {
        let (a, b) = (ones(device, &[5, 128])?, ones(device, &[8, 128])?);
        let rows = Fp8Rows::new(device.full(&[5, 128], E4m3::from_f32(1.0))?, device.full(&[5, 1], 1.0f32)?)?;
        let blocks = |groups: usize| {
            let data = device.full(&[groups, 8, 128], E4m3::from_f32(1.0))?;
            Fp8Blocks::new(data, device.full(&[groups, 1, 1], 1.0f32)?)
        };
        let dense =
            Fp8Blocks::new(device.full(&[8, 128], E4m3::from_f32(1.0))?, device.full(&[1, 1], 1.0f32)?)?;
        let (grouped, offsets) = (blocks(2)?, device.tensor(&[3], &[0, 2, 5])?);
        let (out, wide) = (ones(device, &[5, 8])?, device.zeros::<f32>(&[5, 8])?);
        for tile in Tile::of(Input::Fp8, Mode::Dense) {
            rounds(stream, |s| Fp8Gemm::new(&rows, &dense, &out).tile(tile).launch(s))?;
        }
        for tile in Tile::of(Input::Fp8, Mode::Contiguous) {
            rounds(stream, |s| GroupedFp8Gemm::new(&rows, &grouped, &offsets, &wide).tile(tile).launch(s))?;
        }
        for tile in Tile::of(Input::Bf16, Mode::Dense) {
            rounds(stream, |s| HalfGemm::new(&a, &b, &out).tile(tile).launch(s))?;
        }
        Ok(())
    });
}
