//! Ranks, addresses, the cluster barrier and shared memory of peers.

use super::{Case, SYNC, is_cluster};
use narrowgauge_sim::{CardProfile, FaultKind, InFlight, Schedule};

#[test]
fn special_registers_place_a_block_in_its_cluster() {
    // A grid of 8 in clusters of 4: (value of block, of cluster).
    let body = "mul.lo.u32 %r9, %b, 40; cvt.u64.u32 %rd1, %r9; add.u64 %out, %out, %rd1;
        st.global.u32 [%out], %rank;
        mov.u32 %r0, %cluster_ctaid.x; st.global.u32 [%out+4], %r0;
        mov.u32 %r0, %cluster_ctaid.y; st.global.u32 [%out+8], %r0;
        mov.u32 %r0, %cluster_nctaid.x; st.global.u32 [%out+12], %r0;
        mov.u32 %r0, %cluster_nctaid.z; st.global.u32 [%out+16], %r0;
        mov.u32 %r0, %cluster_nctarank; st.global.u32 [%out+20], %r0;
        mov.u32 %r0, %clusterid.x; st.global.u32 [%out+24], %r0;
        mov.u32 %r0, %nclusterid.x; st.global.u32 [%out+28], %r0;
        mov.u32 %r0, %nclusterid.y; st.global.u32 [%out+32], %r0;
        mov.pred %p0, %is_explicit_cluster; selp.u32 %r0, 1, 0, %p0; st.global.u32 [%out+36], %r0;";
    let out = Case::new(body).blocks(8).clusters_of(4).output();
    for b in 0..8u32 {
        let want = [b % 4, b % 4, 0, 4, 1, 4, b / 4, 2, 1, 1];
        assert_eq!(out[10 * b as usize..][..10], want, "block {b}");
    }
    let alone = Case::new(body).blocks(1).output();
    assert_eq!(alone[..10], [0, 0, 0, 1, 1, 1, 0, 1, 1, 0]);
}

#[test]
fn the_kernel_may_say_the_cluster() {
    let body = "mul.wide.u32 %rd1, %b, 4; add.u64 %out, %out, %rd1; st.global.u32 [%out], %rank;";
    let case = |directives, cluster, blocks| Case {
        directives,
        ..Case::new(body).blocks(blocks).clusters_of(cluster)
    };
    assert_eq!(case(".reqnctapercluster 2, 1, 1", 1, 4).output()[..4], [0, 1, 0, 1]);
    assert_eq!(case(".reqnctapercluster 2", 2, 4).output()[..4], [0, 1, 0, 1]);
    assert_eq!(case(".explicitcluster", 4, 4).output()[..4], [0, 1, 2, 3]);
    assert_eq!(case(".maxclusterrank 4", 4, 4).output()[..4], [0, 1, 2, 3]);
    let refused = |case: Case<'_>, part: &str| {
        let fault = case.fault();
        assert!(matches!(&fault.kind, FaultKind::Launch(what) if what.contains(part)), "{fault}");
    };
    refused(case(".reqnctapercluster 2, 1, 1", 4, 4), "requires [2, 1, 1]");
    refused(case(".explicitcluster", 1, 4), "wants a cluster size");
    refused(case(".maxclusterrank 2", 4, 4), "at most 2");
    refused(case("", 4, 6), "no whole number of clusters");
    refused(case("", 16, 16), "not portable");
    refused(case("", 32, 32), "1 to 8 blocks are possible");
    let allowed = CardProfile { non_portable_clusters: true, ..CardProfile::H20 };
    let out = Case { profile: allowed, ..case("", 16, 16) }.output();
    assert_eq!(out[15], 15);
}

