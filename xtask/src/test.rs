//! Everything that must hold before a change lands, one step after the other, with the time of each.

use crate::{bundle, capture, root, run, setup};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a dependency's licence expression may be made of.
const LICENCES: [&str; 11] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
];

type Step = (&'static str, fn() -> Result<(), String>);

const STEPS: [Step; 9] = [
    ("set-up", || setup::setup().map(|_| ())),
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("licences", licences),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("docs", || run(cargo_command(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))),
    ("oldest Rust", oldest_rust),
    ("build", || cargo(&["build", "--workspace", "--all-targets"])),
    ("bundle", bundle::bundle),
    ("tests", tests),
];

/// Runs the steps until one fails.
pub fn test() -> Result<(), String> {
    let start = Instant::now();
    let mut times = Vec::new();
    for (name, step) in STEPS {
        println!("== {name}");
        let begun = Instant::now();
        step().map_err(|e| format!("{name} failed: {e}"))?;
        times.push((name, begun.elapsed()));
    }
    println!();
    for (name, time) in &times {
        println!("{name:11} {:7.1} s", time.as_secs_f64());
    }
    println!("{:11} {:7.1} s", "all", start.elapsed().as_secs_f64());
    Ok(())
}

/// Kernels are never left out here: a test that needs them must run.
fn cargo_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(root()).env("NARROWGAUGE_REQUIRE_KERNELS", "1");
    command
}

fn cargo(args: &[&str]) -> Result<(), String> {
    run(&mut cargo_command(args))
}

/// Runs every test and ends with the sum over all test programs.
fn tests() -> Result<(), String> {
    let mut child = cargo_command(&["test", "--workspace"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run cargo test: {e}"))?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().expect("is piped")).lines() {
        let line = line.map_err(|e| format!("cannot read what cargo test prints: {e}"))?;
        println!("{line}");
        counts.add(&line);
    }
    let status = child.wait().map_err(|e| format!("cannot wait for cargo test: {e}"))?;
    println!("\n{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    match counts.passed {
        _ if !status.success() => Err(format!("cargo test: {status}")),
        0 => Err("no test ran".into()),
        _ => Ok(()),
    }
}

/// Of the lines that end each test program.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    fn add(&mut self, line: &str) {
        let Some(counts) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
            .map(|(_, counts)| counts)
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// The workspace with the toolchain that the manifests promise, where rustup has it or can get it.
fn oldest_rust() -> Result<(), String> {
    const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");
    let rustup = || {
        let mut command = Command::new("rustup");
        command.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
        command
    };
    let present = || capture(rustup().args(["run", OLDEST, "cargo", "--version"]));
    let install = || {
        capture(rustup().args(["toolchain", "install", OLDEST, "--profile", "minimal", "--no-self-update"]))
    };
    if let Err(reason) = present().or_else(|_| install()) {
        println!(
            "left out: rustup has no Rust {OLDEST} and cannot get it: {}",
            reason.lines().last().unwrap_or("")
        );
        return Ok(());
    }
    let target = root().join("target/oldest-rust");
    let mut check = rustup();
    check.args(["run", OLDEST, "cargo", "check", "--quiet", "--workspace", "--target-dir"]).arg(target);
    run(check.env("NARROWGAUGE_KERNEL_CACHE", root().join("target/narrowgauge-kernels")))
}

/// Every package that the workspace can pull in must offer a licence of the list.
fn licences() -> Result<(), String> {
    let text = capture(&mut cargo_command(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let mut refused = Vec::new();
    for package in packages {
        let expression = package["license"].as_str().unwrap_or("none declared");
        if !is_allowed(expression) {
            refused.push(format!("{} {}: {expression}", package["name"], package["version"]));
        }
    }
    println!("{} packages", packages.len());
    if refused.is_empty() {
        Ok(())
    } else {
        Err(format!("licences not on the list:\n{}", refused.join("\n")))
    }
}

/// SPDX: every term of an AND must be allowed, and one of an OR. `/` is the old spelling of OR.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let term =
        |term: &str| LICENCES.contains(&term.split_whitespace().collect::<Vec<_>>().join(" ").as_str());
    if expression.contains('(') {
        // Parentheses only ever group an OR inside an AND in practice, so AND binds last there.
        plain.split(" AND ").all(|all| all.split(" OR ").any(term))
    } else {
        plain.split(" OR ").any(|any| any.split(" AND ").all(term))
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, is_allowed};

    #[test]
    fn counts_of_test_programs_are_added() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.18s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 13, failed: 2, ignored: 1 });
    }

    #[test]
    fn licence_expressions() {
        for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["none declared", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND GPL-2.0"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
