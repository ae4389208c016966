//! The ranking of GEMM variants for one product.

use super::{floors, heatmap};
use crate::profile::table::{Table, number};
use narrowgauge::Card;
use narrowgauge::gemm::plan::{self, Floor, Input, Mode, Output, Problem, Ranked};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Options {
    /// Rows: of all groups where they are contiguous, else of each
    #[arg(long, required_unless_present_any = ["heatmap", "floors"])]
    m: Option<usize>,
    /// Columns of the output
    #[arg(long, required_unless_present_any = ["heatmap", "floors"])]
    n: Option<usize>,
    /// The extent that is summed over
    #[arg(long, required_unless_present_any = ["heatmap", "floors"])]
    k: Option<usize>,
    /// h20, h800, h200 or h800-pcie
    #[arg(long, default_value = "h20")]
    card: String,
    #[arg(long, default_value_t = 1)]
    groups: usize,
    #[arg(long, value_enum, default_value_t = ModeName::Dense)]
    mode: ModeName,
    #[arg(long, value_enum, default_value_t = InputName::Fp8)]
    input: InputName,
    #[arg(long, value_enum, default_value_t = OutputName::Bf16)]
    output: OutputName,
    /// Rows that each group is expected to have
    #[arg(long, default_value_t = 0)]
    expected: usize,
    /// The product is added to the output
    #[arg(long)]
    accumulate: bool,
    /// A row's bits may not depend on the number of rows
    #[arg(long)]
    batch_invariant: bool,
    /// SwiGLU of two products of N columns each, gates and ups, to e4m3
    #[arg(long)]
    swiglu: bool,
    /// Rows of A are picked by a list
    #[arg(long)]
    gather: bool,
    /// Rows of A that the list picks from; as many as the list where nobody says
    #[arg(long, default_value_t = 0, requires = "gather")]
    a_rows: usize,
    /// How many of the ranking are shown
    #[arg(long, default_value_t = 12)]
    top: usize,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Writes a drawing instead: the predicted share of the ceiling, over M and card
    #[arg(long, value_name = "FILE.svg", conflicts_with_all = ["m", "n", "k"])]
    heatmap: Option<PathBuf>,
    /// Prints the floors and predictions of every published shape on every card, in Markdown
    #[arg(long, conflicts_with_all = ["m", "n", "k", "heatmap"])]
    floors: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ModeName {
    Dense,
    Contiguous,
    Masked,
    Batched,
    KGrouped,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum InputName {
    Fp8,
    Fp8Fine,
    Bf16,
    F16,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum OutputName {
    Bf16,
    F16,
    F32,
    E4m3,
}

pub fn run(options: &Options) -> Result<bool, String> {
    if let Some(path) = &options.heatmap {
        std::fs::write(path, heatmap::svg()).map_err(|e| format!("{}: {e}", path.display()))?;
        return Ok(true);
    }
    if options.floors {
        print!("{}", floors::markdown());
        return Ok(true);
    }
    let card = Card::find(&options.card).ok_or_else(|| format!("--card {}: no such card", options.card))?;
    if card.compute_capability != (9, 0) {
        return Err(format!("--card {}: there are no kernels for {}", options.card, card.arch()));
    }
    let problem = options.problem()?;
    let ranking = plan::rank(&problem, &card);
    if ranking.is_empty() {
        return Err("no kernel computes this product".to_owned());
    }
    let floor = Floor::of(&problem, &card);
    let shown = &ranking[..ranking.len().min(options.top)];
    if options.json {
        println!("{}", as_json(&card, &floor, shown, ranking.len()));
    } else {
        print!("{}", as_text(&card, &floor, shown, ranking.len()));
    }
    Ok(true)
}

impl Options {
    fn problem(&self) -> Result<Problem, String> {
        let (Some(m), Some(n), Some(k)) = (self.m, self.n, self.k) else {
            return Err("--m, --n and --k are needed".to_owned());
        };
        for (name, extent) in [("--m", m), ("--n", n), ("--groups", self.groups)] {
            if extent == 0 {
                return Err(format!("{name} 0: there is nothing to plan"));
            }
        }
        let input = match self.input {
            InputName::Fp8 => Input::Fp8,
            InputName::Fp8Fine => Input::Fp8Fine,
            InputName::Bf16 => Input::Bf16,
            InputName::F16 => Input::F16,
        };
        let output = match self.output {
            _ if self.swiglu => Output::E4m3,
            OutputName::Bf16 => Output::Bf16,
            OutputName::F16 => Output::F16,
            OutputName::F32 => Output::F32,
            OutputName::E4m3 => Output::E4m3,
        };
        let mode = match self.mode {
            ModeName::Dense => Mode::Dense,
            ModeName::Contiguous => Mode::Contiguous,
            ModeName::Masked => Mode::Masked,
            ModeName::Batched => Mode::Batched,
            ModeName::KGrouped => Mode::KGrouped,
        };
        Ok(Problem {
            mode,
            groups: self.groups,
            expected_rows: self.expected,
            accumulate: self.accumulate,
            batch_invariant: self.batch_invariant,
            swiglu: self.swiglu,
            gather: self.gather,
            a_rows: self.a_rows,
            ..Problem::dense(input, output, m, n, k)
        })
    }
}

fn as_text(card: &Card, floor: &Floor, shown: &[Ranked], all: usize) -> String {
    let mut head = vec!["<kernel", "<tile", "split", "grid", "us", "behind", "of ceiling", "cycles"];
    let terms: Vec<_> = shown[0].terms.named().into_iter().map(|(name, _)| name).collect();
    head.extend(terms);
    let mut table = Table::new(&head);
    for Ranked { plan, terms, .. } in shown {
        let us = terms.microseconds(card);
        let mut cells = vec![
            plan.entry.to_owned(),
            plan.tile.to_string(),
            plan.split.to_string(),
            plan.grid.to_string(),
            format!("{us:.2}"),
            format!("{:.2}", terms.dependent_microseconds(card)),
            format!("{:.1} %", 100.0 * floor.microseconds() / us),
            number(terms.total as u64),
        ];
        cells.extend(terms.named().map(|(_, cycles)| number(cycles as u64)));
        table.row(cells);
    }
    format!(
        "{card}: at least {:.2} us for the bytes, {:.2} us for the products\n{}{}",
        floor.memory,
        floor.tensor,
        table.text(""),
        if all > shown.len() { format!("and {} more\n", all - shown.len()) } else { String::new() },
    )
}

fn as_json(card: &Card, floor: &Floor, shown: &[Ranked], all: usize) -> Value {
    let plans: Vec<Value> = shown
        .iter()
        .map(|Ranked { plan, terms, .. }| {
            let named: Map<String, Value> =
                terms.named().into_iter().map(|(name, cycles)| (name.to_owned(), cycles.into())).collect();
            json!({
                "kernel": plan.entry,
                "tile": plan.tile.to_string(),
                "tile_m": plan.tile.rows(),
                "tile_n": plan.tile.columns(),
                "stages": plan.tile.stages(),
                "split": plan.split,
                "cluster": plan.cluster,
                "grid": plan.grid,
                "threads": plan.threads,
                "shared_bytes": plan.shared_bytes,
                "cycles": terms.total,
                "microseconds": terms.microseconds(card),
                "dependent_microseconds": terms.dependent_microseconds(card),
                "share_of_ceiling": floor.microseconds() / terms.microseconds(card),
                "limiter": terms.limiter(),
                "terms": named,
            })
        })
        .collect();
    json!({
        "card": card.name,
        "floor_microseconds": { "memory": floor.memory, "tensor": floor.tensor },
        "variants": all,
        "plans": plans,
    })
}
