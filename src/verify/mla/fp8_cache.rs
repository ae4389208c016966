//! Attention over FP8 caches: against the oracle, and, where rows are many, bit for bit against the same tokens in 16 bits.

use super::super::surrounded::{bits, text};
use super::super::{Evidence, Source};
use super::inputs::{AttentionInputs, AttentionOutputs, Pieces, normal_value};
use super::pages::Pages;
use crate::device::Device;
use crate::dtype::{bf16, f16};
use crate::mla::plan::FEW_ROWS;
use crate::mla::reference::cache::{decoded, encoded};
use crate::mla::reference::decode::Decode;
use crate::mla::{CacheLayout, Half, LatentCache};
use crate::verify::gemm::Checked;

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

impl CachedAttention {
    /// Runs it. All that no sequence owns is poison: NaN in the cache, page ids far outside it.
    pub fn check(&self, device: &Device) -> Result<Evidence, String> {
        if self.f16 { self.check_as::<f16>(device) } else { self.check_as::<bf16>(device) }
    }

    fn check_as<T: Checked + Half>(&self, device: &Device) -> Result<Evidence, String> {
        let source = &mut Source::new(self.seed);
        let [tokens, heads] = self.rows;
        let queries = vec![tokens; self.lengths.len()];
        // Values that both 16-bit types have.
        let value = |source: &mut Source, place, column| match normal_value(source, place, column) {
            value if value.abs() < 2f32.powi(-10) => 0.0,
            value => value,
        };
        let mut inputs = AttentionInputs::<T>::paged(source, &self.lengths, &queries, heads, PAGE, value);
        let (bytes, value_scale) = self.narrow(&mut inputs);
        let mut got = self.run(device, &inputs, (self.layout, self.page_tokens), &bytes)?;
        if !got.status.is_clear() {
            return Err(format!("the status is {}", got.status));
        }
        // Few rows over 16 bits that the device cuts have a kernel of their own, which adds in another order.
        if self.layout == CacheLayout::Fp8Blocks
            && (tokens * heads > FEW_ROWS || self.pieces() != Pieces::Scheduled)
        {
            // Codes times powers of two are values of both types, so the tensor cores see the same.
            let wide = if self.f16 { CacheLayout::F16 } else { CacheLayout::Bf16 };
            let values: Vec<f32> = decoded(self.layout, &bytes).iter().map(|value| *value as f32).collect();
            let want = self.run(device, &inputs, (wide, PAGE), &encoded(wide, &values))?;
            let evidence = &mut got.evidence;
            evidence.repeated(
                "output of the same tokens in 16 bits",
                &bits(&got.output),
                &bits(&want.output),
            )?;
            evidence.repeated("lse of the same tokens in 16 bits", &bits(&got.lse), &bits(&want.lse))?;
        }

        // The oracle has the codes of a flat cache; their scale belongs to scores and answers.
        inputs.shape.scale = f64::from(inputs.shape.scale as f32 * value_scale);
        let (mut want, mut bounds) = (inputs.expected(), inputs.bounds(self.pieces()));
        for (want, bound) in want.output.iter_mut().zip(&mut bounds.output) {
            *want *= f64::from(value_scale);
            *bound = *bound * f64::from(value_scale) + 2f64.powi(-23) * want.abs();
        }
        let output: Vec<f32> = got.output.iter().map(|value| value.widen()).collect();
        got.evidence.within_rounded("output", &output, &want.output, &bounds.output)?;
        got.evidence.within("lse", &got.lse, &want.lse, &bounds.lse)?;
        Ok(got.evidence)
    }

    fn pieces(&self) -> Pieces {
        self.splits.map_or(Pieces::Scheduled, Pieces::Equal)
    }

    /// The bytes of the inputs' tokens, whose values become what these hold, but for the scale of a flat cache.
    fn narrow<T: Checked>(&self, inputs: &mut AttentionInputs<T>) -> (Vec<u8>, f32) {
        let (codes, scale) = match self.layout {
            CacheLayout::Fp8Flat { scale } => (CacheLayout::Fp8Flat { scale: 1.0 }, scale),
            layout => (layout, 1.0),
        };
        let values: Vec<f32> = inputs.cache.iter().map(|value| value.widen()).collect();
        let bytes = encoded(self.layout, &values);
        inputs.cache = decoded(codes, &bytes).into_iter().map(T::nearest).collect();
        (bytes, scale)
    }

    /// Scatters the inputs' pages of 64 tokens over pages of another size, and runs the kernels.
    fn run<T: Checked + Half>(
        &self,
        device: &Device,
        inputs: &AttentionInputs<T>,
        (layout, page_tokens): (CacheLayout, usize),
        bytes: &[u8],
    ) -> Result<AttentionOutputs<T>, String> {
        let size = layout.token_bytes();
        let pages = Pages::scattered(&mut Source::new(self.seed ^ 0x9A6E), &self.lengths, page_tokens, 1);
        let mut memory = vec![0xFFu8; pages.cache_pages * page_tokens * size];
        for (sequence, &length) in self.lengths.iter().enumerate() {
            for place in 0..length {
                let page = inputs.table[sequence * inputs.shape.table_pages + place / PAGE] as usize;
                let (from, to) = (page * PAGE + place % PAGE, pages.token(sequence, place));
                memory[to * size..][..size].copy_from_slice(&bytes[from * size..][..size]);
            }
        }
        let cache = LatentCache::with_layout(device, pages.cache_pages, page_tokens, layout).map_err(text)?;
        cache.memory().write(&memory).map_err(text)?;
        let Pages { cache_pages, table_pages, table, .. } = pages;
        let shape = Decode { page_tokens, cache_pages, table_pages, ..inputs.shape.clone() };
        AttentionInputs { shape, table, ..inputs.clone() }.run_over(device, &cache, self.pieces())
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
