//! What is measured and profiled: every operation with its shape, its operands and what it must do at least.
//!
//! `bench` runs DeepSeek-V3's shapes on a card and small relatives of them on the simulated one; `profile` runs one
//! operation in a shape of the caller's.

mod attention;
mod experts;
mod fp8_products;
mod half_products;
mod indexer;
mod latent_cache;
mod operand;
mod prefill;
pub mod products;
mod rows;
mod sparse;

use fp8_products::{Out, Scaling};
pub use operand::{Operand, Operands};

use narrowgauge::quant::Quantize;
use narrowgauge::verify::Source;
use narrowgauge::{Device, E4m3, Fp8Blocks, Fp8Rows, Result, ScaleLayout, Stream, Tensor, bf16};

/// Runs the operation once on operands that it owns.
pub type Launch = Box<dyn Fn(&Stream) -> Result<()>>;

/// A case on a device.
pub struct Prepared {
    pub launch: Launch,
    pub operands: Operands,
}

/// Makes the operands on a device.
pub type Prepare = Box<dyn Fn(&Device) -> Result<Prepared>>;

/// One operation in one shape.
pub struct Case {
    pub name: String,
    /// Tensor-core operations of one run; a multiply-accumulate is two.
    pub flops: f64,
    /// Which tensor ceiling applies.
    pub fp8: bool,
    pub prepare: Prepare,
}

/// An operation and the extents that shape it.
pub struct Operation {
    pub name: &'static str,
    pub what: &'static str,
    /// Names of the extents, and what they are where nobody says otherwise.
    pub extents: &'static [(&'static str, usize)],
    /// A case of these extents, in their order.
    pub case: fn(&[usize]) -> Case,
}

