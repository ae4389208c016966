//! Integer arithmetic, logic and shifts.

use crate::{narrow, wide};

#[test]
fn integers() {
    let minus = |x: i32| u64::from(x as u32);
    for (op, input, want) in [
        ("add.s32 %r0, %a0, %a1", [0xffff_ffff, 2, 0], 1),
        ("sub.s32 %r0, %a0, %a1", [1, 2, 0], 0xffff_ffff),
        ("mul.lo.s32 %r0, %a0, %a1", [minus(-3), 5, 0], minus(-15)),
        ("mul.hi.u32 %r0, %a0, %a1", [0x8000_0000, 6, 0], 3),
        ("mul.hi.s32 %r0, %a0, %a1", [minus(-2), 3, 0], 0xffff_ffff),
        ("mad.lo.s32 %r0, %a0, %a1, %a2", [7, 6, 5], 47),
        ("div.s32 %r0, %a0, %a1", [minus(-7), 2, 0], minus(-3)),
        ("rem.s32 %r0, %a0, %a1", [minus(-7), 2, 0], minus(-1)),
        ("min.s32 %r0, %a0, %a1", [minus(-1), 1, 0], minus(-1)),
        ("min.u32 %r0, %a0, %a1", [minus(-1), 1, 0], 1),
        ("shl.b32 %r0, %a0, %a1", [1, 32, 0], 0),
        ("shr.u32 %r0, %a0, %a1", [0x8000_0000, 31, 0], 1),
        ("shr.s32 %r0, %a0, %a1", [0x8000_0000, 40, 0], 0xffff_ffff),
        ("shf.l.wrap.b32 %r0, %a0, %a1, %a2", [0x8000_0001, 0x1, 4], 0x18),
        ("shf.r.clamp.b32 %r0, %a0, %a1, %a2", [0x10, 0xabcd, 40], 0xabcd),
        ("popc.b32 %r0, %a0", [0xf0f0, 0, 0], 8),
        ("clz.b32 %r0, %a0", [1, 0, 0], 31),
        ("brev.b32 %r0, %a0", [1, 0, 0], 0x8000_0000),
        ("bfind.u32 %r0, %a0", [0x100, 0, 0], 8),
        ("bfe.u32 %r0, %a0, 4, 8", [0xabcd, 0, 0], 0xbc),
        ("bfe.s32 %r0, %a0, 4, 8", [0xabcd, 0, 0], 0xffff_ffbc),
        ("bfi.b32 %r0, %a0, %a1, 8, 4", [0xf, 0, 0], 0xf00),
        ("prmt.b32 %r0, %a0, %a1, 0x5410", [0x4433_2211, 0x8877_6655, 0], 0x6655_2211),
        ("prmt.b32 %r0, %a0, %a1, 0x000f", [0, 0x8000_0000, 0], 0xff),
        ("lop3.b32 %r0, %a0, %a1, %a2, 0x96", [0b1100, 0b1010, 0b1111], 0b1001),
        ("and.b32 %r0, %a0, %a1", [0xff, 0x0f, 0], 0x0f),
        ("abs.s32 %r0, %a0", [minus(-9), 0, 0], 9),
    ] {
        assert_eq!(narrow(op, input), want, "{op} of {input:x?}");
    }
    for (op, input, want) in [
        ("mul.wide.s32 %rd0, %a0, %a1", [minus(-2), 3, 0], -6i64 as u64),
        ("mul.hi.u64 %rd0, %w0, %w1", [1 << 63, 6, 0], 3),
        ("shl.b64 %rd0, %w0, %a1", [1, 63, 0], 1 << 63),
        ("shr.s64 %rd0, %w0, %a1", [1 << 63, 63, 0], u64::MAX),
        ("mov.b64 %rd0, {%a0, %a1}", [1, 2, 0], 0x2_0000_0001),
        ("cvt.s64.s32 %rd0, %a0", [minus(-5), 0, 0], -5i64 as u64),
    ] {
        assert_eq!(wide(op, input), want, "{op} of {input:x?}");
    }
}
