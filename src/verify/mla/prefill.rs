//! Attention with keys and values of each head against its oracle.

use crate::device::{Device, Status};
use crate::mla::reference::prefill::{self, PrefillShape};
use crate::mla::{Half, Prefill};
use crate::verify::gemm::Checked;
use crate::verify::rounding::{self, F32 as U32, TENSOR as STEP};
use crate::verify::surrounded::{Place, Poison, Surrounded, text};
use crate::verify::{Evidence, Source};

/// Everything that a prefill reads.
#[derive(Debug, Clone)]
pub struct PrefillInputs<T> {
    /// Extents.
    pub shape: PrefillShape,
    /// `[queries, heads, width]`.
    pub query: Vec<T>,
    /// `[keys, key_heads, width]`.
    pub key: Vec<T>,
    /// `[keys, key_heads, 128]`.
    pub value: Vec<T>,
    /// `[sequences + 1]`.
    pub query_offsets: Vec<i32>,
    /// `[sequences + 1]`.
    pub key_offsets: Vec<i32>,
    /// `[heads]`, where there are any.
    pub sinks: Option<Vec<f32>>,
    /// Scale of the scores.
    pub scale: f32,
    /// Whether the last 64 of 192 columns of keys are given by themselves: with all their heads, or one for all.
    pub rope: Rope,
}

/// Where the last 64 of a key's 192 columns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rope {
    /// With the others.
    Inside,
    /// In a tensor of as many heads.
    Apart,
    /// In a tensor of one head. The columns of all heads are those of the first.
    Shared,
}

/// What the kernel answered.
#[derive(Debug, Clone)]
pub struct PrefillOutputs<T> {
    /// `[queries, heads, 128]`.
    pub output: Vec<T>,
    /// `[heads, queries]`.
    pub lse: Vec<f32>,
    /// What the kernel reported about offsets.
    pub status: Status,
    /// What was found around the outputs, and what was compared.
    pub evidence: Evidence,
}

/// How heads and columns are.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub key_heads: usize,
    /// Columns of queries and keys.
    pub width: usize,
}

/// Rows before the first sequence and after the last, which belong to none.
const STRAY: usize = 3;

impl<T: Checked + Half> PrefillInputs<T> {
    /// Sequences of so many queries and keys. Every value comes from `value`, called with the source, what it belongs to and
    /// the column; rows before and after the sequences are poison.
    pub fn new(
        source: &mut Source,
        lengths: &[[usize; 2]],
        Heads { heads, key_heads, width }: Heads,
        mut value: impl FnMut(&mut Source, Part, usize) -> f32,
    ) -> Self {
        let offsets = |which: usize| -> Vec<i32> {
            let mut end = STRAY;
            let ends = lengths.iter().map(|lengths| {
                end += lengths[which];
                end as i32
            });
            std::iter::once(STRAY as i32).chain(ends).collect()
        };
        let (query_offsets, key_offsets) = (offsets(0), offsets(1));
        let rows = |offsets: &[i32]| offsets[lengths.len()] as usize + STRAY;
        let shape = PrefillShape {
            queries: rows(&query_offsets),
            keys: rows(&key_offsets),
            heads,
            key_heads,
            width,
            causal: true,
        };
        let mut fill = |rows: usize, heads: usize, columns: usize, part: fn(usize) -> Part| -> Vec<T> {
            let mut all = vec![T::POISON; rows * heads * columns];
            for (row, values) in all.chunks_mut(heads * columns).enumerate().take(rows - STRAY).skip(STRAY) {
                for (at, element) in values.iter_mut().enumerate() {
                    *element = T::nearest(value(source, part(row - STRAY), at % columns).into());
                }
            }
            all
        };
        Self {
            query: fill(shape.queries, heads, width, |_| Part::Query),
            key: fill(shape.keys, key_heads, width, Part::Key),
            value: fill(shape.keys, key_heads, 128, Part::Value),
            shape,
            query_offsets,
            key_offsets,
            sinks: None,
            scale: (width as f32).sqrt().recip(),
            rope: Rope::Inside,
        }
    }

