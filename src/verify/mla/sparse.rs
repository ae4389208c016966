//! Attention over listed tokens: inputs, and the error that the kernel may make.

use super::super::surrounded::{Place, Surrounded};
use super::super::{Evidence, Source};
use super::widened;
use crate::device::{Device, Status};
use crate::dtype::bf16;
use crate::error::Result;
use crate::mla::reference::cache::{decoded, encoded};
use crate::mla::reference::sparse::{self as reference, Answer, Problem};
use crate::mla::{CacheLayout, LatentCache, SparseAttention};
use crate::verify::rounding::{BF16 as U16, F32 as U32, TENSOR as STEP};

/// Sizes of a sparse attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparseShape {
    /// Query tokens.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Entries of a list.
    pub top_k: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// bf16, or e4m3 in blocks.
    pub layout: CacheLayout,
}

/// Everything that a sparse attention reads.
#[derive(Debug, Clone)]
pub struct SparseInputs {
    /// Sizes.
    pub shape: SparseShape,
    /// `[tokens, heads, 576]`.
    pub query: Vec<bf16>,
    /// `[pages, page_tokens, token_bytes]`.
    pub cache: Vec<u8>,
    /// `[tokens, top_k]`.
    pub indices: Vec<i32>,
    /// Entries that count, one for each run of as many query tokens; none: all.
    pub lengths: Option<Vec<i32>>,
    /// `[heads]`.
    pub sinks: Option<Vec<f32>>,
    /// Scale of the scores.
    pub scale: f32,
}

/// What the kernel answered.
#[derive(Debug, Clone)]
pub struct SparseOutputs {
    /// `[tokens, heads, 512]`.
    pub output: Vec<bf16>,
    /// `[tokens, heads]`.
    pub lse: Vec<f32>,
    /// `[tokens, heads]`.
    pub max_logits: Vec<f32>,
    /// What the kernel reported about indices and lengths.
    pub status: Status,
    /// What was found around the outputs, and what was compared.
    pub evidence: Evidence,
}

impl SparseInputs {
    /// Lists of tokens drawn from every other one of the cache, an eighth of the entries -1. Values come from `value`, called
    /// with the source, the cached token (`None` for queries) and the column. Cached tokens that no list may name are NaN.
    pub fn new(
        source: &mut Source,
        shape: SparseShape,
        mut value: impl FnMut(&mut Source, Option<usize>, usize) -> f32,
    ) -> Self {
        let SparseShape { tokens, heads, top_k, pages, page_tokens, layout } = shape;
        let cached = pages * page_tokens;
        let mut cache = Vec::with_capacity(cached * layout.token_bytes());
        for token in 0..cached {
            if token % 2 == 1 {
                cache.resize(cache.len() + layout.token_bytes(), 0xFF);
                continue;
            }
            let values: Vec<f32> = (0..576).map(|column| value(source, Some(token), column)).collect();
            cache.extend(encoded(layout, &values));
        }
        let indices = (0..tokens * top_k).map(|_| match source.below(8) {
            0 => -1,
            _ => (source.below(cached.div_ceil(2)) * 2) as i32,
        });
        let indices = indices.collect();
        let query = (0..tokens * heads * 576).map(|i| bf16::from_f32(value(source, None, i % 576))).collect();
        Self { shape, query, cache, indices, lengths: None, sinks: None, scale: 192f32.sqrt().recip() }
    }

    /// Normally distributed queries and tokens.
    pub fn normal(source: &mut Source, shape: SparseShape) -> Self {
        Self::new(source, shape, |source, token, _| {
            source.normal() * if token.is_some() { 1.0 } else { 0.75 }
        })
    }

    /// With lengths, one for each `per_length` query tokens, behind which the lists hold garbage: tokens full of NaN, and
    /// numbers that the cache does not have.
    pub fn with_lengths(mut self, source: &mut Source, per_length: usize) -> Self {
        let SparseShape { tokens, top_k, .. } = self.shape;
        let lengths: Vec<i32> = (0..tokens / per_length).map(|_| source.below(top_k + 1) as i32).collect();
        for (token, list) in self.indices.chunks_mut(top_k.max(1)).enumerate() {
            let length = lengths[token / per_length] as usize;
            for entry in list.iter_mut().skip(length) {
                *entry = [1, i32::MIN, -123_456, 114_514, 2_147_480_000, i32::MAX][source.below(6)];
            }
        }
        self.lengths = Some(lengths);
        self
    }

