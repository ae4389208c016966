//! Attention over listed tokens.

use crate::common::{config, device, device_under};
use crate::under_every_schedule;
use narrowgauge::device::Device;
use narrowgauge::mla::CacheLayout::{Bf16, Fp8Blocks};
use narrowgauge::mla::{CacheLayout, LatentCache, SparseAttention};
use narrowgauge::verify::mla::sparse::{SparseInputs, SparseOutputs, SparseShape};
use narrowgauge::verify::{self, Source};
use narrowgauge::{Error, Tensor, bf16};
use proptest::prelude::*;

fn shape(tokens: usize, heads: usize, top_k: usize, layout: CacheLayout) -> SparseShape {
    SparseShape { tokens, heads, top_k, pages: 7, page_tokens: 61, layout }
}

fn normal(seed: u64, shape: SparseShape) -> SparseInputs {
    SparseInputs::normal(&mut Source::new(seed), shape)
}

fn checked(inputs: &SparseInputs, device: &Device, splits: Option<usize>) -> SparseOutputs {
    inputs.check(device, splits).unwrap_or_else(|e| panic!("{:?}, {splits:?} splits: {e}", inputs.shape))
}

fn run(inputs: &SparseInputs, device: &Device, splits: Option<usize>) -> SparseOutputs {
    inputs.run(device, splits).unwrap_or_else(|e| panic!("{:?}, {splits:?} splits: {e}", inputs.shape))
}

/// The answers of some rows.
fn rows(outputs: &SparseOutputs, rows: impl Iterator<Item = usize> + Clone) -> (Vec<u16>, Vec<u32>) {
    let output = rows.clone().flat_map(|row| &outputs.output[row * 512..][..512]).map(|x| x.to_bits());
    let statistics = rows.flat_map(|row| [outputs.lse[row], outputs.max_logits[row]]).map(f32::to_bits);
    (output.collect(), statistics.collect())
}

