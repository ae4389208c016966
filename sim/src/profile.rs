//! What a simulated card has.

/// Limits of a card, as far as a kernel can notice them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardProfile {
    /// Marketing name.
    pub name: &'static str,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Largest shared memory of one block, in bytes.
    pub shared_per_block: u32,
    /// Shared memory of one multiprocessor, in bytes.
    pub shared_per_sm: u32,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// Whether clusters of 9 to 16 blocks may be launched, as a kernel's attribute allows on the card.
    pub non_portable_clusters: bool,
}

const HOPPER: CardProfile = CardProfile {
    name: "Hopper",
    sms: 132,
    shared_per_block: 232_448,
    shared_per_sm: 233_472,
    compute_capability: (9, 0),
    memory_bytes: 80 << 30,
    non_portable_clusters: false,
};

impl CardProfile {
    /// H20: 78 multiprocessors, 96 GB.
    pub const H20: Self = Self { name: "H20", sms: 78, memory_bytes: 96 << 30, ..HOPPER };
    /// H800: 132 multiprocessors, 80 GB.
    pub const H800: Self = Self { name: "H800", ..HOPPER };
    /// H200: 132 multiprocessors, 141 GB.
    pub const H200: Self = Self { name: "H200", memory_bytes: 141 << 30, ..HOPPER };
}
