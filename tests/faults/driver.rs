//! Failures of the driver's calls, one at a time.

use crate::harness::{self, between, is_child};
use crate::order;
use narrowgauge::norm::Add;
use narrowgauge::{Device, Error, Graph, Stream, Tensor, bf16};
use std::collections::BTreeMap;

fn run(scenario: &str, environment: &[(&str, &str)]) -> String {
    harness::run(&format!("driver::scenario_{scenario}"), &[], environment)
}

/// The stand-in, compiled once for many children.
struct Driver(tempfile::TempDir);

impl Driver {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        harness::stand_in(folder.path(), &[]);
        Self(folder)
    }

    /// The output of the program below with this failure.
    fn program(&self, failure: &str) -> String {
        harness::child("driver::scenario_program", self.0.path(), &[("FAKE_CUDA_FAIL", failure)])
    }
}

/// A step of the program below.
type Step = fn(&mut Program) -> Result<(), Error>;

/// What a user of every part of the device does, in steps that each may fail.
#[derive(Default)]
struct Program {
    device: Option<Device>,
    streams: Vec<Stream>,
    tensors: Vec<Tensor<bf16>>,
    graph: Option<Graph>,
}

impl Program {
    const STEPS: [(&'static str, Step); 12] = [
        ("open", |p| {
            let device = Device::cuda(0)?;
            p.streams.push(device.stream());
            p.device = Some(device);
            Ok(())
        }),
        ("stream", |p| {
            let stream = p.device()?.new_stream()?;
            p.streams.push(stream);
            Ok(())
        }),
        ("upload", |p| p.upload()),
        ("upload again", |p| p.upload()),
        ("zeros", |p| {
            let zeros = p.device()?.zeros(&[2, 8])?;
            p.tensors.push(zeros);
            Ok(())
        }),
        ("time", |p| p.device()?.set_timing(true)),
        ("launch", |p| p.launch(0)),
        ("launch elsewhere", |p| p.launch(1)),
        ("capture", |p| {
            let [a, b, c] = p.operands()?;
            let stream = p.stream(0)?;
            p.graph = Some(stream.capture(|stream| Add::new(&a, &b, &c).launch(stream))?);
            Ok(())
        }),
        ("replay", |p| {
            let stream = p.stream(1)?;
            p.graph.as_ref().map_or_else(|| Err(missing()), |graph| graph.launch(&stream))
        }),
        ("read", |p| {
            let [_, _, c] = p.operands()?;
            c.to_vec().map(drop)?;
            p.stream(1)?.status().map(drop)
        }),
        ("synchronize", |p| {
            p.device()?.synchronize()?;
            p.device()?.records().map(drop)
        }),
    ];

    fn device(&self) -> Result<&Device, Error> {
        self.device.as_ref().ok_or_else(missing)
    }

    fn stream(&self, index: usize) -> Result<Stream, Error> {
        self.streams.get(index).cloned().ok_or_else(missing)
    }

    fn upload(&mut self) -> Result<(), Error> {
        let tensor = self.device()?.full(&[2, 8], bf16::ONE)?;
        self.tensors.push(tensor);
        Ok(())
    }

    fn operands(&self) -> Result<[Tensor<bf16>; 3], Error> {
        match &self.tensors[..] {
            [a, b, c, ..] => Ok([a.clone(), b.clone(), c.clone()]),
            _ => Err(missing()),
        }
    }

    fn launch(&mut self, stream: usize) -> Result<(), Error> {
        let [a, b, c] = self.operands()?;
        Add::new(&a, &b, &c).launch(&self.stream(stream)?)
    }
}

/// An earlier step failed, so that there is nothing for this one.
fn missing() -> Error {
    Error::Fault("no operand".into())
}

/// The driver's calls of a sound run with how often each is made.
fn calls(text: &str) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("cu")) {
        *calls.entry(line.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    calls
}

#[test]
fn any_call_may_fail_once() {
    let driver = Driver::new();
    let calls = calls(&driver.program(""));
    assert!(calls.len() > 20, "{calls:?}");
    let mut failures = 0;
    for (name, count) in &calls {
        // Of calls that are made often, the first ones and the last.
        for nth in (1..=*count).filter(|nth| *nth <= 3 || nth == count) {
            let text = driver.program(&format!("{name}@{nth}:999"));
            failures += 1;
            assert!(text.contains(" fails\n"), "{name} was not called {nth} times\n{text}");
            let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error in ")).collect();
            // What is released cannot report, and nobody asks for what a call before a failed one has left.
            if !["Destroy", "Free", "Release", "Unload"].iter().any(|word| name.contains(word))
                && errors.is_empty()
            {
                let late = text.find(" fails\n") > text.find("[drop]");
                assert!(late, "{name}, call {nth}: nobody was told\n{text}");
            }
            if let Some(error) = errors.first() {
                assert!(error.contains("999"), "{name}, call {nth}: {error}");
            }
        }
    }
    println!("{failures} single failures in {} functions of the driver", calls.len());
}

#[test]
fn a_context_may_die_in_any_call() {
    let driver = Driver::new();
    let mut deaths = 0;
    for (name, count) in &calls(&driver.program("")) {
        // These need no context, or are the way out.
        if ["cuInit", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"].contains(&name.as_str()) {
            continue;
        }
        for nth in (1..=*count).filter(|nth| *nth <= 3 || nth == count) {
            let text = driver.program(&format!("{name}@{nth}:700"));
            let after = &text[text.find(" fails\n").expect("the call is made") + 7..];
            let told = after.lines().find(|line| line.starts_with("error in "));
            let Some(told) = told else {
                // Releasing has nobody to tell.
                assert!(after.contains("[end]"), "{text}");
                continue;
            };
            deaths += 1;
            assert!(told.contains("the CUDA context is lost"), "{name}, call {nth}: {told}");
            let mut called = after.lines().filter(|line| line.starts_with("cu"));
            // The bytes that a failed copy was to fill may not go before the stream has come to its end.
            if name.starts_with("cuMemcpy") || name.starts_with("cuMemset") {
                assert!(called.next().is_some_and(|line| line.starts_with("cuStreamSynchronize")));
            }
            let called = called.next();
            assert_eq!(called, None, "{name}, call {nth}: a dead context was called\n{text}");
            let errors = after.lines().filter(|line| line.starts_with("error in "));
            assert!(
                errors.clone().all(|line| line.contains("lost") || line.contains("no operand")),
                "{text}"
            );
            assert!(after.contains("lost: true") || told.contains("in open"), "{text}");
        }
    }
    assert!(deaths > 30, "{deaths}");
    println!("{deaths} deaths of the context, each told by the call and by every later one");
}

#[test]
#[ignore = "a scenario of the tests above"]
fn scenario_program() {
    if !is_child() {
        return;
    }
    let mut program = Program::default();
    for (name, step) in Program::STEPS {
        if let Err(error) = step(&mut program) {
            println!("error in {name}: {error}");
        }
    }
    if let Some(device) = &program.device {
        println!("lost: {}", device.is_lost());
    }
    println!("[drop]");
    drop(program);
    println!("[end]");
}

#[test]
fn an_image_for_another_card_is_named() {
    let text = run("old_card", &[("FAKE_CUDA_OLD_CARD", "1")]);
    let told = text.lines().find(|line| line.starts_with("launch: ")).unwrap();
    if cfg!(ng_kernels) {
        assert!(told.contains("add_bf16 is not built for sm_80: this build has it for sm_90a"), "{told}");
    } else {
        assert!(told.contains("add_bf16 was not built"), "{told}");
    }
    assert!(text.contains("lost: false"), "{text}");
}

#[test]
#[ignore = "a scenario of the test above"]
fn scenario_old_card() {
    if !is_child() {
        return;
    }
    let device = Device::cuda(0).unwrap();
    let a: Tensor<bf16> = device.zeros(&[2, 8]).unwrap();
    let out = device.zeros(&[2, 8]).unwrap();
    println!("launch: {}", Add::new(&a, &a, &out).launch(&device.stream()).unwrap_err());
    println!("lost: {}", device.is_lost());
    assert_eq!(a.to_vec().unwrap(), [bf16::ZERO; 16]);
}

#[test]
fn owners_may_go_in_any_order() {
    for pools in [&[][..], &[("FAKE_CUDA_NO_POOLS", "1")]] {
        let text = run("orders", pools);
        let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
        assert!(count("[order]") >= 120, "{}", count("[order]"));
        for (made, gone) in [
            ("cuMemAlloc", "cuMemFree"),
            ("cuStreamCreate", "cuStreamDestroy"),
            ("cuEventCreate", "cuEventDestroy"),
            ("cuGraphInstantiate", "cuGraphExecDestroy"),
            ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease"),
        ] {
            assert_eq!(count(made), count(gone), "{made}");
        }
    }
}

#[test]
#[ignore = "a scenario of the test above"]
fn scenario_orders() {
    if is_child() {
        order::every_order(|| Device::cuda(0).unwrap(), || println!("\n[order]"));
    }
}

/// Nobody drops what statics hold: the process ends all the same, whatever the driver's own end does first.
#[test]
fn a_device_may_outlive_main() {
    let text = run("leaked", &[]);
    assert!(!text.contains("cuDevicePrimaryCtxRelease"), "{text}");
}

#[test]
#[ignore = "a scenario of the test above"]
fn scenario_leaked() {
    static LEAKED: std::sync::OnceLock<(Device, Tensor<bf16>)> = std::sync::OnceLock::new();
    if is_child() {
        let device = Device::cuda(0).unwrap();
        let tensor = device.full(&[2, 8], bf16::ONE).unwrap();
        Add::new(&tensor, &tensor, &device.zeros(&[2, 8]).unwrap()).launch(&device.stream()).unwrap();
        LEAKED.get_or_init(|| (device, tensor));
    }
}

/// Host code that panics between a launch and the wait for it leaves memory that the kernel may use alone.
#[test]
fn a_panic_between_launch_and_wait_frees_behind_the_kernel() {
    let text = run("unwound", &[("FAKE_CUDA_NO_POOLS", "1")]);
    let unwound = between(&text, "[launched]", "[caught]");
    assert!(!unwound.iter().any(|line| line.starts_with("cuMemFree")), "{unwound:?}");
}

#[test]
#[ignore = "a scenario of the test above"]
fn scenario_unwound() {
    if !is_child() {
        return;
    }
    let device = Device::cuda(0).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let a: Tensor<bf16> = device.zeros(&[2, 8]).unwrap();
        let out = device.zeros(&[2, 8]).unwrap();
        Add::new(&a, &a, &out).launch(&device.stream()).unwrap();
        println!("[launched]");
        std::panic::resume_unwind(Box::new("between launch and wait"));
    }));
    println!("[caught]");
    assert!(outcome.is_err());
    device.synchronize().unwrap();
}

