//! Matrix products: inputs, runs with poisoned surroundings, and quick cases.

use super::{Case, Source, exact, within};
use crate::device::Device;
use crate::dtype::{E4m3, Element, bf16, nearest_bf16};
use crate::error::Error;
use crate::fp8::{Fp8Blocks, Fp8Rows, ScaleLayout};
use crate::gemm::reference::{self, Expected, Fp8Product, Rounding};
use crate::gemm::{BatchedBf16Gemm, Bf16Gemm, Fp8Gemm, GemmOutput, GroupedFp8Gemm, Tile};
use crate::tensor::Tensor;

/// What a check needs of an output type.
pub trait Checked: GemmOutput + PartialEq {
    /// How the kernel rounds to it.
    const ROUNDING: Rounding;
    /// A value that no product gives; surrounds the output.
    const CANARY: Self;
    /// The nearest value, ties to even.
    fn nearest(value: f64) -> Self;
    /// The exact value.
    fn widen(self) -> f32;
}

impl Checked for f32 {
    const ROUNDING: Rounding = Rounding::F32;
    const CANARY: Self = -1.234_567_9e38;

    fn nearest(value: f64) -> Self {
        value as f32
    }

    fn widen(self) -> f32 {
        self
    }
}

impl Checked for bf16 {
    const ROUNDING: Rounding = Rounding::Bf16;
    const CANARY: Self = bf16::from_bits(0xFEDC);

    fn nearest(value: f64) -> Self {
        nearest_bf16(value)
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// How the values of an input are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Integers so small, and scales so round, that every sum is exact in any order.
    Integers,
    /// Normally distributed values, scales of any magnitude between 2⁻⁸ and 2⁸.
    Normal,
}

/// Which rows of A go with which weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows<'a> {
    /// One matrix for this many rows.
    Dense(usize),
    /// Groups of these sizes.
    Groups(&'a [usize]),
}

impl Rows<'_> {
    /// M.
    pub fn count(&self) -> usize {
        match self {
            Rows::Dense(rows) => *rows,
            Rows::Groups(sizes) => sizes.iter().sum(),
        }
    }

    fn groups(&self) -> usize {
        match self {
            Rows::Dense(_) => 1,
            Rows::Groups(sizes) => sizes.len(),
        }
    }
}

/// An FP8 product to run and compare with the oracle.
#[derive(Debug, Clone, Copy)]
pub struct Fp8Check<'a> {
    /// Rows of A.
    pub rows: Rows<'a>,
    /// Rows of B.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// How the scales of A lie.
    pub layout: ScaleLayout,
    /// The planner's choice where `None`.
    pub tile: Option<Tile>,
    /// How inputs are drawn.
    pub values: Values,
    /// Seed of the inputs.
    pub seed: u64,
}

/// The inputs of an FP8 product on the host: row-major, `b` by groups.
#[derive(Debug, Clone)]
pub struct Fp8Inputs {
    /// `[m, k]`.
    pub a: Vec<E4m3>,
    /// `[m, ceil(k / 128)]`.
    pub a_scales: Vec<f32>,
    /// `[groups, n, k]`.
    pub b: Vec<E4m3>,
    /// `[groups, ceil(n / 128), ceil(k / 128)]`.
    pub b_scales: Vec<f32>,
}

