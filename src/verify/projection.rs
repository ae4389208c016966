//! The fourth oracle: random projections, for products too large to compute on the host.
//!
//! With a vector t of random signs, `C·t = A·(Bᵀ·t)` costs two matrix-vector products instead of a matrix product
//! (Freivalds, 1977). The kernel's errors e of one row are fixed before t is drawn, so their projection is a sum of
//! independent terms `±e`, and by Hoeffding's inequality exceeds `λ·‖e‖` with a probability of at most `2·exp(-λ²/2)`.
//! λ is chosen so that a correct kernel fails any row of a whole check with probability 2⁻⁶⁴; `‖e‖` is bounded by the
//! kernel's arithmetic, and is zero for exact products in f32: there a single wrong element always shows.

use super::Source;
use super::rounding::{BF16 as UNIT_BF16, F16 as UNIT_F16, F32 as UNIT_F32, LEAST_F16};
use super::tensor_core::{Operand, TensorCore};
use crate::gemm::reference::{Epilogue, Fp8Product, GradientProduct, Rounding};

const UNIT_F64: f64 = f64::EPSILON / 2.0;

/// How a computed product is projected.
#[derive(Debug, Clone, Copy)]
pub struct Projection {
    /// Vectors of signs. Each catches a wrong row with a probability of at least one half, whatever is wrong.
    pub vectors: usize,
    /// Whether the inputs make every f32 sum exact.
    pub exact: bool,
    /// What the sums were rounded to.
    pub rounding: Rounding,
    /// Seed of the signs.
    pub seed: u64,
}

/// A product as a projection walks over it.
struct Problem<'a, T: Operand> {
    a: &'a [T],
    b: &'a [T],
    extents: (usize, usize, usize),
    core: TensorCore,
    /// K that the tensor core adds before the sum goes to f32, `None` for all.
    promoted: Option<usize>,
    a_scale: &'a dyn Fn(usize, usize) -> f64,
    b_scale: &'a dyn Fn(usize, usize) -> f64,
    /// What is added to an element in the end, and how often an element is rounded to f32 after its sum.
    added: &'a dyn Fn(usize, usize) -> f64,
    rounded: u32,
}

/// Nothing is added.
fn nothing(_: usize, _: usize) -> f64 {
    0.0
}

/// What a projection needs of B: sums and norms over its N rows, with scales.
struct Columns {
    /// Of each k: the projection.
    projected: Vec<f64>,
    /// Of each k: the norm.
    norms: Vec<f64>,
    /// Of each instruction: the norm of the largest alignments.
    peaks: Vec<f64>,
}

impl Projection {
    /// Compares an FP8 product and what became of it; returns how many rows × vectors were. Factors of rows and of columns
    /// are as good as scales, and what is added has a projection of its own.
    pub fn check_fp8(
        &self,
        product: &Fp8Product<'_>,
        epilogue: &Epilogue<'_>,
        got: &[f32],
    ) -> Result<u64, String> {
        let (_, n, k) = product.extents;
        let blocks = k.div_ceil(128);
        let weight = |row: usize| epilogue.row_weights.get(row).map_or(1.0, |weight| f64::from(*weight));
        let of = |values: &[f32], at: usize| values.get(at).map_or(0.0, |value| f64::from(*value));
        self.check(
            &Problem {
                a: product.a,
                b: product.b,
                extents: product.extents,
                core: TensorCore::FP8,
                promoted: Some(128),
                a_scale: &|row, block| {
                    f64::from(product.a_scales[row * blocks + block])
                        * f64::from(epilogue.alpha)
                        * weight(row)
                },
                b_scale: &|row, block| {
                    let column = epilogue.column_scales.get(row).map_or(1.0, |scale| f64::from(*scale));
                    f64::from(product.b_scales[row / 128 * blocks + block]) * column
                },
                added: &|row, column| {
                    weight(row) * (of(epilogue.bias, column) + of(epilogue.old, row * n + column))
                },
                rounded: 5,
            },
            got,
        )
    }

