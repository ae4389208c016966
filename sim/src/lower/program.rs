//! What the executor runs: operations with resolved operands.

pub(crate) use super::carry::Carried;
pub(crate) use super::values::*;
use crate::counters::Class;
use crate::numeric::Round;
use crate::row::{Row, Row64};
use crate::wgmma::Shape;

/// An operation.
pub(crate) enum Kind {
    Un32 {
        f: fn(&Row) -> Row,
        rule: Rule,
        d: u32,
        a: S32,
    },
    Bin32 {
        f: fn(&Row, &Row) -> Row,
        rule: Rule,
        d: u32,
        a: S32,
        b: S32,
    },
    Tri32 {
        f: fn(&Row, &Row, &Row) -> Row,
        rule: Rule,
        d: u32,
        a: S32,
        b: S32,
        c: S32,
    },
    Lop3 {
        d: u32,
        a: S32,
        b: S32,
        c: S32,
        lut: u8,
    },
    Un64 {
        f: fn(&Row64) -> Row64,
        rule: Rule,
        d: u32,
        a: S64,
    },
    Bin64 {
        f: fn(&Row64, &Row64) -> Row64,
        rule: Rule,
        d: u32,
        a: S64,
        b: S64,
    },
    Tri64 {
        f: fn(&Row64, &Row64, &Row64) -> Row64,
        d: u32,
        a: S64,
        b: S64,
        c: S64,
    },
    /// 64-bit value and a 32-bit count.
    Shift64 {
        f: fn(&Row64, &Row) -> Row64,
        rule: Rule,
        d: u32,
        a: S64,
        b: S32,
    },
    BitField {
        d: Dst,
        a: Src,
        b: Option<Src>,
        position: S32,
        length: S32,
        signed: bool,
        wide: bool,
    },
    Narrow {
        f: fn(&Row64) -> Row,
        d: u32,
        a: S64,
    },
    Carry {
        how: Carried,
        ty: Type,
        d: Dst,
        sources: Vec<Src>,
        /// The condition code, where it is read and where it is written.
        takes: Option<SP>,
        gives: Option<u32>,
    },
    MulWide {
        f: fn(&Row, &Row, &Row64) -> Row64,
        d: u32,
        a: S32,
        b: S32,
        c: S64,
    },
    Convert {
        to: Type,
        from: Type,
        round: Round,
        integral: bool,
        ftz: bool,
        sat: bool,
        d: Dst,
        a: Src,
    },
    Set32 {
        f: fn(&Row, &Row) -> u32,
        d: u32,
        other: Option<u32>,
        a: S32,
        b: S32,
        with: Option<(Logic, SP)>,
    },
    Set64 {
        f: fn(&Row64, &Row64) -> u32,
        d: u32,
        other: Option<u32>,
        a: S64,
        b: S64,
        with: Option<(Logic, SP)>,
    },
    /// Comparison whose result is a value.
    SetValue {
        test: Test,
        d: u32,
        /// What stands for true, in every half of a packed comparison.
        yes: u32,
        packed: bool,
        a: Src,
        b: Src,
        with: Option<(Logic, SP)>,
    },
    /// A predicate of the lower halves and one of the upper.
    SetPacked {
        f: fn(&Row, &Row) -> u32,
        d: u32,
        other: Option<u32>,
        a: S32,
        b: S32,
        with: Option<(Logic, SP)>,
    },
    /// `a` where c is not negative (and no NaN), else `b`.
    SelectSign {
        d: Dst,
        a: Src,
        b: Src,
        c: S32,
        float: bool,
    },
    Select32 {
        d: u32,
        a: S32,
        b: S32,
        p: SP,
    },
    Select64 {
        d: u32,
        a: S64,
        b: S64,
        p: SP,
    },
    PredLogic {
        logic: Logic,
        d: u32,
        a: SP,
        b: SP,
    },
    PredMove {
        d: u32,
        a: SP,
    },
    PredImmediate {
        d: u32,
        value: bool,
    },
    Pack {
        d: Dst,
        parts: Vec<Src>,
        bits: u32,
    },
    Unpack {
        parts: Vec<Dst>,
        a: Src,
        bits: u32,
    },
    Special {
        d: Dst,
        which: Special,
    },
    /// Whether an address lies in a window of the generic space, or below all of them.
    SpaceTest {
        p: u32,
        a: S64,
        space: Space,
    },
    VariableAddress {
        d: u32,
        index: u32,
        offset: i64,
    },
    Load {
        space: Space,
        ty: Type,
        to: Vec<Dst>,
        from: Address,
    },
    Store {
        space: Space,
        ty: Type,
        to: Address,
        from: Vec<Src>,
    },
    Atomic {
        space: Space,
        ty: Type,
        rmw: Rmw,
        /// Destination and operand of each element; more than one where the operation is a vector's.
        parts: Vec<(Dst, Src)>,
        at: Address,
        /// What `cas` puts in each element's place, where all of them hold their operands.
        c: Vec<Src>,
    },
    Shuffle {
        mode: Shuffle,
        d: u32,
        p: Option<u32>,
        a: S32,
        b: S32,
        c: S32,
        members: S32,
    },
    Vote {
        vote: Vote,
        d: u32,
        a: SP,
        members: S32,
    },
    Match {
        d: u32,
        a: Src,
        members: S32,
    },
    MatchAll {
        d: u32,
        p: Option<u32>,
        a: Src,
        members: S32,
    },
    Redux {
        f: fn(u32, u32) -> u32,
        d: u32,
        a: S32,
        members: S32,
    },
    Elect {
        d: Option<u32>,
        p: u32,
        members: S32,
    },
    ActiveMask {
        d: u32,
    },
    Branch {
        target: u32,
    },
    BranchIndexed {
        index: S32,
        targets: Vec<u32>,
    },
    Call {
        target: u32,
        arguments: Vec<(u32, u32, u32)>,
        results: Vec<(u32, u32, u32)>,
    },
    /// Through a pointer.
    CallIndirect {
        target: S64,
        candidates: Vec<Candidate>,
    },
    /// A function that the system supplies: offsets of its arguments and of its result in local memory.
    External {
        which: External,
        arguments: Vec<u32>,
        result: Option<u32>,
    },
    Return,
    Exit,
    Trap,
    Barrier {
        id: S32,
        threads: Option<S32>,
        wait: bool,
        aligned: bool,
    },
    BarrierReduce {
        vote: Vote,
        id: S32,
        threads: Option<S32>,
        d: u32,
        p: SP,
        aligned: bool,
    },
    WarpBarrier {
        members: S32,
    },
    ClusterArrive {
        aligned: bool,
    },
    ClusterWait {
        aligned: bool,
    },
    /// `griddepcontrol.wait` and `.launch_dependents`.
    GridWait,
    GridRelease,
    Yield,
    Nothing,
    MbarrierInit {
        at: Address,
        count: S32,
    },
    MbarrierInvalidate {
        at: Address,
    },
    MbarrierArrive {
        at: Address,
        state: Option<u32>,
        how: Arrive,
        /// No later phase expects these arrivals either.
        drop: bool,
        /// `.noComplete`: the program promises that the phase goes on.
        goes_on: bool,
        /// Another block's barrier may be meant.
        peers: bool,
    },
    MbarrierExpect {
        at: Address,
        bytes: S32,
        peers: bool,
    },
    MbarrierComplete {
        at: Address,
        bytes: S32,
        peers: bool,
    },
    MbarrierWait {
        at: Address,
        p: u32,
        parity: S32,
        blocking: bool,
    },
    MbarrierWaitState {
        at: Address,
        p: u32,
        state: S64,
        blocking: bool,
    },
    TensorLoad {
        to: Address,
        map: Address,
        coordinates: Vec<S32>,
        barrier: Address,
        multicast: Option<S32>,
    },
    /// A box into L2.
    TensorPrefetch {
        map: Address,
        coordinates: Vec<S32>,
    },
    /// Bytes into L2.
    BulkPrefetch {
        from: Address,
        bytes: S32,
    },
    /// 128 bytes of global memory lose their contents.
    Discard {
        at: Address,
    },
    TensorStore {
        map: Address,
        coordinates: Vec<S32>,
        from: Address,
        reduce: Option<Rmw>,
    },
    BulkLoad {
        to: Address,
        from: Address,
        bytes: S32,
        barrier: Address,
        multicast: Option<S32>,
    },
    /// Shared memory of the block to that of a block of the cluster.
    BulkSend {
        to: Address,
        from: Address,
        bytes: S32,
        barrier: Address,
        reduce: Option<(Rmw, Type)>,
    },
    /// `st.async`, or `red.async` with an operation.
    Send {
        ty: Type,
        rmw: Option<Rmw>,
        to: Address,
        values: Vec<Src>,
        barrier: Address,
    },
    BulkStore {
        to: Address,
        from: Address,
        bytes: S32,
        reduce: Option<(Rmw, Type)>,
    },
    /// `cp.async`.
    Copy(Box<Copy>),
    /// `fence.proxy.tensormap::generic.acquire`
    MapAcquire {
        at: Address,
    },
    /// `mma.sync`.
    Mma(Box<Mma>),
    /// `mma.sync` of f64.
    MmaDouble {
        rows: usize,
        depth: usize,
        d: Vec<u32>,
        a: Vec<S64>,
        b: Vec<S64>,
        c: Vec<S64>,
    },
    /// `wmma`.
    Fragment(Box<Fragment>),
    /// `movmatrix`.
    Transpose {
        d: u32,
        a: S32,
    },
    BulkCommit,
    BulkWait {
        pending: u32,
        read: bool,
    },
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        pending: u32,
    },
    Wgmma(Box<Wgmma>),
    LoadMatrix {
        to: Vec<u32>,
        trans: bool,
        at: Address,
    },
    StoreMatrix {
        from: Vec<S32>,
        trans: bool,
        at: Address,
    },
    /// `setmaxnreg`.
    MapReplace {
        field: crate::tensor_map::Field,
        space: Space,
        at: Address,
        value: Src,
    },
    MapCopy {
        to: Address,
        from: Address,
    },
    RegisterCount {
        count: u32,
        more: bool,
    },
    MapRank {
        d: Dst,
        a: Src,
        rank: S32,
    },
    RankOf {
        d: u32,
        a: Src,
    },
    ExplicitCluster {
        d: u32,
    },
}

