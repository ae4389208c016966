//! The reliability table.

use narrowgauge::Device;
use narrowgauge::verify::bad_inputs::{self, Outcomes};
use narrowgauge::verify::{Case, Evidence};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// What came of one case.
pub struct CaseResult {
    pub case: Case,
    pub runs: u64,
    pub repetitions: u64,
    pub differing: u64,
    pub evidence: Evidence,
    pub failures: Vec<Failure>,
}

/// One wrong answer.
pub struct Failure {
    pub reason: String,
    /// The command that runs it again.
    pub again: String,
}

impl CaseResult {
    pub fn new(case: Case) -> Self {
        let (evidence, failures) = (Evidence::default(), Vec::new());
        Self { case, runs: 0, repetitions: 0, differing: 0, evidence, failures }
    }

    /// Why a case that found nothing wrong proves nothing.
    fn doubt(&self) -> Option<&'static str> {
        if self.evidence.compared() + self.evidence.repeated == 0 {
            Some("VACUOUS: nothing was compared")
        } else if self.evidence.mostly_zeros() {
            Some("MISTRUSTED: nearly all wanted values are zero")
        } else {
            None
        }
    }

    pub fn line(&self) -> String {
        match (self.failures.first(), self.doubt()) {
            (Some(first), _) => format!(
                "FAIL  {}: {} of {} runs: {}\n      again: {}",
                self.case,
                self.failures.len(),
                self.runs,
                first.reason,
                first.again
            ),
            (None, Some(doubt)) => format!("FAIL  {}: {doubt}", self.case),
            (None, None) => format!("ok    {}: {} runs", self.case, self.runs),
        }
    }

    fn passed(&self) -> bool {
        self.failures.is_empty() && self.doubt().is_none()
    }
}

/// Everything that a check found.
pub struct Report {
    results: Vec<CaseResult>,
    device: String,
    card: String,
    simulated: bool,
    /// Kernels that ran.
    pub kernels: BTreeSet<String>,
    pub seeds: Range<u64>,
    pub policies: usize,
    pub elapsed: Duration,
    /// What was not tried, and why.
    pub skipped: Vec<String>,
    bad: Option<Outcomes>,
}

