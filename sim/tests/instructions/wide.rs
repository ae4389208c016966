//! Registers of 128 bits: moves, loads, stores, exchange and swap.

use crate::rig::{lanes, rig, schedules};

#[test]
fn halves_go_through_moves_and_memory_together() {
    let moved = rig("
        .reg .b128 %q<3>;
        mad.wide.u32 %rd0, %t, 16, %b0;
        cvt.u64.u32 %rd1, %t;
        add.u64 %rd2, %rd1, 100;
        setp.lt.u32 %p0, %t, 16;
        @%p0 bra LOW;
        mov.b128 %q0, {%rd1, %rd2};
        bra.uni STORE;
    LOW:
        mov.b128 %q0, {%rd2, %rd1};
    STORE:
        st.global.release.gpu.b128 [%rd0], %q0;
        ld.global.acquire.gpu.b128 %q1, [%rd0];
        mov.b128 %q2, %q1;
        mov.b128 {%rd3, %rd4}, %q2;
        shl.b64 %rd4, %rd4, 16;
        or.b64 %rd3, %rd3, %rd4;
        st.global.u32 [%at], %rd3;")
    .buffer([0; 512]);
    let pair = |i: u32| if i < 16 { [i + 100, i] } else { [i, i + 100] };
    let ran = moved.run().unwrap();
    assert_eq!(ran.out, lanes(|i| pair(i)[0] | pair(i)[1] << 16));
    let stored: Vec<u8> =
        (0..32).flat_map(|i| pair(i).map(|half| u64::from(half).to_le_bytes()).concat()).collect();
    assert_eq!(ran.buffers[0], stored);
    let crooked = moved.edit("mad.wide.u32 %rd0, %t, 16, %b0;", "mad.wide.u32 %rd0, %t, 8, %b0;");
    assert!(crooked.fault("st.global.release").to_string().contains("is not a multiple of 16"));
}

/// Every lane adds one to the lower half and its number to the upper half of one place.
#[test]
fn swaps_compare_all_of_it() {
    let counter = |space: &str, at: &str| {
        rig(&format!(
            "
        .reg .b128 %q<3>;
        mov.u64 %rd0, {at};
        mov.u64 %rd1, 0;
        mov.u64 %rd2, 0;
        setp.ne.u32 %p0, %t, 0;
        @%p0 bra ZEROED;
        st.{space}.v2.b64 [%rd0], {{%rd1, %rd2}};
    ZEROED:
        bar.sync 0;
    AGAIN:
        mov.b128 %q0, {{%rd1, %rd2}};
        cvt.u64.u32 %rd5, %t;
        add.u64 %rd3, %rd1, 1;
        add.u64 %rd4, %rd2, %rd5;
        mov.b128 %q1, {{%rd3, %rd4}};
        atom.{space}.relaxed.gpu.cas.b128 %q2, [%rd0], %q0, %q1;
        mov.b128 {{%rd3, %rd4}}, %q2;
        setp.ne.u64 %p1, %rd1, %rd3;
        setp.ne.or.u64 %p1, %rd2, %rd4, %p1;
        mov.u64 %rd1, %rd3;
        mov.u64 %rd2, %rd4;
        @%p1 bra AGAIN;
        bar.sync 0;
        ld.{space}.v2.b64 {{%rd1, %rd2}}, [%rd0];
        shl.b64 %rd2, %rd2, 16;
        or.b64 %rd1, %rd1, %rd2;
        st.global.u32 [%at], %rd1;"
        ))
        .buffer([0; 16])
    };
    for schedule in schedules() {
        for (space, at) in [("global", "%b0"), ("shared", "smem")] {
            let out = counter(space, at).schedule(schedule).out();
            assert_eq!(out, lanes(|_| 32 | (31 * 32 / 2) << 16), "{space}");
        }
    }
    // One half alone does not make a swap.
    let other = |half: &str| {
        rig(&format!(
            "
        .reg .b128 %q<3>;
        mad.wide.u32 %rd0, %t, 16, %b0;
        mov.u64 %rd1, 7;
        mov.u64 %rd2, 9;
        add.u64 {half}, {half}, 1;
        mov.b128 %q0, {{%rd1, %rd2}};
        mov.b128 %q1, {{%rd0, %rd0}};
        atom.global.acq_rel.gpu.cas.b128 %q2, [%rd0], %q0, %q1;
        mov.b128 {{%rd1, %rd2}}, %q2;
        add.u64 %rd1, %rd1, %rd2;
        st.global.u32 [%at], %rd1;"
        ))
        .numbers([7, 0, 9, 0].repeat(32))
    };
    for half in ["%rd1", "%rd2"] {
        let ran = other(half).run().unwrap();
        assert_eq!(ran.out, lanes(|_| 16));
        let pair = [7u64, 9].map(u64::to_le_bytes).concat();
        assert_eq!(ran.buffers[0], pair.repeat(32));
    }
}

#[test]
fn an_exchange_takes_both_halves_of_the_lane_before() {
    let out = rig("
        .reg .b128 %q<2>;
        cvt.u64.u32 %rd0, %t;
        add.u64 %rd1, %rd0, 1000;
        mov.b128 %q0, {%rd0, %rd1};
        atom.global.exch.b128 %q1, [%b0], %q0;
        mov.b128 {%rd2, %rd3}, %q1;
        sub.u64 %rd3, %rd3, %rd2;
        shl.b64 %rd3, %rd3, 16;
        or.b64 %rd2, %rd2, %rd3;
        st.global.u32 [%at], %rd2;")
    .numbers([77, 0, 1077, 0])
    .out();
    assert!(out.iter().all(|pair| pair >> 16 == 1000), "{out:?}");
    let mut firsts: Vec<u32> = out.iter().map(|pair| pair & 0xffff).collect();
    firsts.sort_unstable();
    // Of everybody but the lane that came last, and what was there before.
    assert_eq!((firsts.len(), firsts[31]), (32, 77));
    firsts.dedup();
    assert_eq!(firsts.len(), 32);
    assert!(firsts[..31].iter().all(|&lane| lane < 32));
}
