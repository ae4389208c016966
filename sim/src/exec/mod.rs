//! Runs a launch: blocks one after the other, the warps of a block in turns, asynchronous operations as the schedule says.

#![allow(clippy::needless_range_loop, reason = "lanes index several rows at once")]
#![allow(clippy::too_many_arguments, reason = "one parameter an operand of the instruction")]

mod access;
mod asynchronous;
mod barriers;
mod convert;
mod operands;
mod registers;
mod step;
mod warp;
mod wgmma;

use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::lower::program::Program;
use crate::machine::{Launch, Report};
use crate::memory::global::Global;
use crate::memory::shared::Shared;
use crate::profile::CardProfile;
use crate::schedule::{Policy, Random, Schedule};
use asynchronous::{PendingLoad, PendingStore};
use barriers::Named;
use std::collections::{BTreeSet, HashMap, VecDeque};
use warp::{Split, Wait, Warp};

/// What stops a step: the fault and the lane to blame.
#[derive(Debug)]
pub(crate) struct Trouble {
    kind: FaultKind,
    lane: Option<u32>,
}

impl From<FaultKind> for Trouble {
    fn from(kind: FaultKind) -> Self {
        Self { kind, lane: None }
    }
}

type Step<T> = Result<T, Trouble>;

/// State of the block that runs.
pub(crate) struct Block<'a> {
    program: &'a Program,
    /// Addresses of the module's variables.
    variables: &'a [u64],
    global: &'a mut Global,
    profile: &'a CardProfile,
    schedule: Schedule,
    params: Vec<u8>,
    grid: [u32; 3],
    threads: [u32; 3],
    dynamic_shared: u32,
    index: [u32; 3],
    shared: Shared,
    warps: Vec<Warp>,
    named: [Named; 16],
    cluster: Named,
    mbarriers: HashMap<u32, crate::mbarrier::Mbarrier>,
    loads: VecDeque<PendingLoad>,
    stores: Vec<PendingStore>,
    warpgroups: Vec<wgmma::Warpgroup>,
    random: Random,
    counters: Counters,
    warnings: BTreeSet<String>,
    /// What each waiter last saw of an mbarrier: (warp, barrier, operation) to the phase polled in vain.
    parity_seen: HashMap<(usize, u32, u32), Option<u64>>,
    /// The operation that runs.
    current_pc: u32,
    steps: u64,
    clock: u64,
}

/// Runs every block of a launch.
pub(crate) fn launch(
    profile: &CardProfile,
    global: &mut Global,
    program: &Program,
    variables: &[u64],
    launch: &Launch<'_>,
) -> Result<Report, Box<Fault>> {
    let params = check(profile, program, launch).map_err(|what| {
        Box::new(Fault {
            kernel: program.name.clone(),
            instruction: String::new(),
            line: 0,
            block: [0; 3],
            warp: 0,
            lane: None,
            kind: FaultKind::Launch(what),
        })
    })?;
    let threads = launch.block.iter().product::<u32>();
    let warps = threads.div_ceil(32);
    let shared = program.static_shared + launch.shared_bytes;
    let mut block = Block {
        program,
        variables,
        global,
        profile,
        schedule: launch.schedule,
        params,
        grid: launch.grid,
        threads: launch.block,
        dynamic_shared: launch.shared_bytes,
        index: [0; 3],
        shared: Shared::new(shared as usize),
        warps: (0..warps).map(|w| Warp::new(program, w)).collect(),
        named: Default::default(),
        cluster: Named::default(),
        mbarriers: HashMap::new(),
        loads: VecDeque::new(),
        stores: Vec::new(),
        warpgroups: Vec::new(),
        random: Random::new(launch.schedule.seed),
        counters: Counters::default(),
        warnings: BTreeSet::new(),
        parity_seen: HashMap::new(),
        current_pc: 0,
        steps: 0,
        clock: 0,
    };
    for z in 0..launch.grid[2] {
        for y in 0..launch.grid[1] {
            for x in 0..launch.grid[0] {
                block.index = [x, y, z];
                block.run()?;
            }
        }
    }
    Ok(Report { counters: block.counters, warnings: block.warnings.into_iter().collect() })
}

