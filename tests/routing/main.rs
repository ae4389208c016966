//! Routing against its oracles, on whatever device there is.

#[path = "../common/mod.rs"]
mod common;
mod properties;

use common::{config, device, device_under};
use narrowgauge::routing::{
    Combine, Gate, GatherRows, GroupScore, Model, Permutation, Permute, Router, Scoring, SwigluQuantize,
    Weights,
};
use narrowgauge::verify::Source;
use narrowgauge::verify::routing::{
    CombineProblem, RouterProblem, Scores, SwigluProblem, V3, check_combine, check_gather, check_model,
    check_permute, check_round_trip, check_router, check_swiglu,
};
use narrowgauge::verify::surrounded::Place;
use narrowgauge::{Device, E4m3, Error, Fp8Rows, Result, ScaleLayout, Tensor, bf16, verify};
use proptest::prelude::*;

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_case_passes_under_every_schedule() {
    verify::check_family(&device(), "routing", 1).unwrap();
}

fn place() -> impl Strategy<Value = Place> {
    (0usize..=9, 0usize..=9).prop_map(|(offset, padding)| Place { offset, padding })
}

/// Any gate that the router takes.
fn gates() -> impl Strategy<Value = (usize, Gate)> {
    let groups = prop_oneof![Just(1usize), 2usize..=32];
    let scorings = prop::sample::select(vec![Scoring::Sigmoid, Scoring::Softmax, Scoring::SqrtSoftplus]);
    let weights = prop::sample::select(vec![Weights::Scores, Weights::Normalized, Weights::SoftmaxOfChosen]);
    let sized = groups.prop_flat_map(|groups| (Just(groups), 1..=1024 / groups, 1..=groups));
    let filled = sized.prop_flat_map(|(groups, size, kept)| {
        (Just(groups), Just(size), Just(kept), 1..=32.min(size * kept), any::<bool>(), 0.5f32..3.0)
    });
    (filled, scorings, weights).prop_map(|((groups, size, kept, slots, max, scale), scoring, weights)| {
        let score = if max { GroupScore::Max } else { GroupScore::TopTwo };
        (groups * size, Gate::new(scoring, slots).groups(groups, kept, score).weights(weights).scale(scale))
    })
}

/// Tokens, slots and experts.
fn shapes() -> impl Strategy<Value = [usize; 3]> {
    let experts = prop_oneof![1usize..=40, 200usize..=512];
    (0usize..=20, 1usize..=16, experts).prop_map(|(tokens, slots, experts)| [tokens, slots, experts])
}

