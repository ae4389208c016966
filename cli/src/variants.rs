//! `narrowgauge variants`: what the machine code of every GEMM variant costs, as tables, and whether that became worse.

use crate::profile::code::{self, MachineCode};
use crate::profile::sass::SassLoop;
use narrowgauge::gemm::Tile;
use narrowgauge::gemm::plan::{self, Input};
use narrowgauge::gemm::published;
use narrowgauge::sim::Schedule;
use narrowgauge::{Card, Device, verify};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Options {
    /// Where gemm-variants.md and gemm-variants.json are
    #[arg(long, value_name = "FOLDER", default_value = "docs")]
    docs: PathBuf,
    /// Compare with the tables instead of writing them; fails where a variant became worse
    #[arg(long)]
    check: bool,
}

/// A row of the tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    kernel: String,
    tile_m: usize,
    tile_n: usize,
    stages: usize,
    dtype: String,
    scaling: String,
    /// Blocks that share loads of the same weights.
    multicast: usize,
    registers: u32,
    spill_bytes: u32,
    /// Machine instructions of a warp that multiplies, for each stage of K in the steady loop.
    sass_per_k_block: f64,
    ffma_per_k_block: f64,
    /// Shared-memory wavefronts beyond the least, of the whole kernel, for each stage of K of a tile; none where the
    /// correctness cases do not run it.
    extra_wavefronts_per_k_block: Option<f64>,
    picked_for: Vec<String>,
}

const YARDSTICKS: &str = include_str!("variants_yardsticks.md");

pub fn run(options: &Options) -> Result<bool, String> {
    let rows = measure()?;
    let (json, text) = (options.docs.join("gemm-variants.json"), options.docs.join("gemm-variants.md"));
    if options.check {
        return check(&rows, &json);
    }
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    };
    write(&json, serde_json::to_string_pretty(&rows).map_err(|e| e.to_string())? + "\n")?;
    write(&text, markdown(&rows))?;
    Ok(true)
}

fn measure() -> Result<Vec<Row>, String> {
    let device = Device::simulated(Card::H20).map_err(|e| e.to_string())?;
    let wavefronts = wavefronts(&device)?;
    let picks = picks();
    let mut rows = Vec::new();
    for tile in Tile::all() {
        for (kernel, [a, b]) in tile.types() {
            let failed = |e: String| format!("{kernel}: {e}");
            let image = device.image(kernel).map_err(|e| e.to_string())?;
            let cubin = image.cubin.ok_or_else(|| failed("only PTX is at hand".into()))?;
            let resources = code::resources(&cubin, kernel).map_err(failed)?;
            let machine = code::machine_code(&cubin, kernel).map_err(failed)?;
            let (sass, ffma) = per_k_block(&machine, tile).map_err(failed)?;
            let stage = (tile.rows() * tile.weight_rows() * tile.k_per_stage()) as f64;
            rows.push(Row {
                kernel: kernel.to_owned(),
                tile_m: tile.rows(),
                tile_n: tile.columns(),
                stages: tile.stages(),
                dtype: if a == b { a.to_owned() } else { format!("{a} x {b}") },
                scaling: scaling(tile.input()).to_owned(),
                multicast: tile.cluster(),
                registers: resources.registers,
                spill_bytes: machine.spill_bytes,
                sass_per_k_block: tenth(sass),
                ffma_per_k_block: tenth(ffma),
                extra_wavefronts_per_k_block: wavefronts
                    .get(kernel)
                    .map(|(extra, macs)| tenth(*extra as f64 * stage / (*macs).max(1) as f64)),
                picked_for: picks.get(kernel).cloned().unwrap_or_default(),
            });
        }
    }
    Ok(rows)
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn scaling(input: Input) -> &'static str {
    match input {
        Input::Fp8 => "1x128 by 128x128",
        Input::Fp8Fine => "1x128 by 1x128",
        _ => "none",
    }
}

