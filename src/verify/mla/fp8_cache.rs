//! Attention over FP8 caches: against the oracle, and bit for bit against the same tokens in 16 bits.

use super::super::surrounded::{Place, Surrounded, text};
use super::super::{Evidence, Source};
use super::AttentionInputs;
use crate::device::{Device, Status};
use crate::dtype::{bf16, f16};
use crate::mla::reference::cache::{decoded, encoded};
use crate::mla::{Attention, CacheLayout, LatentCache};
use crate::verify::latent_cache::Value;

/// A cached token's columns.
const COLUMNS: usize = 576;
/// Tokens of a page of the inputs.
const PAGE: usize = 64;

/// One attention over a cache of this layout.
#[derive(Debug, Clone)]
pub struct CachedAttention {
    /// Cached tokens of each sequence.
    pub lengths: Vec<usize>,
    /// Query tokens and heads.
    pub rows: [usize; 2],
    /// How the cache lies.
    pub layout: CacheLayout,
    /// Tokens of a page: a power of two.
    pub page_tokens: usize,
    /// Parts that the tokens are cut into; none: whatever the device finds best.
    pub splits: Option<usize>,
    /// Whether queries and answers are f16 instead of bf16.
    pub f16: bool,
    /// The inputs' seed.
    pub seed: u64,
}

/// What an attention over these inputs answers in one layout.
struct Answered<T> {
    output: Vec<T>,
    lse: Vec<f32>,
    status: Status,
}

impl CachedAttention {
    /// Runs it. All that no sequence owns is poison: NaN in the cache, page ids far outside it.
    pub fn check(&self, device: &Device) -> Result<Evidence, String> {
        if self.f16 { self.check_as::<f16>(device) } else { self.check_as::<bf16>(device) }
    }

    fn check_as<T: Value>(&self, device: &Device) -> Result<Evidence, String> {
        let source = &mut Source::new(self.seed);
        let [tokens, heads] = self.rows;
        // Values that both 16-bit types have.
        let mut inputs = AttentionInputs::new(source, &self.lengths, tokens, heads, |source, place, _| {
            let value = source.normal() * if place.is_some() { 1.0 } else { 0.75 };
            if value.abs() < 2f32.powi(-10) { 0.0 } else { value }
        });
        let (bytes, value_scale) = self.narrow(&mut inputs);
        let mut evidence = Evidence::default();
        let got = self.run::<T>(
            device,
            &inputs,
            (self.layout, self.page_tokens),
            &bytes,
            inputs.scale,
            &mut evidence,
        )?;
        if !got.status.is_clear() {
            return Err(format!("the status is {}", got.status));
        }

        // The oracle has the codes of a flat cache; their scale belongs to scores and answers.
        let scale = inputs.scale;
        inputs.scale *= value_scale;
        let mut want = inputs.expected();
        let mut bounds = inputs.bounds(self.splits.unwrap_or(device.card().sms as usize));
        for (want, bound) in want.output.iter_mut().zip(&mut bounds.output) {
            *want *= f64::from(value_scale);
            *bound = *bound * f64::from(value_scale) + 2f64.powi(-23) * want.abs();
        }
        let widened: Vec<f32> = got.output.iter().map(|value| value.widened()).collect();
        evidence.within_rounded("output", &widened, &want.output, &bounds.output)?;
        evidence.within("lse", &got.lse, &want.lse, &bounds.lse)?;

        if self.layout == CacheLayout::Fp8Blocks {
            // Codes times powers of two are values of both types, so the tensor cores see the same.
            let wide = if self.f16 { CacheLayout::F16 } else { CacheLayout::Bf16 };
            let values: Vec<f32> = decoded(self.layout, &bytes).iter().map(|value| *value as f32).collect();
            let bytes = encoded(wide, &values);
            let want =
                self.run::<T>(device, &inputs, (wide, PAGE), &bytes, scale, &mut Evidence::default())?;
            let bits = |values: &[T]| values.iter().map(|value| value.bits()).collect::<Vec<_>>();
            evidence.repeated(
                "output of the same tokens in 16 bits",
                &bits(&got.output),
                &bits(&want.output),
            )?;
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            evidence.repeated("lse of the same tokens in 16 bits", &bits(&got.lse), &bits(&want.lse))?;
        }
        Ok(evidence)
    }

