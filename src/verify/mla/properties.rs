//! What must hold between attentions whose inputs are related, bit for bit unless it says otherwise.

use super::{AttentionInputs, AttentionOutputs, widened};
use crate::device::Device;
use crate::dtype::bf16;
use crate::mla::reference::decode::Decode;
use crate::verify::{Evidence, Source};

const PAGE: usize = 64 * 576;

/// A relation between attentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// Where pages lie in the cache does not matter, if the table follows.
    PageOrder,
    /// Sequences in another order give their answers in that order.
    BatchOrder,
    /// Heads in another order give their answers in that order.
    HeadOrder,
    /// A sequence has the bits that it has alone.
    Alone,
    /// What the cache holds past the lengths does not matter.
    Poison,
    /// A query token does not see later ones: several tokens are as many attentions of one.
    CausalPrefix,
    /// Equal values are the answer, whatever the scores: within the bound.
    EqualValues,
    /// An answer lies between the smallest and the largest value: within the bound.
    Between,
    /// Any number of splits: within the bounds, and each repeats its bits.
    Splits,
    /// Two halves of a sequence, joined by their logarithms, are the whole: within the bounds.
    Merge,
}

impl Property {
    /// All of them.
    pub const ALL: [Property; 10] = [
        Property::PageOrder,
        Property::BatchOrder,
        Property::HeadOrder,
        Property::Alone,
        Property::Poison,
        Property::CausalPrefix,
        Property::EqualValues,
        Property::Between,
        Property::Splits,
        Property::Merge,
    ];
}

/// Holds a property against the kernel, on sequences of these lengths (1 or more).
pub fn holds(
    device: &Device,
    property: Property,
    lengths: &[usize],
    [tokens, heads]: [usize; 2],
    splits: Option<usize>,
    seed: u64,
) -> Result<Evidence, String> {
    let case = Attentions { device, splits, seed };
    let name = |error| {
        format!(
            "{property:?} of {lengths:?}, {tokens} tokens, {heads} heads, {splits:?} splits, seed {seed}: {error}"
        )
    };
    case.holds(property, lengths, [tokens, heads]).map_err(name)
}

struct Attentions<'a> {
    device: &'a Device,
    splits: Option<usize>,
    seed: u64,
}

