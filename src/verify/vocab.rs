//! Embedding and argmax against their oracles, exactly.

use super::surrounded::{Place, Surrounded, bits, text};
use super::{Case, Evidence, Source, exact};
use crate::device::Device;
use crate::device::abi::{NG_STATUS_BAD_TOKEN, NG_STATUS_NAN_SCORE};
use crate::vocab::{Argmax, Embedding, reference};

/// Gathers `tokens` rows of a table; every fourth id is outside the vocabulary where `bad` says so.
pub fn check_embedding(
    device: &Device,
    [vocabulary, columns, tokens]: [usize; 3],
    place: Place,
    bad: bool,
    seed: u64,
) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let mut source = Source::new(seed);
    let table = Source::to_bf16(&source.normals(vocabulary * columns, 1.0));
    let outside = [-1, vocabulary as i32, i32::MAX, i32::MIN];
    let ids: Vec<i32> = (0..tokens)
        .map(|token| match token % 4 {
            3 if bad => outside[token / 4 % 4],
            _ => source.below(vocabulary) as i32,
        })
        .collect();
    let input = Surrounded::input(device, &[vocabulary, columns], place, &table).map_err(text)?;
    let indices = Surrounded::input(device, &[tokens], Place::default(), &ids).map_err(text)?;
    let out = Surrounded::output(device, &[tokens, columns], place).map_err(text)?;
    let stream = device.stream();
    Embedding::new(input.view(), indices.view(), out.view()).launch(&stream).map_err(text)?;
    let want = reference::embedding(&table, columns, &ids);
    let got = out.finish("embedding", &mut evidence)?;
    evidence.exact("embedding", &bits(&got), &bits(&want))?;
    let status = if bad && tokens > 3 && columns > 0 { NG_STATUS_BAD_TOKEN } else { 0 };
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}

/// What logits are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// Normal numbers.
    Normal,
    /// A few values, so that most rows have ties.
    Ties,
    /// Infinities, signed zeros, and NaN in some rows, nothing else in others.
    Wild,
}

/// Searches rows of logits.
pub fn check_argmax(
    device: &Device,
    [rows, vocabulary]: [usize; 2],
    place: Place,
    logits: Logits,
    seed: u64,
) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let mut source = Source::new(seed);
    let mut draw = |row: usize| match logits {
        Logits::Normal => source.normal(),
        Logits::Ties => source.integer(-3, 3),
        Logits::Wild => match (row % 4, source.below(4)) {
            (0, _) | (1, 0) => f32::NAN,
            (2, _) => f32::NEG_INFINITY,
            (_, 1) => -0.0,
            (_, 2) => 0.0,
            _ => f32::NEG_INFINITY,
        },
    };
    let values: Vec<f32> = (0..rows * vocabulary).map(|index| draw(index / vocabulary)).collect();
    let input = Surrounded::input(device, &[rows, vocabulary], place, &values).map_err(text)?;
    let out = Surrounded::output(device, &[rows], Place::default()).map_err(text)?;
    let stream = device.stream();
    Argmax::new(input.view(), out.view()).launch(&stream).map_err(text)?;
    let want: Vec<_> = values.chunks(vocabulary).map(reference::argmax).collect();
    let got = out.finish("argmax", &mut evidence)?;
    evidence.exact("argmax", &got, &want)?;
    let status = if values.iter().any(|x| x.is_nan()) { NG_STATUS_NAN_SCORE } else { 0 };
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}

fn drawn(device: &Device, seed: u64) -> Result<Evidence, String> {
    let source = &mut Source::new(seed ^ 0x40CA);
    let shape = [1 + source.below(40), source.columns(300), 1 + source.below(12)];
    let mut all = check_embedding(device, shape, Place::draw(source), source.below(2) == 0, seed)?;
    let logits = [Logits::Normal, Logits::Ties, Logits::Wild][source.below(3)];
    let shape = [1 + source.below(8), 2 + source.below(3000)];
    all.add(&check_argmax(device, shape, Place::draw(source), logits, seed)?);
    Ok(all)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    const PLAIN: Place = Place { offset: 0, padding: 0 };
    const ODD: Place = Place { offset: 3, padding: 5 };
    macro_rules! case {
        ($name:literal, $check:ident, $($argument:expr),+) => {
            Case { family: "vocab", name: $name, run: |device, seed| $check(device, $($argument),+, seed) }
        };
    }
    vec![
        case!("embedding of 9 of 64 tokens, 7168 columns", check_embedding, [64, 7168, 9], PLAIN, false),
        case!("embedding of unknown tokens", check_embedding, [10, 512, 17], PLAIN, true),
        case!("embedding of an unaligned table", check_embedding, [10, 100, 6], ODD, false),
        case!("argmax 1x129280", check_argmax, [1, 129_280], PLAIN, Logits::Normal),
        case!("argmax 5x1000 with ties", check_argmax, [5, 1000], ODD, Logits::Ties),
        case!("argmax with NaN and infinities", check_argmax, [8, 300], ODD, Logits::Wild),
        Case { family: "vocab", name: "drawn shapes", run: drawn },
    ]
}
