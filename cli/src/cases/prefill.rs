//! Attention of prompts, and the merge of its parts.

use super::{Case, Operands, Prepared, bf16s, product};
use narrowgauge::bf16;
use narrowgauge::mla::{Merge, Prefill};

/// A prompt of so many tokens with keys and values of each head, causal.
pub fn prefill(tokens: usize, heads: usize, width: usize) -> Case {
    const VALUE: usize = 128;
    let pairs = tokens * (tokens + 1) / 2;
    Case {
        name: format!("prefill/{tokens}x{heads}x{width}"),
        flops: 2.0 * product(&[pairs, heads, width + VALUE]),
        fp8: false,
        prepare: Box::new(move |device| {
            let q = bf16s(device, &[tokens, heads, width], 31)?;
            let k = bf16s(device, &[tokens, heads, width], 32)?;
            let v = bf16s(device, &[tokens, heads, VALUE], 33)?;
            let out = device.empty::<bf16>(&[tokens, heads, VALUE])?;
            let operands =
                Operands::default().input("q", &q).input("k", &k).input("v", &v).output("out", &out);
            let launch = Box::new(move |stream: &_| Prefill::new(&q, &k, &v, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn merge(parts: usize, tokens: usize, heads: usize, columns: usize) -> Case {
    Case {
        name: format!("merge/{parts}x{tokens}x{heads}x{columns}"),
        flops: 0.0,
        fp8: false,
        prepare: Box::new(move |device| {
            let partial = bf16s(device, &[parts, tokens, heads, columns], 34)?;
            let lse = device.full(&[parts, heads, tokens], 1.0f32)?;
            let out = device.empty::<bf16>(&[tokens, heads, columns])?;
            let operands =
                Operands::default().input("partial", &partial).input("partial_lse", &lse).output("out", &out);
            let launch = Box::new(move |stream: &_| Merge::new(&partial, &lse, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}
