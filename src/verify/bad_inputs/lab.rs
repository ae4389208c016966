//! What bad inputs are tried with.

use crate::device::{Device, Status, Stream};
use crate::dtype::{E4m3, Element, bf16};
use crate::error::{Error, Result};
use crate::fp8::{Fp8Blocks, Fp8Rows, ScaleLayout};
use crate::norm::Add;
use crate::tensor::Tensor;
use crate::verify::quant::Fp8Output;
use crate::verify::surrounded::{Place, Poison, Surrounded, text};
use crate::verify::{Evidence, exact};

type Done = std::result::Result<(), String>;

/// A device, and short ways to make operands on it.
#[derive(Debug)]
pub struct Lab<'a> {
    pub(super) device: &'a Device,
    pub(super) stream: Stream,
}

impl<'a> Lab<'a> {
    pub(super) fn new(device: &'a Device) -> Self {
        Self { device, stream: device.stream() }
    }

    /// Zeros. Tries do not go on where the device has no memory for them.
    pub(super) fn zeros<T: Element>(&self, shape: &[usize]) -> Tensor<T> {
        self.device.zeros(shape).expect("small operands fit on any device")
    }

    pub(super) fn tensor<T: Element>(&self, shape: &[usize], values: &[T]) -> Tensor<T> {
        self.device.tensor(shape, values).expect("small operands fit on any device")
    }

    pub(super) fn halves(&self, shape: &[usize]) -> Tensor<bf16> {
        self.zeros(shape)
    }

    pub(super) fn floats(&self, shape: &[usize]) -> Tensor<f32> {
        self.zeros(shape)
    }

    pub(super) fn integers(&self, shape: &[usize]) -> Tensor<i32> {
        self.zeros(shape)
    }

    pub(super) fn codes(&self, shape: &[usize]) -> Tensor<E4m3> {
        self.zeros(shape)
    }

    pub(super) fn rows(&self, rows: usize, columns: usize) -> Fp8Rows {
        let out = Fp8Rows::empty(self.device, rows, columns, ScaleLayout::RowMajor);
        out.expect("small operands fit on any device")
    }

    /// FP8 rows of zeros, `columns` a multiple of 16.
    pub(super) fn zero_rows(&self, rows: usize, columns: usize) -> Fp8Rows {
        let scales = self.floats(&[rows, columns.div_ceil(128)]);
        Fp8Rows::new(self.codes(&[rows, columns]), scales).expect("these fit each other")
    }

    /// Weights `[n, k]` or `[groups, n, k]`, of zeros.
    pub(super) fn blocks(&self, shape: &[usize]) -> Fp8Blocks {
        let mut scales = shape.to_vec();
        let rank = shape.len();
        scales[rank - 2..].iter_mut().for_each(|extent| *extent = extent.div_ceil(128));
        Fp8Blocks::new(self.codes(shape), self.floats(&scales)).expect("these fit each other")
    }

    pub(super) fn out<T: Poison>(&self, shape: &[usize]) -> Surrounded<T> {
        Surrounded::output(self.device, shape, Place::default()).expect("small operands fit on any device")
    }

    /// The result is a refusal of this argument.
    pub(super) fn refused(&self, argument: &str, result: Result<()>) -> Done {
        match result {
            Err(Error::Argument { argument: named, .. }) if named == argument => self.status().map(drop),
            Err(other) => Err(format!("wanted an error about `{argument}`, got: {other}")),
            Ok(()) => Err(format!("wanted an error about `{argument}`, and it was accepted")),
        }
    }

    /// The call on an output of this shape is a refusal of this argument, and the output untouched.
    pub(super) fn refuses<T: Poison>(
        &self,
        shape: &[usize],
        argument: &str,
        call: impl FnOnce(&Tensor<T>, &Stream) -> Result<()>,
    ) -> Done {
        let out = self.out::<T>(shape);
        self.refused(argument, call(out.view(), &self.stream))?;
        untouched(&out)
    }

    /// The same for an output of FP8 rows.
    pub(super) fn refuses_rows(
        &self,
        [rows, columns]: [usize; 2],
        argument: &str,
        call: impl FnOnce(&Fp8Rows, &Stream) -> Result<()>,
    ) -> Done {
        let out = Fp8Output::new(self.device, rows, columns, ScaleLayout::RowMajor).map_err(text)?;
        self.refused(argument, call(&out.rows, &self.stream))?;
        let (codes, scales) = out.finish(&mut Evidence::default())?;
        let untouched = codes.iter().all(|code| u32::from(*code) == E4m3::POISON.bits())
            && scales.iter().all(|scale| scale.bits() == f32::POISON.bits());
        if untouched { Ok(()) } else { Err("an error, but the output was written".to_owned()) }
    }

    /// The call succeeds, reports nothing, and does nothing to an output of this shape.
    pub(super) fn does_nothing<T: Poison>(
        &self,
        shape: &[usize],
        call: impl FnOnce(&Tensor<T>, &Stream) -> Result<()>,
    ) -> Done {
        let out = self.out::<T>(shape);
        call(out.view(), &self.stream).map_err(text)?;
        self.clear()?;
        untouched(&out)
    }

    /// Runs a call on an output of this shape, and gives what it wrote.
    pub(super) fn writes<T: Poison>(
        &self,
        shape: &[usize],
        call: impl FnOnce(&Tensor<T>, &Stream) -> Result<()>,
    ) -> std::result::Result<Vec<T>, String> {
        let out = self.out::<T>(shape);
        call(out.view(), &self.stream).map_err(text)?;
        out.finish("the output", &mut Evidence::default())
    }

    pub(super) fn status(&self) -> std::result::Result<Status, String> {
        self.stream.status().map_err(text)
    }

    /// No kernel reported anything.
    pub(super) fn clear(&self) -> Done {
        let status = self.status()?;
        if status.is_clear() { Ok(()) } else { Err(format!("status {status}")) }
    }

    /// The status is exactly this one.
    pub(super) fn reported(&self, bits: u32) -> Done {
        exact("status", &[self.status()?.bits()], &[bits])
    }

    /// A plain operation still works.
    pub(super) fn still_alive(&self) -> Done {
        let one = self.tensor(&[1, 8], &[bf16::ONE; 8]);
        let sums = self.writes::<bf16>(&[1, 8], |out, stream| Add::new(&one, &one, out).launch(stream))?;
        exact("1 + 1 afterwards", &sums, &[bf16::from_f32(2.0); 8])?;
        self.clear()
    }
}

/// Only poison is there.
pub(super) fn untouched<T: Poison>(out: &Surrounded<T>) -> Done {
    let values = out.finish("the output", &mut Evidence::default())?;
    match values.iter().position(|value| value.bits() != T::POISON.bits()) {
        None => Ok(()),
        Some(at) => Err(format!("the output was written at {at}")),
    }
}

/// A condition with its name.
pub(super) fn is(condition: bool, what: &str) -> Done {
    if condition { Ok(()) } else { Err(format!("not true: {what}")) }
}
