//! Sequences in scattered pages.

use crate::verify::Source;

/// What tables hold where no sequence has a page.
const NOWHERE: i32 = 2_147_480_000;

/// Where the tokens of some sequences lie in a cache.
pub(super) struct Pages {
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Pages of the cache.
    pub cache_pages: usize,
    /// Columns of the table: one more than the longest sequence needs.
    pub table_pages: usize,
    /// `[sequences, table_pages]`.
    pub table: Vec<i32>,
}

impl Pages {
    /// Every sequence's pages anywhere in a cache that has `spare` more.
    pub fn scattered(source: &mut Source, lengths: &[usize], page_tokens: usize, spare: usize) -> Self {
        let needed: Vec<usize> = lengths.iter().map(|length| length.div_ceil(page_tokens)).collect();
        let table_pages = needed.iter().copied().max().unwrap_or(0) + 1;
        let cache_pages = needed.iter().sum::<usize>() + spare;
        let mut free = source.permutation(cache_pages);
        let mut table = vec![NOWHERE; lengths.len() * table_pages];
        for (row, needed) in table.chunks_mut(table_pages).zip(needed) {
            for id in &mut row[..needed] {
                *id = free.pop().unwrap_or_default() as i32;
            }
        }
        Self { page_tokens, cache_pages, table_pages, table }
    }

    /// Where in the cache, counted in tokens, a sequence's token is.
    pub fn token(&self, sequence: usize, place: usize) -> usize {
        let page = self.table[sequence * self.table_pages + place / self.page_tokens];
        page as usize * self.page_tokens + place % self.page_tokens
    }
}
