//! Arbitrary input: PTX text, checkpoints, and the shapes, strides and offsets of every operation. The answer may be an
//! error with a place in it, and never a panic, a hang or an output that was touched before the refusal.
//!
//! A run draws anew and prints the seed that failed, which `NARROWGAUGE_SEED` repeats. `PROPTEST_CASES=20000` looks for
//! longer.

#[path = "../../build/compile.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod compile;
#[path = "../../build/toolchain.rs"]
#[allow(dead_code, reason = "setup uses the rest")]
mod toolchain;
#[path = "../../build/variants.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod variants;

#[cfg(feature = "sim")]
mod kernels;
#[cfg(all(feature = "cuda", feature = "sim"))]
mod loading;
mod operations;
#[cfg(feature = "sim")]
mod ptx;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Runs `check` on this many drawn seeds, or on as many as `PROPTEST_CASES` says, or on the one of `NARROWGAUGE_SEED`.
fn on_seeds(cases: u32, check: impl Fn(u64) -> Result<(), String>) {
    if let Some(seed) = std::env::var("NARROWGAUGE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return check(seed).unwrap_or_else(|error| panic!("{error}"));
    }
    let default = Config { failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    // The same seeds at each run, so that a change is judged by itself; whoever asks for a number gets new ones.
    let mut runner = if std::env::var_os("PROPTEST_CASES").is_some() {
        TestRunner::new(default)
    } else {
        TestRunner::new_with_rng(
            Config { cases, ..default },
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        )
    };
    let outcome = runner.run(&proptest::num::u64::ANY, |seed| check(seed).map_err(TestCaseError::fail));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Runs `work` in a thread of its own, so that a hang is a failure with a name.
fn in_time<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(Duration::from_secs(120)) {
        Ok(answer) => Ok(answer),
        Err(RecvTimeoutError::Timeout) => Err(format!("{name}: no answer after two minutes")),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = worker.join().expect_err("it sends unless it panics");
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(format!("{name}: panicked: {text}"))
        }
    }
}
