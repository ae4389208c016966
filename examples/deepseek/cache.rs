//! The paged cache of one sequence: which pages it holds, and the latent caches that they index.

use narrowgauge::Device;
use narrowgauge::mla::{CacheLayout, LatentCache};

use super::failure::{Failure, Outcome, fail};

/// Tokens a page.
pub const PAGE: usize = 64;

pub struct PagedCache {
    /// One cache a layer; all layers use the same pages.
    pub layers: Vec<LatentCache>,
    pages: Pages,
}

impl PagedCache {
    pub fn new(device: &Device, layers: usize, pages: usize, layout: CacheLayout) -> Outcome<PagedCache> {
        let layer = |_| LatentCache::with_layout(device, pages, PAGE, layout);
        let layers = (0..layers).map(layer).collect::<Result<_, _>>()?;
        Ok(PagedCache { layers, pages: Pages::new(pages) })
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.pages.tokens
    }

    /// Bytes of a token, all layers together.
    pub fn token_bytes(&self) -> usize {
        self.layers.iter().map(LatentCache::token_bytes).sum()
    }

    /// Room for `tokens` more: the slot of each.
    pub fn extend(&mut self, tokens: usize) -> Outcome<Vec<i32>> {
        self.pages.extend(tokens)
    }

    /// The sequence's pages in order, with zeros up to the cache's size: the tables of all steps have one shape.
    pub fn page_table(&self) -> Vec<i32> {
        let mut table = self.pages.held.clone();
        table.resize(self.pages.held.len() + self.pages.free.len(), 0);
        table
    }
}

/// Pages by number: those that are free, and those that the sequence holds, in the order of its tokens.
struct Pages {
    free: Vec<i32>,
    held: Vec<i32>,
    tokens: usize,
}

impl Pages {
    fn new(count: usize) -> Pages {
        Pages { free: (0..count as i32).collect(), held: Vec::new(), tokens: 0 }
    }

    fn extend(&mut self, tokens: usize) -> Outcome<Vec<i32>> {
        let total = self.tokens + tokens;
        let missing = total.div_ceil(PAGE) - self.held.len();
        if missing > self.free.len() {
            let pages = self.held.len() + self.free.len();
            fail!("the cache holds {} tokens ({pages} pages of {PAGE}); {total} are needed", pages * PAGE);
        }
        // From the end of the free list: a sequence's pages do not lie in order, as after a server's long run.
        let kept = self.free.len() - missing;
        self.held.extend(self.free.drain(kept..).rev());
        let slots = (self.tokens..total).map(|at| self.held[at / PAGE] * PAGE as i32 + (at % PAGE) as i32);
        let slots = slots.collect();
        self.tokens = total;
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_pages() {
        let mut pages = Pages::new(3);
        let first = pages.extend(63).unwrap();
        assert_eq!((first[0], first[62]), (128, 190));
        assert_eq!(pages.extend(1).unwrap(), [191]);
        assert_eq!(pages.extend(2).unwrap(), [64, 65]);
        assert_eq!(pages.held, [2, 1]);
        assert_eq!(pages.extend(126).unwrap().last(), Some(&63));
        let message = pages.extend(1).unwrap_err().to_string();
        assert_eq!(message, "the cache holds 192 tokens (3 pages of 64); 193 are needed");
        assert_eq!(pages.tokens, 192);
    }
}
