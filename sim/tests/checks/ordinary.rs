//! Ordinary and atomic accesses to shared and global memory.

use super::{Case, case, race};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "shared: a read of what another warp wrote, no barrier",
            race,
            64,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    {+ bar.sync 0; +}
    xor.b32 %r1, %t, 32;
    mad.lo.u32 %r1, %r1, 4, %s;
    ld.shared.u32 %r2, [%r1]; //!
",
        ),
        case(
            "shared: a write over what another warp still reads",
            race,
            64,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    bar.sync 0;
    xor.b32 %r1, %t, 32;
    mad.lo.u32 %r1, %r1, 4, %s;
    ld.shared.u32 %r2, [%r1]; //!
    {+ bar.sync 0; +}
    st.shared.u32 [%r0], %r2; //!
",
        ),
        case(
            "shared: two warps write one word",
            race,
            64,
            r"
    {+ @%one +} st.shared.u32 [%s], %w; //!
",
        ),
        case(
            "shared: single bytes of one word by two warps",
            race,
            64,
            r"
    setp.eq.u32 %p0, %l, 0;
    {+ add.u32 %s, %s, %w; +}
    @%p0 st.shared.u8 [%s+5], %w; //!
",
        ),
        case(
            "lanes: shuffles do not order memory, bar.warp.sync does",
            race,
            32,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    {- shfl.sync.idx.b32 %r3, %t, 0, 31, -1; vote.sync.all.pred %p0, %one, -1; -}
    {+ bar.warp.sync -1; +}
    xor.b32 %r1, %t, 1;
    mad.lo.u32 %r1, %r1, 4, %s;
    ld.shared.u32 %r2, [%r1]; //!
",
        ),
        case(
            "lanes: a write over what a neighbour has read",
            race,
            32,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    bar.warp.sync -1;
    xor.b32 %r1, %t, 1;
    mad.lo.u32 %r1, %r1, 4, %s;
    ld.shared.u32 %r2, [%r1]; //!
    {+ bar.warp.sync -1; +}
    st.shared.u32 [%r0], %r2; //!
",
        ),
        case(
            "lanes: one store, one address, different values",
            race,
            32,
            r"
    st.shared.u32 [%s], {- %t -}{+ %w +}; //!
",
        ),
        case(
            "lanes: a partial bar.warp.sync orders its members only",
            race,
            32,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    setp.lt.u32 %p0, %t, 8;
    @!%p0 bra OUT;
    bar.warp.sync 0xff;
    xor.b32 %r1, %t, {- 8 -}{+ 4 +};
    mad.lo.u32 %r1, %r1, 4, %s;
    ld.shared.u32 %r2, [%r1]; //!
OUT:
",
        ),
        case(
            "lanes: a leader arrives for a warp that has not synchronised",
            race,
            64,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    bar.sync 0;
    setp.eq.u32 %p0, %w, 0;
    @!%p0 bra READER;
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    {+ bar.warp.sync -1; +}
    @%one mbarrier.arrive.shared::cta.b64 _, [%bar];
    bra OUT;
READER:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra READER;
    mad.lo.u32 %r1, %l, 4, %s;
    ld.shared.u32 %r2, [%r1]; //!
OUT:
",
        ),
        case(
            "lanes: a leader waits for a warp that does not synchronise",
            race,
            64,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    bar.sync 0;
    setp.eq.u32 %p0, %w, 0;
    @!%p0 bra READER;
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    bar.warp.sync -1;
    @%one mbarrier.arrive.shared::cta.b64 _, [%bar];
    bra OUT;
READER:
    setp.ne.u32 %p2, %l, 0;
    @%p2 bra JOIN;
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
JOIN:
    {+ bar.warp.sync -1; +}
    mad.lo.u32 %r1, %l, 4, %s;
    ld.shared.u32 %r2, [%r1]; //!
OUT:
",
        ),
        case(
            "ldmatrix of rows that lanes have just written",
            race,
            32,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    {+ bar.warp.sync -1; +}
    and.b32 %r1, %t, 7;
    mad.lo.u32 %r1, %r1, 16, %s;
    ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r2}, [%r1]; //!
