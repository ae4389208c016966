//! Compiles kernel variants in parallel, through a cache that is keyed by content.

use crate::toolchain::Toolchain;
use crate::variants::{NVCC_FLAGS, PTXAS_FLAGS, Variant};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A variant's PTX and the machine code that ptxas made from that very PTX.
pub struct Image {
    pub entry: String,
    pub arch: String,
    pub ptx: Vec<u8>,
    pub cubin: Vec<u8>,
}

/// All variants, in their order. Warnings that do not fail the build go to `notes`.
pub fn all(
    tools: &Toolchain,
    kernels: &Path,
    cache: &Path,
    variants: &[Variant],
    jobs: usize,
    notes: &mut Vec<String>,
) -> Result<Vec<Image>, String> {
    fs::create_dir_all(cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(variants.len()) {
            scope.spawn(|| {
                while let Some((index, variant)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    variants.get(index).map(|variant| (index, variant))
                } {
                    let result = one(tools, kernels, cache, variant).map_err(|error| {
                        format!("kernel {} (kernels/{}): {error}", variant.entry, variant.source)
                    });
                    done.lock().expect("no thread panics holding this").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panicked");
    done.sort_by_key(|(index, _)| *index);
    let mut images = Vec::new();
    let mut errors = Vec::new();
    for (_, result) in done {
        match result {
            Ok((image, spills)) => {
                notes.extend(spills);
                images.push(image);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(images) } else { Err(errors.join("\n\n")) }
}

fn one(
    tools: &Toolchain,
    kernels: &Path,
    cache: &Path,
    variant: &Variant,
) -> Result<(Image, Option<String>), String> {
    let file = |key: &str, kind: &str| cache.join(format!("{}.{}.{key}.{kind}", variant.entry, variant.arch));
    let ptx = file(&variant.key(kernels, &tools.version)?, "ptx");
    made(&ptx, |new| to_ptx(tools, kernels, variant, new))?;
    // Keyed by the text alone: most edits of a shared header change the PTX of few kernels.
    let key = variant.image_key(&ptx, &tools.version)?;
    let (cubin, spills) = (file(&key, "cubin"), file(&key, "spills"));
    made(&cubin, |new| {
        let log = assemble(tools, variant, &ptx, new)?;
        made(&spills, |new| fs::write(new, spilled(&log).unwrap_or_default()).map_err(|e| e.to_string()))
    })?;
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let spills = String::from_utf8_lossy(&read(&spills)?).into_owned();
    let note = (!spills.is_empty()).then(|| format!("kernel {} spills: {spills}", variant.entry));
    let image = Image {
        entry: variant.entry.clone(),
        arch: variant.arch.clone(),
        ptx: read(&ptx)?,
        cubin: read(&cubin)?,
    };
    Ok((image, note))
}

/// Makes a file of the cache unless it stands there. It gets its name last, so that it is whole wherever it has it.
fn made(file: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    if file.is_file() {
        return Ok(());
    }
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".{}", process::id()));
    let new = PathBuf::from(new);
    let result =
        make(&new).and_then(|()| fs::rename(&new, file).map_err(|e| format!("{}: {e}", file.display())));
    let _ = fs::remove_file(&new);
    result
}

/// The cubin of a PTX file; the assembler's log on success.
fn assemble(tools: &Toolchain, variant: &Variant, ptx: &Path, cubin: &Path) -> Result<String, String> {
    let arch = format!("-arch=sm_{}", variant.arch);
    let log = run(Command::new(&tools.ptxas).arg(&arch).args(PTXAS_FLAGS).arg(ptx).arg("-o").arg(cubin))?;
    match log.lines().find(|line| is_costly(line)) {
        Some(line) => Err(format!("ptxas gave up speed: {line}")),
        None => Ok(log),
    }
}

/// The first step alone.
pub fn to_ptx(tools: &Toolchain, kernels: &Path, variant: &Variant, ptx: &Path) -> Result<(), String> {
    let mut nvcc = Command::new(&tools.nvcc);
    nvcc.arg(format!("-arch=sm_{}", variant.arch)).args(NVCC_FLAGS).arg("-I").arg(kernels);
    nvcc.arg(format!("-DNG_ENTRY={}", variant.entry));
    nvcc.args(variant.defines.iter().map(|define| format!("-D{define}")));
    if let Some(host) = std::env::var_os("NVCC_CCBIN") {
        nvcc.arg("-ccbin").arg(host);
    }
    run(nvcc.arg(kernels.join(&variant.source)).arg("-o").arg(ptx)).map(drop)
}

/// C75xx says that wgmma was serialised; a setmaxnreg that is ignored leaves the consumers without registers.
fn is_costly(line: &str) -> bool {
    let serialised = line
        .match_indices("C75")
        .any(|(at, _)| line[at + 3..].chars().take(2).filter(char::is_ascii_digit).count() == 2);
    serialised || (line.contains("setmaxnreg") && line.contains("ignored"))
}

/// The line of ptxas' log that speaks of spills, where there are any.
fn spilled(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("spill stores"))?.trim();
    (!line.contains(" 0 bytes spill stores, 0 bytes spill loads")).then(|| line.to_owned())
}

fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name} does not run: {e}"))?;
    let log = [output.stdout, output.stderr].concat();
    let log = String::from_utf8_lossy(&log).into_owned();
    if output.status.success() {
        Ok(log)
    } else {
        Err(format!("{name} ended with {}:\n{log}", output.status))
    }
}
