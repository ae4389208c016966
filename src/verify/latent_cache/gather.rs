//! Rows out of the cache against their oracle.

use super::super::surrounded::{Place, Surrounded, bits, text};
use super::super::{Case, Evidence, Source, exact};
use super::{COLUMNS, LAYOUTS, draw_values};
use crate::device::Device;
use crate::device::abi::{NG_STATUS_BAD_LENGTH, NG_STATUS_BAD_PAGE};
use crate::dtype::{bf16, f16};
use crate::mla::{CacheGather, CacheLayout, Half, LatentCache, reference};
use crate::verify::gemm::Checked;

/// One gathering of rows.
#[derive(Debug, Clone)]
pub struct GatherProblem {
    /// Rows of each sequence.
    pub rows: Vec<usize>,
    /// Whether sequences begin at other tokens than their first.
    pub starts: bool,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// How the cache lies.
    pub layout: CacheLayout,
    /// Whether the output is f16 instead of bf16.
    pub f16: bool,
    /// Whether some pages do not exist and some rows are beyond the table.
    pub bad: bool,
    /// How the output lies.
    pub place: Place,
    /// The inputs' seed.
    pub seed: u64,
}

/// Gathers rows of scattered pages. All that no row needs is poison: NaN in the cache, page ids far outside it.
pub fn check_cache_gather(device: &Device, problem: &GatherProblem) -> Result<Evidence, String> {
    if problem.f16 { check::<f16>(device, problem) } else { check::<bf16>(device, problem) }
}

fn check<T: Checked + Half>(device: &Device, problem: &GatherProblem) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let GatherProblem { ref rows, page_tokens, layout, bad, place, seed, .. } = *problem;
    let source = &mut Source::new(seed);
    let sequences = rows.len();
    let starts: Vec<usize> =
        rows.iter().map(|_| if problem.starts { source.below(2 * page_tokens + 3) } else { 0 }).collect();
    let pages_of = |b: usize| (starts[b] + rows[b]).div_ceil(page_tokens);
    let needed: usize = (0..sequences).map(pages_of).sum();
    let widest = (0..sequences).map(pages_of).max().unwrap_or(0);
    // The last page of the longest sequence is then beyond the table.
    let table_pages = (widest + 1).saturating_sub(if bad { 2 } else { 0 }).max(1);
    let pages = needed + 2;
    let mut free = source.permutation(pages);
    let mut table = vec![2_147_480_000; sequences * table_pages];
    let mut memory = vec![0xFFu8; pages * page_tokens * layout.token_bytes()];
    let mut offsets = vec![0i32];
    // Two rows of no sequence at the end.
    let total = rows.iter().sum::<usize>() + 2;
    let mut want = vec![T::POISON; total * COLUMNS];
    let mut status = 0;
    for b in 0..sequences {
        let first = offsets[b] as usize;
        for page in starts[b] / page_tokens..pages_of(b) {
            let id = free.pop().unwrap_or_default();
            let mapped = !(bad && source.below(3) == 0);
            if page < table_pages {
                table[b * table_pages + page] = if mapped { id as i32 } else { [-1, pages as i32][page % 2] };
            }
            for at in (page * page_tokens).max(starts[b])..((page + 1) * page_tokens).min(starts[b] + rows[b])
            {
                let slot = (id * page_tokens + at % page_tokens) * layout.token_bytes();
                let bytes = reference::cache::encoded(layout, &draw_values(COLUMNS, source));
                memory[slot..][..bytes.len()].copy_from_slice(&bytes);
                let row = &mut want[(first + at - starts[b]) * COLUMNS..][..COLUMNS];
                if page >= table_pages {
                    status |= NG_STATUS_BAD_LENGTH;
                    row.fill(T::default());
                } else if !mapped {
                    status |= NG_STATUS_BAD_PAGE;
                    row.fill(T::default());
                } else {
                    let values = reference::cache::decoded(layout, &bytes);
                    row.iter_mut()
                        .zip(values)
                        .for_each(|(to, value)| *to = T::nearest((value as f32).into()));
                }
            }
        }
        offsets.push((first + rows[b]) as i32);
    }
    let cache = LatentCache::with_layout(device, pages, page_tokens, layout).map_err(text)?;
    cache.memory().write(&memory).map_err(text)?;
    let input = |shape: &[usize], values: &[i32]| Surrounded::input(device, shape, Place::default(), values);
    let table = input(&[sequences, table_pages], &table).map_err(text)?;
    let ends = input(&[sequences + 1], &offsets).map_err(text)?;
    let firsts: Vec<i32> = starts.iter().map(|start| *start as i32).collect();
    let firsts = input(&[sequences], &firsts).map_err(text)?;
    let out = Surrounded::<T>::output(device, &[total, COLUMNS], place).map_err(text)?;
    let stream = device.stream();
    let mut gather = CacheGather::new(&cache, table.view(), ends.view(), out.view());
    if problem.starts {
        gather = gather.starts(firsts.view());
    }
    gather.launch(&stream).map_err(text)?;
    let got = out.finish("rows", &mut evidence)?;
    evidence.exact("rows", &canonical(&got), &canonical(&want))?;
    exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    Ok(evidence)
}

/// Bits in which every NaN is the same, but poison is itself.
fn canonical<T: Checked>(values: &[T]) -> Vec<u32> {
    let nan = |value: &T| value.widen().is_nan() && value.bits() != T::POISON.bits();
    values.iter().zip(bits(values)).map(|(value, bits)| if nan(value) { 0xFFFF } else { bits }).collect()
}

fn drawn(device: &Device, seed: u64) -> Result<Evidence, String> {
    let source = &mut Source::new(seed ^ 0x6A74);
    let problem = GatherProblem {
        rows: (0..1 + source.below(6)).map(|_| source.below(70)).collect(),
        starts: source.below(2) == 0,
        page_tokens: [1, 16, 32, 64, 128, 5][source.below(6)],
        layout: LAYOUTS[source.below(4)],
        f16: source.below(2) == 0,
        bad: source.below(3) == 0,
        place: Place::draw(source),
        seed,
    };
    check_cache_gather(device, &problem)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    fn of(layout: CacheLayout, f16: bool, seed: u64) -> GatherProblem {
        let (rows, place) = (vec![70, 0, 1, 64], Place::default());
        GatherProblem { rows, starts: true, page_tokens: 64, layout, f16, bad: false, place, seed }
    }
    macro_rules! case {
        ($name:literal, |$seed:ident| $problem:expr) => {
            Case { family: "cache", name: $name, run: |device, $seed| check_cache_gather(device, &$problem) }
        };
    }
    vec![
        case!("rows of bf16", |seed| of(CacheLayout::Bf16, false, seed)),
        case!("rows of f16 from FP8 blocks", |seed| of(CacheLayout::Fp8Blocks, true, seed)),
        case!("rows of flat FP8 in unaligned rows", |seed| {
            GatherProblem { place: Place { offset: 3, padding: 5 }, ..of(LAYOUTS[3], false, seed) }
        }),
        case!("rows in pages that do not exist", |seed| {
            GatherProblem { bad: true, page_tokens: 16, ..of(CacheLayout::Fp8Blocks, false, seed) }
        }),
        Case { family: "cache", name: "drawn gatherings", run: drawn },
    ]
}
