//! Sequences, pages and scores: kinds 42 to 55.

use super::lab::{Lab, is};
use super::{Row, row};
use crate::device::abi::{NG_STATUS_BAD_LENGTH, NG_STATUS_BAD_OFFSETS, NG_STATUS_BAD_PAGE};
use crate::dtype::bf16;
use crate::gemm::BatchedHalfGemm;
use crate::mla::{Attention, CacheLayout, LatentCache, Merge, Prefill};
use crate::verify::latent_cache::{
    GatherProblem, LAYOUTS, PagesProblem, check_cache_gather, check_cache_pages,
};
use crate::verify::mla::prefill::{Heads, PrefillInputs};
use crate::verify::mla::properties::{Property, holds};
use crate::verify::mla::{AttentionInputs, AttentionOutputs, DecodeCheck, Pieces};
use crate::verify::surrounded::Place;
use crate::verify::surrounded::{bits, text};
use crate::verify::{Source, exact};

type Done = Result<(), String>;

/// The last lets few rows take their own kernel.
const PIECES: [Pieces; 3] = [Pieces::Whole, Pieces::Equal(2), Pieces::Scheduled];

fn normal(lengths: &[usize], tokens: usize) -> AttentionInputs {
    AttentionInputs::normal(&mut Source::new(42), lengths, tokens, 4)
}

/// Runs changed inputs, cut and whole, against the oracle; `want` is the status.
fn masked(lab: &Lab<'_>, inputs: &AttentionInputs, want: u32) -> Done {
    PIECES.into_iter().try_for_each(|pieces| {
        let outputs = inputs.check(lab.device, pieces)?;
        exact("status", &[outputs.status.bits()], &[want])
    })
}

const HEADS: Heads = Heads { heads: 2, key_heads: 1, width: 192 };

fn prefill(lengths: &[[usize; 2]]) -> PrefillInputs<bf16> {
    PrefillInputs::normal(&mut Source::new(42), lengths, HEADS)
}

/// Output and logarithm of one sequence of one token and four heads.
fn sequence(outputs: &AttentionOutputs, b: usize) -> (Vec<u32>, Vec<u32>) {
    (bits(&outputs.output[b * 4 * 512..][..4 * 512]), bits(&outputs.lse[b * 4..][..4]))
}

