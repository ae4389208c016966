//! Rotary position embedding: its tables, and the rotation of queries.

use crate::device::abi::NgRopeParams;
use crate::device::{Device, KernelLaunch, Stream};
use crate::dtype::bf16;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

/// Rotary columns of a head.
pub(crate) const ROPE: usize = 64;
/// Lanes that rotate one head.
const LANES: usize = 8;
const THREADS: usize = 256;

/// What rotary tables are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeParameters {
    /// Rotary columns, even.
    pub dim: usize,
    /// The base wavelength, `rope_theta`.
    pub base: f64,
    /// Positions that the tables have.
    pub max_positions: usize,
    /// The extension to longer contexts, if the model has one.
    pub yarn: Option<Yarn>,
}

/// YaRN (arXiv 2309.00071), with the fields of a published `rope_scaling`.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// How many times longer the context became.
    pub factor: f64,
    /// Positions before the extension, `original_max_position_embeddings`.
    pub original_max_positions: usize,
    /// Rotations over the original context above which a frequency stays as it is; published models have 32.
    pub beta_fast: f64,
    /// Rotations below which a frequency is divided by the factor; published models have 1.
    pub beta_slow: f64,
    /// Numerator of the tables' factor. None and zero are the same.
    pub mscale: Option<f64>,
    /// Denominator of the tables' factor. None and zero are the same.
    pub mscale_all_dim: Option<f64>,
    /// The tables' factor itself, instead of what mscale and mscale_all_dim make.
    pub attention_factor: Option<f64>,
    /// Whether the borders between the frequencies' ranges are rounded to whole dimensions; published models do.
    pub truncate: bool,
}

impl Yarn {
    /// What cosines and sines are multiplied by.
    pub fn table_factor(&self) -> f64 {
        let given = |mscale: Option<f64>| mscale.filter(|mscale| *mscale != 0.0);
        match (self.attention_factor, given(self.mscale), given(self.mscale_all_dim)) {
            (Some(factor), ..) => factor,
            (None, Some(mscale), Some(all)) => {
                temperature(self.factor, mscale) / temperature(self.factor, all)
            }
            _ => temperature(self.factor, 1.0),
        }
    }
}