    /// Compares a product with fine scales on both sides, α = 1, that was added to nothing.
    pub fn check_gradient(&self, product: &GradientProduct<'_>, got: &[f32]) -> Result<u64, String> {
        let blocks = product.extents.2.div_ceil(128);
        self.check(
            &Problem {
                a: product.a,
                b: product.b,
                extents: product.extents,
                core: TensorCore::FP8,
                promoted: Some(128),
                a_scale: &|row, block| f64::from(product.a_scales[row * blocks + block]),
                b_scale: &|row, block| f64::from(product.b_scales[row * blocks + block]),
                added: &nothing,
                rounded: 0,
            },
            got,
        )
    }

    /// Compares a product of 16-bit floats `[m, k]` × `[n, k]`ᵀ, `extents` are (m, n, k).
    pub fn check_half<T: Operand>(
        &self,
        a: &[T],
        b: &[T],
        extents: (usize, usize, usize),
        got: &[f32],
    ) -> Result<u64, String> {
        let one = |_: usize, _: usize| 1.0;
        let core = TensorCore::HALF;
        self.check(
            &Problem {
                a,
                b,
                extents,
                core,
                promoted: None,
                a_scale: &one,
                b_scale: &one,
                added: &nothing,
                rounded: 0,
            },
            got,
        )
    }

    fn check<T: Operand>(&self, problem: &Problem<'_, T>, got: &[f32]) -> Result<u64, String> {
        let (m, n, _) = problem.extents;
        let mut source = Source::new(self.seed);
        let tried = (2 * m * self.vectors).max(1) as f64;
        let lambda = (2.0 * (tried.ln() + 64.0 * std::f64::consts::LN_2)).sqrt();
        for vector in 0..self.vectors {
            let signs: Vec<f64> = (0..n).map(|_| if source.bits() >> 63 == 0 { 1.0 } else { -1.0 }).collect();
            let columns = problem.columns(&signs);
            for row in 0..m {
                let (want, error) = problem.row(row, &columns, &signs);
                let error = if self.exact { 0.0 } else { error };
                let got = &got[row * n..][..n];
                let norm = got.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                let rounded = match self.rounding {
                    Rounding::F32 => 0.0,
                    Rounding::Bf16 => UNIT_BF16 / (1.0 - UNIT_BF16) * norm,
                    Rounding::F16 => UNIT_F16 / (1.0 - UNIT_F16) * norm + LEAST_F16 * (n as f64).sqrt(),
                };
                let bound = lambda * (error + rounded);
                let sum: f64 = got.iter().zip(&signs).map(|(x, sign)| f64::from(*x) * sign).sum();
                let off = (sum - want).abs();
                // NaN compares false, so it fails.
                let right = off <= bound;
                if !right {
                    return Err(format!(
                        "projection {vector} of row {row}: got {sum:e}, want {want:e}, error {off:e}, bound {bound:e}"
                    ));
                }
            }
        }
        Ok((m * self.vectors) as u64)
    }
}

