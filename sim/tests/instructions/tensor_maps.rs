//! tensormap.replace, its fence, and what happens without it.

use crate::rig::{Rig, rig, schedules};
use narrowgauge_sim::FaultKind;
use narrowgauge_sim::tensor_map::{Element, Swizzle, TensorMap};

/// Sixteen by sixteen words, word i being i, loaded through a map that `edit` has made out of another; the other map
/// is copied from the parameter to the second buffer (global) and to `smem` first.
fn edited(edit: &str) -> Rig {
    rig(&format!(
        "mov.u32 %r0, smem;
        mad.lo.u32 %r1, %t, 4, %r0;
        cvt.u64.u32 %rd0, %t;
        mad.wide.u32 %rd0, %t, 4, %m0;
        ld.u32 %r2, [%rd0];
        st.shared.u32 [%r1], %r2;
        mad.wide.u32 %rd1, %t, 4, %b1;
        st.global.u32 [%rd1], %r2;
        setp.eq.u32 %p0, %t, 0;
        @%p0 mbarrier.init.shared::cta.b64 [%r0+512], 1;
        fence.mbarrier_init.release.cluster;
        bar.sync 0;
        {edit}
        bar.sync 0;
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0+512], 256;
        @%p0 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r0+1024], [%b1, {{0, 0}}], [%r0+512];
    WAIT:
        mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r0+512], 0;
        @!%p1 bra WAIT;
        ld.shared.u32 %r3, [%r1+1024];
        ld.shared.u32 %r4, [%r1+1152];
        st.global.u32 [%at], %r3;
        st.global.u32 [%at+128], %r4;"
    ))
    .words(64)
    .numbers(0..512)
    .buffer(vec![0; 128])
    .map(map)
}

fn map(buffers: &[u64]) -> TensorMap {
    TensorMap {
        element: Element::U32,
        address: buffers[0],
        extents: vec![16, 16],
        strides: vec![64],
        tile: vec![8, 8],
        element_strides: vec![1, 1],
        swizzle: Swizzle::None,
        nan_fill: false,
    }
}

/// The 64 words of a box: row r, column c is at `64·r + c` of a pitch of 64 bytes.
fn words(f: impl Fn(u32, u32) -> u32) -> Vec<u32> {
    (0..64).map(|i| f(i / 8, i % 8)).collect()
}

const ACQUIRE: &str = "@%p0 fence.proxy.tensormap::generic.acquire.gpu [%b1], 128;";

#[test]
fn fields_are_replaced() {
    let plain = |r: u32, c: u32| 16 * r + c;
    let replace = |lines: &str| {
        let lines: String =
            lines.lines().map(|l| format!("@%p0 tensormap.replace.tile.{}\n", l.trim())).collect();
        edited(&format!("{lines}@%p0 fence.proxy.tensormap::generic.release.gpu;\n{ACQUIRE}"))
    };
    for schedule in schedules().take(3) {
        let out = |lines: &str| replace(lines).schedule(schedule).out();
        assert_eq!(out("rank.global.b1024.b32 [%b1], 1;"), words(plain));
        let moved = replace("global_address.global.b1024.b64 [%b1], %rd9;").edit(
            "bar.sync 0;\n        @%p0 tensormap",
            "bar.sync 0;\n add.u64 %rd9, %b0, 256;\n @%p0 tensormap",
        );
        assert_eq!(moved.schedule(schedule).out(), words(|r, c| plain(r, c) + 64));
        let strided = replace("global_stride.b1024.b64 [%b1], 0, %rd9;")
            .edit("bar.sync 0;\n        @%p0 tensormap", "bar.sync 0;\n mov.u64 %rd9, 128;\n @%p0 tensormap");
        assert_eq!(strided.schedule(schedule).out(), words(|r, c| 32 * r + c));
        let short = "global_dim.global.b1024.b32 [%b1], 1, 5;\n global_dim.global.b1024.b32 [%b1], 0, 6;";
        assert_eq!(out(short), words(|r, c| if r < 5 && c < 6 { plain(r, c) } else { 0 }));
        let wide = "box_dim.global.b1024.b32 [%b1], 0, 16;\n box_dim.global.b1024.b32 [%b1], 1, 4;";
        assert_eq!(out(wide), (0..64).collect::<Vec<_>>());
        let steps = "element_stride.global.b1024.b32 [%b1], 1, 2;\n box_dim.global.b1024.b32 [%b1], 1, 16;";
        assert_eq!(out(steps), words(|r, c| 32 * r + c));
        // Rows of 32 bytes, four to a row of the pattern: the two 16-byte chunks of odd pattern rows change places.
        let swizzled = out("swizzle_mode.global.b1024.b32 [%b1], 1;");
        assert_eq!(swizzled, words(|r, c| plain(r, if r / 4 % 2 == 1 { c ^ 4 } else { c })));
        let filled = "elemtype.global.b1024.b32 [%b1], 7;\n fill_mode.global.b1024.b32 [%b1], 1;\n global_dim.global.b1024.b32 [%b1], 1, 3;";
        assert_eq!(out(filled), words(|r, c| if r < 3 { plain(r, c) } else { 0x7fff_ffff }));
        assert_eq!(out("interleave_layout.global.b1024.b32 [%b1], 0;"), words(plain));
    }
}

