//! Profiles of tiny kernels whose counts follow from their text.

use narrowgauge_sim::profiler::{LineProfile, LoopProfile, Profile, RoleProfile};
use narrowgauge_sim::{CardProfile, Class, Counters, Launch, Machine, Module, Policy, Schedule};

const BUFFER: u64 = 4096;

/// Profiles a body in `blocks` blocks; %buffer is the address of 4096 zeros, %t is %tid.x.
fn profile(body: &str, blocks: u32, threads: u32, schedule: Schedule) -> (Profile, Counters) {
    // The body begins on line 10.
    let text = format!(
        r#".version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 buffer_ptr) {{
    .reg .pred %p<8>; .reg .b32 %r<16>; .reg .b64 %rd<8>; .reg .b64 %buffer; .reg .b32 %t;
    .shared .align 1024 .b8 smem[8192];
    .shared .align 8 .b64 bar;
    ld.param.u64 %buffer, [buffer_ptr];
    mov.u32 %t, %tid.x;
{body}
    ret;
}}"#
    );
    let module = Module::parse(&text).unwrap();
    let mut machine = Machine::new(CardProfile::H20);
    let buffer = machine.alloc(BUFFER).unwrap();
    machine.fill(buffer, BUFFER, 0).unwrap();
    let launch = Launch {
        entry: "k",
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        cluster: [1; 3],
        shared_bytes: 0,
        params: &[&buffer.to_le_bytes()],
        schedule: Schedule { profile: true, ..schedule },
    };
    let report = machine.launch(&module, &launch).unwrap();
    let plain = Launch { schedule, ..launch };
    let unprofiled = machine.launch(&module, &plain).unwrap();
    assert!(unprofiled.profile.is_none());
    assert_eq!(unprofiled.counters, report.counters, "profiling changes no count");
    let profile = report.profile.unwrap();
    consistent(&profile, &report.counters);
    (profile, report.counters)
}

/// What must hold of every profile.
fn consistent(profile: &Profile, counters: &Counters) {
    assert_eq!(profile.executions(), counters.instructions);
    assert_eq!(profile.tensor_macs(), counters.tensor_macs);
    assert_eq!(profile.bank_conflicts(), counters.bank_conflicts);
    assert_eq!(profile.waits(), counters.waits);
    let by_role: u64 = profile.roles.iter().map(|role| role.counts.executions).sum();
    assert_eq!(by_role, counters.instructions);
    for class in Class::ALL {
        let by_role: u64 = profile.roles.iter().map(|role| role.counts.class(class)).sum();
        assert_eq!(by_role, counters.class(class), "{}", class.name());
    }
    for (at, line) in profile.lines.iter().enumerate() {
        assert_eq!(profile.roles.iter().map(|role| role.by_line[at]).sum::<u64>(), line.executions);
    }
    let (loads, stores) = profile.requested_sectors();
    assert_eq!(loads, profile.lines.iter().map(|line| line.load_sectors).sum::<u64>());
    assert_eq!(stores, profile.lines.iter().map(|line| line.store_sectors).sum::<u64>());
}

fn at(profile: &Profile, line: u32) -> &LineProfile {
    profile.lines.iter().find(|found| found.line == line).expect("there is an instruction on that line")
}

fn loop_of<'a>(profile: &'a Profile, role: &RoleProfile) -> &'a LoopProfile {
    &profile.loops[role.main_loop.expect("the role has a loop")]
}

#[test]
fn a_loop_counts_its_trips_and_their_instructions() {
    let body = "\
    mov.u32 %r0, 0;
L:
    add.u32 %r0, %r0, 1;
    mul.lo.u32 %r1, %r0, 3;
    setp.lt.u32 %p0, %r0, 5;
    @%p0 bra L;";
    let (profile, _) = profile(body, 3, 64, Schedule::default());
    let [role] = profile.roles.as_slice() else { panic!("one role: {:?}", profile.roles) };
    // Three blocks of two warps, five trips each.
    assert_eq!((role.warps, role.trips, role.per_trip()), (6, 30, Some(4.0)));
    // ld.param, two mov, the loop, ret.
    assert_eq!(role.counts.executions, 6 * (3 + 20 + 1));
    assert_eq!(role.in_loop.executions, 120);
    assert_eq!(role.in_loop.class(Class::Control), 30);
    let found = loop_of(&profile, role);
    assert_eq!((found.line, found.last_line, found.parent, found.waits), (12, 15, None, false));
    assert_eq!(profile.hottest_loop(), Some(0));
    let add = at(&profile, 12);
    assert_eq!((add.opcode.as_str(), add.executions, add.lanes), ("add.u32", 30, 30 * 32));
    assert_eq!(add.innermost, Some(0));
    assert_eq!((profile.grid, profile.block), ([3, 1, 1], [64, 1, 1]));
    assert_eq!(profile.shared_bytes, 8200);
}

