//! Single instructions against values worked out from the PTX ISA's text, and the faults of small wrong kernels.

use narrowgauge_sim::{CardProfile, Fault, FaultKind, Launch, Machine, Module, Policy, Report, Schedule};

/// Runs `body` in one warp. It finds its inputs in %a0.. (b32) and %w0.. (b64), lane i reading row i, and stores through
/// %out (64-bit address of its own eight bytes).
fn run(
    body: &str,
    inputs: &[[u64; 3]],
    threads: u32,
    schedule: Schedule,
) -> Result<(Vec<u64>, Report), Box<Fault>> {
    let text = format!(
        r#"
.version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 in_ptr, .param .u64 out_ptr)
{{
    .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<40>; .reg .b32 %a<4>; .reg .b64 %rd<8>; .reg .b64 %w<4>;
    .reg .b64 %in, %out; .reg .b32 %t;
    .shared .align 1024 .b8 smem[4096];
    ld.param.u64 %in, [in_ptr];
    ld.param.u64 %out, [out_ptr];
    mov.u32 %t, %tid.x;
    mad.wide.u32 %in, %t, 24, %in;
    mad.wide.u32 %out, %t, 8, %out;
    ld.global.u64 %w0, [%in]; ld.global.u64 %w1, [%in+8]; ld.global.u64 %w2, [%in+16];
    cvt.u32.u64 %a0, %w0; cvt.u32.u64 %a1, %w1; cvt.u32.u64 %a2, %w2;
    {body}
    ret;
}}"#
    );
    let module = Module::parse(&text).unwrap();
    let mut machine = Machine::new(CardProfile::H20);
    let rows: Vec<[u64; 3]> = (0..threads as usize).map(|i| inputs[i % inputs.len()]).collect();
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let from = machine.alloc(bytes.len() as u64).unwrap();
    machine.write(from, &bytes).unwrap();
    let to = machine.alloc(8 * u64::from(threads)).unwrap();
    machine.fill(to, 8 * u64::from(threads), 0).unwrap();
    let params: [&[u8]; 2] = [&from.to_le_bytes(), &to.to_le_bytes()];
    let launch = Launch {
        entry: "k",
        grid: [1; 3],
        block: [threads, 1, 1],
        cluster: [1; 3],
        shared_bytes: 0,
        params: &params,
        schedule,
    };
    let report = machine.launch(&module, &launch)?;
    let mut out = vec![0; 8 * threads as usize];
    machine.read(to, &mut out).unwrap();
    Ok((out.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect(), report))
}

fn one(body: &str, input: [u64; 3]) -> u64 {
    run(body, &[input], 32, Schedule::default()).unwrap().0[0]
}

fn f(x: f32) -> u64 {
    u64::from(x.to_bits())
}

/// `op %r0, …` on 32-bit operands.
fn narrow(op: &str, input: [u64; 3]) -> u64 {
    one(&format!("{op}; st.global.u32 [%out], %r0;"), input)
}

fn wide(op: &str, input: [u64; 3]) -> u64 {
    one(&format!("{op}; st.global.u64 [%out], %rd0;"), input)
}

