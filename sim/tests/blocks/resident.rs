//! Blocks that wait for each other through global memory.

use super::{Case, words};
use narrowgauge_sim::{CardProfile, FaultKind, Launch, Machine, Module, Policy, Schedule};

/// Adds one to the word at %out and spins until it is `blocks`; then everybody reads what all have stored.
fn grid_barrier(blocks: u32, spin: &str) -> String {
    format!(
        "setp.eq.u32 %p0, %t, 0; mul.wide.u32 %rd0, %b, 4; add.u64 %rd1, %out, %rd0; add.u32 %r0, %b, 50;
        @%p0 st.global.u32 [%rd1+256], %r0; @!%p0 bra JOIN; membar.gl; red.global.add.u32 [%out], 1;
        SPIN: {spin} setp.ne.u32 %p1, %r1, {blocks}; @%p1 bra SPIN; membar.gl;
        JOIN: bar.sync 0; add.u32 %r2, %b, 1; setp.eq.u32 %p2, %r2, {blocks}; @%p2 mov.u32 %r2, 0;
        mul.wide.u32 %rd2, %r2, 4; add.u64 %rd3, %out, %rd2; ld.global.u32 %r3, [%rd3+256];
        @%p0 st.global.u32 [%rd1+512], %r3;"
    )
}

const SPINS: [&str; 5] = [
    "ld.volatile.global.u32 %r1, [%out];",
    "ld.acquire.gpu.global.u32 %r1, [%out];",
    "ld.relaxed.gpu.u32 %r1, [%out];",
    "atom.global.add.u32 %r1, [%out], 0;",
    "nanosleep.u32 100; ld.global.u32 %r1, [%out];",
];

#[test]
fn a_barrier_over_the_grid_opens() {
    for spin in SPINS {
        let body = grid_barrier(40, spin);
        // The last one polls with an ordinary load, which races.
        let races = spin != SPINS[4];
        let schedule = Schedule { races, ..Schedule::default() };
        let out = Case::new(&body).blocks(40).threads(96).schedule(schedule).every_output();
        assert_eq!(out[0], 40);
        assert!((0..40u32).all(|b| out[128 + b as usize] == 50 + (b + 1) % 40), "{spin}: {out:?}");
    }
}

/// The driver's workspace of a cooperative launch: its address in two registers, its barrier word zero, and nowhere where
/// the blocks do not all fit the card.
#[test]
fn a_cooperative_launch_has_a_workspace() {
    let find = "mov.u32 %r0, %envreg2; mov.u32 %r1, %envreg1; mov.b64 %rd0, {%r0, %r1};";
    let body = format!(
        "{find} setp.eq.u32 %p0, %t, 0; @!%p0 bra JOIN; membar.gl; atom.add.gpu.u32 %r2, [%rd0+4], 1;
        SPIN: ld.acquire.gpu.u32 %r2, [%rd0+4]; setp.ne.u32 %p1, %r2, 6; @%p1 bra SPIN;
        mul.wide.u32 %rd1, %b, 4; add.u64 %rd1, %out, %rd1; st.global.u32 [%rd1], %r2; JOIN: bar.sync 0;"
    );
    let out = Case::new(&body).blocks(6).every_output();
    assert_eq!(out[..7], [6, 6, 6, 6, 6, 6, 0]);
    let body = format!("{find} st.global.u64 [%out], %rd0;");
    let small = CardProfile { sms: 1, ..CardProfile::H20 };
    let case =
        Case::new(&body).blocks(3).threads(1024).schedule(Schedule { races: false, ..Schedule::default() });
    assert_eq!(Case { profile: small, ..case }.output()[..2], [0, 0]);
}

#[test]
fn the_first_block_may_wait_for_the_last() {
    // Block b waits for block b + 1, so the last one must start before the first can end.
    let body =
        "add.u32 %r0, %b, 1; mul.wide.u32 %rd0, %b, 4; add.u64 %rd0, %out, %rd0; setp.eq.u32 %p0, %r0, 60;
        mov.u32 %r1, 0; @%p0 bra LAST; SPIN: ld.acquire.gpu.global.u32 %r1, [%rd0+4]; setp.eq.u32 %p1, %r1, 0;
        @%p1 bra SPIN; LAST: add.u32 %r1, %r1, 1; st.release.gpu.global.u32 [%rd0], %r1;";
    let patient = Schedule { step_limit: 50_000, ..Schedule::default() };
    let out = Case::new(body).blocks(60).schedule(patient).every_output();
    assert!((0..60).all(|b| out[b as usize] == 60 - b), "{out:?}");
}

