//! Bad inputs, and what comes of them: 64 kinds, tried with every operation that they concern.
//!
//! None may crash, hang, or be silently wrong. An error found on the host leaves outputs as they were.

mod attention;
mod half_groups;
mod indexer;
mod lab;
mod memory;
mod routing;
mod shapes;
mod sparse;
mod values;

use crate::device::Device;
use lab::Lab;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What comes of a bad input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A typed error before anything runs; outputs are untouched.
    Error,
    /// Success, and nothing happens.
    NoOp,
    /// It is not bad: the answer is right.
    Works,
    /// The device masks it and says so in the status.
    Masked,
    /// It propagates as far as documented, and no further.
    Propagated,
}

/// How a kind of bad input is met.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// By a call, which is tried.
    Call {
        /// The operation or constructor.
        operation: &'static str,
        /// What comes of it.
        class: Class,
        /// Tries it; an `Err` says what came instead.
        run: fn(&Lab<'_>) -> Result<(), String>,
    },
    /// It cannot be written down: a test that the compiler refuses it.
    CannotCompile(&'static str),
    /// It needs a driver that fails, or a process of its own: the tests that do that.
    Elsewhere(&'static str),
    /// The crate has nothing that could be given it.
    NotOffered(&'static str),
}

/// One kind of bad input.
#[derive(Debug, Clone)]
pub struct Row {
    /// 1 to 64.
    pub number: u8,
    /// What is bad about it.
    pub input: &'static str,
    /// What comes of it, operation by operation.
    pub entries: Vec<Entry>,
}

/// What came of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcomes {
    /// Kinds.
    pub kinds: usize,
    /// Calls that gave a typed error and touched nothing.
    pub errors: usize,
    /// Calls that did nothing, successfully.
    pub no_ops: usize,
    /// Calls that gave the right answer.
    pub works: usize,
    /// Calls whose bad data the device masked and reported.
    pub masked: usize,
    /// Calls whose bad data came through as documented.
    pub propagated: usize,
    /// Uses that the compiler refuses, each with its test.
    pub cannot_compile: Vec<String>,
    /// Those that tests of the driver's faults try, each with its tests.
    pub elsewhere: Vec<String>,
    /// Those that no operation can be given, each with the reason.
    pub not_offered: Vec<String>,
    /// Calls that panicked.
    pub crashes: usize,
    /// Calls that never end, as far as the simulated card can tell.
    pub hangs: usize,
    /// What came out otherwise than it should.
    pub failures: Vec<String>,
}

/// All kinds, in order.
pub fn rows() -> Vec<Row> {
    let parts = [shapes::rows(), values::rows(), memory::rows(), routing::rows(), attention::rows()];
    let mut rows: Vec<Row> = parts.into_iter().flatten().collect();
    // What more than one file has of a kind is one row.
    for more in indexer::rows() {
        match rows.iter_mut().find(|row| row.number == more.number) {
            Some(row) => row.entries.extend(more.entries),
            None => rows.push(more),
        }
    }
    rows.sort_by_key(|row| row.number);
    rows.iter_mut().for_each(|row| row.entries.extend(sparse::entries(row.number)));
    rows
}

/// Tries everything on a device.
pub fn run_all(device: &Device) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for row in rows() {
        outcomes.kinds += 1;
        for entry in &row.entries {
            outcomes.count(device, &row, entry);
        }
    }
    outcomes
}

impl Outcomes {
    fn count(&mut self, device: &Device, row: &Row, entry: &Entry) {
        let Row { number, input, .. } = row;
        let (operation, class, run) = match entry {
            Entry::CannotCompile(test) => {
                self.cannot_compile.push(format!("{number} ({input}): {test}"));
                return;
            }
            Entry::Elsewhere(tests) => {
                self.elsewhere.push(format!("{number} ({input}): {tests}"));
                return;
            }
            Entry::NotOffered(reason) => {
                self.not_offered.push(format!("{number} ({input}): {reason}"));
                return;
            }
            Entry::Call { operation, class, run } => (operation, class, run),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let lab = Lab::new(device);
            run(&lab)?;
            lab.still_alive()
        }));
        let reason = match outcome {
            Ok(Ok(())) => {
                *match class {
                    Class::Error => &mut self.errors,
                    Class::NoOp => &mut self.no_ops,
                    Class::Works => &mut self.works,
                    Class::Masked => &mut self.masked,
                    Class::Propagated => &mut self.propagated,
                } += 1;
                return;
            }
            Ok(Err(reason)) => {
                let stuck = ["deadlock", "stuck", "step limit"];
                self.hangs += usize::from(stuck.iter().any(|word| reason.contains(word)));
                reason
            }
            Err(_) => {
                self.crashes += 1;
                "panicked".to_owned()
            }
        };
        self.failures.push(format!("bad input {number} ({input}), {operation}, wanted {class:?}: {reason}"));
    }

    /// Calls that were tried.
    pub fn calls(&self) -> usize {
        self.errors + self.no_ops + self.works + self.masked + self.propagated + self.failures.len()
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kinds, {} calls: typed error {}, no-op {}, works {}, masked {}, propagated {}; cannot compile {}, fault \
             tests {}, not offered {}; crash {}, hang {}, silently wrong or output touched on error {}",
            self.kinds,
            self.calls(),
            self.errors,
            self.no_ops,
            self.works,
            self.masked,
            self.propagated,
            self.cannot_compile.len(),
            self.elsewhere.len(),
            self.not_offered.len(),
            self.crashes,
            self.hangs,
            self.failures.len() - self.crashes - self.hangs
        )
    }
}

/// A row of calls: `row!(number, "input", Class operation |lab| …, …)`.
macro_rules! row {
    ($number:literal, $input:literal, [$($class:ident $operation:literal |$lab:pat_param| $run:expr),* $(,)?]
        $(, $other:ident($text:literal))* $(,)?) => {
        $crate::verify::bad_inputs::Row {
            number: $number,
            input: $input,
            entries: vec![
                $($crate::verify::bad_inputs::Entry::Call {
                    operation: $operation,
                    class: $crate::verify::bad_inputs::Class::$class,
                    run: |$lab| $run,
                },)*
                $($crate::verify::bad_inputs::Entry::$other($text),)*
            ],
        }
    };
}
use row;
