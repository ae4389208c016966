//! The lightning indexer against its oracles: exact for integers, modelled for some logits, bounded for all.

use super::super::surrounded::{Place, Poison, Surrounded, text};
use super::super::tensor_core::TensorCore;
use super::super::{Case, Evidence, Source, exact};
use crate::device::Device;
use crate::device::abi::{NG_STATUS_BAD_LENGTH, NG_STATUS_BAD_PAGE};
use crate::dtype::E4m3;
use crate::fp8::Fp8Rows;
use crate::mla::reference::indexer::logit;
use crate::mla::{IndexerLogits, IndexerPages, PagedIndexerLogits};
use crate::verify::rounding;
use std::ops::Range;

const WIDTH: usize = 128;
/// Logits of a check that are compared with the model.
const MODELLED: usize = 200;

/// What operands are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// Normal numbers.
    Normal,
    /// Small integers, weights and scales powers of two: sums are exact.
    Integers,
}

/// Logits to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexerCheck {
    /// Sequences; one where keys are in one row.
    pub batch: usize,
    /// Query tokens of a sequence.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// The most keys of a sequence.
    pub keys: usize,
    /// Tokens of a page; 0: keys in one row.
    pub page_tokens: usize,
    /// What operands are like.
    pub operands: Operands,
    /// Whether some bounds or pages are outside.
    pub bad: bool,
    /// Whether a query, a key and a scale are NaN.
    pub nan: bool,
}

/// Where a sequence's keys lie, and what a row of the answer sees of them.
struct Layout {
    table: Vec<i32>,
    table_pages: usize,
    starts: Vec<i32>,
    ends: Vec<i32>,
}

impl IndexerCheck {
    /// Keys in one row.
    pub fn prefill(tokens: usize, heads: usize, keys: usize) -> Self {
        let operands = Operands::Normal;
        Self { batch: 1, tokens, heads, keys, page_tokens: 0, operands, bad: false, nan: false }
    }

    /// Keys in pages of 64.
    pub fn decode(batch: usize, tokens: usize, heads: usize, keys: usize) -> Self {
        Self { batch, page_tokens: 64, ..Self::prefill(tokens, heads, keys) }
    }

    fn paged(&self) -> bool {
        self.page_tokens > 0
    }

    fn pages(&self) -> usize {
        if self.paged() { self.batch * self.keys.div_ceil(self.page_tokens) + 1 } else { 1 }
    }

    fn layout(&self, source: &mut Source) -> Layout {
        let most = self.keys as i32;
        let bounds = |source: &mut Source, count: usize, low: usize| -> Vec<i32> {
            let one = |i: usize| match self.bad && i % 3 == 1 {
                true => [-1, most + 1, i32::MAX, i32::MIN][source.below(4)],
                // One is as long as it can be.
                false if i == 0 => {
                    if low > 0 {
                        most
                    } else {
                        0
                    }
                }
                false => (low + source.below(self.keys - low + 1)) as i32,
            };
            (0..count).map(one).collect()
        };
        let rows = if self.paged() { self.batch } else { self.tokens };
        let ends = bounds(source, rows, self.keys / 3);
        let starts = bounds(source, self.tokens, 0).into_iter().map(|start| start / 4).collect();
        let table_pages = if self.paged() { self.keys.div_ceil(self.page_tokens) } else { 1 };
        let count = self.pages();
        let mut table: Vec<i32> = source.permutation(count).iter().map(|page| *page as i32).collect();
        table.truncate(self.batch * table_pages);
        if self.bad && self.paged() {
            table.iter_mut().skip(1).step_by(5).enumerate().for_each(|(i, page)| {
                *page = [-1, count as i32, i32::MIN, i32::MAX][i % 4];
            });
        }
        Layout { table, table_pages, starts, ends }
    }

    /// What token `token` of sequence `b` sees.
    fn visible(&self, layout: &Layout, b: usize, token: usize) -> Range<usize> {
        let clamp = |value: i32| i64::from(value).clamp(0, self.keys as i64);
        let (start, end) = if self.paged() {
            (0, clamp(layout.ends[b]) - (self.tokens - 1 - token) as i64)
        } else {
            (clamp(layout.starts[token]), clamp(layout.ends[token]))
        };
        start as usize..end.max(start) as usize
    }

