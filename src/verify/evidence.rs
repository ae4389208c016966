//! What checks compared, and how close it was.

use super::compare::{self, Ratios};
use std::fmt::Debug;

/// What a check compared. Every check returns it; sums of it make the reliability table of `narrowgauge check`.
///
/// Its methods compare as the functions of [`verify`](super) do, and count what was found to be right.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// Elements equal to an exact answer, bit for bit.
    pub exact: u64,
    /// Elements equal to the [model of the tensor core](super::tensor_core), bit for bit.
    pub modelled: u64,
    /// Elements within their bound of an answer in f64.
    pub bounded: u64,
    /// Rows whose [random projection](super::projection) is within its bound.
    pub projected: u64,
    /// Elements with equal bits in two runs that must not differ.
    pub repeated: u64,
    /// Wanted elements that are zero, and so prove little.
    pub zeros: u64,
    /// Elements around outputs that no kernel touched.
    pub canaries: u64,
    /// A hash of all outputs' bits: two runs with the same inputs must agree.
    pub digest: u64,
    /// Errors of f32 results as shares of their bounds.
    pub ratios: Ratios,
}

/// The share of zeros above which a comparison says too little to be trusted.
pub const MOSTLY_ZEROS: f64 = 0.9;

impl Evidence {
    /// Elements and projections compared with an oracle.
    pub fn compared(&self) -> u64 {
        self.exact + self.modelled + self.bounded + self.projected
    }

    /// Whether so many wanted elements are zero that a kernel which does nothing might pass.
    pub fn mostly_zeros(&self) -> bool {
        self.zeros as f64 > MOSTLY_ZEROS * (self.exact + self.bounded) as f64
    }

    /// [`exact`](super::exact), counted.
    pub fn exact<T: PartialEq + Debug + Default>(
        &mut self,
        name: &str,
        got: &[T],
        want: &[T],
    ) -> Result<(), String> {
        compare::exact(name, got, want)?;
        self.exact += want.len() as u64;
        self.zeros += want.iter().filter(|value| **value == T::default()).count() as u64;
        Ok(())
    }

    /// [`exact`](super::exact) for values of the model of the tensor core, counted.
    pub fn modelled<T: PartialEq + Debug>(
        &mut self,
        name: &str,
        got: &[T],
        want: &[T],
    ) -> Result<(), String> {
        compare::exact(name, got, want)?;
        self.modelled += want.len() as u64;
        Ok(())
    }

    /// [`within`](super::within), counted.
    pub fn within(&mut self, name: &str, got: &[f32], want: &[f64], bound: &[f64]) -> Result<(), String> {
        self.within_rounded(name, got, want, bound)?;
        for ((got, want), bound) in got.iter().zip(want).zip(bound) {
            self.ratios.count((f64::from(*got) - want).abs(), *bound);
        }
        Ok(())
    }

    /// [`within`](super::within) for outputs whose own rounding is most of the bound: how near an error comes to it says
    /// nothing, and is not counted among the [`ratios`](Self::ratios).
    pub fn within_rounded(
        &mut self,
        name: &str,
        got: &[f32],
        want: &[f64],
        bound: &[f64],
    ) -> Result<(), String> {
        compare::within(name, got, want, bound)?;
        self.bounded += want.len() as u64;
        self.zeros += want.iter().filter(|value| **value == 0.0).count() as u64;
        Ok(())
    }

    /// [`exact`](super::exact) for the bits of two runs, counted.
    pub fn repeated<T: PartialEq + Debug>(
        &mut self,
        name: &str,
        got: &[T],
        want: &[T],
    ) -> Result<(), String> {
        compare::exact(name, got, want)?;
        self.repeated += want.len() as u64;
        Ok(())
    }

    /// Makes an output's bits part of the digest.
    pub fn digest(&mut self, bits: impl IntoIterator<Item = u32>) {
        for bits in bits {
            // FNV-1a, a word at a time.
            self.digest = (self.digest ^ u64::from(bits)).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
        }
    }

    /// Adds what another check found.
    pub fn add(&mut self, other: &Evidence) {
        self.exact += other.exact;
        self.modelled += other.modelled;
        self.bounded += other.bounded;
        self.projected += other.projected;
        self.repeated += other.repeated;
        self.zeros += other.zeros;
        self.canaries += other.canaries;
        self.digest([other.digest as u32, (other.digest >> 32) as u32]);
        self.ratios.add(&other.ratios);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_is_counted_and_what_is_wrong_is_not() {
        let mut evidence = Evidence::default();
        evidence.exact("x", &[0, 1, 2], &[0, 1, 2]).unwrap();
        evidence.within("y", &[1.5, 0.0], &[1.0, 0.0], &[2.0, 0.0]).unwrap();
        evidence.modelled("z", &[1.0], &[1.0]).unwrap();
        assert!(evidence.exact("x", &[1], &[2]).is_err());
        assert!(evidence.within("y", &[1.5], &[1.0], &[0.25]).is_err());
        assert_eq!((evidence.exact, evidence.bounded, evidence.modelled, evidence.zeros), (3, 2, 1, 2));
        assert_eq!(evidence.compared(), 6);
        assert_eq!(evidence.ratios.largest(), 0.25);
        let mut sum = evidence.clone();
        sum.add(&evidence);
        assert_eq!((sum.exact, sum.ratios.largest()), (6, 0.25));
    }

    #[test]
    fn a_comparison_of_zeros_is_not_trusted() {
        let mut evidence = Evidence::default();
        evidence.exact("x", &[0; 19], &[0; 19]).unwrap();
        assert!(evidence.mostly_zeros());
        evidence.exact("x", &[1; 3], &[1; 3]).unwrap();
        assert!(!evidence.mostly_zeros());
    }

    #[test]
    fn digests_tell_orders_apart() {
        let digest = |bits: &[u32]| {
            let mut evidence = Evidence::default();
            evidence.digest(bits.iter().copied());
            evidence.digest
        };
        assert_eq!(digest(&[1, 2]), digest(&[1, 2]));
        assert_ne!(digest(&[1, 2]), digest(&[2, 1]));
        assert_ne!(digest(&[0]), digest(&[]) ^ 1);
    }
}
