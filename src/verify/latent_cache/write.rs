//! New tokens against their oracle.

use super::super::rope::{draw_positions, known, parameters, rotation};
use super::super::surrounded::{Place, Surrounded, text};
use super::super::{Case, Evidence, Source, exact};
use super::{COLUMNS, LATENT, LAYOUTS, draw_values, fill};
use crate::device::Device;
use crate::device::abi::{NG_STATUS_BAD_POSITION, NG_STATUS_BAD_SLOT};
use crate::dtype::{E4m3, bf16, f16, nearest_bf16};
use crate::mla::{CacheLayout, CacheWrite, Half, LatentCache, RopeTables, reference};
use crate::verify::gemm::Checked;

/// Rotary columns.
const ROPE: usize = COLUMNS - LATENT;

/// One write into the cache.
#[derive(Debug, Clone, Copy)]
pub struct CacheProblem {
    /// T.
    pub tokens: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// How the cache lies.
    pub layout: CacheLayout,
    /// Whether the new tokens are f16 instead of bf16.
    pub f16: bool,
    /// Whether some positions and slots do not exist.
    pub bad: bool,
    /// How latent rows and keys lie.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// Runs one write into a cache of poison: written tokens are right, and all others still poison.
pub fn check_cache_write(device: &Device, problem: &CacheProblem) -> Result<Evidence, String> {
    if problem.f16 { check::<f16>(device, problem) } else { check::<bf16>(device, problem) }
}

fn check<T: Checked + Half>(device: &Device, problem: &CacheProblem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let CacheProblem { tokens, pages, page_tokens, layout, bad, place, seed, .. } = *problem;
    let mut source = Source::new(seed);
    let parameters = parameters(true);
    let tables = RopeTables::new(device, &parameters).map_err(text)?;
    let latent: Vec<T> =
        draw_values(tokens * LATENT, &mut source).into_iter().map(|value| T::nearest(value.into())).collect();
    let key: Vec<T> =
        source.normals(tokens * ROPE, 1.0).into_iter().map(|value| T::nearest(value.into())).collect();
    let positions = draw_positions(tokens, bad, &mut source);
    let rows = pages * page_tokens;
    let order = source.permutation(rows);
    let outside = [-1, rows as i32, i32::MAX, i32::MIN, -2];
    let slots: Vec<i32> = (0..tokens)
        .map(|token| match token % 5 {
            2 if bad => outside[token / 5 % 5],
            4 => -1,
            _ => order.get(token).map_or(-1, |slot| *slot as i32),
        })
        .collect();
    let latents = Surrounded::input(device, &[tokens, LATENT], place, &latent).map_err(text)?;
    let keys = Surrounded::input(device, &[tokens, ROPE], place, &key).map_err(text)?;
    let places = Surrounded::input(device, &[tokens], Place::default(), &positions).map_err(text)?;
    let targets = Surrounded::input(device, &[tokens], Place::default(), &slots).map_err(text)?;
    // Between other bytes, which stay.
    let (bytes, margin) = (rows * layout.token_bytes(), 64);
    let whole = device.empty::<u8>(&[margin + bytes + margin]).map_err(text)?;
    fill(&whole)?;
    let shape = [pages, page_tokens, layout.token_bytes()];
    let strides = [page_tokens * layout.token_bytes(), layout.token_bytes(), 1];
    let memory = whole.as_strided(margin, &shape, &strides).map_err(text)?;
    let cache = LatentCache::over(memory, layout).map_err(text)?;
    let stream = device.stream();
    CacheWrite::new(latents.view(), keys.view(), places.view(), targets.view(), &tables, &cache)
        .launch(&stream)
        .map_err(text)?;

    let mut got = whole.to_vec().map_err(text)?;
    evidence.digest(got.iter().map(|byte| u32::from(*byte)));
    let mut status = 0;
    for token in 0..tokens {
        let (slot, position) = (slots[token], positions[token]);
        if slot == -1 {
            continue;
        }
        let exists = (0..rows as i32).contains(&slot);
        status |= if exists { 0 } else { NG_STATUS_BAD_SLOT };
        status |= if known(position) { 0 } else { NG_STATUS_BAD_POSITION };
        if !exists || !known(position) {
            continue;
        }
        let written = &mut got[margin + slot as usize * layout.token_bytes()..][..layout.token_bytes()];
        let mut values: Vec<f32> = latent[token * LATENT..][..LATENT].iter().map(|x| x.widen()).collect();
        values.resize(COLUMNS, 0.0);
        let want = reference::cache::encoded(layout, &values);
        let rotary = written.len() - if layout.token_bytes() == COLUMNS { ROPE } else { 2 * ROPE };
        evidence.exact(
            &format!("latent bytes of token {token}"),
            &canonical(layout, &written[..rotary]),
            &canonical(layout, &want[..rotary]),
        )?;
        let key: Vec<f64> = key[token * ROPE..][..ROPE].iter().map(|x| f64::from(x.widen())).collect();
        let (want, error) = rotation(&key, position, &parameters);
        rotated(&mut evidence, token, layout, &written[rotary..], &want, &error)?;
        written.fill(0xFD);
    }
    evidence.canaries += got.iter().filter(|byte| **byte == 0xFD).count() as u64;
    exact("other bytes", &got, &vec![0xFD; got.len()])?;
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}

/// Bytes in which every NaN is the same: which one a conversion makes is the converter's.
fn canonical(layout: CacheLayout, bytes: &[u8]) -> Vec<u8> {
    match layout {
        CacheLayout::Bf16 | CacheLayout::F16 => bytes
            .chunks_exact(2)
            .flat_map(|pair| {
                let bits = u16::from_le_bytes([pair[0], pair[1]]);
                let infinity = if layout == CacheLayout::F16 { 0x7C00 } else { 0x7F80 };
                if bits & 0x7FFF > infinity { [0xFF; 2] } else { bits.to_le_bytes() }
            })
            .collect(),
        _ => bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| if at < LATENT && byte & 0x7F == 0x7F { 0x7F } else { *byte })
            .collect(),
    }
}

