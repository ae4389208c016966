//! Bulk copies, tensor copies and `cp.async`; proxies.

use super::{Case, case, proxy, race};
use narrowgauge_sim::FaultKind;

pub fn cases() -> Vec<Case> {
    let unfenced = |kind: &FaultKind| matches!(kind, FaultKind::BarrierUnseen { fence: true, .. });
    vec![
        case("bulk load: its bytes are read before the barrier was waited for", race, 64, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 256, [%bar]; //!
    {- bra READ; -}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
READ:
    mad.lo.u32 %r0, %t, 4, %s;
    ld.shared.u32 %r1, [%r0]; //!
"),
        case("tensor load: its bytes are read before the barrier was waited for", race, 64, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {%z, %z}], [%bar]; //!
    {- bra READ; -}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
READ:
    mad.lo.u32 %r0, %t, 4, %s;
    ld.shared.u32 %r1, [%r0]; //!
"),
        case("tensor load: into a stage that others still read", race, 64, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {%z, %z}], [%bar];
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
    mad.lo.u32 %r0, %t, 4, %s;
    ld.shared.u32 %r1, [%r0]; //!
    {+ bar.sync 0; +}
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {%z, 8}], [%bar]; //!
AGAIN:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 1;
    @!%p1 bra AGAIN;
"),
        case("two copies into one place", race, 32, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 512;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 256, [%bar]; //!
    {+ add.u32 %s, %s, 256; +}
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in+256], 256, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
"),
        case("bulk store: its source changes before it was read", race, 32, r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 128; //!
    cp.async.bulk.commit_group;
    {+ cp.async.bulk.wait_group.read 0; +}
    st.shared.u32 [%s+64], 9; //!
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("tensor store: its source changes before it was read", race, 32, r"
    mad.lo.u32 %r0, %t, 16, %s;
    st.shared.v4.u32 [%r0], {%t, %t, %t, %t};
    st.shared.v4.u32 [%r0+512], {%t, %t, %t, %t};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%map, {%z, %z}], [%s]; //!
    cp.async.bulk.commit_group;
    {+ cp.async.bulk.wait_group.read 0; +}
    st.shared.u32 [%s+64], 9; //!
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("bulk store: its result is read when only the source is free", race, 32, r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 128; //!
    cp.async.bulk.commit_group;
    {- cp.async.bulk.wait_group.read 0; -}{+ cp.async.bulk.wait_group 0; +}
    ld.global.u32 %r1, [%out+64]; //!
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("bulk store: another thread relies on a wait of its own", race, 64, r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @%one cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 256; //!
    @%one cp.async.bulk.commit_group;
    {+ @%one cp.async.bulk.wait_group.read 0; +}
    {- @!%one cp.async.bulk.wait_group.read 0; -}
    bar.sync 0;
    st.shared.u32 [%r0], 9; //!
    @%one cp.async.bulk.wait_group 0;
"),
        case("a bulk load of global memory that another block writes", race, 32, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    @!%one bra OUT;
    setp.ne.u32 %p0, %b, 0;
    @%p0 st.global.u32 [%out+{- 64 -}{+ 512 +}], 3; //!
    @%p0 bra OUT;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%out], 256, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
OUT:
").blocks(2),
        case("proxy: st.shared, then a bulk store, no fence", proxy, 64, r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    {+ fence.proxy.async.shared::cta; +}
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 256; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("proxy: stmatrix, then a tensor store, no fence", proxy, 64, r"
    mad.lo.u32 %r0, %t, 16, %s;
    stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r0], {%t, %t, %t, %t}; //!
    {+ fence.proxy.async; +}
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%map, {%z, %z}], [%s]; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("proxy: the fence comes before the write", proxy, 64, r"
    mad.lo.u32 %r0, %t, 4, %s;
    {- fence.proxy.async.shared::cta; -}
    st.shared.u32 [%r0], %t; //!
    {+ fence.proxy.async.shared::cta; +}
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 256; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("proxy: a fence for the other space", proxy, 64, r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    {- fence.proxy.async.global; -}{+ fence.proxy.async.shared::cta; +}
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 256; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("proxy: an ordinary fence instead", proxy, 64, r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    {- fence.acq_rel.gpu; bar.sync 0; -}
    {+ bar.sync 0; fence.proxy.async.shared::cta; +}
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 256; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("proxy: st.global, then a bulk load of it, no fence", proxy, 64, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    mad.wide.u32 %rd0, %t, 4, %out;
    st.global.u32 [%rd0], %t; //!
    {+ fence.proxy.async.global; +}
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%out], 256, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
"),
        case("proxy: a copy over what st.shared wrote, no fence", proxy, 64, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    {+ fence.proxy.async.shared::cta; +}
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 256, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
"),
        case(
            "proxy: a tensor map that the kernel wrote, no fence.proxy.tensormap",
            proxy,
            32,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    mul.wide.u32 %rd0, %t, 4;
    add.u64 %rd1, %map, %rd0;
    ld.u32 %r0, [%rd1];
    add.u64 %rd1, %out, %rd0;
    st.global.u32 [%rd1], %r0; //!
    bar.sync 0;
    {+ fence.proxy.tensormap::generic.acquire.gpu [%out], 128; +}
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%out, {%z, %z}], [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
",
        ),
        case("an mbarrier's initialisation, not fenced before a copy counts on it", unfenced, 32, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    {+ fence.mbarrier_init.release.cluster; +}
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 256, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
"),
        case("cp.async: bytes are read before their wait", race, 32, r"
    mad.lo.u32 %r0, %t, 16, %s;
    mad.wide.u32 %rd0, %t, 16, %in;
    cp.async.cg.shared.global [%r0], [%rd0], 16; //!
    cp.async.commit_group;
    cp.async.wait_group {- 1 -}{+ 0 +};
    ld.shared.u32 %r1, [%r0]; //!
    cp.async.wait_all;
"),
        case("cp.async: a neighbour's bytes are read after the own wait", race, 64, r"
    mad.lo.u32 %r0, %t, 16, %s;
    mad.wide.u32 %rd0, %t, 16, %in;
    cp.async.cg.shared.global [%r0], [%rd0], 16; //!
    cp.async.wait_all;
    {+ bar.sync 0; +}
    xor.b32 %r2, %t, 32;
    mad.lo.u32 %r2, %r2, 16, %s;
    ld.shared.u32 %r1, [%r2]; //!
"),
        case("cp.async: counted by an mbarrier that nobody waits for", race, 64, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 64;
    bar.sync 0;
    mad.lo.u32 %r0, %t, 16, %s;
    mad.wide.u32 %rd0, %t, 16, %in;
    cp.async.cg.shared.global [%r0], [%rd0], 16; //!
    cp.async.mbarrier.arrive.noinc.shared.b64 [%bar];
    {- bra READ; -}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
READ:
    xor.b32 %r2, %t, 32;
    mad.lo.u32 %r2, %r2, 16, %s;
    ld.shared.u32 %r1, [%r2]; //!
"),
        case("proxy: cp.async, then a bulk store, no fence", proxy, 32, r"
    mad.lo.u32 %r0, %t, 16, %s;
    mad.wide.u32 %rd0, %t, 16, %in;
    cp.async.cg.shared.global [%r0], [%rd0], 16; //!
    cp.async.wait_all;
    {+ fence.proxy.async.shared::cta; +}
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 512; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
OUT:
"),
        case("multicast: a peer reads before it has waited", race, 32, r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 128;
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    mov.u16 %h0, 3;
    setp.eq.u32 %p0, %rank, 0;
    and.pred %p0, %p0, %one;
    @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%s], [%in], 128, [%bar], %h0; //!
    setp.ne.u32 %p2, %rank, 0;
    {- barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; @%p2 bra READ; -}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
READ:
    mad.lo.u32 %r0, %t, 4, %s;
    ld.shared.u32 %r1, [%r0]; //!
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
").cluster(2),
    ]
}
