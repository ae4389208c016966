//! Devices, streams and launching: one face over the simulated card and the CUDA driver.

#![cfg_attr(
    not(all(feature = "cuda", feature = "sim")),
    allow(
        dead_code,
        irrefutable_let_patterns,
        unreachable_code,
        unused_mut,
        unused_variables,
        reason = "the shared face has less to do with fewer executors"
    )
)]

pub(crate) mod abi;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod driver;
mod event;
mod graph;
pub(crate) mod images;
pub(crate) mod launch;
mod records;
#[cfg(feature = "sim")]
mod simulated;
mod status;
mod stream;
mod tensor_map;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::card::Card;
use crate::error::{Error, Result};

pub use event::Event;
pub use graph::Graph;
pub use images::{Image, kernels};
pub(crate) use launch::KernelLaunch;
pub use records::LaunchRecord;
pub use status::Status;
pub use stream::Stream;
pub(crate) use tensor_map::{Swizzle, TensorMapSpec};

/// A card, real or simulated. Cheap to clone; clones are the same device.
///
/// Memory comes from [`tensor`](Self::tensor), [`zeros`](Self::zeros) and [`empty`](Self::empty); work goes to a
/// [`Stream`].
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    card: Card,
    arch: String,
    executor: Executor,
    stream: Arc<stream::Core>,
    records: records::Records,
}

impl Device {
    /// A simulated card with this card's profile. It runs the PTX of every kernel and checks each access.
    #[cfg(feature = "sim")]
    pub fn simulated(card: Card) -> Result<Self> {
        let name = format!("simulated {}", card.name);
        let executor = Executor::Simulated(simulated::Executor::new(&card));
        Self::new(name, card, executor, None)
    }

