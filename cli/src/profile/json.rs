//! A profile as JSON.

use super::report::{Kernel, Report, Traffic};
use narrowgauge::sim::Class;
use narrowgauge::sim::profiler::Counts;
use serde_json::{Map, Value, json};

/// The report; every kernel with so many of its hottest lines.
pub fn of(report: &Report, lines: usize) -> Value {
    let mut value = json!({
        "operation": report.name,
        "device": report.device,
        "version": env!("CARGO_PKG_VERSION"),
        "ideal_tensor_macs": report.ideal_macs,
        "operands": operands(&report.operands),
        "kernels": report.kernels.iter().map(|kernel| one(kernel, lines)).collect::<Vec<_>>(),
    });
    if let Some(against) = &report.against {
        let differences: Vec<Value> = against
            .differences
            .iter()
            .map(|difference| {
                json!({
                    "operand": difference.operand,
                    "elements": difference.elements,
                    "different": difference.different,
                    "largest": difference.largest,
                    "largest_value": difference.of,
                    "nan_on_one_side": difference.nan,
                })
            })
            .collect();
        value["against"] = json!({
            "kernel": one(&against.kernel, lines),
            "operands": operands(&against.operands),
            "differences": differences,
            "warnings": against.warnings,
        });
    }
    value
}

fn operands(traffic: &[Traffic]) -> Vec<Value> {
    traffic
        .iter()
        .map(|operand| {
            json!({
                "name": operand.name,
                "access": operand.how,
                "ideal_bytes": operand.ideal,
                "unique_bytes": operand.unique,
                "requested_bytes": operand.requested,
            })
        })
        .collect()
}

fn counts(counts: &Counts) -> Value {
    let by_class: Map<String, Value> = Class::ALL
        .into_iter()
        .filter(|&class| counts.class(class) > 0)
        .map(|class| (class.name().to_owned(), counts.class(class).into()))
        .collect();
    json!({ "warp_instructions": counts.executions, "polling": counts.polling, "by_class": by_class })
}

fn one(kernel: &Kernel, lines: usize) -> Value {
    let profile = &kernel.profile;
    let roles: Vec<Value> = profile
        .roles
        .iter()
        .map(|role| {
            let sass = kernel.sass_loop(role);
            json!({
                "role": kernel.role_name(role),
                "warps": role.warps,
                "counts": counts(&role.counts),
                "main_loop": role.main_loop,
                "in_main_loop": counts(&role.in_loop),
                "trips": role.trips,
                "warp_instructions_per_trip": role.per_trip(),
                "sass": sass.map(|(found, trips)| json!({
                    "trips": trips,
                    "instructions": found.instructions,
                    "opcodes": found.opcodes,
                })),
            })
        })
        .collect();
    let loops: Vec<Value> = profile
        .loops
        .iter()
        .map(|found| {
            json!({
                "line": found.line,
                "last_line": found.last_line,
                "parent": found.parent,
                "waits": found.waits,
                "trips": found.trips,
                "warp_instructions": found.executions,
                "polling": found.polling,
            })
        })
        .collect();
    let hottest: Vec<Value> = kernel
        .hottest(lines)
        .into_iter()
        .map(|line| {
            json!({
                "line": line.line,
                "ptx": kernel.line(line.line),
                "class": line.class.name(),
                "warp_instructions": line.executions,
                "lanes": line.lanes,
                "load_sectors": line.load_sectors,
                "store_sectors": line.store_sectors,
                "global_bytes": line.global_bytes,
                "bank_conflicts": line.bank_conflicts,
                "waits": line.waits,
                "tensor_macs": line.tensor_macs,
            })
        })
        .collect();
    let ((loads, stores), (unique_loads, unique_stores)) =
        (profile.requested_sectors(), profile.unique_sectors());
    json!({
        "kernel": profile.kernel,
        "grid": profile.grid,
        "block": profile.block,
        "cluster": profile.cluster,
        "shared_bytes": profile.shared_bytes,
        "shared_written": profile.shared_written,
        "registers": kernel.resources.as_ref().ok().map(|resources| resources.registers),
        "stack_bytes": kernel.resources.as_ref().ok().map(|resources| resources.stack),
        "sass_instructions": kernel.code.as_ref().ok().map(|code| code.instructions),
        "sass_local_accesses": kernel.code.as_ref().ok().map(|code| code.local_accesses),
        "sass_missing": kernel.code.as_ref().err(),
        "warp_instructions": profile.executions(),
        "load_sectors": loads,
        "store_sectors": stores,
        "unique_load_sectors": unique_loads,
        "unique_store_sectors": unique_stores,
        "bank_conflicts": profile.bank_conflicts(),
        "waits": profile.waits(),
        "tensor_macs": profile.tensor_macs(),
        "hot_spots": profile.hot_spots().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "hottest_loop": profile.hottest_loop(),
        "roles": roles,
        "loops": loops,
        "lines": hottest,
    })
}
