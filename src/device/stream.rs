//! Streams: orders of execution, their status words, and capturing.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::launch::{KernelLaunch, Use};
use super::{Device, Event, Executor, Graph, Memory, Queue, Status, lock};
use crate::error::{Error, Result};

/// An order of execution on a device. Cheap to clone; clones are the same stream.
#[derive(Clone)]
pub struct Stream {
    device: Device,
    core: Arc<Core>,
}

/// The part of a stream that does not know the device, which itself holds one.
pub(super) struct Core {
    pub(super) queue: Queue,
    status: Arc<Memory>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    capture: Option<Capture>,
    /// Status words of the graphs launched since the last look.
    graphs: Vec<Arc<Memory>>,
}

/// What a capture has seen so far.
struct Capture {
    status: Arc<Memory>,
    uses: Vec<Use>,
    kernels: Vec<String>,
    #[cfg(feature = "sim")]
    launches: Vec<super::simulated::Prepared>,
}

impl Core {
    pub(super) fn new(executor: &Executor, queue: Queue) -> Result<Self> {
        let status = status_word(executor)?;
        #[cfg(feature = "cuda")]
        if let (Memory::Cuda(word), Queue::Cuda(queue)) = (&*status, &queue) {
            word.pin(queue);
        }
        Ok(Self { queue, status, state: Mutex::default() })
    }
}

fn status_word(executor: &Executor) -> Result<Arc<Memory>> {
    let word = executor.allocate(16)?;
    word.clear(16)?;
    Ok(Arc::new(word))
}

impl Stream {
    pub(super) fn new(device: Device, core: Arc<Core>) -> Self {
        Self { device, core }
    }

    /// The device that the stream is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Waits until everything launched on the stream is done.
    pub fn synchronize(&self) -> Result<()> {
        match self.core.queue {
            #[cfg(feature = "sim")]
            Queue::Simulated => Ok(()),
            #[cfg(feature = "cuda")]
            Queue::Cuda(ref queue) => queue.synchronize(),
        }
    }

    /// Waits for the stream, then reads and clears what its kernels, those of graphs launched on it included,
    /// reported about their data. An error while the stream is being captured.
    pub fn status(&self) -> Result<Status> {
        let mut state = lock(&self.core.state);
        if state.capture.is_some() {
            return Err(Error::Capture(
                "the status of a stream cannot be read while it is being captured".into(),
            ));
        }
        self.synchronize()?;
        let mut bits = 0;
        for word in std::iter::once(&self.core.status).chain(&state.graphs) {
            let mut bytes = [0; 4];
            word.read(0, &mut bytes)?;
            if bytes != [0; 4] {
                word.write(0, &[0; 4])?;
            }
            bits |= u32::from_le_bytes(bytes);
        }
        state.graphs.clear();
        Ok(Status::from_bits(bits))
    }

    /// Where kernels of this stream report bad data: a `u32` for `atomicOr`. While capturing, the graph's own.
    pub(crate) fn status_address(&self) -> u64 {
        let state = lock(&self.core.state);
        state.capture.as_ref().map_or(&self.core.status, |capture| &capture.status).address()
    }

    /// Records a moment of the stream, for times between two such moments. An error on the simulated card.
    pub fn record_event(&self) -> Result<Event> {
        match self.core.queue {
            #[cfg(feature = "sim")]
            Queue::Simulated => {
                Err(Error::Unsupported { operation: "record_event", device: self.device.name().to_owned() })
            }
            #[cfg(feature = "cuda")]
            Queue::Cuda(ref queue) => Ok(Event::new(queue.record_timed()?)),
        }
    }

    /// Records what `body` launches on this stream, without running it. The graph owns every allocation, image
    /// and status word that it names. Launches on other streams run as ever, and so do host reads and writes: they
    /// see the memory as it is now.
    ///
    /// # Errors
    ///
    /// Whatever `body` returns; [`Error::Capture`] if this stream is being captured already.
    pub fn capture(&self, body: impl FnOnce(&Stream) -> Result<()>) -> Result<Graph> {
        let status = status_word(self.device.executor())?;
        {
            let mut state = lock(&self.core.state);
            if state.capture.is_some() {
                return Err(Error::Capture("the stream is being captured already".into()));
            }
            #[cfg(feature = "cuda")]
            if let Queue::Cuda(ref queue) = self.core.queue {
                queue.begin_capture()?;
            }
            state.capture = Some(Capture {
                status,
                uses: Vec::new(),
                kernels: Vec::new(),
                #[cfg(feature = "sim")]
                launches: Vec::new(),
            });
        }
        // Ends the capture even if `body` panics.
        let running = Running(self);
        let outcome = body(self);
        let ended = running.end();
        outcome?;
        ended
    }

