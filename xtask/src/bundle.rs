//! One folder that runs the checks, the benchmarks and the demo on a GPU machine with no Rust and no network.

use crate::{capture, create, files, make_executable, remove, root, run, setup};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
    // Not by the profile: benchmarks keep their symbols.
    run(Command::new("strip").arg(bundle.join("narrowgauge")))?;
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

/// The command line with the engine in it.
fn build(root: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).env("NARROWGAUGE_REQUIRE_KERNELS", "1");
    cargo.args(["rustc", "--profile", "bundle", "--package", "narrowgauge-cli", "--bin", "narrowgauge"]);
    cargo.args(["--features", "demo", "--message-format", "json-render-diagnostics"]);
    // A fixed address needs no table of relocations, which would weigh half a megabyte.
    cargo.args(["--", "-C", "relocation-model=static"]);
    let messages = capture(cargo.stderr(Stdio::inherit()))?;
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact" && message["target"]["name"] == "narrowgauge"
        })
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.ok_or_else(|| "cargo does not say where the command line is".to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(|_| ()).map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))
}
