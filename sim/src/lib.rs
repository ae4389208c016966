//! A simulated NVIDIA card: PTX in, results, counters and precise faults out.
//!
//! [`Module::parse`] reads the PTX that nvcc emits, [`Machine`] owns simulated device memory and [`Machine::launch`] runs an
//! entry over it, warp by warp, 32 lanes an instruction. Asynchronous operations (TMA, wgmma) complete when the launch's
//! [`Schedule`] lets them: eagerly, at random, or as late as the program allows.
//!
//! Clusters run in the order of the grid, each to its end. Where the resident ones only wait for others, through global
//! memory, more join them, as many as the card holds. [`Machine::launch_chain`] runs launches that may start before the
//! one before them has ended.

pub mod ast;
mod counters;
mod exec;
mod fault;
mod fragments;
mod lower;
mod machine;
pub mod matrix;
pub mod mbarrier;
mod memory;
pub mod mma;
pub mod numeric;
mod parse;
mod profile;
pub mod profiler;
mod race;
pub mod row;
mod schedule;
mod target;
pub mod tensor_core;
pub mod tensor_map;
pub mod tma;
pub mod wgmma;

pub use counters::{Class, Counters};
pub use fault::{Fault, FaultKind, Side};
pub use lower::opcodes;
pub use machine::{Chained, Launch, LoadError, Machine, MemoryError, Module, Report};
pub use profile::CardProfile;
pub use profiler::Profile;
pub use schedule::{Fp8Accumulation, InFlight, Policy, Schedule};
