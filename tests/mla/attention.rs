use crate::common::{config, device};
use crate::under_every_schedule;
use narrowgauge::device::Device;
use narrowgauge::mla::{Attention, LatentCache};
use narrowgauge::verify::mla::{
    AttentionInputs, AttentionOutputs, Pieces, one_hot_attention, uniform_attention,
};
use narrowgauge::verify::{self, Source};
use narrowgauge::{Error, Tensor, bf16};
use proptest::prelude::*;

fn bits(outputs: &AttentionOutputs) -> (Vec<u16>, Vec<u32>) {
    (
        outputs.output.iter().map(|value| value.to_bits()).collect(),
        outputs.lse.iter().map(|value| value.to_bits()).collect(),
    )
}

/// Whole, in parts, and as the device cuts, which lets few rows take their own kernel.
const PIECES: [Pieces; 3] = [Pieces::Whole, Pieces::Equal(2), Pieces::Scheduled];

fn run(inputs: &AttentionInputs, device: &Device, pieces: impl Into<Pieces>) -> AttentionOutputs {
    inputs.run(device, pieces).expect("the kernel runs")
}

fn normal(seed: u64, lengths: &[usize], tokens: usize, heads: usize) -> AttentionInputs {
    AttentionInputs::normal(&mut Source::new(seed), lengths, tokens, heads)
}

fn checked(inputs: &AttentionInputs, device: &Device, pieces: impl Into<Pieces>) -> AttentionOutputs {
    let pieces = pieces.into();
    inputs.check(device, pieces).unwrap_or_else(|e| panic!("{:?}, {pieces:?}: {e}", inputs.shape))
}

/// Output and LSE of one sequence, as bits.
fn sequence(inputs: &AttentionInputs, outputs: &AttentionOutputs, b: usize) -> (Vec<u16>, Vec<u32>) {
    let rows = inputs.shape.offsets[1] * inputs.shape.heads;
    let (output, lse) = bits(outputs);
    (output[b * rows * 512..(b + 1) * rows * 512].to_vec(), lse[b * rows..(b + 1) * rows].to_vec())
}

