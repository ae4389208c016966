//! The cases of this family.

use super::super::surrounded::Place;
use super::super::{Case, Evidence, Source};
use super::properties::{Property, holds};
use super::{
    CombineProblem, K2, RouterProblem, Scores, SwigluProblem, V3, check_combine, check_gather, check_model,
    check_permute, check_round_trip, check_router, check_rows, check_swiglu,
};
use crate::device::Device;
use crate::fp8::ScaleLayout;
use crate::routing::{Gate, GroupScore, Model, Scoring, Weights};

type Outcome = Result<Evidence, String>;

const PLAIN: Place = Place { offset: 0, padding: 0 };
const ODD: Place = Place { offset: 1, padding: 3 };
const ROUTER: RouterProblem =
    RouterProblem { tokens: 9, experts: 256, gate: V3, scores: Scores::Normal, place: PLAIN, seed: 1 };
const SWIGLU: SwigluProblem = SwigluProblem {
    rows: 6,
    columns: 2048,
    gap: 0,
    power_of_two: false,
    unrouted: false,
    place: PLAIN,
    seed: 1,
};
const COMBINE: CombineProblem = CombineProblem {
    shape: [4, 8, 32],
    columns: 7168,
    shared: true,
    exact: false,
    bad: false,
    place: PLAIN,
    seed: 1,
};

/// Routings that must be far enough from ties to be compared.
fn compared(outcome: Outcome) -> Outcome {
    match outcome? {
        evidence if evidence.exact == 0 => {
            Err("no token was far enough from a tie to be compared".to_owned())
        }
        evidence => Ok(evidence),
    }
}

/// Any gate that the router takes.
fn drawn_router(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x6A7E);
    let groups = [1, 2 + source.below(31)][source.below(2)];
    let size = 1 + source.below(1024 / groups);
    let kept_groups = 1 + source.below(groups);
    let scoring =
        [Scoring::Sigmoid, Scoring::Softmax, Scoring::SqrtSoftplus, Scoring::Logits][source.below(4)];
    // Logits of both signs have no sum to divide by.
    let weights = match scoring {
        Scoring::Logits => [Weights::Scores, Weights::SoftmaxOfChosen][source.below(2)],
        _ => [Weights::Scores, Weights::Normalized, Weights::SoftmaxOfChosen][source.below(3)],
    };
    let gate = Gate::new(scoring, 1 + source.below(32.min(size * kept_groups)))
        .groups(groups, kept_groups, [GroupScore::TopTwo, GroupScore::Max][source.below(2)])
        .weights(weights)
        .scale(source.uniform(0.5, 3.0));
    let scores = [Scores::Normal, Scores::Ties, Scores::Negative, Scores::Wild][source.below(4)];
    let (tokens, experts) = (1 + source.below(12), groups * size);
    check_router(device, &RouterProblem { tokens, experts, gate, scores, place: Place::draw(source), seed })
}

/// All rows of up to five experts with logits of three values, at every k: ties of all kinds.
fn every_small_row(device: &Device) -> Outcome {
    let mut all = Evidence::default();
    for experts in 1..=5usize {
        let rows = 3usize.pow(experts as u32);
        let digit = |at: usize| at / experts / 3usize.pow((at % experts) as u32) % 3;
        let logits: Vec<_> = (0..rows * experts).map(|at| digit(at) as f32 - 1.0).collect();
        for k in 1..=experts {
            for scoring in [Scoring::Sigmoid, Scoring::Softmax, Scoring::SqrtSoftplus, Scoring::Logits] {
                let gate = Gate::new(scoring, k).weights(Weights::SoftmaxOfChosen);
                all.add(&check_rows(device, [rows, experts], &logits, None, &gate, PLAIN)?);
            }
        }
    }
    Ok(all)
}

/// Permutation, gather, SwiGLU and sum on one drawn shape each.
fn drawn_experts(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x1E47);
    let experts = [1 + source.below(40), 200 + source.below(313)][source.below(2)];
    let shape = [1 + source.below(20), 1 + source.below(16), experts];
    let columns = source.columns(700);
    let layout = [ScaleLayout::RowMajor, ScaleLayout::MnMajor][source.below(2)];
    let bad = source.below(2) == 0;
    let mut all = check_permute(device, shape, bad, seed)?;
    all.add(&check_gather(device, shape, columns, layout, bad, seed)?);
    let swiglu = SwigluProblem {
        rows: 2 * (1 + source.below(6)),
        columns,
        gap: source.below(70),
        power_of_two: source.below(2) == 0,
        unrouted: source.below(2) == 0,
        place: Place::draw(source),
        seed,
    };
    all.add(&check_swiglu(device, &swiglu)?);
    let combine = CombineProblem {
        shape,
        columns,
        shared: source.below(2) == 0,
        exact: source.below(2) == 0,
        bad,
        place: Place::draw(source),
        seed,
    };
    all.add(&check_combine(device, &combine)?);
    Ok(all)
}

