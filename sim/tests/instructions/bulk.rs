//! Plain bulk copies, and the groups that bulk stores come in.

use crate::rig::{Rig, rig, schedules};
use narrowgauge_sim::{FaultKind, Policy, Schedule};

fn late() -> Schedule {
    Schedule::with(Policy::Late, 0)
}

/// One thread copies `bytes` of the buffer to shared memory; all copy them on.
fn load(bytes: u32) -> Rig {
    rig(&format!(
        "mov.u32 %r0, smem;
        setp.eq.u32 %p0, %t, 0;
        @%p0 mbarrier.init.shared::cta.b64 [%r0], 1;
        fence.mbarrier_init.release.cluster;
        bar.sync 0;
        mov.u32 %r5, {bytes};
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], %r5;
        @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r0+1024], [%b0+16], %r5, [%r0];
    WAIT:
        mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r0], 0;
        @!%p1 bra WAIT;
        mov.u32 %r1, %t;
    COPY:
        mad.lo.u32 %r2, %r1, 4, %r0;
        ld.shared.u32 %r3, [%r2+1024];
        mad.wide.u32 %rd0, %r1, 4, %out;
        st.global.u32 [%rd0], %r3;
        add.u32 %r1, %r1, 32;
        setp.lt.u32 %p2, %r1, {};
        @%p2 bra COPY;",
        bytes / 4
    ))
    .words(bytes as usize / 4)
    .numbers(0..8192)
}

#[test]
fn loads_arrive_whole() {
    for bytes in [128, 1024, 16384] {
        for schedule in schedules() {
            let ran = load(bytes).schedule(schedule).run().unwrap();
            assert_eq!(ran.out, (4..4 + bytes / 4).collect::<Vec<_>>(), "{schedule:?}");
            assert_eq!(ran.report.counters.bulk_load_bytes, u64::from(bytes));
        }
    }
    let own = load(128).edit("bulk.shared::cluster.global", "bulk.shared::cta.global");
    assert_eq!(own.out(), (4..36).collect::<Vec<_>>());
    let hinted = load(128)
        .edit("bytes [%r0+1024]", "bytes.L2::cache_hint [%r0+1024]")
        .edit("%r5, [%r0];", "%r5, [%r0], %b0;");
    assert_eq!(hinted.out(), (4..36).collect::<Vec<_>>());
    let early = load(128)
        .edit("@!%p1 bra WAIT;", "")
        .edit("try_wait", "test_wait")
        .schedule(late())
        .racing()
        .fault("st.global");
    assert!(matches!(early.kind, FaultKind::Uninitialised { .. }), "{early}");
}

#[test]
fn misaligned_and_stray_copies_are_faults() {
    for (from, to, align) in [("[%b0+16]", "[%b0+8]", 16), ("[%r0+1024], [", "[%r0+1032], [", 16)] {
        let wrong = load(128).edit(from, to).fault("cp.async.bulk");
        assert!(matches!(wrong.kind, FaultKind::Misaligned { align: a, .. } if a == align), "{wrong}");
    }
    let wrong = load(136).fault("cp.async.bulk");
    assert!(wrong.to_string().contains("not a multiple of 16"), "{wrong}");
    for schedule in schedules() {
        let wrong = load(128).edit("[%b0+16]", "[%b0+32704]").schedule(schedule).fault("cp.async.bulk");
        assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "global (bulk load)", .. }), "{wrong}");
    }
    let wrong = load(128).edit("[%r0+1024], [", "[%r0+32704], [").fault("cp.async.bulk");
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "shared", .. }), "{wrong}");
}

#[test]
fn prefetches_are_checked_and_counted() {
    let prefetch = |operands: &str| {
        let text = format!(
            "setp.eq.u32 %p0, %t, 0;
            @%p0 cp.async.bulk.prefetch.L2.global [{operands};
            st.global.u32 [%at], 1;"
        );
        rig(&text).numbers(0..8192).racing()
    };
    let ran = prefetch("%b0+16], 1024").run().unwrap();
    assert_eq!((ran.out, ran.report.counters.bulk_prefetch_bytes), (vec![1; 32], 1024));
    for operands in ["%b0+8], 1024", "%b0+16], 1000"] {
        let wrong = prefetch(operands).fault("cp.async.bulk.prefetch");
        assert!(matches!(wrong.kind, FaultKind::Misaligned { align: 16, .. }), "{wrong}");
    }
    let wrong = prefetch("%b0+32704], 128").fault("cp.async.bulk.prefetch");
    let space = "global (bulk prefetch)";
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: s, .. } if s == space), "{wrong}");
}

