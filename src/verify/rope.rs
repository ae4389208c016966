//! Rotary embedding and the write into the latent cache against their oracle.

use super::surrounded::{Place, Surrounded, bits, rounded_to_bf16, text};
use super::{Case, Evidence, Source, exact};
use crate::device::Device;
use crate::device::abi::{NG_STATUS_BAD_POSITION, NG_STATUS_BAD_SLOT};
use crate::dtype::bf16;
use crate::mla::{CacheWrite, LatentCache, Rope, RopeParameters, RopeTables, Yarn, reference};

/// Rotary columns.
const ROPE: usize = 64;
const LATENT: usize = 512;
/// Positions of the tables that tests use.
const POSITIONS: usize = 300;

/// Tables as published models have them.
pub fn parameters(yarn: bool) -> RopeParameters {
    let yarn = yarn.then_some(Yarn {
        factor: 40.0,
        original_max_positions: 64,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: Some(0.7),
        mscale_all_dim: Some(1.0),
        attention_factor: None,
        truncate: true,
    });
    RopeParameters { dim: ROPE, base: 10_000.0, max_positions: POSITIONS, yarn }
}

/// Oracle and bound of one rotated row.
fn rotated(row: &[bf16], position: i32, parameters: &RopeParameters) -> (Vec<f64>, Vec<f64>) {
    let row: Vec<_> = row.iter().map(|x| x.to_f64()).collect();
    let factor = parameters.yarn.as_ref().map_or(1.0, Yarn::table_factor);
    let (want, magnitudes) = reference::rotate(&row, position, &parameters.frequencies(), factor);
    // The tables are rounded once; two products and their sum round three times at most.
    let pairs = want
        .into_iter()
        .zip(magnitudes)
        .map(|(want, magnitude)| rounded_to_bf16(want, 4.0 * 2f64.powi(-24) * magnitude));
    pairs.unzip()
}

/// Positions with every fourth outside the tables where `bad` says so.
fn draw_positions(tokens: usize, bad: bool, source: &mut Source) -> Vec<i32> {
    let outside = [-1, POSITIONS as i32, i32::MAX, i32::MIN];
    (0..tokens)
        .map(|token| match token % 4 {
            3 if bad => outside[token / 4 % 4],
            _ => source.below(POSITIONS) as i32,
        })
        .collect()
}

fn known(position: i32) -> bool {
    (0..POSITIONS as i32).contains(&position)
}

