//! `narrowgauge profile`: what an operation's kernels do on the simulated card, instruction by instruction.

mod adapter;
mod against;
pub mod code;
mod expression;
mod features;
mod json;
mod report;
pub mod sass;
pub mod table;
mod text;
mod tools;

use crate::cases::products::{fp8_tile, fp8_tiles};
use crate::cases::{OPERATIONS, Operation};
use narrowgauge::sim::Schedule;
use narrowgauge::{Card, Device};
use report::Report;
use std::path::PathBuf;

/// Extents beyond these make a run of hours, or more memory than the host has.
const MOST_ELEMENTS: usize = 1 << 30;
const MOST_WORK: u128 = 1 << 40;

#[derive(clap::Args)]
pub struct Options {
    /// The operation, such as fp8_gemm; without one they are listed with their extents
    operation: Option<String>,
    #[command(flatten)]
    extents: Extents,
    /// sim:h20 or sim:h800; profiles come from the simulated card
    #[arg(long, default_value = "sim:h20")]
    device: String,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// How many of the hottest PTX lines are shown
    #[arg(long, default_value_t = 12)]
    lines: usize,
    /// Do not look for uninitialised data and races; for kernels that do not care
    #[arg(long)]
    unchecked: bool,
    /// Also run this PTX on the same operands and compare; a .cubin beside it is looked at for registers
    #[arg(long, value_name = "FILE.ptx")]
    against: Option<PathBuf>,
    /// The entry of --against, where the adapter does not say
    #[arg(long, requires = "against")]
    entry: Option<String>,
    /// How --against takes its parameters; by default the PTX file's name with .toml
    #[arg(long, value_name = "FILE.toml", requires = "against")]
    adapter: Option<PathBuf>,
}

macro_rules! extents {
    ($($name:ident),+) => {
        #[derive(clap::Args)]
        #[command(next_help_heading = "Extents")]
        struct Extents {
            $(#[arg(long, value_name = "N")] $name: Option<usize>,)+
        }

        impl Extents {
            fn given(&self) -> Vec<(&'static str, usize)> {
                let all = [$((stringify!($name), self.$name)),+];
                all.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
            }
        }
    };
}

extents!(m, n, k, groups, batch, experts, chosen, sequences, heads, length, tile_m, tile_n);

/// Prints the profile, or what there is to profile.
pub fn run(options: &Options) -> Result<bool, String> {
    let Some(name) = &options.operation else {
        list();
        return Ok(true);
    };
    let operation = find(name)?;
    let extents = shape(operation, &options.extents.given())?;
    let card = options.device.strip_prefix("sim:").ok_or_else(|| {
        format!("--device {}: profiles come from the simulated card, sim:h20 say", options.device)
    })?;
    let card = Card::find(card).ok_or_else(|| format!("--device {}: no such card", options.device))?;
    let foreign = match &options.against {
        None => None,
        Some(ptx) => Some(against::Foreign::load(ptx, options.adapter.as_deref(), options.entry.as_deref())?),
    };

    let schedule = Schedule { profile: true, checks: !options.unchecked, ..Schedule::default() };
    let device = Device::simulated(card).map_err(|e| e.to_string())?;
    let case = (operation.case)(&extents);
    let prepared = (case.prepare)(&device).map_err(|e| format!("{}: {e}", case.name))?;
    device.set_schedule(schedule).map_err(|e| e.to_string())?;
    device.clear_records();
    (prepared.launch)(&device.stream()).map_err(|e| format!("{}: {e}", case.name))?;
    let mut report = Report::new(&device, &case, &prepared)?;
    if let Some(foreign) = &foreign {
        let named: Vec<_> =
            operation.extents.iter().zip(&extents).map(|((name, _), value)| (*name, *value as i64)).collect();
        report.against = Some(foreign.run(&device, &prepared, &named, schedule)?);
    }
    if options.json {
        println!("{}", json::of(&report, options.lines));
    } else {
        print!("{}", text::of(&report, options.lines));
    }
    Ok(true)
}

fn list() {
    let mut table = table::Table::new(&["<operation", "<what", "<extents"]);
    for operation in OPERATIONS {
        let extents: Vec<String> = operation
            .extents
            .iter()
            .map(|(name, value)| format!("--{} {value}", name.replace('_', "-")))
            .collect();
        table.row([operation.name.to_owned(), operation.what.to_owned(), extents.join(" ")]);
    }
    print!("{}", table.text(""));
}

/// By name; dashes count as underscores, and a name that only one operation ends in will do.
fn find(name: &str) -> Result<&'static Operation, String> {
    let wanted = name.replace('-', "_");
    OPERATIONS.iter().find(|operation| operation.name == wanted).ok_or_else(|| {
        let names: Vec<_> = OPERATIONS.iter().map(|operation| operation.name).collect();
        format!("there is no operation `{name}`; there are {}", names.join(", "))
    })
}

