//! wgmma: operands in shared memory and in registers.

use super::{Case, case, proxy, race};
use narrowgauge_sim::FaultKind;

/// A is 64 × 32 bytes at %s, B 8 × 32 bytes behind it, both K-major without a swizzle; %r20 is this thread's 16 bytes.
macro_rules! operands {
    ($($rest:literal),+) => {
        concat!(
            "
    mad.lo.u32 %r20, %t, 16, %s;
    and.b32 %r21, %s, 0x3ffff;
    shr.u32 %r21, %r21, 4;
    cvt.u64.u32 %da, %r21;
    or.b64 %da, %da, 0x1000080000;
    add.u64 %db, %da, 128;
    mov.b32 %r10, 0; mov.b32 %r11, 0; mov.b32 %r12, 0; mov.b32 %r13, 0;
    mov.f32 %f0, 0f00000000; mov.f32 %f1, %f0; mov.f32 %f2, %f0; mov.f32 %f3, %f0;
",
            $($rest),+
        )
    };
}
pub(super) use operands;

pub fn cases() -> Vec<Case> {
    let in_flight = |kind: &FaultKind| matches!(kind, FaultKind::InFlight { .. });
    let unfenced = |kind: &FaultKind| matches!(kind, FaultKind::NoFence { .. });
    let apart =
        |kind: &FaultKind| matches!(kind, FaultKind::Descriptor(what) if what.contains("different wgmma"));
    let left = |kind: &FaultKind| matches!(kind, FaultKind::Exit(_));
    vec![
        case("proxy: st.shared, then wgmma reads it, no fence", proxy, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z}; //!
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z}; //!
    {+ fence.proxy.async.shared::cta; +}
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("wgmma reads what other warps wrote, no barrier", race, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z}; //!
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z}; //!
    fence.proxy.async.shared::cta;
    {+ bar.sync 0; +}
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("an operand is overwritten before wgmma was waited for", race, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    {+ wgmma.wait_group.sync.aligned 0; bar.sync 0; +}
    st.shared.v4.u32 [%r20], {%t, %t, %t, %t}; //!
    wgmma.wait_group.sync.aligned 0;
")),
        // Warp 4 produces, the warpgroup before it consumes: the stage is released a wait too early.
        case("a stage is released to the copy engine before wgmma has read it", race, 160, operands!("
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    @%one mbarrier.init.shared::cta.b64 [%bar+8], 4;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    setp.eq.u32 %p0, %w, 4;
    setp.eq.u32 %p2, %l, 0;
    @!%p0 bra CONSUME;
    @!%p2 bra OUT;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 4096;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 4096, [%bar];
EMPTY:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar+8], 0;
    @!%p1 bra EMPTY;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 4096;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 4096, [%bar]; //!
LAST:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 1;
    @!%p1 bra LAST;
    bra OUT;
CONSUME:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra CONSUME;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    {+ wgmma.wait_group.sync.aligned 0; +}
    @%p2 mbarrier.arrive.shared::cta.b64 _, [%bar+8];
    wgmma.wait_group.sync.aligned 0;
OUT:
")),
        case("wgmma.fence is missing after the accumulators were written", unfenced, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    {+ wgmma.fence.sync.aligned; +}
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("wgmma.fence is missing after A's registers were written", unfenced, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    wgmma.fence.sync.aligned;
    mov.u32 %r11, 1;
    {+ wgmma.fence.sync.aligned; +}
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("an accumulator is read in flight", in_flight, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned {- 1 -}{+ 0 +};
    add.f32 %f4, %f0, %f0; //!
    wgmma.wait_group.sync.aligned 0;
")),
        case("a register of A is written in flight", in_flight, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, %db, %no, 1, 1;
    wgmma.commit_group.sync.aligned;
    {+ wgmma.wait_group.sync.aligned 0; +}
    mov.u32 %r11, 1; //!
    wgmma.wait_group.sync.aligned 0;
")),
        case("the warps of a warpgroup name different operands", apart, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    cvt.u64.u32 %rd0, %w;
    {- add.u64 %db, %db, %rd0; -}
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
")),
        case("exit with a wgmma in flight", left, 128, operands!("
    st.shared.v4.u32 [%r20], {%z, %z, %z, %z};
    st.shared.v4.u32 [%r20+2048], {%z, %z, %z, %z};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0, %f1, %f2, %f3}, %da, %db, %no, 1, 1; //!
    wgmma.commit_group.sync.aligned;
    {+ wgmma.wait_group.sync.aligned 0; +}
")),
    ]
}
