//! Multi-head latent attention on whatever device `NARROWGAUGE_DEVICE` names.

mod attention;
mod cache;
#[path = "../common/mod.rs"]
mod common;
mod decode;
mod few;
mod indexer;
mod merge;
mod prefill;
mod properties;
mod rope;
mod sparse;
mod top_k;

use narrowgauge::verify::surrounded::Place;
use narrowgauge::{Device, verify};
use proptest::prelude::*;

/// Under one completion policy after the other, by their number; once for each on a card too.
fn under_every_schedule(device: &Device, mut run: impl FnMut(usize)) {
    for (number, (_, schedule)) in verify::schedules().into_iter().enumerate() {
        if device.is_simulated() {
            device.set_schedule(schedule).expect("a simulated device");
        }
        run(number);
    }
}

/// Aligned and unaligned, alone and as columns of wider rows.
fn place() -> impl Strategy<Value = Place> {
    let aligned = (0usize..=2, 0usize..=2).prop_map(|(offset, padding)| (offset * 8, padding * 64));
    prop_oneof![aligned, (0usize..=9, 0usize..=9)].prop_map(|(offset, padding)| Place { offset, padding })
}