#[test]
fn integers() {
    let minus = |x: i32| u64::from(x as u32);
    for (op, input, want) in [
        ("add.s32 %r0, %a0, %a1", [0xffff_ffff, 2, 0], 1),
        ("sub.s32 %r0, %a0, %a1", [1, 2, 0], 0xffff_ffff),
        ("mul.lo.s32 %r0, %a0, %a1", [minus(-3), 5, 0], minus(-15)),
        ("mul.hi.u32 %r0, %a0, %a1", [0x8000_0000, 6, 0], 3),
        ("mul.hi.s32 %r0, %a0, %a1", [minus(-2), 3, 0], 0xffff_ffff),
        ("mad.lo.s32 %r0, %a0, %a1, %a2", [7, 6, 5], 47),
        ("div.s32 %r0, %a0, %a1", [minus(-7), 2, 0], minus(-3)),
        ("rem.s32 %r0, %a0, %a1", [minus(-7), 2, 0], minus(-1)),
        ("min.s32 %r0, %a0, %a1", [minus(-1), 1, 0], minus(-1)),
        ("min.u32 %r0, %a0, %a1", [minus(-1), 1, 0], 1),
        ("shl.b32 %r0, %a0, %a1", [1, 32, 0], 0),
        ("shr.u32 %r0, %a0, %a1", [0x8000_0000, 31, 0], 1),
        ("shr.s32 %r0, %a0, %a1", [0x8000_0000, 40, 0], 0xffff_ffff),
        ("shf.l.wrap.b32 %r0, %a0, %a1, %a2", [0x8000_0001, 0x1, 4], 0x18),
        ("shf.r.clamp.b32 %r0, %a0, %a1, %a2", [0x10, 0xabcd, 40], 0xabcd),
        ("popc.b32 %r0, %a0", [0xf0f0, 0, 0], 8),
        ("clz.b32 %r0, %a0", [1, 0, 0], 31),
        ("brev.b32 %r0, %a0", [1, 0, 0], 0x8000_0000),
        ("bfind.u32 %r0, %a0", [0x100, 0, 0], 8),
        ("bfe.u32 %r0, %a0, 4, 8", [0xabcd, 0, 0], 0xbc),
        ("bfe.s32 %r0, %a0, 4, 8", [0xabcd, 0, 0], 0xffff_ffbc),
        ("bfi.b32 %r0, %a0, %a1, 8, 4", [0xf, 0, 0], 0xf00),
        ("prmt.b32 %r0, %a0, %a1, 0x5410", [0x4433_2211, 0x8877_6655, 0], 0x6655_2211),
        ("prmt.b32 %r0, %a0, %a1, 0x000f", [0, 0x8000_0000, 0], 0xff),
        ("lop3.b32 %r0, %a0, %a1, %a2, 0x96", [0b1100, 0b1010, 0b1111], 0b1001),
        ("and.b32 %r0, %a0, %a1", [0xff, 0x0f, 0], 0x0f),
        ("abs.s32 %r0, %a0", [minus(-9), 0, 0], 9),
    ] {
        assert_eq!(narrow(op, input), want, "{op} of {input:x?}");
    }
    for (op, input, want) in [
        ("mul.wide.s32 %rd0, %a0, %a1", [minus(-2), 3, 0], -6i64 as u64),
        ("mul.hi.u64 %rd0, %w0, %w1", [1 << 63, 6, 0], 3),
        ("shl.b64 %rd0, %w0, %a1", [1, 63, 0], 1 << 63),
        ("shr.s64 %rd0, %w0, %a1", [1 << 63, 63, 0], u64::MAX),
        ("mov.b64 %rd0, {%a0, %a1}", [1, 2, 0], 0x2_0000_0001),
        ("cvt.s64.s32 %rd0, %a0", [minus(-5), 0, 0], -5i64 as u64),
    ] {
        assert_eq!(wide(op, input), want, "{op} of {input:x?}");
    }
}

#[test]
fn floats() {
    let tiny = f32::from_bits(1);
    for (op, input, want) in [
        ("add.f32 %r0, %a0, %a1", [f(1.5), f(2.25), 0], f(3.75)),
        ("add.ftz.f32 %r0, %a0, %a1", [f(tiny), f(0.0), 0], 0),
        ("fma.rn.f32 %r0, %a0, %a1, %a2", [f(1.0 + 2f32.powi(-12)), f(1.0 + 2f32.powi(-12)), f(-1.0)], {
            f(2f32.powi(-11) + 2f32.powi(-24))
        }),
        ("fma.rm.f32 %r0, %a0, %a1, %a2", [f(1.0), f(1.0), f(-2f32.powi(-40))], f(1.0f32.next_down())),
        (
            "mul.rz.f32 %r0, %a0, %a1",
            [f(1.0 + f32::EPSILON), f(1.0 + f32::EPSILON), 0],
            f(1.0 + 2.0 * f32::EPSILON),
        ),
        ("min.f32 %r0, %a0, %a1", [f(f32::NAN), f(2.0), 0], f(2.0)),
        ("max.f32 %r0, %a0, %a1", [f(-0.0), f(0.0), 0], f(0.0)),
        ("ex2.approx.ftz.f32 %r0, %a0", [f(3.0), 0, 0], f(8.0)),
        ("lg2.approx.f32 %r0, %a0", [f(8.0), 0, 0], f(3.0)),
        ("rsqrt.approx.f32 %r0, %a0", [f(4.0), 0, 0], f(0.5)),
        ("cvt.rn.bf16x2.f32 %r0, %a0, %a1", [f(1.0), f(-2.0), 0], 0x3f80_c000),
        ("cvt.rni.s32.f32 %r0, %a0", [f(2.5), 0, 0], 2),
        ("cvt.rzi.s32.f32 %r0, %a0", [f(-3e9), 0, 0], 0x8000_0000),
        ("cvt.rzi.u32.f32 %r0, %a0", [f(f32::NAN), 0, 0], 0),
        ("cvt.rn.f32.s32 %r0, %a0", [0xffff_ffff, 0, 0], f(-1.0)),
        ("cvt.rn.f32.u32 %r0, %a0", [0x0100_0001, 0, 0], f(16_777_216.0)),
    ] {
        assert_eq!(narrow(op, input), want, "{op} of {input:x?}");
    }
    let pack = "cvt.rn.satfinite.e4m3x2.f32 %h0, %a0, %a1; cvt.u32.u16 %r0, %h0";
    assert_eq!(narrow(pack, [f(1e9), f(1.0), 0]), 0x7e38);
}

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