/// The operation's extents with those that were given.
fn shape(operation: &Operation, given: &[(&'static str, usize)]) -> Result<Vec<usize>, String> {
    for (name, _) in given {
        if !operation.extents.iter().any(|(known, _)| known == name) {
            let known: Vec<_> =
                operation.extents.iter().map(|(name, _)| format!("--{}", name.replace('_', "-"))).collect();
            return Err(format!("{} has no --{name}; it has {}", operation.name, known.join(", ")));
        }
    }
    let extents: Vec<usize> = operation
        .extents
        .iter()
        .map(|(name, usual)| {
            given.iter().find(|(other, _)| other == name).map_or(*usual, |(_, value)| *value)
        })
        .collect();
    let work: u128 = extents.iter().map(|&extent| extent.max(1) as u128).product();
    let pairs = extents.iter().enumerate().flat_map(|(i, a)| extents[i + 1..].iter().map(move |b| (a, b)));
    let large = pairs.into_iter().any(|(a, b)| a.checked_mul(*b).is_none_or(|both| both > MOST_ELEMENTS));
    if work > MOST_WORK || large || extents.iter().any(|&extent| extent > MOST_ELEMENTS) {
        return Err(format!("{extents:?} is too large for the simulated card"));
    }
    let tile =
        |name| operation.extents.iter().position(|(known, _)| *known == name).map_or(0, |at| extents[at]);
    let (rows, columns) = (tile("tile_m"), tile("tile_n"));
    if (rows, columns) != (0, 0) && fp8_tile(rows, columns).is_none() {
        let all: Vec<_> = fp8_tiles().map(|tile| format!("{}x{}", tile.rows(), tile.columns())).collect();
        let all = all.join(", ");
        return Err(format!("there is no tile of --tile-m {rows} and --tile-n {columns}; there are {all}"));
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_name() {
        assert_eq!(find("fp8-gemm").unwrap().name, "fp8_gemm");
        assert!(find("gemm9").err().unwrap().contains("grouped_fp8_gemm"));
    }

    #[test]
    fn extents_are_the_operations_own() {
        let operation = find("fp8_gemm").unwrap();
        assert_eq!(shape(operation, &[("n", 7)]).unwrap(), [64, 7, 1024, 0, 0]);
        assert!(shape(operation, &[("heads", 7)]).unwrap_err().contains("--m, --n, --k"));
        assert!(shape(operation, &[("tile_m", 64), ("tile_n", 128)]).is_ok());
        assert!(shape(operation, &[("tile_m", 63)]).unwrap_err().contains("64x128"));
        assert!(shape(operation, &[("m", 1 << 28)]).unwrap_err().contains("too large"));
    }

    #[test]
    fn every_operation_has_extents_that_can_be_given() {
        for operation in OPERATIONS {
            let extents: Vec<usize> = operation.extents.iter().map(|(_, usual)| *usual).collect();
            assert!((operation.case)(&extents).name.starts_with(operation.name));
        }
    }
}