    fn end_capture(&self) -> Result<Graph> {
        let mut state = lock(&self.core.state);
        let Some(capture) = state.capture.take() else {
            return Err(Error::Capture("the stream is not being captured".into()));
        };
        let Capture { status, uses, kernels, .. } = capture;
        let body = match self.core.queue {
            #[cfg(feature = "sim")]
            Queue::Simulated => super::graph::Body::Simulated(capture.launches),
            #[cfg(feature = "cuda")]
            Queue::Cuda(ref queue) => super::graph::Body::Cuda(queue.end_capture()?),
        };
        Ok(Graph { device: self.device.clone(), body, uses, kernels, status })
    }

    pub(super) fn submit(&self, launch: &KernelLaunch<'_>) -> Result<()> {
        let records = &self.device.inner.records;
        let mut state = lock(&self.core.state);
        match self.core.queue {
            #[cfg(feature = "sim")]
            Queue::Simulated => {
                let simulated = self.simulated();
                let prepared = simulated.prepare(launch, &self.device.inner.arch)?;
                if let Some(capture) = &mut state.capture {
                    capture.launches.push(prepared);
                } else {
                    simulated.run(&prepared, records)?;
                    return Ok(());
                }
            }
            #[cfg(feature = "cuda")]
            Queue::Cuda(ref queue) => {
                queue.launch(launch, &self.device.inner.arch)?;
                if state.capture.is_none() {
                    records.update(launch.entry, |record| record.launches += 1);
                    return Ok(());
                }
            }
        }
        if let Some(capture) = &mut state.capture {
            capture.kernels.push(launch.entry.to_owned());
            capture.uses.extend_from_slice(&launch.uses);
        }
        Ok(())
    }

    pub(super) fn replay(&self, graph: &Graph) -> Result<()> {
        if graph.device != self.device {
            let got = format!("on {}", self.device.name());
            let want = format!("on the graph's device, {}", graph.device.name());
            return Err(Error::argument("Graph::launch", "stream", got, want));
        }
        let mut state = lock(&self.core.state);
        if state.capture.is_some() {
            return Err(Error::Capture(
                "a graph cannot be launched on a stream that is being captured".into(),
            ));
        }
        let records = &self.device.inner.records;
        match (&self.core.queue, &graph.body) {
            #[cfg(feature = "sim")]
            (Queue::Simulated, super::graph::Body::Simulated(launches)) => {
                self.simulated().run_all(launches, records)?;
            }
            #[cfg(feature = "cuda")]
            (Queue::Cuda(queue), super::graph::Body::Cuda(body)) => {
                let Memory::Cuda(status) = &*graph.status else {
                    return Err(self.device.unsupported("a graph of another kind of device"));
                };
                queue.launch_graph(body, &graph.uses, status)?;
                for kernel in &graph.kernels {
                    records.update(kernel, |record| record.launches += 1);
                }
            }
            #[cfg(any(all(feature = "sim", feature = "cuda"), not(any(feature = "sim", feature = "cuda"))))]
            _ => return Err(self.device.unsupported("a graph of another kind of device")),
        }
        if !state.graphs.iter().any(|word| Arc::ptr_eq(word, &graph.status)) {
            state.graphs.push(graph.status.clone());
        }
        Ok(())
    }

    #[cfg(feature = "sim")]
    fn simulated(&self) -> &super::simulated::Executor {
        match self.device.executor() {
            Executor::Simulated(simulated) => simulated,
            #[cfg(feature = "cuda")]
            Executor::Cuda(_) => unreachable!("a device makes only queues of its own kind"),
        }
    }
}

/// A capture that is under way.
struct Running<'a>(&'a Stream);

impl Running<'_> {
    fn end(self) -> Result<Graph> {
        let graph = self.0.end_capture();
        std::mem::forget(self);
        graph
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Only reached by unwinding: the graph is of no use.
        drop(self.0.end_capture());
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream on {}", self.device.name())
    }
}
