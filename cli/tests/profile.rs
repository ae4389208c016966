//! `narrowgauge profile`, run as its users run it.

use narrowgauge::{Card, Device, Error};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn profile(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_narrowgauge")).arg("profile").args(args).output().expect("it starts")
}

/// Whether there are kernels to profile; says so where there are none.
fn kernels() -> bool {
    let device = Device::simulated(Card::H20).unwrap();
    match device.image("gemm_fp8_64x64") {
        Ok(_) => true,
        Err(Error::KernelsNotBuilt { .. }) => {
            eprintln!("SKIPPED: needs compiled kernels: run cargo xtask setup");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let output = profile(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[track_caller]
fn refused(args: &[&str], needle: &str) {
    let output = profile(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty() && stderr.contains(needle), "{args:?}: {stderr}");
}

fn role<'a>(kernel: &'a Value, name: &str) -> &'a Value {
    let roles = kernel["roles"].as_array().unwrap();
    roles.iter().find(|role| role["role"] == name).unwrap_or_else(|| panic!("no {name}: {roles:?}"))
}

#[test]
fn without_an_operation_they_are_listed() {
    let output = profile(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for name in ["fp8_gemm", "grouped_fp8_gemm", "router", "permute", "combine", "rms_norm", "attention"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
    }
}

#[test]
fn bad_input_is_refused() {
    refused(&["gemm9"], "no operation `gemm9`");
    refused(&["fp8_gemm", "--heads", "3"], "has no --heads");
    refused(&["fp8_gemm", "--m", "x"], "--m");
    refused(&["fp8_gemm", "--m", "99999999999"], "too large");
    refused(&["fp8_gemm", "--device", "cuda:0"], "simulated card");
    refused(&["fp8_gemm", "--device", "sim:abacus"], "no such card");
    refused(&["fp8_gemm", "--against", "/nowhere/a.ptx"], "/nowhere/a.ptx");
    refused(&["fp8_gemm", "--entry", "k"], "--against");
}

/// Four tiles of 64 × 64 on four blocks, twelve blocks of K each: what happens follows from the kernel's source.
#[test]
fn a_product_counts_what_its_source_says() {
    if !kernels() {
        return;
    }
    let report = json(&[
        "fp8_gemm", "--m", "128", "--n", "128", "--k", "1536", "--tile-m", "64", "--tile-n", "64", "--lines",
        "9999",
    ]);
    assert_eq!(report["ideal_tensor_macs"], 128 * 128 * 1536);
    let [kernel] = report["kernels"].as_array().unwrap().as_slice() else { panic!("one kernel: {report}") };
    assert_eq!(kernel["tensor_macs"], 128 * 128 * 1536);
    assert_eq!(kernel["kernel"], "gemm_fp8_64x64");
    assert_eq!(kernel["grid"], serde_json::json!([4, 1, 1]));
    // A warp of a consumer does for each block of K four wgmma, and 32 multiply-adds for 64 × 64 / 128 outputs; a trip of
    // its main loop is a round of six stages.
    let consumer = role(kernel, "tensor loop");
    assert_eq!(consumer["warps"], 16);
    assert_eq!(consumer["in_main_loop"]["by_class"]["tensor"], 4 * 6 * 32);
    assert_eq!(consumer["in_main_loop"]["by_class"]["float"], 32 * 6 * 32);
    let producer = role(kernel, "copy loop");
    assert_eq!((&producer["warps"], &producer["trips"]), (&Value::from(4), &Value::from(48)));
    assert_eq!(producer["in_main_loop"]["by_class"]["bulk"], 2 * 48);

    // Every operand is read once, and by two blocks each.
    let bytes = |name: &str, what: &str| {
        let operands = report["operands"].as_array().unwrap();
        operands.iter().find(|operand| operand["name"] == name).unwrap()[what].as_u64().unwrap()
    };
    for (name, size) in [("a", 128 * 1536), ("b", 128 * 1536)] {
        assert_eq!(bytes(name, "ideal_bytes"), size);
        assert_eq!(bytes(name, "unique_bytes"), size);
        assert_eq!(bytes(name, "requested_bytes"), 2 * size);
    }
    assert_eq!((bytes("out", "ideal_bytes"), bytes("out", "unique_bytes")), (32768, 32768));
    assert_eq!(bytes("out", "requested_bytes"), 32768, "whole sectors");
    assert!(
        kernel["registers"].as_u64().is_some_and(|registers| (16..=255).contains(&registers)),
        "{kernel}"
    );
    assert_eq!(kernel["stack_bytes"], 0);
    assert!(kernel["lines"].as_array().unwrap().iter().any(|line| {
        line["ptx"].as_str().unwrap().contains("wgmma.mma_async") && line["tensor_macs"].as_u64().unwrap() > 0
    }));
    // Where a disassembler is at hand, the main loop of the machine code is found.
    if kernel["sass_missing"].is_null() {
        assert_eq!(consumer["sass"]["opcodes"]["QGMMA"], 4 * 6, "{consumer}");
        assert_eq!(consumer["sass"]["opcodes"]["FFMA"], 32 * 6, "{consumer}");
        assert_eq!(producer["sass"]["opcodes"]["UTMALDG"], 2, "{producer}");
    } else {
        eprintln!("SKIPPED: machine code, {}", kernel["sass_missing"]);
    }
}

#[test]
fn every_operation_has_a_profile() {
    if !kernels() {
        return;
    }
    let list = String::from_utf8(profile(&[]).stdout).unwrap();
    for name in list.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        let output = profile(&[name]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(
            text.contains("warp instructions of") && text.contains("counts, never times"),
            "{name}: {text}"
        );
        assert!(text.contains("registers"), "{name}: {text}");
    }
}

/// A folder with the text of one of our own kernels.
fn exported(entry: &str) -> (tempfile::TempDir, PathBuf) {
    let image = Device::simulated(Card::H20).unwrap().image(entry).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernel.ptx");
    std::fs::write(&file, image.ptx.as_bytes()).unwrap();
    (folder, file)
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/fp8_gemm.toml")
}

/// Our own kernel as if somebody else had written it: the same counts and the same bits.
#[test]
fn a_foreign_kernel_runs_on_the_same_operands() {
    if !kernels() {
        return;
    }
    let (_folder, ptx) = exported("gemm_fp8_64x64");
    let (ptx, adapter) = (ptx.to_str().unwrap().to_owned(), example());
    let shape = ["fp8_gemm", "--m", "70", "--n", "200", "--k", "400", "--tile-m", "64", "--tile-n", "64"];
    let against = ["--against", ptx.as_str(), "--adapter", adapter.to_str().unwrap()];
    let report = json(&[shape.as_slice(), &against].concat());
    let (ours, theirs) = (&report["kernels"][0], &report["against"]["kernel"]);
    assert_eq!(ours["kernel"], "gemm_fp8_64x64");
    for figure in
        ["warp_instructions", "load_sectors", "store_sectors", "bank_conflicts", "tensor_macs", "roles"]
    {
        let (mut ours, mut theirs) = (ours[figure].clone(), theirs[figure].clone());
        if let (Some(ours), Some(theirs)) = (ours.as_array_mut(), theirs.as_array_mut()) {
            // Machine code needs ptxas for one and not for the other.
            ours.iter_mut().chain(theirs).for_each(|role| role["sass"] = Value::Null);
        }
        assert_eq!(ours, theirs, "{figure}");
    }
    assert_eq!(report["against"]["differences"][0]["operand"], "out");
    assert_eq!(report["against"]["differences"][0]["elements"], 70 * 200);
    assert_eq!(report["against"]["differences"][0]["different"], 0);
    let output = profile(&[shape.as_slice(), &against].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("out: all 14,000 elements are the same"), "{text}");
}

/// A kernel that nobody would ship: other sums in another order, every load uncoalesced.
#[test]
fn a_naive_kernel_agrees_and_is_told_its_hot_spots() {
    if !kernels() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (ptx, adapter) = (root.join("tests/naive_bf16_gemm.ptx"), root.join("adapters/bf16_gemm.toml"));
    let shape = ["bf16_gemm", "--m", "3", "--n", "100", "--k", "64"];
    let against = ["--against", ptx.to_str().unwrap(), "--adapter", adapter.to_str().unwrap()];
    let report = json(&[shape.as_slice(), &against, &["--unchecked"]].concat());
    let theirs = &report["against"]["kernel"];
    // Three rows of two blocks of two warps, the last of which has nothing but four columns.
    let loops = role(theirs, "loop");
    assert_eq!((&loops["warps"], &loops["trips"]), (&Value::from(12), &Value::from(12 * 64)));
    assert_eq!(loops["warp_instructions_per_trip"], 14.0);
    assert_eq!(theirs["tensor_macs"], 0);
    let spots = theirs["hot_spots"].as_array().unwrap();
    assert!(spots.iter().any(|spot| spot.as_str().unwrap().contains("ld.global.u16")), "{spots:?}");
    let difference = &report["against"]["differences"][0];
    assert_eq!(difference["nan_on_one_side"], 0);
    let (largest, of) =
        (difference["largest"].as_f64().unwrap(), difference["largest_value"].as_f64().unwrap());
    // 64 sums in f32 on each side.
    assert!(largest <= 128.0 * of * f64::from(f32::EPSILON), "{largest} of {of}");
}

#[test]
fn a_foreign_kernel_that_is_wrong_differs() {
    if !kernels() {
        return;
    }
    let (folder, ptx) = exported("gemm_fp8_64x64");
    let ptx = ptx.to_str().unwrap();
    // The adapter beside the PTX is found by its name; this one forgets the last block of K.
    let text =
        std::fs::read_to_string(example()).unwrap().replace("{ u32 = \"k\" }", "{ u32 = \"k - 128\" }");
    std::fs::write(folder.path().join("kernel.toml"), text).unwrap();
    let report = json(&["fp8_gemm", "--m", "64", "--n", "64", "--k", "256", "--against", ptx]);
    assert!(report["against"]["differences"][0]["different"].as_u64().unwrap() > 4000);
    assert_eq!(report["against"]["kernel"]["tensor_macs"], 64 * 64 * 128);
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    if !kernels() {
        return;
    }
    let (folder, ptx) = exported("gemm_fp8_64x64");
    let ptx = ptx.to_str().unwrap();
    let good = std::fs::read_to_string(example()).unwrap();
    let against = ["fp8_gemm", "--against", ptx];
    refused(&against, "kernel.toml");
    for (from, to, needle) in [
        ("entry = \"gemm_fp8_64x64\"", "entry = \"k\"", "no entry `k`"),
        ("block = [256]", "block = [9999]", "9999 threads"),
        ("grid = [", "grd = [", "grd"),
        (
            "{ pointer = \"out\" }",
            "{ pointer = \"output\" }",
            "parameter 0: field 6: there is no operand `output`",
        ),
        ("bytes = 512", "bytes = 520", "parameter 0 has 520 bytes"),
        ("{ pointer = \"out\" }", "{ pointer = \"out\", offset = 1048576 }", "global"),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(folder.path().join("kernel.toml"), good.replace(from, to)).unwrap();
        refused(&against, needle);
    }
    std::fs::write(folder.path().join("kernel.toml"), &good).unwrap();
    refused(&[&against[..], &["--entry", "other"]].concat(), "no entry `other`");
}
