//! Loads and stores in every space and width, variables, cache hints, and the faults of wrong accesses.

use crate::rig::{Rig, lanes, rig};
use narrowgauge_sim::FaultKind;

/// (name, statements that make the address of the thread's own 64 bytes, spelling of the space, address register).
const PLACES: [(&str, &str, &str, &str); 8] = [
    ("global", "mad.wide.u32 %rd10, %t, 64, %b0;", ".global", "%rd10"),
    ("shared", "mov.u32 %r10, smem; mad.lo.u32 %r10, %t, 64, %r10;", ".shared", "%r10"),
    ("shared::cta", "mov.u32 %r10, smem; mad.lo.u32 %r10, %t, 64, %r10;", ".shared::cta", "%r10"),
    ("local", ".local .align 16 .b8 own[64]; mov.u64 %rd10, own;", ".local", "%rd10"),
    ("generic global", "mad.wide.u32 %rd10, %t, 64, %b0; cvta.global.u64 %rd10, %rd10;", "", "%rd10"),
    (
        "generic shared",
        "mov.u64 %rd10, smem; cvta.shared.u64 %rd10, %rd10; mad.wide.u32 %rd10, %t, 64, %rd10;",
        "",
        "%rd10",
    ),
    (
        "generic local",
        ".local .align 16 .b8 own[64]; mov.u64 %rd10, own; cvta.local.u64 %rd10, %rd10;",
        "",
        "%rd10",
    ),
    (
        "shared by way of generic",
        "cvta.shared.u64 %rd10, smem; mad.wide.u32 %rd10, %t, 64, %rd10; cvta.to.shared.u64 %rd10, %rd10;",
        ".shared",
        "%rd10",
    ),
];

/// Byte i of thread t's memory.
fn byte(t: u32, i: u32) -> u8 {
    ((t * 16 + i) * 73 + 5) as u8
}

/// Stores the bytes, one at a time.
fn fill(space: &str, at: &str) -> String {
    (0..16)
        .map(|i| format!("mad.lo.u32 %r0, %t, 1168, {}; st{space}.u8 [{at}+{i}], %r0;\n", i * 73 + 5))
        .collect()
}

fn value(t: u32, at: u32, bytes: u32) -> u64 {
    (0..bytes).rev().fold(0, |v, i| v << 8 | u64::from(byte(t, at + i)))
}

fn in_place(prepare: &str, rest: &str) -> Rig {
    rig(&format!("mad.wide.u32 %rd11, %t, 32, %out;\n{prepare}\n{rest}")).buffer(vec![0; 2048]).words(256)
}

fn words64(out: &[u32], t: usize, i: usize) -> u64 {
    u64::from(out[8 * t + 2 * i]) | u64::from(out[8 * t + 2 * i + 1]) << 32
}

#[test]
fn every_width_in_every_space() {
    for (name, prepare, space, at) in PLACES {
        for (ty, bytes, signed) in [
            ("b8", 1, false),
            ("u8", 1, false),
            ("s8", 1, true),
            ("b16", 2, false),
            ("u16", 2, false),
            ("s16", 2, true),
            ("b32", 4, false),
            ("u32", 4, false),
            ("s32", 4, true),
            ("f32", 4, false),
            ("b64", 8, false),
            ("u64", 8, false),
            ("s64", 8, false),
            ("f64", 8, false),
        ] {
            // Into a register of 64 bits, of 32 where it fits, and back through a store of the same width.
            let narrow = if bytes == 8 { "mov.u32 %r1, 0;" } else { "LOAD %r1, [AT+8];" };
            let rest = format!(
                "{}
                LOAD %rd0, [AT+8];
                {narrow}
                STORE [AT+32], %rd0;
                LOAD %rd1, [AT+32];
                st.global.u64 [%rd11], %rd0;
                st.global.u32 [%rd11+8], %r1;
                st.global.u64 [%rd11+16], %rd1;",
                fill(space, at)
            );
            let rest = rest
                .replace("LOAD", &format!("ld{space}.{ty}"))
                .replace("STORE", &format!("st{space}.{ty}"))
                .replace("AT", at);
            // Registers of a floating type have the type's width.
            let rest = if matches!(ty, "f32") {
                rest.replace("%rd0, [", "%r2, [")
                    .replace("%rd1, [", "%r3, [")
                    .replace("], %rd0;\n                ld", "], %r2;\n                ld")
                    .replace(
                        "st.global.u64 [%rd11], %rd0",
                        "cvt.u64.u32 %rd0, %r2; st.global.u64 [%rd11], %rd0",
                    )
                    .replace(
                        "st.global.u64 [%rd11+16], %rd1",
                        "cvt.u64.u32 %rd1, %r3; st.global.u64 [%rd11+16], %rd1",
                    )
            } else {
                rest
            };
            let out = in_place(prepare, &rest).out();
            for t in 0..32 {
                let raw = value(t as u32, 8, bytes);
                let spare = 64 - 8 * bytes;
                let wide = if signed { ((raw << spare) as i64 >> spare) as u64 } else { raw };
                assert_eq!(words64(&out, t, 0), wide, "{name} {ty} of thread {t}");
                let narrow = if bytes == 8 { 0 } else { wide as u32 };
                assert_eq!(out[8 * t + 2], narrow, "{name} {ty} of thread {t}, in 32 bits");
                assert_eq!(words64(&out, t, 2), wide, "{name} {ty} of thread {t}, stored and loaded");
            }
        }
    }
}

