//! Attention over the latent cache: inputs, the error that the kernel may make, properties and cases.
//!
//! Of the four oracles, the first applies to special inputs whose answers are exact ([`uniform_attention`],
//! [`one_hot_attention`]) and the third to all. The other two want a product of matrices alone.

mod cases;
mod decode;
mod exact;
mod fp8_cache;
pub mod indexer;
mod merge;
pub mod prefill;
pub mod properties;
pub mod sparse;
pub mod top_k;

pub(super) use cases::cases;
pub use decode::{DecodeCheck, DecodeInputs, DecodeOutputs, Pieces};
pub use exact::{one_hot_attention, uniform_attention};
pub use fp8_cache::CachedAttention;
pub use merge::MergeCheck;

use super::surrounded::{Place, Surrounded};
use super::{Evidence, Source};
use crate::device::{Device, Status};
use crate::dtype::bf16;
use crate::error::Result;
use crate::mla::reference::{self, Answer, Shape};
use crate::mla::{Attention, LatentCache};

/// Everything that an attention reads.
#[derive(Debug, Clone)]
pub struct AttentionInputs {
    /// Sizes.
    pub shape: Shape,
    /// `[batch, tokens, heads, 576]`.
    pub query: Vec<bf16>,
    /// `[cache_pages, 64, 576]`.
    pub cache: Vec<bf16>,
    /// `[batch, table_pages]`.
    pub table: Vec<i32>,
    /// `[batch]`.
    pub lengths: Vec<i32>,
    /// Scale of the scores.
    pub scale: f32,
}

/// What the kernel answered.
#[derive(Debug, Clone)]
pub struct AttentionOutputs {
    /// `[batch, tokens, heads, 512]`.
    pub output: Vec<bf16>,
    /// `[batch, heads, tokens]`.
    pub lse: Vec<f32>,
    /// What the kernel reported about lengths and page ids.
    pub status: Status,
    /// What was found around the outputs, and what was compared.
    pub evidence: Evidence,
}

/// How far outputs may be from the oracle, element by element.
#[derive(Debug, Clone)]
pub struct AttentionBounds {
    /// `[batch, tokens, heads, 512]`.
    pub output: Vec<f64>,
    /// `[batch, heads, tokens]`.
    pub lse: Vec<f64>,
}

impl AttentionInputs {
    /// Sequences of these lengths in scattered pages. Query and cached tokens come from `value`, called with the
    /// source, the place in the sequence (`None` for queries) and the column. Everything that no sequence owns is
    /// poison: NaN in the cache, page ids far outside it in the table.
    pub fn new(
        source: &mut Source,
        lengths: &[usize],
        tokens: usize,
        heads: usize,
        mut value: impl FnMut(&mut Source, Option<usize>, usize) -> f32,
    ) -> Self {
        let batch = lengths.len();
        let needed: Vec<usize> = lengths.iter().map(|length| length.div_ceil(64)).collect();
        let table_pages = needed.iter().copied().max().unwrap_or(0) + 1;
        let cache_pages = needed.iter().sum::<usize>() + 2;
        let mut free = source.permutation(cache_pages);
        let mut table = vec![2_147_480_000; batch * table_pages];
        let mut cache = vec![bf16::NAN; cache_pages * 64 * 576];
        for (b, &length) in lengths.iter().enumerate() {
            for page in 0..needed[b] {
                let id = free.pop().unwrap_or_default();
                table[b * table_pages + page] = id as i32;
                for place in page * 64..length.min(page * 64 + 64) {
                    for (column, element) in
                        cache[(id * 64 + place % 64) * 576..][..576].iter_mut().enumerate()
                    {
                        *element = bf16::from_f32(value(source, Some(place), column));
                    }
                }
            }
        }
        let query =
            (0..batch * tokens * heads * 576).map(|i| bf16::from_f32(value(source, None, i % 576))).collect();
        Self {
            shape: Shape { batch, tokens, heads, table_pages, cache_pages },
            query,
            cache,
            table,
            lengths: lengths.iter().map(|length| *length as i32).collect(),
            scale: 192f32.sqrt().recip(),
        }
    }

    /// Normally distributed queries and tokens. The magnitudes make some scores differ by several units, as
    /// trained models' do.
    pub fn normal(source: &mut Source, lengths: &[usize], tokens: usize, heads: usize) -> Self {
        Self::new(source, lengths, tokens, heads, |source, place, _| {
            source.normal() * if place.is_some() { 1.0 } else { 0.75 }
        })
    }

    /// Runs the kernel. One split and no workspace where `splits` is `None`.
    ///
    /// # Errors
    ///
    /// The device's, or that memory around the outputs was written.
    pub fn run(
        &self,
        device: &Device,
        splits: Option<usize>,
    ) -> std::result::Result<AttentionOutputs, String> {
        let (output, lse, status) = self.launch(device, splits).map_err(|error| error.to_string())?;
        let mut evidence = Evidence::default();
        let (output, lse) = (output.finish("output", &mut evidence)?, lse.finish("lse", &mut evidence)?);
        Ok(AttentionOutputs { output, lse, status, evidence })
    }

