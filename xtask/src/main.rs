//! Developer tasks: `cargo xtask setup|demo|test|bundle|package`.

mod setup;
mod test;
#[path = "../../build/toolchain.rs"]
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask <task>

  setup     find nvcc 12.9 or newer, or install a pinned one into .cuda/ (no root needed)
  test      set up, then everything that must hold: format, lints, docs, tests, licences";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("setup") => setup::setup().map(|_| ()),
        Some("test") => test::test(),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ is a folder of the checkout").to_owned()
}

/// Runs a command to its end with our own standard streams.
fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{}: {e}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command))) }
}

/// Runs a command to its end and returns what it printed; what it complained about on failure.
fn capture(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{}: {e}", shown(command)))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let log = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} ended with {}:\n{}", shown(command), output.status, log.trim_end()))
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
