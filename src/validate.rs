//! What operations check on the host before anything runs.

use crate::device::Device;
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::fmt::Display;

/// Bytes of the widest access of a kernel.
pub(crate) const VECTOR_BYTES: usize = 16;

/// The checks of one operation, which names itself in every message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks {
    operation: &'static str,
}

impl Checks {
    pub(crate) const fn of(operation: &'static str) -> Self {
        Self { operation }
    }

    pub(crate) fn fail<R>(self, argument: &'static str, got: impl Display, want: impl Display) -> Result<R> {
        Err(Error::argument(self.operation, argument, got, want))
    }

    pub(crate) fn shape<T: Element>(
        self,
        argument: &'static str,
        tensor: &Tensor<T>,
        want: &[usize],
    ) -> Result<()> {
        if tensor.shape() == want {
            return Ok(());
        }
        self.fail(argument, format_args!("{:?}", tensor.shape()), format_args!("{want:?}"))
    }

    pub(crate) fn rank<T: Element>(
        self,
        argument: &'static str,
        tensor: &Tensor<T>,
        want: usize,
    ) -> Result<()> {
        if tensor.rank() == want {
            return Ok(());
        }
        self.fail(argument, format_args!("of rank {}", tensor.rank()), format_args!("of rank {want}"))
    }

    pub(crate) fn contiguous<T: Element>(self, argument: &'static str, tensor: &Tensor<T>) -> Result<()> {
        if tensor.is_contiguous() {
            return Ok(());
        }
        self.fail(argument, format_args!("a view with strides {:?}", tensor.strides()), "contiguous")
    }

    /// The last dimension's elements are neighbours.
    pub(crate) fn adjacent_columns<T: Element>(
        self,
        argument: &'static str,
        tensor: &Tensor<T>,
    ) -> Result<()> {
        let last = tensor.rank() - 1;
        if tensor.dim(last) <= 1 || tensor.strides()[last] == 1 {
            return Ok(());
        }
        self.fail(
            argument,
            format_args!("with column stride {}", tensor.strides()[last]),
            "of adjacent columns (stride 1)",
        )
    }

    /// An output must not name one element twice.
    pub(crate) fn distinct<T: Element>(self, argument: &'static str, tensor: &Tensor<T>) -> Result<()> {
        let mut dims: Vec<_> = tensor
            .shape()
            .iter()
            .zip(tensor.strides())
            .filter(|(dim, _)| **dim > 1)
            .map(|(d, s)| (*s, *d))
            .collect();
        dims.sort_unstable();
        let mut reach = 1;
        for (stride, dim) in dims {
            if stride < reach && !tensor.is_empty() {
                return self.fail(
                    argument,
                    format_args!("{:?} with strides {:?}", tensor.shape(), tensor.strides()),
                    "a view that names each element once",
                );
            }
            reach = stride.saturating_mul(dim);
        }
        Ok(())
    }

    pub(crate) fn on<T: Element>(
        self,
        argument: &'static str,
        tensor: &Tensor<T>,
        device: &Device,
    ) -> Result<()> {
        if tensor.device() == device {
            return Ok(());
        }
        self.fail(argument, "on another device", "on the stream's device")
    }

    /// An output shares no memory with an input.
    pub(crate) fn apart<T: Element, U: Element>(
        self,
        output: &'static str,
        written: &Tensor<T>,
        input: &'static str,
        read: &Tensor<U>,
    ) -> Result<()> {
        if !written.overlaps(read) {
            return Ok(());
        }
        self.fail(output, format_args!("a view that overlaps {input}"), "memory of its own")
    }

    /// Memory of the caller's for `bytes` of partial results; `wanted` says what they are for. What else must be apart from
    /// it is the caller's to check.
    pub(crate) fn workspace(
        self,
        workspace: Option<&Tensor<u8>>,
        bytes: usize,
        wanted: impl Display,
        device: &Device,
    ) -> Result<()> {
        let Some(workspace) = workspace else {
            return if bytes == 0 { Ok(()) } else { self.fail("workspace", "missing", wanted) };
        };
        self.on("workspace", workspace, device)?;
        self.contiguous("workspace", workspace)?;
        if workspace.len() < bytes {
            return self.fail("workspace", format_args!("{} bytes", workspace.len()), wanted);
        }
        if !workspace.address().is_multiple_of(VECTOR_BYTES as u64) {
            return self.fail("workspace", "at an odd address", "aligned to 16 bytes");
        }
        Ok(())
    }

    /// An extent that kernels count in 32 bits, and grids in 31.
    pub(crate) fn extent(self, argument: &'static str, value: usize) -> Result<u32> {
        match u32::try_from(value) {
            Ok(value) if value <= i32::MAX as u32 => Ok(value),
            _ => self.fail(argument, value, "below 2^31"),
        }
    }

    pub(crate) fn non_negative(self, argument: &'static str, value: f32) -> Result<()> {
        if value.is_finite() && value >= 0.0 {
            return Ok(());
        }
        self.fail(argument, value, "finite and not negative")
    }
}

/// Whether pieces of `bytes` of every row, from its first element on, are aligned.
pub(crate) fn rows_aligned<T: Element>(tensor: &Tensor<T>, bytes: usize) -> bool {
    let last = tensor.rank() - 1;
    let outer = tensor.strides()[..last].iter().zip(tensor.shape());
    tensor.address().is_multiple_of(bytes as u64)
        && outer.into_iter().all(|(stride, dim)| *dim <= 1 || (stride * size_of::<T>()).is_multiple_of(bytes))
}
