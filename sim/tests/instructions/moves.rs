//! Moves, packing, addresses and special registers.

use crate::table::{check, results, singles};
use crate::{fault, run};
use narrowgauge_sim::{FaultKind, InFlight, Schedule};

const VALUES: [u64; 3] = [0, 0x8877_6655_4433_2211, u64::MAX];

#[test]
fn plain_moves() {
    let rows = singles(&VALUES);
    for (ty, d, a, mask) in [
        ("b16", "%h0", "%b0", 0xffff),
        ("u16", "%h0", "%b0", 0xffff),
        ("b32", "%r0", "%a0", 0xffff_ffff),
        ("u32", "%r0", "%a0", 0xffff_ffff),
        ("f32", "%r0", "%a0", 0xffff_ffff),
        ("b64", "%rd0", "%w0", u64::MAX),
        ("f64", "%rd0", "%w0", u64::MAX),
    ] {
        check(&format!("mov.{ty} {d}, {a}"), &rows, |[a, ..]| a & mask);
    }
    for (op, want) in [
        ("mov.u32 %r0, -2", 0xffff_fffe),
        ("mov.b16 %h0, -2", 0xfffe),
        ("mov.b64 %rd0, -2", u64::MAX - 1),
        ("mov.f32 %r0, 0f3FC00000", 0x3fc0_0000),
        ("mov.f32 %r0, 1.5", 0x3fc0_0000),
        ("mov.f64 %rd0, 0d3FF8000000000000", 0x3ff8_0000_0000_0000),
        ("mov.u32 %r0, WARP_SZ", 32),
    ] {
        assert_eq!(results(op, &[[0; 3]]), [want], "{op}");
    }
}

/// The first part is the lowest.
#[test]
fn packing_and_unpacking() {
    let x = VALUES[1];
    let row = [[x, 0xddcc_bbaa, 0]];
    for (op, want) in [
        ("mov.b64 %rd0, {%a0, %a1}", 0xddcc_bbaa_4433_2211),
        ("mov.b32 %r0, {%b0, %b1}", 0xbbaa_2211),
        ("mov.b64 %rd0, {%b0, %b1, %b0, %b1}", 0xbbaa_2211_bbaa_2211),
        ("mov.b64 {%r1, %r2}, %w0; mov.b32 %r0, %r1", 0x4433_2211),
        ("mov.b64 {%r1, %r2}, %w0; mov.b32 %r0, %r2", 0x8877_6655),
        ("mov.b64 {_, %r2}, %w0; mov.b32 %r0, %r2", 0x8877_6655),
        ("mov.b64 {%h1, %h2, %h3, %h4}, %w0; mov.b16 %h0, %h3", 0x6655),
        ("mov.b64 {%h1, %h2, %h3, %h4}, %w0; mov.b16 %h0, %h4", 0x8877),
        ("mov.b32 {%h1, %h2}, %a0; mov.b16 %h0, %h1", 0x2211),
        ("mov.b32 {%h1, %h2}, %a0; mov.b16 %h0, %h2", 0x4433),
    ] {
        assert_eq!(results(op, &row), [want], "{op}");
    }
}

#[test]
fn copying_undefined_registers_is_no_fault() {
    // The upper half is never written, and masked away before it is stored.
    let op = "mov.b32 %r5, {%h1, %h2}; mov.u16 %h3, 5; mov.b32 %r1, {%h3, %h2}; and.b32 %r0, %r1, 0xffff";
    assert_eq!(results(op, &[[0; 3]]), [5]);
}