/// An attention whose shapes and scale are as given.
fn refused(lab: &Lab<'_>, query: &[usize], out: &[usize], argument: &str, scale: f32) -> Done {
    let cache = LatentCache::new(lab.device, 2).map_err(text)?;
    let (query, table, lengths) = (lab.halves(query), lab.integers(&[1, 2]), lab.integers(&[1]));
    lab.refuses::<bf16>(out, argument, |out, stream| {
        Attention::new(&query, &cache, &table, &lengths, out).scale(scale).launch(stream)
    })
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row!(42, "no sequences", [
            NoOp "Attention" |lab| {
                let cache = LatentCache::new(lab.device, 2).map_err(text)?;
                let (query, table, lengths) =
                    (lab.halves(&[0, 1, 4, 576]), lab.integers(&[0, 2]), lab.integers(&[0]));
                lab.does_nothing::<bf16>(&[0, 1, 4, 512], |out, stream| {
                    Attention::new(&query, &cache, &table, &lengths, out).launch(stream)
                })
            },
            NoOp "Prefill" |lab| {
                let (q, k, v) = (lab.halves(&[3, 2, 192]), lab.halves(&[3, 1, 192]), lab.halves(&[3, 1, 128]));
                let none = lab.integers(&[1]);
                lab.does_nothing::<bf16>(&[3, 2, 128], |out, stream| {
                    Prefill::new(&q, &k, &v, out).sequences(&none, &none).launch(stream)
                })
            },
            NoOp "Merge" |lab| lab.does_nothing::<bf16>(&[0, 4, 8], |out, stream| {
                Merge::new(&lab.halves(&[2, 0, 4, 8]), &lab.floats(&[2, 4, 0]), out).launch(stream)
            }),
            NoOp "BatchedHalfGemm" |lab| lab.does_nothing::<bf16>(&[0, 4, 8], |out, stream| {
                BatchedHalfGemm::new(&lab.halves(&[0, 4, 64]), &lab.halves(&[0, 8, 64]), out).launch(stream)
            }),
        ]),
        row!(43, "a length of zero", [
            Works "Attention" |lab| PIECES.into_iter().try_for_each(|pieces| {
                let outputs = normal(&[0, 5], 1).check(lab.device, pieces)?;
                exact("output", &bits(&outputs.output[..4 * 512]), &[0; 4 * 512])?;
                exact("lse", &outputs.lse[..4], &[f32::NEG_INFINITY; 4])
            }),
            Works "Prefill" |lab| {
                let outputs = prefill(&[[3, 0], [2, 2], [0, 4]]).check(lab.device)?;
                exact("output", &bits(&outputs.output[3 * 256..6 * 256]), &[0; 3 * 256])?;
                exact("lse", &outputs.lse[3..6], &[f32::NEG_INFINITY; 3])
            },
            Works "Merge, parts without keys" |lab| {
                let partial = lab.tensor(&[2, 1, 1, 8], &[f32::NAN; 16]);
                let lse = lab.tensor(&[2, 1, 1], &[f32::NEG_INFINITY; 2]);
                let out = lab.writes::<f32>(&[1, 1, 8], |out, stream| Merge::new(&partial, &lse, out).launch(stream))?;
                exact("output", &bits(&out), &[0; 8])
            },
        ]),
        row!(44, "a length beyond the page table", [
            Masked "Attention" |lab| {
                let mut inputs = normal(&[70, 64], 1);
                let page = inputs.table[0];
                inputs.table.fill(page);
                inputs.cache.fill(bf16::ONE);
                inputs.lengths[1] = i32::MAX;
                masked(lab, &inputs, NG_STATUS_BAD_LENGTH)
            },
        ]),
        row!(45, "a negative length", [
            Masked "Attention" |lab| {
                let mut inputs = normal(&[70, 64], 1);
                inputs.lengths[1] = -5;
                masked(lab, &inputs, NG_STATUS_BAD_LENGTH)
            },
        ]),
        row!(46, "a page in use that the cache does not have", [
            Masked "Attention" |lab| [-1, i32::MIN, i32::MAX, 5].into_iter().try_for_each(|bad| {
                let mut inputs = normal(&[130, 64], 2);
                inputs.shape.cache_pages = 5;
                inputs.cache.truncate(5 * 64 * 576);
                inputs.cache.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = bf16::ONE);
                inputs.table.iter_mut().filter(|id| **id == 5).for_each(|id| *id = 0);
                inputs.table[1] = bad;
                masked(lab, &inputs, NG_STATUS_BAD_PAGE)
            }),
            Masked "CacheGather" |lab| LAYOUTS.into_iter().try_for_each(|layout| {
                let (rows, place) = (vec![40, 0, 17], Place::default());
                let problem = GatherProblem { rows, starts: true, page_tokens: 16, layout, f16: false, bad: true, place, seed: 46 };
                check_cache_gather(lab.device, &problem).map(drop)
            }),
            Masked "CachePageCopy" |lab| [false, true].into_iter().try_for_each(|swap| {
                let layout = CacheLayout::Fp8Blocks;
                let problem = PagesProblem { pairs: 17, page_tokens: 1, layout, swap, within: false, bad: true, seed: 46 };
                check_cache_pages(lab.device, &problem).map(drop)
            }),
        ]),
        row!(47, "page numbers beyond use that mean nothing", [
            Works "Attention" |lab| holds(lab.device, Property::Poison, &[70, 5], [1, 4], None, 47).map(drop),
        ]),
        row!(48, "a page that two sequences share", [
            Works "Attention" |lab| {
                let one = normal(&[130], 1);
                let mut two = one.clone();
                two.shape.offsets.push(2);
                two.query.extend_from_slice(&one.query);
                two.table.extend_from_slice(&one.table);
                two.lengths.extend_from_slice(&one.lengths);
                let (alone, both) = (one.run(lab.device, None)?, two.run(lab.device, None)?);
                exact("the first", &sequence(&both, 0).0, &sequence(&alone, 0).0)?;
                exact("the second", &sequence(&both, 1).0, &sequence(&alone, 0).0)
            },
        ]),
        row!(49, "head dimensions other than 576 and 512", [
            Error "Attention, q" |lab| refused(lab, &[1, 1, 4, 512], &[1, 1, 4, 512], "q", 1.0),
            Error "Attention, out" |lab| refused(lab, &[1, 1, 4, 576], &[1, 1, 4, 576], "out", 1.0),
            Error "Attention, 129 heads" |lab| refused(lab, &[1, 1, 129, 576], &[1, 1, 129, 512], "q", 1.0),
            Error "Attention, pages of 48 tokens" |lab| {
                let cache = LatentCache::with_layout(lab.device, 2, 48, CacheLayout::Bf16).map_err(text)?;
                let (query, table, lengths) =
                    (lab.halves(&[1, 1, 4, 576]), lab.integers(&[1, 2]), lab.integers(&[1]));
                lab.refuses::<bf16>(&[1, 1, 4, 512], "cache", |out, stream| {
                    Attention::new(&query, &cache, &table, &lengths, out).launch(stream)
                })
            },
        ]),
        row!(50, "more query tokens than the sequence has", [
            Works "Attention" |lab| PIECES.into_iter().try_for_each(|pieces| {
                let outputs = normal(&[2], 4).check(lab.device, pieces)?;
                exact("rows without keys", &bits(&outputs.output[..2 * 4 * 512]), &[0; 2 * 4 * 512])?;
                is(outputs.status.is_clear(), "that is nothing to report")
            }),
            Works "Prefill" |lab| {
                let outputs = prefill(&[[5, 2]]).check(lab.device)?;
                exact("rows without keys", &bits(&outputs.output[3 * 256..6 * 256]), &[0; 3 * 256])
            },
        ]),
        row!(51, "NaN in the cache where no sequence is", [
            Works "Attention" |lab| {
                let outputs = normal(&[70, 1, 64], 1).check(lab.device, None)?;
                is(outputs.output.iter().all(|x| x.is_finite()), "no NaN comes out")
            },
            Works "Prefill" |lab| prefill(&[[20, 30], [3, 7]]).check(lab.device).map(drop),
        ]),
        row!(52, "NaN in a token in use", [
            Propagated "Attention" |lab| {
                let inputs = normal(&[70, 70], 1);
                let mut poisoned = inputs.clone();
                poisoned.cache[inputs.table[0] as usize * 64 * 576] = bf16::NAN;
                let (clean, got) = (inputs.run(lab.device, None)?, poisoned.run(lab.device, None)?);
                is(got.output[..4 * 512].iter().all(|x| x.is_nan()), "its sequence is NaN")?;
                exact("the other sequence", &sequence(&got, 1).0, &sequence(&clean, 1).0)
            },
            Propagated "Prefill" |lab| {
                let inputs = prefill(&[[4, 20], [4, 20]]);
                let mut poisoned = inputs.clone();
                poisoned.key[inputs.key_offsets[1] as usize * 192] = bf16::NAN;
                let (clean, got) = (inputs.run(lab.device)?, poisoned.run(lab.device)?);
                let rows = |sequence: usize| (3 + 4 * sequence) * 256..(7 + 4 * sequence) * 256;
                is(got.output[rows(1)].iter().all(|x| x.is_nan()), "its sequence is NaN")?;
                exact("the other sequence", &bits(&got.output[rows(0)]), &bits(&clean.output[rows(0)]))
            },
            Propagated "Merge" |lab| {
                let partial = lab.tensor(&[2, 2, 1, 8], &[[1.0; 8], [f32::NAN; 8], [1.0; 8], [1.0; 8]].concat());
                let lse = lab.floats(&[2, 1, 2]);
                let out = lab.writes::<f32>(&[2, 1, 8], |out, stream| Merge::new(&partial, &lse, out).launch(stream))?;
                exact("the row without NaN", &out[..8], &[1.0; 8])?;
                is(out[8..].iter().all(|x| x.is_nan()), "the row with NaN is NaN")
            },
        ]),
        row!(53, "scores that overflow", [
            Works "Attention" |lab| {
                let mut inputs = normal(&[100], 1);
                for element in inputs.query.iter_mut().chain(&mut inputs.cache) {
                    *element = bf16::from_f32(element.to_f32() * 1e19);
                }
                let outputs = inputs.run(lab.device, None)?;
                is(outputs.output.iter().all(|x| x.is_finite()), "the softmax is finite")
            },
            Works "Prefill" |lab| {
                let mut inputs = prefill(&[[10, 140]]);
                for element in inputs.query.iter_mut().chain(&mut inputs.key) {
                    *element = bf16::from_f32(element.to_f32() * 1e19);
                }
                let outputs = inputs.run(lab.device)?;
                is(outputs.output[3 * 256..13 * 256].iter().all(|x| x.is_finite()), "the softmax is finite")
            },
        ]),
        row!(54, "a softmax scale that is NaN, infinite, zero or negative", [
            Error "Attention" |lab| [f32::NAN, f32::INFINITY, 0.0, -1.0, f32::MAX].into_iter().try_for_each(|scale| {
                refused(lab, &[1, 1, 4, 576], &[1, 1, 4, 512], "scale", scale)
            }),
            Error "Prefill" |lab| {
                let (q, k, v) = (lab.halves(&[3, 2, 192]), lab.halves(&[3, 1, 192]), lab.halves(&[3, 1, 128]));
                [f32::NAN, f32::INFINITY, 0.0, -1.0, f32::MAX].into_iter().try_for_each(|scale| {
                    lab.refuses::<bf16>(&[3, 2, 128], "scale", |out, stream| {
                        Prefill::new(&q, &k, &v, out).scale(scale).launch(stream)
                    })
                })
            },
        ]),
        row!(55, "cumulative lengths that decrease", [
            Masked "Prefill" |lab| {
                let mut inputs = prefill(&[[9, 10], [6, 20]]);
                for values in [&mut inputs.query, &mut inputs.key, &mut inputs.value] {
                    values.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = bf16::ONE);
                }
                [[3, 15, 9], [-1, 6, 9], [3, 9, i32::MAX]].into_iter().try_for_each(|offsets| {
                    let bad = PrefillInputs { query_offsets: offsets.to_vec(), ..inputs.clone() };
                    exact("status", &[bad.check(lab.device)?.status.bits()], &[NG_STATUS_BAD_OFFSETS])
                })
            },
            Masked "Attention" |lab| {
                let check = DecodeCheck {
                    lengths: vec![130, 70],
                    queries: vec![2, 2],
                    ragged: true,
                    heads: 4,
                    page_tokens: 64,
                    causal: true,
                    sinks: false,
                    pieces: Pieces::Scheduled,
                    seed: 55,
                };
                let run = |offsets: [i32; 3]| {
                    let inputs = AttentionInputs { offsets: Some(offsets.to_vec()), ..check.inputs::<bf16>() };
                    let got = inputs.run(lab.device, check.pieces)?;
                    exact("status", &[got.status.bits()], &[NG_STATUS_BAD_OFFSETS])?;
                    Ok::<_, String>((inputs, got))
                };
                for offsets in [[0, 2, i32::MAX], [-1, 2, 4], [i32::MIN, 2, 4]] {
                    let (inputs, mut got) = run(offsets)?;
                    inputs.compare(&mut got, check.pieces)?;
                }
                // The second sequence has no tokens: two are answered, the others stay poison.
                for offsets in [[0, 2, i32::MIN], [0, 4, i32::MIN]] {
                    let (_, got) = run(offsets)?;
                    let (answered, left) = got.output.split_at(2 * check.heads * 512);
                    if answered.iter().any(|value| value.is_nan()) || !left.iter().all(|value| value.is_nan()) {
                        return Err(format!("offsets {offsets:?}: other tokens than the first two are answered"));
                    }
                }
                Ok(())
            },
        ]),
    ]
}
