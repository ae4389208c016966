//! Finds nvcc, or installs its published Python wheels into `.cuda/` of the checkout.

use crate::toolchain::{self, Toolchain};
use crate::{capture, create, files, make_executable, remove, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

/// The compiler, what it includes and links, and the two disassemblers, which are published from 13.2 on only.
const WHEELS: [&str; 6] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cuobjdump==13.5.37",
    "nvidia-cuda-nvdisasm==13.5.37",
];

/// Makes sure that there is a compiler that works, and says which.
pub fn setup() -> Result<Toolchain, String> {
    let root = root();
    let tools = match find(&root)? {
        Some(tools) => tools,
        None => {
            install(&root)?;
            find(&root)?.ok_or("the wheels were installed, and nvcc is not among them")?
        }
    };
    try_out(&root, &tools)?;
    println!("nvcc {} at {}", tools.version, tools.nvcc.display());
    note_for_builds(&root, &tools)?;
    Ok(tools)
}

fn find(root: &Path) -> Result<Option<Toolchain>, String> {
    let mut notes = Vec::new();
    let tools = toolchain::find(root, &mut notes)?;
    notes.iter().for_each(|note| println!("{note}"));
    Ok(tools)
}

/// Downloads beside the final place and renames, so that an interrupted set-up leaves nothing half installed.
fn install(root: &Path) -> Result<(), String> {
    let cuda = root.join(".cuda");
    let staging = cuda.join("staging");
    let start = Instant::now();
    println!("no nvcc 12.9 or newer found: installing the compiler's wheels into {}", cuda.display());
    remove(&staging)?;
    create(&staging)?;
    let python = python()?;
    let mut pip = pip(&python, &staging)?;
    let wheels = staging.join("wheels");
    capture(
        pip.args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"])
            .arg(&wheels)
            .args(WHEELS),
    )
    .map_err(|e| format!("could not download the compiler: {e}"))?;
    let unpacked = staging.join("unpacked");
    let mut bytes = 0;
    for wheel in files(&wheels)? {
        bytes += fs::metadata(&wheel).map_err(|e| e.to_string())?.len();
        capture(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    }
    let nvidia = unpacked.join("nvidia");
    for folder in ["cu13/bin", "cu13/nvvm/bin"] {
        files(&nvidia.join(folder))?.iter().try_for_each(|file| make_executable(file))?;
    }
    let place = cuda.join("nvidia");
    remove(&place)?;
    fs::rename(&nvidia, &place).map_err(|e| format!("{}: {e}", place.display()))?;
    remove(&staging)?;
    println!(
        "installed {} ({} MB, {:.0} s)",
        WHEELS.join(", "),
        bytes / 1_000_000,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn python() -> Result<PathBuf, String> {
    let named = ["python3", "python"].into_iter().flat_map(toolchain::on_path);
    let works = |python: &PathBuf| {
        capture(Command::new(python).args(["-c", "import sys; assert sys.version_info >= (3, 8)"])).is_ok()
    };
    named.into_iter().find(works).ok_or_else(|| {
        "installing nvcc needs Python 3.8 or newer on PATH; or install CUDA 12.9 or newer and set CUDA_HOME".to_owned()
    })
}

/// A pip that works: the interpreter's module, a plain command, or one in a virtual environment of our own.
fn pip(python: &Path, staging: &Path) -> Result<Command, String> {
    let mut candidates: Vec<Vec<PathBuf>> = vec![vec![python.to_owned(), "-m".into(), "pip".into()]];
    candidates.extend(["pip3", "pip"].into_iter().flat_map(toolchain::on_path).map(|pip| vec![pip]));
    for words in candidates {
        let command = || {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            command
        };
        if capture(command().arg("--version")).is_ok() {
            return Ok(command());
        }
    }
    let venv = staging.join("venv");
    println!("there is no pip: making a virtual environment for one");
    capture(Command::new(python).args(["-m", "venv"]).arg(&venv))
        .map_err(|e| format!("installing nvcc needs pip, or Python's venv module to get one: {e}"))?;
    let mut command = Command::new(venv.join("bin/python"));
    command.args(["-m", "pip"]);
    Ok(command)
}

/// Compiles a kernel that does nothing: a missing host compiler or a foreign binary shows here, with its message.
fn try_out(root: &Path, tools: &Toolchain) -> Result<(), String> {
    let folder = root.join("target/xtask-setup");
    create(&folder)?;
    let (source, ptx, cubin) =
        (folder.join("empty.cu"), folder.join("empty.ptx"), folder.join("empty.cubin"));
    fs::write(&source, "extern \"C\" __global__ void empty() {}\n").map_err(|e| e.to_string())?;
    let advice = |e: String| {
        format!("nvcc is there, and does not compile (it needs gcc or clang, see NVCC_CCBIN): {e}")
    };
    let mut nvcc = Command::new(&tools.nvcc);
    if let Some(host) = std::env::var_os("NVCC_CCBIN") {
        nvcc.arg("-ccbin").arg(host);
    }
    capture(nvcc.args(["-arch=sm_90a", "-ptx"]).arg(&source).arg("-o").arg(&ptx)).map_err(advice)?;
    capture(Command::new(&tools.ptxas).arg("-arch=sm_90a").arg(&ptx).arg("-o").arg(&cubin))
        .map_err(advice)?;
    Ok(())
}

/// An earlier build may have found no compiler: cargo runs the build script again when `kernels/variants` is newer.
fn note_for_builds(root: &Path, tools: &Toolchain) -> Result<(), String> {
    let note = root.join("target/xtask-setup/toolchain");
    let text = format!("{} {}\n", tools.version, tools.nvcc.display());
    if fs::read_to_string(&note).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let variants = root.join("kernels/variants");
    let touched = fs::File::options()
        .append(true)
        .open(&variants)
        .and_then(|file| file.set_modified(SystemTime::now()));
    touched.map_err(|e| format!("{}: {e}", variants.display()))?;
    fs::write(&note, text).map_err(|e| format!("{}: {e}", note.display()))
}