",
        ),
        case(
            "a load of what stmatrix has just written",
            race,
            32,
            r"
    and.b32 %r1, %t, 7;
    mad.lo.u32 %r1, %r1, 16, %s;
    stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r1], {%t}; //!
    {+ bar.warp.sync -1; +}
    mad.lo.u32 %r0, %t, 4, %s;
    ld.shared.u32 %r2, [%r0]; //!
",
        ),
        case(
            "shared: an ordinary read among atomics",
            race,
            64,
            r"
    @%one st.shared.u32 [%s], %z;
    bar.sync 0;
    atom.shared.add.u32 %r0, [%s], 1; //!
    {+ bar.sync 0; +}
    ld.shared.u32 %r1, [%s]; //!
",
        ),
        case(
            "shared: a barrier of half of the warps",
            race,
            128,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    setp.lt.u32 %p0, %t, 64;
    {- @%p0 bar.sync 1, 64; -}{+ bar.sync 1, 128; +}
    @!%p0 bra OUT;
    mad.lo.u32 %r1, %t, 4, %s;
    ld.shared.u32 %r2, [%r1+256]; //!
OUT:
",
        ),
        case(
            "shared: bar.arrive does not wait",
            race,
            64,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t; //!
    setp.eq.u32 %p0, %w, 0;
    @%p0 bra FIRST;
    bar.sync 1, 64;
    bra OUT;
FIRST:
    {- bar.arrive 1, 64; -}{+ bar.sync 1, 64; +}
    ld.shared.u32 %r2, [%r0+128]; //!
OUT:
",
        ),
        case(
            "global: a read of what another warp wrote, no barrier",
            race,
            64,
            r"
    mad.wide.u32 %rd0, %t, 4, %out;
    st.global.u32 [%rd0], %t; //!
    {+ bar.sync 0; +}
    xor.b32 %r1, %t, 32;
    mad.wide.u32 %rd1, %r1, 4, %out;
    ld.global.u32 %r2, [%rd1]; //!
",
        ),
        case(
            "global: a read of what another block writes",
            race,
            32,
            r"
    mad.wide.u32 %rd0, %b, 4, %out;
    @%one st.global.u32 [%rd0], %b; //!
    {- xor.b32 %r1, %b, 1; -}{+ mov.u32 %r1, %b; +}
    mad.wide.u32 %rd1, %r1, 4, %out;
    @%one ld.global.u32 %r2, [%rd1]; //!
",
        )
        .blocks(2),
        case(
            "global: blocks write one word",
            race,
            32,
            r"
    {+ mad.wide.u32 %out, %b, 4, %out; +}
    @%one st.global.u32 [%out], %b; //!
",
        )
        .blocks(3),
        case(
            "blocks: a flag without release",
            race,
            32,
            r"
    @!%one bra OUT;
    setp.ne.u32 %p0, %b, 0;
    @%p0 bra READER;
    st.global.u32 [%out+64], 7; //!
    {- st.relaxed.gpu.global.u32 [%out], 1; -}{+ st.release.gpu.global.u32 [%out], 1; +}
    bra OUT;
READER:
    ld.acquire.gpu.global.u32 %r0, [%out];
    setp.eq.u32 %p1, %r0, 0;
    @%p1 bra READER;
    ld.global.u32 %r1, [%out+64]; //!
OUT:
",
        )
        .blocks(2),
        case(
            "blocks: a flag without acquire",
            race,
            32,
            r"
    @!%one bra OUT;
    setp.ne.u32 %p0, %b, 0;
    @%p0 bra READER;
    st.global.u32 [%out+64], 7; //!
    st.release.gpu.global.u32 [%out], 1;
    bra OUT;
READER:
    {- ld.relaxed.gpu.global.u32 %r0, [%out]; -}{+ ld.acquire.gpu.global.u32 %r0, [%out]; +}
    setp.eq.u32 %p1, %r0, 0;
    @%p1 bra READER;
    ld.global.u32 %r1, [%out+64]; //!
OUT:
",
        )
        .blocks(2),
        case(
            "blocks: a flag whose scope is too narrow",
            race,
            32,
            r"
    @!%one bra OUT;
    setp.ne.u32 %p0, %b, 0;
    @%p0 bra READER;
    st.global.u32 [%out+64], 7; //!
    {- st.release.cta.global.u32 [%out], 1; //! -}
    {+ st.release.gpu.global.u32 [%out], 1; +}
    bra OUT;
READER:
    ld.acquire.gpu.global.u32 %r0, [%out]; //!
    setp.eq.u32 %p1, %r0, 0;
    @%p1 bra READER;
    ld.global.u32 %r1, [%out+64]; //!
OUT:
",
        )
        .blocks(2),
        case(
            "blocks: a relaxed flag without the fences",
            race,
            32,
            r"
    @!%one bra OUT;
    setp.ne.u32 %p0, %b, 0;
    @%p0 bra READER;
    st.global.u32 [%out+64], 7; //!
    {+ fence.acq_rel.gpu; +}
    st.relaxed.gpu.global.u32 [%out], 1;
    bra OUT;
READER:
    ld.relaxed.gpu.global.u32 %r0, [%out];
    setp.eq.u32 %p1, %r0, 0;
    @%p1 bra READER;
    {+ fence.acq_rel.gpu; +}
    ld.global.u32 %r1, [%out+64]; //!
OUT:
",
        )
        .blocks(2),
        case(
            "blocks: an ordinary load that polls a flag",
            race,
            32,
            r"
    @!%one bra OUT;
    setp.ne.u32 %p0, %b, 0;
    @%p0 bra READER;
    st.relaxed.gpu.global.u32 [%out], 1; //!
    bra OUT;
READER:
    {- ld.global.u32 %r0, [%out]; //! -}
    {+ ld.volatile.global.u32 %r0, [%out]; +}
    setp.eq.u32 %p1, %r0, 0;
    @%p1 bra READER;
OUT:
",
        )
        .blocks(2),
        case(
            "blocks: the last one adds up what all stored, without a fence",
            race,
            64,
            r"
    mad.lo.u32 %r0, %b, 64, %t;
    mad.wide.u32 %rd0, %r0, 4, %out;
    st.global.u32 [%rd0+4096], %t; //!
    {+ membar.gl; +}
    bar.sync 0;
    @%one atom.global.add.u32 %r1, [%out], 1;
    @%one st.shared.u32 [%s], %r1;
    {+ membar.gl; +}
    bar.sync 0;
    ld.shared.u32 %r1, [%s];
    setp.ne.u32 %p0, %r1, 3;
    @%p0 bra OUT;
    mad.wide.u32 %rd1, %t, 4, %out;
    ld.global.u32 %r2, [%rd1+4096]; //!
    ld.global.u32 %r3, [%rd1+4352]; //!
OUT:
",
        )
        .blocks(4),
        case(
            "cluster: a peer's shared memory, no cluster barrier",
            race,
            32,
            r"
    xor.b32 %r0, %rank, 1;
    mapa.shared::cluster.u32 %r1, %s, %r0;
    mad.lo.u32 %r1, %t, 4, %r1;
    st.shared::cluster.u32 [%r1], %t; //!
    {- bar.sync 0; -}{+ barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; +}
    mad.lo.u32 %r2, %t, 4, %s;
    ld.shared.u32 %r3, [%r2]; //!
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
",
        )
        .cluster(2),
        case(
            "cluster: a relaxed arrival releases nothing",
            race,
            32,
            r"
    xor.b32 %r0, %rank, 1;
    mapa.shared::cluster.u32 %r1, %s, %r0;
    mad.lo.u32 %r1, %t, 4, %r1;
    st.shared::cluster.u32 [%r1], %t; //!
    {- barrier.cluster.arrive.relaxed.aligned; -}{+ barrier.cluster.arrive.aligned; +}
    barrier.cluster.wait.aligned;
    mad.lo.u32 %r2, %t, 4, %s;
    ld.shared.u32 %r3, [%r2]; //!
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
",
        )
        .cluster(2),
    ]
}
