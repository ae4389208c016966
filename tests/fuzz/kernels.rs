//! Kernels with edited PTX on the simulated card: a fault is an error, and the card itself never breaks.

use crate::{compile, in_time, on_seeds, ptx, toolchain, variants};
use narrowgauge::gemm::Tile;
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::sim::Schedule;
use narrowgauge::verify::gemm::{Form, Fp8Check, Rows, Values};
use narrowgauge::verify::mla::AttentionInputs;
use narrowgauge::verify::{self, Source};
use narrowgauge::{Card, Device, ScaleLayout, bf16};
use std::path::{Path, PathBuf};
use std::process::Command;

type Check = fn(&Device) -> Result<(), String>;

/// A kernel of each kind, with a small problem for it.
const KERNELS: [(&str, Check); 5] = [
    ("gemm_fp8_64x64", product),
    ("mla_attention_bf16", |device| {
        AttentionInputs::normal(&mut Source::new(3), &[70], 1, 40).check(device, None).map(drop)
    }),
    ("router_8", |device| quick(device, "routing", "router")),
    ("permute_small_i32", |device| quick(device, "routing", "permut")),
    ("rms_norm_quantize_bf16", |device| quick(device, "norm", "quantisation")),
];

fn product(device: &Device) -> Result<(), String> {
    let tile =
        Tile::of(Input::Fp8, Mode::Dense).into_iter().find(|tile| (tile.rows(), tile.columns()) == (64, 64));
    let (rows, layout, values) = (Rows::Dense(5), ScaleLayout::RowMajor, Values::Integers);
    Fp8Check { rows, n: 24, k: 272, layout, tile, values, form: Form::PLAIN, seed: 1 }
        .check::<bf16>(device)
        .map(drop)
}

/// The first quick case with this in its name.
fn quick(device: &Device, family: &str, name: &str) -> Result<(), String> {
    let case = verify::cases().into_iter().find(|case| case.family == family && case.name.contains(name));
    (case.expect("a case of this name").run)(device, 1).map(drop)
}

/// The PTX of these kernels, from the build's own cache where it is there.
pub fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = toolchain::find(root, &mut Vec::new()).unwrap();
    let tools = tools.expect("kernels were built, so nvcc is found as the build script finds it");
    let sources = root.join("kernels");
    let mut variants = variants::read(&sources, Some(&["90a".to_owned()])).unwrap();
    variants.retain(|variant| KERNELS.iter().any(|(entry, _)| *entry == variant.entry));
    assert_eq!(variants.len(), KERNELS.len());
    let cache = std::env::var_os("NARROWGAUGE_KERNEL_CACHE").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("narrowgauge-kernels"),
        PathBuf::from,
    );
    let images = compile::all(&tools, &sources, &cache, &variants, 1, &mut Vec::new()).unwrap();
    images.into_iter().map(|image| (image.entry, String::from_utf8(image.ptx).unwrap())).collect()
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn edited_kernels_fault_and_nothing_else() {
    let images = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "kernels::scenario_edited"])
        .env("NARROWGAUGE_IMAGES", images.path())
        .env("NARROWGAUGE_SCENARIO", "1")
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    println!("{}", text.lines().find(|line| line.contains("edited kernels")).unwrap_or_default());
}

#[test]
#[ignore = "runs as a child of the test above"]
fn scenario_edited() {
    if std::env::var_os("NARROWGAUGE_SCENARIO").is_none() {
        return;
    }
    let folder = PathBuf::from(std::env::var_os("NARROWGAUGE_IMAGES").unwrap());
    let texts = texts();
    let counts = [const { std::sync::atomic::AtomicUsize::new(0) }; 2];
    on_seeds(100, |seed| {
        let mut source = Source::new(seed);
        let (entry, text) = &texts[source.below(texts.len())];
        let check = KERNELS.iter().find(|(name, _)| name == entry).unwrap().1;
        std::fs::write(folder.join(format!("{entry}.90a.ptx")), ptx::edited_times(1, text, &mut source))
            .unwrap();
        let policy = verify::schedules()[source.below(3)].1;
        let outcome = in_time(entry, move || {
            let device = Device::simulated(Card::find("h20").unwrap()).unwrap();
            // A loop that never ends is found soon.
            device.set_schedule(Schedule { step_limit: 200_000, ..policy }).unwrap();
            check(&device)
        })?;
        counts[usize::from(outcome.is_err())].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    });
    let [passed, failed] = counts.map(std::sync::atomic::AtomicUsize::into_inner);
    println!("\n{failed} of {} edited kernels were refused, faulted or answered wrong", passed + failed);
    assert!(failed > passed, "the edits change nothing");
}