#[test]
fn a_loop_that_tests_at_its_top_counts_whole_trips() {
    let body = "\
    mov.u32 %r0, 0;
L:
    setp.ge.u32 %p0, %r0, 7;
    @%p0 bra OUT;
    add.u32 %r0, %r0, 1;
    bra.uni L;
OUT:";
    let (profile, _) = profile(body, 1, 32, Schedule::default());
    let role = &profile.roles[0];
    // The test runs once more than the rest.
    assert_eq!((role.trips, role.in_loop.executions), (7, 7 * 4 + 2));
}

#[test]
fn nested_loops_know_their_parents() {
    let body = "\
    mov.u32 %r0, 0;
OUTER:
    mov.u32 %r1, 0;
INNER:
    add.u32 %r1, %r1, 1;
    setp.lt.u32 %p0, %r1, 4;
    @%p0 bra INNER;
    add.u32 %r0, %r0, 1;
    setp.lt.u32 %p1, %r0, 3;
    @%p1 bra OUTER;";
    let (profile, _) = profile(body, 1, 32, Schedule::default());
    let [outer, inner] = profile.loops.as_slice() else { panic!("two loops: {:?}", profile.loops) };
    assert_eq!((outer.line, outer.parent, outer.trips), (12, None, 3));
    assert_eq!((inner.line, inner.parent, inner.trips), (14, Some(0), 12));
    assert_eq!((inner.executions, outer.executions), (36, 36 + 12));
    // The warp spends most in the inner one.
    assert_eq!(profile.roles[0].main_loop, Some(1));
}

#[test]
fn warps_with_different_loops_have_different_roles() {
    let body = "\
    shr.u32 %r0, %t, 5;
    mov.u32 %r1, 0;
    setp.eq.u32 %p0, %r0, 0;
    @%p0 bra PRODUCER;
    setp.eq.u32 %p1, %r0, 3;
    @%p1 bra END;
CONSUMER:
    add.u32 %r1, %r1, 1;
    add.f32 %r2, %r1, %r1;
    setp.lt.u32 %p2, %r1, 10;
    @%p2 bra CONSUMER;
    bra.uni END;
PRODUCER:
    add.u32 %r1, %r1, 1;
    setp.lt.u32 %p3, %r1, 2;
    @%p3 bra PRODUCER;
END:";
    let (profile, _) = profile(body, 2, 128, Schedule::default());
    let [consumer, producer, idle] = profile.roles.as_slice() else { panic!("{:?}", profile.roles) };
    assert_eq!((consumer.warps, consumer.trips, consumer.per_trip()), (4, 40, Some(4.0)));
    assert_eq!(consumer.in_loop.class(Class::Float), 40);
    assert_eq!((producer.warps, producer.trips, producer.per_trip()), (2, 4, Some(3.0)));
    assert_eq!((idle.warps, idle.main_loop, idle.per_trip()), (2, None, None));
    assert_eq!(profile.loops[profile.hottest_loop().unwrap()].line, 17);
}

#[test]
fn sectors_count_requested_and_unique() {
    let body = "\
    mad.wide.u32 %rd0, %t, 4, %buffer;
    ld.global.u32 %r0, [%rd0];
    ld.global.u32 %r1, [%rd0+64];
    mad.wide.u32 %rd1, %t, 32, %buffer; bar.warp.sync -1;
    st.global.u32 [%rd1], %r0;
    st.global.u32 [%rd1+4], %r0; bar.warp.sync -1;
    atom.global.add.u32 %r2, [%buffer], 1;";
    let (profile, _) = profile(body, 1, 32, Schedule::default());
    // 128 bytes each; they share two sectors. The atomic's is one of them.
    assert_eq!(at(&profile, 11).load_sectors, 4);
    assert_eq!(at(&profile, 12).load_sectors, 4);
    assert_eq!(at(&profile, 14).store_sectors, 32);
    assert_eq!(at(&profile, 16).load_sectors, 1);
    let [region] = profile.regions.as_slice() else { panic!("one allocation: {:?}", profile.regions) };
    assert_eq!(region.bytes, BUFFER);
    assert_eq!((region.load_sectors, region.unique_loads), (9, 6));
    assert_eq!((region.store_sectors, region.unique_stores), (64, 32));
    assert_eq!((profile.unique_sectors(), profile.requested_sectors()), ((6, 32), (9, 64)));
}

#[test]
fn prefetches_are_unique_sectors_but_no_requests() {
    let body = "\
    setp.eq.u32 %p0, %t, 0;
    @%p0 cp.async.bulk.prefetch.L2.global [%buffer], 128;
    @%p0 cp.async.bulk.prefetch.L2.global [%buffer], 64;
    ld.global.u32 %r0, [%buffer+96];
    ld.global.u32 %r0, [%buffer+128];";
    let (profile, counters) = profile(body, 1, 32, Schedule::default());
    let [region] = profile.regions.as_slice() else { panic!("one allocation: {:?}", profile.regions) };
    assert_eq!((region.prefetch_sectors, region.load_sectors, region.unique_loads), (6, 2, 5));
    assert_eq!((counters.bulk_prefetch_bytes, at(&profile, 12).load_sectors), (192, 0));
}

