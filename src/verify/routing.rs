//! Routing against its oracles: ids, orders and copies exactly, weights and sums within derived bounds.

use super::quant::Fp8Output;
use super::surrounded::{Place, Surrounded, bits, rounded_to_bf16, text};
use super::{Case, Source, exact, within};
use crate::device::Device;
use crate::device::abi::{NG_STATUS_BAD_EXPERT, NG_STATUS_NAN_SCORE, NG_STATUS_UNROUTED};
use crate::dtype::{E4m3, bf16};
use crate::fp8::{Fp8Rows, ScaleLayout};
use crate::quant::reference as quantization;
use crate::routing::reference::{self, Gate, Order, Parts};
use crate::routing::{Combine, GatherRows, Permutation, Permute, Router, SwigluQuantize};

/// The unit roundoff of f32.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// What logits and biases are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Normal logits, small biases of both signs.
    Normal,
    /// A few logits and no bias: ties everywhere.
    Ties,
    /// Normal logits with biases that make every biased score negative.
    Negative,
    /// NaN, infinities and large numbers; some rows of nothing but NaN.
    Wild,
}

/// One routing.
#[derive(Debug, Clone, Copy)]
pub struct RouterProblem {
    /// T.
    pub tokens: usize,
    /// E.
    pub experts: usize,
    /// k, groups, kept groups, normalisation and scale.
    pub gate: Gate,
    /// What scores are like.
    pub scores: Scores,
    /// How logits lie.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// DeepSeek-V3's gate.
pub const V3: Gate = Gate { slots: 8, groups: 8, kept_groups: 4, normalize: true, scale: 2.5 };
/// Kimi-K2's gate.
pub const K2: Gate = Gate { slots: 8, groups: 1, kept_groups: 1, normalize: true, scale: 2.827 };

/// Runs one routing. Returns how many tokens' choices were far enough from a tie to be compared exactly.
pub fn check_router(device: &Device, problem: &RouterProblem) -> Result<usize, String> {
    let RouterProblem { tokens, experts, gate, scores, place, seed } = *problem;
    let mut source = Source::new(seed);
    let bias: Vec<f32> = (0..experts)
        .map(|_| match scores {
            Scores::Normal => source.uniform(-0.25, 0.25),
            Scores::Ties => 0.0,
            Scores::Negative => source.uniform(-4.0, -2.0),
            Scores::Wild => match source.below(40) {
                0 => f32::INFINITY,
                1..4 => f32::NEG_INFINITY,
                _ => source.uniform(-1.0, 1.0),
            },
        })
        .collect();
    let mut logit = |token: usize| match scores {
        Scores::Ties => source.integer(-2, 2),
        Scores::Wild => match (token % 3, source.below(8)) {
            (0, _) | (_, 0) => f32::NAN,
            (_, 1) => f32::INFINITY,
            (_, 2) => f32::NEG_INFINITY,
            (_, 3) => -200.0,
            _ => source.normal(),
        },
        _ => 2.0 * source.normal(),
    };
    let logits: Vec<f32> = (0..tokens * experts).map(|index| logit(index / experts)).collect();
    let gate = Gate { scale: f64::from(gate.scale as f32), ..gate };

    let input = Surrounded::input(device, &[tokens, experts], place, &logits).map_err(text)?;
    let biases = Surrounded::input(device, &[experts], Place::default(), &bias).map_err(text)?;
    let weights = Surrounded::output(device, &[tokens, gate.slots], Place::default()).map_err(text)?;
    let ids = Surrounded::output(device, &[tokens, gate.slots], Place::default()).map_err(text)?;
    let stream = device.stream();
    Router::new(input.view(), biases.view(), weights.view(), ids.view())
        .groups(gate.groups, gate.kept_groups)
        .normalize(gate.normalize)
        .scale(gate.scale as f32)
        .launch(&stream)
        .map_err(text)?;
    let (weights, ids) = (weights.finish("weights")?, ids.finish("ids")?);

    // A sigmoid is off by 8 roundings (4 of them the exponential's), a biased score by one more, a group's score by two such
    // and one: a choice whose margin is twice that cannot change.
    let largest =
        bias.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(1.0 + f64::from(b.abs())));
    let ambiguous = 40.0 * UNIT * largest;
    let mut compared = 0;
    let mut unrouted = false;
    for (token, row) in logits.chunks(experts).enumerate() {
        let slots = token * gate.slots..(token + 1) * gate.slots;
        let (got_ids, got_weights) = (&ids[slots.clone()], &weights[slots]);
        let mut chosen: Vec<_> = got_ids.iter().filter(|id| **id != -1).collect();
        chosen.sort_unstable();
        chosen.dedup();
        let routed = got_ids.iter().filter(|id| **id != -1).count();
        if chosen.len() != routed || chosen.iter().any(|id| !(0..experts as i32).contains(*id)) {
            return Err(format!("token {token}: ids {got_ids:?} repeat or leave 0..{experts}"));
        }
        unrouted |= routed < gate.slots;
        let want = reference::route(row, &bias, &gate);
        if want.margin < ambiguous {
            continue;
        }
        compared += 1;
        exact(&format!("ids of token {token}"), got_ids, &want.ids)?;
        let relative = (gate.slots as f64 + 16.0) * UNIT;
        // Scores below f32's smallest numbers vanish; divided by 1e-20 that is still nothing.
        let bound: Vec<_> =
            want.weights.iter().map(|w| relative * w.abs() + 1e-24 * gate.scale.abs()).collect();
        within(&format!("weights of token {token}"), got_weights, &want.weights, &bound)?;
    }
    let nan = logits.iter().any(|x| x.is_nan());
    let status = if nan { NG_STATUS_NAN_SCORE } else { 0 } | if unrouted { NG_STATUS_UNROUTED } else { 0 };
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(compared)
}

