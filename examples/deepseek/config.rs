//! `config.json` of a DeepSeek-V3-format checkpoint: read, checked against what the kernels take, and given names.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::failure::{Failure, Outcome, fail};

/// Rows and columns of a weight block that shares one scale.
pub const BLOCK: usize = 128;
/// Width of the compressed key/value that the attention kernel takes.
pub const LATENT: usize = 512;
/// Width of the rotated part of a key that the attention kernel takes.
pub const ROPE: usize = 64;

/// A checkpoint's dimensions, all within what the kernels take.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub vocab: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    /// Width of the compressed query; without it queries come from the hidden state directly.
    pub q_lora_rank: Option<usize>,
    /// Width of a head's unrotated query and key.
    pub nope: usize,
    /// Width of a head's value.
    pub value: usize,
    /// Inner width of the dense layers' MLP.
    pub intermediate: usize,
    pub dense_layers: usize,
    pub moe: Option<Moe>,
    pub epsilon: f32,
    pub tied_head: bool,
    pub max_positions: usize,
    pub rope_theta: f64,
    pub yarn: Option<Yarn>,
    /// Activation scales are powers of two (`scale_fmt` "ue8m0").
    pub power_of_two_scales: bool,
}

/// The mixture-of-experts layers' dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct Moe {
    pub experts: usize,
    pub per_token: usize,
    pub groups: usize,
    pub groups_per_token: usize,
    pub intermediate: usize,
    /// Shared experts; they form one MLP of `shared * intermediate` inner columns.
    pub shared: usize,
    pub normalize: bool,
    pub scale: f32,
}

/// YaRN's parameters, as `rope_scaling` gives them.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    pub factor: f64,
    pub original_max_positions: usize,
    pub beta_fast: f64,
    pub beta_slow: f64,
    pub mscale: Option<f64>,
    pub mscale_all_dim: Option<f64>,
    pub attention_factor: Option<f64>,
    pub truncate: bool,
}

impl Config {
    pub fn load(directory: &Path) -> Outcome<Config> {
        let path = directory.join("config.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => fail!("{}: {error}", path.display()),
        };
        Self::parse(&text).map_err(|failure| Failure::new(format!("{}: {failure}", path.display())))
    }

    fn parse(text: &str) -> Outcome<Config> {
        let value: Value = serde_json::from_str(text).map_err(Failure::new)?;
        // Before anything else: another model's config lacks most fields, and the first lack is not the trouble.
        match value.get("model_type") {
            Some(Value::String(kind)) if kind == "deepseek_v3" => {}
            Some(other) => fail!("model_type is {other}; this engine runs \"deepseek_v3\""),
            None => fail!("no model_type; this engine runs \"deepseek_v3\""),
        }
        let raw: Raw = serde_json::from_value(value).map_err(Failure::new)?;
        raw.check()
    }

    /// Width of a head's whole query: unrotated and rotated part.
    pub fn query(&self) -> usize {
        self.nope + ROPE
    }

    /// The softmax scale: 1/sqrt of the query's width, and under YaRN its temperature squared.
    pub fn softmax_scale(&self) -> f32 {
        let mut scale = (self.query() as f64).powf(-0.5);
        if let Some(yarn) = &self.yarn
            && let Some(all_dim) = yarn.mscale_all_dim
            && yarn.factor > 1.0
        {
            scale *= (0.1 * all_dim * yarn.factor.ln() + 1.0).powi(2);
        }
        scale as f32
    }
}

#[derive(Deserialize)]
struct Raw {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    q_lora_rank: Option<usize>,
    kv_lora_rank: usize,
    qk_nope_head_dim: usize,
    qk_rope_head_dim: usize,
    v_head_dim: usize,
    intermediate_size: usize,
    moe_intermediate_size: Option<usize>,
    first_k_dense_replace: Option<usize>,
    moe_layer_freq: Option<usize>,
    n_routed_experts: Option<usize>,
    n_shared_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    n_group: Option<usize>,
    topk_group: Option<usize>,
    norm_topk_prob: Option<bool>,
    routed_scaling_factor: Option<f64>,
    scoring_func: Option<String>,
    topk_method: Option<String>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    rope_interleave: Option<bool>,
    rms_norm_eps: Option<f64>,
    tie_word_embeddings: Option<bool>,
    max_position_embeddings: usize,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    /// Where newer transformers keep `rope_theta` and `rope_scaling`.
    rope_parameters: Option<RawRope>,
    quantization_config: Option<RawQuantization>,
}

