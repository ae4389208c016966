//! Which bytes of global memory a launch has touched.

use std::collections::BTreeMap;
use std::ops::Range;

const PAGE: u64 = 4096;
const WORDS: usize = PAGE as usize / 64;

/// Bytes, a bit each.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    pages: BTreeMap<u64, Box<[u64; WORDS]>>,
}

/// The words of a page that a range reaches, each with the range's bits of it.
fn masks(page: u64, range: &Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let from = range.start.max(page * PAGE) - page * PAGE;
    let to = range.end.min((page + 1) * PAGE) - page * PAGE;
    (from / 64..to.div_ceil(64)).map(move |word| {
        let (low, high) = (from.max(word * 64) % 64, (to - word * 64).min(64));
        (word as usize, (u64::MAX >> (64 - (high - low))) << low)
    })
}

fn pages(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE..range.end.div_ceil(PAGE)
}

impl Footprint {
    /// Adds a range; whether a byte of it is new.
    pub(super) fn add(&mut self, range: &Range<u64>) -> bool {
        let mut new = false;
        for page in pages(range) {
            let words = self.pages.entry(page).or_insert_with(|| Box::new([0; WORDS]));
            for (word, mask) in masks(page, range) {
                new |= words[word] & mask != mask;
                words[word] |= mask;
            }
        }
        new
    }

    /// The first byte of a range that is here.
    pub(super) fn first(&self, range: &Range<u64>) -> Option<u64> {
        pages(range).find_map(|page| {
            let words = self.pages.get(&page)?;
            let (word, bits) =
                masks(page, range).map(|(w, mask)| (w, words[w] & mask)).find(|&(_, bits)| bits != 0)?;
            Some(page * PAGE + 64 * word as u64 + u64::from(bits.trailing_zeros()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_across_words_and_pages() {
        let mut footprint = Footprint::default();
        assert!(footprint.add(&(4090..4100)) && !footprint.add(&(4091..4099)));
        assert!(footprint.add(&(4099..4101)), "4100 is new");
        for (range, want) in [
            (0..4090, None),
            (0..4091, Some(4090)),
            (4095..4097, Some(4095)),
            (4096..9000, Some(4096)),
            (4101..9000, None),
            (0..20000, Some(4090)),
        ] {
            assert_eq!(footprint.first(&range), want, "{range:?}");
        }
        assert!(footprint.add(&(8192..16384)));
        assert_eq!(footprint.first(&(4101..16384)), Some(8192));
        assert_eq!(footprint.first(&(16383..16384)), Some(16383));
        assert_eq!(footprint.first(&(16384..16385)), None);
    }
}