#[test]
fn vectors_in_every_space() {
    for (name, prepare, space, at) in PLACES {
        for (ty, bytes, registers) in [
            ("v2.u8", 1, vec!["%r1", "%r2"]),
            ("v4.u8", 1, vec!["%r1", "%r2", "%r3", "%r4"]),
            ("v2.u16", 2, vec!["%r1", "%r2"]),
            ("v4.b16", 2, vec!["%r1", "%r2", "%r3", "%r4"]),
            ("v2.b32", 4, vec!["%r1", "%r2"]),
            ("v4.u32", 4, vec!["%r1", "%r2", "%r3", "%r4"]),
            ("v4.f32", 4, vec!["%r1", "%r2", "%r3", "%r4"]),
            ("v2.u64", 8, vec!["%rd1", "%rd2"]),
            ("v2.f64", 8, vec!["%rd1", "%rd2"]),
        ] {
            let list = registers.join(", ");
            let reversed: Vec<&str> = registers.iter().rev().copied().collect();
            let wide = bytes == 8;
            let mut rest = format!(
                "{}ld{space}.{ty} {{{list}}}, [{at}];\nst{space}.{ty} [{at}+16], {{{}}};\n",
                fill(space, at),
                reversed.join(", ")
            );
            // What was stored, in whole words.
            let count = registers.len();
            for i in 0..count {
                let load = if wide { "u64 %rd5" } else { ["u8 %r5", "u16 %r5", "", "u32 %r5"][bytes - 1] };
                rest += &format!("ld{space}.{load}, [{at}+{}];\n", 16 + bytes * i);
                rest += &if wide {
                    format!("st.global.u64 [%rd11+{}], %rd5;\n", 8 * i)
                } else {
                    format!("st.global.u32 [%rd11+{}], %r5;\n", 4 * i)
                };
            }
            let out = in_place(prepare, &rest).out();
            for t in 0..32 {
                for i in 0..count {
                    let want = value(t as u32, ((count - 1 - i) * bytes) as u32, bytes as u32);
                    let got = if wide { words64(&out, t, i) } else { u64::from(out[8 * t + i]) };
                    assert_eq!(got, want, "{name} {ty}, element {i} of thread {t}");
                }
            }
        }
    }
    let out = rig("ld.global.v4.u32 {%r0, _, _, %r1}, [%b0];\n st.global.v2.u32 [%out], {%r1, %r0};")
        .numbers([5, 6, 7, 8])
        .out();
    assert_eq!(out[..2], [8, 5]);
}

