//! Runs an entry of any PTX file on the simulated card: `cargo run -p narrowgauge-sim --example run_ptx -- JOB`.
//!
//! The job is a text file; paths in it are relative to it. One line a statement, `#` begins a comment:
//!
//! ```text
//! module kernel.ptx                 PTX text
//! entry my_kernel                   may be left out where the module has one
//! card h20                          or h800, h200
//! grid 4 1 1                        blocks
//! block 128 1 1                     threads of a block
//! cluster 1 1 1                     blocks of a cluster
//! shared 65536                      bytes of dynamic shared memory
//! schedule late 7                   eager, random or late completion of asynchronous operations, and a seed
//! races off                         data races and missing fences are not looked for
//! fp8 exact                         FP8 wgmma accumulates in f32 rather than as Hopper does
//! buffer a a.bin                    device memory with the bytes of a file
//! buffer c 4096                     device memory of so many uninitialised bytes
//! buffer z 4096 0                   … each set to a value
//! param pointer a+128               address of a buffer, and an offset
//! param u32 17                      also u8 u16 u64 i8 i16 i32 i64 f32 f64
//! param u32 17 u32 0 pointer a      a structure by value, padding included
//! param map a u8 256,64 256 128,64 128 zero
//!                                   tensor map by value: buffer, element, extents, strides in bytes (or -), box,
//!                                   swizzle in bytes, fill (zero or nan); in a structure too
//! output c c.bin                    written after the launch
//! ```
//!
//! The card is lenient with what PTX forbids and hardware takes: registers that a wgmma in flight owns are waited for, as
//! ptxas does, and data races, missing fences and branches on uninitialised data are warnings, like a shuffle by lanes that its mask does not name.
//!
//! The counters go to the standard output; warnings, and a fault, to the standard error. After a fault the exit status
//! is 1.

use narrowgauge_sim::tensor_map::{Element, Swizzle, TensorMap};
use narrowgauge_sim::{CardProfile, Fp8Accumulation, InFlight, Launch, Machine, Module, Policy, Schedule};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

/// What a job says.
struct Job {
    folder: PathBuf,
    module: PathBuf,
    entry: Option<String>,
    card: CardProfile,
    grid: [u32; 3],
    block: [u32; 3],
    cluster: [u32; 3],
    shared: u32,
    schedule: Schedule,
    buffers: Vec<(String, Contents)>,
    params: Vec<Vec<String>>,
    outputs: Vec<(String, PathBuf)>,
}

enum Contents {
    File(PathBuf),
    Bytes(u64, Option<u8>),
}

fn triple(words: &[&str]) -> Result<[u32; 3], Failure> {
    let mut out = [1; 3];
    for (slot, word) in out.iter_mut().zip(words) {
        *slot = word.parse()?;
    }
    Ok(out)
}

fn read(path: &Path) -> Result<Job, Failure> {
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    let mut job = Job {
        folder: folder.clone(),
        module: PathBuf::new(),
        entry: None,
        card: CardProfile::H20,
        grid: [1; 3],
        block: [1; 3],
        cluster: [1; 3],
        shared: 0,
        schedule: Schedule { in_flight: InFlight::Compatible, ..Schedule::default() },
        buffers: Vec::new(),
        params: Vec::new(),
        outputs: Vec::new(),
    };
    for (number, line) in std::fs::read_to_string(path)?.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("");
        let words: Vec<&str> = line.split_whitespace().collect();
        statement(&mut job, &words).map_err(|e| format!("{}:{}: {e}", path.display(), number + 1))?;
    }
    Ok(job)
}

fn statement(job: &mut Job, words: &[&str]) -> Result<(), Failure> {
    match words {
        [] => {}
        ["module", file] => job.module = job.folder.join(file),
        ["entry", name] => job.entry = Some((*name).to_owned()),
        ["card", "h20"] => job.card = CardProfile::H20,
        ["card", "h800"] => job.card = CardProfile::H800,
        ["card", "h200"] => job.card = CardProfile::H200,
        ["grid", rest @ ..] => job.grid = triple(rest)?,
        ["block", rest @ ..] => job.block = triple(rest)?,
        ["cluster", rest @ ..] => job.cluster = triple(rest)?,
        ["shared", bytes] => job.shared = bytes.parse()?,
        ["schedule", policy, seed] => {
            let policy = match *policy {
                "eager" => Policy::Eager,
                "random" => Policy::Random,
                "late" => Policy::Late,
                other => return Err(format!("no policy `{other}`").into()),
            };
            job.schedule.seed = seed.parse()?;
            (job.schedule.tma, job.schedule.wgmma) = (policy, policy);
        }
        ["races", "off"] => job.schedule.races = false,
        ["fp8", "exact"] => job.schedule.fp8 = Fp8Accumulation::ExactF32,
        ["buffer", name, size, rest @ ..] => {
            let contents = match (size.parse(), rest) {
                (Ok(bytes), []) => Contents::Bytes(bytes, None),
                (Ok(bytes), [value]) => Contents::Bytes(bytes, Some(value.parse()?)),
                _ => Contents::File(job.folder.join(size)),
            };
            job.buffers.push(((*name).to_owned(), contents));
        }
        ["param", rest @ ..] => job.params.push(rest.iter().map(|w| (*w).to_owned()).collect()),
        ["output", name, file] => job.outputs.push(((*name).to_owned(), job.folder.join(file))),
        _ => return Err(format!("cannot read `{}`", words.join(" ")).into()),
    }
    Ok(())
}

