//! Bad input ends with exit code 2 and one line that says what is wrong, before anything is computed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{run, shipped};

const SIMULATED: [&str; 2] = ["--device", "sim:h20"];

/// Runs on the simulated card and wants exactly one line of complaint, with all of `needles` in it.
#[track_caller]
fn refused(model: &Path, args: &[&str], needles: &[&str]) {
    let output = run(model, SIMULATED.iter().chain(args));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    for needle in needles {
        assert!(stderr.contains(needle), "`{needle}` is not in: {stderr}");
    }
}

/// A copy of the shipped checkpoint, to be spoilt.
fn copy() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(shipped().join(file), directory.path().join(file)).unwrap();
    }
    directory
}

fn with_config(change: impl FnOnce(&mut Value)) -> TempDir {
    let directory = copy();
    let path = directory.path().join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
    directory
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn with_tensors(change: impl FnOnce(&mut Tensors)) -> TempDir {
    let directory = copy();
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| (name.to_string(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
    directory
}

#[test]
fn a_directory_without_config() {
    let empty = tempfile::tempdir().unwrap();
    refused(empty.path(), &["--prompt", "a"], &["config.json"]);
    refused(&empty.path().join("nowhere"), &["--prompt", "a"], &["nowhere", "config.json"]);
}

#[test]
fn a_config_that_is_no_json() {
    let directory = copy();
    fs::write(directory.path().join("config.json"), "{\n \"model_type\": \n").unwrap();
    refused(directory.path(), &["--prompt", "a"], &["config.json"]);
}

#[test]
fn an_unknown_model_type() {
    let directory = with_config(|config| config["model_type"] = json!("llama"));
    refused(directory.path(), &["--prompt", "a"], &["model_type", "llama", "deepseek_v3"]);
}

#[test]
fn dimensions_that_the_kernels_do_not_take() {
    let directory = with_config(|config| config["kv_lora_rank"] = json!(256));
    refused(directory.path(), &["--prompt", "a"], &["kv_lora_rank is 256", "512"]);
    let directory = with_config(|config| {
        config.as_object_mut().unwrap().remove("hidden_size");
    });
    refused(directory.path(), &["--prompt", "a"], &["hidden_size"]);
}

#[test]
fn no_safetensors() {
    let directory = copy();
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    refused(directory.path(), &["--prompt", "a"], &["no *.safetensors"]);
}

#[test]
fn a_shard_that_the_index_names_is_missing() {
    let directory = copy();
    let index = json!({ "weight_map": { "lm_head.weight": "model-00002-of-00002.safetensors" } });
    fs::write(directory.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    refused(directory.path(), &["--prompt", "a"], &["model-00002-of-00002.safetensors"]);
}

#[test]
fn an_index_that_leads_elsewhere() {
    let directory = copy();
    let index = json!({ "weight_map": { "lm_head.weight": "../model.safetensors" } });
    fs::write(directory.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    refused(directory.path(), &["--prompt", "a"], &["../model.safetensors"]);
}

#[test]
fn a_truncated_file() {
    let directory = copy();
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    // Within the data, within the header, within the header's length, and nothing at all.
    for keep in [bytes.len() - 1000, 4000, 5, 0] {
        fs::write(&path, &bytes[..keep]).unwrap();
        refused(directory.path(), &["--prompt", "a"], &["model.safetensors"]);
    }
}

#[test]
fn a_tensor_is_missing() {
    let name = "model.layers.1.mlp.experts.3.up_proj.weight_scale_inv";
    let directory = with_tensors(|tensors| {
        tensors.remove(name);
    });
    refused(directory.path(), &["--prompt", "a"], &[name, "missing"]);
}

#[test]
fn a_tensor_of_the_wrong_shape() {
    let name = "model.layers.0.self_attn.o_proj.weight";
    let directory = with_tensors(|tensors| tensors.get_mut(name).unwrap().1.reverse());
    refused(directory.path(), &["--prompt", "a"], &[name, "[512, 256]", "[256, 512]"]);
    let name = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv";
    let directory = with_tensors(|tensors| tensors.get_mut(name).unwrap().1.reverse());
    refused(directory.path(), &["--prompt", "a"], &[name, "[2, 5]", "[5, 2]"]);
}

#[test]
fn a_tensor_of_the_wrong_dtype() {
    let name = "model.layers.1.mlp.shared_experts.down_proj.weight";
    let directory = with_tensors(|tensors| tensors.get_mut(name).unwrap().0 = Dtype::I8);
    refused(directory.path(), &["--prompt", "a"], &[name, "I8", "F8_E4M3"]);
    let name = "model.norm.weight";
    let directory = with_tensors(|tensors| tensors.get_mut(name).unwrap().0 = Dtype::F16);
    refused(directory.path(), &["--prompt", "a"], &[name, "F16", "BF16"]);
}

/// The router gives no expert to a token whose scores are NaN; the rows that nobody wrote are then not read either.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_router_that_answers_nan() {
    let directory = with_tensors(|tensors| {
        let (_, _, data) = tensors.get_mut("model.layers.1.mlp.gate.weight").unwrap();
        for value in data.chunks_exact_mut(2) {
            value.copy_from_slice(&0x7FC0u16.to_le_bytes());
        }
    });
    refused(directory.path(), &["--prompt", "a", "--new-tokens", "1"], &["bad data", "NaN"]);
}

#[test]
fn a_token_outside_the_vocabulary() {
    refused(&shipped(), &["--prompt-ids", "1,256,2"], &["token id 256", "position 1"]);
}

#[test]
fn ids_that_are_no_ids() {
    refused(&shipped(), &["--prompt-ids", "1,x"], &["`x`"]);
    refused(&shipped(), &["--prompt-ids", "-1"], &["`-1`"]);
}

#[test]
fn an_empty_prompt() {
    refused(&shipped(), &["--prompt", ""], &["empty"]);
    refused(&shipped(), &["--prompt-ids", ""], &["empty"]);
    refused(&shipped(), &[], &["no prompt"]);
}

#[test]
fn text_without_a_tokenizer() {
    let directory = with_config(|config| config["vocab_size"] = json!(1000));
    refused(directory.path(), &["--prompt", "a"], &["tokenizer.json"]);
}

#[test]
fn the_cache_is_too_small() {
    let prompt = ["--prompt", "A prompt of thirty-two characters"];
    refused(
        &shipped(),
        &[prompt.as_slice(), &["--new-tokens", "40", "--cache-pages", "1"]].concat(),
        &["capacity", "64 tokens", "40 new"],
    );
    refused(
        &shipped(),
        &[prompt.as_slice(), &["--new-tokens", "5000"]].concat(),
        &["max_position_embeddings", "4096"],
    );
    let most = u64::MAX.to_string();
    refused(
        &shipped(),
        &[prompt.as_slice(), &["--new-tokens", &most]].concat(),
        &["max_position_embeddings"],
    );
}

#[test]
fn a_golden_file_of_another_checkpoint() {
    let directory = with_config(|config| config["vocab_size"] = json!(128));
    let golden = shipped().join("golden.json");
    refused(directory.path(), &["--golden", golden.to_str().unwrap()], &["golden.json", "256", "128"]);
    refused(
        &shipped(),
        &["--golden", golden.to_str().unwrap(), "--prompt", "another"],
        &["not that of the golden file"],
    );
}

#[test]
fn a_card_that_is_not_there() {
    // Without a driver the first is refused; with one, at most the second.
    for (device, wanted) in [("cuda:0", "no CUDA"), ("cuda:99", "no CUDA")] {
        let output = run(&shipped(), ["--prompt", "a", "--new-tokens", "1", "--device", device]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        if device == "cuda:0" && output.status.success() {
            eprintln!("there is a card: the case without a driver is skipped");
            continue;
        }
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(wanted), "{stderr}");
    }
    let output = run(&shipped(), ["--prompt", "a", "--device", "sim:abacus"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("abacus"));
}
