//! Barriers in shared memory: arrivals, bytes, phases, tokens, and their misuse.

use crate::rig::{Rig, lanes, rig, schedules};
use narrowgauge_sim::FaultKind;

/// One thread works on one barrier at `smem`, whose address is in %r0; results go to `%out`.
fn alone(body: &str) -> Rig {
    rig(&format!("setp.ne.u32 %p15, %t, 0;\n @%p15 exit;\n mov.u32 %r0, smem;\n {body}"))
}

/// What a wait on a parity, and one on a token, answer after each step.
#[test]
fn phases_turn_as_the_counts_say() {
    // Three rounds of two arrivals each, tested before and after every arrival.
    let mut body = String::from("mbarrier.init.shared::cta.b64 [%r0], 2;\n mov.u32 %r10, 0;\n");
    let mut step = 0;
    let mut test = |body: &mut String, parity: u32| {
        *body += &format!(
            "mbarrier.test_wait.parity.shared::cta.b64 %p0, [%r0], {parity};
            selp.u32 %r1, 1, 0, %p0;
            st.global.u32 [%out+{}], %r1;\n",
            4 * step
        );
        step += 1;
    };
    let mut want = Vec::new();
    for round in 0..3 {
        for arrivals in 0..2 {
            for parity in 0..2 {
                test(&mut body, parity);
                // True when the phase of that parity is the one before the current.
                want.push(u32::from(parity != round % 2));
            }
            body += if arrivals == 0 {
                "mbarrier.arrive.shared::cta.b64 %rd0, [%r0];\n"
            } else {
                "mbarrier.arrive.release.cta.shared::cta.b64 _, [%r0], 1;\n"
            };
        }
    }
    assert_eq!(alone(&body).out()[..want.len()], want);
}

#[test]
fn tokens_name_their_phase() {
    let out = alone(
        "mbarrier.init.shared.b64 [%r0], 3;
        mbarrier.arrive.shared.b64 %rd0, [%r0], 2;
        mbarrier.pending_count.b64 %r1, %rd0;
        mbarrier.test_wait.shared.b64 %p0, [%r0], %rd0;
        selp.u32 %r2, 1, 0, %p0;
        mbarrier.arrive.shared.b64 %rd1, [%r0];
        mbarrier.pending_count.b64 %r3, %rd1;
        mbarrier.test_wait.acquire.cta.shared.b64 %p0, [%r0], %rd0;
        selp.u32 %r4, 1, 0, %p0;
        mbarrier.try_wait.shared::cta.b64 %p0, [%r0], %rd1;
        selp.u32 %r5, 1, 0, %p0;
        mbarrier.arrive.shared.b64 %rd2, [%r0];
        mbarrier.test_wait.shared.b64 %p0, [%r0], %rd2;
        selp.u32 %r6, 1, 0, %p0;
        mbarrier.pending_count.b64 %r7, %rd2;
        st.global.v4.u32 [%out], {%r1, %r2, %r3, %r4};
        st.global.v4.u32 [%out+16], {%r5, %r6, %r7, %r7};",
    )
    .out();
    // The token is the state from before the arrival.
    assert_eq!(out[..7], [3, 0, 1, 1, 1, 0, 3]);
    let wrong = alone(
        "mbarrier.init.shared.b64 [%r0], 1;
        mbarrier.arrive.shared.b64 %rd0, [%r0];
        mbarrier.arrive.shared.b64 %rd1, [%r0];
        mbarrier.test_wait.shared.b64 %p0, [%r0], %rd0;",
    )
    .fault("test_wait");
    assert!(wrong.to_string().contains("state of phase 0"), "{wrong}");
}

