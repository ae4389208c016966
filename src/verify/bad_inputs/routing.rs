//! Tokens, experts and groups: kinds 25 to 41.

use super::lab::{Lab, is};
use super::{Row, half_groups, row};
use crate::device::abi::{
    NG_STATUS_BAD_EXPERT, NG_STATUS_BAD_LENGTH, NG_STATUS_BAD_OFFSETS, NG_STATUS_BAD_POSITION,
    NG_STATUS_BAD_ROW, NG_STATUS_BAD_SLOT, NG_STATUS_BAD_TOKEN, NG_STATUS_NAN_SCORE, NG_STATUS_UNROUTED,
};
use crate::dtype::{E4m3, bf16};
use crate::error::Result;
use crate::fp8::{Fp8Blocks, Fp8Rows, ScaleLayout};
use crate::gemm::{
    Fp8Gemm, GroupedFp8Gemm, GroupedHalfGemm, KGroupedFp8Gemm, MaskedFp8Gemm, MaskedFp8GemmSwiglu,
    MaskedHalfGemm,
};
use crate::mla::{CacheGather, CachePageCopy, CacheWrite, LatentCache, Rope, RopeTables};
use crate::routing::{Combine, Gate, GatherRows, GroupScore, Permutation, Permute, Router, Scoring};
use crate::tensor::Tensor;
use crate::verify::exact;
use crate::verify::gemm::{Form, Fp8Check, Rows, Values};
use crate::verify::latent_cache::{CacheProblem, LAYOUTS, check_cache_write};
use crate::verify::rope::{RopeProblem, check_rope, parameters};
use crate::verify::routing::{K2, RouterProblem, Scores, V3, check_gather, check_permute, check_router};
use crate::verify::surrounded::{Place, text};
use crate::verify::vocab::check_embedding;
use crate::vocab::{Argmax, Embedding};

type Done = std::result::Result<(), String>;

const ROUTER: RouterProblem = RouterProblem {
    tokens: 9,
    experts: 256,
    gate: V3,
    scores: Scores::Normal,
    place: Place { offset: 0, padding: 0 },
    seed: 25,
};
const GROUPED: Fp8Check<'_> = Fp8Check {
    rows: Rows::Groups(&[5, 0, 0, 64, 1]),
    n: 72,
    k: 144,
    layout: ScaleLayout::RowMajor,
    tile: None,
    values: Values::Integers,
    form: Form::PLAIN,
    seed: 25,
};

/// Ids and weights of 8 experts in 8 groups of which 4 are kept.
fn route(lab: &Lab<'_>, logits: &[f32], bias: &[f32]) -> std::result::Result<(Vec<i32>, Vec<f32>), String> {
    let tokens = logits.len() / bias.len();
    let (input, bias) = (lab.tensor(&[tokens, bias.len()], logits), lab.tensor(&[bias.len()], bias));
    let weights = lab.floats(&[tokens, 8]);
    let ids = lab.writes::<i32>(&[tokens, 8], |ids, stream| {
        Router::new(&input, V3, &weights, ids).bias(&bias).launch(stream)
    })?;
    Ok((ids, weights.to_vec().map_err(text)?))
}

/// A router of `[4, experts]` logits and k slots, with this setting of its gate, refuses an argument.
fn router_refuses(
    lab: &Lab<'_>,
    [experts, slots]: [usize; 2],
    argument: &str,
    set: impl FnOnce(Gate) -> Gate,
) -> Done {
    let (logits, bias, weights) =
        (lab.floats(&[4, experts]), lab.floats(&[experts]), lab.floats(&[4, slots]));
    lab.refuses::<i32>(&[4, slots], argument, |ids, stream| {
        Router::new(&logits, set(Gate::new(Scoring::Sigmoid, slots)), &weights, ids)
            .bias(&bias)
            .launch(stream)
    })
}

/// Routes so many of three tokens to 2 of 8 experts.
fn counted_tokens(lab: &Lab<'_>, logits: &[f32], count: i32) -> std::result::Result<Vec<i32>, String> {
    let (logits, count, weights) =
        (lab.tensor(&[3, 8], logits), lab.tensor(&[1], &[count]), lab.floats(&[3, 2]));
    lab.writes::<i32>(&[3, 2], |ids, stream| {
        let gate = Gate::new(Scoring::Sigmoid, 2);
        Router::new(&logits, gate, &weights, ids).token_count(&count).launch(stream)
    })
}