    /// The bytes of the inputs' tokens, whose values become what these hold, but for the scale of a flat cache.
    fn narrow(&self, inputs: &mut AttentionInputs) -> (Vec<u8>, f32) {
        let (codes, scale) = match self.layout {
            CacheLayout::Fp8Flat { scale } => (CacheLayout::Fp8Flat { scale: 1.0 }, scale),
            layout => (layout, 1.0),
        };
        let values: Vec<f32> = inputs.cache.iter().map(|value| value.to_f32()).collect();
        let bytes = encoded(self.layout, &values);
        inputs.cache = decoded(codes, &bytes).iter().map(|value| bf16::from_f32(*value as f32)).collect();
        (bytes, scale)
    }

    /// Scatters the inputs' pages of 64 tokens over pages of another size, and runs the kernels.
    fn run<T: Value>(
        &self,
        device: &Device,
        inputs: &AttentionInputs,
        (layout, page_tokens): (CacheLayout, usize),
        bytes: &[u8],
        scale: f32,
        evidence: &mut Evidence,
    ) -> Result<Answered<T>, String> {
        let token = layout.token_bytes();
        let [tokens, heads] = self.rows;
        let batch = self.lengths.len();
        let needed: Vec<usize> = self.lengths.iter().map(|length| length.div_ceil(page_tokens)).collect();
        let table_pages = needed.iter().max().map_or(1, |most| most + 1);
        let pages = needed.iter().sum::<usize>() + 1;
        let mut free = Source::new(self.seed ^ 0x9A6E).permutation(pages);
        let mut table = vec![2_147_480_000; batch * table_pages];
        let mut memory = vec![0xFFu8; pages * page_tokens * token];
        for (b, &length) in self.lengths.iter().enumerate() {
            for page in 0..needed[b] {
                let id = free.pop().unwrap_or_default();
                table[b * table_pages + page] = id as i32;
                for place in page * page_tokens..length.min((page + 1) * page_tokens) {
                    let from = inputs.table[b * inputs.shape.table_pages + place / PAGE] as usize * PAGE;
                    let to = (id * page_tokens + place % page_tokens) * token;
                    memory[to..][..token].copy_from_slice(&bytes[(from + place % PAGE) * token..][..token]);
                }
            }
        }
        let cache = LatentCache::with_layout(device, pages, page_tokens, layout).map_err(text)?;
        cache.memory().write(&memory).map_err(text)?;
        let query: Vec<T> = inputs.query.iter().map(|value| T::narrowed(value.to_f32())).collect();
        let query = device.tensor(&[batch, tokens, heads, COLUMNS], &query).map_err(text)?;
        let table = device.tensor(&[batch, table_pages], &table).map_err(text)?;
        let lengths = device.tensor(&[batch], &inputs.lengths).map_err(text)?;
        let aligned = Place { offset: 8, padding: 8 };
        let output = Surrounded::<T>::output(device, &[batch, tokens, heads, 512], aligned).map_err(text)?;
        let odd = Place { offset: 1, padding: 1 };
        let lse = Surrounded::<f32>::output(device, &[batch, heads, tokens], odd).map_err(text)?;
        let mut operation =
            Attention::new(&query, &cache, &table, &lengths, output.view()).scale(scale).lse(lse.view());
        if let Some(splits) = self.splits {
            operation = operation.splits(splits);
        }
        let workspace = device.empty::<u8>(&[operation.workspace_bytes()]).map_err(text)?;
        let stream = device.stream();
        operation.workspace(&workspace).launch(&stream).map_err(text)?;
        let status = stream.status().map_err(text)?;
        let output = output.finish("output", evidence)?;
        Ok(Answered { output, lse: lse.finish("lse", evidence)?, status })
    }
}

/// A drawn attention over a drawn FP8 cache.
pub(super) fn drawn(device: &Device, seed: u64) -> Result<Evidence, String> {
    let source = &mut Source::new(seed ^ 0xFB8C);
    let flat = CacheLayout::Fp8Flat { scale: source.uniform(0.01, 0.05) };
    let check = CachedAttention {
        lengths: (0..1 + source.below(3)).map(|_| source.below(260)).collect(),
        rows: [1 + source.below(3), [1, 16, 40, 128][source.below(4)]],
        layout: if source.below(2) == 0 { CacheLayout::Fp8Blocks } else { flat },
        page_tokens: [1, 16, 32, 64, 128][source.below(5)],
        splits: [None, Some(1), Some(2)][source.below(3)],
        f16: source.below(3) == 0,
        seed,
    };
    check.check(device).map_err(|error| format!("{check:?}: {error}"))
}
