//! The cases of this family.

use super::super::{Case, Evidence, Source};
use super::prefill::{Heads, PrefillInputs, uniform_prefill};
use super::properties::{Property, holds};
use super::sparse::{SparseInputs, SparseShape};
use super::{AttentionInputs, CachedAttention, MergeCheck, fp8_cache, one_hot_attention, uniform_attention};
use super::{DecodeCheck, Pieces};
use crate::device::Device;
use crate::dtype::{bf16, f16};
use crate::mla::CacheLayout;
use crate::mla::reference::merge::Parts;
use crate::verify::surrounded::{Place, bits};

type Outcome = Result<Evidence, String>;

fn bounded(
    device: &Device,
    seed: u64,
    lengths: &[usize],
    [tokens, heads]: [usize; 2],
    splits: Option<usize>,
) -> Outcome {
    let inputs = AttentionInputs::normal(&mut Source::new(seed), lengths, tokens, heads);
    inputs.check(device, splits).map(|outputs| outputs.evidence)
}

fn exactly(device: &Device, (inputs, want): (AttentionInputs, Vec<bf16>), splits: Option<usize>) -> Outcome {
    let mut got = inputs.run(device, splits)?;
    got.evidence.exact("output", &got.output, &want)?;
    Ok(got.evidence)
}

fn decode(lengths: &[usize], queries: &[usize], heads: usize, pieces: Pieces, seed: u64) -> DecodeCheck {
    DecodeCheck {
        lengths: lengths.to_vec(),
        queries: queries.to_vec(),
        ragged: false,
        heads,
        page_tokens: 64,
        causal: true,
        sinks: false,
        pieces,
        seed,
    }
}

fn cached(
    layout: CacheLayout,
    lengths: &[usize],
    rows: [usize; 2],
    page_tokens: usize,
    seed: u64,
) -> CachedAttention {
    CachedAttention {
        lengths: lengths.to_vec(),
        rows,
        layout,
        page_tokens,
        splits: Some(2),
        f16: false,
        seed,
    }
}

/// Any lengths, tokens, heads and splits.
fn drawn(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x317A);
    let lengths: Vec<usize> = (0..1 + source.below(3)).map(|_| source.below(200)).collect();
    let (tokens, heads) = (1 + source.below(5), [1, 6, 16, 1 + source.below(40)][source.below(4)]);
    let splits = [None, Some(1), Some(2), Some(1 + source.below(5))][source.below(4)];
    bounded(device, seed, &lengths, [tokens, heads], splits)
}

fn merge(parts: usize, [tokens, heads, columns]: [usize; 3], seed: u64) -> MergeCheck {
    let shape = Parts { parts, tokens, heads, columns };
    MergeCheck { shape, sinks: false, exact: false, place: Place::default(), seed }
}

fn drawn_merge(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x6E26);
    let shape = [1 + source.below(9), 1 + source.below(9), source.columns(512)];
    let check = MergeCheck {
        sinks: source.below(2) == 0,
        place: Place::draw(source),
        ..merge(1 + source.below(9), shape, seed)
    };
    let mut all = check.check::<bf16, f16>(device)?;
    all.add(&check.check::<f16, f32>(device)?);
    all.add(&check.check::<f32, bf16>(device)?);
    Ok(all)
}

const HEADS: Heads = Heads { heads: 2, key_heads: 2, width: 192 };
const GROUPED: Heads = Heads { heads: 4, key_heads: 2, width: 128 };

/// Sequences of so many queries and keys.
fn prefill(device: &Device, seed: u64, lengths: &[[usize; 2]], heads: Heads, causal: bool) -> Outcome {
    let mut inputs = PrefillInputs::<bf16>::normal(&mut Source::new(seed), lengths, heads);
    inputs.shape.causal = causal;
    inputs.check(device).map(|outputs| outputs.evidence)
}

