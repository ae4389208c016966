//! Runs a launch: the blocks on the card, their warps in turns, asynchronous operations as the schedule says.

#![allow(clippy::needless_range_loop, reason = "lanes index several rows at once")]
#![allow(clippy::too_many_arguments, reason = "one parameter an operand of the instruction")]

mod access;
mod asynchronous;
mod atomics;
mod barriers;
mod carry;
mod check;
mod cluster;
mod convert;
mod copies;
mod dependent;
mod execute;
mod external;
mod footprint;
mod fragments;
mod groups;
mod hotspots;
mod maps;
mod mma;
mod operands;
mod pool;
mod profiling;
mod races;
mod registers;
mod report;
mod residents;
mod select;
mod sent;
mod shadows;
mod step;
mod stores;
mod turns;
mod warp;
mod warp_wide;
mod wgmma;

use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::lower::program::{Kind, Program, Special};
use crate::machine::{Launch, Report};
use crate::memory::global::Global;
use crate::memory::shared::Shared;
use crate::profile::CardProfile;
use crate::profiler::{Profile, Recorder};
use crate::schedule::{Random, Schedule};
use asynchronous::PendingLoad;
use barriers::Named;
use cluster::Cluster;
use dependent::{Dependence, Outcome};
pub(crate) use dependent::{Link, chain};
use residents::Residents;
use std::collections::{BTreeSet, HashMap, VecDeque};
use stores::PendingStore;
use turns::Turns;
use warp::Warp;

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

/// Size and barrier word.
const WORKSPACE_BYTES: u64 = 8;

type Step<T> = Result<T, Trouble>;

/// A launch that runs: what all of its blocks share, and the blocks that are on the card.
pub(crate) struct Grid<'a> {
    program: &'a Program,
    /// Addresses of the module's variables.
    variables: &'a [u64],
    /// How often `tensormap.*` has changed the map at an address.
    map_versions: HashMap<u64, u64>,
    profile: &'a CardProfile,
    schedule: Schedule,
    params: Vec<u8>,
    /// Blocks in x, y, z.
    size: [u32; 3],
    threads: [u32; 3],
    /// Blocks of a cluster in x, y, z.
    cluster: [u32; 3],
    /// The launch or the kernel asked for clusters.
    explicit_cluster: bool,
    dynamic_shared: u32,
    /// The card's memory while this launch runs.
    global: Global,
    /// Where the blocks count for a grid-wide barrier, while the launch runs.
    workspace: Option<u64>,
    /// Warps of a block.
    per_block: usize,
    /// Of every resident block: those of slot `s` begin at `s * per_block`.
    warps: Vec<Warp>,
    /// By slot. The blocks of a cluster have neighbouring slots.
    blocks: Vec<Block>,
    clusters: Vec<Cluster>,
    residents: Residents,
    turns: Turns,
    /// Where launches of a chain depend on each other.
    dependence: Option<Dependence>,
    random: Random,
    counters: Counters,
    recorder: Option<Box<Recorder>>,
    warnings: BTreeSet<String>,
    hotspots: hotspots::Hotspots,
    /// None where races are not checked.
    races: Option<Box<races::Sanitizer>>,
    /// Warp and operation to blame for the next fault, if not those that run.
    blame: Option<(usize, u32)>,
    /// A register that two wgmma share so that a fence must come between them, for pairs of operations.
    wgmma_shared: HashMap<(u32, u32), Option<u32>>,
    /// The operation that runs.
    current_pc: u32,
    clock: u64,
}

/// A block on the card.
pub(crate) struct Block {
    /// Number in the grid, x first.
    linear: u64,
    index: [u32; 3],
    /// Number in the cluster, x first.
    rank: u32,
    /// Some warp has not exited.
    live: bool,
    /// Some thread has executed `griddepcontrol.wait` to its end, or `launch_dependents`.
    waited: bool,
    released: bool,
    shared: Shared,
    named: [Named; 16],
    mbarriers: HashMap<u32, crate::mbarrier::Mbarrier>,
    loads: VecDeque<PendingLoad>,
    stores: Vec<PendingStore>,
    copies: VecDeque<copies::Pending>,
    /// Tensor maps in global memory that its copies have used, or that it has acquired.
    maps: HashMap<u64, maps::Fetched>,
    warpgroups: Vec<wgmma::Warpgroup>,
    /// What each waiter last saw of an mbarrier: (warp, barrier, operation) to the phase polled in vain.
    parity_seen: HashMap<(usize, u32, u32), Option<u64>>,
    steps: u64,
    /// The warp after the one that ran last.
    turn: usize,
}

