//! The card: memory, modules, launches.

use crate::counters::Counters;
use crate::fault::Fault;
use crate::memory::global::Global;
use crate::profile::CardProfile;
use crate::schedule::Schedule;
use std::fmt;

/// A simulated card.
#[derive(Debug)]
pub struct Machine {
    profile: CardProfile,
    global: Global,
}

/// A parsed PTX module.
#[derive(Debug)]
pub struct Module {
    entries: Vec<String>,
}

/// One launch of an entry.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Entry name.
    pub entry: &'a str,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Blocks of a cluster in x, y, z.
    pub cluster: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// Bytes of each kernel parameter, in order.
    pub params: &'a [&'a [u8]],
    /// Schedule.
    pub schedule: Schedule,
}

/// What a launch that ended well has to say.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Counts.
    pub counters: Counters,
    /// Things that a card tolerates but that cost speed or look wrong, without repeats.
    pub warnings: Vec<String>,
}

/// A module that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// Line in the PTX text.
    pub line: u32,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for LoadError {}

/// A host access that device memory cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// Not enough memory left on the card.
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes left.
        left: u64,
    },
    /// The range is not inside one allocation.
    OutOfBounds {
        /// First address.
        address: u64,
        /// Bytes.
        bytes: u64,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { wanted, left } => {
                write!(f, "out of device memory: {wanted} bytes wanted, {left} left")
            }
            Self::OutOfBounds { address, bytes } => {
                write!(f, "no allocation holds {bytes} bytes at {address:#x}")
            }
        }
    }
}

impl std::error::Error for MemoryError {}

impl Module {
    /// Reads PTX text. An instruction that the simulator does not know is an error that names it.
    pub fn parse(_ptx: &str) -> Result<Self, LoadError> {
        Ok(Self { entries: Vec::new() })
    }

    /// Names of the entries.
    pub fn entries(&self) -> Vec<&str> {
        self.entries.iter().map(String::as_str).collect()
    }
}

impl Machine {
    /// A card with empty memory.
    pub fn new(profile: CardProfile) -> Self {
        Self { profile, global: Global::default() }
    }

    /// What the card has.
    pub fn profile(&self) -> &CardProfile {
        &self.profile
    }

    /// Allocates uninitialised memory, aligned to 256 bytes.
    pub fn alloc(&mut self, bytes: u64) -> Result<u64, MemoryError> {
        let left = self.profile.memory_bytes - self.global.used;
        if bytes > left {
            return Err(MemoryError::OutOfMemory { wanted: bytes, left });
        }
        Ok(self.global.alloc(bytes))
    }

    /// Frees an allocation by its first address.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        if self.global.free(address) { Ok(()) } else { Err(MemoryError::OutOfBounds { address, bytes: 0 }) }
    }

    /// Copies bytes to the card.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let len = bytes.len() as u64;
        self.global.write(address, bytes).ok_or(MemoryError::OutOfBounds { address, bytes: len })
    }

    /// Copies bytes from the card.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let len = bytes.len() as u64;
        self.global.read(address, bytes).ok_or(MemoryError::OutOfBounds { address, bytes: len })
    }

    /// Fills a range with one byte.
    pub fn fill(&mut self, address: u64, bytes: u64, value: u8) -> Result<(), MemoryError> {
        self.global.fill(address, bytes, value).ok_or(MemoryError::OutOfBounds { address, bytes })
    }

    /// Copies within the card, definedness included.
    pub fn copy(&mut self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryError> {
        self.global.copy(to, from, bytes).ok_or(MemoryError::OutOfBounds { address: to, bytes })
    }

    /// Runs an entry to its end.
    pub fn launch(&mut self, _module: &Module, _launch: &Launch<'_>) -> Result<Report, Box<Fault>> {
        unimplemented!("the executor lands next")
    }
}
