//! The choice of experts.

use super::gate::{Gate, GroupScore, Scoring, Weights};
use super::{check_experts, check_slots, plan};
use crate::device::abi::{
    NG_FLOAT_BF16, NG_FLOAT_F32, NG_SCORING_LOGITS, NG_SCORING_SIGMOID, NG_SCORING_SOFTMAX,
    NG_SCORING_SQRT_SOFTPLUS, NG_WEIGHTS_NORMALIZED, NG_WEIGHTS_SCORES, NG_WEIGHTS_SOFTMAX, NgRouterParams,
};
use crate::device::{KernelLaunch, Stream};
use crate::dtype::{Element, bf16};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, rows_aligned};

mod sealed {
    pub trait Logit {
        const TYPE: u32;
    }
}

/// What router logits may be: f32, or [`bf16`], which is widened first.
pub trait Logit: Element + sealed::Logit {}

impl sealed::Logit for f32 {
    const TYPE: u32 = NG_FLOAT_F32;
}
impl Logit for f32 {}

impl sealed::Logit for bf16 {
    const TYPE: u32 = NG_FLOAT_BF16;
}
impl Logit for bf16 {}

/// Chooses k experts for each token and weighs them, as a [`Gate`] says.
///
/// All in f32: each expert has a score of its logit ([`Scoring`]); `biased = score + bias`, where there is a
/// [`bias`](Self::bias). With more than one group, groups are ranked by their biased scores and the best are kept; of their
/// experts the k with the best biased scores are taken, best first. The lower index wins every tie, of experts and of
/// groups; -0 ties with +0. Weights ([`Weights`]) are made of scores without bias and multiplied by the scale; they are
/// within 2 ulp of exact arithmetic on the same logits where they are at least 2^-100 (below, within 2^-124), with scales of
/// 2^-64 to 2^16; beyond f32 they are its largest numbers. Formulas: the models' published code (`Gate` of DeepSeek's `inference/model.py`, the routers of transformers).
///
/// NaN is never chosen, nor is a biased score of -inf; a logit of -inf has a score of 0 like any other (except under
/// [`Scoring::Logits`]). In weights, infinite logits count as the largest finite numbers. A slot without an expert has id -1
/// and weight 0 and sets the status `unrouted`; NaN sets `nan_score`. A group in which fewer than two experts may be
/// chosen ranks last under [`GroupScore::TopTwo`].
///
/// Where the order of biased scores is that of the logits (no bias, and groups ranked by their best), experts are ranked by
/// their logits, which tells apart what rounded scores would not. A token's answer does not depend on the other tokens.
///
/// At most 1024 experts (any number), 32 slots and 32 groups.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Router<'a, L: Logit = f32> {
    logits: &'a Tensor<L>,
    gate: Gate,
    weights: &'a Tensor<f32>,
    ids: &'a Tensor<i32>,
    bias: Option<&'a Tensor<f32>>,
    token_count: Option<&'a Tensor<i32>>,
    table: Option<(&'a Tensor<i32>, &'a Tensor<i32>)>,
}

impl<'a, L: Logit> Router<'a, L> {
    /// Routes by `logits` `[T, E]` (any row stride) into `weights` and `ids` `[T, k]`.
    pub fn new(logits: &'a Tensor<L>, gate: Gate, weights: &'a Tensor<f32>, ids: &'a Tensor<i32>) -> Self {
        Self { logits, gate, weights, ids, bias: None, token_count: None, table: None }
    }