#[test]
fn addresses_carry_the_rank() {
    // The next block's smem+8: as a 32-bit shared address, as a generic one, and what getctarank says of each.
    let body = "add.u32 %r1, %rank, 1; and.b32 %r1, %r1, 3; mov.u32 %r0, smem; add.u32 %r0, %r0, 8;
        mapa.shared::cluster.u32 %r2, %r0, %r1; getctarank.shared::cluster.u32 %r3, %r2;
        cvt.u64.u32 %rd0, %r0; cvta.shared.u64 %rd0, %rd0; mapa.u64 %rd1, %rd0, %r1; getctarank.u64 %r4, %rd1;
        cvta.to.shared.u64 %rd2, %rd1; cvt.u32.u64 %r5, %rd2; setp.eq.u32 %p0, %r5, %r2; selp.u32 %r5, 1, 0, %p0;
        getctarank.shared::cluster.u32 %r6, %r0; setp.ne.u32 %p1, %r2, %r0; selp.u32 %r7, 1, 0, %p1;
        mapa.shared::cluster.u32 %r8, %r0, %rank; setp.eq.u32 %p2, %r8, %r0; selp.u32 %r8, 1, 0, %p2;
        isspacep.shared::cta %p3, %rd1; selp.u32 %r9, 1, 0, %p3;
        isspacep.shared::cluster %p4, %rd1; selp.u32 %r10, 1, 0, %p4;
        isspacep.shared %p5, %rd0; selp.u32 %r11, 1, 0, %p5;
        mul.wide.u32 %rd3, %b, 32; add.u64 %out, %out, %rd3;
        st.global.v4.u32 [%out], {%r3, %r4, %r5, %r6}; st.global.v4.u32 [%out+16], {%r7, %r8, %r9, %r10};";
    let out = Case::new(body).blocks(4).clusters_of(4).output();
    for b in 0..4u32 {
        let next = (b + 1) % 4;
        assert_eq!(out[8 * b as usize..][..8], [next, next, 1, b, 1, 1, 0, 1], "block {b}");
    }
    let far = "mapa.shared::cluster.u32 %r2, smem, 2;";
    let fault = Case::new(far).clusters_of(2).fault();
    assert!(is_cluster(&fault, "rank 2 in a cluster of 2"), "{fault}");
    let global = "mapa.u64 %rd2, %out, 0;";
    let fault = Case::new(global).clusters_of(2).fault();
    assert!(is_cluster(&fault, "no address of the cluster's shared memory"), "{fault}");
}

/// Every block writes its word, and adds up the words of all of its cluster's.
fn reduction(load: &str) -> String {
    format!(
        "add.u32 %r0, %b, 100; setp.eq.u32 %p0, %t, 0; @%p0 st.shared.u32 [smem+16], %r0; {SYNC}
        mov.u32 %r1, 0; mov.u32 %r2, 0; mov.u32 %r3, smem;
        LOOP: mapa.shared::cluster.u32 %r4, %r3, %r1; cvt.u64.u32 %rd0, %r3; cvta.shared.u64 %rd0, %rd0;
        mapa.u64 %rd1, %rd0, %r1; {load}
        add.u32 %r2, %r2, %r5; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, %cluster_nctarank; @%p1 bra LOOP;
        {SYNC} mul.wide.u32 %rd2, %b, 4; add.u64 %out, %out, %rd2; @%p0 st.global.u32 [%out], %r2;"
    )
    .replace(
        "setp.lt.u32 %p1, %r1, %cluster_nctarank",
        "mov.u32 %r6, %cluster_nctarank; setp.lt.u32 %p1, %r1, %r6",
    )
}

#[test]
fn blocks_read_each_others_shared_memory() {
    for load in [
        "ld.shared::cluster.u32 %r5, [%r4+16];",
        "ld.u32 %r5, [%rd1+16];",
        "atom.shared::cluster.add.u32 %r5, [%r4+16], 0;",
    ] {
        for size in [2, 4, 8] {
            let body = reduction(load);
            let out = Case::new(&body).blocks(16).threads(64).clusters_of(size).every_output();
            for b in 0..16 {
                let first = b / size * size;
                let want: u32 = (first..first + size).map(|b| 100 + b).sum();
                assert_eq!(out[b as usize], want, "{load} clusters of {size}, block {b}");
            }
        }
    }
}

#[test]
fn blocks_write_and_reduce_into_each_other() {
    // Every thread of the cluster adds into rank 0 and stores its word into the next block.
    let body = format!(
        "setp.eq.u32 %p0, %t, 0; @%p0 st.shared.u32 [smem], 0; {SYNC}
        mov.u32 %r0, smem; mapa.shared::cluster.u32 %r1, %r0, 0; red.shared::cluster.add.u32 [%r1], 3;
        add.u32 %r2, %rank, 1; and.b32 %r2, %r2, 3; mapa.shared::cluster.u32 %r3, %r0, %r2;
        mad.lo.u32 %r3, %t, 4, %r3; mad.lo.u32 %r4, %b, 1000, %t; st.shared::cluster.u32 [%r3+256], %r4; {SYNC}
        mad.lo.u32 %r5, %t, 4, %r0; ld.shared.u32 %r6, [%r5+256];
        mad.lo.u32 %r7, %b, 32, %t; mul.wide.u32 %rd0, %r7, 4; add.u64 %out, %out, %rd0;
        setp.eq.u32 %p1, %r7, 31; @%p1 ld.shared.u32 %r6, [smem]; st.global.u32 [%out], %r6;"
    );
    let out = Case::new(&body).blocks(4).clusters_of(4).every_output();
    for i in 0..128u32 {
        let want = if i == 31 { 3 * 128 } else { 1000 * ((i / 32 + 3) % 4) + i % 32 };
        assert_eq!(out[i as usize], want, "thread {i}");
    }
}