    /// With a sink for each head, of which the first two are infinite.
    pub fn with_sinks(mut self, source: &mut Source) -> Self {
        let sinks = (0..self.shape.heads).map(|head| match head {
            0 => f32::INFINITY,
            1 => f32::NEG_INFINITY,
            _ => source.normal() * 3.0,
        });
        self.sinks = Some(sinks.collect());
        self
    }

    /// The cache's values, exactly.
    pub fn values(&self) -> Vec<f64> {
        decoded(self.shape.layout, &self.cache)
    }

    fn problem<'a>(&'a self, cache: &'a [f64]) -> Problem<'a> {
        let SparseShape { tokens, heads, top_k, .. } = self.shape;
        Problem {
            tokens,
            heads,
            top_k,
            query: &self.query,
            cache,
            indices: &self.indices,
            lengths: self.lengths.as_deref().unwrap_or_default(),
            sinks: self.sinks.as_deref().unwrap_or_default(),
            scale: f64::from(self.scale),
        }
    }

    /// Runs the kernel. One split and no workspace where `splits` is `None`.
    ///
    /// # Errors
    ///
    /// The device's, or that memory around the outputs was written.
    pub fn run(&self, device: &Device, splits: Option<usize>) -> std::result::Result<SparseOutputs, String> {
        let (output, [lse, max_logits], status) =
            self.launch(device, splits).map_err(|error| error.to_string())?;
        let mut evidence = Evidence::default();
        Ok(SparseOutputs {
            output: output.finish("output", &mut evidence)?,
            lse: lse.finish("lse", &mut evidence)?,
            max_logits: max_logits.finish("max_logits", &mut evidence)?,
            status,
            evidence,
        })
    }

    #[allow(clippy::type_complexity, reason = "outputs, rows' statistics, status")]
    fn launch(
        &self,
        device: &Device,
        splits: Option<usize>,
    ) -> Result<(Surrounded<bf16>, [Surrounded<f32>; 2], Status)> {
        let SparseShape { tokens, heads, top_k, pages, page_tokens, layout } = self.shape;
        let query = device.tensor(&[tokens, heads, 576], &self.query)?;
        let cache = LatentCache::with_layout(device, pages, page_tokens, layout)?;
        cache.memory().write(&self.cache)?;
        let indices = device.tensor(&[tokens, top_k], &self.indices)?;
        let lengths =
            self.lengths.as_ref().map(|values| device.tensor(&[values.len()], values)).transpose()?;
        let sinks = self.sinks.as_ref().map(|values| device.tensor(&[values.len()], values)).transpose()?;
        let aligned = Place { offset: 8, padding: 8 };
        let output = Surrounded::<bf16>::output(device, &[tokens, heads, 512], aligned)?;
        let odd = Place { offset: 1, padding: 1 };
        let lse = Surrounded::<f32>::output(device, &[tokens, heads], odd)?;
        let max_logits = Surrounded::<f32>::output(device, &[tokens, heads], odd)?;
        let mut operation = SparseAttention::new(&query, &cache, &indices, output.view())
            .scale(self.scale)
            .lse(lse.view())
            .max_logits(max_logits.view());
        if let Some(lengths) = &lengths {
            operation = operation.topk_length(lengths);
        }
        if let Some(sinks) = &sinks {
            operation = operation.sinks(sinks);
        }
        let stream = device.stream();
        match splits {
            None => operation.launch(&stream)?,
            Some(splits) => {
                let operation = operation.splits(splits);
                let workspace = device.empty::<u8>(&[operation.workspace_bytes()])?;
                operation.workspace(&workspace).launch(&stream)?;
            }
        }
        Ok((output, [lse, max_logits], stream.status()?))
    }

    /// The oracle's answer.
    pub fn expected(&self) -> Answer {
        reference::attention(&self.problem(&self.values()))
    }