/// Every pair of launches that conflict is ordered by what the log shows: stream order, and events that are waited for.
#[test]
fn conflicting_launches_of_many_threads_are_ordered() {
    let text = run("crowd", &[]);
    let mut clocks: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut events: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut last: Option<(&str, usize)> = None;
    let mut launches = 0;
    let join = |into: &mut BTreeMap<_, usize>, from: &BTreeMap<_, usize>| {
        for (stream, time) in from {
            let known = into.entry(*stream).or_default();
            *known = (*known).max(*time);
        }
    };
    for line in between(&text, "[crowd]", "[end]") {
        let words: Vec<_> = line.split([' ', ',']).collect();
        match words[0] {
            "cuEventRecord" => {
                events.insert(words[1], clocks.entry(words[3]).or_default().clone());
            }
            "cuStreamWaitEvent" => {
                let event = events.get(words[3]).cloned().unwrap_or_default();
                join(clocks.entry(words[1]).or_default(), &event);
            }
            "cuLaunchKernelEx" => {
                // grid 2 block 32 on STREAM
                let stream = words[6];
                let clock = clocks.entry(stream).or_default();
                if let Some((other, time)) = last {
                    let seen = clock.get(other).copied().unwrap_or(0);
                    assert!(seen >= time, "launch {launches} does not wait for the one before: {line}");
                }
                let own = clock.entry(stream).or_default();
                *own += 1;
                last = Some((stream, *own));
                launches += 1;
            }
            _ => {}
        }
    }
    assert_eq!(launches, crate::threads::THREADS * crate::threads::LAUNCHES);
}

#[test]
#[ignore = "a scenario of the test above"]
fn scenario_crowd() {
    if is_child() {
        let device = Device::cuda(0).unwrap();
        let shared: Tensor<bf16> = device.zeros(&[2, 8]).unwrap();
        println!("[crowd]");
        crate::threads::crowd(&device, &shared);
        println!("[end]");
    }
}
