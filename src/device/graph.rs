//! Captured launches.

use std::fmt;
use std::sync::Arc;

use super::launch::Use;
use super::{Device, Memory, Stream};
use crate::error::Result;

/// Launches that [`Stream::capture`] recorded, to be launched together, as often as needed. It owns every
/// allocation, image and status word that they name.
pub struct Graph {
    // First, so that the driver's graph goes before the memory that it names.
    pub(super) body: Body,
    pub(super) uses: Vec<Use>,
    pub(super) kernels: Vec<String>,
    pub(super) status: Arc<Memory>,
    pub(super) device: Device,
}

pub(super) enum Body {
    #[cfg(feature = "sim")]
    Simulated(Vec<super::simulated::Prepared>),
    #[cfg(feature = "cuda")]
    Cuda(super::cuda::Graph),
}

impl Graph {
    /// Enqueues the launches in their order, after everything on the stream, and after other streams' uses of the
    /// same memory.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        stream.replay(self)
    }

    /// The kernels in the order of their launches.
    pub fn kernels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.kernels.iter().map(String::as_str)
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph of {} launches on {}", self.kernels.len(), self.device.name())
    }
}
