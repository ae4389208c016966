//! Device memory: allocations with guard gaps between them.

use super::bits::Bits;
use std::collections::BTreeMap;

const FIRST: u64 = 0x10_0000_0000;
const ALIGN: u64 = 256;
/// Unmapped bytes after every allocation, so that a stray access hits nothing.
const GUARD: u64 = 4096;

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) base: u64,
    pub(crate) data: Vec<u8>,
    defined: Bits,
    undefined: usize,
}

impl Allocation {
    #[inline]
    fn contains(&self, address: u64, bytes: u64) -> bool {
        address >= self.base
            && address - self.base <= self.data.len() as u64
            && bytes <= self.data.len() as u64 - (address - self.base)
    }

    /// Defined bits of up to 16 bytes.
    #[inline]
    pub(crate) fn defined(&self, at: usize, count: usize) -> u32 {
        if self.undefined == 0 { (1u32 << count) - 1 } else { self.defined.get(at, count) }
    }

    #[inline]
    pub(crate) fn set_defined(&mut self, at: usize, count: usize, value: bool) {
        if value && self.undefined == 0 {
            return;
        }
        let changed = self.defined.put(at, count, value);
        self.undefined = if value { self.undefined - changed } else { self.undefined + changed };
    }
}

/// All of device memory.
#[derive(Debug, Default)]
pub(crate) struct Global {
    allocations: BTreeMap<u64, usize>,
    slots: Vec<Option<Allocation>>,
    free_slots: Vec<usize>,
    next: u64,
    pub(crate) used: u64,
    last: std::cell::Cell<usize>,
}

impl Global {
    pub(crate) fn alloc(&mut self, bytes: u64) -> u64 {
        let base = self.next.max(FIRST);
        self.next = (base + bytes + GUARD).next_multiple_of(ALIGN);
        let len = bytes as usize;
        let allocation = Allocation { base, data: vec![0; len], defined: Bits::new(len), undefined: len };
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(allocation);
        self.allocations.insert(base, slot);
        self.used += bytes;
        base
    }

    pub(crate) fn free(&mut self, base: u64) -> bool {
        let Some(slot) = self.allocations.remove(&base) else { return false };
        if let Some(old) = self.slots[slot].take() {
            self.used -= old.data.len() as u64;
        }
        self.free_slots.push(slot);
        true
    }

    /// Slot and offset of an access, if it lies within one allocation.
    #[inline]
    pub(crate) fn locate(&self, address: u64, bytes: u64) -> Option<(usize, usize)> {
        let last = self.last.get();
        if let Some(Some(allocation)) = self.slots.get(last)
            && allocation.contains(address, bytes)
        {
            return Some((last, (address - allocation.base) as usize));
        }
        let (_, &slot) = self.allocations.range(..=address).next_back()?;
        let allocation = self.slots[slot].as_ref()?;
        if !allocation.contains(address, bytes) {
            return None;
        }
        self.last.set(slot);
        Some((slot, (address - allocation.base) as usize))
    }

    #[inline]
    pub(crate) fn slot(&self, slot: usize) -> &Allocation {
        self.slots[slot].as_ref().expect("located slots are live")
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self, slot: usize) -> &mut Allocation {
        self.slots[slot].as_mut().expect("located slots are live")
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        let (slot, at) = self.locate(address, bytes.len() as u64)?;
        let allocation = self.slot_mut(slot);
        allocation.data[at..at + bytes.len()].copy_from_slice(bytes);
        allocation.set_defined(at, bytes.len(), true);
        Some(())
    }

    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let (slot, at) = self.locate(address, bytes.len() as u64)?;
        bytes.copy_from_slice(&self.slot(slot).data[at..at + bytes.len()]);
        Some(())
    }

    pub(crate) fn fill(&mut self, address: u64, len: u64, value: u8) -> Option<()> {
        let (slot, at) = self.locate(address, len)?;
        let allocation = self.slot_mut(slot);
        allocation.data[at..at + len as usize].fill(value);
        allocation.set_defined(at, len as usize, true);
        Some(())
    }

    pub(crate) fn copy(&mut self, to: u64, from: u64, len: u64) -> Option<()> {
        let (source, from) = self.locate(from, len)?;
        let (target, to) = self.locate(to, len)?;
        let len = len as usize;
        let bytes = self.slot(source).data[from..from + len].to_vec();
        let defined: Vec<u32> =
            (0..len).step_by(16).map(|i| self.slot(source).defined(from + i, 16.min(len - i))).collect();
        let target = self.slot_mut(target);
        target.data[to..to + len].copy_from_slice(&bytes);
        for (chunk, bits) in defined.into_iter().enumerate() {
            let count = 16.min(len - 16 * chunk);
            target.put_defined(to + 16 * chunk, count, bits);
        }
        Some(())
    }
}

impl Allocation {
    /// Copies definedness bit by bit.
    pub(crate) fn put_defined(&mut self, at: usize, count: usize, bits: u32) {
        if bits == (1u32 << count) - 1 {
            self.set_defined(at, count, true);
        } else {
            for i in 0..count {
                self.set_defined(at + i, 1, bits >> i & 1 == 1);
            }
        }
    }
}