/// Runs every block of a launch.
pub(crate) fn launch(
    profile: &CardProfile,
    global: &mut Global,
    program: &Program,
    variables: &[u64],
    launch: &Launch<'_>,
) -> Result<Report, Box<Fault>> {
    let mut grid = Grid::new(profile, program, variables, launch)?;
    grid.run(global)?;
    Ok(grid.report())
}

impl<'a> Grid<'a> {
    fn new(
        profile: &'a CardProfile,
        program: &'a Program,
        variables: &'a [u64],
        launch: &Launch<'_>,
    ) -> Result<Self, Box<Fault>> {
        let (params, cluster) = check::launch(profile, program, launch).map_err(|what| {
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
        let mut random = Random::new(launch.schedule.seed);
        let mut grid = Self {
            program,
            variables,
            map_versions: HashMap::new(),
            profile,
            schedule: launch.schedule,
            params,
            size: launch.grid,
            threads: launch.block,
            cluster,
            explicit_cluster: launch.cluster != [1; 3] || program.required_cluster.is_some(),
            dynamic_shared: launch.shared_bytes,
            global: Global::default(),
            workspace: None,
            per_block: launch.block.iter().product::<u32>().div_ceil(32) as usize,
            warps: Vec::new(),
            blocks: Vec::new(),
            clusters: Vec::new(),
            residents: Residents::new(profile, program, launch, cluster, &mut random),
            turns: Turns::default(),
            dependence: None,
            random,
            counters: Counters::default(),
            recorder: launch.schedule.profile.then(|| Box::new(Recorder::new(program))),
            warnings: BTreeSet::new(),
            hotspots: hotspots::Hotspots::new(program.ops.len()),
            races: None,
            blame: None,
            wgmma_shared: HashMap::new(),
            current_pc: 0,
            clock: 0,
        };
        if launch.schedule.checks && launch.schedule.races {
            grid.races = races::Sanitizer::new(program, grid.per_block, launch.grid, grid.cluster);
        }
        Ok(grid)
    }

    /// Runs on the card's memory as far as the launch can go.
    fn run(&mut self, global: &mut Global) -> Result<Outcome, Box<Fault>> {
        if self.workspace.is_none() && self.has_grid_barrier() {
            let address = global.alloc(WORKSPACE_BYTES);
            global.fill(address, WORKSPACE_BYTES, 0);
            self.workspace = Some(address);
        }
        std::mem::swap(&mut self.global, global);
        let result = self.advance();
        std::mem::swap(&mut self.global, global);
        if !matches!(result, Ok(Outcome::Parked))
            && let Some(address) = self.workspace.take()
        {
            global.free(address);
        }
        result
    }

    /// The kernel asks for the workspace of a cooperative launch, and all of its blocks fit the card at once.
    fn has_grid_barrier(&self) -> bool {
        self.residents.all_fit()
            && self
                .program
                .ops
                .iter()
                .any(|op| matches!(op.kind, Kind::Special { which: Special::GridWorkspace(_), .. }))
    }

    fn report(mut self) -> Report {
        self.warn_of_hotspots();
        if self.races.as_ref().is_some_and(|s| s.exhausted()) {
            self.warnings
                .insert("races were checked in the first part of the launch only: too many accesses".into());
        }
        let profile = self.recorder.map(|recorder| Profile {
            grid: self.size,
            block: self.threads,
            cluster: self.cluster,
            shared_bytes: self.program.static_shared + self.dynamic_shared,
            ..recorder.finish(self.program)
        });
        Report { counters: self.counters, warnings: self.warnings.into_iter().collect(), profile }
    }

    /// The slot of a resident warp's block.
    #[inline]
    fn slot(&self, w: usize) -> usize {
        self.warps[w].slot
    }
}
