//! Compiles the variants listed in `kernels/variants` and packs their images into one file for `src/device/images.rs`.
//!
//! nvcc if one is found, else prebuilt images that match the sources, else none: the crate always builds.

#[path = "build/compile.rs"]
mod compile;
#[path = "build/toolchain.rs"]
mod toolchain;
#[path = "build/variants.rs"]
mod variants;

use compile::Image;
use lzma_rust2::{Lzma2Options, Lzma2Writer};
use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const SWITCHES: [&str; 9] = [
    "NVCC",
    "CUDA_HOME",
    "CUDA_PATH",
    "DOCS_RS",
    "NVCC_CCBIN",
    "NARROWGAUGE_ARCHS",
    "NARROWGAUGE_REQUIRE_KERNELS",
    "NARROWGAUGE_KERNEL_CACHE",
    "NARROWGAUGE_NO_NVCC",
];

fn main() -> ExitCode {
    println!("cargo::rustc-check-cfg=cfg(ng_kernels)");
    println!("cargo::rustc-check-cfg=cfg(ng_bytes_only)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    // Setup touches kernels/variants when it finds or installs a compiler, so a build without kernels notices.
    println!("cargo::rerun-if-changed=kernels");
    for name in SWITCHES {
        println!("cargo::rerun-if-env-changed={name}");
    }
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let root = folder("CARGO_MANIFEST_DIR")?;
    let out = folder("OUT_DIR")?;
    let kernels = root.join("kernels").canonicalize().map_err(|e| format!("kernels/: {e}"))?;
    let packed = if is_on("DOCS_RS") { None } else { images(&root, &kernels, &out)? };
    if packed.is_some() {
        println!("cargo::rustc-cfg=ng_kernels");
    }
    let path = out.join("images.bin");
    fs::write(&path, packed.unwrap_or_default()).map_err(|e| format!("{}: {e}", path.display()))
}

fn images(root: &Path, kernels: &Path, out: &Path) -> Result<Option<Vec<u8>>, String> {
    let archs = env::var("NARROWGAUGE_ARCHS").ok();
    let archs: Option<Vec<String>> =
        archs.map(|list| list.split(',').map(|name| name.trim().to_owned()).collect());
    let variants = variants::read(kernels, archs.as_deref())?;
    let key = variants::tree_key(kernels, &variants)?;
    // `cargo xtask package` names the prebuilt images by it.
    println!("cargo::rustc-env=NARROWGAUGE_IMAGES_KEY={key}");
    let mut notes = Vec::new();
    let tools = if is_on("NARROWGAUGE_NO_NVCC") { None } else { toolchain::find(root, &mut notes)? };
    if let Some(tools) = tools {
        println!("cargo::rerun-if-changed={}", tools.nvcc.display());
        let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
        let cache = cache(out);
        let images = compile::all(&tools, kernels, &cache, &variants, jobs, &mut notes)?;
        notes.iter().for_each(|note| println!("cargo::warning={note}"));
        return pack(&tools.version, &variants, &images).map(Some);
    }
    notes.iter().for_each(|note| println!("cargo::warning={note}"));
    let prebuilt = root.join("prebuilt").join(format!("{key}.images"));
    if prebuilt.is_file() {
        println!("cargo::rerun-if-changed={}", prebuilt.display());
        return fs::read(&prebuilt).map(Some).map_err(|e| format!("{}: {e}", prebuilt.display()));
    }
    let advice = "no nvcc 12.9 or newer and no matching prebuilt images; \
                  `cargo xtask setup` installs a compiler, or set NVCC or CUDA_HOME";
    if is_on("NARROWGAUGE_REQUIRE_KERNELS") {
        return Err(format!("NARROWGAUGE_REQUIRE_KERNELS is set, but there is {advice}"));
    }
    println!("cargo::warning=built without kernels, so launches will fail: {advice}");
    Ok(None)
}

/// How far back a packed stream refers; `WINDOW` of `src/device/images.rs`.
const WINDOW: u32 = 1 << 22;

/// One file of images: a line of text for the whole, one for each group of images (`*` and the sizes of its two streams) and
/// one for each image in it, an empty one, then the streams. The variants of a source are a group, and so are all
/// kernels without siblings: what they have in common is stored once.
fn pack(compiler: &str, variants: &[variants::Variant], images: &[Image]) -> Result<Vec<u8>, String> {
    let siblings = |source: &str| variants.iter().filter(|variant| variant.source == source).count();
    let mut groups: Vec<(&str, Vec<&Image>)> = Vec::new();
    for (variant, image) in variants.iter().zip(images) {
        let name = if siblings(&variant.source) > 1 { variant.source.as_str() } else { "" };
        match groups.iter_mut().find(|(group, _)| *group == name) {
            Some((_, members)) => members.push(image),
            None => groups.push((name, vec![image])),
        }
    }
    let mut index = format!("narrowgauge-images 3 {compiler}\n");
    let mut streams = Vec::new();
    for (_, members) in groups {
        let ptx = compress(members.iter().flat_map(|image| &image.ptx).copied().collect())?;
        let cubin = compress(members.iter().flat_map(|image| &image.cubin).copied().collect())?;
        index += &format!("* {} {}\n", ptx.len(), cubin.len());
        for image in members {
            index += &format!("{} {} {} {}\n", image.entry, image.arch, image.ptx.len(), image.cubin.len());
        }
        streams.extend([ptx, cubin]);
    }
    index.push('\n');
    let mut packed = index.into_bytes();
    streams.iter().for_each(|stream| packed.extend_from_slice(stream));
    Ok(packed)
}

/// What is shipped is packed well, which takes seconds; what is built at every change, fast.
fn compress(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let mut options = Lzma2Options::with_preset(if release { 6 } else { 1 });
    options.lzma_options.dict_size = WINDOW;
    let mut writer = Lzma2Writer::new(Vec::new(), options);
    let packed = writer
        .write_all(&bytes)
        .map_err(|e| e.to_string())
        .and_then(|()| writer.finish().map_err(|e| e.to_string()));
    packed.map_err(|e| format!("images cannot be packed: {e}"))
}

/// A folder that all profiles of one target folder share.
fn cache(out: &Path) -> PathBuf {
    if let Some(folder) = env::var_os("NARROWGAUGE_KERNEL_CACHE") {
        return folder.into();
    }
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.unwrap_or(out).join("narrowgauge-kernels")
}

fn folder(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {name}"))
}

fn is_on(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}
