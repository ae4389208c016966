//! The CUDA driver as an executor.
//!
//! Ordering: each allocation remembers the stream of its last write and those of the reads since. A launch makes its
//! stream wait for the others that it conflicts with; the event for that is recorded only then, so that programs
//! with one stream pay nothing. One lock per device makes "wait, enqueue, remember" one step.

mod events;
mod functions;
mod memory;
mod queue;

use std::any::Any;
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::driver::{self, Driver, Handle};
use super::lock;
use crate::card::Card;
use crate::error::{Error, Result};

/// `CU_STREAM_PER_THREAD`: one handle, another stream in every thread.
const PER_THREAD: usize = 2;

/// A context with what belongs to it.
pub(crate) struct Executor {
    driver: &'static Driver,
    context: Handle,
    owner: Owner,
    pools: bool,
    /// The result that killed the context, or 0.
    lost: AtomicU32,
    timing: AtomicBool,
    /// Allocates and frees, in stream order; never captured and never given out.
    memory_line: Line,
    /// Copies to and from the host.
    copy_line: Line,
    order: Mutex<()>,
    late: Mutex<Vec<Late>>,
    queues: Mutex<Vec<Weak<Queue>>>,
    functions: Mutex<HashMap<String, Function>>,
    /// Kernels and the events around their launches. Handles, since a `TimedEvent` would hold this executor.
    times: Mutex<Vec<(String, Handle, Handle)>>,
    /// Whether a queue went with work under way, which may still use the modules.
    unfinished: AtomicBool,
}

// SAFETY: handles of contexts, streams, events, modules and functions may be used from any thread; every use sets
// the context current in its thread first. The rest is behind locks, or `Arc`s of types that are `Send + Sync`.
unsafe impl Send for Executor {}
// SAFETY: as above.
unsafe impl Sync for Executor {}

enum Owner {
    /// This device's primary context, retained once.
    Primary(c_int),
    /// Keeps the context alive.
    #[allow(dead_code, reason = "held for its drop")]
    Cudarc(Arc<cudarc::driver::CudaContext>),
}

/// A stream and the event that marks its work so far.
struct Line {
    stream: Handle,
    fence: Handle,
}

/// A stream of kernels.
pub(crate) struct Queue {
    executor: Arc<Executor>,
    line: Line,
    /// Another owner's stream, kept alive and not destroyed.
    foreign: Option<Arc<cudarc::driver::CudaStream>>,
    /// Changed only under the executor's order lock. While set, the fence stands for all work before the capture.
    capturing: AtomicBool,
}

// SAFETY: as for `Executor`; `CudaStream` is `Send + Sync` itself.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

#[derive(Clone, Copy)]
struct Function {
    module: Handle,
    function: Handle,
    /// The dynamic shared memory that it was allowed so far.
    shared: u32,
}

/// Memory of a context, with who used it last.
pub(crate) struct Memory {
    executor: Arc<Executor>,
    address: u64,
    /// `None`: ours to free.
    foreign: Option<Option<Arc<dyn Any + Send + Sync>>>,
    /// Locked only under the executor's order lock.
    uses: Mutex<Uses>,
}

#[derive(Default)]
struct Uses {
    writer: Writer,
    readers: Vec<Arc<Queue>>,
    /// Queues whose kernels may use the memory without saying so at each launch: a status word's.
    pinned: Vec<Arc<Queue>>,
    /// Counts launches, so that a host access can tell whether any came meanwhile.
    launches: u64,
}

#[derive(Default)]
enum Writer {
    /// The host, which has waited.
    #[default]
    Host,
    /// The allocation itself.
    Allocator,
    Queue(Arc<Queue>),
}

/// Something to release once its events have passed.
struct Late {
    events: Vec<Handle>,
    address: Option<u64>,
    #[allow(dead_code, reason = "held for its drop")]
    owner: Option<Arc<dyn Any + Send + Sync>>,
}

/// An instantiated graph.
pub(crate) struct Graph {
    executor: Arc<Executor>,
    graph: Handle,
    executable: Handle,
}

// SAFETY: the handles are used only by `Queue::launch_graph`, under the order lock, and by the one drop.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Sync for Graph {}

/// An event with timing.
pub(crate) struct TimedEvent {
    executor: Arc<Executor>,
    event: Handle,
}

// SAFETY: an event's handle may be used from any thread.
unsafe impl Send for TimedEvent {}
// SAFETY: as above.
unsafe impl Sync for TimedEvent {}

