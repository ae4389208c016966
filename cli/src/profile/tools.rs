//! Where the tools of the CUDA toolkit are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo xtask setup` fills, seen from the checkout.
const INSTALLED: &str = ".cuda/nvidia/cu13/bin";

/// A tool of the toolkit: beside NVCC, in CUDA_HOME, CUDA_PATH, PATH, /usr/local/cuda, or where setup put it.
pub fn find(name: &str) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn folders() -> Vec<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut folders = Vec::new();
    if let Some(nvcc) = set("NVCC") {
        // A link such as /usr/bin/nvcc leads to the folder that has the rest.
        folders.extend(nvcc.canonicalize().ok().and_then(|real| real.parent().map(Path::to_owned)));
        folders.extend(nvcc.parent().map(Path::to_owned));
    }
    folders
        .extend(["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| set(name)).map(|home| home.join("bin")));
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.push("/usr/local/cuda/bin".into());
    if let Ok(here) = env::current_dir() {
        folders.extend(here.ancestors().map(|folder| folder.join(INSTALLED)));
    }
    folders
}

/// Runs a tool; what it prints.
pub fn run(command: &mut Command) -> Result<String, String> {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if !output.status.success() {
        // Its first complaint; the others follow from it.
        let complaints = String::from_utf8_lossy(&output.stderr);
        let first = complaints.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
        return Err(format!("{name}: {first}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