#[test]
fn a_load_of_ones_own_cannot_reach_a_peer() {
    let body = format!(
        "st.shared.u32 [smem], 1; {SYNC} mov.u32 %r0, smem; mov.u32 %r1, 1;
        mapa.shared::cluster.u32 %r2, %r0, %r1; ld.shared.u32 %r3, [%r2]; {SYNC}"
    );
    let fault = Case::new(&body).clusters_of(2).fault();
    assert!(is_cluster(&fault, "not in the block's own"), "{fault}");
    assert_eq!((fault.block, fault.instruction.as_str()), ([0; 3], "ld.shared.u32"));
    Case::new(&body.replace("ld.shared.u32", "ld.shared::cluster.u32")).clusters_of(2).output();
    let past = body.replace("ld.shared.u32 %r3, [%r2]", "ld.shared::cluster.u32 %r3, [%r2+8192]");
    let fault = Case::new(&past).clusters_of(2).fault();
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { space: "shared", .. }), "{fault}");
}

#[test]
fn an_exited_peer_has_no_shared_memory() {
    let body = |last: &str| {
        format!(
            "st.shared.u32 [smem], 7; {SYNC} setp.eq.u32 %p0, %rank, 1; @%p0 bra END;
            mov.u32 %r0, smem; mov.u32 %r1, 1; mapa.shared::cluster.u32 %r2, %r0, %r1; mov.u32 %r4, 0;
            LOOP: add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 2000; @%p1 bra LOOP;
            ld.shared::cluster.u32 %r3, [%r2]; st.global.u32 [%out], %r3; END: {last}"
        )
    };
    let wrong = body("");
    let fault = Case::new(&wrong).clusters_of(2).fault();
    assert!(is_cluster(&fault, "whose block (1, 0, 0) has exited"), "{fault}");
    let right = body(SYNC);
    assert_eq!(Case::new(&right).clusters_of(2).every_output()[0], 7);
}

#[test]
fn the_cluster_barrier_is_used_in_turns() {
    let barrier = |body: &str, part: &str| {
        let fault = Case::new(body).clusters_of(2).fault();
        assert!(matches!(&fault.kind, FaultKind::Barrier(what) if what.contains(part)), "{fault}");
    };
    barrier("barrier.cluster.arrive; barrier.cluster.arrive;", "without having waited");
    barrier("barrier.cluster.wait;", "without having arrived");
    let fault =
        Case::new("setp.lt.u32 %p0, %t, 4; @%p0 barrier.cluster.arrive.aligned;").clusters_of(2).fault();
    assert!(matches!(fault.kind, FaultKind::Divergence { present: 0xf, .. }), "{fault}");
    // Split arrivals of one warp are fine without .aligned.
    let split =
        "setp.lt.u32 %p0, %t, 4; @%p0 barrier.cluster.arrive.relaxed; @!%p0 barrier.cluster.arrive.release;
        barrier.cluster.wait.acquire;";
    Case::new(split).clusters_of(2).every_output();
    // A block that never arrives, and lives on.
    let stuck = "setp.eq.u32 %p0, %rank, 1; @%p0 bar.sync 1, 64; @%p0 bra END;
        barrier.cluster.arrive; barrier.cluster.wait; END:";
    let fault = Case::new(stuck).clusters_of(2).fault();
    let waits = |who: &str| who.contains("cluster barrier (32 of 64") && who.contains("barrier 1 (32 of 64");
    assert!(matches!(&fault.kind, FaultKind::Deadlock(who) if waits(who)), "{fault}");
    // Threads that have exited are not waited for.
    let left = "setp.eq.u32 %p0, %rank, 1; @%p0 bra END; barrier.cluster.arrive; barrier.cluster.wait; END:";
    Case::new(left).clusters_of(2).every_output();
}

#[test]
fn phases_of_the_cluster_barrier_alternate() {
    // A token goes round the cluster: block b may only write it in turn b.
    let body = format!(
        "setp.eq.u32 %p0, %t, 0; mov.u32 %r0, smem; mov.u32 %r1, 0; st.shared.u32 [smem], 0; {SYNC}
        mapa.shared::cluster.u32 %r2, %r0, 0;
        LOOP: setp.eq.and.u32 %p1, %r1, %rank, %p0; @!%p1 bra SKIP;
        ld.shared::cluster.u32 %r3, [%r2]; mad.lo.u32 %r3, %r3, 10, %rank; st.shared::cluster.u32 [%r2], %r3;
        SKIP: {SYNC} add.u32 %r1, %r1, 1; setp.lt.u32 %p2, %r1, 8; @%p2 bra LOOP;
        or.b32 %r4, %rank, %t; setp.eq.u32 %p3, %r4, 0; @%p3 ld.shared.u32 %r5, [smem];
        @%p3 st.global.u32 [%out], %r5;"
    );
    assert_eq!(Case::new(&body).blocks(8).threads(96).clusters_of(8).every_output()[0], 1_234_567);
}