/// Orders ids of two tokens with four slots among four experts, and sums their rows with weights of one.
fn permute_and_sum(lab: &Lab<'_>, ids: &[i32; 8]) -> std::result::Result<(Permutation, Vec<bf16>), String> {
    let run = || -> Result<_> {
        let permutation = Permutation::empty(lab.device, 2, 4, 4)?;
        Permute::new(&lab.tensor(&[2, 4], ids), &permutation).launch(&lab.stream)?;
        let rows = lab.tensor(&[8, 1], &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0].map(bf16::from_f32));
        let (weights, out) = (lab.device.full(&[2, 4], 1.0)?, lab.halves(&[2, 1]));
        Combine::new(&rows, &permutation, &weights, &out).launch(&lab.stream)?;
        Ok((permutation, out.to_vec()?))
    };
    run().map_err(text)
}

fn tables(lab: &Lab<'_>) -> RopeTables {
    RopeTables::new(lab.device, &parameters(false)).expect("small tables fit on any device")
}

fn offsets_of(lab: &Lab<'_>, offsets: &[i32; 4]) -> Done {
    let (a, b) = (lab.zero_rows(20, 64), lab.blocks(&[3, 64, 64]));
    let offsets = lab.tensor(&[4], offsets);
    let out = lab.out::<bf16>(&[20, 64]);
    GroupedFp8Gemm::new(&a, &b, &offsets, out.view()).launch(&lab.stream).map_err(text)?;
    lab.reported(NG_STATUS_BAD_OFFSETS)?;
    // Rows of no group stay as they were, and nothing outside is touched.
    out.finish("the output", &mut Default::default()).map(drop)
}

fn zero_groups(lab: &Lab<'_>, shape: [usize; 3]) -> Fp8Rows {
    let scales = lab.floats(&[shape[0], shape[1], shape[2].div_ceil(128)]);
    Fp8Rows::new(lab.codes(&shape), scales).expect("these fit each other")
}

fn counts_of(lab: &Lab<'_>, counts: [i32; 3]) -> Done {
    let (a, b) = (zero_groups(lab, [3, 20, 64]), lab.blocks(&[3, 64, 64]));
    let out = lab.out::<bf16>(&[3, 20, 64]);
    let counts = lab.tensor(&[3], &counts);
    MaskedFp8Gemm::new(&a, &b, &counts, out.view()).launch(&lab.stream).map_err(text)?;
    lab.reported(NG_STATUS_BAD_OFFSETS)?;
    out.finish("the output", &mut Default::default()).map(drop)
}

/// Groups of ones with room for five rows: what is there of each is multiplied, and no row of a neighbour is.
fn beyond_capacity(lab: &Lab<'_>, counts: [i32; 3]) -> Done {
    const ROOM: usize = 5;
    let run = |out: &Tensor<bf16>| {
        let data = lab.tensor(&[3, ROOM, 64], &[E4m3::ONE; 3 * ROOM * 64]);
        let a = Fp8Rows::new(data, lab.device.full(&[3, ROOM, 1], 1.0)?)?;
        let weights: Vec<_> = (1..4u8).flat_map(|group| [E4m3::from_f32(group.into()); 64 * 64]).collect();
        let b = Fp8Blocks::new(lab.tensor(&[3, 64, 64], &weights), lab.device.full(&[3, 1, 1], 1.0)?)?;
        MaskedFp8Gemm::new(&a, &b, &lab.tensor(&[3], &counts), out).launch(&lab.stream)
    };
    let out = lab.out::<bf16>(&[3, ROOM, 64]);
    run(out.view()).map_err(text)?;
    lab.reported(NG_STATUS_BAD_OFFSETS)?;
    let want: Vec<_> =
        (1..4u8).flat_map(|group| [bf16::from_f32(64.0 * f32::from(group)); ROOM * 64]).collect();
    exact("rows within the room", &out.finish("the output", &mut Default::default())?, &want)
}