impl Executor {
    /// Opens a device by number; also its name and its card.
    pub(super) fn open(ordinal: usize) -> Result<(Arc<Self>, String, Card)> {
        let driver = Driver::get().map_err(|error| match error {
            Error::NoDevice { found, .. } => Error::NoDevice { ordinal, found },
            other => other,
        })?;
        let mut found = 0;
        // SAFETY: `found` is a valid place for the answer.
        driver.check(unsafe { (driver.device_count)(&mut found) }, "cuDeviceGetCount")?;
        let found = usize::try_from(found).unwrap_or(0);
        if ordinal >= found {
            return Err(Error::NoDevice { ordinal, found });
        }
        let mut device = 0;
        // SAFETY: as above; the number is below the count, which is an `int`.
        driver.check(unsafe { (driver.device_get)(&mut device, ordinal as c_int) }, "cuDeviceGet")?;
        let mut context = std::ptr::null_mut();
        // SAFETY: as above. `Owner::Primary` releases it.
        driver.check(unsafe { (driver.primary_retain)(&mut context, device) }, "cuDevicePrimaryCtxRetain")?;
        Self::new(driver, context, device, Owner::Primary(device))
    }

    /// Shares cudarc's context.
    pub(super) fn adopt(context: Arc<cudarc::driver::CudaContext>) -> Result<(Arc<Self>, String, Card)> {
        let driver = Driver::get()?;
        let (handle, device) = (context.cu_ctx().cast(), context.cu_device());
        Self::new(driver, handle, device, Owner::Cudarc(context))
    }

    fn new(
        driver: &'static Driver,
        context: Handle,
        device: c_int,
        owner: Owner,
    ) -> Result<(Arc<Self>, String, Card)> {
        // From here on, dropping `executor` gives back whatever it has got.
        let null = || Line { stream: std::ptr::null_mut(), fence: std::ptr::null_mut() };
        let mut executor = Self {
            driver,
            context,
            owner,
            pools: false,
            lost: AtomicU32::new(0),
            timing: AtomicBool::new(false),
            memory_line: null(),
            copy_line: null(),
            order: Mutex::new(()),
            late: Mutex::default(),
            queues: Mutex::default(),
            functions: Mutex::default(),
            times: Mutex::default(),
            unfinished: AtomicBool::new(false),
        };
        executor.bind()?;
        executor.memory_line = executor.new_line()?;
        executor.copy_line = executor.new_line()?;
        // CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED
        executor.pools = driver.attribute(device, 115)? != 0;
        let (name, card) = describe(driver, device)?;
        Ok((Arc::new(executor), name, card))
    }

    /// Makes the context current in this thread; fails at once if it is known to be dead.
    fn bind(&self) -> Result<()> {
        match self.lost.load(Ordering::Relaxed) {
            // SAFETY: the context lives as long as `self.owner`.
            0 => self.check(unsafe { (self.driver.set_current)(self.context) }, "cuCtxSetCurrent"),
            code => Err(Error::ContextLost { code }),
        }
    }

