//! What an FP8 matrix is to a launch, whatever its types.

use crate::device::{Device, KernelLaunch};
use crate::dtype::{E4m3, E5m2, Element, Ue8m0};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;

pub(super) mod sealed {
    use super::{Element, Scales, Tensor};

    pub trait Fp8 {
        const E5M2: bool;
    }

    pub trait Scale: Element {
        fn erase(scales: &Tensor<Self>) -> Scales;
    }
}

/// An 8-bit float that tensor cores multiply: [`E4m3`] or [`E5m2`].
pub trait Fp8: Element + sealed::Fp8 {}

/// What a scale is stored as: `f32`, or [`Ue8m0`].
pub trait Scale: Element + sealed::Scale {}

impl sealed::Fp8 for E4m3 {
    const E5M2: bool = false;
}
impl Fp8 for E4m3 {}

impl sealed::Fp8 for E5m2 {
    const E5M2: bool = true;
}
impl Fp8 for E5m2 {}

impl sealed::Scale for f32 {
    fn erase(scales: &Tensor<f32>) -> Scales {
        Scales::F32(scales.clone())
    }
}
impl Scale for f32 {}

impl sealed::Scale for Ue8m0 {
    fn erase(scales: &Tensor<Ue8m0>) -> Scales {
        Scales::Ue8m0(scales.clone())
    }
}
impl Scale for Ue8m0 {}

/// A matrix, or several, without its types.
#[derive(Debug, Clone)]
pub(crate) struct Operand {
    pub data: Tensor<u8>,
    pub e5m2: bool,
    pub scales: Scales,
    /// Of B: a scale for each column of the product, `[N]` or `[G, N]`.
    pub column_scales: Option<Tensor<f32>>,
}

/// Scales by rows and blocks of K, with the rank of the data.
#[derive(Debug, Clone)]
pub enum Scales {
    /// None: every scale is one.
    Ones,
    /// Floats.
    F32(Tensor<f32>),
    /// Powers of two.
    Ue8m0(Tensor<Ue8m0>),
}

impl Operand {
    /// The extent of a dimension, counted from the last.
    pub(crate) fn extent(&self, from_last: usize) -> usize {
        self.data.dim(self.data.rank() - 1 - from_last)
    }

    pub(crate) fn on(&self, check: Checks, argument: &'static str, device: &Device) -> Result<()> {
        check.on(argument, &self.data, device)
    }

    /// An output shares no memory with it.
    pub(crate) fn apart<T: Element>(
        &self,
        check: Checks,
        out: &Tensor<T>,
        [data, scales]: [&'static str; 2],
    ) -> Result<()> {
        check.apart("out", out, data, &self.data)?;
        match &self.scales {
            Scales::Ones => {}
            Scales::F32(tensor) => check.apart("out", out, scales, tensor)?,
            Scales::Ue8m0(tensor) => check.apart("out", out, scales, tensor)?,
        }
        self.column_scales.iter().try_for_each(|tensor| check.apart("out", out, scales, tensor))
    }

    pub(crate) fn read_by<'a>(&self, launch: KernelLaunch<'a>) -> KernelLaunch<'a> {
        let launch = launch.reads(&self.data);
        let launch = match &self.scales {
            Scales::Ones => launch,
            Scales::F32(tensor) => launch.reads(tensor),
            Scales::Ue8m0(tensor) => launch.reads(tensor),
        };
        self.column_scales.iter().fold(launch, KernelLaunch::reads)
    }
}

impl Scales {
    /// The address, or 0 for ones, and the strides of groups, rows and blocks of K.
    pub(crate) fn placed(&self) -> (u64, [i64; 3]) {
        let (address, strides) = match self {
            Scales::Ones => return (0, [0; 3]),
            Scales::F32(tensor) => (tensor.address(), tensor.strides()),
            Scales::Ue8m0(tensor) => (tensor.address(), tensor.strides()),
        };
        let mut placed = [0; 3];
        for (to, stride) in placed[3 - strides.len()..].iter_mut().zip(strides) {
            *to = *stride as i64;
        }
        (address, placed)
    }

    pub(crate) fn are_codes(&self) -> bool {
        matches!(self, Scales::Ue8m0(_))
    }
}
