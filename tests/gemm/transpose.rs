//! Operands whose K is not their last dimension, and the two products of absorbed attention.

use super::common::{config, device, device_under};
use super::{fp8, refused};
use narrowgauge::gemm::{BatchedFp8Gemm, Fp8Gemm, GroupedFp8Gemm, TransposeFp8, transposed_fp8};
use narrowgauge::verify::gemm::{Fp8Check, Rows, TransposeCheck, Values, offsets};
use narrowgauge::{Device, E4m3, Fp8Blocks, Fp8Rows, Result, Tensor, bf16};
use proptest::prelude::*;

proptest! {
    #![proptest_config(config(24))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn bytes_are_where_they_belong(seed in any::<u64>()) {
        TransposeCheck::drawn(seed).check(&device_under(seed)).map_err(TestCaseError::fail)?;
    }
}

/// Row-major `[groups, rows, columns]` as `[groups, columns, rows]`.
fn turned<V: Copy>(values: &[V], [rows, columns]: [usize; 2]) -> Vec<V> {
    let matrices = values.chunks(rows * columns);
    matrices
        .flat_map(|matrix| (0..rows * columns).map(move |at| matrix[at % rows * columns + at / rows]))
        .collect()
}

/// A view of some columns of a wider matrix.
fn wide<V: narrowgauge::Element>(
    device: &Device,
    shape: &[usize],
    values: &[V],
    fill: V,
) -> Result<Tensor<V>> {
    let last = shape.len() - 1;
    let columns = shape[last];
    let rows = values.chunks(columns).flat_map(|row| [row, &[fill; 3]].concat());
    let mut padded = shape.to_vec();
    padded[last] += 3;
    device.tensor(&padded, &rows.collect::<Vec<_>>())?.slice(last, 0..columns)
}

/// NN, TN and TT are NT of what was transposed: the same bits, and the scales of the operands as they lay.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_order_of_dimensions_gives_the_same_product() {
    let device = device();
    let stream = device.stream();
    let (m, n, k) = (67, 136, 272);
    let check = Fp8Check { values: Values::Normal, ..fp8(Rows::Dense(m), n, k) };
    check.check::<f32>(&device).unwrap();
    let inputs = check.inputs();
    let want = check.run::<f32>(&device, &inputs).unwrap();
    let [a, b] = inputs.e4m3();
    let run = |turn_a: bool, turn_b: bool| -> Result<Vec<f32>> {
        let left = match turn_a {
            true => {
                let scales = device.tensor(&[3, m], &turned(&inputs.a_scales, [m, 3]))?;
                let data = wide(&device, &[k, m], &turned(&a, [m, k]), E4m3::NAN)?;
                Fp8Rows::new(transposed_fp8(&data, &stream)?, scales.transpose(0, 1)?)?
            }
            false => Fp8Rows::new(device.tensor(&[m, k], &a)?, device.tensor(&[m, 3], &inputs.a_scales)?)?,
        };
        let right = match turn_b {
            true => {
                let scales = device.tensor(&[3, 2], &turned(&inputs.b_scales, [2, 3]))?;
                let data = wide(&device, &[k, n], &turned(&b, [n, k]), E4m3::NAN)?;
                Fp8Blocks::new(transposed_fp8(&data, &stream)?, scales.transpose(0, 1)?)?
            }
            false => Fp8Blocks::new(device.tensor(&[n, k], &b)?, device.tensor(&[2, 3], &inputs.b_scales)?)?,
        };
        let out = device.zeros::<f32>(&[m, n])?;
        Fp8Gemm::new(&left, &right, &out).batch_invariant().launch(&stream)?;
        out.to_vec()
    };
    for (turn_a, turn_b) in [(false, false), (false, true), (true, false), (true, true)] {
        assert_eq!(run(turn_a, turn_b).unwrap(), want, "A turned: {turn_a}, B turned: {turn_b}");
    }
}