#[test]
fn addresses() {
    // A generic address of shared memory loads what the shared address stored; `to` is the way back.
    for op in [
        "mov.u32 %r1, smem; st.shared.u32 [%r1+8], %a0; mov.u64 %rd1, smem; cvta.shared.u64 %rd2, %rd1; ld.u32 %r0, [%rd2+8]",
        "mov.u64 %rd1, smem; cvta.shared.u64 %rd2, %rd1; st.u32 [%rd2], %a0; cvta.to.shared.u64 %rd3, %rd2; ld.shared.u32 %r0, [%rd3]",
        "cvta.to.global.u64 %rd1, %in; cvta.global.u64 %rd2, %rd1; ld.u32 %r0, [%rd2]",
        "cvta.to.global.u64 %rd1, %in; ld.global.u32 %r0, [%rd1]",
        "prefetch.global.L2 [%in]; prefetch.global.L1 [%in]; prefetchu.L1 [%in]; mov.b32 %r0, %a0",
    ] {
        assert_eq!(results(op, &[[77, 0, 0]]), [77], "{op}");
    }
    for (op, want) in [
        ("mov.u64 %rd1, smem; cvta.shared.u64 %rd2, %rd1; isspacep.shared %p0, %rd2", 1),
        ("mov.u64 %rd1, smem; cvta.shared.u64 %rd2, %rd1; isspacep.shared::cta %p0, %rd2", 1),
        ("mov.u64 %rd1, smem; cvta.shared.u64 %rd2, %rd1; isspacep.global %p0, %rd2", 0),
        ("isspacep.shared %p0, %in", 0),
        ("isspacep.global %p0, %in", 1),
        ("isspacep.local %p0, %in", 0),
        (".local .b8 frame[16]; mov.u64 %rd1, frame; cvta.local.u64 %rd2, %rd1; isspacep.local %p0, %rd2", 1),
        (
            ".local .b8 frame[16]; mov.u64 %rd1, frame; cvta.local.u64 %rd2, %rd1; isspacep.shared %p0, %rd2",
            0,
        ),
    ] {
        assert_eq!(results(op, &[[0; 3]]), [want], "{op}");
    }
    let op = ".local .align 8 .b8 frame[16]; mov.u64 %rd1, frame; cvta.local.u64 %rd2, %rd1; st.u64 [%rd2+8], %w0; ld.local.u64 %rd0, [frame+8]";
    assert_eq!(results(op, &[[VALUES[1], 0, 0]]), [VALUES[1]]);
}

/// A card sees the low 32 bits of a shared address; only the compatible mode goes along with that.
#[test]
fn generic_addresses_of_shared_accesses() {
    let body = "mov.u64 %rd1, smem; cvta.shared.u64 %rd2, %rd1; st.shared.u32 [%rd2+4], %t; ld.shared.u32 %r0, [smem+4];
        st.global.u32 [%out], %r0;";
    let schedule = Schedule { in_flight: InFlight::Compatible, ..Schedule::default() };
    assert_eq!(run(body, &[[0; 3]], 1, schedule).unwrap().0, [0]);
    let wrong = fault(body, 1);
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "shared", .. }), "{wrong}");
}

#[test]
fn special_registers() {
    let all = |register: &str, threads: u32| {
        let body = format!("mov.u32 %r0, {register}; st.global.u32 [%out], %r0;");
        run(&body, &[[0; 3]], threads, Schedule::default()).unwrap().0
    };
    let lanes = |f: fn(u64) -> u64| (0..64u64).map(f).collect::<Vec<_>>();
    assert_eq!(all("%tid.x", 64), lanes(|i| i));
    assert_eq!(all("%tid.y", 64), lanes(|_| 0));
    assert_eq!(all("%ntid.x", 64), lanes(|_| 64));
    assert_eq!(all("%ctaid.x", 64), lanes(|_| 0));
    assert_eq!(all("%nctaid.x", 64), lanes(|_| 1));
    assert_eq!(all("%laneid", 64), lanes(|i| i % 32));
    assert_eq!(all("%warpid", 64), lanes(|i| i / 32));
    assert_eq!(all("%lanemask_eq", 64), lanes(|i| 1 << (i % 32)));
    assert_eq!(all("%lanemask_lt", 64), lanes(|i| (1 << (i % 32)) - 1));
    assert_eq!(all("%lanemask_le", 64), lanes(|i| (2 << (i % 32)) - 1));
    assert_eq!(all("%lanemask_gt", 64), lanes(|i| 0xffff_ffff & !((2 << (i % 32)) - 1)));
    assert_eq!(all("%lanemask_ge", 64), lanes(|i| 0xffff_ffff & !((1 << (i % 32)) - 1)));
    assert_eq!(all("%nsmid", 64), lanes(|_| 78));
    let clocks = "mov.u64 %rd1, %clock64; mov.u64 %rd2, %clock64; setp.gt.u64 %p1, %rd2, %rd1; selp.u32 %r0, 1, 0, %p1";
    assert_eq!(results(clocks, &[[0; 3]]), [1]);
    let wrong = fault("mapa.shared::cluster.u32 %r1, %t, 3; st.global.u32 [%out], %r1;", 32);
    assert!(matches!(wrong.kind, FaultKind::Cluster(ref what) if what.contains("rank 3")), "{wrong}");
}

#[test]
fn hints_change_no_value() {
    for hint in ["pmevent 3", "applypriority.global.L2::evict_normal [%in], 128"] {
        assert_eq!(
            results(&format!("{hint}; mov.b64 %rd0, %w0"), &[[VALUES[1], 0, 0]]),
            [VALUES[1]],
            "{hint}"
        );
    }
}