#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    attention_factor: Option<f64>,
    truncate: Option<bool>,
}

#[derive(Deserialize)]
struct RawQuantization {
    quant_method: String,
    fmt: Option<String>,
    activation_scheme: Option<String>,
    weight_block_size: Option<Vec<usize>>,
    scale_fmt: Option<String>,
}

impl Raw {
    fn check(self) -> Outcome<Config> {
        equal("kv_lora_rank", self.kv_lora_rank, LATENT)?;
        equal("qk_rope_head_dim", self.qk_rope_head_dim, ROPE)?;
        equal("moe_layer_freq", self.moe_layer_freq.unwrap_or(1), 1)?;
        equal("hidden_act", self.hidden_act.as_deref().unwrap_or("silu"), "silu")?;
        equal("scoring_func", self.scoring_func.as_deref().unwrap_or("sigmoid"), "sigmoid")?;
        equal("topk_method", self.topk_method.as_deref().unwrap_or("noaux_tc"), "noaux_tc")?;
        equal("attention_bias", self.attention_bias.unwrap_or(false), false)?;
        equal("rope_interleave", self.rope_interleave.unwrap_or(true), true)?;
        let heads = self.num_attention_heads;
        equal("num_key_value_heads", self.num_key_value_heads.unwrap_or(heads), heads)?;

        within("vocab_size", self.vocab_size, 1, 1 << 20)?;
        within("hidden_size", self.hidden_size, 16, 1 << 16)?;
        within("num_hidden_layers", self.num_hidden_layers, 1, 1 << 10)?;
        within("num_attention_heads", heads, 1, 128)?;
        within("qk_nope_head_dim", self.qk_nope_head_dim, 16, 512)?;
        within("v_head_dim", self.v_head_dim, 16, 512)?;
        within("intermediate_size", self.intermediate_size, 16, 1 << 18)?;
        within("max_position_embeddings", self.max_position_embeddings, 1, 1 << 24)?;
        // Rows of matrices start at multiples of 16 bytes, for the tensor memory accelerator.
        sixteens("hidden_size", self.hidden_size)?;
        sixteens("intermediate_size", self.intermediate_size)?;
        sixteens("qk_nope_head_dim", self.qk_nope_head_dim)?;
        sixteens("v_head_dim", self.v_head_dim)?;
        if let Some(rank) = self.q_lora_rank {
            within("q_lora_rank", rank, 16, 1 << 16)?;
            sixteens("q_lora_rank", rank)?;
        }
        let epsilon = self.rms_norm_eps.unwrap_or(1e-6);
        if !(epsilon > 0.0 && epsilon < 1.0) {
            fail!("rms_norm_eps is {epsilon}; wanted a value between 0 and 1");
        }

        let dense_layers = self.first_k_dense_replace.unwrap_or(3).min(self.num_hidden_layers);
        let moe = if dense_layers < self.num_hidden_layers { Some(self.moe()?) } else { None };
        let (rope_theta, yarn) = self.rope()?;
        Ok(Config {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads,
            q_lora_rank: self.q_lora_rank,
            nope: self.qk_nope_head_dim,
            value: self.v_head_dim,
            intermediate: self.intermediate_size,
            dense_layers,
            moe,
            epsilon: epsilon as f32,
            tied_head: self.tie_word_embeddings.unwrap_or(false),
            max_positions: self.max_position_embeddings,
            rope_theta,
            yarn,
            power_of_two_scales: self.quantization()?,
        })
    }

    fn moe(&self) -> Outcome<Moe> {
        let moe = Moe {
            experts: required("n_routed_experts", self.n_routed_experts)?,
            per_token: required("num_experts_per_tok", self.num_experts_per_tok)?,
            groups: self.n_group.unwrap_or(1),
            groups_per_token: self.topk_group.unwrap_or(1),
            intermediate: required("moe_intermediate_size", self.moe_intermediate_size)?,
            shared: self.n_shared_experts.unwrap_or(0),
            normalize: self.norm_topk_prob.unwrap_or(true),
            scale: self.routed_scaling_factor.unwrap_or(1.0) as f32,
        };
        within("n_routed_experts", moe.experts, 1, 512)?;
        within("moe_intermediate_size", moe.intermediate, 16, 1 << 16)?;
        sixteens("moe_intermediate_size", moe.intermediate)?;
        within("n_shared_experts", moe.shared, 0, 64)?;
        within("n_group", moe.groups, 1, moe.experts)?;
        if !moe.experts.is_multiple_of(moe.groups) {
            fail!("n_routed_experts is {}; wanted a multiple of n_group {}", moe.experts, moe.groups);
        }
        if moe.groups > 1 && moe.experts == moe.groups {
            fail!("n_group is {}; wanted at least two experts a group", moe.groups);
        }
        within("topk_group", moe.groups_per_token, 1, moe.groups)?;
        let eligible = moe.experts / moe.groups * moe.groups_per_token;
        within("num_experts_per_tok", moe.per_token, 1, eligible.min(32))?;
        Ok(moe)
    }

