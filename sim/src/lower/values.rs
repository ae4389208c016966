//! What operations work on: registers and immediates, addresses, types, special registers.

use crate::row::{Row, Row64};

/// Source of 32 bits (or fewer) a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) enum S32 {
    Reg(u32),
    Imm(u32),
    /// Address in the block's own shared memory.
    Shared(u32),
}

/// Source of 64 bits a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) enum S64 {
    Reg(u32),
    Imm(u64),
    Shared(u32),
}

/// Predicate source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SP {
    pub(crate) reg: u32,
    pub(crate) negated: bool,
}

/// Destination of a load or a vector move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Dst {
    R32(u32),
    /// The lower half of a 32-bit register: what a sign-extending load leaves in a register of 16 bits.
    R16(u32),
    R64(u32),
    Sink,
}

/// Source of a store or a vector move.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Src {
    W32(S32),
    W64(S64),
}

/// How undefined bits travel through an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// Any undefined bit makes the lane's result undefined.
    Spread,
    /// Bit by bit, one source.
    Move,
    And,
    Or,
    /// xor and not.
    Xor,
    /// Bits move as the last source says, which must be known.
    Through,
    /// Bits of the first source move as the others say, which must be known.
    Field,
    /// A carry may run from an undefined bit upward.
    Carry,
    /// Each half by itself.
    Halves,
    /// The sources become the upper and the lower so many bits of the result.
    Join(u32),
    /// Each half becomes a byte.
    Shorten,
    /// Each byte becomes a half.
    Lengthen,
}

/// State space of an access.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Space {
    Global,
    /// The block's own shared memory.
    Shared,
    /// That of any block of the cluster.
    Cluster,
    Param,
    Local,
    Generic,
}

impl Space {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Shared | Self::Cluster => "shared",
            Self::Param => "parameter",
            Self::Local => "local",
            Self::Generic => "generic",
        }
    }
}

/// Base of an address.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    None,
    /// The block's own shared window.
    Shared,
    R32(u32),
    R64(u32),
    /// Module variable, by index.
    Variable(u32),
}

/// `[base + offset]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) base: Base,
    pub(crate) offset: i64,
}

/// Scalar type as far as a load or a conversion must know it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Type {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
    Pred,
}

impl Type {
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Self::U8 | Self::S8 | Self::Pred => 1,
            Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::S32 | Self::F32 => 4,
            Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }

    /// The bits of a value of this type.
    pub(crate) fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    pub(crate) fn signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }
}

/// Special registers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    Gridid,
    LanemaskEq,
    LanemaskLt,
    LanemaskLe,
    LanemaskGt,
    LanemaskGe,
    Clock,
    ClockHigh,
    /// Half of the address of the grid's workspace, 0 the lower.
    GridWorkspace(u32),
    ClusterCtaid(usize),
    ClusterNctaid(usize),
    ClusterCtarank,
    ClusterNctarank,
    Clusterid(usize),
    Nclusterid(usize),
    DynamicShared,
    TotalShared,
}

/// Read-modify-write operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rmw {
    Add,
    /// Of two f16 or bf16 in a word.
    AddPair(Type),
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// A comparison of registers of either width.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Test {
    Narrow(fn(&Row, &Row) -> u32),
    Wide(fn(&Row64, &Row64) -> u32),
}

/// Predicate logic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrive {
    Plain { count: S32 },
    ExpectTx { bytes: S32 },
}

/// A function that a call through a pointer may reach.
pub(crate) struct Candidate {
    pub(crate) address: u64,
    pub(crate) target: u32,
    pub(crate) arguments: Vec<(u32, u32, u32)>,
    pub(crate) results: Vec<(u32, u32, u32)>,
}

/// Functions without a body that a module may call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum External {
    /// `__assertfail`
    Assert,
    /// `vprintf`
    Print,
}
