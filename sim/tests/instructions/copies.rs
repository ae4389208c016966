//! cp.async: sizes, zero fill, groups, and arrivals at mbarriers.

use crate::rig::{Rig, lanes, rig, schedules};
use narrowgauge_sim::{FaultKind, Policy, Schedule};

fn late() -> Schedule {
    Schedule::with(Policy::Late, 0)
}

/// Every thread copies `bytes` of its own 16 and all of its 16 go out; `extra` are the operands behind the size.
fn one(form: &str, bytes: u32, extra: &str) -> Rig {
    rig(&format!(
        "mov.u32 %r0, smem;
        mad.lo.u32 %r1, %t, 16, %r0;
        mov.u32 %r2, 0x55555555;
        st.shared.v4.u32 [%r1], {{%r2, %r2, %r2, %r2}};
        mad.wide.u32 %rd0, %t, 16, %b0;
        and.b32 %r3, %t, 1;
        setp.eq.u32 %p0, %r3, 1;
        rem.u32 %r4, %t, {};
        cp.async.{form} [%r1], [%rd0], {bytes}{extra};
        cp.async.commit_group;
        cp.async.wait_group 0;
        ld.shared.v4.u32 {{%r5, %r6, %r7, %r8}}, [%r1];
        mad.wide.u32 %rd1, %t, 16, %out;
        st.global.v4.u32 [%rd1], {{%r5, %r6, %r7, %r8}};",
        bytes + 1
    ))
    .words(128)
    .buffer((0..512).map(|i| (i % 251) as u8 | 1).collect::<Vec<_>>())
}

/// What thread t's 16 bytes are when `size` were read and the rest of `bytes` is zero.
fn want(bytes: u32, size: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..128)
        .map(|word| {
            let t = word / 4;
            let at = |i: u32| match word % 4 * 4 + i {
                b if b >= bytes => 0x55,
                b if b >= size(t) => 0,
                b => ((16 * t + b) % 251) as u8 | 1,
            };
            u32::from_le_bytes([at(0), at(1), at(2), at(3)])
        })
        .collect()
}

#[test]
fn sizes_and_zero_fill() {
    for (form, bytes) in [
        ("ca.shared.global", 4),
        ("ca.shared::cta.global", 8),
        ("ca.shared.global.L2::128B", 16),
        ("cg.shared.global", 16),
        ("cg.shared::cta.global.L2::256B", 16),
    ] {
        for schedule in schedules() {
            let what = format!("{form} {bytes} under {schedule:?}");
            assert_eq!(one(form, bytes, "").schedule(schedule).out(), want(bytes, |_| bytes), "{what}");
            let partly = one(form, bytes, ", %r4").schedule(schedule).out();
            assert_eq!(partly, want(bytes, |t| t % (bytes + 1)), "{what}");
            assert_eq!(one(form, bytes, ", 0").schedule(schedule).out(), want(bytes, |_| 0), "{what}");
            let ignored = one(form, bytes, ", %p0").schedule(schedule).out();
            assert_eq!(ignored, want(bytes, |t| if t % 2 == 1 { 0 } else { bytes }), "{what}");
        }
    }
    let hinted = one("cg.shared.global.L2::cache_hint", 16, ", %rd5")
        .edit("cp.async.cg", "createpolicy.fractional.L2::evict_first.b64 %rd5, 1.0;\n cp.async.cg");
    assert_eq!(hinted.out(), want(16, |_| 16));
    let hinted = hinted.edit("16, %rd5;", "16, %r4, %rd5;");
    assert_eq!(hinted.out(), want(16, |t| t % 17));
}

#[test]
fn nothing_is_read_where_nothing_is_asked_for() {
    // An address far outside is fine where the source has no bytes.
    let away = |extra: &str| {
        one("ca.shared.global", 4, extra).edit("%t, 16, %b0;", "%t, 16, %b0;\n add.u64 %rd0, %rd0, 4096;")
    };
    assert_eq!(away(", 0").out(), want(4, |_| 0));
    let wrong = away("").fault("cp.async.ca");
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "global", bytes: 4, .. }), "{wrong}");
}

#[test]
fn bytes_may_not_be_used_before_their_wait() {
    for form in ["cp.async.wait_group 0;", "cp.async.wait_all;"] {
        let rig = one("cg.shared.global", 16, "").edit("cp.async.wait_group 0;", form);
        assert_eq!(rig.schedule(late()).out(), want(16, |_| 16));
    }
    let hasty = one("cg.shared.global", 16, "").edit("cp.async.wait_group 0;", "cp.async.wait_group 1;");
    let wrong = hasty.schedule(late()).racing().fault("st.global");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
    // Not committed, not covered by a group; wait_all covers it all the same.
    let open = one("cg.shared.global", 16, "").edit("cp.async.commit_group;", "");
    assert!(open.schedule(late()).run().is_err());
    assert!(open.edit("cp.async.wait_group 0;", "cp.async.wait_all;").schedule(late()).run().is_ok());
}

