//! A small engine on the crate's public interface: loads a DeepSeek-V3-format FP8 checkpoint, prefills a prompt, and
//! generates greedily from a paged cache of compressed keys and values.
//!
//! ```sh
//! cargo run --example deepseek -- --model examples/deepseek/checkpoint --prompt "The quick brown fox"
//! ```
//!
//! Exit codes: 0, 1 where `--golden` finds disagreement, 2 for bad input (one line on stderr says what).
//!
//! One sequence at a time; activations are allocated per step. What an engine for traffic adds (batches, buffers kept
//! between steps, captured graphs) the operations are ready for: they launch without allocating or waiting.

mod args;
mod attention;
mod cache;
mod checkpoint;
mod config;
mod failure;
mod golden;
mod linear;
mod mlp;
mod model;
mod prompt;
mod report;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use args::Args;
use cache::PAGE;
use checkpoint::Checkpoint;
use config::Config;
use failure::{Failure, Outcome, fail};
use golden::Golden;
use model::{Model, Rows};
use prompt::Text;
use report::Report;

const DEFAULT_NEW_TOKENS: usize = 8;

fn main() -> ExitCode {
    run_from(std::env::args_os())
}

/// Runs with these arguments, the program's name first.
pub fn run_from(args: impl Iterator<Item = OsString>) -> ExitCode {
    match run(&Args::parse_from(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Whether the golden file, if one is given, agrees.
fn run(args: &Args) -> Outcome<bool> {
    let config = Config::load(&args.model)?;
    let golden = match &args.golden {
        Some(path) => Some(Golden::load(path, config.vocab)?),
        None => None,
    };
    let text = Text::load(&args.model, config.vocab)?;
    let prompt = prompt_ids(args, &text, golden.as_ref())?;
    prompt::check(&prompt, config.vocab)?;
    let new_tokens =
        args.new_tokens.or(golden.as_ref().map(|g| g.greedy.len())).unwrap_or(DEFAULT_NEW_TOKENS);
    let pages = cache_pages(args, &config, prompt.len(), new_tokens)?;
    let prefill = match args.prefill.unwrap_or(prompt.len()) {
        0 => fail!("--prefill is 0; the first step takes at least one token"),
        count => count.min(prompt.len()),
    };

    let checkpoint = Checkpoint::open(&args.model)?;
    let device = args.device.open()?;
    let loading = progress("loading", config.layers);
    let mut model = Model::load(&device, &checkpoint, &config, pages, args.cache.layout(), |layers| {
        loading.set_position(layers as u64)
    })?;
    loading.finish_and_clear();

    if !device.is_simulated() {
        device.set_timing(true)?;
    }

    let steps = progress("running", prompt.len() + new_tokens);
    let mut prompt_logits = Vec::new();
    let keep_all = args.dump_logits.is_some() || golden.is_some();
    let mut last = model.forward(&prompt[..prefill], if keep_all { Rows::All } else { Rows::Last })?;
    steps.set_position(prefill as u64);
    for id in &prompt[prefill..] {
        if keep_all {
            prompt_logits.extend(last.to_vec()?);
        }
        last = model.forward(&[*id], Rows::Last)?;
        steps.inc(1);
    }
    if keep_all {
        prompt_logits.extend(last.to_vec()?);
    }

    let mut generated = Vec::with_capacity(new_tokens);
    let mut step_logits = Vec::new();
    while generated.len() < new_tokens {
        if golden.is_some() {
            let rows = last.dim(0);
            step_logits.push(last.slice(0, rows - 1..rows)?.to_vec()?);
        }
        let id = model.likeliest(&last)?;
        generated.push(id);
        steps.inc(1);
        if generated.len() < new_tokens {
            last = model.forward(&[id], Rows::Last)?;
        }
    }
    steps.finish_and_clear();
    model.check()?;

    if let Some(path) = &args.dump_logits {
        let bytes: Vec<u8> = prompt_logits.iter().flat_map(|x| x.to_le_bytes()).collect();
        if let Err(error) = std::fs::write(path, bytes) {
            fail!("{}: {error}", path.display());
        }
    }
    let comparison = match &golden {
        Some(golden) => Some(golden.compare(&prompt_logits, &generated, &step_logits)?),
        None => None,
    };
    let agrees = comparison.as_ref().is_none_or(|comparison| comparison.agrees);
    let report = Report {
        device: device.name().to_string(),
        simulated: device.is_simulated(),
        model: args.model.display().to_string(),
        text: text.decode(&generated),
        cache_bytes_per_token: model.cache_token_bytes(),
        prompt_ids: prompt,
        generated_ids: generated,
        operations: report::operations(&device)?,
        golden: comparison,
    };
    let out = if args.json { report.json()? } else { report.text() };
    std::io::stdout().write_all(out.as_bytes()).map_err(|error| Failure::new(format!("stdout: {error}")))?;
    Ok(agrees)
}

fn prompt_ids(args: &Args, text: &Text, golden: Option<&Golden>) -> Outcome<Vec<u32>> {
    let ids = match (&args.prompt, &args.prompt_ids) {
        (Some(prompt), _) => text.encode(prompt)?,
        (None, Some(list)) => prompt::parse_ids(list)?,
        (None, None) => match golden {
            Some(golden) => golden.input_ids.clone(),
            None => fail!("no prompt: give --prompt or --prompt-ids"),
        },
    };
    if golden.is_some_and(|golden| golden.input_ids != ids) {
        fail!("the prompt is not that of the golden file");
    }
    Ok(ids)
}

/// Pages of the cache, enough for the whole run: what cannot end well does not start.
fn cache_pages(args: &Args, config: &Config, prompt: usize, new_tokens: usize) -> Outcome<usize> {
    // The last generated token is never fed back.
    let tokens = prompt.saturating_add(new_tokens).saturating_sub(1).max(prompt);
    if tokens > config.max_positions {
        fail!(
            "a prompt of {prompt} tokens and {new_tokens} new ones; max_position_embeddings is {}",
            config.max_positions
        );
    }
    let pages = args.cache_pages.unwrap_or(tokens.div_ceil(PAGE));
    // No run needs more pages than the model has positions.
    let most = config.max_positions.div_ceil(PAGE);
    if pages > most {
        fail!("--cache-pages is {pages}; the model's positions fill {most}");
    }
    if tokens > pages * PAGE {
        fail!(
            "the cache's capacity of {} tokens ({pages} pages of {PAGE}) is exceeded by a prompt of {prompt} and \
             {new_tokens} new tokens",
            pages * PAGE
        );
    }
    Ok(pages)
}

/// On a terminal only: a log gets no bars.
fn progress(what: &'static str, length: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(length as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar.with_prefix(what)
}