#[test]
fn a_register_of_16_bits_takes_16_bits() {
    let out = rig("ld.global.s8 %h0, [%b0];
        ld.global.u16 %h1, [%b0+2];
        setp.eq.u16 %p0, %h0, %h1;
        setp.eq.b16 %p1, %h0, -2;
        selp.u32 %r0, 1, 0, %p0;
        @%p1 add.u32 %r0, %r0, 2;
        mov.b32 %r1, {%h0, %h1};
        cvt.u32.u16 %r2, %h0;
        st.global.u32 [%out], %r0;
        st.global.u32 [%out+4], %r1;
        st.global.u32 [%out+8], %r2;")
    .buffer([0xfe, 0, 0xfe, 0xff])
    .out();
    assert_eq!(out[..3], [3, 0xfffe_fffe, 0xfffe]);
}

const VARIABLES: &str = "
.global .align 4 .u32 numbers[4] = {1, 0xffffffff, 3};
.global .align 8 .u64 pointers[2] = {numbers, numbers+8};
.global .align 8 .u64 generics[1] = {generic(numbers)+4};
.const .align 4 .f32 factors[2] = {0f3F800000, 0fC0000000};
.const .align 2 .u16 halves[3] = {1, 2, 65535};
.const .align 8 .f64 doubles[1] = {0d3FF8000000000000};
.global .align 1 .b8 letters[8] = {104, 101, 108, 108, 111};
.global .align 4 .b32 zeros[2];
.global .align 4 .s32 table[2][2] = {{1, -2}, {3, -4}};
.const .align 8 .u64 where[1] = {generic(letters)};
.global .align 4 .f32 one = 0f3F800000;
";

#[test]
fn variables_have_their_initial_values() {
    let out = rig("ld.global.u64 %rd0, [pointers+8];
        ld.global.u32 %r0, [%rd0];
        ld.global.u64 %rd1, [generics];
        ld.u32 %r1, [%rd1];
        ld.const.u32 %r2, [factors+4];
        ld.const.u16 %r3, [halves+4];
        ld.const.u32 %r4, [doubles+4];
        ld.const.u64 %rd2, [where];
        ld.u8 %r5, [%rd2+4];
        ld.global.u32 %r6, [zeros+4];
        mov.u64 %rd3, table;
        add.u64 %rd3, %rd3, 12;
        ld.global.s32 %r7, [%rd3];
        ld.global.u32 %r8, [numbers+12];
        cvta.global.u64 %rd4, one;
        cvta.to.global.u64 %rd5, %rd4;
        ld.global.u32 %r9, [%rd5];
        mov.u64 %rd6, factors;
        cvta.const.u64 %rd7, %rd6;
        ld.u32 %r10, [%rd7];
        ld.global.u8 %r11, [letters+7];
        st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};
        st.global.v4.u32 [%out+16], {%r4, %r5, %r6, %r7};
        st.global.v4.u32 [%out+32], {%r8, %r9, %r10, %r11};")
    .module(VARIABLES)
    .out();
    let want =
        [3, u32::MAX, 0xc000_0000, 65535, 0x3ff8_0000, 111, 0, -4i32 as u32, 0, 0x3f80_0000, 0x3f80_0000, 0];
    assert_eq!(out[..12], want);
}

#[test]
fn variables_keep_what_was_stored() {
    // The variable is the card's: the second block sees what the first left.
    let out = rig("atom.global.add.u32 %r0, [counter], 1;
        mad.wide.u32 %rd0, %r0, 4, %out;
        st.global.u32 [%rd0], %r0;")
    .module(".global .align 4 .u32 counter = 3;")
    .blocks(2)
    .words(67)
    .out();
    assert_eq!(out[3..], (3..67).collect::<Vec<u32>>());
}

#[test]
fn parameters_are_read_only_memory() {
    let out = rig("ld.param.v2.u32 {%r0, %r1}, [buffer0];
        mov.b64 %rd0, {%r0, %r1};
        setp.eq.u64 %p0, %rd0, %b0;
        ld.param.u16 %r2, [buffer0+2];
        shr.u32 %r3, %r0, 16;
        setp.eq.and.u32 %p0, %r2, %r3, %p0;
        mov.b64 %rd1, buffer0;
        cvta.param.u64 %rd1, %rd1;
        ld.u64 %rd2, [%rd1];
        setp.eq.and.u64 %p0, %rd2, %b0, %p0;
        selp.u32 %r4, 1, 0, %p0;
        st.global.u32 [%at], %r4;")
    .buffer([0; 16])
    .out();
    assert_eq!(out, lanes(|_| 1));
    let body = "mov.b64 %rd1, buffer0;\n cvta.param.u64 %rd1, %rd1;\n st.u32 [%rd1], 5;";
    let wrong = rig(body).buffer([0; 16]).fault("st.u32");
    assert!(wrong.to_string().contains("read-only"), "{wrong}");
    let wrong =
        rig("mov.b64 %rd1, out_ptr;\n cvta.param.u64 %rd1, %rd1;\n ld.u32 %r0, [%rd1+8];").fault("ld.u32");
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "parameter", .. }), "{wrong}");
}