#[test]
fn groups_complete_from_the_oldest() {
    let body = |pending: u32, read: u32| {
        rig(&format!(
            "mov.u32 %r0, smem;
            mad.lo.u32 %r1, %t, 4, %r0;
            mad.wide.u32 %rd0, %t, 4, %b0;
            cp.async.ca.shared.global [%r1], [%rd0], 4;
            cp.async.commit_group;
            cp.async.ca.shared.global [%r1+128], [%rd0+128], 4;
            cp.async.commit_group;
            cp.async.ca.shared.global [%r1+256], [%rd0+256], 4;
            cp.async.commit_group;
            cp.async.wait_group {pending};
            bar.warp.sync -1;
            ld.shared.u32 %r2, [%r1+{}];
            st.global.u32 [%at], %r2;",
            128 * read
        ))
        .numbers(0..96)
        .schedule(late())
    };
    for pending in 0..4 {
        for read in 0..3 {
            let complete = read + pending < 3;
            match body(pending, read).run() {
                Ok(ran) => assert!(complete && ran.out == lanes(|i| 32 * read + i), "{pending} {read}"),
                Err(wrong) => assert!(!complete, "{wrong}"),
            }
        }
    }
}

#[test]
fn waits_are_for_the_own_copies_only() {
    // Lane 0 waits, lane 1's copy may still be on its way.
    let wrong = rig("mov.u32 %r0, smem;
        mad.lo.u32 %r1, %t, 4, %r0;
        mad.wide.u32 %rd0, %t, 4, %b0;
        cp.async.ca.shared.global [%r1], [%rd0], 4;
        setp.eq.u32 %p0, %t, 0;
        @%p0 cp.async.wait_all;
        bar.warp.sync -1;
        @%p0 ld.shared.u32 %r2, [%r1];
        @%p0 st.global.u32 [%at], %r2;
        @%p0 ld.shared.u32 %r3, [%r1+4];
        @%p0 st.global.u32 [%at+4], %r3;")
    .numbers(0..32)
    .schedule(late())
    .racing()
    .fault("[%at+4]");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
}

#[test]
fn an_mbarrier_learns_of_completion() {
    // Sixty-four threads copy; with .noinc the barrier counts them, without it they count for themselves.
    for (count, arrive, plain) in [
        (64, "cp.async.mbarrier.arrive.noinc.shared.b64 [%r0];", ""),
        (
            64,
            "cp.async.mbarrier.arrive.shared::cta.b64 [%r0];",
            "mbarrier.arrive.shared::cta.b64 %rd3, [%r0];",
        ),
        (
            128,
            "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r0];",
            "mbarrier.arrive.shared::cta.b64 %rd3, [%r0];",
        ),
    ] {
        let body = format!(
            "mov.u32 %r0, smem;
            setp.eq.u32 %p0, %t, 0;
            @%p0 mbarrier.init.shared::cta.b64 [%r0], {count};
            bar.sync 0;
            mad.lo.u32 %r1, %t, 4, %r0;
            mad.wide.u32 %rd0, %t, 4, %b0;
            cp.async.ca.shared.global [%r1+64], [%rd0], 4;
            cp.async.ca.shared.global [%r1+1088], [%rd0+256], 4;
            {arrive}
            {plain}
        WAIT:
            mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r0], 0;
            @!%p1 bra WAIT;
            xor.b32 %r2, %t, 33;
            mad.lo.u32 %r1, %r2, 4, %r0;
            ld.shared.u32 %r3, [%r1+64];
            ld.shared.u32 %r4, [%r1+1088];
            sub.u32 %r3, %r4, %r3;
            mad.lo.u32 %r3, %r3, 1000, %r2;
            st.global.u32 [%at], %r3;"
        );
        for schedule in schedules() {
            let out = rig(&body).threads(64).numbers(0..128).schedule(schedule).out();
            assert_eq!(
                out,
                (0..64u32).map(|t| 64_000 + (t ^ 33)).collect::<Vec<_>>(),
                "{arrive} under {schedule:?}"
            );
        }
    }
    let wrong = rig("cp.async.mbarrier.arrive.shared.b64 [smem];").fault("cp.async.mbarrier");
    assert!(wrong.to_string().contains("not initialised"), "{wrong}");
}

#[test]
fn wrong_copies_are_faults() {
    let wrong = one("cg.shared.global", 16, "").edit("[%r1], [%rd0]", "[%r1+8], [%rd0]").fault("cp.async.cg");
    assert!(matches!(wrong.kind, FaultKind::Misaligned { align: 16, .. }), "{wrong}");
    let wrong = one("ca.shared.global", 8, "").edit("[%r1], [%rd0]", "[%r1], [%rd0+4]").fault("cp.async.ca");
    assert!(matches!(wrong.kind, FaultKind::Misaligned { align: 8, .. }), "{wrong}");
    let wrong =
        one("ca.shared.global", 4, "").edit("[%r1], [%rd0]", "[%r1+32768], [%rd0]").fault("cp.async.ca");
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "shared", .. }), "{wrong}");
    let wrong = one("ca.shared.global", 4, ", %r2").fault("cp.async.ca");
    assert!(wrong.to_string().contains("a copy of 4 bytes"), "{wrong}");
    for illegal in
        ["cp.async.cg.shared.global [%r1], [%b0], 8;", "cp.async.ca.shared.global [%r1], [%b0], 12;"]
    {
        let error = rig(illegal).numbers([0]).illegal().load().unwrap_err();
        assert!(error.what.contains("cp.async"), "{error}");
    }
}
