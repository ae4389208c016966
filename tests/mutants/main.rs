//! Kernels broken on purpose: each break must be noticed by the checks that the kernels are tested with.
//!
//! A mutant is a copy of `kernels/` with one exact snippet replaced, compiled as the build script compiles, and run by a
//! child process of this test with the copy's images. On the simulated card only: some mutants would hang a real one.

#[path = "../../build/compile.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod compile;
#[path = "../../build/toolchain.rs"]
#[allow(dead_code, reason = "setup uses the rest")]
mod toolchain;
#[path = "../../build/variants.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod variants;

mod checks;

use checks::Check;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One break: `snippet` stands exactly once in `file` (below `kernels/`) and becomes `replacement`.
struct Mutant {
    name: &'static str,
    file: &'static str,
    snippet: &'static str,
    replacement: &'static str,
    check: Check,
}

const MUTANTS: [Mutant; 12] = [
    Mutant {
        name: "wrong swizzle",
        file: "tile/descriptor.cuh",
        snippet: "static_cast<uint64_t>(1024 >> 4 | 1u << 30) << 32;",
        replacement: "static_cast<uint64_t>(1024 >> 4 | 2u << 30) << 32;",
        check: Check::Fp8,
    },
    Mutant {
        name: "missing barrier wait",
        file: "gemm/main_loop.cuh",
        snippet: "        ptx::mbarrier_wait_parity(pipeline.full(stage), at.phase);\n",
        replacement: "",
        check: Check::Fp8,
    },
    Mutant {
        name: "early stage release",
        file: "gemm/main_loop.cuh",
        snippet: "            ptx::wgmma_wait_group<0>();
            ptx::pin_registers(product);
            // Before the sums, so that the next copies fly while they are made.
            if (wave == Waves - 1) release(stage);
",
        replacement: "            if (wave == Waves - 1) release(stage);
            ptx::wgmma_wait_group<0>();
            ptx::pin_registers(product);
",
        check: Check::Fp8,
    },
    Mutant {
        name: "dropped last K block",
        file: "gemm/fp8_sm90a.cu",
        snippet: "loop.run(sums, (p.k + kBlockK - 1) / kBlockK, waves);",
        replacement: "loop.run(sums, p.k / kBlockK, waves);",
        check: Check::Fp8,
    },
    Mutant {
        name: "the neighbour's scales",
        file: "gemm/fp8_sm90a.cu",
        snippet: "tile.group * p.a_scales_batch_stride + tile.row * p.a_scales_row_stride +",
        replacement: "tile.group * p.a_scales_batch_stride + (tile.row ^ 1) * p.a_scales_row_stride +",
        check: Check::Fp8,
    },
    Mutant {
        name: "page index off by one",
        file: "mla/pages.cuh",
        snippet: "table[token >> p.page_shift]",
        replacement: "table[max((token >> p.page_shift) - 1, 0)]",
        check: Check::Attention,
    },
    Mutant {
        name: "no causal mask on the last block",
        file: "mla/scores.cuh",
        snippet: "const int32_t end = ends[r];",
        replacement: "const int32_t end = ends[r] >= 32 ? 64 : ends[r];",
        check: Check::Attention,
    },
    Mutant {
        name: "swapped expert rows",
        file: "routing/gather_rows_e4m3_sm90a.cu",
        snippet: "tile::pointer<const int32_t>(p.source)[row];",
        replacement: "tile::pointer<const int32_t>(p.source)[row < 2 ? row ^ 1 : row];",
        check: Check::Gather,
    },
    Mutant {
        name: "no proxy fence behind gathered rows",
        file: "gemm/gather.cuh",
        snippet: "        ptx::fence_proxy_async_shared();\n",
        replacement: "",
        check: Check::Listed,
    },
    Mutant {
        name: "the list's next entry",
        file: "gemm/gather.cuh",
        snippet: "const uint32_t found = row < exist ? gathered_row(p, first + row, block == 0) : kNoRow;",
        replacement: "const uint32_t found = row + 1 < exist ? gathered_row(p, first + row + 1, block == 0) : kNoRow;",
        check: Check::Listed,
    },
    Mutant {
        name: "gathered rows announced while they fly",
        file: "gemm/gather.cuh",
        snippet: "            ptx::copy_wait_group<1>();\n",
        replacement: "            ptx::copy_wait_group<2>();\n",
        check: Check::Listed,
    },
    Mutant {
        name: "gathered rows without the second half of the swizzle",
        file: "gemm/gather.cuh",
        snippet: "(to ^ i % 2 * 64) + i * 512",
        replacement: "to + i * 512",
        check: Check::Listed,
    },
];

