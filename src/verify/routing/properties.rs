//! What must hold of routings, permutations and sums, whatever the data.

use super::super::surrounded::{Place, Surrounded, bits, text};
use super::super::{Evidence, Source};
use super::permutation::{draw_ids, permuted};
use super::{CombineProblem, K2};
use super::{UNIT, V3, check_combine, check_permute, check_round_trip};
use crate::device::Device;
use crate::dtype::bf16;
use crate::error::Error;
use crate::routing::{Combine, Gate, Permutation, Permute, Router};

/// A relation between routings, or between a routing and its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// Tokens in another order have their experts in that order.
    TokenOrder,
    /// Experts with other numbers are chosen by their new numbers, with the same weights.
    Relabelling,
    /// Further tokens change nothing for the others.
    MoreTokens,
    /// Normalised weights sum to the scale: within the bound.
    WeightSum,
    /// Of equal scores the lowest numbers win.
    Ties,
    /// Counts sum to the entries, offsets are their prefix sums, and source and position are inverse.
    Bijection,
    /// All tokens to one expert.
    OneExpert,
    /// As many slots as experts.
    AllExperts,
    /// A single token.
    OneToken,
    /// Experts that do nothing give every token back.
    Identity,
    /// Tokens in another order have their sums in that order.
    SumOrder,
    /// A graph of router, permutation and sum gives what its calls give, on the logits of the moment.
    Graph,
}

impl Property {
    /// All of them.
    pub const ALL: [Property; 12] = [
        Property::TokenOrder,
        Property::Relabelling,
        Property::MoreTokens,
        Property::WeightSum,
        Property::Ties,
        Property::Bijection,
        Property::OneExpert,
        Property::AllExperts,
        Property::OneToken,
        Property::Identity,
        Property::SumOrder,
        Property::Graph,
    ];
}

/// Holds a property against the kernels, for 1 or more tokens.
pub fn holds(device: &Device, property: Property, tokens: usize, seed: u64) -> Result<Evidence, String> {
    let routings = Routings { device, tokens, source: Source::new(seed), evidence: Evidence::default() };
    routings
        .holds(property, seed)
        .map_err(|error| format!("{property:?} of {tokens} tokens, seed {seed}: {error}"))
}

struct Routings<'a> {
    device: &'a Device,
    tokens: usize,
    source: Source,
    evidence: Evidence,
}

/// Ids, and the bits of the weights.
type Routed = (Vec<i32>, Vec<u32>);

