//! `narrowgauge check` as a user runs it: what it prints, what it gives a script, and that it can fail.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn check(arguments: &[&str], images: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrowgauge"));
    command.args(["check", "--device", "sim:h20", "--seeds", "1"]).args(arguments);
    if let Some(images) = images {
        command.env("NARROWGAUGE_IMAGES", images);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether this build has kernels; says aloud what is left out where it has none.
fn kernels() -> bool {
    let any = !narrowgauge::device::kernels().is_empty();
    if !any {
        println!("SKIPPED: this build has no kernels: run cargo xtask setup");
    }
    any
}

#[test]
fn a_family_that_agrees() {
    if !kernels() {
        return;
    }
    let output = check(&["--family", "vocab", "--json"], None);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["passed"], &report["policies"]), (&true.into(), &3.into()));
    let family = &report["families"][0];
    assert_eq!(family["family"], "vocab");
    assert!(family["exact"].as_u64().unwrap() > 0 && family["canaries"].as_u64().unwrap() > 0);
    assert_eq!((&family["mismatches"], &family["differing"]), (&0.into(), &0.into()));
    assert!(report["kernels_run"].as_array().unwrap().iter().any(|kernel| kernel == "argmax_f32"));
    let skipped = report["skipped"].as_array().unwrap();
    assert!(skipped.iter().any(|line| line.as_str().unwrap().contains("not asked for")), "{skipped:?}");
}

#[test]
fn the_table_says_what_was_compared() {
    if !kernels() {
        return;
    }
    let output = check(&["--filter", "FP8 33x576x448", "--policy", "late"], None);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for part in [
        "ok    gemm/FP8 33x576x448",
        "\nbreadth",
        "\naccuracy",
        "\ndeterminism",
        "\nenvironment",
        "not tried:",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert!(shown.ends_with("everything agrees\n"), "{shown}");
}

/// A kernel that does nothing is wrong, and the report says how to see it again.
#[test]
fn a_wrong_kernel_fails_the_check() {
    if !kernels() {
        return;
    }
    let images = tempfile::tempdir().unwrap();
    let idle = ".version 8.0\n.target sm_90a\n.address_size 64\n\
                .visible .entry add_bf16(.param .align 8 .b8 p[56])\n{\n ret;\n}\n";
    std::fs::write(images.path().join("add_bf16.90a.ptx"), idle).unwrap();
    let output = check(&["--filter", "norm/add 4x7168", "--policy", "eager"], Some(images.path()));
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    let again = "narrowgauge check --device sim:h20 --filter 'norm/add 4x7168' --first-seed 1 --seeds 1 --policy eager";
    assert!(shown.contains("mismatches 1") && shown.contains(again), "{shown}");
    assert!(shown.ends_with("SOMETHING IS WRONG\n"), "{shown}");
}

#[test]
fn nothing_to_check_is_an_error() {
    for arguments in
        [&["--filter", "no such case"][..], &["--family", "none"], &["--policy", "never"], &["--seeds", "0"]]
    {
        let output = check(arguments, None);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stdout));
        assert!(!output.stderr.is_empty());
    }
}