    /// Where key `n` of sequence `b` lies, counted in keys.
    fn place(&self, layout: &Layout, b: usize, n: usize) -> Option<usize> {
        if !self.paged() {
            return Some(n);
        }
        let page = layout.table[b * layout.table_pages + n / self.page_tokens];
        let mapped = page >= 0 && (page as usize) < self.pages();
        mapped.then(|| page as usize * self.page_tokens + n % self.page_tokens)
    }

    /// Runs it and compares.
    ///
    /// # Errors
    ///
    /// The first difference, in words.
    pub fn check(&self, device: &Device, seed: u64) -> Result<Evidence, String> {
        let Self { batch, tokens, heads, keys, page_tokens, operands, .. } = *self;
        let source = &mut Source::new(seed);
        let layout = self.layout(source);
        let draw = |source: &mut Source, count: usize| match operands {
            Operands::Normal => Source::to_e4m3(&source.normals(count, 2.0)),
            Operands::Integers => Source::to_e4m3(&source.integers(count, 11)),
        };
        let small = |source: &mut Source, count: usize| match operands {
            Operands::Normal => source.normals(count, 0.3),
            Operands::Integers => source.powers(count, -1, 1),
        };
        let mut q = draw(source, batch * tokens * heads * WIDTH);
        let mut weights = small(source, batch * tokens * heads);
        weights.iter_mut().step_by(3).for_each(|weight| *weight = -*weight);

        // Keys that nobody sees are NaN.
        let places = if self.paged() { self.pages() * page_tokens } else { keys };
        let (mut k, mut scales) = (vec![E4m3::NAN; places * WIDTH], vec![f32::NAN; places]);
        let (mut status, mut first_missing) = (0, false);
        for b in 0..batch {
            for n in 0..keys {
                if !(0..tokens).any(|token| self.visible(&layout, b, token).contains(&n)) {
                    continue;
                }
                match self.place(&layout, b, n) {
                    Some(place) => {
                        k[place * WIDTH..][..WIDTH].copy_from_slice(&draw(source, WIDTH));
                        scales[place] = small(source, 1)[0].abs();
                    }
                    None => first_missing = true,
                }
            }
        }
        if self.nan {
            q[source.below(heads * WIDTH)] = E4m3::NAN;
            k[source.below(places * WIDTH)] = E4m3::NAN;
            scales[source.below(places)] = f32::NAN;
        }
        if first_missing {
            status |= NG_STATUS_BAD_PAGE;
        }
        let outside = |values: &[i32]| values.iter().any(|value| !(0..=keys as i32).contains(value));
        if outside(&layout.ends) || (!self.paged() && outside(&layout.starts)) {
            status |= NG_STATUS_BAD_LENGTH;
        }

        let (got, reported, mut evidence) = self.run(device, &layout, [&q, &k], [&weights, &scales])?;
        exact("status", &[reported], &[status])?;
        let wide = |values: &[E4m3]| -> Vec<f64> { values.iter().map(|x| f64::from(x.to_f32())).collect() };
        let (q64, k64) = (wide(&q), wide(&k));
        let (mut seen, mut want, mut bound) = (Vec::new(), Vec::new(), Vec::new());
        let (mut modelled, mut model) = (Vec::new(), Vec::new());
        let every = (got.len() / MODELLED).max(1);
        for row in 0..batch * tokens {
            let visible = self.visible(&layout, row / tokens, row % tokens);
            for n in 0..keys {
                let value = got[row * keys + n];
                if !visible.contains(&n) {
                    exact("what nobody sees", &[value.bits()], &[f32::POISON.bits()])?;
                    continue;
                }
                seen.push(value);
                let Some(place) = self.place(&layout, row / tokens, n) else {
                    want.push(f64::NEG_INFINITY);
                    bound.push(0.0);
                    continue;
                };
                let rows = row * heads..(row + 1) * heads;
                let elements = rows.start * WIDTH..rows.end * WIDTH;
                let key = place * WIDTH..(place + 1) * WIDTH;
                let weights64: Vec<f64> = weights[rows.clone()].iter().map(|w| f64::from(*w)).collect();
                let scale = f64::from(scales[place]);
                let exactly = logit(&q64[elements.clone()], &k64[key.clone()], &weights64, scale);
                if exactly.is_nan() {
                    exact("NaN", &[value.is_nan()], &[true])?;
                    seen.pop();
                    continue;
                }
                want.push(exactly);
                bound.push(match operands {
                    Operands::Integers => 0.0,
                    Operands::Normal => error(&q64[elements.clone()], &k64[key.clone()], &weights64, scale),
                });
                if (row * keys + n) % every == 0 {
                    modelled.push(value.to_bits());
                    model.push(self.modelled(&q[elements], &k[key], &weights[rows], scales[place]).to_bits());
                }
            }
        }
        let name = format!("logits of {self:?}");
        match operands {
            Operands::Normal => evidence.within(&name, &seen, &want, &bound)?,
            Operands::Integers => {
                let want: Vec<f32> = want.iter().map(|x| *x as f32).collect();
                evidence.exact(&name, &seen, &want)?;
            }
        }
        evidence.modelled(&format!("modelled {name}"), &modelled, &model)?;
        Ok(evidence)
    }

