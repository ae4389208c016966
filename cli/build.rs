//! Tells the command line which commit it is built from, and its tests whether machine code can be read.

// The command line looks for the toolkit in the same places.
#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "src/profile/tools.rs"]
mod tools;

use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    // A commit moves the log of HEAD, wherever a work tree keeps it.
    if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/profile/tools.rs");
    println!("cargo::rustc-check-cfg=cfg(ng_disassembler)");
    println!("cargo::rustc-check-cfg=cfg(ng_bytes_only)");
    if std::env::var_os("CARGO_FEATURE_DEMO").is_some() {
        println!("cargo::rustc-cfg=ng_bytes_only");
    }
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "NARROWGAUGE_NO_NVCC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let without =
        std::env::var_os("NARROWGAUGE_NO_NVCC").is_some_and(|value| !value.is_empty() && value != "0");
    if !without && ["nvcc", "cuobjdump"].iter().all(|tool| tools::find(tool).is_some()) {
        println!("cargo::rustc-cfg=ng_disassembler");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=NARROWGAUGE_COMMIT={commit}");
}
