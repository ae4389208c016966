//! Registers of which a part was never written: which part of a result is undefined, too.

use crate::rig::rig;
use narrowgauge_sim::FaultKind;

/// %r0 has an undefined upper half, %r1 an undefined lower one; %h9 and %r9 were never written.
const HALF: &str = "mov.u16 %h0, 0x3c00; mov.b32 %r0, {%h0, %h9}; mov.b32 %r1, {%h9, %h0};\n";

#[test]
fn what_stays_defined_may_be_stored() {
    for (op, good, bad) in [
        // Both of a pair by themselves.
        ("add.f16x2 %r2, %r0, %r0;", "u16 [%at], %r2", "u32 [%at], %r2"),
        ("fma.rn.bf16x2 %r2, %r0, %r0, %r0;", "u16 [%at], %r2", "u32 [%at], %r2"),
        ("max.u16x2 %r2, %r0, %r0;", "u16 [%at], %r2", "u32 [%at], %r2"),
        ("cvt.rn.bf16x2.f32 %r2, %r9, %t;", "u16 [%at], %r2", "u32 [%at], %r2"),
        ("cvt.rn.satfinite.e4m3x2.f32 %h2, %r9, %t;", "u8 [%at], %h2", "u16 [%at], %h2"),
        ("cvt.rn.satfinite.e5m2x2.f16x2 %h2, %r0;", "u8 [%at], %h2", "u16 [%at], %h2"),
        (
            "cvt.rn.satfinite.e4m3x2.f32 %h2, %r9, %t; cvt.rn.f16x2.e4m3x2 %r2, %h2;",
            "u16 [%at], %r2",
            "u32 [%at], %r2",
        ),
        // Bits that move.
        ("shf.r.wrap.b32 %r2, %t, %r9, 8;", "u16 [%at], %r2", "u32 [%at], %r2"),
        ("bfe.u32 %r2, %r0, 8, 8; bfe.s32 %r3, %r0, 8, 9;", "u32 [%at], %r2", "u32 [%at], %r3"),
        ("shr.s32 %r2, %r1, 16; shr.s32 %r3, %r1, 15;", "u32 [%at], %r2", "u32 [%at], %r3"),
        ("brev.b32 %r2, %r1;", "u16 [%at], %r2", "u32 [%at], %r2"),
        ("prmt.b32.rc16 %r2, %r0, 0, 0; prmt.b32.rc16 %r3, %r0, 0, 1;", "u32 [%at], %r2", "u16 [%at], %r3"),
        ("cvt.s32.s16 %r2, %r0; cvt.s32.s16 %r3, %r1;", "u32 [%at], %r2", "u32 [%at], %r3"),
        // A carry goes up and never down.
        ("mad.lo.u32 %r2, %t, 3, 5; add.u32 %r2, %r2, %r0;", "u16 [%at], %r2", "u32 [%at], %r2"),
        ("mul.lo.u32 %r2, %r0, %t;", "u16 [%at], %r2", "u32 [%at], %r2"),
    ] {
        rig(&format!("{HALF}{op}\nst.global.{good};")).out();
        let wrong = rig(&format!("{HALF}{op}\nst.global.{bad};")).fault("st.global.");
        let used_as = "a value stored to global memory";
        assert_eq!(wrong.kind, FaultKind::Uninitialised { used_as }, "{op}");
    }
}
