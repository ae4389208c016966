//! PTX of the kernels, sound and mutated, always compiled in the same folder so that equal sources give equal text.

use crate::compile;
use crate::toolchain::Toolchain;
use crate::variants::{self, Variant};
use crate::{create, remove};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A copy of `kernels/` that edits go into, and what it compiles to without any.
pub struct Images {
    tools: Toolchain,
    jobs: usize,
    sources: PathBuf,
    scratch: PathBuf,
    variants: Vec<Variant>,
    /// By entry.
    sound: BTreeMap<String, String>,
}

impl Images {
    pub fn new(tools: Toolchain, kernels: &Path, folder: &Path, jobs: usize) -> Result<Self, String> {
        let (sources, scratch) = (folder.join("kernels"), folder.join("scratch"));
        remove(&sources)?;
        create(&scratch)?;
        copy(kernels, &sources)?;
        let variants = variants::read(&sources, Some(&["90a".to_owned()]))?;
        Ok(Images { tools, jobs, sources, scratch, variants, sound: BTreeMap::new() })
    }

    /// The variants that see this file of `kernels/`.
    pub fn users(&self, file: &str) -> Result<Vec<Variant>, String> {
        let place = self.sources.join(file).canonicalize().map_err(|e| format!("{file}: {e}"))?;
        let mut users = Vec::new();
        for variant in &self.variants {
            if variant.files(&self.sources)?.contains(&place) {
                users.push(variant.clone());
            }
        }
        Ok(users)
    }

    /// With `text` in the file's place: the PTX of those variants that differ from the sound ones, by entry. `None`
    /// where one does not compile.
    pub fn mutate(
        &mut self,
        file: &str,
        text: &str,
        variants: &[Variant],
    ) -> Result<Option<BTreeMap<String, String>>, String> {
        let missing: Vec<_> =
            variants.iter().filter(|variant| !self.sound.contains_key(&variant.entry)).cloned().collect();
        for (entry, ptx) in self.compile(&missing) {
            self.sound.insert(entry, ptx?);
        }
        let place = self.sources.join(file);
        let original = fs::read(&place).map_err(|e| format!("{file}: {e}"))?;
        fs::write(&place, text).map_err(|e| format!("{file}: {e}"))?;
        let compiled = self.compile(variants);
        fs::write(&place, original).map_err(|e| format!("{file}: {e}"))?;
        let mut changed = BTreeMap::new();
        for (entry, ptx) in compiled {
            let Ok(ptx) = ptx else { return Ok(None) };
            if self.sound[&entry] != ptx {
                changed.insert(entry, ptx);
            }
        }
        Ok(Some(changed))
    }

    fn compile(&self, variants: &[Variant]) -> Vec<(String, Result<String, String>)> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(variants.len()) {
                scope.spawn(|| {
                    while let Some(variant) = variants.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let file = self.scratch.join(format!("{}.ptx", variant.entry));
                        let ptx = compile::to_ptx(&self.tools, &self.sources, variant, &file)
                            .and_then(|_| fs::read_to_string(&file).map_err(|e| e.to_string()))
                            .map(|text| without_comments(&text));
                        done.lock()
                            .expect("no thread panics holding this")
                            .push((variant.entry.clone(), ptx));
                    }
                });
            }
        });
        done.into_inner().expect("no thread panicked")
    }
}

/// Comments of the compiler name its temporary files.
fn without_comments(ptx: &str) -> String {
    let lines = ptx.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Puts images where `NARROWGAUGE_IMAGES` shall find them, and nothing else.
pub fn write(folder: &Path, images: &BTreeMap<String, String>) -> Result<(), String> {
    remove(folder)?;
    create(folder)?;
    for (entry, ptx) in images {
        let file = folder.join(format!("{entry}.90a.ptx"));
        fs::write(&file, ptx).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    create(to)?;
    for entry in fs::read_dir(from).map_err(|e| format!("{}: {e}", from.display()))? {
        let entry = entry.map_err(|e| e.to_string())?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}
