//! Every check has a tiny kernel that violates it, which is flagged at the right line under every completion policy, and
//! a correct twin that is not.

mod accumulators;
mod asynchronous;
mod barriers;
mod launches;
mod matrices;
mod operands;
mod ordinary;
mod rest;

use narrowgauge_sim::tensor_map::{Element, Swizzle, TensorMap};
use narrowgauge_sim::{
    CardProfile, Chained, Fault, FaultKind, Launch, Machine, Module, Policy, Report, Schedule,
};

/// One check. In the body, `{- … -}` is in the wrong kernel only and `{+ … +}` in the right one only; the lines that may
/// be blamed end in `//!`.
struct Case {
    name: &'static str,
    want: Want,
    body: &'static str,
    blocks: u32,
    threads: u32,
    cluster: u32,
    directives: &'static str,
    /// Body of a kernel before, which this one may overlap.
    before: Option<&'static str>,
    /// Multiprocessors of the card.
    sms: u32,
}

/// What the wrong kernel must be told.
enum Want {
    Fault(fn(&FaultKind) -> bool),
    /// A part of a warning.
    Warning(&'static str),
}

fn case(name: &'static str, want: fn(&FaultKind) -> bool, threads: u32, body: &'static str) -> Case {
    Case {
        name,
        want: Want::Fault(want),
        body,
        blocks: 1,
        threads,
        cluster: 1,
        directives: "",
        before: None,
        sms: CardProfile::H20.sms,
    }
}

fn race(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Race { .. })
}

fn proxy(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Proxy { .. })
}

impl Case {
    fn blocks(self, blocks: u32) -> Self {
        Self { blocks, ..self }
    }

    fn cluster(self, cluster: u32) -> Self {
        Self { blocks: cluster, cluster, ..self }
    }

    /// After a launch of another kernel, before that has ended.
    fn after(self, before: &'static str) -> Self {
        Self { before: Some(before), ..self }
    }

    /// The text of one of the two modules, and the lines that may be blamed.
    fn text(&self, wrong: bool) -> (String, Vec<u32>) {
        let (drop, keep) = if wrong { (["{+", "+}"], ["{-", "-}"]) } else { (["{-", "-}"], ["{+", "+}"]) };
        let mut text = ".version 8.6\n.target sm_90a\n.address_size 64\n".to_owned();
        text += &self.kernel("k", self.body);
        if let Some(before) = self.before {
            text += &self.kernel("before", before);
        }
        while let Some(start) = text.find(drop[0]) {
            let end = start + text[start..].find(drop[1]).expect("marks come in pairs") + 2;
            text.replace_range(start..end, "");
        }
        keep.iter().for_each(|mark| text = text.replace(mark, ""));
        let marked = text.lines().zip(1..).filter(|(line, _)| line.contains("//!")).map(|(_, n)| n).collect();
        (text, marked)
    }

    fn kernel(&self, name: &str, body: &str) -> String {
        format!(
            r#".visible .entry {name}(.param .u64 in_ptr, .param .u64 out_ptr, .param .align 64 .b8 map[128]) {directives}
{{
    .reg .pred %p<8>;
    .reg .pred %one, %no;
    .reg .b16 %h<4>;
    .reg .b32 %r<40>;
    .reg .b32 %t, %w, %l, %b, %s, %bar, %z, %rank;
    .reg .b64 %rd<20>;
    .reg .b64 %in, %out, %map, %da, %db;
    .reg .f32 %f<8>;
    .shared .align 1024 .b8 smem[16384];
    .shared .align 8 .b64 bars[4];
    ld.param.u64 %in, [in_ptr];
    ld.param.u64 %out, [out_ptr];
    mov.b64 %map, map;
    cvta.param.u64 %map, %map;
    mov.u32 %t, %tid.x;
    mov.u32 %b, %ctaid.x;
    mov.u32 %rank, %cluster_ctarank;
    shr.u32 %w, %t, 5;
    and.b32 %l, %t, 31;
    mov.u32 %s, smem;
    mov.u32 %bar, bars;
    mov.u32 %z, 0;
    setp.eq.u32 %one, %t, 0;
    setp.ne.u32 %no, %t, %t;
{body}
    ret;
}}
"#,
            directives = self.directives
        )
    }

