//! Device memory: host access and release, ordered behind every use.

use std::sync::Arc;

use super::{Late, Memory, Queue, Uses, Writer};
use crate::device::driver::{Driver, Handle};
use crate::device::lock;
use crate::error::Result;

impl Memory {
    /// Has the memory outlive everything on the queue, at any time.
    pub(in crate::device) fn pin(&self, queue: &Arc<Queue>) {
        let mut uses = lock(&self.uses);
        if !uses.pinned.iter().any(|pinned| Arc::ptr_eq(pinned, queue)) {
            uses.pinned.push(queue.clone());
        }
    }

    pub(in crate::device) fn address(&self) -> u64 {
        self.address
    }

    pub(in crate::device) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.access(false, |driver, stream| {
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: the range is inside the memory, as the caller checked; `bytes` outlives the copy, because
            // `access` waits for it.
            let code = unsafe { (driver.copy_to_host)(to, self.address + offset, bytes.len(), stream) };
            (code, "cuMemcpyDtoHAsync")
        })
    }

    pub(in crate::device) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.access(true, |driver, stream| {
            let from = bytes.as_ptr().cast();
            // SAFETY: as in `read`.
            let code = unsafe { (driver.copy_to_device)(self.address + offset, from, bytes.len(), stream) };
            (code, "cuMemcpyHtoDAsync")
        })
    }

    pub(in crate::device) fn clear(&self, bytes: u64) -> Result<()> {
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
    pub(super) fn fences(&self, uses: &Uses) -> Result<Vec<Handle>> {
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
