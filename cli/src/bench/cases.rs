//! What is measured: DeepSeek-V3's shapes on a card, small relatives of them on the simulated one.

use narrowgauge::gemm::{BatchedBf16Gemm, Bf16Gemm, Fp8Gemm, GroupedFp8Gemm};
use narrowgauge::mla::{Attention, LatentCache};
use narrowgauge::norm::RmsNormQuantize;
use narrowgauge::quant::Quantize;
use narrowgauge::routing::{Router, SwigluQuantize};
use narrowgauge::verify::Source;
use narrowgauge::{Device, E4m3, Fp8Blocks, Fp8Rows, Result, ScaleLayout, Stream, Tensor, bf16};

/// Runs the operation once on operands that it owns.
pub type Launch = Box<dyn Fn(&Stream) -> Result<()>>;

/// Makes the operands on a device.
pub type Prepare = Box<dyn Fn(&Device) -> Result<Launch>>;

/// One row of the table.
pub struct Case {
    pub name: String,
    /// Tensor-core operations of one run; a multiply-accumulate is two.
    pub flops: f64,
    /// Bytes that must move once: operands and results.
    pub bytes: f64,
    /// Which tensor ceiling applies.
    pub fp8: bool,
    pub prepare: Prepare,
}

const BLOCK: usize = 128;
const PAGE: usize = 64;
const LATENT: usize = 512;
const ROPE: usize = 64;

/// The cases of a card or of the simulated card.
pub fn all(simulated: bool) -> Vec<Case> {
    let tokens: &[usize] = if simulated { &[64] } else { &[16, 128, 4096] };
    let hidden = if simulated { 1024 } else { 7168 };
    let products: &[(usize, usize)] =
        if simulated { &[(576, 1024), (2112, 512)] } else { &[(2112, 7168), (24576, 1536), (7168, 16384)] };
    let (experts, chosen, width) = if simulated { (8, 4, 256) } else { (32, 8, 2048) };
    let heads = if simulated { 16 } else { 128 };
    let mut cases = Vec::new();
    for &m in tokens {
        cases.push(quantize(m, hidden));
        cases.push(rms_norm_quantize(m, hidden));
        cases.push(router(m, 256, 8));
        cases.push(swiglu_quantize(m, width));
        cases.extend(products.iter().map(|&(n, k)| fp8_gemm(m, n, k)));
        // Every rank holds `experts` of 256, so this share of the chosen rows arrives.
        cases.push(grouped_fp8_gemm(experts, (m * chosen).div_ceil(experts), 2 * width, hidden));
        cases.push(bf16_gemm(m, 256, hidden));
        cases.push(batched_bf16_gemm(heads, m, LATENT, BLOCK));
    }
    let (sequences, lengths): (usize, &[usize]) = if simulated { (2, &[512]) } else { (64, &[1024, 8192]) };
    cases.extend(lengths.iter().map(|&length| attention(sequences, heads, length)));
    cases
}

fn quantize(m: usize, k: usize) -> Case {
    Case {
        name: format!("quantize/{m}x{k}"),
        flops: 0.0,
        bytes: 2.0 * product(&[m, k]) + rows_bytes(m, k),
        fp8: true,
        prepare: Box::new(move |device| {
            let x = bf16s(device, &[m, k], 1)?;
            let out = Fp8Rows::empty(device, m, k, ScaleLayout::MnMajor)?;
            Ok(Box::new(move |stream| Quantize::new(&x, &out).launch(stream)))
        }),
    }
}

fn rms_norm_quantize(m: usize, k: usize) -> Case {
    Case {
        name: format!("rms_norm_quantize/{m}x{k}"),
        flops: 0.0,
        bytes: 2.0 * product(&[m, k]) + rows_bytes(m, k),
        fp8: true,
        prepare: Box::new(move |device| {
            let (x, weight) = (bf16s(device, &[m, k], 2)?, bf16s(device, &[k], 3)?);
            let out = Fp8Rows::empty(device, m, k, ScaleLayout::MnMajor)?;
            Ok(Box::new(move |stream| RmsNormQuantize::new(&x, &weight, &out).launch(stream)))
        }),
    }
}

fn router(tokens: usize, experts: usize, chosen: usize) -> Case {
    Case {
        name: format!("router/{tokens}x{experts}"),
        flops: 0.0,
        bytes: 4.0 * product(&[tokens, experts]) + 8.0 * product(&[tokens, chosen]),
        fp8: true,
        prepare: Box::new(move |device| {
            let logits = device.tensor(&[tokens, experts], &Source::new(4).normals(tokens * experts, 1.0))?;
            let bias = device.zeros::<f32>(&[experts])?;
            let weights = device.empty::<f32>(&[tokens, chosen])?;
            let ids = device.empty::<i32>(&[tokens, chosen])?;
            Ok(Box::new(move |stream| {
                Router::new(&logits, &bias, &weights, &ids)
                    .groups(8, 4)
                    .normalize(true)
                    .scale(2.5)
                    .launch(stream)
            }))
        }),
    }
}

fn swiglu_quantize(m: usize, width: usize) -> Case {
    Case {
        name: format!("swiglu_quantize/{m}x{width}"),
        flops: 0.0,
        bytes: 4.0 * product(&[m, width]) + rows_bytes(m, width),
        fp8: true,
        prepare: Box::new(move |device| {
            let gate_up = bf16s(device, &[m, 2 * width], 5)?;
            let out = Fp8Rows::empty(device, m, width, ScaleLayout::MnMajor)?;
            Ok(Box::new(move |stream| SwigluQuantize::new(&gate_up, &out).launch(stream)))
        }),
    }
}

