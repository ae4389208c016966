//! The CUDA driver as an executor.
//!
//! Ordering: each allocation remembers the stream of its last write and those of the reads since. A launch makes its
//! stream wait for the others that it conflicts with; the event for that is recorded only then, so that programs
//! with one stream pay nothing. One lock per device makes "wait, enqueue, remember" one step.

use std::any::Any;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::driver::{self, Driver, Handle, LaunchAttribute, LaunchConfig};
use super::launch::{KernelLaunch, Use};
use super::{TensorMapSpec, abi, images, lock, tensor_map::Swizzle};
use crate::card::Card;
use crate::dtype::DType;
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

    /// The kernel, loaded at its first launch and allowed its shared memory.
    fn function(&self, entry: &str, arch: &str, shared: u32) -> Result<Handle> {
        let mut functions = lock(&self.functions);
        if !functions.contains_key(entry) {
            functions.insert(entry.to_owned(), self.load(entry, arch)?);
        }
        let Some(function) = functions.get_mut(entry) else {
            return Err(Error::KernelsNotBuilt { kernel: entry.to_owned() });
        };
        if shared > function.shared {
            // SAFETY: the function belongs to a module that lives as long as `self`.
            // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES; the size is at most the card's, which is an `int`.
            let code = unsafe { (self.driver.function_attribute)(function.function, 8, shared as c_int) };
            self.check(code, "cuFuncSetAttribute")?;
            function.shared = shared;
        }
        Ok(function.function)
    }

    fn load(&self, entry: &str, arch: &str) -> Result<Function> {
        let image = images::find(entry, arch)?;
        let failed = |reason: String| Error::Image { kernel: entry.to_owned(), reason };
        let text;
        let data: *const c_void = match &image.cubin {
            Some(cubin) => cubin.as_ptr().cast(),
            None => {
                text = CString::new(&*image.ptx).map_err(|_| failed("the PTX holds a zero".into()))?;
                text.as_ptr().cast()
            }
        };
        let mut module = std::ptr::null_mut();
        // SAFETY: `data` is an ELF file, which holds its own length, or text that ends in a zero; the driver copies.
        match unsafe { (self.driver.module_load)(&mut module, data) } {
            0 => {}
            // Invalid image, no binary for this card, unsupported PTX: an image newer than the driver, as a rule.
            code @ (200 | 209 | 222) => {
                let what = self.driver.error(code, "cuModuleLoadData");
                let version = self.driver.version();
                return Err(failed(format!("{what}; the driver is for CUDA {version}, images need 13.0")));
            }
            code => self.check(code, "cuModuleLoadData")?,
        }
        let name = CString::new(entry).map_err(|_| failed("its name holds a zero".into()))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded and `name` ends in a zero.
        let code = unsafe { (self.driver.module_function)(&mut function, module, name.as_ptr()) };
        if let Err(error) = self.check(code, "cuModuleGetFunction") {
            // SAFETY: nothing of the module is in use.
            unsafe { (self.driver.module_unload)(module) };
            return Err(failed(error.to_string()));
        }
        // Up to 48 KiB need no permission.
        Ok(Function { module, function, shared: 48 << 10 })
    }

    pub(super) fn set_timing(&self, on: bool) -> Result<()> {
        if on {
            self.driver.elapsed()?;
        }
        self.timing.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Times of the timed launches so far, once they are done.
    pub(super) fn take_times(self: &Arc<Self>) -> Result<Vec<(String, Duration)>> {
        let own = |event| TimedEvent { executor: self.clone(), event };
        let times = std::mem::take(&mut *lock(&self.times));
        let times: Vec<_> =
            times.into_iter().map(|(kernel, start, end)| (kernel, own(start), own(end))).collect();
        times.into_iter().map(|(kernel, start, end)| Ok((kernel, end.since(&start)?))).collect()
    }

    pub(super) fn forget_times(self: &Arc<Self>) {
        for (_, start, end) in std::mem::take(&mut *lock(&self.times)) {
            for event in [start, end] {
                drop(TimedEvent { executor: self.clone(), event });
            }
        }
    }

    pub(super) fn tensor_map(&self, spec: &TensorMapSpec<'_>) -> Result<abi::NgTensorMap> {
        // CUtensorMapDataType; FP8 travels as bytes.
        let dtype = match spec.dtype {
            DType::E4m3 | DType::U8 => 0,
            DType::U32 => 2,
            DType::I32 => 3,
            DType::U64 => 4,
            DType::I64 => 5,
            DType::F32 => 7,
            DType::Bf16 => 9,
        };
        let swizzle = match spec.swizzle {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 2,
            Swizzle::B128 => 3,
        };
        self.bind()?;
        let mut map = abi::NgTensorMap { bytes: [0; 128] };
        // SAFETY: `map` has the size and alignment of a `CUtensorMap`; `spec.check` made sure that the slices have
        // `rank` elements, and the strides one fewer. The address is only recorded.
        // No interleaving, L2 promotion of 256 bytes, zeros out of bounds.
        let code = unsafe {
            (self.driver.encode_tiled)(
                map.bytes.as_mut_ptr().cast(),
                dtype,
                spec.extents.len() as u32,
                spec.address,
                spec.extents.as_ptr(),
                spec.strides.as_ptr(),
                spec.tile.as_ptr(),
                [1u32; 5].as_ptr(),
                0,
                swizzle,
                3,
                0,
            )
        };
        self.check(code, "cuTensorMapEncodeTiled")?;
        Ok(map)
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
        if let Owner::Primary(device) = self.owner {
            // SAFETY: retained once by `open`.
            unsafe { (self.driver.primary_release)(device) };
        }
    }
}