impl Routings<'_> {
    fn route(&mut self, logits: &[f32], bias: &[f32], gate: &Gate) -> Result<Routed, String> {
        let (experts, device) = (bias.len(), self.device);
        let shape = [logits.len() / experts, gate.slots];
        let input = device.tensor(&[shape[0], experts], logits).map_err(text)?;
        let biases = device.tensor(&[experts], bias).map_err(text)?;
        let weights = Surrounded::<f32>::output(device, &shape, Place::default()).map_err(text)?;
        let ids = Surrounded::<i32>::output(device, &shape, Place::default()).map_err(text)?;
        Router::new(&input, *gate, weights.view(), ids.view())
            .bias(&biases)
            .launch(&device.stream())
            .map_err(text)?;
        let ids = ids.finish("ids", &mut self.evidence)?;
        Ok((ids, bits(&weights.finish("weights", &mut self.evidence)?)))
    }

    fn holds(mut self, property: Property, seed: u64) -> Result<Evidence, String> {
        let (device, tokens) = (self.device, self.tokens);
        match property {
            Property::TokenOrder => {
                let (logits, bias) = self.draw(256);
                let order = self.source.permutation(tokens);
                let got = self.route(&logits, &bias, &V3)?;
                let moved = self.route(&in_order(&logits, 256, &order), &bias, &V3)?;
                self.same(&moved, &(in_order(&got.0, 8, &order), in_order(&got.1, 8, &order)))?;
            }
            Property::Relabelling => {
                // Every logit its own, so that no choice hangs on a number.
                let (_, bias) = self.draw(384);
                let rows = (0..tokens).map(|_| self.source.permutation(384)).collect::<Vec<_>>();
                let logits: Vec<f32> = rows.iter().flatten().map(|i| *i as f32 / 64.0 - 3.0).collect();
                let bias = vec![bias[0]; 384];
                let order = self.source.permutation(384);
                let got = self.route(&logits, &bias, &K2)?;
                let renamed: Vec<f32> = logits.chunks(384).flat_map(|row| in_order(row, 1, &order)).collect();
                let renamed = self.route(&renamed, &bias, &K2)?;
                let old: Vec<i32> = renamed.0.iter().map(|id| order[*id as usize] as i32).collect();
                self.same(&(old, renamed.1), &got)?;
            }
            Property::MoreTokens => {
                let (logits, bias) = self.draw(256);
                let got = self.route(&logits, &bias, &V3)?;
                let mut more = logits.clone();
                more.extend(self.source.normals(3 * 256, 9.0));
                let more = self.route(&more, &bias, &V3)?;
                self.same(&(more.0[..tokens * 8].to_vec(), more.1[..tokens * 8].to_vec()), &got)?;
            }
            Property::WeightSum => {
                let (logits, bias) = self.draw(256);
                let (_, weights) = self.route(&logits, &bias, &V3)?;
                let sum = |row: &[u32]| row.iter().map(|w| f64::from(f32::from_bits(*w))).sum::<f64>() as f32;
                let sums: Vec<f32> = weights.chunks(8).map(sum).collect();
                let scale = f64::from(V3.scale);
                // Every weight is off by a few roundings: of the sum that divides, the division and the scale.
                let bound = (8.0 + 16.0) * UNIT * scale;
                self.evidence.within("sums of weights", &sums, &vec![scale; tokens], &vec![bound; tokens])?;
            }
            Property::Ties => {
                let level = self.source.integer(-2, 2);
                let (ids, _) = self.route(&vec![level; tokens * 256], &[0.5; 256], &V3)?;
                let want: Vec<i32> = (0..tokens).flat_map(|_| 0..8).collect();
                self.evidence.exact("ids", &ids, &want)?;
            }
            Property::Bijection => self.bijection(seed)?,
            Property::OneExpert => {
                let ids = vec![5; tokens * 8];
                let (permutation, order) = permuted(device, [tokens, 8, 7], &ids)?;
                let source = permutation.source().to_vec().map_err(text)?;
                self.evidence.exact("source", &source, &order.source)?;
            }
            Property::AllExperts => {
                let (logits, bias) = self.draw(16);
                let gate = Gate { slots: 16, groups: 1, kept_groups: 1, ..V3 };
                let (mut ids, _) = self.route(&logits, &bias, &gate)?;
                ids.chunks_mut(16).for_each(|row| row.sort_unstable());
                let want: Vec<i32> = (0..tokens).flat_map(|_| 0..16).collect();
                self.evidence.exact("ids", &ids, &want)?;
            }
            Property::OneToken => self.evidence.add(&check_permute(device, [1, 8, 256], false, seed)?),
            Property::Identity => {
                self.evidence.add(&check_round_trip(device, [tokens, 9], 384, seed)?);
            }
            Property::SumOrder => self.sums(seed)?,
            Property::Graph => self.graph()?,
        }
        Ok(self.evidence)
    }

    fn draw(&mut self, experts: usize) -> (Vec<f32>, Vec<f32>) {
        let bias = self.source.uniforms(experts, -0.1, 0.1);
        (self.source.normals(self.tokens * experts, 1.0), bias)
    }

    fn same(&mut self, got: &Routed, want: &Routed) -> Result<(), String> {
        self.evidence.repeated("ids", &got.0, &want.0)?;
        self.evidence.repeated("weights", &got.1, &want.1)
    }

    fn bijection(&mut self, seed: u64) -> Result<(), String> {
        const EXPERTS: usize = 40;
        let (tokens, slots) = (self.tokens, 1 + self.source.below(16));
        let entries = tokens * slots;
        let ids = draw_ids(entries, EXPERTS, false, seed);
        let (permutation, _) = permuted(self.device, [tokens, slots, EXPERTS], &ids)?;
        let read = |tensor: &crate::Tensor<i32>| tensor.to_vec().map_err(text);
        let (counts, offsets) = (read(permutation.counts())?, read(permutation.offsets())?);
        let (source, position) = (read(permutation.source())?, read(permutation.position())?);
        let evidence = &mut self.evidence;
        evidence.exact("sum of counts", &[counts.iter().sum::<i32>()], &[entries as i32])?;
        let mut sums = vec![0];
        counts.iter().for_each(|count| sums.push(sums[sums.len() - 1] + count));
        evidence.exact("offsets", &offsets, &sums)?;
        let there_and_back: Vec<i32> = source.iter().map(|entry| position[*entry as usize]).collect();
        evidence.exact("position of source", &there_and_back, &(0..entries as i32).collect::<Vec<_>>())?;
        let experts: Vec<i32> = source.iter().map(|entry| ids[*entry as usize]).collect();
        let mut sorted = ids;
        sorted.sort_unstable();
        evidence.exact("experts of rows", &experts, &sorted)
    }

    /// Weighted sums of rows that follow their tokens; the check against the oracle is [`check_combine`]'s.
    fn sums(&mut self, seed: u64) -> Result<(), String> {
        const SHAPE: [usize; 2] = [4, 9];
        let ([slots, experts], tokens, columns) = (SHAPE, self.tokens, 136);
        let problem = CombineProblem {
            shape: [tokens, slots, experts],
            columns,
            shared: false,
            exact: false,
            bad: false,
            place: Place::default(),
            seed,
        };
        self.evidence.add(&check_combine(self.device, &problem)?);
        let values = Source::to_bf16(&self.source.normals(tokens * slots * columns, 1.0));
        let weights = self.source.uniforms(tokens * slots, 0.0, 1.0);
        let ids = draw_ids(tokens * slots, experts, false, seed);
        let tokens_in_order = self.source.permutation(tokens);
        let sums = |order: &[usize]| {
            let ids = in_order(&ids, slots, order);
            let (permutation, rows) = permuted(self.device, [tokens, slots, experts], &ids)?;
            let values = in_order(&values, slots * columns, order);
            let entries: Vec<usize> = rows.source.iter().map(|entry| *entry as usize).collect();
            let run = || -> Result<Vec<bf16>, Error> {
                let rows =
                    self.device.tensor(&[tokens * slots, columns], &in_order(&values, columns, &entries))?;
                let weights = self.device.tensor(&[tokens, slots], &in_order(&weights, slots, order))?;
                let out = self.device.empty(&[tokens, columns])?;
                Combine::new(&rows, &permutation, &weights, &out).launch(&self.device.stream())?;
                out.to_vec()
            };
            run().map_err(text)
        };
        let (all, moved) = (sums(&(0..tokens).collect::<Vec<_>>())?, sums(&tokens_in_order)?);
        self.evidence.repeated("sums", &bits(&moved), &bits(&in_order(&all, columns, &tokens_in_order)))
    }

    fn graph(&mut self) -> Result<(), String> {
        const EXPERTS: usize = 32;
        const SLOTS: usize = 4;
        let (tokens, device) = (self.tokens, self.device);
        let gate = Gate { slots: SLOTS, groups: 4, kept_groups: 2, ..V3 };
        let rows = Source::to_bf16(&self.source.normals(tokens * SLOTS * 64, 1.0));
        let first = self.draw(EXPERTS);
        let second = self.draw(EXPERTS).0;
        let prepare = |logits: &[f32]| -> Result<_, Error> {
            Ok(Layer {
                logits: device.tensor(&[tokens, EXPERTS], logits)?,
                bias: device.tensor(&[EXPERTS], &first.1)?,
                weights: device.zeros(&[tokens, SLOTS])?,
                ids: device.zeros(&[tokens, SLOTS])?,
                permutation: Permutation::empty(device, tokens, SLOTS, EXPERTS)?,
                rows: device.tensor(&[tokens * SLOTS, 64], &rows)?,
                out: device.full(&[tokens, 64], bf16::NAN)?,
            })
        };
        let layer = prepare(&first.0).map_err(text)?;
        let stream = device.stream();
        let graph = stream.capture(|stream| layer.launch(&gate, stream)).map_err(text)?;
        let mut answers = Vec::new();
        for logits in [&first.0, &second] {
            let eager = prepare(logits).and_then(|layer| {
                layer.launch(&gate, &stream)?;
                layer.read()
            });
            let replayed = (|| {
                layer.logits.write(logits)?;
                layer.out.write(&vec![bf16::NAN; tokens * 64])?;
                graph.launch(&stream)?;
                layer.read()
            })();
            let (eager, replayed) = (eager.map_err(text)?, replayed.map_err(text)?);
            self.evidence.repeated("sums", &replayed, &eager)?;
            answers.push(eager);
        }
        if answers[0] == answers[1] {
            return Err("other logits give the same sums".to_owned());
        }
        Ok(())
    }
}

/// Router, permutation and sum.
struct Layer {
    logits: crate::Tensor<f32>,
    bias: crate::Tensor<f32>,
    weights: crate::Tensor<f32>,
    ids: crate::Tensor<i32>,
    permutation: Permutation,
    rows: crate::Tensor<bf16>,
    out: crate::Tensor<bf16>,
}

impl Layer {
    fn launch(&self, gate: &Gate, stream: &crate::Stream) -> Result<(), Error> {
        Router::new(&self.logits, *gate, &self.weights, &self.ids).bias(&self.bias).launch(stream)?;
        Permute::new(&self.ids, &self.permutation).launch(stream)?;
        Combine::new(&self.rows, &self.permutation, &self.weights, &self.out).launch(stream)
    }

    fn read(&self) -> Result<Vec<u32>, Error> {
        Ok(bits(&self.out.to_vec()?))
    }
}

/// Blocks of `width` in the order of `order`.
fn in_order<V: Copy>(values: &[V], width: usize, order: &[usize]) -> Vec<V> {
    order.iter().flat_map(|block| &values[block * width..(block + 1) * width]).copied().collect()
}
