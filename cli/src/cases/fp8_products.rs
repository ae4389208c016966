//! FP8 products in every mode, with every kind of scales and every output, and the published shapes of them.

use super::{BLOCK, Case, Operands, Prepared, fp8s, i32s, product, products};
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{
    BatchedFp8Gemm, Fp8Gemm, Fp8GemmOutput, Fp8GradientGemm, GroupedFp8Gemm, KGroupedFp8Gemm, MaskedFp8Gemm,
    published,
};
use narrowgauge::{Device, Fp8Blocks, Fp8Rows, Result, ScaleLayout, Ue8m0, bf16, f16};

/// What scales the operands of a dense product.
#[derive(Clone, Copy)]
pub enum Scaling {
    /// f32 for 1×128 and 128×128.
    Blocks,
    /// The same as UE8M0.
    PowersOfTwo,
    /// One for each row of A and of B.
    Rows,
    /// One for A and one for B.
    Whole,
}

/// What a dense product is written to.
#[derive(Clone, Copy)]
pub enum Out {
    Bf16,
    F16,
    F32,
    E4m3,
}

/// A dense product under a name of its own: `fp8_gemm_<form>`.
pub fn form(form: &str, scaling: Scaling, out: Out, [m, n, k]: [usize; 3]) -> Case {
    Case {
        name: format!("fp8_gemm_{form}/{m}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let extents = [m, n, k];
            let (product, operands) = match out {
                Out::Bf16 => {
                    let out = device.empty::<bf16>(&[m, n])?;
                    let (product, operands) = dense(device, scaling, extents, &out)?;
                    (product, operands.output("out", &out))
                }
                Out::F16 => {
                    let out = device.empty::<f16>(&[m, n])?;
                    let (product, operands) = dense(device, scaling, extents, &out)?;
                    (product, operands.output("out", &out))
                }
                Out::F32 => {
                    let out = device.empty::<f32>(&[m, n])?;
                    let (product, operands) = dense(device, scaling, extents, &out)?;
                    (product, operands.output("out", &out))
                }
                Out::E4m3 => {
                    let out = Fp8Rows::empty(device, m, n, ScaleLayout::MnMajor)?;
                    let (product, operands) = dense(device, scaling, extents, &out)?;
                    (product, operands.output_rows(["out", "out_scales"], &out))
                }
            };
            Ok(Prepared { launch: Box::new(move |stream| product.launch(stream)), operands })
        }),
    }
}

fn dense(
    device: &Device,
    scaling: Scaling,
    [m, n, k]: [usize; 3],
    out: &impl Fp8GemmOutput,
) -> Result<(Fp8Gemm, Operands)> {
    let (a, b) = (fp8s(device, &[m, k], 12)?, fp8s(device, &[n, k], 13)?);
    let operands = Operands::default().input("a", &a).input("b", &b);
    let (a_blocks, b_blocks) = ([m, k.div_ceil(BLOCK)], [n.div_ceil(BLOCK), k.div_ceil(BLOCK)]);
    Ok(match scaling {
        Scaling::Blocks => {
            let (a_scales, b_scales) = (device.full(&a_blocks, 0.5)?, device.full(&b_blocks, 0.01)?);
            let operands = operands.input("a_scales", &a_scales).input("b_scales", &b_scales);
            (Fp8Gemm::new(&Fp8Rows::new(a, a_scales)?, &Fp8Blocks::new(b, b_scales)?, out), operands)
        }
        Scaling::PowersOfTwo => {
            let half = Ue8m0::from_bits(126);
            let (a_scales, b_scales) = (device.full(&a_blocks, half)?, device.full(&b_blocks, half)?);
            let operands = operands.input("a_scales", &a_scales).input("b_scales", &b_scales);
            (Fp8Gemm::new(&Fp8Rows::join(a, a_scales)?, &Fp8Blocks::join(b, b_scales)?, out), operands)
        }
        Scaling::Rows => {
            let (a_scales, b_scales) = (device.full(&[m], 0.5)?, device.full(&[n], 0.01)?);
            let operands = operands.input("a_scales", &a_scales).input("b_scales", &b_scales);
            (Fp8Gemm::new(&Fp8Rows::per_row(a, a_scales)?, &Fp8Blocks::per_row(b, b_scales)?, out), operands)
        }
        Scaling::Whole => {
            let (a_scales, b_scales) = (device.full(&[1], 0.5)?, device.full(&[1], 0.01)?);
            let operands = operands.input("a_scales", &a_scales).input("b_scales", &b_scales);
            let (a, b) = (Fp8Rows::per_tensor(a, a_scales)?, Fp8Blocks::per_tensor(b, b_scales)?);
            (Fp8Gemm::new(&a, &b, out), operands)
        }
    })
}

/// How many of about `each` a group gets: from 0.7 to 1.3 of it, in an order that looks drawn. `tools/peers/` shares
/// rows out in the same way.
pub(super) fn share(each: usize, groups: usize, group: usize) -> usize {
    let place = (5 * group + 3) % groups;
    let factor = if groups > 1 { 0.7 + 0.6 * place as f64 / (groups - 1) as f64 } else { 1.0 };
    (each as f64 * factor).round() as usize
}

