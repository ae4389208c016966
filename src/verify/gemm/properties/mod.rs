//! What must hold between products whose inputs are related, bit for bit unless it says otherwise.

mod fp8;
mod half;

pub(super) use fp8::with_zero_block;

use super::{Checked, Fp8Check, HalfCheck};
use crate::device::Device;
use crate::verify::Evidence;

/// A relation between products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// Rows of A in another order give the rows of the output in that order.
    RowOrder,
    /// Rows of B in another order (whole blocks of 128 where they share scales) give the columns in that order.
    ColumnOrder,
    /// A row times a power of two gives its row times that power.
    PowersOfTwo,
    /// -A gives -C.
    Negation,
    /// Further columns of A that are zero change nothing.
    ZeroBlocks,
    /// A row with a single 1 gives a row of Bᵀ, scaled and rounded.
    OneHot,
    /// Blocks of K in another order: within the bounds.
    BlockOrder,
    /// The product of a sum is the sum of the products: within the bounds.
    Linearity,
    /// Every tile gives the same.
    Tiles,
    /// The same again, on the same stream and on another at the same time.
    Repetition,
    /// A graph gives what its calls give, on the inputs of the moment.
    Graph,
    /// Each of several products (groups, batches) is the one that it is alone.
    Parts,
}

impl Property {
    /// All of them.
    pub const ALL: [Property; 12] = [
        Property::RowOrder,
        Property::ColumnOrder,
        Property::PowersOfTwo,
        Property::Negation,
        Property::ZeroBlocks,
        Property::OneHot,
        Property::BlockOrder,
        Property::Linearity,
        Property::Tiles,
        Property::Repetition,
        Property::Graph,
        Property::Parts,
    ];
}

impl Fp8Check<'_> {
    /// Holds a property against the kernel. Groups are needed for [`Property::Parts`], and a dense product without an epilogue
    /// for [`Property::OneHot`], [`Property::Linearity`], [`Property::Repetition`] and [`Property::Graph`].
    pub fn holds<T: Checked + Default>(
        &self,
        device: &Device,
        property: Property,
    ) -> Result<Evidence, String> {
        fp8::holds::<T>(self, device, property).map_err(|error| format!("{property:?} of {self:?}: {error}"))
    }

    /// A row's bits do not depend on the other rows: rows 0, 1.. of this dense product, alone and among others: first, in
    /// the middle and last of each of `counts` rows.
    pub fn holds_alone<T: Checked + Default>(
        &self,
        device: &Device,
        counts: &[usize],
    ) -> Result<Evidence, String> {
        fp8::alone::<T>(self, device, counts)
            .map_err(|error| format!("batch invariance of {self:?}: {error}"))
    }
}

impl HalfCheck<'_> {
    /// Holds a property against the kernel. Groups are needed for [`Property::Parts`], and a dense product for the others.
    pub fn holds<T: Checked + Default>(
        &self,
        device: &Device,
        property: Property,
    ) -> Result<Evidence, String> {
        half::holds::<T>(self, device, property).map_err(|error| format!("{property:?} of {self:?}: {error}"))
    }

    /// As [`Fp8Check::holds_alone`].
    pub fn holds_alone<T: Checked + Default>(
        &self,
        device: &Device,
        counts: &[usize],
    ) -> Result<Evidence, String> {
        half::alone::<T>(self, device, counts)
            .map_err(|error| format!("batch invariance of {self:?}: {error}"))
    }
}

/// The rows of a row-major matrix in the order of `order`.
fn rows_in_order<V: Copy>(values: &[V], columns: usize, order: &[usize]) -> Vec<V> {
    order.iter().flat_map(|row| &values[row * columns..(row + 1) * columns]).copied().collect()
}

/// The columns of a row-major matrix in the order of `order`.
fn columns_in_order<V: Copy>(values: &[V], columns: usize, order: &[usize]) -> Vec<V> {
    values.chunks(columns).flat_map(|row| order.iter().map(|column| row[*column])).collect()
}

/// Elements 0..len in whole blocks of `size`, drawn in any order; what is left over stays at the end.
fn blocks_in_order(len: usize, size: usize, order: &[usize]) -> Vec<usize> {
    let whole = order.iter().flat_map(|block| block * size..(block + 1) * size);
    whole.chain(order.len() * size..len).collect()
}

/// The places of the first, a middle and the last of some rows.
fn places(rows: usize) -> [usize; 3] {
    [0, rows / 2, rows - 1]
}

fn widen<T: Checked>(values: &[T]) -> Vec<f32> {
    values.iter().map(|value| value.widen()).collect()
}

/// `got` is `want` within the sum of both bounds.
fn close<T: Checked>(
    evidence: &mut Evidence,
    name: &str,
    got: &[T],
    want: &[f64],
    bounds: [&[f64]; 2],
) -> Result<(), String> {
    let bound: Vec<f64> = bounds[0].iter().zip(bounds[1]).map(|(a, b)| a + b).collect();
    evidence.within_rounded(name, &widen(got), want, &bound)
}
