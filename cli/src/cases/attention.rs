//! Attention over the latent cache.

use super::{Case, Operands, Prepared, bf16s, i32s, product};
use narrowgauge::bf16;
use narrowgauge::mla::{Attention, LatentCache, Rope, RopeParameters, RopeTables};
use narrowgauge::verify::Source;
use narrowgauge::{Device, Result};

pub const LATENT: usize = 512;
const ROPE: usize = 64;
const PAGE: usize = 64;

/// Decode: one new token of every sequence.
pub fn attention(sequences: usize, heads: usize, length: usize) -> Case {
    let pages = length.div_ceil(PAGE);
    let per_key = (LATENT + ROPE) + LATENT;
    Case {
        name: format!("attention/{sequences}x{heads}x{length}"),
        flops: 2.0 * product(&[sequences, heads, length, per_key]),
        fp8: false,
        prepare: Box::new(move |device| {
            let query = bf16s(device, &[sequences, 1, heads, LATENT + ROPE], 10)?;
            let cache = LatentCache::new(device, sequences * pages)?;
            let filled = sequences * pages * PAGE * (LATENT + ROPE);
            cache.tensor().write(&Source::to_bf16(&Source::new(11).normals(filled, 1.0)))?;
            let table = device.tensor(&[sequences, pages], &i32s(0..sequences * pages))?;
            let lengths = device.tensor(&[sequences], &i32s(vec![length; sequences]))?;
            let out = device.empty::<bf16>(&[sequences, 1, heads, LATENT])?;
            let bytes = Attention::new(&query, &cache, &table, &lengths, &out).workspace_bytes();
            let workspace = device.empty::<u8>(&[bytes])?;
            let operands = Operands::default()
                .input("query", &query)
                .input("cache", cache.tensor())
                .of_which(sequences * length * (LATENT + ROPE))
                .input("page_table", &table)
                .input("lengths", &lengths)
                .output("out", &out)
                .output("workspace", &workspace)
                .of_which(0);
            let launch = Box::new(move |stream: &_| {
                Attention::new(&query, &cache, &table, &lengths, &out).workspace(&workspace).launch(stream)
            });
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn tables(device: &Device, positions: usize) -> Result<RopeTables> {
    RopeTables::new(
        device,
        &RopeParameters { dim: ROPE, base: 10_000.0, max_positions: positions.max(1), yarn: None },
    )
}

pub fn rope(tokens: usize, heads: usize) -> Case {
    Case {
        name: format!("rope/{tokens}x{heads}"),
        flops: 0.0,
        fp8: false,
        prepare: Box::new(move |device| {
            let x = bf16s(device, &[tokens, heads, ROPE], 21)?;
            let positions = device.tensor(&[tokens], &i32s(0..tokens))?;
            let tables = tables(device, tokens)?;
            let out = device.empty::<bf16>(&[tokens, heads, ROPE])?;
            let operands = Operands::default()
                .input("x", &x)
                .input("positions", &positions)
                .input("cosines", tables.cosines())
                .input("sines", tables.sines())
                .output("out", &out);
            let launch = Box::new(move |stream: &_| Rope::new(&x, &positions, &tables, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}