/// Matrices with scales for each row and 128 columns, which lie column by column.
fn rows(device: &Device, groups: usize, m: usize, k: usize, seed: u64) -> Result<Fp8Rows> {
    let scales = device.full(&[groups, k.div_ceil(BLOCK), m.next_multiple_of(4)], 0.5)?;
    Fp8Rows::new(fp8s(device, &[groups, m, k], seed)?, scales.slice(2, 0..m)?.transpose(1, 2)?)
}

/// The one matrix of the same.
fn matrix(device: &Device, m: usize, k: usize, seed: u64) -> Result<Fp8Rows> {
    let scales = device.full(&[k.div_ceil(BLOCK), m.next_multiple_of(4)], 0.5)?;
    Fp8Rows::new(fp8s(device, &[m, k], seed)?, scales.slice(1, 0..m)?.transpose(0, 1)?)
}

fn weights(device: &Device, groups: usize, n: usize, k: usize) -> Result<Fp8Blocks> {
    let scales = device.full(&[groups, n.div_ceil(BLOCK), k.div_ceil(BLOCK)], 0.01)?;
    Fp8Blocks::new(fp8s(device, &[groups, n, k], 13)?, scales)
}

/// Groups of about `each` rows that follow each other without padding.
pub fn contiguous(groups: usize, each: usize, n: usize, k: usize) -> Case {
    let mut ends = vec![0];
    (0..groups).for_each(|group| ends.push(ends[group] + share(each, groups, group)));
    let m = ends[groups];
    Case {
        name: format!("contiguous_fp8_gemm/{groups}x{each}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (matrix(device, m, k, 12)?, weights(device, groups, n, k)?);
            let offsets = device.tensor(&[groups + 1], &i32s(ends.iter().copied()))?;
            let out = device.empty::<bf16>(&[m, n])?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_blocks(["b", "b_scales"], &b)
                .input("offsets", &offsets)
                .output("out", &out);
            let product = GroupedFp8Gemm::new(&a, &b, &offsets, &out);
            Ok(Prepared { launch: Box::new(move |stream| product.launch(stream)), operands })
        }),
    }
}

/// Groups with room for `room` rows, of which about `expected` count.
pub fn masked(groups: usize, room: usize, expected: usize, n: usize, k: usize) -> Case {
    let counts: Vec<_> = (0..groups).map(|group| share(expected, groups, group).min(room)).collect();
    let m: usize = counts.iter().sum();
    Case {
        name: format!("masked_fp8_gemm/{groups}x{expected}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (rows(device, groups, room, k, 12)?, weights(device, groups, n, k)?);
            let counts = device.tensor(&[groups], &i32s(counts.iter().copied()))?;
            let out = device.empty::<bf16>(&[groups, room, n])?;
            let operands = Operands::default()
                .input("a", a.data())
                .of_which(m * k)
                .input("a_scales", a.scales())
                .of_which(m * k.div_ceil(BLOCK))
                .input_blocks(["b", "b_scales"], &b)
                .input("counts", &counts)
                .output("out", &out)
                .of_which(m * n);
            let product = MaskedFp8Gemm::new(&a, &b, &counts, &out).expected_rows(expected);
            Ok(Prepared { launch: Box::new(move |stream| product.launch(stream)), operands })
        }),
    }
}

pub fn batched(batch: usize, m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("batched_fp8_gemm/{batch}x{m}x{n}x{k}"),
        flops: 2.0 * product(&[batch, m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (rows(device, batch, m, k, 12)?, weights(device, batch, n, k)?);
            let out = device.empty::<bf16>(&[batch, m, n])?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_blocks(["b", "b_scales"], &b)
                .output("out", &out);
            let product = BatchedFp8Gemm::new(&a, &b, &out);
            Ok(Prepared { launch: Box::new(move |stream| product.launch(stream)), operands })
        }),
    }
}

