//! What a launch as a whole may not do: write what it takes for constant, touch what an unfinished launch before it works
//! on, wait for what never comes.

use super::{Case, case, race};
use narrowgauge_sim::FaultKind;

pub fn cases() -> Vec<Case> {
    let constant = |kind: &FaultKind| matches!(kind, FaultKind::Constant { .. });
    let early = |kind: &FaultKind| matches!(kind, FaultKind::Dependency(_));
    let stuck = |kind: &FaultKind| matches!(kind, FaultKind::StepLimit { .. });
    vec![
        case(
            "ld.global.nc of what the same thread has written",
            constant,
            32,
            r"
    mad.wide.u32 %rd0, %t, 4, %out;
    st.global.u32 [%rd0], %t; //!
    {- ld.global.nc.u32 %r0, [%rd0]; //! -}{+ ld.global.u32 %r0, [%rd0]; +}
",
        ),
        case(
            "ld.global.nc of what another warp has written, a barrier between",
            constant,
            64,
            r"
    mad.wide.u32 %rd0, %t, 4, %out;
    st.global.u32 [%rd0], %t; //!
    membar.gl;
    bar.sync 0;
    xor.b32 %r1, %t, 32;
    mad.wide.u32 %rd1, %r1, 4, %out;
    ld.global.nc.u32 %r0, [%rd1+{- 0 -}{+ 1024 +}]; //!
",
        ),
        case(
            "a write over what ld.global.nc has read, a barrier between",
            constant,
            64,
            r"
    mad.wide.u32 %rd0, %t, 4, %out;
    ld.global.nc.u32 %r0, [%rd0]; //!
    ld.global.u32 %r1, [%rd0];
    bar.sync 0;
    xor.b32 %r1, %t, 32;
    mad.wide.u32 %rd1, %r1, 4, %out;
    st.global.u32 [%rd1+{- 0 -}{+ 1024 +}], %r0; //!
",
        ),
        case(
            "ld.global.nc of what atomics have written",
            constant,
            64,
            r"
    atom.global.add.u32 %r0, [%out], 1; //!
    bar.sync 0;
    ld.global.nc.u32 %r1, [%out+{- 0 -}{+ 4 +}]; //!
",
        ),
        case(
            "ld.global.nc of what a bulk store has written",
            constant,
            32,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 128; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
    {- ld.global.nc.u32 %r1, [%out+64]; //! -}{+ ld.global.u32 %r1, [%out+64]; +}
OUT:
",
        ),
        case(
            "ld.global.nc of what another block writes behind a flag",
            constant,
            32,
            r"
    @!%one bra OUT;
    setp.ne.u32 %p0, %b, 0;
    @%p0 bra READER;
    st.global.u32 [%out+64], 7; //!
    st.release.gpu.global.u32 [%out], 1;
    bra OUT;
READER:
    ld.acquire.gpu.global.u32 %r0, [%out];
    setp.eq.u32 %p1, %r0, 0;
    @%p1 bra READER;
    {- ld.global.nc.u32 %r1, [%out+64]; //! -}{+ ld.global.u32 %r1, [%out+64]; +}
OUT:
",
        )
        .blocks(2),
        case(
            "a discarded line that another warp reads",
            race,
            64,
            r"
    setp.eq.u32 %p0, %w, 0;
    {+ @!%p0 bar.sync 0; +}
    {- @%p0 -}{+ @%p0 +} mad.wide.u32 %rd0, %l, 4, %in;
    @%p0 ld.global.u32 %r0, [%rd0]; //!
    {+ @%p0 bar.sync 0; +}
    setp.eq.u32 %p2, %t, 32;
    @%p2 discard.global.L2 [%in], 128; //!
",
        ),
        case(
            "dependents: what the launch before writes is read too early",
            early,
            32,
            r"
    mad.wide.u32 %rd0, %t, 4, %out;
    ld.global.u32 %r0, [%rd0+{- 0 -}{+ 128 +}]; //!
    griddepcontrol.wait;
",
        )
        .after("mad.wide.u32 %rd0, %t, 4, %out; griddepcontrol.launch_dependents; st.global.u32 [%rd0], %t;"),
        case(
            "dependents: what the launch before reads is written too early",
            early,
            32,
            r"
    mad.wide.u32 %rd0, %t, 4, %in;
    {+ griddepcontrol.wait; +}
    st.global.u32 [%rd0], %t; //!
    {- griddepcontrol.wait; -}
",
        )
        .after("mad.wide.u32 %rd0, %t, 4, %in; ld.global.u32 %r0, [%rd0+64];"),
        case(
            "dependents: both launches write",
            early,
            32,
            r"
    {+ griddepcontrol.wait; +}
    @%one st.global.u8 [%out+3], 1; //!
    {- griddepcontrol.wait; -}
",
        )
        .after("@%one st.global.u32 [%out], 1;"),
        case(
            "dependents: a bulk load of what the launch before writes",
            early,
            32,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    @!%one bra OUT;
    {+ griddepcontrol.wait; +}
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%out], 256, [%bar]; //!
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
OUT:
    griddepcontrol.wait;
",
        )
        .after("@%one st.global.u32 [%out+252], 1;"),
        case(
            "dependents: cp.async of what the launch before writes",
            early,
            32,
            r"
    mad.lo.u32 %r0, %t, 16, %s;
    mad.wide.u32 %rd0, %t, 16, %out;
    {+ griddepcontrol.wait; +}
    cp.async.cg.shared.global [%r0], [%rd0], 16; //!
    cp.async.wait_all;
    {- griddepcontrol.wait; -}
",
        )
        .after("@%one st.global.u32 [%out+500], 1;"),
        case(
            "dependents: one thread waits, another does not wait for it",
            early,
            64,
            r"
    @%one griddepcontrol.wait;
    {+ bar.sync 0; +}
    mad.wide.u32 %rd0, %t, 4, %out;
    ld.global.u32 %r0, [%rd0]; //!
",
        )
        .after("mad.wide.u32 %rd0, %t, 4, %out; st.global.u32 [%rd0], %t;"),
        case(
            "dependents: a flag of the launch before is no wait",
            early,
            32,
            r"
    {+ griddepcontrol.wait; +}
READER:
    ld.acquire.gpu.global.u32 %r0, [%out]; //!
    setp.eq.u32 %p1, %r0, 0;
    @%p1 bra READER;
    {- griddepcontrol.wait; -}
",
        )
        .after("@%one st.release.gpu.global.u32 [%out], 1; griddepcontrol.launch_dependents;"),
        case(
            "a loop that never ends",
            stuck,
            32,
            r"
    mov.u32 %r0, 0;
LOOP:
    add.u32 %r0, %r0, {- 0 -}{+ 1 +}; //!
    setp.lt.u32 %p0, %r0, 10; //!
    @%p0 bra LOOP; //!
",
        ),
        // 16 kB of shared memory a block: one multiprocessor holds 13.
        Case {
            sms: 1,
            ..case(
                "blocks wait for more blocks than the card holds",
                stuck,
                32,
                r"
    @!%one bra OUT;
    atom.add.release.gpu.global.u32 %r0, [%out], 1;
SPIN:
    ld.acquire.gpu.global.u32 %r0, [%out]; //!
    setp.lt.u32 %p0, %r0, {- 14 -}{+ 13 +}; //!
    @%p0 bra SPIN; //!
OUT:
",
            )
            .blocks(14)
        },
    ]
}