/// Ids as a router or a caller may give them: random experts, with -1 and nonsense among them where `bad` says so.
pub fn draw_ids(entries: usize, experts: usize, bad: bool, seed: u64) -> Vec<i32> {
    let mut source = Source::new(seed);
    let outside = [-1, experts as i32, i32::MIN, i32::MAX];
    (0..entries)
        .map(|_| match source.below(5) {
            0 if bad => outside[source.below(4)],
            _ => source.below(experts) as i32,
        })
        .collect()
}

fn permuted(
    device: &Device,
    [tokens, slots, experts]: [usize; 3],
    ids: &[i32],
) -> Result<(Permutation, Order), String> {
    let permutation = Permutation::empty(device, tokens, slots, experts).map_err(text)?;
    permute(device, &permutation, ids)?;
    Ok((permutation, reference::permute(ids, experts)))
}

fn permute(device: &Device, permutation: &Permutation, ids: &[i32]) -> Result<(), String> {
    let shape = [permutation.tokens(), permutation.slots()];
    let input = Surrounded::input(device, &shape, Place::default(), ids).map_err(text)?;
    Permute::new(input.view(), permutation).launch(&device.stream()).map_err(text)
}

/// Orders two sets of entries by expert, into the same memory, and compares everything with the oracle.
pub fn check_permute(device: &Device, shape: [usize; 3], bad: bool, seed: u64) -> Result<(), String> {
    let [tokens, slots, experts] = shape;
    let permutation = Permutation::empty(device, tokens, slots, experts).map_err(text)?;
    let stream = device.stream();
    let entries = tokens * slots;
    // The last without a third of its entries, which is nothing to report.
    let mut partly = draw_ids(entries, experts, false, seed ^ 1);
    partly.iter_mut().step_by(3).for_each(|id| *id = -1);
    for ids in [draw_ids(entries, experts, bad, seed), partly] {
        permute(device, &permutation, &ids)?;
        let want = reference::permute(&ids, experts);
        exact("counts", &permutation.counts().to_vec().map_err(text)?, &want.counts)?;
        exact("offsets", &permutation.offsets().to_vec().map_err(text)?, &want.offsets)?;
        exact("source", &permutation.source().to_vec().map_err(text)?, &want.source)?;
        exact("position", &permutation.position().to_vec().map_err(text)?, &want.position)?;
        let outside = ids.iter().any(|id| *id != -1 && !(0..experts as i32).contains(id));
        let status = if outside { NG_STATUS_BAD_EXPERT } else { 0 };
        exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    }
    Ok(())
}

