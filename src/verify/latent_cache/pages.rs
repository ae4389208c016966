//! Pages copied and exchanged.

use super::super::surrounded::{Place, Surrounded, text};
use super::super::{Case, Evidence, Source, exact};
use super::LAYOUTS;
use crate::device::Device;
use crate::device::abi::NG_STATUS_BAD_PAGE;
use crate::mla::{CacheLayout, CachePageCopy, CachePageSwap, LatentCache};

/// One list of pairs.
#[derive(Debug, Clone, Copy)]
pub struct PagesProblem {
    /// Pairs.
    pub pairs: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// How the caches lie.
    pub layout: CacheLayout,
    /// Whether pages are exchanged instead of copied.
    pub swap: bool,
    /// Whether both caches are the same.
    pub within: bool,
    /// Whether some pages do not exist.
    pub bad: bool,
    /// The inputs' seed.
    pub seed: u64,
}

/// Copies or exchanges pages of random bytes, and compares every byte of both caches.
pub fn check_cache_pages(device: &Device, problem: &PagesProblem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let PagesProblem { pairs, page_tokens, layout, swap, within, bad, seed } = *problem;
    let source = &mut Source::new(seed);
    let pages = 2 * pairs + 2;
    let page_bytes = page_tokens * layout.token_bytes();
    let mut bytes = || -> Vec<u8> { (0..pages * page_bytes).map(|_| source.below(256) as u8).collect() };
    let (mut first, mut second) = (bytes(), bytes());
    // No page is in two pairs, also where both caches are one.
    let order = source.permutation(pages);
    let list: Vec<[i32; 2]> = (0..pairs)
        .map(|pair| {
            let [a, b] = [order[2 * pair] as i32, order[2 * pair + 1] as i32];
            match pair % 4 {
                1 if bad => [[-1, b], [a, -1], [a, pages as i32], [i32::MIN, b]][pair / 4 % 4],
                2 if bad => [[i32::MAX, b], [a, -2]][pair / 4 % 2],
                _ => [a, b],
            }
        })
        .collect();
    let make = |bytes: &[u8]| {
        let cache = LatentCache::with_layout(device, pages, page_tokens, layout)?;
        cache.memory().write(bytes).map(|()| cache)
    };
    let one = make(&first).map_err(text)?;
    let other = if within { one.clone() } else { make(&second).map_err(text)? };
    let flat: Vec<i32> = list.iter().flatten().copied().collect();
    let listed = Surrounded::input(device, &[pairs, 2], Place::default(), &flat).map_err(text)?;
    let stream = device.stream();
    match swap {
        true => CachePageSwap::new(&one, &other, listed.view()).launch(&stream),
        false => CachePageCopy::new(&one, &other, listed.view()).launch(&stream),
    }
    .map_err(text)?;

    let mut status = 0;
    for [a, b] in list {
        if a == -1 || b == -1 {
            continue;
        }
        let exists = |page: i32| (0..pages as i32).contains(&page);
        if !exists(a) || !exists(b) {
            status |= NG_STATUS_BAD_PAGE;
            continue;
        }
        let at = |page: i32| page as usize * page_bytes..(page as usize + 1) * page_bytes;
        let from = first[at(a)].to_vec();
        let target = if within { &mut first } else { &mut second };
        let before = target[at(b)].to_vec();
        target[at(b)].copy_from_slice(&from);
        if swap {
            first[at(a)].copy_from_slice(&before);
        }
    }
    let got = one.memory().to_vec().map_err(text)?;
    evidence.digest(got.iter().map(|byte| u32::from(*byte)));
    evidence.exact("the first cache", &got, &first)?;
    if !within {
        evidence.exact("the second cache", &other.memory().to_vec().map_err(text)?, &second)?;
    }
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}

fn drawn(device: &Device, seed: u64) -> Result<Evidence, String> {
    let source = &mut Source::new(seed ^ 0x9A6E);
    let problem = PagesProblem {
        pairs: 1 + source.below(6),
        page_tokens: [1, 16, 32, 64, 128, 5][source.below(6)],
        layout: LAYOUTS[source.below(4)],
        swap: source.below(2) == 0,
        within: source.below(2) == 0,
        bad: source.below(2) == 0,
        seed,
    };
    check_cache_pages(device, &problem)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    const PAGES: PagesProblem = PagesProblem {
        pairs: 3,
        page_tokens: 64,
        layout: CacheLayout::Fp8Blocks,
        swap: false,
        within: true,
        bad: false,
        seed: 1,
    };
    macro_rules! case {
        ($name:literal, $problem:expr) => {
            Case {
                family: "cache",
                name: $name,
                run: |device, seed| check_cache_pages(device, &PagesProblem { seed, ..$problem }),
            }
        };
    }
    vec![
        case!("pages copied", PAGES),
        case!("pages exchanged", PagesProblem { swap: true, ..PAGES }),
        case!("pages exchanged between caches", PagesProblem { swap: true, within: false, ..PAGES }),
        case!("pages that do not exist", {
            PagesProblem { pairs: 17, page_tokens: 1, layout: LAYOUTS[3], bad: true, ..PAGES }
        }),
        Case { family: "cache", name: "drawn pages", run: drawn },
    ]
}