/// Rotated columns lie between what the ends of the allowed interval are rounded to.
fn rotated(
    evidence: &mut Evidence,
    token: usize,
    layout: CacheLayout,
    bytes: &[u8],
    want: &[f64],
    error: &[f64],
) -> Result<(), String> {
    let pair = |two: &[u8]| u16::from_le_bytes([two[0], two[1]]);
    let (got, round): (Vec<f32>, &dyn Fn(f64) -> f64) = match layout {
        CacheLayout::Fp8Flat { scale } => {
            let code = move |value: f64| E4m3::from_f32(nearest_bf16(value).to_f32() / scale).to_f32();
            (bytes.iter().map(|byte| E4m3::from_bits(*byte).to_f32()).collect(), &move |v| f64::from(code(v)))
        }
        CacheLayout::F16 => {
            (bytes.chunks_exact(2).map(|two| f16::from_bits(pair(two)).to_f32()).collect(), &|value| {
                f16::from_f32(value as f32).to_f64()
            })
        }
        _ => (bytes.chunks_exact(2).map(|two| bf16::from_bits(pair(two)).to_f32()).collect(), &|value| {
            nearest_bf16(value).to_f64()
        }),
    };
    let middle: Vec<f64> = want.iter().map(|want| round(*want)).collect();
    let bound: Vec<f64> = want
        .iter()
        .zip(error)
        .map(|(want, error)| (round(want + error) - round(*want)).max(round(*want) - round(want - error)))
        .collect();
    evidence.within_rounded(&format!("key of token {token}"), &got, &middle, &bound)
}

fn drawn(device: &Device, seed: u64) -> Result<Evidence, String> {
    let source = &mut Source::new(seed ^ 0x40BE);
    let problem = CacheProblem {
        tokens: 1 + source.below(64),
        pages: 1 + source.below(9),
        page_tokens: [1, 16, 32, 64, 128, 7][source.below(6)],
        layout: LAYOUTS[source.below(4)],
        f16: source.below(2) == 0,
        bad: source.below(2) == 0,
        place: Place::draw(source),
        seed,
    };
    check_cache_write(device, &problem)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    const ODD: Place = Place { offset: 3, padding: 5 };
    const WRITE: CacheProblem = CacheProblem {
        tokens: 20,
        pages: 2,
        page_tokens: 64,
        layout: CacheLayout::Bf16,
        f16: false,
        bad: false,
        place: Place { offset: 0, padding: 0 },
        seed: 1,
    };
    macro_rules! case {
        ($name:literal, $problem:expr) => {
            Case {
                family: "cache",
                name: $name,
                run: |device, seed| check_cache_write(device, &CacheProblem { seed, ..$problem }),
            }
        };
    }
    vec![
        case!("20 tokens into bf16", WRITE),
        case!("20 tokens into FP8 blocks", CacheProblem { layout: CacheLayout::Fp8Blocks, ..WRITE }),
        case!("20 tokens into flat FP8", CacheProblem { layout: LAYOUTS[3], page_tokens: 16, ..WRITE }),
        case!("f16 tokens into f16, pages of one", {
            CacheProblem { layout: CacheLayout::F16, f16: true, pages: 30, page_tokens: 1, ..WRITE }
        }),
        case!("unknown slots and positions", CacheProblem { tokens: 60, bad: true, ..WRITE }),
        case!("unaligned rows", CacheProblem { place: ODD, layout: CacheLayout::Fp8Blocks, ..WRITE }),
        Case { family: "cache", name: "drawn writes", run: drawn },
    ]
}