/// Gathers FP8 rows in the order of a permutation.
pub fn check_gather(
    device: &Device,
    shape: [usize; 3],
    columns: usize,
    layout: ScaleLayout,
    bad: bool,
    seed: u64,
) -> Result<(), String> {
    let [tokens, slots, experts] = shape;
    let (permutation, order) = permuted(device, shape, &draw_ids(tokens * slots, experts, bad, seed))?;
    let groups = columns.div_ceil(128);
    let mut source = Source::new(seed);
    let codes: Vec<_> = (0..tokens * columns).map(|_| E4m3::from_bits(source.bits() as u8)).collect();
    let scales = source.powers(tokens * groups, -10, 10);
    let place = Place { offset: 0, padding: columns.next_multiple_of(16) - columns };
    let data = Surrounded::input(device, &[tokens, columns], place, &codes).map_err(text)?;
    let scale_rows = Surrounded::input(device, &[tokens, groups], Place::default(), &scales).map_err(text)?;
    let rows = Fp8Rows::new(data.view().clone(), scale_rows.view().clone()).map_err(text)?;
    let out = Fp8Output::new(device, tokens * slots, columns, layout).map_err(text)?;
    GatherRows::new(&rows, &permutation, &out.rows).launch(&device.stream()).map_err(text)?;
    let (got_codes, got_scales) = out.finish()?;
    let token = |entry: &i32| usize::try_from(*entry).ok().map(|entry| entry / slots);
    let row = |entry| match token(entry) {
        Some(token) => {
            codes[token * columns..(token + 1) * columns].iter().map(|code| code.to_bits()).collect()
        }
        None => vec![0; columns],
    };
    let scale_row = |entry| match token(entry) {
        Some(token) => scales[token * groups..(token + 1) * groups].to_vec(),
        None => vec![0.0; groups],
    };
    exact("codes", &got_codes, &order.source.iter().flat_map(row).collect::<Vec<_>>())?;
    exact("scales", &got_scales, &order.source.iter().flat_map(scale_row).collect::<Vec<_>>())?;
    device.stream().status().map(drop).map_err(text)
}

