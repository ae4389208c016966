//! Operations across the lanes of a warp.

use crate::run;
use narrowgauge_sim::Schedule;

#[test]
fn lanes_exchange() {
    let inputs: Vec<[u64; 3]> = (0..32).map(|i| [100 + i, 0, 0]).collect();
    let all = |body: &str| run(body, &inputs, 32, Schedule::default()).unwrap().0;
    let out = all("shfl.sync.bfly.b32 %r0, %a0, 1, 31, -1; st.global.u32 [%out], %r0;");
    assert!((0..32).all(|i| out[i] == 100 + (i as u64 ^ 1)));
    let out =
        all("shfl.sync.up.b32 %r0|%p0, %a0, 4, 0, -1; selp.u32 %r1, %r0, 7, %p0; st.global.u32 [%out], %r1;");
    assert!((0..32).all(|i| out[i] == if i < 4 { 7 } else { 96 + i as u64 }));
    let out = all("shfl.sync.idx.b32 %r0, %a0, 3, 0x181f, -1; st.global.u32 [%out], %r0;");
    assert!((0..32).all(|i| out[i] == 100 + (i as u64 / 8 * 8 + 3)), "segments of eight lanes: {out:?}");
    let out = all("setp.gt.u32 %p0, %a0, 115; vote.sync.ballot.b32 %r0, %p0, -1; st.global.u32 [%out], %r0;");
    assert!(out.iter().all(|&v| v == 0xffff_0000));
    let out = all("redux.sync.add.s32 %r0, %a0, -1; st.global.u32 [%out], %r0;");
    assert!(out.iter().all(|&v| v == (100..132).sum::<u64>()));
    let out = all("elect.sync %r1|%p0, -1; selp.u32 %r0, 1, 0, %p0; st.global.u32 [%out], %r0;");
    assert_eq!(out.iter().sum::<u64>(), 1);
}
