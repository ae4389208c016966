//! Every atomic operation on every type and in every space, against the ISA's table of operations.

use crate::rig::{lanes, rig};
use narrowgauge_sim::FaultKind;

/// Bytes of an operand.
pub fn width(ty: &str) -> u32 {
    match ty {
        "b16" | "f16" | "bf16" => 2,
        "u64" | "s64" | "b64" | "f64" => 8,
        _ => 4,
    }
}

/// What memory holds afterwards, from the definitions.
pub fn expected(op: &str, ty: &str, old: u64, b: u64, c: u64) -> u64 {
    let (so, sb) = match width(ty) {
        4 => (i64::from(old as i32), i64::from(b as i32)),
        _ => (old as i64, b as i64),
    };
    let cut = if width(ty) == 4 { 0xffff_ffff } else { u64::MAX };
    match (op, ty) {
        ("add", "f32") => u64::from((f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits()),
        ("add", "f64") => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        ("add", _) => old.wrapping_add(b) & cut,
        ("min", "s32" | "s64") => so.min(sb) as u64 & cut,
        ("max", "s32" | "s64") => so.max(sb) as u64 & cut,
        ("min", _) => old.min(b),
        ("max", _) => old.max(b),
        ("and", _) => old & b,
        ("or", _) => old | b,
        ("xor", _) => old ^ b,
        ("exch", _) => b,
        ("cas", _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        ("inc", _) => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        ("dec", _) => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        _ => unreachable!("{op}.{ty}"),
    }
}

const TABLE: [(&str, &[&str]); 10] = [
    ("add", &["u32", "s32", "u64", "f32", "f64"]),
    ("min", &["u32", "s32", "u64", "s64"]),
    ("max", &["u32", "s32", "u64", "s64"]),
    ("and", &["b32", "b64"]),
    ("or", &["b32", "b64"]),
    ("xor", &["b32", "b64"]),
    ("exch", &["b32", "b64"]),
    ("cas", &["b32", "b64"]),
    ("inc", &["u32"]),
    ("dec", &["u32"]),
];

/// Operands that differ in sign and order from lane to lane: (memory, b, c).
fn operands(ty: &str, lane: u64) -> (u64, u64, u64) {
    let small = [0, 1, 5, 7, 8];
    match ty {
        "f32" => {
            let at = |x: f32| u64::from(x.to_bits());
            (at(1.5 - lane as f32), at(0.25 * lane as f32 * lane as f32), 0)
        }
        "f64" => ((3.25 - lane as f64).to_bits(), (1e300 * lane as f64).to_bits(), 0),
        _ => {
            let cut = if width(ty) == 4 { 0xffff_ffff } else { u64::MAX };
            let wild = |x: u64| x.wrapping_mul(0x9e37_79b9_7f4a_7c15) & cut;
            match lane % 4 {
                0 => (wild(lane), wild(lane + 1), wild(lane + 2)),
                1 => (wild(lane), wild(lane), 77),
                2 => (small[lane as usize % 5], small[(lane / 5) as usize % 5], 3),
                _ => (lane, lane + 1, 9),
            }
        }
    }
}

fn memory(ty: &str) -> Vec<u8> {
    let bytes = width(ty) as usize;
    let mut out = Vec::new();
    for lane in 0..32 {
        let (old, b, c) = operands(ty, lane);
        for value in [old, b, c] {
            out.extend_from_slice(&value.to_le_bytes()[..bytes]);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
    }
    out
}

#[test]
fn operations_on_their_types_in_every_space() {
    for (op, types) in TABLE {
        for ty in types {
            for (space, extra, order) in [
                (".global", "", ""),
                (".global", "", ".relaxed.gpu"),
                (".shared", "", ""),
                (".shared::cta", "", ".acq_rel.cta"),
                ("", "cvta.shared.u64 %rd10, %rd10;", ".release.cluster"),
                ("", "", ".acquire.sys"),
            ] {
                let global = space == ".global" || space.is_empty() && extra.is_empty();
                let bits = 8 * width(ty);
                let r =
                    if bits == 64 { ["%rd1", "%rd2", "%rd3", "%rd4"] } else { ["%r1", "%r2", "%r3", "%r4"] };
                let [old, b, c, new] = r;
                let prepare = if global {
                    "mov.u64 %rd10, %rd0;".to_owned()
                } else {
                    format!(
                        "mov.u64 %rd10, smem; mad.wide.u32 %rd10, %t, 8, %rd10; st.shared.b{bits} [%rd10], {old}; {extra}"
                    )
                };
                let third = if op == "cas" { format!(", {c}") } else { String::new() };
                for reduction in [false, true] {
                    if reduction && (matches!(op, "exch" | "cas") || order.contains("ac")) {
                        continue;
                    }
                    let (name, d) =
                        if reduction { ("red", String::new()) } else { ("atom", format!("{old}, ")) };
                    let body = format!(
                        "mad.wide.u32 %rd0, %t, 32, %b0;
                        ld.global.b{bits} {old}, [%rd0];
                        ld.global.b{bits} {b}, [%rd0+8];
                        ld.global.b{bits} {c}, [%rd0+16];
                        {prepare}
                        {name}{order}{space}.{op}.{ty} {d}[%rd10], {b}{third};
                        ld{space}.b{bits} {new}, [%rd10];
                        mad.wide.u32 %rd11, %t, 16, %out;
                        st.global.b{bits} [%rd11], {old};
                        st.global.b{bits} [%rd11+8], {new};"
                    );
                    let out = rig(&body).buffer(memory(ty)).words(128).out();
                    for lane in 0..32 {
                        let at = |i: usize| {
                            let low = u64::from(out[4 * lane + i]);
                            if bits == 64 { low | u64::from(out[4 * lane + i + 1]) << 32 } else { low }
                        };
                        let (before, b, c) = operands(ty, lane as u64);
                        let what = format!("{name}{order}{space}.{op}.{ty} of {before:#x}, {b:#x}, {c:#x}");
                        assert_eq!(at(0), before, "{what}: the old value");
                        assert_eq!(at(2), expected(op, ty, before, b, c), "{what}");
                    }
                }
            }
        }
    }
}

/// f16 and bf16 of small integers and halves.
pub fn half(ty: &str, x: f32) -> u32 {
    let bits = x.to_bits();
    if x == 0.0 {
        return 0;
    }
    let (exponent, fraction) = ((bits >> 23 & 255) as i32 - 127, bits & 0x7f_ffff);
    if ty.starts_with("bf") {
        assert_eq!(fraction & 0xffff, 0);
        bits >> 16
    } else {
        assert_eq!(fraction & 0x1fff, 0);
        (bits >> 31) << 15 | ((exponent + 15) as u32) << 10 | fraction >> 13
    }
}

#[test]
fn halves_are_added_in_pairs_and_alone() {
    for ty in ["f16x2", "bf16x2", "f16", "bf16"] {
        let alone = !ty.ends_with("x2");
        for space in [".global", ".shared", ""] {
            for name in ["atom", "red"] {
                let low = |i: u32| (i as f32 - 8.0, 0.5 * i as f32);
                let pair = |a: f32, b: f32| half(ty, a) | half(ty, b) << 16;
                let inputs = (0..32).flat_map(|i| {
                    let (a, b) = low(i);
                    [pair(a, 3.0), pair(b, -1.5)]
                });
                let (r, bits) = if alone { ("%h", 16) } else { ("%r", 32) };
                let d = if name == "atom" { format!("{r}5, ") } else { String::new() };
                let place = if space == ".shared" {
                    "mov.u64 %rd1, smem; mad.wide.u32 %rd1, %t, 4, %rd1; st.shared.b32 [%rd1], %r6;"
                } else {
                    "mov.u64 %rd1, %rd0;"
                };
                let out = rig(&format!(
                    "mad.wide.u32 %rd0, %t, 8, %b0;
                    ld.global.b{bits} {r}5, [%rd0];
                    ld.global.b32 %r6, [%rd0];
                    ld.global.b{bits} {r}7, [%rd0+4];
                    {place}
                    {name}{space}.add.noftz.{ty} {d}[%rd1], {r}7;
                    ld{space}.b32 %r8, [%rd1];
                    st.global.b32 [%at], %r8;"
                ))
                .numbers(inputs)
                .out();
                let want = lanes(|i| {
                    let (a, b) = low(i);
                    pair(a + b, if alone { 3.0 } else { 1.5 })
                });
                assert_eq!(out, want, "{name}{space}.{ty}");
            }
        }
    }
}

#[test]
fn vectors_of_floats_are_added_at_once() {
    for name in ["atom", "red"] {
        for (ty, count, registers) in [
            ("f32", 2, "{%r0, %r1}"),
            ("f32", 4, "{%r0, %r1, %r2, %r3}"),
            ("f16x2", 4, "{%r0, %r1, %r2, %r3}"),
        ] {
            let d =
                if name == "atom" { format!("{}, ", registers.replace("%r", "%r1")) } else { String::new() };
            let noftz = if ty == "f16x2" { ".noftz" } else { "" };
            let encode = |x: f32| if ty == "f32" { x.to_bits() } else { half(ty, x) | half(ty, -x) << 16 };
            let loads: String =
                (0..count).map(|i| format!("ld.global.u32 %r{i}, [%rd0+{}];\n", 16 + 4 * i)).collect();
            let old = if name == "atom" { "st.global.u32 [%at], %r11;" } else { "" };
            let ran = rig(&format!(
                "mad.wide.u32 %rd0, %t, 32, %b0;
                {loads}
                {name}.global.add{noftz}.v{count}.{ty} {d}[%rd0], {registers};
                {old}"
            ))
            .numbers(
                (0..32).flat_map(|i| (0..8).map(move |e| (i, e))).map(|(i, e)| encode((i * 8 + e) as f32)),
            )
            .run()
            .unwrap();
            for i in 0..32 {
                for e in 0..8 {
                    let at = (i * 8 + e) as usize;
                    let got = u32::from_le_bytes(ran.buffers[0][4 * at..][..4].try_into().unwrap());
                    let plain = (i * 8 + e) as f32;
                    let want = if e < count { plain + plain + 4.0 } else { plain };
                    assert_eq!(got, encode(want), "{name}.v{count}.{ty}, element {e} of {i}");
                }
                if name == "atom" {
                    assert_eq!(ran.out[i as usize], encode((i * 8 + 1) as f32), "the old value");
                }
            }
        }
    }
}

#[test]
fn sixteen_bits_are_compared_and_swapped() {
    let out = rig("mad.wide.u32 %rd0, %t, 4, %b0;
        mov.u16 %h0, 5;
        mov.u16 %h1, 0xabcd;
        atom.global.cas.b16 %h2, [%rd0+2], %h0, %h1;
        ld.global.u32 %r0, [%rd0];
        st.global.u32 [%at], %r0;")
    .numbers((0..32).map(|i| if i % 2 == 0 { 0x0005_1234 } else { 0x0006_1234 }))
    .out();
    assert_eq!(out, lanes(|i| if i % 2 == 0 { 0xabcd_1234 } else { 0x0006_1234 }));
}

#[test]
fn global_float_addition_flushes_subnormals_and_shared_does_not() {
    let body = "mov.u32 %r0, 1;
        PREPARE
        atom.SPACE.add.f32 %r1, [AT], 0f00000003;
        ld.SPACE.u32 %r2, [AT];
        st.global.u32 [%out], %r2;";
    let one = |space: &str, at: &str, prepare: &str| {
        let body = body.replace("SPACE", space).replace("AT", at).replace("PREPARE", prepare);
        rig(&format!("setp.ne.u32 %p0, %t, 0;\n @%p0 exit;\n {body}")).numbers([1]).out()[0]
    };
    assert_eq!(one("global", "%b0", ""), 0);
    assert_eq!(one("shared", "smem", "st.shared.u32 [smem], %r0;"), 4);
}

#[test]
fn lanes_that_meet_at_one_word_all_count() {
    let out = rig("st.shared.u32 [smem], 0;
        bar.sync 0;
        atom.shared.add.u32 %r0, [smem], 3;
        red.global.max.u32 [%out+512], %r0;
        mad.wide.u32 %rd0, %r0, 4, %out;
        mad.wide.u32 %rd1, %t, 4, %out;
        bar.sync 0;
        ld.shared.u32 %r1, [smem];
        st.global.u32 [%at], %r1;
        red.global.inc.u32 [%b0], 1000;
        bar.sync 0;
        ld.global.u32 %r2, [%b0];
        st.global.u32 [%out+516], %r2;")
    .threads(128)
    .words(130)
    .numbers([0])
    .out();
    assert_eq!(out[..128], vec![3 * 128; 128]);
    // 0xeeeeeeee was the largest.
    assert_eq!(out[128..], [0xeeee_eeee, 128]);
}

#[test]
fn what_no_card_has_is_refused_at_load() {
    for wrong in [
        "atom.global.min.f32 %r0, [%b0], %r1;",
        "atom.global.mul.u32 %r0, [%b0], %r1;",
        "red.global.exch.b32 [%b0], %r1;",
        "atom.global.add.b32 %r0, [%b0], %r1;",
        "atom.shared.add.v2.f32 {%r0, %r1}, [smem], {%r2, %r3};",
        "ld.global.v8.u32 {%r0, %r1, %r2, %r3, %r4, %r5, %r6, %r7}, [%b0];",
    ] {
        let error = rig(wrong).buffer([0; 64]).illegal().load().unwrap_err();
        assert!(error.what.contains(wrong.split(' ').next().unwrap()), "{error}");
    }
    let wrong = rig("atom.global.add.u32 %r0, [%b0+64], 1;").buffer([0; 64]).fault("atom.global");
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "global", bytes: 4, .. }), "{wrong}");
}
