//! Branches, divergence and reconvergence.

use crate::run;
use narrowgauge_sim::Schedule;

#[test]
fn diverged_lanes_meet_again() {
    // Lane i runs i turns of a loop, then all vote together.
    let body = "mov.u32 %r0, 0;
        LOOP: setp.ge.u32 %p0, %r0, %t; @%p0 bra DONE; add.u32 %r0, %r0, 1; bra LOOP;
        DONE: vote.sync.all.pred %p1, %p0, -1; selp.u32 %r1, 1000, 0, %p1; add.u32 %r0, %r0, %r1;
        st.global.u32 [%out], %r0;";
    let (out, _) = run(body, &[[0; 3]], 32, Schedule::default()).unwrap();
    assert!((0..32).all(|i| out[i] == 1000 + i as u64), "{out:?}");
}