impl<T: Operand> Problem<'_, T> {
    fn columns(&self, signs: &[f64]) -> Columns {
        let (_, n, k) = self.extents;
        let depth = self.core.depth;
        let mut columns =
            Columns { projected: vec![0.0; k], norms: vec![0.0; k], peaks: vec![0.0; k.div_ceil(depth)] };
        for (row, sign) in (0..n).zip(signs) {
            for (step, values) in self.b[row * k..][..k].chunks(depth).enumerate() {
                let scale = (self.b_scale)(row, self.block(step));
                let mut peak: f64 = 0.0;
                for (at, value) in (step * depth..).zip(values) {
                    let scaled = scale * f64::from(value.value());
                    columns.projected[at] += sign * scaled;
                    columns.norms[at] += scaled * scaled;
                    peak = peak.max(value.digits().map_or(f64::NAN, |digits| digits.peak()));
                }
                columns.peaks[step] += (scale * peak).powi(2);
            }
        }
        columns.norms.iter_mut().chain(&mut columns.peaks).for_each(|x| *x = x.sqrt());
        columns
    }

    fn block(&self, step: usize) -> usize {
        self.promoted.map_or(0, |promoted| step * self.core.depth / promoted)
    }

    /// The projection of a row, and a bound of the norm of the row's errors before rounding to the output's type.
    ///
    /// The bound is that of every element (see [`reference`](crate::gemm::reference)) with norms over the columns in the
    /// place of absolute values: a norm of a sum is at most the sum of the norms.
    fn row(&self, row: usize, columns: &Columns, signs: &[f64]) -> (f64, f64) {
        let (_, n, k) = self.extents;
        let TensorCore { depth, aligned_bits, kept_bits } = self.core;
        let (mut want, mut error, mut magnitude, mut sum, mut block) = (0.0, 0.0, 0.0, 0.0, 0);
        for (step, values) in self.a[row * k..][..k].chunks(depth).enumerate() {
            if self.block(step) != block {
                block = self.block(step);
                sum = 0.0;
            }
            let scale = (self.a_scale)(row, block);
            let peak = values.iter().filter_map(|value| value.digits()).map(|digits| digits.peak());
            let aligned = peak.fold(0.0, f64::max) * columns.peaks[step] + sum;
            let before = sum;
            for (at, value) in (step * depth..).zip(values) {
                let value = f64::from(value.value());
                want += scale * value * columns.projected[at];
                sum += value.abs() * columns.norms[at];
            }
            let cut = (depth + 1) as f64 * 2f64.powi(-aligned_bits) * aligned + 2f64.powi(-kept_bits) * sum;
            error += scale.abs() * cut;
            magnitude += scale.abs() * (sum - before);
        }
        if let Some(promoted) = self.promoted {
            error += UNIT_F32 * (k.div_ceil(promoted) as f64 + 3.0) * (magnitude + error);
        }
        let mut norm = 0.0;
        for (column, sign) in signs.iter().enumerate() {
            let added = (self.added)(row, column);
            want += sign * added;
            norm += added * added;
        }
        // No step's value is larger than all that goes into it.
        let largest = magnitude + error + 2.0 * norm.sqrt();
        error += (1.0 + UNIT_F32).powi(8) * UNIT_F32 * f64::from(self.rounded) * largest;
        // The projection's own roundings.
        error += UNIT_F64 * (n + k) as f64 * (n as f64).sqrt() * magnitude;
        (want, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::bf16;
    use crate::gemm::reference::AnyFp8;
    use crate::verify::tensor_core::{fp8_element, fp8_finish, half_element};

    const EXTENTS: (usize, usize, usize) = (3, 200, 300);
    const EXACT: Projection = Projection { vectors: 2, exact: true, rounding: Rounding::F32, seed: 5 };

    fn drawn(source: &mut Source, len: usize, integers: bool) -> Vec<f32> {
        if integers { source.integers(len, 11) } else { source.normals(len, 1.0) }
    }

    #[test]
    fn products_of_the_model_pass_and_one_wrong_element_of_an_exact_one_does_not() {
        let (m, n, k) = EXTENTS;
        for integers in [true, false] {
            let mut source = Source::new(3);
            let mut codes = |len: usize, e5m2: bool| -> Vec<AnyFp8> {
                drawn(&mut source, len, integers).iter().map(|x| AnyFp8::nearest(*x, e5m2)).collect()
            };
            let (a, b) = (codes(m * k, false), codes(n * k, !integers));
            let (a_scales, b_scales) = (source.powers(m * 3, -2, 2), source.powers(2 * 3, -2, 2));
            let product =
                Fp8Product { a: &a, a_scales: &a_scales, b: &b, b_scales: &b_scales, extents: EXTENTS };
            let mut got: Vec<f32> = (0..m * n).map(|i| fp8_element(&product, i / n, i % n)).collect();
            let projection = Projection { exact: integers, ..EXACT };
            assert_eq!(projection.check_fp8(&product, &Epilogue::NONE, &got), Ok(6));
            got[n + 7] += if integers { 1.0 } else { 1e4 };
            let error = projection.check_fp8(&product, &Epilogue::NONE, &got).unwrap_err();
            assert!(error.contains("row 1"), "{error}");
            got[n + 7] = f32::NAN;
            assert!(projection.check_fp8(&product, &Epilogue::NONE, &got).is_err());
        }
    }

    /// Every part of an epilogue counts: the product without it does not pass.
    #[test]
    fn what_follows_a_product_is_projected_too() {
        let (m, n, k) = EXTENTS;
        let mut source = Source::new(8);
        let mut codes = |len: usize| -> Vec<AnyFp8> {
            source.integers(len, 11).iter().map(|x| AnyFp8::nearest(*x, false)).collect()
        };
        let (a, b) = (codes(m * k), codes(n * k));
        let (a_scales, b_scales) = (source.powers(m * 3, -2, 2), source.powers(2 * 3, -2, 2));
        let product = Fp8Product { a: &a, a_scales: &a_scales, b: &b, b_scales: &b_scales, extents: EXTENTS };
        for integers in [true, false] {
            let mut drawn = |len: usize, magnitude: f32| -> Vec<f32> {
                if integers { source.powers(len, 0, 3) } else { source.normals(len, magnitude) }
            };
            // What is added counts beside the errors of a product that is not exact.
            let (columns, weights) = (drawn(n, 1.0), drawn(m, 1.0));
            let (bias, old) = (drawn(n, 1e5), drawn(m * n, 1e5));
            let epilogue = Epilogue {
                alpha: 0.5,
                column_scales: &columns,
                bias: &bias,
                old: &old,
                row_weights: &weights,
            };
            let finished = |epilogue: &Epilogue<'_>| -> Vec<f32> {
                let finish = |i| fp8_finish(fp8_element(&product, i / n, i % n), epilogue, (i / n, i % n), n);
                (0..m * n).map(finish).collect()
            };
            let projection = Projection { exact: integers, ..EXACT };
            assert_eq!(projection.check_fp8(&product, &epilogue, &finished(&epilogue)), Ok(6));
            for lacking in [
                Epilogue { alpha: 1.0, ..epilogue },
                Epilogue { column_scales: &[], ..epilogue },
                Epilogue { bias: &[], ..epilogue },
                Epilogue { old: &[], ..epilogue },
                Epilogue { row_weights: &[], ..epilogue },
            ] {
                let got = finished(&lacking);
                assert!(projection.check_fp8(&product, &epilogue, &got).is_err(), "{integers}: {lacking:?}");
            }
        }
    }

    #[test]
    fn bf16_products_and_their_rounding_pass() {
        let (m, n, k) = EXTENTS;
        let mut source = Source::new(4);
        let (a, b) = (source.normals(m * k, 1.0), source.normals(n * k, 1.0));
        let (a, b) = (Source::to_bf16(&a), Source::to_bf16(&b));
        let sums: Vec<f32> = (0..m * n)
            .map(|i| half_element(&a[i / n * k..][..k], &b[i % n * k..][..k], std::slice::from_ref(&(0..k))))
            .collect();
        let projection = Projection { exact: false, ..EXACT };
        assert_eq!(projection.check_half(&a, &b, EXTENTS, &sums), Ok(6));
        let mut rounded: Vec<f32> = sums.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        assert!(projection.check_half(&a, &b, EXTENTS, &rounded).is_err(), "rounding is more than f32 does");
        let projection = Projection { rounding: Rounding::Bf16, ..projection };
        assert_eq!(projection.check_half(&a, &b, EXTENTS, &rounded), Ok(6));
        rounded[..64].fill(0.0);
        assert!(projection.check_half(&a, &b, EXTENTS, &rounded).is_err(), "64 of 200 elements are missing");
    }

    #[test]
    fn zeros_are_projected_exactly() {
        let zero = vec![AnyFp8::nearest(0.0, false); 32];
        let product =
            Fp8Product { a: &zero, a_scales: &[1.0], b: &zero, b_scales: &[1.0], extents: (1, 1, 32) };
        let projection = Projection { exact: false, ..EXACT };
        assert_eq!(projection.check_fp8(&product, &Epilogue::NONE, &[0.0]), Ok(2));
        assert!(EXACT.check_fp8(&product, &Epilogue::NONE, &[f32::MIN_POSITIVE]).is_err());
    }
}
