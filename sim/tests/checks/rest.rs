//! Registers, exits, definedness, bounds, and accesses that waste bandwidth.

use super::{Case, Want, case};
use narrowgauge_sim::FaultKind;

fn registers(name: &'static str, want: fn(&FaultKind) -> bool, body: &'static str) -> Case {
    Case { directives: ".maxntid 256, 1, 1\n.minnctapersm 1", ..case(name, want, 256, body) }
}

fn warning(name: &'static str, part: &'static str, body: &'static str) -> Case {
    Case { want: Want::Warning(part), ..case(name, |_| false, 32, body) }
}

pub fn cases() -> Vec<Case> {
    let left = |kind: &FaultKind| matches!(kind, FaultKind::Exit(_));
    let undefined = |kind: &FaultKind| matches!(kind, FaultKind::Uninitialised { .. });
    let outside = |kind: &FaultKind| matches!(kind, FaultKind::OutOfBounds { .. });
    let bent = |kind: &FaultKind| matches!(kind, FaultKind::Misaligned { .. });
    vec![
        registers(
            "setmaxnreg.dec to more than there are",
            |k| matches!(k, FaultKind::Registers(_)),
            r"
    setp.lt.u32 %p0, %t, 128;
    @%p0 bra FIRST;
    bra OUT;
FIRST:
    {- setmaxnreg.dec.sync.aligned.u32 256; //! -}{+ setmaxnreg.dec.sync.aligned.u32 40; +}
OUT:
",
        ),
        registers(
            "setmaxnreg.inc to fewer than there are",
            |k| matches!(k, FaultKind::Registers(_)),
            r"
    setp.lt.u32 %p0, %t, 128;
    @%p0 setmaxnreg.{-inc-}{+dec+}.sync.aligned.u32 40; //!
    @%p0 setmaxnreg.inc.sync.aligned.u32 200;
",
        ),
        registers(
            "setmaxnreg by a part of a warpgroup",
            |k| matches!(k, FaultKind::Registers(_)),
            r"
    setp.lt.u32 %p0, %t, {- 64 -}{+ 128 +};
    @%p0 setmaxnreg.dec.sync.aligned.u32 40; //!
",
        ),
        registers(
            "setmaxnreg.inc: the pool never has so many",
            |k| matches!(k, FaultKind::Deadlock(who) if who.contains("registers")),
            r"
    setp.lt.u32 %p0, %t, 128;
    @%p0 bra FIRST;
    setmaxnreg.inc.sync.aligned.u32 256; //!
    bra OUT;
FIRST:
    {+ setmaxnreg.dec.sync.aligned.u32 40; +}
OUT:
",
        ),
        case(
            "exit with a bulk store in flight",
            left,
            32,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 128; //!
    cp.async.bulk.commit_group;
    {+ cp.async.bulk.wait_group.read 0; +}
OUT:
",
        ),
        case(
            "exit with a bulk load in flight",
            left,
            32,
            r"
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 256;
    @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 256, [%bar]; //!
    {- bra OUT; -}
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%bar], 0;
    @!%p1 bra WAIT;
OUT:
",
        ),
        case(
            "undefined shared memory decides a branch",
            undefined,
            32,
            r"
    {+ st.shared.u32 [%s], 1; +}
    ld.shared.u32 %r0, [%s];
    setp.eq.u32 %p0, %r0, 0;
    @%p0 bra OUT; //!
    mov.u32 %r1, 1;
OUT:
",
        ),
        case(
            "an undefined register becomes an address",
            undefined,
            32,
            r"
    {+ mov.u32 %r3, %s; +}
    ld.shared.u32 %r0, [%r3]; //!
",
        ),
        case(
            "an undefined register is stored to global memory",
            undefined,
            32,
            r"
    {+ mov.u32 %r3, 5; +}
    @%one st.global.u32 [%out], %r3; //!
",
        ),
        case(
            "undefined shared memory is stored by a bulk copy",
            undefined,
            32,
            r"
    mad.lo.u32 %r0, %t, 4, %s;
    st.shared.u32 [%r0], %t;
    {+ st.shared.u32 [%r0+128], %t; +}
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%one bra OUT;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 256; //!
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0; //!
OUT:
",
        ),
        case(
            "global: past the end of an allocation",
            outside,
            32,
            r"
    ld.global.u32 %r0, [%in+{- 65536 -}{+ 65532 +}]; //!
",
        ),
        case(
            "shared: past the end of the window",
            outside,
            32,
            r"
    ld.shared.u32 %r0, [%s+{- 20000 -}{+ 0 +}]; //!
",
        ),
        case(
            "an address that is not a multiple of the access",
            bent,
            32,
            r"
    ld.global.u64 %rd0, [%in+{- 4 -}{+ 8 +}]; //!
",
        ),
        warning(
            "bank conflicts of a column",
            "bank conflicts",
            r"
    mad.lo.u32 %r0, %t, {- 128 -}{+ 132 +}, %s;
    mov.u32 %r1, 0;
LOOP:
    st.shared.u32 [%r0], %t; //!
    add.u32 %r1, %r1, 1;
    setp.lt.u32 %p0, %r1, 8;
    @%p0 bra LOOP;
",
        ),
        warning(
            "sectors of which most bytes are not used",
            "uncoalesced",
            r"
    mul.lo.u32 %r0, %t, {- 256 -}{+ 4 +};
    mov.u32 %r1, 0;
LOOP:
    cvt.u64.u32 %rd0, %r0;
    add.u64 %rd0, %rd0, %in;
    ld.global.u32 %r2, [%rd0]; //!
    add.u32 %r0, %r0, {- 4 -}{+ 128 +};
    add.u32 %r1, %r1, 1;
    setp.lt.u32 %p0, %r1, 8;
    @%p0 bra LOOP;
",
        ),
    ]
}
