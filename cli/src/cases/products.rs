//! Matrix products.

use super::experts::permuted;
use super::{Case, Operands, Prepared, bf16s, fp8_blocks, fp8_rows, fp8s, i32s, product};
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{
    BatchedHalfGemm, Fp8Gemm, Fp8GemmSwiglu, GroupedFp8Gemm, GroupedFp8GemmSwiglu, HalfGemm, Tile,
    TransposeFp8,
};
use narrowgauge::{Fp8Rows, ScaleLayout, bf16};

/// The tiles of the FP8 products that are neither swapped nor in a cluster.
pub fn fp8_tiles() -> impl Iterator<Item = Tile> {
    let plain = |tile: &Tile| tile.cluster() == 1 && !tile.swapped();
    Tile::of(Input::Fp8, Mode::Dense).into_iter().filter(plain)
}

/// The one with so many rows and columns.
pub fn fp8_tile(rows: usize, columns: usize) -> Option<Tile> {
    fp8_tiles().find(|tile| (tile.rows(), tile.columns()) == (rows, columns))
}

/// `tile`: rows and columns of one that there is, or zeros for the planner's choice.
pub fn fp8_gemm(m: usize, n: usize, k: usize, tile: (usize, usize)) -> Case {
    Case {
        name: format!("fp8_gemm/{m}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (fp8_rows(device, m, k)?, fp8_blocks(device, &[n, k])?);
            let out = device.empty::<bf16>(&[m, n])?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_blocks(["b", "b_scales"], &b)
                .output("out", &out);
            let mut product = Fp8Gemm::new(&a, &b, &out);
            if let Some(tile) = fp8_tile(tile.0, tile.1) {
                product = product.tile(tile);
            }
            let launch = Box::new(move |stream: &_| product.launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn grouped_fp8_gemm(groups: usize, rows: usize, n: usize, k: usize) -> Case {
    let m = groups * rows;
    Case {
        name: format!("grouped_fp8_gemm/{groups}x{rows}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (fp8_rows(device, m, k)?, fp8_blocks(device, &[groups, n, k])?);
            let ends = i32s((0..=groups).map(|group| group * rows));
            let offsets = device.tensor(&[groups + 1], &ends)?;
            let out = device.empty::<bf16>(&[m, n])?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_blocks(["b", "b_scales"], &b)
                .input("offsets", &offsets)
                .output("out", &out);
            let launch =
                Box::new(move |stream: &_| GroupedFp8Gemm::new(&a, &b, &offsets, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

/// `n`: columns of the output, half of the weights' rows.
pub fn fp8_gemm_swiglu(m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("fp8_gemm_swiglu/{m}x{n}x{k}"),
        flops: 4.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (fp8_rows(device, m, k)?, fp8_blocks(device, &[2 * n, k])?);
            let out = Fp8Rows::empty(device, m, n, ScaleLayout::MnMajor)?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_blocks(["b", "b_scales"], &b)
                .output_rows(["out", "out_scales"], &out);
            let launch = Box::new(move |stream: &_| Fp8GemmSwiglu::new(&a, &b, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

/// The same for groups of `rows` rows each.
pub fn grouped_fp8_gemm_swiglu(groups: usize, rows: usize, n: usize, k: usize) -> Case {
    let m = groups * rows;
    Case {
        name: format!("grouped_fp8_gemm_swiglu/{groups}x{rows}x{n}x{k}"),
        flops: 4.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (fp8_rows(device, m, k)?, fp8_blocks(device, &[groups, 2 * n, k])?);
            let ends = i32s((0..=groups).map(|group| group * rows));
            let offsets = device.tensor(&[groups + 1], &ends)?;
            let out = Fp8Rows::empty(device, m, n, ScaleLayout::MnMajor)?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_blocks(["b", "b_scales"], &b)
                .input("offsets", &offsets)
                .output_rows(["out", "out_scales"], &out);
            let launch =
                Box::new(move |stream: &_| GroupedFp8GemmSwiglu::new(&a, &b, &offsets, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

/// Rows of experts, each of which takes its tokens' by a list.
pub fn gathered_fp8_gemm(tokens: usize, experts: usize, chosen: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("gathered_fp8_gemm/{tokens}x{experts}x{chosen}x{n}x{k}"),
        flops: 2.0 * product(&[tokens, chosen.min(experts), n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (fp8_rows(device, tokens, k)?, fp8_blocks(device, &[experts, n, k])?);
            let permutation = permuted(device, tokens, experts, chosen)?;
            let out = device.empty::<bf16>(&[tokens * permutation.slots(), n])?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_blocks(["b", "b_scales"], &b)
                .input("offsets", permutation.offsets())
                .input("entries", permutation.source())
                .output("out", &out);
            let launch = Box::new(move |stream: &_| {
                GroupedFp8Gemm::new(&a, &b, permutation.offsets(), &out)
                    .gather_entries(permutation.source(), permutation.slots())
                    .launch(stream)
            });
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn bf16_gemm(m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("bf16_gemm/{m}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: false,
        prepare: Box::new(move |device| {
            let (a, b) = (bf16s(device, &[m, k], 6)?, bf16s(device, &[n, k], 7)?);
            let out = device.empty::<f32>(&[m, n])?;
            let operands = Operands::default().input("a", &a).input("b", &b).output("out", &out);
            let launch = Box::new(move |stream: &_| HalfGemm::new(&a, &b, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn batched_bf16_gemm(batch: usize, m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("batched_bf16_gemm/{batch}x{m}x{n}x{k}"),
        flops: 2.0 * product(&[batch, m, n, k]),
        fp8: false,
        prepare: Box::new(move |device| {
            let (a, b) = (bf16s(device, &[batch, m, k], 8)?, bf16s(device, &[batch, n, k], 9)?);
            let out = device.empty::<bf16>(&[batch, m, n])?;
            let operands = Operands::default().input("a", &a).input("b", &b).output("out", &out);
            let launch = Box::new(move |stream: &_| BatchedHalfGemm::new(&a, &b, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn transpose_fp8(rows: usize, columns: usize) -> Case {
    Case {
        name: format!("transpose_fp8/{rows}x{columns}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let (x, out) = (fp8s(device, &[rows, columns], 19)?, device.empty(&[columns, rows])?);
            let operands = Operands::default().input("x", &x).output("out", &out);
            let launch = Box::new(move |stream: &_| TransposeFp8::new(&x, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}