/// Of the loops that multiply, the one with the fewest instructions a product: others have an epilogue in them, or are
/// the tails of K. Instructions and multiply-adds for each stage.
fn per_k_block(machine: &MachineCode, tile: Tile) -> Result<(f64, f64), String> {
    let products = |found: &SassLoop| {
        found.opcodes.iter().filter(|(name, _)| name.ends_with("GMMA")).map(|(_, n)| *n).sum::<usize>()
    };
    let each = |found: &SassLoop| found.instructions as f64 / products(found) as f64;
    let loops = machine.loops.iter().filter(|found| products(found) > 0);
    let best = loops.min_by(|a, b| each(a).total_cmp(&each(b))).ok_or("no loop of it multiplies")?;
    // Four steps of 32 bytes of K for each 64 rows of a warpgroup.
    let side = if tile.swapped() { tile.columns() } else { tile.rows() };
    let waves = side.div_ceil(64 * tile.warpgroups()).max(1) * tile.weight_rows() / tile.columns();
    let stages = products(best) as f64 / (4 * waves) as f64;
    let ffma =
        best.opcodes.get("FFMA").copied().unwrap_or(0) + 2 * best.opcodes.get("FFMA2").copied().unwrap_or(0);
    Ok((best.instructions as f64 / stages, ffma as f64 / stages))
}

/// By kernel: shared-memory wavefronts beyond the least, and multiply-accumulates, over the cases that run every tile.
fn wavefronts(device: &Device) -> Result<BTreeMap<String, (u64, u64)>, String> {
    let schedule = Schedule { profile: true, checks: false, ..Schedule::default() };
    device.set_schedule(schedule).map_err(|e| e.to_string())?;
    device.clear_records();
    for case in
        verify::cases().iter().filter(|case| case.family == "gemm" && case.name.contains("every tile"))
    {
        (case.run)(device, 1).map_err(|e| format!("{}: {e}", case.name))?;
    }
    let mut all = BTreeMap::new();
    for record in device.records().map_err(|e| e.to_string())? {
        let (extra, macs): &mut (u64, u64) = all.entry(record.kernel).or_default();
        for profile in &record.profiles {
            *extra += profile.bank_conflicts();
            *macs += profile.tensor_macs();
        }
    }
    Ok(all)
}

/// The published shapes by the kernel that a planner picks for them, each with its cards.
fn picks() -> BTreeMap<&'static str, Vec<String>> {
    let mut picks: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for shape in published::shapes() {
        let mut cards: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
        for card in Card::ALL.iter().filter(|card| card.compute_capability == (9, 0)) {
            if let Some(plan) = plan::plan(&shape.problem, card, None) {
                cards.entry(plan.entry).or_default().push(&card.name);
            }
        }
        for (kernel, cards) in cards {
            picks.entry(kernel).or_default().push(format!("{} ({})", shape.name, cards.join(", ")));
        }
    }
    picks
}

/// Whether no variant is worse than the table says. What is new, gone or picked elsewhere is only told.
fn check(rows: &[Row], path: &Path) -> Result<bool, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let before: Vec<Row> = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let (worse, stale) = compare(rows, &before);
    stale.iter().for_each(|line| println!("{line}"));
    if !stale.is_empty() {
        println!("the tables are old: cargo xtask variants");
    }
    worse.iter().for_each(|line| eprintln!("{line}"));
    if worse.is_empty() {
        println!("{} variants, none worse than {}", rows.len(), path.display());
    }
    Ok(worse.is_empty())
}

/// Accumulators of a thread, multicast, and the instructions for each stage of K that are too many whatever the table says,
/// where rows fill the side of 64.
const LIMITS: [(f64, usize, f64); 4] =
    [(64.0, 1, 98.0), (64.0, 2, 104.0), (128.0, 1, 180.0), (128.0, 2, 186.0)];
/// Registers of a thread at launch, of which math warps take more from the producer's.
const REGISTERS: u32 = 168;

/// What is wrong with a variant by itself.
fn faults(row: &Row) -> Vec<String> {
    let kernel = &row.kernel;
    let mut faults = Vec::new();
    if row.spill_bytes > 0 {
        faults.push(format!("{kernel}: {} bytes spilled", row.spill_bytes));
    }
    if row.registers > REGISTERS {
        faults.push(format!("{kernel}: {} registers, and {REGISTERS} at most are planned", row.registers));
    }
    let extra = row.extra_wavefronts_per_k_block.unwrap_or(0.0);
    if extra > 0.0 {
        faults.push(format!("{kernel}: {extra} extra wavefronts per k-block"));
    }
    for (sums, multicast, most) in LIMITS {
        let same = (row.ffma_per_k_block, row.multicast) == (sums, multicast) && !kernel.contains("swapped");
        if same && row.scaling == scaling(Input::Fp8) && row.sass_per_k_block > most {
            faults
                .push(format!("{kernel}: {} instructions per k-block, at most {most}", row.sass_per_k_block));
        }
    }
    faults
}