    /// Adds `bias` `[E]` to the scores for the choice; weights do not see it.
    pub fn bias(mut self, bias: &'a Tensor<f32>) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Only the first so many tokens are routed, `[1]`; the rows behind them are not read and get ids of -1 and weights of 0.
    /// A count outside `0..=T` is cut to it and sets the status `bad_length`.
    pub fn token_count(mut self, count: &'a Tensor<i32>) -> Self {
        self.token_count = Some(count);
        self
    }

    /// Experts are those of the token's row in `table` `[V, k]`, found by `token_ids` `[T]`, as in the first layers of
    /// DeepSeek-V4 (`tid2eid`, in 32 bits); weights still come from the logits. A row's -1 is no expert; other ids outside
    /// `0..E` are treated the same and set the status `bad_expert`, token ids outside `0..V` set `bad_token`. A chosen logit
    /// of NaN weighs 0, and an expert that a row names twice is two entries. Bias and groups take no part.
    pub fn table(mut self, table: &'a Tensor<i32>, token_ids: &'a Tensor<i32>) -> Self {
        self.table = Some((table, token_ids));
        self
    }

    /// Enqueues the operation. No tokens is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, more experts, slots or groups than the
    /// kernel takes, groups that do not divide the experts or hold fewer than k of them, a scale that is not finite,
    /// outputs that overlap, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Router");
        let Self { logits, gate, weights, ids, bias, token_count, table } = *self;
        let Gate { groups, kept_groups, scale, .. } = gate;
        check.rank("logits", logits, 2)?;
        let (tokens, experts, slots) = (logits.dim(0), logits.dim(1), gate.slots);
        check.shape("ids", ids, &[tokens, slots])?;
        check.shape("weights", weights, &[tokens, slots])?;
        check.adjacent_columns("logits", logits)?;
        check.contiguous("weights", weights)?;
        check.contiguous("ids", ids)?;
        check.on("logits", logits, stream.device())?;
        check.on("weights", weights, stream.device())?;
        check.on("ids", ids, stream.device())?;
        check_experts(check, experts, plan::MAX_EXPERTS)?;
        check_slots(check, slots)?;
        if groups == 0 || groups > plan::MAX_GROUPS || !experts.is_multiple_of(groups) {
            let want = format!("1 to {}, dividing {experts} experts", plan::MAX_GROUPS);
            return check.fail("n_group", groups, want);
        }
        if kept_groups == 0 || kept_groups > groups {
            return check.fail("topk_group", kept_groups, format_args!("1 to {groups}"));
        }
        if slots > experts / groups * kept_groups {
            let want = format!("at most {}, the experts of the kept groups", experts / groups * kept_groups);
            return check.fail("k", slots, want);
        }
        if !scale.is_finite() {
            return check.fail("scale", scale, "finite");
        }
        if (gate.scoring, gate.weights) == (Scoring::Logits, Weights::Normalized) {
            let want = "Scores or SoftmaxOfChosen of plain logits, whose signs differ";
            return check.fail("weights", "Normalized", want);
        }
        check.apart("weights", weights, "logits", logits)?;
        check.apart("ids", ids, "logits", logits)?;
        check.apart("weights", weights, "ids", ids)?;
        if let Some(bias) = bias {
            check.shape("bias", bias, &[experts])?;
            check.contiguous("bias", bias)?;
            check.on("bias", bias, stream.device())?;
            check.apart("weights", weights, "bias", bias)?;
            check.apart("ids", ids, "bias", bias)?;
        }
        let mut vocabulary = 0;
        if let Some((table, token_ids)) = table {
            check.rank("table", table, 2)?;
            check.shape("table", table, &[table.dim(0), slots])?;
            check.shape("token_ids", token_ids, &[tokens])?;
            vocabulary = check.extent("table", table.dim(0))?;
        }
        let integers =
            [("token_count", token_count), ("table", table.map(|t| t.0)), ("token_ids", table.map(|t| t.1))];
        for (name, tensor) in integers {
            let Some(tensor) = tensor else { continue };
            check.contiguous(name, tensor)?;
            check.on(name, tensor, stream.device())?;
            check.apart("weights", weights, name, tensor)?;
            check.apart("ids", ids, name, tensor)?;
        }
        if let Some(count) = token_count {
            check.shape("token_count", count, &[1])?;
        }
        let token_extent = check.extent("tokens", tokens)?;
        if tokens == 0 {
            return Ok(());
        }
        let ranked_groups = kept_groups < groups;
        let lanes = plan::Lanes::of(experts, groups);
        let pairs = gate.group_score == GroupScore::TopTwo;
        let params = NgRouterParams {
            logits: logits.address(),
            bias: bias.map_or(0, Tensor::address),
            weights: weights.address(),
            ids: ids.address(),
            token_count: token_count.map_or(0, Tensor::address),
            table: table.map_or(0, |(table, _)| table.address()),
            table_rows: table.map_or(0, |(_, token_ids)| token_ids.address()),
            status: stream.status_address(),
            logits_row_stride: logits.strides()[0] as u64,
            tokens: token_extent,
            experts: experts as u32,
            slots: slots as u32,
            vocabulary,
            groups: groups as u32,
            kept_groups: kept_groups as u32,
            group_size: (experts / groups) as u32,
            group_lanes: lanes.per_group,
            lane_experts: lanes.experts,
            pair_score: pairs.into(),
            scored: (bias.is_some() || ranked_groups && pairs).into(),
            scoring: match gate.scoring {
                Scoring::Sigmoid => NG_SCORING_SIGMOID,
                Scoring::Softmax => NG_SCORING_SOFTMAX,
                Scoring::SqrtSoftplus => NG_SCORING_SQRT_SOFTPLUS,
                Scoring::Logits => NG_SCORING_LOGITS,
            },
            weighting: match gate.weights {
                Weights::Scores => NG_WEIGHTS_SCORES,
                Weights::Normalized => NG_WEIGHTS_NORMALIZED,
                Weights::SoftmaxOfChosen => NG_WEIGHTS_SOFTMAX,
            },
            logit_type: <L as sealed::Logit>::TYPE,
            vectorised: (lanes.experts.is_multiple_of(4)
                && (experts / groups).is_multiple_of(4)
                && rows_aligned(logits, 4 * size_of::<L>()))
            .into(),
            scale,
        };
        let kernel = if table.is_some() { plan::ROUTERS[0].1 } else { lanes.kernel };
        KernelLaunch::new(kernel, &params)
            .grid([tokens.div_ceil(plan::ROUTER_TOKENS) as u32, 1, 1])
            .block(32 * plan::ROUTER_TOKENS as u32)
            .reads(logits)
            .reads_each(bias)
            .reads_each(integers.into_iter().filter_map(|(_, tensor)| tensor))
            .writes(weights)
            .writes(ids)
            .launch(stream)
    }
}
