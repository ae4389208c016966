//! Scenarios in child processes that load a stand-in for the CUDA driver.

use std::path::Path;
use std::process::{Command, Output};

/// Runs a scenario, an ignored test of this program, over the stand-in compiled with `flags`; its output.
pub fn run(scenario: &str, flags: &[&str], environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    stand_in(folder.path(), flags);
    child(scenario, folder.path(), environment)
}

/// Compiles the stand-in into a folder, with an image for one kernel beside it.
pub fn stand_in(folder: &Path, flags: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/fake_driver.c");
    let library = folder.join("libcuda.so.1");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wno-format-zero-length", "-pthread", "-o"])
        .arg(&library)
        .args(flags)
        .arg(source)
        .status()
        .expect("a C compiler, as the linker of Rust is one");
    assert!(compiled.success());
    std::fs::write(folder.join("add_bf16.90a.ptx"), ".version 8.0").unwrap();
    std::fs::write(folder.join("add_bf16.90a.cubin"), "\x7fELF").unwrap();
}

/// Runs a scenario with the libraries of a folder, to its good end.
pub fn child(scenario: &str, libraries: &Path, environment: &[(&str, &str)]) -> String {
    let output = spawn(scenario, libraries, environment);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario} ended with {}\n{text}\n{errors}", output.status);
    assert!(text.contains("1 passed"), "{scenario} did not run\n{text}");
    assert!(!errors.contains("panicked"), "{errors}");
    text
}

fn spawn(scenario: &str, libraries: &Path, environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1", scenario])
        .env("LD_LIBRARY_PATH", libraries)
        .env("NARROWGAUGE_IMAGES", libraries)
        .env("NARROWGAUGE_SCENARIO", "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// Whether this process is the child: `--ignored` of a curious reader must not touch a real driver.
pub fn is_child() -> bool {
    std::env::var_os("NARROWGAUGE_SCENARIO").is_some()
}

/// The part of the output between two marks.
pub fn between<'a>(text: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let start = text.find(from).unwrap_or_else(|| panic!("no {from:?} in\n{text}")) + from.len();
    let end = text[start..].find(to).unwrap_or_else(|| panic!("no {to:?} in\n{text}")) + start;
    text[start..end].lines().filter(|line| !line.is_empty()).collect()
}
