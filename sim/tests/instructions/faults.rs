//! What wrong kernels are told.

use crate::fault;
use narrowgauge_sim::{FaultKind, Module};

#[test]
fn faults_are_precise() {
    let wrong = fault("ld.global.u32 %r0, [%out+4096];", 32);
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "global", .. }), "{wrong}");
    assert_eq!((wrong.lane, wrong.instruction.as_str()), (Some(0), "ld.global.u32"));
    let wrong = fault("ld.global.u64 %rd0, [%out+4];", 32);
    assert!(matches!(wrong.kind, FaultKind::Misaligned { align: 8, .. }), "{wrong}");
    let wrong = fault("st.global.u32 [%out], %r9;", 32);
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
    let wrong = fault("ld.shared.u32 %r0, [smem]; setp.eq.u32 %p0, %r0, 0; @%p0 ret;", 32);
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
    let wrong = fault("setp.lt.u32 %p0, %t, 4; @%p0 bar.sync 0;", 32);
    assert!(matches!(wrong.kind, FaultKind::Divergence { present: 0xf, .. }), "{wrong}");
    let wrong = fault("setp.lt.u32 %p0, %t, 32; @%p0 bra END; bar.sync 1, 64; END:", 64);
    assert!(matches!(wrong.kind, FaultKind::Deadlock(ref who) if who.contains("barrier 1")), "{wrong}");
    let wrong = fault("LOOP: bra LOOP;", 32);
    assert!(matches!(wrong.kind, FaultKind::StepLimit { .. }), "{wrong}");
}

#[test]
fn an_unknown_instruction_is_named_at_load() {
    let text =
        ".version 9.0\n.target sm_90a\n.visible .entry k()\n{\n.reg .b32 %r<2>;\nfrobnicate.b32 %r0, %r1;\n}";
    let error = Module::parse(text).unwrap_err();
    assert_eq!(error.line, 6);
    assert!(error.what.contains("frobnicate.b32"), "{error}");
}