    /// The CUDA device of that number. Its primary context is retained, as the runtime API does.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Self> {
        let (executor, name, card) = cuda::Executor::open(ordinal)?;
        Self::new(name, card, Executor::Cuda(executor), None)
    }

    /// The device of a cudarc context, with `stream` as its default stream. Both are kept alive.
    ///
    /// Work that the caller enqueues on `stream` and work of this crate on it run in stream order. What this crate
    /// does on other streams waits only for its own uses of memory.
    #[cfg(feature = "cuda")]
    pub fn from_cudarc(
        context: Arc<cudarc::driver::CudaContext>,
        stream: Arc<cudarc::driver::CudaStream>,
    ) -> Result<Self> {
        let (executor, name, card) = cuda::Executor::adopt(context)?;
        let queue = executor.adopt_stream(stream)?;
        Self::new(name, card, Executor::Cuda(executor), Some(Queue::Cuda(queue)))
    }

    fn new(name: String, card: Card, executor: Executor, queue: Option<Queue>) -> Result<Self> {
        let queue = match queue {
            Some(queue) => queue,
            None => executor.queue()?,
        };
        let stream = Arc::new(stream::Core::new(&executor, queue)?);
        let arch = card.arch();
        let records = records::Records::default();
        Ok(Self { inner: Arc::new(Inner { name, card, arch, executor, stream, records }) })
    }

    /// The device's name; begins with "simulated" where it is.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What plans are made for.
    pub fn card(&self) -> &Card {
        &self.inner.card
    }

    /// Whether this is the simulated card.
    pub fn is_simulated(&self) -> bool {
        match self.inner.executor {
            #[cfg(feature = "sim")]
            Executor::Simulated(_) => true,
            #[cfg(feature = "cuda")]
            Executor::Cuda(_) => false,
        }
    }

    /// Sets how the simulated card schedules and checks the launches from now on. An error on a real card.
    #[cfg(feature = "sim")]
    pub fn set_schedule(&self, schedule: narrowgauge_sim::Schedule) -> Result<()> {
        match self.inner.executor {
            Executor::Simulated(ref simulated) => {
                simulated.set_schedule(schedule);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Executor::Cuda(_) => Err(self.unsupported("set_schedule")),
        }
    }

    /// Has every launch on a card timed with events from now on, for [`records`](Self::records). It keeps launches
    /// from overlapping. An error on the simulated card: nothing measured there is a time.
    pub fn set_timing(&self, on: bool) -> Result<()> {
        match self.inner.executor {
            #[cfg(feature = "sim")]
            Executor::Simulated(_) => {
                let _ = on;
                Err(self.unsupported("set_timing"))
            }
            #[cfg(feature = "cuda")]
            Executor::Cuda(ref cuda) => cuda.set_timing(on),
        }
    }

    /// The default stream.
    pub fn stream(&self) -> Stream {
        Stream::new(self.clone(), self.inner.stream.clone())
    }

    /// A further stream: its work may run beside that of others, except where both use the same memory.
    pub fn new_stream(&self) -> Result<Stream> {
        let queue = self.inner.executor.queue()?;
        Ok(Stream::new(self.clone(), Arc::new(stream::Core::new(&self.inner.executor, queue)?)))
    }

    /// Waits until everything that was launched is done.
    pub fn synchronize(&self) -> Result<()> {
        match self.inner.executor {
            #[cfg(feature = "sim")]
            Executor::Simulated(_) => Ok(()),
            #[cfg(feature = "cuda")]
            Executor::Cuda(ref cuda) => cuda.synchronize(),
        }
    }

    /// Totals per kernel since the last [`clear_records`](Self::clear_records), by name. Waits for timed launches.
    pub fn records(&self) -> Result<Vec<LaunchRecord>> {
        #[cfg(feature = "cuda")]
        if let Executor::Cuda(ref cuda) = self.inner.executor {
            for (kernel, time) in cuda.take_times()? {
                self.inner.records.update(&kernel, |record| {
                    record.time = Some(record.time.unwrap_or_default() + time);
                });
            }
        }
        Ok(self.inner.records.all())
    }

    /// Forgets the totals.
    pub fn clear_records(&self) {
        #[cfg(feature = "cuda")]
        if let Executor::Cuda(ref cuda) = self.inner.executor {
            cuda.forget_times();
        }
        self.inner.records.clear();
    }

    /// The image of a kernel for this device, by its entry name as in [`LaunchRecord::kernel`]: what runs, to be looked
    /// at.
    ///
    /// # Errors
    ///
    /// [`Error::KernelsNotBuilt`], [`Error::UnsupportedArch`] or [`Error::Image`].
    pub fn image(&self, kernel: &str) -> Result<Image> {
        images::find(kernel, &self.inner.arch)
    }

    /// Whether an earlier failure killed the CUDA context, so that only a new process helps.
    pub fn is_lost(&self) -> bool {
        match self.inner.executor {
            #[cfg(feature = "sim")]
            Executor::Simulated(_) => false,
            #[cfg(feature = "cuda")]
            Executor::Cuda(ref cuda) => cuda.is_lost(),
        }
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.inner.executor
    }

    fn unsupported(&self, operation: &'static str) -> Error {
        Error::Unsupported { operation, device: self.inner.name.clone() }
    }
}

/// Clones are equal; devices opened apart are not, even of the same card.
impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.inner.name)
    }
}

/// What runs kernels.
#[derive(Clone)]
pub(crate) enum Executor {
    #[cfg(feature = "sim")]
    Simulated(Arc<simulated::Executor>),
    #[cfg(feature = "cuda")]
    Cuda(Arc<cuda::Executor>),
}

impl Executor {
    fn queue(&self) -> Result<Queue> {
        match *self {
            #[cfg(feature = "sim")]
            Executor::Simulated(_) => Ok(Queue::Simulated),
            #[cfg(feature = "cuda")]
            Executor::Cuda(ref cuda) => Ok(Queue::Cuda(cuda.new_queue()?)),
        }
    }

