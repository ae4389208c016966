//! wgmma: what its accumulators and its operands must be, and who must come.

use super::matrices::operands;
use super::{Case, case, proxy, race};
use narrowgauge_sim::FaultKind;

/// A stage of zeros for both operands, visible to wgmma.
macro_rules! filled {
    ($rest:literal) => {
        operands!(
            "
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z};
    fence.proxy.async.shared::cta;
    bar.sync 0;
",
            $rest
        )
    };
}

pub fn cases() -> Vec<Case> {
    let in_flight = |kind: &FaultKind| matches!(kind, FaultKind::InFlight { .. });
    let unfenced = |kind: &FaultKind| matches!(kind, FaultKind::NoFence { .. });
    let undefined = |kind: &FaultKind| matches!(kind, FaultKind::Uninitialised { .. });
    let apart = |kind: &FaultKind| matches!(kind, FaultKind::Divergence { .. });
    let illegal = |kind: &FaultKind| matches!(kind, FaultKind::Descriptor(_));
    vec![
        case("an accumulator is written in flight", in_flight, 128, filled!("
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1;
    wgmma.commit_group.sync.aligned;
    {+ wgmma.wait_group.sync.aligned 0; +}
    mov.f32 %f2, 0f00000000; //!
    wgmma.wait_group.sync.aligned 0;
")),
        case("a wait does not cover a wgmma of no group", in_flight, 128, filled!("
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1;
    {+ wgmma.commit_group.sync.aligned; +}
    wgmma.wait_group.sync.aligned 0;
    add.f32 %f4, %f0, %f0; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("the newer of two groups is read after the wait for the older", in_flight, 128, filled!("
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f4, %f5, %f6, %f7}, %da, %db, 0, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 1;
    add.f32 {- %f4, %f4 -}{+ %f0, %f0 +}, 0f00000000; //!
    wgmma.wait_group.sync.aligned 0;
")),
        case("an accumulator in flight becomes A of the next wgmma", in_flight, 128, filled!("
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%r10, %r11, %r12, %r13}, %da, %db, 0, 1, 1;
    wgmma.commit_group.sync.aligned;
    {+ wgmma.wait_group.sync.aligned 0; +}
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("accumulators change their shape without wgmma.fence", unfenced, 128, filled!("
    mov.f32 %f4, %f0; mov.f32 %f5, %f0; mov.f32 %f6, %f0; mov.f32 %f7, %f0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, 1, 1, 1;
    {+ wgmma.fence.sync.aligned; +}
    wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3, %f4, %f5, %f6, %f7}, %da, %da, 1, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("an accumulator lands on A's registers without wgmma.fence", unfenced, 128, filled!("
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, %db, 1, 1, 1;
    {+ wgmma.fence.sync.aligned; +}
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%r13, %r14, %r15, %r16}, %da, %db, 0, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("wgmma.fence is missing after the accumulators were read", unfenced, 128, filled!("
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    {- add.f32 %f4, %f3, %f3; -}
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("accumulators that no wgmma has written are stored", undefined, 128, filled!("
    setp.eq.u32 %p0, %b, {- 1 -}{+ 0 +};
    @!%p0 bra SKIP;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f4, %f5, %f6, %f7}, %da, %db, 0, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
SKIP:
    mad.wide.u32 %rd0, %t, 16, %out;
    st.global.v4.f32 [%rd0], {%f4, %f5, %f6, %f7}; //!
")),
        case("wgmma adds to accumulators that nobody has written", undefined, 128, filled!("
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f4, %f5, %f6, %f7}, %da, %db, {- 1 -}{+ 0 +}, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    mad.wide.u32 %rd0, %t, 16, %out;
    st.global.v4.f32 [%rd0], {%f4, %f5, %f6, %f7}; //!
")),
        case("wgmma multiplies shared memory that nobody has written", undefined, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    {+ st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z}; +}
    fence.proxy.async.shared::cta;
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    mad.wide.u32 %rd0, %t, 16, %out;
    st.global.v4.f32 [%rd0], {%f0, %f1, %f2, %f3}; //!
")),
        case("wgmma multiplies registers that nobody has written", undefined, 128, filled!("
    {+ mov.u32 %r15, 0; +}
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r15}, %db, %no, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    mad.wide.u32 %rd0, %t, 16, %out;
    st.global.v4.f32 [%rd0], {%f0, %f1, %f2, %f3}; //!
")),
        case("wgmma reads a copy that its warps have not waited for", race, 128, operands!("
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 4096;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 4096, [%bar]; //!
    {- setp.lt.u32 %p2, %t, 96; @%p2 bra READ; -}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
READ:
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("proxy: cp.async, then wgmma reads it, no fence", proxy, 128, operands!("
    mad.wide.u32 %rd0, %t, 16, %in;
    cp.async.cg.shared.global [%r20], [%rd0], 16; //!
    cp.async.cg.shared.global [%r20+2048], [%rd0], 16; //!
    cp.async.wait_all;
    {+ fence.proxy.async.shared::cta; +}
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("a warp of the warpgroup does not come", |k| matches!(k, FaultKind::Deadlock(_)), 128, filled!("
    wgmma.fence.sync.aligned;
    setp.lt.u32 %p0, %t, {- 96 -}{+ 128 +};
    @%p0 wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("wgmma by what its lanes' exit has left of a warp", apart, 128, filled!("
    setp.eq.u32 %p0, %t, {- 40 -}{+ 400 +};
    @%p0 ret;
    wgmma.fence.sync.aligned; //!
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("the lanes of a warp hold different descriptors", illegal, 128, filled!("
    {- cvt.u64.u32 %rd0, %l; -}{+ mov.u64 %rd0, 0; +}
    add.u64 %db, %db, %rd0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("a descriptor that reaches past shared memory", illegal, 128, filled!("
    {- or.b64 %db, %db, 0x2000; -}
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("a descriptor that is none", illegal, 128, filled!("
    {- or.b64 %db, %db, 0x0070000000000000; -}
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
    ]
}