#[test]
fn hints_and_orders_change_no_value() {
    for opcode in [
        "ld.global.ca",
        "ld.global.cg",
        "ld.global.cs",
        "ld.global.lu",
        "ld.global.cv",
        "ld.global.nc",
        "ld.weak.global",
        "ld.volatile.global",
        "ld.relaxed.cta.global",
        "ld.relaxed.cluster.global",
        "ld.relaxed.gpu.global",
        "ld.relaxed.sys.global",
        "ld.acquire.cta.global",
        "ld.acquire.cluster.global",
        "ld.acquire.gpu.global",
        "ld.acquire.sys.global",
        "ld.mmio.relaxed.sys.global",
        "ld.global.L1::no_allocate",
        "ld.global.L1::evict_first",
        "ld.global.L1::evict_last",
        "ld.global.L1::evict_unchanged",
        "ld.global.L1::evict_normal",
        "ld.global.L2::64B",
        "ld.global.L2::128B",
        "ld.global.L2::256B",
        "ld.global.nc.L1::no_allocate.L2::256B",
        "ld.relaxed.gpu.global.L1::no_allocate",
        "ld.relaxed.gpu",
        "ld.acquire.sys",
        "ld.volatile",
        "ldu.global",
    ] {
        let out = rig(&format!(
            "mad.wide.u32 %rd0, %t, 4, %b0;\n {opcode}.u32 %r0, [%rd0];\n st.global.u32 [%at], %r0;"
        ))
        .numbers(0..32)
        .out();
        assert_eq!(out, lanes(|i| i), "{opcode}");
    }
    for opcode in [
        "st.global.wb",
        "st.global.cg",
        "st.global.cs",
        "st.global.wt",
        "st.weak.global",
        "st.volatile.global",
        "st.relaxed.cta.global",
        "st.relaxed.cluster.global",
        "st.relaxed.gpu.global",
        "st.relaxed.sys.global",
        "st.release.cta.global",
        "st.release.cluster.global",
        "st.release.gpu.global",
        "st.release.sys.global",
        "st.mmio.relaxed.sys.global",
        "st.global.L1::no_allocate",
        "st.global.L1::evict_first",
        "st.release.gpu",
        "st.volatile",
    ] {
        let out = rig(&format!("{opcode}.u32 [%at], %t;")).out();
        assert_eq!(out, lanes(|i| i), "{opcode}");
    }
    for (store, load) in [
        ("st.volatile.shared", "ld.volatile.shared"),
        ("st.relaxed.cta.shared", "ld.relaxed.cta.shared"),
        ("st.release.cta.shared::cta", "ld.acquire.cta.shared::cta"),
        ("st.weak.shared", "ld.weak.shared"),
    ] {
        let out = rig(&format!(
            "mov.u32 %r0, smem;\n mad.lo.u32 %r0, %t, 4, %r0;\n {store}.u32 [%r0], %t;\n {load}.u32 %r1, [%r0];
            st.global.u32 [%at], %r1;"
        ))
        .out();
        assert_eq!(out, lanes(|i| i), "{store}, {load}");
    }
    let policies = [
        "createpolicy.fractional.L2::evict_last.b64 %rd5, 1.0;",
        "createpolicy.fractional.L2::evict_first.L2::evict_unchanged.b64 %rd5, 0.5;",
        "createpolicy.range.global.L2::evict_last.L2::evict_first.b64 %rd5, [%b0], 64, 128;",
        "mov.b64 %rd5, 0x12f0000000000000;",
    ];
    for policy in policies {
        let out = rig(&format!(
            "mad.wide.u32 %rd0, %t, 4, %b0;
            {policy}
            ld.global.nc.L1::no_allocate.L2::cache_hint.u32 %r0, [%rd0], %rd5;
            ld.global.L1::evict_last.L2::cache_hint.u32 %r1, [%rd0], %rd5;
            add.u32 %r0, %r0, %r1;
            st.global.L2::cache_hint.u32 [%at], %r0, %rd5;
            atom.global.add.L2::cache_hint.u32 %r2, [%at], 1, %rd5;
            red.global.add.L2::cache_hint.u32 [%at], %r2, %rd5;"
        ))
        .numbers(0..32)
        .out();
        assert_eq!(out, lanes(|i| 4 * i + 1), "{policy}");
    }
}