/// One rotation of queries.
#[derive(Debug, Clone, Copy)]
pub struct RopeProblem {
    /// T and H.
    pub shape: [usize; 2],
    /// Whether the tables are YaRN's.
    pub yarn: bool,
    /// Whether some positions are outside the tables.
    pub bad: bool,
    /// How the input lies: padding makes it columns of wider rows.
    pub input: Place,
    /// How the output lies.
    pub output: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// Runs one rotation of queries.
pub fn check_rope(device: &Device, problem: &RopeProblem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let RopeProblem { shape: [tokens, heads], yarn, bad, input, output, seed } = *problem;
    let mut source = Source::new(seed);
    let parameters = parameters(yarn);
    let tables = RopeTables::new(device, &parameters).map_err(text)?;
    let x = Source::to_bf16(&source.normals(tokens * heads * ROPE, 2.0));
    let positions = draw_positions(tokens, bad, &mut source);
    let shape = [tokens, heads, ROPE];
    let queries = Surrounded::input(device, &shape, input, &x).map_err(text)?;
    let places = Surrounded::input(device, &[tokens], Place::default(), &positions).map_err(text)?;
    let out = Surrounded::output(device, &shape, output).map_err(text)?;
    let stream = device.stream();
    Rope::new(queries.view(), places.view(), &tables, out.view()).launch(&stream).map_err(text)?;
    let got: Vec<_> = out.finish("queries", &mut evidence)?.iter().map(|x| x.to_f32()).collect();
    let (mut want, mut bound) = (Vec::new(), Vec::new());
    for (row, x) in x.chunks(ROPE).enumerate() {
        let position = positions[row / heads];
        let (values, bounds) = match known(position) {
            true => rotated(x, position, &parameters),
            false => (vec![0.0; ROPE], vec![0.0; ROPE]),
        };
        want.extend(values);
        bound.extend(bounds);
    }
    evidence.within_rounded("queries", &got, &want, &bound)?;
    let outside = heads > 0 && positions.iter().any(|position| !known(*position));
    let status = if outside { NG_STATUS_BAD_POSITION } else { 0 };
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}

/// One write into the cache.
#[derive(Debug, Clone, Copy)]
pub struct CacheProblem {
    /// T.
    pub tokens: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Whether some positions and slots do not exist.
    pub bad: bool,
    /// How latent rows and keys lie.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// Runs one write into a cache of NaN: written rows are right, and all others still NaN.
pub fn check_cache_write(device: &Device, problem: &CacheProblem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let CacheProblem { tokens, pages, bad, place, seed } = *problem;
    let mut source = Source::new(seed);
    let parameters = parameters(true);
    let tables = RopeTables::new(device, &parameters).map_err(text)?;
    let latent = Source::to_bf16(&source.normals(tokens * LATENT, 1.0));
    let key = Source::to_bf16(&source.normals(tokens * ROPE, 1.0));
    let positions = draw_positions(tokens, bad, &mut source);
    let rows = pages * 64;
    let order = source.permutation(rows);
    let outside = [-1, rows as i32, i32::MAX, i32::MIN, -2];
    let slots: Vec<i32> = (0..tokens)
        .map(|token| match token % 5 {
            2 if bad => outside[token / 5 % 5],
            4 => -1,
            _ => order[token] as i32,
        })
        .collect();
    let latents = Surrounded::input(device, &[tokens, LATENT], place, &latent).map_err(text)?;
    let keys = Surrounded::input(device, &[tokens, ROPE], place, &key).map_err(text)?;
    let places = Surrounded::input(device, &[tokens], Place::default(), &positions).map_err(text)?;
    let targets = Surrounded::input(device, &[tokens], Place::default(), &slots).map_err(text)?;
    let cache = LatentCache::new(device, pages).map_err(text)?;
    let untouched = bf16::from_bits(0x7FAB);
    cache.tensor().write(&vec![untouched; rows * (LATENT + ROPE)]).map_err(text)?;
    let stream = device.stream();
    CacheWrite::new(latents.view(), keys.view(), places.view(), targets.view(), &tables, &cache)
        .launch(&stream)
        .map_err(text)?;

    let mut got = cache.tensor().to_vec().map_err(text)?;
    evidence.digest(bits(&got));
    evidence.canaries += got.iter().filter(|x| x.to_bits() == untouched.to_bits()).count() as u64;
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
        let row = &mut got[slot as usize * (LATENT + ROPE)..][..LATENT + ROPE];
        evidence.exact(
            &format!("latent of token {token}"),
            &bits(&row[..LATENT]),
            &bits(&latent[token * LATENT..][..LATENT]),
        )?;
        let (want, bound) = rotated(&key[token * ROPE..][..ROPE], position, &parameters);
        let rotary: Vec<_> = row[LATENT..].iter().map(|x| x.to_f32()).collect();
        evidence.within_rounded(&format!("key of token {token}"), &rotary, &want, &bound)?;
        row.fill(untouched);
    }
    exact("other rows", &bits(&got), &vec![u32::from(untouched.to_bits()); got.len()])?;
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}

fn drawn(device: &Device, seed: u64) -> Result<Evidence, String> {
    let source = &mut Source::new(seed ^ 0x40BE);
    let rotation = RopeProblem {
        shape: [1 + source.below(12), 1 + source.below(20)],
        yarn: source.below(2) == 0,
        bad: source.below(2) == 0,
        input: Place::draw(source),
        output: Place::draw(source),
        seed,
    };
    let write = CacheProblem {
        tokens: 1 + source.below(64),
        pages: 1 + source.below(3),
        bad: source.below(2) == 0,
        place: Place::draw(source),
        seed,
    };
    let mut all = check_rope(device, &rotation)?;
    all.add(&check_cache_write(device, &write)?);
    Ok(all)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    const PLAIN: Place = Place { offset: 0, padding: 0 };
    const ODD: Place = Place { offset: 3, padding: 5 };
    const ROTATION: RopeProblem = RopeProblem {
        shape: [3, 16],
        yarn: false,
        bad: false,
        input: Place { offset: 0, padding: 128 },
        output: Place { offset: 0, padding: 512 },
        seed: 1,
    };
    const WRITE: CacheProblem = CacheProblem { tokens: 20, pages: 2, bad: false, place: PLAIN, seed: 1 };
    macro_rules! case {
        ($name:literal, $check:ident, $problem:expr) => {
            Case {
                family: "rope",
                name: $name,
                run: |device, seed| {
                    let mut problem = $problem;
                    problem.seed = seed;
                    $check(device, &problem)
                },
            }
        };
    }
    vec![
        case!("queries of 3x16 heads", check_rope, ROTATION),
        case!(
            "queries of 2x128 heads, YaRN",
            check_rope,
            RopeProblem { shape: [2, 128], yarn: true, ..ROTATION }
        ),
        case!(
            "queries at unknown positions",
            check_rope,
            RopeProblem { shape: [17, 3], bad: true, ..ROTATION }
        ),
        case!("queries in unaligned views", check_rope, RopeProblem { input: ODD, output: ODD, ..ROTATION }),
        case!("20 tokens into the cache", check_cache_write, WRITE),
        case!(
            "unknown slots and positions",
            check_cache_write,
            CacheProblem { tokens: 60, bad: true, ..WRITE }
        ),
        case!("unaligned rows into the cache", check_cache_write, CacheProblem { place: ODD, ..WRITE }),
        Case { family: "rope", name: "drawn shapes", run: drawn },
    ]
}
