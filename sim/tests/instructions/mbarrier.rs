//! Barriers in shared memory.

use crate::{fault, run};
use narrowgauge_sim::{FaultKind, Policy, Schedule};

#[test]
fn mbarriers_wait_for_bytes_and_arrivals() {
    let body = "mov.u32 %r0, smem; setp.eq.u32 %p0, %t, 0;
        @%p0 mbarrier.init.shared::cta.b64 [%r0], 1; fence.mbarrier_init.release.cluster; bar.sync 0;
        mov.u32 %r2, 64; add.u32 %r1, %r0, 128;
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], %r2;
        @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], %r2, [%r0];
        { .reg .pred P1; WAIT: mbarrier.try_wait.parity.shared::cta.b64 P1, [%r0], 0; @!P1 bra WAIT; }
        ld.shared.u32 %r3, [%r1+24]; st.global.u32 [%out], %r3;";
    // Lane 0's source begins at row 0, 16-byte aligned; word 24 is row 1's first.
    for policy in [Policy::Eager, Policy::Random, Policy::Late] {
        let (out, report) = run(body, &[[11, 0, 0], [22, 0, 0]], 64, Schedule::with(policy, 3)).unwrap();
        assert!(out.iter().all(|&v| v == 22), "{out:?}");
        assert_eq!(report.counters.bulk_load_bytes, 64);
    }
    let never = body
        .replace("@%p0 cp.async", "@!%p0 bra SKIP; bra SKIP; @%p0 cp.async")
        .replace("{ .reg", "SKIP: { .reg");
    let wrong = fault(&never, 32);
    assert!(matches!(wrong.kind, FaultKind::Deadlock(ref who) if who.contains("mbarrier")), "{wrong}");
}
