//! Barriers of a block.

use crate::run;
use narrowgauge_sim::{Policy, Schedule};

#[test]
fn barriers_order_shared_memory_under_every_policy() {
    let body = "mov.u32 %r0, smem; mad.lo.u32 %r1, %t, 4, %r0; st.shared.u32 [%r1], %t; bar.sync 0;
        xor.b32 %r2, %t, 64; mad.lo.u32 %r2, %r2, 4, %r0; ld.shared.u32 %r3, [%r2]; st.global.u32 [%out], %r3;";
    for policy in [Policy::Eager, Policy::Random, Policy::Late] {
        for seed in 0..10 {
            let (out, _) = run(body, &[[0; 3]], 128, Schedule::with(policy, seed)).unwrap();
            assert!((0..128).all(|i| out[i] == i as u64 ^ 64));
        }
    }
}
