//! The merge of partial attentions against its oracle.

use crate::device::Device;
use crate::mla::reference::merge::{Parts, merge};
use crate::mla::{Float, Merge};
use crate::verify::gemm::Checked;
use crate::verify::rounding::{self, F32 as U};
use crate::verify::surrounded::{Place, Surrounded, text};
use crate::verify::{Evidence, Source};

/// One merge.
#[derive(Debug, Clone, Copy)]
pub struct MergeCheck {
    /// Extents.
    pub shape: Parts,
    /// Whether sinks share in the softmax.
    pub sinks: bool,
    /// Whether all logarithms are equal and values are small integers. With a power of two of parts the answer is exact.
    pub exact: bool,
    /// How values lie.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

impl MergeCheck {
    /// Values, logarithms and sinks. One part in four has no key; its values are poison. The first row has no part at all.
    fn inputs<P: Checked>(&self) -> (Vec<P>, Vec<f32>, Vec<f32>) {
        let Parts { parts, tokens, heads, columns } = self.shape;
        let source = &mut Source::new(self.seed);
        let mut lse = source.uniforms(parts * heads * tokens, -3.0, 12.0);
        let mut partial = Vec::with_capacity(parts * tokens * heads * columns);
        for part in 0..parts {
            for token in 0..tokens {
                for head in 0..heads {
                    let logarithm = &mut lse[(part * heads + head) * tokens + token];
                    if self.exact {
                        *logarithm = 2.5;
                    } else if source.below(4) == 0 || (tokens > 1 && token + head == 0) {
                        *logarithm = f32::NEG_INFINITY;
                    }
                    let value = |source: &mut Source| match self.exact {
                        true => P::nearest(source.integer(-8, 8).into()),
                        false if *logarithm == f32::NEG_INFINITY => P::POISON,
                        false => P::nearest(source.normal().into()),
                    };
                    partial.extend((0..columns).map(|_| value(source)));
                }
            }
        }
        let mut sinks = source.uniforms(heads, -2.0, 14.0);
        for (sink, special) in sinks.iter_mut().skip(1).step_by(3).zip([f32::INFINITY, f32::NEG_INFINITY]) {
            *sink = special;
        }
        (partial, lse, sinks)
    }

    /// Runs the kernel and compares all of its answers with the oracle.
    pub fn check<P: Checked + Float, O: Checked + Float>(&self, device: &Device) -> Result<Evidence, String> {
        let Parts { parts, tokens, heads, columns } = self.shape;
        let (values, logarithms, sink_values) = self.inputs::<P>();
        let partial =
            Surrounded::input(device, &[parts, tokens, heads, columns], self.place, &values).map_err(text)?;
        let partial_lse =
            Surrounded::input(device, &[parts, heads, tokens], Place { offset: 1, padding: 1 }, &logarithms)
                .map_err(text)?;
        let sinks = Surrounded::input(device, &[heads], Place::default(), &sink_values).map_err(text)?;
        let out = Surrounded::<O>::output(device, &[tokens, heads, columns], self.place).map_err(text)?;
        let lse = Surrounded::<f32>::output(device, &[heads, tokens], Place { offset: 1, padding: 1 })
            .map_err(text)?;
        let mut operation = Merge::new(partial.view(), partial_lse.view(), out.view()).lse(lse.view());
        if self.sinks {
            operation = operation.sinks(sinks.view());
        }
        operation.launch(&device.stream()).map_err(text)?;

        let mut evidence = Evidence::default();
        let (out, lse) = (out.finish("out", &mut evidence)?, lse.finish("lse", &mut evidence)?);
        let wide: Vec<f64> = values.iter().map(|value| value.widen().into()).collect();
        let widened = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let (logarithms, sink_values) = (widened(&logarithms), widened(&sink_values));
        let sinks = self.sinks.then_some(&sink_values[..]);
        let (want, want_lse) = merge(&self.shape, &wide, &logarithms, sinks);
        if self.exact {
            let of_part = tokens * heads * columns;
            let mean = |at: usize| wide.iter().skip(at).step_by(of_part).sum::<f64>() / parts as f64;
            let want: Vec<O> = (0..of_part).map(|at| O::nearest(mean(at))).collect();
            evidence.exact("out", &out, &want)?;
        }
        let (bound, lse_bound) = self.bounds::<O>(&wide, &logarithms, sinks, &want_lse);
        let got: Vec<f32> = out.iter().map(|value| value.widen()).collect();
        evidence.within_rounded("out", &got, &want, &bound)?;
        evidence.within("lse", &lse, &want_lse, &lse_bound)?;
        Ok(evidence)
    }