fn numbers<T: std::str::FromStr>(list: &str) -> Result<Vec<T>, T::Err> {
    list.split(',').filter(|x| *x != "-").map(str::parse).collect()
}

fn tensor_map(words: &[&str], buffers: &HashMap<String, (u64, u64)>) -> Result<Vec<u8>, Failure> {
    let [name, element, extents, strides, tile, swizzle, fill] = words else {
        return Err("a tensor map has seven fields".into());
    };
    let element = match *element {
        "u8" => Element::U8,
        "u16" => Element::U16,
        "u32" => Element::U32,
        "i32" => Element::I32,
        "f16" => Element::F16,
        "bf16" => Element::Bf16,
        "f32" => Element::F32,
        other => return Err(format!("no element type `{other}`").into()),
    };
    let swizzle = match *swizzle {
        "0" => Swizzle::None,
        "32" => Swizzle::B32,
        "64" => Swizzle::B64,
        "128" => Swizzle::B128,
        other => return Err(format!("no swizzle of {other} bytes").into()),
    };
    let tile: Vec<u32> = numbers(tile)?;
    let map = TensorMap {
        element,
        address: buffers.get(*name).ok_or_else(|| format!("no buffer `{name}`"))?.0,
        extents: numbers(extents)?,
        strides: numbers(strides)?,
        element_strides: vec![1; tile.len()],
        tile,
        swizzle,
        nan_fill: *fill == "nan",
    };
    Ok(map.encode()?.to_vec())
}

fn scalar(kind: &str, value: &str, buffers: &HashMap<String, (u64, u64)>) -> Result<Vec<u8>, Failure> {
    Ok(match kind {
        "pointer" => {
            let (name, offset) = value.split_once('+').unwrap_or((value, "0"));
            let (address, _) = buffers.get(name).ok_or_else(|| format!("no buffer `{name}`"))?;
            (address + offset.parse::<u64>()?).to_le_bytes().to_vec()
        }
        "u8" => value.parse::<u8>()?.to_le_bytes().to_vec(),
        "u16" => value.parse::<u16>()?.to_le_bytes().to_vec(),
        "u32" => value.parse::<u32>()?.to_le_bytes().to_vec(),
        "u64" => value.parse::<u64>()?.to_le_bytes().to_vec(),
        "i8" => value.parse::<i8>()?.to_le_bytes().to_vec(),
        "i16" => value.parse::<i16>()?.to_le_bytes().to_vec(),
        "i32" => value.parse::<i32>()?.to_le_bytes().to_vec(),
        "i64" => value.parse::<i64>()?.to_le_bytes().to_vec(),
        "f32" => value.parse::<f32>()?.to_le_bytes().to_vec(),
        "f64" => value.parse::<f64>()?.to_le_bytes().to_vec(),
        other => return Err(format!("no parameter type `{other}`").into()),
    })
}

fn parameter(words: &[String], buffers: &HashMap<String, (u64, u64)>) -> Result<Vec<u8>, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (mut rest, mut bytes) = (words.as_slice(), Vec::new());
    while let [kind, ..] = rest {
        let size = if *kind == "map" { 8 } else { 2 };
        let field =
            rest.get(..size).ok_or_else(|| format!("cannot read the parameter `{}`", words.join(" ")))?;
        bytes.extend(match *kind {
            "map" => tensor_map(&field[1..], buffers)?,
            _ => scalar(kind, field[1], buffers)?,
        });
        rest = &rest[size..];
    }
    Ok(bytes)
}

fn run(job: &Job) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&job.module)?;
    let module = match &job.entry {
        Some(entry) => Module::parse_entry(&text, entry)?,
        None => Module::parse(&text)?,
    };
    let entries = module.entries();
    let entry = match (&job.entry, entries.as_slice()) {
        (Some(name), _) => name.as_str(),
        (None, [one]) => one,
        _ => return Err(format!("which entry? {}", entries.join(", ")).into()),
    };
    let mut machine = Machine::new(job.card.clone());
    let mut buffers = HashMap::new();
    for (name, contents) in &job.buffers {
        let (address, size) = match contents {
            Contents::File(path) => {
                let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
                let address = machine.alloc(bytes.len() as u64)?;
                machine.write(address, &bytes)?;
                (address, bytes.len() as u64)
            }
            Contents::Bytes(size, value) => {
                let address = machine.alloc(*size)?;
                if let Some(value) = value {
                    machine.fill(address, *size, *value)?;
                }
                (address, *size)
            }
        };
        buffers.insert(name.clone(), (address, size));
    }
    let params = job.params.iter().map(|p| parameter(p, &buffers)).collect::<Result<Vec<_>, _>>()?;
    let params: Vec<&[u8]> = params.iter().map(Vec::as_slice).collect();
    let report = machine.launch(
        &module,
        &Launch {
            entry,
            grid: job.grid,
            block: job.block,
            cluster: job.cluster,
            shared_bytes: job.shared,
            params: &params,
            schedule: job.schedule,
        },
    )?;
    for (name, file) in &job.outputs {
        let (address, size) = buffers.get(name).ok_or_else(|| format!("no buffer `{name}`"))?;
        let mut bytes = vec![0; *size as usize];
        machine.read(*address, &mut bytes)?;
        std::fs::write(file, bytes)?;
    }
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{:#?}", report.counters);
    Ok(())
}

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: run_ptx JOB");
        return ExitCode::from(2);
    };
    match read(Path::new(&path)).and_then(|job| run(&job)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
