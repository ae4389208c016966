//! Routing of tokens to experts: the router, the permutation by expert, and what moves rows through it.
//!
//! A token's k experts are its *slots*; token × slot is an *entry*, numbered `token * k + slot`. The permutation orders
//! entries by expert, and by number inside an expert: one order, whatever the timing.

mod experts;
mod gate;
mod models;
mod permutation;
pub(crate) mod plan;
pub mod reference;
mod router;

pub use experts::{Combine, SwigluQuantize};
pub use gate::{Gate, GroupScore, Scoring, Weights};
pub use models::{Model, Preset};
pub use permutation::{GatherRows, Permutation, Permute};
pub use router::{Logit, Router};

use crate::error::Result;
use crate::validate::Checks;

fn check_experts(check: Checks, experts: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&experts) {
        return Ok(());
    }
    check.fail("experts", experts, format_args!("1 to {most}"))
}

fn check_slots(check: Checks, slots: usize) -> Result<()> {
    if (1..=plan::MAX_SLOTS).contains(&slots) {
        return Ok(());
    }
    check.fail("k", slots, format_args!("1 to {}", plan::MAX_SLOTS))
}
