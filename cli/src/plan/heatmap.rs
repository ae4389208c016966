//! A drawing of how near the planner expects to come to each card's ceiling.

use super::hoppers;
use narrowgauge::Card;
use narrowgauge::gemm::plan::{self, Floor, Input, Output, Problem};
use narrowgauge::gemm::published::LAYERS;
use std::fmt::Write;

const ROWS: [usize; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
const CELL: [usize; 2] = [62, 40];
const LEFT: usize = 96;
const TOP: usize = 74;

/// One cell for each card and M: the geometric mean of the layers' shares, below it the least of them.
pub fn svg() -> String {
    let cards: Vec<_> = hoppers().collect();
    let (width, height) = (LEFT + ROWS.len() * CELL[0] + 16, TOP + cards.len() * CELL[1] + 34);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut out, [LEFT, 24], 15, "start", "FP8 GEMM: predicted share of the ceiling, by rows (M) and card");
    let what = "geometric mean of the seven layer shapes of DeepSeek-V3, below it the least; a prediction, not a time";
    text(&mut out, [LEFT, 42], 11, "start", what);
    for (i, m) in ROWS.iter().enumerate() {
        text(&mut out, [LEFT + i * CELL[0] + CELL[0] / 2, TOP - 8], 12, "middle", &m.to_string());
    }
    for (j, card) in cards.iter().enumerate() {
        let y = TOP + j * CELL[1];
        text(&mut out, [LEFT - 8, y + CELL[1] / 2 + 4], 12, "end", &card.name);
        for (i, m) in ROWS.iter().enumerate() {
            let shares: Vec<f64> = LAYERS.iter().filter_map(|&(n, k)| share(card, *m, n, k)).collect();
            if shares.is_empty() {
                continue;
            }
            let mean = (shares.iter().map(|share| share.ln()).sum::<f64>() / shares.len() as f64).exp();
            let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
            let x = LEFT + i * CELL[0];
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>",
                CELL[0] - 1,
                CELL[1] - 1,
                colour(mean)
            );
            let middle = x + CELL[0] / 2;
            text(&mut out, [middle, y + 18], 13, "middle", &format!("{:.0} %", 100.0 * mean));
            text(&mut out, [middle, y + 32], 10, "middle", &format!("{:.0} %", 100.0 * least));
        }
    }
    out.push_str("</svg>\n");
    out
}

fn share(card: &Card, m: usize, n: usize, k: usize) -> Option<f64> {
    let problem = Problem::dense(Input::Fp8, Output::Bf16, m, n, k);
    let best = plan::rank(&problem, card).first()?.terms.microseconds(card);
    Some(Floor::of(&problem, card).microseconds() / best)
}

/// From red over yellow to green, light enough for black text.
fn colour(share: f64) -> String {
    let share = share.clamp(0.0, 1.0);
    let (red, green) = if share < 0.5 { (1.0, 2.0 * share) } else { (2.0 - 2.0 * share, 1.0) };
    let light = |part: f64| (96.0 + 150.0 * part) as u8;
    format!("#{:02x}{:02x}60", light(red), light(green))
}

fn text(out: &mut String, [x, y]: [usize; 2], size: usize, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
