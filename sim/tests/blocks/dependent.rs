//! Launches that start before the one that they depend on has ended.

use super::words;
use narrowgauge_sim::{
    CardProfile, Chained, Fault, FaultKind, Launch, Machine, Module, Policy, Report, Schedule,
};

/// Kernels over arrays of 256 words at %x, %y, %z and %w, of which each thread of the grid has its own at %i bytes.
fn kernel(name: &str, body: &str) -> String {
    format!(
        ".visible .entry {name}(.param .u64 x, .param .u64 y, .param .u64 z, .param .u64 w)
{{
    .reg .pred %p<4>; .reg .b32 %r<12>; .reg .b64 %rd<8>; .reg .b64 %x, %y, %z, %w, %i;
    .shared .align 128 .b8 smem[1024];
    ld.param.u64 %x, [x]; ld.param.u64 %y, [y]; ld.param.u64 %z, [z]; ld.param.u64 %w, [w];
    mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x; mad.lo.u32 %r0, %r0, %r1, %r2;
    mul.wide.u32 %i, %r0, 4;
    add.u64 %x, %x, %i; add.u64 %y, %y, %i; add.u64 %z, %z, %i; add.u64 %w, %w, %i;
    {body}
    ret;
}}
"
    )
}

/// Reads x and makes y = 2x.
const PRODUCER: &str = "griddepcontrol.launch_dependents; griddepcontrol.wait;
    ld.global.u32 %r4, [%x]; shl.b32 %r4, %r4, 1; st.global.u32 [%y], %r4;";

/// Makes z = y + w; w are weights that nobody writes, read before the wait.
const CONSUMER: &str = "ld.global.u32 %r5, [%w]; griddepcontrol.wait;
    ld.global.u32 %r4, [%y]; add.u32 %r4, %r4, %r5; st.global.u32 [%z], %r4;";

struct Ran {
    x: Vec<u32>,
    y: Vec<u32>,
    z: Vec<u32>,
    reports: Vec<Report>,
}

const WORDS: usize = 256;

/// Runs kernels one after the other with x = 0.., w = 1000 and nothing in y and z; those after the first as
/// `programmatic` says, in 4 blocks of 64.
fn chain_on(
    profile: CardProfile,
    bodies: &[&str],
    programmatic: bool,
    schedule: Schedule,
) -> Result<Ran, Box<Fault>> {
    let names = ["first", "second", "third"];
    let mut text = ".version 8.6\n.target sm_90a\n.address_size 64\n".to_owned();
    for (name, body) in names.iter().zip(bodies) {
        text += &kernel(name, body);
    }
    let module = Module::parse(&text).unwrap();
    let mut machine = Machine::new(profile);
    let [x, y, z, w] = [0; 4].map(|_: u32| machine.alloc(4 * WORDS as u64).unwrap());
    let bytes = |f: fn(u32) -> u32| (0..WORDS as u32).flat_map(|i| f(i).to_le_bytes()).collect::<Vec<u8>>();
    machine.write(x, &bytes(|i| i)).unwrap();
    machine.write(w, &bytes(|_| 1000)).unwrap();
    let addresses = [x, y, z, w].map(u64::to_le_bytes);
    let params: Vec<&[u8]> = addresses.iter().map(|a| a.as_slice()).collect();
    let links: Vec<Chained<'_>> = (0..bodies.len())
        .map(|i| Chained {
            module: &module,
            launch: Launch {
                entry: names[i],
                grid: [4, 1, 1],
                block: [64, 1, 1],
                cluster: [1; 3],
                shared_bytes: 0,
                params: &params,
                schedule,
            },
            programmatic: programmatic && i > 0,
        })
        .collect();
    let reports = machine.launch_chain(&links)?;
    let all = |at| words(&machine, at, WORDS);
    Ok(Ran { x: all(x), y: all(y), z: all(z), reports })
}

fn chain(bodies: &[&str]) -> Result<Ran, Box<Fault>> {
    chain_on(CardProfile::H20, bodies, true, Schedule::default())
}

/// The fault of a chain, which is right without early starts.
fn early(bodies: &[&str], part: &str) -> Fault {
    chain_on(CardProfile::H20, bodies, false, Schedule::default()).unwrap_or_else(|fault| panic!("{fault}"));
    let fault = *chain(bodies).err().expect("a launch starts too early");
    assert!(matches!(&fault.kind, FaultKind::Dependency(what) if what.contains(part)), "{fault}");
    fault
}

#[test]
fn a_consumer_waits_for_its_producer() {
    for policy in [Policy::Eager, Policy::Random, Policy::Late] {
        for seed in 0..5 {
            let schedule = Schedule::with(policy, seed);
            let ran = chain_on(CardProfile::H20, &[PRODUCER, CONSUMER], true, schedule).unwrap();
            assert!((0..WORDS).all(|i| ran.y[i] == 2 * i as u32 && ran.z[i] == 2 * i as u32 + 1000));
            assert_eq!(ran.reports.len(), 2);
            assert!(ran.reports.iter().all(|r| r.counters.blocks == 4 && r.warnings.is_empty()));
        }
    }
    // On a card that holds three blocks at once, the last block of the consumer starts after the producer.
    let tiny = CardProfile { sms: 3, shared_per_sm: 2048, ..CardProfile::H20 };
    let ran = chain_on(tiny, &[PRODUCER, CONSUMER], true, Schedule::default()).unwrap();
    assert!((0..WORDS).all(|i| ran.z[i] == 2 * i as u32 + 1000));
}

