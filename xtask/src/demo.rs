//! Runs the example engine on the shipped checkpoint and compares it with the golden outputs.

use crate::{root, run, setup};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the engine is asked for, below the folder that holds the checkpoint: `--flag value ..`.
pub struct Request {
    pub prompt_ids: String,
    pub new_tokens: usize,
}

impl Request {
    /// The prompt of the golden file, and as many tokens as it holds.
    pub fn of(golden: &Path) -> Result<Self, String> {
        let at = |what: &str| format!("{}: {what}", golden.display());
        let text = fs::read_to_string(golden).map_err(|e| at(&e.to_string()))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| at(&e.to_string()))?;
        let ids = value["input_ids"].as_array().ok_or_else(|| at("no input_ids"))?;
        let greedy = value["greedy"].as_array().ok_or_else(|| at("no greedy"))?;
        let prompt_ids = ids.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
        Ok(Request { prompt_ids, new_tokens: greedy.len() })
    }
}

/// Ends with the engine's table of operations and its verdict, or fails where it disagrees.
pub fn demo() -> Result<(), String> {
    setup::setup()?;
    let checkpoint = root().join("examples/deepseek/checkpoint");
    let golden = checkpoint.join("golden.json");
    let request = Request::of(&golden)?;
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).env("NARROWGAUGE_REQUIRE_KERNELS", "1");
    command.args(["run", "--release", "--example", "deepseek", "--", "--model"]).arg(&checkpoint);
    command.args([
        "--prompt-ids",
        &request.prompt_ids,
        "--new-tokens",
        &request.new_tokens.to_string(),
        "--golden",
    ]);
    run(command.arg(&golden).args(["--device", "auto"]))
}