fn columns() -> impl Strategy<Value = usize> {
    let whole = || (1usize..=6).prop_map(|groups| groups * 128);
    prop_oneof![1usize..=300, whole(), whole().prop_map(|columns| columns + 1)]
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn any_gate_chooses_as_the_oracle(
        (experts, gate) in gates(),
        tokens in 0usize..=9,
        scores in prop_oneof![Just(Scores::Normal), Just(Scores::Ties), Just(Scores::Negative), Just(Scores::Wild)],
        place in place(),
        seed: u64,
    ) {
        let problem = RouterProblem { tokens, experts, gate, scores, place, seed };
        check_router(&device_under(seed), &problem).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn entries_are_ordered_by_expert(shape in shapes(), bad: bool, seed: u64) {
        check_permute(&device_under(seed), shape, bad, seed).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn rows_are_gathered(
        shape in shapes(),
        columns in columns(),
        layout in prop_oneof![Just(ScaleLayout::RowMajor), Just(ScaleLayout::MnMajor)],
        bad: bool,
        seed: u64,
    ) {
        check_gather(&device_under(seed), shape, columns, layout, bad, seed).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn activations_are_quantised(
        rows in 0usize..=6,
        columns in columns(),
        gap in 0usize..=70,
        power_of_two: bool,
        unrouted: bool,
        place in place(),
        seed: u64,
    ) {
        let problem = SwigluProblem { rows: 2 * rows, columns, gap, power_of_two, unrouted, place, seed };
        check_swiglu(&device_under(seed), &problem).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn sums_are_within_the_bound(
        shape in shapes(),
        columns in columns(),
        shared: bool,
        exact: bool,
        bad: bool,
        place in place(),
        seed: u64,
    ) {
        let problem = CombineProblem { shape, columns, shared, exact, bad, place, seed };
        check_combine(&device_under(seed), &problem).map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn what_is_permuted_comes_back(shape in [0usize..=20, 1usize..=64], columns in columns(), seed: u64) {
        check_round_trip(&device_under(seed), shape, columns, seed).map_err(TestCaseError::fail)?;
    }
}

/// Most choices must be clear, or the property above compares nothing.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn most_choices_are_compared_exactly() {
    for scores in [Scores::Normal, Scores::Ties, Scores::Negative, Scores::Faint] {
        let problem =
            RouterProblem { tokens: 64, experts: 256, gate: V3, scores, place: Place::default(), seed: 8 };
        let compared = check_router(&device(), &problem).unwrap().exact / 8;
        assert!(compared >= 58, "{scores:?}: only {compared} of 64");
    }
}

/// Chunk borders of the permutation, one below, at and above, and everything in one expert.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn permutations_at_the_borders_of_their_kernels() {
    let device = device();
    for shape in [[2047, 1, 7], [2048, 1, 512], [2049, 1, 33], [4097, 1, 31], [128, 16, 1], [129, 16, 1]] {
        check_permute(&device, shape, false, 11).unwrap_or_else(|error| panic!("{shape:?}: {error}"));
    }
}

struct Routed {
    ids: Vec<i32>,
    weights: Vec<f32>,
}

fn route(device: &Device, logits: &[f32], bias: &[f32]) -> Routed {
    let (tokens, slots) = (logits.len() / bias.len(), 8);
    let logits = device.tensor(&[tokens, bias.len()], logits).unwrap();
    let bias = device.tensor(&[bias.len()], bias).unwrap();
    let weights = device.empty(&[tokens, slots]).unwrap();
    let ids = device.empty(&[tokens, slots]).unwrap();
    Router::new(&logits, V3, &weights, &ids).bias(&bias).launch(&device.stream()).unwrap();
    Routed { ids: ids.to_vec().unwrap(), weights: weights.to_vec().unwrap() }
}

/// A token of NaN and one of infinities and NaN: no id repeats or leaves the experts, and the status says so.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn nan_is_reported_and_never_chosen() {
    let device = device();
    let mut logits = vec![f32::NAN; 2 * 256];
    logits[256 + 32 * 3 + 5] = 1.0;
    logits[256 + 32 * 3 + 6] = f32::INFINITY;
    let routed = route(&device, &logits, &[0.0; 256]);
    assert_eq!(routed.ids[..8], [-1; 8]);
    assert_eq!(routed.weights[..8], [0.0; 8]);
    assert_eq!(routed.ids[8..], [102, 101, -1, -1, -1, -1, -1, -1]);
    let sum: f32 = routed.weights[8..].iter().sum();
    assert!((sum - 2.5).abs() <= 2.5 * 16.0 * f32::EPSILON, "{sum}");
    let status = device.stream().status().unwrap();
    assert!(status.nan_score() && status.unrouted() && !status.bad_expert());
    assert!(device.stream().status().unwrap().is_clear());
}

/// Every finite bias ranks before nothing at all, however far down it pulls.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn the_lowest_finite_bias_is_still_chosen() {
    let device = device();
    let mut bias = vec![f32::MIN; 256];
    // Seven that rank higher, in four groups; the eighth is one of the lowest.
    [3, 35, 36, 67, 68, 99, 100].iter().for_each(|expert| bias[*expert] = 1.0);
    let routed = route(&device, &[0.0; 256], &bias);
    assert_eq!(routed.ids, [3, 35, 36, 67, 68, 99, 100, 0]);
    assert!(device.stream().status().unwrap().is_clear());
}

/// What a permutation says of entries and rows is data: outside of the operands, it stands for nothing.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn positions_and_sources_outside_are_nothing() {
    let device = device();
    let stream = device.stream();
    let (tokens, slots, columns) = (3, 2, 144);
    let entries = (tokens * slots) as i32;
    let permutation = Permutation::empty(&device, tokens, slots, 4).unwrap();
    let places = [entries, 1, i32::MAX, i32::MIN, entries + 1, -1];
    permutation.position().write(&places).unwrap();
    permutation.source().write(&places).unwrap();

    let rows: Vec<_> = (0..entries).map(|row| bf16::from_f32(row as f32)).collect();
    let rows: Vec<_> = rows.into_iter().flat_map(|row| [row; 144]).collect();
    let rows = device.tensor(&[entries as usize, columns], &rows).unwrap();
    let (weights, out) =
        (device.full(&[tokens, slots], 1.0f32).unwrap(), device.empty(&[tokens, columns]).unwrap());
    Combine::new(&rows, &permutation, &weights, &out).launch(&stream).unwrap();
    let sums: Vec<_> = out.to_vec().unwrap().chunks(columns).map(|row| row[0].to_f32()).collect();
    assert_eq!(sums, [1.0, 0.0, 0.0]);

    let one = E4m3::from_f32(1.0);
    let narrow = Fp8Rows::new(
        device.full(&[tokens, columns], one).unwrap(),
        device.full(&[tokens, 2], 3.0f32).unwrap(),
    );
    let gathered = Fp8Rows::empty(&device, entries as usize, columns, ScaleLayout::RowMajor).unwrap();
    GatherRows::new(&narrow.unwrap(), &permutation, &gathered).launch(&stream).unwrap();
    let (data, scales) = (gathered.data().to_vec().unwrap(), gathered.scales().to_vec().unwrap());
    for (row, (data, scales)) in data.chunks(columns).zip(scales.chunks(2)).enumerate() {
        let (code, scale) = if row == 1 { (one, 3.0) } else { (E4m3::from_bits(0), 0.0) };
        assert!(data.iter().all(|x| *x == code) && scales == [scale; 2], "row {row}");
    }
}

