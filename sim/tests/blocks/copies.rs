//! What blocks of a cluster send each other, and multicast.

use super::{Case, SYNC, is_cluster};
use narrowgauge_sim::tensor_map::{Element, Swizzle, TensorMap};
use narrowgauge_sim::{CardProfile, FaultKind, Launch, Machine, Module, Policy, Schedule};

/// The barrier at smem, initialised for one arrival, and thread 0 as %p0.
fn begin(after: &str) -> String {
    format!(
        "mov.u32 %r0, smem; setp.eq.u32 %p0, %t, 0; @%p0 mbarrier.init.shared::cta.b64 [%r0], 1;
        fence.mbarrier_init.release.cluster; {after} {SYNC}"
    )
}

const WAIT: &str = "WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p7, [%r0], 0; @!%p7 bra WAIT;";

/// Stores %r30 at word 32 b + t of the output.
const STORE: &str = "mad.lo.u32 %r31, %b, 32, %t; mul.wide.u32 %rd15, %r31, 4; add.u64 %out, %out, %rd15;
    st.global.u32 [%out], %r30;";

#[test]
fn asynchronous_stores_and_reductions_count_on_the_receivers_barrier() {
    // Rank 1 sends four words, eight bytes and a sum to rank 0, whose barrier expects 16 + 8 + 4 bytes.
    let body = format!(
        "{} mapa.shared::cluster.u32 %r1, %r0, 0; setp.eq.u32 %p1, %rank, 0; @!%p1 bra SEND;
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 28; {WAIT}
        mad.lo.u32 %r2, %t, 4, %r0; ld.shared.u32 %r30, [%r2+64]; {STORE} bra END;
        SEND: @!%p0 bra END; mov.u32 %r3, 11; mov.u32 %r4, 22; mov.u32 %r5, 33; mov.u32 %r6, 44;
        st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%r1+64], {{%r3, %r4, %r5, %r6}}, [%r1];
        mov.u64 %rd0, 0x600000005; st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%r1+80], %rd0, [%r1];
        red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r1+88], %r6, [%r1];
        END: {SYNC}",
        begin("mad.lo.u32 %r9, %t, 4, %r0; st.shared.u32 [%r9+64], 1;")
    );
    let out = Case::new(&body).clusters_of(2).every_output();
    assert_eq!(out[..8], [11, 22, 33, 44, 5, 6, 45, 1]);
    let short = body.replace("[%r0], 28", "[%r0], 32");
    let fault = Case::new(&short).clusters_of(2).fault();
    assert!(
        matches!(&fault.kind, FaultKind::Deadlock(who) if who.contains("4 bytes outstanding")),
        "{fault}"
    );
    let crooked = body.replace("v4.b32 [%r1+64]", "v4.b32 [%r1+68]");
    let fault = Case::new(&crooked).clusters_of(2).fault();
    assert!(matches!(fault.kind, FaultKind::Misaligned { align: 16, .. }), "{fault}");
    let foreign = body.replace("%r6}, [%r1];", "%r6}, [%r0];");
    let fault = Case::new(&foreign).clusters_of(2).fault();
    assert!(is_cluster(&fault, "another block's mbarrier"), "{fault}");
}