#[test]
fn a_map_is_changed_in_shared_memory_and_published() {
    let edit = format!(
        "@%p0 tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%r0], 1, 2;
        bar.warp.sync -1;
        tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%b1], [%r0], 128;
        {ACQUIRE}"
    );
    for schedule in schedules().take(3) {
        let out = edited(&edit).schedule(schedule).out();
        assert_eq!(out, words(|r, c| if r < 2 { 16 * r + c } else { 0 }));
    }
    let wrong = edited(&edit.replace(ACQUIRE, "")).fault("cp.async.bulk.tensor");
    assert!(wrong.to_string().contains("no fence.proxy.tensormap acquired it"), "{wrong}");
}

#[test]
fn a_change_without_its_fence_is_a_fault() {
    let replace = "@%p0 tensormap.replace.tile.box_dim.global.b1024.b32 [%b1], 1, 8;";
    let wrong = edited(replace).fault("cp.async.bulk.tensor");
    assert!(
        matches!(wrong.kind, FaultKind::Descriptor(ref what) if what.contains("fence.proxy.tensormap")),
        "{wrong}"
    );
    // Ordinary stores over a map that was used count too.
    let used = || {
        edited(
            "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%b1, {0, 0}];
            mad.wide.u32 %rd2, %t, 4, %m1;
            ld.u32 %r2, [%rd2];
            bar.warp.sync -1;
            st.global.u32 [%rd1], %r2;",
        )
        .map(|buffers| TensorMap { extents: vec![16, 4], ..map(buffers) })
        .racing()
    };
    let wrong = used().fault("cp.async.bulk.tensor");
    assert!(wrong.to_string().contains("was changed"), "{wrong}");
    let fenced = used().edit(
        "st.global.u32 [%rd1], %r2;\n        bar",
        &format!("st.global.u32 [%rd1], %r2;\n {ACQUIRE}\n bar"),
    );
    assert_eq!(fenced.out(), words(|r, c| if r < 4 { 16 * r + c } else { 0 }));
    // Another map's fence does not help.
    let other = edited(&format!("{replace}\n {}", ACQUIRE.replace("%b1", "%b0"))).run().unwrap_err();
    assert!(other.to_string().contains("fence.proxy.tensormap"), "{other}");
}

#[test]
fn wrong_replacements_are_told() {
    for wrong in [
        "tensormap.replace.tile.box_dim.global.b1024.b32 [%b0], 5, 8;",
        "tensormap.replace.tile.colour.global.b1024.b32 [%b0], 1;",
        "tensormap.replace.im2col.rank.global.b1024.b32 [%b0], 1;",
    ] {
        let error = rig(wrong).numbers([0]).illegal().load().unwrap_err();
        assert!(error.what.contains("tensormap.replace"), "{error}");
    }
    let wrong =
        rig("tensormap.replace.tile.rank.global.b1024.b32 [%b0], 1;").numbers(0..32).fault("tensormap");
    assert!(wrong.to_string().contains("not a tensor map"), "{wrong}");
    let wrong = edited("@%p0 tensormap.replace.tile.elemtype.global.b1024.b32 [%b1], 13;")
        .illegal()
        .fault("elemtype");
    assert!(wrong.to_string().contains("element type 13"), "{wrong}");
    let bad = format!("@%p0 tensormap.replace.tile.box_dim.global.b1024.b32 [%b1], 0, 7;\n {ACQUIRE}");
    let wrong = edited(&bad).fault("cp.async.bulk.tensor");
    assert!(wrong.to_string().contains("not a multiple of 16"), "{wrong}");
}
