//! The merge of partial attentions.

use crate::common::{config, device, device_under};
use narrowgauge::mla::Merge;
use narrowgauge::mla::reference::merge::Parts;
use narrowgauge::verify::mla::MergeCheck;
use narrowgauge::verify::surrounded::Place;
use narrowgauge::{Device, Error, bf16, f16};
use proptest::prelude::*;

fn check(parts: usize, [tokens, heads, columns]: [usize; 3]) -> MergeCheck {
    MergeCheck {
        shape: Parts { parts, tokens, heads, columns },
        sinks: false,
        exact: false,
        place: Place::default(),
        seed: 1,
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_pair_of_types_and_odd_columns_stay_within_the_bound() {
    let device = device();
    for columns in [1, 7, 8, 128, 192, 512, 2050, 4096] {
        for place in [Place::default(), Place { offset: 8, padding: 8 }, Place { offset: 3, padding: 5 }] {
            let check = MergeCheck { place, sinks: columns % 3 == 0, ..check(3, [2, 3, columns]) };
            let run = || -> Result<(), String> {
                check.check::<bf16, bf16>(&device)?;
                check.check::<bf16, f32>(&device)?;
                check.check::<f16, f16>(&device)?;
                check.check::<f16, bf16>(&device)?;
                check.check::<f32, f32>(&device)?;
                check.check::<f32, bf16>(&device)?;
                check.check::<f32, f16>(&device).map(drop)
            };
            run().unwrap_or_else(|error| panic!("{check:?}: {error}"));
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn equal_parts_average_exactly_and_one_part_is_copied() {
    for parts in [1, 2, 4, 64] {
        let check = MergeCheck { exact: true, ..check(parts, [3, 5, 128]) };
        check.check::<bf16, bf16>(&device()).unwrap();
        check.check::<f32, f32>(&device()).unwrap();
    }
}

/// Parts joined two by two are the parts joined at once, within what each merge may be off.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn merges_may_follow_each_other() {
    let device = device();
    let stream = device.stream();
    let [parts, tokens, heads, columns] = [4, 3, 2, 128];
    let mut source = narrowgauge::verify::Source::new(9);
    let partial = device.tensor(&[parts, tokens, heads, columns], &source.normals(parts * 768, 1.0)).unwrap();
    let lse = device.tensor(&[parts, heads, tokens], &source.uniforms(parts * 6, -2.0, 6.0)).unwrap();
    let whole = device.zeros::<f32>(&[tokens, heads, columns]).unwrap();
    Merge::new(&partial, &lse, &whole).launch(&stream).unwrap();

    let halves = device.zeros::<f32>(&[2, tokens, heads, columns]).unwrap();
    let half_lse = device.zeros::<f32>(&[2, heads, tokens]).unwrap();
    for half in 0..2 {
        let pair = |tensor: &narrowgauge::Tensor<f32>| tensor.slice(0, 2 * half..2 * half + 2).unwrap();
        let (out, out_lse) = (halves.select(0, half).unwrap(), half_lse.select(0, half).unwrap());
        Merge::new(&pair(&partial), &pair(&lse), &out).lse(&out_lse).launch(&stream).unwrap();
    }
    let twice = device.zeros::<f32>(&[tokens, heads, columns]).unwrap();
    Merge::new(&halves, &half_lse, &twice).launch(&stream).unwrap();
    let largest = partial.to_vec().unwrap().into_iter().fold(0f32, |most, x| most.max(x.abs()));
    for (a, b) in whole.to_vec().unwrap().into_iter().zip(twice.to_vec().unwrap()) {
        // Three merges of at most 8 e-folds: each weight is off by 3 · 8 + 4 units, each sum by 16.
        assert!((a - b).abs() <= 3.0 * 60.0 * 2f32.powi(-24) * largest, "{a} {b}");
    }
}

/// Bits of a row depend on nothing but its own parts.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_row_alone_has_the_bits_that_it_has_among_others() {
    let device = device();
    let stream = device.stream();
    let mut source = narrowgauge::verify::Source::new(3);
    let partial = device.tensor(&[5, 37, 2, 128], &source.normals(5 * 37 * 256, 1.0)).unwrap();
    let lse = device.tensor(&[5, 2, 37], &source.normals(5 * 74, 3.0)).unwrap();
    let all = device.zeros::<bf16>(&[37, 2, 128]).unwrap();
    Merge::new(&partial, &lse, &all).launch(&stream).unwrap();
    let all = all.to_vec().unwrap();
    for token in [0, 16, 36] {
        let one = device.zeros::<bf16>(&[1, 2, 128]).unwrap();
        let view = |tensor: &narrowgauge::Tensor<f32>, dim| tensor.slice(dim, token..token + 1).unwrap();
        Merge::new(&view(&partial, 1), &view(&lse, 2), &one).launch(&stream).unwrap();
        assert_eq!(one.to_vec().unwrap(), all[token * 256..][..256]);
    }
}

#[test]
fn bad_arguments_are_refused_before_anything_runs() {
    let device = device();
    let stream = device.stream();
    let other = Device::simulated(narrowgauge::Card::H20).unwrap();
    let floats = |shape: &[usize]| device.zeros::<f32>(shape).unwrap();
    let (partial, lse, out) = (floats(&[2, 3, 4, 8]), floats(&[2, 4, 3]), floats(&[3, 4, 8]));
    let argument = |outcome: narrowgauge::Result<()>| match outcome {
        Err(Error::Argument { operation: "Merge", argument, .. }) => argument,
        other => panic!("wanted a refused argument, got {other:?}"),
    };
    let good = || Merge::new(&partial, &lse, &out);
    assert_eq!(argument(Merge::new(&out, &lse, &out).launch(&stream)), "partial");
    assert_eq!(argument(Merge::new(&partial, &floats(&[2, 3, 4]), &out).launch(&stream)), "partial_lse");
    assert_eq!(argument(Merge::new(&partial, &lse, &floats(&[3, 4, 9])).launch(&stream)), "out");
    assert_eq!(argument(Merge::new(&partial, &lse, &partial.select(0, 1).unwrap()).launch(&stream)), "out");
    assert_eq!(
        argument(Merge::new(&partial, &lse, &other.zeros::<f32>(&[3, 4, 8]).unwrap()).launch(&stream)),
        "out"
    );
    let columns = floats(&[2, 3, 8, 4]).transpose(2, 3).unwrap();
    assert_eq!(argument(Merge::new(&columns, &lse, &out).launch(&stream)), "partial");
    assert_eq!(argument(good().lse(&floats(&[3, 4])).launch(&stream)), "lse");
    assert_eq!(argument(good().lse(&lse.select(0, 0).unwrap()).launch(&stream)), "lse");
    assert_eq!(argument(good().sinks(&floats(&[3])).launch(&stream)), "sinks");
    assert!(out.to_vec().unwrap().iter().all(|value| *value == 0.0));
    Merge::new(&floats(&[2, 0, 4, 8]), &floats(&[2, 4, 0]), &floats(&[0, 4, 8])).launch(&stream).unwrap();
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn no_parts_are_an_empty_attention() {
    let device = device();
    let out = device.full(&[2, 3, 16], bf16::ONE).unwrap();
    let lse = device.full(&[3, 2], 1f32).unwrap();
    let (partial, partial_lse) =
        (device.zeros::<f16>(&[0, 2, 3, 16]).unwrap(), device.zeros(&[0, 3, 2]).unwrap());
    Merge::new(&partial, &partial_lse, &out).lse(&lse).launch(&device.stream()).unwrap();
    assert!(out.to_vec().unwrap().iter().all(|value| value.to_bits() == 0));
    assert!(lse.to_vec().unwrap().iter().all(|value| *value == f32::NEG_INFINITY));
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn drawn_shapes_stay_within_the_bound(
        parts in 1usize..9,
        shape in (1usize..9, 1usize..9, 1usize..300),
        sinks in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let place = Place::draw(&mut narrowgauge::verify::Source::new(seed));
        let check = MergeCheck { sinks, place, seed, ..check(parts, [shape.0, shape.1, shape.2]) };
        let device = device_under(seed);
        let outcome = check.check::<bf16, bf16>(&device).and_then(|_| check.check::<f32, f16>(&device));
        prop_assert!(outcome.is_ok(), "{}", outcome.err().unwrap_or_default());
    }
}
