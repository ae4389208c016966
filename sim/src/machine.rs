//! The card: memory, modules, launches.

use crate::counters::Counters;
use crate::exec;
use crate::fault::{Fault, FaultKind};
use crate::lower::program::Program;
use crate::lower::{self, ModuleVariable};
use crate::memory::global::Global;
use crate::parse;
use crate::profile::CardProfile;
use crate::profiler::Profile;
use crate::schedule::Schedule;
use crate::target::Target;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A simulated card.
#[derive(Debug)]
pub struct Machine {
    profile: CardProfile,
    global: Global,
    /// Addresses of the variables of each module that was launched here.
    modules: HashMap<u64, Vec<u64>>,
}

/// A parsed PTX module.
#[derive(Debug)]
pub struct Module {
    programs: Vec<Program>,
    variables: Vec<ModuleVariable>,
    target: Target,
    id: u64,
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

/// One launch of a chain.
#[derive(Debug, Clone)]
pub struct Chained<'a> {
    /// Module with the entry.
    pub module: &'a Module,
    /// The launch.
    pub launch: Launch<'a>,
    /// Programmatic stream serialisation: it may start before the launch before it has ended. On the first launch of a
    /// chain: before whatever came before the chain, so that it may touch no global memory before its wait, nor end
    /// without one.
    pub programmatic: bool,
}

/// What a launch that ended well has to say.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Counts.
    pub counters: Counters,
    /// Things that a card tolerates but that cost speed or look wrong, without repeats.
    pub warnings: Vec<String>,
    /// What it did line by line, where [`Schedule::profile`] asked for it.
    pub profile: Option<Profile>,
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
    pub fn parse(ptx: &str) -> Result<Self, LoadError> {
        Self::read(ptx, None)
    }

    /// The same of one entry: what the others are made of is not looked at.
    pub fn parse_entry(ptx: &str, entry: &str) -> Result<Self, LoadError> {
        Self::read(ptx, Some(entry))
    }

    fn read(ptx: &str, only: Option<&str>) -> Result<Self, LoadError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let ast = parse::module(ptx)?;
        let target = Target::new(&ast.target, ast.version)
            .map_err(|what| LoadError { line: line_of(ptx, ".target"), what })?;
        let (variables, programs) = lower::module(&ast, only)?;
        Ok(Self { programs, variables, target, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    fn program(&self, launch: &Launch<'_>) -> Result<&Program, Box<Fault>> {
        let program = self.programs.iter().find(|p| p.name == launch.entry);
        program.ok_or_else(|| refused(launch, "the module has no such entry"))
    }

    /// Names of the entries.
    pub fn entries(&self) -> Vec<&str> {
        self.programs.iter().map(|p| p.name.as_str()).collect()
    }
}

impl Machine {
    /// A card with empty memory.
    pub fn new(profile: CardProfile) -> Self {
        Self { profile, global: Global::default(), modules: HashMap::new() }
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

    /// Runs an entry to its end. A module's variables live on the card from its first launch on.
    pub fn launch(&mut self, module: &Module, launch: &Launch<'_>) -> Result<Report, Box<Fault>> {
        let program = module.program(launch)?;
        self.place(module, launch)?;
        exec::launch(&self.profile, &mut self.global, program, &self.modules[&module.id], launch)
    }

    /// Runs launches of one stream, of which some may start before the one before them has ended, as programmatic
    /// dependent launches do: each as early as a card could let it, up to its `griddepcontrol.wait`.
    ///
    /// A kernel that touches memory before its wait which an unfinished launch before it writes, or that writes what
    /// such a launch reads, is a [`FaultKind::Dependency`]. The reports are in the order of the launches.
    pub fn launch_chain(&mut self, chain: &[Chained<'_>]) -> Result<Vec<Report>, Box<Fault>> {
        for link in chain {
            self.place(link.module, &link.launch)?;
        }
        let links = chain.iter().map(|link| {
            Ok(exec::Link {
                program: link.module.program(&link.launch)?,
                variables: &self.modules[&link.module.id],
                launch: &link.launch,
                programmatic: link.programmatic,
            })
        });
        let links = links.collect::<Result<Vec<_>, Box<Fault>>>()?;
        exec::chain(&self.profile, &mut self.global, &links)
    }

    /// Gives a module's variables their memory, once, if the card runs it at all.
    fn place(&mut self, module: &Module, launch: &Launch<'_>) -> Result<(), Box<Fault>> {
        module.target.check(self.profile.compute_capability).map_err(|why| refused(launch, &why))?;
        if !self.modules.contains_key(&module.id) {
            let left = self.profile.memory_bytes - self.global.used;
            let sizes = module.variables.iter().map(|variable| variable.size);
            let bytes = sizes.fold(0u64, u64::saturating_add);
            if bytes > left {
                return Err(refused(launch, "the card has no room for the module's variables"));
            }
            let addresses = self.place_variables(&module.variables);
            self.modules.insert(module.id, addresses);
        }
        Ok(())
    }

    fn place_variables(&mut self, variables: &[ModuleVariable]) -> Vec<u64> {
        let addresses: Vec<u64> = variables.iter().map(|v| self.global.alloc(v.size)).collect();
        for (variable, &address) in variables.iter().zip(&addresses) {
            // Variables without an initialiser are zero.
            self.global.fill(address, variable.size, 0);
            self.global.write(address, &variable.init);
            for &(at, index, addend) in &variable.relocations {
                let value = addresses[index].wrapping_add(addend as u64);
                self.global.write(address + at, &value.to_le_bytes());
            }
        }
        addresses
    }
}

/// The first line of the text that has a word, else line 1.
fn line_of(text: &str, word: &str) -> u32 {
    text.lines().position(|line| line.contains(word)).map_or(1, |at| at as u32 + 1)
}

/// A launch that cannot begin.
fn refused(launch: &Launch<'_>, why: &str) -> Box<Fault> {
    Box::new(Fault {
        kernel: launch.entry.to_owned(),
        instruction: String::new(),
        line: 0,
        block: [0; 3],
        warp: 0,
        lane: None,
        kind: FaultKind::Launch(why.to_owned()),
    })
}
