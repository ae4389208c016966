//! `narrowgauge cards`: the cards that the crate knows, and their published dense ceilings.

use narrowgauge::Card;

/// A table for people.
pub fn print() {
    println!(
        "{:12} {:>6} {:>4} {:>11} {:>12} {:>11} {:>7} {:>7}",
        "card", "arch", "SMs", "FP8 TFLOPS", "bf16 TFLOPS", "memory GB/s", "GB", "L2 MiB"
    );
    for card in Card::ALL {
        println!(
            "{:12} {:>6} {:>4} {:>11} {:>12} {:>11} {:>7.0} {:>7}",
            card.name,
            card.arch(),
            card.sms,
            known(card.fp8_tflops),
            known(card.bf16_tflops),
            known(card.memory_gbps),
            card.memory_bytes as f64 / 1e9,
            card.l2_bytes >> 20,
        );
    }
}

fn known(value: f64) -> String {
    if value > 0.0 { value.to_string() } else { "-".into() }
}
