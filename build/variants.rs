//! The list of kernel variants, and the hashes that say when a compiled one is still good.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Flags of the first step, CUDA C++ to PTX. `-arch`, the include folder and the definitions are added per variant.
pub const NVCC_FLAGS: &[&str] = &["-ptx", "-std=c++17", "-O3"];
/// Flags of the second step, PTX to machine code.
pub const PTXAS_FLAGS: &[&str] = &["-O3", "-v"];
/// Raised when the meaning of a compiled image changes without a change of sources or flags.
const RECIPE: &str = "narrowgauge images 1";

/// One line of `kernels/variants`, for one architecture.
#[derive(Clone)]
pub struct Variant {
    pub entry: String,
    /// Relative to `kernels/`.
    pub source: String,
    /// Without the `sm_`: `90a`.
    pub arch: String,
    /// `KEY=VALUE`, in the order of the line.
    pub defines: Vec<String>,
}

/// Reads `kernels/variants`: `<entry> <source> <arch,arch,..> [KEY=VALUE ..]`, one variant a line, `#` starts a comment.
/// `only` keeps a variant's architectures to those named.
pub fn read(kernels: &Path, only: Option<&[String]>) -> Result<Vec<Variant>, String> {
    let path = kernels.join("variants");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut variants = Vec::new();
    let mut entries = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let at = |what: String| format!("{}:{}: {what}", path.display(), index + 1);
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(entry) = words.next() else { continue };
        let (Some(source), Some(archs)) = (words.next(), words.next()) else {
            return Err(at("a variant is `<entry> <source> <archs> [KEY=VALUE ..]`".into()));
        };
        let defines: Vec<String> = words.map(str::to_owned).collect();
        if let Some(odd) = defines.iter().find(|define| !define.contains('=')) {
            return Err(at(format!("`{odd}` is not KEY=VALUE")));
        }
        if !kernels.join(source).is_file() {
            return Err(at(format!("there is no source kernels/{source}")));
        }
        if !entries.insert(entry.to_owned()) {
            return Err(at(format!("entry `{entry}` is there twice")));
        }
        for arch in
            archs.split(',').filter(|arch| only.is_none_or(|only| only.iter().any(|name| name == arch)))
        {
            variants.push(Variant {
                entry: entry.to_owned(),
                source: source.to_owned(),
                arch: arch.to_owned(),
                defines: defines.clone(),
            });
        }
    }
    Ok(variants)
}

impl Variant {
    /// What names the PTX: its sources, its flags and the compiler, and nothing else of `kernels/`.
    pub fn key(&self, kernels: &Path, compiler: &str) -> Result<String, String> {
        let mut hash = Fnv::new();
        hash.field(RECIPE.as_bytes());
        hash.field(compiler.as_bytes());
        flags().for_each(|flag| hash.field(flag.as_bytes()));
        for word in [&self.entry, &self.arch].into_iter().chain(&self.defines) {
            hash.field(word.as_bytes());
        }
        for file in self.files(kernels)? {
            hash_file(&mut hash, kernels, &file)?;
        }
        Ok(hash.hex())
    }

    /// What names the image that the assembler makes of a PTX file.
    pub fn image_key(&self, ptx: &Path, compiler: &str) -> Result<String, String> {
        let mut hash = Fnv::new();
        hash.field(compiler.as_bytes());
        PTXAS_FLAGS.iter().for_each(|flag| hash.field(flag.as_bytes()));
        hash.field(self.arch.as_bytes());
        hash.field(&fs::read(ptx).map_err(|e| format!("{}: {e}", ptx.display()))?);
        Ok(hash.hex())
    }

    /// The source and every file of `kernels/` that it includes.
    pub fn files(&self, kernels: &Path) -> Result<BTreeSet<PathBuf>, String> {
        let mut files = BTreeSet::new();
        includes(kernels, &kernels.join(&self.source), &mut files)?;
        Ok(files)
    }
}

/// The name of a set of prebuilt images: everything below `kernels/`, the flags and the architectures.
pub fn tree_key(kernels: &Path, variants: &[Variant]) -> Result<String, String> {
    let mut hash = Fnv::new();
    hash.field(RECIPE.as_bytes());
    flags().for_each(|flag| hash.field(flag.as_bytes()));
    for variant in variants {
        hash.field(variant.entry.as_bytes());
        hash.field(variant.arch.as_bytes());
    }
    let mut files = BTreeSet::new();
    tree(kernels, &mut files).map_err(|e| format!("{}: {e}", kernels.display()))?;
    for file in files {
        hash_file(&mut hash, kernels, &file)?;
    }
    Ok(hash.hex())
}

fn flags() -> impl Iterator<Item = &'static str> {
    NVCC_FLAGS.iter().chain(PTXAS_FLAGS).copied()
}

/// `file` and, through its `#include "…"` lines, every file of `kernels/` that it can see. Conditional inclusion is
/// ignored: one dependency too many costs a compilation, one too few a stale kernel.
fn includes(kernels: &Path, file: &Path, seen: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    if !seen.insert(file.to_owned()) {
        return Ok(());
    }
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix('#') else { continue };
        let Some(rest) = rest.trim_start().strip_prefix("include") else { continue };
        let Some(name) = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
            continue;
        };
        let beside = file.parent().map(|folder| folder.join(name)).filter(|path| path.is_file());
        let Some(path) = beside.or_else(|| Some(kernels.join(name)).filter(|path| path.is_file())) else {
            continue;
        };
        let path = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
        includes(kernels, &path, seen)?;
    }
    Ok(())
}

fn tree(folder: &Path, files: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            tree(&path, files)?;
        } else {
            files.insert(path);
        }
    }
    Ok(())
}

fn hash_file(hash: &mut Fnv, kernels: &Path, file: &Path) -> Result<(), String> {
    let name = file.strip_prefix(kernels).unwrap_or(file);
    hash.field(name.to_string_lossy().as_bytes());
    hash.field(&fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?);
    Ok(())
}

/// FNV-1a over 128 bits: the same on every host and Rust version, which the standard library's hasher is not.
struct Fnv(u128);

impl Fnv {
    fn new() -> Self {
        Fnv(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// One field and its length, so that neighbouring fields cannot run into each other.
    fn field(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    fn hex(&self) -> String {
        format!("{:032x}", self.0)
    }
}