/// YaRN's `0.1 m ln(s) + 1`.
fn temperature(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

impl RopeParameters {
    /// Angle per position of each pair of columns, `dim / 2` of them, as transformers' `_compute_yarn_parameters` has it
    /// (without YaRN: `base^(-2i / dim)`), in f64.
    pub fn frequencies(&self) -> Vec<f64> {
        let pairs = self.dim / 2;
        let plain = (0..pairs).map(|pair| self.base.powf(-(2.0 * pair as f64) / self.dim as f64));
        let Some(yarn) = &self.yarn else { return plain.collect() };
        // The dimension whose frequency makes this many rotations over the original context.
        let border = |rotations: f64| {
            let turns = yarn.original_max_positions as f64 / (rotations * std::f64::consts::TAU);
            self.dim as f64 * turns.ln() / (2.0 * self.base.ln())
        };
        let (mut low, mut high) = (border(yarn.beta_fast), border(yarn.beta_slow));
        if yarn.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(self.dim as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        plain
            .enumerate()
            .map(|(pair, frequency)| {
                let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / yarn.factor * divided + frequency * (1.0 - divided)
            })
            .collect()
    }
}

/// Cosines and sines of every position, f32 `[max_positions, dim / 2]`, computed in f64.
#[derive(Debug, Clone)]
pub struct RopeTables {
    cosines: Tensor<f32>,
    sines: Tensor<f32>,
}

impl RopeTables {
    /// Computes the tables and puts them on the device.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for a `dim` that is odd or zero, no positions or 2^31 and more, a base
    /// that is not above 1, or YaRN parameters that are not positive and finite; otherwise what the device says.
    pub fn new(device: &Device, parameters: &RopeParameters) -> Result<Self> {
        let check = Checks::of("RopeTables");
        let RopeParameters { dim, base, max_positions, yarn } = parameters;
        if *dim == 0 || !dim.is_multiple_of(2) {
            return check.fail("dim", dim, "even and not zero");
        }
        if !(base.is_finite() && *base > 1.0) {
            return check.fail("base", base, "finite and above 1");
        }
        if *max_positions == 0 {
            return check.fail("max_positions", 0, "at least 1");
        }
        check.extent("max_positions", *max_positions)?;
        let mut factor = 1.0;
        if let Some(yarn) = yarn {
            for (name, value) in [
                ("yarn.factor", yarn.factor),
                ("yarn.beta_fast", yarn.beta_fast),
                ("yarn.beta_slow", yarn.beta_slow),
            ] {
                if !(value.is_finite() && value > 0.0) {
                    return check.fail(name, value, "finite and positive");
                }
            }
            if yarn.original_max_positions == 0 {
                return check.fail("yarn.original_max_positions", 0, "at least 1");
            }
            factor = yarn.table_factor();
            if !factor.is_finite() {
                return check.fail("yarn.attention_factor", factor, "finite");
            }
        }
        let frequencies = parameters.frequencies();
        let pairs = dim / 2;
        let mut cosines = Vec::with_capacity(max_positions * pairs);
        let mut sines = Vec::with_capacity(max_positions * pairs);
        for position in 0..*max_positions {
            for frequency in &frequencies {
                let (sine, cosine) = (position as f64 * frequency).sin_cos();
                cosines.push((cosine * factor) as f32);
                sines.push((sine * factor) as f32);
            }
        }
        Ok(Self {
            cosines: device.tensor(&[*max_positions, pairs], &cosines)?,
            sines: device.tensor(&[*max_positions, pairs], &sines)?,
        })
    }

    /// Positions that the tables have.
    pub fn max_positions(&self) -> usize {
        self.cosines.dim(0)
    }

    /// Rotary columns.
    pub fn dim(&self) -> usize {
        2 * self.cosines.dim(1)
    }

    /// Cosines, `[max_positions, dim / 2]`.
    pub fn cosines(&self) -> &Tensor<f32> {
        &self.cosines
    }

    /// Sines, `[max_positions, dim / 2]`.
    pub fn sines(&self) -> &Tensor<f32> {
        &self.sines
    }

    pub(super) fn check(&self, check: Checks, device: &Device) -> Result<()> {
        if self.dim() != ROPE {
            return check.fail(
                "tables",
                format_args!("for {} columns", self.dim()),
                format_args!("for {ROPE} columns"),
            );
        }
        check.on("tables", &self.cosines, device)
    }
}

/// Rotates the rotary columns of queries, as DeepSeek-V3's model code does: neighbours are a pair, and the rotated pairs
/// come out as two halves.
///
/// `out[i] = x[2i] cos - x[2i+1] sin`, `out[32 + i] = x[2i+1] cos + x[2i] sin`, in f32 from the tables' row of the token's
/// position, rounded to bf16 once. A position outside the tables gives zeros and sets the status `bad_position`. A token's
/// bits do not depend on the other tokens.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Rope<'a> {
    x: &'a Tensor<bf16>,
    positions: &'a Tensor<i32>,
    tables: &'a RopeTables,
    out: &'a Tensor<bf16>,
}

impl<'a> Rope<'a> {
    /// Rotates `x` `[T, H, 64]` by `positions` `[T]` into `out` `[T, H, 64]`. Tokens and heads of both may have any
    /// stride, so that both may be columns of wider rows.
    pub fn new(
        x: &'a Tensor<bf16>,
        positions: &'a Tensor<i32>,
        tables: &'a RopeTables,
        out: &'a Tensor<bf16>,
    ) -> Self {
        Self { x, positions, tables, out }
    }

    /// Enqueues the operation. No tokens or no heads is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, columns that are not adjacent, tables for
    /// another number of columns, an output that overlaps an input, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let check = Checks::of("Rope");
        let Self { x, positions, tables, out } = *self;
        check.rank("x", x, 3)?;
        let (tokens, heads) = (x.dim(0), x.dim(1));
        check.shape("x", x, &[tokens, heads, ROPE])?;
        check.shape("out", out, &[tokens, heads, ROPE])?;
        check.shape("positions", positions, &[tokens])?;
        check.contiguous("positions", positions)?;
        for (name, tensor) in [("x", x), ("out", out)] {
            check.adjacent_columns(name, tensor)?;
            check.on(name, tensor, stream.device())?;
        }
        check.on("positions", positions, stream.device())?;
        tables.check(check, stream.device())?;
        check.distinct("out", out)?;
        check.apart("out", out, "x", x)?;
        check.apart("out", out, "positions", positions)?;
        check.apart("out", out, "tables", &tables.cosines)?;
        check.apart("out", out, "tables", &tables.sines)?;
        check.extent("tokens", tokens)?;
        let head_count = check.extent("heads", heads)?;
        let rows = tokens * heads;
        check.extent("tokens * heads", rows)?;
        if x.is_empty() {
            return Ok(());
        }
        let params = NgRopeParams {
            x: x.address(),
            positions: positions.address(),
            cosines: tables.cosines.address(),
            sines: tables.sines.address(),
            out: out.address(),
            status: stream.status_address(),
            x_token_stride: x.strides()[0] as u64,
            x_head_stride: x.strides()[1] as u64,
            out_token_stride: out.strides()[0] as u64,
            out_head_stride: out.strides()[1] as u64,
            rows: rows as u64,
            heads: head_count,
            max_positions: tables.max_positions() as u32,
            vectorised: (rows_aligned(x, VECTOR_BYTES) && rows_aligned(out, VECTOR_BYTES / 2)).into(),
        };
        let threads = (rows * LANES).next_multiple_of(32).min(THREADS);
        KernelLaunch::new("rope_bf16", &params)
            .grid([(rows * LANES).div_ceil(threads) as u32, 1, 1])
            .block(threads as u32)
            .reads(x)
            .reads(positions)
            .reads(&tables.cosines)
            .reads(&tables.sines)
            .writes(out)
            .launch(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DeepSeek-V3's published `rope_scaling`.
    fn published() -> RopeParameters {
        RopeParameters {
            dim: 64,
            base: 10_000.0,
            max_positions: 163_840,
            yarn: Some(Yarn {
                factor: 40.0,
                original_max_positions: 4096,
                beta_fast: 32.0,
                beta_slow: 1.0,
                mscale: Some(1.0),
                mscale_all_dim: Some(1.0),
                attention_factor: None,
                truncate: true,
            }),
        }
    }

    /// Values by transformers' `_compute_yarn_parameters`, made with tools/golden/yarn.py.
    #[test]
    fn frequencies_are_those_of_transformers() {
        let cases: &[(&str, RopeParameters)] = &[
            ("published", published()),
            ("plain", RopeParameters { yarn: None, ..published() }),
            ("untruncated", {
                let mut parameters = published();
                let yarn = parameters.yarn.as_mut().expect("published has it");
                (yarn.truncate, yarn.factor, yarn.mscale_all_dim) = (false, 8.0, Some(0.5));
                parameters
            }),
        ];
        for (name, parameters) in cases {
            let golden = GOLDEN.iter().find(|golden| golden.0 == *name).expect("every case has its values");
            let factor = parameters.yarn.as_ref().map_or(1.0, Yarn::table_factor);
            assert!((factor - golden.1).abs() <= 4.0 * f64::EPSILON * golden.1, "{name}: {factor}");
            for (ours, theirs) in parameters.frequencies().iter().zip(golden.2) {
                // Theirs are computed in f32: powf, ramp, and three products and sums.
                assert!((ours - theirs).abs() <= theirs * 16.0 * 2f64.powi(-24), "{name}: {ours} {theirs}");
            }
        }
    }

    #[rustfmt::skip]
    /// Name, factor of the tables, angle per position of each pair.
    const GOLDEN: &[(&str, f64, [f64; 32])] = &[
    ("published", 1.0, [1.0, 0.7498942017555237, 0.5623413324356079, 0.4216965138912201, 0.3162277638912201, 0.23713739216327667, 0.17782793939113617, 0.1333521455526352, 0.10000000149011612, 0.07498941570520401, 0.05623412877321243, 0.039006926119327545, 0.026879360899329185, 0.01837814413011074, 0.012447956018149853, 0.0083345090970397, 0.005500000435858965, 0.0035619973205029964, 0.002249365206807852, 0.0013705134624615312, 0.0007905694073997438, 0.0004149904125370085, 0.00017782794020604342, 3.333803397254087e-05, 2.499999936844688e-05, 1.8747354260995053e-05, 1.4058532542549074e-05, 1.054241420206381e-05, 7.905694474175107e-06, 5.928434347879374e-06, 4.445698323252145e-06, 3.3338035336782923e-06]),
    ("untruncated", 1.094179988101349, [1.0, 0.7498942017555237, 0.5623413324356079, 0.4216965138912201, 0.3162277638912201, 0.23713739216327667, 0.17782793939113617, 0.1333521455526352, 0.10000000149011612, 0.07498941570520401, 0.05623412877321243, 0.04055241122841835, 0.028112081810832024, 0.019357873126864433, 0.013224133290350437, 0.008947668597102165, 0.005983132869005203, 0.003941789735108614, 0.0025472878478467464, 0.0016037614550441504, 0.0009728576405905187, 0.0005572193185798824, 0.00028863296029157937, 0.00016669018077664077, 0.0001250000059371814, 9.373677312396467e-05, 7.029266271274537e-05, 5.2712068281834945e-05, 3.9528473280370235e-05, 2.9642173103638925e-05, 2.2228492525755428e-05, 1.666901880525984e-05]),
    ("plain", 1.0, [1.0, 0.7498942093324559, 0.5623413251903491, 0.4216965034285823, 0.31622776601683794, 0.23713737056616555, 0.17782794100389226, 0.1333521432163324, 0.1, 0.07498942093324558, 0.056234132519034905, 0.042169650342858224, 0.03162277660168379, 0.02371373705661655, 0.01778279410038923, 0.01333521432163324, 0.01, 0.007498942093324559, 0.005623413251903491, 0.004216965034285823, 0.003162277660168379, 0.002371373705661655, 0.001778279410038923, 0.001333521432163324, 0.001, 0.0007498942093324557, 0.0005623413251903491, 0.0004216965034285823, 0.00031622776601683794, 0.00023713737056616554, 0.00017782794100389227, 0.0001333521432163324]),
    ];
}
