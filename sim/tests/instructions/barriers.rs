//! Named barriers of a block, launch bounds, register counts.

use crate::rig::{Rig, rig, schedules};
use narrowgauge_sim::{Fault, FaultKind};

/// Every thread writes its number, passes the barrier and reads what thread t ^ 64 wrote.
fn exchange(barrier: &str) -> Rig {
    rig(&format!(
        "mov.u32 %r0, smem;
        mad.lo.u32 %r1, %t, 4, %r0;
        st.shared.u32 [%r1], %t;
        mov.u32 %r7, 5;
        mov.u32 %r8, 128;
        {barrier}
        xor.b32 %r2, %t, 64;
        mad.lo.u32 %r2, %r2, 4, %r0;
        ld.shared.u32 %r3, [%r2];
        st.global.u32 [%at], %r3;"
    ))
    .threads(128)
}

#[test]
fn every_form_of_a_barrier_orders_shared_memory() {
    for form in [
        "bar.sync 0;",
        "bar.sync 0, 128;",
        "bar.cta.sync 3, 128;",
        "bar.sync %r7;",
        "bar.sync %r7, %r8;",
        "barrier.sync 0;",
        "barrier.cta.sync.aligned 15;",
        "barrier.sync.aligned 1, 128;",
        "barrier.cta.sync 2, %r8;",
        "bar.red.popc.u32 %r9, 4, %p0;",
    ] {
        for schedule in schedules() {
            let form = if form.contains("red") {
                format!("setp.lt.u32 %p0, %t, 9; {form}")
            } else {
                form.to_owned()
            };
            let out = exchange(&form).schedule(schedule).out();
            assert_eq!(out, (0..128).map(|t| t ^ 64).collect::<Vec<u32>>(), "{form} under {schedule:?}");
        }
    }
}

#[test]
fn lanes_may_come_apart_to_an_unaligned_barrier() {
    let body = "setp.lt.u32 %p0, %t, 70; @%p0 bra LOW; barrier.sync 1, 128; bra JOIN; LOW: barrier.sync 1, 128; JOIN:";
    for schedule in schedules() {
        assert_eq!(exchange(body).schedule(schedule).out()[5], 69);
    }
    let wrong = rig(&format!(
        "mov.u32 %r7, 1;\n {}",
        body.replace("barrier.sync 1, 128; bra", "\nbar.sync 1, 128;\n bra")
    ))
    .threads(128)
    .fault("bar.sync 1, 128;");
    assert_eq!(wrong.kind, FaultKind::Divergence { present: 0xffff_ffc0, wanted: u32::MAX }, "{wrong}");
}

#[test]
fn arrivals_count_without_waiting() {
    // Warps 0 to 2 produce and go on, warp 3 waits for all of them, on two barriers in turn.
    let body = "shr.u32 %r0, %t, 5;
        mov.u32 %r1, smem;
        setp.eq.u32 %p0, %r0, 3;
        @%p0 bra CONSUMER;
        mad.lo.u32 %r2, %t, 4, %r1;
        st.shared.u32 [%r2], %t;
        bar.arrive 1, 128;
        add.u32 %r3, %t, 1000;
        bar.sync 2, 128;
        ld.shared.u32 %r4, [%r1+2000];
        add.u32 %r3, %r3, %r4;
        st.global.u32 [%at], %r3;
        bra END;
    CONSUMER:
        barrier.cta.sync 1, 128;
        sub.u32 %r2, %t, 96;
        mad.lo.u32 %r2, %r2, 12, %r1;
        ld.shared.u32 %r3, [%r2];
        st.global.u32 [%at], %r3;
        st.shared.u32 [%r1+2000], 7;
        barrier.cta.arrive 2, 128;
    END:";
    for schedule in schedules() {
        let out = rig(body).threads(128).schedule(schedule).out();
        let want = |t: u32| if t < 96 { t + 1007 } else { 3 * (t - 96) };
        assert_eq!(out, (0..128).map(want).collect::<Vec<_>>(), "{schedule:?}");
    }
}

