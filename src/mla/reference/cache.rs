//! What the bytes of a latent cache mean, and which bytes a token should become.

use super::super::CacheLayout;
use crate::dtype::{E4m3, bf16, f16};

/// Columns of a token, and those that are latent.
const COLUMNS: usize = 576;
const LATENT: usize = 512;

/// Every token's 576 values, exactly: what attention over these bytes computes with. `bytes` are whole tokens of a layout.
pub fn decoded(layout: CacheLayout, bytes: &[u8]) -> Vec<f64> {
    let pair = |two: &[u8]| u16::from_le_bytes([two[0], two[1]]);
    let code = |byte: &u8| f64::from(E4m3::from_bits(*byte).to_f32());
    match layout {
        CacheLayout::Bf16 => bytes.chunks_exact(2).map(|two| bf16::from_bits(pair(two)).to_f64()).collect(),
        CacheLayout::F16 => bytes.chunks_exact(2).map(|two| f16::from_bits(pair(two)).to_f64()).collect(),
        CacheLayout::Fp8Flat { scale } => bytes.iter().map(|byte| code(byte) * f64::from(scale)).collect(),
        CacheLayout::Fp8Blocks => {
            let mut values = Vec::with_capacity(bytes.len() / 656 * COLUMNS);
            for token in bytes.chunks_exact(656) {
                for block in 0..4 {
                    let scale = &token[LATENT + 4 * block..][..4];
                    let scale = f64::from(f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]));
                    values.extend(token[128 * block..][..128].iter().map(|byte| code(byte) * scale));
                }
                values.extend(token[528..].chunks_exact(2).map(|two| bf16::from_bits(pair(two)).to_f64()));
            }
            values
        }
    }
}

/// The scale of 128 values: the power of two at or above their largest finite magnitude / 448, and above 10⁻⁴, as DeepSeek's
/// quantiser of V3.2 caches has it.
pub fn block_scale(values: &[f32]) -> f32 {
    let largest =
        values.iter().filter(|value| value.is_finite()).fold(0.0, |a: f64, b| a.max(f64::from(b.abs())));
    let mut scale = 2f64.powi(-13);
    while scale * 448.0 < largest {
        scale *= 2.0;
    }
    scale as f32
}

/// The bytes of tokens of 576 values each. Rounds to nearest even; FP8 saturates at 448 scales, and what is not finite
/// becomes NaN in it.
pub fn encoded(layout: CacheLayout, values: &[f32]) -> Vec<u8> {
    let code = |value: &f32, scale: f32| {
        E4m3::from_f32(if value.is_finite() { value / scale } else { f32::NAN }).to_bits()
    };
    let brain = |value: &f32| bf16::from_f32(*value).to_le_bytes();
    match layout {
        CacheLayout::Bf16 => values.iter().flat_map(brain).collect(),
        CacheLayout::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        CacheLayout::Fp8Flat { scale } => values.iter().map(|value| code(value, scale)).collect(),
        CacheLayout::Fp8Blocks => {
            let mut bytes = Vec::with_capacity(values.len() / COLUMNS * 656);
            for token in values.chunks_exact(COLUMNS) {
                let scales: Vec<f32> = token[..LATENT].chunks_exact(128).map(block_scale).collect();
                let latent = token[..LATENT].iter().enumerate();
                bytes.extend(latent.map(|(column, value)| code(value, scales[column / 128])));
                bytes.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
                bytes.extend(token[LATENT..].iter().flat_map(brain));
            }
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_layout_can_hold_comes_back() {
        let values: Vec<f32> = (0..2 * COLUMNS as i32).map(|i| (i % 15 - 7) as f32 * 0.25).collect();
        for layout in
            [CacheLayout::Bf16, CacheLayout::F16, CacheLayout::Fp8Blocks, CacheLayout::Fp8Flat { scale: 0.5 }]
        {
            let bytes = encoded(layout, &values);
            assert_eq!(bytes.len(), 2 * layout.token_bytes());
            let back: Vec<f32> = decoded(layout, &bytes).iter().map(|value| *value as f32).collect();
            assert_eq!(back, values, "{layout}");
        }
    }

    #[test]
    fn scales_are_powers_of_two_that_hold_the_largest_value() {
        assert_eq!(block_scale(&[0.0, f32::NAN]), 2f32.powi(-13));
        assert_eq!(block_scale(&[448.0, f32::INFINITY, -3.0]), 1.0);
        assert_eq!(block_scale(&[448.5]), 2.0);
        assert_eq!(block_scale(&[-896.0]), 2.0);
        let mut token = vec![1e30f32; COLUMNS];
        token[5] = f32::NEG_INFINITY;
        let bytes = encoded(CacheLayout::Fp8Blocks, &token);
        assert_eq!(
            (bytes[5] & 0x7F, bytes[6] & 0x7F),
            (0x7F, E4m3::from_f32(1e30 / 2f32.powi(91)).to_bits())
        );
        let wide = encoded(CacheLayout::Fp8Flat { scale: 1.0 }, &[-1e30; COLUMNS]);
        assert!(wide.iter().all(|code| *code == E4m3::MIN.to_bits()));
    }
}