#[test]
fn bank_conflicts_stand_at_their_line() {
    let body = "\
    mov.u32 %r0, smem;
    mad.lo.u32 %r1, %t, 128, %r0;
    mad.lo.u32 %r2, %t, 4, %r0;
    st.shared.u32 [%r2], %t;
    st.shared.u32 [%r1], %t;";
    let (profile, _) = profile(body, 1, 32, Schedule::default());
    assert_eq!((at(&profile, 13).bank_conflicts, at(&profile, 14).bank_conflicts), (0, 31));
    // Both write the first word.
    assert_eq!((profile.shared_bytes, profile.shared_written), (8200, 4 * 63));
    let [spot] = profile.hot_spots()[..] else { panic!("one hot spot: {:?}", profile.hot_spots()) };
    assert_eq!(
        spot.to_string(),
        "`st.shared.u32` at PTX line 14 has bank conflicts: 31 wavefronts too many in 1 instructions"
    );
}

/// Lanes take turns between `n` words of one bank: a word is broadcast, so each costs one wavefront.
#[test]
fn words_are_broadcast_however_lanes_interleave() {
    for words in [1, 2, 4, 8] {
        let body = format!(
            "
    mov.u32 %r0, smem;
    rem.u32 %r1, %t, {words};
    mad.lo.u32 %r1, %r1, 128, %r0;
    ld.shared.u32 %r2, [%r1];"
        );
        let (profile, _) = profile(&body, 1, 32, Schedule::default());
        assert_eq!(at(&profile, 14).bank_conflicts, words - 1, "{words} words");
    }
}

#[test]
fn uncoalesced_lines_are_hot_spots() {
    let body = "\
    mad.wide.u32 %rd0, %t, 4, %buffer;
    mad.wide.u32 %rd1, %t, 64, %buffer;
    ld.global.u32 %r0, [%rd0];
    ld.global.u32 %r1, [%rd1];
    ld.global.u32 %r2, [%buffer];";
    let (profile, _) = profile(body, 1, 32, Schedule::default());
    assert_eq!((at(&profile, 12).global_bytes, at(&profile, 13).global_bytes), (128, 128));
    let [spot] = profile.hot_spots()[..] else { panic!("one hot spot: {:?}", profile.hot_spots()) };
    let text = "`ld.global.u32` at PTX line 13 is not coalesced: 32 sectors where 4 would do";
    assert_eq!(spot.to_string(), text);
}

#[test]
fn lanes_of_a_divergent_line_are_counted() {
    let body = "\
    setp.lt.u32 %p0, %t, 5;
    @!%p0 bra END;
    add.u32 %r0, %t, 1;
END:";
    let (profile, _) = profile(body, 1, 32, Schedule::default());
    assert_eq!((at(&profile, 12).executions, at(&profile, 12).lanes), (1, 5));
}

/// 80 bytes from an address in the middle of a sector touch three of them, whenever the copy completes. The loop
/// that waits is no main loop, and its turns are polling.
#[test]
fn bulk_copies_count_at_issue_and_waiting_apart() {
    let body = "\
    setp.ne.u32 %p0, %t, 0;
    mov.u32 %r0, bar;
    mov.u32 %r1, smem;
    @%p0 bra WORK;
    mbarrier.init.shared::cta.b64 [%r0], 1; fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 80;
    add.u64 %rd0, %buffer, 16;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd0], 80, [%r0];
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r0], 0;
    @!%p1 bra WAIT;
    cp.async.bulk.global.shared::cta.bulk_group [%buffer], [%r1], 32;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
WORK:";
    for policy in [Policy::Eager, Policy::Random, Policy::Late] {
        let (profile, _) = profile(body, 1, 32, Schedule::with(policy, 5));
        assert_eq!(at(&profile, 17).load_sectors, 3, "{policy:?}");
        assert_eq!(at(&profile, 21).store_sectors, 1, "{policy:?}");
        assert_eq!((profile.unique_sectors(), profile.requested_sectors()), ((3, 1), (3, 1)));
        let [role] = profile.roles.as_slice() else { panic!("one role: {:?}", profile.roles) };
        assert_eq!(role.main_loop, None);
        let [wait] = profile.loops.as_slice() else { panic!("one loop: {:?}", profile.loops) };
        assert!(wait.waits && wait.trips >= 1);
        assert_eq!(role.counts.polling, wait.executions);
        assert!(policy != Policy::Late || at(&profile, 19).waits >= 1);
    }
}
