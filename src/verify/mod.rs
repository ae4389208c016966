//! Oracles: what a kernel should have answered, and how far off it may be. Tests, `narrowgauge check` and the bundle are
//! made of this module, and so can be the tests of whoever links the crate. There is no tolerance constant in it.
//!
//! Four oracles, the strongest first:
//!
//! 1. **Exact.** Inputs that make every partial sum exact in any order (integers up to 11 in e4m3, scales that are powers of
//!    two; equal or one-hot scores for attention): outputs are equal [bit for bit](exact).
//! 2. **Modelled.** A [model of the tensor core](tensor_core) in integers and the kernel's order of f32 operations, for the
//!    corners of all tiles and some thousand other elements: equal bit for bit.
//! 3. **Bounded.** The answer in f64, and for each element a bound of the error that the kernel's arithmetic can make on these
//!    very inputs: [`|got - want| ≤ bound`](within), so that NaN fails.
//! 4. **Projected.** [Random projections](projection) of products too large for the host.
//!
//! Matrix products go through all four. What copies, orders or rounds once (gather, permutation, embedding, argmax,
//! quantisation, residual) is exact; norms, rotary embedding, SwiGLU, router and weighted sum are bounded, and exact on
//! inputs where they can be; attention is bounded, and exact on two kinds of inputs. Beside oracles there are relations
//! between runs (`properties` of a family), mostly bit for bit.
//!
//! Every check returns [`Evidence`]: how much was compared and how close it was.
//!
//! ```
//! use narrowgauge::verify::gemm::{Fp8Check, Form, Rows, Values};
//! use narrowgauge::{Card, Device, ScaleLayout, bf16};
//!
//! # #[cfg(ng_kernels)]
//! # fn main() -> Result<(), String> {
//! let device = Device::simulated(Card::H20).map_err(|e| e.to_string())?;
//! let check = Fp8Check {
//!     rows: Rows::Dense(5),
//!     n: 64,
//!     k: 200,
//!     layout: ScaleLayout::RowMajor,
//!     tile: None,
//!     values: Values::Normal,
//!     form: Form::PLAIN,
//!     seed: 1,
//! };
//! let evidence = check.check::<bf16>(&device)?;
//! assert_eq!(evidence.bounded, 5 * 64);
//! assert!(evidence.modelled > 0 && evidence.ratios.largest() <= 1.0);
//! # Ok(())
//! # }
//! # #[cfg(not(ng_kernels))]
//! # fn main() {}
//! ```

pub mod bad_inputs;
mod compare;
mod evidence;
pub mod gemm;
pub mod latent_cache;
pub mod mla;
pub mod norm;
pub mod projection;
pub mod quant;
pub mod rope;
mod rounding;
pub mod routing;
mod source;
pub mod surrounded;
pub mod tensor_core;
pub mod vocab;

pub use compare::{Ratios, exact, within};
pub use evidence::{Evidence, MOSTLY_ZEROS};
pub use source::Source;

use std::fmt;

use crate::card::Card;
use crate::device::Device;
use crate::error::{Error, Result};

/// The device that `NARROWGAUGE_DEVICE` names, as [`open`] reads it; a simulated H20 by default.
pub fn device() -> Result<Device> {
    open(&std::env::var("NARROWGAUGE_DEVICE").unwrap_or_else(|_| "sim:h20".to_owned()))
}

/// Opens a device by its name: `sim:<card>` (any name that [`Card::find`] knows), or `cuda:<number>`.
pub fn open(name: &str) -> Result<Device> {
    let wrong = || {
        let want = "sim:<card>, such as sim:h20, or cuda:<number>";
        Error::argument("verify::open", "name", format!("{name:?}"), want)
    };
    match name.split_once(':') {
        Some(("sim", card)) => simulated(Card::find(card).ok_or_else(wrong)?),
        Some(("cuda", ordinal)) => cuda(ordinal.parse().map_err(|_| wrong())?),
        _ => Err(wrong()),
    }
}

#[cfg(feature = "sim")]
fn simulated(card: Card) -> Result<Device> {
    Device::simulated(card)
}