    /// The largest errors of the kernel's arithmetic.
    ///
    /// - A weight is `2^((lse - maximum) · log2 e)`: three roundings of the argument (the constant's among them), and 2⁻²² of
    ///   `ex2.approx`. Below the smallest normal f32 it is zero.
    /// - Sums of weights and of products add one rounding a part; the reciprocal, the product with it and the sink's share a
    ///   few more, and the output's type one.
    /// - The logarithm is off by the sum's error, 2⁻²² of `lg2.approx` (absolute near 1), and three roundings.
    /// - A sink's share `1 / (1 + x)` is off by what x is, and by its own three roundings.
    fn bounds<O: Checked>(
        &self,
        partial: &[f64],
        lse: &[f64],
        sinks: Option<&[f64]>,
        total: &[f64],
    ) -> (Vec<f64>, Vec<f64>) {
        let weight_error = |difference: f64| 3.0 * U * difference.abs() + 4.0 * U;
        let Parts { parts, tokens, heads, columns } = self.shape;
        let (unit, least) = rounding::of::<O>();
        let mut bound = vec![0.0; tokens * heads * columns];
        let mut lse_bound = vec![0.0; heads * tokens];
        for token in 0..tokens {
            for head in 0..heads {
                let total = total[head * tokens + token];
                if total == f64::NEG_INFINITY {
                    continue;
                }
                let of_part = |part: usize| lse[(part * heads + head) * tokens + token];
                let counted = || (0..parts).filter(|&part| of_part(part) != f64::NEG_INFINITY);
                let maximum = counted().map(of_part).fold(f64::NEG_INFINITY, f64::max);
                let share = |part| (of_part(part) - total).exp();
                let mean_error: f64 =
                    counted().map(|part| share(part) * weight_error(of_part(part) - maximum)).sum();
                let steps = (2 * parts + 8) as f64 * U;
                let logarithm_error = mean_error
                    + steps
                    + 8.0 * U * (1.0 + (total - maximum))
                    + 4.0 * U * (maximum.abs() + total.abs());
                lse_bound[head * tokens + token] = 1.01 * logarithm_error;
                let (sink_share, sink_error) = match sinks.map(|sinks| sinks[head] - total) {
                    None => (1.0, 0.0),
                    Some(difference) if difference.is_finite() => {
                        (1.0 / (1.0 + difference.exp()), weight_error(difference) + logarithm_error + 4.0 * U)
                    }
                    Some(difference) => (if difference > 0.0 { 0.0 } else { 1.0 }, 0.0),
                };
                for column in 0..columns {
                    let at = (token * heads + head) * columns + column;
                    let value =
                        |part: usize| partial[((part * tokens + token) * heads + head) * columns + column];
                    let (mut mean, mut error) = (0.0, 0.0);
                    for part in counted() {
                        let magnitude = share(part) * value(part).abs();
                        mean += share(part) * value(part);
                        let relative =
                            weight_error(of_part(part) - maximum) + mean_error + steps + sink_error;
                        error += magnitude * relative + f64::from(f32::MIN_POSITIVE) * value(part).abs();
                    }
                    let error = 1.01 * error * sink_share.max(f64::from(f32::MIN_POSITIVE));
                    bound[at] = error + unit * (f64::abs(mean) * sink_share + error) + least;
                }
            }
        }
        (bound, lse_bound)
    }
}