/// Offsets along K = 384 of ones, and the blocks of 128 that are left to each group.
fn ranges_of(lab: &Lab<'_>, offsets: [i32; 4], blocks: [u8; 3]) -> Done {
    let run = |out: &Tensor<f32>| {
        let ones = |rows: usize| {
            let data = lab.tensor(&[rows, 384], &vec![E4m3::ONE; rows * 384]);
            Fp8Rows::new(data, lab.device.full(&[rows, 3], 1.0)?)
        };
        KGroupedFp8Gemm::new(&ones(8)?, &ones(16)?, &lab.tensor(&[4], &offsets), out).launch(&lab.stream)
    };
    let out = lab.out::<f32>(&[3, 8, 16]);
    run(out.view()).map_err(text)?;
    lab.reported(NG_STATUS_BAD_OFFSETS)?;
    let want: Vec<_> = blocks.iter().flat_map(|count| [128.0 * f32::from(*count); 8 * 16]).collect();
    exact("sums over what is left", &out.finish("the output", &mut Default::default())?, &want)
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row!(25, "no tokens", [
            NoOp "Router" |lab| lab.does_nothing::<i32>(&[0, 8], |ids, stream| {
                let (logits, bias, weights) = (lab.floats(&[0, 256]), lab.floats(&[256]), lab.floats(&[0, 8]));
                Router::new(&logits, V3, &weights, ids).bias(&bias).launch(stream)
            }),
            NoOp "Permute" |lab| {
                let permutation = Permutation::empty(lab.device, 0, 8, 5).map_err(text)?;
                Permute::new(&lab.integers(&[0, 8]), &permutation).launch(&lab.stream).map_err(text)?;
                exact("counts", &permutation.counts().to_vec().map_err(text)?, &[0; 5])?;
                exact("offsets", &permutation.offsets().to_vec().map_err(text)?, &[0; 6])
            },
            NoOp "GatherRows" |lab| {
                let permutation = Permutation::empty(lab.device, 0, 8, 5).map_err(text)?;
                let gather = |out| GatherRows::new(&lab.rows(0, 64), &permutation, out).launch(&lab.stream);
                gather(&lab.rows(0, 64)).map_err(text)
            },
            NoOp "Combine" |lab| lab.does_nothing::<bf16>(&[0, 64], |out, stream| {
                let permutation = Permutation::empty(lab.device, 0, 8, 5)?;
                Combine::new(&lab.halves(&[0, 64]), &permutation, &lab.floats(&[0, 8]), out).launch(stream)
            }),
            NoOp "Embedding" |lab| lab.does_nothing::<bf16>(&[0, 64], |out, stream| {
                Embedding::new(&lab.halves(&[10, 64]), &lab.integers(&[0]), out).launch(stream)
            }),
            NoOp "Argmax" |lab| lab.does_nothing::<i32>(&[0], |out, stream| {
                Argmax::new(&lab.floats(&[0, 64]), out).launch(stream)
            }),
            NoOp "Rope" |lab| lab.does_nothing::<bf16>(&[0, 2, 64], |out, stream| {
                Rope::new(&lab.halves(&[0, 2, 64]), &lab.integers(&[0]), &tables(lab), out).launch(stream)
            }),
            NoOp "CacheWrite" |lab| {
                let cache = LatentCache::new(lab.device, 1).map_err(text)?;
                let (latent, key, none) = (lab.halves(&[0, 512]), lab.halves(&[0, 64]), lab.integers(&[0]));
                CacheWrite::new(&latent, &key, &none, &none, &tables(lab), &cache).launch(&lab.stream).map_err(text)
            },
            NoOp "CacheGather" |lab| lab.does_nothing::<bf16>(&[0, 576], |rows, stream| {
                let cache = LatentCache::new(lab.device, 1)?;
                CacheGather::new(&cache, &lab.integers(&[2, 1]), &lab.integers(&[3]), rows).launch(stream)
            }),
            NoOp "CachePageCopy" |lab| {
                let cache = LatentCache::new(lab.device, 1).map_err(text)?;
                CachePageCopy::new(&cache, &cache, &lab.integers(&[0, 2])).launch(&lab.stream).map_err(text)
            },
        ]),
        row!(26, "top_k = 0", [
            Error "Router" |lab| router_refuses(lab, [64, 0], "k", |gate| gate),
            Error "Permutation::empty" |lab| lab.refused("k", Permutation::empty(lab.device, 4, 0, 8).map(drop)),
        ]),
        row!(27, "top_k beyond the experts or beyond 32", [
            Error "Router, beyond the kept groups" |lab| router_refuses(lab, [64, 8], "k", |gate| gate.groups(16, 1, GroupScore::TopTwo)),
            Error "Router, 33" |lab| router_refuses(lab, [64, 33], "k", |gate| gate),
            Error "Router, beyond the experts" |lab| router_refuses(lab, [4, 5], "k", |gate| gate),
            Error "Permutation::empty" |lab| lab.refused("k", Permutation::empty(lab.device, 4, 33, 40).map(drop)),
        ]),
        row!(28, "experts that do not divide into groups, or more kept groups than groups", [
            Error "Router, 7 groups of 64" |lab| router_refuses(lab, [64, 8], "n_group", |gate| gate.groups(7, 1, GroupScore::TopTwo)),
            Error "Router, no groups" |lab| router_refuses(lab, [64, 8], "n_group", |gate| gate.groups(0, 1, GroupScore::TopTwo)),
            Error "Router, too many groups" |lab| router_refuses(lab, [64, 8], "n_group", |gate| gate.groups(64, 64, GroupScore::TopTwo)),
            Error "Router, 9 of 8 kept" |lab| router_refuses(lab, [64, 8], "topk_group", |gate| gate.groups(8, 9, GroupScore::TopTwo)),
            Error "Router, none kept" |lab| router_refuses(lab, [64, 8], "topk_group", |gate| gate.groups(8, 0, GroupScore::TopTwo)),
        ]),
        row!(29, "more than 256 experts", [
            Works "Router, 384" |lab| {
                check_router(lab.device, &RouterProblem { experts: 384, gate: K2, ..ROUTER }).map(drop)
            },
            Works "Permute, 512" |lab| check_permute(lab.device, [40, 8, 512], false, 29).map(drop),
            Works "Router, 1024" |lab| {
                let gate = Gate::new(Scoring::Softmax, 32);
                check_router(lab.device, &RouterProblem { experts: 1024, gate, ..ROUTER }).map(drop)
            },
            Error "Router, 1025" |lab| router_refuses(lab, [1025, 8], "experts", |gate| gate),
            Error "Permutation::empty, 513" |lab| {
                lab.refused("experts", Permutation::empty(lab.device, 4, 2, 513).map(drop))
            },
            Error "GroupedFp8Gemm, 1025" |lab| lab.refuses::<bf16>(&[4, 8], "groups", |out, stream| {
                let offsets = lab.integers(&[1026]);
                GroupedFp8Gemm::new(&lab.zero_rows(4, 16), &lab.blocks(&[1025, 8, 16]), &offsets, out).launch(stream)
            }),
        ]),
        row!(30, "a token whose logits are all NaN", [
            Masked "Router" |lab| {
                let mut logits = vec![0.5; 2 * 256];
                logits[..256].fill(f32::NAN);
                let (ids, weights) = route(lab, &logits, &[0.0; 256])?;
                exact("ids", &ids[..8], &[-1; 8])?;
                exact("weights", &weights[..8], &[0.0; 8])?;
                is(ids[8..].iter().all(|id| *id >= 0), "the other token has its experts")?;
                lab.reported(NG_STATUS_NAN_SCORE | NG_STATUS_UNROUTED)
            },
            Masked "Argmax" |lab| {
                let logits = lab.tensor(&[2, 4], &[[f32::NAN; 4], [0.0, 1.0, 2.0, 1.0]].concat());
                let got = lab.writes::<i32>(&[2], |out, stream| Argmax::new(&logits, out).launch(stream))?;
                exact("the other row", &got[1..], &[2])?;
                lab.reported(NG_STATUS_NAN_SCORE)
            },
        ]),
        row!(31, "a token with some NaN", [
            Masked "Router" |lab| {
                let mut logits = vec![f32::NAN; 256];
                (logits[101], logits[102]) = (1.0, 2.0);
                let (ids, _) = route(lab, &logits, &[0.0; 256])?;
                exact("ids", &ids, &[102, 101, -1, -1, -1, -1, -1, -1])?;
                lab.reported(NG_STATUS_NAN_SCORE | NG_STATUS_UNROUTED)
            },
            Masked "Argmax" |lab| {
                let logits = lab.tensor(&[1, 4], &[f32::NAN, -3.0, -2.0, f32::NAN]);
                let got = lab.writes::<i32>(&[1], |out, stream| Argmax::new(&logits, out).launch(stream))?;
                exact("the largest number", &got, &[2])?;
                lab.reported(NG_STATUS_NAN_SCORE)
            },
        ]),
        row!(32, "infinite logits", [
            Works "Router" |lab| {
                check_router(lab.device, &RouterProblem { scores: Scores::Wild, tokens: 30, ..ROUTER }).map(drop)
            },
            Works "Router, all -inf" |lab| {
                let (ids, weights) = route(lab, &[f32::NEG_INFINITY; 256], &[0.0; 256])?;
                exact("ids", &ids, &[0, 1, 2, 3, 4, 5, 6, 7])?;
                is(weights.iter().all(|weight| weight.is_finite()), "weights are finite")
            },
        ]),
        row!(33, "equal logits", [
            Works "Router" |lab| {
                let (ids, _) = route(lab, &[0.25; 2 * 256], &[0.0; 256])?;
                exact("the lowest ids", &ids, &[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7])
            },
            Works "Argmax" |lab| {
                let logits = lab.tensor(&[1, 300], &[0.5; 300]);
                let got = lab.writes::<i32>(&[1], |out, stream| Argmax::new(&logits, out).launch(stream))?;
                exact("the lowest id", &got, &[0])
            },
        ]),
        // The bias lies on the device, where no constructor sees it.
        row!(34, "a bias of NaN", [
            Masked "Router" |lab| {
                let mut bias = [0.0; 256];
                bias[0] = f32::NAN;
                let (ids, _) = route(lab, &[0.25; 256], &bias)?;
                is(!ids.contains(&0) && ids.iter().all(|id| *id > 0), "its expert is never chosen")?;
                lab.reported(NG_STATUS_NAN_SCORE)
            },
        ]),
        row!(35, "ids that do not exist", [
            Works "Permute, -1" |lab| {
                permute_and_sum(lab, &[0, -1, 1, 2, 3, -1, -1, 0])?;
                lab.clear()
            },
            Masked "Permute" |lab| {
                let (permutation, _) = permute_and_sum(lab, &[0, 4, 1, 2, 3, i32::MAX, i32::MIN, 0])?;
                exact("counts", &permutation.counts().to_vec().map_err(text)?, &[2, 1, 1, 1])?;
                lab.reported(NG_STATUS_BAD_EXPERT)
            },
            Masked "Router, table" |lab| {
                let (logits, weights) = (lab.floats(&[4, 8]), lab.floats(&[4, 2]));
                let table = lab.tensor(&[2, 2], &[3, -1, 8, i32::MAX]);
                let tokens = lab.tensor(&[4], &[0, 1, 2, i32::MIN]);
                let ids = lab.writes::<i32>(&[4, 2], |ids, stream| {
                    Router::new(&logits, Gate::new(Scoring::SqrtSoftplus, 2), &weights, ids)
                        .table(&table, &tokens)
                        .launch(stream)
                })?;
                exact("ids", &ids, &[3, -1, -1, -1, -1, -1, -1, -1])?;
                exact("weights", &weights.to_vec().map_err(text)?, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])?;
                lab.reported(NG_STATUS_BAD_EXPERT | NG_STATUS_BAD_TOKEN | NG_STATUS_UNROUTED)
            },
            Masked "GatherRows" |lab| {
                check_gather(lab.device, [5, 4, 16], 200, ScaleLayout::RowMajor, true, 35).map(drop)
            },
            Masked "Fp8Gemm, gather" |lab| {
                let ones = |rows| lab.tensor(&[rows, 16], &vec![E4m3::from_f32(1.0); rows * 16]);
                let scales = |rows| lab.tensor(&[rows, 1], &vec![1.0; rows]);
                let a = Fp8Rows::new(ones(2), scales(2)).map_err(text)?;
                let b = Fp8Blocks::new(ones(8), scales(1)).map_err(text)?;
                let list = lab.tensor(&[5], &[1, 2, -1, i32::MIN, i32::MAX]);
                let got = lab.writes::<bf16>(&[5, 8], |out, stream| {
                    Fp8Gemm::new(&a, &b, out).gather(&list).launch(stream)
                })?;
                let rows = [16.0, 0.0, 0.0, 0.0, 0.0].map(|sum| [bf16::from_f32(sum); 8]);
                exact("rows", &got, &rows.concat())?;
                lab.reported(NG_STATUS_BAD_ROW)
            },
            Masked "Embedding" |lab| {
                let table = lab.tensor(&[3, 1], &[1.0, 2.0, 3.0].map(bf16::from_f32));
                let ids = lab.tensor(&[4], &[2, 3, -1, i32::MAX]);
                let got = lab.writes::<bf16>(&[4, 1], |out, stream| Embedding::new(&table, &ids, out).launch(stream))?;
                exact("rows", &got, &[bf16::from_f32(3.0), bf16::ZERO, bf16::ZERO, bf16::ZERO])?;
                lab.reported(NG_STATUS_BAD_TOKEN)
            },
            Masked "Embedding, drawn" |lab| {
                check_embedding(lab.device, [10, 64, 17], Place::default(), true, 35).map(drop)
            },
            Masked "Rope, positions" |lab| {
                let positions = lab.tensor(&[2], &[-1, i32::MAX]);
                let x = lab.tensor(&[2, 1, 64], &[bf16::ONE; 128]);
                let got = lab.writes::<bf16>(&[2, 1, 64], |out, stream| {
                    Rope::new(&x, &positions, &tables(lab), out).launch(stream)
                })?;
                exact("zeros", &got, &[bf16::ZERO; 128])?;
                lab.reported(NG_STATUS_BAD_POSITION)
            },
            Masked "Rope, drawn" |lab| {
                let place = Place::default();
                let problem = RopeProblem { shape: [9, 2], yarn: true, bad: true, input: place, output: place, seed: 35 };
                check_rope(lab.device, &problem).map(drop)
            },
            Masked "CacheWrite, slots" |lab| {
                let cache = LatentCache::new(lab.device, 1).map_err(text)?;
                let (latent, key) = (lab.tensor(&[2, 512], &[bf16::ONE; 1024]), lab.halves(&[2, 64]));
                let (positions, slots) = (lab.integers(&[2]), lab.tensor(&[2], &[64, i32::MIN]));
                CacheWrite::new(&latent, &key, &positions, &slots, &tables(lab), &cache)
                    .launch(&lab.stream)
                    .map_err(text)?;
                is(cache.tensor().to_vec().map_err(text)?.iter().all(|x| *x == bf16::ZERO), "the cache is untouched")?;
                lab.reported(NG_STATUS_BAD_SLOT)
            },
            Masked "CacheWrite, drawn" |lab| {
                LAYOUTS.into_iter().try_for_each(|layout| {
                    let (place, page_tokens) = (Place::default(), 64);
                    let problem = CacheProblem { tokens: 40, pages: 2, page_tokens, layout, f16: false, bad: true, place, seed: 35 };
                    check_cache_write(lab.device, &problem).map(drop)
                })
            },
        ]),
        row!(36, "an expert twice for one token", [
            Works "Permute and Combine" |lab| {
                let (_, sums) = permute_and_sum(lab, &[1, 1, 1, 1, 0, 2, 2, 3])?;
                // Rows in the order of experts: the second token's first, then the four of expert 1, then the rest.
                let want = [2.0 + 4.0 + 8.0 + 16.0, 1.0 + 32.0 + 64.0 + 128.0].map(bf16::from_f32);
                exact("each counts", &sums, &want)
            },
        ]),
        row!(37, "all tokens to one expert", [
            Works "Permute and Combine" |lab| {
                let (permutation, sums) = permute_and_sum(lab, &[3; 8])?;
                exact("counts", &permutation.counts().to_vec().map_err(text)?, &[0, 0, 0, 8])?;
                exact("sums", &sums, &[15.0, 240.0].map(bf16::from_f32))
            },
            Works "GroupedFp8Gemm" |lab| {
                Fp8Check { rows: Rows::Groups(&[0, 0, 70, 0]), ..GROUPED }.check::<bf16>(lab.device).map(drop)
            },
        ]),
        row!(
            38,
            "more tokens than an expert's capacity",
            [
                Masked "MaskedFp8Gemm" |lab| beyond_capacity(lab, [6, i32::MAX, 5]),
                Error "GatherRows, fewer rows than places" |lab| {
                    let permutation = Permutation::empty(lab.device, 2, 4, 4).map_err(text)?;
                    lab.refuses_rows([7, 64], "out", |out, stream| {
                        GatherRows::new(&lab.rows(2, 64), &permutation, out).launch(stream)
                    })
                },
                Error "Combine, fewer rows than places" |lab| {
                    let permutation = Permutation::empty(lab.device, 2, 4, 4).map_err(text)?;
                    lab.refuses::<bf16>(&[2, 64], "rows", |out, stream| {
                        let (rows, weights) = (lab.halves(&[7, 64]), lab.floats(&[2, 4]));
                        Combine::new(&rows, &permutation, &weights, out).launch(stream)
                    })
                },
            ]
        ),
        row!(39, "an expert without tokens", [
            NoOp "GroupedFp8Gemm" |lab| GROUPED.check::<bf16>(lab.device).map(drop),
            NoOp "GroupedHalfGemm, all empty" |lab| lab.does_nothing::<bf16>(&[4, 8], |out, stream| {
                GroupedHalfGemm::new(&lab.halves(&[4, 64]), &lab.halves(&[3, 8, 64]), &lab.integers(&[4]), out)
                    .launch(stream)
            }),
            NoOp "MaskedHalfGemm, all empty" |lab| lab.does_nothing::<bf16>(&[3, 4, 8], |out, stream| {
                MaskedHalfGemm::new(&lab.halves(&[3, 4, 64]), &lab.halves(&[3, 8, 64]), &lab.integers(&[3]), out)
                    .launch(stream)
            }),
            NoOp "GroupedFp8Gemm, all empty" |lab| lab.does_nothing::<bf16>(&[4, 8], |out, stream| {
                let (a, b) = (lab.zero_rows(4, 64), lab.blocks(&[3, 8, 64]));
                GroupedFp8Gemm::new(&a, &b, &lab.integers(&[4]), out).launch(stream)
            }),
        ]),
        row!(40, "offsets that decrease, leave the rows or are too few", [
            Masked "GroupedFp8Gemm, decreasing" |lab| offsets_of(lab, &[0, 8, 4, 20]),
            Masked "GroupedFp8Gemm, beyond the rows" |lab| offsets_of(lab, &[0, 8, 12, 21]),
            Masked "GroupedFp8Gemm, negative" |lab| offsets_of(lab, &[-3, 8, 12, 20]),
            Masked "GroupedFp8Gemm, nonsense" |lab| offsets_of(lab, &[i32::MAX, i32::MIN, 0, 5]),
            Masked "GroupedHalfGemm, decreasing" |lab| half_groups::offsets(lab, [0, 8, 4, 20], [8, 8, 20]),
            Masked "GroupedHalfGemm, beyond the rows" |lab| half_groups::offsets(lab, [0, 8, 12, 21], [8, 12, 20]),
            Masked "GroupedHalfGemm, nonsense" |lab| {
                half_groups::offsets(lab, [-3, i32::MIN, 7, i32::MAX], [0, 7, 20])
            },
            Error "GroupedHalfGemm, too few" |lab| half_groups::refused(lab, false, 3),
            Masked "CacheGather" |lab| {
                let (cache, out) = (LatentCache::new(lab.device, 1).map_err(text)?, lab.halves(&[8, 576]));
                let offsets = lab.tensor(&[4], &[0, 6, 4, 9]);
                CacheGather::new(&cache, &lab.integers(&[3, 1]), &offsets, &out).launch(&lab.stream).map_err(text)?;
                lab.reported(NG_STATUS_BAD_OFFSETS)
            },
            Masked "KGroupedFp8Gemm, decreasing" |lab| ranges_of(lab, [0, 256, 128, 384], [2, 0, 1]),
            Masked "KGroupedFp8Gemm, beyond K" |lab| ranges_of(lab, [0, 128, 256, 512], [1, 1, 1]),
            Masked "KGroupedFp8Gemm, negative" |lab| ranges_of(lab, [-128, 128, 256, 384], [1, 1, 1]),
            Masked "KGroupedFp8Gemm, within a block" |lab| ranges_of(lab, [0, 130, 256, 384], [1, 1, 1]),
            Masked "KGroupedFp8Gemm, nonsense" |lab| {
                ranges_of(lab, [i32::MIN, i32::MAX, 0, 5], [3, 0, 0])
            },
            Error "KGroupedFp8Gemm, too many" |lab| lab.refuses::<f32>(&[1, 8, 8], "out", |out, stream| {
                let (a, b) = (lab.zero_rows(8, 384), lab.zero_rows(8, 384));
                KGroupedFp8Gemm::new(&a, &b, &lab.integers(&[3]), out).launch(stream)
            }),
            Error "GroupedFp8Gemm, too few" |lab| lab.refuses::<bf16>(&[4, 8], "offsets", |out, stream| {
                let offsets: Tensor<i32> = lab.integers(&[3]);
                GroupedFp8Gemm::new(&lab.zero_rows(4, 64), &lab.blocks(&[3, 8, 64]), &offsets, out).launch(stream)
            }),
        ]),
        row!(41, "more rows than a group's maximum", [
            Works "Router, rows behind the tokens" |lab| {
                let mut logits = vec![f32::NAN; 3 * 8];
                logits[..8].fill(1.0);
                let ids = counted_tokens(lab, &logits, 1)?;
                exact("ids", &ids, &[0, 1, -1, -1, -1, -1])?;
                lab.clear()
            },
            Masked "Router, more tokens than rows" |lab| {
                exact("ids", &counted_tokens(lab, &[0.0; 24], 4)?, &[0, 1, 0, 1, 0, 1])?;
                lab.reported(NG_STATUS_BAD_LENGTH)
            },
            Masked "Router, negative" |lab| {
                exact("ids", &counted_tokens(lab, &[0.0; 24], -1)?, &[-1; 6])?;
                lab.reported(NG_STATUS_BAD_LENGTH)
            },
            Masked "MaskedFp8Gemm" |lab| counts_of(lab, [1, 21, 20]),
            Masked "MaskedFp8GemmSwiglu" |lab| {
                let (a, b) = (zero_groups(lab, [3, 20, 64]), lab.blocks(&[3, 256, 64]));
                let (codes, scales) = (lab.out::<E4m3>(&[3, 20, 128]), lab.out::<f32>(&[3, 20, 1]));
                let out = Fp8Rows::new(codes.view().clone(), scales.view().clone()).map_err(text)?;
                let counts = lab.tensor(&[3], &[-1, 21, i32::MAX]);
                MaskedFp8GemmSwiglu::new(&a, &b, &counts, &out).launch(&lab.stream).map_err(text)?;
                lab.reported(NG_STATUS_BAD_OFFSETS)?;
                codes.finish("the codes", &mut Default::default())?;
                scales.finish("the scales", &mut Default::default()).map(drop)
            },
            Masked "MaskedHalfGemm" |lab| half_groups::counts(lab, [1, 6, i32::MAX], [1, 5, 5]),
            Masked "MaskedHalfGemm, negative" |lab| half_groups::counts(lab, [3, -1, i32::MIN], [3, 0, 0]),
            Error "MaskedHalfGemm, too few" |lab| half_groups::refused(lab, true, 2),
            Masked "MaskedFp8Gemm, negative" |lab| counts_of(lab, [1, -1, 20]),
            Masked "MaskedFp8Gemm, nonsense" |lab| counts_of(lab, [i32::MIN, i32::MAX, 0]),
            Error "MaskedFp8Gemm, too few" |lab| lab.refuses::<bf16>(&[3, 4, 8], "counts", |out, stream| {
                let a = zero_groups(lab, [3, 4, 64]);
                MaskedFp8Gemm::new(&a, &lab.blocks(&[3, 8, 64]), &lab.integers(&[2]), out).launch(stream)
            }),
        ]),
    ]
}
