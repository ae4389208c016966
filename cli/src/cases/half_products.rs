//! Products of 16-bit floats beside the plain ones: f16, other layouts, groups.

use super::fp8_products::share;
use super::{Case, Operands, Prepared, bf16s, i32s, product};
use narrowgauge::gemm::{GroupedHalfGemm, HalfGemm, MaskedHalfGemm};
use narrowgauge::{bf16, f16};

pub fn f16_gemm(m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("f16_gemm/{m}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: false,
        prepare: Box::new(move |device| {
            let halves = |shape: &[usize], seed| {
                let values = bf16s(device, shape, seed)?.to_vec()?;
                device
                    .tensor(shape, &values.into_iter().map(|x| f16::from_f32(x.to_f32())).collect::<Vec<_>>())
            };
            let (a, b, out) = (halves(&[m, k], 6)?, halves(&[n, k], 7)?, device.empty::<f16>(&[m, n])?);
            let operands = Operands::default().input("a", &a).input("b", &b).output("out", &out);
            let launch = Box::new(move |stream: &_| HalfGemm::new(&a, &b, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

/// Neither operand has K as its last dimension.
pub fn bf16_gemm_tt(m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("bf16_gemm_tt/{m}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: false,
        prepare: Box::new(move |device| {
            let turned = |rows: usize, seed| {
                bf16s(device, &[k, rows.next_multiple_of(8)], seed)?.slice(1, 0..rows)?.transpose(0, 1)
            };
            let (a, b, out) = (turned(m, 6)?, turned(n, 7)?, device.empty::<bf16>(&[m, n])?);
            let operands = Operands::default().input("a", &a).input("b", &b).output("out", &out);
            let launch = Box::new(move |stream: &_| HalfGemm::new(&a, &b, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

/// Groups of about `each` rows that follow each other.
pub fn grouped(groups: usize, each: usize, n: usize, k: usize) -> Case {
    let mut ends = vec![0];
    (0..groups).for_each(|group| ends.push(ends[group] + share(each, groups, group)));
    let m = ends[groups];
    Case {
        name: format!("grouped_bf16_gemm/{groups}x{each}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: false,
        prepare: Box::new(move |device| {
            let (a, b) = (bf16s(device, &[m, k], 8)?, bf16s(device, &[groups, n, k], 9)?);
            let offsets = device.tensor(&[groups + 1], &i32s(ends.iter().copied()))?;
            let out = device.empty::<bf16>(&[m, n])?;
            let operands = Operands::default()
                .input("a", &a)
                .input("b", &b)
                .input("offsets", &offsets)
                .output("out", &out);
            let launch =
                Box::new(move |stream: &_| GroupedHalfGemm::new(&a, &b, &offsets, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

/// Groups with room for `room` rows, of which about `expected` count.
pub fn masked(groups: usize, room: usize, expected: usize, n: usize, k: usize) -> Case {
    let counts: Vec<_> = (0..groups).map(|group| share(expected, groups, group).min(room)).collect();
    let m: usize = counts.iter().sum();
    Case {
        name: format!("masked_bf16_gemm/{groups}x{expected}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: false,
        prepare: Box::new(move |device| {
            let (a, b) = (bf16s(device, &[groups, room, k], 8)?, bf16s(device, &[groups, n, k], 9)?);
            let counts = device.tensor(&[groups], &i32s(counts.iter().copied()))?;
            let out = device.empty::<bf16>(&[groups, room, n])?;
            let operands = Operands::default()
                .input("a", &a)
                .of_which(m * k)
                .input("b", &b)
                .input("counts", &counts)
                .output("out", &out)
                .of_which(m * n);
            let product = MaskedHalfGemm::new(&a, &b, &counts, &out).expected_rows(expected);
            Ok(Prepared { launch: Box::new(move |stream| product.launch(stream)), operands })
        }),
    }
}

/// DeepSeek-V3's shapes of attention and experts, as checkpoints of 16 bits have them; on the simulated card small ones.
pub fn all(simulated: bool) -> Vec<Case> {
    if simulated {
        return vec![
            f16_gemm(64, 576, 512),
            bf16_gemm_tt(136, 256, 512),
            grouped(4, 64, 256, 256),
            masked(4, 128, 20, 256, 256),
        ];
    }
    let mut cases = Vec::new();
    for m in [16, 128, 4096] {
        cases.extend([f16_gemm(m, 7168, 2048), bf16_gemm_tt(m, 7168, 2048)]);
    }
    cases.extend([
        grouped(8, 4096, 4096, 2048),
        masked(6, 4096, 20, 4096, 2048),
        masked(6, 4096, 1024, 4096, 2048),
    ]);
    cases
}
