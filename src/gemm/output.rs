//! What FP8 products are written to.

use super::GemmOutput;
use super::launch::{store_flags, writable};
use super::plan::Output;
use crate::device::{Device, KernelLaunch};
use crate::dtype::{Element, bf16, f16};
use crate::error::Result;
use crate::fp8::{Fp8Rows, Operand};
use crate::tensor::Tensor;
use crate::validate::Checks;

pub(super) mod sealed {
    pub trait Erase {
        fn erase(&self) -> super::Out;
    }
}

/// What an FP8 product can be written to: a [`Tensor`] of [`bf16`], [`f16`](struct@crate::f16) or `f32` (rounded to nearest even), or
/// [`Fp8Rows`] (e4m3 with a fresh scale for each row and 128 columns, as [`Quantize`](crate::quant::Quantize) makes them of
/// the f32 sums).
pub trait Fp8GemmOutput: sealed::Erase {}

impl<T: GemmOutput> sealed::Erase for Tensor<T> {
    fn erase(&self) -> Out {
        T::erase(self)
    }
}
impl<T: GemmOutput> Fp8GemmOutput for Tensor<T> {}

impl sealed::Erase for Fp8Rows {
    fn erase(&self) -> Out {
        Out::E4m3(self.clone())
    }
}
impl Fp8GemmOutput for Fp8Rows {}

/// An output, whatever its type.
#[derive(Debug, Clone)]
pub enum Out {
    /// bf16.
    Bf16(Tensor<bf16>),
    /// f16.
    F16(Tensor<f16>),
    /// f32.
    F32(Tensor<f32>),
    /// e4m3 with scales.
    E4m3(Fp8Rows),
}

/// Does the same with the tensor of the values, whatever its type.
macro_rules! values {
    ($out:expr, $tensor:ident => $use:expr) => {
        match $out {
            Out::Bf16($tensor) => $use,
            Out::F16($tensor) => $use,
            Out::F32($tensor) => $use,
            Out::E4m3(rows) => {
                let $tensor = rows.data();
                $use
            }
        }
    };
}

impl Out {
    pub(super) fn output(&self) -> Output {
        match self {
            Out::Bf16(_) => Output::Bf16,
            Out::F16(_) => Output::F16,
            Out::F32(_) => Output::F32,
            Out::E4m3(_) => Output::E4m3,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        values!(self, tensor => tensor.is_empty())
    }

    pub(super) fn address(&self) -> u64 {
        values!(self, tensor => tensor.address())
    }

    /// Elements between matrices and between rows.
    pub(super) fn strides(&self) -> [i64; 2] {
        let strides = values!(self, tensor => tensor.strides());
        let rank = strides.len();
        [if rank == 3 { strides[0] as i64 } else { 0 }, strides[rank - 2] as i64]
    }

    pub(super) fn store_flags(&self) -> u32 {
        values!(self, tensor => store_flags(tensor))
    }

    /// The address of fresh scales, and elements between rows and between blocks of columns.
    pub(super) fn scales(&self) -> (u64, [i64; 2]) {
        match self {
            Out::E4m3(rows) => {
                let strides = rows.scales().strides();
                let last = strides.len() - 1;
                (rows.scales().address(), [strides[last - 1] as i64, strides[last] as i64])
            }
            _ => (0, [0; 2]),
        }
    }

    /// It has this shape, names each element once and is on the device.
    pub(super) fn check(&self, check: Checks, shape: &[usize], device: &Device) -> Result<()> {
        values!(self, tensor => {
            check.shape("out", tensor, shape)?;
            writable(check, tensor)?;
            check.on("out", tensor, device)?;
        });
        let Out::E4m3(rows) = self else { return Ok(()) };
        let scales = rows.scales();
        check.distinct("out.scales", scales)?;
        check.apart("out", rows.data(), "its scales", scales)?;
        // The kernel numbers the rows of all matrices.
        if let ([groups, m, _], [stride, row, _]) = (scales.shape(), scales.strides())
            && *groups > 1
            && *stride != m * row
        {
            let want = format!("{}: no gap between the matrices", m * row);
            return check.fail(
                "out.scales",
                format_args!("with a stride of {stride} between matrices"),
                want,
            );
        }
        Ok(())
    }

    pub(super) fn apart_from(
        &self,
        check: Checks,
        operand: &Operand,
        names: [&'static str; 2],
    ) -> Result<()> {
        values!(self, tensor => operand.apart(check, tensor, names)?);
        match self {
            Out::E4m3(rows) => operand.apart(check, rows.scales(), names),
            _ => Ok(()),
        }
    }

    pub(super) fn apart<T: Element>(
        &self,
        check: Checks,
        name: &'static str,
        input: &Tensor<T>,
    ) -> Result<()> {
        values!(self, tensor => check.apart("out", tensor, name, input)?);
        match self {
            Out::E4m3(rows) => check.apart("out", rows.scales(), name, input),
            _ => Ok(()),
        }
    }

    pub(super) fn written_by<'a>(&self, launch: KernelLaunch<'a>) -> KernelLaunch<'a> {
        let launch = values!(self, tensor => launch.writes(tensor));
        match self {
            Out::E4m3(rows) => launch.writes(rows.scales()),
            _ => launch,
        }
    }
}
