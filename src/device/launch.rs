//! Launching a kernel: what every operation's `launch` ends in.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Allocation, Stream, abi};
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A tensor's memory in a launch.
#[derive(Clone)]
pub(crate) struct Use {
    pub(super) allocation: Arc<Allocation>,
    pub(super) write: bool,
}

/// A kernel with its parameters and the memory it uses.
#[derive(Clone)]
#[must_use]
pub(crate) struct KernelLaunch<'a> {
    pub(super) entry: &'a str,
    pub(super) parameters: Cow<'a, [u8]>,
    pub(super) grid: [u32; 3],
    pub(super) block: u32,
    pub(super) cluster: [u32; 3],
    pub(super) shared: u32,
    pub(super) programmatic: bool,
    pub(super) uses: Cow<'a, [Use]>,
}

impl<'a> KernelLaunch<'a> {
    pub(crate) fn new(entry: &'a str, parameters: &impl abi::Parameters) -> Self {
        Self {
            entry,
            parameters: parameters.to_bytes().into(),
            grid: [1; 3],
            block: 1,
            cluster: [1; 3],
            shared: 0,
            programmatic: true,
            uses: Cow::Owned(Vec::new()),
        }
    }

    /// Blocks in x, y and z.
    pub(crate) fn grid(mut self, grid: [u32; 3]) -> Self {
        self.grid = grid;
        self
    }

    /// Threads of a block.
    pub(crate) fn block(mut self, threads: u32) -> Self {
        self.block = threads;
        self
    }

    /// Blocks of a cluster in x, y and z.
    pub(crate) fn cluster(mut self, cluster: [u32; 3]) -> Self {
        self.cluster = cluster;
        self
    }

    /// Bytes of dynamic shared memory.
    pub(crate) fn shared(mut self, bytes: u32) -> Self {
        self.shared = bytes;
        self
    }

    /// Registers memory that the kernel reads.
    pub(crate) fn reads<T: Element>(mut self, tensor: &Tensor<T>) -> Self {
        self.uses.to_mut().push(Use { allocation: tensor.allocation().clone(), write: false });
        self
    }

    /// Registers memory that the kernel writes, or reads and writes.
    pub(crate) fn writes<T: Element>(mut self, tensor: &Tensor<T>) -> Self {
        self.uses.to_mut().push(Use { allocation: tensor.allocation().clone(), write: true });
        self
    }

    /// The same of operands that may be absent, or of any number.
    pub(crate) fn reads_each<'t, T: Element>(self, tensors: impl IntoIterator<Item = &'t Tensor<T>>) -> Self {
        tensors.into_iter().fold(self, Self::reads)
    }

    /// The same of outputs.
    pub(crate) fn writes_each<'t, T: Element>(
        self,
        tensors: impl IntoIterator<Item = &'t Tensor<T>>,
    ) -> Self {
        tensors.into_iter().fold(self, Self::writes)
    }

    /// Enqueues the kernel. It runs after everything before it on the stream and after every earlier use, on any
    /// stream, of what it writes, and every earlier write of what it reads.
    pub(crate) fn launch(&self, stream: &Stream) -> Result<()> {
        self.check(stream)?;
        stream.submit(self)
    }

    /// The same launch with other parameters, which cost no allocation.
    pub(crate) fn with_parameters<'b>(&'b self, parameters: &'b [u8]) -> KernelLaunch<'b> {
        let Self { entry, grid, block, cluster, shared, programmatic, ref uses, .. } = *self;
        let (parameters, uses) = (Cow::Borrowed(parameters), Cow::Borrowed(&uses[..]));
        KernelLaunch { entry, parameters, grid, block, cluster, shared, programmatic, uses }
    }

    pub(crate) fn entry(&self) -> &str {
        self.entry
    }

    pub(crate) fn parameters(&self) -> &[u8] {
        &self.parameters
    }

    fn check(&self, stream: &Stream) -> Result<()> {
        let fail =
            |argument, got: String, want: String| Err(Error::argument("KernelLaunch", argument, got, want));
        let [x, y, z] = self.grid;
        if self.grid.contains(&0) || x > i32::MAX as u32 || y > 65_535 || z > 65_535 {
            let want = "1 to 2147483647, 65535 and 65535".to_owned();
            return fail("grid", format!("{:?} for {}", self.grid, self.entry), want);
        }
        if !(1..=1024).contains(&self.block) {
            return fail(
                "block",
                format!("{} threads for {}", self.block, self.entry),
                "1 to 1024".to_owned(),
            );
        }
        let blocks: u64 = self.cluster.iter().map(|n| u64::from(*n)).product();
        let divides =
            self.grid.iter().zip(self.cluster).all(|(grid, cluster)| cluster > 0 && grid % cluster == 0);
        if !divides || blocks > 8 {
            let want = format!("at most 8 blocks, dividing the grid {:?}", self.grid);
            return fail("cluster", format!("{:?} for {}", self.cluster, self.entry), want);
        }
        let room = stream.device().card().shared_per_block;
        if self.shared > room {
            let got = format!("{} bytes for {}", self.shared, self.entry);
            return fail("shared", got, format!("at most {room} on {}", stream.device().name()));
        }
        for used in self.uses.iter() {
            if used.allocation.device() != stream.device() {
                let got = format!("on {} for {}", used.allocation.device().name(), self.entry);
                return fail("tensor", got, format!("on the stream's device, {}", stream.device().name()));
            }
        }
        Ok(())
    }
}
