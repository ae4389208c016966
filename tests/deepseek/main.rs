//! The example engine, run as its users run it: the built binary, its exit code and what it prints.

mod bad_input;
mod outputs;

/// Here for its unit tests: cargo builds examples for tests, but does not run tests in them.
#[allow(dead_code)]
#[path = "../../examples/deepseek/main.rs"]
mod source;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// `cargo test` builds examples beside the tests; a run of this test alone does not, so it builds the one it needs.
fn engine() -> &'static Path {
    static ENGINE: OnceLock<PathBuf> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let test = std::env::current_exe().expect("the test knows where it is");
        let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
        let engine = profile.join("examples").join(format!("deepseek{}", std::env::consts::EXE_SUFFIX));
        if !engine.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--example", "deepseek"]);
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().expect("cargo starts").success());
        }
        assert!(engine.exists(), "{} was not built", engine.display());
        engine
    })
}

fn run<I: IntoIterator<Item: AsRef<OsStr>>>(model: &Path, args: I) -> Output {
    Command::new(engine()).arg("--model").arg(model).args(args).output().expect("the engine starts")
}

/// The checkpoint that the repository ships.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deepseek/checkpoint")
}
