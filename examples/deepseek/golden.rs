//! Comparison with the outputs of Hugging Face transformers (`tools/golden/golden.py` makes the file).
//!
//! The golden logits are float32 on the exactly dequantised weights. An FP8 engine cannot reach them: rounding the
//! activations to e4m3 alone costs what the file calls `fp8_activations`. The limits are set from those two figures,
//! with room for what the engine rounds besides (bf16 activations, the absorbed kv_b_proj, the tensor core's
//! 13-bit accumulation).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::failure::{Failure, Outcome, fail};

/// How far the median error may pass that of FP8 activations alone.
const ERROR_FACTOR: f64 = 1.6;
/// How far the argmax agreement may fall below that of FP8 activations alone.
const AGREEMENT_SLACK: f64 = 0.065;
/// Standard deviations of the difference of two logits within which another greedy token is a near tie.
const TIE_DEVIATIONS: f64 = 4.0;
/// The same for the error of the prompt's worst rows: rounding sent their tokens to other experts, which moves a row by
/// several times the median. (transformers itself with FP8 activations leaves its own greedy text that way.)
const ROUTED_TIE_DEVIATIONS: f64 = 2.0;

#[derive(Deserialize)]
pub struct Golden {
    pub input_ids: Vec<u32>,
    pub greedy: Vec<u32>,
    argmax: Vec<u32>,
    fp8_activations: Fp8Activations,
    logits: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Fp8Activations {
    #[serde(default = "usual_error")]
    median_error: f64,
    #[serde(default = "usual_agreement")]
    argmax_agreement: f64,
}

/// What FP8 activations cost a random checkpoint of four layers, for golden files that do not say.
fn usual_error() -> f64 {
    0.0564
}

fn usual_agreement() -> f64 {
    0.845
}

#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Median over the prompt's tokens of ‖ours − golden‖ / ‖golden‖.
    pub median_error: f64,
    pub median_error_limit: f64,
    /// Share of the prompt's tokens with the golden argmax.
    pub argmax_agreement: f64,
    pub argmax_agreement_limit: f64,
    /// Leading generated tokens that are the golden ones, and how many were compared.
    pub greedy_same: usize,
    pub greedy_compared: usize,
    /// Every compared token is the golden one, or the first other one is a near tie in our own logits: its lead over
    /// the golden token is within four standard deviations of what the median error does to a difference of two
    /// logits, or two of what the error of the prompt's worst twentieth does. (After another token the two texts are no
    /// longer comparable.)
    pub greedy_follows: bool,
    pub agrees: bool,
}

