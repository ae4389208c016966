//! Bulk copies that add, compare or combine, plain and tensor ones, against the table of atomic operations.

use crate::atomics::{expected, half, width};
use crate::rig::{Rig, rig, schedules};
use narrowgauge_sim::tensor_map::{Element, Swizzle, TensorMap};
use narrowgauge_sim::{FaultKind, Policy, Schedule};

const GLOBAL: [(&str, &[&str]); 8] = [
    ("add", &["u32", "s32", "u64", "f32", "f64", "noftz.f16", "noftz.bf16"]),
    ("min", &["u32", "s32", "u64", "s64", "f16", "bf16"]),
    ("max", &["u32", "s32", "u64", "s64", "f16", "bf16"]),
    ("and", &["b32", "b64"]),
    ("or", &["b32", "b64"]),
    ("xor", &["b32", "b64"]),
    ("inc", &["u32"]),
    ("dec", &["u32"]),
];

/// Old value and operand of element i, as numbers of the type.
fn operands(ty: &str, i: u64) -> (u64, u64) {
    let (a, b) = (7.0 - i as f32, 0.5 * i as f32 - 3.0);
    match ty {
        "f16" | "bf16" => (u64::from(half(ty, a)), u64::from(half(ty, b))),
        "f32" => (a.to_bits().into(), b.to_bits().into()),
        "f64" => (f64::from(a).to_bits(), f64::from(b).to_bits()),
        _ => {
            let cut = u64::MAX >> (64 - 8 * width(ty));
            let wild = |x: u64| x.wrapping_mul(0x9e37_79b9_7f4a_7c15) & cut;
            if i & 1 == 0 { (wild(i), wild(i + 1)) } else { (i % 5, i / 5) }
        }
    }
}

fn combined(op: &str, ty: &str, i: u64) -> u64 {
    let (old, new) = operands(ty, i);
    if !matches!(ty, "f16" | "bf16") {
        return expected(op, ty, old, new, 0);
    }
    let (a, b) = (7.0 - i as f32, 0.5 * i as f32 - 3.0);
    let value = match op {
        "add" => a + b,
        "min" => a.min(b),
        _ => a.max(b),
    };
    half(ty, value).into()
}

fn bytes(ty: &str, count: u64, f: impl Fn(u64) -> u64) -> Vec<u8> {
    (0..count).flat_map(|i| f(i).to_le_bytes()[..width(ty) as usize].to_vec()).collect()
}

/// All threads bring 256 bytes of the second buffer to `smem`; thread 0 does `copy` and what follows it.
fn from_shared(copy: &str) -> Rig {
    rig(&format!(
        "mov.u32 %r0, smem;
        mad.wide.u32 %rd0, %t, 8, %b1;
        ld.global.u64 %rd1, [%rd0];
        mad.lo.u32 %r1, %t, 8, %r0;
        st.shared.u64 [%r1], %rd1;
        fence.proxy.async.shared::cta;
        bar.sync 0;
        setp.ne.u32 %p0, %t, 0;
        @%p0 exit;
        {copy}
        cp.async.bulk.commit_group;
        cp.async.bulk.wait_group 0;"
    ))
}

#[test]
fn plain_reductions_into_global_memory() {
    for (op, types) in GLOBAL {
        for &spelled in types {
            let ty = spelled.trim_start_matches("noftz.");
            let count = 256 / u64::from(width(ty));
            let copy = format!(
                "cp.reduce.async.bulk.global.shared::cta.bulk_group.{op}.{spelled} [%b0], [%r0], 256;"
            );
            for schedule in schedules().take(3) {
                let ran = from_shared(&copy)
                    .buffer(bytes(ty, count, |i| operands(ty, i).0))
                    .buffer(bytes(ty, count, |i| operands(ty, i).1))
                    .schedule(schedule)
                    .run()
                    .unwrap();
                assert_eq!(
                    ran.buffers[0],
                    bytes(ty, count, |i| combined(op, ty, i)),
                    "{op}.{spelled} under {schedule:?}"
                );
            }
        }
    }
    let hinted =
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.L2::cache_hint.add.u32 [%b0], [%r0], 256, %rd5;";
    let hinted = format!("createpolicy.fractional.L2::evict_first.b64 %rd5, 1.0;\n {hinted}");
    let ran = from_shared(&hinted).buffer(vec![0; 256]).buffer(vec![1; 256]).run().unwrap();
    assert_eq!(ran.buffers[0], [1; 256]);
}

#[test]
fn plain_reductions_into_shared_memory_count_on_a_barrier() {
    for (op, ty) in [
        ("add", "u32"),
        ("add", "s32"),
        ("add", "u64"),
        ("min", "s32"),
        ("min", "u32"),
        ("max", "s32"),
        ("max", "u32"),
        ("inc", "u32"),
        ("dec", "u32"),
        ("and", "b32"),
        ("or", "b32"),
        ("xor", "b32"),
    ] {
        let count = 256 / u64::from(width(ty));
        let body = format!(
            "mov.u32 %r0, smem;
            setp.eq.u32 %p0, %t, 0;
            @%p0 mbarrier.init.shared::cta.b64 [%r0+1024], 1;
            mad.wide.u32 %rd0, %t, 8, %b0;
            ld.global.u64 %rd1, [%rd0];
            mad.wide.u32 %rd0, %t, 8, %b1;
            ld.global.u64 %rd2, [%rd0];
            mad.lo.u32 %r1, %t, 8, %r0;
            st.shared.u64 [%r1], %rd2;
            st.shared.u64 [%r1+512], %rd1;
            fence.mbarrier_init.release.cluster;
            fence.proxy.async.shared::cta;
            bar.sync 0;
            @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0+1024], 256;
            mov.u32 %r5, 256;
            add.u32 %r6, %r0, 512;
            add.u32 %r7, %r0, 1024;
            @%p0 cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.{op}.{ty} [%r6], [%r0], %r5, [%r7];
        WAIT:
            mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r7], 0;
            @!%p1 bra WAIT;
            ld.shared.u64 %rd3, [%r1+512];
            mad.wide.u32 %rd4, %t, 8, %out;
            st.global.u64 [%rd4], %rd3;"
        );
        for schedule in schedules().take(3) {
            let out = rig(&body)
                .buffer(bytes(ty, count, |i| operands(ty, i).0))
                .buffer(bytes(ty, count, |i| operands(ty, i).1))
                .words(64)
                .schedule(schedule)
                .out();
            let got: Vec<u8> = out.into_iter().flat_map(u32::to_le_bytes).collect();
            assert_eq!(got, bytes(ty, count, |i| combined(op, ty, i)), "{op}.{ty} under {schedule:?}");
        }
    }
}

