//! What tests are made of: devices and schedules to run on, seeded inputs, comparisons without tolerance constants,
//! and the cases that `narrowgauge check` runs.

mod compare;
pub mod gemm;
pub mod mla;
pub mod norm;
pub mod quant;
pub mod rope;
pub mod routing;
mod source;
pub mod surrounded;
pub mod vocab;

pub use compare::{exact, within};
pub use source::Source;

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
    use narrowgauge_sim::{Policy, Schedule};
    [
        ("eager", Schedule::with(Policy::Eager, 1)),
        ("random", Schedule::with(Policy::Random, 2)),
        ("late", Schedule::with(Policy::Late, 3)),
    ]
}

/// A quick check of one operation on one shape against its oracle.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The operation's family, `gemm`.
    pub family: &'static str,
    /// Operation, shape and kind of input, in words that identify the case within its family.
    pub name: &'static str,
    /// Runs it. An `Err` says which element was wrong and by how much.
    pub run: fn(&Device) -> std::result::Result<(), String>,
}

/// The quick cases of every family.
pub fn cases() -> Vec<Case> {
    let families: &[fn() -> Vec<Case>] =
        &[quant::cases, norm::cases, vocab::cases, gemm::cases, routing::cases, rope::cases, mla::cases];
    families.iter().flat_map(|cases| cases()).collect()
}
