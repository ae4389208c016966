//! The feed-forward half of a layer: a gated MLP, or experts that a router chooses among.

use narrowgauge::dtype::bf16;
use narrowgauge::fp8::{Fp8Blocks, Fp8Rows};
use narrowgauge::gemm::{GroupedFp8Gemm, HalfGemm};
use narrowgauge::routing::{
    Combine, Gate, GroupScore, Permutation, Permute, Router, Scoring, SwigluQuantize, Weights,
};
use narrowgauge::{Device, Stream, Tensor};

use super::checkpoint::Checkpoint;
use super::config::{Config, Moe};
use super::failure::Outcome;
use super::linear::{Linear, Stack, padded, quantized};

#[allow(clippy::large_enum_variant, reason = "one a layer")]
pub enum FeedForward {
    Dense(Mlp),
    Experts(Box<Experts>),
}

impl FeedForward {
    /// `x`: `[T, hidden]`, normalised, in both forms.
    pub fn forward(
        &self,
        device: &Device,
        stream: &Stream,
        x: &Fp8Rows,
        exact: &Tensor<bf16>,
    ) -> Outcome<Tensor<bf16>> {
        match self {
            FeedForward::Dense(mlp) => mlp.forward(device, stream, x),
            FeedForward::Experts(experts) => experts.forward(device, stream, x, exact),
        }
    }
}

/// `down(silu(gate(x)) * up(x))`.
pub struct Mlp {
    gate_up: Linear,
    down: Linear,
    intermediate: usize,
    power_of_two: bool,
}

impl Mlp {
    pub fn load(
        device: &Device,
        checkpoint: &Checkpoint,
        config: &Config,
        at: &str,
        intermediate: usize,
    ) -> Outcome<Mlp> {
        let names = [format!("{at}.gate_proj"), format!("{at}.up_proj")];
        Ok(Mlp {
            gate_up: Linear::load_pair(device, checkpoint, &names, intermediate, config.hidden)?,
            down: Linear::load(device, checkpoint, &format!("{at}.down_proj"), config.hidden, intermediate)?,
            intermediate,
            power_of_two: config.power_of_two_scales,
        })
    }

    fn forward(&self, device: &Device, stream: &Stream, x: &Fp8Rows) -> Outcome<Tensor<bf16>> {
        let gate_up = self.gate_up.forward(device, stream, x)?;
        let inner = quantized(device, x.rows(), self.intermediate)?;
        SwigluQuantize::new(&gate_up, &inner)
            .up_offset(padded(self.intermediate))
            .power_of_two(self.power_of_two)
            .launch(stream)?;
        self.down.forward(device, stream, &inner)
    }
}

/// Routed experts, and the MLP of the shared ones that every token passes.
pub struct Experts {
    /// `[experts, hidden]`: the router reads unquantised activations.
    router: Tensor<bf16>,
    bias: Tensor<f32>,
    /// `[experts, gate and up rows, hidden]`
    gate_up: Fp8Blocks,
    /// `[experts, hidden, intermediate]`
    down: Fp8Blocks,
    shared: Option<Mlp>,
    moe: Moe,
    power_of_two: bool,
}

impl Experts {
    pub fn load(
        device: &Device,
        checkpoint: &Checkpoint,
        config: &Config,
        moe: &Moe,
        at: &str,
    ) -> Outcome<Experts> {
        let (hidden, intermediate) = (config.hidden, moe.intermediate);
        let mut gate_up = Vec::with_capacity(moe.experts);
        let mut down = Vec::with_capacity(moe.experts);
        for expert in 0..moe.experts {
            let at = format!("{at}.experts.{expert}");
            let mut stack = Stack::new(hidden);
            stack.push(&checkpoint.fp8(&format!("{at}.gate_proj"), intermediate, hidden)?);
            stack.push(&checkpoint.fp8(&format!("{at}.up_proj"), intermediate, hidden)?);
            gate_up.push(stack);
            let mut stack = Stack::new(intermediate);
            stack.push(&checkpoint.fp8(&format!("{at}.down_proj"), hidden, intermediate)?);
            down.push(stack);
        }
        let shared = match moe.shared {
            0 => None,
            count => Some(Mlp::load(
                device,
                checkpoint,
                config,
                &format!("{at}.shared_experts"),
                count * intermediate,
            )?),
        };
        let router = checkpoint.bf16(&format!("{at}.gate.weight"), &[moe.experts, hidden])?;
        let bias = checkpoint.f32(&format!("{at}.gate.e_score_correction_bias"), &[moe.experts])?;
        Ok(Experts {
            router: device.tensor(&[moe.experts, hidden], &router)?,
            bias: device.tensor(&[moe.experts], &bias)?,
            gate_up: Stack::upload_groups(device, &gate_up)?,
            down: Stack::upload_groups(device, &down)?,
            shared,
            moe: moe.clone(),
            power_of_two: config.power_of_two_scales,
        })
    }

    fn forward(
        &self,
        device: &Device,
        stream: &Stream,
        x: &Fp8Rows,
        exact: &Tensor<bf16>,
    ) -> Outcome<Tensor<bf16>> {
        let (tokens, hidden, moe) = (x.rows(), x.cols(), &self.moe);
        let rows = tokens * moe.per_token;

        let scores: Tensor<f32> = device.empty(&[tokens, moe.experts])?;
        HalfGemm::new(exact, &self.router, &scores).batch_invariant().launch(stream)?;
        let weights = device.empty(&[tokens, moe.per_token])?;
        let ids = device.empty(&[tokens, moe.per_token])?;
        let gate = Gate::new(Scoring::Sigmoid, moe.per_token)
            .groups(moe.groups, moe.groups_per_token, GroupScore::TopTwo)
            .weights(if moe.normalize { Weights::Normalized } else { Weights::Scores })
            .scale(moe.scale);
        Router::new(&scores, gate, &weights, &ids).bias(&self.bias).launch(stream)?;

        let permutation = Permutation::empty(device, tokens, moe.per_token, moe.experts)?;
        Permute::new(&ids, &permutation).launch(stream)?;

        let gate_up = device.empty(&[rows, padded(moe.intermediate) + moe.intermediate])?;
        GroupedFp8Gemm::new(x, &self.gate_up, permutation.offsets(), &gate_up)
            .gather_entries(permutation.source(), permutation.slots())
            .batch_invariant()
            .launch(stream)?;
        let inner = quantized(device, rows, moe.intermediate)?;
        SwigluQuantize::new(&gate_up, &inner)
            .up_offset(padded(moe.intermediate))
            .permutation(&permutation)
            .power_of_two(self.power_of_two)
            .launch(stream)?;
        let outputs = device.empty(&[rows, hidden])?;
        GroupedFp8Gemm::new(&inner, &self.down, permutation.offsets(), &outputs)
            .batch_invariant()
            .launch(stream)?;

        let out = device.empty(&[tokens, hidden])?;
        let combine = Combine::new(&outputs, &permutation, &weights, &out);
        match &self.shared {
            None => combine.launch(stream)?,
            Some(mlp) => combine.shared(&mlp.forward(device, stream, x)?).launch(stream)?,
        }
        Ok(out)
    }
}
