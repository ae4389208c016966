use super::{Launched, all, one, ones};
use narrowgauge::mla::{
    Attention, CacheGather, CacheLayout, CachePageCopy, CacheWrite, LatentCache, Merge, Prefill, Rope,
    RopeParameters, RopeTables,
};
use narrowgauge::{Device, Result};

const LATENT: usize = 512;
const ROPE: usize = 64;
/// bf16 columns of a cached token, in bytes.
const TOKEN: usize = 2 * (LATENT + ROPE);

fn tables(device: &Device) -> Result<RopeTables> {
    RopeTables::new(device, &RopeParameters { dim: ROPE, base: 10_000.0, max_positions: 128, yarn: None })
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_rotated_row_is_read_and_written_once() {
    const ROWS: usize = 2 * 5;
    let rotate = |position: i32| {
        one(|device, stream| {
            let (x, out) = (ones(device, &[2, 5, ROPE])?, ones(device, &[2, 5, ROPE])?);
            Rope::new(&x, &device.full(&[2], position)?, &tables(device)?, &out).launch(stream)
        })
    };
    // Eight lanes a row look its position up. A cosine and a sine belong to two columns.
    let (positions, row) = (4 * 8, 2 * ROPE);
    assert_eq!(rotate(3).bytes(), ((ROWS * (positions + row + 4 * ROPE)) as u64, (ROWS * row) as u64));
    // Beyond the tables: reports and zeros.
    assert_eq!(rotate(128).bytes(), ((ROWS * (positions + 4 * 8)) as u64, (ROWS * row) as u64));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_cached_row_is_read_and_written_once() {
    const TOKENS: usize = 3;
    const THREADS: usize = 96;
    let write = |slot: i32| {
        one(|device, stream| {
            let (latent, key) = (ones(device, &[TOKENS, LATENT])?, ones(device, &[TOKENS, ROPE])?);
            let slots = device.tensor(&[TOKENS], &[slot, slot + 1, slot + 2])?;
            let cache = LatentCache::new(device, 2)?;
            CacheWrite::new(&latent, &key, &device.zeros(&[TOKENS])?, &slots, &tables(device)?, &cache)
                .launch(stream)
        })
    };
    let both = 2 * 4 * THREADS;
    assert_eq!(write(0).bytes(), ((TOKENS * (both + TOKEN + 4 * ROPE)) as u64, (TOKENS * TOKEN) as u64));
    assert_eq!(write(128).bytes(), ((TOKENS * (both + 4)) as u64, 0));
}

/// Each token of FP8 is stored once, in whole sectors.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn narrow_layouts_store_their_bytes() {
    for (layout, bytes) in [(CacheLayout::Fp8Blocks, 656), (CacheLayout::Fp8Flat { scale: 1.0 }, 576)] {
        let launched = one(|device, stream| {
            let (latent, key) = (ones(device, &[2, LATENT])?, ones(device, &[2, ROPE])?);
            let slots = device.tensor(&[2], &[70, 3])?;
            let cache = LatentCache::with_layout(device, 2, 64, layout)?;
            CacheWrite::new(&latent, &key, &slots, &slots, &tables(device)?, &cache).launch(stream)
        });
        assert_eq!(launched.bytes().1, 2 * bytes, "{layout}");
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_gathered_row_is_read_and_written_once() {
    const ROWS: usize = 9;
    for layout in
        [CacheLayout::Bf16, CacheLayout::F16, CacheLayout::Fp8Blocks, CacheLayout::Fp8Flat { scale: 1.0 }]
    {
        let launched = one(|device, stream| {
            let cache = LatentCache::with_layout(device, 3, 4, layout)?;
            let (table, offsets) =
                (device.tensor(&[1, 3], &[2, 0, 1])?, device.tensor(&[2], &[0, ROWS as i32])?);
            CacheGather::new(&cache, &table, &offsets, &ones(device, &[ROWS, LATENT + ROPE])?).launch(stream)
        });
        assert!(launched.bounded);
        // All lanes look up where their row begins and ends and its page; two lanes check the offsets. Eight codes have
        // their scale: it is read sixteen times.
        let scales = if layout == CacheLayout::Fp8Blocks { 64 * 4 - 16 } else { 0 };
        let row = 32 * 3 * 4 + layout.token_bytes() + scales;
        let checked = 2 * 4 + 4;
        assert_eq!(launched.bytes(), ((ROWS * row + checked) as u64, (ROWS * TOKEN) as u64), "{layout}");
    }
}

/// Pages of 41 KiB are three blocks of 16 KiB each.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_copied_page_is_read_and_written_once() {
    const PAGES: usize = 2;
    let launched = one(|device, stream| {
        let cache = LatentCache::with_layout(device, 4, 64, CacheLayout::Fp8Blocks)?;
        CachePageCopy::new(&cache, &cache, &device.tensor(&[PAGES, 2], &[0, 3, 2, 1])?).launch(stream)
    });
    assert!(launched.bounded);
    let page = 64 * 656;
    assert_eq!(launched.bytes(), ((PAGES * (page + 3 * 256 * 8)) as u64, (PAGES * page) as u64));
}

/// Two tokens of 64 heads, a tile each: the first sees two whole pages, the second one key more.
fn attend(splits: usize) -> Vec<Launched> {
    all(|device, stream| {
        let (q, out) = (ones(device, &[1, 2, 64, LATENT + ROPE])?, ones(device, &[1, 2, 64, LATENT])?);
        let cache = LatentCache::new(device, 4)?;
        let (table, lengths) = (device.tensor(&[1, 4], &[2, 0, 3, 1])?, device.tensor(&[1], &[129])?);
        let lse = device.zeros(&[1, 64, 2])?;
        let attention = Attention::new(&q, &cache, &table, &lengths, &out).lse(&lse).splits(splits);
        let workspace = device.zeros::<u8>(&[attention.workspace_bytes()])?;
        let attention = if splits > 1 { attention.workspace(&workspace) } else { attention };
        attention.launch(stream)
    })
}

/// Rows of queries.
const ROWS: usize = 2 * 64;
/// A block of 64 tokens, and a block's tile of queries.
const TILE: usize = 64 * TOKEN;
/// Consumers and two warps that copy read the length.
const LENGTH: usize = 4 * (256 + 64);

/// A cluster of two shares the tokens: both look pages up, each copies half of them.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_visible_page_is_read_once() {
    let [attention] = &attend(1)[..] else { panic!("one kernel") };
    assert!(attention.bounded);
    let loaded = 2 * (LENGTH + TILE) + 3 * (TILE + 2 * 4);
    let stored = ROWS * (2 * LATENT + 4);
    assert_eq!(attention.bytes(), (loaded as u64, stored as u64));
}

/// Four splits of at most one block of tokens: three have work.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn splits_share_the_pages() {
    const SPLITS: usize = 4;
    const USED: usize = 3;
    const PARTIAL: usize = 4 * LATENT;
    let [split, combine] = &attend(SPLITS)[..] else { panic!("two kernels") };
    assert!(split.bounded && combine.bounded);
    let loaded = SPLITS * 2 * LENGTH + USED * (2 * TILE + TILE + 2 * 4);
    let stored = USED * ROWS * (PARTIAL + 8);
    assert_eq!(
        (split.kernel.as_str(), split.bytes()),
        ("mla_attention_bf16_c2", (loaded as u64, stored as u64))
    );
    // All lanes read the length and their row's maxima, and then those with the sums; the first token sees nothing of the
    // third piece.
    let loaded = ROWS * 32 * (4 + USED * (4 + 8)) + 5 * 64 * PARTIAL;
    assert_eq!(
        (combine.kernel.as_str(), combine.bytes()),
        ("mla_combine_bf16", (loaded as u64, (ROWS * (2 * LATENT + 4)) as u64))
    );
}

