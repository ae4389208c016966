//! Where nvcc is. Shared by `build.rs` and `cargo xtask setup`, so that both always agree.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest nvcc whose PTX the simulator is tested with.
pub const OLDEST: (u32, u32) = (12, 9);

/// A CUDA compiler and the assembler that belongs to it.
pub struct Toolchain {
    pub nvcc: PathBuf,
    pub ptxas: PathBuf,
    /// As the compiler prints it: `13.0.88`.
    pub version: String,
}

/// The first usable toolchain: NVCC, CUDA_HOME, CUDA_PATH, PATH, /usr/local/cuda, then what setup installed below `root`.
/// What was passed over, and why, goes to `notes`. An NVCC that was asked for and does not work is an error.
pub fn find(root: &Path, notes: &mut Vec<String>) -> Result<Option<Toolchain>, String> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(nvcc) = set("NVCC") {
        return probe(Path::new(&nvcc)).map(Some).map_err(|e| format!("NVCC={}: {e}", nvcc.display()));
    }
    let mut candidates: Vec<PathBuf> = ["CUDA_HOME", "CUDA_PATH"]
        .iter()
        .filter_map(|name| set(name))
        .map(|home| Path::new(&home).join("bin/nvcc"))
        .collect();
    candidates.extend(on_path("nvcc"));
    candidates.push("/usr/local/cuda/bin/nvcc".into());
    candidates.push(installed(root));
    for nvcc in candidates.into_iter().filter(|path| path.is_file()) {
        match probe(&nvcc) {
            Ok(found) => return Ok(Some(found)),
            Err(why) => notes.push(format!("passed over {}: {why}", nvcc.display())),
        }
    }
    Ok(None)
}

/// Where setup puts nvcc: the layout of the published wheels.
pub fn installed(root: &Path) -> PathBuf {
    root.join(".cuda/nvidia/cu13/bin/nvcc")
}

/// Every file of this name on PATH.
pub fn on_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).filter(|file| file.is_file()).collect()
}

fn probe(nvcc: &Path) -> Result<Toolchain, String> {
    let output = Command::new(nvcc).arg("--version").output().map_err(|e| format!("does not run: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('V').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
        .ok_or("prints no version")?
        .to_owned();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if number < OLDEST {
        return Err(format!("is version {version}, and at least {}.{} is needed", OLDEST.0, OLDEST.1));
    }
    // A link such as /usr/bin/nvcc leads to the folder that has the assembler.
    let real = nvcc.canonicalize().unwrap_or_else(|_| nvcc.to_owned());
    let beside =
        [nvcc, &real].into_iter().map(|path| path.with_file_name("ptxas")).find(|path| path.is_file());
    let ptxas = beside.or_else(|| on_path("ptxas").into_iter().next()).ok_or("has no ptxas beside it")?;
    Ok(Toolchain { nvcc: nvcc.to_owned(), ptxas, version })
}
