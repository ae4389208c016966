//! Compiles kernel variants in parallel, through a cache that is keyed by content.

use crate::toolchain::Toolchain;
use crate::variants::{NVCC_FLAGS, PTXAS_FLAGS, Variant};
use std::fs;
use std::path::Path;
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
                    let result = one(tools, kernels, cache, variant);
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
    let key = variant.key(kernels, &tools.version)?;
    let file = |kind: &str| cache.join(format!("{}.{}.{key}.{kind}", variant.entry, variant.arch));
    let (ptx, cubin, spills) = (file("ptx"), file("cubin"), file("spills"));
    // The cubin is renamed into place last: where it stands, the other two do.
    if !cubin.is_file() {
        let partial = |kind: &str| file(&format!("{kind}.{}", process::id()));
        let (new_ptx, new_cubin, new_spills) = (partial("ptx"), partial("cubin"), partial("spills"));
        let result = compile(tools, kernels, variant, &new_ptx, &new_cubin).and_then(|log| {
            let io = |e: std::io::Error| format!("{}: {e}", cache.display());
            fs::write(&new_spills, spilled(&log).unwrap_or_default()).map_err(io)?;
            for (from, to) in [(&new_spills, &spills), (&new_ptx, &ptx), (&new_cubin, &cubin)] {
                fs::rename(from, to).map_err(io)?;
            }
            Ok(())
        });
        for left in [&new_ptx, &new_cubin, &new_spills] {
            let _ = fs::remove_file(left);
        }
        result.map_err(|error| format!("kernel {} (kernels/{}): {error}", variant.entry, variant.source))?;
    }
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

/// Both steps; the assembler's log on success.
fn compile(
    tools: &Toolchain,
    kernels: &Path,
    variant: &Variant,
    ptx: &Path,
    cubin: &Path,
) -> Result<String, String> {
    to_ptx(tools, kernels, variant, ptx)?;
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