fn compare(rows: &[Row], before: &[Row]) -> (Vec<String>, Vec<String>) {
    let (mut worse, mut stale) = (Vec::new(), Vec::new());
    for row in rows {
        let kernel = &row.kernel;
        worse.extend(faults(row));
        let Some(old) = before.iter().find(|old| old.kernel == *kernel) else {
            stale.push(format!("{kernel} is new"));
            continue;
        };
        let numbers = |row: &Row| {
            [
                ("registers", f64::from(row.registers)),
                ("instructions per k-block", row.sass_per_k_block),
                ("multiply-adds per k-block", row.ffma_per_k_block),
            ]
        };
        for ((what, now), (_, then)) in numbers(row).into_iter().zip(numbers(old)) {
            if now > then {
                worse.push(format!("{kernel}: {now} {what}, {then} before"));
            }
        }
        if row != old {
            stale.push(format!("{kernel} has changed"));
        }
    }
    let gone = before.iter().filter(|old| rows.iter().all(|row| row.kernel != old.kernel));
    stale.extend(gone.map(|old| format!("{} is gone", old.kernel)));
    (worse, stale)
}

fn markdown(rows: &[Row]) -> String {
    let mut out = String::from(
        "# GEMM variants\n\n\
         Written by `cargo xtask variants` from the compiled kernels and the simulated card's profiler; the same as data in\n\
         [gemm-variants.json](gemm-variants.json). Instructions are those of one warp that multiplies, for each stage of K\n\
         (128 of FP8, 64 of bf16) of the steady loop, with the polls that only run when a barrier is late; wavefronts are of\n\
         the whole kernel. Static counts, not times.\n\n\
         | kernel | tile | stages | operands | scales | multicast | registers | spilled | SASS | FFMA | extra wavefronts | shapes picked for |\n\
         |---|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let extra = row.extra_wavefronts_per_k_block.map_or("–".to_owned(), |extra| extra.to_string());
        out += &format!(
            "| {} | {}x{} | {} | {} | {} | {} | {} | {} | {} | {} | {extra} | {} |\n",
            row.kernel,
            row.tile_m,
            row.tile_n,
            row.stages,
            row.dtype,
            row.scaling,
            row.multicast,
            row.registers,
            row.spill_bytes,
            row.sass_per_k_block,
            row.ffma_per_k_block,
            row.picked_for.len(),
        );
    }
    out + "\n" + YARDSTICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            kernel: "k".into(),
            tile_m: 64,
            tile_n: 64,
            stages: 4,
            dtype: "e4m3".into(),
            scaling: "none".into(),
            multicast: 1,
            registers: 128,
            spill_bytes: 0,
            sass_per_k_block: 98.0,
            ffma_per_k_block: 64.0,
            extra_wavefronts_per_k_block: Some(0.0),
            picked_for: Vec::new(),
        }
    }

    #[test]
    fn worse_is_told_from_different() {
        let same = compare(&[row()], &[row()]);
        assert_eq!(same, (vec![], vec![]));
        let better = compare(&[Row { sass_per_k_block: 90.0, ..row() }], &[row()]);
        assert!(better.0.is_empty() && better.1.len() == 1, "{better:?}");
        for worse in [
            Row { sass_per_k_block: 98.1, ..row() },
            Row { registers: 129, ..row() },
            Row { extra_wavefronts_per_k_block: Some(1.0), ..row() },
            Row { spill_bytes: 8, ..row() },
        ] {
            assert_eq!(compare(&[worse], &[row()]).0.len(), 1);
        }
        // Bad by itself, whatever the table says.
        let slow = Row { scaling: scaling(Input::Fp8).into(), sass_per_k_block: 98.5, ..row() };
        for bad in [Row { registers: 200, ..row() }, slow] {
            assert_eq!(compare(std::slice::from_ref(&bad), std::slice::from_ref(&bad)).0.len(), 1);
        }
        assert_eq!(compare(&[row()], &[]), (vec![], vec!["k is new".to_owned()]));
        assert_eq!(compare(&[], &[row()]), (vec![], vec!["k is gone".to_owned()]));
    }
}