impl Golden {
    pub fn load(path: &Path, vocab: usize) -> Outcome<Golden> {
        let in_file = |message: String| Failure::new(format!("{}: {message}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| in_file(error.to_string()))?;
        let golden: Golden = serde_json::from_str(&text).map_err(|error| in_file(error.to_string()))?;
        let tokens = golden.input_ids.len();
        if golden.logits.len() != tokens || golden.argmax.len() != tokens {
            return Err(in_file(format!("logits or argmax are not those of {tokens} input_ids")));
        }
        if let Some(row) = golden.logits.iter().find(|row| row.len() != vocab) {
            return Err(in_file(format!("a row of {} logits; the vocabulary has {vocab}", row.len())));
        }
        if golden.greedy.iter().any(|id| *id as usize >= vocab) {
            return Err(in_file("a greedy token outside the vocabulary".into()));
        }
        Ok(golden)
    }

    /// `prompt_logits` are the prompt's, row by row; `step_logits[i]` are those that `generated[i]` was taken from.
    pub fn compare(
        &self,
        prompt_logits: &[f32],
        generated: &[u32],
        step_logits: &[Vec<f32>],
    ) -> Outcome<Comparison> {
        let vocab = self.logits.first().map_or(0, Vec::len);
        if prompt_logits.len() != self.logits.len() * vocab {
            fail!("{} logits; the golden file has {}", prompt_logits.len(), self.logits.len() * vocab);
        }
        let rows = prompt_logits.chunks_exact(vocab);
        let mut errors: Vec<f64> =
            rows.clone().zip(&self.logits).map(|(row, want)| distance(row, want)).collect();
        errors.sort_by(f64::total_cmp);
        let median_error = (errors[(errors.len() - 1) / 2] + errors[errors.len() / 2]) / 2.0;
        let same = rows.zip(&self.argmax).filter(|(row, want)| argmax(row) == **want as usize).count();
        let argmax_agreement = same as f64 / self.argmax.len() as f64;

        let greedy_compared = generated.len().min(self.greedy.len());
        let pairs = generated.iter().zip(&self.greedy);
        let greedy_same = pairs.take_while(|(ours, golden)| ours == golden).count();
        let greedy_follows = greedy_same == greedy_compared || {
            let row = &step_logits[greedy_same];
            let lead = row[generated[greedy_same] as usize] - row[self.greedy[greedy_same] as usize];
            // A twentieth of the rows is worse than this one.
            let worst = errors[(errors.len() * 19).div_ceil(20) - 1];
            let reach = (TIE_DEVIATIONS * median_error).max(ROUTED_TIE_DEVIATIONS * worst);
            f64::from(lead) <= 2f64.sqrt() * reach * rms(row)
        };

        let median_error_limit = ERROR_FACTOR * self.fp8_activations.median_error;
        let argmax_agreement_limit = self.fp8_activations.argmax_agreement - AGREEMENT_SLACK;
        let agrees = median_error <= median_error_limit
            && argmax_agreement >= argmax_agreement_limit
            && greedy_follows
            && errors.iter().all(|error| error.is_finite());
        Ok(Comparison {
            median_error,
            median_error_limit,
            argmax_agreement,
            argmax_agreement_limit,
            greedy_same,
            greedy_compared,
            greedy_follows,
            agrees,
        })
    }
}

fn distance(row: &[f32], want: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = row.iter().zip(want).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let size: f64 = want.iter().map(|b| square(f64::from(*b))).sum();
    let distance = (difference / size).sqrt();
    // A row with a NaN is as far off as can be.
    if distance.is_nan() { f64::INFINITY } else { distance }
}

fn rms(row: &[f32]) -> f64 {
    (row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row.len() as f64).sqrt()
}

/// The lowest index of the largest value.
fn argmax(row: &[f32]) -> usize {
    (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Golden {
        Golden {
            input_ids: vec![1, 2],
            greedy: vec![1, 0],
            argmax: vec![0, 1],
            fp8_activations: Fp8Activations { median_error: 0.05, argmax_agreement: 0.95 },
            logits: vec![vec![2.0, 0.0, 0.0], vec![0.0, 2.0, 1.9]],
        }
    }

    #[test]
    fn the_same_logits_agree() {
        let golden = golden();
        let logits = golden.logits.concat();
        let steps = [golden.logits[1].clone(), golden.logits[0].clone()];
        let comparison = golden.compare(&logits, &[1, 0], &steps).unwrap();
        assert!(comparison.agrees);
        assert_eq!((comparison.median_error, comparison.argmax_agreement), (0.0, 1.0));
        assert_eq!((comparison.greedy_same, comparison.greedy_compared), (2, 2));
    }

    #[test]
    fn other_logits_do_not() {
        let golden = golden();
        let steps = [golden.logits[1].clone()];
        let far: Vec<f32> = golden.logits.concat().iter().map(|x| x * 1.2).collect();
        assert!(!golden.compare(&far, &[1], &steps).unwrap().agrees);
        let mut broken = golden.logits.concat();
        broken.fill(f32::NAN);
        assert!(!golden.compare(&broken, &[1], &steps).unwrap().agrees);
        assert!(golden.compare(&far[1..], &[1], &steps).is_err());
    }

    #[test]
    fn another_token_passes_only_as_a_near_tie() {
        let golden = golden();
        let mut logits = golden.logits.concat();
        logits.iter_mut().for_each(|x| *x *= 1.04);
        let near = golden.compare(&logits, &[2, 0], &[vec![0.0, 2.0, 2.05], vec![2.0, 0.0, 0.0]]).unwrap();
        assert!(near.agrees && near.greedy_same == 0, "{near:?}");
        let far = golden.compare(&logits, &[2, 0], &[vec![0.0, 2.0, 3.5], vec![2.0, 0.0, 0.0]]).unwrap();
        assert!(!far.agrees && !far.greedy_follows, "{far:?}");
    }

    /// Forty rows of which four are off by 0.4: their tokens went to another expert.
    #[test]
    fn rows_of_other_experts_widen_a_near_tie() {
        let logits = vec![vec![3.0, 2.0, 1.0]; 40];
        let golden =
            Golden { input_ids: vec![0; 40], argmax: vec![0; 40], greedy: vec![0], logits, ..golden() };
        let step = [vec![2.2, 3.0, 1.0]];
        let routed = |rows: usize| {
            let factor = |row: usize| if row < rows { 1.4 } else { 1.04 };
            let ours: Vec<f32> = golden
                .logits
                .iter()
                .enumerate()
                .flat_map(|(row, l)| l.iter().map(move |x| x * factor(row)))
                .collect();
            golden.compare(&ours, &[1], &step).unwrap()
        };
        assert!(routed(4).agrees && routed(4).greedy_same == 0);
        assert!(!routed(1).greedy_follows, "one row in forty says nothing");
        let mut broken = golden.logits.concat();
        broken[5] = f32::NAN;
        assert!(!golden.compare(&broken, &[0], &step).unwrap().agrees);
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    }
}
