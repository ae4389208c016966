//! The simulated card as an executor: launches run at once, in the order in which they come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use narrowgauge_sim as sim;

use super::launch::KernelLaunch;
use super::records::Records;
use super::{Swizzle, TensorMapSpec, abi, images, lock};
use crate::card::Card;
use crate::dtype::DType;
use crate::error::{Error, Result};

/// A simulated card, its schedule and its parsed kernels.
pub(crate) struct Executor {
    machine: Mutex<sim::Machine>,
    schedule: Mutex<sim::Schedule>,
    /// By entry name; the PTX tells whether an image of `NARROWGAUGE_IMAGES` has changed.
    modules: Mutex<HashMap<String, Parsed>>,
}

struct Parsed {
    ptx: Arc<str>,
    module: Arc<sim::Module>,
}

/// Memory of a simulated card.
pub(crate) struct Memory {
    executor: Arc<Executor>,
    address: u64,
}

/// A launch with everything it needs.
pub(crate) struct Prepared {
    module: Arc<sim::Module>,
    entry: String,
    grid: [u32; 3],
    block: [u32; 3],
    cluster: [u32; 3],
    shared: u32,
    programmatic: bool,
    parameters: Vec<u8>,
}

/// Launches of a graph that are in flight together.
const IN_FLIGHT: usize = 8;

impl Card {
    /// The limits of the simulated card of this kind.
    pub fn simulated(&self) -> sim::CardProfile {
        // The name shows up in reports only.
        let name =
            Card::ALL.iter().find(|known| known.name == self.name).map_or("card", |known| match known.name {
                std::borrow::Cow::Borrowed(name) => name,
                std::borrow::Cow::Owned(_) => "card",
            });
        sim::CardProfile {
            name,
            sms: self.sms,
            shared_per_block: self.shared_per_block,
            shared_per_sm: self.shared_per_sm,
            compute_capability: self.compute_capability,
            memory_bytes: self.memory_bytes,
            non_portable_clusters: false,
        }
    }
}

impl Executor {
    pub(super) fn new(card: &Card) -> Arc<Self> {
        Arc::new(Self {
            machine: Mutex::new(sim::Machine::new(card.simulated())),
            schedule: Mutex::default(),
            modules: Mutex::default(),
        })
    }

    pub(super) fn set_schedule(&self, schedule: sim::Schedule) {
        *lock(&self.schedule) = schedule;
    }

    pub(super) fn allocate(self: &Arc<Self>, bytes: u64) -> Result<Memory> {
        let address = lock(&self.machine).alloc(bytes).map_err(memory_error)?;
        Ok(Memory { executor: self.clone(), address })
    }

    /// Finds the kernel, and parses it when it is new.
    pub(super) fn prepare(&self, launch: &KernelLaunch<'_>, arch: &str) -> Result<Prepared> {
        let ptx = images::find_ptx(launch.entry, arch)?;
        let mut modules = lock(&self.modules);
        let module = match modules.get(launch.entry) {
            Some(parsed) if parsed.ptx == ptx => parsed.module.clone(),
            _ => {
                let parsed = sim::Module::parse(&ptx)
                    .map_err(|e| Error::Image { kernel: launch.entry.to_owned(), reason: e.to_string() })?;
                let module = Arc::new(parsed);
                let parsed = Parsed { ptx, module: module.clone() };
                modules.insert(launch.entry.to_owned(), parsed);
                module
            }
        };
        Ok(Prepared {
            module,
            entry: launch.entry.to_owned(),
            grid: launch.grid,
            block: [launch.block, 1, 1],
            cluster: launch.cluster,
            shared: launch.shared,
            programmatic: launch.programmatic,
            parameters: launch.parameters.to_vec(),
        })
    }

    pub(super) fn run(&self, prepared: &Prepared, records: &Records) -> Result<()> {
        self.run_all(std::slice::from_ref(prepared), records)
    }

