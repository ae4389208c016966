//! Everything that an attention reads, what it answered, and how far off that may be.

use super::pages::Pages;
use crate::device::{Device, Status};
use crate::dtype::{DType, bf16};
use crate::mla::reference::decode::{Answer, Decode};
use crate::mla::{Attention, CacheLayout, Half, LatentCache};
use crate::verify::gemm::Checked;
use crate::verify::rounding::{self, F32 as U, TENSOR as STEP};
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

/// So many equal parts, or no workspace.
impl From<Option<usize>> for Pieces {
    fn from(splits: Option<usize>) -> Self {
        splits.map_or(Pieces::Whole, Pieces::Equal)
    }
}

/// Everything that an attention reads.
#[derive(Debug, Clone)]
pub struct AttentionInputs<T = bf16> {
    /// Sizes and rules.
    pub shape: Decode,
    /// `[query tokens, heads, 576]`.
    pub query: Vec<T>,
    /// `[cache_pages, page_tokens, 576]`.
    pub cache: Vec<T>,
    /// `[batch, table_pages]`.
    pub table: Vec<i32>,
    /// `[batch]`.
    pub lengths: Vec<i32>,
    /// Where each sequence's query tokens begin and the last one's end, as the device gets it; none: all have as many.
    pub offsets: Option<Vec<i32>>,
    /// `[heads]`.
    pub sinks: Option<Vec<f32>>,
}

/// What the kernels answered, by query token and head.
#[derive(Debug, Clone)]
pub struct AttentionOutputs<T = bf16> {
    /// `[query tokens, heads, 512]`.
    pub output: Vec<T>,
    /// `[query tokens, heads]`.
    pub lse: Vec<f32>,
    /// What the device reported.
    pub status: Status,
    /// What was found around the outputs, and what was compared.
    pub evidence: Evidence,
}

impl AttentionInputs {
    /// Sequences of these lengths in scattered pages of 64 tokens, all with as many query tokens. As
    /// [`paged`](Self::paged) otherwise.
    pub fn new(
        source: &mut Source,
        lengths: &[usize],
        tokens: usize,
        heads: usize,
        value: impl FnMut(&mut Source, Option<usize>, usize) -> f32,
    ) -> Self {
        Self::paged(source, lengths, &vec![tokens; lengths.len()], heads, 64, value)
    }

    /// Normally distributed queries and tokens.
    pub fn normal(source: &mut Source, lengths: &[usize], tokens: usize, heads: usize) -> Self {
        Self::new(source, lengths, tokens, heads, normal_value)
    }
}

/// Normally distributed queries and tokens. The magnitudes make some scores differ by several units, as trained models' do.
pub(super) fn normal_value(source: &mut Source, place: Option<usize>, _column: usize) -> f32 {
    source.normal() * if place.is_some() { 1.0 } else { 0.75 }
}

impl<T: Checked + Half> AttentionInputs<T> {
    /// Sequences of so many cached and query tokens in scattered pages, causal, without sinks. Query and cached tokens come
    /// from `value`, called with the source, the place in the sequence (`None` for queries) and the column. Everything that
    /// no sequence owns is poison: NaN in the cache, page ids far outside it in the table.
    pub fn paged(
        source: &mut Source,
        lengths: &[usize],
        queries: &[usize],
        heads: usize,
        page_tokens: usize,
        mut value: impl FnMut(&mut Source, Option<usize>, usize) -> f32,
    ) -> Self {
        let pages = Pages::scattered(source, lengths, page_tokens, 2);
        let mut draw = |place, column| T::nearest(f64::from(value(source, place, column)));
        let mut cache = vec![T::POISON; pages.cache_pages * page_tokens * 576];
        for (sequence, &length) in lengths.iter().enumerate() {
            for place in 0..length {
                let token = &mut cache[pages.token(sequence, place) * 576..][..576];
                for (column, element) in token.iter_mut().enumerate() {
                    *element = draw(Some(place), column);
                }
            }
        }
        let mut offsets = vec![0];
        for queries in queries {
            offsets.push(offsets[offsets.len() - 1] + queries);
        }
        let rows = offsets[offsets.len() - 1] * heads;
        let query = (0..rows * 576).map(|i| draw(None, i % 576)).collect();
        let Pages { cache_pages, table_pages, table, .. } = pages;
        let scale = f64::from(192f32.sqrt().recip());
        Self {
            shape: Decode { heads, page_tokens, table_pages, cache_pages, offsets, causal: true, scale },
            query,
            cache,
            table,
            lengths: lengths.iter().map(|length| *length as i32).collect(),
            offsets: None,
            sinks: None,
        }
    }

    /// Runs the kernels.
    ///
    /// # Errors
    ///
    /// The device's, or that memory around the outputs was written.
    pub fn run(&self, device: &Device, pieces: impl Into<Pieces>) -> Result<AttentionOutputs<T>, String> {
        let layout = if T::DTYPE == DType::F16 { CacheLayout::F16 } else { CacheLayout::Bf16 };
        let Decode { cache_pages, page_tokens, .. } = self.shape;
        let cache = LatentCache::with_layout(device, cache_pages, page_tokens, layout).map_err(text)?;
        cache.columns::<T>().ok_or("columns of one type")?.write(&self.cache).map_err(text)?;
        self.run_over(device, &cache, pieces.into())
    }