    fn run(&self, text: &str, schedule: Schedule) -> Result<Report, Box<Fault>> {
        let module = Module::parse(text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", self.name));
        let mut machine = Machine::new(CardProfile { sms: self.sms, ..CardProfile::H20 });
        let bytes: Vec<u8> = (0..16384u32).flat_map(u32::to_le_bytes).collect();
        let from = machine.alloc(bytes.len() as u64).unwrap();
        machine.write(from, &bytes).unwrap();
        let to = machine.alloc(bytes.len() as u64).unwrap();
        machine.fill(to, bytes.len() as u64, 0).unwrap();
        let map = TensorMap {
            element: Element::U8,
            address: from,
            extents: vec![128, 512],
            strides: vec![128],
            tile: vec![128, 8],
            element_strides: vec![1, 1],
            swizzle: Swizzle::B128,
            nan_fill: false,
        };
        let params: [&[u8]; 3] = [&from.to_le_bytes(), &to.to_le_bytes(), &map.encode().unwrap()];
        let launch = |entry| Launch {
            entry,
            grid: [self.blocks, 1, 1],
            block: [self.threads, 1, 1],
            cluster: [self.cluster, 1, 1],
            shared_bytes: 0,
            params: &params,
            schedule: Schedule { step_limit: 100_000, ..schedule },
        };
        let link = |entry, programmatic| Chained { module: &module, launch: launch(entry), programmatic };
        match self.before {
            None => machine.launch(&module, &launch("k")),
            Some(_) => machine
                .launch_chain(&[link("before", false), link("k", true)])
                .map(|mut reports| reports.pop().expect("one report a launch")),
        }
    }

    /// What is amiss about the wrong kernel's fate under a schedule.
    fn unflagged(&self, schedule: Schedule) -> Option<String> {
        let (text, marked) = self.text(true);
        assert!(!marked.is_empty(), "{}: no line is marked", self.name);
        let on_marked = |what: &str| marked.iter().any(|line| what.contains(&format!("PTX line {line}")));
        match (&self.want, self.run(&text, schedule)) {
            (Want::Warning(part), Ok(report)) => {
                let told = report.warnings.iter().any(|w| w.contains(part) && on_marked(w));
                (!told).then(|| format!("warnings {:?}", report.warnings))
            }
            (Want::Fault(want), Err(fault)) => {
                let lines = match &fault.kind {
                    FaultKind::Race { access, earlier, .. }
                    | FaultKind::Proxy { access, earlier, .. }
                    | FaultKind::Constant { access, earlier, .. } => {
                        fault.line == access.line
                            && [access.line, earlier.line].iter().all(|l| marked.contains(l))
                    }
                    FaultKind::Deadlock(who) => on_marked(who),
                    _ => marked.contains(&fault.line),
                };
                (!want(&fault.kind) || !lines).then(|| fault.to_string())
            }
            (_, Ok(_)) => Some("it ends well".into()),
            (_, Err(fault)) => Some(fault.to_string()),
        }
    }

    /// What is amiss about the right kernel's.
    fn accused(&self, schedule: Schedule) -> Option<String> {
        let (text, _) = self.text(false);
        match (&self.want, self.run(&text, schedule)) {
            (_, Err(fault)) => Some(fault.to_string()),
            (Want::Warning(part), Ok(report)) => report.warnings.into_iter().find(|w| w.contains(part)),
            (Want::Fault(_), Ok(_)) => None,
        }
    }
}

fn seeds(policy: Policy) -> std::ops::Range<u64> {
    if policy == Policy::Random { 0..6 } else { 0..1 }
}

#[test]
fn every_check_flags_its_kernel_and_leaves_the_twin_alone() {
    let policies = [("eager", Policy::Eager), ("random", Policy::Random), ("late", Policy::Late)];
    let groups = [
        ordinary::cases(),
        asynchronous::cases(),
        matrices::cases(),
        accumulators::cases(),
        barriers::cases(),
        operands::cases(),
        launches::cases(),
        rest::cases(),
    ];
    let mut wrongs = Vec::new();
    println!("{:<70} {:^22} {:^22}", "", "flagged", "twin clean");
    println!(
        "{:<70} {:^6}  {:^6}  {:^6} {:^6}  {:^6}  {:^6}",
        "check", "eager", "random", "late", "eager", "random", "late"
    );
    let mut count = 0;
    for case in groups.iter().flatten() {
        let mut cells = Vec::new();
        for (kernel, verdict) in [("wrong", true), ("right", false)] {
            for (name, policy) in policies {
                let fails = seeds(policy).find_map(|seed| {
                    let schedule = Schedule::with(policy, seed);
                    let what = if verdict { case.unflagged(schedule) } else { case.accused(schedule) };
                    what.map(|what| format!("{} ({kernel}, {name}, seed {seed}): {what}", case.name))
                });
                cells.push(if fails.is_none() { "yes" } else { "NO" });
                wrongs.extend(fails);
            }
        }
        count += 1;
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:^6}")).collect();
        println!("{:<70} {}", case.name, cells.join("  "));
    }
    println!("{count} checks × 3 policies (random: {} seeds)", seeds(Policy::Random).count());
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}
