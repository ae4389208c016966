//! Cases × seeds × policies.

use super::table::{CaseResult, Failure, Report};
use indicatif::{ProgressBar, ProgressStyle};
use narrowgauge::Device;
use narrowgauge::verify::{self, Case, Evidence};
use std::io::IsTerminal;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What to run.
pub struct Plan {
    pub cases: Vec<Case>,
    pub seeds: Range<u64>,
    /// Indices into `verify::schedules_of`; none on a real card.
    pub policies: Vec<Option<usize>>,
}

/// Runs all of it, several cases at a time on the simulated card.
pub fn run(device: &Device, plan: &Plan, quiet: bool) -> Result<Report, String> {
    let begun = Instant::now();
    let runs = plan.cases.len() as u64 * (plan.seeds.end - plan.seeds.start) * plan.policies.len() as u64;
    let bar = progress(runs);
    let next = AtomicUsize::new(0);
    let results = Mutex::new((0..plan.cases.len()).map(|_| None).collect::<Vec<_>>());
    let work = |device: &Device| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = plan.cases.get(index) else { return };
            bar.set_message(case.to_string());
            let result = run_case(device, case, plan, &bar);
            if !quiet {
                bar.suspend(|| println!("{}", result.line()));
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
        }
    };
    // A check of several cases at once on one real card would only make them wait for each other.
    let threads =
        if device.is_simulated() { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let open = |_| verify::open(&super::name(device)).map_err(|error| error.to_string());
    let others = (1..threads).map(open).collect::<Result<Vec<_>, _>>()?;
    std::thread::scope(|scope| {
        for other in &others {
            scope.spawn(|| work(other));
        }
        work(device);
    });
    bar.finish_and_clear();
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut report = Report::new(device, results.into_iter().flatten().collect());
    for device in others.iter().chain([device]) {
        let records = device.records().map_err(|error| error.to_string())?;
        report.kernels.extend(records.into_iter().map(|record| record.kernel));
    }
    report.seeds = plan.seeds.clone();
    report.policies = plan.policies.len();
    report.elapsed = begun.elapsed();
    Ok(report)
}

/// A bar on a terminal, nothing elsewhere.
fn progress(runs: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} {wide_msg}");
    ProgressBar::new(runs).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn run_case(device: &Device, case: &Case, plan: &Plan, bar: &ProgressBar) -> CaseResult {
    let mut result = CaseResult::new(*case);
    for seed in plan.seeds.clone() {
        // The same inputs under every policy, and on a card twice, must give the same bits.
        let mut first: Option<Evidence> = None;
        for policy in &plan.policies {
            for again in 0..if policy.is_none() { 2 } else { 1 } {
                match run_once(device, case, seed, *policy) {
                    Ok(evidence) => {
                        if let Some(first) = &first {
                            result.repetitions += 1;
                            if first.digest != evidence.digest {
                                result.differing += 1;
                                let reason = "other bits than the first run with these inputs".to_owned();
                                result.failures.push(failure(device, case, seed, *policy, reason));
                            }
                        }
                        if again == 0 {
                            result.evidence.add(&evidence);
                        }
                        first.get_or_insert(evidence);
                    }
                    Err(reason) => result.failures.push(failure(device, case, seed, *policy, reason)),
                }
            }
            result.runs += 1;
            bar.inc(1);
        }
    }
    result
}

fn run_once(device: &Device, case: &Case, seed: u64, policy: Option<usize>) -> Result<Evidence, String> {
    if let Some(policy) = policy {
        let schedule = verify::schedules_of(seed)[policy].1;
        device.set_schedule(schedule).map_err(|error| error.to_string())?;
    }
    catch_unwind(AssertUnwindSafe(|| (case.run)(device, seed))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(format!("panicked: {text}"))
    })
}

fn failure(device: &Device, case: &Case, seed: u64, policy: Option<usize>, reason: String) -> Failure {
    let on = super::name(device);
    let policy =
        policy.map(|policy| format!(" --policy {}", verify::schedules()[policy].0)).unwrap_or_default();
    let again =
        format!("narrowgauge check --device {on} --filter '{case}' --first-seed {seed} --seeds 1{policy}");
    Failure { reason, again }
}
