//! Operands whose elements lie more than 2³² elements apart. Memory that nobody touches costs nothing on the simulated
//! card, so every kernel is held against itself on operands that lie close together. A card needs some 80 GB for it.

use super::common::device;
use super::fp8;
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{
    BatchedFp8Gemm, Fp8Gemm, Fp8GradientGemm, GroupedFp8Gemm, KGroupedFp8Gemm, MaskedFp8Gemm, Tile,
    TransposeFp8,
};
use narrowgauge::verify::gemm::{Fp8Check, Rows, Values, offsets};
use narrowgauge::{Device, E4m3, Element, Error, Fp8Blocks, Fp8Rows, Result, Tensor, bf16};

/// An index that 32 bits do not hold, with a sign or without; nor do they hold the first row of the last tile.
const FAR: usize = (1 << 32) + (1 << 28);

/// Where elements lie: close together, or so that the last of a dimension is farther than [`FAR`] from its first.
#[derive(Clone, Copy)]
struct Places<'d> {
    device: &'d Device,
    far: bool,
}

impl Places<'_> {
    /// A tensor whose dimension `spread` has the distances.
    fn empty<T: Element>(&self, shape: &[usize], spread: usize) -> Result<Tensor<T>> {
        let mut strides = vec![1; shape.len()];
        let mut inner = 16;
        // Row-major, but for the spread dimension, which comes outermost.
        for dim in (0..shape.len()).rev().filter(|dim| *dim != spread) {
            if dim + 1 < shape.len() {
                strides[dim] = inner;
            }
            inner = (inner * shape[dim]).next_multiple_of(16);
        }
        strides[spread] = match (self.far, shape[spread] - 1) {
            (false, _) | (_, 0) => inner,
            (true, steps) => inner.max(FAR.div_ceil(steps).next_multiple_of(16) + 16),
        };
        let reach: usize = shape.iter().zip(&strides).map(|(dim, stride)| (dim - 1) * stride).sum();
        self.device.empty::<T>(&[reach + 1])?.as_strided(0, shape, &strides)
    }

    fn tensor<T: Element>(&self, shape: &[usize], spread: usize, values: &[T]) -> Result<Tensor<T>> {
        let tensor = self.empty(shape, spread)?;
        for (view, values) in rows(&tensor)?.iter().zip(values.chunks(shape[shape.len() - 1])) {
            match view.is_contiguous() {
                true => view.write(values)?,
                false => {
                    for (at, value) in values.iter().enumerate() {
                        view.slice(0, at..at + 1)?.write(&[*value])?;
                    }
                }
            }
        }
        Ok(tensor)
    }
}

/// Every row, as a vector.
fn rows<T: Element>(tensor: &Tensor<T>) -> Result<Vec<Tensor<T>>> {
    if tensor.rank() == 1 {
        return Ok(vec![tensor.clone()]);
    }
    let mut all = Vec::new();
    for at in 0..tensor.dim(0) {
        all.extend(rows(&tensor.select(0, at)?)?);
    }
    Ok(all)
}

fn read<T: Element>(tensor: &Tensor<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for row in rows(tensor)? {
        for at in 0..row.dim(0) {
            all.extend(row.slice(0, at..at + 1)?.to_vec()?);
        }
    }
    Ok(all)
}

