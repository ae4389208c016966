use super::{Launched, all, narrow, narrow_out, one, ones, stops_at_the_end};
use narrowgauge::routing::{
    Combine, Gate, GatherRows, GroupScore, Permutation, Permute, Router, Scoring, SwigluQuantize,
};
use narrowgauge::{Device, Result, Stream};

const SLOTS: usize = 8;

/// Permutes ids that count through the experts.
fn permute(device: &Device, stream: &Stream, [tokens, slots, experts]: [usize; 3]) -> Result<Permutation> {
    let ids: Vec<_> = (0..tokens * slots).map(|entry| (entry % experts) as i32).collect();
    let permutation = Permutation::empty(device, tokens, slots, experts)?;
    Permute::new(&device.tensor(&[tokens, slots], &ids)?, &permutation).launch(stream)?;
    stream.synchronize()?;
    Ok(permutation)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_score_is_read_once() {
    let route = |tokens: usize, experts: usize, gate: Gate| {
        let slots = gate.slots;
        let launched = one(|device, stream| {
            let (logits, bias) = (device.full(&[tokens, experts], 0.5f32)?, device.zeros(&[experts])?);
            let (weights, ids) = (device.zeros(&[tokens, slots])?, device.zeros(&[tokens, slots])?);
            Router::new(&logits, gate, &weights, &ids).bias(&bias).launch(stream)
        });
        // Again those of the chosen.
        let read = 4 * (tokens * (2 * experts + slots)) as u64;
        assert_eq!(launched.bytes(), (read, 8 * (tokens * slots) as u64), "{experts} experts");
        assert!(launched.bounded);
        assert_eq!(launched.count("redux"), (tokens * (slots + 1)) as u64);
        launched
    };
    let sigmoid = Gate::new(Scoring::Sigmoid, SLOTS);
    let v3 = route(4, 256, sigmoid.groups(8, 4, GroupScore::TopTwo));
    println!("instructions of a token, 256 experts: {}", v3.counters.instructions / 4);
    let k2 = route(4, 384, sigmoid);
    println!("384 experts: {}", k2.counters.instructions / 4);
    route(4, 160, sigmoid);
    route(4, 512, sigmoid.groups(32, 8, GroupScore::TopTwo));
}

/// Fewer experts than threads: the threads beyond them take part in no step. Bad ids are reported once, by each warp.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn threads_without_an_expert_do_nothing() {
    const WARPS: u64 = 16;
    const EXPERTS: u64 = 224;
    let launch = |tokens: usize, bad: bool| {
        all(move |device, stream| {
            let ids = device.full(&[tokens, 16], if bad { EXPERTS as i32 } else { 3 })?;
            let permutation = Permutation::empty(device, tokens, 16, EXPERTS as usize)?;
            Permute::new(&ids, &permutation).launch(stream)
        })
    };
    let reports = |launched: &[Launched]| launched.iter().map(|l| l.count("red.")).collect::<Vec<_>>();
    let small = launch(128, false);
    // Cleared, four rounds, the prefix, turned into rows, four rounds.
    assert_eq!(small[0].count("st.shared"), WARPS * (EXPERTS / 32 + 4 + 1 + 4) + WARPS * EXPERTS / 32);
    let large = launch(256, false);
    let [count, scan, scatter] = &large[..] else { panic!("three kernels") };
    let (ids, rows) = (4 * 2 * 2048, 2 * 4 * EXPERTS);
    assert_eq!(count.bytes(), (ids, rows));
    assert_eq!(scan.bytes(), (2 * rows, 4 * (2 * EXPERTS + 1) + rows));
    assert_eq!(scatter.bytes(), (ids + rows + 2 * 4 * 512, 2 * ids));
    assert!(small.iter().chain(&large).all(|launched| launched.bounded));
    assert_eq!((reports(&small), reports(&large)), (vec![0], vec![0; 3]));
    assert_eq!(
        (reports(&launch(128, true)), reports(&launch(256, true))),
        (vec![WARPS], vec![2 * WARPS, 0, 0])
    );
}

