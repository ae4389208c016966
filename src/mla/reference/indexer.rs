//! The oracle of the lightning indexer.

/// One logit: `scale · Σ_h weights[h] · max(0, q[h] · k)`, of widened queries `[heads, k.len()]`. NaN anywhere is NaN.
pub fn logit(q: &[f64], k: &[f64], weights: &[f64], scale: f64) -> f64 {
    let heads = q.chunks(k.len()).zip(weights).map(|(q, weight)| {
        let dot: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
        weight * if dot < 0.0 { 0.0 } else { dot }
    });
    scale * heads.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_products_count_nothing_and_nan_stays() {
        assert_eq!(logit(&[1.0, 2.0, -1.0, 0.0], &[3.0, 4.0], &[0.5, 9.0], 2.0), 11.0);
        assert!(logit(&[f64::NAN, 2.0], &[3.0, 4.0], &[1.0], 2.0).is_nan());
    }
}
