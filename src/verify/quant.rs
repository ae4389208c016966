//! Quantisation against its oracle, bit for bit.

use super::surrounded::{Place, Surrounded, bits, text};
use super::{Case, Evidence, Source, exact};
use crate::device::Device;
use crate::dtype::{E4m3, bf16};
use crate::fp8::{Fp8Rows, ScaleLayout};
use crate::quant::{Quantize, reference};

/// What is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Normal numbers, rows of very different magnitudes, some groups of zeros.
    Normal,
    /// Integers up to 448 with 448 in every group: scale 1 and exact codes.
    Integers,
    /// Any bits: NaN, infinities, subnormals, the largest numbers.
    AnyBits,
}

/// One quantisation.
#[derive(Debug, Clone, Copy)]
pub struct Problem {
    /// M.
    pub rows: usize,
    /// K.
    pub columns: usize,
    /// How scales lie.
    pub layout: ScaleLayout,
    /// Whether scales are powers of two.
    pub power_of_two: bool,
    /// What is quantised.
    pub values: Values,
    /// How the input lies.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

impl Default for Problem {
    fn default() -> Self {
        Self {
            rows: 5,
            columns: 1536,
            layout: ScaleLayout::MnMajor,
            power_of_two: false,
            values: Values::Normal,
            place: Place::default(),
            seed: 1,
        }
    }
}

/// Numbers of one kind, row-major.
pub fn draw(values: Values, rows: usize, columns: usize, seed: u64) -> Vec<bf16> {
    let mut source = Source::new(seed);
    let mut drawn = Vec::with_capacity(rows * columns);
    for _ in 0..rows {
        let magnitude = source.integer(-20, 20).exp2();
        for start in (0..columns).step_by(128) {
            let group = start..columns.min(start + 128);
            let zeros = source.below(8) == 0;
            let full = start + source.below(group.len());
            drawn.extend(group.map(|column| match values {
                Values::Normal if zeros => bf16::ZERO,
                Values::Normal => bf16::from_f32(source.normal() * magnitude),
                Values::Integers if column == full => bf16::from_f32(448.0),
                Values::Integers => bf16::from_f32(source.integer(-16, 16)),
                Values::AnyBits => bf16::from_bits(source.bits() as u16),
            }));
        }
    }
    drawn
}

/// An output of FP8 rows among canaries.
#[derive(Debug)]
pub struct Fp8Output {
    data: Surrounded<E4m3>,
    scales: Surrounded<f32>,
    /// The rows that a kernel writes.
    pub rows: Fp8Rows,
}

impl Fp8Output {
    /// Poisoned room for a matrix.
    pub fn new(device: &Device, rows: usize, columns: usize, layout: ScaleLayout) -> crate::Result<Self> {
        let groups = columns.div_ceil(128);
        let stride = columns.next_multiple_of(16) + 16;
        let data = Surrounded::strided(device, &[rows, columns], &[stride, 1], 0)?;
        let strides = match layout {
            ScaleLayout::RowMajor => [groups + 1, 1],
            ScaleLayout::MnMajor => [1, rows.next_multiple_of(4)],
        };
        let scales = Surrounded::strided(device, &[rows, groups], &strides, 0)?;
        let rows = Fp8Rows::new(data.view().clone(), scales.view().clone())?;
        Ok(Self { data, scales, rows })
    }

    /// Codes and scales, row-major, once it is sure that nothing around them has changed.
    pub fn finish(&self, evidence: &mut Evidence) -> Result<(Vec<u8>, Vec<f32>), String> {
        let codes = self.data.finish("codes", evidence)?.into_iter().map(E4m3::to_bits).collect();
        Ok((codes, self.scales.finish("scales", evidence)?))
    }
}

/// Runs one quantisation and compares codes and scales with the oracle.
pub fn check(device: &Device, problem: &Problem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let Problem { rows, columns, layout, power_of_two, values, place, seed } = *problem;
    let drawn = draw(values, rows, columns, seed);
    let x = Surrounded::input(device, &[rows, columns], place, &drawn).map_err(text)?;
    let out = Fp8Output::new(device, rows, columns, layout).map_err(text)?;
    let stream = device.stream();
    Quantize::new(x.view(), &out.rows).power_of_two(power_of_two).launch(&stream).map_err(text)?;
    let (codes, scales) = out.finish(&mut evidence)?;
    let wide: Vec<_> = drawn.iter().map(|x| x.to_f64()).collect();
    let want = reference::quantize(&wide, columns, power_of_two);
    evidence.exact("scales", &bits(&scales), &bits(&want.scales))?;
    evidence.exact("codes", &codes, &want.codes)?;
    exact("status", &[stream.status().map_err(text)?.bits()], &[0])?;
    Ok(evidence)
}

fn drawn(device: &Device, seed: u64) -> Result<Evidence, String> {
    let source = &mut Source::new(seed ^ 0x90A7);
    let problem = Problem {
        rows: 1 + source.below(30),
        columns: source.columns(700),
        layout: [ScaleLayout::RowMajor, ScaleLayout::MnMajor][source.below(2)],
        power_of_two: source.below(2) == 0,
        values: [Values::Normal, Values::Integers, Values::AnyBits][source.below(3)],
        place: Place::draw(source),
        seed,
    };
    check(device, &problem)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, $($field:ident: $value:expr),+) => {
            Case {
                family: "quant",
                name: $name,
                run: |device, seed| check(device, &Problem { $($field: $value,)+ seed, ..Problem::default() }),
            }
        };
    }
    vec![
        case!("4x7168, MN-major scales", rows: 4, columns: 7168),
        case!("3x2048, row-major scales", rows: 3, columns: 2048, layout: ScaleLayout::RowMajor),
        case!("7x1536, powers of two", rows: 7, power_of_two: true),
        case!("1x18432", rows: 1, columns: 18_432),
        case!("33x128, integers", rows: 33, columns: 128, values: Values::Integers),
        case!("9x576, any bits", rows: 9, columns: 576, values: Values::AnyBits),
        case!("9x576, any bits, powers of two", rows: 9, columns: 576, values: Values::AnyBits, power_of_two: true),
        case!("5x2880, half a group left over", columns: 2880),
        case!("5x200 of an unaligned view", columns: 200, place: Place { offset: 3, padding: 5 }),
        Case { family: "quant", name: "a drawn shape", run: drawn },
    ]
}
