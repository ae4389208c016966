//! The `narrowgauge` command: cards, plans, correctness checks, benchmarks and profiles.

mod bench;
mod cards;
mod cases;
mod check;
mod plan;
mod profile;
mod variants;
// The example is the engine; a bundle carries it for machines that cannot compile.
#[cfg(feature = "demo")]
#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/deepseek/main.rs"]
mod deepseek;

use clap::{Args, Parser, Subcommand};
use narrowgauge::{Device, verify};
use std::process::ExitCode;

/// FP8 mixture-of-experts kernels: cards, correctness checks, benchmarks and profiles.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The cards that the crate knows, with their published ceilings.
    Cards,
    /// Compare every kernel with its oracles, and print the reliability table.
    Check {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        options: check::Options,
    },
    /// Measure: times on a card, counters on the simulated one.
    Bench {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        options: bench::Options,
    },
    /// Which kernel an operation would run on a card, and what each would cost
    Plan(plan::Options),
    /// Machine code of every GEMM variant: write its tables, or check that none became worse
    Variants(variants::Options),
    /// Count what an operation's kernels do, instruction by instruction, on the simulated card.
    Profile(Box<profile::Options>),
    /// Generate tokens from a checkpoint; its own flags follow.
    #[cfg(feature = "demo")]
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<std::ffi::OsString>,
    },
}

#[derive(Args)]
struct On {
    /// auto, cuda:N, sim:h20 or sim:h800. `auto` takes the first card, or simulates an H20 where there is none.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Only what has this in its name.
    #[arg(long, default_value = "")]
    filter: String,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Cards => {
            cards::print();
            Ok(true)
        }
        Task::Check { on, options } => open(&on).and_then(|device| check::run(&device, &on.filter, &options)),
        Task::Bench { on, options } => open(&on).and_then(|device| bench::run(&device, &on.filter, &options)),
        Task::Plan(options) => plan::run(&options),
        Task::Variants(options) => variants::run(&options),
        Task::Profile(options) => profile::run(&options),
        #[cfg(feature = "demo")]
        Task::Demo { flags } => {
            return deepseek::run_from(std::iter::once("narrowgauge demo".into()).chain(flags));
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Opens the device; `auto` says on stderr what it chose and why.
fn open(on: &On) -> Result<Device, String> {
    let opened = match on.device.as_str() {
        "auto" => verify::open("cuda:0").or_else(|reason| {
            eprintln!("no card is used ({reason}); simulating an H20");
            verify::open("sim:h20")
        }),
        name => verify::open(name),
    };
    opened.map_err(|e| e.to_string())
}