impl Attentions<'_> {
    fn run(&self, inputs: &AttentionInputs, evidence: &mut Evidence) -> Result<AttentionOutputs, String> {
        let outputs = inputs.run(self.device, self.splits)?;
        evidence.add(&outputs.evidence);
        Ok(outputs)
    }

    fn holds(
        &self,
        property: Property,
        lengths: &[usize],
        [tokens, heads]: [usize; 2],
    ) -> Result<Evidence, String> {
        let source = &mut Source::new(self.seed);
        let inputs = AttentionInputs::normal(source, lengths, tokens, heads);
        let Decode { table_pages, cache_pages, .. } = inputs.shape;
        let batch = lengths.len();
        let row = tokens * heads;
        let mut all = Evidence::default();
        let evidence = &mut all;
        let got = self.run(&inputs, evidence)?;
        let mut changed = inputs.clone();
        match property {
            Property::PageOrder => {
                let order = source.permutation(cache_pages);
                for (from, to) in order.iter().enumerate() {
                    changed.cache[to * PAGE..][..PAGE].copy_from_slice(&inputs.cache[from * PAGE..][..PAGE]);
                }
                for id in changed.table.iter_mut().filter(|id| (**id as usize) < cache_pages) {
                    *id = order[*id as usize] as i32;
                }
                same(evidence, &self.run(&changed, &mut Evidence::default())?, &got)?;
            }
            Property::BatchOrder => {
                let order = source.permutation(batch);
                changed.query = blocks(&inputs.query, row * 576, &order);
                changed.table = blocks(&inputs.table, table_pages, &order);
                changed.lengths = blocks(&inputs.lengths, 1, &order);
                let again = self.run(&changed, evidence)?;
                evidence.repeated("output", &again.output, &blocks(&got.output, row * 512, &order))?;
                evidence.repeated("lse", &again.lse, &blocks(&got.lse, row, &order))?;
            }
            Property::HeadOrder => {
                let order = source.permutation(heads);
                changed.query = heads_of(&inputs.query, 576, &order);
                // Splits cut the pages of a block's last row, and rows of several tokens move between blocks.
                let splits = if tokens == 1 { self.splits } else { None };
                let (got, again) = (inputs.run(self.device, splits)?, changed.run(self.device, splits)?);
                evidence.repeated("output", &again.output, &heads_of(&got.output, 512, &order))?;
                evidence.repeated("lse", &again.lse, &heads_of(&got.lse, 1, &order))?;
            }
            Property::Alone => {
                for b in 0..batch {
                    let again = self.run(&alone(&inputs, b), evidence)?;
                    evidence.repeated("output", &again.output, &got.output[b * row * 512..][..row * 512])?;
                    evidence.repeated("lse", &again.lse, &got.lse[b * row..][..row])?;
                }
            }
            Property::Poison => {
                // Whatever no sequence owns is NaN already: every bit of it changes.
                for element in changed.cache.iter_mut().filter(|x| x.is_nan()) {
                    *element = bf16::from_bits(source.bits() as u16);
                }
                for id in changed.table.iter_mut().filter(|id| **id as usize >= cache_pages) {
                    *id = source.bits() as i32;
                }
                same(evidence, &self.run(&changed, &mut Evidence::default())?, &got)?;
            }
            Property::CausalPrefix => {
                let got = inputs.run(self.device, None)?;
                for token in 0..tokens {
                    let again = one_token(&inputs, token).run(self.device, None)?;
                    for b in 0..batch {
                        let from = (b * tokens + token) * heads;
                        let output = &again.output[b * heads * 512..][..heads * 512];
                        evidence.repeated("output", output, &got.output[from * 512..][..heads * 512])?;
                        let lse = &again.lse[b * heads..][..heads];
                        evidence.repeated("lse", lse, &got.lse[from..][..heads])?;
                    }
                }
            }
            Property::EqualValues => {
                let value: Vec<bf16> = Source::to_bf16(&source.normals(512, 1.0));
                for row in changed.cache.chunks_mut(576) {
                    row[..512].copy_from_slice(&value);
                }
                let again = changed.check(self.device, self.splits)?;
                let seen = (0..batch * row).map(|at| !seen_by(&changed, at).is_empty());
                let want: Vec<f64> = seen
                    .flat_map(|seen| value.iter().map(move |x| if seen { x.to_f64() } else { 0.0 }))
                    .collect();
                let bounds = changed.bounds(self.splits).output;
                evidence.within_rounded("equal values", &widened(&again.output), &want, &bounds)?;
            }
            Property::Between => between(evidence, &inputs, &got, self.splits)?,
            Property::Splits => {
                let want: Vec<f64> = widened(&got.output).iter().map(|x| f64::from(*x)).collect();
                for splits in [1, 2, 3, 5] {
                    let again = inputs.check(self.device, Some(splits))?;
                    let bounds = [inputs.bounds(Some(splits)), inputs.bounds(self.splits)];
                    let bound: Vec<f64> =
                        bounds[0].output.iter().zip(&bounds[1].output).map(|(a, b)| a + b).collect();
                    evidence.within_rounded("other splits", &widened(&again.output), &want, &bound)?;
                    same(evidence, &inputs.run(self.device, Some(splits))?, &again)?;
                }
            }
            Property::Merge => self.merge(evidence, &inputs, &got)?,
        }
        Ok(all)
    }

    fn merge(
        &self,
        evidence: &mut Evidence,
        inputs: &AttentionInputs,
        got: &AttentionOutputs,
    ) -> Result<(), String> {
        // The keys of even pages and those of odd ones: a page that the cache does not have has no keys.
        let half = |odd: usize| {
            let mut half = inputs.clone();
            for (index, id) in half.table.iter_mut().enumerate() {
                if index % inputs.shape.table_pages % 2 != odd {
                    *id = -1;
                }
            }
            half
        };
        let splits = self.splits;
        let parts = [half(0), half(1)];
        let mut answers = Vec::new();
        for part in &parts {
            answers.push((self.run(part, &mut Evidence::default())?, part.bounds(splits)));
        }
        let whole = inputs.bounds(splits);
        let (mut want, mut bound) = (Vec::new(), Vec::new());
        for at in 0..got.output.len() / 512 {
            let top = answers.iter().map(|(answer, _)| answer.lse[at]).fold(f32::NEG_INFINITY, f32::max);
            let weight = |i: usize| match answers[i].0.lse[at] {
                f32::NEG_INFINITY => 0.0,
                lse => f64::from(lse - top).exp(),
            };
            let weights = [weight(0), weight(1)];
            let sum = (weights[0] + weights[1]).max(f64::MIN_POSITIVE);
            // An error of the logarithms shifts weight between the halves.
            let shift =
                (answers[0].1.lse[at] + answers[1].1.lse[at] + 2.0 * f64::from(f32::EPSILON)).exp() - 1.0;
            for d in at * 512..at * 512 + 512 {
                let values = [0, 1].map(|i| answers[i].0.output[d].to_f64());
                let share = [weights[0] / sum, weights[1] / sum];
                want.push(share[0] * values[0] + share[1] * values[1]);
                let spread = share[0] * share[1] * (values[0] - values[1]).abs() * shift;
                let errors = share[0] * answers[0].1.output[d] + share[1] * answers[1].1.output[d];
                bound.push(whole.output[d] + errors + spread);
            }
        }
        evidence.within_rounded("joined halves", &widened(&got.output), &want, &bound)
    }
}

