//! What the engine computes: agreement with transformers, and with itself however a prompt is cut into steps.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{run, shipped};

/// Logits of all prompt tokens, row by row.
fn logits(model: &Path, ids: &[u32], more: &[&str]) -> Vec<Vec<f32>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("logits");
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    let ids = ids.join(",");
    let mut args = vec!["--device", "sim:h20", "--new-tokens", "0", "--prompt-ids", &ids];
    args.extend(["--dump-logits", file.to_str().unwrap()]);
    args.extend(more);
    let output = run(model, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(file).unwrap();
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    values.chunks_exact(256).map(<[f32]>::to_vec).collect()
}

/// ‖a − b‖ / ‖b‖
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (difference / b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).sqrt()
}

fn golden() -> Value {
    serde_json::from_slice(&fs::read(shipped().join("golden.json")).unwrap()).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn the_shipped_checkpoint_agrees_with_transformers() {
    let golden = golden();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("logits");
    let golden_file = shipped().join("golden.json");
    let args = ["--device", "sim:h20", "--json", "--dump-logits", file.to_str().unwrap()];
    let output = run(&shipped(), args.into_iter().chain(["--golden", golden_file.to_str().unwrap()]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["prompt_ids"], golden["input_ids"]);
    assert_eq!(report["golden"]["agrees"], json!(true));
    assert_eq!(report["generated_ids"].as_array().unwrap().len(), golden["greedy"].as_array().unwrap().len());
    assert!(report["device"].as_str().unwrap().contains("H20"));
    let operations = report["operations"].as_array().unwrap();
    assert!(!operations.is_empty());
    for operation in operations {
        assert!(operation["launches"].as_u64().unwrap() > 0, "{operation}");
        assert!(operation["counters"]["warp_instructions"].as_u64().unwrap() > 0, "{operation}");
    }

    // The engine's own figures, from the file that it wrote.
    let wanted: Vec<Vec<f32>> = numbers(&golden["logits"]);
    let bytes = fs::read(file).unwrap();
    assert_eq!(bytes.len(), wanted.len() * 256 * 4);
    let got: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let mut errors: Vec<f64> = got.chunks_exact(256).zip(&wanted).map(|(a, b)| distance(a, b)).collect();
    errors.sort_by(f64::total_cmp);
    let median = (errors[30] + errors[31]) / 2.0;
    // Reading a number from JSON may round once.
    let reported = report["golden"]["median_error"].as_f64().unwrap();
    assert!((median - reported).abs() <= f64::EPSILON * median, "{median} {reported}");
    assert!(median <= 1.6 * golden["fp8_activations"]["median_error"].as_f64().unwrap(), "{median}");
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn an_fp8_cache_agrees_with_transformers_too() {
    let golden = shipped().join("golden.json");
    let args = ["--device", "sim:h20", "--json", "--cache", "fp8", "--golden", golden.to_str().unwrap()];
    let output = run(&shipped(), args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["golden"]["agrees"], json!(true));
    let config: Value = serde_json::from_slice(&fs::read(shipped().join("config.json")).unwrap()).unwrap();
    let layers = config["num_hidden_layers"].as_u64().unwrap();
    assert_eq!(report["cache_bytes_per_token"], json!(656 * layers));
    let attention: Vec<&str> = report["operations"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|operation| operation["kernel"].as_str())
        .filter(|kernel| kernel.starts_with("mla_attention"))
        .collect();
    assert!(attention.iter().all(|kernel| kernel.contains("fp8")) && !attention.is_empty(), "{attention:?}");
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn auto_says_what_it_chose() {
    let output = run(&shipped(), ["--prompt", "a", "--new-tokens", "1"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("--device auto: "), "{stderr}");
    assert!(stdout.contains("operation") && !stdout.contains("agrees"), "{stdout}");
}

/// A prefill and single steps after it against one longer prefill, with steps just before, at and after the ends of
/// the cache's 64-token pages. No kernel lets a row's bits depend on the other rows, so the logits are the same bits.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn steps_give_the_logits_of_one_prefill() {
    let ids: Vec<u32> = (0..130).map(|i| (i * 89 + i * i * 7 + 31) % 256).collect();
    for (tokens, prefills) in [(66, vec!["63", "64", "65"]), (130, vec!["127"])] {
        let whole = logits(&shipped(), &ids[..tokens], &[]);
        assert_eq!(whole.len(), tokens);
        for prefill in prefills {
            let stepped = logits(&shipped(), &ids[..tokens], &["--prefill", prefill]);
            for (at, (a, b)) in stepped.iter().zip(&whole).enumerate() {
                assert_eq!(a, b, "prefill of {prefill}, token {at}");
            }
        }
    }
}

/// A cache large enough that its pages are split among blocks, whose partial results a second kernel combines.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_large_cache_agrees_too() {
    let golden_file = shipped().join("golden.json");
    let args = ["--device", "sim:h20", "--json", "--cache-pages", "64"];
    let output = run(&shipped(), args.into_iter().chain(["--golden", golden_file.to_str().unwrap()]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let operations = report["operations"].as_array().unwrap();
    assert!(operations.iter().any(|operation| operation["kernel"] == "mla_combine_bf16"));
}

/// The same checkpoint in two files with an index.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn shards_are_one_checkpoint() {
    use safetensors::SafeTensors;

    let directory = tempfile::tempdir().unwrap();
    fs::copy(shipped().join("config.json"), directory.path().join("config.json")).unwrap();
    let bytes = fs::read(shipped().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut weight_map = serde_json::Map::new();
    for (shard, file) in
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].iter().enumerate()
    {
        let part: Vec<_> =
            tensors.iter().enumerate().filter(|(i, _)| i % 2 == shard).map(|(_, pair)| pair).collect();
        weight_map.extend(part.iter().map(|(name, _)| (name.to_string(), json!(file))));
        safetensors::serialize_to_file(part, None, &directory.path().join(file)).unwrap();
    }
    let index = json!({ "metadata": {}, "weight_map": weight_map });
    fs::write(directory.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_eq!(logits(directory.path(), &[7, 11], &[]), logits(&shipped(), &[7, 11], &[]));
}