fn drawn_prefill(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x9F11);
    let mut length = || [source.below(180), source.below(280)];
    let lengths = [length(), length()];
    let key_heads = 1 + source.below(2);
    let heads =
        Heads { heads: key_heads * (1 + source.below(3)), key_heads, width: [128, 192][source.below(2)] };
    let mut inputs = PrefillInputs::<f16>::normal(source, &lengths, heads);
    inputs.shape.causal = source.below(2) == 0;
    inputs.sinks = (source.below(2) == 0).then(|| source.uniforms(heads.heads, -2.0, 8.0));
    if heads.width == 192 && source.below(2) == 0 {
        inputs.share_rope();
    }
    inputs.check(device).map(|outputs| outputs.evidence)
}

fn properties(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x9209);
    let lengths: Vec<usize> = (0..2).map(|_| 2 + source.below(150)).collect();
    let (tokens, heads) = (1 + source.below(3), 2 + source.below(20));
    let splits = [None, Some(2), Some(3)][source.below(3)];
    let mut all = Evidence::default();
    for property in Property::ALL {
        all.add(&holds(device, property, &lengths, [tokens, heads], splits, seed)?);
    }
    Ok(all)
}

/// Lists with and without lengths and sinks.
fn sparse(
    device: &Device,
    seed: u64,
    [tokens, heads, top_k]: [usize; 3],
    layout: CacheLayout,
    splits: Option<usize>,
) -> Outcome {
    let source = &mut Source::new(seed);
    let shape = SparseShape { tokens, heads, top_k, pages: 5, page_tokens: 1 + source.below(64), layout };
    let plain = SparseInputs::normal(source, shape);
    let mut all = plain.check(device, splits)?.evidence;
    let full = plain.with_lengths(source, 1).with_sinks(source);
    all.add(&full.check(device, splits)?.evidence);
    Ok(all)
}

fn drawn_sparse(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x5BA7);
    let heads = [64, 128, 1 + source.below(140)][source.below(3)];
    let layout = [CacheLayout::Bf16, CacheLayout::Fp8Blocks][source.below(2)];
    let splits = [None, Some(1 + source.below(4))][source.below(2)];
    sparse(device, seed, [1 + source.below(3), heads, 1 + source.below(260)], layout, splits)
}

