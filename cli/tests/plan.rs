//! `narrowgauge plan`, run as its users run it.

use serde_json::Value;
use std::process::{Command, Output};

fn plan(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_narrowgauge"))
        .args(["plan", "gemm"])
        .args(args)
        .output()
        .expect("it starts")
}

#[track_caller]
fn printed(args: &[&str]) -> String {
    let output = plan(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_ranking_names_its_terms() {
    let text = printed(&["--m", "16", "--n", "24576", "--k", "7168", "--card", "h20"]);
    let mut lines = text.lines();
    assert!(
        lines.next().unwrap().starts_with("H20: at least 44.27 us for the bytes, 19.04 us for the products")
    );
    let head = lines.next().unwrap();
    let costs =
        ["hbm", "l2", "fill", "tensor", "promotion", "quantisation", "epilogue", "reduction", "launch"];
    for term in costs.into_iter().chain(["overlap", "prefetch", "behind"]) {
        assert!(head.split_whitespace().any(|word| word == term), "{term}: {head}");
    }
    assert!(lines.next().unwrap().starts_with("gemm_fp8_"));
}

#[test]
fn json_is_in_the_order_of_cost() {
    let text = printed(&["--m", "4096", "--n", "7168", "--k", "2048", "--card", "h200", "--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let costs: Vec<f64> =
        value["plans"].as_array().unwrap().iter().map(|p| p["cycles"].as_f64().unwrap()).collect();
    assert!(costs.len() > 1 && costs.is_sorted(), "{costs:?}");
    assert_eq!(value["plans"][0]["terms"].as_object().unwrap().len(), 11);
    let [alone, behind] =
        ["microseconds", "dependent_microseconds"].map(|name| value["plans"][0][name].as_f64().unwrap());
    assert!(behind < alone, "{behind} behind another kernel, {alone} alone");
    let grouped =
        ["--m", "4096", "--n", "7168", "--k", "2048", "--groups", "8", "--mode", "contiguous", "--json"];
    let value: Value = serde_json::from_str(&printed(&grouped)).unwrap();
    assert_eq!(value["card"], "H20");
}

/// A list costs what its copies keep busy, and fewer rows to pick from are fewer bytes.
#[test]
fn a_list_of_rows_is_a_flag() {
    let cycles = |more: &[&str]| -> f64 {
        let common = ["--m", "4096", "--n", "4096", "--k", "7168", "--card", "h200", "--json"];
        let value: Value = serde_json::from_str(&printed(&[&common[..], more].concat())).unwrap();
        value["plans"][0]["terms"]["hbm"].as_f64().unwrap()
    };
    assert!(cycles(&["--gather", "--a-rows", "64"]) < cycles(&["--gather"]));
    assert_eq!(cycles(&["--gather"]), cycles(&[]));
    assert!(!plan(&["--m", "1", "--n", "8", "--k", "16", "--a-rows", "3"]).status.success());
}

#[test]
fn bad_input_is_refused() {
    for (args, needle) in [
        (&["--m", "1", "--n", "8", "--k", "16", "--card", "l20"][..], "no kernels for 89"),
        (&["--m", "1", "--n", "8", "--k", "16", "--card", "h99"], "no such card"),
        (&["--m", "0", "--n", "8", "--k", "16"], "--m 0"),
        (&["--n", "8", "--k", "16"], "--m"),
        (&["--m", "1", "--n", "128", "--k", "16", "--input", "bf16", "--swiglu"], "no kernel computes"),
    ] {
        let output = plan(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(needle), "{args:?}: {stderr}");
    }
}

#[test]
fn the_heat_map_is_a_drawing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("map.svg");
    printed(&["--heatmap", file.to_str().unwrap()]);
    let svg = std::fs::read_to_string(file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    // A cell for each of four cards and 13 numbers of rows, and the background.
    assert_eq!(svg.matches("<rect ").count(), 4 * 13 + 11 + 1);
}

#[test]
fn floors_are_a_table() {
    let text = printed(&["--floors"]);
    let columns = text.lines().next().unwrap().matches('|').count();
    assert!(text.lines().all(|line| line.matches('|').count() == columns), "{text}");
    assert!(text.lines().any(|line| line.starts_with("| dense 16x7168x16384 |")));
}