fn fault(body: &str, threads: u32) -> Fault {
    *run(body, &[[0; 3]], threads, Schedule::default()).expect_err("the kernel is wrong")
}

#[test]
fn faults_are_precise() {
    let wrong = fault("ld.global.u32 %r0, [%out+4096];", 32);
    assert!(matches!(wrong.kind, FaultKind::OutOfBounds { space: "global", .. }), "{wrong}");
    assert_eq!((wrong.lane, wrong.instruction.as_str()), (Some(0), "ld.global.u32"));
    let wrong = fault("ld.global.u64 %rd0, [%out+4];", 32);
    assert!(matches!(wrong.kind, FaultKind::Misaligned { align: 8, .. }), "{wrong}");
    let wrong = fault("st.global.u32 [%out], %r9;", 32);
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
    let wrong = fault("ld.shared.u32 %r0, [smem]; setp.eq.u32 %p0, %r0, 0; @%p0 ret;", 32);
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
    let wrong = fault("setp.lt.u32 %p0, %t, 4; @%p0 bar.sync 0;", 32);
    assert!(matches!(wrong.kind, FaultKind::Divergence { present: 0xf, .. }), "{wrong}");
    let wrong = fault("setp.lt.u32 %p0, %t, 32; @%p0 bra END; bar.sync 1, 64; END:", 64);
    assert!(matches!(wrong.kind, FaultKind::Deadlock(ref who) if who.contains("barrier 1")), "{wrong}");
    let wrong = fault("LOOP: bra LOOP;", 32);
    assert!(matches!(wrong.kind, FaultKind::StepLimit(_)), "{wrong}");
}

#[test]
fn copying_undefined_registers_is_no_fault() {
    // The upper half is never written, and masked away before it is stored.
    let body = "mov.b32 %r0, {%h1, %h2}; mov.u16 %h3, 5; mov.b32 %r1, {%h3, %h2}; and.b32 %r2, %r1, 0xffff;
        st.global.u32 [%out], %r2;";
    assert_eq!(one(body, [0; 3]), 5);
}

#[test]
fn mbarriers_wait_for_bytes_and_arrivals() {
    let body = "mov.u32 %r0, smem; setp.eq.u32 %p0, %t, 0;
        @%p0 mbarrier.init.shared::cta.b64 [%r0], 1; fence.mbarrier_init.release.cluster; bar.sync 0;
        mov.u32 %r2, 64; add.u32 %r1, %r0, 128;
        @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], %r2;
        @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], %r2, [%r0];
        { .reg .pred P1; WAIT: mbarrier.try_wait.parity.shared::cta.b64 P1, [%r0], 0; @!P1 bra WAIT; }
        ld.shared.u32 %r3, [%r1+24]; st.global.u32 [%out], %r3;";
    // Lane 0's source begins at row 0, 16-byte aligned; word 24 is row 1's first.
    for policy in [Policy::Eager, Policy::Random, Policy::Late] {
        let (out, report) = run(body, &[[11, 0, 0], [22, 0, 0]], 64, Schedule::with(policy, 3)).unwrap();
        assert!(out.iter().all(|&v| v == 22), "{out:?}");
        assert_eq!(report.counters.bulk_load_bytes, 64);
    }
    let never = body
        .replace("@%p0 cp.async", "@!%p0 bra SKIP; bra SKIP; @%p0 cp.async")
        .replace("{ .reg", "SKIP: { .reg");
    let wrong = fault(&never, 32);
    assert!(matches!(wrong.kind, FaultKind::Deadlock(ref who) if who.contains("mbarrier")), "{wrong}");
}

#[test]
fn an_unknown_instruction_is_named_at_load() {
    let text =
        ".version 9.0\n.target sm_90a\n.visible .entry k()\n{\n.reg .b32 %r<2>;\nfrobnicate.b32 %r0, %r1;\n}";
    let error = Module::parse(text).unwrap_err();
    assert_eq!(error.line, 6);
    assert!(error.what.contains("frobnicate.b32"), "{error}");
}