/// Every operation.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "fp8_gemm",
        what: "FP8 product with block scales",
        extents: &[("m", 64), ("n", 576), ("k", 1024), ("tile_m", 0), ("tile_n", 0)],
        case: |e| products::fp8_gemm(e[0], e[1], e[2], (e[3], e[4])),
    },
    Operation {
        name: "grouped_fp8_gemm",
        what: "the same for groups of m rows each",
        extents: &[("groups", 8), ("m", 32), ("n", 512), ("k", 1024)],
        case: |e| products::grouped_fp8_gemm(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "gathered_fp8_gemm",
        what: "the same for experts that take their tokens' rows by a list",
        extents: &[("tokens", 64), ("experts", 8), ("chosen", 4), ("n", 512), ("k", 1024)],
        case: |e| products::gathered_fp8_gemm(e[0], e[1], e[2], e[3], e[4]),
    },
    Operation {
        name: "fp8_gemm_ue8m0",
        what: "the same with UE8M0 scales",
        extents: &[("m", 64), ("n", 576), ("k", 1024)],
        case: |e| fp8_products::form("ue8m0", Scaling::PowersOfTwo, Out::Bf16, [e[0], e[1], e[2]]),
    },
    Operation {
        name: "fp8_gemm_rows",
        what: "FP8 product with a scale for each row of A and B",
        extents: &[("m", 64), ("n", 576), ("k", 1024)],
        case: |e| fp8_products::form("rows", Scaling::Rows, Out::Bf16, [e[0], e[1], e[2]]),
    },
    Operation {
        name: "fp8_gemm_tensor",
        what: "FP8 product with one scale for A and one for B",
        extents: &[("m", 64), ("n", 576), ("k", 1024)],
        case: |e| fp8_products::form("tensor", Scaling::Whole, Out::Bf16, [e[0], e[1], e[2]]),
    },
    Operation {
        name: "fp8_gemm_f16",
        what: "FP8 product, f16 out",
        extents: &[("m", 64), ("n", 576), ("k", 1024)],
        case: |e| fp8_products::form("f16", Scaling::Blocks, Out::F16, [e[0], e[1], e[2]]),
    },
    Operation {
        name: "fp8_gemm_f32",
        what: "FP8 product, f32 out",
        extents: &[("m", 64), ("n", 576), ("k", 1024)],
        case: |e| fp8_products::form("f32", Scaling::Blocks, Out::F32, [e[0], e[1], e[2]]),
    },
    Operation {
        name: "fp8_gemm_e4m3",
        what: "FP8 product, FP8 rows out",
        extents: &[("m", 64), ("n", 576), ("k", 1024)],
        case: |e| fp8_products::form("e4m3", Scaling::Blocks, Out::E4m3, [e[0], e[1], e[2]]),
    },
    Operation {
        name: "contiguous_fp8_gemm",
        what: "FP8 products for uneven groups of about m rows each",
        extents: &[("groups", 4), ("m", 64), ("n", 512), ("k", 512)],
        case: |e| fp8_products::contiguous(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "masked_fp8_gemm",
        what: "FP8 products for groups of which about m rows count",
        extents: &[("groups", 4), ("room", 256), ("m", 20), ("n", 512), ("k", 512)],
        case: |e| fp8_products::masked(e[0], e[1], e[2], e[3], e[4]),
    },
    Operation {
        name: "batched_fp8_gemm",
        what: "FP8 products with block scales",
        extents: &[("batch", 8), ("m", 16), ("n", 128), ("k", 512)],
        case: |e| fp8_products::batched(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "fp8_gradient_gemm",
        what: "weight gradient, added to f32",
        extents: &[("m", 256), ("n", 384), ("k", 512)],
        case: |e| fp8_products::gradient(e[0], e[1], e[2]),
    },
    Operation {
        name: "k_grouped_fp8_gemm",
        what: "weight gradients of groups of about k tokens",
        extents: &[("groups", 4), ("m", 256), ("n", 256), ("k", 256)],
        case: |e| fp8_products::k_grouped(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "fp8_gemm_swiglu",
        what: "gates and ups, SwiGLU, then FP8",
        extents: &[("m", 64), ("n", 256), ("k", 1024)],
        case: |e| products::fp8_gemm_swiglu(e[0], e[1], e[2]),
    },
    Operation {
        name: "grouped_fp8_gemm_swiglu",
        what: "gates and ups of groups of m rows each, SwiGLU, then FP8",
        extents: &[("groups", 8), ("m", 32), ("n", 256), ("k", 1024)],
        case: |e| products::grouped_fp8_gemm_swiglu(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "bf16_gemm",
        what: "bf16 product, f32 out",
        extents: &[("m", 64), ("n", 256), ("k", 1024)],
        case: |e| products::bf16_gemm(e[0], e[1], e[2]),
    },
    Operation {
        name: "batched_bf16_gemm",
        what: "bf16 products",
        extents: &[("batch", 16), ("m", 64), ("n", 512), ("k", 128)],
        case: |e| products::batched_bf16_gemm(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "f16_gemm",
        what: "f16 product",
        extents: &[("m", 64), ("n", 256), ("k", 1024)],
        case: |e| half_products::f16_gemm(e[0], e[1], e[2]),
    },
    Operation {
        name: "bf16_gemm_tt",
        what: "bf16 product of operands whose rows are adjacent",
        extents: &[("m", 136), ("n", 256), ("k", 512)],
        case: |e| half_products::bf16_gemm_tt(e[0], e[1], e[2]),
    },
    Operation {
        name: "grouped_bf16_gemm",
        what: "bf16 products for uneven groups of about m rows each",
        extents: &[("groups", 4), ("m", 64), ("n", 256), ("k", 256)],
        case: |e| half_products::grouped(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "masked_bf16_gemm",
        what: "bf16 products for groups of which about m rows count",
        extents: &[("groups", 4), ("room", 128), ("m", 20), ("n", 256), ("k", 256)],
        case: |e| half_products::masked(e[0], e[1], e[2], e[3], e[4]),
    },
    Operation {
        name: "transpose_fp8",
        what: "FP8 matrix transposed",
        extents: &[("m", 1024), ("n", 512)],
        case: |e| products::transpose_fp8(e[0], e[1]),
    },
    Operation {
        name: "quantize",
        what: "bf16 to FP8 with scales of 128 columns",
        extents: &[("m", 64), ("k", 1024)],
        case: |e| rows::quantize(e[0], e[1]),
    },
    Operation {
        name: "rms_norm",
        what: "RMSNorm",
        extents: &[("m", 64), ("k", 1024)],
        case: |e| rows::rms_norm(e[0], e[1]),
    },
    Operation {
        name: "rms_norm_quantize",
        what: "RMSNorm, then FP8",
        extents: &[("m", 64), ("k", 1024)],
        case: |e| rows::rms_norm_quantize(e[0], e[1]),
    },
    Operation {
        name: "add",
        what: "residual addition",
        extents: &[("m", 64), ("k", 1024)],
        case: |e| rows::add(e[0], e[1]),
    },
    Operation {
        name: "embedding",
        what: "m rows of a table of n",
        extents: &[("m", 64), ("n", 1024), ("k", 1024)],
        case: |e| rows::embedding(e[0], e[1], e[2]),
    },
    Operation {
        name: "argmax",
        what: "the largest of n logits",
        extents: &[("m", 16), ("n", 4096)],
        case: |e| rows::argmax(e[0], e[1]),
    },
    Operation {
        name: "swiglu_quantize",
        what: "SwiGLU of n columns, then FP8",
        extents: &[("m", 64), ("n", 256)],
        case: |e| rows::swiglu_quantize(e[0], e[1]),
    },
    Operation {
        name: "router",
        what: "sigmoid router, 8 groups of which 4",
        extents: &[("m", 64), ("experts", 256), ("chosen", 8)],
        case: |e| experts::router(e[0], e[1], e[2]),
    },
    Operation {
        name: "permute",
        what: "rows ordered by expert",
        extents: &[("m", 64), ("experts", 256), ("chosen", 8)],
        case: |e| experts::permute(e[0], e[1], e[2]),
    },
    Operation {
        name: "gather_rows",
        what: "FP8 rows in the order of the experts",
        extents: &[("m", 64), ("k", 1024), ("experts", 256), ("chosen", 8)],
        case: |e| experts::gather_rows(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "combine",
        what: "weighted sum of the experts' rows",
        extents: &[("m", 64), ("k", 1024), ("experts", 256), ("chosen", 8)],
        case: |e| experts::combine(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "attention",
        what: "latent attention, one query token a sequence",
        extents: &[("sequences", 2), ("heads", 16), ("length", 512)],
        case: |e| attention::attention(e[0], e[1], e[2]),
    },
    Operation {
        name: "indexer_logits",
        what: "lightning indexer, m tokens that see all keys",
        extents: &[("m", 16), ("heads", 64), ("length", 1024)],
        case: |e| indexer::logits(e[0], e[1], e[2]),
    },
    Operation {
        name: "indexer_decode",
        what: "lightning indexer over pages, m query tokens a sequence",
        extents: &[("sequences", 4), ("m", 1), ("heads", 64), ("length", 1024)],
        case: |e| indexer::decode(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "indexer_write",
        what: "m new keys of the lightning indexer into its cache",
        extents: &[("m", 64)],
        case: |e| indexer::write(e[0]),
    },
    Operation {
        name: "top_k",
        what: "the k largest of n scores",
        extents: &[("m", 4), ("n", 8192), ("k", 512)],
        case: |e| indexer::top_k(e[0], e[1], e[2]),
    },
    Operation {
        name: "prefill",
        what: "attention of m tokens, keys of k columns for each head, causal",
        extents: &[("m", 512), ("heads", 2), ("k", 192)],
        case: |e| prefill::prefill(e[0], e[1], e[2]),
    },
    Operation {
        name: "merge",
        what: "partial attentions joined by their logarithms",
        extents: &[("parts", 2), ("m", 64), ("heads", 16), ("n", 128)],
        case: |e| prefill::merge(e[0], e[1], e[2], e[3]),
    },
    Operation {
        name: "sparse_attention",
        what: "latent attention over tokens that lists name",
        extents: &[("tokens", 2), ("heads", 128), ("cached", 1024), ("top_k", 512), ("layout", 2)],
        case: |e| sparse::sparse_attention([e[0], e[1], e[2], e[3]], e[4]),
    },
    Operation {
        name: "rope",
        what: "rotary embedding of queries",
        extents: &[("m", 64), ("heads", 16)],
        case: |e| attention::rope(e[0], e[1]),
    },
    Operation {
        name: "cache_write",
        what: "latents and rotated keys into the cache",
        extents: &[("m", 64), ("layout", 0)],
        case: |e| latent_cache::cache_write(e[0], e[1]),
    },
    Operation {
        name: "cache_gather",
        what: "rows of sequences out of the cache, in bf16",
        extents: &[("sequences", 2), ("length", 512), ("layout", 2)],
        case: |e| latent_cache::cache_gather(e[0], e[1], e[2]),
    },
    Operation {
        name: "cache_page_copy",
        what: "pages of one cache to pages of another",
        extents: &[("pages", 8), ("layout", 2)],
        case: |e| latent_cache::cache_page_copy(e[0], e[1]),
    },
];

const BLOCK: usize = 128;

/// The cases of a card or of the simulated card.
pub fn all(simulated: bool) -> Vec<Case> {
    let tokens: &[usize] = if simulated { &[64] } else { &[16, 128, 4096] };
    let hidden = if simulated { 1024 } else { 7168 };
    // A card runs the published shapes of FP8 products.
    let shapes: &[(usize, usize)] = if simulated { &[(576, 1024), (2112, 512)] } else { &[] };
    let (groups, chosen, width) = if simulated { (8, 4, 256) } else { (32, 8, 2048) };
    let heads = if simulated { 16 } else { 128 };
    let vocabulary = if simulated { 1024 } else { 129_280 };
    let mut cases = Vec::new();
    for &m in tokens {
        cases.push(rows::quantize(m, hidden));
        cases.push(rows::rms_norm(m, hidden));
        cases.push(rows::rms_norm_quantize(m, hidden));
        cases.push(rows::add(m, hidden));
        cases.push(rows::embedding(m, vocabulary, hidden));
        cases.push(rows::argmax(m.min(128), vocabulary));
        cases.push(rows::swiglu_quantize(m, width));
        cases.push(experts::router(m, 256, 8));
        cases.push(experts::permute(m, 256, 8));
        cases.push(experts::gather_rows(m, hidden, 256, 8));
        cases.push(experts::combine(m, hidden, 256, 8));
        cases.extend(shapes.iter().map(|&(n, k)| products::fp8_gemm(m, n, k, (0, 0))));
        // Every rank holds `groups` of 256 experts, so this share of the chosen rows arrives.
        cases.push(products::grouped_fp8_gemm(groups, (m * chosen).div_ceil(groups), 2 * width, hidden));
        cases.push(products::grouped_fp8_gemm_swiglu(groups, (m * chosen).div_ceil(groups), width, hidden));
        cases.push(products::gathered_fp8_gemm(m, groups, chosen, 2 * width, hidden));
        cases.push(products::bf16_gemm(m, 256, hidden));
        cases.push(products::batched_bf16_gemm(heads, m, attention::LATENT, BLOCK));
        cases.push(attention::rope(m, heads));
        cases.extend([0, 2, 3].map(|layout| latent_cache::cache_write(m, layout)));
    }
    cases.extend(fp8_products::all(simulated));
    cases.extend(half_products::all(simulated));
    cases.push(products::transpose_fp8(hidden, 2 * width));
    let (sequences, lengths): (usize, &[usize]) = if simulated { (2, &[512]) } else { (64, &[1024, 8192]) };
    cases.extend(lengths.iter().map(|&length| attention::attention(sequences, heads, length)));
    cases.extend(sparse::all(simulated));
    cases.extend([0, 2, 3].map(|layout| latent_cache::cache_gather(sequences, lengths[0], layout)));
    cases.push(latent_cache::cache_page_copy(8 * sequences, 2));
    // DeepSeek-V3.2's: 64 heads, the 2048 best.
    let (queries, length) = if simulated { (8, 1024) } else { (4096, 65_536) };
    cases.push(indexer::logits(queries, 64, length));
    cases.push(indexer::write(queries));
    cases.extend([1, 2].map(|tokens| indexer::decode(sequences, tokens, 64, length)));
    cases.extend(
        [sequences, queries.min(1024)].map(|rows| indexer::top_k(rows, 2 * length, length.min(2048))),
    );
    let (prompts, prompt_heads): (&[usize], usize) =
        if simulated { (&[256], 2) } else { (&[2048, 8192], 128) };
    for (&prompt, width) in prompts.iter().flat_map(|prompt| [(prompt, 192), (prompt, 128)]) {
        cases.push(prefill::prefill(prompt, prompt_heads, width));
    }
    cases.push(prefill::merge(2, if simulated { 64 } else { 8192 }, heads, 128));
    cases
}

fn product(extents: &[usize]) -> f64 {
    extents.iter().map(|&extent| extent as f64).product()
}

/// At most so many values are drawn; what is longer repeats them.
const DRAWN: usize = (1 << 22) + 3;

fn drawn<T: Copy>(shape: &[usize], draw: impl FnOnce(usize) -> Vec<T>) -> Vec<T> {
    let count: usize = shape.iter().product();
    let mut all = draw(count.min(DRAWN));
    let first = all.len();
    all.reserve_exact(count - first);
    while all.len() < count {
        all.extend_from_within(..first.min(count - all.len()));
    }
    all
}

fn bf16s(device: &Device, shape: &[usize], seed: u64) -> Result<Tensor<bf16>> {
    device.tensor(shape, &drawn(shape, |count| Source::to_bf16(&Source::new(seed).normals(count, 1.0))))
}

fn fp8s(device: &Device, shape: &[usize], seed: u64) -> Result<Tensor<E4m3>> {
    device.tensor(shape, &drawn(shape, |count| Source::to_e4m3(&Source::new(seed).normals(count, 1.0))))
}

fn fp8_rows(device: &Device, m: usize, k: usize) -> Result<Fp8Rows> {
    let out = Fp8Rows::empty(device, m, k, ScaleLayout::MnMajor)?;
    let x = bf16s(device, &[m, k], 12)?;
    Quantize::new(&x, &out).launch(&device.stream())?;
    Ok(out)
}

fn fp8_blocks(device: &Device, shape: &[usize]) -> Result<Fp8Blocks> {
    let mut blocks = shape.to_vec();
    for extent in blocks.iter_mut().rev().take(2) {
        *extent = extent.div_ceil(BLOCK);
    }
    let scales = vec![0.01; blocks.iter().product()];
    Fp8Blocks::new(fp8s(device, shape, 13)?, device.tensor(&blocks, &scales)?)
}

/// Numbers as the kernels take them; extents are far below 2³¹.
fn i32s(values: impl IntoIterator<Item = usize>) -> Vec<i32> {
    values.into_iter().map(|value| i32::try_from(value).expect("an extent")).collect()
}
