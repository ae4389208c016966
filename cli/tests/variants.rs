//! The variants' machine code against the committed tables.

use std::path::Path;
use std::process::Command;

/// No variant spills, and none needs more registers, instructions or wavefronts than `docs/gemm-variants.json` says.
#[test]
#[cfg_attr(
    not(ng_disassembler),
    ignore = "needs nvcc and cuobjdump, without which only PTX is there: run cargo xtask setup"
)]
fn no_variant_became_worse() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrowgauge"));
    let output = command.args(["variants", "--check", "--docs"]).arg(docs).output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn a_folder_without_tables_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrowgauge"));
    let output =
        command.args(["variants", "--check", "--docs"]).arg(folder.path()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
}
