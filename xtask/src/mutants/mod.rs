//! Seeded mutants of the kernels: small edits that the tests of their family must notice.
//!
//! A mutant is one edit of one file below `kernels/`. It is left out where it does not compile or where the PTX of no
//! variant changes; else it is caught or it survives, and nothing else is subtracted.
//!
//! Edits of what families share are compiled for a family and put to its tests before the next one's turn, and within a
//! family for one variant of each kernel first, so a mutant that is caught early may be one that would not have compiled
//! for the others.

mod edits;
mod images;
mod suite;
mod trial;

use crate::{create, root, setup};
use edits::Edit;
use images::Images;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};
use suite::Suite;
use trial::{Families, Trial, Verdict};

/// A family and its test programs, `program=text` for a program's tests whose names contain it; the quick ones come first.
const FAMILIES: [(&str, &[&str]); 6] = [
    ("quant", &["quant", "graphs=quant", "traffic=quant"]),
    ("vocab", &["vocab", "graphs=vocab", "traffic=vocab"]),
    ("norm", &["norm", "graphs=norm", "traffic=norm"]),
    ("routing", &["routing", "graphs=routing", "traffic=routing"]),
    ("mla", &["mla=rope", "graphs=mla", "traffic=mla", "mla"]),
    ("gemm", &["gemm=oracle", "gemm=every_tile", "graphs=gemm", "gemm"]),
];
/// `kernels/ptx` and `kernels/tile`, which every family tests.
const SHARED: &str = "shared";

pub const USAGE: &str =
    "usage: cargo xtask mutants [--family quant|vocab|norm|routing|mla|gemm|shared] [--seed S] \
[--minutes N] [--jobs N] [--only TEXT] [--again FILE] [--list]

  --family   only this one; every one by default
  --seed     which edits are tried, in which order, and on which drawn cases (default 1)
  --minutes  for each family's mutants, at most, apart from the sound kernels' tests (default 20)
  --jobs     compilations at a time (default: one a core)
  --only     edits whose `file:line kind` contains this
  --again    only the survivors of an earlier report, target/mutants/<family>-<seed>.txt, after the tests got better
  --list     shows the edits and runs nothing";

struct Options {
    family: Option<String>,
    seed: u64,
    minutes: u64,
    jobs: usize,
    only: String,
    again: Option<String>,
    list: bool,
}

/// An edit with where it stands.
struct Mutant {
    file: String,
    /// The whole sound file, as it was when the mutants were drawn.
    text: Rc<str>,
    line: usize,
    edit: Edit,
}

#[derive(Default)]
struct Tally {
    identical: usize,
    broken: usize,
    caught: BTreeMap<&'static str, usize>,
    survivors: Vec<String>,
    simulator: Vec<String>,
}

/// Runs the families that the arguments ask for; fails where a sound kernel does not pass, and not for survivors.
pub fn mutants(arguments: &[String]) -> Result<(), String> {
    let options = parse(arguments)?;
    for family in FAMILIES.iter().map(|(name, _)| *name).chain([SHARED]) {
        if options.family.as_deref().is_some_and(|only| only != family) {
            continue;
        }
        let mutants = drawn(family, &options)?;
        if options.list {
            mutants.iter().for_each(|mutant| println!("{}", describe(mutant)));
            println!("{family}: {} edits", mutants.len());
        } else {
            run(family, &mutants, &options)?;
        }
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options =
        Options { family: None, seed: 1, minutes: 20, jobs, only: String::new(), again: None, list: false };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
        let number =
            |text: &String| text.parse::<u64>().map_err(|_| format!("{text}: not a number\n{USAGE}"));
        match word.as_str() {
            "--family" => options.family = Some(value()?.clone()),
            "--seed" => options.seed = number(value()?)?,
            "--minutes" => options.minutes = number(value()?)?,
            "--jobs" => options.jobs = number(value()?)?.max(1) as usize,
            "--only" => options.only = value()?.clone(),
            "--again" => {
                let path = value()?;
                options.again = Some(fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?);
            }
            "--list" => options.list = true,
            other => return Err(format!("{other}: unknown\n{USAGE}")),
        }
    }
    match &options.family {
        Some(name) if name != SHARED && !FAMILIES.iter().any(|(family, _)| family == name) => {
            Err(format!("{name}: no such family\n{USAGE}"))
        }
        _ => Ok(options),
    }
}

