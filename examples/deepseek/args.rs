//! Flags.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use narrowgauge::mla::CacheLayout;

use super::failure::{Failure, Outcome, fail};

/// Runs a DeepSeek-V3-format checkpoint: prefill, then greedy tokens.
#[derive(Parser)]
#[command(name = "deepseek")]
pub struct Args {
    /// A Hugging Face directory: config.json, *.safetensors, tokenizer.json where the vocabulary is not bytes.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "prompt_ids")]
    pub prompt: Option<String>,
    /// Tokens to continue, as in 1,2,3.
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    pub prompt_ids: Option<String>,
    /// Tokens to generate [default: as many as the golden file, else 8].
    #[arg(long, value_name = "N")]
    pub new_tokens: Option<usize>,
    /// auto, cuda:N, sim:h20 or sim:h800. `auto` takes the first card, or simulates an H20 where there is none.
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    pub device: DeviceChoice,
    /// Pages of 64 tokens in the cache [default: what the run needs].
    #[arg(long, value_name = "N")]
    pub cache_pages: Option<usize>,
    /// What cached tokens are stored as.
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    pub cache: CacheType,
    /// Prompt tokens to take in the first step; the others follow one by one [default: all].
    #[arg(long, value_name = "N")]
    pub prefill: Option<usize>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// Write the prompt's logits: little-endian f32, prompt tokens x vocabulary.
    #[arg(long, value_name = "FILE")]
    pub dump_logits: Option<PathBuf>,
    /// Compare with this file of tools/golden/golden.py; its prompt is the default one.
    #[arg(long, value_name = "FILE")]
    pub golden: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub enum CacheType {
    /// 1152 bytes a token.
    Bf16,
    /// 656 bytes a token: e4m3 with a scale for each 128 latent columns, and the rotated ones in bf16.
    Fp8,
}

impl CacheType {
    pub fn layout(self) -> CacheLayout {
        match self {
            CacheType::Bf16 => CacheLayout::Bf16,
            CacheType::Fp8 => CacheLayout::Fp8Blocks,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum DeviceChoice {
    Auto,
    Cuda(usize),
    Simulated(String),
}

impl DeviceChoice {
    pub fn open(&self) -> Outcome<narrowgauge::Device> {
        use narrowgauge::{Card, Device};
        match self {
            DeviceChoice::Cuda(ordinal) => Ok(Device::cuda(*ordinal)?),
            DeviceChoice::Simulated(name) => match Card::find(name) {
                Some(card) => Ok(Device::simulated(card)?),
                None => fail!("no card `{name}` to simulate"),
            },
            DeviceChoice::Auto => {
                let device = match Device::cuda(0) {
                    Ok(device) => device,
                    Err(reason) => {
                        eprintln!("no CUDA card is used ({reason})");
                        Device::simulated(Card::H20)?
                    }
                };
                eprintln!("--device auto: {}", device.name());
                Ok(device)
            }
        }
    }
}

fn parse_device(text: &str) -> Result<DeviceChoice, Failure> {
    match text.split_once(':') {
        None if text == "auto" => Ok(DeviceChoice::Auto),
        Some(("cuda", ordinal)) => match ordinal.parse() {
            Ok(ordinal) => Ok(DeviceChoice::Cuda(ordinal)),
            Err(_) => fail!("`{ordinal}` is not a device number"),
        },
        Some(("sim", name)) => Ok(DeviceChoice::Simulated(name.to_string())),
        _ => fail!("wanted auto, cuda:N, sim:h20 or sim:h800"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn parses_devices() {
        assert_eq!(parse_device("auto").unwrap(), DeviceChoice::Auto);
        assert_eq!(parse_device("cuda:1").unwrap(), DeviceChoice::Cuda(1));
        assert_eq!(parse_device("sim:h800").unwrap(), DeviceChoice::Simulated("h800".into()));
        for bad in ["", "cuda", "cuda:", "cuda:x", "rocm:0"] {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
    }
}
