//! `ldmatrix` and `stmatrix`: 8×8 matrices of 16-bit elements between shared-memory rows and fragments.

use crate::row::Row;

/// Position of the first of the two elements that `lane` holds, and of the second.
fn elements(lane: usize, transposed: bool) -> [(usize, usize); 2] {
    let (line, place) = (lane / 4, lane % 4 * 2);
    if transposed { [(place, line), (place + 1, line)] } else { [(line, place), (line, place + 1)] }
}

/// The `count` registers that `ldmatrix` gives; row i of matrix j is `rows[8 * j + i]`, as lane 8j + i addressed it.
pub fn load(count: usize, trans: bool, rows: &[[u8; 16]]) -> Vec<Row> {
    assert_eq!(rows.len(), 8 * count, "eight rows a matrix");
    rows.chunks_exact(8)
        .map(|matrix| {
            std::array::from_fn(|lane| {
                let [low, high] = elements(lane, trans).map(|(row, column)| {
                    u32::from(u16::from_le_bytes([matrix[row][2 * column], matrix[row][2 * column + 1]]))
                });
                low | high << 16
            })
        })
        .collect()
}

/// The rows that `stmatrix` writes: row i of matrix j, at the address of lane 8j + i, is element 8j + i.
pub fn store(count: usize, trans: bool, registers: &[Row]) -> Vec<[u8; 16]> {
    assert_eq!(registers.len(), count, "a register a matrix");
    let mut rows = vec![[0u8; 16]; 8 * count];
    for (matrix, register) in rows.chunks_exact_mut(8).zip(registers) {
        for (lane, value) in register.iter().enumerate() {
            let halves = [*value as u16, (*value >> 16) as u16];
            for ((row, column), half) in elements(lane, trans).into_iter().zip(halves) {
                matrix[row][2 * column..][..2].copy_from_slice(&half.to_le_bytes());
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Matrix j, row i, column c.
    fn value(j: usize, i: usize, c: usize) -> u16 {
        (j * 100 + i * 8 + c) as u16
    }

    fn rows(count: usize) -> Vec<[u8; 16]> {
        (0..8 * count)
            .map(|line| {
                let bytes: Vec<u8> =
                    (0..8).flat_map(|c| value(line / 8, line % 8, c).to_le_bytes()).collect();
                bytes.try_into().unwrap()
            })
            .collect()
    }

    #[test]
    fn lanes_hold_the_elements_of_the_text() {
        for count in [1, 2, 4] {
            for trans in [false, true] {
                let registers = load(count, trans, &rows(count));
                assert_eq!(registers.len(), count);
                for (j, register) in registers.iter().enumerate() {
                    for (l, got) in register.iter().enumerate() {
                        let (low, high) = if trans {
                            (value(j, 2 * (l % 4), l / 4), value(j, 2 * (l % 4) + 1, l / 4))
                        } else {
                            (value(j, l / 4, 2 * (l % 4)), value(j, l / 4, 2 * (l % 4) + 1))
                        };
                        assert_eq!(*got, u32::from(low) | u32::from(high) << 16);
                    }
                }
                assert_eq!(store(count, trans, &registers), rows(count));
            }
        }
    }
}