    /// Normally distributed queries, keys and values. The magnitudes make some scores differ by several units.
    pub fn normal(source: &mut Source, lengths: &[[usize; 2]], heads: Heads) -> Self {
        Self::new(source, lengths, heads, |source, _, _| 1.25 * source.normal())
    }

    /// Makes the last 64 columns of all heads' keys those of the first head.
    pub fn share_rope(&mut self) {
        let PrefillShape { key_heads, width, .. } = self.shape;
        for row in self.key.chunks_mut(key_heads * width) {
            let shared = row[width - 64..width].to_vec();
            row.chunks_mut(width).for_each(|head| head[width - 64..].copy_from_slice(&shared));
        }
        self.rope = Rope::Shared;
    }

    /// Runs the kernel, on views of wider rows.
    pub fn run(&self, device: &Device) -> Result<PrefillOutputs<T>, String> {
        let PrefillShape { queries, keys, heads, key_heads, width, causal } = self.shape;
        let place = Place { offset: 8, padding: 8 };
        let query = Surrounded::input(device, &[queries, heads, width], place, &self.query).map_err(text)?;
        let key = Surrounded::input(device, &[keys, key_heads, width], place, &self.key).map_err(text)?;
        let value = Surrounded::input(device, &[keys, key_heads, 128], place, &self.value).map_err(text)?;
        let integers = |values: &[i32]| device.tensor(&[values.len()], values).map_err(text);
        let (query_offsets, key_offsets) = (integers(&self.query_offsets)?, integers(&self.key_offsets)?);
        let sinks =
            device.tensor(&[heads], self.sinks.as_deref().unwrap_or(&vec![0.0; heads])).map_err(text)?;
        let out = Surrounded::<T>::output(device, &[queries, heads, 128], place).map_err(text)?;
        let lse = Surrounded::<f32>::output(device, &[heads, queries], Place { offset: 1, padding: 1 })
            .map_err(text)?;
        let (nope, rope) = match self.rope {
            Rope::Inside => (key.view().clone(), None),
            apart => {
                let rope = key.view().slice(2, 128..width).map_err(text)?;
                let rope = if apart == Rope::Shared { rope.slice(1, 0..1).map_err(text)? } else { rope };
                (key.view().slice(2, 0..128).map_err(text)?, Some(rope))
            }
        };
        let mut operation = Prefill::new(query.view(), &nope, value.view(), out.view())
            .sequences(&query_offsets, &key_offsets)
            .scale(self.scale)
            .causal(causal)
            .lse(lse.view());
        if let Some(rope) = &rope {
            operation = operation.key_rope(rope);
        }
        if self.sinks.is_some() {
            operation = operation.sinks(&sinks);
        }
        let stream = device.stream();
        operation.launch(&stream).map_err(text)?;
        let status = stream.status().map_err(text)?;
        let mut evidence = Evidence::default();
        let (output, lse) = (out.finish("output", &mut evidence)?, lse.finish("lse", &mut evidence)?);
        Ok(PrefillOutputs { output, lse, status, evidence })
    }

    /// Runs the kernel and compares every element with the oracle; of queries in no sequence, that they are untouched.
    pub fn check(&self, device: &Device) -> Result<PrefillOutputs<T>, String> {
        let mut got = self.run(device)?;
        let (want, want_lse) = self.expected();
        let (bounds, lse_bounds) = self.bounds(&want_lse);
        let mut output = (Vec::new(), Vec::new(), Vec::new());
        for (at, want) in want.into_iter().enumerate() {
            match want {
                Some(want) => {
                    output.0.push(got.output[at].widen());
                    output.1.push(want);
                    output.2.push(bounds[at]);
                }
                None if got.output[at].bits() == T::POISON.bits() => {}
                None => return Err(format!("output {at} belongs to no sequence and was written")),
            }
        }
        let mut lse = (Vec::new(), Vec::new(), Vec::new());
        for (at, want) in want_lse.into_iter().enumerate() {
            match want {
                Some(want) => {
                    lse.0.push(got.lse[at]);
                    lse.1.push(want);
                    lse.2.push(lse_bounds[at]);
                }
                None if got.lse[at].bits() == f32::POISON.bits() => {}
                None => return Err(format!("lse {at} belongs to no sequence and was written")),
            }
        }
        got.evidence.within_rounded("output", &output.0, &output.1, &output.2)?;
        got.evidence.within("lse", &lse.0, &lse.1, &lse.2)?;
        Ok(got)
    }

