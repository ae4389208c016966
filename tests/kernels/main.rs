//! Rules that the kernel sources keep; read as text, so that they hold without a compiler too.

mod abi;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// Every source below `kernels/`, by its path there.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| ["cu", "cuh", "h"].iter().any(|e| extension == *e))
            {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20, "found only {}", found.len());
    found
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or(""))
}

#[test]
fn assembly_stands_only_in_ptx() {
    for (name, text) in sources().iter().filter(|(name, _)| !name.starts_with("ptx/")) {
        let words = |line: &str| {
            line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .any(|word| word == "asm" || word == "__asm__")
        };
        assert!(!code(text).any(words), "{name}");
    }
}

/// A family includes itself, `ptx/` and `tile/`; nobody includes what the toolkit's compiler wheel does not have.
#[test]
fn includes_stay_within_the_family() {
    for (name, text) in sources() {
        let family = name.split('/').next().unwrap();
        for include in code(&text).filter_map(|line| line.trim().strip_prefix("#include ")) {
            let include = include.trim().trim_matches(['"', '<', '>']);
            let folder = include.split('/').next().unwrap();
            let allowed = ["abi.h", "stdint.h"].contains(&include)
                || ["ptx", "tile"].contains(&folder) && (family != "ptx" || folder == "ptx")
                || folder == family;
            assert!(allowed, "{name} includes {include}");
        }
    }
}

/// Programmatic launches: nothing global is touched before the earlier grids are complete.
#[test]
fn every_kernel_waits_for_its_predecessors() {
    for (name, text) in sources().iter().filter(|(name, _)| name.ends_with(".cu")) {
        assert!(text.contains("grid_dependency_wait();"), "{name}");
    }
}

#[test]
fn every_source_is_built() {
    let variants = fs::read_to_string(root().join("variants")).unwrap();
    for (name, _) in sources().iter().filter(|(name, _)| name.ends_with(".cu")) {
        assert!(variants.lines().any(|line| line.split_whitespace().nth(1) == Some(name)), "{name}");
    }
}
