//! Routing against its oracles: ids, orders and copies exactly, weights and sums within derived bounds.

mod cases;
mod experts;
mod permutation;
pub mod properties;
mod router;

pub(super) use cases::cases;
pub use experts::{CombineProblem, SwigluProblem, check_combine, check_swiglu};
pub use permutation::{check_gather, check_permute, check_round_trip, draw_ids};
pub use router::{K2, RouterProblem, Scores, V3, check_model, check_router, check_rows};

use super::rounding::F32 as UNIT;
