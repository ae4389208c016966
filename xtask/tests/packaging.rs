//! Builds as strangers do them: no nvcc, docs.rs, a set-up that comes after the first build, a crate outside.
//!
//! Each works on a copy of the checkout without `.cuda/` and `prebuilt/`, in target folders that are kept, so that
//! dependencies compile once.

use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[test]
fn a_build_without_nvcc_works_and_a_later_setup_adds_the_kernels() {
    let checkout = Checkout::copy("without-nvcc");
    let refused = checkout.cargo(&["check"]).env("NARROWGAUGE_REQUIRE_KERNELS", "1").output().unwrap();
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("NARROWGAUGE_REQUIRE_KERNELS is set"), "{}", stderr(&refused));

    let output = run(&mut checkout.cargo(&["check", "--workspace", "--message-format", "json"]));
    assert!(stderr(&output).contains("built without kernels"), "no warning:\n{}", stderr(&output));
    assert!(!has_kernels(&output), "kernels came out of nowhere");

    // What set-up would install is lent from here: the same file names and the same note to cargo.
    let installed = root().join(".cuda");
    if !installed.join("nvidia/cu13/bin/nvcc").is_file() {
        eprintln!(
            "the second half needs what `cargo xtask setup` installs, and this machine has its own nvcc"
        );
        return;
    }
    std::os::unix::fs::symlink(&installed, checkout.folder.join(".cuda")).unwrap();
    let again = run(&mut checkout.cargo(&["check", "--message-format", "json"]));
    assert!(!has_kernels(&again), "cargo noticed by itself: the note of set-up is not what is tested");
    run(&mut checkout.cargo(&["run", "--quiet", "--package", "xtask", "--", "setup"]));
    let after = run(&mut checkout.cargo(&["check", "--message-format", "json"]));
    assert!(has_kernels(&after), "set-up did not bring the kernels:\n{}", stderr(&after));
}

#[test]
fn docs_rs_can_build_the_documentation() {
    let checkout = Checkout::copy("docs-rs");
    let mut cargo = checkout.cargo(&["doc", "--package", "narrowgauge", "--no-deps"]);
    run(cargo.env("DOCS_RS", "1").env_remove("CUDARC_CUDA_VERSION"));
    assert!(checkout.target().join("doc/narrowgauge/index.html").is_file());
}

#[test]
fn a_stranger_runs_the_readme_from_the_packages() {
    let checkout = Checkout::copy("packages");
    let installed = root().join(".cuda");
    if installed.is_dir() {
        std::os::unix::fs::symlink(&installed, checkout.folder.join(".cuda")).unwrap();
    }
    let mut package = Command::new(env!("CARGO"));
    package.current_dir(&checkout.folder).env("CARGO_TARGET_DIR", checkout.target());
    package.env("NARROWGAUGE_KERNEL_CACHE", kernel_cache()).env("CARGO_PROFILE_DEV_DEBUG", "0");
    run(package.args(["run", "--quiet", "--package", "xtask", "--", "package"]));

    // Outside of the checkout, so that its cargo configuration is not found either.
    let stranger = Temporary::new();
    let packages = checkout.folder.join("dist/packages");
    let manifest = format!(
        r#"
[package]
name = "stranger"
edition = "2024"

[dependencies]
narrowgauge = {{ path = "{0}/narrowgauge-{1}" }}

[patch.crates-io]
narrowgauge-sim = {{ path = "{0}/narrowgauge-sim-{1}" }}

[profile.dev.package.narrowgauge-sim]
opt-level = 2
"#,
        packages.display(),
        env!("CARGO_PKG_VERSION")
    );
    fs::write(stranger.0.join("Cargo.toml"), manifest).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let example = readme.split("```rust,no_run\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    fs::create_dir(stranger.0.join("src")).unwrap();
    fs::write(stranger.0.join("src/main.rs"), example).unwrap();
    // The versions that were tested, where the registry has newer ones.
    fs::copy(root().join("Cargo.lock"), stranger.0.join("Cargo.lock")).unwrap();
    let mut cargo = without_cuda(&stranger.0, &scratch().join("stranger-target"));
    let output = run(cargo.arg("run").env_remove("CUDARC_CUDA_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "256");
}

/// A folder that goes with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        let folder = env::temp_dir().join(format!("narrowgauge-stranger-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Temporary(folder)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A copy of the tracked and the new files, below the target folder. One at a time: cargo takes the packages of
/// different copies for the same ones where they share a target folder.
struct Checkout {
    folder: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Checkout {
    fn copy(name: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = scratch().join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        let list = run(Command::new("git").current_dir(root()).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]));
        for file in String::from_utf8(list.stdout).unwrap().split_terminator('\0') {
            let from = root().join(file);
            // A deleted file stays in git's list until the deletion is committed.
            if from.is_file() {
                let to = folder.join(file);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(from, to).unwrap();
            }
        }
        Checkout { folder, _turn: turn }
    }

    fn target(&self) -> PathBuf {
        scratch().join("target")
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = without_cuda(&self.folder, &self.target());
        cargo.args(args);
        cargo
    }
}

/// Cargo with no CUDA compiler in sight, apart from what the checkout at `folder` has installed.
fn without_cuda(folder: &Path, target: &Path) -> Command {
    assert!(!Path::new("/usr/local/cuda/bin/nvcc").is_file(), "cannot hide /usr/local/cuda from the build");
    let path = env::var_os("PATH").unwrap();
    let path =
        env::join_paths(env::split_paths(&path).filter(|folder| !folder.join("nvcc").exists())).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(folder)
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    // The kernels of this very tree were compiled already.
    cargo.env("NARROWGAUGE_KERNEL_CACHE", kernel_cache());
    let unwanted =
        ["NVCC", "CUDA_HOME", "CUDA_PATH", "NARROWGAUGE_REQUIRE_KERNELS", "NARROWGAUGE_ARCHS", "DOCS_RS"];
    for name in unwanted {
        cargo.env_remove(name);
    }
    cargo
}

fn has_kernels(output: &Output) -> bool {
    let messages = String::from_utf8_lossy(&output.stdout);
    let executed = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|message| {
            let variables = message["env"].as_array();
            variables.is_some_and(|pairs| pairs.iter().any(|pair| pair[0] == "NARROWGAUGE_IMAGES_KEY"))
        })
        .expect("cargo reports the build script of narrowgauge");
    executed["cfgs"].as_array().unwrap().iter().any(|cfg| cfg == "ng_kernels")
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?} ended with {}:\n{log}\n{}", output.status, stderr(&output));
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn kernel_cache() -> PathBuf {
    root().join("target/narrowgauge-kernels")
}

fn scratch() -> PathBuf {
    let folder = root().join("target/packaging");
    fs::create_dir_all(&folder).unwrap();
    folder
}