/// A weight gradient that is added to an f32 matrix.
pub fn gradient(m: usize, n: usize, k: usize) -> Case {
    Case {
        name: format!("fp8_gradient_gemm/{m}x{n}x{k}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (matrix(device, m, k, 14)?, matrix(device, n, k, 15)?);
            let out = device.zeros::<f32>(&[m, n])?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_rows(["b", "b_scales"], &b)
                .output("out", &out);
            let launch =
                Box::new(move |stream: &_| Fp8GradientGemm::new(&a, &b, &out).accumulate().launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

/// The same for groups of about `each` of K, all in one launch.
pub fn k_grouped(groups: usize, m: usize, n: usize, each: usize) -> Case {
    let mut ends = vec![0];
    for group in 0..groups {
        ends.push(ends[group] + (share(each, groups, group) / BLOCK * BLOCK).max(BLOCK));
    }
    let k = ends[groups];
    Case {
        name: format!("k_grouped_fp8_gemm/{groups}x{m}x{n}x{each}"),
        flops: 2.0 * product(&[m, n, k]),
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (matrix(device, m, k, 14)?, matrix(device, n, k, 15)?);
            let offsets = device.tensor(&[groups + 1], &i32s(ends.iter().copied()))?;
            let out = device.zeros::<f32>(&[groups, m, n])?;
            let operands = Operands::default()
                .input_rows(["a", "a_scales"], &a)
                .input_rows(["b", "b_scales"], &b)
                .input("offsets", &offsets)
                .output("out", &out);
            let launch = Box::new(move |stream: &_| {
                KGroupedFp8Gemm::new(&a, &b, &offsets, &out).accumulate().launch(stream)
            });
            Ok(Prepared { launch, operands })
        }),
    }
}

/// Every form of a dense product beside the plain one.
fn forms(extents: [usize; 3]) -> [Case; 6] {
    [
        form("ue8m0", Scaling::PowersOfTwo, Out::Bf16, extents),
        form("rows", Scaling::Rows, Out::Bf16, extents),
        form("tensor", Scaling::Whole, Out::Bf16, extents),
        form("f16", Scaling::Blocks, Out::F16, extents),
        form("f32", Scaling::Blocks, Out::F32, extents),
        form("e4m3", Scaling::Blocks, Out::E4m3, extents),
    ]
}

/// Every mode, form and published shape; on the simulated card small relatives of them.
pub fn all(simulated: bool) -> Vec<Case> {
    if simulated {
        let mut cases = vec![
            contiguous(4, 64, 512, 512),
            masked(4, 256, 20, 512, 512),
            batched(8, 16, 128, 512),
            batched(8, 16, 512, 128),
            gradient(256, 384, 512),
            k_grouped(4, 256, 256, 256),
        ];
        cases.extend(forms([64, 576, 1024]));
        return cases;
    }
    let mut cases: Vec<_> =
        published::shapes().iter().filter_map(|shape| of_published(&shape.problem)).collect();
    for tokens in [4, 32, 128, 4096] {
        // Both absorptions of attention's weights.
        cases.extend([batched(128, tokens, 128, 512), batched(128, tokens, 512, 128)]);
    }
    for m in [16, 4096] {
        cases.extend(forms([m, 7168, 2048]));
    }
    cases
}

fn of_published(problem: &narrowgauge::gemm::plan::Problem) -> Option<Case> {
    let (m, n, k, groups) = (problem.m, problem.n, problem.k, problem.groups);
    match (problem.input, problem.mode) {
        (Input::Fp8, Mode::Dense) if problem.swiglu => Some(products::fp8_gemm_swiglu(m, n, k)),
        (Input::Fp8, Mode::Contiguous) if problem.swiglu => {
            Some(products::grouped_fp8_gemm_swiglu(groups, m / groups, n, k))
        }
        (Input::Fp8, Mode::Dense) => Some(products::fp8_gemm(m, n, k, (0, 0))),
        (Input::Fp8, Mode::Contiguous) => Some(contiguous(groups, m / groups, n, k)),
        (Input::Fp8, Mode::Masked) => Some(masked(groups, m, problem.expected_rows, n, k)),
        (Input::Fp8Fine, Mode::Dense) => Some(gradient(m, n, k)),
        (Input::Fp8Fine, Mode::KGrouped) => Some(k_grouped(groups, m, n, k / groups)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_shape_is_measured() {
        assert!(published::shapes().iter().all(|shape| of_published(&shape.problem).is_some()));
        let names: Vec<_> = all(false).into_iter().map(|case| case.name).collect();
        for name in [
            "fp8_gemm/4096x7168x16384",
            "masked_fp8_gemm/6x20x4096x2048",
            "k_grouped_fp8_gemm/16x7168x2048x2048",
        ] {
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
    }

    /// Others are timed on the same cases, with as many rows in each group.
    #[test]
    fn peers_get_the_same_work() {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/peers/peers.py");
        let Ok(output) = std::process::Command::new("python3").arg("-B").arg(script).arg("--list").output()
        else {
            println!("SKIPPED: there is no python3");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let theirs: Vec<_> = text.lines().collect();
        // None of them has the activation in its product.
        let plain = published::shapes().iter().filter(|shape| !shape.problem.swiglu).count();
        assert_eq!(theirs.len(), plain, "{}", String::from_utf8_lossy(&output.stderr));
        let ours: Vec<_> = all(false).iter().map(|case| format!("{} {:.0}", case.name, case.flops)).collect();
        let strange: Vec<_> = theirs.iter().filter(|line| !ours.iter().any(|own| own == **line)).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }

    #[test]
    fn groups_share_rows_unevenly() {
        let rows: Vec<_> = (0..4).map(|group| share(1000, 4, group)).collect();
        assert_eq!(rows, [1300, 700, 900, 1100]);
        assert_eq!(share(7, 1, 0), 7);
    }
}
