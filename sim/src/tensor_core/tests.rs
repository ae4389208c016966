use super::*;
use crate::numeric::{bf16_to_f32, e4m3_to_f32, e5m2_to_f32, f16_to_f32};

/// xorshift, enough for bit patterns.
struct Source(u64);

impl Source {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
}

fn value(format: Format, code: u16) -> f32 {
    match format {
        Format::E4m3 => e4m3_to_f32(code as u8),
        Format::E5m2 => e5m2_to_f32(code as u8),
        Format::Bf16 => bf16_to_f32(code),
        Format::F16 => f16_to_f32(code),
    }
}

/// Significand in [1, 2) (less where subnormal) and exponent; zero counts as exponent -126.
fn parts(x: f64, least: i32) -> (f64, i32) {
    if x == 0.0 {
        return (0.0, -126);
    }
    let exponent = ((x.to_bits() >> 52 & 2047) as i32 - 1023).max(least);
    (x / 2f64.powi(exponent), exponent)
}

/// The published model, term by term in double precision.
fn literal(c: f32, a: &[f32], b: &[f32], formats: (Format, Format), bits: i32) -> f32 {
    let plain: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() + f64::from(c);
    if plain.is_nan() {
        return f32::from_bits(0x7fff_ffff);
    }
    if plain.is_infinite() {
        return plain as f32;
    }
    let mut terms = vec![parts(f64::from(c), -126)];
    for (a, b) in a.iter().zip(b) {
        let (sa, ea) = parts(f64::from(*a), formats.0.least_exponent());
        let (sb, eb) = parts(f64::from(*b), formats.1.least_exponent());
        terms.push(if sa * sb == 0.0 { (0.0, -126) } else { (sa * sb, ea + eb) });
    }
    let largest = terms.iter().map(|term| term.1).max().unwrap();
    let sum: i128 = terms
        .iter()
        .map(|(s, e)| (s * 2f64.powi(bits) * 2f64.powi((e - largest).max(-900))).trunc() as i128)
        .sum();
    let (s, e) = parts(sum as f64 * 2f64.powi(largest - bits), -126);
    let kept = if bits == 13 { 13 } else { 23 };
    ((s * 2f64.powi(kept)).trunc() * 2f64.powi(-kept) * 2f64.powi(e)) as f32
}

#[derive(Clone, Copy)]
enum Draw {
    /// Any bit pattern but NaN and infinity.
    Any,
    /// Every pattern.
    Wild,
    /// Mostly zero.
    Sparse,
    /// Close to one.
    Near,
}

fn code(source: &mut Source, format: Format, draw: Draw) -> u16 {
    loop {
        let code = (source.next() >> 40) as u16 & if format.bytes() == 1 { 0xff } else { 0xffff };
        let code = match draw {
            Draw::Sparse if source.below(8) != 0 => code & 0x80,
            Draw::Near => match format {
                Format::E4m3 => code & 0x87 | 0x38,
                Format::E5m2 => code & 0x83 | 0x3c,
                Format::Bf16 => code & 0x81ff | 0x3e00,
                Format::F16 => code & 0x87ff | 0x3800,
            },
            _ => code,
        };
        if matches!(draw, Draw::Wild) || value(format, code).is_finite() {
            return code;
        }
    }
}

fn accumulator(source: &mut Source, kind: u64) -> f32 {
    let bits = source.next() as u32;
    match kind {
        0 => 0.0,
        1 => loop {
            let c = f32::from_bits(source.next() as u32);
            if c.is_finite() {
                break c;
            }
        },
        2 => f32::from_bits(bits & 0x83ff_ffff | 0x3e00_0000),
        3 => f32::from_bits(bits & 0x807f_ffff),
        4 => f32::from_bits(bits & 0x80ff_ffff | 0x7e80_0000),
        _ => f32::from_bits(bits),
    }
}

