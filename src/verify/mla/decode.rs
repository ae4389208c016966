//! Attention with any of its options: types, page sizes, ragged queries, sinks, without the causal mask, every way to cut.

use crate::device::{Device, Status};
use crate::dtype::DType;
use crate::mla::reference::decode::{Answer, Decode};
use crate::mla::{Attention, CacheLayout, Half, LatentCache};
use crate::verify::gemm::Checked;
use crate::verify::surrounded::{Place, Surrounded, text};
use crate::verify::{Evidence, Source};

/// How sequences are cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// Not at all: without a workspace.
    Whole,
    /// As the device's schedule says.
    Scheduled,
    /// Into so many equal parts.
    Equal(usize),
    /// Into pieces of so many tokens.
    Fixed(usize),
}

/// One attention to be checked.
#[derive(Debug, Clone)]
pub struct DecodeCheck {
    /// Cached tokens of each sequence.
    pub lengths: Vec<usize>,
    /// Query tokens of each sequence.
    pub queries: Vec<usize>,
    /// Whether queries follow each other, however many a sequence has; otherwise all must have as many.
    pub ragged: bool,
    /// Query heads.
    pub heads: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Whether a query token sees only the tokens up to its own.
    pub causal: bool,
    /// Whether there are sinks, infinite ones among them.
    pub sinks: bool,
    /// The cut.
    pub pieces: Pieces,
    /// The inputs' seed.
    pub seed: u64,
}

/// Inputs on the host.
#[derive(Debug, Clone)]
pub struct DecodeInputs<T> {
    /// Sizes and rules.
    pub decode: Decode,
    /// `[query tokens, heads, 576]`.
    pub query: Vec<T>,
    /// `[cache_pages, page_tokens, 576]`.
    pub cache: Vec<T>,
    /// `[batch, table_pages]`.
    pub table: Vec<i32>,
    /// `[batch]`.
    pub lengths: Vec<i32>,
    /// Where each sequence's query tokens begin, as the device gets it.
    pub offsets: Vec<i32>,
    /// `[heads]`.
    pub sinks: Vec<f32>,
}

/// What the kernels answered, by query token and head.
#[derive(Debug, Clone)]
pub struct DecodeOutputs<T> {
    /// `[query tokens, heads, 512]`.
    pub output: Vec<T>,
    /// `[query tokens, heads]`.
    pub lse: Vec<f32>,
    /// What the device reported.
    pub status: Status,
    /// What was found around the outputs.
    pub evidence: Evidence,
}

impl DecodeCheck {
    /// One sequence after the other in scattered pages; everything that none of them owns is poison.
    pub fn inputs<T: Checked + Half>(&self) -> DecodeInputs<T> {
        let source = &mut Source::new(self.seed);
        let page = self.page_tokens;
        let needed: Vec<usize> = self.lengths.iter().map(|length| length.div_ceil(page)).collect();
        let table_pages = needed.iter().copied().max().unwrap_or(0) + 1;
        let cache_pages = needed.iter().sum::<usize>() + 2;
        let mut free = source.permutation(cache_pages);
        let mut table = vec![2_147_480_000; self.lengths.len() * table_pages];
        let mut cache = vec![T::POISON; cache_pages * page * 576];
        for (sequence, &length) in self.lengths.iter().enumerate() {
            for index in 0..needed[sequence] {
                let id = free.pop().unwrap_or_default();
                table[sequence * table_pages + index] = id as i32;
                let tokens = (length - index * page).min(page);
                for element in &mut cache[id * page * 576..][..tokens * 576] {
                    *element = T::nearest(source.normal().into());
                }
            }
        }
        let mut offsets = vec![0];
        for queries in &self.queries {
            offsets.push(offsets[offsets.len() - 1] + queries);
        }
        let rows = offsets[offsets.len() - 1] * self.heads;
        let query = (0..rows * 576).map(|_| T::nearest(0.75 * f64::from(source.normal()))).collect();
        let mut sinks = source.uniforms(self.heads, -3.0, 9.0);
        for (sink, special) in sinks.iter_mut().skip(1).step_by(3).zip([f32::INFINITY, f32::NEG_INFINITY]) {
            *sink = special;
        }
        DecodeInputs {
            query,
            cache,
            table,
            lengths: self.lengths.iter().map(|length| *length as i32).collect(),
            offsets: offsets.iter().map(|offset| *offset as i32).collect(),
            sinks,
            decode: Decode {
                heads: self.heads,
                page_tokens: page,
                table_pages,
                cache_pages,
                offsets,
                causal: self.causal,
                scale: f64::from(192f32.sqrt().recip()),
            },
        }
    }

