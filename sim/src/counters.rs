//! What a launch did, in counts.

/// Class of a warp instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Class {
    /// Integer, logic, moves, predicates.
    Integer,
    /// Floating point.
    Float,
    /// Conversions.
    Convert,
    /// Branches, calls, returns.
    Control,
    /// Global loads, stores and atomics.
    Global,
    /// Shared loads, stores, atomics, ldmatrix and stmatrix.
    Shared,
    /// Parameter, constant and local accesses.
    Other,
    /// Shuffles, votes, elections.
    Warp,
    /// Barriers, fences and waits.
    Barrier,
    /// wgmma.
    Tensor,
    /// Bulk copies.
    Bulk,
}

impl Class {
    /// Every class, in the order of [`Counters::by_class`].
    pub const ALL: [Class; 11] = [
        Self::Integer,
        Self::Float,
        Self::Convert,
        Self::Control,
        Self::Global,
        Self::Shared,
        Self::Other,
        Self::Warp,
        Self::Barrier,
        Self::Tensor,
        Self::Bulk,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Convert => "convert",
            Self::Control => "control",
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Other => "other",
            Self::Warp => "warp",
            Self::Barrier => "barrier",
            Self::Tensor => "tensor",
            Self::Bulk => "bulk",
        }
    }
}

/// Counters of one launch; they add up over launches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Warp instructions in all.
    pub instructions: u64,
    /// Warp instructions by [`Class`].
    pub by_class: [u64; Class::ALL.len()],
    /// Blocks that ran.
    pub blocks: u64,
    /// 32-byte sectors requested by global loads and atomics, per warp instruction without repeats.
    pub load_sectors: u64,
    /// 32-byte sectors requested by global stores.
    pub store_sectors: u64,
    /// Bytes that bulk copies read from global memory.
    pub bulk_load_bytes: u64,
    /// Bytes that bulk prefetches brought into L2.
    pub bulk_prefetch_bytes: u64,
    /// Bytes that bulk copies wrote to global memory.
    pub bulk_store_bytes: u64,
    /// Shared-memory wavefronts beyond the minimum of loads, stores, atomics, ldmatrix and stmatrix.
    pub bank_conflicts: u64,
    /// Multiply-accumulates of tensor instructions.
    pub tensor_macs: u64,
    /// Waits (named barriers, mbarriers) that found their condition not yet true.
    pub waits: u64,
}

impl Counters {
    /// Adds another launch's counts.
    pub fn add(&mut self, other: &Self) {
        self.instructions += other.instructions;
        for (mine, theirs) in self.by_class.iter_mut().zip(other.by_class) {
            *mine += theirs;
        }
        self.blocks += other.blocks;
        self.load_sectors += other.load_sectors;
        self.store_sectors += other.store_sectors;
        self.bulk_load_bytes += other.bulk_load_bytes;
        self.bulk_prefetch_bytes += other.bulk_prefetch_bytes;
        self.bulk_store_bytes += other.bulk_store_bytes;
        self.bank_conflicts += other.bank_conflicts;
        self.tensor_macs += other.tensor_macs;
        self.waits += other.waits;
    }

    /// Warp instructions of one class.
    pub fn class(&self, class: Class) -> u64 {
        self.by_class[class as usize]
    }

    /// Bytes moved between the multiprocessors and memory: requested sectors and bulk copies.
    pub fn global_bytes(&self) -> u64 {
        32 * (self.load_sectors + self.store_sectors) + self.bulk_load_bytes + self.bulk_store_bytes
    }
}
