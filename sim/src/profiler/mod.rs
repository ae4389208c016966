//! What one launch did, instruction by instruction: the profiler's public face.
//!
//! [`Schedule::profile`](crate::Schedule::profile) switches it on for a launch; the report then has a [`Profile`].
//!
//! - **Counts** are warp instructions as the PTX has them. What ptxas makes of them is another matter.
//! - **Loops** are the natural loops of the control-flow graph. A *trip* is one execution of a jump back to the loop's
//!   header, taken or not; for the bottom-tested loops that compilers emit this is once per pass through the body.
//!   Instructions of functions that a loop calls are not counted to the loop.
//! - **Wait loops** poll an mbarrier or memory, or sleep, and do nothing else. How often they turn depends on the schedule, so their
//!   instructions are given apart, as *polling*.
//! - **Roles.** The warps of a kernel with specialised warps go separate ways after its role dispatch, each into a loop of
//!   its own. A warp's *main loop* is the innermost loop that is not a wait loop in which it executed most instructions
//!   (the first of equals); warps of all blocks with the same main loop form a role, and warps that ran no loop form another.
//! - **Sectors** are the 32-byte units of global memory. *Requested* sectors count every warp instruction (or bulk
//!   copy) that touches one, as SM-to-L2 traffic does; *unique* ones count once a launch, as an infinite cache would. A bulk
//!   prefetch into L2 reaches no SM: its sectors are unique ones if nobody else asks for them, and counted apart otherwise.

mod hot_spots;
mod loops;
mod recorder;
mod roles;

pub use hot_spots::HotSpot;
pub(crate) use recorder::{Access, Recorder};

use crate::counters::Class;

/// What one launch did, line by line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// Entry name.
    pub kernel: String,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Blocks of a cluster in x, y, z.
    pub cluster: [u32; 3],
    /// Static and dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Bytes of it that hold something when a block ends; the most of any block.
    pub shared_written: u32,
    /// Every instruction of the program in its order, executed or not.
    pub lines: Vec<LineProfile>,
    /// Loops that ran, in the order of the program.
    pub loops: Vec<LoopProfile>,
    /// Roles, those with most instructions first.
    pub roles: Vec<RoleProfile>,
    /// Allocations of global memory that the launch touched, by address.
    pub regions: Vec<RegionProfile>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineProfile {
    /// Line in the PTX text.
    pub line: u32,
    /// Opcode with its modifiers.
    pub opcode: String,
    /// Its class.
    pub class: Class,
    /// Warp instructions.
    pub executions: u64,
    /// Threads in them, whether the guard let them or not.
    pub lanes: u64,
    /// Requested sectors of global reads, bulk copies and atomics included.
    pub load_sectors: u64,
    /// Requested sectors of global writes, bulk copies included.
    pub store_sectors: u64,
    /// Bytes of global memory that lanes and bulk copies asked for, repeats included.
    pub global_bytes: u64,
    /// Shared-memory wavefronts beyond the minimum.
    pub bank_conflicts: u64,
    /// Waits that found their condition not yet true.
    pub waits: u64,
    /// Multiply-accumulates of tensor instructions.
    pub tensor_macs: u64,
    /// The smallest loop around it: an index into [`Profile::loops`]. None too where that loop never ran.
    pub innermost: Option<usize>,
}

/// A loop, over all warps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopProfile {
    /// PTX line of its first instruction.
    pub line: u32,
    /// PTX line of the last jump back.
    pub last_line: u32,
    /// The smallest loop around it, as an index into [`Profile::loops`].
    pub parent: Option<usize>,
    /// Whether it only waits.
    pub waits: bool,
    /// Trips of warps.
    pub trips: u64,
    /// Warp instructions inside, nested loops included.
    pub executions: u64,
    /// Of them, in loops that only wait.
    pub polling: u64,
}

/// Warps with the same main loop; the module's text defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoleProfile {
    /// The loop that makes the role, as an index into [`Profile::loops`]; none for warps that ran no loop.
    pub main_loop: Option<usize>,
    /// Warps of all blocks.
    pub warps: u64,
    /// What they executed.
    pub counts: Counts,
    /// What they executed inside the main loop, nested loops included.
    pub in_loop: Counts,
    /// Their trips through the main loop.
    pub trips: u64,
    /// Executions of each line, as in [`Profile::lines`].
    pub by_line: Vec<u64>,
}

/// Warp instructions of some warps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// In all.
    pub executions: u64,
    /// Of them, in loops that only wait.
    pub polling: u64,
    /// By [`Class`], polling included.
    pub by_class: [u64; Class::ALL.len()],
    /// Polling by [`Class`].
    pub polling_by_class: [u64; Class::ALL.len()],
}

/// An allocation and what the launch touched of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionProfile {
    /// First address.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Sectors read at least once, atomics included.
    pub unique_loads: u64,
    /// Sectors written at least once; atomics count as reads.
    pub unique_stores: u64,
    /// Requested sectors of reads.
    pub load_sectors: u64,
    /// Requested sectors of writes.
    pub store_sectors: u64,
    /// Requested sectors of bulk prefetches into L2.
    pub prefetch_sectors: u64,
}

impl Profile {
    /// Warp instructions in all.
    pub fn executions(&self) -> u64 {
        self.lines.iter().map(|line| line.executions).sum()
    }

    /// The main loop of the role with most instructions in its main loop, polling aside: an index into
    /// [`Profile::loops`].
    pub fn hottest_loop(&self) -> Option<usize> {
        let busy = |role: &&RoleProfile| role.in_loop.working();
        self.roles.iter().filter(|role| role.main_loop.is_some()).max_by_key(busy)?.main_loop
    }

    /// Sums over all regions: unique sectors of reads and of writes.
    pub fn unique_sectors(&self) -> (u64, u64) {
        self.regions
            .iter()
            .fold((0, 0), |(loads, stores), r| (loads + r.unique_loads, stores + r.unique_stores))
    }

    /// Sums over all regions: requested sectors of reads and of writes.
    pub fn requested_sectors(&self) -> (u64, u64) {
        self.regions
            .iter()
            .fold((0, 0), |(loads, stores), r| (loads + r.load_sectors, stores + r.store_sectors))
    }

    /// Sum over all lines: multiply-accumulates of tensor instructions.
    pub fn tensor_macs(&self) -> u64 {
        self.lines.iter().map(|line| line.tensor_macs).sum()
    }

    /// Sum over all lines: shared-memory wavefronts beyond the minimum.
    pub fn bank_conflicts(&self) -> u64 {
        self.lines.iter().map(|line| line.bank_conflicts).sum()
    }

    /// Sum over all lines: waits that found their condition not yet true.
    pub fn waits(&self) -> u64 {
        self.lines.iter().map(|line| line.waits).sum()
    }
}

impl RoleProfile {
    /// Warp instructions of one trip through the main loop, polling aside; none without trips.
    pub fn per_trip(&self) -> Option<f64> {
        (self.trips > 0).then(|| self.in_loop.working() as f64 / self.trips as f64)
    }
}

impl Counts {
    /// Warp instructions outside of loops that only wait.
    pub fn working(&self) -> u64 {
        self.executions - self.polling
    }

    /// Those of one class.
    pub fn working_class(&self, class: Class) -> u64 {
        self.by_class[class as usize] - self.polling_by_class[class as usize]
    }

    /// Warp instructions of one class.
    pub fn class(&self, class: Class) -> u64 {
        self.by_class[class as usize]
    }
}