/// Thread 0 fills two halves of shared memory and stores each as a group of its own; `wait` follows, then `after`.
fn store(wait: &str, after: &str) -> Rig {
    rig(&format!(
        "setp.ne.u32 %p0, %t, 0;
        @%p0 exit;
        mov.u32 %r0, smem;
        mov.u32 %r1, 0;
    FILL:
        mad.lo.u32 %r2, %r1, 4, %r0;
        add.u32 %r3, %r1, 500;
        st.shared.u32 [%r2], %r3;
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, 16;
        @%p1 bra FILL;
        fence.proxy.async.shared::cta;
        cp.async.bulk.global.shared::cta.bulk_group [%b0], [%r0], 32;
        cp.async.bulk.commit_group;
        cp.async.bulk.global.shared::cta.bulk_group [%b0+32], [%r0+32], 32;
        cp.async.bulk.commit_group;
        {wait}
        {after}"
    ))
    .numbers(0..16)
}

const LOOK: &str = "ld.volatile.global.u32 %r4, [%b0];
    ld.volatile.global.u32 %r5, [%b0+32];
    st.global.v2.u32 [%out], {%r4, %r5};
    cp.async.bulk.wait_group 0;";

#[test]
fn a_store_is_visible_when_its_group_was_waited_for() {
    for schedule in schedules() {
        let ran = store("cp.async.bulk.wait_group 0;", LOOK).schedule(schedule).run().unwrap();
        assert_eq!(ran.out[..2], [500, 508]);
        let words: Vec<u8> = (500..516u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(ran.buffers[0], words);
        assert_eq!(ran.report.counters.bulk_store_bytes, 64);
    }
    // Read is not written; and the newest group may stay open.
    assert_eq!(store("cp.async.bulk.wait_group.read 0;", LOOK).schedule(late()).racing().out()[..2], [0, 8]);
    assert_eq!(store("cp.async.bulk.wait_group 1;", LOOK).schedule(late()).racing().out()[..2], [500, 8]);
    assert_eq!(store("cp.async.bulk.wait_group 2;", LOOK).schedule(late()).racing().out()[..2], [0, 8]);
    // Without any wait the source must at least have been read before the block ends.
    let wrong = store("", "").schedule(late()).run().unwrap_err();
    assert!(wrong.to_string().contains("before its bulk stores have read"), "{wrong}");
}

#[test]
fn the_source_is_free_when_it_was_read() {
    let again = "mov.u32 %r6, 9; st.shared.u32 [%r0], %r6; st.shared.u32 [%r0+32], %r6;
        cp.async.bulk.wait_group 0;";
    let first_words = |wait: &str, schedule| {
        let bytes = store(wait, again).schedule(schedule).racing().run().unwrap().buffers.remove(0);
        [0, 32].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    for schedule in schedules() {
        assert_eq!(first_words("cp.async.bulk.wait_group.read 0;", schedule), [500, 508], "{schedule:?}");
    }
    // Too early: late reading shows it.
    assert_eq!(first_words("cp.async.bulk.wait_group.read 1;", late()), [500, 9]);
    assert_eq!(first_words("", late()), [9, 9]);
}

#[test]
fn groups_belong_to_threads() {
    // Thread 1 waits for its own groups, of which there are none; thread 0's store stays where it is.
    let body = "mov.u32 %r0, smem;
        setp.eq.u32 %p0, %t, 0;
        st.shared.v4.u32 [%r0], {%r0, %r0, %r0, %r0};
        fence.proxy.async.shared::cta;
        bar.sync 0;
        @%p0 cp.async.bulk.global.shared::cta.bulk_group [%b0], [%r0], 16;
        @%p0 cp.async.bulk.commit_group;
        @!%p0 cp.async.bulk.wait_group 0;
        @%p0 cp.async.bulk.wait_group.read 0;
        ld.volatile.global.u32 %r4, [%b0];
        st.global.u32 [%at], %r4;
        @%p0 cp.async.bulk.wait_group 0;";
    assert_eq!(rig(body).numbers([77; 4]).schedule(late()).racing().out(), [77; 32]);
}

#[test]
fn undefined_sources_are_faults() {
    let body = "setp.ne.u32 %p0, %t, 0;
        @%p0 exit;
        cp.async.bulk.global.shared::cta.bulk_group [%b0], [%r0], 16;";
    let wrong = rig(&format!("mov.u32 %r0, smem;\n {body}")).numbers([0; 4]).fault("cp.async.bulk");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { used_as: "a bulk store's source" }), "{wrong}");
}
