//! Checks of undefined behaviour and of the dependencies, with tools that not every machine has: what is missing is
//! said, and skipped.

use crate::{capture, root, run};
use std::process::Command;
use std::time::Instant;

/// What Miri runs of one package.
struct Part {
    package: &'static str,
    target: &'static [&'static str],
    modules: &'static [&'static str],
    /// Tests that go over every bit pattern, draw by the thousand, or leak on purpose.
    without: &'static [&'static str],
}

/// Plain Rust with no driver and no hours of arithmetic; views, reads and writes of tensors on the simulated card.
const MIRI: [Part; 3] = [
    Part {
        package: "narrowgauge-sim",
        target: &["--lib"],
        modules: &[
            "mbarrier::",
            "matrix::",
            "numeric::",
            "parse::",
            "race::",
            "schedule::",
            "tensor_map::",
            "tma::",
        ],
        without: &["every_", "neighbours_", "other_ranks"],
    },
    Part {
        package: "narrowgauge",
        target: &["--lib"],
        modules: &[
            "device::status",
            "dtype::",
            "error::",
            "fp8::",
            "tensor::",
            "validate::",
            "verify::compare",
            "verify::source",
        ],
        without: &["every_", "all_", "a_bf16_rounds", "normals_have"],
    },
    Part {
        package: "narrowgauge",
        target: &["--test", "device"],
        modules: &["tensors::"],
        without: &["no_overlap_is_never", "more_than_the_card", "a_view_of_rank_four"],
    },
];

/// Runs what the machine has the tools for.
pub fn soundness() -> Result<(), String> {
    let begun = Instant::now();
    miri()?;
    deny()?;
    println!("soundness: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn rustup(words: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(root()).args(words);
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(name);
    }
    command
}

/// Miri of the nightly toolchain, installed where rustup can.
fn miri() -> Result<(), String> {
    let present = || capture(&mut rustup(&["run", "nightly", "cargo", "miri", "--version"]));
    let install = |_| {
        let words = ["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"];
        capture(rustup(&words).args(["--component", "miri", "--component", "rust-src"]))
            .and_then(|_| present())
    };
    let version = match present().or_else(install) {
        Ok(version) => version,
        Err(reason) => {
            let last = reason.lines().last().unwrap_or_default();
            println!("SKIPPED: Miri is not installed, and rustup cannot get it: {last}");
            return Ok(());
        }
    };
    println!("{}", version.trim());
    for Part { package, target, modules, without } in MIRI {
        let mut command = rustup(&["run", "nightly", "cargo", "miri", "test", "--package", package]);
        command.args(target).arg("--target-dir").arg(root().join("target/miri")).arg("--").args(modules);
        without.iter().for_each(|name| {
            command.args(["--skip", name]);
        });
        // Kernels are nothing that Miri could run, and its own model of powers and roots errs at random by default.
        command
            .env("NARROWGAUGE_NO_NVCC", "1")
            .env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-deterministic-floats");
        run(&mut command)?;
    }
    Ok(())
}

/// Advisories, licences, duplicates and sources of the dependencies, as `deny.toml` says.
fn deny() -> Result<(), String> {
    let cargo = || {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(root());
        command
    };
    if capture(cargo().args(["deny", "--version"])).is_err() {
        println!(
            "SKIPPED: cargo-deny is not installed (cargo install cargo-deny); licences are a step of `cargo xtask test`"
        );
        return Ok(());
    }
    run(cargo().args(["deny", "check"]))
}