fn every_property(device: &Device, seed: u64) -> Outcome {
    let tokens = 1 + Source::new(seed).below(20);
    let mut all = Evidence::default();
    for property in Property::ALL {
        all.add(&holds(device, property, tokens, seed)?);
    }
    Ok(all)
}

/// Cases that suit any device.
pub(in crate::verify) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, |$device:ident, $seed:ident| $run:expr) => {
            Case { family: "routing", name: $name, run: |$device, $seed| $run }
        };
        ($name:literal, $check:ident, $problem:expr) => {
            case!($name, |device, seed| {
                let mut problem = $problem;
                problem.seed = seed;
                $check(device, &problem)
            })
        };
    }
    vec![
        case!("router of DeepSeek-V3", |device, seed| {
            compared(check_router(device, &RouterProblem { seed, ..ROUTER }))
        }),
        case!("router of Kimi-K2", |device, seed| {
            let problem = RouterProblem { experts: 384, gate: K2, place: ODD, seed, ..ROUTER };
            compared(check_router(device, &problem))
        }),
        case!("router, 160 experts in 8 groups, ties", |device, seed| {
            let gate = Gate { slots: 6, kept_groups: 3, ..V3 }.weights(Weights::Scores);
            let problem = RouterProblem { experts: 160, gate, scores: Scores::Ties, seed, ..ROUTER };
            compared(check_router(device, &problem))
        }),
        case!("router, negative scores", |device, seed| {
            compared(check_router(device, &RouterProblem { scores: Scores::Negative, seed, ..ROUTER }))
        }),
        case!("router, scores near the floor of their sum", |device, seed| {
            compared(check_router(device, &RouterProblem { scores: Scores::Faint, seed, ..ROUTER }))
        }),
        case!(
            "router, NaN and infinities",
            check_router,
            RouterProblem { scores: Scores::Wild, tokens: 30, ..ROUTER }
        ),
        case!("permutation of 128x8 entries", |device, seed| check_permute(
            device,
            [128, 8, 256],
            false,
            seed
        )),
        case!("permutation of 700x8 entries in three passes", |device, seed| {
            check_permute(device, [700, 8, 256], true, seed)
        }),
        case!("gather of 5x4 rows of 7168", |device, seed| {
            check_gather(device, [5, 4, 16], 7168, ScaleLayout::MnMajor, true, seed)
        }),
        // More groups of columns than threads.
        case!("gather of a row of 33024", |device, seed| {
            check_gather(device, [1, 1, 4], 33_024, ScaleLayout::RowMajor, false, seed)
        }),
        case!("swiglu 6x2048", check_swiglu, SWIGLU),
        case!(
            "swiglu 6x1408, powers of two, padded gate",
            check_swiglu,
            SwigluProblem { columns: 1408, gap: 128, power_of_two: true, ..SWIGLU }
        ),
        // More than 127 groups of columns, and a last group of one column.
        case!("swiglu 2x18432", check_swiglu, SwigluProblem { rows: 2, columns: 18_432, ..SWIGLU }),
        case!("gather and swiglu of 257 columns", |device, seed| {
            let mut all = check_gather(device, [5, 4, 16], 257, ScaleLayout::RowMajor, true, seed)?;
            all.add(&check_swiglu(device, &SwigluProblem { columns: 257, seed, ..SWIGLU })?);
            Ok(all)
        }),
        case!(
            "swiglu with rows that nobody was routed to",
            check_swiglu,
            SwigluProblem { columns: 200, unrouted: true, place: ODD, ..SWIGLU }
        ),
        case!("combine 4x8 of 7168", check_combine, COMBINE),
        case!(
            "combine of exact sums, some without expert",
            check_combine,
            CombineProblem { columns: 100, exact: true, bad: true, place: ODD, ..COMBINE }
        ),
        case!("permutation and combination are inverse", |device, seed| {
            check_round_trip(device, [9, 7], 512, seed)
        }),
        case!("routers of published models", |device, seed| {
            let mut all = Evidence::default();
            for model in Model::ALL {
                all.add(&check_model(device, model, 20, seed)?);
            }
            Ok(all)
        }),
        case!("router, every row of five logits of three", |device, _seed| every_small_row(device)),
        case!("router, a drawn gate", |device, seed| drawn_router(device, seed)),
        case!("experts, drawn shapes", |device, seed| drawn_experts(device, seed)),
        case!("order, ties, bijection, sums, graphs", |device, seed| every_property(device, seed)),
    ]
}