impl Queue {
    /// Whether the fence must stay as it is: it stands for everything before a capture, or, on a stream that is
    /// another one in each thread, for the last launch.
    fn fence_is_kept(&self) -> bool {
        self.capturing.load(Ordering::Relaxed) || self.is_per_thread()
    }

    fn is_per_thread(&self) -> bool {
        self.line.stream as usize == PER_THREAD
    }

    pub(super) fn synchronize(&self) -> Result<()> {
        let executor = &self.executor;
        executor.bind()?;
        // Not waited for under the lock.
        let kept = {
            let _order = lock(&executor.order);
            self.fence_is_kept()
        };
        if kept {
            // SAFETY: the event lives as long as `self`.
            let code = unsafe { (executor.driver.event_synchronize)(self.line.fence) };
            executor.check(code, "cuEventSynchronize")?;
        }
        if kept && !self.is_per_thread() {
            return Ok(());
        }
        // SAFETY: the stream lives as long as `self`.
        let code = unsafe { (executor.driver.stream_synchronize)(self.line.stream) };
        executor.check(code, "cuStreamSynchronize")
    }

    /// Before work on the stream, under the order lock.
    fn enter(&self) -> Result<()> {
        let executor = &self.executor;
        if self.foreign.is_some() {
            let mut status = 0;
            // SAFETY: `status` is a valid place for the answer.
            let code = unsafe { (executor.driver.stream_is_capturing)(self.line.stream, &mut status) };
            executor.check(code, "cuStreamIsCapturing")?;
            if status != 0 {
                let what =
                    "somebody else is capturing the stream: use Stream::capture, which keeps memory alive";
                return Err(Error::Capture(what.into()));
            }
        }
        if self.is_per_thread() {
            executor.wait(self.line.stream, &self.line, true)?;
        }
        Ok(())
    }

    /// After work on the stream, under the order lock.
    fn leave(&self) -> Result<()> {
        if !self.is_per_thread() {
            return Ok(());
        }
        // SAFETY: the event and the stream live as long as `self`.
        let code = unsafe { (self.executor.driver.event_record)(self.line.fence, self.line.stream) };
        self.executor.check(code, "cuEventRecord")
    }

    /// Waits for the other streams' conflicting uses. Under the order lock.
    fn await_uses(self: &Arc<Self>, uses: &[Use]) -> Result<()> {
        let mut waited = Vec::new();
        for used in uses {
            if let super::Memory::Cuda(memory) = used.allocation.memory() {
                let seen = lock(&memory.uses);
                self.executor.order(self.line.stream, Some(self), &seen, used.write, &mut waited)?;
            }
        }
        Ok(())
    }

