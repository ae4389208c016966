//! The router.

use super::super::surrounded::{Place, Surrounded, text};
use super::super::{Evidence, Source, exact};
use super::UNIT;
use crate::device::Device;
use crate::device::abi::{NG_STATUS_NAN_SCORE, NG_STATUS_UNROUTED};
use crate::routing::reference;
use crate::routing::{Gate, Model, Router, Scoring};

/// What logits and biases are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Normal logits, small biases of both signs.
    Normal,
    /// A few logits and no bias: ties everywhere.
    Ties,
    /// Normal logits with biases that make every biased score negative.
    Negative,
    /// Scores so small that the floor of their sum counts; biases choose.
    Faint,
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
pub const V3: Gate = Model::DeepSeekV3.gate();
/// Kimi-K2's gate.
pub const K2: Gate = Model::KimiK2.gate();

/// Runs one routing.
pub fn check_router(device: &Device, problem: &RouterProblem) -> Result<Evidence, String> {
    let RouterProblem { tokens, experts, gate, scores, place, seed } = *problem;
    let mut source = Source::new(seed);
    let bias: Vec<f32> = (0..experts)
        .map(|_| match scores {
            Scores::Normal | Scores::Faint => source.uniform(-0.25, 0.25),
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
        Scores::Faint => source.uniform(-50.0, -44.0),
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
    check_rows(device, [tokens, experts], &logits, Some(&bias), &gate, place)
}

/// The router of a published model on drawn logits, with a bias where the model has one.
pub fn check_model(device: &Device, model: Model, tokens: usize, seed: u64) -> Result<Evidence, String> {
    let preset = model.preset();
    let mut source = Source::new(seed);
    let logits = source.normals(tokens * preset.experts, 2.0);
    let bias = source.uniforms(preset.experts, -0.25, 0.25);
    let bias = preset.bias.then_some(&bias[..]);
    check_rows(device, [tokens, preset.experts], &logits, bias, &preset.gate, Place::default())
        .map_err(|error| format!("{}, seed {seed}: {error}", preset.name))
}

/// Routes these logits. Where the choice is clear, ids are those of the oracle; where scores are closer than rounding, the
/// chosen experts have the scores of the oracle's within it (tokens whose groups are that close are only checked for
/// sanity). Weights are those of the chosen experts within 2 ulp.
pub fn check_rows(
    device: &Device,
    [tokens, experts]: [usize; 2],
    logits: &[f32],
    bias: Option<&[f32]>,
    gate: &Gate,
    place: Place,
) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let none = vec![0.0; experts];
    let known = bias.unwrap_or(&none);
    let input = Surrounded::input(device, &[tokens, experts], place, logits).map_err(text)?;
    let biases = Surrounded::input(device, &[experts], Place::default(), known).map_err(text)?;
    let weights = Surrounded::output(device, &[tokens, gate.slots], Place::default()).map_err(text)?;
    let ids = Surrounded::output(device, &[tokens, gate.slots], Place::default()).map_err(text)?;
    let stream = device.stream();
    let mut router = Router::new(input.view(), *gate, weights.view(), ids.view());
    if bias.is_some() {
        router = router.bias(biases.view());
    }
    router.launch(&stream).map_err(text)?;
    let weights = weights.finish("weights", &mut evidence)?;
    let ids = ids.finish("ids", &mut evidence)?;

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
        let want = reference::route(row, known, gate);
        let scores = reference::scores(row, gate.scoring);
        let largest = scores.iter().zip(known).map(|(score, bias)| score.abs() + f64::from(bias.abs()));
        // A score is off by 8 roundings of itself or of 1, a biased score by one more, a group's score by two such and one:
        // a choice whose margin is twice that cannot change.
        let ambiguous = match gate.scoring {
            Scoring::Logits => 0.0,
            _ => 40.0 * UNIT * largest.filter(|x| x.is_finite()).fold(1.0, f64::max),
        };
        if want.margin >= ambiguous {
            evidence.exact(&format!("ids of token {token}"), got_ids, &want.ids)?;
        } else if want.group_margin >= ambiguous {
            for (slot, want) in want.scores.iter().enumerate() {
                let got = usize::try_from(got_ids[slot]).map(|id| scores[id] + f64::from(known[id]));
                let near = got.is_ok_and(|got| got == *want || (got - want).abs() <= ambiguous);
                if !near {
                    return Err(format!(
                        "token {token}, slot {slot}: ids {got_ids:?}, a score of {want} wanted"
                    ));
                }
            }
        }
        let want = reference::weights(row, got_ids, gate);
        let ulp = |w: f64| 2f64.powi(w.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor() as i32 - 23);
        let bound: Vec<_> = want
            .iter()
            .map(|w| if w.abs() < 2f64.powi(-100) { 2f64.powi(-124) } else { 2.0 * ulp(*w) })
            .collect();
        evidence.within(&format!("weights of token {token}"), got_weights, &want, &bound)?;
    }
    let nan = logits.iter().any(|x| x.is_nan());
    let status = if nan { NG_STATUS_NAN_SCORE } else { 0 } | if unrouted { NG_STATUS_UNROUTED } else { 0 };
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}
