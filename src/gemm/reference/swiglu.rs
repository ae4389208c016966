//! SwiGLU of two products, before it is quantised.

use super::{Expected, UNIT_F32};

/// What is done to the sums of gates and ups of `columns` outputs.
#[derive(Debug, Clone, Copy)]
pub struct Activation<'a> {
    /// I.
    pub columns: usize,
    /// Where gates are cut from above, and ups on both sides.
    pub clamp: Option<f32>,
    /// Factors of rows, or none.
    pub row_weights: &'a [f32],
}

/// A gate from here on is its own SiLU in f32: 1 + exp(-gate) rounds to 1.
const SATURATED: f64 = 20.0;

/// silu(gate) * up * weight of rows of `2 * columns` sums, gates first, with bounds of what a kernel computes in f32. Where
/// the sums are exact and the activation is too, so is the value, rounded to f32 as the kernel does it, with a bound of
/// zero.
pub fn swiglu(sums: &Expected, activation: &Activation<'_>) -> Expected {
    let Activation { columns, clamp, row_weights } = *activation;
    let mut expected = Expected { values: Vec::new(), bounds: Vec::new() };
    if columns == 0 {
        return expected;
    }
    let rows = sums.values.chunks(2 * columns).zip(sums.bounds.chunks(2 * columns));
    for (row, (values, bounds)) in rows.enumerate() {
        for column in 0..columns {
            let cut = |value: f64, low: f64| match clamp {
                Some(limit) => value.clamp(low * f64::from(limit), f64::from(limit)),
                None => value,
            };
            // Cutting brings nothing further apart.
            let (gate, off_gate) = (cut(values[column], f64::NEG_INFINITY), bounds[column]);
            let (up, off_up) = (cut(values[columns + column], -1.0), bounds[columns + column]);
            let weight = row_weights.get(row).copied();
            let exact = off_gate == 0.0 && off_up == 0.0 && (gate == 0.0 || gate >= SATURATED);
            let (value, bound) = if exact {
                let product = gate as f32 * up as f32;
                (f64::from(weight.map_or(product, |weight| product * weight)), 0.0)
            } else {
                let silu = gate / (1.0 + (-gate).exp());
                // The slope of SiLU is below 1.1. The exponential is within 4 roundings, the sum with 1 takes one, the
                // reciprocal two, the product one; an exponential below f32's normal numbers may be gone.
                let off_silu = 1.1 * off_gate + 8.0 * UNIT_F32 * silu.abs() + f64::from(f32::MIN_POSITIVE);
                let value = silu * up;
                let bound = off_silu * (up.abs() + off_up) + silu.abs() * off_up;
                let bound = bound + UNIT_F32 * (value.abs() + bound);
                match weight.map(f64::from) {
                    None => (value, bound),
                    Some(weight) => {
                        let bound = bound * weight.abs();
                        (value * weight, bound + UNIT_F32 * ((value * weight).abs() + bound))
                    }
                }
            };
            expected.values.push(value);
            expected.bounds.push(bound);
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(gate: f64, up: f64, bound: f64, clamp: Option<f32>) -> (f64, f64) {
        let sums = Expected { values: vec![gate, up], bounds: vec![bound; 2] };
        let expected = swiglu(&sums, &Activation { columns: 1, clamp, row_weights: &[0.5] });
        (expected.values[0], expected.bounds[0])
    }

    #[test]
    fn large_gates_are_exact_and_small_ones_are_not() {
        assert_eq!(one(24.0, -3.0, 0.0, None), (-36.0, 0.0));
        assert_eq!(one(0.0, 7.0, 0.0, None), (0.0, 0.0));
        let (value, bound) = one(1.0, 2.0, 0.0, None);
        assert!((value - 0.731_058_578_630).abs() < 1e-9, "{value}");
        assert!(bound > 0.0 && bound < 1e-6);
        assert!(one(1.0, 2.0, 0.1, None).1 > 0.1);
    }

    #[test]
    fn the_clamp_cuts_gates_on_one_side_and_ups_on_both() {
        assert_eq!(one(100.0, -90.0, 0.0, Some(32.0)), (-512.0, 0.0));
        let (value, _) = one(-5.0, 100.0, 0.0, Some(2.0));
        assert!((value - -5.0 / (1.0 + 5f64.exp())).abs() < 1e-9, "{value}");
    }
}