#[test]
fn fences_prefetches_and_grid_control_are_accepted() {
    let accepted = "fence.sc.cta; fence.sc.cluster; fence.sc.gpu; fence.sc.sys;
        fence.acq_rel.cta; fence.acq_rel.cluster; fence.acq_rel.gpu; fence.acq_rel.sys;
        membar.cta; membar.gl; membar.sys;
        fence.proxy.alias; fence.proxy.async; fence.proxy.async.global; fence.proxy.async.shared::cta;
        fence.proxy.async.shared::cluster; fence.mbarrier_init.release.cluster;
        prefetch.global.L1 [%b0]; prefetch.global.L2 [%b0]; prefetch.L1 [%b0]; prefetch.global.L2::evict_last [%b0];
        prefetchu.L1 [%b0]; applypriority.global.L2::evict_normal [%b0], 128;
        griddepcontrol.launch_dependents; griddepcontrol.wait; nanosleep.u32 20; pmevent 3;
        st.global.u32 [%at], 3;";
    assert_eq!(rig(accepted).buffer([0; 128]).out(), lanes(|_| 3));
}

#[test]
fn discarded_lines_hold_nothing() {
    let body = "discard.global.L2 [%b0], 128;\n ld.global.u32 %r0, [%b0+AT];\n st.global.u32 [%at], %r0;";
    let wrong = rig(&body.replace("AT", "124")).buffer([7; 256]).fault("st.global");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
    assert_eq!(rig(&body.replace("AT", "128")).buffer([7; 256]).out(), lanes(|_| 0x0707_0707));
    let wrong = rig("discard.global.L2 [%b0+64], 128;").buffer([7; 256]).illegal().fault("discard");
    assert!(matches!(wrong.kind, FaultKind::Misaligned { align: 128, .. }), "{wrong}");
}

#[test]
fn addresses_know_their_space() {
    for (name, prepare, _, at) in PLACES {
        if !name.starts_with("generic") {
            continue;
        }
        let rest = format!(
            "mov.u32 %r0, 0;
            isspacep.global %p0, {at};
            @%p0 add.u32 %r0, %r0, 1;
            isspacep.shared %p1, {at};
            @%p1 add.u32 %r0, %r0, 10;
            isspacep.shared::cta %p2, {at};
            @%p2 add.u32 %r0, %r0, 100;
            isspacep.local %p3, {at};
            @%p3 add.u32 %r0, %r0, 1000;
            isspacep.param::entry %p4, {at};
            @%p4 add.u32 %r0, %r0, 10000;
            st.global.u32 [%rd11], %r0;"
        );
        let out = in_place(prepare, &rest).out();
        let want = match name {
            "generic global" => 1,
            "generic shared" => 110,
            _ => 1000,
        };
        assert_eq!(out[0], want, "{name}");
    }
    let out = rig("mov.b64 %rd0, out_ptr;
        cvta.param.u64 %rd0, %rd0;
        isspacep.param::entry %p0, %rd0;
        isspacep.shared %p1, %rd0;
        selp.u32 %r0, 1, 0, %p0;
        @%p1 mov.u32 %r0, 2;
        st.global.u32 [%at], %r0;")
    .out();
    assert_eq!(out, lanes(|_| 1));
}

#[test]
fn accesses_outside_are_faults() {
    let bounds = |body: &str, culprit: &str, space: &str, lane: u32| {
        let wrong = rig(body).buffer([0; 64]).module(".global .b32 few[2];").fault(culprit);
        assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: s, .. } if s == space), "{wrong}");
        assert_eq!(wrong.lane, Some(lane), "{wrong}");
    };
    bounds("mad.wide.u32 %rd0, %t, 4, %b0;\n ld.global.u32 %r0, [%rd0];", "ld.global", "global", 16);
    bounds(
        "mad.wide.u32 %rd0, %t, 4, %b0;\n st.global.u32 [%rd0], %t;",
        "st.global.u32 [%rd0]",
        "global",
        16,
    );
    bounds(
        "mad.wide.u32 %rd0, %t, 8, %b0;\n ld.global.v2.u32 {%r0, %r1}, [%rd0];",
        "ld.global.v2",
        "global",
        8,
    );
    bounds("mad.wide.u32 %rd0, %t, 4, %b0;\n red.global.add.u32 [%rd0], 1;", "red.global", "global", 16);
    bounds("ld.global.u8 %r0, [%b0+-1];", "ld.global.u8", "global", 0);
    bounds("mov.u64 %rd0, 0;\n ld.u32 %r0, [%rd0];", "ld.u32", "global", 0);
    bounds(
        "mov.u32 %r0, smem;\n mad.lo.u32 %r0, %t, 1060, %r0;\n st.shared.u32 [%r0], 1;",
        "st.shared",
        "shared",
        31,
    );
    bounds("mov.u32 %r0, 0;\n ld.shared.u32 %r1, [%r0];", "ld.shared", "shared", 0);
    bounds(
        ".local .align 4 .b8 own[8];\n mov.u64 %rd0, own;\n st.local.u32 [%rd0+8], 1;",
        "st.local",
        "local",
        0,
    );
    bounds("ld.global.u32 %r0, [few+8];", "ld.global", "global", 0);
}