#[test]
fn a_plain_load_that_spins_is_served_too() {
    let body = grid_barrier(4, "ld.global.u32 %r1, [%out];");
    let schedule = Schedule { races: false, ..Schedule::default() };
    let out = Case::new(&body).blocks(4).schedule(schedule).output();
    assert_eq!(out[128..132], [51, 52, 53, 50]);
}

#[test]
fn a_poll_with_a_barrier_around_it_is_served_too() {
    let body = "setp.eq.u32 %p0, %t, 0; @%p0 red.global.add.u32 [%out], 1;
        SPIN: @%p0 ld.volatile.global.u32 %r1, [%out]; @%p0 st.shared.u32 [smem], %r1; bar.sync 0;
        ld.shared.u32 %r2, [smem]; bar.sync 0; setp.ne.u32 %p1, %r2, 6; @%p1 bra SPIN;
        mul.wide.u32 %rd0, %b, 4; add.u64 %rd1, %out, %rd0; @%p0 st.global.u32 [%rd1+4], %r2;";
    let out = Case::new(body).blocks(6).threads(64).output();
    assert_eq!(out[..7], [6; 7]);
}

#[test]
fn cooperative_launches_have_a_workspace() {
    // What grid.sync() does: the barrier is at 4 bytes into the workspace, whose address stands in two registers.
    let body = "mov.u32 %r0, %envreg2; cvt.u64.u32 %rd0, %r0; mov.u32 %r1, %envreg1; cvt.u64.u32 %rd1, %r1;
        shl.b64 %rd1, %rd1, 32; or.b64 %rd0, %rd0, %rd1; setp.eq.u32 %p0, %t, 0; @!%p0 bra JOIN;
        atom.global.add.u32 %r2, [%rd0+4], 1; SPIN: ld.acquire.gpu.global.u32 %r3, [%rd0+4];
        setp.lt.u32 %p1, %r3, 20; @%p1 bra SPIN; JOIN: bar.sync 0;
        mul.wide.u32 %rd2, %b, 4; add.u64 %rd3, %out, %rd2; @%p0 st.global.u32 [%rd3], %r3;";
    assert_eq!(Case::new(body).blocks(20).threads(64).every_output()[..20], [20; 20]);
    let small = CardProfile { sms: 1, ..CardProfile::H20 };
    let fault = Case { profile: small, ..Case::new(body).blocks(20).threads(256) }.fault();
    // The card holds 8 blocks, so there is none.
    assert_eq!(fault.kind, FaultKind::OutOfBounds { space: "global", address: 4, bytes: 4 });
}

#[test]
fn clusters_wait_for_each_other() {
    let body = grid_barrier(16, SPINS[1]);
    let out = Case::new(&body).blocks(16).clusters_of(4).every_output();
    assert!((0..16u32).all(|b| out[128 + b as usize] == 50 + (b + 1) % 16));
}

#[test]
fn only_what_fits_the_card_is_resident() {
    // 1024 threads a block: two a multiprocessor.
    let small = CardProfile { sms: 3, ..CardProfile::H20 };
    let run = |blocks| {
        let body = grid_barrier(blocks, SPINS[0]);
        let schedule = Schedule { step_limit: 200_000, ..Schedule::default() };
        let case = Case::new(&body).blocks(blocks).threads(1024).schedule(schedule);
        Case { profile: small.clone(), ..case }.run()
    };
    assert_eq!(run(6).unwrap().0[0], 6);
    let fault = *run(7).unwrap_err();
    let FaultKind::StepLimit { spinning, .. } = &fault.kind else { panic!("{fault}") };
    assert!(spinning.starts_with("block (0, 0, 0) warp 0 and 5 others at PTX line"), "{spinning}");
}

#[test]
fn a_livelock_says_where() {
    let body = "setp.eq.u32 %p0, %t, 0; @!%p0 bra JOIN;
        SPIN: ld.volatile.global.u32 %r1, [%out]; setp.ne.u32 %p1, %r1, 9; @%p1 bra SPIN; JOIN: bar.sync 0;";
    let schedule = Schedule { step_limit: 100_000, ..Schedule::default() };
    let fault = Case::new(body).blocks(3).schedule(schedule).fault();
    let FaultKind::StepLimit { limit: 100_000, spinning } = &fault.kind else { panic!("{fault}") };
    assert_eq!(spinning, "block (0, 0, 0) warp 0 and 2 others at PTX line 14");
    assert_eq!(fault.line, 14);
}