impl Fp8Check<'_> {
    /// Draws the inputs.
    pub fn inputs(&self) -> Fp8Inputs {
        let mut source = Source::new(self.seed);
        let (m, groups, blocks) = (self.rows.count(), self.rows.groups(), self.k.div_ceil(128));
        let mut data = |count: usize| -> Vec<E4m3> {
            (0..count).map(|_| E4m3::from_f32(draw(&mut source, self.values, 11))).collect()
        };
        let (a, b) = (data(m * self.k), data(groups * self.n * self.k));
        let mut scales =
            |count: usize| -> Vec<f32> { (0..count).map(|_| scale(&mut source, self.values)).collect() };
        let a_scales = scales(m * blocks);
        let b_scales = scales(groups * self.n.div_ceil(128) * blocks);
        Fp8Inputs { a, a_scales, b, b_scales }
    }

    /// What the product should be, row-major `[m, n]`.
    pub fn expected(&self, inputs: &Fp8Inputs, rounding: Rounding) -> Expected {
        let (n, k, blocks) = (self.n, self.k, self.k.div_ceil(128));
        let column_blocks = n.div_ceil(128);
        let dense = [self.rows.count()];
        let sizes = match &self.rows {
            Rows::Dense(_) => &dense[..],
            Rows::Groups(sizes) => sizes,
        };
        let mut all = Expected { values: Vec::new(), bounds: Vec::new() };
        let mut row = 0;
        for (group, size) in sizes.iter().enumerate() {
            let product = Fp8Product {
                a: &inputs.a[row * k..][..size * k],
                a_scales: &inputs.a_scales[row * blocks..][..size * blocks],
                b: &inputs.b[group * n * k..][..n * k],
                b_scales: &inputs.b_scales[group * column_blocks * blocks..][..column_blocks * blocks],
                extents: (*size, n, k),
            };
            let part = reference::fp8(&product, rounding);
            all.values.extend(part.values);
            all.bounds.extend(part.bounds);
            row += size;
        }
        all
    }

    /// Runs and compares with the model of Hopper's tensor cores, bit for bit. For dense products.
    pub fn check_bits(&self, device: &Device) -> Result<(), String> {
        let inputs = self.inputs();
        let got = self.run::<f32>(device, &inputs)?;
        let product = Fp8Product {
            a: &inputs.a,
            a_scales: &inputs.a_scales,
            b: &inputs.b,
            b_scales: &inputs.b_scales,
            extents: (self.rows.count(), self.n, self.k),
        };
        let want: Vec<f32> = (0..got.len())
            .map(|index| reference::fp8_on_hopper(&product, index / self.n, index % self.n))
            .collect();
        exact(&format!("{self:?}, bits"), &got, &want)
    }

    /// Runs the kernel. Everything around the inputs is NaN; everything around the output must stay as it was.
    pub fn run<T: Checked>(&self, device: &Device, inputs: &Fp8Inputs) -> Result<Vec<T>, String> {
        let (m, n, k, blocks) = (self.rows.count(), self.n, self.k, self.k.div_ceil(128));
        let stream = device.stream();
        let run = || {
            let data = surround(device, &[m, k], &inputs.a, E4m3::NAN, 16)?;
            let scales = match self.layout {
                ScaleLayout::RowMajor => surround(device, &[m, blocks], &inputs.a_scales, f32::NAN, 1)?,
                ScaleLayout::MnMajor => {
                    let turned: Vec<f32> =
                        (0..m * blocks).map(|i| inputs.a_scales[i % m * blocks + i / m]).collect();
                    surround(device, &[blocks, m], &turned, f32::NAN, 4)?.transpose(0, 1)?
                }
            };
            let a = Fp8Rows::new(data, scales)?;
            let out = Surrounded::new(device, &[m, n])?;
            match &self.rows {
                Rows::Dense(_) => {
                    let data = surround(device, &[n, k], &inputs.b, E4m3::NAN, 16)?;
                    let scales = surround(device, &[n.div_ceil(128), blocks], &inputs.b_scales, f32::NAN, 1)?;
                    let b = Fp8Blocks::new(data, scales)?;
                    let mut operation = Fp8Gemm::new(&a, &b, &out.view);
                    if let Some(tile) = self.tile {
                        operation = operation.tile(tile);
                    }
                    operation.launch(&stream)?;
                }
                Rows::Groups(sizes) => {
                    let groups = sizes.len();
                    let data = surround(device, &[groups, n, k], &inputs.b, E4m3::NAN, 16)?;
                    let shape = [groups, n.div_ceil(128), blocks];
                    let b = Fp8Blocks::new(data, surround(device, &shape, &inputs.b_scales, f32::NAN, 1)?)?;
                    let offsets = device.tensor(&[groups + 1], &offsets(sizes))?;
                    let mut operation = GroupedFp8Gemm::new(&a, &b, &offsets, &out.view);
                    if let Some(tile) = self.tile {
                        operation = operation.tile(tile);
                    }
                    operation.launch(&stream)?;
                }
            }
            Ok((out.read()?, stream.status()?))
        };
        let (out, status) = run().map_err(|error: Error| format!("{self:?}: {error}"))?;
        if !status.is_clear() {
            return Err(format!("{self:?}: status {status}"));
        }
        out.ok_or_else(|| format!("{self:?}: wrote more or less than the output"))
    }

    /// Runs and compares: bit for bit with integers, within the bound otherwise.
    pub fn check<T: Checked>(&self, device: &Device) -> Result<(), String> {
        let inputs = self.inputs();
        let got = self.run::<T>(device, &inputs)?;
        compare(&format!("{self:?}"), self.values, &got, &self.expected(&inputs, T::ROUNDING))
    }
}