#[test]
fn reductions_over_the_block() {
    for below in [0, 1, 40, 127, 128] {
        for (count, threads) in [("", 128), (", 128", 128), (", 64", 64)] {
            let out = rig(&format!(
                "setp.lt.u32 %p0, %t, {below};
                bar.red.popc.u32 %r0, 1{count}, %p0;
                bar.red.and.pred %p1, 2{count}, %p0;
                bar.red.or.pred %p2, 3{count}, %p0;
                barrier.cta.red.popc.u32 %r3, 4{count}, !%p0;
                barrier.red.aligned.or.pred %p3, 5{count}, !%p0;
                selp.u32 %r1, 1000, 0, %p1;
                selp.u32 %r2, 10000, 0, %p2;
                add.u32 %r0, %r0, %r1;
                add.u32 %r0, %r0, %r2;
                mad.lo.u32 %r0, %r3, 100000, %r0;
                st.global.u32 [%at], %r0;"
            ))
            .threads(threads)
            .out();
            let holds = below.min(threads);
            let want = holds
                + if holds == threads { 1000 } else { 0 }
                + if holds > 0 { 10000 } else { 0 }
                + (threads - holds) * 100_000;
            assert_eq!(out[..threads as usize], vec![want; threads as usize], "{below} of {threads}");
        }
    }
}