    fn allocate(&self, bytes: u64) -> Result<Memory> {
        match *self {
            #[cfg(feature = "sim")]
            Executor::Simulated(ref simulated) => Ok(Memory::Simulated(simulated.allocate(bytes)?)),
            #[cfg(feature = "cuda")]
            Executor::Cuda(ref cuda) => Ok(Memory::Cuda(cuda.allocate(bytes)?)),
        }
    }

    fn tensor_map(&self, spec: &TensorMapSpec<'_>) -> Result<abi::NgTensorMap> {
        match *self {
            #[cfg(feature = "sim")]
            Executor::Simulated(_) => simulated::tensor_map(spec),
            #[cfg(feature = "cuda")]
            Executor::Cuda(ref cuda) => cuda.tensor_map(spec),
        }
    }
}

/// An order of execution. The simulated card runs each launch at once, so there it has no state.
pub(crate) enum Queue {
    #[cfg(feature = "sim")]
    Simulated,
    #[cfg(feature = "cuda")]
    Cuda(Arc<cuda::Queue>),
}

/// Device memory that frees itself.
pub(crate) enum Memory {
    #[cfg(feature = "sim")]
    Simulated(simulated::Memory),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Memory),
}

impl Memory {
    fn address(&self) -> u64 {
        match *self {
            #[cfg(feature = "sim")]
            Memory::Simulated(ref memory) => memory.address(),
            #[cfg(feature = "cuda")]
            Memory::Cuda(ref memory) => memory.address(),
        }
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        match *self {
            #[cfg(feature = "sim")]
            Memory::Simulated(ref memory) => memory.read(offset, bytes),
            #[cfg(feature = "cuda")]
            Memory::Cuda(ref memory) => memory.read(offset, bytes),
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match *self {
            #[cfg(feature = "sim")]
            Memory::Simulated(ref memory) => memory.write(offset, bytes),
            #[cfg(feature = "cuda")]
            Memory::Cuda(ref memory) => memory.write(offset, bytes),
        }
    }

    fn clear(&self, bytes: u64) -> Result<()> {
        match *self {
            #[cfg(feature = "sim")]
            Memory::Simulated(ref memory) => memory.clear(bytes),
            #[cfg(feature = "cuda")]
            Memory::Cuda(ref memory) => memory.clear(bytes),
        }
    }
}

/// Device memory with the device that it belongs to: what tensors share and launches keep alive.
pub(crate) struct Allocation {
    // Before the device: memory goes first when both go.
    memory: Memory,
    bytes: u64,
    device: Device,
}

impl Allocation {
    pub(crate) fn new(device: &Device, bytes: u64) -> Result<Self> {
        // An empty tensor has memory too, so that no address is null.
        let memory = device.inner.executor.allocate(bytes.max(16))?;
        Ok(Self { memory, bytes, device: device.clone() })
    }

    /// # Safety
    ///
    /// See [`Tensor::from_raw`](crate::Tensor::from_raw).
    pub(crate) unsafe fn foreign(
        device: &Device,
        address: u64,
        bytes: u64,
        owner: Option<Arc<dyn std::any::Any + Send + Sync>>,
    ) -> Result<Self> {
        let memory = match device.inner.executor {
            #[cfg(feature = "sim")]
            Executor::Simulated(_) => {
                let _ = (address, owner);
                return Err(device.unsupported("Tensor::from_raw"));
            }
            #[cfg(feature = "cuda")]
            Executor::Cuda(ref cuda) => Memory::Cuda(cuda.foreign(address, owner)),
        };
        Ok(Self { memory, bytes, device: device.clone() })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    #[cfg(feature = "cuda")]
    fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn address(&self) -> u64 {
        self.memory.address()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.memory.read(offset, bytes)
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.memory.write(offset, bytes)
    }

    pub(crate) fn clear(&self) -> Result<()> {
        if self.bytes == 0 { Ok(()) } else { self.memory.clear(self.bytes) }
    }
}

/// Locks through poison: every structure behind a lock of this module is whole between calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