fn wrong(result: Result<()>) -> &'static str {
    match result {
        Err(Error::Argument { argument, .. }) => argument,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_arguments_of_the_router_are_named() {
    let device = device();
    let stream = device.stream();
    let f32s = |shape: &[usize]| -> Tensor<f32> { device.zeros(shape).unwrap() };
    let (logits, bias, weights) = (f32s(&[4, 64]), f32s(&[64]), f32s(&[4, 8]));
    let ids: Tensor<i32> = device.zeros(&[4, 8]).unwrap();
    let gate = Gate::new(Scoring::Sigmoid, 8);
    let launch = |gate| wrong(Router::new(&logits, gate, &weights, &ids).bias(&bias).launch(&stream));
    assert_eq!(launch(gate.groups(0, 1, GroupScore::Max)), "n_group");
    assert_eq!(launch(gate.groups(7, 1, GroupScore::Max)), "n_group");
    assert_eq!(launch(gate.groups(64, 64, GroupScore::Max)), "n_group");
    assert_eq!(launch(gate.groups(8, 9, GroupScore::Max)), "topk_group");
    assert_eq!(launch(gate.groups(8, 0, GroupScore::Max)), "topk_group");
    assert_eq!(launch(gate.groups(16, 1, GroupScore::Max)), "k");
    assert_eq!(launch(gate.scale(f32::INFINITY)), "scale");
    let router = Router::new(&logits, gate, &weights, &ids);
    assert_eq!(wrong(router.bias(&f32s(&[63])).launch(&stream)), "bias");
    assert_eq!(wrong(router.token_count(&device.zeros(&[2]).unwrap()).launch(&stream)), "token_count");
    let (table, tokens) = (device.zeros(&[9, 7]).unwrap(), device.zeros(&[4]).unwrap());
    assert_eq!(wrong(router.table(&table, &tokens).launch(&stream)), "table");
    assert_eq!(wrong(Router::new(&logits, gate, &f32s(&[4, 7]), &ids).launch(&stream)), "weights");
    assert_eq!(wrong(Router::new(&f32s(&[4, 1025]), gate, &weights, &ids).launch(&stream)), "experts");
    let none: Tensor<i32> = device.zeros(&[4, 0]).unwrap();
    let no_slots = Gate::new(Scoring::Sigmoid, 0);
    assert_eq!(wrong(Router::new(&logits, no_slots, &f32s(&[4, 0]), &none).launch(&stream)), "k");
}

/// Every model's router on two thousand tokens; a hundred thousand with
/// `cargo test --release -p narrowgauge --test routing -- --ignored models`.
fn models(tokens: usize) {
    for model in Model::ALL {
        check_model(&device(), model, tokens, 17).unwrap();
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn models_choose_as_their_definitions() {
    models(2000);
}

#[test]
#[ignore = "minutes on a simulated card"]
fn models_choose_as_their_definitions_100000_times() {
    models(100_000);
}

/// bf16 logits are widened first.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn bf16_logits_are_their_f32() {
    let device = device();
    let wide: Vec<_> = Source::to_bf16(&Source::new(5).normals(5 * 384, 2.0));
    let narrow = device.tensor(&[5, 384], &wide).unwrap();
    let wide: Vec<_> = wide.iter().map(|x| x.to_f32()).collect();
    let wide = device.tensor(&[5, 384], &wide).unwrap();
    let out = || (device.zeros::<f32>(&[5, 8]).unwrap(), device.zeros::<i32>(&[5, 8]).unwrap());
    let ((weights, ids), (narrow_weights, narrow_ids)) = (out(), out());
    let gate = Model::KimiK2.gate();
    Router::new(&wide, gate, &weights, &ids).launch(&device.stream()).unwrap();
    Router::new(&narrow, gate, &narrow_weights, &narrow_ids).launch(&device.stream()).unwrap();
    assert_eq!(ids.to_vec().unwrap(), narrow_ids.to_vec().unwrap());
    assert_eq!(weights.to_vec().unwrap(), narrow_weights.to_vec().unwrap());
}

#[test]
fn bad_arguments_around_the_permutation_are_named() {
    let device = device();
    let stream = device.stream();
    assert_eq!(wrong(Permutation::empty(&device, 4, 0, 8).map(drop)), "k");
    assert_eq!(wrong(Permutation::empty(&device, 4, 33, 8).map(drop)), "k");
    assert_eq!(wrong(Permutation::empty(&device, 4, 2, 0).map(drop)), "experts");
    assert_eq!(wrong(Permutation::empty(&device, 4, 2, 513).map(drop)), "experts");
    assert_eq!(wrong(Permutation::empty(&device, 1 << 31, 2, 8).map(drop)), "entries");

    let permutation = Permutation::empty(&device, 4, 2, 8).unwrap();
    let ids: Tensor<i32> = device.zeros(&[4, 3]).unwrap();
    assert_eq!(wrong(Permute::new(&ids, &permutation).launch(&stream)), "ids");
    assert_eq!(wrong(Permute::new(&ids.slice(1, 0..2).unwrap(), &permutation).launch(&stream)), "ids");
    assert_eq!(wrong(Permute::new(permutation.position(), &permutation).launch(&stream)), "permutation");

    let rows = |count| Fp8Rows::empty(&device, count, 256, ScaleLayout::RowMajor).unwrap();
    assert_eq!(wrong(GatherRows::new(&rows(5), &permutation, &rows(8)).launch(&stream)), "rows");
    assert_eq!(wrong(GatherRows::new(&rows(4), &permutation, &rows(7)).launch(&stream)), "out");
    let both = rows(8);
    let first = both.slice_rows(0..4).unwrap();
    assert_eq!(wrong(GatherRows::new(&first, &permutation, &both).launch(&stream)), "out.data");

    let gate_up: Tensor<bf16> = device.zeros(&[8, 512]).unwrap();
    let out = rows(8);
    let swiglu = SwigluQuantize::new(&gate_up, &out);
    assert_eq!(wrong(swiglu.up_offset(255).launch(&stream)), "up_offset");
    assert_eq!(wrong(swiglu.up_offset(257).launch(&stream)), "up_offset");
    assert_eq!(wrong(swiglu.up_offset(usize::MAX).launch(&stream)), "up_offset");
    let other = Permutation::empty(&device, 3, 2, 8).unwrap();
    assert_eq!(wrong(swiglu.permutation(&other).launch(&stream)), "permutation");

    let weights: Tensor<f32> = device.zeros(&[4, 2]).unwrap();
    let expert_rows: Tensor<bf16> = device.zeros(&[8, 64]).unwrap();
    let sums: Tensor<bf16> = device.zeros(&[4, 64]).unwrap();
    let combine = Combine::new(&expert_rows, &permutation, &weights, &sums);
    assert_eq!(wrong(combine.shared(&expert_rows).launch(&stream)), "shared");
    let seven = expert_rows.slice(0, 0..7).unwrap();
    assert_eq!(wrong(Combine::new(&seven, &permutation, &weights, &sums).launch(&stream)), "rows");
    let inside = expert_rows.slice(0, 0..4).unwrap();
    assert_eq!(wrong(Combine::new(&expert_rows, &permutation, &weights, &inside).launch(&stream)), "out");
}
