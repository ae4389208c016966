//! `narrowgauge bench`: times on a card, counters on the simulated one.

mod record;

use crate::cases::{self, Case};
use narrowgauge::norm::Add;
use narrowgauge::{Device, Result, bf16};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

const WARM_UPS: usize = 3;
const RUNS: usize = 21;
/// How times come about; those of others are only compared where they were measured alike.
const PROTOCOL: &str =
    "median of 21 runs between two events, each behind a flush of twice the L2, after 3 warm-ups";

#[derive(clap::Args)]
pub struct Options {
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Also keep the object as `FOLDER/<card>/<date>-narrowgauge.json`; only what was measured on a card is kept
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "benches/record")]
    record: Option<PathBuf>,
    /// Only the names of the cases
    #[arg(long, conflicts_with_all = ["json", "record"])]
    list: bool,
}

/// Runs the cases whose name contains `filter`; an error where there is none.
pub fn run(device: &Device, filter: &str, options: &Options) -> std::result::Result<bool, String> {
    let as_json = options.json;
    if options.record.is_some() && device.is_simulated() {
        return Err("--record keeps what was measured on a card, and this one is simulated".into());
    }
    let cases = cases::all(device.is_simulated());
    let cases: Vec<_> = cases.into_iter().filter(|case| case.name.contains(filter)).collect();
    if cases.is_empty() {
        return Err(format!("no benchmark has `{filter}` in its name"));
    }
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(true);
    }
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    if !as_json {
        println!("{}", device.name());
        println!("{:width$}  {}", "", if device.is_simulated() { COUNTER_HEAD } else { TIME_HEAD });
    }
    let mut rows = Vec::new();
    for case in &cases {
        let measured = if device.is_simulated() { count(device, case) } else { time(device, case) };
        let row = measured.map_err(|e| format!("{}: {e}", case.name))?;
        if !as_json {
            println!("{:width$}  {}", case.name, row.text);
        }
        rows.push(json!({ "case": case.name, "measured": row.values }));
    }
    let object = record::object(device, rows);
    if as_json {
        println!("{object}");
    }
    if let Some(folder) = &options.record {
        eprintln!("{}", record::write(folder, &object)?.display());
    }
    Ok(true)
}

struct Row {
    text: String,
    values: Map<String, Value>,
}

const COUNTER_HEAD: &str =
    "launches   warp instr.     tensor MACs    bytes moved  bank conflicts       waits";

/// One run on the simulated card, and what it counted. It says nothing about time.
fn count(device: &Device, case: &Case) -> Result<Row> {
    let prepared = (case.prepare)(device)?;
    device.clear_records();
    (prepared.launch)(&device.stream())?;
    let mut launches = 0;
    let mut sum = narrowgauge::sim::Counters::default();
    for record in device.records()? {
        launches += record.launches;
        sum.add(&record.counters.unwrap_or_default());
    }
    let named = [
        ("launches", launches),
        ("warp_instructions", sum.instructions),
        ("tensor_macs", sum.tensor_macs),
        ("global_bytes", sum.global_bytes()),
        ("bank_conflicts", sum.bank_conflicts),
        ("waits", sum.waits),
    ];
    let text = format!(
        "{launches:8}  {:12}  {:14}  {:13}  {:14}  {:10}",
        sum.instructions,
        sum.tensor_macs,
        sum.global_bytes(),
        sum.bank_conflicts,
        sum.waits
    );
    Ok(Row { text, values: named.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect() })
}

const TIME_HEAD: &str = "      us   TFLOPS     GB/s  of ceiling  limited by";

/// The median of many runs between two events, each with a cold L2.
fn time(device: &Device, case: &Case) -> Result<Row> {
    let prepared = (case.prepare)(device)?;
    let stream = device.stream();
    let card = device.card();
    // Adding arrays that are together several times the L2 leaves nothing of the operands in it.
    let flush = usize::try_from(card.l2_bytes.max(64 << 20)).expect("an L2 fits in memory");
    let (a, sum) =
        (device.zeros::<bf16>(&[flush / 1024, 1024])?, device.empty::<bf16>(&[flush / 1024, 1024])?);
    let mut times = Vec::with_capacity(RUNS);
    for run in 0..WARM_UPS + RUNS {
        Add::new(&a, &a, &sum).launch(&stream)?;
        let before = stream.record_event()?;
        (prepared.launch)(&stream)?;
        let elapsed = stream.record_event()?.since(&before)?;
        if run >= WARM_UPS {
            times.push(elapsed);
        }
    }
    times.sort_unstable();
    let seconds = times[RUNS / 2].max(Duration::from_nanos(1)).as_secs_f64();
    let tflops = case.flops / seconds / 1e12;
    let gbps = prepared.operands.bytes() as f64 / seconds / 1e9;
    let peak = if case.fp8 { card.fp8_tflops } else { card.bf16_tflops };
    let share = |value: f64, ceiling: f64| if ceiling > 0.0 { value / ceiling } else { 0.0 };
    let (tensor, memory) = (share(tflops, peak), share(gbps, card.memory_gbps));
    let limiter = if tensor > memory { "tensor cores" } else { "memory" };
    let best = tensor.max(memory);
    let text = format!("{:8.1} {tflops:8.1} {gbps:8.0} {:9.1} %  {limiter}", seconds * 1e6, 100.0 * best);
    let values = json!({
        "microseconds": seconds * 1e6,
        "tflops": tflops,
        "gbps": gbps,
        "share_of_ceiling": best,
        "limiter": limiter,
        "runs": RUNS,
    });
    let Value::Object(values) = values else { unreachable!("json! was given an object") };
    Ok(Row { text, values })
}