/// One sequence of 20 blocks over 78 workers: a schedule, as many pieces as pay, and what joins them.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_schedule_reads_each_page_once() {
    const BLOCKS: usize = 20;
    let launched = all(|device, stream| {
        let (q, out) = (ones(device, &[1, 1, 16, LATENT + ROPE])?, ones(device, &[1, 1, 16, LATENT])?);
        let cache = LatentCache::new(device, BLOCKS)?;
        let pages: Vec<i32> = (0..BLOCKS as i32).collect();
        let table = device.tensor(&[1, BLOCKS], &pages)?;
        let lengths = device.tensor(&[1], &[(64 * BLOCKS) as i32])?;
        let attention = Attention::new(&q, &cache, &table, &lengths, &out);
        let workspace = device.zeros::<u8>(&[attention.workspace_bytes()])?;
        attention.workspace(&workspace).launch(stream)
    });
    let [attention, combine, schedule] = &launched[..] else { panic!("three kernels") };
    assert_eq!(
        [&schedule.kernel, &attention.kernel, &combine.kernel],
        ["mla_schedule_i32", "mla_attention_few_bf16_16", "mla_combine_bf16"]
    );
    let tokens =
        attention.profile.lines.iter().filter(|line| line.opcode.starts_with("cp.async.bulk.tensor.4d"));
    assert_eq!(tokens.map(|line| line.global_bytes).sum::<u64>(), (BLOCKS * TILE) as u64);
    let macs = 16 * 64 * BLOCKS * (LATENT + ROPE + LATENT);
    assert_eq!((attention.counters.tensor_macs, attention.counters.bank_conflicts), (macs as u64, 0));
}