    /// Remembers uses. Under the order lock.
    fn remember_uses(self: &Arc<Self>, uses: &[Use]) {
        for used in uses {
            if let super::Memory::Cuda(memory) = used.allocation.memory() {
                let mut seen = lock(&memory.uses);
                seen.launches += 1;
                if used.write {
                    seen.writer = Writer::Queue(self.clone());
                    seen.readers.clear();
                } else if !seen.readers.iter().any(|reader| Arc::ptr_eq(reader, self)) {
                    seen.readers.push(self.clone());
                }
            }
        }
    }

    pub(super) fn launch(self: &Arc<Self>, launch: &KernelLaunch<'_>, arch: &str) -> Result<()> {
        let executor = &self.executor;
        executor.bind()?;
        let function = executor.function(launch.entry, arch, launch.shared)?;
        let mut attributes = [LaunchAttribute { id: 0, padding: 0, value: [0; 16] }; 2];
        let mut count = 0;
        if launch.cluster != [1; 3] {
            attributes[count].id = driver::LAUNCH_CLUSTER;
            attributes[count].value[..3].copy_from_slice(&launch.cluster);
            count += 1;
        }
        if launch.programmatic {
            attributes[count].id = driver::LAUNCH_PROGRAMMATIC;
            attributes[count].value[0] = 1;
            count += 1;
        }
        let config = LaunchConfig {
            grid: launch.grid,
            block: [launch.block, 1, 1],
            shared: launch.shared,
            stream: self.line.stream,
            attributes: attributes.as_ptr(),
            attribute_count: count as u32,
        };
        let mut parameters = [launch.parameters.as_ptr().cast_mut().cast::<c_void>()];
        let enqueue = || {
            // SAFETY: `config` and its attributes live through the call. The kernel has one parameter, the struct of
            // `abi.rs` whose size and offsets both sides assert; the driver copies it. Memory that the kernel
            // touches is registered in `launch.uses` and so outlives the launch. The operation has checked shapes.
            let code = unsafe {
                (executor.driver.launch)(&config, function, parameters.as_mut_ptr(), std::ptr::null_mut())
            };
            executor.check(code, launch.entry)
        };
        let mut enqueue = enqueue;

        let order = lock(&executor.order);
        if self.capturing.load(Ordering::Relaxed) {
            return enqueue();
        }
        self.enter()?;
        self.await_uses(&launch.uses)?;
        let timed = executor.timing.load(Ordering::Relaxed).then(|| self.timed_event()).transpose()?;
        enqueue()?;
        self.remember_uses(&launch.uses);
        self.leave()?;
        if let Some(start) = timed {
            let end = self.timed_event()?;
            lock(&executor.times).push((launch.entry.to_owned(), start.into_handle(), end.into_handle()));
        }
        drop(order);
        Ok(())
    }

    /// Records an event with timing.
    fn timed_event(&self) -> Result<TimedEvent> {
        let executor = &self.executor;
        let event = TimedEvent { executor: executor.clone(), event: executor.new_event(0)? };
        // SAFETY: event and stream are alive and of this context.
        let code = unsafe { (executor.driver.event_record)(event.event, self.line.stream) };
        executor.check(code, "cuEventRecord")?;
        Ok(event)
    }

    pub(super) fn record_timed(&self) -> Result<TimedEvent> {
        let executor = &self.executor;
        executor.driver.elapsed()?;
        executor.bind()?;
        let _order = lock(&executor.order);
        if self.capturing.load(Ordering::Relaxed) {
            return Err(Error::Capture("a stream that is being captured has no times".into()));
        }
        self.timed_event()
    }

