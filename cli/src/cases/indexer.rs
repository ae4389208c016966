//! The lightning indexer and the selection after it.

use super::{Case, Operands, Prepared, bf16s, drawn, fp8s, i32s, product};
use narrowgauge::mla::{IndexerLogits, IndexerPages, IndexerWrite, PagedIndexerLogits, TopK};
use narrowgauge::verify::Source;
use narrowgauge::{Device, Fp8Rows, Result, Tensor};

const WIDTH: usize = 128;
const PAGE: usize = 64;

fn floats(device: &Device, shape: &[usize], seed: u64) -> Result<Tensor<f32>> {
    device.tensor(shape, &drawn(shape, |count| Source::new(seed).normals(count, 1.0)))
}

fn keys(device: &Device, shape: &[usize]) -> Result<Fp8Rows> {
    Fp8Rows::per_row(fp8s(device, shape, 41)?, device.full(&shape[..shape.len() - 1], 0.01f32)?)
}

/// Every token sees every key.
pub fn logits(tokens: usize, heads: usize, length: usize) -> Case {
    Case {
        name: format!("indexer_logits/{tokens}x{heads}x{length}"),
        flops: 2.0 * product(&[tokens, heads, length, WIDTH]),
        fp8: true,
        prepare: Box::new(move |device| {
            let q = fp8s(device, &[tokens, heads, WIDTH], 40)?;
            let keys = keys(device, &[length, WIDTH])?;
            let weights = floats(device, &[tokens, heads], 42)?;
            let out = device.empty::<f32>(&[tokens, length])?;
            let operands = Operands::default()
                .input("q", &q)
                .input_rows(["keys", "key_scales"], &keys)
                .input("weights", &weights)
                .output("out", &out);
            let launch =
                Box::new(move |stream: &_| IndexerLogits::new(&q, &keys, &weights, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

/// Sequences of one length, in pages that are out of order.
pub fn decode(sequences: usize, tokens: usize, heads: usize, length: usize) -> Case {
    let pages = length.div_ceil(PAGE);
    Case {
        name: format!("indexer_decode/{sequences}x{tokens}x{heads}x{length}"),
        flops: 2.0 * product(&[sequences, tokens, heads, length, WIDTH]),
        fp8: true,
        prepare: Box::new(move |device| {
            let q = fp8s(device, &[sequences, tokens, heads, WIDTH], 40)?;
            let keys = keys(device, &[sequences * pages, PAGE, WIDTH])?;
            let weights = floats(device, &[sequences, tokens, heads], 42)?;
            let table = device.tensor(&[sequences, pages], &i32s((0..sequences * pages).rev()))?;
            let lengths = device.tensor(&[sequences], &i32s(vec![length; sequences]))?;
            let out = device.empty::<f32>(&[sequences * tokens, length])?;
            let operands = Operands::default()
                .input("q", &q)
                .input("keys", keys.data())
                .of_which(sequences * length * WIDTH)
                .input("key_scales", keys.scales())
                .of_which(sequences * length)
                .input("weights", &weights)
                .input("page_table", &table)
                .input("lengths", &lengths)
                .output("out", &out);
            let launch = Box::new(move |stream: &_| {
                let pages = IndexerPages::new(&keys, &table, &lengths);
                PagedIndexerLogits::new(&q, pages, &weights, &out).launch(stream)
            });
            Ok(Prepared { launch, operands })
        }),
    }
}

/// New keys into pages.
pub fn write(tokens: usize) -> Case {
    Case {
        name: format!("indexer_write/{tokens}"),
        flops: 0.0,
        fp8: false,
        prepare: Box::new(move |device| {
            let new = bf16s(device, &[tokens, WIDTH], 44)?;
            let slots = device.tensor(&[tokens], &i32s((0..tokens).rev()))?;
            let cache = keys(device, &[tokens.div_ceil(PAGE), PAGE, WIDTH])?;
            let operands = Operands::default()
                .input("keys", &new)
                .input("slots", &slots)
                .output("cache", cache.data())
                .of_which(tokens * WIDTH)
                .output("cache_scales", cache.scales())
                .of_which(tokens);
            let launch = Box::new(move |stream: &_| IndexerWrite::new(&new, &slots, &cache).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn top_k(rows: usize, columns: usize, k: usize) -> Case {
    Case {
        name: format!("top_k/{rows}x{columns}x{k}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let scores = floats(device, &[rows, columns], 43)?;
            let out = device.empty::<i32>(&[rows, k])?;
            let operands = Operands::default().input("scores", &scores).output("out", &out);
            let launch = Box::new(move |stream: &_| TopK::new(&scores, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}