    /// Launches on these operands. Gives back logits, status bits, and what was found around the logits.
    fn run(
        &self,
        device: &Device,
        layout: &Layout,
        [q, k]: [&[E4m3]; 2],
        [weights, scales]: [&[f32]; 2],
    ) -> Result<(Vec<f32>, u32, Evidence), String> {
        let Self { batch, tokens, heads, keys, page_tokens, .. } = *self;
        let mut evidence = Evidence::default();
        let aligned = Place { offset: 0, padding: 16 };
        let out = Surrounded::<f32>::output(device, &[batch * tokens, keys], Place { offset: 3, padding: 5 })
            .map_err(text)?;
        let stream = device.stream();
        if self.paged() {
            let pages = self.pages();
            let queries =
                Surrounded::input(device, &[batch, tokens, heads, WIDTH], aligned, q).map_err(text)?;
            let data = Surrounded::input(device, &[pages, page_tokens, WIDTH], aligned, k).map_err(text)?;
            let padding = Place { offset: 0, padding: 4 };
            let scales = Surrounded::input(device, &[pages, page_tokens], padding, scales).map_err(text)?;
            let rows = Fp8Rows::per_row(data.view().clone(), scales.view().clone()).map_err(text)?;
            let weights =
                Surrounded::input(device, &[batch, tokens, heads], Place { offset: 1, padding: 2 }, weights)
                    .map_err(text)?;
            let table = device.tensor(&[batch, layout.table_pages], &layout.table).map_err(text)?;
            let lengths = device.tensor(&[batch], &layout.ends).map_err(text)?;
            let pages = IndexerPages::new(&rows, &table, &lengths);
            PagedIndexerLogits::new(queries.view(), pages, weights.view(), out.view())
                .launch(&stream)
                .map_err(text)?;
        } else {
            let queries = Surrounded::input(device, &[tokens, heads, WIDTH], aligned, q).map_err(text)?;
            let data = Surrounded::input(device, &[keys, WIDTH], aligned, k).map_err(text)?;
            let scales = Surrounded::input(device, &[keys], Place::default(), scales).map_err(text)?;
            let rows = Fp8Rows::per_row(data.view().clone(), scales.view().clone()).map_err(text)?;
            let weights =
                Surrounded::input(device, &[tokens, heads], Place { offset: 1, padding: 2 }, weights)
                    .map_err(text)?;
            let starts = device.tensor(&[tokens], &layout.starts).map_err(text)?;
            let ends = device.tensor(&[tokens], &layout.ends).map_err(text)?;
            IndexerLogits::new(queries.view(), &rows, weights.view(), out.view())
                .starts(&starts)
                .ends(&ends)
                .launch(&stream)
                .map_err(text)?;
        }
        let got = out.finish("logits", &mut evidence)?;
        Ok((got, stream.status().map_err(text)?.bits(), evidence))
    }