/// The same far apart and close together.
fn agree<T: Element + PartialEq + std::fmt::Debug>(name: &str, run: impl Fn(Places<'_>) -> Result<Vec<T>>) {
    let device = device();
    let near = run(Places { device: &device, far: false }).unwrap();
    let far = match run(Places { device: &device, far: true }) {
        Err(Error::OutOfMemory { .. }) if !device.is_simulated() => {
            return eprintln!("skipped: {name}: the card has too little memory");
        }
        far => far.unwrap(),
    };
    let wrong = near.iter().zip(&far).position(|(near, far)| near != far);
    assert!(near.len() == far.len() && wrong.is_none(), "{name}: element {wrong:?}");
}

/// Rows of A and of the output, rows of B, blocks of scales.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn dense_products_index_in_64_bits() {
    let (m, n, k) = (67, 136, 144);
    let check = Fp8Check { values: Values::Normal, ..fp8(Rows::Dense(m), n, k) };
    let inputs = check.inputs();
    let [a, b] = inputs.e4m3();
    for tile in Tile::of(Input::Fp8, Mode::Dense) {
        // Of the scales: rows, then blocks of K.
        for spread in [0, 1] {
            agree(&format!("{tile}"), |places| {
                let data = places.tensor(&[m, k], 0, &a)?;
                let left = Fp8Rows::new(data, places.tensor(&[m, 2], spread, &inputs.a_scales)?)?;
                let data = places.tensor(&[n, k], 0, &b)?;
                let right = Fp8Blocks::new(data, places.tensor(&[2, 2], spread, &inputs.b_scales)?)?;
                let out = places.empty::<f32>(&[m, n], 0)?;
                Fp8Gemm::new(&left, &right, &out).tile(tile).launch(&places.device.stream())?;
                read(&out)
            });
        }
    }
}

/// Matrices of a batch, in everything that has one; and an output that is added to.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn batches_index_in_64_bits() {
    let (matrices, m, n, k) = (3, 5, 136, 144);
    let check = Fp8Check { values: Values::Normal, ..fp8(Rows::Batched(matrices, m), n, k) };
    let inputs = check.inputs();
    let [a, b] = inputs.e4m3();
    let bias: Vec<f32> = (0..matrices * n).map(|i| i as f32).collect();
    let columns: Vec<f32> = (0..matrices * n).map(|i| 1.0 + i as f32).collect();
    for tile in Tile::of(Input::Fp8, Mode::Batched) {
        for of_columns in [false, true] {
            agree(&format!("{tile}"), |places| {
                let data = places.tensor(&[matrices, m, k], 0, &a)?;
                let left = Fp8Rows::new(data, places.tensor(&[matrices, m, 2], 0, &inputs.a_scales)?)?;
                let data = places.tensor(&[matrices, n, k], 0, &b)?;
                let right = match of_columns {
                    true => Fp8Blocks::per_row(data, places.tensor(&[matrices, n], 0, &columns)?)?,
                    false => Fp8Blocks::new(data, places.tensor(&[matrices, 2, 2], 0, &inputs.b_scales)?)?,
                };
                let out = places.tensor(&[matrices, m, n], 0, &vec![bf16::ONE; matrices * m * n])?;
                BatchedFp8Gemm::new(&left, &right, &out)
                    .bias(&places.tensor(&[matrices, n], 0, &bias)?)
                    .accumulate()
                    .tile(tile)
                    .launch(&places.device.stream())?;
                read(&out)
            });
        }
    }
}