#[test]
fn bytes_hold_a_phase_back() {
    let read = "mbarrier.test_wait.parity.shared::cta.b64 %p0, [%r0], 0;\n selp.u32 %r1, 1, 0, %p0;";
    let mut body = String::from("mbarrier.init.shared::cta.b64 [%r0], 1;\n");
    for (i, step) in [
        // Bytes may land before they are expected: the arrival is what is missing.
        "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r0], 100;",
        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r0], 60;",
        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r0], 40;",
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 64;",
        "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r0], 63;",
        "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r0], 1;",
    ]
    .into_iter()
    .enumerate()
    {
        body += &format!("{step}\n {read}\n st.global.u32 [%out+{}], %r1;\n", 4 * i);
    }
    assert_eq!(alone(&body).out()[..6], [0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_dropped_arrival_counts_in_no_later_phase() {
    let out = alone(
        "mbarrier.init.shared::cta.b64 [%r0], 3;
        mbarrier.arrive_drop.shared::cta.b64 %rd0, [%r0];
        mbarrier.arrive_drop.expect_tx.shared::cta.b64 %rd0, [%r0], 16;
        mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r0], 16;
        mbarrier.arrive.shared::cta.b64 %rd0, [%r0];
        mbarrier.arrive.shared::cta.b64 %rd1, [%r0];
        mbarrier.test_wait.shared::cta.b64 %p0, [%r0], %rd1;
        selp.u32 %r1, 1, 0, %p0;
        st.global.u32 [%out], %r1;",
    )
    .out();
    assert_eq!(out[0], 1, "one arrival is enough for the second phase");
    let body = "mbarrier.init.shared::cta.b64 [%r0], 6;
        mbarrier.arrive.noComplete.shared::cta.b64 %rd2, [%r0], 5;
        mbarrier.pending_count.b64 %r1, %rd2;
        mbarrier.arrive_drop.noComplete.release.cta.shared::cta.b64 %rd2, [%r0], 1;
        st.global.u32 [%out], %r1;";
    let wrong = alone(body).fault("arrive_drop.noComplete");
    assert!(wrong.to_string().contains("noComplete"), "{wrong}");
    assert_eq!(alone(&body.replace("b64 [%r0], 6", "b64 [%r0], 7")).out()[0], 7);
}

#[test]
fn producers_and_consumers_take_turns_over_many_phases() {
    // Warp 0 fills a two-stage ring, warp 1 empties it; full and empty barriers of each stage.
    let body = "mov.u32 %r0, smem;
        setp.ne.u32 %p0, %t, 0;
        @%p0 bra READY;
        mbarrier.init.shared::cta.b64 [%r0], 32;
        mbarrier.init.shared::cta.b64 [%r0+8], 32;
        mbarrier.init.shared::cta.b64 [%r0+16], 32;
        mbarrier.init.shared::cta.b64 [%r0+24], 32;
        fence.mbarrier_init.release.cluster;
    READY:
        bar.sync 0;
        mov.u32 %r1, 0;
        mov.u32 %r9, 0;
        setp.gt.u32 %p1, %t, 31;
        and.b32 %r2, %t, 31;
    TURN:
        and.b32 %r3, %r1, 1;
        mad.lo.u32 %r4, %r3, 8, %r0;
        shr.u32 %r5, %r1, 1;
        and.b32 %r5, %r5, 1;
        mad.lo.u32 %r6, %r3, 128, %r0;
        mad.lo.u32 %r6, %r2, 4, %r6;
        @%p1 bra CONSUME;
        xor.b32 %r7, %r5, 1;
    EMPTY:
        mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r4+16], %r7, 1000;
        @!%p2 bra EMPTY;
        mad.lo.u32 %r8, %r1, 100, %r2;
        st.shared.u32 [%r6+1024], %r8;
        mbarrier.arrive.shared::cta.b64 %rd0, [%r4];
        bra NEXT;
    CONSUME:
        mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p2, [%r4], %r5;
        @!%p2 bra CONSUME;
        ld.shared.u32 %r8, [%r6+1024];
        mad.lo.u32 %r9, %r9, 3, %r8;
        mbarrier.arrive.shared::cta.b64 _, [%r4+16];
    NEXT:
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %p3, %r1, 9;
        @%p3 bra TURN;
        st.global.u32 [%at], %r9;";
    for schedule in schedules() {
        let out = rig(body).threads(64).schedule(schedule).out();
        let want = |lane: u32| (0..9).fold(0u32, |sum, turn| 3 * sum + 100 * turn + lane);
        assert_eq!(out[32..], lanes(want), "{schedule:?}");
    }
}

#[test]
fn lanes_may_wait_for_different_barriers() {
    let body = "mov.u32 %r0, smem;
        setp.lt.u32 %p0, %t, 4;
        mad.lo.u32 %r1, %t, 8, %r0;
        @%p0 mbarrier.init.shared::cta.b64 [%r1], 1;
        bar.warp.sync -1;
        @%p0 mbarrier.arrive.shared::cta.b64 %rd0, [%r1];
        bar.warp.sync -1;
        and.b32 %r2, %t, 3;
        mad.lo.u32 %r1, %r2, 8, %r0;
    WAIT:
        mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], 0;
        @!%p1 bra WAIT;
        st.global.u32 [%at], %r2;";
    for schedule in schedules() {
        assert_eq!(rig(body).schedule(schedule).out(), lanes(|i| i & 3));
    }
}

