//! Comparisons: exact, or within a bound that the caller derived per element.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// Equality of every element. Floats are compared as values, so compare their bits where zeros' signs and NaN
/// matter.
pub fn exact<T: PartialEq + Debug>(name: &str, got: &[T], want: &[T]) -> Result<(), String> {
    same_length(name, got.len(), want.len())?;
    let wrong = || got.iter().zip(want).enumerate().filter(|(_, (got, want))| got != want);
    match wrong().next() {
        None => Ok(()),
        Some((index, (got_one, want_one))) => Err(format!(
            "{name}: {} of {} differ, first at {index}: got {got_one:?}, want {want_one:?}",
            wrong().count(),
            got.len(),
        )),
    }
}

/// |got - want| ≤ bound for every element; NaN anywhere fails. Infinities must be equal.
pub fn within(name: &str, got: &[f32], want: &[f64], bound: &[f64]) -> Result<(), String> {
    same_length(name, got.len(), want.len())?;
    same_length(name, bound.len(), want.len())?;
    let fails = |got: f32, want: f64, bound: f64| {
        let got = f64::from(got);
        // NaN compares false, so it fails; equal infinities differ by NaN and pass by the first test.
        got != want && !((got - want).abs() <= bound && bound.is_finite())
    };
    let wrong = || (0..got.len()).filter(|i| fails(got[*i], want[*i], bound[*i]));
    match wrong().next() {
        None => Ok(()),
        Some(first) => {
            let excess = |i: &usize| (f64::from(got[*i]) - want[*i]).abs() / bound[*i];
            let worst = wrong().max_by(|a, b| excess(a).total_cmp(&excess(b))).unwrap_or(first);
            let show = |i: usize| {
                let error = (f64::from(got[i]) - want[i]).abs();
                format!("{i}: got {}, want {}, error {error:e}, bound {:e}", got[i], want[i], bound[i])
            };
            Err(format!(
                "{name}: {} of {} beyond the bound, first at {}; worst at {}",
                wrong().count(),
                got.len(),
                show(first),
                show(worst)
            ))
        }
    }
}

/// Errors as shares of their bounds: the largest, and a histogram for percentiles. The largest is an alarm: it drifts
/// towards 1 before a bound is broken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ratios {
    largest: f64,
    count: u64,
    /// By exponent and the first four bits of the significand.
    buckets: BTreeMap<u16, u64>,
}

impl Ratios {
    /// Counts one error. Equal values with a bound of zero count as zero.
    pub fn count(&mut self, error: f64, bound: f64) {
        let ratio = if error > 0.0 { error / bound } else { 0.0 };
        self.largest = self.largest.max(ratio);
        self.count += 1;
        *self.buckets.entry((ratio.to_bits() >> 48) as u16).or_default() += 1;
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Ratios) {
        self.largest = self.largest.max(other.largest);
        self.count += other.count;
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    /// The largest error as a share of its bound.
    pub fn largest(&self) -> f64 {
        self.largest
    }

    /// A share that at least `part` (0..=1) of all errors do not exceed, at most a sixteenth above the smallest such.
    pub fn percentile(&self, part: f64) -> f64 {
        let wanted = part * self.count as f64;
        let mut below = 0;
        for (bucket, count) in &self.buckets {
            below += count;
            if below as f64 >= wanted {
                return f64::from_bits((u64::from(*bucket) + 1) << 48).min(self.largest);
            }
        }
        self.largest
    }
}

fn same_length(name: &str, got: usize, want: usize) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{name}: {got} elements, want {want}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_the_first_difference() {
        assert!(exact("x", &[1, 2, 3], &[1, 2, 3]).is_ok());
        let message = exact("x", &[1, 5, 6], &[1, 2, 3]).unwrap_err();
        assert!(message.contains("2 of 3") && message.contains("at 1: got 5, want 2"), "{message}");
        assert!(exact("x", &[1], &[1, 2]).is_err());
    }

    #[test]
    fn within_is_a_closed_bound_and_nan_fails() {
        assert!(within("x", &[1.5, 2.0], &[1.0, 2.0], &[0.5, 0.0]).is_ok());
        assert!(within("x", &[1.6], &[1.0], &[0.5]).is_err());
        assert!(within("x", &[f32::NAN], &[1.0], &[1e9]).is_err());
        assert!(within("x", &[f32::NAN], &[f64::NAN], &[1.0]).is_err());
        assert!(within("x", &[1.0], &[2.0], &[f64::NAN]).is_err());
        assert!(within("x", &[1.0], &[2.0], &[f64::INFINITY]).is_err());
        let inf = f64::INFINITY;
        assert!(within("x", &[f32::NEG_INFINITY], &[-inf], &[0.0]).is_ok());
        assert!(within("x", &[f32::INFINITY], &[-inf], &[1.0]).is_err());
        assert!(within("x", &[1.0], &[1.0], &[]).is_err());
    }

    #[test]
    fn percentiles_are_near_and_never_too_small() {
        let mut ratios = Ratios::default();
        (0..1000).for_each(|i| ratios.count(f64::from(i), 2000.0));
        assert_eq!(ratios.largest(), 0.4995);
        let median = ratios.percentile(0.5);
        assert!((0.2495..0.2495 * 17.0 / 16.0).contains(&median), "{median}");
        assert_eq!(ratios.percentile(1.0), 0.4995);
        assert_eq!(Ratios::default().percentile(0.5), 0.0);
    }

    #[test]
    fn within_names_the_worst() {
        let message = within("x", &[2.0, 9.0], &[1.0, 1.0], &[0.5, 0.5]).unwrap_err();
        assert!(message.contains("first at 0") && message.contains("worst at 1"), "{message}");
    }
}
