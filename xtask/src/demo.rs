//! Runs the example engine on the shipped checkpoint and compares it with the golden outputs.

use crate::{root, run, setup};
use std::process::Command;

/// Ends with the engine's table of operations and its verdict; fails where it disagrees.
pub fn demo() -> Result<(), String> {
    setup::setup()?;
    let checkpoint = root().join("examples/deepseek/checkpoint");
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).env("NARROWGAUGE_REQUIRE_KERNELS", "1");
    command.args(["run", "--release", "--example", "deepseek", "--", "--device", "auto", "--model"]);
    run(command.arg(&checkpoint).arg("--golden").arg(checkpoint.join("golden.json")))
}