    fn rope(&self) -> Outcome<(f64, Option<Yarn>)> {
        let scaling = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref());
        let theta = [&self.rope_scaling, &self.rope_parameters]
            .into_iter()
            .find_map(|rope| rope.as_ref().and_then(|rope| rope.rope_theta))
            .or(self.rope_theta)
            .unwrap_or(10_000.0);
        if !(theta > 1.0 && theta.is_finite()) {
            fail!("rope_theta is {theta}; wanted a finite value above 1");
        }
        let Some(scaling) = scaling else { return Ok((theta, None)) };
        match scaling.rope_type.as_deref().unwrap_or("default") {
            "default" => Ok((theta, None)),
            "yarn" => {
                let original =
                    scaling.original_max_position_embeddings.unwrap_or(self.max_position_embeddings);
                within("rope_scaling.original_max_position_embeddings", original, 1, 1 << 24)?;
                let factor = scaling.factor.unwrap_or(self.max_position_embeddings as f64 / original as f64);
                if !(factor >= 1.0 && factor.is_finite()) {
                    fail!("rope_scaling.factor is {factor}; wanted a finite value of at least 1");
                }
                let yarn = Yarn {
                    factor,
                    original_max_positions: original,
                    beta_fast: scaling.beta_fast.unwrap_or(32.0),
                    beta_slow: scaling.beta_slow.unwrap_or(1.0),
                    // A zero means none, in the model's code too.
                    mscale: scaling.mscale.filter(|m| *m != 0.0),
                    mscale_all_dim: scaling.mscale_all_dim.filter(|m| *m != 0.0),
                    attention_factor: scaling.attention_factor,
                    truncate: scaling.truncate.unwrap_or(true),
                };
                if !(yarn.beta_fast > 0.0 && yarn.beta_slow > 0.0) {
                    fail!(
                        "rope_scaling.beta_fast and beta_slow are {}, {}; wanted positive values",
                        yarn.beta_fast,
                        yarn.beta_slow
                    );
                }
                Ok((theta, Some(yarn)))
            }
            other => fail!("rope_scaling type is \"{other}\"; wanted \"yarn\" or \"default\""),
        }
    }

    /// Whether activation scales are powers of two; an error where weights are in another format.
    fn quantization(&self) -> Outcome<bool> {
        let Some(quantization) = &self.quantization_config else {
            fail!("no quantization_config; this engine runs FP8 weights with 128x128 block scales");
        };
        equal("quantization_config.quant_method", quantization.quant_method.as_str(), "fp8")?;
        equal("quantization_config.fmt", quantization.fmt.as_deref().unwrap_or("e4m3"), "e4m3")?;
        let scheme = quantization.activation_scheme.as_deref().unwrap_or("dynamic");
        equal("quantization_config.activation_scheme", scheme, "dynamic")?;
        let block = quantization.weight_block_size.as_deref().unwrap_or(&[]);
        if block != [BLOCK, BLOCK] {
            fail!("quantization_config.weight_block_size is {block:?}; wanted [{BLOCK}, {BLOCK}]");
        }
        match quantization.scale_fmt.as_deref() {
            None | Some("float") => Ok(false),
            Some("ue8m0") => Ok(true),
            Some(other) => fail!("quantization_config.scale_fmt is \"{other}\"; wanted \"ue8m0\" or none"),
        }
    }
}

fn required<T>(name: &str, value: Option<T>) -> Outcome<T> {
    value.ok_or_else(|| Failure::new(format!("missing field `{name}`")))
}