/// L2 is where all multiprocessors see the same, so what comes there early cannot be out of date.
#[test]
fn what_is_prefetched_early_is_not_read_early() {
    let early = CONSUMER.replace(
        "griddepcontrol.wait;",
        "setp.eq.u32 %p0, %r2, 0; @%p0 cp.async.bulk.prefetch.L2.global [%y], 256; griddepcontrol.wait;",
    );
    let ran = chain(&[PRODUCER, &early]).unwrap();
    assert!((0..WORDS).all(|i| ran.z[i] == 2 * i as u32 + 1000));
    assert_eq!(ran.reports[1].counters.bulk_prefetch_bytes, 1024);
}

#[test]
fn a_launch_alone_has_nobody_to_wait_for() {
    let ran = chain(&[PRODUCER]).unwrap();
    assert!((0..WORDS).all(|i| ran.y[i] == 2 * i as u32));
}

#[test]
fn a_launch_after_nobody_knows_what_touches_nothing_early() {
    let run = |body: &str, programmatic| {
        let text = format!(".version 8.6\n.target sm_90a\n.address_size 64\n{}", kernel("first", body));
        let module = Module::parse(&text).unwrap();
        let mut machine = Machine::new(CardProfile::H20);
        let at = machine.alloc(4 * WORDS as u64).unwrap();
        machine.fill(at, 4 * WORDS as u64, 0).unwrap();
        let address = at.to_le_bytes();
        let params: [&[u8]; 4] = [&address; 4];
        let launch = Launch {
            entry: "first",
            grid: [4, 1, 1],
            block: [64, 1, 1],
            cluster: [1; 3],
            shared_bytes: 0,
            params: &params,
            schedule: Schedule::default(),
        };
        machine.launch_chain(&[Chained { module: &module, launch, programmatic }])
    };
    let dependency = |body: &str, part: &str| {
        run(body, false).unwrap_or_else(|fault| panic!("{fault}"));
        let fault = run(body, true).unwrap_err();
        assert!(matches!(&fault.kind, FaultKind::Dependency(what) if what.contains(part)), "{fault}");
        fault
    };
    run(PRODUCER, true).unwrap_or_else(|fault| panic!("{fault}"));
    let fault = dependency("ld.global.u32 %r4, [%x]; griddepcontrol.wait;", "reads global memory");
    assert_eq!(fault.instruction, "ld.global.u32");
    dependency("st.global.u32 [%x], 1; griddepcontrol.wait;", "writes global memory");
    dependency("mov.u32 %r4, 1;", "ends without griddepcontrol.wait");
}

#[test]
fn what_the_producer_writes_is_not_there_before_the_wait() {
    let hasty = CONSUMER
        .replace("griddepcontrol.wait;", "")
        .replace("st.global.u32", "griddepcontrol.wait; st.global.u32");
    let fault = early(&[PRODUCER, &hasty], "reads global memory");
    assert_eq!((fault.kernel.as_str(), fault.instruction.as_str()), ("second", "ld.global.u32"));
    assert!(
        matches!(&fault.kind, FaultKind::Dependency(what) if what.contains("and first writes it")),
        "{fault}"
    );
    // The load of y is on the second line of the consumer's body.
    let line = |text: &str| text.lines().position(|l| l.contains("[%y]; add")).unwrap() as u32 + 1;
    let text = format!("\n\n\n{}{}", kernel("first", PRODUCER), kernel("second", &hasty));
    assert_eq!(fault.line, line(&text));

    early(
        &[PRODUCER, "ld.global.u32 %r4, [%w]; st.global.u32 [%y], %r4; griddepcontrol.wait;"],
        "writes global memory",
    );
    early(&[PRODUCER, "atom.global.add.u32 %r4, [%x], 0; griddepcontrol.wait;"], "and first reads it");
    early(&[PRODUCER, "st.global.u32 [%x], 7; griddepcontrol.wait;"], "and first reads it");
    // Never written before: the data would be uninitialised, but that is not the reason.
    early(
        &[PRODUCER, "ld.global.u32 %r4, [%y]; setp.eq.u32 %p0, %r4, 5; @%p0 ret; griddepcontrol.wait;"],
        "first writes it",
    );
}

