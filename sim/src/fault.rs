//! What stops a launch, and where.

use std::fmt;

/// A precise fault: which instruction of which warp, and what was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Entry name.
    pub kernel: String,
    /// Opcode of the instruction, as the PTX spells it; empty when no single instruction is to blame.
    pub instruction: String,
    /// Its line in the PTX text.
    pub line: u32,
    /// Block index in the grid.
    pub block: [u32; 3],
    /// Warp in the block.
    pub warp: u32,
    /// First lane concerned, if one is.
    pub lane: Option<u32>,
    /// What went wrong.
    pub kind: FaultKind,
}

/// The space of a tensor map that a kernel wrote, in a missing fence's report.
pub(crate) const TENSOR_MAP: &str = "tensor map";

/// One access of a race.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Opcode, as the PTX spells it.
    pub instruction: String,
    /// Its line in the PTX text.
    pub line: u32,
    /// Block index in the grid.
    pub block: [u32; 3],
    /// Warp in the block; for an asynchronous operation, the one that issued it.
    pub warp: u32,
    /// Lane in the warp.
    pub lane: u32,
    /// What it does: `read`, `write`, `asynchronous read` …
    pub what: &'static str,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(
            f,
            "{} by `{}` (PTX line {}; block ({x}, {y}, {z}), warp {}, lane {})",
            self.what, self.instruction, self.line, self.warp, self.lane
        )
    }
}

/// Kinds of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access outside every allocation of the space, or past the end of one.
    OutOfBounds {
        /// State space.
        space: &'static str,
        /// Address.
        address: u64,
        /// Bytes.
        bytes: u32,
    },
    /// An address that is not a multiple of the access size.
    Misaligned {
        /// Address.
        address: u64,
        /// Alignment asked for.
        align: u32,
    },
    /// Data that nobody wrote reached an address, a branch, a store or a descriptor.
    Uninitialised {
        /// What it reached.
        used_as: &'static str,
    },
    /// A register that a wgmma in flight owns was touched before the covering wait.
    InFlight {
        /// Register name.
        register: String,
    },
    /// Lanes of a warp arrived apart at an instruction that needs them together.
    Divergence {
        /// Lanes present.
        present: u32,
        /// Lanes wanted.
        wanted: u32,
    },
    /// Two accesses to the same memory, at least one of them a write, that nothing orders.
    Race {
        /// State space.
        space: &'static str,
        /// First address that both touch.
        address: u64,
        /// The access of this fault's instruction.
        access: Box<Side>,
        /// The one that came first in this run.
        earlier: Box<Side>,
    },
    /// The async proxy meets an ordinary write that no `fence.proxy.async` (of a tensor map: `fence.proxy.tensormap`)
    /// made visible to it.
    Proxy {
        /// State space.
        space: &'static str,
        /// First address that both touch.
        address: u64,
        /// The asynchronous access.
        access: Box<Side>,
        /// The ordinary write.
        earlier: Box<Side>,
    },
    /// A launch writes global memory that it also reads by `ld.global.nc`, in whatever order.
    Constant {
        /// First address that both touch.
        address: u64,
        /// The access of this fault's instruction.
        access: Box<Side>,
        /// The one that came first in this run.
        earlier: Box<Side>,
    },
    /// An mbarrier is used by somebody who cannot know yet that it is initialised.
    BarrierUnseen {
        /// Shared address.
        address: u32,
        /// The order of threads is right, but a copy needs `fence.mbarrier_init` or `fence.proxy.async`, too.
        fence: bool,
    },
    /// An ordinary access to a live mbarrier.
    OnBarrier {
        /// Shared address of the mbarrier.
        address: u32,
    },
    /// A wgmma of registers that were touched since the last `wgmma.fence`.
    NoFence {
        /// Register name.
        register: String,
    },
    /// A thread or a block ends with something of it in flight.
    Exit(String),
    /// Misuse of `setmaxnreg`.
    Registers(String),
    /// Misuse of a barrier.
    Barrier(String),
    /// Misuse of a cluster: a rank that does not exist, shared memory of a block that has exited.
    Cluster(String),
    /// A launch that may start early touches what an unfinished launch before it works on.
    Dependency(String),
    /// An illegal descriptor or tensor map.
    Descriptor(String),
    /// Nothing can run and nothing is pending: who waits for what.
    Deadlock(String),
    /// More steps than the schedule allows.
    StepLimit {
        /// Warp instructions allowed.
        limit: u64,
        /// Where the warps are that do not wait.
        spinning: String,
    },
    /// `trap`.
    Trap,
    /// A failed `assert`: what it says.
    Assertion(String),
    /// The launch itself is impossible: block size, shared memory, parameters.
    Launch(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kernel, self.kind)?;
        if !self.instruction.is_empty() {
            write!(f, " at `{}` (PTX line {})", self.instruction, self.line)?;
        }
        let [x, y, z] = self.block;
        write!(f, ", block ({x}, {y}, {z}), warp {}", self.warp)?;
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { space, address, bytes } => {
                write!(f, "{space} access out of bounds: {bytes} bytes at {address:#x}")
            }
            Self::Misaligned { address, align } => {
                write!(f, "address {address:#x} is not a multiple of {align}")
            }
            Self::Uninitialised { used_as } => write!(f, "uninitialised data used as {used_as}"),
            Self::InFlight { register } => write!(f, "{register} is owned by a wgmma that nobody waited for"),
            Self::Divergence { present, wanted } => {
                write!(f, "lanes {present:#010x} arrived, {wanted:#010x} must arrive together")
            }
            Self::Race { space, address, access, earlier } => {
                write!(
                    f,
                    "data race in {space} memory at {address:#x}: the {access} is not ordered after the {earlier}"
                )
            }
            Self::Proxy { space, address, access, earlier } => {
                let fence = if *space == TENSOR_MAP { "fence.proxy.tensormap" } else { "fence.proxy.async" };
                write!(
                    f,
                    "{fence} is missing for {space} memory at {address:#x} between the {earlier} and the {access}"
                )
            }
            Self::Constant { address, access, earlier } => write!(
                f,
                "a launch may not write what it reads by ld.global.nc: at {address:#x}, the {access} after the {earlier}"
            ),
            Self::BarrierUnseen { address, fence: false } => {
                write!(f, "mbarrier {address:#x} is used before its initialisation is visible here")
            }
            Self::BarrierUnseen { address, fence: true } => write!(
                f,
                "mbarrier {address:#x} counts a copy, but no fence.mbarrier_init made it visible to the async proxy"
            ),
            Self::OnBarrier { address } => write!(f, "ordinary access to the live mbarrier {address:#x}"),
            Self::NoFence { register } => {
                write!(f, "wgmma.fence is missing: {register} was touched before this wgmma")
            }
            Self::Barrier(what)
            | Self::Cluster(what)
            | Self::Dependency(what)
            | Self::Descriptor(what)
            | Self::Exit(what)
            | Self::Assertion(what)
            | Self::Registers(what) => f.write_str(what),
            Self::Deadlock(who) => write!(f, "deadlock: {who}"),
            Self::StepLimit { limit, spinning } => {
                write!(f, "stuck: {limit} warp instructions and no end; {spinning}")
            }
            Self::Trap => f.write_str("trap"),
            Self::Launch(what) => write!(f, "illegal launch: {what}"),
        }
    }
}