#[test]
fn a_block_copies_its_shared_memory_to_a_peer() {
    // Each block sends 128 bytes to the other.
    let body = format!(
        "{} xor.b32 %r1, %rank, 1; mapa.shared::cluster.u32 %r2, %r0, %r1; add.u32 %r3, %r0, 256; mov.u32 %r4, 128;
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], %r4; {SYNC} add.u32 %r5, %r2, 512;
        @%p0 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r5], [%r3], %r4, [%r2];
        {WAIT} mad.lo.u32 %r6, %t, 4, %r0; ld.shared.u32 %r30, [%r6+512]; {STORE} {SYNC}",
        begin(
            "mad.lo.u32 %r9, %t, 4, %r0; mad.lo.u32 %r10, %b, 100, %t; st.shared.u32 [%r9+256], %r10;
            fence.proxy.async.shared::cta;"
        )
    );
    let out = Case::new(&body).blocks(4).clusters_of(2).every_output();
    assert!((0..128).all(|i| out[i as usize] == 100 * ((i / 32) ^ 1) + i % 32), "{out:?}");
    let unwritten = body.replace("add.u32 %r3, %r0, 256", "add.u32 %r3, %r0, 1024");
    let fault = Case::new(&unwritten).clusters_of(2).fault();
    assert_eq!(fault.kind, FaultKind::Uninitialised { used_as: "a bulk copy's source" });
    // The sender leaves while its memory is still to be read.
    let hasty = format!(
        "{} setp.eq.u32 %p1, %rank, 0; @%p1 bra END; mapa.shared::cluster.u32 %r2, %r0, 0; add.u32 %r3, %r0, 256;
        add.u32 %r5, %r2, 512; @%p0 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes
        [%r5], [%r3], 128, [%r2]; ret; END: @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 128; {WAIT}",
        begin("mad.lo.u32 %r9, %t, 4, %r0; st.shared.u32 [%r9+256], %t;")
    );
    let fault = Case::new(&hasty).clusters_of(2).schedule(Schedule::with(Policy::Late, 0)).fault();
    assert!(matches!(&fault.kind, FaultKind::Barrier(what) if what.contains("in flight")), "{fault}");
}

/// Rank 0 loads 128 bytes of input into the blocks of `mask`; every block of four waits for them.
fn multicast(mask: u32) -> String {
    format!(
        "{} @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 128; {SYNC} setp.eq.and.u32 %p1, %rank, 0, %p0;
        add.u32 %r3, %r0, 512; mov.u32 %r4, {mask}; cvt.u16.u32 %h0, %r4;
        @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
            [%r3], [%in], 128, [%r0], %h0;
        {WAIT} mad.lo.u32 %r6, %t, 4, %r0; ld.shared.u32 %r30, [%r6+512]; {STORE} {SYNC}",
        begin(".reg .b16 %h0;")
    )
}

#[test]
fn a_multicast_reaches_every_block_of_its_mask() {
    let body = multicast(0b1111);
    let case = Case::new(&body).blocks(8).clusters_of(4);
    let (_, report) = case.run().unwrap();
    assert_eq!(report.counters.bulk_load_bytes, 2 * 128, "one read a cluster");
    let out = case.every_output();
    assert!((0..256).all(|i| out[i as usize] == i % 32), "{out:?}");
    // Who is not in the mask waits in vain.
    let partial = multicast(0b0111);
    let fault = Case::new(&partial).blocks(4).clusters_of(4).fault();
    let alone = |who: &str| {
        let one = |part: &str| who.split("; ").filter(|line| line.contains(part)).count() == 1;
        one("mbarrier")
            && one("block (3, 0, 0)")
            && who.contains("cluster barrier (96 of 128 threads arrived)")
    };
    assert!(matches!(&fault.kind, FaultKind::Deadlock(who) if alone(who)), "{fault}");
    let outside = multicast(0b1_0000);
    let fault = Case::new(&outside).blocks(4).clusters_of(4).fault();
    assert!(is_cluster(&fault, "rank 4 in a cluster of 4"), "{fault}");
    let nobody = multicast(0);
    let fault = Case::new(&nobody).blocks(4).clusters_of(4).fault();
    assert!(is_cluster(&fault, "no block at all"), "{fault}");
}

