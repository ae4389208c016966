//! Operands decoded once per instruction.

use super::Format;

/// Exponents of FP8 values, biased so that zero's is far below any product's.
pub(super) const BIAS: u8 = 64;
/// Exponent of a 16-bit zero: any sum with it is below every product.
const ZERO: i16 = -1000;
/// Columns of a wide block of B.
pub(super) const WIDE: usize = 32;
/// Columns of a narrow one, used for the rest.
pub(super) const NARROW: usize = 8;

#[derive(Debug)]
pub(super) enum Exponents {
    Bytes(Vec<u8>),
    Words(Vec<i16>),
}

#[derive(Debug)]
pub(super) struct Decoded {
    pub format: Format,
    pub values: Vec<f32>,
    pub exponents: Exponents,
    pub finite: bool,
    pub largest: i32,
}

impl Decoded {
    fn bytes(codes: &[u8], format: Format, negate: bool) -> Self {
        match format {
            Format::E5m2 => Self::bytes_of::<2, 15>(codes, format, negate),
            _ => Self::bytes_of::<3, 7>(codes, format, negate),
        }
    }

    /// One pass for the exponents, one for the values: mixed widths do not vectorise well.
    fn bytes_of<const FRACTION: u32, const OFFSET: u8>(codes: &[u8], format: Format, negate: bool) -> Self {
        let mut values = vec![0f32; codes.len()];
        let mut exponents = vec![0u8; codes.len()];
        let top = if FRACTION == 2 { 0x7c } else { 0x7f };
        let mut special = 0u8;
        for (exponent, &code) in exponents.iter_mut().zip(codes) {
            let magnitude = code & 0x7f;
            special |= u8::from(magnitude >= top);
            let own = (magnitude >> FRACTION).max(1).wrapping_add(BIAS - OFFSET);
            *exponent = if magnitude == 0 { 0 } else { own };
        }
        let flip = if negate { 0x80 } else { 0 };
        // The digits read with f32's bias, then moved: subnormals come out right by themselves.
        let scale = f32::from_bits((127 + 127 - u32::from(OFFSET)) << 23);
        for (value, &code) in values.iter_mut().zip(codes) {
            let number = f32::from_bits(u32::from(code & 0x7f) << (23 - FRACTION)) * scale;
            *value = f32::from_bits(number.to_bits() | u32::from((code ^ flip) & 0x80) << 24);
        }
        let finite = special == 0;
        if !finite {
            for (value, &code) in values.iter_mut().zip(codes) {
                let (magnitude, sign) = (code & 0x7f, u32::from((code ^ flip) & 0x80) << 24);
                if magnitude >= top {
                    let infinite = FRACTION == 2 && magnitude == top;
                    *value = f32::from_bits(if infinite { 0x7f80_0000 | sign } else { 0x7fff_ffff });
                }
            }
        }
        // An FP8 product can never leave f32's range.
        Decoded { format, values, exponents: Exponents::Bytes(exponents), finite, largest: 0 }
    }

    fn words(codes: &[u16], format: Format, negate: bool) -> Self {
        match format {
            Format::F16 => Self::words_of::<true>(codes, format, negate),
            _ => Self::words_of::<false>(codes, format, negate),
        }
    }

    fn words_of<const F16: bool>(codes: &[u16], format: Format, negate: bool) -> Self {
        let mut values = vec![0f32; codes.len()];
        let mut exponents = vec![0i16; codes.len()];
        let flip = if negate { 0x8000 } else { 0 };
        let mut finite = true;
        let mut largest = i16::MIN;
        let (top, fraction, bias) = if F16 { (0x7c00, 10, 15) } else { (0x7f80, 7, 127) };
        for ((value, exponent), &code) in values.iter_mut().zip(&mut exponents).zip(codes) {
            let magnitude = code & 0x7fff;
            finite &= magnitude < top;
            let own = ((magnitude >> fraction) as i16).max(1).wrapping_sub(bias);
            *exponent = if magnitude == 0 { ZERO } else { own };
            largest = largest.max(*exponent);
            let number = if F16 {
                let plain = f32::from_bits(u32::from(magnitude) << 13) * f32::from_bits((127 + 112) << 23);
                if magnitude >= top { 0x7f80_0000 | u32::from(magnitude) << 13 } else { plain.to_bits() }
            } else {
                u32::from(magnitude) << 16
            };
            *value = f32::from_bits(number | u32::from((code ^ flip) & 0x8000) << 16);
        }
        Decoded {
            format,
            values,
            exponents: Exponents::Words(exponents),
            finite,
            largest: i32::from(largest),
        }
    }
}

/// The matrix A of one step: `rows` × k, row by row.
#[derive(Debug)]
pub struct Left {
    pub(super) decoded: Decoded,
    rows: usize,
}

impl Left {
    /// Decodes 8-bit codes, `rows` rows of 32.
    pub fn from_bytes(codes: &[u8], format: Format, negate: bool) -> Self {
        assert!(format.bytes() == 1 && codes.len().is_multiple_of(32), "rows of 32 8-bit codes");
        Left { decoded: Decoded::bytes(codes, format, negate), rows: codes.len() / 32 }
    }

    /// Decodes 16-bit codes, `rows` rows of 16.
    pub fn from_words(codes: &[u16], format: Format, negate: bool) -> Self {
        assert!(format.bytes() == 2 && codes.len().is_multiple_of(16), "rows of 16 16-bit codes");
        Left { decoded: Decoded::words(codes, format, negate), rows: codes.len() / 16 }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Extent along k.
    pub fn depth(&self) -> usize {
        self.decoded.format.depth()
    }
}

/// The matrix B of one step: k × `columns`, in blocks of columns.
#[derive(Debug)]
pub struct Right {
    pub(super) decoded: Decoded,
    columns: usize,
}

impl Right {
    /// Decodes 8-bit codes placed by [`Right::place`]; 32 a column.
    pub fn from_bytes(codes: &[u8], format: Format, negate: bool) -> Self {
        assert!(
            format.bytes() == 1 && codes.len().is_multiple_of(256),
            "columns by eights of 32 8-bit codes"
        );
        Right { decoded: Decoded::bytes(codes, format, negate), columns: codes.len() / 32 }
    }

    /// Decodes 16-bit codes placed by [`Right::place`]; 16 a column.
    pub fn from_words(codes: &[u16], format: Format, negate: bool) -> Self {
        assert!(
            format.bytes() == 2 && codes.len().is_multiple_of(128),
            "columns by eights of 16 16-bit codes"
        );
        Right { decoded: Decoded::words(codes, format, negate), columns: codes.len() / 16 }
    }

    /// Where element (0, `column`) lies and how far apart consecutive k are.
    ///
    /// Blocks of 32 columns (the rest in blocks of 8), k-major inside; within eight columns the even ones come
    /// first, as one row of an accumulator fragment holds them.
    pub fn place(column: usize, columns: usize, depth: usize) -> (usize, usize) {
        let width = if column < columns / WIDE * WIDE { WIDE } else { NARROW };
        let start = column / width * width;
        let within = column - start;
        let lane = within / 8 * 8 + within % 8 / 2 + 4 * (within % 2);
        (start * depth + lane, width)
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Extent along k.
    pub fn depth(&self) -> usize {
        self.decoded.format.depth()
    }
}