    /// `Ok` for result 0; remembers results that kill the context.
    fn check(&self, code: u32, what: &str) -> Result<()> {
        if driver::is_sticky(code) {
            self.lost.store(code, Ordering::Relaxed);
            return Err(Error::ContextLost { code });
        }
        self.driver.check(code, what)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) != 0
    }

    fn new_event(&self, flags: u32) -> Result<Handle> {
        let mut event = std::ptr::null_mut();
        // SAFETY: `event` is a valid place for the answer; the context is current.
        self.check(unsafe { (self.driver.event_create)(&mut event, flags) }, "cuEventCreate")?;
        Ok(event)
    }

    /// An event without timing.
    fn new_fence(&self) -> Result<Handle> {
        // CU_EVENT_DISABLE_TIMING
        self.new_event(2)
    }

    fn new_line(&self) -> Result<Line> {
        let mut line = Line { stream: std::ptr::null_mut(), fence: self.new_fence()? };
        // SAFETY: `line.stream` is a valid place for the answer. CU_STREAM_NON_BLOCKING: no implicit ordering with
        // the legacy stream.
        let code = unsafe { (self.driver.stream_create)(&mut line.stream, 1) };
        if let Err(error) = self.check(code, "cuStreamCreate") {
            self.destroy_line(&line);
            return Err(error);
        }
        Ok(line)
    }

    fn destroy_line(&self, line: &Line) {
        if self.is_lost() {
            return;
        }
        // SAFETY: both were made by this context and nobody uses them any more; the driver lets enqueued work end.
        // Failures cannot be reported from here, and then nothing is left to release.
        unsafe {
            if !line.stream.is_null() {
                (self.driver.stream_destroy)(line.stream);
            }
            if !line.fence.is_null() {
                (self.driver.event_destroy)(line.fence);
            }
        }
    }

    pub(super) fn new_queue(self: &Arc<Self>) -> Result<Arc<Queue>> {
        self.bind()?;
        let line = self.new_line()?;
        Ok(self.add_queue(line, None))
    }

    pub(super) fn adopt_stream(
        self: &Arc<Self>,
        stream: Arc<cudarc::driver::CudaStream>,
    ) -> Result<Arc<Queue>> {
        if stream.context().cu_ctx().cast() != self.context {
            let got = "of another context";
            return Err(Error::argument("Device::from_cudarc", "stream", got, "of the given context"));
        }
        self.bind()?;
        let line = Line { stream: stream.cu_stream().cast(), fence: self.new_fence()? };
        Ok(self.add_queue(line, Some(stream)))
    }

    fn add_queue(
        self: &Arc<Self>,
        line: Line,
        foreign: Option<Arc<cudarc::driver::CudaStream>>,
    ) -> Arc<Queue> {
        let queue = Queue { executor: self.clone(), line, foreign, capturing: AtomicBool::new(false) };
        let queue = Arc::new(queue);
        let mut queues = lock(&self.queues);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        queue
    }

    /// Waits for every stream, but not for what is being captured.
    pub(super) fn synchronize(&self) -> Result<()> {
        let queues: Vec<_> = lock(&self.queues).iter().filter_map(Weak::upgrade).collect();
        for queue in queues {
            queue.synchronize()?;
        }
        self.bind()?;
        for line in [&self.memory_line, &self.copy_line] {
            // SAFETY: the stream lives as long as `self`.
            self.check(unsafe { (self.driver.stream_synchronize)(line.stream) }, "cuStreamSynchronize")?;
        }
        self.release_late();
        Ok(())
    }

    pub(super) fn allocate(self: &Arc<Self>, bytes: u64) -> Result<Memory> {
        self.bind()?;
        self.release_late();
        let out_of_memory = Error::OutOfMemory { requested: bytes };
        let size = usize::try_from(bytes).map_err(|_| out_of_memory.clone())?;
        let mut address = 0;
        let (code, what) = if self.pools {
            let stream = self.memory_line.stream;
            // SAFETY: `address` is a valid place for the answer; the stream lives as long as `self`.
            (unsafe { (self.driver.alloc_async)(&mut address, size, stream) }, "cuMemAllocAsync")
        } else {
            // SAFETY: as above.
            (unsafe { (self.driver.alloc)(&mut address, size) }, "cuMemAlloc")
        };
        // CUDA_ERROR_OUT_OF_MEMORY
        if code == 2 {
            return Err(out_of_memory);
        }
        self.check(code, what)?;
        let writer = if self.pools { Writer::Allocator } else { Writer::Host };
        let uses = Mutex::new(Uses { writer, ..Uses::default() });
        Ok(Memory { executor: self.clone(), address, foreign: None, uses })
    }

    /// Memory of somebody else, who is kept alive.
    pub(super) fn foreign(
        self: &Arc<Self>,
        address: u64,
        owner: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Memory {
        Memory { executor: self.clone(), address, foreign: Some(owner), uses: Mutex::default() }
    }

    /// Makes `stream` wait for the work on `line` so far; `stale`: for that before its fence was recorded last.
    fn wait(&self, stream: Handle, line: &Line, stale: bool) -> Result<()> {
        // SAFETY: streams and event belong to this context, which is current, and outlive the calls; the driver
        // keeps what it needs of the event.
        unsafe {
            if !stale {
                self.check((self.driver.event_record)(line.fence, line.stream), "cuEventRecord")?;
            }
            self.check((self.driver.stream_wait)(stream, line.fence, 0), "cuStreamWaitEvent")
        }
    }

    fn wait_queue(&self, stream: Handle, queue: &Queue) -> Result<()> {
        self.wait(stream, &queue.line, queue.fence_is_kept())
    }

    /// Makes `stream`, of `queue` if it is one of kernels, wait for the uses that conflict, unless `waited` has
    /// their fences already. Under the order lock.
    fn order(
        &self,
        stream: Handle,
        queue: Option<&Arc<Queue>>,
        uses: &Uses,
        write: bool,
        waited: &mut Vec<Handle>,
    ) -> Result<()> {
        let mut wait = |line: &Line, stale| {
            if !waited.contains(&line.fence) {
                self.wait(stream, line, stale)?;
                waited.push(line.fence);
            }
            Ok(())
        };
        let other = |used: &Arc<Queue>| queue.is_none_or(|queue| !Arc::ptr_eq(queue, used));
        match &uses.writer {
            Writer::Queue(writer) if other(writer) => wait(&writer.line, writer.fence_is_kept())?,
            Writer::Allocator => wait(&self.memory_line, false)?,
            _ => {}
        }
        if write {
            for reader in uses.readers.iter().filter(|reader| other(reader)) {
                wait(&reader.line, reader.fence_is_kept())?;
            }
        }
        Ok(())
    }

    /// Releases what has become free. Owners' drops run here, outside of every lock.
    fn release_late(&self) {
        let mut done = Vec::new();
        {
            let mut late = lock(&self.late);
            let mut index = 0;
            while index < late.len() {
                // SAFETY: the events live until their entry is released.
                let passed =
                    late[index].events.iter().all(|event| unsafe { (self.driver.event_query)(*event) } == 0);
                if passed {
                    done.push(late.swap_remove(index));
                } else {
                    index += 1;
                }
            }
        }
        for late in &done {
            self.release(late);
        }
    }

    fn release(&self, late: &Late) {
        // SAFETY: events and memory are ours, and all uses of both have passed.
        unsafe {
            for event in &late.events {
                (self.driver.event_destroy)(*event);
            }
            if let Some(address) = late.address {
                (self.driver.free)(address);
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Nothing can be released in a dead context, nor after the driver's own end.
        let alive = self.bind().is_ok();
        if alive {
            for late in std::mem::take(&mut *lock(&self.late)) {
                // SAFETY: the events are alive. Every stream of kernels is gone, so this is short.
                unsafe {
                    for event in &late.events {
                        (self.driver.event_synchronize)(*event);
                    }
                }
                self.release(&late);
            }
            // A kernel that is under way needs its module, and waiting for it here could block for ever.
            if !self.unfinished.load(Ordering::Relaxed) {
                for function in lock(&self.functions).values() {
                    // SAFETY: queues and graphs hold the executor, so all are gone, and their work had ended.
                    unsafe { (self.driver.module_unload)(function.module) };
                }
            }
            for (_, start, end) in std::mem::take(&mut *lock(&self.times)) {
                for event in [start, end] {
                    // SAFETY: ours, and not used any more.
                    unsafe { (self.driver.event_destroy)(event) };
                }
            }
            self.destroy_line(&self.memory_line);
            self.destroy_line(&self.copy_line);
        }
        if let Owner::Primary(device) = self.owner
            && !self.is_lost()
        {
            // SAFETY: retained once by `open`.
            unsafe { (self.driver.primary_release)(device) };
        }
    }
}

/// The device's name, and its card: a known one's ceilings with this very device's sizes, or an estimate.
fn describe(driver: &Driver, device: c_int) -> Result<(String, Card)> {
    let mut bytes = [0u8; 256];
    // SAFETY: the driver writes at most 256 bytes, with a zero at the end.
    let code = unsafe { (driver.device_name)(bytes.as_mut_ptr().cast(), 256, device) };
    driver.check(code, "cuDeviceGetName")?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let name = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut memory = 0usize;
    // SAFETY: `memory` is a valid place for the answer.
    driver.check(unsafe { (driver.device_memory)(&mut memory, device) }, "cuDeviceTotalMem")?;
    let attribute = |number| driver.attribute(device, number);
    let mut card = Card::estimate(
        &name,
        (attribute(75)?, attribute(76)?),
        attribute(16)?,
        f64::from(attribute(13)?) / 1e6,
        // Memory clock in kHz, bus in bits, two transfers a clock.
        f64::from(attribute(36)?) * f64::from(attribute(37)?) / 4e6,
    );
    card.memory_bytes = memory as u64;
    card.l2_bytes = u64::from(attribute(38)?);
    card.shared_per_block = attribute(97)?;
    card.shared_per_sm = attribute(81)?;
    Ok((name, card))
}
