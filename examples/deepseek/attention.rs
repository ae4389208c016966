//! Multi-head latent attention in absorbed form: queries are taken into the space of the compressed keys and values,
//! so that all heads read one cached vector a token.

use narrowgauge::dtype::bf16;
use narrowgauge::fp8::Fp8Rows;
use narrowgauge::gemm::BatchedHalfGemm;
use narrowgauge::mla::{Attention, CacheWrite, LatentCache, Rope, RopeTables};
use narrowgauge::norm::{RmsNorm, RmsNormQuantize};
use narrowgauge::quant::Quantize;
use narrowgauge::{Device, Stream, Tensor};

use super::checkpoint::Checkpoint;
use super::config::{Config, LATENT, ROPE};
use super::failure::Outcome;
use super::linear::{Linear, quantized};

/// The two inner norms' epsilon: the model's code leaves it at this default, whatever `rms_norm_eps` says.
const INNER_EPSILON: f32 = 1e-6;

/// Up to this size of the cache its pages are not split among blocks: splitting gains little there, and without it a
/// token's logits are the same to the bit however a prompt is cut into steps.
const UNSPLIT_PAGES: usize = 16;

pub struct AttentionLayer {
    query: Query,
    /// Compressed key/value and rotated key of a token, in one projection.
    latent: Linear,
    latent_norm: Tensor<bf16>,
    /// `[heads, 512, nope]`: a head's query into the latent space.
    absorb_key: Tensor<bf16>,
    /// `[heads, value, 512]`: a head's output out of it.
    absorb_value: Tensor<bf16>,
    output: Linear,
    heads: usize,
    nope: usize,
    value: usize,
    scale: f32,
    power_of_two: bool,
}

#[allow(clippy::large_enum_variant, reason = "one a layer")]
enum Query {
    Direct(Linear),
    Compressed { down: Linear, norm: Tensor<bf16>, up: Linear, rank: usize },
}

/// Where the tokens of one step stand in their sequence and in the cache.
pub struct Placement<'a> {
    pub tables: &'a RopeTables,
    /// `[T]`
    pub positions: Tensor<i32>,
    /// `[T]`: page * 64 + offset.
    pub slots: Tensor<i32>,
    /// `[1, pages]`
    pub page_table: Tensor<i32>,
    /// `[1]`: tokens in the cache, those of this step included.
    pub lengths: Tensor<i32>,
}

impl AttentionLayer {
    pub fn load(
        device: &Device,
        checkpoint: &Checkpoint,
        config: &Config,
        at: &str,
    ) -> Outcome<AttentionLayer> {
        let Config { hidden, heads, nope, value, .. } = *config;
        let linear =
            |name: &str, rows, cols| Linear::load(device, checkpoint, &format!("{at}.{name}"), rows, cols);
        let norm = |name: &str, size| -> Outcome<Tensor<bf16>> {
            Ok(device.tensor(&[size], &checkpoint.bf16(&format!("{at}.{name}.weight"), &[size])?)?)
        };
        let query = match config.q_lora_rank {
            None => Query::Direct(linear("q_proj", heads * config.query(), hidden)?),
            Some(rank) => Query::Compressed {
                down: linear("q_a_proj", rank, hidden)?,
                norm: norm("q_a_layernorm", rank)?,
                up: linear("q_b_proj", heads * config.query(), rank)?,
                rank,
            },
        };
        // A head's key rows, then its value rows. Keys meet the queries from the other side: a view of the same memory.
        let up = checkpoint.fp8(&format!("{at}.kv_b_proj"), heads * (nope + value), LATENT)?.dequantized();
        let up: Vec<bf16> = up.iter().map(|x| bf16::from_f32(*x)).collect();
        let up = device.tensor(&[heads, nope + value, LATENT], &up)?;
        Ok(AttentionLayer {
            query,
            latent: linear("kv_a_proj_with_mqa", LATENT + ROPE, hidden)?,
            latent_norm: norm("kv_a_layernorm", LATENT)?,
            absorb_key: up.slice(1, 0..nope)?.transpose(1, 2)?,
            absorb_value: up.slice(1, nope..nope + value)?,
            output: linear("o_proj", hidden, heads * value)?,
            heads,
            nope,
            value,
            scale: config.softmax_scale(),
            power_of_two: config.power_of_two_scales,
        })
    }

    /// `x`: `[T, hidden]`, normalised. Writes the tokens into the cache, then attends to all that stand there.
    pub fn forward(
        &self,
        device: &Device,
        stream: &Stream,
        x: &Fp8Rows,
        place: &Placement,
        cache: &LatentCache,
    ) -> Outcome<Tensor<bf16>> {
        let (tokens, heads, nope) = (x.rows(), self.heads, self.nope);

        let compressed = self.latent.forward(device, stream, x)?;
        let latent = device.empty(&[tokens, LATENT])?;
        RmsNorm::new(&compressed.slice(1, 0..LATENT)?, &self.latent_norm, &latent)
            .epsilon(INNER_EPSILON)
            .launch(stream)?;
        let key = compressed.slice(1, LATENT..LATENT + ROPE)?;
        CacheWrite::new(&latent, &key, &place.positions, &place.slots, place.tables, cache).launch(stream)?;

        let query = self.query(device, stream, x)?.reshape(&[tokens, heads, nope + ROPE])?;
        let absorbed = device.empty(&[tokens, heads, LATENT + ROPE])?;
        BatchedHalfGemm::new(
            &query.slice(2, 0..nope)?.transpose(0, 1)?,
            &self.absorb_key,
            &absorbed.slice(2, 0..LATENT)?.transpose(0, 1)?,
        )
        .batch_invariant()
        .launch(stream)?;
        let rotated = absorbed.slice(2, LATENT..LATENT + ROPE)?;
        Rope::new(&query.slice(2, nope..nope + ROPE)?, &place.positions, place.tables, &rotated)
            .launch(stream)?;

        let attended = device.empty(&[1, tokens, heads, LATENT])?;
        let queries = absorbed.reshape(&[1, tokens, heads, LATENT + ROPE])?;
        let mut attention =
            Attention::new(&queries, cache, &place.page_table, &place.lengths, &attended).scale(self.scale);
        if place.page_table.dim(1) <= UNSPLIT_PAGES {
            attention = attention.splits(1);
        }
        let workspace = device.empty::<u8>(&[attention.workspace_bytes().max(1)])?;
        attention.workspace(&workspace).launch(stream)?;

        let values = device.empty(&[tokens, heads, self.value])?;
        BatchedHalfGemm::new(
            &attended.reshape(&[tokens, heads, LATENT])?.transpose(0, 1)?,
            &self.absorb_value,
            &values.transpose(0, 1)?,
        )
        .batch_invariant()
        .launch(stream)?;
        let width = heads * self.value;
        let input = quantized(device, tokens, width)?;
        Quantize::new(&values.reshape(&[tokens, width])?, &input)
            .power_of_two(self.power_of_two)
            .launch(stream)?;
        self.output.forward(device, stream, &input)
    }

    fn query(&self, device: &Device, stream: &Stream, x: &Fp8Rows) -> Outcome<Tensor<bf16>> {
        match &self.query {
            Query::Direct(linear) => linear.forward(device, stream, x),
            Query::Compressed { down, norm, up, rank } => {
                let compressed = down.forward(device, stream, x)?;
                let input = quantized(device, x.rows(), *rank)?;
                RmsNormQuantize::new(&compressed, norm, &input)
                    .epsilon(INNER_EPSILON)
                    .power_of_two(self.power_of_two)
                    .launch(stream)?;
                up.forward(device, stream, &input)
            }
        }
    }
}