#[test]
fn a_block_of_a_cluster_can_wait_for_a_barrier_of_its_own_only() {
    let body = |wait: &str| {
        format!(
            "mov.u32 %r0, smem; setp.eq.u32 %p0, %t, 0; @%p0 mbarrier.init.shared::cta.b64 [%r0], 64;
            fence.mbarrier_init.release.cluster; {SYNC} xor.b32 %r1, %rank, 1;
            mapa.shared::cluster.u32 %r2, %r0, %r1; mapa.shared::cluster.u32 %r3, %r0, %rank;
            mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r2];
            mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3];
            WAIT: {wait} @!%p1 bra WAIT; {SYNC} @%p0 st.relaxed.gpu.global.u32 [%out], 1;"
        )
    };
    let right = body("mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r0], 0;");
    assert_eq!(Case::new(&right).clusters_of(2).every_output()[0], 1);
    let wrong = body("mbarrier.try_wait.parity.b64 %p1, [%rd0], 0;")
        .replace("WAIT:", "cvt.u64.u32 %rd0, %r2; cvta.shared::cluster.u64 %rd0, %rd0; WAIT:");
    let fault = Case::new(&wrong).clusters_of(2).fault();
    assert!(is_cluster(&fault, "only the owner may"), "{fault}");
    let stateful = right.replace(
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r2];",
        "cvt.u64.u32 %rd0, %r2; cvta.shared::cluster.u64 %rd0, %rd0; mbarrier.arrive.b64 %rd1, [%rd0];",
    );
    let fault = Case::new(&stateful).clusters_of(2).fault();
    assert!(is_cluster(&fault, "no state to give"), "{fault}");
    let own = right.replace("shared::cluster.b64 _, [%r2]", "shared::cta.b64 _, [%r2]");
    let fault = Case::new(&own).clusters_of(2).schedule(Schedule::default()).fault();
    assert!(is_cluster(&fault, "not in the block's own"), "{fault}");
}

/// The fence for initialisations and a relaxed arrival make mbarriers known to the cluster, and nothing else.
#[test]
fn a_relaxed_arrival_carries_the_initialisations_that_a_fence_released() {
    let relaxed = "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned;";
    let right = format!(
        "mov.u32 %r0, smem; setp.eq.u32 %p0, %t, 0; @%p0 mbarrier.init.shared::cta.b64 [%r0], 32;
        fence.mbarrier_init.release.cluster; {relaxed} xor.b32 %r1, %rank, 1; mapa.shared::cluster.u32 %r2, %r0, %r1;
        mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r2];
        WAIT: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [%r0], 0; @!%p1 bra WAIT; {SYNC}
        @%p0 st.relaxed.gpu.global.u32 [%out], 1;"
    );
    assert_eq!(Case::new(&right).clusters_of(2).every_output()[0], 1);
    let fault = Case::new(&right.replace("fence.mbarrier_init.release.cluster;", "")).clusters_of(2).fault();
    assert!(matches!(fault.kind, FaultKind::BarrierUnseen { .. }), "{fault}");
    let data = |fence: &str| {
        format!(
            "mov.u32 %r0, smem; mad.lo.u32 %r1, %t, 4, %r0; st.shared.u32 [%r1], %rank; {fence} {relaxed}
            xor.b32 %r2, %rank, 1; mapa.shared::cluster.u32 %r3, %r1, %r2; ld.shared::cluster.u32 %r4, [%r3];
            mul.wide.u32 %rd0, %b, 4; add.u64 %rd0, %out, %rd0; setp.eq.u32 %p0, %t, 0;
            @%p0 st.global.u32 [%rd0], %r4; {SYNC}"
        )
    };
    let out = Case::new(&data("fence.acq_rel.cluster;")).clusters_of(2).every_output();
    assert_eq!(out[..2], [1, 0]);
    let race = data("fence.mbarrier_init.release.cluster;");
    let fault = Case::new(&race).clusters_of(2).fault();
    assert!(matches!(fault.kind, FaultKind::Race { .. }), "{fault}");
    // Hardware's own order may do for the kernels of others: one warning for a pair of instructions.
    let schedule = Schedule { in_flight: InFlight::Compatible, ..Schedule::default() };
    let (out, report) = Case::new(&race).clusters_of(2).schedule(schedule).run().unwrap();
    assert_eq!(out[..2], [1, 0]);
    let races = report.warnings.iter().filter(|w| w.contains("data race")).count();
    assert_eq!(races, 1, "{:?}", report.warnings);
}
