//! Inputs whose answers are exact.

use super::super::Source;
use super::AttentionInputs;
use crate::dtype::bf16;

/// Equal scores (queries of zero) over small integers: every visible token weighs the same, so one token too many
/// or too few shows, and sums are exact. Returns the inputs and the exact output.
pub fn uniform_attention(
    source: &mut Source,
    lengths: &[usize],
    tokens: usize,
    heads: usize,
) -> (AttentionInputs, Vec<bf16>) {
    let inputs = AttentionInputs::new(source, lengths, tokens, heads, |source, place, _| match place {
        Some(_) => source.integer(-8, 8),
        None => 0.0,
    });
    let mut want = Vec::new();
    for b in 0..lengths.len() {
        for token in 0..tokens {
            let keys = inputs.shape.keys(&inputs.table, &inputs.lengths, b, token);
            let inverse = if keys.is_empty() { 0.0 } else { (keys.len() as f32).recip() };
            let sums = (0..512).map(|d| {
                let sum = keys.iter().fold(0.0, |sum, key| sum + inputs.cache[key * 576 + d].to_f32());
                bf16::from_f32(sum * inverse)
            });
            let sums: Vec<bf16> = sums.collect();
            for _ in 0..heads {
                want.extend_from_slice(&sums);
            }
        }
    }
    (inputs, want)
}

/// Each query row selects one token: the rotary columns hold the token's number in binary as ±1, and the query asks
/// for one so strongly that every other weight is zero. Returns the inputs and the exact output.
pub fn one_hot_attention(
    source: &mut Source,
    lengths: &[usize],
    tokens: usize,
    heads: usize,
) -> (AttentionInputs, Vec<bf16>) {
    let sign = |number: usize, bit: usize| if number >> (bit % 16) & 1 == 1 { 1.0 } else { -1.0 };
    let mut inputs =
        AttentionInputs::new(source, lengths, tokens, heads, |source, place, column| match (place, column) {
            (Some(place), 512..) => sign(place, column - 512),
            (Some(_), _) => source.normal(),
            (None, _) => 0.0,
        });
    inputs.shape.scale = 1.0;
    let mut want = vec![bf16::ZERO; lengths.len() * tokens * heads * 512];
    for b in 0..lengths.len() {
        for token in 0..tokens {
            let keys = inputs.shape.keys(&inputs.table, &inputs.lengths, b, token);
            for head in 0..heads {
                if keys.is_empty() {
                    continue;
                }
                let at = (b * tokens + token) * heads + head;
                // Every page is there, so keys are numbered as tokens are.
                let place = source.below(keys.len());
                for column in 512..576 {
                    inputs.query[at * 576 + column] = bf16::from_f32(64.0 * sign(place, column - 512));
                }
                want[at * 512..][..512].copy_from_slice(&inputs.cache[keys[place] * 576..][..512]);
            }
        }
    }
    (inputs, want)
}