/// The fragment position of (row, column).
fn position(row: usize, column: usize) -> (usize, usize, usize) {
    let register = column / 8 * 4 + row / 8 % 2 * 2 + column % 2;
    (row / 16, register, row % 8 * 4 + column % 8 / 2)
}

/// Miri takes seconds for a row.
fn compares(row: usize) -> bool {
    !cfg!(miri) || row.is_multiple_of(32)
}

fn compare(
    formats: (Format, Format),
    columns: usize,
    draw: Draw,
    seed: u64,
    arithmetic: Arithmetic,
    negate: bool,
) {
    let mut source = Source(seed);
    let depth = formats.0.depth();
    let a: Vec<u16> = (0..64 * depth).map(|_| code(&mut source, formats.0, draw)).collect();
    // [n][k]
    let b: Vec<u16> = (0..columns * depth).map(|_| code(&mut source, formats.1, draw)).collect();
    let mut placed = vec![0u16; b.len()];
    for column in 0..columns {
        let (start, step) = Right::place(column, columns, depth);
        for k in 0..depth {
            placed[start + k * step] = b[column * depth + k];
        }
    }
    let bytes = |codes: &[u16]| codes.iter().map(|code| *code as u8).collect::<Vec<_>>();
    let (left, right) = if depth == 32 {
        (
            Left::from_bytes(&bytes(&a), formats.0, negate),
            Right::from_bytes(&bytes(&placed), formats.1, false),
        )
    } else {
        (Left::from_words(&a, formats.0, negate), Right::from_words(&placed, formats.1, false))
    };
    let mut fragments = vec![vec![[0u32; 32]; columns / 2]; 4];
    let mut expected = fragments.clone();
    for row in 0..64 {
        for column in 0..columns {
            let kind = source.below(if matches!(draw, Draw::Wild) { 6 } else { 5 });
            let c = accumulator(&mut source, kind);
            let (warp, register, lane) = position(row, column);
            fragments[warp][register][lane] = c.to_bits();
            if !compares(row) {
                continue;
            }
            let sign = if negate { -1.0 } else { 1.0 };
            let x: Vec<f32> = (0..depth).map(|k| sign * value(formats.0, a[row * depth + k])).collect();
            let y: Vec<f32> = (0..depth).map(|k| value(formats.1, b[column * depth + k])).collect();
            let want = match arithmetic {
                Arithmetic::Truncated13 => literal(c, &x, &y, formats, 13),
                Arithmetic::Truncated24 => literal(c, &x, &y, formats, 24),
                Arithmetic::Truncated25 => literal(c, &x, &y, formats, 25),
                Arithmetic::ExactF32 => x.iter().zip(&y).fold(c, |sum, (x, y)| x.mul_add(*y, sum)),
            };
            let scalar = fused_sum(c, &x, formats.0, &y, formats.1, arithmetic);
            assert!(scalar.to_bits() == want.to_bits() || scalar.is_nan() && want.is_nan());
            expected[warp][register][lane] = want.to_bits();
        }
    }
    let mut baseline = fragments.clone();
    multiply_accumulate(&left, &right, &mut slices(&mut fragments), true, arithmetic);
    kernel::run_baseline(&left, &right, &mut slices(&mut baseline), arithmetic);
    for row in (0..64).filter(|&row| compares(row)) {
        for column in 0..columns {
            let (warp, register, lane) = position(row, column);
            let want = expected[warp][register][lane];
            for got in [fragments[warp][register][lane], baseline[warp][register][lane]] {
                let same = got == want || f32::from_bits(got).is_nan() && f32::from_bits(want).is_nan();
                assert!(same, "{formats:?} ({row}, {column}): {got:#x}, not {want:#x}");
            }
        }
    }
}

fn slices(fragments: &mut [Vec<Row>]) -> Vec<&mut [Row]> {
    fragments.iter_mut().map(|fragment| fragment.as_mut_slice()).collect()
}