/// Everything of a chunk of 2048 entries in one kernel of 16 warps, four entries a lane.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_entry_is_counted_and_placed_once() {
    const WARPS: u64 = 16;
    const ROUNDS: u64 = 4;
    const EXPERTS: u64 = 512;
    const ENTRIES: u64 = 2048;
    // Ten bits tell 512 experts and none of them apart.
    const VOTES: u64 = 10 * ROUNDS * WARPS;
    const PREFIXES: u64 = 5 * WARPS;
    // Of shared memory: the histogram is cleared and turned into rows, each entry is counted.
    const COUNTING: u64 = WARPS * (EXPERTS / 32 + ROUNDS);
    const PLACING: u64 = COUNTING;
    let launch = |tokens: usize| {
        all(move |device, stream| permute(device, stream, [tokens, 16, EXPERTS as usize]).map(drop))
    };

    let [small] = &launch(128)[..] else { panic!("one kernel") };
    small.fills_its_shared_memory();
    assert_eq!(small.bytes(), (4 * ENTRIES, 4 * (2 * EXPERTS + 1 + 2 * ENTRIES)));
    assert_eq!(small.exchanges(), 2 * VOTES + PREFIXES);
    assert_eq!(small.count("st.shared"), COUNTING + WARPS + PLACING);

    let [count, scan, scatter] = &launch(256)[..] else { panic!("three kernels") };
    [count, scan, scatter].iter().for_each(|launched| launched.fills_its_shared_memory());
    assert_eq!(count.bytes(), (2 * 4 * ENTRIES, 2 * 4 * EXPERTS));
    assert_eq!((count.exchanges(), count.count("st.shared")), (2 * VOTES, 2 * COUNTING));
    // Chunks' counts are read for the sums and again for the rows.
    assert_eq!(scan.bytes(), (2 * 2 * 4 * EXPERTS, 4 * (2 * EXPERTS + 1) + 2 * 4 * EXPERTS));
    assert_eq!((scan.exchanges(), scan.count("st.shared")), (PREFIXES, WARPS));
    // Beside entries and their first rows, every thread reads the total.
    let totals = 4 * 512;
    assert_eq!(scatter.bytes(), (2 * (4 * ENTRIES + 4 * EXPERTS + totals), 2 * 2 * 4 * ENTRIES));
    assert_eq!((scatter.exchanges(), scatter.count("st.shared")), (2 * 2 * VOTES, 2 * (COUNTING + PLACING)));
}

fn gather(device: &Device, stream: &Stream, tokens: usize, columns: usize) -> Result<()> {
    let permutation = permute(device, stream, [tokens, SLOTS, 8])?;
    device.clear_records();
    let out = narrow_out(device, tokens * SLOTS, columns)?;
    GatherRows::new(&narrow(device, tokens, columns)?, &permutation, &out).launch(stream)
}

fn swiglu(device: &Device, stream: &Stream, tokens: usize, columns: usize) -> Result<()> {
    let permutation = permute(device, stream, [tokens, SLOTS, 8])?;
    device.clear_records();
    let gate_up = ones(device, &[tokens * SLOTS, 2 * columns])?;
    let out = narrow_out(device, tokens * SLOTS, columns)?;
    SwigluQuantize::new(&gate_up, &out).permutation(&permutation).launch(stream)
}

fn combine(device: &Device, stream: &Stream, tokens: usize, columns: usize) -> Result<()> {
    let permutation = permute(device, stream, [tokens, SLOTS, 8])?;
    device.clear_records();
    let (rows, weights) = (ones(device, &[tokens * SLOTS, columns])?, device.full(&[tokens, SLOTS], 0.5f32)?);
    Combine::new(&rows, &permutation, &weights, &ones(device, &[tokens, columns])?).launch(stream)
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_routed_row_is_moved_once() {
    const TOKENS: usize = 2;
    let entries = (TOKENS * SLOTS) as u64;
    for columns in [6144usize, 4107] {
        let (elements, scales) = (entries * columns as u64, 4 * entries * columns.div_ceil(128) as u64);
        let launched = one(|device, stream| gather(device, stream, TOKENS, columns));
        let sources = 4 * 256 * entries;
        assert_eq!(launched.bytes(), (sources + elements + scales, elements + scales));

        let launched = one(|device, stream| swiglu(device, stream, TOKENS, columns));
        // Eight warps a row, and each thread reads how many rows there are.
        let counts = 4 * 256 * entries;
        assert_eq!(launched.bytes(), (counts + 4 * elements, elements + scales));
        assert_eq!(launched.exchanges(), 4 * entries * columns.div_ceil(256) as u64);

        let launched = one(|device, stream| combine(device, stream, TOKENS, columns));
        // Lanes with columns read positions and weights again in each pass.
        let passes = columns.div_ceil(8) as u64 * entries * 8;
        assert_eq!(launched.bytes(), (passes + 2 * elements, 2 * (TOKENS * columns) as u64));
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn rows_end_where_they_end() {
    stops_at_the_end([4096, 4080], |device, stream, columns| gather(device, stream, 1, columns));
    stops_at_the_end([2048, 2040], |device, stream, columns| swiglu(device, stream, 1, columns));
    stops_at_the_end([2048, 2040], |device, stream, columns| combine(device, stream, 1, columns));
}