/// One line of the table: what, and the figures.
type Line = (&'static str, String);

impl Report {
    pub fn new(device: &Device, results: Vec<CaseResult>) -> Self {
        Self {
            results,
            device: device.name().to_owned(),
            card: device.card().name.to_string(),
            simulated: device.is_simulated(),
            kernels: BTreeSet::new(),
            seeds: 0..0,
            policies: 0,
            elapsed: Duration::ZERO,
            skipped: Vec::new(),
            bad: None,
        }
    }

    /// Tries all bad inputs.
    pub fn bad_inputs(&mut self, device: &Device) {
        let outcomes = bad_inputs::run_all(device);
        self.skipped.extend(outcomes.not_offered.iter().map(|row| format!("bad input {row}")));
        self.bad = Some(outcomes);
    }

    /// Whether nothing was wrong and something was right.
    pub fn passed(&self) -> bool {
        !self.results.is_empty()
            && self.results.iter().all(CaseResult::passed)
            && self.bad.as_ref().is_none_or(|bad| bad.failures.is_empty())
    }

    fn families(&self) -> Vec<(&'static str, Vec<&CaseResult>)> {
        let mut families: Vec<(&'static str, Vec<&CaseResult>)> = Vec::new();
        for result in &self.results {
            match families.iter_mut().find(|(family, _)| *family == result.case.family) {
                Some((_, results)) => results.push(result),
                None => families.push((result.case.family, vec![result])),
            }
        }
        families
    }

    fn sum(results: &[&CaseResult]) -> (u64, Evidence) {
        let mut evidence = Evidence::default();
        results.iter().for_each(|result| evidence.add(&result.evidence));
        (results.iter().map(|result| result.runs).sum(), evidence)
    }

    fn lines(&self) -> Vec<Line> {
        let (runs, all) = Self::sum(&self.results.iter().collect::<Vec<_>>());
        let wrong: usize = self.results.iter().map(|result| result.failures.len()).sum();
        let doubtful = self.results.iter().filter(|result| result.doubt().is_some()).count();
        let repetitions: u64 = self.results.iter().map(|result| result.repetitions).sum();
        let differing: u64 = self.results.iter().map(|result| result.differing).sum();
        let built = narrowgauge::device::kernels();
        let ran = built.iter().filter(|kernel| self.kernels.contains(**kernel)).count();
        let breadth = format!(
            "{} cases × seeds {} to {} × {} {} = {runs} runs; {ran} of {} kernels ran",
            self.results.len(),
            self.seeds.start,
            self.seeds.end - 1,
            self.policies,
            if self.simulated { "completion policies" } else { "device" },
            built.len()
        );
        let accuracy = format!(
            "mismatches {wrong}; {} elements exact, {} as the tensor core is modelled, {} within their bounds (f32 results: \
             largest error {:.3} of the bound, 99.9 % below {:.3}), {} rows by projection; cases that prove nothing {doubtful}",
            all.exact,
            all.modelled,
            all.bounded,
            all.ratios.largest(),
            all.ratios.percentile(0.999),
            all.projected
        );
        let determinism = format!(
            "{repetitions} repeated runs, {differing} with other bits; {} elements equal between related runs (batch \
             invariance, permutations, graphs against calls)",
            all.repeated
        );
        let mut memory = format!("{} canaries around outputs intact", all.canaries);
        if self.simulated {
            memory += "; every access checked for bounds, alignment, definedness, data races and \
                       missing proxy fences (a fault is a mismatch)";
        }
        let mut lines = vec![
            ("breadth", breadth),
            ("accuracy", accuracy),
            ("determinism", determinism),
            ("memory", memory),
        ];
        if let Some(bad) = &self.bad {
            lines.push(("bad input", bad.to_string()));
        }
        lines.push(("environment", self.environment()));
        lines.push(("skipped", format!("{} entries, listed below", self.skipped.len())));
        lines
    }

    fn environment(&self) -> String {
        format!(
            "{} (card {}), narrowgauge {} at commit {}, {} {}; {:.0} s",
            self.device,
            self.card,
            env!("CARGO_PKG_VERSION"),
            env!("NARROWGAUGE_COMMIT"),
            std::env::consts::OS,
            std::env::consts::ARCH,
            self.elapsed.as_secs_f64()
        )
    }

    fn failures(&self) -> impl Iterator<Item = String> {
        let wrong = self.results.iter().filter(|result| !result.passed()).map(CaseResult::line);
        wrong.chain(
            self.bad.iter().flat_map(|bad| bad.failures.iter().map(|failure| format!("FAIL  {failure}"))),
        )
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "\n{:10} {:>5} {:>7} {:>11} {:>11} {:>11} {:>9} {:>11} {:>9} {:>9}\n",
            "family",
            "cases",
            "runs",
            "exact",
            "modelled",
            "bounded",
            "projected",
            "related",
            "err/bound",
            "99.9 %"
        );
        for (family, results) in self.families() {
            let (runs, evidence) = Self::sum(&results);
            text += &format!(
                "{family:10} {:5} {runs:7} {:11} {:11} {:11} {:9} {:11} {:9.4} {:9.4}\n",
                results.len(),
                evidence.exact,
                evidence.modelled,
                evidence.bounded,
                evidence.projected,
                evidence.repeated,
                evidence.ratios.largest(),
                evidence.ratios.percentile(0.999)
            );
        }
        text.push('\n');
        for (name, figures) in self.lines() {
            text += &format!("{name:12} {figures}\n");
        }
        for skipped in &self.skipped {
            text += &format!("  not tried: {skipped}\n");
        }
        for failure in self.failures() {
            text += &format!("{failure}\n");
        }
        let verdict = if self.passed() { "everything agrees" } else { "SOMETHING IS WRONG" };
        text + &format!("{verdict}\n")
    }

    /// For documents.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| group | figures |\n|---|---|\n");
        for (name, figures) in self.lines() {
            text += &format!("| {name} | {figures} |\n");
        }
        text += "\n| family | cases | runs | exact | modelled | bounded | projected | related | largest error / bound | \
                 99.9 % |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for (family, results) in self.families() {
            let (runs, evidence) = Self::sum(&results);
            text += &format!(
                "| {family} | {} | {runs} | {} | {} | {} | {} | {} | {:.4} | {:.4} |\n",
                results.len(),
                evidence.exact,
                evidence.modelled,
                evidence.bounded,
                evidence.projected,
                evidence.repeated,
                evidence.ratios.largest(),
                evidence.ratios.percentile(0.999)
            );
        }
        text += "\nNot tried:\n\n";
        for skipped in &self.skipped {
            text += &format!("- {skipped}\n");
        }
        for failure in self.failures() {
            text += &format!("\n```\n{failure}\n```\n");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let families: Vec<Value> = self
            .families()
            .into_iter()
            .map(|(family, results)| {
                let (runs, evidence) = Self::sum(&results);
                json!({
                    "family": family,
                    "cases": results.len(),
                    "runs": runs,
                    "exact": evidence.exact,
                    "modelled": evidence.modelled,
                    "bounded": evidence.bounded,
                    "projected": evidence.projected,
                    "related": evidence.repeated,
                    "canaries": evidence.canaries,
                    "largest_error_of_bound": evidence.ratios.largest(),
                    "error_of_bound_99_9": evidence.ratios.percentile(0.999),
                    "mismatches": results.iter().map(|result| result.failures.len()).sum::<usize>(),
                    "repetitions": results.iter().map(|result| result.repetitions).sum::<u64>(),
                    "differing": results.iter().map(|result| result.differing).sum::<u64>(),
                })
            })
            .collect();
        json!({
            "passed": self.passed(),
            "device": self.device,
            "card": self.card,
            "simulated": self.simulated,
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("NARROWGAUGE_COMMIT"),
            "first_seed": self.seeds.start,
            "seeds": self.seeds.end - self.seeds.start,
            "policies": self.policies,
            "seconds": self.elapsed.as_secs_f64(),
            "kernels_run": self.kernels,
            "kernels_built": narrowgauge::device::kernels(),
            "families": families,
            "bad_inputs": self.bad.as_ref().map(|bad| json!({
                "typed_error": bad.errors,
                "no_op": bad.no_ops,
                "works": bad.works,
                "masked": bad.masked,
                "propagated": bad.propagated,
                "cannot_compile": bad.cannot_compile,
                "elsewhere": bad.elsewhere,
                "not_offered": bad.not_offered,
                "wrong": bad.failures,
            })),
            "skipped": self.skipped,
            "failures": self.failures().collect::<Vec<_>>(),
        })
    }
}
