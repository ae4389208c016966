//! What would be published: the crates as unpacked packages, the library's with prebuilt kernel images.

use crate::{capture, create, remove, root, run, setup};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In the order of publication.
const PACKAGES: [&str; 3] = ["narrowgauge-sim", "narrowgauge", "narrowgauge-cli"];

/// Writes `prebuilt/` and `dist/packages/<name>-<version>/`.
pub fn package() -> Result<(), String> {
    setup::setup()?;
    let root = root();
    prebuild(&root)?;
    let packages = root.join("dist/packages");
    remove(&packages)?;
    create(&packages)?;
    let target = root.join("target/packages");
    // No lock file: the packages depend on each other, and the registry may have none of them yet.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&root).args([
        "package",
        "--quiet",
        "--no-verify",
        "--allow-dirty",
        "--exclude-lockfile",
    ]);
    cargo.args(PACKAGES.iter().flat_map(|name| ["--package", name])).arg("--target-dir").arg(&target);
    run(&mut cargo)?;
    for name in PACKAGES {
        let stem = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let archive = target.join("package").join(format!("{stem}.crate"));
        let bytes = fs::metadata(&archive).map_err(|e| format!("{}: {e}", archive.display()))?.len();
        // -m: cargo dates every file alike, and a build that uses the packages would not see that they changed.
        run(Command::new("tar").arg("-xzmf").arg(&archive).arg("-C").arg(&packages))?;
        println!("{}: {} KiB as published", packages.join(stem).display(), bytes >> 10);
    }
    Ok(())
}

/// Compiles the kernels and keeps the file of images under the name by which the build script looks for it.
fn prebuild(root: &Path) -> Result<(), String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).env("NARROWGAUGE_REQUIRE_KERNELS", "1").env_remove("NARROWGAUGE_ARCHS");
    cargo.args(["check", "--quiet", "--package", "narrowgauge", "--message-format", "json"]);
    let messages = capture(&mut cargo)?;
    let executed = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "build-script-executed")
        .find_map(|message| {
            let variables = message["env"].as_array()?;
            let key =
                variables.iter().find(|pair| pair[0] == "NARROWGAUGE_IMAGES_KEY")?[1].as_str()?.to_owned();
            Some((key, PathBuf::from(message["out_dir"].as_str()?)))
        });
    let (key, out) = executed.ok_or("cargo does not say where the build script left the images")?;
    let prebuilt = root.join("prebuilt");
    remove(&prebuilt)?;
    create(&prebuilt)?;
    let file = prebuilt.join(format!("{key}.images"));
    let bytes = fs::copy(out.join("images.bin"), &file).map_err(|e| format!("{}: {e}", file.display()))?;
    println!("{}: {} KiB", file.display(), bytes >> 10);
    Ok(())
}
