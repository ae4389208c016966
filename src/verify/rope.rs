//! Rotary embedding against its oracle.

use super::surrounded::{Place, Surrounded, rounded_to_bf16, text};
use super::{Case, Evidence, Source, exact};
use crate::device::Device;
use crate::device::abi::NG_STATUS_BAD_POSITION;
use crate::dtype::bf16;
use crate::mla::{Rope, RopeParameters, RopeTables, Yarn, reference};

/// Rotary columns.
const ROPE: usize = 64;
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

/// Oracle of one rotated row, and the errors before it is rounded to its type: the tables are rounded once; two products
/// and their sum round three times at most.
pub(super) fn rotation(row: &[f64], position: i32, parameters: &RopeParameters) -> (Vec<f64>, Vec<f64>) {
    let factor = parameters.yarn.as_ref().map_or(1.0, Yarn::table_factor);
    let (want, magnitudes) = reference::rotate(row, position, &parameters.frequencies(), factor);
    (want, magnitudes.into_iter().map(|magnitude| 4.0 * 2f64.powi(-24) * magnitude).collect())
}

/// Oracle and bound of one rotated row in bf16.
fn rotated(row: &[bf16], position: i32, parameters: &RopeParameters) -> (Vec<f64>, Vec<f64>) {
    let row: Vec<_> = row.iter().map(|x| x.to_f64()).collect();
    let (want, error) = rotation(&row, position, parameters);
    want.into_iter().zip(error).map(|(want, error)| rounded_to_bf16(want, error)).unzip()
}

/// Positions with every fourth outside the tables where `bad` says so.
pub(super) fn draw_positions(tokens: usize, bad: bool, source: &mut Source) -> Vec<i32> {
    let outside = [-1, POSITIONS as i32, i32::MAX, i32::MIN];
    (0..tokens)
        .map(|token| match token % 4 {
            3 if bad => outside[token / 4 % 4],
            _ => source.below(POSITIONS) as i32,
        })
        .collect()
}

pub(super) fn known(position: i32) -> bool {
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
    check_rope(device, &rotation)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    const ODD: Place = Place { offset: 3, padding: 5 };
    const ROTATION: RopeProblem = RopeProblem {
        shape: [3, 16],
        yarn: false,
        bad: false,
        input: Place { offset: 0, padding: 128 },
        output: Place { offset: 0, padding: 512 },
        seed: 1,
    };
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
        Case { family: "rope", name: "drawn shapes", run: drawn },
    ]
}
