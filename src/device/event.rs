//! Moments of a stream, for timing on a card.

use std::time::Duration;

use crate::error::Result;

/// A moment of a stream, from [`Stream::record_event`](super::Stream::record_event).
#[derive(Debug)]
pub struct Event {
    #[cfg(feature = "cuda")]
    inner: super::cuda::TimedEvent,
}

impl Event {
    #[cfg(feature = "cuda")]
    pub(super) fn new(inner: super::cuda::TimedEvent) -> Self {
        Self { inner }
    }

    /// The time from `earlier` to this moment. Waits until both have passed.
    pub fn since(&self, earlier: &Event) -> Result<Duration> {
        #[cfg(feature = "cuda")]
        return self.inner.since(&earlier.inner);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = earlier;
            unreachable!("without the feature cuda nothing makes events")
        }
    }
}
