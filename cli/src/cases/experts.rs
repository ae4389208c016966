//! Routing to experts and back.

use super::{Case, Operands, Prepared, bf16s, fp8_rows};
use narrowgauge::routing::{Combine, Gate, GatherRows, GroupScore, Permutation, Permute, Router, Scoring};
use narrowgauge::verify::Source;
use narrowgauge::{Device, Fp8Rows, Result, ScaleLayout, Tensor, bf16};

/// DeepSeek-V3's groups of experts, and how many of them a token may use.
const GROUPS: usize = 8;
const KEPT: usize = 4;

pub fn router(tokens: usize, experts: usize, chosen: usize) -> Case {
    Case {
        name: format!("router/{tokens}x{experts}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let logits = device.tensor(&[tokens, experts], &Source::new(4).normals(tokens * experts, 1.0))?;
            let bias = device.zeros::<f32>(&[experts])?;
            let weights = device.empty::<f32>(&[tokens, chosen])?;
            let ids = device.empty::<i32>(&[tokens, chosen])?;
            let operands = Operands::default()
                .input("logits", &logits)
                .input("bias", &bias)
                .output("weights", &weights)
                .output("ids", &ids);
            let launch = Box::new(move |stream: &_| {
                let gate =
                    Gate::new(Scoring::Sigmoid, chosen).groups(GROUPS, KEPT, GroupScore::TopTwo).scale(2.5);
                Router::new(&logits, gate, &weights, &ids).bias(&bias).launch(stream)
            });
            Ok(Prepared { launch, operands })
        }),
    }
}

/// Experts drawn for every token, each at most once.
fn draw(device: &Device, tokens: usize, experts: usize, chosen: usize) -> Result<Tensor<i32>> {
    let mut source = Source::new(19);
    let ids: Vec<i32> =
        (0..tokens).flat_map(|_| super::i32s(source.permutation(experts).into_iter().take(chosen))).collect();
    device.tensor(&[tokens, chosen.min(experts)], &ids)
}

pub fn permute(tokens: usize, experts: usize, chosen: usize) -> Case {
    Case {
        name: format!("permute/{tokens}x{experts}x{chosen}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let ids = draw(device, tokens, experts, chosen)?;
            let permutation = Permutation::empty(device, tokens, ids.dim(1), experts)?;
            let operands = Operands::default()
                .input("ids", &ids)
                .output("counts", permutation.counts())
                .output("offsets", permutation.offsets())
                .output("source", permutation.source())
                .output("position", permutation.position());
            let launch = Box::new(move |stream: &_| Permute::new(&ids, &permutation).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn permuted(device: &Device, tokens: usize, experts: usize, chosen: usize) -> Result<Permutation> {
    let ids = draw(device, tokens, experts, chosen)?;
    let permutation = Permutation::empty(device, tokens, ids.dim(1), experts)?;
    Permute::new(&ids, &permutation).launch(&device.stream())?;
    Ok(permutation)
}

pub fn gather_rows(tokens: usize, columns: usize, experts: usize, chosen: usize) -> Case {
    Case {
        name: format!("gather_rows/{tokens}x{columns}x{chosen}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let rows = fp8_rows(device, tokens, columns)?;
            let permutation = permuted(device, tokens, experts, chosen)?;
            let out = Fp8Rows::empty(device, tokens * permutation.slots(), columns, ScaleLayout::MnMajor)?;
            let operands = Operands::default()
                .input_rows(["rows", "rows_scales"], &rows)
                .input("source", permutation.source())
                .output_rows(["out", "out_scales"], &out);
            let launch =
                Box::new(move |stream: &_| GatherRows::new(&rows, &permutation, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn combine(tokens: usize, columns: usize, experts: usize, chosen: usize) -> Case {
    Case {
        name: format!("combine/{tokens}x{columns}x{chosen}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let permutation = permuted(device, tokens, experts, chosen)?;
            let slots = permutation.slots();
            let rows = bf16s(device, &[tokens * slots, columns], 20)?;
            let weights = device.tensor(&[tokens, slots], &vec![1.0; tokens * slots])?;
            let out = device.empty::<bf16>(&[tokens, columns])?;
            let operands = Operands::default()
                .input("rows", &rows)
                .input("position", permutation.position())
                .input("weights", &weights)
                .output("out", &out);
            let launch =
                Box::new(move |stream: &_| Combine::new(&rows, &permutation, &weights, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}