#[cfg(not(feature = "sim"))]
fn simulated(card: Card) -> Result<Device> {
    Err(Error::Unsupported { operation: "simulation without the feature `sim`", device: card.to_string() })
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    Device::cuda(ordinal)
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> Result<Device> {
    Err(Error::Unsupported {
        operation: "CUDA without the feature `cuda`",
        device: format!("cuda:{ordinal}"),
    })
}

/// The schedules under which the simulated card runs every property test: asynchronous copies and tensor
/// instructions complete at once, at random, and as late as the kernel's waits allow.
#[cfg(feature = "sim")]
pub fn schedules() -> [(&'static str, narrowgauge_sim::Schedule); 3] {
    schedules_of(1)
}

/// [`schedules`] whose random choices follow from a seed.
#[cfg(feature = "sim")]
pub fn schedules_of(seed: u64) -> [(&'static str, narrowgauge_sim::Schedule); 3] {
    use narrowgauge_sim::{Policy, Schedule};
    [
        ("eager", Schedule::with(Policy::Eager, seed)),
        ("random", Schedule::with(Policy::Random, seed + 1)),
        ("late", Schedule::with(Policy::Late, seed + 2)),
    ]
}

/// The [`device`] under the one of [`schedules_of`] a seed that the seed chooses; a real card as it is.
pub fn device_under(seed: u64) -> Result<Device> {
    let device = device()?;
    #[cfg(feature = "sim")]
    if device.is_simulated() {
        let [eager, random, late] = schedules_of(seed >> 2);
        device.set_schedule([eager, random, late][(seed % 3) as usize].1)?;
    }
    Ok(device)
}

/// Runs a check under every schedule, once on a real card. The schedule is part of the message of a failure.
pub fn under_every_schedule<R>(
    device: &Device,
    mut check: impl FnMut(&Device) -> std::result::Result<R, String>,
) -> std::result::Result<(), String> {
    #[cfg(feature = "sim")]
    if device.is_simulated() {
        for (name, schedule) in schedules() {
            device.set_schedule(schedule).map_err(|error| error.to_string())?;
            check(device).map_err(|error| format!("{error}\nunder the {name} schedule"))?;
        }
        return Ok(());
    }
    check(device).map(drop)
}

/// A check of one operation against its oracles: a fixed shape with inputs drawn from a seed, or a shape drawn too.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The operation's family, `gemm`.
    pub family: &'static str,
    /// Operation, shape and kind of input, in words that identify the case within its family.
    pub name: &'static str,
    /// Runs it with a seed. An `Err` says which element was wrong and by how much.
    pub run: fn(&Device, u64) -> std::result::Result<Evidence, String>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.family, self.name)
    }
}

/// The cases of every family that suit any device.
pub fn cases() -> Vec<Case> {
    let families: &[fn() -> Vec<Case>] = &[
        quant::cases,
        norm::cases,
        vocab::cases,
        gemm::cases,
        routing::cases,
        rope::cases,
        latent_cache::cases,
        mla::cases,
        mla::indexer::cases,
        mla::indexer_write::cases,
        mla::top_k::cases,
    ];
    families.iter().flat_map(|cases| cases()).collect()
}

/// Runs the cases of one family with one seed under every schedule, as the families' tests do.
pub fn check_family(device: &Device, family: &str, seed: u64) -> std::result::Result<(), String> {
    let cases: Vec<_> = cases().into_iter().filter(|case| case.family == family).collect();
    if cases.is_empty() {
        return Err(format!("there are no cases of {family}"));
    }
    for case in cases {
        under_every_schedule(device, |device| {
            let evidence = (case.run)(device, seed)?;
            match evidence.compared() + evidence.repeated {
                0 => Err("nothing was compared".to_owned()),
                _ => Ok(()),
            }
        })
        .map_err(|error| format!("{case}, seed {seed}: {error}"))?;
    }
    Ok(())
}

/// Cases of published sizes, for real cards: the simulated one would need hours.
pub fn large_cases() -> Vec<Case> {
    gemm::large_cases()
}
