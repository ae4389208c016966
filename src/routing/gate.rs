//! What a router does with its logits.

/// What experts are scored by. All in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scoring {
    /// `1 / (1 + exp(-logit))`, as in DeepSeek-V3, Kimi-K2, GLM-4.5 and MiniMax-M2.
    Sigmoid,
    /// `exp(logit) / Σ exp(logit)` over all experts, as in DeepSeek-V2, Qwen3-MoE and Mixtral.
    Softmax,
    /// `sqrt(ln(1 + exp(logit)))`, as in DeepSeek-V4.
    SqrtSoftplus,
    /// The logit itself, as in gpt-oss.
    Logits,
}

/// What a group of experts is ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupScore {
    /// The sum of the two best biased scores, as in DeepSeek-V3; of a group of one expert, that expert's.
    TopTwo,
    /// The best biased score, as in DeepSeek-V2.
    Max,
}

/// What the chosen experts' weights are, before the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Weights {
    /// Their scores without bias.
    Scores,
    /// Their scores without bias, divided by the sum over the chosen plus [`SUM_FLOOR`](super::reference::SUM_FLOOR)
    /// (of sigmoids and softplus; softmax has no floor). Not of plain logits, whose signs differ.
    Normalized,
    /// The softmax of the chosen logits: over the chosen experts alone.
    SoftmaxOfChosen,
}

/// How a router chooses and weighs; [`Model::gate`](super::Model::gate) knows those of published models.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Gate {
    /// k, the experts of a token: 1 to 32.
    pub slots: usize,
    /// What experts are scored by.
    pub scoring: Scoring,
    /// Groups of neighbouring experts, 1 to 32.
    pub groups: usize,
    /// Groups of which experts may be chosen.
    pub kept_groups: usize,
    /// What groups are ranked by.
    pub group_score: GroupScore,
    /// What weights are made of.
    pub weights: Weights,
    /// What weights are multiplied by in the end.
    pub scale: f32,
}

impl Gate {
    /// The k best of all experts, with normalised weights and no scale.
    pub const fn new(scoring: Scoring, k: usize) -> Self {
        Self {
            slots: k,
            scoring,
            groups: 1,
            kept_groups: 1,
            group_score: GroupScore::TopTwo,
            weights: Weights::Normalized,
            scale: 1.0,
        }
    }

    /// Cuts the experts into groups of neighbours and keeps the best of them (`n_group` and `topk_group`).
    pub const fn groups(mut self, groups: usize, kept: usize, score: GroupScore) -> Self {
        (self.groups, self.kept_groups, self.group_score) = (groups, kept, score);
        self
    }

    /// What weights are made of. Default: [`Weights::Normalized`].
    pub const fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// What weights are multiplied by in the end (`routed_scaling_factor`). Default: 1.
    pub const fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }
}
