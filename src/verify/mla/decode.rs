//! Attention with any of its options: types, page sizes, ragged queries, sinks, without the causal mask, every way to cut.

use super::inputs::{AttentionInputs, Pieces, normal_value};
use crate::device::Device;
use crate::mla::Half;
use crate::verify::gemm::Checked;
use crate::verify::{Evidence, Source};

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

impl DecodeCheck {
    /// One sequence after the other in scattered pages; everything that none of them owns is poison.
    pub fn inputs<T: Checked + Half>(&self) -> AttentionInputs<T> {
        let source = &mut Source::new(self.seed);
        let mut inputs = AttentionInputs::<T>::paged(
            source,
            &self.lengths,
            &self.queries,
            self.heads,
            self.page_tokens,
            normal_value,
        );
        inputs.shape.causal = self.causal;
        if self.ragged {
            inputs.offsets = Some(inputs.shape.offsets.iter().map(|offset| *offset as i32).collect());
        }
        if self.sinks {
            let mut sinks = source.uniforms(self.heads, -3.0, 9.0);
            for (sink, special) in sinks.iter_mut().skip(1).step_by(3).zip([f32::INFINITY, f32::NEG_INFINITY])
            {
                *sink = special;
            }
            inputs.sinks = Some(sinks);
        }
        inputs
    }

    /// Runs and compares every element with the oracle.
    ///
    /// # Errors
    ///
    /// As [`AttentionInputs::check`], or that something was reported.
    pub fn check<T: Checked + Half>(&self, device: &Device) -> Result<Evidence, String> {
        let got =
            self.inputs::<T>().check(device, self.pieces).map_err(|error| format!("{self:?}: {error}"))?;
        match got.status.is_clear() {
            true => Ok(got.evidence),
            false => Err(format!("{self:?}: {}", got.status)),
        }
    }
}
