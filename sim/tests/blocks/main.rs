//! Blocks that work together: clusters, grid-wide waits, launches that depend on each other.

mod clusters;
mod copies;
mod dependent;
mod resident;

use narrowgauge_sim::{CardProfile, Fault, FaultKind, Launch, Machine, Module, Policy, Report, Schedule};

/// A kernel and how it is launched. The body finds the address of the output in %out and of the input in %in, the
/// thread in %t, the rank in its cluster in %rank and the linear block in %b, and 4096 bytes of shared memory in smem.
struct Case<'a> {
    body: &'a str,
    directives: &'a str,
    blocks: u32,
    threads: u32,
    cluster: [u32; 3],
    input: Vec<u32>,
    /// Words of output, zero before the launch.
    words: usize,
    schedule: Schedule,
    profile: CardProfile,
}

impl<'a> Case<'a> {
    fn new(body: &'a str) -> Self {
        Self {
            body,
            directives: "",
            blocks: 2,
            threads: 32,
            cluster: [1; 3],
            input: (0..1024).collect(),
            words: 256,
            schedule: Schedule::default(),
            profile: CardProfile::H20,
        }
    }

    fn clusters_of(self, size: u32) -> Self {
        Self { cluster: [size, 1, 1], ..self }
    }

    fn blocks(self, blocks: u32) -> Self {
        Self { blocks, ..self }
    }

    fn threads(self, threads: u32) -> Self {
        Self { threads, ..self }
    }

    fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    fn text(&self) -> String {
        format!(
            r#".version 8.6
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 out_ptr, .param .u64 in_ptr) {directives}
{{
    .reg .pred %p<8>; .reg .b32 %r<40>; .reg .b64 %rd<16>; .reg .b64 %in, %out; .reg .b32 %t, %rank, %b;
    .shared .align 1024 .b8 smem[4096];
    ld.param.u64 %out, [out_ptr];
    ld.param.u64 %in, [in_ptr];
    mov.u32 %t, %tid.x;
    mov.u32 %rank, %cluster_ctarank;
    mov.u32 %b, %ctaid.x;
    {body}
    ret;
}}"#,
            directives = self.directives,
            body = self.body
        )
    }

    fn run(&self) -> Result<(Vec<u32>, Report), Box<Fault>> {
        let module = Module::parse(&self.text()).unwrap();
        let mut machine = Machine::new(self.profile.clone());
        let to = machine.alloc(4 * self.words as u64).unwrap();
        machine.fill(to, 4 * self.words as u64, 0).unwrap();
        let bytes: Vec<u8> = self.input.iter().flat_map(|v| v.to_le_bytes()).collect();
        let from = machine.alloc(bytes.len() as u64).unwrap();
        machine.write(from, &bytes).unwrap();
        let launch = Launch {
            entry: "k",
            grid: [self.blocks, 1, 1],
            block: [self.threads, 1, 1],
            cluster: self.cluster,
            shared_bytes: 0,
            params: &[&to.to_le_bytes(), &from.to_le_bytes()],
            schedule: self.schedule,
        };
        let report = machine.launch(&module, &launch)?;
        Ok((words(&machine, to, self.words), report))
    }

    fn output(&self) -> Vec<u32> {
        self.run().unwrap_or_else(|fault| panic!("{fault}")).0
    }

    fn fault(&self) -> Fault {
        *self.run().expect_err("the kernel is wrong")
    }

    /// The output under every policy and several seeds, which must be the same.
    fn every_output(self) -> Vec<u32> {
        let first = self.output();
        let mut case = self;
        for policy in [Policy::Eager, Policy::Random, Policy::Late] {
            for seed in 0..10 {
                let Schedule { step_limit, races, .. } = case.schedule;
                case.schedule = Schedule { step_limit, races, ..Schedule::with(policy, seed) };
                assert_eq!(case.output(), first, "{policy:?}, seed {seed}");
            }
        }
        first
    }
}

fn words(machine: &Machine, at: u64, count: usize) -> Vec<u32> {
    let mut out = vec![0; 4 * count];
    machine.read(at, &mut out).unwrap();
    out.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect()
}

fn is_cluster(fault: &Fault, part: &str) -> bool {
    matches!(&fault.kind, FaultKind::Cluster(what) if what.contains(part))
}

/// Both halves of the cluster barrier.
const SYNC: &str = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