    /// The largest errors that the kernel's arithmetic can make on these inputs, if no score or output overflows: of the
    /// outputs, logarithms and maxima.
    ///
    /// - FP8 values round to bf16 once (not at all where scales are powers of two).
    /// - A score is 36 tensor instructions of 16 products. Each aligns its 17 terms to the largest and cuts them
    ///   to 25 fractional bits, then rounds to f32 toward zero: at most `(17 · 2⁻²⁵ + 2⁻²³) Σ|q||k|`.
    /// - A weight is `2^(score · scale₂ - reference)`: `scale₂` and the result are rounded, and `ex2.approx` adds 2⁻²². The
    ///   reference's own rounding cancels; it may be eight powers of two off the maximum. Each block and each split may
    ///   rescale everything so far, with a difference of references that is rounded.
    /// - Weights become bf16 for the second product, which accumulates like the first, four instructions a block; their
    ///   f32 sum, which divides, adds sixteen a block in each thread, and then over threads.
    /// - A sink's weight has the same errors, with the sink's own product. The quotient rounds twice in f32 and once to bf16.
    pub fn bounds(&self, splits: usize) -> Answer {
        let values = self.values();
        let problem = self.problem(&values);
        let rows = problem.tokens * problem.heads;
        let mut bounds =
            Answer { output: vec![0.0; rows * 512], lse: vec![0.0; rows], max_logits: vec![0.0; rows] };
        let steps = (problem.top_k.div_ceil(64) + splits + 2) as f64;
        for row in 0..rows {
            let keys = reference::keys(&problem, row / problem.heads);
            let scores = reference::scores(&problem, row, &keys);
            let Some(high) = scores.iter().copied().reduce(f64::max) else { continue };
            let low = scores.iter().copied().fold(high, f64::min);
            let query = &self.query[row * 576..][..576];
            let score_error = keys
                .iter()
                .map(|key| {
                    let terms = query.iter().zip(&values[key * 576..]);
                    terms.map(|(q, k)| q.to_f64().abs() * (36.0 * STEP * k.abs() + rounding(*k)) * 1.01).sum()
                })
                .fold(0.0, f64::max);
            let reach = (high - low + 2.0 * score_error) * problem.scale;
            let peak = high.abs() * problem.scale;
            let sink = problem.sinks.get(row % problem.heads).filter(|sink| sink.is_finite());
            let sunk = sink.map_or(0.0, |sink| 4.0 * U32 * (f64::from(sink.abs()) + peak + 8.0));
            let delta = problem.scale * score_error + 8.0 * U32 * (reach + steps + 8.0);
            let accumulation = steps * (4.0 * STEP + 2.0 * U32);
            let summation = (16.0 * steps + 16.0) * U32;
            let ratio = (delta + sunk).exp() * (1.0 + U16) * (1.0 + accumulation)
                / ((-delta - sunk).exp() * (1.0 - summation));

            let weights: Vec<f64> = scores.iter().map(|s| ((s - high) * problem.scale).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let share = problem
                .sinks
                .get(row % problem.heads)
                .map_or(1.0, |sink| sum / (sum + (f64::from(*sink) - high * problem.scale).exp()));
            let [mut mean, mut spread, mut flushed] = [const { [0.0; 512] }; 3];
            for (weight, key) in weights.iter().zip(&keys) {
                for (d, v) in values[key * 576..][..512].iter().enumerate() {
                    mean[d] += weight / sum * v;
                    spread[d] += weight / sum * (v.abs() + rounding(*v) / (ratio - 1.0));
                    // Weights below the smallest normal f32 count as zero in the kernel.
                    flushed[d] += f64::from(f32::MIN_POSITIVE) * v.abs();
                }
            }
            for (d, bound) in bounds.output[row * 512..][..512].iter_mut().enumerate() {
                let error = share * spread[d] * (ratio - 1.0) + flushed[d];
                *bound = error + (U16 + 4.0 * U32) * (f64::abs(mean[d]) * share + error);
            }
            bounds.lse[row] = delta + summation + 8.0 * U32 * (peak + sum.ln() + 8.0);
            bounds.max_logits[row] =
                problem.scale * score_error + 2.0 * U32 * (peak + problem.scale * score_error);
        }
        bounds
    }

    /// Runs the kernel and compares every element with the oracle.
    pub fn check(
        &self,
        device: &Device,
        splits: Option<usize>,
    ) -> std::result::Result<SparseOutputs, String> {
        let mut got = self.run(device, splits)?;
        let (want, bounds) = (self.expected(), self.bounds(splits.unwrap_or(1)));
        got.evidence.within_rounded("output", &widened(&got.output), &want.output, &bounds.output)?;
        got.evidence.within("lse", &got.lse, &want.lse, &bounds.lse)?;
        got.evidence.within("max_logits", &got.max_logits, &want.max_logits, &bounds.max_logits)?;
        Ok(got)
    }
}

/// How far the nearest bf16 is away.
fn rounding(value: f64) -> f64 {
    (bf16::from_f64(value).to_f64() - value).abs()
}