/// A bf16 product to run and compare with the oracle.
#[derive(Debug, Clone, Copy)]
pub struct Bf16Check {
    /// `None` runs `Bf16Gemm`.
    pub batch: Option<usize>,
    /// Rows of A.
    pub m: usize,
    /// Rows of B.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// Whether A and the output have the batch as their middle dimension in memory, as attention heads do.
    pub interleaved: bool,
    /// The planner's choice where `None`.
    pub tile: Option<Tile>,
    /// How inputs are drawn.
    pub values: Values,
    /// Seed of the inputs.
    pub seed: u64,
}

impl Bf16Check {
    /// Draws A `[batch, m, k]` and B `[batch, n, k]`.
    pub fn inputs(&self) -> (Vec<bf16>, Vec<bf16>) {
        let mut source = Source::new(self.seed);
        let batch = self.batch.unwrap_or(1);
        let mut data = |count: usize| -> Vec<bf16> {
            (0..count).map(|_| bf16::from_f32(draw(&mut source, self.values, 64))).collect()
        };
        (data(batch * self.m * self.k), data(batch * self.n * self.k))
    }

    /// What the product should be, row-major `[batch, m, n]`.
    pub fn expected(&self, (a, b): &(Vec<bf16>, Vec<bf16>), rounding: Rounding) -> Expected {
        let (m, n, k) = (self.m, self.n, self.k);
        let mut all = Expected { values: Vec::new(), bounds: Vec::new() };
        for batch in 0..self.batch.unwrap_or(1) {
            let (a, b) = (&a[batch * m * k..][..m * k], &b[batch * n * k..][..n * k]);
            let part = reference::bf16_product(a, b, (m, n, k), rounding);
            all.values.extend(part.values);
            all.bounds.extend(part.bounds);
        }
        all
    }

