//! One folder that runs the checks, the benchmarks and the demo on a GPU machine with no Rust and no network.

use crate::{create, files, make_executable, remove, root, run, setup};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the folder may weigh.
const LIMIT: u64 = 12 << 20;

/// The folder's front door.
const RUN: &str = r#"#!/bin/sh
# check: every kernel against its oracle. bench: the benchmarks. demo: tokens from the checkpoint.
# Further arguments are passed on, as in: ./run.sh check --device sim:h20
set -eu
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
task=${1:-help}
[ "$#" -eq 0 ] || shift
case "$task" in
check | bench) exec "$here/narrowgauge" "$task" "$@" ;;
demo) exec "$here/narrowgauge" demo --model "$here/checkpoint" --golden "$here/checkpoint/golden.json" "$@" ;;
*)
    echo "usage: ./run.sh check|bench|demo [--device auto|cuda:0|sim:h20]" >&2
    exit 2
    ;;
esac
"#;

/// Builds `dist/narrowgauge-bundle/` and says where it is.
pub fn bundle() -> Result<(), String> {
    setup::setup()?;
    let root = root();
    let bundle = root.join("dist/narrowgauge-bundle");
    remove(&bundle)?;
    create(&bundle.join("checkpoint"))?;
    let binary = build(&root)?;
    copy(&binary, &bundle.join("narrowgauge"))?;
    let checkpoint = root.join("examples/deepseek/checkpoint");
    for file in files(&checkpoint)? {
        let name = file.file_name().ok_or("a checkpoint file has no name")?;
        copy(&file, &bundle.join("checkpoint").join(name))?;
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&root.join(licence), &bundle.join(licence))?;
    }
    let script = bundle.join("run.sh");
    fs::write(&script, RUN).map_err(|e| format!("{}: {e}", script.display()))?;
    make_executable(&script)?;
    let mut size = 0;
    for file in files(&bundle)?.into_iter().chain(files(&bundle.join("checkpoint"))?) {
        size += fs::metadata(&file).map_err(|e| format!("{}: {e}", file.display()))?.len();
    }
    let mib = size as f64 / f64::from(1 << 20);
    if size > LIMIT {
        return Err(format!(
            "{} is {mib:.1} MiB, and at most {} MiB are allowed",
            bundle.display(),
            LIMIT >> 20
        ));
    }
    println!("{}: {mib:.1} MiB", bundle.display());
    Ok(())
}

/// The command line with the engine in it, stripped.
fn build(root: &Path) -> Result<PathBuf, String> {
    let target = root.join("target/bundle");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(root)
        .env("NARROWGAUGE_REQUIRE_KERNELS", "1")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    cargo.args(["build", "--release", "--package", "narrowgauge-cli", "--features", "demo", "--target-dir"]);
    run(cargo.arg(&target))?;
    Ok(target.join("release/narrowgauge"))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(|_| ()).map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))
}
