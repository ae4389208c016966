//! The whole model: embedding, layers, head, and the cache of the one sequence that it runs.

use narrowgauge::dtype::bf16;
use narrowgauge::gemm::HalfGemm;
use narrowgauge::mla::{CacheLayout, RopeParameters, RopeTables, Yarn};
use narrowgauge::norm::{Add, RmsNorm, RmsNormQuantize};
use narrowgauge::vocab::{Argmax, Embedding};
use narrowgauge::{Device, Stream, Tensor};

use super::attention::{AttentionLayer, Placement};
use super::cache::{PAGE, PagedCache};
use super::checkpoint::Checkpoint;
use super::config::{Config, ROPE};
use super::failure::{Failure, Outcome, fail};
use super::linear::quantized;
use super::mlp::{Experts, FeedForward, Mlp};

pub struct Model {
    device: Device,
    stream: Stream,
    config: Config,
    embedding: Tensor<bf16>,
    layers: Vec<Layer>,
    norm: Tensor<bf16>,
    head: Tensor<bf16>,
    tables: RopeTables,
    cache: PagedCache,
}

struct Layer {
    input_norm: Tensor<bf16>,
    attention: AttentionLayer,
    output_norm: Tensor<bf16>,
    feed_forward: FeedForward,
}

/// Which tokens of a step need logits.
#[derive(Clone, Copy, PartialEq)]
pub enum Rows {
    All,
    Last,
}

impl Model {
    /// `pages` and `layout`: the cache's size and what it stores. `loaded` is told after each layer.
    pub fn load(
        device: &Device,
        checkpoint: &Checkpoint,
        config: &Config,
        pages: usize,
        layout: CacheLayout,
        mut loaded: impl FnMut(usize),
    ) -> Outcome<Model> {
        let vector = |name: &str| -> Outcome<Tensor<bf16>> {
            Ok(device.tensor(&[config.hidden], &checkpoint.bf16(name, &[config.hidden])?)?)
        };
        let table = |name: &str| -> Outcome<Tensor<bf16>> {
            let shape = [config.vocab, config.hidden];
            Ok(device.tensor(&shape, &checkpoint.bf16(name, &shape)?)?)
        };
        let embedding = table("model.embed_tokens.weight")?;
        let head = if config.tied_head { embedding.clone() } else { table("lm_head.weight")? };
        let norm = vector("model.norm.weight")?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            let at = format!("model.layers.{index}");
            let mlp = format!("{at}.mlp");
            let feed_forward = match &config.moe {
                Some(moe) if index >= config.dense_layers => {
                    FeedForward::Experts(Box::new(Experts::load(device, checkpoint, config, moe, &mlp)?))
                }
                _ => FeedForward::Dense(Mlp::load(device, checkpoint, config, &mlp, config.intermediate)?),
            };
            layers.push(Layer {
                input_norm: vector(&format!("{at}.input_layernorm.weight"))?,
                attention: AttentionLayer::load(device, checkpoint, config, &format!("{at}.self_attn"))?,
                output_norm: vector(&format!("{at}.post_attention_layernorm.weight"))?,
                feed_forward,
            });
            loaded(index + 1);
        }
        let tables = RopeTables::new(device, &rope(config, pages * PAGE))?;
        Ok(Model {
            device: device.clone(),
            stream: device.stream(),
            config: config.clone(),
            embedding,
            layers,
            norm,
            head,
            tables,
            cache: PagedCache::new(device, config.layers, pages, layout)?,
        })
    }

    /// Bytes that a token takes in the cache.
    pub fn cache_token_bytes(&self) -> usize {
        self.cache.token_bytes()
    }

    /// Appends the tokens to the sequence. Gives their logits, `[tokens or 1, vocab]`.
    pub fn forward(&mut self, ids: &[u32], rows: Rows) -> Outcome<Tensor<f32>> {
        let (device, stream, config) = (&self.device, &self.stream, &self.config);
        let tokens = ids.len();
        let start = self.cache.len();
        let slots = self.cache.extend(tokens)?;
        let length = self.cache.len();
        let positions: Vec<i32> = (start..length).map(|at| at as i32).collect();
        let page_table = self.cache.page_table();
        let place = Placement {
            tables: &self.tables,
            positions: device.tensor(&[tokens], &positions)?,
            slots: device.tensor(&[tokens], &slots)?,
            page_table: device.tensor(&[1, page_table.len()], &page_table)?,
            lengths: device.tensor(&[1], &[length as i32])?,
        };

        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let mut x = device.empty(&[tokens, config.hidden])?;
        Embedding::new(&self.embedding, &device.tensor(&[tokens], &ids)?, &x).launch(stream)?;
        for (layer, cache) in self.layers.iter().zip(&self.cache.layers) {
            let input = quantized(device, tokens, config.hidden)?;
            RmsNormQuantize::new(&x, &layer.input_norm, &input)
                .epsilon(config.epsilon)
                .power_of_two(config.power_of_two_scales)
                .launch(stream)?;
            let attended = layer.attention.forward(device, stream, &input, &place, cache)?;
            x = self.add(&x, &attended)?;

            let input = quantized(device, tokens, config.hidden)?;
            let exact = device.empty(&[tokens, config.hidden])?;
            RmsNormQuantize::new(&x, &layer.output_norm, &input)
                .epsilon(config.epsilon)
                .power_of_two(config.power_of_two_scales)
                .bf16_output(&exact)
                .launch(stream)?;
            let fed = layer.feed_forward.forward(device, stream, &input, &exact)?;
            x = self.add(&x, &fed)?;
        }

        if rows == Rows::Last {
            x = x.slice(0, tokens - 1..tokens)?;
        }
        let normed = device.empty(&[x.dim(0), config.hidden])?;
        RmsNorm::new(&x, &self.norm, &normed).epsilon(config.epsilon).launch(stream)?;
        let logits = device.empty(&[x.dim(0), config.vocab])?;
        HalfGemm::new(&normed, &self.head, &logits).batch_invariant().launch(stream)?;
        Ok(logits)
    }

    /// The likeliest token after the last row; the lowest id among equals.
    pub fn likeliest(&self, logits: &Tensor<f32>) -> Outcome<u32> {
        let best = self.device.empty(&[1])?;
        let last = logits.dim(0) - 1;
        Argmax::new(&logits.slice(0, last..last + 1)?, &best).launch(&self.stream)?;
        let id = best.to_vec()?[0];
        u32::try_from(id).map_err(|_| Failure::new("no token is the likeliest: the logits are not numbers"))
    }

    /// What only the device could see: nothing, or an error that says what was masked.
    pub fn check(&self) -> Outcome<()> {
        let status = self.stream.status()?;
        if !status.is_clear() {
            fail!("the kernels met bad data: {status}");
        }
        Ok(())
    }

    fn add(&self, a: &Tensor<bf16>, b: &Tensor<bf16>) -> Outcome<Tensor<bf16>> {
        let out = self.device.empty(a.shape())?;
        Add::new(a, b, &out).launch(&self.stream)?;
        Ok(out)
    }
}

fn rope(config: &Config, positions: usize) -> RopeParameters {
    RopeParameters {
        dim: ROPE,
        base: config.rope_theta,
        max_positions: positions,
        yarn: config.yarn.as_ref().map(|yarn| Yarn {
            factor: yarn.factor,
            original_max_positions: yarn.original_max_positions,
            beta_fast: yarn.beta_fast,
            beta_slow: yarn.beta_slow,
            mscale: yarn.mscale,
            mscale_all_dim: yarn.mscale_all_dim,
            attention_factor: yarn.attention_factor,
            truncate: yarn.truncate,
        }),
    }
}
