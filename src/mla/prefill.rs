//! Attention with keys and values of each head.

use super::Half;
use crate::device::abi::{NG_PREFILL_ROWS, NgPrefillParams, NgTensorMap};
use crate::device::{KernelLaunch, Stream, Swizzle, TensorMapSpec};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES, rows_aligned};

const CHECK: Checks = Checks::of("Prefill");
/// Columns of a value.
const VALUE: usize = 128;
/// Columns of a key without rotation, and the rotated ones beside them.
const NOPE: usize = 128;
const ROPE: usize = 64;
/// Queries of a block.
const ROWS: usize = NG_PREFILL_ROWS as usize;
/// Keys of a tile.
const KEYS: u32 = 128;
const THREADS: u32 = 384;

/// Dense attention in which every head has keys and values of its own, as prompts are computed: 192 or 128 columns of query
/// and key, 128 of the value, for any number of sequences of any lengths.
///
/// For query `i` of a sequence of `S` queries and `L` keys, and head `h` with the key head `g = h · G / H`:
///
/// ```text
/// score[t]   = q[i, h] · k[t, g]                                 accumulated in f32
/// out[i, h]  = Σ_t softmax(scale · score)[t] · v[t, g]
/// lse[h, i]  = ln Σ_t exp(scale · score[t])
/// ```
///
/// over the keys `t < L - (S - 1 - i)` where it is causal (aligned at the end), over all of them where not. Formula:
/// DeepSeek-V2, arXiv 2405.04434, section 2.1, before absorption; computed as in FlashAttention-3, arXiv 2407.08608.
///
/// - `q`: bf16 or f16 `[Q, H, 192]` or `[Q, H, 128]`, the queries of all sequences one behind the other
/// - `k`: `[K, G, 192]` or `[K, G, 128]`, `H` a multiple of `G`; of 192 columns the last 64 may be a tensor of their own
///   ([`key_rope`](Self::key_rope))
/// - `v`: `[K, G, 128]`
/// - `out`: `[Q, H, 128]`
///
/// All have adjacent columns and otherwise strides of multiples of 16 bytes, so that parts of wider rows are operands as
/// they lie. A query that sees no key answers 0 and −inf. Scores above the largest f32 count as the largest, those below the
/// least have no weight. NaN or infinity in a key or value reaches queries of its sequence and head only, and beyond the sequences' ends
/// memory is never part of an answer.
///
/// The same input gives the same bits. Those of a query do not depend on other sequences or on heads, and where values are
/// finite not on the number of queries beside it.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Prefill<'a, T: Half> {
    q: &'a Tensor<T>,
    k: &'a Tensor<T>,
    v: &'a Tensor<T>,
    out: &'a Tensor<T>,
    key_rope: Option<&'a Tensor<T>>,
    offsets: Option<[&'a Tensor<i32>; 2]>,
    scale: Option<f32>,
    causal: bool,
    lse: Option<&'a Tensor<f32>>,
    sinks: Option<&'a Tensor<f32>>,
}

impl<'a, T: Half> Prefill<'a, T> {
    /// Causal attention of one sequence: all of `q` over all of `k` and `v` into `out`.
    pub fn new(q: &'a Tensor<T>, k: &'a Tensor<T>, v: &'a Tensor<T>, out: &'a Tensor<T>) -> Self {
        Self {
            q,
            k,
            v,
            out,
            key_rope: None,
            offsets: None,
            scale: None,
            causal: true,
            lse: None,
            sinks: None,
        }
    }

    /// The last 64 of the keys' 192 columns, `[K, G, 64]` or one head for all of them, `[K, 1, 64]`; `k` is then
    /// `[K, G, 128]`. DeepSeek's rotated key is the same for all heads: this way nobody has to copy it.
    pub fn key_rope(mut self, key_rope: &'a Tensor<T>) -> Self {
        self.key_rope = Some(key_rope);
        self
    }

    /// Several sequences: the queries of sequence `b` are rows `queries[b]..queries[b + 1]` of `q`, its keys rows
    /// `keys[b]..keys[b + 1]` of `k` and `v`; both i32 `[B + 1]`. Queries outside are left as they are.
    ///
    /// On the device, offsets that decrease or lie outside the tensors are pulled into range and reported by
    /// [`Stream::status`].
    pub fn sequences(mut self, queries: &'a Tensor<i32>, keys: &'a Tensor<i32>) -> Self {
        self.offsets = Some([queries, keys]);
        self
    }

    /// What scores are multiplied by before the softmax, finite and positive; the width of the query to the power −½
    /// where nothing is said. YaRN's `mscale²` belongs to it.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Whether queries see only keys up to their own place, aligned at the end of the sequence. True where nothing is said.
    pub fn causal(mut self, causal: bool) -> Self {
        self.causal = causal;
        self
    }

    /// Also writes the natural logarithm of each row's sum of exponentials, f32 `[H, Q]`: what [`Merge`](super::Merge)
    /// joins chunks of keys by.
    pub fn lse(mut self, lse: &'a Tensor<f32>) -> Self {
        self.lse = Some(lse);
        self
    }