#[test]
fn misuse_is_a_fault() {
    let init = "mbarrier.init.shared::cta.b64 [%r0], 1;\n";
    for (body, culprit, what) in [
        ("mbarrier.arrive.shared::cta.b64 _, [%r0];", "arrive", "not initialised"),
        ("mbarrier.test_wait.parity.shared::cta.b64 %p0, [%r0], 0;", "test_wait", "not initialised"),
        ("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r0], 8;", "expect_tx", "not initialised"),
        ("mbarrier.inval.shared::cta.b64 [%r0];", "inval", "not initialised"),
        (
            "mbarrier.init.shared::cta.b64 [%r0], 1;\n mbarrier.init.shared.b64 [%r0], 2;",
            "shared.b64 [%r0], 2",
            "live",
        ),
        ("mov.u32 %r1, 0;\n mbarrier.init.shared::cta.b64 [%r0], %r1;", "init", "count 0"),
        ("mov.u32 %r1, 1048576;\n mbarrier.init.shared::cta.b64 [%r0], %r1;", "init", "count 1048576"),
        ("INIT mbarrier.arrive.shared::cta.b64 _, [%r0], 2;", "arrive", "expects only 1 more"),
        (
            "INIT mbarrier.inval.shared::cta.b64 [%r0];\n mbarrier.arrive.shared::cta.b64 _, [%r0];",
            "arrive",
            "not initialised",
        ),
        (
            "INIT mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r0], 1048575;\n mbarrier.complete_tx.relaxed.cta.shared.b64 [%r0], 1;",
            "shared.b64 [%r0], 1",
            "tx-count",
        ),
    ] {
        let wrong = alone(&body.replace("INIT ", init)).fault(culprit);
        assert!(matches!(wrong.kind, FaultKind::Barrier(ref text) if text.contains(what)), "{body}: {wrong}");
    }
    let wrong = alone("mbarrier.init.shared::cta.b64 [%r0+4], 1;").fault("mbarrier.init");
    assert!(matches!(wrong.kind, FaultKind::Misaligned { align: 8, .. }), "{wrong}");
    let wrong = alone("mov.u32 %r1, 0;\n mbarrier.init.shared::cta.b64 [%r1], 1;").fault("mbarrier.init");
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "shared", .. }), "{wrong}");
    // Invalidated, the memory may become a barrier again.
    let again = "INIT mbarrier.inval.shared::cta.b64 [%r0];\n mbarrier.init.shared.b64 [%r0], 4;\n st.global.u32 [%out], 1;";
    assert_eq!(alone(&again.replace("INIT ", init)).out()[0], 1);
}

#[test]
fn a_waiter_two_phases_behind_is_told() {
    let wrong = alone(
        "mbarrier.init.shared::cta.b64 [%r0], 1;
        mov.u32 %r1, 0;
    AGAIN:
        mbarrier.test_wait.parity.shared::cta.b64 %p0, [%r0], 0;
        mbarrier.arrive.shared::cta.b64 %rd0, [%r0];
        mbarrier.arrive.shared::cta.b64 %rd0, [%r0], 1;
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, 2;
        @%p1 bra AGAIN;",
    )
    .fault("test_wait");
    assert!(wrong.to_string().contains("parity aliasing"), "{wrong}");
}

#[test]
fn a_wait_that_never_ends_is_a_deadlock_with_its_counts() {
    let wrong = rig("mov.u32 %r0, smem;
        setp.eq.u32 %p0, %t, 0;
        @%p0 mbarrier.init.shared::cta.b64 [%r0], 3;
        bar.warp.sync -1;
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 48;
    WAIT:
        mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r0], 0;
        @!%p1 bra WAIT;")
    .run()
    .unwrap_err();
    let FaultKind::Deadlock(who) = &wrong.kind else { panic!("{wrong}") };
    assert!(who.contains("phase 0, 2 of 3 arrivals and 48 bytes outstanding"), "{who}");
}