#[test]
fn halves_of_a_tile_are_multicast_as_a_gemm_does() {
    // Each of two blocks loads one half of a tile into both; each barrier counts both halves.
    let body = format!(
        "{} @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 128; {SYNC}
        shl.b32 %r1, %rank, 6; add.u32 %r2, %r0, 512; add.u32 %r2, %r2, %r1; cvt.u64.u32 %rd0, %r1;
        add.u64 %in, %in, %rd0; mov.u16 %h0, 3;
        @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
            [%r2], [%in], 64, [%r0], %h0;
        {WAIT} mad.lo.u32 %r6, %t, 4, %r0; ld.shared.u32 %r30, [%r6+512]; {STORE} {SYNC}",
        begin(".reg .b16 %h0;")
    );
    let out = Case::new(&body).clusters_of(2).every_output();
    assert!((0..64).all(|i| out[i as usize] == i % 32), "{out:?}");
    // Without the last barrier a block may leave while its peer's half is on its way to it.
    let hasty = body.replace(WAIT, "").replace("ld.shared.u32 %r30, [%r6+512];", "mov.u32 %r30, 0;");
    let at = hasty.rfind(SYNC).unwrap();
    let fault = Case::new(&hasty[..at]).clusters_of(2).schedule(Schedule::with(Policy::Late, 0)).fault();
    let (FaultKind::Barrier(what) | FaultKind::Cluster(what) | FaultKind::Exit(what)) = &fault.kind else {
        panic!("{fault}");
    };
    assert!(what.contains("in flight") || what.contains("without having waited"), "{fault}");
}

/// What a tile of A is to a GEMM in clusters: 32 rows of 128 bytes, each of two blocks loads half of them into both.
#[test]
fn tensor_tiles_are_multicast_with_their_swizzle() {
    let body = format!(
        "{} @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 4096; {SYNC} shl.b32 %r1, %rank, 4;
        shl.b32 %r2, %rank, 11; add.u32 %r2, %r2, %r0; add.u32 %r2, %r2, 1024; mov.u16 %h0, 3; mov.u32 %r3, 0;
        add.u64 %rd0, %in, 0;
        @%p0 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster
            [%r2], [%rd0, {{%r3, %r1}}], [%r0], %h0;
        {WAIT} mov.u32 %r4, 0; mad.lo.u32 %r5, %rank, 1024, %t; mul.wide.u32 %rd1, %r5, 4; add.u64 %rd1, %out, %rd1;
        mad.lo.u32 %r6, %t, 4, %r0;
        LOOP: ld.shared.u32 %r7, [%r6+1024]; st.global.u32 [%rd1], %r7; add.u32 %r6, %r6, 128;
        add.u64 %rd1, %rd1, 128; add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 32; @%p1 bra LOOP; {SYNC}",
        begin(".reg .b16 %h0;")
    );
    let text = Case::new(&body).text().replace("smem[4096]", "smem[8192]");
    let module = Module::parse(&text).unwrap();
    for policy in [Policy::Eager, Policy::Random, Policy::Late] {
        let mut machine = Machine::new(CardProfile::H20);
        let data = machine.alloc(4096).unwrap();
        let values: Vec<u8> = (0..1024u32).flat_map(u32::to_le_bytes).collect();
        machine.write(data, &values).unwrap();
        let map = TensorMap {
            element: Element::U32,
            address: data,
            extents: vec![32, 32],
            strides: vec![128],
            tile: vec![32, 16],
            element_strides: vec![1, 1],
            swizzle: Swizzle::B128,
            nan_fill: false,
        };
        let at = machine.alloc(128).unwrap();
        machine.write(at, &map.encode().unwrap()).unwrap();
        let out = machine.alloc(8192).unwrap();
        let launch = Launch {
            entry: "k",
            grid: [2, 1, 1],
            block: [32, 1, 1],
            cluster: [2, 1, 1],
            shared_bytes: 0,
            params: &[&out.to_le_bytes(), &at.to_le_bytes()],
            schedule: Schedule::with(policy, 5),
        };
        let report = machine.launch(&module, &launch).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(report.counters.bulk_load_bytes, 4096, "each half is read once");
        for (i, value) in super::words(&machine, out, 2048).into_iter().enumerate() {
            // 16-byte chunk c of row r lies at chunk c ^ r % 8.
            let (row, word) = (i as u32 / 32 % 32, i as u32 % 32);
            assert_eq!(value, 32 * row + ((word / 4) ^ (row % 8)) * 4 + word % 4, "word {i}");
        }
    }
}