    /// Runs the kernels over this cache instead of the inputs'.
    pub(super) fn run_over(
        &self,
        device: &Device,
        cache: &LatentCache,
        pieces: Pieces,
    ) -> Result<AttentionOutputs<T>, String> {
        let Decode { heads, table_pages, causal, scale, .. } = self.shape;
        let batch = self.shape.batch();
        let total = self.query.len() / (heads * 576).max(1);
        let tokens = if self.offsets.is_some() { total } else { total / batch.max(1) };
        let shape = |columns: usize| match &self.offsets {
            Some(_) => vec![total, heads, columns],
            None => vec![batch, tokens, heads, columns],
        };
        let lse_shape = match &self.offsets {
            Some(_) => vec![heads, total],
            None => vec![batch, heads, tokens],
        };
        let query = device.tensor(&shape(576), &self.query).map_err(text)?;
        let table = device.tensor(&[batch, table_pages], &self.table).map_err(text)?;
        let lengths = device.tensor(&[batch], &self.lengths).map_err(text)?;
        let offsets = self
            .offsets
            .as_ref()
            .map(|offsets| device.tensor(&[batch + 1], offsets))
            .transpose()
            .map_err(text)?;
        let sinks =
            self.sinks.as_ref().map(|sinks| device.tensor(&[heads], sinks)).transpose().map_err(text)?;
        let out =
            Surrounded::<T>::output(device, &shape(512), Place { offset: 8, padding: 8 }).map_err(text)?;
        let lse =
            Surrounded::<f32>::output(device, &lse_shape, Place { offset: 1, padding: 1 }).map_err(text)?;
        let mut operation = Attention::new(&query, cache, &table, &lengths, out.view())
            .scale(scale as f32)
            .causal(causal)
            .lse(lse.view());
        if let Some(offsets) = &offsets {
            let most = self.shape.offsets.windows(2).map(|ends| ends[1] - ends[0]).max();
            operation = operation.ragged(offsets, most.unwrap_or(0));
        }
        if let Some(sinks) = &sinks {
            operation = operation.sinks(sinks);
        }
        match pieces {
            Pieces::Whole | Pieces::Scheduled => {}
            Pieces::Equal(splits) => operation = operation.splits(splits),
            Pieces::Fixed(tokens) => operation = operation.piece_tokens(tokens),
        }
        let stream = device.stream();
        // Memory of an earlier launch must not show.
        let workspace = device.full::<u8>(&[operation.workspace_bytes()], 0xFF).map_err(text)?;
        if pieces != Pieces::Whole {
            operation = operation.workspace(&workspace);
        }
        operation.launch(&stream).map_err(text)?;
        let mut evidence = Evidence::default();
        let (output, by_head) = (out.finish("out", &mut evidence)?, lse.finish("lse", &mut evidence)?);
        let at = |row: usize| {
            let (token, head) = (row / heads, row % heads);
            by_head[(token / tokens * heads + head) * tokens + token % tokens]
        };
        let lse = (0..total * heads).map(at).collect();
        Ok(AttentionOutputs { output, lse, status: stream.status().map_err(text)?, evidence })
    }

    /// The oracle's answer.
    pub fn expected(&self) -> Answer {
        let (query, cache) = (wide(&self.query), wide(&self.cache));
        let sinks = self.wide_sinks();
        self.shape.attention(&query, &cache, &self.table, &self.lengths, sinks.as_deref())
    }

    fn wide_sinks(&self) -> Option<Vec<f64>> {
        self.sinks.as_ref().map(|sinks| sinks.iter().map(|sink| f64::from(*sink)).collect())
    }

