//! Floating-point arithmetic.

use crate::{f, narrow};

#[test]
fn floats() {
    let tiny = f32::from_bits(1);
    for (op, input, want) in [
        ("add.f32 %r0, %a0, %a1", [f(1.5), f(2.25), 0], f(3.75)),
        ("add.ftz.f32 %r0, %a0, %a1", [f(tiny), f(0.0), 0], 0),
        ("fma.rn.f32 %r0, %a0, %a1, %a2", [f(1.0 + 2f32.powi(-12)), f(1.0 + 2f32.powi(-12)), f(-1.0)], {
            f(2f32.powi(-11) + 2f32.powi(-24))
        }),
        ("fma.rm.f32 %r0, %a0, %a1, %a2", [f(1.0), f(1.0), f(-2f32.powi(-40))], f(1.0f32.next_down())),
        (
            "mul.rz.f32 %r0, %a0, %a1",
            [f(1.0 + f32::EPSILON), f(1.0 + f32::EPSILON), 0],
            f(1.0 + 2.0 * f32::EPSILON),
        ),
        ("min.f32 %r0, %a0, %a1", [f(f32::NAN), f(2.0), 0], f(2.0)),
        ("max.f32 %r0, %a0, %a1", [f(-0.0), f(0.0), 0], f(0.0)),
        ("ex2.approx.ftz.f32 %r0, %a0", [f(3.0), 0, 0], f(8.0)),
        ("lg2.approx.f32 %r0, %a0", [f(8.0), 0, 0], f(3.0)),
        ("rsqrt.approx.f32 %r0, %a0", [f(4.0), 0, 0], f(0.5)),
        ("cvt.rn.bf16x2.f32 %r0, %a0, %a1", [f(1.0), f(-2.0), 0], 0x3f80_c000),
        ("cvt.rni.s32.f32 %r0, %a0", [f(2.5), 0, 0], 2),
        ("cvt.rzi.s32.f32 %r0, %a0", [f(-3e9), 0, 0], 0x8000_0000),
        ("cvt.rzi.u32.f32 %r0, %a0", [f(f32::NAN), 0, 0], 0),
        ("cvt.rn.f32.s32 %r0, %a0", [0xffff_ffff, 0, 0], f(-1.0)),
        ("cvt.rn.f32.u32 %r0, %a0", [0x0100_0001, 0, 0], f(16_777_216.0)),
    ] {
        assert_eq!(narrow(op, input), want, "{op} of {input:x?}");
    }
    let pack = "cvt.rn.satfinite.e4m3x2.f32 %h0, %a0, %a1; cvt.u32.u16 %r0, %h0";
    assert_eq!(narrow(pack, [f(1e9), f(1.0), 0]), 0x7e38);
}
