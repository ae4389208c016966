//! Operands from registers or shared memory into the packed form that the arithmetic wants.

use super::descriptor::{CHUNK, Matrix};
use super::scalar::Line;
use crate::row::Row;
use crate::tensor_core::{Format, Left, Right};

fn chunk(shared: &[u8], offset: u32) -> &[u8; CHUNK] {
    shared[offset as usize..].first_chunk().expect("the descriptor's chunks lie inside shared memory")
}

fn words(chunk: &[u8; CHUNK]) -> [u16; 8] {
    std::array::from_fn(|i| u16::from_le_bytes([chunk[2 * i], chunk[2 * i + 1]]))
}

pub(super) fn left(rows: &[[u8; 32]; 64], format: Format, negate: bool) -> Left {
    if format.bytes() == 1 {
        Left::from_bytes(rows.as_flattened(), format, negate)
    } else {
        let (pairs, _) = rows.as_flattened().as_chunks::<2>();
        let codes: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        Left::from_words(&codes, format, negate)
    }
}

/// A from four registers a lane: lane 4g + q holds bytes 4q..4q+4 (and 16 further) of rows g and g + 8.
pub(super) fn rows_from_registers(registers: &[[Row; 4]; 4]) -> [Line; 64] {
    let mut rows = [[0u8; 32]; 64];
    for (warp, registers) in registers.iter().enumerate() {
        for (index, register) in registers.iter().enumerate() {
            for (lane, value) in register.iter().enumerate() {
                let row = 16 * warp + lane / 4 + 8 * (index % 2);
                rows[row][4 * (lane % 4) + 16 * (index / 2)..][..4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    rows
}

pub(super) fn rows_from_shared(matrix: &Matrix, shared: &[u8]) -> [Line; 64] {
    let mut rows = [[0u8; 32]; 64];
    if matrix.mn_major {
        for (k, line) in matrix.lines().enumerate() {
            for (eight, offset) in line.iter().enumerate() {
                for (i, pair) in chunk(shared, *offset).as_chunks::<2>().0.iter().enumerate() {
                    rows[8 * eight + i][2 * k..][..2].copy_from_slice(pair);
                }
            }
        }
    } else {
        for (row, line) in rows.iter_mut().zip(matrix.lines()) {
            for (half, offset) in row.as_chunks_mut::<CHUNK>().0.iter_mut().zip(line) {
                *half = *chunk(shared, *offset);
            }
        }
    }
    rows
}

/// B's columns along k.
pub(super) fn columns_from_shared(matrix: &Matrix, shared: &[u8]) -> Vec<Line> {
    if matrix.mn_major {
        let mut columns = vec![[0; 32]; 8 * matrix.chunks];
        for (k, line) in matrix.lines().enumerate() {
            for (eight, offset) in line.iter().enumerate() {
                for (i, pair) in chunk(shared, *offset).as_chunks::<2>().0.iter().enumerate() {
                    columns[8 * eight + i][2 * k..][..2].copy_from_slice(pair);
                }
            }
        }
        return columns;
    }
    let column = |line: &[u32]| {
        let mut column = [0; 32];
        for (half, offset) in column.as_chunks_mut::<CHUNK>().0.iter_mut().zip(line) {
            *half = *chunk(shared, *offset);
        }
        column
    };
    matrix.lines().map(column).collect()
}

/// Places eight columns of `DEPTH` consecutive k each, lane by lane, `step` apart.
#[inline(always)]
fn transpose<T: Copy + Default, const DEPTH: usize>(columns: &[[T; DEPTH]; 8], to: &mut [T], step: usize) {
    // Even columns first: see `Right::place`.
    for k in 0..DEPTH {
        let lanes: [T; 8] = std::array::from_fn(|lane| columns[lane % 4 * 2 + lane / 4][k]);
        to[k * step..][..8].copy_from_slice(&lanes);
    }
}

pub(super) fn right_from_shared(matrix: &Matrix, shared: &[u8], format: Format, negate: bool) -> Right {
    let depth = format.depth();
    if matrix.mn_major {
        let columns = 8 * matrix.chunks;
        let mut codes = vec![0u16; columns * depth];
        for (k, line) in matrix.lines().enumerate() {
            for (eight, offset) in line.iter().enumerate() {
                let (start, step) = Right::place(8 * eight, columns, depth);
                let values = words(chunk(shared, *offset));
                let lanes: [u16; 8] = std::array::from_fn(|lane| values[lane % 4 * 2 + lane / 4]);
                codes[start + k * step..][..8].copy_from_slice(&lanes);
            }
        }
        return Right::from_words(&codes, format, negate);
    }
    let lines: Vec<&[u32]> = matrix.lines().collect();
    let columns = lines.len();
    let eights = lines.as_chunks::<8>().0.iter().enumerate();
    if format.bytes() == 1 {
        let mut codes = vec![0u8; columns * depth];
        for (eight, lines) in eights {
            let (start, step) = Right::place(8 * eight, columns, depth);
            for half in 0..2 {
                let values: [[u8; CHUNK]; 8] = std::array::from_fn(|i| *chunk(shared, lines[i][half]));
                transpose(&values, &mut codes[start + CHUNK * half * step..], step);
            }
        }
        Right::from_bytes(&codes, format, negate)
    } else {
        let mut codes = vec![0u16; columns * depth];
        for (eight, lines) in eights {
            let (start, step) = Right::place(8 * eight, columns, depth);
            for half in 0..2 {
                let values: [[u16; 8]; 8] = std::array::from_fn(|i| words(chunk(shared, lines[i][half])));
                transpose(&values, &mut codes[start + 8 * half * step..], step);
            }
        }
        Right::from_words(&codes, format, negate)
    }
}