/// One SwiGLU with quantisation.
#[derive(Debug, Clone, Copy)]
pub struct SwigluProblem {
    /// Rows; a multiple of two where some are not routed.
    pub rows: usize,
    /// I.
    pub columns: usize,
    /// Columns between gate and up.
    pub gap: usize,
    /// Whether scales are powers of two.
    pub power_of_two: bool,
    /// Whether the last rows belong to no entry; the memory there is NaN.
    pub unrouted: bool,
    /// How the input lies.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// Runs one SwiGLU with quantisation. Scales may differ by the error of the activation, codes by what that error and the
/// scale that came out allow: mostly not at all.
pub fn check_swiglu(device: &Device, problem: &SwigluProblem) -> Result<(), String> {
    let SwigluProblem { rows, columns, gap, power_of_two, unrouted, place, seed } = *problem;
    let mut source = Source::new(seed);
    let width = 2 * columns + gap;
    let valid = if unrouted { rows / 2 } else { rows };
    let mut input = Source::to_bf16(&source.normals(rows * width, 4.0));
    input[valid * width..].fill(bf16::NAN);
    for row in input.chunks_mut(width.max(1)) {
        row[columns..columns + gap].fill(bf16::NAN);
    }
    let gate_up = Surrounded::input(device, &[rows, width], place, &input).map_err(text)?;
    let out = Fp8Output::new(device, rows, columns, ScaleLayout::MnMajor).map_err(text)?;
    let stream = device.stream();
    let mut swiglu =
        SwigluQuantize::new(gate_up.view(), &out.rows).up_offset(columns + gap).power_of_two(power_of_two);
    let permutation;
    if unrouted {
        let ids: Vec<_> = (0..rows).map(|row| if row % 2 == 0 { 0 } else { -1 }).collect();
        (permutation, _) = permuted(device, [rows / 2, 2, 4], &ids)?;
        swiglu = swiglu.permutation(&permutation);
    }
    swiglu.launch(&stream).map_err(text)?;
    let (codes, scales) = out.finish()?;

    // Exponential 4 roundings, its sum with 1 one more, division and product one each, and one to spare.
    let error = 8.0 * UNIT;
    let wide: Vec<_> = input.iter().map(|x| x.to_f64()).collect();
    let groups = columns.div_ceil(128);
    for row in 0..rows {
        for group in 0..groups {
            let range = group * 128..columns.min((group + 1) * 128);
            let values: Vec<_> = range
                .clone()
                .map(|column| match row < valid {
                    true => {
                        let at = row * width + column;
                        reference::swiglu(wide[at], wide[at + columns + gap])
                    }
                    false => 0.0,
                })
                .collect();
            let scale = scales[row * groups + group];
            let scale_of = |error: f64| {
                let values: Vec<_> = values.iter().map(|value| value * (1.0 + error)).collect();
                quantization::scale(&values, power_of_two)
            };
            let (low, high) = (scale_of(-error), scale_of(error));
            if !(low..=high).contains(&scale) {
                return Err(format!(
                    "scale of row {row}, group {group}: got {scale:e}, want {low:e} to {high:e}"
                ));
            }
            for (column, value) in range.zip(values) {
                // The reciprocal of the scale and the product round once each.
                let encode = |sign: f64| {
                    let scaled = value / f64::from(scale);
                    quantization::decode_e4m3(quantization::encode_e4m3(
                        scaled * (1.0 + sign * (error + 3.0 * UNIT)),
                    ))
                };
                let (a, b) = (encode(-1.0), encode(1.0));
                let got = quantization::decode_e4m3(codes[row * columns + column]);
                if !(a.min(b)..=a.max(b)).contains(&got) {
                    return Err(format!(
                        "row {row}, column {column}: got {got}, want {a} to {b} of {value:e} / {scale:e}"
                    ));
                }
            }
        }
    }
    exact("status", &[stream.status().map_err(text)?.bits()], &[0])
}

/// One weighted sum.
#[derive(Debug, Clone, Copy)]
pub struct CombineProblem {
    /// T, k and E.
    pub shape: [usize; 3],
    /// H.
    pub columns: usize,
    /// Whether shared experts are added.
    pub shared: bool,
    /// Whether values are integers and weights powers of two, so that the sum is exact.
    pub exact: bool,
    /// Whether some ids are outside the experts.
    pub bad: bool,
    /// How inputs and output lie.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// Runs one weighted sum.
pub fn check_combine(device: &Device, problem: &CombineProblem) -> Result<(), String> {
    let CombineProblem { shape, columns, shared, exact: exact_values, bad, place, seed } = *problem;
    let [tokens, slots, experts] = shape;
    let entries = tokens * slots;
    let (permutation, order) = permuted(device, shape, &draw_ids(entries, experts, bad, seed))?;
    let mut source = Source::new(seed);
    let mut draw = |len| match exact_values {
        true => source.integers(len, 8),
        false => source.normals(len, 3.0),
    };
    let mut rows = Source::to_bf16(&draw(entries * columns));
    let shared_rows = Source::to_bf16(&draw(tokens * columns));
    // No entry was routed to the rows behind the last offset.
    rows[order.offsets[experts] as usize * columns..].fill(bf16::NAN);
    let weights: Vec<f32> = match exact_values {
        true => source.powers(entries, -2, 1),
        false => source.uniforms(entries, 0.0, 1.0),
    };
    let inputs = Surrounded::input(device, &[entries, columns], place, &rows).map_err(text)?;
    let added =
        Surrounded::input(device, &[tokens, columns], Place::default(), &shared_rows).map_err(text)?;
    let factors = Surrounded::input(device, &[tokens, slots], Place::default(), &weights).map_err(text)?;
    let out = Surrounded::output(device, &[tokens, columns], place).map_err(text)?;
    let mut combine = Combine::new(inputs.view(), &permutation, factors.view(), out.view());
    if shared {
        combine = combine.shared(added.view());
    }
    combine.launch(&device.stream()).map_err(text)?;
    let got = out.finish("sums")?;

    let wide = |values: &[bf16]| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let (rows, shared_rows) = (wide(&rows), wide(&shared_rows));
    let weights: Vec<_> = weights.iter().map(|w| f64::from(*w)).collect();
    let (mut want, mut bound) = (Vec::new(), Vec::new());
    for token in 0..tokens {
        let (sums, magnitudes) = reference::combine(&Parts {
            rows: &rows,
            columns,
            position: &order.position[token * slots..(token + 1) * slots],
            weights: &weights[token * slots..(token + 1) * slots],
            shared: shared.then(|| &shared_rows[token * columns..(token + 1) * columns]),
        });
        for (sum, magnitude) in sums.into_iter().zip(magnitudes) {
            // A chain of k fused multiply-adds and an addition.
            let error = if exact_values { 0.0 } else { (slots + 1) as f64 * UNIT * magnitude };
            let (rounded, off) = rounded_to_bf16(sum, error);
            want.push(rounded);
            bound.push(off);
        }
    }
    let got: Vec<_> = got.iter().map(|x| x.to_f32()).collect();
    within("sums", &got, &want, &bound)?;
    device.stream().status().map(drop).map_err(text)
}

/// Gathers rows to experts that do nothing, and combines them with weights that sum to one: the tokens come back.
pub fn check_round_trip(
    device: &Device,
    [tokens, experts]: [usize; 2],
    columns: usize,
    seed: u64,
) -> Result<(), String> {
    const SLOTS: usize = 4;
    let (permutation, order) =
        permuted(device, [tokens, SLOTS, experts], &draw_ids(tokens * SLOTS, experts, false, seed))?;
    let mut source = Source::new(seed);
    let x = Source::to_bf16(&source.normals(tokens * columns, 1.0));
    let moved: Vec<_> = order
        .source
        .iter()
        .flat_map(|entry| x[*entry as usize / SLOTS * columns..][..columns].iter().copied())
        .collect();
    let rows =
        Surrounded::input(device, &[tokens * SLOTS, columns], Place::default(), &moved).map_err(text)?;
    let weights = device.full(&[tokens, SLOTS], 0.25).map_err(text)?;
    let out = Surrounded::output(device, &[tokens, columns], Place::default()).map_err(text)?;
    Combine::new(rows.view(), &permutation, &weights, out.view()).launch(&device.stream()).map_err(text)?;
    exact("tokens", &bits(&out.finish("tokens")?), &bits(&x))
}

/// The quick cases.
pub(super) fn cases() -> Vec<Case> {
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
    fn some(compared: Result<usize, String>) -> Result<(), String> {
        match compared? {
            0 => Err("no token was far enough from a tie to be compared".to_owned()),
            _ => Ok(()),
        }
    }
    macro_rules! case {
        ($name:literal, |$device:ident| $run:expr) => {
            Case { family: "routing", name: $name, run: |$device| $run }
        };
    }
    vec![
        case!("router of DeepSeek-V3", |device| some(check_router(device, &ROUTER))),
        case!("router of Kimi-K2", |device| some(check_router(
            device,
            &RouterProblem { experts: 384, gate: K2, place: ODD, ..ROUTER }
        ))),
        case!("router, 160 experts in 8 groups, ties", |device| some(check_router(
            device,
            &RouterProblem {
                experts: 160,
                gate: Gate { slots: 6, kept_groups: 3, normalize: false, ..V3 },
                scores: Scores::Ties,
                ..ROUTER
            }
        ))),
        case!("router, negative scores", |device| some(check_router(
            device,
            &RouterProblem { scores: Scores::Negative, ..ROUTER }
        ))),
        case!("router, NaN and infinities", |device| check_router(
            device,
            &RouterProblem { scores: Scores::Wild, ..ROUTER }
        )
        .map(drop)),
        case!("permutation of 128x8 entries", |device| check_permute(device, [128, 8, 256], false, 1)),
        case!("permutation of 700x8 entries in three passes", |device| check_permute(
            device,
            [700, 8, 256],
            true,
            2
        )),
        case!("permutation of no tokens", |device| check_permute(device, [0, 8, 5], false, 3)),
        case!("gather of 5x4 rows of 7168", |device| check_gather(
            device,
            [5, 4, 16],
            7168,
            ScaleLayout::MnMajor,
            true,
            1
        )),
        case!("swiglu 6x2048", |device| check_swiglu(device, &SWIGLU)),
        case!("swiglu 6x1408, powers of two, padded gate", |device| check_swiglu(
            device,
            &SwigluProblem { columns: 1408, gap: 128, power_of_two: true, ..SWIGLU }
        )),
        case!("swiglu with rows that nobody was routed to", |device| check_swiglu(
            device,
            &SwigluProblem { columns: 200, unrouted: true, place: ODD, ..SWIGLU }
        )),
        case!("combine 4x8 of 7168", |device| check_combine(device, &COMBINE)),
        case!("combine of exact sums, some without expert", |device| check_combine(
            device,
            &CombineProblem { columns: 100, exact: true, bad: true, place: ODD, ..COMBINE }
        )),
        case!("permutation and combination are inverse", |device| check_round_trip(device, [9, 7], 512, 1)),
    ]
}