#[test]
fn late_copies_arrive_while_their_waiter_polls() {
    // test_wait never blocks: the copy must come although the warp always can run.
    let body = "mov.u32 %r0, smem; setp.eq.u32 %p0, %t, 0; @%p0 mbarrier.init.shared::cta.b64 [%r0], 1;
        fence.mbarrier_init.release.cluster; bar.sync 0;
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 128; add.u32 %r1, %r0, 128;
        @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], 128, [%r0];
        WAIT: mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r0], 0; @!%p1 bra WAIT;
        mad.lo.u32 %r2, %t, 4, %r1; ld.shared.u32 %r3, [%r2]; mul.wide.u32 %rd0, %t, 4; add.u64 %rd0, %out, %rd0;
        st.global.u32 [%rd0], %r3;";
    let out = Case::new(body).blocks(1).every_output();
    assert_eq!(out[..32], (0..32).collect::<Vec<u32>>());
}

/// Blocks that add without an atomic lose counts when they interleave, and only then.
#[test]
fn the_random_policy_interleaves_blocks() {
    let body = "mov.u32 %r2, 0; LOOP: ld.global.u32 %r0, [%out]; add.u32 %r0, %r0, 1; add.u32 %r3, %r0, 0;
        st.global.u32 [%out], %r0; add.u32 %r2, %r2, 1; setp.lt.u32 %p0, %r2, 20; @%p0 bra LOOP;";
    let racing = |schedule| Schedule { races: false, ..schedule };
    let count = |schedule| Case::new(body).blocks(8).threads(1).schedule(racing(schedule)).output()[0];
    assert_eq!(count(Schedule::default()), 160);
    let lost = (0..20).filter(|&seed| count(Schedule::with(Policy::Random, seed)) < 160).count();
    assert!((1..20).contains(&lost), "{lost} of 20 seeds lose counts: some interleave, some keep the order");
}

#[test]
fn a_large_grid_runs_in_little_memory() {
    let body = "mul.wide.u32 %rd0, %b, 4; add.u64 %rd0, %out, %rd0; st.global.u32 [%rd0], %b;";
    let case = Case { words: 20_000, ..Case::new(body).blocks(20_000).threads(1) };
    let (out, report) = case.run().unwrap();
    assert_eq!(out, (0..20_000).collect::<Vec<u32>>());
    assert_eq!(report.counters.blocks, 20_000);
}

#[test]
fn linear_order_covers_every_axis() {
    let text = ".version 8.6\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 out_ptr)\n{
        .reg .b32 %r<12>; .reg .b64 %rd<4>; ld.param.u64 %rd0, [out_ptr];
        mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ctaid.y; mov.u32 %r2, %ctaid.z; mov.u32 %r3, %cluster_ctarank;
        mov.u32 %r4, %clusterid.x; mov.u32 %r5, %clusterid.y; mov.u32 %r6, %clusterid.z;
        mad.lo.u32 %r7, %r2, 4, %r1; mad.lo.u32 %r7, %r7, 6, %r0; mul.wide.u32 %rd1, %r7, 4; add.u64 %rd1, %rd0, %rd1;
        mad.lo.u32 %r8, %r6, 10, %r5; mad.lo.u32 %r8, %r8, 10, %r4; mad.lo.u32 %r8, %r8, 10, %r3;
        st.global.u32 [%rd1], %r8; ret; }";
    let module = Module::parse(text).unwrap();
    let mut machine = Machine::new(CardProfile::H20);
    let out = machine.alloc(4 * 48).unwrap();
    let params: [&[u8]; 1] = [&out.to_le_bytes()];
    let launch = Launch {
        entry: "k",
        grid: [6, 4, 2],
        block: [1; 3],
        cluster: [3, 1, 2],
        shared_bytes: 0,
        params: &params,
        schedule: Schedule::default(),
    };
    machine.launch(&module, &launch).unwrap();
    for (i, value) in words(&machine, out, 48).into_iter().enumerate() {
        let [x, y, z] = [i % 6, i / 6 % 4, i / 24].map(|v| v as u32);
        assert_eq!(value, 100 * y + 10 * (x / 3) + x % 3 + 3 * z, "block ({x}, {y}, {z})");
    }
}