fn all(outputs: &SparseOutputs) -> (Vec<u16>, Vec<u32>) {
    rows(outputs, 0..outputs.lse.len())
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn lists_around_block_boundaries_stay_within_the_bound() {
    let device = device();
    for (top_k, heads, layout) in [
        (1, 64, Bf16),
        (63, 3, Fp8Blocks),
        (64, 64, Fp8Blocks),
        (65, 17, Bf16),
        (127, 64, Fp8Blocks),
        (128, 64, Bf16),
        (129, 65, Fp8Blocks),
        (200, 128, Bf16),
        (330, 128, Fp8Blocks),
        (130, 192, Bf16),
    ] {
        let outputs = checked(&normal(1, shape(2, heads, top_k, layout)), &device, None);
        assert!(outputs.status.is_clear(), "{}", outputs.status);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_schedule_gives_the_same_bits() {
    let device = device();
    for (heads, layout) in [(128, Fp8Blocks), (128, Bf16), (64, Fp8Blocks), (64, Bf16)] {
        let source = &mut Source::new(2);
        let inputs = SparseInputs::normal(source, shape(2, heads, 520, layout)).with_lengths(source, 1);
        let mut seen = Vec::new();
        under_every_schedule(&device, |_| {
            for splits in [None, Some(2)] {
                seen.push((splits, all(&checked(&inputs, &device, splits))));
            }
        });
        for (splits, outputs) in &seen {
            let first = seen.iter().find(|(s, _)| s == splits).expect("itself at least");
            assert_eq!(outputs, &first.1, "{heads} heads, {layout}, {splits:?} splits");
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn lengths_sinks_and_any_number_of_splits_stay_within_the_bound() {
    let device = device();
    for (tokens, heads, layout, per_length) in [(4, 64, Fp8Blocks, 2), (3, 128, Bf16, 3), (2, 16, Bf16, 1)] {
        let source = &mut Source::new(3);
        let inputs = SparseInputs::normal(source, shape(tokens, heads, 400, layout));
        let mut inputs = inputs.with_lengths(source, per_length).with_sinks(source);
        if tokens == 4 {
            inputs.lengths.as_mut().expect("given")[1] = 0;
        }
        for splits in [None, Some(1), Some(2), Some(3), Some(17)] {
            let outputs = checked(&inputs, &device, splits);
            assert!(outputs.status.is_clear(), "what lies behind a length is nobody's business");
            assert!(outputs.output[..512].iter().all(|x| x.to_f32() == 0.0), "a sink of infinity");
            assert_eq!(all(&outputs), all(&run(&inputs, &device, splits)));
        }
    }
}

/// Every entry weighs the same, so one too many or too few shows, and sums are exact. Scores are zero, or too large for one
/// rounding of their product with the scale.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn equal_scores_average_exactly_the_listed_tokens() {
    let device = device();
    for (heads, top_k, layout) in
        [(64, 100, Bf16), (128, 256, Fp8Blocks), (5, 70, Fp8Blocks), (128, 190, Bf16)]
    {
        let source = &mut Source::new(4);
        let inputs =
            SparseInputs::new(source, shape(3, heads, top_k, layout), |source, token, _| match token {
                Some(_) => source.integer(-8, 8),
                None => 0.0,
            });
        let inputs = inputs.with_lengths(source, 1);
        let values = inputs.values();
        for splits in [None, Some(2)] {
            let outputs = run(&inputs, &device, splits);
            for token in 0..3 {
                let length = inputs.lengths.as_ref().expect("given")[token] as usize;
                let list = inputs.indices[token * top_k..][..length].iter().filter(|index| **index >= 0);
                let inverse = (list.clone().count() as f32).recip();
                let want: Vec<bf16> = (0..512)
                    .map(|d| {
                        let sum: f64 = list.clone().map(|index| values[*index as usize * 576 + d]).sum();
                        bf16::from_f32(if inverse.is_finite() { sum as f32 * inverse } else { 0.0 })
                    })
                    .collect();
                for head in 0..heads {
                    let got = &outputs.output[(token * heads + head) * 512..][..512];
                    verify::exact("output", got, &want).unwrap_or_else(|e| panic!("{token}, {head}: {e}"));
                }
            }
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_single_token_answers_itself() {
    let device = device();
    for layout in [Bf16, Fp8Blocks] {
        let mut inputs = normal(5, shape(2, 128, 1, layout));
        inputs.indices = vec![8, 426];
        let (outputs, values) = (checked(&inputs, &device, None), inputs.values());
        for (row, got) in outputs.output.chunks(512).enumerate() {
            let key = inputs.indices[row / 128] as usize * 576;
            assert!(got.iter().zip(&values[key..]).all(|(got, want)| got.to_f64() == *want), "row {row}");
        }
    }
}

/// Scales that are no powers of two: the values round to bf16.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn any_scale_dequantises() {
    let device = device();
    let mut inputs = normal(6, shape(1, 128, 150, Fp8Blocks));
    for (i, token) in inputs.cache.chunks_mut(656).enumerate().filter(|(i, _)| i % 2 == 0) {
        for block in 0..4 {
            let scale = 0.003 + 0.0007 * (i % 13 + block) as f32;
            token[512 + 4 * block..][..4].copy_from_slice(&scale.to_le_bytes());
        }
    }
    checked(&inputs, &device, None);
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bad_indices_and_lengths_are_masked_and_reported() {
    let device = device();
    for (heads, layout) in [(64, Bf16), (128, Fp8Blocks)] {
        for bad in [-2, i32::MIN, -123_456, 427, 1_919_810, i32::MAX] {
            let mut inputs = normal(7, shape(2, heads, 150, layout));
            inputs.indices[40] = bad;
            inputs.indices[149] = bad;
            for splits in [None, Some(2)] {
                let status = checked(&inputs, &device, splits).status;
                assert!(status.bad_slot() && !status.bad_length(), "{bad}: {status}");
            }
        }
        let mut inputs = normal(7, shape(2, heads, 150, layout));
        inputs.lengths = Some(vec![-3, 151]);
        let outputs = checked(&inputs, &device, None);
        assert!(outputs.status.bad_length() && !outputs.status.bad_slot(), "{}", outputs.status);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn lists_without_tokens_answer_zero_and_minus_infinity() {
    let device = device();
    for top_k in [0, 64, 200] {
        let mut inputs = normal(8, shape(2, 128, top_k, Fp8Blocks));
        inputs.indices.fill(-1);
        for splits in [None, Some(2)] {
            let outputs = checked(&inputs, &device, splits);
            assert!(outputs.output.iter().all(|x| x.to_bits() == 0));
            assert!(outputs.lse.iter().chain(&outputs.max_logits).all(|x| *x == f32::NEG_INFINITY));
            assert!(outputs.status.is_clear());
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn nan_in_a_named_token_reaches_those_who_name_it() {
    let device = device();
    for (heads, layout, byte) in
        [(128, Fp8Blocks, 3), (128, Fp8Blocks, 515), (64, Bf16, 1), (128, Bf16, 1030)]
    {
        let mut inputs = normal(9, shape(3, heads, 140, layout));
        inputs.indices.iter_mut().filter(|index| **index == 10).for_each(|index| *index = 12);
        let clean = run(&inputs, &device, None);
        inputs.indices[140 + 70] = 10;
        let at = 10 * layout.token_bytes() + byte;
        inputs.cache[at..at + 2].fill(0x7F);
        if byte % 2 == 1 && layout == Bf16 {
            inputs.cache[at - 1..at + 1].fill(0xFF);
        }
        if byte == 1030 {
            inputs.cache[at..at + 2].fill(0xFF);
        }
        for splits in [None, Some(2)] {
            let outputs = run(&inputs, &device, splits);
            let middle = heads..2 * heads;
            assert!(
                outputs.output[heads * 512..][..heads * 512].iter().all(|x| x.is_nan()),
                "{layout} {byte}"
            );
            assert!(outputs.lse[middle].iter().all(|x| x.is_nan()));
            if splits.is_none() {
                let others = (0..heads).chain(2 * heads..3 * heads);
                assert_eq!(rows(&outputs, others.clone()), rows(&clean, others));
            }
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn huge_scores_give_a_finite_softmax_and_keep_their_sign() {
    let device = device();
    let mut inputs = normal(10, shape(1, 64, 200, Bf16));
    for element in &mut inputs.query {
        *element = bf16::from_f32(element.to_f32() * 1e19);
    }
    for pair in inputs.cache.chunks_mut(2) {
        let value = bf16::from_bits(u16::from_le_bytes([pair[0], pair[1]])).to_f32() * 1e19;
        pair.copy_from_slice(&bf16::from_f32(value).to_bits().to_le_bytes());
    }
    for splits in [None, Some(2)] {
        let outputs = run(&inputs, &device, splits);
        assert!(outputs.output.iter().all(|value| value.is_finite()));
    }
    let huge = bf16::from_f32(1e19);
    inputs.query.fill(huge);
    let token = |value: bf16| value.to_bits().to_le_bytes().repeat(576);
    inputs.cache[..1152].copy_from_slice(&token(-huge));
    inputs.cache[2 * 1152..3 * 1152].copy_from_slice(&token(bf16::ONE));
    inputs.indices.fill(0);
    inputs.indices[150] = 2;
    for splits in [None, Some(2)] {
        let outputs = run(&inputs, &device, splits);
        assert!(outputs.output.iter().all(|value| *value == bf16::ONE), "{:?}", &outputs.output[..4]);
    }
    inputs.indices.fill(0);
    let outputs = run(&inputs, &device, None);
    assert!(outputs.output.iter().all(|value| *value == -huge), "all scores are the least of all");
}

/// Large references take another form of the weights, at the same bound.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn weights_of_large_scores_stay_within_the_bound() {
    let device = device();
    let mut inputs = normal(11, shape(1, 16, 300, Bf16));
    for scale in [1e-4, 10.0, 1e4] {
        inputs.scale = scale;
        checked(&inputs, &device, None);
        checked(&inputs, &device, Some(3));
    }
    for scale in [2e5, 1e30] {
        inputs.scale = scale;
        let outputs = run(&inputs, &device, Some(3));
        assert!(outputs.output.iter().all(|value| value.is_finite()));
    }
}

/// Scores so large that only their difference tells which split weighs all.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn splits_of_huge_scores_weigh_by_their_difference() {
    let mut inputs = normal(15, shape(1, 16, 256, Bf16));
    inputs.scale = 4.0;
    let row = |first: f32, others: f32| {
        let mut row = vec![bf16::from_f32(others); 576];
        row[0] = bf16::from_f32(first);
        row
    };
    inputs.query = row(1.0, 0.0).repeat(16);
    for (token, (score, value)) in [(1e38, 5.0), (3e38, 1.0)].into_iter().enumerate() {
        let bytes =
            row(score, value).iter().flat_map(|value| value.to_bits().to_le_bytes()).collect::<Vec<u8>>();
        inputs.cache[token * 1152..][..1152].copy_from_slice(&bytes);
        inputs.indices[token * 128..][..128].fill(token as i32);
    }
    let device = device();
    for splits in [None, Some(2)] {
        let output = run(&inputs, &device, splits).output;
        for head in output.chunks_exact(512) {
            assert!(head[1..].iter().all(|value| *value == bf16::ONE), "{splits:?}: {:?}", &head[..4]);
        }
    }
}

/// Scores that grow from block to block, by less and by more than what is let pass without a rescale.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn rising_scores_rescale() {
    let device = device();
    for (heads, rise) in [(64, 0.05), (128, 0.4), (64, -0.4)] {
        let source = &mut Source::new(12);
        let mut inputs =
            SparseInputs::new(source, shape(1, heads, 420, Bf16), |source, token, column| {
                match (token, column) {
                    (None, 575) => 8.0,
                    (None, _) => source.normal(),
                    (Some(token), 575) => token as f32 * rise,
                    (Some(_), _) => source.normal(),
                }
            });
        inputs.indices = (0..420).map(|i| i & !1).collect();
        checked(&inputs, &device, None);
        checked(&inputs, &device, Some(2));
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_query_token_has_the_bits_that_it_has_alone() {
    let device = device();
    for (heads, layout) in [(128, Fp8Blocks), (64, Bf16), (20, Fp8Blocks)] {
        let source = &mut Source::new(13);
        let inputs = SparseInputs::normal(source, shape(4, heads, 260, layout)).with_lengths(source, 1);
        for splits in [None, Some(3)] {
            let batch = run(&inputs, &device, splits);
            for token in 0..4 {
                let mut alone = inputs.clone();
                alone.shape.tokens = 1;
                alone.query = inputs.query[token * heads * 576..][..heads * 576].to_vec();
                alone.indices = inputs.indices[token * 260..][..260].to_vec();
                alone.lengths = Some(vec![inputs.lengths.as_ref().expect("given")[token]]);
                let alone = run(&alone, &device, splits);
                assert_eq!(all(&alone), rows(&batch, token * heads..(token + 1) * heads));
            }
        }
    }
}

/// Heads in another order, and tokens at other places of a cache with other pages.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn the_order_of_heads_and_places_does_not_matter() {
    let device = device();
    for layout in [Bf16, Fp8Blocks] {
        let inputs = normal(14, shape(1, 128, 150, layout));
        let want = run(&inputs, &device, None);
        let mut changed = inputs.clone();
        let source = &mut Source::new(15);
        let heads = source.permutation(128);
        changed.query = heads.iter().flat_map(|head| &inputs.query[head * 576..][..576]).copied().collect();
        let places = source.permutation(427);
        let bytes = layout.token_bytes();
        for (from, to) in places.iter().enumerate() {
            changed.cache[to * bytes..][..bytes].copy_from_slice(&inputs.cache[from * bytes..][..bytes]);
        }
        changed.indices.iter_mut().filter(|i| **i >= 0).for_each(|i| *i = places[*i as usize] as i32);
        (changed.shape.pages, changed.shape.page_tokens) = (427, 1);
        assert_eq!(all(&run(&changed, &device, None)), rows(&want, heads.into_iter()));
    }
}

/// Every buffer is filled again and again, so that arrivals that are too few or too many add up.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_long_list_turns_the_buffers_many_times() {
    let device = device();
    under_every_schedule(&device, |i| {
        let (heads, layout) = [(128, Fp8Blocks), (64, Bf16), (128, Bf16), (64, Fp8Blocks)][i % 4];
        checked(&normal(16, shape(1, heads, 2048, layout)), &device, None);
    });
}

/// (cached tokens, K, page) of FlashMLA's tests of sparse decoding; one query token each here, with sinks and lengths.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn published_shapes_of_decoding() {
    let device = device();
    let shapes = [
        (512usize, 64, 2),
        (512, 64, 64),
        (512, 64, 69),
        (1024, 576, 2),
        (1024, 576, 61),
        (2046, 2048, 2),
        (512, 64, 61),
        (650, 576, 53),
    ];
    for (i, (cached, top_k, page_tokens)) in shapes.into_iter().enumerate() {
        let source = &mut Source::new(17 + i as u64);
        let heads = [64, 128][i % 2];
        let (pages, layout) = (cached.div_ceil(page_tokens), Fp8Blocks);
        let shape = SparseShape { tokens: 1, heads, top_k, pages, page_tokens, layout };
        let mut inputs = SparseInputs::normal(source, shape);
        if i % 3 == 1 {
            inputs = inputs.with_sinks(source);
        }
        if i % 4 > 1 {
            inputs = inputs.with_lengths(source, 1);
        }
        checked(&inputs, &device, [None, Some(2)][i / 2 % 2]);
    }
}

/// (cached tokens, K) of FlashMLA's tests of sparse prefill.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn published_shapes_of_prefill() {
    let device = device();
    let shapes =
        [(128, 128), (256, 256), (592, 128), (1840, 256), (1521, 512), (95, 128), (153, 256), (114, 384)];
    for (i, (cached, top_k)) in shapes.into_iter().enumerate() {
        let source = &mut Source::new(27 + i as u64);
        let (tokens, heads) = [(1, 64), (2, 128), (5, 64)][i % 3];
        let shape = SparseShape { tokens, heads, top_k, pages: cached, page_tokens: 1, layout: Bf16 };
        let mut inputs = SparseInputs::normal(source, shape);
        inputs.scale = 0.5;
        if i % 2 == 0 {
            inputs = inputs.with_sinks(source);
        }
        if i % 4 > 1 {
            inputs = inputs.with_lengths(source, 1);
        }
        checked(&inputs, &device, None);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_graph_follows_indices_and_lengths_that_change_in_place() {
    let device = device();
    let source = &mut Source::new(18);
    let inputs = SparseInputs::normal(source, shape(2, 64, 300, Fp8Blocks)).with_lengths(source, 1);
    let query = device.tensor(&[2, 64, 576], &inputs.query).expect("fits");
    let cache = LatentCache::with_layout(&device, 7, 61, Fp8Blocks).expect("fits");
    cache.memory().write(&inputs.cache).expect("contiguous");
    let indices = device.tensor(&[2, 300], &inputs.indices).expect("fits");
    let lengths = device.tensor(&[2], &[1, 1]).expect("fits");
    let output = device.full(&[2, 64, 512], bf16::NAN).expect("fits");
    let operation = SparseAttention::new(&query, &cache, &indices, &output)
        .scale(inputs.scale)
        .topk_length(&lengths)
        .splits(2);
    let workspace = device.empty::<u8>(&[operation.workspace_bytes()]).expect("fits");
    let operation = operation.workspace(&workspace);
    let stream = device.stream();
    let graph = stream.capture(|s| operation.launch(s)).expect("captures");
    for changed in [[300, 1], [0, 130], [257, 300]] {
        let mut eager = inputs.clone();
        eager.indices.rotate_left(changed[1] as usize);
        eager.indices.iter_mut().for_each(|index| *index = (*index).clamp(-1, 213) & !1);
        eager.lengths = Some(changed.to_vec());
        indices.write(&eager.indices).expect("contiguous");
        lengths.write(&changed).expect("contiguous");
        output.write(&[bf16::NAN; 2 * 64 * 512]).expect("contiguous");
        graph.launch(&stream).expect("replays");
        assert_eq!(output.to_vec().expect("readable"), run(&eager, &device, Some(2)).output, "{changed:?}");
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn views_with_strides_work() {
    let device = device();
    let inputs = normal(19, shape(3, 16, 100, Bf16));
    let want = run(&inputs, &device, None);
    let mut wide = vec![bf16::NAN; 3 * 16 * 640];
    for (to, from) in wide.chunks_mut(640).zip(inputs.query.chunks(576)) {
        to[..576].copy_from_slice(from);
    }
    let query = device.tensor(&[3, 16, 640], &wide).expect("fits").slice(2, 0..576).expect("inside");
    let output = device.full(&[16, 3, 520], bf16::ONE).expect("fits");
    let narrow = output.slice(2, 0..512).expect("inside").transpose(0, 1).expect("rank 3");
    let lse = device.full(&[16, 3], f32::NAN).expect("fits");
    let by_token = lse.transpose(0, 1).expect("rank 2");
    let mut lists = vec![i32::MAX; 3 * 130];
    for (to, from) in lists.chunks_mut(130).zip(inputs.indices.chunks(100)) {
        to[..100].copy_from_slice(from);
    }
    let indices = device.tensor(&[3, 130], &lists).expect("fits").slice(1, 0..100).expect("inside");
    let cache = LatentCache::with_layout(&device, 7, 61, Bf16).expect("fits");
    cache.memory().write(&inputs.cache).expect("contiguous");
    let operation =
        SparseAttention::new(&query, &cache, &indices, &narrow).scale(inputs.scale).lse(&by_token);
    operation.launch(&device.stream()).expect("runs");
    assert_eq!(narrow.to_vec().expect("readable"), want.output);
    assert_eq!(by_token.to_vec().expect("readable"), want.lse);
    let whole = output.to_vec().expect("readable");
    assert!(
        whole.chunks(520).all(|row| row[512..] == [bf16::ONE; 8]),
        "columns beside the view are untouched"
    );
}

/// Every refusal names the argument and leaves the output as it was.
#[test]
fn bad_arguments_are_refused_before_anything_runs() {
    let device = device();
    let other = Device::simulated(narrowgauge::Card::H20).expect("a simulated card");
    let zeros = |shape: &[usize]| device.zeros::<bf16>(shape).expect("fits");
    let integers = |shape: &[usize]| device.zeros::<i32>(shape).expect("fits");
    let (q, indices) = (zeros(&[4, 16, 576]), integers(&[4, 100]));
    let cache = LatentCache::with_layout(&device, 4, 64, Fp8Blocks).expect("fits");
    let out = device.full(&[4, 16, 512], bf16::ONE).expect("fits");
    let workspace = device.zeros::<u8>(&[1 << 20]).expect("fits");
    let stream = device.stream();
    let argument = |outcome: narrowgauge::Result<()>| match outcome {
        Err(Error::Argument { operation: "SparseAttention", argument, .. }) => argument,
        other => panic!("wanted a refused argument, got {other:?}"),
    };
    let good = || SparseAttention::new(&q, &cache, &indices, &out);
    let with_q = |q: &Tensor<bf16>| argument(SparseAttention::new(q, &cache, &indices, &out).launch(&stream));
    let with_out =
        |out: &Tensor<bf16>| argument(SparseAttention::new(&q, &cache, &indices, out).launch(&stream));
    let with_indices =
        |indices: &Tensor<i32>| argument(SparseAttention::new(&q, &cache, indices, &out).launch(&stream));

    assert_eq!(with_q(&zeros(&[4, 1, 16, 576])), "q");
    assert_eq!(with_q(&zeros(&[4, 16, 512])), "q");
    assert_eq!(with_q(&zeros(&[4, 16, 584]).slice(2, 4..580).expect("inside")), "q", "8 bytes off");
    assert_eq!(with_q(&zeros(&[4, 16, 580]).slice(2, 0..576).expect("inside")), "q", "rows of 1160 bytes");
    assert_eq!(with_q(&zeros(&[4, 1, 576]).expand(1, 16).expect("extent 1")), "q", "repeated rows");
    assert_eq!(with_out(&zeros(&[4, 16, 576])), "out");
    assert_eq!(with_out(&q.slice(2, 0..512).expect("inside")), "out");
    assert_eq!(with_indices(&integers(&[3, 100])), "indices");
    assert_eq!(with_indices(&integers(&[4])), "indices");
    assert_eq!(with_indices(&integers(&[100, 4]).transpose(0, 1).expect("rank 2")), "indices");
    assert_eq!(with_indices(&other.zeros(&[4, 100]).expect("fits")), "indices");
    for layout in [CacheLayout::F16, CacheLayout::Fp8Flat { scale: 1.0 }] {
        let cache = LatentCache::with_layout(&device, 4, 64, layout).expect("fits");
        assert_eq!(argument(SparseAttention::new(&q, &cache, &indices, &out).launch(&stream)), "cache");
    }
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX] {
        assert_eq!(argument(good().scale(scale).launch(&stream)), "scale");
    }
    for lengths in [integers(&[3]), integers(&[4, 1]), integers(&[4, 2]).select(1, 0).expect("inside")] {
        assert_eq!(argument(good().topk_length(&lengths).launch(&stream)), "topk_length");
    }
    assert_eq!(argument(good().sinks(&device.zeros(&[15]).expect("fits")).launch(&stream)), "sinks");
    for splits in [0, 129] {
        assert_eq!(argument(good().splits(splits).workspace(&workspace).launch(&stream)), "splits");
    }
    assert_eq!(argument(good().splits(2).launch(&stream)), "workspace");
    let small = workspace.slice(0, 0..1000).expect("inside");
    assert_eq!(argument(good().splits(2).workspace(&small).launch(&stream)), "workspace");
    let shifted = workspace.slice(0, 8..1 << 20).expect("inside");
    assert_eq!(argument(good().splits(2).workspace(&shifted).launch(&stream)), "workspace");
    let rows = device.zeros::<f32>(&[4, 16]).expect("fits");
    assert_eq!(argument(good().lse(&device.zeros(&[16, 4]).expect("fits")).launch(&stream)), "lse");
    assert_eq!(argument(good().lse(&rows).max_logits(&rows).launch(&stream)), "lse");
    let repeated = device.zeros::<f32>(&[4, 1]).expect("fits").expand(1, 16).expect("extent 1");
    assert_eq!(argument(good().max_logits(&repeated).launch(&stream)), "max_logits");
    assert!(out.to_vec().expect("readable").iter().all(|value| *value == bf16::ONE));

    let (no_q, no_out, no_indices) = (zeros(&[0, 16, 576]), zeros(&[0, 16, 512]), integers(&[0, 100]));
    SparseAttention::new(&no_q, &cache, &no_indices, &no_out).launch(&stream).expect("nothing to do");
}

proptest! {
    #![proptest_config(config(16))]
    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn drawn_shapes_stay_within_the_bound(
        seed in any::<u64>(),
        (tokens, top_k) in (1usize..4, 1usize..300),
        heads in prop_oneof![Just(64usize), Just(128), 1usize..140],
        (pages, page_tokens) in (1usize..6, 1usize..70),
        fp8 in any::<bool>(),
        (with_lengths, with_sinks) in (any::<bool>(), any::<bool>()),
        splits in prop_oneof![Just(None), (1usize..5).prop_map(Some)],
    ) {
        let device = device_under(seed);
        let source = &mut Source::new(seed);
        let layout = if fp8 { Fp8Blocks } else { Bf16 };
        let shape = SparseShape { tokens, heads, top_k, pages, page_tokens, layout };
        let mut inputs = SparseInputs::normal(source, shape);
        if with_lengths {
            inputs = inputs.with_lengths(source, 1);
        }
        if with_sinks {
            inputs = inputs.with_sinks(source);
        }
        let outcome = inputs.check(&device, splits);
        prop_assert!(outcome.is_ok(), "{}", outcome.err().unwrap_or_default());
    }
}