/// Weights `[G, K, N]` of experts.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn weights_of_experts_are_transposed_all_at_once() {
    let device = device();
    let stream = device.stream();
    let (sizes, n, k) = ([3, 0, 20], 72, 144);
    let check = Fp8Check { values: Values::Normal, ..fp8(Rows::Groups(&sizes), n, k) };
    let inputs = check.inputs();
    let want = check.run::<bf16>(&device, &inputs).unwrap();
    let [a, b] = inputs.e4m3();
    let run = || -> Result<Vec<bf16>> {
        let left = Fp8Rows::new(device.tensor(&[23, k], &a)?, device.tensor(&[23, 2], &inputs.a_scales)?)?;
        let data = device.tensor(&[3, k, n], &turned(&b, [n, k]))?;
        let scales = device.tensor(&[3, 2, 1], &turned(&inputs.b_scales, [1, 2]))?;
        let right = Fp8Blocks::new(transposed_fp8(&data, &stream)?, scales.transpose(1, 2)?)?;
        let offsets = device.tensor(&[4], &offsets(&sizes))?;
        let out = device.zeros::<bf16>(&[23, n])?;
        GroupedFp8Gemm::new(&left, &right, &offsets, &out).batch_invariant().launch(&stream)?;
        out.to_vec()
    };
    assert_eq!(run().unwrap(), want);
}

/// `bhr,hdr->bhd` and `bhd,hdr->bhr`: heads are the middle dimension of activations, of their scales and of the output, and
/// the weights' 128×128 scales turn with them.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn absorbed_weights_take_both_products() {
    let device = device();
    let stream = device.stream();
    let (tokens, heads, d, r) = (5, 3, 128, 256);
    for back in [false, true] {
        let (n, k) = if back { (r, d) } else { (d, r) };
        let check = Fp8Check { values: Values::Normal, ..fp8(Rows::Batched(heads, tokens), n, k) };
        check.check::<f32>(&device).unwrap();
        let inputs = check.inputs();
        let want = check.run::<f32>(&device, &inputs).unwrap();
        let [a, b] = inputs.e4m3();
        // From head by head to token by token.
        fn by_token<V: Copy>(values: &[V], heads: usize, width: usize) -> Vec<V> {
            let tokens = values.len() / heads / width;
            let rows = (0..tokens).flat_map(|token| (0..heads).map(move |head| head * tokens + token));
            rows.flat_map(|row| values[row * width..(row + 1) * width].to_vec()).collect()
        }
        let run = || -> Result<Vec<f32>> {
            let data = device.tensor(&[tokens, heads, k], &by_token(&a, heads, k))?;
            let scales =
                device.tensor(&[tokens, heads, k / 128], &by_token(&inputs.a_scales, heads, k / 128))?;
            let left = Fp8Rows::new(data.transpose(0, 1)?, scales.transpose(0, 1)?)?;
            // As checkpoints have them, `[H, D, R]`.
            let weights = match back {
                false => device.tensor(&[heads, d, r], &b)?,
                true => transposed_fp8(&device.tensor(&[heads, d, r], &turned(&b, [n, k]))?, &stream)?,
            };
            let scales = match back {
                false => device.tensor(&[heads, 1, 2], &inputs.b_scales)?,
                true => device.tensor(&[heads, 1, 2], &turned(&inputs.b_scales, [2, 1]))?.transpose(1, 2)?,
            };
            let out = device.zeros::<f32>(&[tokens, heads, n])?;
            let right = Fp8Blocks::new(weights, scales)?;
            BatchedFp8Gemm::new(&left, &right, &out.transpose(0, 1)?).batch_invariant().launch(&stream)?;
            out.to_vec()
        };
        assert_eq!(run().unwrap(), by_token(&want, heads, n), "back: {back}");
    }
}

#[test]
fn unfit_matrices_are_refused_by_name() {
    let device = device();
    let stream = device.stream();
    let zeros = |shape: &[usize]| device.zeros::<E4m3>(shape).unwrap();
    let (x, out) = (zeros(&[4, 8]), zeros(&[8, 4]));
    refused(TransposeFp8::new(&x, &x).launch(&stream), "out");
    refused(TransposeFp8::new(&zeros(&[8]), &out).launch(&stream), "x");
    refused(TransposeFp8::new(&zeros(&[1, 4, 8]), &out).launch(&stream), "out");
    refused(TransposeFp8::new(&x, &x.transpose(0, 1).unwrap()).launch(&stream), "out");
    refused(TransposeFp8::new(&out.transpose(0, 1).unwrap(), &out).launch(&stream), "x");
    let square = zeros(&[8, 8]);
    refused(TransposeFp8::new(&square, &square).launch(&stream), "out");
    refused(transposed_fp8(&zeros(&[8]), &stream).map(drop), "x");
    TransposeFp8::new(&zeros(&[0, 8]), &zeros(&[8, 0])).launch(&stream).unwrap();
    assert_eq!(transposed_fp8(&zeros(&[2, 0, 8]), &stream).unwrap().shape(), [2, 8, 0]);
}
