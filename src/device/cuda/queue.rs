//! A stream of kernels: launches, captures, waiting.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Graph, Line, Memory, PER_THREAD, Queue, TimedEvent, Writer};
use crate::device::driver::{self, LaunchAttribute, LaunchConfig};
use crate::device::launch::{KernelLaunch, Use};
use crate::device::lock;
use crate::error::{Error, Result};

impl Queue {
    /// Whether the fence must stay as it is: it stands for everything before a capture, or, on a stream that is
    /// another one in each thread, for the last launch.
    pub(super) fn fence_is_kept(&self) -> bool {
        self.capturing.load(Ordering::Relaxed) || self.is_per_thread()
    }

    fn is_per_thread(&self) -> bool {
        self.line.stream as usize == PER_THREAD
    }

    pub(in crate::device) fn synchronize(&self) -> Result<()> {
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
            if let crate::device::Memory::Cuda(memory) = used.allocation.memory() {
                let seen = lock(&memory.uses);
                self.executor.order(self.line.stream, Some(self), &seen, used.write, &mut waited)?;
            }
        }
        Ok(())
    }

    /// Remembers uses. Under the order lock.
    fn remember_uses(self: &Arc<Self>, uses: &[Use]) {
        for used in uses {
            if let crate::device::Memory::Cuda(memory) = used.allocation.memory() {
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

    pub(in crate::device) fn launch(self: &Arc<Self>, launch: &KernelLaunch<'_>, arch: &str) -> Result<()> {
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

    pub(in crate::device) fn record_timed(&self) -> Result<TimedEvent> {
        let executor = &self.executor;
        executor.driver.elapsed()?;
        executor.bind()?;
        let _order = lock(&executor.order);
        if self.capturing.load(Ordering::Relaxed) {
            return Err(Error::Capture("a stream that is being captured has no times".into()));
        }
        self.timed_event()
    }

    pub(in crate::device) fn begin_capture(&self) -> Result<()> {
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

    pub(in crate::device) fn end_capture(&self) -> Result<Graph> {
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
    pub(in crate::device) fn launch_graph(
        self: &Arc<Self>,
        graph: &Graph,
        uses: &[Use],
        status: &Memory,
    ) -> Result<()> {
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