fn fp8_gemm(m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("fp8_gemm/{m}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        bytes: product(&[n, k]) + rows_bytes(m, k) + 2.0 * product(&[m, n]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (fp8_rows(device, m, k)?, fp8_blocks(device, &[n, k])?);
            let out = device.empty::<bf16>(&[m, n])?;
            Ok(Box::new(move |stream| Fp8Gemm::new(&a, &b, &out).launch(stream)))
        }),
    }
}

fn grouped_fp8_gemm(groups: usize, rows: usize, n: usize, k: usize) -> Case {
    let m = groups * rows;
    Case {
        name: format!("grouped_fp8_gemm/{groups}x{rows}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        bytes: product(&[groups, n, k]) + rows_bytes(m, k) + 2.0 * product(&[m, n]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (fp8_rows(device, m, k)?, fp8_blocks(device, &[groups, n, k])?);
            let ends: Vec<i32> =
                (0..=groups).map(|group| i32::try_from(group * rows).expect("small")).collect();
            let offsets = device.tensor(&[groups + 1], &ends)?;
            let out = device.empty::<bf16>(&[m, n])?;
            Ok(Box::new(move |stream| GroupedFp8Gemm::new(&a, &b, &offsets, &out).launch(stream)))
        }),
    }
}

fn bf16_gemm(m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("bf16_gemm/{m}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        bytes: 2.0 * (product(&[m, k]) + product(&[n, k])) + 4.0 * product(&[m, n]),
        fp8: false,
        prepare: Box::new(move |device| {
            let (a, b) = (bf16s(device, &[m, k], 6)?, bf16s(device, &[n, k], 7)?);
            let out = device.empty::<f32>(&[m, n])?;
            Ok(Box::new(move |stream| Bf16Gemm::new(&a, &b, &out).launch(stream)))
        }),
    }
}

fn batched_bf16_gemm(batch: usize, m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("batched_bf16_gemm/{batch}x{m}x{n}x{k}"),
        flops: 2.0 * product(&[batch, m, n, k]),
        bytes: 2.0 * batch as f64 * (product(&[m, k]) + product(&[n, k]) + product(&[m, n])),
        fp8: false,
        prepare: Box::new(move |device| {
            let (a, b) = (bf16s(device, &[batch, m, k], 8)?, bf16s(device, &[batch, n, k], 9)?);
            let out = device.empty::<bf16>(&[batch, m, n])?;
            Ok(Box::new(move |stream| BatchedBf16Gemm::new(&a, &b, &out).launch(stream)))
        }),
    }
}

/// Decode: one new token of every sequence.
fn attention(sequences: usize, heads: usize, length: usize) -> Case {
    let pages = length.div_ceil(PAGE);
    let per_key = (LATENT + ROPE) + LATENT;
    Case {
        name: format!("attention/{sequences}x{heads}x{length}"),
        flops: 2.0 * product(&[sequences, heads, length, per_key]),
        bytes: 2.0 * product(&[sequences, length, LATENT + ROPE])
            + 2.0 * product(&[sequences, heads, per_key]),
        fp8: false,
        prepare: Box::new(move |device| {
            let query = bf16s(device, &[sequences, 1, heads, LATENT + ROPE], 10)?;
            let cache = LatentCache::new(device, sequences * pages)?;
            let filled = sequences * pages * PAGE * (LATENT + ROPE);
            cache.tensor().write(&Source::to_bf16(&Source::new(11).normals(filled, 1.0)))?;
            let table: Vec<i32> =
                (0..sequences * pages).map(|page| i32::try_from(page).expect("small")).collect();
            let table = device.tensor(&[sequences, pages], &table)?;
            let lengths = vec![i32::try_from(length).expect("small"); sequences];
            let lengths = device.tensor(&[sequences], &lengths)?;
            let out = device.empty::<bf16>(&[sequences, 1, heads, LATENT])?;
            let bytes = Attention::new(&query, &cache, &table, &lengths, &out).workspace_bytes();
            let workspace = device.empty::<u8>(&[bytes])?;
            Ok(Box::new(move |stream| {
                Attention::new(&query, &cache, &table, &lengths, &out).workspace(&workspace).launch(stream)
            }))
        }),
    }
}

fn product(extents: &[usize]) -> f64 {
    extents.iter().map(|&extent| extent as f64).product()
}

/// FP8 rows and their scales.
fn rows_bytes(m: usize, k: usize) -> f64 {
    product(&[m, k]) + 4.0 * product(&[m, k.div_ceil(BLOCK)])
}

fn bf16s(device: &Device, shape: &[usize], seed: u64) -> Result<Tensor<bf16>> {
    device.tensor(shape, &Source::to_bf16(&Source::new(seed).normals(shape.iter().product(), 1.0)))
}

fn fp8s(device: &Device, shape: &[usize], seed: u64) -> Result<Tensor<E4m3>> {
    device.tensor(shape, &Source::to_e4m3(&Source::new(seed).normals(shape.iter().product(), 1.0)))
}

fn fp8_rows(device: &Device, m: usize, k: usize) -> Result<Fp8Rows> {
    let out = Fp8Rows::empty(device, m, k, ScaleLayout::MnMajor)?;
    let x = bf16s(device, &[m, k], 12)?;
    Quantize::new(&x, &out).launch(&device.stream())?;
    Ok(out)
}

fn fp8_blocks(device: &Device, shape: &[usize]) -> Result<Fp8Blocks> {
    let mut blocks = shape.to_vec();
    for extent in blocks.iter_mut().rev().take(2) {
        *extent = extent.div_ceil(BLOCK);
    }
    let scales = vec![0.01; blocks.iter().product()];
    Fp8Blocks::new(fp8s(device, shape, 13)?, device.tensor(&blocks, &scales)?)
}
