//! ldmatrix and stmatrix: which lane holds which element, from the ISA's tables.

use crate::rig::{Rig, rig};
use narrowgauge_sim::FaultKind;

/// Element c of row r of matrix j.
fn element(j: u32, r: u32, c: u32) -> u32 {
    0x1000 * (j + 1) + 16 * r + c
}

/// Two neighbouring elements in one register: `lane` holds (lane / 4, 2 · (lane mod 4)) and the one to its right, or of
/// the transposed matrix those.
fn fragment(j: u32, lane: u32, trans: bool) -> u32 {
    let (r, c) = (lane / 4, 2 * (lane % 4));
    if trans {
        element(j, c, r) | element(j, c + 1, r) << 16
    } else {
        element(j, r, c) | element(j, r, c + 1) << 16
    }
}

/// Row r of matrix j lies at 16-byte slot 5·(8j + r) mod 32: neighbours are apart.
fn slot(row: u32) -> u32 {
    5 * row % 32
}

/// Fills `smem` with all four matrices; %r0 is then the lane's row address, %r10 to %r13 a fragment of each matrix.
fn prepare(body: &str) -> Rig {
    let mut image = vec![0u32; 128];
    let mut fragments = Vec::new();
    for row in 0..32 {
        for pair in 0..4 {
            let (j, r) = (row / 8, row % 8);
            image[(4 * slot(row) + pair) as usize] =
                element(j, r, 2 * pair) | element(j, r, 2 * pair + 1) << 16;
        }
    }
    for lane in 0..32 {
        fragments.extend((0..4).map(|j| fragment(j, lane, false)));
    }
    rig(&format!(
        "mov.u32 %r1, smem;
        mad.wide.u32 %rd0, %t, 16, %b0;
        ld.global.v4.u32 {{%r2, %r3, %r4, %r5}}, [%rd0];
        mad.lo.u32 %r6, %t, 16, %r1;
        PUT
        mad.wide.u32 %rd1, %t, 16, %b1;
        ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd1];
        mul.lo.u32 %r0, %t, 5;
        and.b32 %r0, %r0, 31;
        mad.lo.u32 %r0, %r0, 16, %r1;
        mad.wide.u32 %rd2, %t, 16, %out;
        bar.warp.sync -1;
        {body}"
    ))
    .numbers(image)
    .numbers(fragments)
    .words(128)
}

const FORMS: [(&str, u32, bool); 6] = [
    ("x1", 1, false),
    ("x2", 2, false),
    ("x4", 4, false),
    ("x1.trans", 1, true),
    ("x2.trans", 2, true),
    ("x4.trans", 4, true),
];

fn list(count: u32, from: u32) -> String {
    let names: Vec<String> = (0..count).map(|i| format!("%r{}", from + i)).collect();
    format!("{{{}}}", names.join(", "))
}

#[test]
fn ldmatrix_gives_every_lane_its_elements() {
    for (form, count, trans) in FORMS {
        for space in ["shared", "shared::cta"] {
            let out = prepare(&format!(
                "mov.u32 %r20, 0;\n mov.u32 %r21, 0;\n mov.u32 %r22, 0;\n mov.u32 %r23, 0;
                ldmatrix.sync.aligned.m8n8.{form}.{space}.b16 {}, [%r0];
                st.global.v4.u32 [%rd2], {{%r20, %r21, %r22, %r23}};",
                list(count, 20)
            ))
            .edit("PUT", "st.shared.v4.u32 [%r6], {%r2, %r3, %r4, %r5};")
            .out();
            for lane in 0..32 {
                for j in 0..4 {
                    let want = if j < count { fragment(j, lane, trans) } else { 0 };
                    assert_eq!(out[(4 * lane + j) as usize], want, "{form}, register {j} of lane {lane}");
                }
            }
        }
    }
}

#[test]
fn stmatrix_writes_what_ldmatrix_reads() {
    for (form, count, trans) in FORMS {
        // Registers hold the fragments of the matrices as they are; stored transposed, element (r, c) is at (c, r).
        let out = prepare(&format!(
            "stmatrix.sync.aligned.m8n8.{form}.shared.b16 [%r0], {};
            bar.warp.sync -1;
            ld.shared.v4.u32 {{%r20, %r21, %r22, %r23}}, [%r6];
            st.global.v4.u32 [%rd2], {{%r20, %r21, %r22, %r23}};",
            list(count, 10)
        ))
        .edit("PUT", "mov.u32 %r7, 0;\n st.shared.v4.u32 [%r6], {%r7, %r7, %r7, %r7};")
        .out();
        for row in 0..32 {
            for pair in 0..4 {
                let (j, r, c) = (row / 8, row % 8, 2 * pair);
                let value = |c| if trans { element(j, c, r) } else { element(j, r, c) };
                let want = if j < count { value(c) | value(c + 1) << 16 } else { 0 };
                assert_eq!(out[(4 * slot(row) + pair) as usize], want, "{form}, row {r} of matrix {j}");
            }
        }
    }
}

#[test]
fn surplus_addresses_are_ignored_and_the_others_are_checked() {
    let single = "setp.gt.u32 %p0, %t, 7;\n @%p0 mov.u32 %r0, 3;
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r20}, [%r0];
        mov.u32 %r21, 0;\n st.global.v4.u32 [%rd2], {%r20, %r21, %r21, %r21};";
    let put = |rig: Rig| rig.edit("PUT", "st.shared.v4.u32 [%r6], {%r2, %r3, %r4, %r5};");
    assert_eq!(put(prepare(single)).out()[4], fragment(0, 1, false));
    let wrong = put(prepare(&single.replace("%t, 7;", "%t, 6;"))).fault("ldmatrix");
    assert_eq!((wrong.lane, wrong.kind), (Some(7), FaultKind::Misaligned { address: 3, align: 16 }));
    let wrong = put(prepare("setp.eq.u32 %p0, %t, 9;\n @%p0 bra END;\n ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r20, %r21}, [%r0];\n END:"))
        .fault("ldmatrix");
    assert_eq!(wrong.kind, FaultKind::Divergence { present: !0x200, wanted: u32::MAX });
    let wrong = put(prepare("add.u32 %r0, %r0, 32768;\n stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r0], {%r10, %r11, %r12, %r13};"))
        .fault("stmatrix");
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "shared", bytes: 16, .. }), "{wrong}");
    // What was never written stays undefined through the transfer.
    let wrong =
        prepare("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r20}, [%r0];\n st.global.u32 [%at], %r20;")
            .edit("PUT", "")
            .fault("st.global");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
}