    /// One logit in the order of the kernel's operations: four lanes have two of each eight heads, and add up 32 heads; then
    /// both halves of 64.
    fn modelled(&self, q: &[E4m3], k: &[E4m3], weights: &[f32], scale: f32) -> f32 {
        let padded = if self.heads <= 32 { 32 } else { 64 };
        let doubled = |head: usize| match q.chunks(WIDTH).nth(head) {
            Some(q) => {
                let dot = TensorCore::FP8.dot(0.0, q, k);
                (dot + dot.abs(), 0.5 * weights[head])
            }
            None => (0.0, 0.0),
        };
        let group = |first: usize| {
            let lane = |lane: usize| {
                let heads = (0..8).map(|i| first + i / 2 * 8 + lane * 2 + i % 2);
                heads.fold(0f32, |sum, head| {
                    let (value, weight) = doubled(head);
                    value.mul_add(weight, sum)
                })
            };
            (lane(0) + lane(1)) + (lane(2) + lane(3))
        };
        (0..padded).step_by(32).map(group).reduce(|a, b| a + b).unwrap_or(0.0) * scale
    }

    /// Any logits.
    pub fn draw(source: &mut Source) -> Self {
        let paged = source.below(2) == 0;
        Self {
            batch: if paged { 1 + source.below(4) } else { 1 },
            tokens: 1 + source.below(if paged { 5 } else { 11 }),
            heads: [64, 32, 1 + source.below(64)][source.below(3)],
            keys: 1 + source.below(500),
            page_tokens: if paged { [32, 64, 64, 128][source.below(4)] } else { 0 },
            operands: [Operands::Normal, Operands::Integers][source.below(2)],
            bad: source.below(3) == 0,
            nan: source.below(4) == 0,
        }
    }
}

/// The largest error of a logit. Each tensor instruction aligns its 33 terms to the largest and cuts them to 13 fractional
/// bits, and cuts the sum to as many; twelve f32 operations of at most half an ulp follow (eight sums of weighted heads, three
/// additions, the scale).
fn error(q: &[f64], k: &[f64], weights: &[f64], scale: f64) -> f64 {
    const CUT: f64 = 1.0 / (1 << 13) as f64;
    let mut total = 0.0;
    for (q, weight) in q.chunks(WIDTH).zip(weights) {
        let (mut sum, mut error) = (0f64, 0f64);
        for (q, k) in q.chunks(32).zip(k.chunks(32)) {
            let products = || q.iter().zip(k).map(|(q, k)| q * k);
            let peak = products().fold(sum.abs() + error, |peak, product| peak.max(product.abs()));
            error += 33.0 * CUT * peak;
            sum += products().sum::<f64>();
            error += CUT * (sum.abs() + error);
        }
        total += weight.abs() * (error + 12.0 * rounding::F32 * (sum.max(0.0) + error));
    }
    // What is left of products of roundings, and subnormal results.
    scale.abs() * total * 1.001 + f64::from(f32::MIN_POSITIVE)
}

/// Cases that suit any device.
pub(in crate::verify) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, $check:expr) => {
            Case { family: "mla", name: $name, run: |device, seed| $check.check(device, seed) }
        };
    }
    const INTEGERS: Operands = Operands::Integers;
    vec![
        case!("indexer logits, 9 tokens of 64 heads", IndexerCheck::prefill(9, 64, 700)),
        case!("indexer logits, 17 tokens of 32 heads, integers", {
            IndexerCheck { operands: INTEGERS, ..IndexerCheck::prefill(17, 32, 300) }
        }),
        case!("indexer logits, bounds outside", {
            IndexerCheck { bad: true, ..IndexerCheck::prefill(10, 40, 260) }
        }),
        case!("indexer decode, 64 heads", IndexerCheck::decode(3, 1, 64, 700)),
        case!("indexer decode, 2 tokens of 64 heads, integers", {
            IndexerCheck { operands: INTEGERS, ..IndexerCheck::decode(2, 2, 64, 400) }
        }),
        case!("indexer decode, 3 tokens of 24 heads, pages of 32, some missing", {
            IndexerCheck { page_tokens: 32, bad: true, ..IndexerCheck::decode(4, 3, 24, 300) }
        }),
        Case {
            family: "mla",
            name: "drawn indexer logits",
            run: |device, seed| IndexerCheck::draw(&mut Source::new(seed ^ 0x1DE5)).check(device, seed),
        },
    ]
}