    fn wide(values: &[T]) -> Vec<f64> {
        values.iter().map(|value| value.widen().into()).collect()
    }

    fn wide_sinks(&self) -> Option<Vec<f64>> {
        self.sinks.as_ref().map(|sinks| sinks.iter().map(|sink| f64::from(*sink)).collect())
    }

    /// The oracle's answer; `None` for queries of no sequence.
    pub fn expected(&self) -> (Vec<Option<f64>>, Vec<Option<f64>>) {
        prefill::prefill(
            &self.shape,
            &Self::wide(&self.query),
            &Self::wide(&self.key),
            &Self::wide(&self.value),
            &self.query_offsets,
            &self.key_offsets,
            f64::from(self.scale),
            self.wide_sinks().as_deref(),
        )
    }

    /// The largest errors that the kernel's arithmetic can make on these inputs, if nothing overflows, for answers with these
    /// logarithms.
    ///
    /// - A score is `width / 16` tensor instructions of 16 products. Each aligns its 17 terms to the largest and cuts them to
    ///   25 fractional bits, then rounds to f32 toward zero: at most `(17 · 2⁻²⁵ + 2⁻²³) Σ|q||k|`.
    /// - A weight is `2^(score · scale₂ - reference)`: two roundings of `scale₂`, one of the difference, and 2⁻²² of
    ///   `ex2.approx`. The reference cancels, its rounding too. Each tile may rescale everything so far, with the same error.
    /// - Weights become 16-bit floats for the second product, which accumulates like the first, eight instructions a tile;
    ///   their f32 sum, which divides, adds 16 a tile in each of two chains, and then over chains, tiles and threads.
    /// - A sink adds a weight of the same kind. The quotient rounds twice in f32 and once to the output's type.
    fn bounds(&self, lse: &[Option<f64>]) -> (Vec<f64>, Vec<f64>) {
        let (u16, least) = rounding::of::<T>();
        let PrefillShape { queries, keys, heads, key_heads, width, .. } = self.shape;
        let scale = f64::from(self.scale);
        let (query, key, value) = (Self::wide(&self.query), Self::wide(&self.key), Self::wide(&self.value));
        let sinks = self.wide_sinks();
        let mut output = vec![0.0; queries * heads * 128];
        let mut lse_bounds = vec![0.0; heads * queries];
        let magnitudes = |values: &[f64]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
        let (query_sizes, key_sizes) = (magnitudes(&query), magnitudes(&key));
        let rows = prefill::sequences(&self.query_offsets, queries)
            .into_iter()
            .zip(prefill::sequences(&self.key_offsets, keys));
        for (query_rows, key_rows) in rows {
            for (place, row) in query_rows.clone().enumerate() {
                let seen = prefill::visible(&self.shape, place, &query_rows, &key_rows);
                let steps = (key_rows.len().div_ceil(128) + 2) as f64;
                for head in (0..heads).filter(|_| !seen.is_empty()) {
                    let at = row * heads + head;
                    let of = |queries: &[f64], keys: &[f64]| {
                        prefill::scores(
                            &self.shape,
                            &queries[at * width..][..width],
                            keys,
                            head,
                            seen.clone(),
                        )
                    };
                    let scores = of(&query, &key);
                    let (low, high) = scores
                        .iter()
                        .fold((f64::MAX, f64::MIN), |(low, high), s| (low.min(*s), high.max(*s)));
                    let magnitude = of(&query_sizes, &key_sizes).into_iter().fold(0.0, f64::max);
                    let score_error = (width / 16) as f64 * STEP * magnitude * 1.01;
                    let delta = scale * (score_error + 4.0 * U32 * (high - low + 2.0 * score_error))
                        + steps * 6.0 * U32;
                    let accumulation = steps * (8.0 * STEP + 2.0 * U32);
                    let summation = (2.0 * steps + 22.0) * U32;
                    let sink_error = sinks.as_ref().map_or(0.0, |sinks| match sinks[head] {
                        sink if sink.is_finite() => {
                            3.0 * U32 * (sink.abs() + high.abs() * scale) + 8.0 * U32 + delta + summation
                        }
                        _ => 0.0,
                    });
                    let ratio = delta.exp() * (1.0 + u16) * (1.0 + accumulation) * (1.0 + sink_error)
                        / ((-delta).exp() * (1.0 - summation));
                    let logarithm = lse[head * queries + row].unwrap_or_default();
                    let share =
                        sinks.as_ref().map_or(1.0, |sinks| 1.0 / (1.0 + (sinks[head] - logarithm).exp()));
                    let [mut mean, mut spread, mut lost] = [const { [0.0; 128] }; 3];
                    for (score, key) in scores.iter().zip(seen.clone()) {
                        let weight = (score * scale - logarithm).exp() * share;
                        let values = &value[(key * key_heads + head * key_heads / heads) * 128..][..128];
                        for (column, value) in values.iter().enumerate() {
                            mean[column] += weight * value;
                            spread[column] += weight * value.abs();
                            // Weights that are too small for an f32 count as zero, those too small for the 16-bit type are
                            // rounded to its spacing.
                            lost[column] += (f64::from(f32::MIN_POSITIVE) + least) * value.abs();
                        }
                    }
                    for (column, bound) in output[at * 128..][..128].iter_mut().enumerate() {
                        let error = spread[column] * (ratio - 1.0) + lost[column];
                        *bound = error + (u16 + 4.0 * U32) * (f64::abs(mean[column]) + error) + least;
                    }
                    let sum = logarithm - high * scale;
                    lse_bounds[head * queries + row] = delta
                        + summation
                        + 6.0 * U32 * (high.abs() * scale + 1.0)
                        + 8.0 * U32 * (sum.abs() + 1.0);
                }
            }
        }
        (output, lse_bounds)
    }
}