/// Of each part its values once; every piece of 16 bytes looks at its row's logarithms twice, for their maximum and for the
/// weights. A part without keys is not read.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_part_of_a_merge_is_read_once() {
    let [parts, tokens, heads, columns] = [3, 5, 2, 128];
    let rows = tokens * heads;
    let merge = |logarithm: f32| {
        one(|device, stream| {
            let lse = device.full(&[parts, heads, tokens], 1f32)?;
            lse.select(0, 1)?.write(&vec![logarithm; rows])?;
            let (partial, out) =
                (ones(device, &[parts, tokens, heads, columns])?, ones(device, &[tokens, heads, columns])?);
            Merge::new(&partial, &lse, &out).lse(&device.zeros(&[heads, tokens])?).launch(stream)
        })
    };
    let logarithms = rows * (columns / 8) * parts * 2 * 4;
    let stored = (rows * (2 * columns + 4)) as u64;
    for (logarithm, counted) in [(1.0, parts), (f32::NEG_INFINITY, parts - 1)] {
        let loaded = (logarithms + counted * rows * 2 * columns) as u64;
        assert_eq!(merge(logarithm).bytes(), (loaded, stored));
    }
}

/// 300 queries at the end of 400 keys are three tiles of rows that see two, three and four tiles of keys: whole tiles are
/// multiplied, existing rows of them loaded. Shared memory is read and written without avoidable wavefronts.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_prefill_multiplies_the_tiles_that_are_visible() {
    let [queries, keys, heads, value] = [300, 400, 2, 128];
    for width in [192, 128] {
        let prefill = one(|device, stream| {
            let (q, k) = (ones(device, &[queries, heads, width])?, ones(device, &[keys, heads, width])?);
            let (v, out) = (ones(device, &[keys, heads, value])?, ones(device, &[queries, heads, value])?);
            let lse = device.zeros(&[heads, queries])?;
            Prefill::new(&q, &k, &v, &out).lse(&lse).launch(stream)
        });
        assert!(prefill.bounded);
        let tiles = 2 + 3 + 4;
        assert_eq!(prefill.counters.tensor_macs, (128 * 128 * (width + value) * tiles * heads) as u64);
        assert_eq!(prefill.counters.bank_conflicts, 0);
        let visible = 2 * 128 + 3 * 128 + keys;
        let loaded = 2 * heads * (queries * width + visible * (width + value));
        assert_eq!(prefill.bytes(), (loaded as u64, (queries * heads * (2 * value + 4)) as u64));
        prefill.fills_its_shared_memory();
    }
}
