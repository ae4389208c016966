use super::{Launched, all, ones};
use narrowgauge::mla::{CacheLayout, LatentCache, SparseAttention};

const KEYS: usize = 256;
const LATENT: usize = 512;
const WIDTH: usize = 576;

/// One query token over a list of different tokens.
fn attend(heads: usize, layout: CacheLayout, splits: usize) -> Vec<Launched> {
    all(|device, stream| {
        let (q, out) = (ones(device, &[1, heads, WIDTH])?, ones(device, &[1, heads, LATENT])?);
        let cache = LatentCache::with_layout(device, KEYS, 1, layout)?;
        let list: Vec<i32> = (0..KEYS as i32).map(|i| i * 77 % KEYS as i32).collect();
        let indices = device.tensor(&[1, KEYS], &list)?;
        let lse = device.zeros(&[1, heads])?;
        let attention = SparseAttention::new(&q, &cache, &indices, &out).lse(&lse).splits(splits);
        let workspace = device.zeros::<u8>(&[attention.workspace_bytes()])?;
        let attention = if splits > 1 { attention.workspace(&workspace) } else { attention };
        attention.launch(stream)
    })
}

/// A token's bytes as they are asked for: sixteen codes have their scale, so each of the four is read eight times.
fn token(layout: CacheLayout) -> usize {
    layout.token_bytes() + if layout == CacheLayout::Fp8Blocks { 32 * 4 - 16 } else { 0 }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn each_listed_token_is_read_once_by_a_pair_of_blocks() {
    for layout in [CacheLayout::Bf16, CacheLayout::Fp8Blocks] {
        for (heads, blocks) in [(64, 1), (128, 2)] {
            let [attention] = &attend(heads, layout, 1)[..] else { panic!("one kernel") };
            assert!(attention.bounded);
            // Both blocks of a pair read the list, for the mask; each gathers half of its tokens.
            let loaded = KEYS * token(layout) + blocks * (KEYS * 4 + 64 * WIDTH * 2);
            let stored = heads * (LATENT * 2 + 4);
            assert_eq!(attention.bytes(), (loaded as u64, stored as u64), "{layout}, {heads} heads");
        }
    }
}

/// No access to shared memory takes longer than its bytes need.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn no_bank_conflicts() {
    for layout in [CacheLayout::Bf16, CacheLayout::Fp8Blocks] {
        for heads in [64, 128] {
            for launched in attend(heads, layout, 2) {
                for line in &launched.profile.lines {
                    assert_eq!(
                        line.bank_conflicts, 0,
                        "{}: line {}, {}",
                        launched.kernel, line.line, line.opcode
                    );
                }
            }
        }
    }
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn splits_share_the_list() {
    const SPLITS: usize = 2;
    const HEADS: usize = 64;
    let [split, combine] = &attend(HEADS, CacheLayout::Bf16, SPLITS)[..] else { panic!("two kernels") };
    assert!(split.bounded && combine.bounded);
    let partial = SPLITS * HEADS * 4 * LATENT;
    let loaded = KEYS * (token(CacheLayout::Bf16) + 4) + SPLITS * HEADS * WIDTH * 2;
    assert_eq!(split.bytes(), (loaded as u64, (partial + SPLITS * HEADS * 16) as u64));
    // All lanes read their row's statistics twice, two words less the second time.
    let loaded = combine.bytes().0 as usize - partial;
    assert!(loaded <= SPLITS * HEADS * 32 * 2 * 16, "{loaded}");
    assert_eq!(combine.bytes().1, (HEADS * (LATENT * 2 + 4)) as u64);
}
