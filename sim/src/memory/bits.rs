//! A bit per byte: is it defined?

/// Bit set over byte offsets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(crate) fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)] }
    }

    /// Bits `at..at + count` (count ≤ 16), lowest first.
    #[inline]
    pub(crate) fn get(&self, at: usize, count: usize) -> u32 {
        let (word, bit) = (at / 64, at % 64);
        let mut bits = self.words[word] >> bit;
        if bit + count > 64 {
            bits |= self.words[word + 1] << (64 - bit);
        }
        (bits as u32) & ((1u32 << count) - 1)
    }

    /// Whether all of `at..at + count` are set.
    pub(crate) fn all(&self, at: usize, count: usize) -> bool {
        let mut ok = true;
        each_word(at, count, |word, mask| ok &= self.words[word] & mask == mask);
        ok
    }

    /// How many are set.
    pub(crate) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Sets or clears a range; answers how many bits changed.
    pub(crate) fn put(&mut self, at: usize, count: usize, value: bool) -> usize {
        let mut changed = 0;
        each_word(at, count, |word, mask| {
            let old = self.words[word];
            let new = if value { old | mask } else { old & !mask };
            changed += (old ^ new).count_ones() as usize;
            self.words[word] = new;
        });
        changed
    }
}

#[inline]
fn each_word(at: usize, count: usize, mut visit: impl FnMut(usize, u64)) {
    let (mut at, end) = (at, at + count);
    while at < end {
        let (word, bit) = (at / 64, at % 64);
        let here = (64 - bit).min(end - at);
        let mask = if here == 64 { u64::MAX } else { ((1u64 << here) - 1) << bit };
        visit(word, mask);
        at += here;
    }
}