#[test]
fn copies_count_too() {
    let copy = |before: &str, after: &str| {
        format!(
            "mov.u32 %r6, smem; setp.eq.u32 %p0, %r2, 0; @%p0 mbarrier.init.shared::cta.b64 [%r6], 1; fence.mbarrier_init.release.cluster; bar.sync 0;
            {before} @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], 256; add.u32 %r7, %r6, 128;
            @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r7], [%y], 256, [%r6]; {after}
            WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r6], 0; @!%p1 bra WAIT;
            mad.lo.u32 %r8, %r2, 4, %r7; ld.shared.u32 %r9, [%r8]; st.global.u32 [%z], %r9;"
        )
    };
    let wait = "griddepcontrol.wait;";
    let ran = chain(&[PRODUCER, &copy(wait, "")]).unwrap();
    assert!((0..WORDS).all(|i| ran.z[i] == 2 * i as u32));
    let fault = early(&[PRODUCER, &copy("", wait)], "first writes it");
    assert!(fault.instruction.starts_with("cp.async.bulk"), "{fault}");
}

#[test]
fn one_thread_may_wait_for_all() {
    let one = "setp.eq.u32 %p0, %r2, 0; @%p0 griddepcontrol.wait; bar.sync 0;
        ld.global.u32 %r4, [%y]; st.global.u32 [%z], %r4;";
    let ran = chain(&[PRODUCER, one]).unwrap();
    assert!((0..WORDS).all(|i| ran.z[i] == 2 * i as u32));
    let fault = early(&[PRODUCER, &one.replace("bar.sync 0;", "")], "first writes it");
    assert_eq!(fault.instruction, "ld.global.u32");
}

#[test]
fn a_flag_of_the_producer_is_no_wait() {
    let flag = "setp.ne.u32 %p0, %r0, 0; @%p0 bra END; SPIN: ld.acquire.gpu.global.u32 %r4, [%y+4];
        setp.ne.u32 %p1, %r4, 2; @%p1 bra SPIN; END: griddepcontrol.wait;";
    early(&[PRODUCER, flag], "reads global memory");
}

/// x = z: reads what the second wrote.
const THIRD: &str = "griddepcontrol.wait; ld.global.u32 %r4, [%z]; st.global.u32 [%x], %r4;";

#[test]
fn chains_of_three() {
    let ran = chain(&[PRODUCER, CONSUMER, THIRD]).unwrap();
    assert!((0..WORDS).all(|i| ran.x[i] == 2 * i as u32 + 1000));
    // The third reads y before its wait: there when the second let it go after its own wait, else not.
    let third =
        "ld.global.u32 %r5, [%y]; griddepcontrol.wait; ld.global.u32 %r4, [%z]; add.u32 %r4, %r4, %r5;
        st.global.u32 [%x], %r4;";
    let releasing = format!("griddepcontrol.wait; griddepcontrol.launch_dependents; {CONSUMER}");
    let ran = chain(&[PRODUCER, &releasing, third]).unwrap();
    assert!((0..WORDS).all(|i| ran.x[i] == 4 * i as u32 + 1000));
    let ran = chain(&[PRODUCER, CONSUMER, third]).unwrap();
    assert!((0..WORDS).all(|i| ran.x[i] == 4 * i as u32 + 1000), "who never lets go lets go at its end");
    let hasty = format!("griddepcontrol.launch_dependents; {CONSUMER}");
    let fault = early(&[PRODUCER, &hasty, third], "and first writes it");
    assert_eq!(fault.kernel, "third");
}

#[test]
fn who_does_not_wait_lets_others_overtake() {
    // The second has nothing to do with the first, and ends; the third believes that everything before it is over.
    let idle = "ld.global.u32 %r4, [%w]; st.global.u32 [%z], %r4;";
    let third = "griddepcontrol.wait; ld.global.u32 %r4, [%y]; st.global.u32 [%x], %r4;";
    early(&[PRODUCER, idle, third], "for a launch that did not wait itself");
    let waits = format!("{idle} griddepcontrol.wait;");
    let ran = chain(&[PRODUCER, &waits, third]).unwrap();
    assert!((0..WORDS).all(|i| ran.x[i] == 2 * i as u32));
    let ran = chain(&[PRODUCER, idle]).unwrap();
    assert!(ran.reports[1].warnings.iter().any(|w| w.contains("without griddepcontrol.wait")));
    assert!(ran.reports[0].warnings.is_empty());
}

#[test]
fn later_blocks_are_watched_as_well() {
    // Only the last block reads early, and the card holds three at a time.
    let last = "setp.ge.u32 %p0, %r0, 192; @%p0 ld.global.u32 %r4, [%y]; griddepcontrol.wait;
        ld.global.u32 %r4, [%y]; st.global.u32 [%z], %r4;";
    let tiny = CardProfile { sms: 3, shared_per_sm: 2048, ..CardProfile::H20 };
    let fault = chain_on(tiny, &[PRODUCER, last], true, Schedule::default()).err().unwrap();
    assert!(matches!(fault.kind, FaultKind::Dependency(_)), "{fault}");
    assert_eq!(fault.block, [3, 0, 0]);
}

#[test]
fn a_launch_that_fails_is_named() {
    let wild = "griddepcontrol.wait; ld.global.u32 %r4, [%y+8192];";
    let fault = chain(&[PRODUCER, wild]).err().unwrap();
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { .. }), "{fault}");
    assert_eq!(fault.kernel, "second");
    let broken = "trap;";
    assert_eq!(chain(&[broken, CONSUMER]).err().unwrap().kernel, "first");
}