    /// A logit for each head, f32 `[H]`, that takes its share of the softmax and adds nothing: `out` is multiplied by
    /// `1 / (1 + exp(sink - lse))`. The logarithms stay without it.
    pub fn sinks(mut self, sinks: &'a Tensor<f32>) -> Self {
        self.sinks = Some(sinks);
        self
    }

    /// Enqueues the operation. No queries, heads or sequences is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, views that the tensor memory accelerator
    /// cannot walk, outputs that overlap anything else, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let width = self.check(stream)?;
        let Self { q, k, v, out, lse, sinks, .. } = *self;
        let [queries, heads, keys, key_heads] = [q.dim(0), q.dim(1), k.dim(0), k.dim(1)];
        let sequences = self.offsets.map_or(1, |[queries, _]| queries.len().saturating_sub(1));
        CHECK.extent("queries", queries.saturating_add(ROWS))?;
        CHECK.extent("keys", keys.saturating_add(ROWS))?;
        CHECK.extent("sequences", sequences)?;
        // Every sequence but one may begin a tile that the queries alone would not need.
        let tiles = queries.div_ceil(ROWS) + sequences.saturating_sub(1);
        let blocks = CHECK.extent("tiles * heads", tiles.saturating_mul(heads))?;
        if queries == 0 || heads == 0 || sequences == 0 {
            return Ok(());
        }

        let group = heads / key_heads.max(1);
        let key_bytes = (width + VALUE) * size_of::<T>() * keys;
        let cache = stream.device().card().l2_bytes as usize;
        let scale = self.scale.unwrap_or_else(|| (width as f32).sqrt().recip());
        let (key, key_rope) = match self.key_rope {
            Some(key_rope) => (self.map(k, 0, NOPE, KEYS)?, self.map(key_rope, 0, ROPE, KEYS)?),
            None => (self.map(k, 0, NOPE, KEYS)?, self.map(k, width - ROPE, ROPE, KEYS)?),
        };
        let params = NgPrefillParams {
            query: self.map(q, 0, width, ROWS as u32)?,
            key,
            key_rope,
            value: self.map(v, 0, VALUE, KEYS)?,
            query_offsets: self.offsets.map_or(0, |[queries, _]| queries.address()),
            key_offsets: self.offsets.map_or(0, |[_, keys]| keys.address()),
            sinks: sinks.map_or(0, Tensor::address),
            out: out.address(),
            lse: lse.map_or(0, Tensor::address),
            status: stream.status_address(),
            out_token_stride: out.strides()[0] as i64,
            out_head_stride: out.strides()[1] as i64,
            lse_head_stride: lse.map_or(0, |lse| lse.strides()[0] as i64),
            lse_token_stride: lse.map_or(0, |lse| lse.strides()[1] as i64),
            sequences: sequences as u32,
            queries: queries as u32,
            keys: keys as u32,
            heads: heads as u32,
            group: group as u32,
            tiles: tiles as u32,
            section_heads: section_heads(heads, group, key_bytes, cache) as u32,
            shared_rope: self.key_rope.is_some_and(|rope| rope.dim(1) == 1).into(),
            causal: self.causal.into(),
            f16: T::IS_F16.into(),
            scale_log2: scale * std::f32::consts::LOG2_E,
            reserved: 0,
        };
        let (entry, shared) =
            if width == NOPE { ("mla_prefill_128", 229_480) } else { ("mla_prefill_192", 213_064) };
        KernelLaunch::new(entry, &params)
            .grid([blocks, 1, 1])
            .block(THREADS)
            .shared(shared)
            .reads(q)
            .reads(k)
            .reads(v)
            .writes(out)
            .reads_each(self.key_rope)
            .reads_each(self.offsets.into_iter().flatten())
            .reads_each(sinks)
            .writes_each(lse)
            .launch(stream)
    }

    /// A map of tiles of 64 columns and some tokens of one head. Without keys the queries stand in: nothing is copied then.
    fn map(&self, tensor: &Tensor<T>, first: usize, columns: usize, rows: u32) -> Result<NgTensorMap> {
        let tensor = if tensor.is_empty() { self.q } else { tensor };
        let [tokens, heads] = [tensor.dim(0), tensor.dim(1)];
        let bytes = |dim: usize| match tensor.dim(dim) {
            1 => VECTOR_BYTES as u64,
            _ => (tensor.strides()[dim] * size_of::<T>()) as u64,
        };
        tensor.device().tensor_map(&TensorMapSpec {
            address: tensor.address() + (first * size_of::<T>()) as u64,
            dtype: T::DTYPE,
            extents: &[columns as u64, heads as u64, tokens as u64],
            strides: &[bytes(1), bytes(0)],
            tile: &[64, 1, rows],
            swizzle: Swizzle::B128,
        })
    }

    /// Everything that the host knows; the width of a query.
    fn check(&self, stream: &Stream) -> Result<usize> {
        let check = CHECK;
        let Self { q, k, v, out, .. } = *self;
        check.rank("q", q, 3)?;
        check.rank("k", k, 3)?;
        let [queries, heads, width] = [0, 1, 2].map(|dim| q.dim(dim));
        let [keys, key_heads] = [0, 1].map(|dim| k.dim(dim));
        if width != NOPE && width != NOPE + ROPE {
            return check.fail("q", format_args!("of {width} columns"), "of 192 or 128 columns");
        }
        let key_width = if self.key_rope.is_some() { NOPE } else { width };
        check.shape("k", k, &[keys, key_heads, key_width])?;
        check.shape("v", v, &[keys, key_heads, VALUE])?;
        check.shape("out", out, &[queries, heads, VALUE])?;
        if heads > 0 && (key_heads == 0 || !heads.is_multiple_of(key_heads)) {
            return check.fail(
                "k",
                format_args!("of {key_heads} heads"),
                format_args!("of a divisor of {heads}"),
            );
        }
        for (name, tensor) in [("q", q), ("k", k), ("v", v), ("out", out)] {
            walkable(name, tensor, stream)?;
        }
        check.distinct("out", out)?;
        for (name, tensor) in [("q", q), ("k", k), ("v", v)] {
            check.apart("out", out, name, tensor)?;
        }
        if let Some(key_rope) = self.key_rope {
            if width == NOPE {
                return check.fail("key_rope", "given", "only beside queries of 192 columns");
            }
            let rope_heads = if key_rope.rank() == 3 && key_rope.dim(1) == 1 { 1 } else { key_heads };
            check.shape("key_rope", key_rope, &[keys, rope_heads, ROPE])?;
            walkable("key_rope", key_rope, stream)?;
            check.apart("out", out, "key_rope", key_rope)?;
        }
        let scale = self.scale.unwrap_or(1.0);
        if !(scale > 0.0 && (scale * std::f32::consts::LOG2_E).is_finite()) {
            return check.fail("scale", scale, "positive and finite");
        }
        if let Some([query_offsets, key_offsets]) = self.offsets {
            check.rank("queries", query_offsets, 1)?;
            check.shape("keys", key_offsets, query_offsets.shape())?;
            for (name, offsets) in [("queries", query_offsets), ("keys", key_offsets)] {
                check.contiguous(name, offsets)?;
                check.on(name, offsets, stream.device())?;
                check.apart("out", out, name, offsets)?;
            }
        }
        if let Some(sinks) = self.sinks {
            check.shape("sinks", sinks, &[heads])?;
            check.contiguous("sinks", sinks)?;
            check.on("sinks", sinks, stream.device())?;
            check.apart("out", out, "sinks", sinks)?;
        }
        if let Some(lse) = self.lse {
            check.shape("lse", lse, &[heads, queries])?;
            check.on("lse", lse, stream.device())?;
            check.distinct("lse", lse)?;
            for (name, tensor) in [("q", q), ("k", k), ("v", v), ("out", out)] {
                check.apart("lse", lse, name, tensor)?;
            }
            if let Some(key_rope) = self.key_rope {
                check.apart("lse", lse, "key_rope", key_rope)?;
            }
            if let Some(sinks) = self.sinks {
                check.apart("lse", lse, "sinks", sinks)?;
            }
            if let Some([query_offsets, key_offsets]) = self.offsets {
                check.apart("lse", lse, "queries", query_offsets)?;
                check.apart("lse", lse, "keys", key_offsets)?;
            }
        }
        Ok(width)
    }
}

