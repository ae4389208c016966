//! What a run shows: text for people, or one JSON object.

use std::fmt::Write;

use narrowgauge::Device;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::golden::Comparison;

#[derive(Serialize)]
pub struct Report {
    pub device: String,
    pub simulated: bool,
    pub model: String,
    /// All layers together.
    pub cache_bytes_per_token: usize,
    pub prompt_ids: Vec<u32>,
    pub generated_ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub operations: Vec<Operation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden: Option<Comparison>,
}

/// A kernel's launches in the whole run; counters of the simulated card, or the time on a real one.
#[derive(Serialize)]
pub struct Operation {
    pub kernel: String,
    pub launches: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microseconds: Option<f64>,
}

#[derive(Serialize)]
pub struct Counters {
    pub warp_instructions: u64,
    pub tensor_macs: u64,
    pub global_bytes: u64,
    pub bank_conflicts: u64,
}

pub fn operations(device: &Device) -> Outcome<Vec<Operation>> {
    let records = device.records()?.into_iter();
    Ok(records
        .map(|record| Operation {
            kernel: record.kernel,
            launches: record.launches,
            counters: record.counters.map(|counters| Counters {
                warp_instructions: counters.instructions,
                tensor_macs: counters.tensor_macs,
                global_bytes: counters.global_bytes(),
                bank_conflicts: counters.bank_conflicts,
            }),
            microseconds: record.time.map(|time| time.as_secs_f64() * 1e6),
        })
        .collect())
}

impl Report {
    pub fn json(&self) -> Outcome<String> {
        Ok(serde_json::to_string(self).map_err(Failure::new)? + "\n")
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "device     {}", self.device)?;
        writeln!(out, "model      {}", self.model)?;
        writeln!(out, "cache      {} bytes a token", self.cache_bytes_per_token)?;
        writeln!(out, "prompt     {} tokens", self.prompt_ids.len())?;
        let ids: Vec<String> = self.generated_ids.iter().map(u32::to_string).collect();
        writeln!(out, "generated  {}", ids.join(" "))?;
        if let Some(text) = &self.text {
            writeln!(out, "text       {text:?}")?;
        }
        writeln!(out)?;
        self.write_table(out)?;
        if let Some(golden) = &self.golden {
            writeln!(out)?;
            writeln!(
                out,
                "logits     median relative error {:.4} (limit {:.4})",
                golden.median_error, golden.median_error_limit
            )?;
            writeln!(
                out,
                "argmax     {:.1} % the same (limit {:.1} %)",
                100.0 * golden.argmax_agreement,
                100.0 * golden.argmax_agreement_limit
            )?;
            let (same, compared) = (golden.greedy_same, golden.greedy_compared);
            let why = match (same == compared, golden.greedy_follows) {
                (true, _) => "",
                (false, true) => ", then a near tie",
                (false, false) => ", then a token that is no near tie",
            };
            writeln!(out, "greedy     {same} of {compared} tokens the same{why}")?;
            writeln!(
                out,
                "{}",
                if golden.agrees { "agrees with transformers" } else { "DIFFERS from transformers" }
            )?;
        }
        Ok(())
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let width =
            self.operations.iter().map(|op| op.kernel.len()).max().unwrap_or(0).max("operation".len());
        if self.simulated {
            writeln!(
                out,
                "{:width$}  {:>8}  {:>12}  {:>10}  {:>10}  {:>9}",
                "operation", "launches", "warp instr.", "MMACs", "MB moved", "conflicts"
            )?;
        } else {
            writeln!(out, "{:width$}  {:>8}  {:>10}", "operation", "launches", "µs")?;
        }
        for operation in &self.operations {
            write!(out, "{:width$}  {:>8}", operation.kernel, operation.launches)?;
            if let Some(counters) = &operation.counters {
                write!(
                    out,
                    "  {:>12}  {:>10.1}  {:>10.2}  {:>9}",
                    counters.warp_instructions,
                    counters.tensor_macs as f64 / 1e6,
                    counters.global_bytes as f64 / 1e6,
                    counters.bank_conflicts
                )?;
            }
            if let Some(time) = operation.microseconds {
                write!(out, "  {time:>10.1}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