    /// Runs launches that follow one another on a stream. As on a card, each may start before the one before it has
    /// ended, and must wait for it before it touches what that one writes.
    pub(super) fn run_all(&self, launches: &[Prepared], records: &Records) -> Result<()> {
        let schedule = *lock(&self.schedule);
        for launches in launches.chunks(IN_FLIGHT) {
            let params: Vec<_> = launches.iter().map(|prepared| [&prepared.parameters[..]]).collect();
            let chain: Vec<_> = launches
                .iter()
                .zip(&params)
                .map(|(prepared, params)| sim::Chained {
                    module: &prepared.module,
                    launch: prepared.launch(params, schedule),
                    programmatic: prepared.programmatic,
                })
                .collect();
            let reports = lock(&self.machine).launch_chain(&chain);
            let reports = reports.map_err(|fault| Error::Fault(fault.to_string()))?;
            launches.iter().zip(reports).for_each(|(prepared, report)| record(prepared, report, records));
        }
        Ok(())
    }
}

impl Prepared {
    fn launch<'a>(&'a self, params: &'a [&'a [u8]], schedule: sim::Schedule) -> sim::Launch<'a> {
        sim::Launch {
            entry: &self.entry,
            grid: self.grid,
            block: self.block,
            cluster: self.cluster,
            shared_bytes: self.shared,
            params,
            schedule,
        }
    }
}

fn record(prepared: &Prepared, report: sim::Report, records: &Records) {
    records.update(&prepared.entry, |record| {
        record.launches += 1;
        record.counters.get_or_insert_default().add(&report.counters);
        record.profiles.extend(report.profile);
        for warning in report.warnings {
            if !record.warnings.contains(&warning) {
                record.warnings.push(warning);
            }
        }
    });
}

impl Memory {
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        lock(&self.executor.machine).read(self.address + offset, bytes).map_err(memory_error)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        lock(&self.executor.machine).write(self.address + offset, bytes).map_err(memory_error)
    }

    pub(super) fn clear(&self, bytes: u64) -> Result<()> {
        lock(&self.executor.machine).fill(self.address, bytes, 0).map_err(memory_error)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let freed = lock(&self.executor.machine).free(self.address);
        debug_assert!(freed.is_ok(), "an allocation is freed once");
    }
}

pub(super) fn tensor_map(spec: &TensorMapSpec<'_>) -> Result<abi::NgTensorMap> {
    use sim::tensor_map::{Element, Swizzle as Pattern, TensorMap};
    let map = TensorMap {
        element: match spec.dtype {
            DType::E4m3 | DType::E5m2 | DType::Ue8m0 | DType::U8 => Element::U8,
            DType::U32 => Element::U32,
            DType::I32 => Element::I32,
            DType::U64 => Element::U64,
            DType::I64 => Element::I64,
            DType::F16 => Element::F16,
            DType::F32 => Element::F32,
            DType::Bf16 => Element::Bf16,
        },
        address: spec.address,
        extents: spec.extents.to_vec(),
        strides: spec.strides.to_vec(),
        tile: spec.tile.to_vec(),
        element_strides: vec![1; spec.tile.len()],
        swizzle: match spec.swizzle {
            Swizzle::None => Pattern::None,
            Swizzle::B32 => Pattern::B32,
            Swizzle::B64 => Pattern::B64,
            Swizzle::B128 => Pattern::B128,
        },
        nan_fill: false,
    };
    let bytes = map
        .encode()
        .map_err(|reason| Error::argument("TensorMapSpec", "spec", reason, "legal for the hardware"))?;
    Ok(abi::NgTensorMap { bytes })
}

fn memory_error(error: sim::MemoryError) -> Error {
    match error {
        sim::MemoryError::OutOfMemory { wanted, .. } => Error::OutOfMemory { requested: wanted },
        other => Error::Fault(other.to_string()),
    }
}
