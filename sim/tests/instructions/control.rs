//! Branches, calls, exits: which lanes go where, and where they meet again.

use crate::rig::{lanes, rig, schedules};
use narrowgauge_sim::{FaultKind, InFlight, Schedule};

#[test]
fn a_guard_holds_for_its_lanes_only() {
    let out = rig("mov.u32 %r0, 7;
        setp.lt.u32 %p0, %t, 5;
        @%p0 add.u32 %r0, %r0, 1;
        @!%p0 add.u32 %r0, %r0, %t;
        st.global.u32 [%at], %r0;
        @%p0 st.global.u32 [%at], 99;
        @!%p0 ld.global.u32 %r1, [%at];
        @%p0 mov.u32 %r1, 98;
        @!%p0 add.u32 %r1, %r1, 100;
        st.global.u32 [%at], %r1;")
    .out();
    assert_eq!(out, lanes(|i| if i < 5 { 98 } else { 107 + i }));
}

#[test]
fn loops_run_as_often_as_each_lane_asks() {
    // An inner loop of lane-dependent length in an outer one: sum over j < lane of (j & 3).
    let out = rig("mov.u32 %r0, 0;
        mov.u32 %r1, 0;
    OUTER:
        setp.ge.u32 %p0, %r1, %t;
        @%p0 bra DONE;
        and.b32 %r2, %r1, 3;
    INNER:
        setp.eq.u32 %p1, %r2, 0;
        @%p1 bra NEXT;
        add.u32 %r0, %r0, 1;
        sub.u32 %r2, %r2, 1;
        bra.uni INNER;
    NEXT:
        add.u32 %r1, %r1, 1;
        bra.uni OUTER;
    DONE:
        activemask.b32 %r3;
        setp.eq.u32 %p2, %r3, -1;
        @%p2 add.u32 %r0, %r0, 1000;
        st.global.u32 [%at], %r0;")
    .out();
    assert_eq!(out, lanes(|i| 1000 + (0..i).map(|j| j & 3).sum::<u32>()), "all lanes meet after the loops");
}

#[test]
fn both_sides_of_a_branch_meet_behind_it() {
    // The sides run one after the other; behind the meeting point a vote sees every lane.
    let out = rig("setp.lt.u32 %p0, %t, 12;
        @%p0 bra LESS;
        mul.lo.u32 %r0, %t, 3;
        setp.lt.u32 %p1, %t, 20;
        @%p1 bra MIDDLE;
        add.u32 %r0, %r0, 500;
        bra JOIN;
    MIDDLE:
        add.u32 %r0, %r0, 200;
        bra JOIN;
    LESS:
        mov.u32 %r0, 1;
    JOIN:
        activemask.b32 %r1;
        popc.b32 %r1, %r1;
        shl.b32 %r1, %r1, 16;
        or.b32 %r0, %r0, %r1;
        st.global.u32 [%at], %r0;")
    .out();
    let value = |i| match i {
        0..12 => 1,
        12..20 => 3 * i + 200,
        _ => 3 * i + 500,
    };
    assert_eq!(out, lanes(|i| value(i) | 32 << 16));
}

#[test]
fn lanes_that_wait_for_each_other_are_not_starved() {
    // Lane 0 must reach the store though the others spin in the branch that comes first.
    let out = rig("st.shared.u32 [smem], 0;
        bar.warp.sync -1;
        setp.eq.u32 %p0, %t, 0;
        @%p0 bra FIRST;
    SPIN:
        ld.volatile.shared.u32 %r0, [smem];
        setp.eq.u32 %p1, %r0, 0;
        @%p1 bra SPIN;
        bra JOIN;
    FIRST:
        st.volatile.shared.u32 [smem], 5;
        mov.u32 %r0, 6;
    JOIN:
        st.global.u32 [%at], %r0;")
    .out();
    assert_eq!(out, lanes(|i| if i == 0 { 6 } else { 5 }));
}

#[test]
fn exited_lanes_are_not_waited_for() {
    let out = rig("mov.u32 %r0, 0;
        setp.eq.u32 %p3, %r0, 0;
        setp.ge.u32 %p0, %t, 24;
        @%p0 exit;
        and.b32 %r1, %t, 1;
        setp.eq.u32 %p1, %r1, 0;
        @%p1 bra EVEN;
        setp.gt.u32 %p2, %t, 15;
        @%p2 ret;
        mov.u32 %r0, 1;
    EVEN:
        vote.sync.ballot.b32 %r2, %p3, -1;
        st.global.u32 [%at], %r2;")
    .out();
    // 24.. left at once, odd lanes over 15 in the branch.
    let here = |i: u32| i < 24 && (i & 1 == 0 || i <= 15);
    let members = (0..32).filter(|&i| here(i)).fold(0, |m, i| m | 1 << i);
    assert_eq!(out, lanes(|i| if here(i) { members } else { 0xeeee_eeee }));
}

#[test]
fn indexed_branches() {
    let body = "rem.u32 %r0, %t, 5;
        mov.u32 %r1, 77;
        setp.ne.u32 %p0, %r0, 4;
    TABLE: .branchtargets ZERO, ONE, TWO, ZERO;
        @%p0 brx.idx %r0, TABLE;
        bra JOIN;
    ZERO:
        mov.u32 %r1, 10;
        bra JOIN;
    ONE:
        mov.u32 %r1, 11;
        bra JOIN;
    TWO:
        mov.u32 %r1, 12;
    JOIN:
        activemask.b32 %r2;
        popc.b32 %r2, %r2;
        mad.lo.u32 %r1, %r2, 100, %r1;
        st.global.u32 [%at], %r1;";
    let out = rig(body).out();
    assert_eq!(out, lanes(|i| 3200 + [10, 11, 12, 10, 77][i as usize % 5]));
    let uniform = body.replace("rem.u32 %r0, %t, 5;", "mov.u32 %r0, 2;");
    assert_eq!(rig(&uniform).out(), lanes(|_| 3212));
    let wrong = rig(&body.replace("@%p0 brx.idx", "brx.idx")).fault("brx.idx %r0");
    assert!(wrong.to_string().contains("branch index 4 of 4"), "{wrong}");
    assert_eq!(wrong.lane, Some(4));
}

const FUNCTIONS: &str = "
.func (.param .b32 result) twice(.param .b32 x)
{
    .reg .b32 %r<2>;
    ld.param.b32 %r0, [x];
    add.u32 %r1, %r0, %r0;
    st.param.b32 [result], %r1;
    ret;
}
.func (.param .align 16 .b8 result[16]) both(.param .align 8 .b8 pair[16], .param .b64 other)
{
    .reg .b64 %rd<4>; .reg .b32 %r<3>; .reg .pred %p;
    ld.param.u64 %rd0, [pair];
    ld.param.u64 %rd1, [pair+8];
    ld.param.u64 %rd2, [other];
    cvt.u32.u64 %r0, %rd0;
    {
        .param .b32 a;
        .param .b32 r;
        st.param.b32 [a], %r0;
        call.uni (r), twice, (a);
        ld.param.b32 %r1, [r];
    }
    setp.gt.u32 %p, %r1, 20;
    @%p bra LARGE;
    add.u64 %rd1, %rd1, %rd2;
    cvt.u64.u32 %rd3, %r1;
    st.param.v2.b64 [result], {%rd3, %rd1};
    ret;
LARGE:
    st.param.b64 [result], -1;
    st.param.b64 [result+8], %rd2;
    ret;
}
.func store(.param .b64 to, .param .b32 value)
{
    .reg .b64 %rd; .reg .b32 %r;
    ld.param.b64 %rd, [to];
    ld.param.b32 %r, [value];
    st.global.b32 [%rd], %r;
    ret;
}
";

#[test]
fn calls_pass_parameters_and_results() {
    let out = rig("cvt.u64.u32 %rd0, %t;
        mov.u64 %rd1, 1000;
        {
        .param .align 8 .b8 pair[16];
        .param .b64 other;
        .param .align 16 .b8 r[16];
        st.param.b64 [pair], %rd0;
        st.param.b64 [pair+8], %rd1;
        st.param.b64 [other], 7;
        call (r), both, (pair, other);
        ld.param.v2.b64 {%rd2, %rd3}, [r];
        }
        cvt.u32.u64 %r0, %rd2;
        cvt.u32.u64 %r1, %rd3;
        activemask.b32 %r2;
        popc.b32 %r2, %r2;
        mad.lo.u32 %r0, %r0, 65536, %r1;
        mad.lo.u32 %r0, %r2, 16777216, %r0;
        { .param .b64 to; .param .b32 value;
        st.param.b64 [to], %at;
        st.param.b32 [value], %r0;
        call store, (to, value);
        }")
    .module(FUNCTIONS)
    .out();
    let expect = |i: u32| {
        let (first, second) = if 2 * i > 20 { (u32::MAX, 7) } else { (2 * i, 1007) };
        (32u32 << 24).wrapping_add(first << 16).wrapping_add(second)
    };
    assert_eq!(out, lanes(expect), "lanes that return early meet the others behind the call");
}

#[test]
fn a_guarded_call_is_made_by_some_lanes() {
    let out = rig("mov.u32 %r0, %t;
        setp.gt.u32 %p0, %t, 27;
        { .param .b32 a; .param .b32 r;
        st.param.b32 [a], %r0;
        @%p0 call (r), twice, (a);
        ld.param.b32 %r1, [r];
        }
        @!%p0 mov.u32 %r1, 5;
        activemask.b32 %r2;
        and.b32 %r2, %r2, 0x10;
        add.u32 %r1, %r1, %r2;
        st.global.u32 [%at], %r1;")
    .module(FUNCTIONS)
    .out();
    assert_eq!(out, lanes(|i| 16 + if i > 27 { 2 * i } else { 5 }));
}

#[test]
fn scopes_of_inline_assembly_repeat_their_labels() {
    let scope = "{ .reg .pred P1; .reg .b32 x; mov.u32 x, %t;
        AGAIN: add.u32 %r0, %r0, 1; sub.s32 x, x, 8; setp.gt.s32 P1, x, 0; @P1 bra AGAIN; @!P1 bra DONE;
        add.u32 %r0, %r0, 1000;
        DONE: }\n";
    let out = rig(&format!("mov.u32 %r0, 0;\n{scope}{scope}{{ {scope} }}\nst.global.u32 [%at], %r0;")).out();
    assert_eq!(out, lanes(|i| 3 * i.div_ceil(8).max(1)));
}

#[test]
fn traps_and_undecided_branches_are_faults() {
    let wrong = rig("setp.eq.u32 %p0, %t, 9;\n @%p0 trap;").fault("@%p0 trap");
    assert_eq!((wrong.kind.clone(), wrong.lane), (FaultKind::Trap, Some(9)));
    let wrong = rig("brkpt;").fault("brkpt");
    assert_eq!(wrong.kind, FaultKind::Trap);
    let wrong = rig("setp.eq.u32 %p0, %r9, 9;\n @%p0 bra END;\n mov.u32 %r1, 0;\n END:").fault("bra END");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { used_as: "a branch condition" }), "{wrong}");
    let wrong = rig("@%p7 st.global.u32 [%at], 1;").fault("@%p7");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { used_as: "a guard" }), "{wrong}");
}

#[test]
fn recursion_and_missing_functions_are_named_at_load() {
    let recursive = ".func again() { call again; ret; }";
    let error = rig("call again;").module(recursive).illegal().load().unwrap_err();
    assert!(error.what.contains("recursive"), "{error}");
    let error = rig("call nowhere;").illegal().load().unwrap_err();
    assert!(error.what.contains("nowhere"), "{error}");
    let error = rig("bra NOWHERE;").illegal().load().unwrap_err();
    assert!(error.what.contains("NOWHERE"), "{error}");
}

#[test]
fn calls_through_pointers_go_where_each_lane_wants() {
    let functions = ".visible .func (.param .b32 r) one(.param .b32 a)
{ .reg .b32 %x<2>; ld.param.b32 %x0, [a]; add.u32 %x1, %x0, 1000; st.param.b32 [r], %x1; ret; }
.visible .func (.param .b32 r) two(.param .b32 a)
{ .reg .b32 %x<2>; ld.param.b32 %x0, [a]; mul.lo.u32 %x1, %x0, 3; st.param.b32 [r], %x1; ret; }
.global .align 8 .u64 table[2] = {one, two};";
    let calls = rig("and.b32 %r0, %t, 1;
        mov.u64 %rd0, table;
        mad.wide.u32 %rd0, %r0, 8, %rd0;
        ld.global.u64 %rd1, [%rd0];
        { .param .b32 p; .param .b32 q;
        st.param.b32 [p], %t;
        proto: .callprototype (.param .b32 _) _ (.param .b32 _);
        call (q), %rd1, (p), proto;
        ld.param.b32 %r1, [q]; }
        activemask.b32 %r2;
        setp.ne.u32 %p0, %r2, -1;
        @%p0 mov.u32 %r1, 0;
        st.global.u32 [%at], %r1;")
    .module(functions);
    assert_eq!(calls.out(), lanes(|i| if i % 2 == 0 { i + 1000 } else { 3 * i }));
    let astray = calls.edit("mad.wide.u32 %rd0, %r0, 8, %rd0;", "add.u64 %rd0, %rd0, 0;");
    assert_eq!(astray.out(), lanes(|i| i + 1000));
    let wild = astray.edit("ld.global.u64 %rd1, [%rd0];", "mov.u64 %rd1, 64;").fault("call (q)");
    assert!(wild.to_string().contains("0x40"), "{wild}");
}

const TEXTS: &str =
    ".extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);
.extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
.global .align 1 .b8 what[6] = {120, 32, 60, 32, 53, 0};";

#[test]
fn a_failed_assertion_says_what_it_is() {
    let assertion = |limit: u32| {
        rig(&format!(
            "mov.u64 %rd0, what; cvta.global.u64 %rd0, %rd0;
        setp.lt.u32 %p0, %t, {limit};
        @%p0 bra HOLDS;
        {{ .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;
        st.param.b64 [a], %rd0; st.param.b64 [b], %rd0; st.param.b32 [c], 77; st.param.b64 [d], %rd0;
        st.param.b64 [e], 1;
        call.uni __assertfail, (a, b, c, d, e); }}
    HOLDS:
        st.global.u32 [%at], %t;"
        ))
        .module(TEXTS)
    };
    assert_eq!(assertion(32).out(), lanes(|i| i));
    let wrong = assertion(5).fault("call.uni");
    assert!(
        matches!(&wrong.kind, FaultKind::Assertion(what) if what.contains("`x < 5`") && what.contains(":77"))
    );
    assert_eq!(wrong.lane, Some(5));
    // The others come to a barrier first, and those that fail are not what they miss.
    let met = assertion(5).edit("HOLDS:", "HOLDS: bar.sync 0;");
    assert_eq!(met.edit("%t, 5;", "%t, 32;").out(), lanes(|i| i));
    for schedule in schedules() {
        for limit in [0, 5, 31] {
            let wrong = assertion(limit).edit("HOLDS:", "HOLDS: bar.sync 0;").schedule(schedule);
            let wrong = wrong.fault("call.uni");
            assert!(matches!(wrong.kind, FaultKind::Assertion(_)), "{wrong}");
        }
    }
}

#[test]
fn undefined_decisions_are_faults_of_ours_and_warnings_of_others() {
    let padded = rig("
        setp.lt.u32 %p0, %t, 20;
        mov.u32 %r0, smem;
        mad.lo.u32 %r0, %t, 4, %r0;
        @%p0 st.shared.u32 [%r0], %t;
        bar.warp.sync -1;
        ld.shared.u32 %r1, [%r0];
        setp.lt.u32 %p1, %r1, 10;
        @%p1 bra SMALL;
        mov.u32 %r1, 99;
    SMALL:
        @!%p0 mov.u32 %r1, 7;
        st.global.u32 [%at], %r1;");
    padded.fault("bra SMALL");
    let lenient = Schedule { in_flight: InFlight::Compatible, ..Schedule::default() };
    let ran = padded.schedule(lenient).run().unwrap();
    assert_eq!(
        ran.out,
        lanes(|i| if i < 10 {
            i
        } else if i < 20 {
            99
        } else {
            7
        })
    );
    let told = |w: &String| w.contains("uninitialised data used as a branch condition (PTX line");
    assert!(ran.report.warnings.iter().any(told), "{:?}", ran.report.warnings);
}

#[test]
fn printing_is_said_to_do_nothing() {
    let ran = rig("mov.u64 %rd0, what; cvta.global.u64 %rd0, %rd0;
        { .param .b64 a; .param .b64 b; .param .b32 r;
        st.param.b64 [a], %rd0; st.param.b64 [b], 0;
        call.uni (r), vprintf, (a, b);
        ld.param.b32 %r0, [r]; }
        st.global.u32 [%at], %r0;")
    .module(TEXTS)
    .run()
    .unwrap();
    assert_eq!(ran.out, lanes(|_| 0));
    assert!(
        ran.report.warnings.iter().any(|w| w.contains("printf of \"x < 5\"")),
        "{:?}",
        ran.report.warnings
    );
}

#[test]
fn an_entry_may_be_read_by_itself() {
    let text =
        ".version 9.0\n.target sm_90a\n.visible .entry good() { ret; }\n.visible .entry bad() { tex.level; }";
    assert!(narrowgauge_sim::Module::parse(text).is_err());
    assert_eq!(narrowgauge_sim::Module::parse_entry(text, "good").unwrap().entries(), ["good"]);
    assert!(narrowgauge_sim::Module::parse_entry(text, "bad").is_err());
}
