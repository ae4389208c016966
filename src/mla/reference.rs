//! The family's operations in plain f64, one a module: what kernels should have answered.

pub mod cache;
pub mod decode;
pub mod indexer;
pub mod merge;
pub mod prefill;
pub mod sparse;
pub mod top_k;

/// Rotates one row of neighbouring pairs by the angles of a position: first members' half, then second members'. Also the
/// sum of each answer's terms' magnitudes.
pub fn rotate(row: &[f64], position: i32, frequencies: &[f64], factor: f64) -> (Vec<f64>, Vec<f64>) {
    let turned = |second: bool| {
        row.chunks(2).zip(frequencies).map(move |(pair, frequency)| {
            let (sine, cosine) = (f64::from(position) * frequency).sin_cos();
            let terms = match second {
                false => [pair[0] * cosine, -pair[1] * sine],
                true => [pair[1] * cosine, pair[0] * sine],
            };
            (factor * (terms[0] + terms[1]), factor * (terms[0].abs() + terms[1].abs()))
        })
    };
    turned(false).chain(turned(true)).unzip()
}
