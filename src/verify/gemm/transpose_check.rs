//! Transposed FP8 matrices, byte for byte.

use super::super::surrounded::{Surrounded, text};
use super::super::{Evidence, Source, exact};
use crate::device::Device;
use crate::dtype::E4m3;
use crate::gemm::TransposeFp8;

/// A transposition to run and compare.
#[derive(Debug, Clone, Copy)]
pub struct TransposeCheck {
    /// Matrices; `None` runs it on a single one, of rank 2.
    pub matrices: Option<usize>,
    /// Rows of the input.
    pub rows: usize,
    /// Columns of the input.
    pub columns: usize,
    /// Bytes by which rows of the input and of the output are longer than their elements.
    pub padding: [usize; 2],
    /// Bytes by which the first elements of both are away from an aligned address.
    pub offset: [usize; 2],
    /// Seed of the bytes.
    pub seed: u64,
}

impl TransposeCheck {
    /// Moves any bytes, NaN codes among them; what lies around the output must stay as it was.
    pub fn check(&self, device: &Device) -> Result<Evidence, String> {
        let Self { matrices, rows, columns, padding, offset, seed } = *self;
        let mut evidence = Evidence::default();
        let mut source = Source::new(seed);
        let count = matrices.unwrap_or(1);
        let codes: Vec<E4m3> =
            (0..count * rows * columns).map(|_| E4m3::from_bits(source.bits() as u8)).collect();
        let place = |[rows, columns]: [usize; 2], at: usize| {
            let width = columns + padding[at];
            let (shape, strides) = ([count, rows, columns], [(rows + 1) * width, width, 1]);
            let from = if matrices.is_some() { 0 } else { 1 };
            Surrounded::<E4m3>::strided(device, &shape[from..], &strides[from..], offset[at])
        };
        let x = place([rows, columns], 0).and_then(|x| x.filled(&codes)).map_err(text)?;
        let out = place([columns, rows], 1).map_err(text)?;
        TransposeFp8::new(x.view(), out.view()).launch(&device.stream()).map_err(text)?;
        let got = out.finish("the transpose", &mut evidence)?;
        let mut want = vec![0; got.len()];
        for (at, code) in codes.iter().enumerate() {
            let (matrix, row, column) = (at / (rows * columns), at / columns % rows, at % columns);
            want[(matrix * columns + column) * rows + row] = code.to_bits();
        }
        let got: Vec<u8> = got.iter().map(|code| code.to_bits()).collect();
        evidence.exact(&format!("{self:?}"), &got, &want)?;
        exact("status", &[device.stream().status().map_err(text)?.bits()], &[0])?;
        Ok(evidence)
    }

    /// Any shape in any place.
    pub fn drawn(seed: u64) -> Self {
        let source = &mut Source::new(seed ^ 0x7A45);
        let mut extent = || match source.below(3) {
            0 => [1, 3, 4, 127, 128, 129, 256][source.below(7)],
            _ => 1 + source.below(300),
        };
        let (rows, columns) = (extent(), extent());
        let mut bytes =
            || [0; 2].map(|_| if source.below(2) == 0 { 4 * source.below(5) } else { source.below(16) });
        let (padding, offset) = (bytes(), bytes());
        let matrices = [None, Some(1), Some(3)][source.below(3)];
        Self { matrices, rows, columns, padding, offset, seed }
    }
}
