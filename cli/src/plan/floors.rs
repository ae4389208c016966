//! Floors and predictions of the published shapes, as the worklog shows them.

use super::hoppers;
use narrowgauge::gemm::plan::{self, Floor};
use narrowgauge::gemm::published;
use std::fmt::Write;

/// A Markdown table: for each shape and card the floor, what sets it, and what the planner expects.
pub fn markdown() -> String {
    let mut out = String::from("| shape |");
    for card in hoppers() {
        let _ = write!(out, " {card}: floor | predicted |");
    }
    out.push_str("\n|---|");
    hoppers().for_each(|_| out.push_str("--:|--:|"));
    out.push('\n');
    for shape in published::shapes() {
        let _ = write!(out, "| {} |", shape.name);
        for card in hoppers() {
            let floor = Floor::of(&shape.problem, card);
            let what = if floor.memory >= floor.tensor { "bytes" } else { "products" };
            let best = plan::rank(&shape.problem, card).first().map(|best| best.terms.microseconds(card));
            let _ = write!(out, " {:.1} {what} |", floor.microseconds());
            match best {
                Some(us) => {
                    let _ = write!(out, " {us:.1} ({:.0} %) |", 100.0 * floor.microseconds() / us);
                }
                None => out.push_str(" – |"),
            }
        }
        out.push('\n');
    }
    out
}
