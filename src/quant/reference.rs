//! The oracle of quantisation: the documented formula, one element at a time.

use std::sync::LazyLock;

/// The group size of the formula.
const GROUP: usize = 128;

/// What quantisation of a matrix answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// e4m3 codes, row-major.
    pub codes: Vec<u8>,
    /// One scale for each row and 128 columns, row-major.
    pub scales: Vec<f32>,
}

/// The value of an e4m3 code, from its bits' meaning.
pub fn decode_e4m3(code: u8) -> f64 {
    let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
    let (exponent, fraction) = ((code >> 3) & 15, f64::from(code & 7));
    match (exponent, code & 7) {
        (15, 7) => f64::NAN,
        (0, _) => sign * fraction / 8.0 * 2f64.powi(-6),
        _ => sign * (1.0 + fraction / 8.0) * 2f64.powi(i32::from(exponent) - 7),
    }
}

/// The code nearest to a value: ties go to the even code, magnitudes beyond 448 to 448, NaN to 0x7F.
pub fn encode_e4m3(value: f64) -> u8 {
    if value.is_nan() {
        return 0x7F;
    }
    static MAGNITUDES: LazyLock<Vec<f64>> = LazyLock::new(|| (0..=0x7E).map(decode_e4m3).collect());
    let magnitude = value.abs();
    let above = MAGNITUDES.partition_point(|code| *code < magnitude).min(0x7E) as u8;
    let below = above.saturating_sub(1);
    let (up, down) = (decode_e4m3(above) - magnitude, magnitude - decode_e4m3(below));
    let nearest = if up < down || (up == down && above.is_multiple_of(2)) { above } else { below };
    nearest | if value.is_sign_negative() { 0x80 } else { 0 }
}

/// The scale of one group.
pub fn scale(group: &[f64], power_of_two: bool) -> f32 {
    let amax = group.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(f64::from(1e-4f32), f64::max);
    // Both divisions of this page are f32 divisions: in f64 first, the second rounding changes nothing.
    let scale = (amax / 448.0) as f32;
    if power_of_two { f64::from(scale).log2().ceil().exp2() as f32 } else { scale }
}

/// Quantises a row-major matrix.
pub fn quantize(x: &[f64], columns: usize, power_of_two: bool) -> Quantized {
    let mut answer = Quantized { codes: Vec::new(), scales: Vec::new() };
    for group in x.chunks(columns.max(1)).flat_map(|row| row.chunks(GROUP)) {
        let scale = scale(group, power_of_two);
        let inverse = (1.0 / f64::from(scale)) as f32;
        answer.scales.push(scale);
        answer.codes.extend(group.iter().map(|x| {
            let scaled = if x.is_finite() { f64::from((x * f64::from(inverse)) as f32) } else { f64::NAN };
            encode_e4m3(scaled)
        }));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_a_round_trip() {
        for code in 0..=255u8 {
            let value = decode_e4m3(code);
            if !value.is_nan() {
                assert_eq!(encode_e4m3(value), code);
            }
        }
        assert_eq!(decode_e4m3(0x7E), 448.0);
        assert_eq!(encode_e4m3(1e9), 0x7E);
        // Halfway between 8 and 9, and between 9 and 10.
        assert_eq!((encode_e4m3(8.5), encode_e4m3(9.5)), (encode_e4m3(8.0), encode_e4m3(10.0)));
    }

    #[test]
    fn scales_of_the_published_formula() {
        assert_eq!(scale(&[0.0; 4], false), 1e-4 / 448.0);
        assert_eq!(scale(&[-448.0, 3.0], false), 1.0);
        assert_eq!(scale(&[-449.0, f64::NAN, f64::INFINITY], true), 2.0);
        assert_eq!(scale(&[448.0 * 0.25], true), 0.25);
    }
}
