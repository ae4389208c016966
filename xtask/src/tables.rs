//! What the compiled GEMM variants cost and where they are picked: `docs/gemm-variants.*` and the heat map.

use crate::{root, run};
use std::process::Command;

/// Writes the tables and the drawing, or with `--check` compares the variants with the tables.
pub fn variants(args: &[String]) -> Result<(), String> {
    let narrowgauge = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        // Never without kernels: there would be nothing to look at.
        command.current_dir(root()).env("NARROWGAUGE_REQUIRE_KERNELS", "1");
        run(command
            .args(["run", "--quiet", "--package", "narrowgauge-cli", "--bin", "narrowgauge", "--"])
            .args(words))
    };
    match args {
        [] => {
            narrowgauge(&["variants"])?;
            narrowgauge(&["plan", "gemm", "--heatmap", "docs/gemm-plan.svg"])
        }
        [flag] if flag == "--check" => narrowgauge(&["variants", "--check"]),
        _ => Err("usage: cargo xtask variants [--check]".to_owned()),
    }
}