const FP8: [(Format, Format); 4] = [
    (Format::E4m3, Format::E4m3),
    (Format::E4m3, Format::E5m2),
    (Format::E5m2, Format::E4m3),
    (Format::E5m2, Format::E5m2),
];
const HALVES: [(Format, Format); 2] = [(Format::Bf16, Format::Bf16), (Format::F16, Format::F16)];

#[test]
fn fp8_matches_the_published_model() {
    for formats in FP8 {
        for (seed, draw) in [Draw::Any, Draw::Near, Draw::Sparse, Draw::Wild].into_iter().enumerate() {
            for columns in [8, 40, 64] {
                compare(formats, columns, draw, 11 + seed as u64, Arithmetic::Truncated13, seed == 1);
            }
        }
    }
}

#[test]
fn sixteen_bit_formats_match_the_published_model() {
    for formats in HALVES {
        for (seed, draw) in [Draw::Any, Draw::Near, Draw::Sparse, Draw::Wild].into_iter().enumerate() {
            for columns in [16, 32, 56] {
                compare(formats, columns, draw, 31 + seed as u64, Arithmetic::Truncated25, seed == 1);
            }
        }
    }
}

#[test]
fn older_cards_keep_24_bits() {
    compare(HALVES[0], 16, Draw::Any, 41, Arithmetic::Truncated24, false);
    compare(HALVES[1], 8, Draw::Near, 42, Arithmetic::Truncated24, true);
}

#[test]
fn fp8_with_25_bits_is_what_mma_sync_does() {
    compare(FP8[0], 8, Draw::Any, 5, Arithmetic::Truncated25, false);
    compare(FP8[3], 8, Draw::Near, 6, Arithmetic::Truncated25, false);
}

/// Eight columns: what Miri has the time for.
#[test]
fn narrow_products_match_the_published_model() {
    compare(FP8[0], 8, Draw::Near, 3, Arithmetic::Truncated13, true);
    compare(HALVES[0], 8, Draw::Near, 5, Arithmetic::Truncated25, false);
}

#[test]
fn exact_mode_is_a_chain_of_fused_additions() {
    for formats in FP8 {
        compare(formats, 40, Draw::Near, 7, Arithmetic::ExactF32, true);
    }
}

/// bf16 probabilities under 2^-90 beside nothing else: the loop must notice that its scale would not do.
#[test]
fn tiny_products_are_not_lost() {
    let formats = HALVES[0];
    let a = [bf16_to_f32(0x0f80); 16];
    let b = [bf16_to_f32(0x3f80); 16];
    assert_eq!(fused_sum(0.0, &a, formats.0, &b, formats.1, Arithmetic::Truncated25), 16.0 * a[0]);
    let left = Left::from_words(&[0x0f80; 64 * 16], formats.0, false);
    let right = Right::from_words(&[0x3f80; 8 * 16], formats.1, false);
    let mut fragments = vec![vec![[7u32; 32]; 4]; 4];
    multiply_accumulate(&left, &right, &mut slices(&mut fragments), false, Arithmetic::Truncated25);
    assert!(fragments.iter().flatten().flatten().all(|bits| f32::from_bits(*bits) == 16.0 * a[0]));
}

/// The loss that makes kernels promote every 128: 1 + 31·2^-14 keeps nothing of the small terms.
#[test]
fn thirteen_bits_lose_small_terms() {
    let mut a = [1.0; 32];
    let mut b = [2f32.powi(-6); 32];
    a[1..].fill(2f32.powi(-6));
    (a[0], b[0]) = (1.0, 1.0);
    b[1..].fill(2f32.powi(-8));
    let e5m2 = Format::E5m2;
    assert_eq!(fused_sum(0.0, &a, e5m2, &b, e5m2, Arithmetic::Truncated13), 1.0);
    assert_eq!(fused_sum(0.0, &a, e5m2, &b, e5m2, Arithmetic::Truncated25), 1.0 + 31.0 * 2f32.powi(-14));
}