/// What a value belongs to: a key's and a value's number counts from the first of all sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A query.
    Query,
    /// A key.
    Key(usize),
    /// A value.
    Value(usize),
}

/// Equal scores (queries of zero) over small integers: every visible key weighs the same, so one too many or too few shows,
/// and sums are exact. Returns the inputs and the exact output, poison for queries of no sequence.
pub fn uniform_prefill<T: Checked + Half>(
    source: &mut Source,
    lengths: &[[usize; 2]],
    heads: Heads,
    causal: bool,
) -> (PrefillInputs<T>, Vec<T>) {
    let mut inputs = PrefillInputs::<T>::new(source, lengths, heads, |source, part, _| match part {
        Part::Query => 0.0,
        _ => source.integer(-8, 8),
    });
    inputs.shape.causal = causal;
    let shape = inputs.shape;
    let mut want = vec![T::POISON; shape.queries * shape.heads * 128];
    let rows = prefill::sequences(&inputs.query_offsets, shape.queries)
        .into_iter()
        .zip(prefill::sequences(&inputs.key_offsets, shape.keys));
    for (query_rows, key_rows) in rows {
        for (place, row) in query_rows.clone().enumerate() {
            let seen = prefill::visible(&shape, place, &query_rows, &key_rows);
            let inverse = if seen.is_empty() { 0.0 } else { (seen.len() as f32).recip() };
            for head in 0..shape.heads {
                for column in 0..128 {
                    let key_head = head * shape.key_heads / shape.heads;
                    let of =
                        |key: usize| inputs.value[(key * shape.key_heads + key_head) * 128 + column].widen();
                    let sum = seen.clone().map(of).fold(0.0f32, |sum, value| sum + value);
                    want[(row * shape.heads + head) * 128 + column] = T::nearest((sum * inverse).into());
                }
            }
        }
    }
    (inputs, want)
}