#[test]
fn crooked_addresses_are_faults() {
    for (access, align) in [
        ("ld.global.u16 %r0, [%b0+1];", 2),
        ("ld.global.u32 %r0, [%b0+2];", 4),
        ("ld.global.u64 %rd0, [%b0+4];", 8),
        ("ld.global.v2.u32 {%r0, %r1}, [%b0+4];", 8),
        ("ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%b0+8];", 16),
        ("ld.global.v4.u8 {%r0, %r1, %r2, %r3}, [%b0+2];", 4),
        ("st.global.u16 [%b0+1], %h0;", 2),
        ("st.shared.u32 [smem+2], %t;", 4),
        ("st.shared.v4.u32 [smem+8], {%t, %t, %t, %t};", 16),
        ("atom.global.add.u32 %r0, [%b0+2], 1;", 4),
        ("atom.shared.add.u64 %rd0, [smem+4], 1;", 8),
        ("red.global.add.u64 [%b0+4], 1;", 8),
    ] {
        let wrong = rig(access).buffer([0; 64]).illegal().fault(access);
        assert!(
            matches!(wrong.kind, FaultKind::Misaligned { align: a, .. } if a == align),
            "{access}: {wrong}"
        );
    }
}

#[test]
fn undefined_data_may_be_copied_but_not_used() {
    for (culprit, body, used_as) in [
        ("st.global", "st.global.u32 [%at], %r5;", "a value stored to global memory"),
        ("ld.shared.u32 %r1, [%r5]", "ld.shared.u32 %r1, [%r5];", "an address"),
        (
            "st.global",
            "ld.shared.u32 %r1, [smem];\n st.global.u32 [%at], %r1;",
            "a value stored to global memory",
        ),
        (
            "st.global",
            "st.shared.u16 [smem], %h1;\n ld.shared.u8 %r1, [smem+1];\n st.global.u8 [%at], %r1;",
            "a value stored to global memory",
        ),
        ("red.global", "red.global.add.u32 [%at], %r5;", "an atomic's operand"),
        ("atom.shared", "atom.shared.add.u32 %r0, [smem], 1;", "an atomic's memory operand"),
        (
            "st.global",
            ".local .b32 own;\n ld.local.u32 %r1, [own];\n st.global.u32 [%at], %r1;",
            "a value stored to global memory",
        ),
    ] {
        let wrong = rig(body).fault(culprit);
        assert_eq!(wrong.kind, FaultKind::Uninitialised { used_as }, "{body}");
    }
    // Copied to shared memory and back, the defined half may be used.
    let out = rig("mov.u16 %h0, 7;
        mov.b32 %r0, {%h0, %h9};
        st.shared.u32 [smem], %r0;
        ld.shared.u32 %r1, [smem];
        ld.shared.u16 %r2, [smem];
        and.b32 %r1, %r1, 0xffff;
        add.u32 %r1, %r1, %r2;
        st.global.u32 [%at], %r1;")
    .out();
    assert_eq!(out, lanes(|_| 14));
}