    /// Runs the kernel. Everything around the inputs is NaN; everything around the output must stay as it was.
    pub fn run<T: Checked>(
        &self,
        device: &Device,
        (a, b): &(Vec<bf16>, Vec<bf16>),
    ) -> Result<Vec<T>, String> {
        let (m, n, k, batch) = (self.m, self.n, self.k, self.batch.unwrap_or(1));
        let stream = device.stream();
        let run = || {
            let b = surround(device, &[batch, n, k], b, bf16::NAN, 8)?;
            let (a, out) = if self.interleaved {
                let turned: Vec<bf16> =
                    (0..a.len()).map(|i| a[(i / k % batch * m + i / (k * batch)) * k + i % k]).collect();
                let a = surround(device, &[m, batch, k], &turned, bf16::NAN, 8)?.transpose(0, 1)?;
                let mut out = Surrounded::<T>::new(device, &[m, batch, n])?;
                out.view = out.view.transpose(0, 1)?;
                (a, out)
            } else {
                (surround(device, &[batch, m, k], a, bf16::NAN, 8)?, Surrounded::new(device, &[batch, m, n])?)
            };
            if self.batch.is_some() {
                let mut operation = BatchedBf16Gemm::new(&a, &b, &out.view);
                if let Some(tile) = self.tile {
                    operation = operation.tile(tile);
                }
                operation.launch(&stream)?;
            } else {
                let (a, b, view) = (a.select(0, 0)?, b.select(0, 0)?, out.view.select(0, 0)?);
                let mut operation = Bf16Gemm::new(&a, &b, &view);
                if let Some(tile) = self.tile {
                    operation = operation.tile(tile);
                }
                operation.launch(&stream)?;
            }
            out.read()
        };
        let out = run().map_err(|error: Error| format!("{self:?}: {error}"))?;
        out.ok_or_else(|| format!("{self:?}: wrote more or less than the output"))
    }

    /// Runs and compares: bit for bit with integers, within the bound otherwise.
    pub fn check<T: Checked>(&self, device: &Device) -> Result<(), String> {
        let inputs = self.inputs();
        let got = self.run::<T>(device, &inputs)?;
        compare(&format!("{self:?}"), self.values, &got, &self.expected(&inputs, T::ROUNDING))
    }
}

/// The offsets of groups of these sizes.
pub fn offsets(sizes: &[usize]) -> Vec<i32> {
    let mut offsets = vec![0];
    for size in sizes {
        offsets.push(offsets[offsets.len() - 1] + *size as i32);
    }
    offsets
}

fn draw(source: &mut Source, values: Values, largest: usize) -> f32 {
    match values {
        Values::Integers => source.below(2 * largest + 1) as f32 - largest as f32,
        Values::Normal => source.normal(),
    }
}

fn scale(source: &mut Source, values: Values) -> f32 {
    match values {
        Values::Integers => [0.5, 1.0, 2.0][source.below(3)],
        Values::Normal => (1.0 + source.below(1000) as f32 / 1000.0) * 2f32.powi(source.below(16) as i32 - 8),
    }
}

fn compare<T: Checked>(name: &str, values: Values, got: &[T], want: &Expected) -> Result<(), String> {
    match values {
        Values::Integers => {
            let want: Vec<T> = want.values.iter().map(|value| T::nearest(*value)).collect();
            exact(name, got, &want)
        }
        Values::Normal => {
            let got: Vec<f32> = got.iter().map(|value| value.widen()).collect();
            within(name, &got, &want.values, &want.bounds)
        }
    }
}

/// A view of `shape` (rank 2 or 3) with these values inside a larger tensor full of `around`; rows, and the first
/// element, lie at multiples of `align` elements.
fn surround<T: Element>(
    device: &Device,
    shape: &[usize],
    values: &[T],
    around: T,
    align: usize,
) -> Result<Tensor<T>, Error> {
    let (whole, mut host) = room(shape, around, align);
    let rank = shape.len();
    let (rows, columns) = (shape[rank - 2], shape[rank - 1]);
    let (pitch, stride) = (whole[rank - 2], whole[rank - 1]);
    for (row, line) in values.chunks(columns.max(1)).enumerate() {
        let at = row / rows * pitch + row % rows;
        host[at * stride + align..][..columns].copy_from_slice(line);
    }
    inner(&device.tensor(&whole, &host)?, shape, align)
}

/// The larger tensor's shape and contents.
fn room<T: Element>(shape: &[usize], around: T, align: usize) -> (Vec<usize>, Vec<T>) {
    let mut whole = shape.to_vec();
    let rank = shape.len();
    whole[rank - 1] = (shape[rank - 1] + 2 * align).next_multiple_of(align);
    whole[rank - 2] += 1;
    let count = whole.iter().product();
    (whole, vec![around; count])
}