    pub(super) fn begin_capture(&self) -> Result<()> {
        let executor = &self.executor;
        if self.is_per_thread() {
            // Launches from another thread would run instead of being captured.
            return Err(Error::Capture("a per-thread stream cannot be captured".into()));
        }
        executor.bind()?;
        let _order = lock(&executor.order);
        self.enter()?;
        // SAFETY: event and stream are alive and of this context. CU_STREAM_CAPTURE_MODE_RELAXED: other threads, and
        // this one on other streams, may do as they like; this crate never lets such work meet the capture.
        unsafe {
            executor
                .check((executor.driver.event_record)(self.line.fence, self.line.stream), "cuEventRecord")?;
            executor.check((executor.driver.capture_begin)(self.line.stream, 2), "cuStreamBeginCapture")?;
        }
        self.capturing.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn end_capture(&self) -> Result<Graph> {
        let executor = &self.executor;
        let _order = lock(&executor.order);
        self.capturing.store(false, Ordering::Relaxed);
        executor.bind()?;
        let null = std::ptr::null_mut;
        let mut graph = Graph { executor: executor.clone(), graph: null(), executable: null() };
        // SAFETY: the stream is alive and `graph` has valid places for the answers; its drop releases them.
        unsafe {
            let code = (executor.driver.capture_end)(self.line.stream, &mut graph.graph);
            executor.check(code, "cuStreamEndCapture")?;
            if graph.graph.is_null() {
                return Err(Error::Capture("the capture was invalidated".into()));
            }
            let code = (executor.driver.graph_instantiate)(&mut graph.executable, graph.graph, 0);
            executor.check(code, "cuGraphInstantiate")?;
        }
        Ok(graph)
    }

    /// Enqueues a graph, with the uses of its launches and its status word.
    pub(super) fn launch_graph(self: &Arc<Self>, graph: &Graph, uses: &[Use], status: &Memory) -> Result<()> {
        let executor = &self.executor;
        executor.bind()?;
        let _order = lock(&executor.order);
        self.enter()?;
        self.await_uses(uses)?;
        status.pin(self);
        // SAFETY: the graph is instantiated, and of this context since its device is; the `Graph` owns all memory
        // that it names, and the uses are remembered, so memory outlives the launch even if the graph is dropped.
        let code = unsafe { (executor.driver.graph_launch)(graph.executable, self.line.stream) };
        executor.check(code, "cuGraphLaunch")?;
        self.remember_uses(uses);
        self.leave()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.executor.bind().is_err() {
            return;
        }
        if !self.is_per_thread() {
            // SAFETY: event and stream are alive; nobody else has the queue, so the fence is free.
            let busy = unsafe {
                (self.executor.driver.event_record)(self.line.fence, self.line.stream) != 0
                    || (self.executor.driver.event_query)(self.line.fence) != 0
            };
            self.executor.unfinished.fetch_or(busy, Ordering::Relaxed);
        }
        let stream = if self.foreign.is_some() { std::ptr::null_mut() } else { self.line.stream };
        self.executor.destroy_line(&Line { stream, fence: self.line.fence });
    }
}

impl Memory {
    /// Has the memory outlive everything on the queue, at any time.
    pub(super) fn pin(&self, queue: &Arc<Queue>) {
        let mut uses = lock(&self.uses);
        if !uses.pinned.iter().any(|pinned| Arc::ptr_eq(pinned, queue)) {
            uses.pinned.push(queue.clone());
        }
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.access(false, |driver, stream| {
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: the range is inside the memory, as the caller checked; `bytes` outlives the copy, because
            // `access` waits for it.
            let code = unsafe { (driver.copy_to_host)(to, self.address + offset, bytes.len(), stream) };
            (code, "cuMemcpyDtoHAsync")
        })
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.access(true, |driver, stream| {
            let from = bytes.as_ptr().cast();
            // SAFETY: as in `read`.
            let code = unsafe { (driver.copy_to_device)(self.address + offset, from, bytes.len(), stream) };
            (code, "cuMemcpyHtoDAsync")
        })
    }

    pub(super) fn clear(&self, bytes: u64) -> Result<()> {
        self.access(true, |driver, stream| {
            // SAFETY: the range is inside the memory, as the caller checked.
            let code = unsafe { (driver.set_bytes)(self.address, 0, bytes as usize, stream) };
            (code, "cuMemsetD8Async")
        })
    }

