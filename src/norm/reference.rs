//! The oracle of the norms.

use crate::dtype::nearest_bf16;

/// One row of RMS norm in DeepSeek's order of roundings: normalised in f64, rounded to bf16, multiplied by the weight,
/// rounded to bf16.
///
/// `factor_error` scales `1 / sqrt(mean + epsilon)` by one plus itself: with the error bound of an f32 computation, on
/// either side, the answers bracket what such a computation may give.
pub fn rms_norm(x: &[f64], weight: &[f64], epsilon: f64, factor_error: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let factor = (1.0 + factor_error) / (mean + epsilon).sqrt();
    x.iter().zip(weight).map(|(x, weight)| round(round(x * factor) * weight)).collect()
}

/// The sum of two matrices, rounded once.
pub fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| round(a + b)).collect()
}

/// The nearest bf16.
fn round(value: f64) -> f64 {
    nearest_bf16(value).to_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_equal_magnitudes_becomes_its_signs() {
        let answer = rms_norm(&[4.0, -4.0, 4.0, -4.0], &[1.0, 2.0, 3.0, 0.5], 0.0, 0.0);
        assert_eq!(answer, [1.0, -2.0, 3.0, -0.5]);
    }
}