/// Every edit of the family's files, in the seed's order: rounds that take one edit of each line that has any left.
fn drawn(family: &str, options: &Options) -> Result<Vec<Mutant>, String> {
    let kernels = root().join("kernels");
    let folders: &[&str] = if family == SHARED { &["ptx", "tile"] } else { &[family] };
    let mut found = Vec::new();
    for folder in folders {
        let mut files = crate::files(&kernels.join(folder))?;
        files.sort();
        for path in files {
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let (file, text) = (format!("{folder}/{name}"), Rc::<str>::from(text));
            found.extend(edits::all(&text).into_iter().map(|edit| {
                let line = text[..edit.range.start].matches('\n').count() + 1;
                Mutant { file: file.clone(), text: text.clone(), line, edit }
            }));
        }
    }
    found.retain(|mutant| {
        format!("{}:{} {}", mutant.file, mutant.line, mutant.edit.kind).contains(&options.only)
    });
    if let Some(report) = &options.again {
        let wanted: BTreeSet<_> = report.lines().map(|line| without_line(line.trim())).collect();
        found.retain(|mutant| wanted.contains(&without_line(&describe(mutant))));
    }
    let mut state = options.seed;
    for last in (1..found.len()).rev() {
        found.swap(last, (next(&mut state) % (last as u64 + 1)) as usize);
    }
    // Each line once before any twice: a table of numbers must not be most of a sample.
    let mut edits = BTreeMap::new();
    let mut rounds: Vec<(usize, Mutant)> = found
        .into_iter()
        .map(|mutant| {
            let round = edits.entry((mutant.file.clone(), mutant.line)).or_insert(0);
            *round += 1;
            (*round, mutant)
        })
        .collect();
    rounds.sort_by_key(|(round, _)| *round);
    Ok(rounds.into_iter().map(|(_, mutant)| mutant).collect())
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn run(family: &str, mutants: &[Mutant], options: &Options) -> Result<(), String> {
    let folder = root().join("target/mutants");
    create(&folder)?;
    let families: Families =
        FAMILIES.iter().filter(|(name, _)| family == SHARED || *name == family).copied().collect();
    let programs: Vec<_> = families.iter().flat_map(|(_, tests)| tests.iter().copied()).collect();
    let mut trial = Trial {
        suite: Suite::build(&programs, &folder.join("tests"))?,
        images: Images::new(setup::setup()?, &root().join("kernels"), &folder, options.jobs)?,
        folder: folder.join("images"),
        seed: options.seed,
        limits: HashMap::new(),
        sound: Duration::ZERO,
    };

    let begun = Instant::now();
    let time = Duration::from_secs(60 * options.minutes);
    let mut tally = Tally::default();
    let mut tried = 0;
    for mutant in mutants {
        if begun.elapsed() > time + trial.sound {
            break;
        }
        tried += 1;
        let text = tally.add(mutant, trial.verdict(mutant, &families)?);
        println!("[{tried}/{}] {}: {text}", mutants.len(), describe(mutant));
    }
    let report = report(family, options, tried, mutants.len(), &tally);
    print!("\n{report}");
    let suffix = if options.again.is_some() { "-again" } else { "" };
    let file = folder.join(format!("{family}-{}{suffix}.txt", options.seed));
    fs::write(&file, report).map_err(|e| format!("{}: {e}", file.display()))
}

impl Tally {
    /// Counts a verdict; answers what there is to say.
    fn add(&mut self, mutant: &Mutant, verdict: Verdict) -> String {
        match verdict {
            Verdict::Broken => {
                self.broken += 1;
                "does not compile".to_owned()
            }
            Verdict::Identical => {
                self.identical += 1;
                "same PTX".to_owned()
            }
            Verdict::Survived => {
                self.survivors.push(describe(mutant));
                "SURVIVED".to_owned()
            }
            Verdict::Caught { how, what } => {
                *self.caught.entry(how).or_default() += 1;
                what
            }
            Verdict::Panicked(reason) => {
                self.simulator.push(format!("{}\n    {reason}", describe(mutant)));
                *self.caught.entry("by a panic of the simulator").or_default() += 1;
                format!("caught, but the simulator panicked: {reason}")
            }
        }
    }
}

/// `file:line kind: the line before -> after`.
fn describe(mutant: &Mutant) -> String {
    let text = &*mutant.text;
    let from = text[..mutant.edit.range.start].rfind('\n').map_or(0, |at| at + 1);
    let to = text[mutant.edit.range.end..].find('\n').map_or(text.len(), |at| mutant.edit.range.end + at);
    let after =
        [&text[from..mutant.edit.range.start], &mutant.edit.replacement, &text[mutant.edit.range.end..to]];
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (kind, before) = (mutant.edit.kind, flat(&text[from..to]));
    format!("{}:{} {kind}: {before}  ->  {}", mutant.file, mutant.line, flat(&after.concat()))
}

/// A description whose line may have moved since.
fn without_line(description: &str) -> String {
    match description.split_once(' ') {
        Some((place, rest)) => format!("{} {rest}", place.split(':').next().unwrap_or_default()),
        None => description.to_owned(),
    }
}

fn report(family: &str, options: &Options, tried: usize, all: usize, tally: &Tally) -> String {
    let caught: usize = tally.caught.values().sum();
    let total = caught + tally.survivors.len();
    let rate = if total == 0 { 0.0 } else { 100.0 * caught as f64 / total as f64 };
    let how: Vec<_> = tally.caught.iter().map(|(how, count)| format!("{count} {how}")).collect();
    let mut text = format!(
        "{family}, seed {}: {caught} of {total} caught ({rate:.1} %: {}); {tried} of {all} edits tried, {} did not compile, {} gave the same PTX\n",
        options.seed,
        how.join(", "),
        tally.broken,
        tally.identical,
    );
    for (title, list) in [("survivors", &tally.survivors), ("panics of the simulator", &tally.simulator)] {
        if !list.is_empty() {
            text += &format!("{title}:\n");
            list.iter().for_each(|line| text += &format!("  {line}\n"));
        }
    }
    text
}
