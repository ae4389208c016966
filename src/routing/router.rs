//! The choice of experts.

use super::{check_experts, check_slots, plan};
use crate::device::abi::NgRouterParams;
use crate::device::{KernelLaunch, Stream};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;

/// Chooses k experts for each token, as DeepSeek-V3's gate does (`noaux_tc`).
///
/// All in f32: `score = sigmoid(logit)`, `biased = score + bias`. With more than one group, a group's score is the sum of
/// its two best biased scores, and only the best `topk_group` groups are kept; of their experts the k with the best biased
/// scores are taken, best first. The lower index wins every tie. Weights are the scores without bias, divided by their sum
/// plus 1e-20 if [`normalize`](Self::normalize), times [`scale`](Self::scale).
///
/// A biased score that is NaN or -inf is never chosen. A slot without an expert has id -1 and weight 0 and sets the status
/// `unrouted`; NaN sets `nan_score`. A token's answer does not depend on the other tokens.
///
/// At most 512 experts (any number), 16 slots and 32 groups.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Router<'a> {
    logits: &'a Tensor<f32>,
    bias: &'a Tensor<f32>,
    weights: &'a Tensor<f32>,
    ids: &'a Tensor<i32>,
    groups: usize,
    kept_groups: usize,
    normalize: bool,
    scale: f32,
}

impl<'a> Router<'a> {
    /// Routes by `logits` `[T, E]` (any row stride) and `bias` `[E]` into `weights` and `ids` `[T, k]`.
    pub fn new(
        logits: &'a Tensor<f32>,
        bias: &'a Tensor<f32>,
        weights: &'a Tensor<f32>,
        ids: &'a Tensor<i32>,
    ) -> Self {
        Self { logits, bias, weights, ids, groups: 1, kept_groups: 1, normalize: true, scale: 1.0 }
    }

    /// Cuts the experts into `n_group` groups of neighbours and keeps `topk_group` of them. Default: 1 and 1.
    pub fn groups(mut self, n_group: usize, topk_group: usize) -> Self {
        (self.groups, self.kept_groups) = (n_group, topk_group);
        self
    }

    /// Whether weights are divided by their sum. Default: true.
    pub fn normalize(mut self, yes: bool) -> Self {
        self.normalize = yes;
        self
    }

    /// What weights are multiplied by in the end. Default: 1.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
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
        let Self { logits, bias, weights, ids, groups, kept_groups, normalize, scale } = *self;
        check.rank("logits", logits, 2)?;
        check.rank("ids", ids, 2)?;
        let (tokens, experts, slots) = (logits.dim(0), logits.dim(1), ids.dim(1));
        check.shape("bias", bias, &[experts])?;
        check.shape("ids", ids, &[tokens, slots])?;
        check.shape("weights", weights, &[tokens, slots])?;
        check.adjacent_columns("logits", logits)?;
        check.contiguous("bias", bias)?;
        check.contiguous("weights", weights)?;
        check.contiguous("ids", ids)?;
        for (name, tensor) in [("logits", logits), ("bias", bias), ("weights", weights)] {
            check.on(name, tensor, stream.device())?;
        }
        check.on("ids", ids, stream.device())?;
        check_experts(check, experts)?;
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
        for (name, input) in [("logits", logits), ("bias", bias)] {
            check.apart("weights", weights, name, input)?;
            check.apart("ids", ids, name, input)?;
        }
        check.apart("weights", weights, "ids", ids)?;
        let count = check.extent("tokens", tokens)?;
        if tokens == 0 {
            return Ok(());
        }
        let params = NgRouterParams {
            logits: logits.address(),
            bias: bias.address(),
            weights: weights.address(),
            ids: ids.address(),
            status: stream.status_address(),
            logits_row_stride: logits.strides()[0] as u64,
            tokens: count,
            experts: experts as u32,
            slots: slots as u32,
            groups: groups as u32,
            kept_groups: kept_groups as u32,
            normalize: normalize.into(),
            scale,
        };
        KernelLaunch::new("router_f32", &params)
            .grid([tokens.div_ceil(plan::ROUTER_TOKENS) as u32, 1, 1])
            .block(32 * plan::ROUTER_TOKENS as u32)
            .reads(logits)
            .reads(bias)
            .writes(weights)
            .writes(ids)
            .launch(stream)
    }
}
