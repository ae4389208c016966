//! Plans of every published shape on every card that has kernels.

use crate::common::device;
use narrowgauge::Card;
use narrowgauge::gemm::plan::{self, Floor, Input, Mode, Output, Plan, Problem, Ranked};
use narrowgauge::gemm::published::{LAYERS, Published, shapes};
use narrowgauge::verify;
use std::collections::BTreeSet;

fn hoppers() -> impl Iterator<Item = &'static Card> {
    Card::ALL.iter().filter(|card| card.compute_capability == (9, 0))
}

/// Each shape on each card with its ranking. A shape whose operands no source of this build multiplies is left out.
fn rankings() -> Vec<(Published, &'static Card, Vec<Ranked>)> {
    let mut all = Vec::new();
    for card in hoppers() {
        for shape in shapes() {
            let ranking = plan::rank(&shape.problem, card);
            if ranking.is_empty() {
                println!("no kernel yet: {}", shape.name);
                continue;
            }
            all.push((shape, card, ranking));
        }
    }
    let of = |mode| all.iter().filter(|(shape, ..)| shape.problem.mode == mode).count();
    assert!(of(Mode::Dense) >= 4 * 42 && of(Mode::Contiguous) == 4 * 10, "layers and experts");
    all
}

#[track_caller]
fn legal(plan: &Plan, card: &Card, told: &str) {
    assert!(plan.shared_bytes <= card.shared_per_block, "{told}");
    assert!((plan.shared_bytes + 1024) <= card.shared_per_sm, "{told}");
    assert!(plan.threads <= 1024 && plan.threads.is_multiple_of(128), "{told}");
    // A box of TMA has at most 256 rows; a cluster at most 8 blocks without a driver's leave.
    assert!(plan.tile.rows().max(plan.tile.columns()) <= 256, "{told}");
    assert!([1, 2, 4, 8].contains(&plan.cluster) && plan.grid.is_multiple_of(plan.cluster), "{told}");
    assert!(plan.grid >= 1 && plan.grid <= 2 * card.sms, "{told}");
    assert!(plan.split == 1 || plan.split <= plan.k_blocks, "{told}");
}

#[test]
fn a_pick_is_never_more_than_a_twentieth_over_the_best() {
    for (shape, card, ranking) in rankings() {
        let pick = plan::plan(&shape.problem, card, None).unwrap();
        let of_pick = ranking.iter().find(|ranked| ranked.plan == pick).expect("a ranked plan");
        let least = ranking.iter().map(|ranked| ranked.terms.total).fold(f64::INFINITY, f64::min);
        let told = format!("{} on {card}: {pick:?}", shape.name);
        assert!(of_pick.terms.total <= 1.05 * least, "{told}");
        for ranked in &ranking {
            legal(&ranked.plan, card, &told);
        }
    }
}

/// No plan beats the data sheet, and no term is more than the whole.
#[test]
fn costs_stay_above_the_floor() {
    for (shape, card, ranking) in rankings() {
        let floor = Floor::of(&shape.problem, card).microseconds();
        for ranked in &ranking {
            let told = format!("{} on {card}: {ranked:?}", shape.name);
            assert!(ranked.terms.microseconds(card) > floor, "{told}");
            for (name, cycles) in ranked.terms.named() {
                assert!(cycles.is_finite() && (0.0..=ranked.terms.total).contains(&cycles), "{name}: {told}");
            }
        }
    }
}

#[test]
fn batch_invariant_plans_never_split_k() {
    for card in hoppers() {
        for shape in shapes() {
            let problem = Problem { batch_invariant: true, ..shape.problem };
            assert!(plan::rank(&problem, card).iter().all(|ranked| ranked.plan.split == 1), "{}", shape.name);
            assert_eq!(plan::rank(&problem, card).is_empty(), plan::rank(&shape.problem, card).is_empty());
        }
    }
}

/// The kernels that the case of all tiles launches are those that plans name.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_picked_variant_is_checked_against_the_oracles() {
    let device = device();
    if !device.is_simulated() {
        println!("SKIPPED: launches are recorded by the simulated card");
        return;
    }
    device.clear_records();
    for case in
        verify::cases().iter().filter(|case| case.family == "gemm" && case.name.contains("every tile"))
    {
        (case.run)(&device, 1).unwrap();
    }
    let launched: BTreeSet<String> =
        device.records().unwrap().into_iter().map(|record| record.kernel).collect();
    assert!(!launched.is_empty());
    for (shape, card, ranking) in rankings() {
        let pick = ranking[0].plan.entry;
        assert!(launched.contains(pick), "{} on {card} takes {pick}, which no case runs", shape.name);
    }
}

/// More rows never cost less, but for what a better variant saves from its own number of rows on.
#[test]
fn time_grows_with_the_rows() {
    for card in hoppers() {
        for (n, k) in LAYERS {
            let mut last = 0.0;
            for m in [1, 8, 16, 64, 128, 256, 512, 1024, 4096] {
                let problem = Problem::dense(Input::Fp8, Output::Bf16, m, n, k);
                let total = plan::rank(&problem, card)[0].terms.total;
                assert!(total >= 0.98 * last, "{card} {m}x{n}x{k}: {total} after {last}");
                last = total;
            }
        }
    }
}

/// What a card with little tensor power is planned to do with few rows: all but wait for the weights. Behind a kernel that
/// lets it start, the launch is hidden but for what layers below 25 MB are too short for.
#[test]
fn few_rows_on_an_h20_take_little_more_than_their_bytes() {
    let card = Card::H20;
    let mut worst = [0.0f64; 2];
    let mut behind = [0.0f64; 2];
    for (n, k) in LAYERS {
        for m in [1, 8, 16, 32] {
            let problem = Problem::dense(Input::Fp8, Output::Bf16, m, n, k);
            let best = plan::rank(&problem, &card)[0];
            let launch = best.terms.launch / (card.clock_ghz * 1e3);
            let (floor, us) = (Floor::of(&problem, &card).memory, best.terms.microseconds(&card));
            println!(
                "{m}x{n}x{k}: {us:.2} us with a launch of {launch:.2}, {:.2} behind another, {floor:.2} at least: {:?}",
                best.terms.dependent_microseconds(&card),
                best.plan
            );
            assert!(best.plan.tile.swapped(), "{m}x{n}x{k}");
            let large = usize::from(n * k > 25 << 20);
            worst[large] = worst[large].max((us - launch) / floor);
            behind[large] = behind[large].max(best.terms.dependent_microseconds(&card) / floor);
        }
    }
    println!("at worst {worst:?} times the floor beside a launch, {behind:?} behind another kernel");
    assert!(worst[1] <= 1.25 && behind[1] <= 1.27, "{worst:?} {behind:?}");
}
