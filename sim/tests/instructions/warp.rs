//! Lanes of a warp with each other: shuffles, votes, matches, reductions, elections, lane masks.

use crate::rig::{lanes, rig};
use narrowgauge_sim::{FaultKind, InFlight, Schedule};

/// The shuffle of the ISA's pseudocode: where lane `lane` takes its value from, and the predicate.
fn source(mode: &str, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segments) = (b & 31, c & 31, c >> 8 & 31);
    let most = lane & segments | clamp & !segments & 31;
    let least = lane & segments;
    let (j, inside) = match mode {
        "up" => (lane.wrapping_sub(b), lane as i32 - b as i32 >= most as i32),
        "down" => (lane + b, lane + b <= most),
        "bfly" => (lane ^ b, (lane ^ b) <= most),
        "idx" => (least | (b & !segments & 31), (least | (b & !segments & 31)) <= most),
        _ => unreachable!(),
    };
    (if inside { j } else { lane }, inside)
}

#[test]
fn shuffles_follow_clamp_and_segments() {
    for mode in ["up", "down", "bfly", "idx"] {
        for b in [0, 1, 3, 7, 16, 31, 33] {
            // Whole warp, halves, eights, pairs, and a clamp in the middle.
            for c in [0x00, 0x1f, 0x100f, 0x1000, 0x1807, 0x1800, 0x181f, 0x1e1f, 0x1e00, 0x0013] {
                let out = rig(&format!(
                    "mad.lo.u32 %r0, %t, 3, 5;
                    shfl.sync.{mode}.b32 %r1|%p0, %r0, {b}, {c}, -1;
                    selp.u32 %r2, 1000, 0, %p0;
                    add.u32 %r1, %r1, %r2;
                    st.global.u32 [%at], %r1;"
                ))
                .out();
                let want = lanes(|i| {
                    let (from, inside) = source(mode, i, b, c);
                    from * 3 + 5 + if inside { 1000 } else { 0 }
                });
                assert_eq!(out, want, "{mode} {b} {c:#x}");
            }
        }
    }
}