fn equal<T: PartialEq + std::fmt::Debug>(name: &str, got: T, want: T) -> Outcome<()> {
    if got != want {
        fail!("{name} is {got:?}; this engine runs {want:?}");
    }
    Ok(())
}

fn within(name: &str, got: usize, low: usize, high: usize) -> Outcome<()> {
    if !(low..=high).contains(&got) {
        fail!("{name} is {got}; wanted {low} to {high}");
    }
    Ok(())
}

fn sixteens(name: &str, got: usize) -> Outcome<()> {
    if !got.is_multiple_of(16) {
        fail!("{name} is {got}; wanted a multiple of 16");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        serde_json::from_str(include_str!("checkpoint/config.json")).unwrap()
    }

    fn with(changes: Value) -> Outcome<Config> {
        let mut value = base();
        for (key, change) in changes.as_object().unwrap() {
            value[key] = change.clone();
        }
        Config::parse(&value.to_string())
    }

    fn refused(changes: Value) -> String {
        with(changes).unwrap_err().to_string()
    }

    #[test]
    fn reads_the_shipped_config() {
        let config = Config::parse(&base().to_string()).unwrap();
        assert_eq!((config.hidden, config.heads, config.q_lora_rank), (256, 4, Some(192)));
        assert_eq!(config.moe.as_ref().unwrap().groups, 4);
        assert_eq!(config.softmax_scale(), (192f64.powf(-0.5)) as f32);
        assert_eq!(config.yarn, None);
    }

    #[test]
    fn reads_every_spelling_of_yarn() {
        let yarn = |kind: &str| json!({ kind: "yarn", "factor": 40, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 1.0 });
        let old = with(json!({ "rope_scaling": yarn("type") })).unwrap();
        assert_eq!(old.yarn.as_ref().unwrap().beta_fast, 32.0);
        assert_eq!(old, with(json!({ "rope_scaling": yarn("rope_type") })).unwrap());
        let mut newer = yarn("rope_type");
        newer["rope_theta"] = json!(50000.0);
        let newer = with(json!({ "rope_parameters": newer, "rope_theta": null })).unwrap();
        assert_eq!((newer.rope_theta, newer.yarn), (50000.0, old.yarn.clone()));
        let mscale = 0.1 * 40f64.ln() + 1.0;
        assert_eq!(old.softmax_scale(), (192f64.powf(-0.5) * mscale * mscale) as f32);
    }

    #[test]
    fn takes_the_variants_of_the_family() {
        assert_eq!(with(json!({ "q_lora_rank": null })).unwrap().q_lora_rank, None);
        assert_eq!(with(json!({ "n_shared_experts": 0 })).unwrap().moe.unwrap().shared, 0);
        assert_eq!(with(json!({ "first_k_dense_replace": 9 })).unwrap().moe, None);
        assert!(with(json!({ "n_group": 1, "topk_group": 1 })).is_ok());
        assert!(with(json!({ "num_attention_heads": 128, "num_key_value_heads": 128 })).is_ok());
    }

    #[test]
    fn refuses_what_the_kernels_do_not_take() {
        assert!(refused(json!({ "model_type": "llama" })).contains("deepseek_v3"));
        assert!(refused(json!({ "model_type": null })).contains("deepseek_v3"));
        assert!(refused(json!({ "kv_lora_rank": 256 })).contains("kv_lora_rank is 256"));
        assert!(refused(json!({ "qk_rope_head_dim": 32 })).contains("qk_rope_head_dim"));
        assert!(
            refused(json!({ "num_attention_heads": 129, "num_key_value_heads": 129 })).contains("1 to 128")
        );
        assert!(refused(json!({ "hidden_size": 250 })).contains("multiple of 16"));
        assert!(refused(json!({ "hidden_size": "wide" })).contains("expected usize"));
        assert!(refused(json!({ "n_group": 5 })).contains("n_group"));
        assert!(refused(json!({ "topk_group": 5 })).contains("topk_group"));
        assert!(refused(json!({ "num_experts_per_tok": 7 })).contains("num_experts_per_tok is 7"));
        assert!(refused(json!({ "quantization_config": null })).contains("quantization_config"));
        assert!(refused(json!({ "rope_scaling": { "type": "linear", "factor": 2 } })).contains("linear"));
        assert!(refused(json!({ "rope_scaling": { "type": "yarn", "factor": 0.5 } })).contains("factor"));
        assert!(refused(json!({ "scoring_func": "softmax" })).contains("sigmoid"));
    }
}