fn inner<T: Element>(whole: &Tensor<T>, shape: &[usize], align: usize) -> Result<Tensor<T>, Error> {
    let rank = shape.len();
    whole.slice(rank - 1, align..align + shape[rank - 1])?.slice(rank - 2, 0..shape[rank - 2])
}

/// An output inside a larger tensor of canaries.
struct Surrounded<T: Checked> {
    whole: Tensor<T>,
    view: Tensor<T>,
}

impl<T: Checked> Surrounded<T> {
    fn new(device: &Device, shape: &[usize]) -> Result<Self, Error> {
        let (whole, host) = room(shape, T::CANARY, 2);
        let whole = device.tensor(&whole, &host)?;
        let view = inner(&whole, shape, 2)?;
        Ok(Self { whole, view })
    }

    /// The output, or nothing if more or less than it was written.
    fn read(&self) -> Result<Option<Vec<T>>, Error> {
        let is_canary = |value: &T| value.widen().to_bits() == T::CANARY.widen().to_bits();
        let out = self.view.to_vec()?;
        let canaries = self.whole.to_vec()?.iter().filter(|value| is_canary(value)).count();
        let intact = canaries == self.whole.len() - out.len() && !out.iter().any(is_canary);
        Ok(intact.then_some(out))
    }
}

const DENSE: Fp8Check<'_> = Fp8Check {
    rows: Rows::Dense(1),
    n: 128,
    k: 128,
    layout: ScaleLayout::RowMajor,
    tile: None,
    values: Values::Normal,
    seed: 1,
};

const BF16: Bf16Check = Bf16Check {
    batch: None,
    m: 1,
    n: 64,
    k: 64,
    interleaved: false,
    tile: None,
    values: Values::Normal,
    seed: 1,
};

/// Quick cases with the column counts of published layers.
pub fn cases() -> Vec<Case> {
    let case = |name, run| Case { family: "gemm", name, run };
    vec![
        case("FP8 1x2112x512, integers", |device| {
            let values = Values::Integers;
            Fp8Check { rows: Rows::Dense(1), n: 2112, k: 512, values, ..DENSE }.check::<bf16>(device)
        }),
        case("FP8 33x576x448, ragged blocks", |device| {
            Fp8Check { rows: Rows::Dense(33), n: 576, k: 448, ..DENSE }.check::<bf16>(device)
        }),
        case("FP8 130x256x384, column-major scales, f32", |device| {
            let layout = ScaleLayout::MnMajor;
            Fp8Check { rows: Rows::Dense(130), n: 256, k: 384, layout, ..DENSE }.check::<f32>(device)
        }),
        case("FP8 20x40x336, bit for bit as Hopper's tensor cores are modelled", |device| {
            Fp8Check { rows: Rows::Dense(20), n: 40, k: 336, ..DENSE }.check_bits(device)
        }),
        case("FP8 grouped, 6 experts, integers", |device| {
            let values = Values::Integers;
            Fp8Check { rows: Rows::Groups(&[3, 0, 65, 1, 0, 17]), n: 192, k: 256, values, ..DENSE }
                .check::<bf16>(device)
        }),
        case("FP8 grouped, 3 experts", |device| {
            Fp8Check { rows: Rows::Groups(&[5, 64, 2]), n: 128, k: 512, ..DENSE }.check::<bf16>(device)
        }),
        case("bf16 7x256x512 to f32, integers", |device| {
            Bf16Check { m: 7, n: 256, k: 512, values: Values::Integers, ..BF16 }.check::<f32>(device)
        }),
        case("bf16 66x24x200", |device| Bf16Check { m: 66, n: 24, k: 200, ..BF16 }.check::<bf16>(device)),
        case("bf16 8 heads of 3x512x128", |device| {
            Bf16Check { batch: Some(8), m: 3, n: 512, k: 128, interleaved: true, ..BF16 }
                .check::<bf16>(device)
        }),
    ]
}