#[test]
fn shuffles_take_lane_and_mask_from_registers() {
    // Every lane names its own source; only lanes 0 to 15 take part.
    let out = rig("setp.gt.u32 %p0, %t, 15;
        @%p0 exit;
        xor.b32 %r0, %t, 5;
        mov.u32 %r1, 31;
        mov.u32 %r2, 0xffff;
        mul.lo.u32 %r3, %t, %t;
        shfl.sync.idx.b32 %r4, %r3, %r0, %r1, %r2;
        st.global.u32 [%at], %r4;")
    .out();
    assert_eq!(out, lanes(|i| if i < 16 { (i ^ 5) * (i ^ 5) } else { 0xeeee_eeee }));
}

#[test]
fn what_a_shuffle_reads_of_an_absent_lane_is_undefined() {
    let body = "setp.gt.u32 %p0, %t, 15;
        @%p0 exit;
        shfl.sync.idx.b32 %r4, %t, 20, 31, 0xffff;
        st.global.u32 [%at], %r4;";
    let wrong = rig(body).fault("st.global");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
}

#[test]
fn votes() {
    for (name, mask, condition) in [
        ("none", 0u32, "lt.u32 %p0, %t, 0"),
        ("all", u32::MAX, "lt.u32 %p0, %t, 32"),
        ("some", 0x0000_03ff, "lt.u32 %p0, %t, 10"),
    ] {
        let out = rig(&format!(
            "setp.{condition};
            vote.sync.all.pred %p1, %p0, -1;
            vote.sync.any.pred %p2, %p0, -1;
            vote.sync.uni.pred %p3, %p0, -1;
            vote.sync.ballot.b32 %r0, %p0, -1;
            vote.sync.all.pred %p4, !%p0, -1;
            vote.sync.ballot.b32 %r1, !%p0, -1;
            selp.u32 %r2, 1, 0, %p1;
            @%p2 add.u32 %r2, %r2, 2;
            @%p3 add.u32 %r2, %r2, 4;
            @%p4 add.u32 %r2, %r2, 8;
            st.global.u32 [%out], %r0;
            st.global.u32 [%out+4], %r1;
            st.global.u32 [%out+8], %r2;"
        ))
        .out();
        let (all, any) = (mask == u32::MAX, mask != 0);
        let flags = u32::from(all) + 2 * u32::from(any) + 4 * u32::from(all || !any) + 8 * u32::from(!any);
        assert_eq!(out[..3], [mask, !mask, flags], "{name}");
    }
}

#[test]
fn votes_of_some_lanes_meet_across_branches() {
    // Lanes 8..16 vote alone in one branch, the others in the other.
    let out = rig("sub.u32 %r0, %t, 8;
        and.b32 %r3, %t, 1;
        setp.eq.u32 %p1, %r3, 1;
        setp.lt.u32 %p0, %r0, 8;
        @%p0 bra EIGHT;
        vote.sync.ballot.b32 %r1, %p1, 0xffff00ff;
        bra JOIN;
    EIGHT:
        vote.sync.ballot.b32 %r1, %p1, 0xff00;
    JOIN:
        bar.warp.sync 0xffffffff;
        st.global.u32 [%at], %r1;")
    .out();
    assert_eq!(out, lanes(|i| if (8..16).contains(&i) { 0xaa00 } else { 0xaaaa_00aa }));
}

#[test]
fn matches() {
    let out = |body: &str| {
        rig(&format!("rem.u32 %r0, %t, 3;\n cvt.u64.u32 %rd0, %r0;\n shl.b64 %rd0, %rd0, 40;\n mov.u64 %rd1, 9;\n {body}
        st.global.u32 [%at], %r1;"))
        .out()
    };
    let group = |r: u32| (0..32).filter(|i| i % 3 == r).fold(0u32, |m, i| m | 1 << i);
    assert_eq!(out("match.any.sync.b32 %r1, %r0, -1;"), lanes(|i| group(i % 3)));
    assert_eq!(out("match.any.sync.b64 %r1, %rd0, -1;"), lanes(|i| group(i % 3)));
    // All: the mask and true where every lane agrees, zero and false where not.
    for (a, agree) in [("b32 %r1|%p0, %r0", false), ("b64 %r1|%p0, %rd0", false), ("b64 %r1|%p0, %rd1", true)]
    {
        let got = out(&format!("match.all.sync.{a}, -1;\n @%p0 xor.b32 %r1, %r1, 0xff;"));
        assert_eq!(got, vec![if agree { 0xffff_ff00 } else { 0 }; 32], "{a}");
    }
    assert_eq!(out("mov.u32 %r2, 3;\n match.all.sync.b32 %r1, %r2, -1;"), vec![u32::MAX; 32]);
    // Only the lanes of the mask count.
    let out = rig("setp.gt.u32 %p0, %t, 7;
        @%p0 bra END;
        shr.u32 %r0, %t, 2;
        match.any.sync.b32 %r1, %r0, 0xff;
        st.global.u32 [%at], %r1;
        END:")
    .out();
    assert_eq!(out, lanes(|i| [0x0f, 0xf0].get(i as usize / 4).copied().unwrap_or(0xeeee_eeee)));
}

#[test]
fn reductions_over_a_warp() {
    let values: Vec<u32> = (0..32u32).map(|i| i.wrapping_mul(0x9e37_79b9) ^ 0x8000_0011).collect();
    let fold = |f: fn(u32, u32) -> u32| values.iter().copied().reduce(f).unwrap();
    for (op, want) in [
        ("add.u32", fold(u32::wrapping_add)),
        ("add.s32", fold(u32::wrapping_add)),
        ("min.u32", fold(u32::min)),
        ("max.u32", fold(u32::max)),
        ("min.s32", fold(|a, b| (a as i32).min(b as i32) as u32)),
        ("max.s32", fold(|a, b| (a as i32).max(b as i32) as u32)),
        ("and.b32", fold(|a, b| a & b)),
        ("or.b32", fold(|a, b| a | b)),
        ("xor.b32", fold(|a, b| a ^ b)),
    ] {
        let body = format!(
            "mad.wide.u32 %rd0, %t, 4, %b0;
            ld.global.u32 %r0, [%rd0];
            redux.sync.{op} %r1, %r0, -1;
            st.global.u32 [%at], %r1;"
        );
        assert_eq!(rig(&body).numbers(values.clone()).out(), vec![want; 32], "{op}");
    }
    let out = rig("mov.u32 %r1, 1;
        setp.lt.u32 %p0, %t, 6;
        @%p0 redux.sync.add.u32 %r1, %t, 0x3f;
        st.global.u32 [%at], %r1;")
    .out();
    assert_eq!(out, lanes(|i| if i < 6 { 15 } else { 1 }));
}

#[test]
fn an_election_has_one_winner_whom_all_know() {
    let out = rig("elect.sync %r0|%p0, -1;
        selp.u32 %r1, 1, 0, %p0;
        shl.b32 %r0, %r0, 8;
        or.b32 %r0, %r0, %r1;
        elect.sync _|%p1, 0xffffffff;
        selp.u32 %r1, 0x8000, 0, %p1;
        or.b32 %r0, %r0, %r1;
        st.global.u32 [%at], %r0;")
    .out();
    let leader = out[0] >> 8 & 31;
    assert_eq!(out, lanes(|i| leader << 8 | if i == leader { 0x8001 } else { 0 }));
    // Among the members only.
    let out = rig("mov.u32 %r0, 0;
        and.b32 %r1, %t, 4;
        setp.ne.u32 %p0, %r1, 0;
        @!%p0 bra END;
        elect.sync _|%p1, 0xf0f0f0f0;
        selp.u32 %r0, 1, 0, %p1;
        END:
        st.global.u32 [%at], %r0;")
    .out();
    assert_eq!(out.iter().sum::<u32>(), 1);
    assert!((0..32).all(|i| out[i] == 0 || i & 4 != 0), "{out:?}");
}

#[test]
fn lane_masks_and_positions() {
    for (register, value) in [
        ("%laneid", (|i| i) as fn(u32) -> u32),
        ("%lanemask_eq", |i| 1 << i),
        ("%lanemask_lt", |i| (1u32 << i) - 1),
        ("%lanemask_le", |i| ((2u64 << i) - 1) as u32),
        ("%lanemask_gt", |i| !((2u64 << i) - 1) as u32),
        ("%lanemask_ge", |i| !((1u32 << i) - 1)),
        ("WARP_SZ", |_| 32),
        ("%ntid.x", |_| 32),
        ("%ntid.y", |_| 1),
        ("%nctaid.x", |_| 1),
        ("%ctaid.z", |_| 0),
        ("%warpid", |_| 0),
        ("%nwarpid", |_| 1),
        ("%cluster_ctarank", |_| 0),
        ("%cluster_nctarank", |_| 1),
        ("%cluster_ctaid.y", |_| 0),
        ("%cluster_nctaid.x", |_| 1),
        ("%clusterid.x", |_| 0),
        ("%nclusterid.x", |_| 1),
        ("%dynamic_smem_size", |_| 512),
    ] {
        let out = rig(&format!("mov.u32 %r0, {register};\n st.global.u32 [%at], %r0;")).dynamic(512).out();
        assert_eq!(out, lanes(value), "{register}");
    }
}

#[test]
fn positions_in_the_block_and_the_grid() {
    let out = rig("mov.u32 %r0, %warpid;
        mov.u32 %r1, %laneid;
        mad.lo.u32 %r0, %r0, 32, %r1;
        mov.u32 %r2, %ctaid.x;
        mov.u32 %r3, %ntid.x;
        mov.u32 %r5, %nctaid.x;
        mad.lo.u32 %r4, %r2, %r3, %r0;
        mad.wide.u32 %rd0, %r4, 4, %out;
        mad.lo.u32 %r4, %r5, 1000, %r4;
        st.global.u32 [%rd0], %r4;")
    .threads(96)
    .blocks(3)
    .words(288)
    .out();
    assert_eq!(out, (0..288).map(|i| 3000 + i).collect::<Vec<_>>());
}

#[test]
fn clocks_advance_and_sleep_returns() {
    let out = rig("mov.u32 %r0, %clock;
        nanosleep.u32 100;
        mov.u64 %rd0, %clock64;
        mov.u64 %rd1, %globaltimer;
        mov.u32 %r4, %clock_hi;
        mov.u32 %r5, %globaltimer_lo;
        mov.u32 %r6, %globaltimer_hi;
        mov.u64 %rd2, %clock64;
        setp.gt.u64 %p0, %rd2, %rd0;
        selp.u32 %r1, 1, 0, %p0;
        mov.u32 %r2, %clock;
        setp.ne.u32 %p0, %r2, %r0;
        selp.u32 %r1, %r1, 0, %p0;
        nanosleep.u32 %r2;
        st.global.u32 [%at], %r1;")
    .out();
    assert_eq!(out, lanes(|_| 1));
}

#[test]
fn warp_barriers_order_some_lanes() {
    let out = rig("setp.lt.u32 %p0, %t, 4;
        @!%p0 bra JOIN;
        mov.u32 %r0, smem;
        mad.lo.u32 %r1, %t, 4, %r0;
        st.shared.u32 [%r1], %t;
        bar.warp.sync 0xf;
        xor.b32 %r2, %t, 3;
        mad.lo.u32 %r1, %r2, 4, %r0;
        ld.shared.u32 %r3, [%r1];
        st.global.u32 [%at], %r3;
        JOIN:
        mov.u32 %r4, 0xffffffff;
        bar.warp.sync %r4;")
    .out();
    assert_eq!(out, lanes(|i| if i < 4 { i ^ 3 } else { 0xeeee_eeee }));
}

#[test]
fn wrong_member_masks_are_faults() {
    for (line, present, wanted) in [
        ("shfl.sync.idx.b32 %r0, %t, 0, 31, 0xff;", u32::MAX, 0xff),
        ("vote.sync.ballot.b32 %r0, %p0, 0x1;", u32::MAX, 1),
        ("redux.sync.add.u32 %r0, %t, 0x7fffffff;", u32::MAX, 0x7fff_ffff),
        ("bar.warp.sync 0xffff0000;", u32::MAX, 0xffff_0000),
        ("match.any.sync.b32 %r0, %t, 0x10;", u32::MAX, 0x10),
        ("elect.sync _|%p1, 0x3;", u32::MAX, 3),
    ] {
        let wrong = rig(&format!("setp.eq.u32 %p0, %t, 0;\n {line}")).fault(line);
        assert_eq!(wrong.kind, FaultKind::Divergence { present, wanted }, "{line}");
        // Hardware goes on, and so does the mode for others' kernels.
        let compatible = Schedule { in_flight: InFlight::Compatible, ..Schedule::default() };
        let ran = rig(&format!("setp.eq.u32 %p0, %t, 0;\n {line}")).schedule(compatible).run().unwrap();
        let [warning] = ran.report.warnings.as_slice() else { panic!("{:?}", ran.report.warnings) };
        assert!(warning.contains(&format!("{wanted:#x}")), "{warning}");
    }
    let body = "shfl.sync.bfly.b32 %r0, %t, 1, 31, 0x11111111;\n st.global.u32 [%at], %r0;";
    let compatible = Schedule { in_flight: InFlight::Compatible, ..Schedule::default() };
    assert_eq!(rig(body).schedule(compatible).out(), lanes(|i| i ^ 1));
    // A member that never comes: everybody waits.
    let wrong = rig("setp.lt.u32 %p0, %t, 16;
        @%p0 bra LOW;
        bar.warp.sync 0xffffffff;
        bra END;
        LOW: vote.sync.any.pred %p1, %p0, 0xffffffff;
        END:")
    .run()
    .unwrap_err();
    assert!(
        matches!(wrong.kind, FaultKind::Deadlock(ref who) if who.contains("lanes 0xffffffff")),
        "{wrong}"
    );
}

#[test]
fn lanes_with_different_members_go_group_by_group() {
    // Every third lane is of one group, without any branch.
    let masks = "rem.u32 %r0, %t, 3; mov.u32 %r1, 0x49249249; shl.b32 %r1, %r1, %r0;";
    let members = |i: u32| (0..32u32).filter(move |j| j % 3 == i % 3);
    let sums = rig(&format!("{masks} redux.sync.add.u32 %r2, %t, %r1; st.global.u32 [%at], %r2;")).out();
    assert_eq!(sums, lanes(|i| members(i).sum()));
    let votes = rig(&format!(
        "{masks} setp.gt.u32 %p0, %t, 9; vote.sync.ballot.b32 %r2, %p0, %r1; st.global.u32 [%at], %r2;"
    ));
    assert_eq!(votes.out(), lanes(|i| members(i).filter(|&j| j > 9).fold(0, |m, j| m | 1 << j)));
    // Half of each group is elsewhere when the others come.
    let apart = rig(&format!(
        "{masks} mov.u32 %r2, 0; setp.lt.u32 %p0, %t, 16; @%p0 bra LOW; mov.u32 %r2, 100; LOW:
        bar.warp.sync %r1; redux.sync.max.u32 %r2, %r2, %r1;
        activemask.b32 %r3; setp.ne.u32 %p1, %r3, -1; @%p1 mov.u32 %r2, 7; st.global.u32 [%at], %r2;"
    ));
    assert_eq!(apart.out(), lanes(|_| 100));
}