/// Cases that suit any device.
pub(in crate::verify) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, |$device:ident, $seed:ident| $run:expr) => {
            Case { family: "mla", name: $name, run: |$device, $seed| $run }
        };
    }
    vec![
        case!("decode, 16 heads, page boundaries", |device, seed| {
            bounded(device, seed, &[1, 63, 64, 65, 129], [1, 16], None)
        }),
        case!("decode, 128 heads", |device, seed| bounded(device, seed, &[200], [1, 128], None)),
        case!("decode, 128 heads, 3 splits", |device, seed| bounded(device, seed, &[300], [1, 128], Some(3))),
        case!("decode, an empty sequence in the batch", |device, seed| {
            bounded(device, seed, &[70, 0, 5], [1, 6], Some(2))
        }),
        case!("prefill, causal", |device, seed| bounded(device, seed, &[70, 130], [70, 2], None)),
        case!("equal scores, exact", |device, seed| {
            exactly(device, uniform_attention(&mut Source::new(seed), &[1, 64, 127, 200], 3, 6), None)
        }),
        case!("equal scores over splits, exact", |device, seed| {
            exactly(device, uniform_attention(&mut Source::new(seed), &[260, 64], 2, 16), Some(4))
        }),
        case!("one token selected, exact", |device, seed| {
            exactly(device, one_hot_attention(&mut Source::new(seed), &[200, 129], 2, 16), None)
        }),
        case!("decode over FP8 blocks, pages of 64", |device, seed| {
            cached(CacheLayout::Fp8Blocks, &[1, 64, 129, 0, 200], [1, 16], 64, seed).check(device)
        }),
        case!("decode over FP8 blocks, pages of one, 128 heads", |device, seed| {
            cached(CacheLayout::Fp8Blocks, &[70], [1, 128], 1, seed).check(device)
        }),
        case!("decode over flat FP8, pages of 16", |device, seed| {
            cached(CacheLayout::Fp8Flat { scale: 0.013 }, &[40, 190], [2, 20], 16, seed).check(device)
        }),
        case!("a drawn FP8 cache", |device, seed| fp8_cache::drawn(device, seed)),
        case!("a drawn shape", |device, seed| drawn(device, seed)),
        case!("192/128, causal, three sequences", |device, seed| {
            prefill(device, seed, &[[130, 200], [5, 3], [64, 64]], HEADS, true)
        }),
        case!("192/128, all keys", |device, seed| prefill(device, seed, &[[40, 257], [1, 1]], HEADS, false)),
        case!("128/128, causal, two heads share keys", |device, seed| {
            prefill(device, seed, &[[129, 129], [30, 150]], GROUPED, true)
        }),
        case!("128/128, equal scores, exact", |device, seed| {
            let lengths = [[70, 130], [9, 5]];
            let (inputs, want) = uniform_prefill::<bf16>(&mut Source::new(seed), &lengths, GROUPED, true);
            let mut got = inputs.run(device)?;
            got.evidence.exact("output", &bits(&got.output), &bits(&want))?;
            Ok(got.evidence)
        }),
        case!("a drawn prefill in f16", |device, seed| drawn_prefill(device, seed)),
        case!("decode of a schedule, 128 heads", |device, seed| {
            decode(&[700, 3, 260], &[1, 1, 1], 128, Pieces::Scheduled, seed).check::<bf16>(device)
        }),
        case!("decode of a schedule in f16, 128 heads", |device, seed| {
            decode(&[200, 70], &[1, 1], 128, Pieces::Scheduled, seed).check::<f16>(device)
        }),
        case!("decode in f16, ragged, sinks, pages of 16", |device, seed| {
            DecodeCheck {
                ragged: true,
                sinks: true,
                page_tokens: 16,
                ..decode(&[130, 300, 7], &[3, 1, 0], 16, Pieces::Fixed(128), seed)
            }
            .check::<f16>(device)
        }),
        case!("decode of 8, 16, 24 and 32 rows of a schedule", |device, seed| {
            let mut all = Evidence::default();
            for (tokens, heads) in [(1, 5), (2, 8), (1, 24), (4, 8)] {
                let check = decode(&[400, 65, 0], &[tokens; 3], heads, Pieces::Scheduled, seed);
                all.add(&check.check::<bf16>(device)?);
                all.add(&DecodeCheck { sinks: true, page_tokens: 32, ..check }.check::<f16>(device)?);
            }
            Ok(all)
        }),
        case!("decode without a mask, pages of 1", |device, seed| {
            let pieces = Pieces::Equal(2);
            DecodeCheck { causal: false, page_tokens: 1, ..decode(&[90, 200], &[2, 2], 64, pieces, seed) }
                .check::<bf16>(device)
        }),
        case!("merge of 3 parts in bf16", |device, seed| {
            merge(3, [9, 16, 128], seed).check::<bf16, bf16>(device)
        }),
        case!("merge of 4 equal parts, exact", |device, seed| {
            MergeCheck { exact: true, ..merge(4, [5, 4, 512], seed) }.check::<f32, bf16>(device)
        }),
        case!("a drawn merge", |device, seed| drawn_merge(device, seed)),
        case!("sparse decode, 128 heads over FP8", |device, seed| {
            sparse(device, seed, [2, 128, 300], CacheLayout::Fp8Blocks, Some(2))
        }),
        case!("sparse decode, 16 heads over FP8", |device, seed| {
            sparse(device, seed, [3, 16, 70], CacheLayout::Fp8Blocks, None)
        }),
        case!("sparse prefill, 64 and 128 heads over bf16", |device, seed| {
            let mut all = sparse(device, seed, [3, 64, 200], CacheLayout::Bf16, None)?;
            all.add(&sparse(device, seed, [2, 128, 129], CacheLayout::Bf16, None)?);
            Ok(all)
        }),
        case!("a drawn sparse attention", |device, seed| drawn_sparse(device, seed)),
        case!("pages, order, heads, poison, prefixes, splits", |device, seed| properties(device, seed)),
    ]
}
