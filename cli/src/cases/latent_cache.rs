//! What fills the latent cache, reads it back and moves its pages.

use super::attention::{LATENT, tables};
use super::{Case, Operands, Prepared, bf16s, i32s};
use narrowgauge::bf16;
use narrowgauge::mla::{CacheGather, CacheLayout, CachePageCopy, CacheWrite, LatentCache};

const ROPE: usize = 64;
const PAGE: usize = 64;

/// The layouts, by the number that `--layout` gives.
pub fn layout(number: usize) -> (CacheLayout, &'static str) {
    match number {
        0 => (CacheLayout::Bf16, "bf16"),
        1 => (CacheLayout::F16, "f16"),
        2 => (CacheLayout::Fp8Blocks, "fp8_blocks"),
        _ => (CacheLayout::Fp8Flat { scale: 0.02 }, "fp8_flat"),
    }
}

pub fn cache_write(tokens: usize, number: usize) -> Case {
    let (layout, name) = layout(number);
    Case {
        name: format!("cache_write/{name}/{tokens}"),
        flops: 0.0,
        fp8: false,
        prepare: Box::new(move |device| {
            let latent = bf16s(device, &[tokens, LATENT], 22)?;
            let key_rope = bf16s(device, &[tokens, ROPE], 23)?;
            let positions = device.tensor(&[tokens], &i32s(0..tokens))?;
            let slots = device.tensor(&[tokens], &i32s(0..tokens))?;
            let tables = tables(device, tokens)?;
            let cache = LatentCache::with_layout(device, tokens.div_ceil(PAGE), PAGE, layout)?;
            let operands = Operands::default()
                .input("latent", &latent)
                .input("key_rope", &key_rope)
                .input("positions", &positions)
                .input("slots", &slots)
                .input("cosines", tables.cosines())
                .input("sines", tables.sines())
                .output("cache", cache.memory())
                .of_which(tokens * cache.token_bytes());
            let launch = Box::new(move |stream: &_| {
                CacheWrite::new(&latent, &key_rope, &positions, &slots, &tables, &cache).launch(stream)
            });
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn cache_gather(sequences: usize, tokens: usize, number: usize) -> Case {
    let (layout, name) = layout(number);
    let pages = tokens.div_ceil(PAGE);
    Case {
        name: format!("cache_gather/{name}/{sequences}x{tokens}"),
        flops: 0.0,
        fp8: false,
        prepare: Box::new(move |device| {
            let cache = LatentCache::with_layout(device, sequences * pages, PAGE, layout)?;
            let table = device.tensor(&[sequences, pages], &i32s((0..sequences * pages).rev()))?;
            let offsets = device.tensor(&[sequences + 1], &i32s((0..=sequences).map(|b| b * tokens)))?;
            let out = device.empty::<bf16>(&[sequences * tokens, LATENT + ROPE])?;
            let operands = Operands::default()
                .input("cache", cache.memory())
                .of_which(sequences * tokens * cache.token_bytes())
                .input("page_table", &table)
                .input("offsets", &offsets)
                .output("out", &out);
            let launch =
                Box::new(move |stream: &_| CacheGather::new(&cache, &table, &offsets, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn cache_page_copy(pages: usize, number: usize) -> Case {
    let (layout, name) = layout(number);
    Case {
        name: format!("cache_page_copy/{name}/{pages}"),
        flops: 0.0,
        fp8: false,
        prepare: Box::new(move |device| {
            let source = LatentCache::with_layout(device, pages, PAGE, layout)?;
            let target = LatentCache::with_layout(device, pages, PAGE, layout)?;
            let pairs = i32s((0..pages).flat_map(|page| [page, pages - 1 - page]));
            let pairs = device.tensor(&[pages, 2], &pairs)?;
            let operands = Operands::default()
                .input("source", source.memory())
                .input("pairs", &pairs)
                .output("target", target.memory());
            let launch =
                Box::new(move |stream: &_| CachePageCopy::new(&source, &target, &pairs).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}