/// 65 rows: the last tile holds one, and the tile before it ends one row short of the last.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_last_tile_of_one_row_and_the_one_before_it() {
    let device = device();
    for (tokens, heads) in [(1, 65), (5, 13)] {
        checked(&normal(11, &[70, 6], tokens, heads), &device, None);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn page_boundaries_and_head_counts_stay_within_the_bound() {
    let device = device();
    let lengths = [1, 63, 64, 65, 127, 128, 129, 200];
    for (heads, splits) in [(1, None), (6, Some(2)), (16, None), (128, None)] {
        let lengths = if heads == 128 { &lengths[5..] } else { &lengths[..] };
        let outputs = checked(&normal(1, lengths, 1, heads), &device, splits);
        assert!(outputs.status.is_clear(), "{}", outputs.status);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_schedule_gives_the_same_bits() {
    let device = device();
    let inputs = normal(2, &[130, 70], 3, 16);
    let mut seen = Vec::new();
    under_every_schedule(&device, |_| {
        for splits in [None, Some(2)] {
            seen.push((splits, bits(&checked(&inputs, &device, splits))));
        }
    });
    for (splits, outputs) in &seen {
        let first = seen.iter().find(|(s, _)| s == splits).expect("itself at least");
        assert_eq!(outputs, &first.1);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn equal_scores_average_exactly_the_visible_tokens() {
    let device = device();
    for (lengths, tokens, heads, splits) in [
        (&[1, 63, 64, 65, 127, 128, 129, 200][..], 1, 16, None),
        (&[5, 66, 130][..], 5, 7, None),
        (&[200, 10][..], 40, 3, Some(3)),
        (&[330][..], 1, 128, Some(6)),
    ] {
        let (inputs, want) = uniform_attention(&mut Source::new(3), lengths, tokens, heads);
        let outputs = run(&inputs, &device, splits);
        verify::exact("output", &outputs.output, &want).unwrap_or_else(|e| panic!("{lengths:?}: {e}"));
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_selected_token_is_answered_exactly() {
    let device = device();
    for (lengths, tokens, heads, splits) in
        [(&[1, 64, 129][..], 1, 64, None), (&[70, 200][..], 33, 2, None), (&[260][..], 2, 16, Some(5))]
    {
        let (inputs, want) = one_hot_attention(&mut Source::new(4), lengths, tokens, heads);
        let outputs = run(&inputs, &device, splits);
        verify::exact("output", &outputs.output, &want).unwrap_or_else(|e| panic!("{lengths:?}: {e}"));
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_single_token_answers_itself() {
    let device = device();
    let inputs = normal(5, &[1], 1, 16);
    let outputs = checked(&inputs, &device, None);
    let page = inputs.table[0] as usize * 64 * 576;
    for head in outputs.output.chunks(512) {
        assert_eq!(head, &inputs.cache[page..page + 512]);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn any_number_of_splits_stays_within_the_bound_and_repeats_its_bits() {
    let device = device();
    let inputs = normal(9, &[300, 0, 64], 1, 16);
    for splits in [1, 2, 3, 4, 5, 6, 17] {
        let first = checked(&inputs, &device, Some(splits));
        assert_eq!(bits(&first), bits(&run(&inputs, &device, Some(splits))));
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn rows_without_tokens_answer_zero_and_minus_infinity() {
    let device = device();
    let inputs = normal(10, &[0, 2], 4, 3);
    for pieces in [Pieces::Whole, Pieces::Equal(3), Pieces::Scheduled] {
        let outputs = checked(&inputs, &device, pieces);
        // Four tokens of the first sequence, and the two of the second that lie before its start.
        let empty = (4 + 2) * 3;
        assert!(outputs.output[..empty * 512].iter().all(|value| value.to_bits() == 0));
        assert_eq!(outputs.lse.iter().filter(|value| **value == f32::NEG_INFINITY).count(), empty);
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bad_pages_and_lengths_are_masked_and_reported() {
    let device = device();
    let pages = normal(11, &[200, 130], 2, 16).cache.len() / (64 * 576);
    for bad in [-1, i32::MIN, i32::MAX, pages as i32] {
        let mut inputs = normal(11, &[200, 130], 2, 16);
        inputs.table[1] = bad;
        for pieces in PIECES {
            let status = checked(&inputs, &device, pieces).status;
            assert!(status.bad_page() && !status.bad_length(), "{status}");
        }
    }
    let mut inputs = normal(12, &[200, 70, 64], 1, 6);
    inputs.lengths[1] = -5;
    inputs.lengths[2] = i32::MAX;
    let status = checked(&inputs, &device, None).status;
    assert!(
        status.bad_length() && status.bad_page(),
        "a length clamped to the table uses its entries past the pages"
    );
    let status = run(&normal(12, &[200], 1, 6), &device, None).status;
    assert!(status.is_clear(), "reading the status cleared it");
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn nan_in_a_used_token_reaches_its_sequence_only() {
    let device = device();
    let inputs = normal(13, &[70, 70], 1, 16);
    let clean = run(&inputs, &device, None);
    for pieces in PIECES {
        let mut poisoned = inputs.clone();
        poisoned.cache[inputs.table[0] as usize * 64 * 576] = bf16::NAN;
        let outputs = run(&poisoned, &device, pieces);
        assert!(outputs.output[..16 * 512].iter().all(|value| value.is_nan()));
        assert!(outputs.lse[..16].iter().all(|value| value.is_nan()));
        if pieces == Pieces::Whole {
            assert_eq!(sequence(&inputs, &outputs, 1), sequence(&inputs, &clean, 1));
        } else {
            assert!(outputs.output[16 * 512..].iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn huge_scores_give_a_finite_softmax() {
    let device = device();
    let mut inputs = normal(14, &[100], 1, 4);
    for element in inputs.query.iter_mut().chain(&mut inputs.cache) {
        *element = bf16::from_f32(element.to_f32() * 1e19);
    }
    for pieces in PIECES {
        let outputs = run(&inputs, &device, pieces);
        assert!(outputs.output.iter().all(|value| value.is_finite()), "{pieces:?}");
    }
}

/// A score of minus infinity is the least of all, not the greatest.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn overflow_keeps_its_sign() {
    let device = device();
    let mut inputs = normal(14, &[2], 1, 4);
    let huge = bf16::from_f32(1e19);
    inputs.query.fill(huge);
    let first = inputs.table[0] as usize * 64 * 576;
    inputs.cache[first..first + 576].fill(-huge);
    inputs.cache[first + 576..first + 2 * 576].fill(bf16::ONE);
    for pieces in PIECES {
        let outputs = run(&inputs, &device, pieces);
        assert!(outputs.output.iter().all(|value| *value == bf16::ONE), "{:?}", &outputs.output[..4]);
    }
}

/// Every stage of the ring is used again and again, so that arrivals that are too few or too many add up.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_long_sequence_turns_the_ring_many_times() {
    let device = device();
    under_every_schedule(&device, |_| {
        checked(&normal(17, &[1500], 1, 16), &device, None);
    });
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn views_with_strides_work() {
    let device = device();
    let inputs = normal(15, &[100, 64], 9, 8);
    let want = run(&inputs, &device, None);
    let shape = &inputs.shape;
    let mut wide = vec![bf16::NAN; 2 * 9 * 8 * 640];
    for (to, from) in wide.chunks_mut(640).zip(inputs.query.chunks(576)) {
        to[..576].copy_from_slice(from);
    }
    let query = device.tensor(&[2, 9, 8, 640], &wide).expect("fits").slice(3, 0..576).expect("inside");
    let output = device.full(&[2, 9, 8, 520], bf16::ONE).expect("fits");
    let narrow = output.slice(3, 0..512).expect("inside");
    let lse = device.full(&[2, 9, 8], f32::NAN).expect("fits");
    let by_head = lse.transpose(1, 2).expect("rank 3");
    let mut table = vec![i32::MAX; 2 * 9];
    for (to, from) in table.chunks_mut(9).zip(inputs.table.chunks(shape.table_pages)) {
        to[..shape.table_pages].copy_from_slice(from);
    }
    let table = device.tensor(&[2, 9], &table).expect("fits").slice(1, 0..shape.table_pages).expect("inside");
    let cache = LatentCache::new(&device, shape.cache_pages).expect("fits");
    cache.tensor().write(&inputs.cache).expect("contiguous");
    let lengths = device.tensor(&[2], &inputs.lengths).expect("fits");
    for splits in [1, 2] {
        let operation = Attention::new(&query, &cache, &table, &lengths, &narrow)
            .scale(inputs.shape.scale as f32)
            .lse(&by_head)
            .splits(splits);
        let workspace = device.empty::<u8>(&[operation.workspace_bytes()]).expect("fits");
        operation.workspace(&workspace).launch(&device.stream()).expect("runs");
        let whole = output.to_vec().expect("readable");
        assert!(
            whole.chunks(520).all(|row| row[512..] == [bf16::ONE; 8]),
            "columns beside the view are untouched"
        );
        let got = narrow.to_vec().expect("readable");
        if splits == 1 {
            assert_eq!(got, want.output);
            assert_eq!(lse.to_vec().expect("readable"), want.lse);
        } else {
            let (expected, bounds) = (inputs.expected(), inputs.bounds(Some(splits)));
            verify::within("output", &verify::mla::widened(&got), &expected.output, &bounds.output)
                .unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_graph_follows_lengths_that_change_in_place() {
    let device = device();
    let inputs = normal(16, &[130], 1, 16);
    let query = device.tensor(&[1, 1, 16, 576], &inputs.query).expect("fits");
    let cache = LatentCache::new(&device, inputs.shape.cache_pages).expect("fits");
    cache.tensor().write(&inputs.cache).expect("contiguous");
    let table = device.tensor(&[1, inputs.shape.table_pages], &inputs.table).expect("fits");
    let lengths = device.tensor(&[1], &[130]).expect("fits");
    let output = device.full(&[1, 1, 16, 512], bf16::NAN).expect("fits");
    let operation =
        Attention::new(&query, &cache, &table, &lengths, &output).scale(inputs.shape.scale as f32).splits(2);
    let workspace = device.empty::<u8>(&[operation.workspace_bytes()]).expect("fits");
    let operation = operation.workspace(&workspace);
    let stream = device.stream();
    let graph = stream.capture(|s| operation.launch(s)).expect("captures");
    for length in [130, 64, 0] {
        lengths.write(&[length]).expect("contiguous");
        output.write(&[bf16::NAN; 16 * 512]).expect("contiguous");
        graph.launch(&stream).expect("replays");
        let mut eager = inputs.clone();
        eager.lengths = vec![length];
        assert_eq!(
            output.to_vec().expect("readable"),
            run(&eager, &device, Some(2)).output,
            "length {length}"
        );
    }
}

/// Every refusal names the argument and leaves the output as it was.
#[test]
fn bad_arguments_are_refused_before_anything_runs() {
    let device = device();
    let other = Device::simulated(narrowgauge::Card::H20).expect("a simulated card");
    let zeros = |shape: &[usize]| device.zeros::<bf16>(shape).expect("fits");
    let integers = |shape: &[usize]| device.zeros::<i32>(shape).expect("fits");
    let q = zeros(&[2, 1, 16, 576]);
    let cache = LatentCache::new(&device, 4).expect("fits");
    let table = integers(&[2, 2]);
    let lengths = integers(&[2]);
    let out = device.full(&[2, 1, 16, 512], bf16::ONE).expect("fits");
    let workspace = device.zeros::<u8>(&[1 << 20]).expect("fits");
    let stream = device.stream();
    let argument = |outcome: narrowgauge::Result<()>| match outcome {
        Err(Error::Argument { operation: "Attention", argument, .. }) => argument,
        other => panic!("wanted a refused argument, got {other:?}"),
    };
    let good = || Attention::new(&q, &cache, &table, &lengths, &out);
    let with_q =
        |q: &Tensor<bf16>| argument(Attention::new(q, &cache, &table, &lengths, &out).launch(&stream));
    let with_out =
        |out: &Tensor<bf16>| argument(Attention::new(&q, &cache, &table, &lengths, out).launch(&stream));
    let with_table =
        |table: &Tensor<i32>| argument(Attention::new(&q, &cache, table, &lengths, &out).launch(&stream));
    let with_lengths =
        |lengths: &Tensor<i32>| argument(Attention::new(&q, &cache, &table, lengths, &out).launch(&stream));

    assert_eq!(with_q(&zeros(&[2, 16, 576])), "q");
    assert_eq!(with_q(&zeros(&[2, 1, 16, 512])), "q");
    assert_eq!(with_q(&zeros(&[2, 1, 129, 576])), "out");
    let (many_q, many_out) = (zeros(&[2, 1, 129, 576]), zeros(&[2, 1, 129, 512]));
    assert_eq!(argument(Attention::new(&many_q, &cache, &table, &lengths, &many_out).launch(&stream)), "q");
    assert_eq!(with_q(&zeros(&[2, 1, 16, 584]).slice(3, 4..580).expect("inside")), "q", "8 bytes off");
    assert_eq!(with_q(&zeros(&[2, 1, 16, 580]).slice(3, 0..576).expect("inside")), "q", "rows of 1160 bytes");
    assert_eq!(with_q(&zeros(&[2, 1, 1, 576]).expand(2, 16).expect("extent 1")), "q", "repeated rows");
    assert_eq!(with_out(&zeros(&[2, 1, 16, 576])), "out");
    let inside_cache = cache.tensor().as_strided(0, &[2, 1, 16, 512], &[8192, 8192, 512, 1]).expect("inside");
    assert_eq!(with_out(&inside_cache), "out");
    assert_eq!(with_table(&integers(&[3, 2])), "page_table");
    assert_eq!(with_table(&integers(&[2])), "page_table");
    assert_eq!(with_table(&integers(&[2, 2]).transpose(0, 1).expect("rank 2")), "page_table");
    assert_eq!(with_lengths(&integers(&[3])), "lengths");
    assert_eq!(with_lengths(&integers(&[2, 2]).select(1, 0).expect("inside")), "lengths");
    assert_eq!(with_lengths(&other.zeros(&[2]).expect("fits")), "lengths");
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX] {
        assert_eq!(argument(good().scale(scale).launch(&stream)), "scale");
    }
    for splits in [0, 129] {
        assert_eq!(argument(good().splits(splits).workspace(&workspace).launch(&stream)), "splits");
    }
    assert_eq!(argument(good().splits(2).launch(&stream)), "workspace");
    let small = workspace.slice(0, 0..1000).expect("inside");
    assert_eq!(argument(good().splits(2).workspace(&small).launch(&stream)), "workspace");
    let shifted = workspace.slice(0, 8..1 << 20).expect("inside");
    assert_eq!(argument(good().splits(2).workspace(&shifted).launch(&stream)), "workspace");
    assert_eq!(argument(good().lse(&device.zeros(&[2, 1, 16]).expect("fits")).launch(&stream)), "lse");
    let repeated = device.zeros::<f32>(&[2, 1, 1]).expect("fits").expand(1, 16).expect("extent 1");
    assert_eq!(argument(good().lse(&repeated).launch(&stream)), "lse");
    assert!(out.to_vec().expect("readable").iter().all(|value| *value == bf16::ONE));

    let (no_q, no_out) = (zeros(&[0, 1, 16, 576]), zeros(&[0, 1, 16, 512]));
    let (no_table, no_lengths) = (integers(&[0, 2]), integers(&[0]));
    Attention::new(&no_q, &cache, &no_table, &no_lengths, &no_out).launch(&stream).expect("nothing to do");
}

proptest! {
    #![proptest_config(config(12))]
    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn drawn_shapes_stay_within_the_bound(
        seed in any::<u64>(),
        lengths in prop::collection::vec(0usize..150, 1..3),
        tokens in 1usize..6,
        heads in prop_oneof![Just(1usize), Just(6), Just(16), 1usize..40],
        splits in prop_oneof![Just(None), (1usize..5).prop_map(Some)],
        schedule in 0usize..3,
    ) {
        let device = device();
        if device.is_simulated() {
            device.set_schedule(verify::schedules()[schedule].1).expect("a simulated device");
        }
        let outcome = normal(seed, &lengths, tokens, heads).check(&device, splits);
        prop_assert!(outcome.is_ok(), "{}", outcome.err().unwrap_or_default());
    }
}
