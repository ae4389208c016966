//! The oracles of the embedding gather and the greedy choice.

/// Rows of a row-major table; a row of zeros for an id that is not in it.
pub fn embedding<T: Copy + Default>(table: &[T], columns: usize, ids: &[i32]) -> Vec<T> {
    let row = |id: &i32| usize::try_from(*id).ok().and_then(|id| table.chunks(columns.max(1)).nth(id));
    ids.iter().flat_map(|id| row(id).map_or(vec![T::default(); columns], <[T]>::to_vec)).collect()
}

/// The first index of a row's largest value, NaN aside; -1 if all are NaN.
pub fn argmax(row: &[f32]) -> i32 {
    let largest = row.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    row.iter().position(|x| *x == largest).map_or(-1, |index| index as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_index_wins() {
        assert_eq!(argmax(&[1.0, f32::NAN, 3.0, 3.0]), 2);
        assert_eq!(argmax(&[-0.0, 0.0]), 0);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), 0);
        assert_eq!(argmax(&[f32::NAN; 2]), -1);
    }

    #[test]
    fn unknown_ids_are_zeros() {
        assert_eq!(embedding(&[1, 2, 3, 4], 2, &[1, -1, 2, 0]), [3, 4, 0, 0, 0, 0, 1, 2]);
    }
}
