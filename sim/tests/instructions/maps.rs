//! `tensormap`: maps that a kernel writes itself, in shared and in global memory.

use crate::rig::{Rig, rig, schedules};
use narrowgauge_sim::FaultKind;

const WIDTH: u32 = 48;
const HEIGHT: u32 = 20;

/// Word `x + 48 y` of the tensor.
fn word(at: u32) -> u32 {
    at.wrapping_mul(0x9e37_79b1)
}

/// Makes a map of 48 × 20 words, 8 × 4 of them a box, swizzled over 32 bytes, in shared memory, copies it to a buffer and
/// loads the box at (40, 18), half of which lies below the tensor.
fn made_in_shared_memory() -> Rig {
    rig("mov.u32 %r0, smem;
        mov.u64 %rd1, smem;
        mad.lo.u32 %r1, %t, 4, %r0;
        st.shared.u32 [%r1], 0;
        setp.eq.u32 %p0, %t, 0;
        @%p0 mbarrier.init.shared::cta.b64 [%r0+2048], 1;
        fence.mbarrier_init.release.cluster;
        bar.sync 0;
        mov.u32 %r2, 8;
        mov.u64 %rd2, 192;
        @!%p0 bra COPY;
        tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%rd1], %b0;
        tensormap.replace.tile.rank.shared::cta.b1024.b32 [%rd1], 1;
        tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%rd1], 0, %r2;
        tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%rd1], 1, 4;
        tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%rd1], 0, 48;
        tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%rd1], 1, 20;
        tensormap.replace.tile.global_stride.shared::cta.b1024.b64 [%rd1], 0, %rd2;
        tensormap.replace.tile.element_stride.shared::cta.b1024.b32 [%rd1], 0, 1;
        tensormap.replace.tile.element_stride.shared::cta.b1024.b32 [%rd1], 1, 1;
        tensormap.replace.tile.elemtype.shared::cta.b1024.b32 [%rd1], 2;
        tensormap.replace.tile.interleave_layout.shared::cta.b1024.b32 [%rd1], 0;
        tensormap.replace.tile.swizzle_mode.shared::cta.b1024.b32 [%rd1], 1;
        tensormap.replace.tile.fill_mode.shared::cta.b1024.b32 [%rd1], 0;
    COPY:
        bar.warp.sync 0xffffffff;
        tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%b1], [%rd1], 128;
        fence.proxy.tensormap::generic.acquire.gpu [%b1], 128;
        bar.sync 0;
        add.u32 %r3, %r0, 1024;
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0+2048], 128;
        @%p0 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r3], [%b1, {40, 18}], [%r0+2048];
    WAIT:
        mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r0+2048], 0;
        @!%p1 bra WAIT;
        mad.lo.u32 %r4, %t, 4, %r3;
        ld.shared.u32 %r5, [%r4];
        st.global.u32 [%at], %r5;")
    .buffer((0..WIDTH * HEIGHT).flat_map(|i| word(i).to_le_bytes()).collect::<Vec<u8>>())
    .buffer(vec![0u8; 128])
}

#[test]
fn a_map_made_in_shared_memory_is_used_from_global_memory() {
    for schedule in schedules() {
        let out = made_in_shared_memory().schedule(schedule).out();
        for (i, got) in out.into_iter().enumerate() {
            // Rows of 32 bytes: every fourth swaps its two chunks of 16 bytes, of which the box has only the first rows.
            let (x, y) = (i as u32 % 8, i as u32 / 8);
            let want = if y < 2 { word(40 + x + WIDTH * (18 + y)) } else { 0 };
            assert_eq!(got, want, "({x}, {y})");
        }
    }
}

#[test]
fn a_global_map_changes_in_place() {
    let change = "tensormap.replace.tile.global_dim.global.b1024.b32 [%b1], 0, 44;";
    let more = format!(
        "bar.sync 0;\n @%p0 {change}\n fence.proxy.tensormap::generic.release.gpu;\n \
         fence.proxy.tensormap::generic.acquire.gpu [%b1], 128;\n bar.sync 0;\n add.u32 %r3, %r0, 1024;"
    );
    let out = made_in_shared_memory().edit("bar.sync 0;\n        add.u32 %r3, %r0, 1024;", &more).out();
    for (i, got) in out.into_iter().enumerate() {
        let (x, y) = (i as u32 % 8, i as u32 / 8);
        // The tensor now ends four words earlier.
        assert_eq!(got, if y < 2 && x < 4 { word(40 + x + WIDTH * (18 + y)) } else { 0 }, "({x}, {y})");
    }
}

#[test]
fn what_is_wrong_with_a_map_shows() {
    let wrong = made_in_shared_memory()
        .edit("tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%rd1], 0, %r2;", "add.u32 %r2, %r2, 0;")
        .fault("cp.async.bulk.tensor");
    assert!(matches!(wrong.kind, FaultKind::Descriptor(ref what) if what.contains("tile[0]")), "{wrong}");
    let wrong = made_in_shared_memory().edit("st.shared.u32 [%r1], 0;", "st.shared.u32 [%r1], 3;");
    let wrong = wrong.fault("global_address");
    assert!(
        matches!(wrong.kind, FaultKind::Descriptor(ref what) if what.contains("not a tensor map")),
        "{wrong}"
    );
    let wrong = made_in_shared_memory().edit("st.shared.u32 [%r1], 0;", "");
    assert!(matches!(
        wrong.fault("global_address").kind,
        FaultKind::Uninitialised { used_as: "a tensor map" }
    ));
}