    /// Runs the kernels on these inputs.
    ///
    /// # Errors
    ///
    /// The device's, or that memory around the outputs was written.
    pub fn run<T: Checked + Half>(
        &self,
        device: &Device,
        inputs: &DecodeInputs<T>,
    ) -> Result<DecodeOutputs<T>, String> {
        let (heads, batch) = (self.heads, self.lengths.len());
        let total: usize = inputs.query.len() / (heads * 576).max(1);
        let shape = |columns: usize| match self.ragged {
            true => vec![total, heads, columns],
            false => vec![batch, total / batch.max(1), heads, columns],
        };
        let lse_shape = match self.ragged {
            true => vec![heads, total],
            false => vec![batch, heads, total / batch.max(1)],
        };
        let query = device.tensor(&shape(576), &inputs.query).map_err(text)?;
        let layout = if T::DTYPE == DType::F16 { CacheLayout::F16 } else { CacheLayout::Bf16 };
        let Decode { cache_pages, page_tokens, table_pages, .. } = inputs.decode;
        let cache = LatentCache::with_layout(device, cache_pages, page_tokens, layout).map_err(text)?;
        cache.columns::<T>().ok_or("columns of one type")?.write(&inputs.cache).map_err(text)?;
        let table = device.tensor(&[batch, table_pages], &inputs.table).map_err(text)?;
        let lengths = device.tensor(&[batch], &inputs.lengths).map_err(text)?;
        let offsets = device.tensor(&[batch + 1], &inputs.offsets).map_err(text)?;
        let sinks = device.tensor(&[heads], &inputs.sinks).map_err(text)?;
        let out =
            Surrounded::<T>::output(device, &shape(512), Place { offset: 8, padding: 8 }).map_err(text)?;
        let lse =
            Surrounded::<f32>::output(device, &lse_shape, Place { offset: 1, padding: 1 }).map_err(text)?;
        let mut operation = Attention::new(&query, &cache, &table, &lengths, out.view())
            .scale(inputs.decode.scale as f32)
            .causal(self.causal)
            .lse(lse.view());
        if self.ragged {
            operation = operation.ragged(&offsets, self.queries.iter().copied().max().unwrap_or(0));
        }
        if self.sinks {
            operation = operation.sinks(&sinks);
        }
        match self.pieces {
            Pieces::Whole | Pieces::Scheduled => {}
            Pieces::Equal(splits) => operation = operation.splits(splits),
            Pieces::Fixed(tokens) => operation = operation.piece_tokens(tokens),
        }
        let stream = device.stream();
        // Memory of an earlier launch must not show.
        let workspace = device.full::<u8>(&[operation.workspace_bytes()], 0xFF).map_err(text)?;
        if self.pieces != Pieces::Whole {
            operation = operation.workspace(&workspace);
        }
        operation.launch(&stream).map_err(text)?;
        let mut evidence = Evidence::default();
        let (output, by_head) = (out.finish("out", &mut evidence)?, lse.finish("lse", &mut evidence)?);
        let tokens = *lse_shape.last().unwrap_or(&0);
        let at = |row: usize| {
            let (token, head) = (row / heads, row % heads);
            by_head[(token / tokens * heads + head) * tokens + token % tokens]
        };
        let lse = (0..total * heads).map(at).collect();
        Ok(DecodeOutputs { output, lse, status: stream.status().map_err(text)?, evidence })
    }

    /// Runs and compares every element with the oracle.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), or the first element that is further off than it may be.
    pub fn check<T: Checked + Half>(&self, device: &Device) -> Result<Evidence, String> {
        let inputs = self.inputs::<T>();
        let mut got = self.run(device, &inputs)?;
        self.compare(&inputs, &mut got)?;
        if !got.status.is_clear() {
            return Err(format!("{self:?}: {}", got.status));
        }
        Ok(got.evidence)
    }

