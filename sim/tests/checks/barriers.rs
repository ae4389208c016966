//! Named barriers and mbarriers.

use super::{Case, case};
use narrowgauge_sim::FaultKind;

fn misuse(kind: &FaultKind, part: &str) -> bool {
    matches!(kind, FaultKind::Barrier(what) if what.contains(part))
}

pub fn cases() -> Vec<Case> {
    // Whoever comes first of all finds nothing there.
    let unseen = |kind: &FaultKind| {
        matches!(kind, FaultKind::BarrierUnseen { fence: false, .. }) || misuse(kind, "not initialised")
    };
    let ordinary = |kind: &FaultKind| matches!(kind, FaultKind::OnBarrier { .. });
    let apart = |kind: &FaultKind| matches!(kind, FaultKind::Divergence { .. });
    vec![
        case(
            "mbarrier: used before its initialisation is visible",
            unseen,
            64,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 64;
    {+ bar.sync 0; +}
    mbarrier.arrive.shared::cta.b64 _, [%bar]; //!
",
        ),
        case(
            "mbarrier: never initialised",
            |k| misuse(k, "not initialised"),
            32,
            r"
    {+ @%one mbarrier.init.shared::cta.b64 [%bar], 1; +}
    @%one mbarrier.arrive.shared::cta.b64 _, [%bar]; //!
",
        ),
        case(
            "mbarrier: initialised again without inval",
            |k| misuse(k, "live mbarrier"),
            32,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    {+ @%one mbarrier.inval.shared::cta.b64 [%bar]; +}
    @%one mbarrier.init.shared::cta.b64 [%bar], 2; //!
",
        ),
        case(
            "mbarrier: more arrivals than it expects",
            |k| misuse(k, "expects only"),
            32,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], {- 31 -}{+ 32 +};
    bar.sync 0;
    mbarrier.arrive.shared::cta.b64 _, [%bar], 1; //!
    {- mbarrier.arrive.shared::cta.b64 _, [%bar], 32; //! -}
",
        ),
        // The waiter polls in vain, then looks away while two phases pass.
        case(
            "mbarrier: a waiter two phases behind",
            |k| misuse(k, "parity aliasing"),
            32,
            r"
    @!%one bra OUT;
    mbarrier.init.shared::cta.b64 [%bar], 1;
    mov.u32 %r0, 0;
POLL:
    mbarrier.test_wait.parity.shared::cta.b64 %p1, [%bar], 0; //!
    mbarrier.arrive.shared::cta.b64 _, [%bar];
    {- mbarrier.arrive.shared::cta.b64 _, [%bar]; -}
    add.u32 %r0, %r0, 1;
    setp.lt.u32 %p0, %r0, 2;
    @%p0 bra POLL;
OUT:
",
        ),
        case(
            "mbarrier: an ordinary store to a live one",
            ordinary,
            32,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    @%one st.shared.u32 [%bar+{- 4 -}{+ 8 +}], %z; //!
",
        ),
        case(
            "mbarrier: an ordinary load of a live one",
            ordinary,
            32,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    {+ @%one mbarrier.inval.shared::cta.b64 [%bar]; +}
    @%one ld.shared.u32 %r0, [%bar]; //!
",
        ),
        case(
            "mbarrier: byte counts that never match",
            |k| matches!(k, FaultKind::Deadlock(who) if who.contains("mbarrier") && who.contains("16 bytes")),
            32,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], {- 272 -}{+ 256 +};
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 256, [%bar];
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0; //!
    @!%p1 bra WAIT;
",
        ),
        case(
            "mbarrier: an arrival that never comes",
            |k| matches!(k, FaultKind::Deadlock(who) if who.contains("1 of 64 arrivals")),
            64,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 64;
    bar.sync 0;
    {- @!%one mbarrier.arrive.shared::cta.b64 _, [%bar]; -}{+ mbarrier.arrive.shared::cta.b64 _, [%bar]; +}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0; //!
    @!%p1 bra WAIT;
",
        ),
        case(
            "bar.sync: half of a warp",
            apart,
            64,
            r"
    setp.lt.u32 %p0, %l, 16;
    {- @%p0 -} bar.sync 0; //!
",
        ),
        case(
            "wgmma: half of a warp",
            apart,
            128,
            r"
    setp.lt.u32 %p0, %l, 16;
    {- @%p0 -} wgmma.fence.sync.aligned; //!
",
        ),
        case(
            "bar.sync: two thread counts for one barrier",
            |k| misuse(k, "is open for"),
            64,
            r"
    setp.eq.u32 %p0, %w, 0;
    @%p0 bar.sync 1, 64; //!
    {- @!%p0 bar.sync 1, 96; //! -}{+ @!%p0 bar.sync 1, 64; +}
",
        ),
        case(
            "bar.sync: a thread count that warps cannot make",
            |k| misuse(k, "multiple of 32"),
            64,
            r"
    bar.sync 1, {- 40 -}{+ 64 +}; //!
",
        ),
        case(
            "bar.sync: nobody else comes",
            |k| matches!(k, FaultKind::Deadlock(who) if who.contains("barrier 1 (32 of 64")),
            64,
            r"
    setp.eq.u32 %p0, %w, 0;
    {- @%p0 -} bar.sync 1, 64; //!
",
        ),
        case(
            "bar.arrive: twice by one warp",
            |k| misuse(k, "twice"),
            64,
            r"
    setp.eq.u32 %p0, %w, 0;
    @%p0 bar.arrive 1, 64; //!
    {- @%p0 bar.arrive 1, 64; //! -}
    bar.sync 2, 64;
    @!%p0 bar.sync 1, 64;
",
        ),
        case(
            "shfl.sync: a lane that its mask does not name",
            apart,
            32,
            r"
    shfl.sync.idx.b32 %r0, %t, 0, 31, {- 0xffff -}{+ 0xffffffff +}; //!
",
        ),
        case(
            "cluster barrier: waits without having arrived",
            |k| misuse(k, "without having arrived"),
            32,
            r"
    {+ barrier.cluster.arrive.aligned; +}
    barrier.cluster.wait.aligned; //!
",
        )
        .cluster(2),
        case(
            "cluster: shared memory of a peer that has exited",
            |k| matches!(k, FaultKind::Cluster(what) if what.contains("has exited")),
            32,
            r"
    setp.eq.u32 %p0, %rank, 1;
    {- @%p0 bra OUT; -}
    mov.u32 %r4, 0;
    setp.eq.u32 %p2, %rank, 0;
    @!%p2 bra LAST;
SPIN:
    nanosleep.u32 100;
    add.u32 %r4, %r4, 1;
    setp.lt.u32 %p1, %r4, 200;
    @%p1 bra SPIN;
    mapa.shared::cluster.u32 %r1, %s, 1;
    mad.lo.u32 %r1, %t, 4, %r1;
    st.shared::cluster.u32 [%r1], %t; //!
LAST:
    {+ barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; +}
OUT:
",
        )
        .cluster(2),
    ]
}