/// The tensor memory accelerator can copy tiles of it.
fn walkable<T: Half>(name: &'static str, tensor: &Tensor<T>, stream: &Stream) -> Result<()> {
    CHECK.on(name, tensor, stream.device())?;
    CHECK.adjacent_columns(name, tensor)?;
    let repeated =
        tensor.shape()[..2].iter().zip(tensor.strides()).any(|(dim, stride)| *dim > 1 && *stride == 0);
    if tensor.is_empty() || (rows_aligned(tensor, VECTOR_BYTES) && !repeated) {
        return Ok(());
    }
    let got = format_args!("a view with strides {:?}", tensor.strides()).to_string();
    CHECK.fail(name, got, "a view whose rows are apart and aligned to 16 bytes")
}

/// How many heads' blocks stand together: as many as have keys and values that fill half of the L2 cache, in whole groups.
/// All tiles of a section come before the next section's, the longest of all its heads first.
fn section_heads(heads: usize, group: usize, key_bytes: usize, cache: usize) -> usize {
    let groups = (cache / 2).checked_div(key_bytes).unwrap_or(heads).max(1);
    groups.saturating_mul(group).min(heads)
}

#[cfg(test)]
mod tests {
    use super::section_heads;

    #[test]
    fn sections_fill_half_of_the_cache_in_whole_groups() {
        assert_eq!(section_heads(128, 1, 640 << 12, 60 << 20), 12, "4096 keys");
        assert_eq!(section_heads(128, 1, 640 << 17, 60 << 20), 1, "longer than the cache");
        assert_eq!(section_heads(32, 8, 512 << 12, 60 << 20), 32);
        assert_eq!(section_heads(32, 8, 512 << 16, 60 << 20), 8);
        assert_eq!(section_heads(16, 1, 0, 60 << 20), 16, "no keys");
    }
}