    /// Compares every element with the oracle.
    ///
    /// # Errors
    ///
    /// The first element that is further off than it may be.
    pub fn compare<T: Checked + Half>(
        &self,
        inputs: &DecodeInputs<T>,
        got: &mut DecodeOutputs<T>,
    ) -> Result<(), String> {
        let wide = |values: &[T]| values.iter().map(|value| value.widen().into()).collect::<Vec<f64>>();
        let (query, cache) = (wide(&inputs.query), wide(&inputs.cache));
        let sinks: Vec<f64> = inputs.sinks.iter().map(|sink| f64::from(*sink)).collect();
        let sinks = self.sinks.then_some(&sinks[..]);
        let want = inputs.decode.attention(&query, &cache, &inputs.table, &inputs.lengths, sinks);
        let bound = bounds::<T>(inputs, &query, &cache, sinks, &want);
        let output: Vec<f32> = got.output.iter().map(|value| value.widen()).collect();
        let name = |what: &str| format!("{what} of {self:?}");
        got.evidence.within_rounded(&name("out"), &output, &want.output, &bound.output)?;
        got.evidence.within(&name("lse"), &got.lse, &want.lse, &bound.lse)
    }
}

/// The largest errors that the kernels' arithmetic can make on inputs whose scores do not overflow, however they are cut.
///
/// As for [`AttentionInputs::bounds`](super::AttentionInputs::bounds), with these differences: a weight's argument is one
/// rounded multiply-add with a rounded reference, which each change of reference may round anew, and a row's reference may
/// be 2^8 below its largest score; f16 weights below 2^-14 lose 2^-25 each. A sink's weight has the errors of a score's.
fn bounds<T: Checked + Half>(
    inputs: &DecodeInputs<T>,
    query: &[f64],
    cache: &[f64],
    sinks: Option<&[f64]>,
    want: &Answer,
) -> Answer {
    const STEP: f64 = 17.0 / (1 << 25) as f64 + 1.0 / (1 << 23) as f64;
    const U: f64 = 1.0 / (1 << 24) as f64;
    let half = T::DTYPE == DType::F16;
    let (unit, least, lost) = match half {
        true => (2f64.powi(-11), 2f64.powi(-25), 2f64.powi(-25)),
        false => (2f64.powi(-8), 0.0, f64::from(f32::MIN_POSITIVE)),
    };
    let Decode { ref offsets, heads, scale, .. } = inputs.decode;
    let mut bound = Answer { output: vec![0.0; want.output.len()], lse: vec![0.0; want.lse.len()] };
    for sequence in 0..offsets.len() - 1 {
        for token in offsets[sequence]..offsets[sequence + 1] {
            let keys =
                inputs.decode.keys(&inputs.table, &inputs.lengths, sequence, token - offsets[sequence]);
            if keys.is_empty() {
                continue;
            }
            // Every block may be a piece.
            let steps = (2 * (keys.len() / 64 + 2) + 2) as f64;
            for head in 0..heads {
                let row = token * heads + head;
                let query = &query[row * 576..][..576];
                let products = |key: &usize| query.iter().zip(&cache[key * 576..]).map(|(q, k)| q * k);
                let scores: Vec<f64> = keys.iter().map(|key| products(key).sum::<f64>() * scale).collect();
                let magnitude = keys.iter().map(|key| products(key).map(f64::abs).sum::<f64>() * scale);
                let largest = scores.iter().fold(0f64, |largest, score| largest.max(score.abs()));
                let score_error = 36.0 * STEP * magnitude.fold(0.0, f64::max) * 1.01;
                let mut delta = score_error + 8.0 * U * (largest + score_error) + steps * 6.0 * U;
                let accumulation = steps * (4.0 * STEP + 2.0 * U);
                let summation = (16.0 * steps + 16.0) * U;
                bound.lse[row] =
                    delta + summation + 8.0 * U * (largest + 1.0) + 8.0 * U * (want.lse[row].abs() + 8.0);
                if let Some(sink) = sinks.map(|sinks| sinks[head]).filter(|sink| sink.is_finite()) {
                    delta += 8.0 * U * (sink.abs() + largest + 1.0);
                }
                let ratio =
                    delta.exp() * (1.0 + unit) * (1.0 + accumulation) / ((-delta).exp() * (1.0 - summation));
                let share = sinks.map_or(1.0, |sinks| 1.0 / (1.0 + (sinks[head] - want.lse[row]).exp()));
                let mut spread = vec![0.0; 512];
                for (score, key) in scores.iter().zip(&keys) {
                    let weight = (score - want.lse[row]).exp();
                    for (sum, v) in spread.iter_mut().zip(&cache[key * 576..]) {
                        *sum += share * (weight * (ratio - 1.0) + lost) * v.abs();
                    }
                }
                for (d, error) in spread.into_iter().enumerate() {
                    let value = want.output[row * 512 + d].abs() + error;
                    bound.output[row * 512 + d] = error + (unit + 8.0 * U) * value + least;
                }
            }
        }
    }
    bound
}
