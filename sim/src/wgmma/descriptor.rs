//! Shared-memory matrix descriptors: 64 bits to the addresses of 16-byte chunks.

use std::ops::Range;

/// Bytes that no layout or swizzle tears apart.
pub(super) const CHUNK: usize = 16;

const RESERVED: u64 = 0x3ff1_c000_c000_c000;

/// A checked operand in shared memory: `lines` × `chunks` chunks of 16 bytes.
#[derive(Debug)]
pub(super) struct Matrix {
    /// Offset of each chunk from the start of shared memory, line by line.
    offsets: Vec<u32>,
    /// Chunks a line.
    pub chunks: usize,
    /// Lines are k (16 of them) and chunks run along m or n; otherwise lines are m or n and chunks run along k.
    pub mn_major: bool,
}

impl Matrix {
    pub(super) fn new(
        descriptor: u64,
        extent: usize,
        mn_major: bool,
        shared_base: u32,
        shared_len: usize,
    ) -> Result<Self, String> {
        if descriptor & RESERVED != 0 {
            return Err(format!("reserved bits {:#x} are set", descriptor & RESERVED));
        }
        let field = |low: u32| ((descriptor >> low) as u32 & 0x3fff) << 4;
        let (start, leading, stride) = (field(0), field(16), field(32));
        let base_offset = (descriptor >> 49) as u32 & 7;
        // The span of a swizzled row and the number of address bits that the swizzle mixes in.
        let (span, mask) = match descriptor >> 62 {
            0 => (0, 0),
            1 => (128, 7),
            2 => (64, 3),
            _ => (32, 1),
        };
        let phase = start >> 7 & 7;
        if span == 0 {
            if base_offset != 0 {
                return Err(format!("base offset {base_offset} without a swizzle"));
            }
        } else if base_offset == 0 && start & (8 * span - 1) >= span {
            return Err(format!(
                "start {start:#x} is not on a {}-byte boundary, which a {span}-byte swizzle with base offset 0 wants",
                8 * span
            ));
        } else if base_offset != 0 && (base_offset != phase || start & 127 >= span) {
            return Err(format!(
                "base offset {base_offset}, but start {start:#x} lies in row {phase} of its pattern"
            ));
        }

        let (lines, chunks) = if mn_major { (16, extent / 8) } else { (extent, 2) };
        // Steps within eight lines, between eights of lines, and between chunks.
        let (line_step, eight_step) = match (mn_major, span) {
            (false, 0) => (16, stride),
            (true, 0) => (16, leading),
            (_, span) => (span, stride),
        };
        let per_span = if span == 0 { 1 } else { (span / 16) as usize };
        let span_step = match (mn_major, span) {
            (false, 0) | (true, 1..) => leading,
            (true, 0) => stride,
            // The K extent of one instruction never leaves the span (32 bytes).
            (false, _) => 0,
        };
        if span != 0 {
            let pattern = 8 * span;
            if lines > 8 && eight_step % pattern != 0 {
                return Err(format!(
                    "stride byte offset {eight_step} is not a multiple of {pattern}, one pattern"
                ));
            }
            if mn_major && chunks > per_span && span_step % pattern != 0 {
                return Err(format!(
                    "leading byte offset {span_step} is not a multiple of {pattern}, one pattern"
                ));
            }
            // Otherwise the operand would run into the next row of the pattern.
            let within = start & (span - 1);
            if within != 0 && within as usize + CHUNK * chunks.min(per_span) > span as usize {
                return Err(format!(
                    "start {start:#x} leaves no room for the operand in its {span}-byte row"
                ));
            }
        }

        let end = shared_base as usize + shared_len;
        let mut offsets = Vec::with_capacity(lines * chunks);
        for line in 0..lines as u32 {
            let row = start + line / 8 * eight_step + line % 8 * line_step;
            for chunk in 0..chunks {
                let address = if span == 0 || mn_major {
                    row + (chunk / per_span) as u32 * span_step + (chunk % per_span * CHUNK) as u32
                } else {
                    row + (chunk * CHUNK) as u32
                };
                // The swizzle acts on the bits of the address itself, counted from the pattern's start.
                let address = address ^ (((address >> 7).wrapping_sub(base_offset) & mask) << 4);
                if address < shared_base || address as usize + CHUNK > end {
                    return Err(format!(
                        "reads {address:#x}..{:#x}, outside of shared memory ({shared_base:#x}..{end:#x})",
                        address + CHUNK as u32
                    ));
                }
                offsets.push(address - shared_base);
            }
        }
        Ok(Matrix { offsets, chunks, mn_major })
    }

    /// The chunks of each line.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u32]> {
        self.offsets.chunks_exact(self.chunks)
    }

    /// Coalesced byte ranges, ascending.
    pub(super) fn ranges(&self) -> Vec<Range<u32>> {
        coalesced(&self.offsets)
    }

    /// The same of some rows only, 8 at a time.
    pub(super) fn ranges_of_rows(&self, rows: Range<usize>) -> Vec<Range<u32>> {
        if !self.mn_major {
            return coalesced(&self.offsets[rows.start * self.chunks..rows.end * self.chunks]);
        }
        let of_line = |line: &[u32]| line[rows.start / 8..rows.end / 8].to_vec();
        coalesced(&self.lines().flat_map(of_line).collect::<Vec<u32>>())
    }
}

fn coalesced(offsets: &[u32]) -> Vec<Range<u32>> {
    // Descriptors are multiples of 16, the window's start need not be: chunks share one remainder.
    let (mut low, mut high) = (u32::MAX, 0);
    for offset in offsets {
        low = low.min(*offset);
        high = high.max(*offset);
    }
    let mut present = vec![0u64; ((high - low) / 16 / 64 + 1) as usize];
    for offset in offsets {
        let index = (offset - low) / 16;
        present[(index / 64) as usize] |= 1 << (index % 64);
    }
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for (word, bits) in present.into_iter().enumerate() {
        let mut bits = bits;
        while bits != 0 {
            let first = bits.trailing_zeros();
            let count = (bits >> first).trailing_ones();
            let start = low + (word as u32 * 64 + first) * 16;
            let end = start + count * 16;
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
            bits &= u64::MAX.checked_shl(first + count).unwrap_or(0);
        }
    }
    ranges
}
