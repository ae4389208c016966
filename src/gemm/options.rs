//! What products can be asked for beside their operands, whatever these are.

use super::Tile;
use super::gather::Gather;
use super::output::Out;
use super::plan::{self, Mode};
use crate::device::{Device, KernelLaunch};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;

/// What every product can be asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub tile: Option<Tile>,
    pub alpha: f32,
    /// The limit of SwiGLU's operands.
    pub clamp: Option<f32>,
    pub bias: Option<Tensor<f32>>,
    pub row_weights: Option<Tensor<f32>>,
    pub accumulate: bool,
    pub power_of_two: bool,
    pub batch_invariant: bool,
    pub expected_rows: usize,
    pub gather: Option<Gather>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tile: None,
            alpha: 1.0,
            clamp: None,
            bias: None,
            row_weights: None,
            accumulate: false,
            power_of_two: false,
            batch_invariant: false,
            expected_rows: 0,
            gather: None,
        }
    }
}

impl Options {
    /// They suit an output of this shape, of so many groups and columns. Weights have rank `b_rank`.
    pub(super) fn check(
        &self,
        check: Checks,
        out: &Out,
        [groups, n]: [usize; 2],
        b_rank: usize,
        shape: &[usize],
        device: &Device,
    ) -> Result<()> {
        if !self.alpha.is_finite() {
            return check.fail("alpha", self.alpha, "finite");
        }
        if let Some(clamp) = self.clamp
            && !(clamp > 0.0 && clamp.is_finite())
        {
            return check.fail("clamp", clamp, "finite and above zero");
        }
        if self.accumulate && matches!(out, Out::E4m3(_)) {
            return check.fail("accumulate", "asked for", "left out for an output of e4m3");
        }
        if let Some(bias) = &self.bias {
            if !(bias.rank() == 2 && b_rank == 3) {
                check.rank("bias", bias, 1)?;
            }
            let want = [groups, n];
            check.shape("bias", bias, &want[2 - bias.rank()..])?;
            check.adjacent_columns("bias", bias)?;
            check.on("bias", bias, device)?;
            out.apart(check, "bias", bias)?;
        }
        if let Some(weights) = &self.row_weights {
            check.shape("row_weights", weights, &shape[..shape.len() - 1])?;
            check.contiguous("row_weights", weights)?;
            check.on("row_weights", weights, device)?;
            out.apart(check, "row_weights", weights)?;
        }
        Ok(())
    }

    pub(super) fn read_by<'a>(&self, launch: KernelLaunch<'a>) -> KernelLaunch<'a> {
        self.bias.iter().chain(&self.row_weights).fold(launch, KernelLaunch::reads)
    }
}

/// Offsets or counts of `count` groups, where a product has them.
pub(super) fn check_groups(
    check: Checks,
    mode: Mode,
    groups: Option<&Tensor<i32>>,
    count: usize,
    out: &Out,
    device: &Device,
) -> Result<()> {
    let Some(groups) = groups else { return Ok(()) };
    if count > plan::MAX_GROUPS {
        return check.fail("groups", count, format!("at most {}", plan::MAX_GROUPS));
    }
    let (name, len) = if mode == Mode::Contiguous { ("offsets", count + 1) } else { ("counts", count) };
    check.shape(name, groups, &[len])?;
    check.adjacent_columns(name, groups)?;
    check.on(name, groups, device)?;
    out.apart(check, name, groups)
}

/// The address of a vector for each column, or 0, and the elements between those of two groups.
pub(super) fn vector(tensor: &Option<Tensor<f32>>) -> (u64, i64) {
    tensor.as_ref().map_or((0, 0), |tensor| {
        let stride = if tensor.rank() == 2 { tensor.strides()[0] as i64 } else { 0 };
        (tensor.address(), stride)
    })
}

/// What products with [`Options`] can be asked for whatever their operands are, and their launch.
macro_rules! common_options {
    ($($operation:ident: $bias:literal, $weights:literal);+ $(;)?) => {$(
        impl $operation {
            /// Takes this tile instead of the planned one. It changes the time, and not a bit of the result unless it
            /// splits K.
            pub fn tile(mut self, tile: Tile) -> Self {
                self.0.options.tile = Some(tile);
                self
            }

            /// What sums are multiplied by; finite. Default: 1.
            pub fn alpha(mut self, alpha: f32) -> Self {
                self.0.options.alpha = alpha;
                self
            }

            #[doc = concat!("What is added to each column: ", $bias, ", adjacent columns.")]
            pub fn bias(mut self, bias: &Tensor<f32>) -> Self {
                self.0.options.bias = Some(bias.clone());
                self
            }

            #[doc = concat!("What each row is multiplied by in the end: ", $weights, ", contiguous.")]
            pub fn row_weights(mut self, weights: &Tensor<f32>) -> Self {
                self.0.options.row_weights = Some(weights.clone());
                self
            }

            /// A row's bits do not depend on the number of rows, nor on the tile: K is not split among blocks, unless a
            /// [`tile`](Self::tile) with parts is asked for. Without it a small product may be split, in parts that depend
            /// on everything but the data.
            pub fn batch_invariant(mut self) -> Self {
                self.0.options.batch_invariant = true;
                self
            }

            /// Checks and plans the product and makes its tensor maps, once for any number of launches.
            ///
            /// # Errors
            ///
            /// [`Error::Argument`](crate::Error::Argument) if shapes, strides or devices do not fit, or `out` overlaps an
            /// input.
            pub fn prepare(&self, device: &Device) -> Result<PreparedGemm> {
                self.0.prepare(device)
            }

            /// Enqueues the product.
            ///
            /// # Errors
            ///
            /// As [`prepare`](Self::prepare), before anything runs; otherwise what launching says.
            pub fn launch(&self, stream: &Stream) -> Result<()> {
                self.prepare(stream.device())?.launch(stream)
            }
        }
    )+};
}
pub(super) use common_options;

/// For products that can add to their output; `$doc` says so.
macro_rules! accumulate {
    ($doc:literal; $($operation:ident),+) => {$(
        impl $operation {
            #[doc = $doc]
            pub fn accumulate(mut self) -> Self {
                self.0.options.accumulate = true;
                self
            }
        }
    )+};
}
pub(super) use accumulate;