    /// Runs a copy after the conflicting uses, and waits for it.
    fn access(&self, write: bool, copy: impl FnOnce(&Driver, Handle) -> (u32, &'static str)) -> Result<()> {
        let executor = &self.executor;
        let stream = executor.copy_line.stream;
        executor.bind()?;
        let launches = {
            let _order = lock(&executor.order);
            let uses = lock(&self.uses);
            executor.order(stream, None, &uses, write, &mut Vec::new())?;
            uses.launches
        };
        let (code, what) = copy(executor.driver, stream);
        let enqueued = executor.check(code, what);
        // SAFETY: the stream lives as long as the executor. Waits even after a failure, so that no copy can be
        // under way when the caller's bytes go.
        let code = unsafe { (executor.driver.stream_synchronize)(stream) };
        enqueued.and(executor.check(code, "cuStreamSynchronize"))?;
        if write {
            let _order = lock(&executor.order);
            let mut uses = lock(&self.uses);
            // What was there before has been waited for.
            if uses.launches == launches {
                uses.writer = Writer::Host;
                uses.readers.clear();
            }
        }
        Ok(())
    }

    /// Fences behind every use so far, for a release after them.
    fn fences(&self, uses: &Uses) -> Result<Vec<Handle>> {
        let executor = &self.executor;
        let mut events = Vec::new();
        let writer = match &uses.writer {
            Writer::Queue(queue) => Some(queue),
            _ => None,
        };
        for queue in writer.into_iter().chain(&uses.readers).chain(&uses.pinned) {
            let event = executor.new_fence()?;
            events.push(event);
            // The memory line takes the queue's fence, which may be an older one, and hands on its own.
            executor.wait_queue(executor.memory_line.stream, queue)?;
            // SAFETY: event and stream are alive and of this context.
            let code = unsafe { (executor.driver.event_record)(event, executor.memory_line.stream) };
            executor.check(code, "cuEventRecord")?;
        }
        Ok(events)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let executor = &self.executor;
        let owner = self.foreign.as_ref().map(Option::is_some);
        // A dead context has freed everything, and somebody else's memory without an owner needs nothing.
        if owner == Some(false) || executor.bind().is_err() {
            return;
        }
        let _order = lock(&executor.order);
        let uses = lock(&self.uses);
        if owner.is_none() && executor.pools {
            let stream = executor.memory_line.stream;
            // In stream order behind every use; after a failure to order it, leaking is the safe way out.
            let pinned = uses.pinned.iter().try_for_each(|queue| executor.wait_queue(stream, queue));
            if pinned.is_ok() && executor.order(stream, None, &uses, true, &mut Vec::new()).is_ok() {
                // SAFETY: the memory is ours, and no view or graph is left that could use it again.
                unsafe { (executor.driver.free_async)(self.address, stream) };
            }
            return;
        }
        let address = owner.is_none().then_some(self.address);
        let Ok(events) = self.fences(&uses) else {
            // Cannot tell when it is free: keep the owner for ever.
            std::mem::forget(self.foreign.take());
            return;
        };
        drop(uses);
        if events.is_empty() && address.is_none() {
            return;
        }
        let owner = self.foreign.take().flatten();
        lock(&executor.late).push(Late { events, address, owner });
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.executor.bind().is_err() {
            return;
        }
        // SAFETY: made by `end_capture` and not used any more; the driver lets launches that are under way end.
        unsafe {
            if !self.executable.is_null() {
                (self.executor.driver.graph_exec_destroy)(self.executable);
            }
            if !self.graph.is_null() {
                (self.executor.driver.graph_destroy)(self.graph);
            }
        }
    }
}

impl TimedEvent {
    fn into_handle(self) -> Handle {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the field moves out once.
        drop(unsafe { std::ptr::read(&this.executor) });
        this.event
    }

    pub(super) fn since(&self, earlier: &Self) -> Result<Duration> {
        let executor = &self.executor;
        let elapsed = executor.driver.elapsed()?;
        if !Arc::ptr_eq(executor, &earlier.executor) {
            return Err(Error::argument(
                "Event::since",
                "earlier",
                "of another device",
                "of the same device",
            ));
        }
        executor.bind()?;
        let mut milliseconds = 0f32;
        // SAFETY: both events are alive and were recorded; `milliseconds` is a valid place for the answer.
        unsafe {
            for event in [earlier.event, self.event] {
                executor.check((executor.driver.event_synchronize)(event), "cuEventSynchronize")?;
            }
            executor.check(elapsed(&mut milliseconds, earlier.event, self.event), "cuEventElapsedTime")?;
        }
        // Not from_secs_f32, which panics: events in the other order give a negative time.
        Ok(Duration::from_nanos((f64::from(milliseconds) * 1e6) as u64))
    }
}

impl fmt::Debug for TimedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimedEvent")
    }
}

impl Drop for TimedEvent {
    fn drop(&mut self) {
        if self.executor.bind().is_ok() {
            // SAFETY: ours, and not used any more.
            unsafe { (self.executor.driver.event_destroy)(self.event) };
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
