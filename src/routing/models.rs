//! The gates of published models.

use super::gate::{Gate, GroupScore, Scoring, Weights};

/// A published model, by the routers of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Model {
    /// DeepSeek-V2-Lite.
    DeepSeekV2Lite,
    /// DeepSeek-V2 (236B).
    DeepSeekV2,
    /// DeepSeek-V3, R1 and V3.1.
    DeepSeekV3,
    /// DeepSeek-V3.2: the gate of V3, on logits of f32.
    DeepSeekV32,
    /// DeepSeek-V4-Flash; its first three layers choose by a table.
    DeepSeekV4Flash,
    /// DeepSeek-V4-Pro; its first three layers choose by a table.
    DeepSeekV4Pro,
    /// Kimi-K2 and K2.5.
    KimiK2,
    /// GLM-4.5 and 4.7.
    Glm45,
    /// GLM-4.5-Air.
    Glm45Air,
    /// Qwen3-235B-A22B and Qwen3-30B-A3B.
    Qwen3Moe,
    /// Mixtral 8x7B and 8x22B.
    Mixtral,
    /// gpt-oss-120b.
    GptOss120b,
    /// gpt-oss-20b.
    GptOss20b,
    /// MiniMax-M2.
    MiniMaxM2,
}

/// A gate and the tensors that it goes with.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Preset {
    /// Name, as in `Model::named`.
    pub name: &'static str,
    /// E.
    pub experts: usize,
    /// Whether a correction bias takes part in the choice.
    pub bias: bool,
    /// Layers, from the first with experts on, whose experts are looked up by the token's id.
    pub hash_layers: usize,
    /// How the router chooses and weighs.
    pub gate: Gate,
}

const fn sigmoid(k: usize) -> Gate {
    Gate::new(Scoring::Sigmoid, k)
}

const fn preset(name: &'static str, experts: usize, bias: bool, gate: Gate) -> Preset {
    Preset { name, experts, bias, hash_layers: 0, gate }
}

impl Model {
    /// All of them.
    pub const ALL: [Model; 14] = [
        Model::DeepSeekV2Lite,
        Model::DeepSeekV2,
        Model::DeepSeekV3,
        Model::DeepSeekV32,
        Model::DeepSeekV4Flash,
        Model::DeepSeekV4Pro,
        Model::KimiK2,
        Model::Glm45,
        Model::Glm45Air,
        Model::Qwen3Moe,
        Model::Mixtral,
        Model::GptOss120b,
        Model::GptOss20b,
        Model::MiniMaxM2,
    ];

    /// The model of this name, in lower case with dashes: `deepseek-v3`, `kimi-k2`, `gpt-oss-120b`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.preset().name == name)
    }

    /// The gate with what it goes with, as the model's published code and configuration have them.
    pub const fn preset(self) -> Preset {
        const SOFTMAX_6: Gate = Gate::new(Scoring::Softmax, 6).weights(Weights::Scores);
        const V3: Gate = sigmoid(8).groups(8, 4, GroupScore::TopTwo).scale(2.5);
        const V4: Gate = Gate::new(Scoring::SqrtSoftplus, 6);
        const GPT: Gate = Gate::new(Scoring::Logits, 4).weights(Weights::SoftmaxOfChosen);
        match self {
            Model::DeepSeekV2Lite => preset("deepseek-v2-lite", 64, false, SOFTMAX_6),
            Model::DeepSeekV2 => {
                let gate = SOFTMAX_6.groups(8, 3, GroupScore::Max).scale(16.0);
                preset("deepseek-v2", 160, false, gate)
            }
            Model::DeepSeekV3 => preset("deepseek-v3", 256, true, V3),
            Model::DeepSeekV32 => preset("deepseek-v3.2", 256, true, V3),
            Model::DeepSeekV4Flash => {
                Preset { hash_layers: 3, ..preset("deepseek-v4-flash", 256, true, V4.scale(1.5)) }
            }
            Model::DeepSeekV4Pro => {
                Preset { hash_layers: 3, ..preset("deepseek-v4-pro", 384, true, V4.scale(2.5)) }
            }
            Model::KimiK2 => preset("kimi-k2", 384, true, sigmoid(8).scale(2.827)),
            Model::Glm45 => preset("glm-4.5", 160, true, sigmoid(8).scale(2.5)),
            Model::Glm45Air => preset("glm-4.5-air", 128, true, sigmoid(8)),
            Model::Qwen3Moe => preset("qwen3-moe", 128, false, Gate::new(Scoring::Softmax, 8)),
            Model::Mixtral => preset("mixtral", 8, false, Gate::new(Scoring::Softmax, 2)),
            Model::GptOss120b => preset("gpt-oss-120b", 128, false, GPT),
            Model::GptOss20b => preset("gpt-oss-20b", 32, false, GPT),
            Model::MiniMaxM2 => preset("minimax-m2", 256, true, sigmoid(8)),
        }
    }

    /// How the model's router chooses and weighs.
    pub const fn gate(self) -> Gate {
        self.preset().gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for model in Model::ALL {
            let preset = model.preset();
            assert_eq!(Model::named(preset.name), Some(model));
            assert!(preset.experts.is_multiple_of(preset.gate.groups) && preset.gate.slots <= preset.experts);
        }
        assert_eq!(Model::named("DeepSeek-V3"), None);
    }
}
