//! Attention with keys and values of each head.

use crate::common::{config, device, device_under};
use crate::under_every_schedule;
use narrowgauge::mla::reference::merge::Parts;
use narrowgauge::mla::{Half, Merge, Prefill, reference};
use narrowgauge::verify::gemm::Checked;
use narrowgauge::verify::mla::prefill::{Heads, Part, PrefillInputs, PrefillOutputs, Rope, uniform_prefill};
use narrowgauge::verify::{self, Source};
use narrowgauge::{Device, Error, Tensor, bf16, f16};
use proptest::prelude::*;

const MLA: Heads = Heads { heads: 2, key_heads: 2, width: 192 };
const GROUPED: Heads = Heads { heads: 4, key_heads: 2, width: 128 };

fn normal<T: Checked + Half>(seed: u64, lengths: &[[usize; 2]], heads: Heads) -> PrefillInputs<T> {
    PrefillInputs::normal(&mut Source::new(seed), lengths, heads)
}

fn checked<T: Checked + Half>(inputs: &PrefillInputs<T>, device: &Device) -> PrefillOutputs<T> {
    inputs.check(device).unwrap_or_else(|error| panic!("{:?}: {error}", inputs.shape))
}

fn bits<T: Checked>(outputs: &PrefillOutputs<T>) -> (Vec<u32>, Vec<u32>) {
    (verify::surrounded::bits(&outputs.output), verify::surrounded::bits(&outputs.lse))
}