    /// The largest errors that the kernels' arithmetic can make on these inputs, if no score or output overflows.
    ///
    /// - A score is 36 tensor instructions of 16 products. Each aligns its 17 terms to the largest and cuts them
    ///   to 25 fractional bits, then rounds to f32 toward zero: at most `(17 · 2⁻²⁵ + 2⁻²³) Σ|q||k|`.
    /// - A weight is `2^(score · scale₂ - reference)`: one rounded multiply-add with a rounded reference, which each change of
    ///   reference may round anew, and 2⁻²² of `ex2.approx`. Each block of 64 tokens and each piece may rescale everything so
    ///   far, by a power of a difference of scores, with the same error. A sink's weight has the errors of a score's.
    /// - Weights become 16-bit floats for the second product, which accumulates like the first, four instructions a block;
    ///   f16 weights below 2⁻¹⁴ lose 2⁻²⁵ each. Their f32 sum, which divides, adds eight a block in each thread, and then
    ///   over threads.
    /// - A reference may be 2⁸ below the row's largest score, and the sum as much larger.
    /// - The quotient rounds a few times in f32 and once to the answer's type.
    pub fn bounds(&self, pieces: impl Into<Pieces>) -> Answer {
        let pieces = pieces.into();
        let (query, cache) = (wide(&self.query), wide(&self.cache));
        let sinks = self.wide_sinks();
        let Decode { ref offsets, heads, .. } = self.shape;
        let rows = self.query.len() / 576;
        let mut bound = Answer { output: vec![0.0; rows * 512], lse: vec![0.0; rows] };
        for sequence in 0..self.shape.batch() {
            for token in offsets[sequence]..offsets[sequence + 1] {
                let query_token = token - offsets[sequence];
                let keys = self.shape.keys(&self.table, &self.lengths, sequence, query_token);
                if keys.is_empty() {
                    continue;
                }
                let blocks = self.shape.end(&self.lengths, sequence, query_token).div_ceil(64);
                let pieces = match pieces {
                    Pieces::Whole => 1,
                    Pieces::Equal(splits) => splits,
                    // Every block may be a piece.
                    Pieces::Scheduled | Pieces::Fixed(_) => blocks,
                };
                let keys: Vec<&[f64]> = keys.iter().map(|key| &cache[key * 576..][..576]).collect();
                for head in 0..heads {
                    let row = token * heads + head;
                    let sink = sinks.as_ref().map(|sinks| sinks[head]);
                    let steps = (blocks + pieces + 2) as f64;
                    let (output, lse) = self.row_bounds(&query[row * 576..][..576], &keys, sink, steps);
                    bound.output[row * 512..][..512].copy_from_slice(&output);
                    bound.lse[row] = lse;
                }
            }
        }
        bound
    }

    /// [`bounds`](Self::bounds) of one row, all of whose sums are rescaled in so many steps.
    fn row_bounds(&self, query: &[f64], keys: &[&[f64]], sink: Option<f64>, steps: f64) -> (Vec<f64>, f64) {
        let (unit, least) = rounding::of::<T>();
        // What a weight loses below the least normal number.
        let lost = least.max(f64::from(f32::MIN_POSITIVE));
        let products = |key: &&[f64]| -> Vec<f64> { query.iter().zip(*key).map(|(q, k)| q * k).collect() };
        let products: Vec<Vec<f64>> = keys.iter().map(products).collect();
        let scale = self.shape.scale;
        let scores: Vec<f64> = products.iter().map(|p| p.iter().sum::<f64>() * scale).collect();
        let magnitudes = products.iter().map(|p| p.iter().map(|x| x.abs()).sum::<f64>() * scale);
        let high = scores.iter().copied().fold(f64::MIN, f64::max);
        let largest = scores.iter().fold(0f64, |largest, score| largest.max(score.abs()));
        let sum: f64 = scores.iter().map(|score| (score - high).exp()).sum();
        let score_error = 36.0 * STEP * magnitudes.fold(0.0, f64::max) * 1.01;
        let mut delta = score_error + 8.0 * U * (largest + score_error) + steps * 6.0 * U;
        let accumulation = steps * (4.0 * STEP + 2.0 * U);
        let summation = (8.0 * steps + 16.0) * U;
        let lse = delta + summation + 4.0 * U * (high.abs() + 1.0) + 8.0 * U * (sum.ln() + 7.0);
        if let Some(sink) = sink.filter(|sink| sink.is_finite()) {
            delta += 8.0 * U * (sink.abs() + largest + 1.0);
        }
        let ratio = delta.exp() * (1.0 + unit) * (1.0 + accumulation) / ((-delta).exp() * (1.0 - summation));
        let share = sink.map_or(1.0, |sink| 1.0 / (1.0 + (sink - high - sum.ln()).exp()));
        let [mut mean, mut spread] = [const { [0.0; 512] }; 2];
        for (score, key) in scores.iter().zip(keys) {
            let weight = share * (score - high).exp() / sum;
            for (d, v) in key[..512].iter().enumerate() {
                mean[d] += weight * v;
                spread[d] += (weight * (ratio - 1.0) + share * lost) * v.abs();
            }
        }
        let output = mean
            .iter()
            .zip(spread)
            .map(|(mean, error)| error + (unit + 8.0 * U) * (f64::abs(*mean) + error) + least);
        (output.collect(), lse)
    }

    /// Runs the kernels and compares every element with the oracle.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), or the first element that is further off than it may be.
    pub fn check(&self, device: &Device, pieces: impl Into<Pieces>) -> Result<AttentionOutputs<T>, String> {
        let pieces = pieces.into();
        let mut got = self.run(device, pieces)?;
        self.compare(&mut got, pieces)?;
        Ok(got)
    }

    /// Compares every element with the oracle.
    ///
    /// # Errors
    ///
    /// The first element that is further off than it may be.
    pub fn compare(&self, got: &mut AttentionOutputs<T>, pieces: impl Into<Pieces>) -> Result<(), String> {
        let (want, bounds) = (self.expected(), self.bounds(pieces));
        let output: Vec<f32> = got.output.iter().map(|value| value.widen()).collect();
        got.evidence.within_rounded("out", &output, &want.output, &bounds.output)?;
        got.evidence.within("lse", &got.lse, &want.lse, &bounds.lse)
    }
}

fn wide<T: Checked>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.widen().into()).collect()
}
