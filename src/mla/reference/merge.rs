//! The merge of partial attentions in plain f64.

/// Extents of partial attentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Parts of the keys.
    pub parts: usize,
    /// Query tokens.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Columns of the values.
    pub columns: usize,
}

/// Partial attentions `[parts, tokens, heads, columns]` with the logarithms `[parts, heads, tokens]`, joined: the answer
/// `[tokens, heads, columns]` and its logarithms `[heads, tokens]`. A part whose logarithm is -inf plays no part. A sink of
/// each head, where there are any, shares in the softmax but not in the logarithm.
pub fn merge(shape: &Parts, partial: &[f64], lse: &[f64], sinks: Option<&[f64]>) -> (Vec<f64>, Vec<f64>) {
    let Parts { parts, tokens, heads, columns } = *shape;
    let mut out = vec![0.0; tokens * heads * columns];
    let mut joined = vec![f64::NEG_INFINITY; heads * tokens];
    for token in 0..tokens {
        for head in 0..heads {
            let of_part = |part: usize| lse[(part * heads + head) * tokens + token];
            let total = joined_logarithm((0..parts).map(of_part));
            joined[head * tokens + token] = total;
            if total == f64::NEG_INFINITY {
                continue;
            }
            let answer = &mut out[(token * heads + head) * columns..][..columns];
            for part in (0..parts).filter(|&part| of_part(part) != f64::NEG_INFINITY) {
                let weight = (of_part(part) - total).exp();
                let values = &partial[((part * tokens + token) * heads + head) * columns..][..columns];
                answer.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
            if let Some(sinks) = sinks {
                let share = 1.0 / (1.0 + (sinks[head] - total).exp());
                answer.iter_mut().for_each(|value| *value *= share);
            }
        }
    }
    (out, joined)
}

/// ln Σ exp(lse).
fn joined_logarithm(lse: impl Iterator<Item = f64> + Clone) -> f64 {
    let maximum = lse.clone().fold(f64::NEG_INFINITY, f64::max);
    if maximum == f64::NEG_INFINITY {
        return maximum;
    }
    maximum + lse.map(|part| (part - maximum).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_are_averaged_and_empty_ones_ignored() {
        let shape = Parts { parts: 3, tokens: 1, heads: 2, columns: 1 };
        let inf = f64::NEG_INFINITY;
        let (out, lse) =
            merge(&shape, &[1.0, 7.0, 3.0, 8.0, f64::NAN, 9.0], &[0.0, inf, 0.0, inf, inf, inf], None);
        assert!((out[0] - 2.0).abs() < 1e-15 && (lse[0] - 2f64.ln()).abs() < 1e-15, "{out:?} {lse:?}");
        assert_eq!((out[1], lse[1]), (0.0, inf));
        let (out, _) = merge(&shape, &[1.0; 6], &[0.0, 0.0, inf, 0.0, inf, inf], Some(&[0.0, f64::INFINITY]));
        assert!((out[0] - 0.5).abs() < 1e-15 && out[1] == 0.0, "{out:?}");
    }
}
