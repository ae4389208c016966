//! Shared memory of one block.

use super::bits::Bits;

/// First address of the shared window: never zero, so that a null pointer is caught.
pub(crate) const WINDOW: u32 = 1024;

/// Shared memory with a definedness bit per byte.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) data: Vec<u8>,
    pub(crate) defined: Bits,
}

impl Shared {
    pub(crate) fn new(len: usize) -> Self {
        Self { data: vec![0; len], defined: Bits::new(len) }
    }

    /// Offset of an access, if it is inside.
    #[inline]
    pub(crate) fn locate(&self, address: u32, bytes: u32) -> Option<usize> {
        let at = address.checked_sub(WINDOW)? as usize;
        (at + bytes as usize <= self.data.len()).then_some(at)
    }

    /// New contents for a new block: the bytes keep their values but count as undefined.
    pub(crate) fn reset(&mut self) {
        self.data.fill(0xcd);
        let len = self.data.len();
        self.defined.put(0, len, false);
    }
}