#[test]
fn lanes_may_come_apart_to_an_unaligned_reduction() {
    let out = rig("setp.lt.u32 %p1, %t, 20;
        setp.lt.u32 %p0, %t, 9;
        @%p1 bra LOW;
        barrier.cta.red.popc.u32 %r0, 1, 64, %p0;
        bra JOIN;
    LOW:
        barrier.cta.red.popc.u32 %r0, 1, 64, %p0;
    JOIN:
        st.global.u32 [%at], %r0;")
    .threads(64)
    .out();
    assert_eq!(out, [9; 64]);
    let wrong = rig("setp.lt.u32 %p1, %t, 20;\n @%p1 exit;\n setp.lt.u32 %p1, %t, 25;\n @%p1 bra END;
        bar.red.popc.u32 %r0, 1, %p1;\n END:")
    .fault("bar.red");
    assert!(matches!(wrong.kind, FaultKind::Divergence { .. }), "{wrong}");
}

#[test]
fn exited_warps_are_not_waited_for() {
    let out = rig("setp.gt.u32 %p0, %t, 63;
        @%p0 exit;
        bar.sync 0;
        st.global.u32 [%at], 1;")
    .threads(128)
    .out();
    assert_eq!((out[0], out[63], out[64]), (1, 1, 0xeeee_eeee));
}

#[test]
fn misuse_is_a_fault() {
    let barrier = |rig: Rig, culprit: &str, what: &str| {
        let wrong = rig.fault(culprit);
        assert!(matches!(wrong.kind, FaultKind::Barrier(ref text) if text.contains(what)), "{wrong}");
    };
    barrier(rig("mov.u32 %r0, 16;\n bar.sync %r0;"), "bar.sync %r0", "barrier 16 of 16");
    barrier(rig("mov.u32 %r0, 48;\n bar.sync 1, %r0;").threads(64), "bar.sync 1", "not a multiple of 32");
    let different = "shr.u32 %r0, %t, 5;
        setp.eq.u32 %p0, %r0, 0;
        @%p0 bra FIRST;
        bar.sync 1, 96;
        bra END;
        FIRST: bar.arrive 1, 64;
        END:";
    let wrong = rig(different).threads(96).run().unwrap_err();
    assert!(wrong.to_string().contains("barrier 1 is open for"), "{wrong}");
    barrier(
        rig("bar.arrive 1, 64;\n add.u32 %r1, %t, 0;\n bar.cta.arrive 1, 64;"),
        "bar.cta.arrive",
        "twice",
    );
    barrier(rig("mov.u32 %r0, %laneid;\n bar.sync %r0;"), "bar.sync %r0", "differs between the lanes");
    let wrong = rig("bar.sync %r9;").fault("bar.sync %r9");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
}

fn deadlock(fault: &Fault) -> &str {
    match &fault.kind {
        FaultKind::Deadlock(who) => who,
        _ => panic!("{fault}"),
    }
}

#[test]
fn a_deadlock_tells_who_waits_for_what() {
    let stuck = rig("setp.gt.u32 %p0, %t, 31;
        @%p0 bra OTHER;
        bar.sync 1, 96;
        OTHER: bar.sync 2, 128;")
    .threads(96);
    let text = stuck.text();
    let line = |what: &str| text.lines().position(|l| l.contains(what)).unwrap() + 1;
    let wrong = stuck.run().unwrap_err();
    let who = deadlock(&wrong);
    let first = format!(
        "warp 0 lanes 0xffffffff at PTX line {} wait for barrier 1 (32 of 96 threads arrived)",
        line("bar.sync 1, 96")
    );
    let second = format!(
        "warp 2 lanes 0xffffffff at PTX line {} wait for barrier 2 (64 of 128 threads arrived)",
        line("bar.sync 2")
    );
    assert!(who.contains(&first) && who.contains(&second), "{who}");
}

#[test]
fn blocks_have_the_threads_that_the_kernel_asks_for() {
    let bounded = |directive: &str, threads| {
        rig("st.global.u32 [%at], 1;").directives(directive).threads(threads).run()
    };
    assert!(bounded(".maxntid 128, 1, 1", 128).is_ok());
    assert!(bounded(".maxntid 16, 2, 2", 64).is_ok());
    assert!(bounded(".reqntid 64, 1, 1", 64).is_ok());
    assert!(bounded(".maxntid 64\n.minnctapersm 1", 64).is_ok());
    for (directive, threads) in
        [(".maxntid 128, 1, 1", 160), (".reqntid 64, 1, 1", 32), (".reqntid 32, 2, 1", 64)]
    {
        let wrong = bounded(directive, threads).unwrap_err();
        assert!(matches!(wrong.kind, FaultKind::Launch(_)), "{directive}: {wrong}");
    }
    let wrong = bounded("", 1056).unwrap_err();
    assert!(wrong.to_string().contains("1 to 1024"), "{wrong}");
}

#[test]
fn register_counts_are_for_whole_warps() {
    let out = rig("setmaxnreg.dec.sync.aligned.u32 40;
        setmaxnreg.inc.sync.aligned.u32 232;
        st.global.u32 [%at], 1;")
    .threads(128)
    .directives(".maxntid 128, 1, 1")
    .out();
    assert_eq!(out, [1; 128]);
    // 256 threads could begin with 248 registers each; the assembler gives them no more than the largest increase.
    let out = rig("setmaxnreg.inc.sync.aligned.u32 200;\n st.global.u32 [%at], 1;");
    assert_eq!(out.threads(256).directives(".maxntid 256, 1, 1").out(), [1; 256]);
    let line = "setmaxnreg.inc.sync.aligned.u32 200;";
    let wrong = rig(&format!("{line}\n setmaxnreg.inc.sync.aligned.u32 232;"));
    let wrong = wrong.threads(256).directives(".maxntid 256, 1, 1").fault(line);
    assert!(wrong.to_string().contains("fewer than the 232"), "{wrong}");
    let wrong = rig("setp.lt.u32 %p0, %t, 16;\n @!%p0 bra END;\n setmaxnreg.dec.sync.aligned.u32 24;\n END:")
        .directives(".maxntid 128, 1, 1")
        .fault("setmaxnreg");
    assert!(matches!(wrong.kind, FaultKind::Divergence { present: 0xffff, .. }), "{wrong}");
    for count in [16, 20, 264] {
        let text = format!("setmaxnreg.dec.sync.aligned.u32 {count};");
        let error = rig(&text).illegal().load().unwrap_err();
        assert!(error.what.contains("multiple of 8"), "{error}");
    }
}
