//! Developer tasks: `cargo xtask setup|demo|test|bundle|package|variants|mutants|soundness`.

mod bundle;
#[path = "../../build/compile.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod compile;
mod demo;
mod mutants;
mod package;
mod setup;
mod soundness;
mod tables;
mod test;
#[path = "../../build/toolchain.rs"]
mod toolchain;
#[path = "../../build/variants.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod variants;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask <task>

  setup     find nvcc 12.9 or newer, or install a pinned one into .cuda/ (no root needed)
  demo      set up, then generate tokens from the shipped checkpoint and compare with its golden outputs
  test      set up, then everything that must hold: format, lints, docs, tests, licences
  bundle    dist/narrowgauge-bundle/: checks, benchmarks and demo for a GPU machine with no Rust
  package   dist/packages/: the crates as published, with prebuilt kernel images
  mutants   break the kernels in small ways and count how many breaks their tests notice (--help: its flags)
  variants  docs/gemm-variants.*: registers, instructions and conflicts of every GEMM variant (--check: compare)
  soundness undefined behaviour (Miri, std with assertions) and dependencies (cargo-deny), where the tools can be had";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("setup") => setup::setup().map(|_| ()),
        Some("demo") => demo::demo(),
        Some("test") => test::test(),
        Some("bundle") => bundle::bundle(),
        Some("package") => package::package(),
        Some("variants") => tables::variants(&args.collect::<Vec<_>>()),
        Some("soundness") => soundness::soundness(),
        Some("mutants") => mutants::mutants(&args.collect::<Vec<_>>()),
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

/// The files of a folder, without those of its folders.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                files.push(path);
            }
        }
        Ok(files)
    };
    read().map_err(|e| format!("{}: {e}", folder.display()))
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .map_err(|e| format!("{}: {e}", file.display()))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<(), String> {
    Ok(())
}

fn create(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", folder.display())),
        _ => Ok(()),
    }
}