/// Name of the child's test, which runs the check that this variable names.
const CHILD: &str = "child";
const CHECK: &str = "NARROWGAUGE_MUTANT_CHECK";
const CAUGHT: &str = "caught: ";
const PASSED: &str = "passed";

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_mutant_is_caught() {
    let tools = tools();
    let mut missed = Vec::new();
    for mutant in &MUTANTS {
        let answer = run(&tools, mutant.name, mutant.check, Some(mutant));
        match answer.strip_prefix(CAUGHT) {
            Some(how) => println!("{}: {how}", mutant.name),
            None => missed.push(mutant.name),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// The sound kernels, through the same compilation and child, pass: a mutant is caught for its mutation.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn the_sound_kernels_pass() {
    let tools = tools();
    for check in Check::ALL {
        assert_eq!(run(&tools, "sound", check, None), PASSED, "{check:?}");
    }
}

#[test]
fn every_snippet_stands_exactly_once() {
    for mutant in &MUTANTS {
        let text = fs::read_to_string(kernels().join(mutant.file)).unwrap();
        assert_eq!(text.matches(mutant.snippet).count(), 1, "{}: {}", mutant.name, mutant.file);
    }
}

/// Not a test of its own: what the children run.
#[test]
#[ignore = "runs as a child of the others"]
fn child_check() {
    let Ok(name) = std::env::var(CHECK) else { return };
    let check = Check::ALL.into_iter().find(|check| format!("{check:?}") == name).unwrap();
    match check.run() {
        Ok(()) => println!("{CHILD} {PASSED}"),
        Err(how) => println!("{CHILD} {CAUGHT}{}", how.replace('\n', " ")),
    }
}

fn tools() -> toolchain::Toolchain {
    let tools = toolchain::find(Path::new(env!("CARGO_MANIFEST_DIR")), &mut Vec::new()).unwrap();
    tools.expect("kernels were built, so nvcc is found as the build script finds it")
}

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// Compiles the check's kernel, mutated or not, and runs the check on it. The child's answer.
fn run(tools: &toolchain::Toolchain, name: &str, check: Check, mutant: Option<&Mutant>) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("mutants")
        .join(format!("{name} {check:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let _ = fs::remove_dir_all(&folder);
    let (sources, images) = (folder.join("kernels"), folder.join("images"));
    copy(&kernels(), &sources);
    if let Some(mutant) = mutant {
        let file = sources.join(mutant.file);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches(mutant.snippet).count(), 1, "{name}");
        fs::write(&file, text.replace(mutant.snippet, mutant.replacement)).unwrap();
    }
    let mut variants = variants::read(&sources, Some(&["90a".to_owned()])).unwrap();
    variants.retain(|variant| check.entries().contains(&variant.entry.as_str()));
    assert_eq!(variants.len(), check.entries().len(), "{check:?}");
    let compiled =
        compile::all(tools, &sources, &folder.join("cache"), &variants, 1, &mut Vec::new()).unwrap();
    fs::create_dir_all(&images).unwrap();
    for image in compiled {
        fs::write(images.join(format!("{}.{}.ptx", image.entry, image.arch)), image.ptx).unwrap();
    }
    let answer = child(check, &images);
    fs::remove_dir_all(&folder).unwrap();
    answer
}

fn child(check: Check, images: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_check", "--ignored", "--nocapture"]).env(CHECK, format!("{check:?}"));
    command.env("NARROWGAUGE_IMAGES", images);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let answer =
        text.lines().find_map(|line| line.split_once(&format!("{CHILD} ")).map(|(_, answer)| answer));
    match answer {
        Some(answer) => answer.to_owned(),
        None => panic!("{check:?}: no answer\n{text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
