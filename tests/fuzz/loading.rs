//! The example engine on checkpoints with configuration fields, header text and bytes changed: it refuses in one line,
//! or it runs.

// A user's program, so this is all there is of it: its arguments.
#[path = "../../examples/deepseek/main.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
mod deepseek;

use crate::{in_time, on_seeds, ptx};
use narrowgauge::verify::Source;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deepseek/checkpoint")
}

/// Runs one token on a folder with these two files.
fn run(config: &[u8], tensors: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).map_err(|error| error.to_string())
    };
    write("config.json", config)?;
    write("model.safetensors", tensors)?;
    let words =
        ["deepseek", "--device", "sim:h20", "--prompt-ids", "3", "--new-tokens", "1", "--json", "--model"];
    let mut args: Vec<OsString> = words.iter().map(OsString::from).collect();
    args.push(folder.path().into());
    in_time("the engine", move || deepseek::run_from(args.into_iter()))?;
    Ok(())
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(shipped().join(name)).unwrap()
}

/// Some value in place of one field, at any depth, or no field at all.
fn changed(config: &mut Value, source: &mut Source) {
    let Some(fields) = config.as_object_mut() else { return };
    let keys: Vec<String> = fields.keys().cloned().collect();
    let key = &keys[source.below(keys.len())];
    if fields[key].is_object() && source.below(2) == 0 {
        return changed(&mut fields[key], source);
    }
    let scaled = |by: u64| fields[key].as_u64().map_or(json!(by), |value| json!(value.wrapping_mul(by)));
    let value = match source.below(14) {
        0 => {
            fields.remove(key);
            return;
        }
        1 => Value::Null,
        2 => json!(true),
        3 => json!("text"),
        4 => json!([]),
        5 => json!({ "rope_type": "yarn", "factor": source.normal() * 10.0 }),
        6 => json!(0),
        7 => json!(1),
        8 => json!(-1),
        9 => json!(u64::MAX),
        10 => json!(1e308),
        11 => json!(1e-320),
        12 => scaled(2),
        _ => scaled(1 << 40),
    };
    fields.insert(key.clone(), value);
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn changed_configurations() {
    let tensors = read("model.safetensors");
    let mut sound: Value = serde_json::from_slice(&read("config.json")).unwrap();
    sound["rope_scaling"] =
        json!({ "type": "yarn", "factor": 2.0, "mscale": 1.0, "beta_fast": 32, "beta_slow": 1 });
    on_seeds(60, |seed| {
        let mut source = Source::new(seed);
        let mut config = sound.clone();
        for _ in 0..1 + source.below(3) {
            changed(&mut config, &mut source);
        }
        let mut text = config.to_string();
        if source.below(8) == 0 {
            text = ptx::edited(&text, &mut source);
        }
        run(text.as_bytes(), &tensors).map_err(|error| format!("{error}\n{text}"))
    });
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn changed_tensors() {
    let (config, sound) = (read("config.json"), read("model.safetensors"));
    let header = u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize + 8;
    on_seeds(60, |seed| {
        let mut source = Source::new(seed);
        let mut bytes = sound.clone();
        match source.below(5) {
            0 => bytes.truncate(source.below(bytes.len())),
            1 => bytes[source.below(8)] ^= 1 << source.below(8),
            2 => {
                let text = ptx::edited(std::str::from_utf8(&sound[8..header]).unwrap(), &mut source);
                let length = (text.len() as u64).to_le_bytes();
                bytes = [&length, text.as_bytes(), &sound[header..]].concat();
            }
            3 => {
                for _ in 0..1 + source.below(4) {
                    // A digit of an extent, an offset or a name, kept in its place.
                    let at = 8 + source.below(header - 8);
                    bytes[at] = b"0123456789 \",:{}[]"[source.below(18)];
                }
            }
            _ => {
                for _ in 0..1 + source.below(64) {
                    let at = header + source.below(bytes.len() - header);
                    bytes[at] = source.below(256) as u8;
                }
            }
        }
        run(&config, &bytes)
    });
}
