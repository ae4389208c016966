//! Tensors in the middle of other memory: inputs among NaN, outputs full of poison between canaries.

use super::{Evidence, Source, exact};
use crate::device::Device;
use crate::dtype::{E4m3, E5m2, Element, Ue8m0, bf16, f16, nearest_bf16};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Elements before and behind the view.
const MARGIN: usize = 64;

/// A type with a value that no test computes.
pub trait Poison: Element {
    /// The value: NaN where the type has one.
    const POISON: Self;
    /// Its bits, since NaN is not equal to itself.
    fn bits(self) -> u32;
}

macro_rules! poison {
    ($($type:ty, $value:expr, |$x:ident| $bits:expr;)+) => {$(
        impl Poison for $type {
            const POISON: Self = $value;
            fn bits(self) -> u32 {
                let $x = self;
                $bits
            }
        }
    )+};
}
poison! {
    f32, f32::from_bits(0x7FC0_DEAD), |x| x.to_bits();
    bf16, bf16::from_bits(0x7FDE), |x| x.to_bits().into();
    E4m3, E4m3::from_bits(0xFF), |x| x.to_bits().into();
    f16, f16::from_bits(0x7FDE), |x| x.to_bits().into();
    E5m2, E5m2::from_bits(0xFF), |x| x.to_bits().into();
    Ue8m0, Ue8m0::NAN, |x| x.to_bits().into();
    i32, 0x5EAD_BEEF, |x| x as u32;
}

/// How a tensor lies in its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Elements by which the first one is away from an aligned address.
    pub offset: usize,
    /// Elements between the rows.
    pub padding: usize,
}

impl Place {
    /// Aligned one time in three.
    pub fn draw(source: &mut Source) -> Self {
        match source.below(3) {
            0 => Place::default(),
            _ => Place { offset: source.below(10), padding: source.below(10) },
        }
    }
}

/// A view in the middle of a larger allocation.
#[derive(Debug, Clone)]
pub struct Surrounded<T: Poison> {
    whole: Tensor<T>,
    view: Tensor<T>,
    strides: Vec<usize>,
    start: usize,
}

impl<T: Poison> Surrounded<T> {
    /// A row-major tensor of poison, in poison.
    pub fn output(device: &Device, shape: &[usize], place: Place) -> Result<Self> {
        let mut strides = vec![1; shape.len()];
        for dim in (0..shape.len() - 1).rev() {
            let padding = if dim + 2 == shape.len() { place.padding } else { 0 };
            strides[dim] = strides[dim + 1] * shape[dim + 1].max(1) + padding;
        }
        Self::strided(device, shape, &strides, place.offset)
    }

    /// The same with any strides.
    pub fn strided(device: &Device, shape: &[usize], strides: &[usize], offset: usize) -> Result<Self> {
        let reach: usize =
            shape.iter().zip(strides).map(|(dim, stride)| dim.saturating_sub(1) * stride).sum();
        let start = MARGIN + offset;
        let whole = device.full(&[start + reach + 1 + MARGIN], T::POISON)?;
        let view = whole.as_strided(start, shape, strides)?;
        Ok(Self { whole, view, strides: strides.to_vec(), start })
    }

    /// A row-major tensor of `values`, in poison.
    pub fn input(device: &Device, shape: &[usize], place: Place, values: &[T]) -> Result<Self> {
        Self::output(device, shape, place)?.filled(values)
    }

    /// The same memory with these values in the view, given in row-major order.
    pub fn filled(self, values: &[T]) -> Result<Self> {
        self.fill(values)?;
        Ok(self)
    }

    /// Overwrites the view with these values, in row-major order, and everything around it with poison.
    pub fn fill(&self, values: &[T]) -> Result<()> {
        let mut raw = vec![T::POISON; self.whole.len()];
        for (index, value) in values.iter().enumerate() {
            raw[self.at(index)] = *value;
        }
        self.whole.write(&raw)
    }

    /// Overwrites everything with poison.
    pub fn clear(&self) -> Result<()> {
        self.whole.write(&vec![T::POISON; self.whole.len()])
    }

    /// The tensor.
    pub fn view(&self) -> &Tensor<T> {
        &self.view
    }

    /// The tensor's elements in row-major order, once it is sure that nothing around them has changed.
    pub fn finish(&self, name: &str, evidence: &mut Evidence) -> std::result::Result<Vec<T>, String> {
        let mut raw = self.whole.to_vec().map_err(text)?;
        let values: Vec<T> = (0..self.view.len())
            .map(|index| std::mem::replace(&mut raw[self.at(index)], T::POISON))
            .collect();
        exact(&format!("memory around {name}"), &bits(&raw), &vec![T::POISON.bits(); raw.len()])?;
        evidence.canaries += (raw.len() - values.len()) as u64;
        evidence.digest(values.iter().map(|value| value.bits()));
        Ok(values)
    }

    /// Where in the allocation an element is, by its row-major number.
    fn at(&self, mut index: usize) -> usize {
        let mut at = self.start;
        for (dim, stride) in self.view.shape().iter().zip(&self.strides).rev() {
            at += index % dim * stride;
            index /= dim;
        }
        at
    }
}

/// The bits of many values, to compare with NaN and signed zeros told apart.
pub fn bits<T: Poison>(values: &[T]) -> Vec<u32> {
    values.iter().map(|value| value.bits()).collect()
}

/// What a kernel may answer that computes `want` with an absolute error of at most `error` and then rounds to bf16: the
/// rounded value, and how far the farthest allowed bf16 is from it.
pub fn rounded_to_bf16(want: f64, error: f64) -> (f64, f64) {
    let round = |value: f64| nearest_bf16(value).to_f64();
    let rounded = round(want);
    (rounded, (round(want + error) - rounded).max(rounded - round(want - error)))
}

/// An error as the text that cases report.
pub(crate) fn text(error: Error) -> String {
    error.to_string()
}
