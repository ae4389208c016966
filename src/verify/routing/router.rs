//! The router.

use super::super::surrounded::{Place, Surrounded, text};
use super::super::{Evidence, Source, exact};
use super::UNIT;
use crate::device::Device;
use crate::device::abi::{NG_STATUS_NAN_SCORE, NG_STATUS_UNROUTED};
use crate::routing::Router;
use crate::routing::reference::{self, Gate};

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
pub const V3: Gate = Gate { slots: 8, groups: 8, kept_groups: 4, normalize: true, scale: 2.5 };
/// Kimi-K2's gate.
pub const K2: Gate = Gate { slots: 8, groups: 1, kept_groups: 1, normalize: true, scale: 2.827 };

/// Runs one routing. Tokens whose choices are too close to a tie are only checked for sanity: the evidence counts the others,
/// an id and a weight for every slot.
pub fn check_router(device: &Device, problem: &RouterProblem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
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
    let weights = weights.finish("weights", &mut evidence)?;
    let ids = ids.finish("ids", &mut evidence)?;

    // A sigmoid is off by 8 roundings (4 of them the exponential's), a biased score by one more, a group's score by two such
    // and one: a choice whose margin is twice that cannot change.
    let largest =
        bias.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(1.0 + f64::from(b.abs())));
    let ambiguous = 40.0 * UNIT * largest;
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
        evidence.exact(&format!("ids of token {token}"), got_ids, &want.ids)?;
        let relative = (gate.slots as f64 + 16.0) * UNIT;
        // Scores below f32's smallest numbers vanish, of all slots if need be; only the floor of the sum divides them.
        let vanished =
            gate.slots as f64 * f64::from(f32::from_bits(1)) / reference::SUM_FLOOR * gate.scale.abs();
        let bound: Vec<_> = want.weights.iter().map(|w| relative * w.abs() + vanished).collect();
        evidence.within(&format!("weights of token {token}"), got_weights, &want.weights, &bound)?;
    }
    let nan = logits.iter().any(|x| x.is_nan());
    let status = if nan { NG_STATUS_NAN_SCORE } else { 0 } | if unrouted { NG_STATUS_UNROUTED } else { 0 };
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}
