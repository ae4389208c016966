//! Seeded inputs.

use crate::dtype::{E4m3, bf16};

/// A stream of pseudo-random numbers that is the same for the same seed, everywhere and for ever (SplitMix64).
#[derive(Debug, Clone)]
pub struct Source {
    state: u64,
}

impl Source {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// An index below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The high half of the product is uniform but for 2⁻⁶⁴ · bound.
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// An integer of `low..=high`, as a float.
    pub fn integer(&mut self, low: i32, high: i32) -> f32 {
        (i64::from(low) + self.below((i64::from(high) - i64::from(low) + 1) as usize) as i64) as f32
    }

    /// A number of 0..1 with 24 random bits.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// A number of low..high.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// A normal number (Box and Muller), mean 0, variance 1.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - f64::from(self.unit())).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.unit())).cos()) as f32
    }

    /// `len` integers of `-limit..=limit`. At `limit` ≤ 11, sums of 128 products are exact in FP8 tensor arithmetic.
    pub fn integers(&mut self, len: usize, limit: i32) -> Vec<f32> {
        (0..len).map(|_| self.integer(-limit, limit)).collect()
    }

    /// `len` numbers of low..high.
    pub fn uniforms(&mut self, len: usize, low: f32, high: f32) -> Vec<f32> {
        (0..len).map(|_| self.uniform(low, high)).collect()
    }

    /// `len` normal numbers times `scale`.
    pub fn normals(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| scale * self.normal()).collect()
    }

    /// `len` powers of two, 2^low..=2^high.
    pub fn powers(&mut self, len: usize, low: i32, high: i32) -> Vec<f32> {
        (0..len).map(|_| self.integer(low, high).exp2()).collect()
    }

    /// A number of columns up to `most`, as often as not a multiple of 128.
    pub fn columns(&mut self, most: usize) -> usize {
        match self.below(2) {
            0 => 1 + self.below(most),
            _ => 128 * (1 + self.below(most.div_ceil(128))),
        }
    }

    /// A permutation of 0..len (Fisher and Yates).
    pub fn permutation(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    /// Rounds to bf16.
    pub fn to_bf16(values: &[f32]) -> Vec<bf16> {
        values.iter().map(|value| bf16::from_f32(*value)).collect()
    }

    /// Rounds to e4m3, saturating.
    pub fn to_e4m3(values: &[f32]) -> Vec<E4m3> {
        values.iter().map(|value| E4m3::from_f32(*value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_stay_in_range() {
        let (mut a, mut b) = (Source::new(7), Source::new(7));
        for _ in 0..10_000 {
            assert_eq!(a.bits(), b.bits());
            assert!(a.below(7) < 7 && b.below(7) < 7);
            let (x, y) = (a.uniform(-2.0, 3.0), b.uniform(-2.0, 3.0));
            assert!(x == y && (-2.0..=3.0).contains(&x));
        }
        assert_ne!(Source::new(1).bits(), Source::new(2).bits());
    }

    #[test]
    fn integers_reach_both_ends() {
        let values = Source::new(1).integers(1000, 3);
        assert!(values.contains(&-3.0) && values.contains(&3.0));
        assert!(values.iter().all(|v| v.fract() == 0.0 && v.abs() <= 3.0));
    }

    #[test]
    fn normals_have_the_moments() {
        let values = Source::new(3).normals(100_000, 2.0);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
        let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.03 && (variance - 4.0).abs() < 0.1, "{mean} {variance}");
    }

    #[test]
    fn a_permutation_has_each_once() {
        let mut order = Source::new(5).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