/// Tiles that end at, before and after boundaries of rows and keys; sequences without queries or keys; more queries than keys.
const LENGTHS: &[[usize; 2]] =
    &[[1, 1], [64, 128], [65, 129], [0, 5], [128, 127], [5, 0], [7, 3], [130, 300]];

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn boundaries_stay_within_the_bound() {
    let device = device();
    for heads in [MLA, GROUPED] {
        for causal in [true, false] {
            let mut inputs = normal::<bf16>(1, LENGTHS, heads);
            inputs.shape.causal = causal;
            let status = checked(&inputs, &device).status;
            assert!(status.is_clear(), "{status}");
            let mut inputs = normal::<f16>(2, &LENGTHS[4..], heads);
            inputs.shape.causal = causal;
            checked(&inputs, &device);
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn equal_scores_average_exactly_the_visible_keys() {
    let device = device();
    for (heads, causal) in [(MLA, true), (MLA, false), (GROUPED, true), (GROUPED, false)] {
        let (inputs, want) = uniform_prefill::<bf16>(&mut Source::new(3), LENGTHS, heads, causal);
        let got = inputs.run(&device).unwrap();
        let (got, want) = (verify::surrounded::bits(&got.output), verify::surrounded::bits(&want));
        verify::exact("output", &got, &want).unwrap_or_else(|error| panic!("{heads:?}, {causal}: {error}"));
    }
    let (inputs, want) = uniform_prefill::<f16>(&mut Source::new(4), &[[70, 200]], MLA, true);
    let got = verify::surrounded::bits(&inputs.run(&device).unwrap().output);
    verify::exact("output", &got, &verify::surrounded::bits(&want)).unwrap();
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_schedule_gives_the_same_bits() {
    let device = device();
    for heads in [MLA, GROUPED] {
        let inputs = normal::<bf16>(5, &[[200, 700], [40, 260]], heads);
        let mut seen = Vec::new();
        under_every_schedule(&device, |_| seen.push(bits(&checked(&inputs, &device))));
        assert!(seen.iter().all(|one| *one == seen[0]));
    }
}

/// A sequence has the bits that it has alone; NaN in another one and in other heads does not matter to it.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn sequences_and_heads_do_not_touch_each_other() {
    let device = device();
    let inputs = normal::<bf16>(6, &[[130, 190], [70, 140], [33, 33]], GROUPED);
    let clean = inputs.run(&device).unwrap();
    let mut poisoned = inputs.clone();
    let row = inputs.key_offsets[2] as usize * 2;
    // The first key of the third sequence, right behind the second's last, and its value; head 1.
    poisoned.key[(row + 1) * 128] = bf16::NAN;
    poisoned.value[(row + 1) * 128..][..128].fill(bf16::NAN);
    let got = poisoned.run(&device).unwrap();
    let shape = inputs.shape;
    for query in 0..shape.queries {
        let third = (inputs.query_offsets[2]..inputs.query_offsets[3]).contains(&(query as i32));
        for head in 0..4 {
            let of =
                |outputs: &PrefillOutputs<bf16>| outputs.output[(query * 4 + head) * 128..][..128].to_vec();
            if third && head >= 2 {
                assert!(of(&got).iter().all(|x| x.is_nan()), "query {query}, head {head}");
                assert!(got.lse[head * shape.queries + query].is_nan());
            } else {
                assert_eq!(
                    verify::surrounded::bits(&of(&got)),
                    verify::surrounded::bits(&of(&clean)),
                    "query {query}, head {head}"
                );
            }
        }
    }
    let mut alone = inputs.clone();
    alone.query_offsets = vec![inputs.query_offsets[1], inputs.query_offsets[2]];
    alone.key_offsets = vec![inputs.key_offsets[1], inputs.key_offsets[2]];
    let alone = alone.run(&device).unwrap();
    let rows = inputs.query_offsets[1] as usize * 512..inputs.query_offsets[2] as usize * 512;
    assert_eq!(alone.output[rows.clone()], clean.output[rows]);
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn rotated_columns_may_be_a_tensor_of_their_own() {
    let device = device();
    let mut inputs = normal::<bf16>(7, &[[100, 150]], Heads { heads: 4, key_heads: 4, width: 192 });
    let inside = bits(&checked(&inputs, &device));
    inputs.rope = Rope::Apart;
    assert_eq!(bits(&inputs.run(&device).unwrap()), inside);
    inputs.share_rope();
    let shared = bits(&checked(&inputs, &device));
    inputs.rope = Rope::Inside;
    assert_eq!(bits(&inputs.run(&device).unwrap()), shared);
    assert_ne!(shared, inside);
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn sinks_take_their_share() {
    let device = device();
    let mut inputs = normal::<bf16>(8, &[[20, 140], [3, 0]], GROUPED);
    let without = inputs.run(&device).unwrap();
    inputs.sinks = Some(vec![1.5, f32::NEG_INFINITY, f32::INFINITY, 6.0]);
    let with = checked(&inputs, &device);
    assert_eq!(with.lse.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), bits(&without).1);
    let row = 3 * 4 * 128;
    assert_eq!(with.output[row + 128..row + 256], without.output[row + 128..row + 256]);
    assert!(with.output[row + 256..row + 384].iter().all(|x| x.to_f32() == 0.0));
}

/// A prompt in two chunks of keys, the second causal, joined: the whole, within the bounds of all three.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn chunks_join_to_the_whole() {
    let device = device();
    let stream = device.stream();
    let [queries, keys, heads] = [100, 260, 2];
    let mut source = Source::new(9);
    let mut drawn = |rows: usize, columns: usize| {
        let values = Source::to_bf16(&source.normals(rows * heads * columns, 1.0));
        device.tensor(&[rows, heads, columns], &values).unwrap()
    };
    let (q, k, v) = (drawn(queries, 192), drawn(keys, 192), drawn(keys, 128));
    let whole = device.zeros::<bf16>(&[queries, heads, 128]).unwrap();
    let whole_lse = device.zeros::<f32>(&[heads, queries]).unwrap();
    Prefill::new(&q, &k, &v, &whole).lse(&whole_lse).launch(&stream).unwrap();
    let parts = device.zeros::<bf16>(&[2, queries, heads, 128]).unwrap();
    let part_lse = device.zeros::<f32>(&[2, heads, queries]).unwrap();
    for (part, rows) in [0..keys - queries, keys - queries..keys].into_iter().enumerate() {
        let (k, v) = (k.slice(0, rows.clone()).unwrap(), v.slice(0, rows).unwrap());
        let (out, lse) = (parts.select(0, part).unwrap(), part_lse.select(0, part).unwrap());
        Prefill::new(&q, &k, &v, &out).causal(part == 1).lse(&lse).launch(&stream).unwrap();
    }
    let joined = device.zeros::<bf16>(&[queries, heads, 128]).unwrap();
    let joined_lse = device.zeros::<f32>(&[heads, queries]).unwrap();
    Merge::new(&parts, &part_lse, &joined).lse(&joined_lse).launch(&stream).unwrap();
    let largest = v.to_vec().unwrap().iter().fold(0f32, |most, x| most.max(x.to_f32().abs()));
    for (a, b) in whole.to_vec().unwrap().iter().zip(joined.to_vec().unwrap()) {
        // Each side rounds weights and answers, and the parts round theirs: five bf16 roundings of at most the largest value.
        assert!((a.to_f32() - b.to_f32()).abs() <= 6.0 / 256.0 * largest, "{a} {b}");
    }
    for (a, b) in whole_lse.to_vec().unwrap().iter().zip(joined_lse.to_vec().unwrap()) {
        assert!((a - b).abs() <= 1e3 * f32::EPSILON * (1.0 + a.abs()), "{a} {b}");
    }
    // And the oracle of the merge on these very parts.
    let wide = |x: Vec<bf16>| x.into_iter().map(f64::from).collect::<Vec<_>>();
    let lse: Vec<f64> = part_lse.to_vec().unwrap().into_iter().map(f64::from).collect();
    let shape = Parts { parts: 2, tokens: queries, heads, columns: 128 };
    let (want, _) = reference::merge::merge(&shape, &wide(parts.to_vec().unwrap()), &lse, None);
    for (a, b) in want.iter().zip(wide(joined.to_vec().unwrap())) {
        assert!((a - b).abs() <= 1.01 / 256.0 * a.abs() + 1e-5 * f64::from(largest), "{a} {b}");
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bad_offsets_are_pulled_into_range_and_reported() {
    let device = device();
    let good = normal::<bf16>(10, &[[70, 80], [60, 70]], GROUPED);
    let (queries, keys) = (good.shape.queries as i32, good.shape.keys as i32);
    for (query_offsets, key_offsets) in [
        (vec![3, 120, 50], vec![3, 80, 150]),
        (vec![-7, 60, i32::MAX], vec![3, 80, 150]),
        (vec![3, 60, 120], vec![i32::MIN, 100, 90]),
        (vec![3, 60, 120], vec![3, i32::MAX, keys]),
        (vec![queries + 1, 0, 0], vec![3, 5, 7]),
    ] {
        let mut inputs = PrefillInputs { query_offsets, key_offsets, ..good.clone() };
        for values in [&mut inputs.query, &mut inputs.key, &mut inputs.value] {
            values.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = bf16::ONE);
        }
        let status = checked(&inputs, &device).status;
        assert!(status.bad_offsets(), "{:?} {:?}: {status}", inputs.query_offsets, inputs.key_offsets);
    }
}

/// More sequences than a warp has lanes, most of them empty.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn many_short_sequences_find_their_tiles() {
    let lengths: Vec<[usize; 2]> = (0..75).map(|i| [[0, 3], [1, 9], [3, 2]][i % 3]).collect();
    let inputs = normal::<bf16>(11, &lengths, Heads { heads: 1, key_heads: 1, width: 128 });
    checked(&inputs, &device());
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn huge_scores_give_a_finite_softmax() {
    let device = device();
    for magnitude in [1e4, 1e12, 1e19] {
        let mut inputs = normal::<bf16>(12, &[[100, 300]], MLA);
        for values in [&mut inputs.query, &mut inputs.key] {
            values.iter_mut().for_each(|x| *x = bf16::from_f32(x.to_f32() * magnitude));
        }
        inputs.scale = 3.0;
        let outputs = inputs.run(&device).unwrap();
        let rows = 3 * 2 * 128..103 * 2 * 128;
        assert!(outputs.output[rows].iter().all(|x| x.is_finite()), "{magnitude}");
    }
    // The largest score alone counts, wherever it is.
    let mut inputs =
        PrefillInputs::<bf16>::new(&mut Source::new(1), &[[1, 290]], MLA, |_, part, _| match part {
            Part::Query => 1e18,
            Part::Key(key) => {
                if key == 140 {
                    3.0
                } else {
                    -1.0
                }
            }
            Part::Value(value) => value as f32,
        });
    inputs.scale = 1.0;
    let outputs = inputs.run(&device).unwrap();
    assert!(outputs.output[3 * 256..4 * 256].iter().all(|x| x.to_f32() == 140.0));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_graph_follows_offsets_that_change_in_place() {
    let device = device();
    let stream = device.stream();
    let (q, k) =
        (device.full(&[300, 1, 128], bf16::ONE).unwrap(), device.full(&[300, 1, 128], bf16::ONE).unwrap());
    let values: Vec<bf16> = (0..300).flat_map(|row| [bf16::from_f32((row / 100) as f32); 128]).collect();
    let v = device.tensor(&[300, 1, 128], &values).unwrap();
    let offsets = device.tensor(&[3], &[0, 100, 200]).unwrap();
    let out = device.full(&[300, 1, 128], bf16::NAN).unwrap();
    let operation = Prefill::new(&q, &k, &v, &out).sequences(&offsets, &offsets).causal(false);
    let graph = stream.capture(|stream| operation.launch(stream)).unwrap();
    for (given, want) in [([0, 100, 200], [0.0, 1.0]), ([100, 200, 300], [1.0, 2.0])] {
        offsets.write(&given).unwrap();
        out.write(&vec![bf16::NAN; 300 * 128]).unwrap();
        graph.launch(&stream).unwrap();
        let rows: Vec<f32> = out.to_vec().unwrap().chunks(128).map(|row| row[5].to_f32()).collect();
        for (sequence, want) in want.into_iter().enumerate() {
            let rows = &rows[given[sequence] as usize..given[sequence + 1] as usize];
            assert!(rows.iter().all(|x| *x == want), "{given:?}");
        }
    }
}

#[test]
fn bad_arguments_are_refused_before_anything_runs() {
    let device = device();
    let stream = device.stream();
    let other = Device::simulated(narrowgauge::Card::H20).unwrap();
    let halves = |shape: &[usize]| device.zeros::<bf16>(shape).unwrap();
    let (q, k, v) = (halves(&[5, 4, 192]), halves(&[6, 2, 192]), halves(&[6, 2, 128]));
    let out = device.full(&[5, 4, 128], bf16::ONE).unwrap();
    let integers = |count: usize| device.zeros::<i32>(&[count]).unwrap();
    let argument = |outcome: narrowgauge::Result<()>| match outcome {
        Err(Error::Argument { operation: "Prefill", argument, .. }) => argument,
        other => panic!("wanted a refused argument, got {other:?}"),
    };
    let good = || Prefill::new(&q, &k, &v, &out);
    let of = |q: &Tensor<bf16>, k: &Tensor<bf16>, v: &Tensor<bf16>, out: &Tensor<bf16>| {
        argument(Prefill::new(q, k, v, out).launch(&stream))
    };
    assert_eq!(of(&halves(&[5, 4, 576]), &k, &v, &out), "q");
    assert_eq!(of(&halves(&[5, 4, 128]), &k, &v, &out), "k");
    assert_eq!(of(&q, &halves(&[6, 3, 192]), &halves(&[6, 3, 128]), &out), "k");
    assert_eq!(of(&q, &k, &halves(&[7, 2, 128]), &out), "v");
    assert_eq!(of(&q, &k, &v, &halves(&[5, 4, 192])), "out");
    assert_eq!(of(&q, &k, &other.zeros(&[6, 2, 128]).unwrap(), &out), "v");
    assert_eq!(of(&halves(&[5, 4, 196]).slice(2, 0..192).unwrap(), &k, &v, &out), "q", "rows of 392 bytes");
    assert_eq!(of(&q, &halves(&[6, 1, 192]).expand(1, 2).unwrap(), &v, &out), "k", "repeated heads");
    let wide = halves(&[6, 4, 192]);
    let inside = wide.slice(0, 0..5).unwrap().slice(2, 64..192).unwrap();
    assert_eq!(of(&wide.slice(0, 0..5).unwrap(), &k, &v, &inside), "out");
    assert_eq!(argument(good().scale(0.0).launch(&stream)), "scale");
    assert_eq!(argument(good().scale(f32::NAN).launch(&stream)), "scale");
    assert_eq!(argument(good().key_rope(&halves(&[6, 2, 64])).launch(&stream)), "k");
    let nope = k.slice(2, 0..128).unwrap();
    let apart =
        |rope: &Tensor<bf16>| argument(Prefill::new(&q, &nope, &v, &out).key_rope(rope).launch(&stream));
    assert_eq!(apart(&halves(&[6, 3, 64])), "key_rope");
    assert_eq!(apart(&halves(&[5, 1, 64])), "key_rope");
    assert_eq!(argument(good().sequences(&integers(3), &integers(4)).launch(&stream)), "keys");
    assert_eq!(argument(good().lse(&device.zeros(&[5, 4]).unwrap()).launch(&stream)), "lse");
    assert_eq!(argument(good().sinks(&device.zeros(&[5]).unwrap()).launch(&stream)), "sinks");
    assert!(out.to_vec().unwrap().iter().all(|x| *x == bf16::ONE));
    good().sequences(&integers(1), &integers(1)).launch(&stream).expect("no sequences");
    assert!(out.to_vec().unwrap().iter().all(|x| *x == bf16::ONE));
    let (no_q, no_out) = (halves(&[0, 4, 192]), halves(&[0, 4, 128]));
    Prefill::new(&no_q, &k, &v, &no_out).launch(&stream).expect("no queries");
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn no_keys_answer_zero() {
    let device = device();
    let (q, k, v) = (
        device.full(&[5, 2, 192], bf16::ONE).unwrap(),
        device.zeros(&[0, 2, 192]).unwrap(),
        device.zeros(&[0, 2, 128]).unwrap(),
    );
    let out = device.full(&[5, 2, 128], bf16::ONE).unwrap();
    Prefill::new(&q, &k, &v, &out).launch(&device.stream()).unwrap();
    assert!(out.to_vec().unwrap().iter().all(|x| x.to_bits() == 0));
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn drawn_shapes_stay_within_the_bound(
        lengths in prop::collection::vec((0usize..200, 0usize..300).prop_map(|(q, k)| [q, k]), 1..4),
        (key_heads, group) in (1usize..3, 1usize..3),
        narrow in any::<bool>(),
        causal in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let heads = Heads { heads: key_heads * group, key_heads, width: if narrow { 128 } else { 192 } };
        let mut inputs = normal::<bf16>(seed, &lengths, heads);
        inputs.shape.causal = causal;
        let outcome = inputs.check(&device_under(seed));
        prop_assert!(outcome.is_ok(), "{}", outcome.err().unwrap_or_default());
    }
}
