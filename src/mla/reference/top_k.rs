//! The oracle of the selection.

use std::ops::Range;

/// Columns of the `k` largest scores of a row within `range`, in the order of columns; of equal scores the first. NaN is never
/// chosen; -1 stands behind the last.
pub fn top_k(row: &[f32], range: Range<usize>, k: usize) -> Vec<i32> {
    let mut columns: Vec<usize> = range.filter(|&column| !row[column].is_nan()).collect();
    // Stable: equal scores stay in order.
    columns.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).expect("no NaN"));
    columns.truncate(k);
    columns.sort_unstable();
    let mut answer: Vec<i32> = columns.into_iter().map(|column| column as i32).collect();
    answer.resize(k, -1);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_are_chosen_and_nan_is_not() {
        let row = [1.0, 3.0, f32::NAN, -0.0, 0.0, 3.0, f32::NEG_INFINITY];
        assert_eq!(top_k(&row, 0..7, 2), [1, 5]);
        assert_eq!(top_k(&row, 0..7, 4), [0, 1, 3, 5]);
        assert_eq!(top_k(&row, 2..7, 6), [3, 4, 5, 6, -1, -1]);
        assert_eq!(top_k(&row, 7..7, 2), [-1, -1]);
    }
}