    fn launch(
        &self,
        device: &Device,
        splits: Option<usize>,
    ) -> Result<(Surrounded<bf16>, Surrounded<f32>, Status)> {
        let Shape { batch, tokens, heads, table_pages, cache_pages } = self.shape;
        let query = device.tensor(&[batch, tokens, heads, 576], &self.query)?;
        let cache = LatentCache::new(device, cache_pages)?;
        cache.tensor().write(&self.cache)?;
        let table = device.tensor(&[batch, table_pages], &self.table)?;
        let lengths = device.tensor(&[batch], &self.lengths)?;
        let aligned = Place { offset: 8, padding: 8 };
        let output = Surrounded::<bf16>::output(device, &[batch, tokens, heads, 512], aligned)?;
        let lse =
            Surrounded::<f32>::output(device, &[batch, heads, tokens], Place { offset: 1, padding: 1 })?;
        let operation =
            Attention::new(&query, &cache, &table, &lengths, output.view()).scale(self.scale).lse(lse.view());
        let stream = device.stream();
        match splits {
            None => operation.launch(&stream)?,
            Some(splits) => {
                let operation = operation.splits(splits);
                let workspace = device.empty::<u8>(&[operation.workspace_bytes()])?;
                operation.workspace(&workspace).launch(&stream)?;
            }
        }
        Ok((output, lse, stream.status()?))
    }

    /// The oracle's answer.
    pub fn expected(&self) -> Answer {
        reference::attention(
            &self.shape,
            &self.query,
            &self.cache,
            &self.table,
            &self.lengths,
            f64::from(self.scale),
        )
    }

    /// The largest errors that the kernel's arithmetic can make on these inputs, if no score or output overflows.
    ///
    /// - A score is 36 tensor instructions of 16 products. Each aligns its 17 terms to the largest and cuts them
    ///   to 25 fractional bits, then rounds to f32 toward zero: at most `(17 · 2⁻²⁵ + 2⁻²³) Σ|q||k|`.
    /// - A weight is `2^(score · scale₂ - reference)`: one rounded multiply-add with a rounded reference, which each change of
    ///   reference may round anew, and 2⁻²² of `ex2.approx`. Each page and each split may rescale everything so far, by a
    ///   power of a difference of scores, with the same error.
    /// - Weights become bf16 for the second product, which accumulates like the first, four instructions a page;
    ///   their f32 sum, which divides, adds eight a page in each thread, and then over threads.
    /// - The quotient rounds twice in f32 and once to bf16.
    pub fn bounds(&self, splits: usize) -> AttentionBounds {
        const STEP: f64 = 17.0 / (1 << 25) as f64 + 1.0 / (1 << 23) as f64;
        const U32: f64 = 1.0 / (1 << 24) as f64;
        const U16: f64 = 1.0 / 256.0;
        let Shape { batch, tokens, heads, .. } = self.shape;
        let scale = f64::from(self.scale);
        let (query, cache) = (reference::widened(&self.query), reference::widened(&self.cache));
        let mut output = vec![0.0; batch * tokens * heads * 512];
        let mut lse = vec![0.0; batch * heads * tokens];
        for b in 0..batch {
            for token in 0..tokens {
                let row = reference::row(&self.shape, &self.table, &self.lengths, b, token);
                if row.keys.is_empty() {
                    continue;
                }
                let steps = (row.pages + splits + 2) as f64;
                for head in 0..heads {
                    let at = (b * tokens + token) * heads + head;
                    let query = &query[at * 576..][..576];
                    let scores = reference::scores(query, &cache, &row);
                    let (low, high) = scores
                        .iter()
                        .fold((f64::MAX, f64::MIN), |(low, high), s| (low.min(*s), high.max(*s)));
                    let magnitude = row.keys.iter().map(|&(_, key)| dot_of_magnitudes(query, &cache[key..]));
                    let score_error = 36.0 * STEP * magnitude.fold(0.0, f64::max) * 1.01;
                    let largest = high.abs().max(low.abs());
                    let delta =
                        scale * (score_error + 8.0 * U32 * (largest + score_error)) + steps * 6.0 * U32;
                    let accumulation = steps * (4.0 * STEP + 2.0 * U32);
                    let summation = (8.0 * steps + 16.0) * U32;
                    let ratio = delta.exp() * (1.0 + U16) * (1.0 + accumulation)
                        / ((-delta).exp() * (1.0 - summation));

                    let weights: Vec<f64> = scores.iter().map(|s| ((s - high) * scale).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    let [mut mean, mut spread, mut flushed] = [const { [0.0; 512] }; 3];
                    for (weight, &(_, key)) in weights.iter().zip(&row.keys) {
                        for (d, v) in cache[key..key + 512].iter().enumerate() {
                            mean[d] += weight / sum * v;
                            spread[d] += weight / sum * v.abs();
                            // Weights below the smallest normal f32 count as zero in the kernel.
                            flushed[d] += f64::from(f32::MIN_POSITIVE) * v.abs();
                        }
                    }
                    for (d, bound) in output[at * 512..][..512].iter_mut().enumerate() {
                        let error = spread[d] * (ratio - 1.0) + flushed[d];
                        *bound = error + (U16 + 4.0 * U32) * (f64::abs(mean[d]) + error);
                    }
                    lse[(b * heads + head) * tokens + token] = delta
                        + summation
                        + 4.0 * U32 * (f64::abs(high) * scale + 1.0)
                        + 8.0 * U32 * (sum.ln() + 1.0);
                }
            }
        }
        AttentionBounds { output, lse }
    }

    /// Runs the kernel and compares every element with the oracle.
    pub fn check(
        &self,
        device: &Device,
        splits: Option<usize>,
    ) -> std::result::Result<AttentionOutputs, String> {
        let mut got = self.run(device, splits)?;
        let want = self.expected();
        let bounds = self.bounds(splits.unwrap_or(1));
        got.evidence.within_rounded("output", &widened(&got.output), &want.output, &bounds.output)?;
        got.evidence.within("lse", &got.lse, &want.lse, &bounds.lse)?;
        Ok(got)
    }
}

fn dot_of_magnitudes(query: &[f64], key: &[f64]) -> f64 {
    query.iter().zip(key).map(|(q, k)| (q * k).abs()).sum()
}

/// bf16 values as f32, exactly.
pub fn widened(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}