/// `cp.async` and what belongs to it.
#[derive(Debug)]
pub(crate) enum Copy {
    Issue {
        to: Address,
        from: Address,
        bytes: u32,
        /// Bytes to read; zeros follow.
        source_bytes: S32,
        /// Where it holds, nothing is read.
        ignore: Option<SP>,
    },
    Commit,
    Wait {
        pending: u32,
    },
    WaitAll,
    /// `cp.async.mbarrier.arrive`; `counted` (`.noinc`) says that the barrier's count allows for it.
    Arrive {
        at: Address,
        counted: bool,
    },
}

/// One `mma.sync`.
#[derive(Debug)]
pub(crate) struct Mma {
    pub(crate) shape: crate::mma::Shape,
    pub(crate) d: Vec<Dst>,
    pub(crate) a: Vec<S32>,
    pub(crate) b: Vec<S32>,
    pub(crate) c: Vec<S32>,
}

/// `wmma.load`, `.store` and `.mma`.
#[derive(Debug)]
pub(crate) enum Fragment {
    Load { form: Form, to: Vec<Dst>, space: Space, at: Address, stride: Option<S32> },
    Store { form: Form, from: Vec<S32>, space: Space, at: Address, stride: Option<S32> },
    Multiply { product: crate::fragments::Product, d: Vec<u32>, a: Vec<S32>, b: Vec<S32>, c: Vec<S32> },
}

