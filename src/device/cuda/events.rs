//! Graphs and events with timing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Graph, TimedEvent};
use crate::device::driver::Handle;
use crate::error::{Error, Result};

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
    pub(super) fn into_handle(self) -> Handle {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the field moves out once.
        drop(unsafe { std::ptr::read(&this.executor) });
        this.event
    }

    pub(in crate::device) fn since(&self, earlier: &Self) -> Result<Duration> {
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
