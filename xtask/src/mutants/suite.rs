//! The tests that must notice a mutant: built once, run as children, ended at the first failure.

use crate::{create, root, shown};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What a run said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Passed,
    Failed(String),
    /// The simulator itself broke: noticed, and a defect of its own.
    Broke(String),
    TimedOut,
}

/// Test programs of the root crate by name, without their build.
pub struct Suite {
    programs: BTreeMap<String, PathBuf>,
}

impl Suite {
    /// Builds the test programs of these names, `program` or `program=text`. `folder` gets copies, so that work in the checkout does not disturb a
    /// run.
    pub fn build(names: &[&str], folder: &Path) -> Result<Self, String> {
        let names: BTreeSet<_> = names.iter().map(|name| split(name).0).collect();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).env("NARROWGAUGE_REQUIRE_KERNELS", "1");
        cargo.args([
            "test",
            "--package",
            "narrowgauge",
            "--no-run",
            "--message-format",
            "json-render-diagnostics",
        ]);
        names.iter().for_each(|name| {
            cargo.args(["--test", name]);
        });
        let output =
            cargo.stderr(Stdio::inherit()).output().map_err(|e| format!("{}: {e}", shown(&cargo)))?;
        if !output.status.success() {
            return Err(format!("{} ended with {}", shown(&cargo), output.status));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut programs: BTreeMap<_, _> = messages
            .filter_map(|message| {
                let name = message["target"]["name"].as_str()?.to_owned();
                Some((name, PathBuf::from(message["executable"].as_str()?)))
            })
            .filter(|(name, _)| names.contains(name.as_str()))
            .collect();
        if let Some(name) = names.iter().find(|name| !programs.contains_key(**name)) {
            return Err(format!("cargo does not say where the tests of {name} are"));
        }
        create(folder)?;
        for (name, program) in &mut programs {
            let copy = folder.join(name);
            std::fs::copy(&*program, &copy).map_err(|e| format!("{}: {e}", copy.display()))?;
            *program = copy;
        }
        Ok(Suite { programs })
    }

    /// Runs one program on the kernel images of a folder, within a limit; also the processor time that it took.
    pub fn run(
        &self,
        name: &str,
        images: &Path,
        seed: u64,
        limit: Limit,
    ) -> Result<(Answer, Duration), String> {
        let (program, test) = split(name);
        let mut command = Command::new(&self.programs[program]);
        command.args(test);
        command.arg("--nocapture").current_dir(root()).env("NARROWGAUGE_IMAGES", images);
        command.env_remove("NARROWGAUGE_DEVICE").env_remove("PROPTEST_CASES").env("RUST_BACKTRACE", "0");
        command.env("PROPTEST_RNG_SEED", seed.to_string());
        // A failure is enough: nobody reads the smallest one.
        command.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        watch(child.map_err(|e| format!("{}: {e}", shown(&command)))?, limit)
    }
}

fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('=').map_or((name, None), |(program, test)| (program, Some(test)))
}

/// How much of a processor a run may take. Not wall time: on a busy machine a slow child is no stuck one.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub processor: Duration,
    /// For a child that waits for ever.
    pub wall: Duration,
}

/// Follows the child's output until it says that something failed, ends or takes too long; with the processor time that
/// it took.
fn watch(mut child: Child, limit: Limit) -> Result<(Answer, Duration), String> {
    let begun = Instant::now();
    let (sender, lines) = mpsc::channel();
    let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
    }
    drop(sender);
    let mut panicked: Option<String> = None;
    let mut taken = Duration::ZERO;
    let answer = loop {
        taken = processor_time(child.id()).unwrap_or(taken);
        match lines.recv_timeout(Duration::from_millis(100)) {
            // The message stands in the line after the place.
            Ok(line) => match panicked.take() {
                Some(place) if place.contains("sim/src/") => break Answer::Broke(format!("{place} {line}")),
                Some(_) => break Answer::Failed(line),
                None if line.contains("panicked at") => panicked = Some(line),
                None if line.ends_with("FAILED") => break Answer::Failed(line),
                None => {}
            },
            Err(RecvTimeoutError::Timeout) if taken > limit.processor || begun.elapsed() > limit.wall => {
                break Answer::TimedOut;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().map_err(|e| e.to_string())?;
                let answer =
                    if status.success() { Answer::Passed } else { Answer::Failed(status.to_string()) };
                return Ok((answer, taken));
            }
        }
    };
    // It may have ended by itself meanwhile.
    let _ = child.kill();
    child.wait().map_err(|e| e.to_string())?;
    Ok((answer, taken))
}

/// Where the system tells: user and system time, in hundredths of a second.
fn processor_time(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}