#[test]
fn tensor_reductions_touch_what_lies_inside() {
    for (op, element, ty) in [
        ("add", Element::U32, "u32"),
        ("add", Element::I32, "s32"),
        ("add", Element::U64, "u64"),
        ("add", Element::F32, "f32"),
        ("add", Element::F16, "f16"),
        ("add", Element::Bf16, "bf16"),
        ("min", Element::I32, "s32"),
        ("max", Element::I64, "s64"),
        ("min", Element::F16, "f16"),
        ("max", Element::Bf16, "bf16"),
        ("inc", Element::U32, "u32"),
        ("dec", Element::U32, "u32"),
        ("and", Element::U32, "b32"),
        ("or", Element::U64, "b64"),
        ("xor", Element::I32, "b32"),
    ] {
        // A box of 8 rows of 32 bytes in a tensor of 6 rows: two overhang.
        let per_row = 32 / u64::from(width(ty));
        let copy = format!(
            "cp.reduce.async.bulk.tensor.2d.global.shared::cta.{op}.tile.bulk_group [%m0, {{0, 0}}], [%r0];"
        );
        for schedule in schedules().take(3) {
            let ran = from_shared(&copy)
                .buffer(bytes(ty, 8 * per_row, |i| operands(ty, i).0))
                .buffer(bytes(ty, 8 * per_row, |i| operands(ty, i).1))
                .map(move |buffers| TensorMap {
                    element,
                    address: buffers[0],
                    extents: vec![per_row, 6],
                    strides: vec![32],
                    tile: vec![per_row as u32, 8],
                    element_strides: vec![1, 1],
                    swizzle: Swizzle::None,
                    nan_fill: false,
                })
                .schedule(schedule)
                .run()
                .unwrap();
            let want =
                bytes(
                    ty,
                    8 * per_row,
                    |i| {
                        if i < 6 * per_row { combined(op, ty, i) } else { operands(ty, i).0 }
                    },
                );
            assert_eq!(ran.buffers[0], want, "{op} of {element:?} under {schedule:?}");
        }
    }
}

#[test]
fn reductions_wait_like_stores() {
    let copy = "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%b0], [%r0], 256;";
    let late = Schedule::with(Policy::Late, 0);
    let twice = from_shared(&format!("{copy}\n cp.async.bulk.commit_group;\n {copy}"))
        .numbers(vec![100; 64])
        .numbers(vec![5; 64]);
    let ran = twice.schedule(late).run().unwrap();
    assert_eq!(ran.buffers[0], [110, 0, 0, 0].repeat(64));
    let open = twice.edit("cp.async.bulk.wait_group 0;", "cp.async.bulk.wait_group.read 0;\n ld.global.u32 %r3, [%b0];\n st.global.u32 [%out], %r3;\n cp.async.bulk.wait_group 0;");
    let unchecked = Schedule { races: false, ..late };
    assert_eq!(open.schedule(unchecked).out()[0], 100);
}

#[test]
fn wrong_reductions_are_refused() {
    for wrong in [
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.s64 [%b0], [%r0], 16;",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f16 [%b0], [%r0], 16;",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.inc.u64 [%b0], [%r0], 16;",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.max.f32 [%b0], [%r0], 16;",
        "cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.f32 [%r0], [%r0], %r1, [%r0];",
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.mul.tile.bulk_group [%m0, {0, 0}], [%r0];",
    ] {
        let error = rig(wrong).numbers([0]).illegal().load().unwrap_err();
        assert!(error.what.contains("cp.reduce.async.bulk"), "{error}");
    }
    let map = |element| {
        move |buffers: &[u64]| TensorMap {
            element,
            address: buffers[0],
            extents: vec![16, 4],
            strides: vec![64],
            tile: vec![16, 4],
            element_strides: vec![1, 1],
            swizzle: Swizzle::None,
            nan_fill: false,
        }
    };
    for (op, element) in
        [("add", Element::U8), ("inc", Element::I32), ("min", Element::F32), ("and", Element::F16)]
    {
        let copy = format!(
            "cp.reduce.async.bulk.tensor.2d.global.shared::cta.{op}.bulk_group [%m0, {{0, 0}}], [%r0];"
        );
        let wrong =
            from_shared(&copy).buffer(vec![0; 256]).buffer(vec![0; 256]).map(map(element)).fault("cp.reduce");
        assert!(matches!(wrong.kind, FaultKind::Descriptor(ref what) if what.contains(op)), "{wrong}");
    }
    let copy = "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%b0+8], [%r0], 16;";
    let wrong = from_shared(copy).buffer(vec![0; 256]).buffer(vec![0; 256]).fault("cp.reduce");
    assert!(matches!(wrong.kind, FaultKind::Misaligned { align: 16, .. }), "{wrong}");
}
