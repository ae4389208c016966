//! Operands that an instruction refuses: sizes, addresses, maps, counts, masks.

use super::{Case, case};
use narrowgauge_sim::FaultKind;

fn misuse(kind: &FaultKind, part: &str) -> bool {
    matches!(kind, FaultKind::Barrier(what) if what.contains(part))
}

/// An mbarrier that one thread has initialised for everybody, copies included.
macro_rules! barrier {
    ($rest:literal) => {
        concat!(
            "
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
",
            $rest
        )
    };
}

pub fn cases() -> Vec<Case> {
    let bent = |kind: &FaultKind| matches!(kind, FaultKind::Misaligned { .. });
    let outside = |kind: &FaultKind| matches!(kind, FaultKind::OutOfBounds { .. });
    let illegal = |kind: &FaultKind| matches!(kind, FaultKind::Descriptor(_));
    let cluster = |kind: &FaultKind| matches!(kind, FaultKind::Cluster(_));
    let undefined = |kind: &FaultKind| matches!(kind, FaultKind::Uninitialised { .. });
    let apart = |kind: &FaultKind| matches!(kind, FaultKind::Divergence { .. });
    vec![
        case("bulk copy: a size that is no multiple of 16", bent, 32, barrier!("
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], {- 248 -}{+ 256 +};
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], {- 248 -}{+ 256 +}, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
")),
        case("bulk copy: a destination between two 16 bytes", bent, 32, barrier!("
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s+{- 8 -}{+ 16 +}], [%in], 256, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
")),
        case("bulk copy: past the end of an allocation", outside, 32, barrier!("
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in+{- 65296 -}{+ 65280 +}], 256, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
")),
        case("bulk store: a source past the end of shared memory", outside, 32, r"
    {- add.u32 %s, %s, 16384; -}
    mad.lo.u32 %r0, %t, 4, smem;
    st.shared.u32 [%r0], %t;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 128; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("tensor copy: a destination between two of the swizzle's patterns", illegal, 32, barrier!("
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s+{- 128 -}{+ 1024 +}], [%map, {%z, %z}], [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
")),
        case("tensor copy: a map between two 64 bytes", bent, 32, barrier!("
    {- add.u64 %map, %map, 32; -}
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {%z, %z}], [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
")),
        case("tensor copy: a map that is none", illegal, 32, barrier!("
    {- mov.u64 %map, %in; -}
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {%z, %z}], [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
")),
        case("tensor copy: coordinates of another rank", illegal, 32, barrier!("
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    {- @%one cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {%z, %z, %z}], [%bar]; //! -}
    {+ @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {%z, %z}], [%bar]; +}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
")),
        case("tensor store: a negative coordinate", illegal, 32, r"
    mad.lo.u32 %r0, %t, 16, %s;
    st.shared.v4.u32 [%r0], {%t, %t, %t, %t};
    st.shared.v4.u32 [%r0+512], {%t, %t, %t, %t};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%one bra OUT;
    mov.u32 %r1, {- -8 -}{+ 508 +};
    cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%map, {%z, %r1}], [%s]; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("a copy into one block that another block's mbarrier counts", cluster, 32, barrier!("
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    mapa.shared::cluster.u32 %r1, %bar, {- 1 -}{+ 0 +};
    setp.eq.u32 %p0, %rank, 0;
    and.pred %p0, %p0, %one;
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 128;
    @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 128, [%r1]; //!
    @!%p0 bra OUT;
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
OUT:
    barrier.cluster.arrive; barrier.cluster.wait;
"))
        .cluster(2),
        case("multicast: to a rank that the cluster does not have", cluster, 32, barrier!("
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    mov.u16 %h0, {- 5 -}{+ 1 +};
    setp.eq.u32 %p0, %rank, 0;
    and.pred %p0, %p0, %one;
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 128;
    @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%s], [%in], 128, [%bar], %h0; //!
    @!%p0 bra OUT;
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
OUT:
    barrier.cluster.arrive; barrier.cluster.wait;
"))
        .cluster(2),
        case("mbarrier: a count of zero", |k| misuse(k, "count 0"), 32, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], {- 0 -}{+ 1 +}; //!
"),
        case("mbarrier: an address between two words", bent, 32, r"
    @%one mbarrier.init.shared::cta.b64 [%bar+{- 4 -}{+ 8 +}], 1; //!
"),
        case("mbarrier: used after inval", |k| misuse(k, "not initialised"), 32, r"
    @!%one bra OUT;
    mbarrier.init.shared::cta.b64 [%bar], 1;
    mbarrier.inval.shared::cta.b64 [%bar];
    {+ mbarrier.init.shared::cta.b64 [%bar], 1; +}
    mbarrier.arrive.shared::cta.b64 _, [%bar]; //!
OUT:
"),
        case("mbarrier: more bytes expected than it can count", |k| misuse(k, "tx-count"), 32, barrier!("
    @!%one bra OUT;
    mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%bar], 1048575;
    {- mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%bar], 1; //! -}
OUT:
")),
        case("mbarrier: a state of two phases ago", |k| misuse(k, "state of phase"), 32, barrier!("
    @!%one bra OUT;
    mbarrier.arrive.shared::cta.b64 %rd0, [%bar];
    mbarrier.arrive.shared::cta.b64 %rd1, [%bar];
    mbarrier.arrive.shared::cta.b64 %rd2, [%bar];
    mbarrier.test_wait.shared::cta.b64 %p1, [%bar], {- %rd0 -}{+ %rd2 +}; //!
OUT:
")),
        case("mbarrier: an arrival that was to leave the phase open ends it", |k| misuse(k, "noComplete"), 32, r"
    @!%one bra OUT;
    mbarrier.init.shared::cta.b64 [%bar], {- 1 -}{+ 2 +};
    mbarrier.arrive.noComplete.shared::cta.b64 %rd0, [%bar], 1; //!
OUT:
"),
        case("mbarrier: of a peer that has exited", cluster, 32, barrier!("
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    setp.eq.u32 %p0, %rank, 1;
    {- @%p0 bra OUT; -}
    mov.u32 %r4, 0;
    @%p0 bra LAST;
SPIN:
    nanosleep.u32 100;
    add.u32 %r4, %r4, 1;
    setp.lt.u32 %p1, %r4, 200;
    @%p1 bra SPIN;
    mapa.shared::cluster.u32 %r1, %bar, 1;
    @%one mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r1]; //!
LAST:
    {+ barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; +}
OUT:
"))
        .cluster(2),
        case("mapa: a rank that the cluster does not have", cluster, 32, r"
    mapa.shared::cluster.u32 %r1, %s, {- 2 -}{+ 0 +}; //!
    ld.shared::cluster.u32 %r0, [%r1];
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
")
        .cluster(2),
        case("shfl.sync: the value of a lane that does not take part", undefined, 32, r"
    setp.lt.u32 %p0, %t, 8;
    @!%p0 bra OUT;
    shfl.sync.idx.b32 %r0, %t, {- 9 -}{+ 3 +}, 31, 0xff;
    @%one st.global.u32 [%out], %r0; //!
OUT:
"),
        case("ldmatrix: half of a warp", apart, 32, r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    bar.warp.sync -1;
    setp.lt.u32 %p0, %l, 16;
    {- @%p0 -} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r2}, [%s]; //!
"),
        case("bar.warp.sync: masks that overlap and differ", |k| matches!(k, FaultKind::Deadlock(_)), 32, r"
    setp.lt.u32 %p0, %l, 16;
    @%p0 bra LOW;
    bar.warp.sync {- 0xffff8000 -}{+ 0xffff0000 +}; //!
    bra OUT;
LOW:
    bar.warp.sync {- 0x0001ffff -}{+ 0x0000ffff +}; //!
OUT:
"),
        case("undefined data becomes the size of a copy", undefined, 32, barrier!("
    {+ mov.u32 %r3, 256; +}
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], %r3, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
")),
        case("undefined data becomes an atomic's operand", undefined, 32, r"
    {+ mov.u32 %r3, 5; +}
    @%one atom.global.add.u32 %r0, [%out], %r3; //!
"),
    ]
}
