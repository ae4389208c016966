//! Checks of undefined behaviour and of the dependencies, with tools that not every machine has: what cannot be had is
//! said aloud, and skipped.

use crate::{capture, root, run};
use std::path::PathBuf;
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
            "exec::",
            "mbarrier::",
            "matrix::",
            "numeric::",
            "parse::",
            "race::",
            "schedule::",
            "target::",
            "tensor_core::tests::narrow_",
            "tensor_core::tests::thirteen_",
            "tensor_map::",
            "tma::",
        ],
        without: &["every_", "neighbours_", "other_ranks", "two_dimensions"],
    },
    Part {
        package: "narrowgauge",
        target: &["--lib"],
        modules: &[
            "card::",
            "device::status",
            "dtype::",
            "error::",
            "fp8::",
            "tensor::",
            "validate::",
            "verify::compare",
            "verify::evidence",
            "verify::source",
        ],
        without: &["every_", "all_", "a_bf16_rounds", "normals_have", "the_steps_are"],
    },
    Part {
        package: "narrowgauge",
        target: &["--test", "device"],
        modules: &["tensors::"],
        without: &["no_overlap_is_never", "more_than_the_card", "a_view_of_rank_four"],
    },
];

/// The cargo-deny that is installed where there is none yet, and the oldest that reads `deny.toml`.
const DENY: &str = "0.20.2";
const OLDEST_DENY: (u32, u32) = (0, 18);

type Step = (&'static str, fn() -> Result<(), String>);

const STEPS: [Step; 3] = [("Miri", miri), ("std with its assertions", careful), ("cargo-deny", deny)];

/// Runs what the machine has the tools for.
pub fn soundness() -> Result<(), String> {
    for (name, step) in STEPS {
        let begun = Instant::now();
        println!("== {name}");
        step()?;
        println!("== {name}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    Ok(())
}

fn rustup(words: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(root()).args(words);
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(name);
    }
    // Kernels are nothing that these tools could look into.
    command.env("NARROWGAUGE_NO_NVCC", "1");
    command
}

/// What the nightly toolchain's Miri calls itself, installed with the sources of std where rustup can. None, said aloud,
/// where it cannot.
fn nightly() -> Option<String> {
    let present = || capture(&mut rustup(&["run", "nightly", "cargo", "miri", "--version"]));
    let install = |_| {
        let words = ["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"];
        capture(rustup(&words).args(["--component", "miri", "--component", "rust-src"]))
            .and_then(|_| present())
    };
    present().or_else(install).map_err(|reason| skipped("no nightly Rust with Miri to be had", &reason)).ok()
}

fn skipped(what: &str, reason: &str) {
    println!("SKIPPED: {what}: {}", reason.lines().last().unwrap_or_default());
}

fn miri() -> Result<(), String> {
    let Some(version) = nightly() else { return Ok(()) };
    println!("{}", version.trim());
    for Part { package, target, modules, without } in MIRI {
        let mut command = rustup(&["run", "nightly", "cargo", "miri", "test", "--package", package]);
        command.args(target).arg("--target-dir").arg(root().join("target/miri")).arg("--").args(modules);
        without.iter().for_each(|name| {
            command.args(["--skip", name]);
        });
        // Its own model of powers and roots errs at random by default.
        command.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-deterministic-floats");
        run(&mut command)?;
    }
    Ok(())
}

/// The simulated card's tests with a standard library that keeps its debug assertions, and layouts that no code may rely
/// on: kernels take Miri minutes each.
fn careful() -> Result<(), String> {
    if nightly().is_none() {
        return Ok(());
    }
    let version = capture(&mut rustup(&["run", "nightly", "rustc", "-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
    let mut fetch = rustup(&["run", "nightly", "cargo", "fetch", "-Zbuild-std", "--target", host]);
    if let Err(reason) = capture(&mut fetch) {
        skipped("what std is built of cannot be had", &reason);
        return Ok(());
    }
    let mut command =
        rustup(&["run", "nightly", "cargo", "test", "-Zbuild-std", "--package", "narrowgauge-sim", "--lib"]);
    command
        .args(["--test", "instructions", "--target", host, "--target-dir"])
        .arg(root().join("target/careful"));
    command
        .env("RUSTFLAGS", "-Cdebug-assertions=on -Zrandomize-layout -Zextra-const-ub-checks")
        .env("CARGO_PROFILE_TEST_DEBUG", "0");
    run(&mut command)
}

fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root());
    command
}

/// The folder of our own cargo-deny.
fn tools() -> PathBuf {
    root().join("target/tools")
}

/// A cargo-deny that reads `deny.toml`: cargo's, ours, or ours made now.
fn find_deny() -> Result<PathBuf, String> {
    let fits = |program: &PathBuf| {
        let version = capture(Command::new(program).arg("--version")).unwrap_or_default();
        let mut numbers = version.split(['.', ' ']).filter_map(|word| word.parse().ok());
        numbers.next().zip(numbers.next()).is_some_and(|version| version >= OLDEST_DENY)
    };
    let own = tools().join("bin/cargo-deny");
    let known = [PathBuf::from("cargo-deny"), own.clone()];
    if let Some(program) = known.into_iter().find(fits) {
        return Ok(program);
    }
    println!("no cargo-deny of version {}.{} or newer: installing {DENY}", OLDEST_DENY.0, OLDEST_DENY.1);
    let mut install = cargo();
    install.args(["install", "cargo-deny", "--version", DENY, "--locked", "--root"]).arg(tools());
    // It runs for seconds and takes minutes to build.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
    capture(&mut install)?;
    Ok(own)
}

/// Advisories, licences, duplicates and sources of the dependencies, as `deny.toml` says.
fn deny() -> Result<(), String> {
    let program = match find_deny() {
        Ok(program) => program,
        Err(reason) => {
            skipped("cargo-deny cannot be had; licences are a step of `cargo xtask test`", &reason);
            return Ok(());
        }
    };
    let deny = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(root()).env("CARGO", env!("CARGO")).args(words);
        command
    };
    run(&mut deny(&["check", "--hide-inclusion-graph", "bans"]))?;
    run(&mut deny(&["--workspace", "check", "--hide-inclusion-graph", "licenses", "sources"]))?;
    // The database of advisories lies on GitHub, which not every machine reaches.
    if let Err(reason) = capture(&mut deny(&["fetch", "db"])) {
        let why = reason.lines().find(|line| line.contains("unable to access")).unwrap_or(&reason);
        skipped("the database of advisories cannot be had", why);
        return Ok(());
    }
    run(&mut deny(&["--workspace", "check", "--hide-inclusion-graph", "advisories"]))
}
