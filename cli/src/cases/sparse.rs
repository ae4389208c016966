//! Attention over tokens that lists name.

use super::attention::LATENT;
use super::latent_cache::layout;
use super::{Case, Operands, Prepared, bf16s, i32s, product};
use narrowgauge::bf16;
use narrowgauge::mla::{CacheLayout, LatentCache, SparseAttention};
use narrowgauge::verify::Source;
use std::collections::BTreeSet;

const WIDTH: usize = LATENT + 64;

/// Lists of different tokens of one cache.
pub fn sparse_attention([tokens, heads, cached, top_k]: [usize; 4], number: usize) -> Case {
    let (layout, name) = layout(number);
    Case {
        name: format!("sparse_attention/{name}/{tokens}x{heads}x{top_k}of{cached}"),
        flops: 2.0 * product(&[tokens, heads, top_k, WIDTH + LATENT]),
        fp8: false,
        prepare: Box::new(move |device| {
            let query = bf16s(device, &[tokens, heads, WIDTH], 30)?;
            let cache = LatentCache::with_layout(device, cached, 1, layout)?;
            let drawn = Source::to_bf16(&Source::new(31).normals(WIDTH * cached.min(512), 1.0));
            let rows: Vec<Vec<u8>> = drawn.chunks(WIDTH).map(|row| token(row, layout)).collect();
            let bytes: Vec<u8> = rows.iter().cycle().take(cached).flatten().copied().collect();
            cache.memory().write(&bytes)?;
            let source = &mut Source::new(32);
            let order = source.permutation(cached);
            let lists = (0..tokens).flat_map(|_| {
                let start = source.below(cached.max(1));
                let order = &order;
                (0..top_k).map(move |i| order[(start + i) % order.len()])
            });
            let lists: Vec<usize> = lists.collect();
            let named = lists.iter().collect::<BTreeSet<_>>().len();
            let indices = device.tensor(&[tokens, top_k], &i32s(lists))?;
            let out = device.empty::<bf16>(&[tokens, heads, LATENT])?;
            let bytes = SparseAttention::new(&query, &cache, &indices, &out).workspace_bytes();
            let workspace = device.empty::<u8>(&[bytes])?;
            let operands = Operands::default()
                .input("query", &query)
                .input("cache", cache.memory())
                .of_which(named * cache.token_bytes())
                .input("indices", &indices)
                .output("out", &out)
                .output("workspace", &workspace)
                .of_which(0);
            let launch = Box::new(move |stream: &_| {
                SparseAttention::new(&query, &cache, &indices, &out).workspace(&workspace).launch(stream)
            });
            Ok(Prepared { launch, operands })
        }),
    }
}

/// A cached token with scales of one.
fn token(row: &[bf16], layout: CacheLayout) -> Vec<u8> {
    let halves = |row: &[bf16]| row.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect::<Vec<u8>>();
    match layout {
        CacheLayout::Fp8Blocks => {
            let mut bytes = Source::to_e4m3(&row[..LATENT].iter().map(|x| x.to_f32()).collect::<Vec<_>>())
                .into_iter()
                .map(|code| code.to_bits())
                .collect::<Vec<u8>>();
            bytes.extend(1f32.to_le_bytes().repeat(4));
            bytes.extend(halves(&row[LATENT..]));
            bytes
        }
        _ => halves(row),
    }
}

/// DeepSeek-V3.2: decode of two tokens of 128 sequences, prefill of 4096.
pub fn all(simulated: bool) -> Vec<Case> {
    let shapes: &[([usize; 4], usize)] = if simulated {
        &[([2, 128, 1024, 512], 2), ([1, 64, 1024, 512], 2), ([2, 128, 1024, 512], 0)]
    } else {
        &[
            ([256, 128, 1 << 20, 2048], 2),
            ([256, 64, 1 << 20, 2048], 2),
            ([2, 128, 1 << 20, 2048], 2),
            ([4096, 128, 8192, 2048], 0),
            ([4096, 128, 65_536, 2048], 0),
        ]
    };
    shapes.iter().map(|&(shape, layout)| sparse_attention(shape, layout)).collect()
}
