//! `narrowgauge check`: every kernel against its oracles, over seeds and completion policies; ends with the reliability
//! table.

mod sweep;
mod table;

use clap::Args;
use narrowgauge::Device;
use narrowgauge::verify::{self, Case};

/// What to check, how often, and how to say it.
#[derive(Args)]
pub struct Options {
    /// Only this family: quant, norm, vocab, gemm, routing, rope or mla.
    #[arg(long)]
    family: Option<String>,
    /// Seeds of every case.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only this completion policy of the simulated card: eager, random or late.
    #[arg(long)]
    policy: Option<String>,
    /// One JSON object instead of the table.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// The table in Markdown.
    #[arg(long)]
    markdown: bool,
}

/// What a simulated card cannot tell.
const ONLY_ON_A_CARD: [&str; 3] = [
    "the hardware's own arithmetic: tensor core and simulated card are two programs of one published model",
    "launches of several streams at the same time: the simulated card overlaps launches of one graph only",
    "hours of repetition, clocks, memory errors, other work on the card",
];

/// Whether all cases whose `family/name` contains `filter` agree with their oracles; an error where there is none.
pub fn run(device: &Device, filter: &str, options: &Options) -> Result<bool, String> {
    let selected = |case: &Case| {
        options.family.as_ref().is_none_or(|family| case.family == family)
            && case.to_string().contains(filter)
    };
    let mut cases = verify::cases();
    let mut skipped = Vec::new();
    if device.is_simulated() {
        skipped.extend(verify::large_cases().iter().map(|case| format!("{case}: hours on a simulated card")));
        skipped.extend(ONLY_ON_A_CARD.map(str::to_owned));
    } else {
        cases.extend(verify::large_cases());
    }
    let everything = cases.len();
    cases.retain(selected);
    if cases.is_empty() {
        return Err("no case is of that family and has that in its name".to_owned());
    }
    if cases.len() < everything {
        skipped.push(format!("{} cases that were not asked for", everything - cases.len()));
    }
    let policies = policies(device, options.policy.as_deref())?;
    if !options.json && !options.markdown {
        println!("{} cases on {}", cases.len(), device.name());
    }
    let whole = cases.len() == everything;
    let plan = sweep::Plan { cases, seeds: options.first_seed..options.first_seed + options.seeds, policies };
    let quiet = options.json || options.markdown;
    let mut report = sweep::run(device, &plan, quiet)?;
    if whole {
        report.bad_inputs(device);
    } else {
        skipped.push("bad inputs, which only a check of everything tries".to_owned());
    }
    report.skipped.extend(skipped);
    match (options.json, options.markdown) {
        (true, _) => println!("{}", report.json()),
        (_, true) => print!("{}", report.markdown()),
        _ => print!("{}", report.text()),
    }
    Ok(report.passed())
}

/// What `--device` calls this device.
fn name(device: &Device) -> String {
    match device.is_simulated() {
        true => format!("sim:{}", device.card().name.to_lowercase().replace(' ', "")),
        false => "auto".to_owned(),
    }
}

/// The policies to run under, as indices into `verify::schedules`.
fn policies(device: &Device, only: Option<&str>) -> Result<Vec<Option<usize>>, String> {
    if !device.is_simulated() {
        return match only {
            None => Ok(vec![None]),
            Some(_) => {
                Err("a card completes what it likes when it likes: --policy is for the simulated one".into())
            }
        };
    }
    let all = verify::schedules().map(|(name, _)| name);
    match only {
        None => Ok((0..all.len()).map(Some).collect()),
        Some(name) => match all.iter().position(|one| *one == name) {
            Some(index) => Ok(vec![Some(index)]),
            None => Err(format!("no policy is called {name}: there are {}", all.join(", "))),
        },
    }
}