/// The bits of two runs.
fn same(evidence: &mut Evidence, got: &AttentionOutputs, want: &AttentionOutputs) -> Result<(), String> {
    evidence.repeated("output", &got.output, &want.output)?;
    evidence.repeated("lse", &got.lse, &want.lse)
}

fn between(
    evidence: &mut Evidence,
    inputs: &AttentionInputs,
    got: &AttentionOutputs,
    splits: Option<usize>,
) -> Result<(), String> {
    let bounds = inputs.bounds(splits).output;
    let (mut middle, mut reach) = (Vec::new(), Vec::new());
    for at in 0..got.output.len() / 512 {
        let keys = seen_by(inputs, at);
        for d in 0..512 {
            let values = || keys.iter().map(|key| inputs.cache[key * 576 + d].to_f64());
            let (low, high) = (values().reduce(f64::min), values().reduce(f64::max));
            let (low, high) = (low.unwrap_or(0.0), high.unwrap_or(0.0));
            middle.push((low + high) / 2.0);
            reach.push((high - low) / 2.0 + bounds[at * 512 + d]);
        }
    }
    evidence.within_rounded("between the values", &widened(&got.output), &middle, &reach)
}

/// The keys that a row of the answer sees, by its number among query tokens and heads.
fn seen_by(inputs: &AttentionInputs, at: usize) -> Vec<usize> {
    let (token, tokens) = (at / inputs.shape.heads, inputs.shape.offsets[1]);
    inputs.shape.keys(&inputs.table, &inputs.lengths, token / tokens, token % tokens)
}

/// Every token's heads in the order of `order`.
fn heads_of<V: Copy>(values: &[V], width: usize, order: &[usize]) -> Vec<V> {
    values.chunks(order.len() * width).flat_map(|token| blocks(token, width, order)).collect()
}

/// Blocks of `width` in the order of `order`.
fn blocks<V: Copy>(values: &[V], width: usize, order: &[usize]) -> Vec<V> {
    order.iter().flat_map(|block| &values[block * width..(block + 1) * width]).copied().collect()
}

/// One sequence of a batch.
fn alone(inputs: &AttentionInputs, b: usize) -> AttentionInputs {
    let Decode { heads, table_pages, .. } = inputs.shape;
    let tokens = inputs.shape.offsets[1];
    AttentionInputs {
        shape: Decode { offsets: vec![0, tokens], ..inputs.shape.clone() },
        query: blocks(&inputs.query, tokens * heads * 576, &[b]),
        table: blocks(&inputs.table, table_pages, &[b]),
        lengths: vec![inputs.lengths[b]],
        ..inputs.clone()
    }
}

/// One query token of every sequence, as it was when no later ones were there.
fn one_token(inputs: &AttentionInputs, token: usize) -> AttentionInputs {
    let (batch, tokens, heads) = (inputs.lengths.len(), inputs.shape.offsets[1], inputs.shape.heads);
    let order: Vec<usize> = (0..batch).map(|b| b * tokens + token).collect();
    let later = (tokens - 1 - token) as i32;
    AttentionInputs {
        shape: Decode { offsets: (0..=batch).collect(), ..inputs.shape.clone() },
        query: blocks(&inputs.query, heads * 576, &order),
        lengths: inputs.lengths.iter().map(|length| (length - later).max(0)).collect(),
        ..inputs.clone()
    }
}