/// Groups by offsets and by counts, to FP8 rows whose scales lie apart too.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn groups_index_in_64_bits() {
    let (sizes, room, n, k) = ([2, 0, 4], 4, 136, 144);
    let check = Fp8Check { values: Values::Normal, ..fp8(Rows::Batched(3, room), n, k) };
    let inputs = check.inputs();
    let [a, b] = inputs.e4m3();
    let ends = offsets(&sizes);
    for tile in Tile::of(Input::Fp8, Mode::Masked).into_iter().filter(|tile| tile.columns() == 128) {
        agree(&format!("{tile}, masked"), |places| {
            let data = places.tensor(&[3, room, k], 0, &a)?;
            let left = Fp8Rows::new(data, places.tensor(&[3, room, 2], 0, &inputs.a_scales)?)?;
            let data = places.tensor(&[3, n, k], 0, &b)?;
            let right = Fp8Blocks::new(data, places.tensor(&[3, 2, 2], 0, &inputs.b_scales)?)?;
            let counts = places.device.tensor(&[3], &sizes.map(|size| size as i32))?;
            // The kernel numbers the rows of all matrices, whose scales follow each other.
            let scales = places.empty::<f32>(&[3 * room, 2], 0)?;
            let row = scales.strides()[0];
            let scales = scales.as_strided(0, &[3, room, 2], &[room * row, row, 1])?;
            let out = Fp8Rows::new(places.empty::<E4m3>(&[3, room, n], 0)?, scales)?;
            MaskedFp8Gemm::new(&left, &right, &counts, &out).tile(tile).launch(&places.device.stream())?;
            let mut all = Vec::new();
            for (group, size) in sizes.into_iter().enumerate().filter(|(_, size)| *size > 0) {
                let codes = read(&out.data().select(0, group)?.slice(0, 0..size)?)?;
                all.extend(codes.into_iter().map(E4m3::to_f32));
                all.extend(read(&out.scales().select(0, group)?.slice(0, 0..size)?)?);
            }
            Ok(all)
        });
    }
    for tile in Tile::of(Input::Fp8, Mode::Contiguous) {
        agree(&format!("{tile}, contiguous"), |places| {
            let data = places.tensor(&[6, k], 0, &a[..6 * k])?;
            let left = Fp8Rows::new(data, places.tensor(&[6, 2], 0, &inputs.a_scales[..12])?)?;
            let data = places.tensor(&[3, n, k], 0, &b)?;
            let right = Fp8Blocks::new(data, places.tensor(&[3, 2, 2], 0, &inputs.b_scales)?)?;
            let out = places.empty::<bf16>(&[6, n], 0)?;
            let ends = places.device.tensor(&[4], &ends)?;
            GroupedFp8Gemm::new(&left, &right, &ends, &out).tile(tile).launch(&places.device.stream())?;
            read(&out)
        });
    }
}

/// Rows, blocks of scales and groups' matrices of weight gradients.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn weight_gradients_index_in_64_bits() {
    let (m, n, k) = (67, 72, 384);
    let check = Fp8Check { values: Values::Normal, ..fp8(Rows::Dense(m), n, k) };
    let inputs = check.inputs();
    let [a, b] = inputs.e4m3();
    let fine: Vec<f32> = (0..n * 3).map(|i| 1.0 + i as f32).collect();
    for tile in Tile::of(Input::Fp8Fine, Mode::KGrouped) {
        for spread in [0, 1] {
            let operands = |places: Places<'_>| -> Result<[Fp8Rows; 2]> {
                let data = places.tensor(&[m, k], 0, &a)?;
                let left = Fp8Rows::new(data, places.tensor(&[m, 3], spread, &inputs.a_scales)?)?;
                let data = places.tensor(&[n, k], 0, &b)?;
                Ok([left, Fp8Rows::new(data, places.tensor(&[n, 3], spread, &fine)?)?])
            };
            agree(&format!("{tile}"), |places| {
                let [left, right] = operands(places)?;
                let out = places.tensor(&[m, n], 0, &vec![1.0f32; m * n])?;
                let product = Fp8GradientGemm::new(&left, &right, &out).accumulate().tile(tile);
                product.launch(&places.device.stream())?;
                read(&out)
            });
            agree(&format!("{tile}, ranges of K"), |places| {
                let [left, right] = operands(places)?;
                let ends = places.device.tensor(&[4], &[0, 128, 128, 384])?;
                let out = places.empty::<f32>(&[3, m, n], 0)?;
                let product = KGroupedFp8Gemm::new(&left, &right, &ends, &out).tile(tile);
                product.launch(&places.device.stream())?;
                read(&out)
            });
        }
    }
}

/// Rows and matrices of both sides of a transposition.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn transpositions_index_in_64_bits() {
    let codes: Vec<E4m3> = (0..3 * 130 * 67).map(|i| E4m3::from_bits(i as u8 & 0x77)).collect();
    for spread in [0, 1] {
        agree("transposed", |places| {
            let x = places.tensor(&[3, 130, 67], spread, &codes)?;
            let out = places.empty(&[3, 67, 130], spread)?;
            TransposeFp8::new(&x, &out).launch(&places.device.stream())?;
            Ok(read(&out)?.into_iter().map(|code: E4m3| code.to_bits()).collect())
        });
    }
}
