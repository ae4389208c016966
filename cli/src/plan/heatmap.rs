//! A drawing of how near the planner expects to come to each card's ceiling.

use super::hoppers;
use narrowgauge::Card;
use narrowgauge::gemm::plan::{self, Floor, Input, Output, Problem};
use narrowgauge::gemm::published::LAYERS;
use std::fmt::Write;

const ROWS: [usize; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
const CELL: [usize; 2] = [62, 40];
const LEFT: usize = 132;
const TOP: usize = 84;
/// Room below the cells for the scale of colours.
const BELOW: usize = 52;

/// One cell for each card and M: the geometric mean of the layers' shares, below it the least of them.
pub fn svg() -> String {
    let cards: Vec<_> = hoppers().collect();
    let (width, height) = (LEFT + ROWS.len() * CELL[0] + 16, TOP + cards.len() * CELL[1] + BELOW);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut out, [16, 26], 16, "start", "FP8 GEMM: predicted share of the ceiling, by rows and card");
    let what = "geometric mean over the seven layers of DeepSeek-V3, small: the layer with the least; predicted, not timed";
    text(&mut out, [16, 46], 12, "start", what);
    text(&mut out, [LEFT - 10, TOP - 8], 12, "end", "M =");
    for (i, m) in ROWS.iter().enumerate() {
        text(&mut out, [LEFT + i * CELL[0] + CELL[0] / 2, TOP - 8], 12, "middle", &m.to_string());
    }
    for (j, card) in cards.iter().enumerate() {
        let y = TOP + j * CELL[1];
        text(&mut out, [LEFT - 10, y + 18], 13, "end", &card.name);
        let ceilings = format!("{:.0} TF, {:.1} TB/s", card.fp8_tflops, card.memory_gbps / 1e3);
        text(&mut out, [LEFT - 10, y + 32], 10, "end", &ceilings);
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
    let y = TOP + cards.len() * CELL[1] + 18;
    let ceiling = "ceiling: bytes or products at published rates, whichever takes longer";
    text(&mut out, [LEFT + 6 * CELL[0], y + 10], 10, "start", ceiling);
    text(&mut out, [LEFT - 10, y + 25], 10, "end", "% of the ceiling");
    for step in 0..=10 {
        let x = LEFT + step * CELL[0] / 2;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"12\" fill=\"{}\"/>",
            CELL[0] / 2,
            colour(step as f64 / 10.0)
        );
        text(&mut out, [x + CELL[0] / 4, y + 25], 10, "middle", &(10 * step).to_string());
    }
    out.push_str("</svg>\n");
    out
}

fn share(card: &Card, m: usize, n: usize, k: usize) -> Option<f64> {
    let problem = Problem::dense(Input::Fp8, Output::Bf16, m, n, k);
    let best = plan::rank(&problem, card).first()?.terms.microseconds(card);
    Some(Floor::of(&problem, card).microseconds() / best)
}

/// From red over yellow to green, light enough for black text; what is below a quarter is red. Shades differ in lightness
/// too, for who does not tell red from green.
fn colour(share: f64) -> String {
    const STOPS: [[f64; 3]; 4] =
        [[222.0, 110.0, 100.0], [250.0, 190.0, 120.0], [250.0, 240.0, 170.0], [120.0, 200.0, 130.0]];
    let place = (share.clamp(0.25, 1.0) - 0.25) / 0.25;
    let below = (place as usize).min(STOPS.len() - 2);
    let part = place - below as f64;
    let mix = |i: usize| (STOPS[below][i] * (1.0 - part) + STOPS[below + 1][i] * part).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

fn text(out: &mut String, [x, y]: [usize; 2], size: usize, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