fn check(profile: &CardProfile, program: &Program, launch: &Launch<'_>) -> Result<Vec<u8>, String> {
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    if threads == 0 || threads > 1024 {
        return Err(format!("{threads} threads in a block, 1 to 1024 are possible"));
    }
    let [x, y, z] = launch.grid;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65_535 || z > 65_535 {
        return Err(format!("a grid of {x}×{y}×{z} blocks"));
    }
    if let Some(required) = program.required_threads
        && required != launch.block
    {
        return Err(format!("blocks of {:?} threads where the kernel requires {required:?}", launch.block));
    }
    if let Some(most) = program.max_threads.filter(|&most| threads > u64::from(most)) {
        return Err(format!("{threads} threads in a block of a kernel compiled for at most {most}"));
    }
    if launch.cluster != [1, 1, 1] {
        return Err(format!("clusters of {:?} blocks are not simulated yet", launch.cluster));
    }
    let shared = u64::from(program.static_shared) + u64::from(launch.shared_bytes);
    if shared > u64::from(profile.shared_per_block) {
        return Err(format!("{shared} bytes of shared memory, {} are possible", profile.shared_per_block));
    }
    if launch.params.len() != program.params.len() {
        return Err(format!("{} parameters, the kernel has {}", launch.params.len(), program.params.len()));
    }
    let mut out = vec![0; program.param_bytes as usize];
    for (i, (bytes, &(at, size))) in launch.params.iter().zip(&program.params).enumerate() {
        if bytes.len() != size as usize {
            return Err(format!("parameter {i} has {} bytes, the kernel's has {size}", bytes.len()));
        }
        out[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    Ok(out)
}

impl Block<'_> {
    fn run(&mut self) -> Result<(), Box<Fault>> {
        let threads: u32 = self.threads.iter().product();
        for warp in &mut self.warps {
            let lanes = (threads - 32 * warp.index).min(32);
            warp.reset(if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 });
        }
        self.shared.reset();
        self.named = Default::default();
        self.cluster = Named::default();
        self.mbarriers.clear();
        self.parity_seen.clear();
        self.warpgroups = (0..self.warps.len().div_ceil(4)).map(|_| wgmma::Warpgroup::default()).collect();
        self.steps = 0;
        self.counters.blocks += 1;
        let mut turn = 0;
        loop {
            let ready: Vec<usize> = (0..self.warps.len())
                .filter(|&w| self.warps[w].splits.iter().any(|s| s.wait == Wait::Nothing))
                .collect();
            if ready.is_empty() {
                if self.warps.iter().all(|w| w.splits.is_empty()) {
                    break;
                }
                if !self.complete_one().map_err(|t| self.fault(t))? {
                    let who = self.who_waits();
                    return Err(self.fault(FaultKind::Deadlock(who).into()));
                }
                continue;
            }
            let random = self.schedule.tma == Policy::Random || self.schedule.wgmma == Policy::Random;
            if random {
                self.complete_some().map_err(|t| self.fault(t))?;
            }
            let (w, quantum) = if random {
                (ready[self.random.below(ready.len())], 1 + self.random.below(64) as u32)
            } else {
                let next = ready.iter().copied().find(|&w| w >= turn).unwrap_or(ready[0]);
                turn = next + 1;
                (next, 512)
            };
            self.run_warp(w, quantum, random)?;
        }
        self.finish().map_err(|t| self.fault(t))
    }

    fn run_warp(&mut self, w: usize, quantum: u32, random: bool) -> Result<(), Box<Fault>> {
        let ready: Vec<usize> = (0..self.warps[w].splits.len())
            .filter(|&s| self.warps[w].splits[s].wait == Wait::Nothing)
            .collect();
        let pick = if random { ready[self.random.below(ready.len())] } else { ready[0] };
        // Removal keeps the order, so that splits take turns.
        let split = self.warps[w].splits.remove(pick);
        let mut state = Some(split);
        let result = self.run_split(w, &mut state, quantum);
        match result {
            Ok(()) => {
                if let Some(split) = state {
                    self.warps[w].splits.push(split);
                }
                Ok(())
            }
            Err(trouble) => {
                let pc = state.as_ref().map(|s| s.pc);
                Err(self.fault_at(trouble, w, pc))
            }
        }
    }

    fn fault(&self, trouble: Trouble) -> Box<Fault> {
        self.fault_at(trouble, 0, None)
    }

    fn fault_at(&self, trouble: Trouble, warp: usize, pc: Option<u32>) -> Box<Fault> {
        let op = pc.and_then(|pc| self.program.ops.get(pc as usize));
        Box::new(Fault {
            kernel: self.program.name.clone(),
            instruction: op.map_or(String::new(), |op| self.program.opcodes[op.opcode as usize].clone()),
            line: op.map_or(0, |op| op.line),
            block: self.index,
            warp: warp as u32,
            lane: trouble.lane,
            kind: trouble.kind,
        })
    }

    /// After the last warp: nothing may still be in flight.
    fn finish(&mut self) -> Step<()> {
        let unread = self.stores.iter().filter(|s| s.data.is_none()).count();
        if unread > 0 {
            let what = format!("the block ends before {unread} bulk stores have read its shared memory");
            if self.schedule.in_flight == crate::schedule::InFlight::Strict {
                return Err(FaultKind::Barrier(what).into());
            }
            self.warnings.insert(what);
        }
        if !self.loads.is_empty() {
            let what = format!("the block ends while {} bulk loads are in flight", self.loads.len());
            return Err(FaultKind::Barrier(what).into());
        }
        while !self.stores.is_empty() {
            self.finish_store(0)?;
        }
        Ok(())
    }

    /// Who waits for what, for a deadlock's report.
    fn who_waits(&self) -> String {
        let mut lines = Vec::new();
        for warp in &self.warps {
            for Split { pc, mask, wait, .. } in &warp.splits {
                let line = self.program.ops.get(*pc as usize).map_or(0, |op| op.line);
                let what = match wait {
                    Wait::Nothing => continue,
                    Wait::Barrier(id) => {
                        let named = &self.named[*id as usize];
                        format!(
                            "barrier {id} ({} of {} threads arrived)",
                            named.arrived,
                            self.threads_of(named)
                        )
                    }
                    Wait::Mbarrier(at) => match self.mbarriers.get(at) {
                        Some(barrier) => format!("mbarrier {at:#x} ({})", barriers::describe(barrier)),
                        None => format!("mbarrier {at:#x}"),
                    },
                    Wait::Lanes(members) => format!("lanes {members:#010x}"),
                    Wait::Warpgroup => "the other warps of its warpgroup".into(),
                    Wait::ClusterBarrier => "the cluster barrier".into(),
                };
                lines.push(format!(
                    "warp {} lanes {mask:#010x} at PTX line {line} wait for {what}",
                    warp.index
                ));
            }
        }
        lines.join("; ")
    }
}