/// Which matrix a fragment is of, and how it lies in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) matrix: crate::fragments::Matrix,
    /// Rows are contiguous, rather than columns.
    pub(crate) by_rows: bool,
}

/// One `wgmma.mma_async`.
#[derive(Debug, Clone)]
pub(crate) struct Wgmma {
    pub(crate) shape: Shape,
    pub(crate) k: u32,
    pub(crate) d: Vec<u32>,
    pub(crate) a: WgmmaA,
    pub(crate) b: S64,
    pub(crate) scale_d: ScaleD,
}

impl Wgmma {
    pub(crate) fn a_registers(&self) -> &[u32] {
        if let WgmmaA::Registers(list) = &self.a { list } else { &[] }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum WgmmaA {
    Descriptor(S64),
    Registers([u32; 4]),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ScaleD {
    Predicate(SP),
    Constant(bool),
}

/// Guard, operation and where it came from.
pub(crate) struct Op {
    pub(crate) guard: Option<SP>,
    pub(crate) kind: Kind,
    pub(crate) class: Class,
    /// Where lanes that a branch here splits meet again: an operation of the same function, or [`AT_RETURN`].
    pub(crate) meet: u32,
    pub(crate) line: u32,
    /// Index into [`Program::opcodes`].
    pub(crate) opcode: u32,
    /// Reads memory as one does to wait for another thread's write.
    pub(crate) poll: bool,
}

/// Lanes meet when the function returns.
pub(crate) const AT_RETURN: u32 = u32::MAX;

/// One entry with every function that it calls.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) ops: Vec<Op>,
    pub(crate) opcodes: Vec<String>,
    pub(crate) names32: Vec<String>,
    pub(crate) names64: Vec<String>,
    pub(crate) predicates: usize,
    /// Sizes and offsets of the entry's parameters.
    pub(crate) params: Vec<(u32, u32)>,
    pub(crate) param_bytes: u32,
    pub(crate) static_shared: u32,
    /// Bytes of local memory a thread needs.
    pub(crate) local_bytes: u32,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) max_threads: Option<u32>,
    /// The largest count of its `setmaxnreg.inc`.
    pub(crate) most_registers: Option<u32>,
    /// Registers of a thread, where the kernel says so (`.maxnreg`), and blocks that must fit a multiprocessor.
    pub(crate) registers: Option<u32>,
    pub(crate) least_blocks: Option<u32>,
    /// `.reqnctapercluster`, `.explicitcluster` and `.maxclusterrank`.
    pub(crate) required_cluster: Option<[u32; 3]>,
    pub(crate) explicit_cluster: bool,
    pub(crate) max_cluster_rank: Option<u32>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({}, {} operations)", self.name, self.ops.len())
    }
}
