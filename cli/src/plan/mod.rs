//! `narrowgauge plan`: which kernel an operation would run on a card, and why.

mod floors;
mod gemm;
mod heatmap;

use narrowgauge::Card;

#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    family: Family,
}

#[derive(clap::Subcommand)]
enum Family {
    /// Matrix products: every variant that computes one, by its predicted cost
    Gemm(gemm::Options),
}

/// Prints the ranking, or writes what was asked for.
pub fn run(options: &Options) -> Result<bool, String> {
    match &options.family {
        Family::Gemm(options) => gemm::run(options),
    }
}

/// The cards whose kernels there are.
fn hoppers() -> impl Iterator<Item = &'static Card> {
    Card::ALL.iter().filter(|card| card.compute_capability == (9, 0))
}
