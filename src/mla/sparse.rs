//! Attention in absorbed form over the cached tokens that a list names for each query token.

use super::plan::MAX_SPLITS;
use super::sparse_plan::{self, BLOCK_HEADS, Problem};
use super::{CacheLayout, LatentCache};
use crate::device::{KernelLaunch, Stream, Swizzle, TensorMapSpec, abi};
use crate::dtype::{DType, Element, bf16};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES};

const CHECK: Checks = Checks::of("SparseAttention");
const LATENT: usize = 512;
const WIDTH: usize = 576;
/// Threads of a block: two consumer warpgroups and a producer.
const THREADS: u32 = 384;
/// Rows that a block of the combination takes.
const COMBINE_ROWS: usize = 4;

/// Multi-head latent attention in absorbed form, each query token over its own list of cached tokens: decode and prefill
/// of DeepSeek-V3.2's sparse attention.
///
/// For every query token `t` and head `h`, over the entries `s = indices[t, i]` of its list:
///
/// ```text
/// score[i] = q[t, h] · cache[s]                          (576 products, accumulated in f32)
/// out[t, h] = Σ_i softmax(scale · score)[i] · cache[s][0..512]
/// lse[t, h] = ln Σ_i exp(scale · score[i])       max_logits[t, h] = max_i scale · score[i]
/// ```
///
/// Nothing else is masked: the lists say what is causal. A token named twice counts twice. Formula: DeepSeek-V2, arXiv
/// 2405.04434, section 2.1, with the up-projections absorbed; the lists are those of DeepSeek-V3.2's report, section 2.
///
/// - `q`: bf16 `[T, H, 576]`, 512 absorbed columns and then 64 rotary ones; decode's batch and query tokens flattened
/// - `cache`: bf16, or FP8 with 656 bytes a token ([`CacheLayout::Fp8Blocks`], dequantised to bf16 before use), pages of any
///   size
/// - `indices`: i32 `[T, K]`, any `K`; an entry is a slot, `page * page_tokens + offset`, or −1 for none
/// - `out`: bf16 `[T, H, 512]`
///
/// 64 and 128 heads fill the tensor cores; other numbers are padded to multiples of 64. Where the heads make an even number
/// of 64s, two blocks share what they gather.
///
/// A row without tokens answers 0, −inf and −inf. Other entries outside the cache count as −1 and set the status
/// `bad_slot`. Memory that no list names is never part of an answer; NaN in a named token reaches the query tokens that name
/// it. Scores that overflow f32 count as the largest finite ones.
///
/// The same input gives the same bits, and a query token's do not depend on others as long as the number of splits is the
/// same ([`splits`](Self::splits) fixes it).
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct SparseAttention<'a> {
    q: &'a Tensor<bf16>,
    cache: &'a LatentCache,
    indices: &'a Tensor<i32>,
    out: &'a Tensor<bf16>,
    scale: f32,
    lengths: Option<&'a Tensor<i32>>,
    sinks: Option<&'a Tensor<f32>>,
    lse: Option<&'a Tensor<f32>>,
    max_logits: Option<&'a Tensor<f32>>,
    splits: Option<usize>,
    workspace: Option<&'a Tensor<u8>>,
}

impl<'a> SparseAttention<'a> {
    /// Attention of `q` over what `indices` names in `cache` into `out`, with the scale of DeepSeek-V3 without YaRN,
    /// `(128 + 64)^-0.5`.
    pub fn new(
        q: &'a Tensor<bf16>,
        cache: &'a LatentCache,
        indices: &'a Tensor<i32>,
        out: &'a Tensor<bf16>,
    ) -> Self {
        Self {
            q,
            cache,
            indices,
            out,
            scale: 192f32.sqrt().recip(),
            lengths: None,
            sinks: None,
            lse: None,
            max_logits: None,
            splits: None,
            workspace: None,
        }
    }

    /// What scores are multiplied by before the softmax: finite and positive. It belongs to the model
    /// (`qk_head_dim^-0.5`, times YaRN's `mscale²`), not to the width of the absorbed query.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// How many entries of each list count, from its start: i32 `[B]` where `T` is a multiple of `B`, one for each `T / B`
    /// adjacent query tokens (`B = T`: one each). Numbers outside `0..=K` are clamped and set the status `bad_length`.
    pub fn topk_length(mut self, lengths: &'a Tensor<i32>) -> Self {
        self.lengths = Some(lengths);
        self
    }

    /// A logit of each head, f32 `[H]`, that takes its share of the softmax and has no value: `out` is multiplied by
    /// `exp(lse) / (exp(lse) + exp(sink))`. `lse` and `max_logits` stay as they are. Infinity answers 0, minus infinity
    /// changes nothing.
    pub fn sinks(mut self, sinks: &'a Tensor<f32>) -> Self {
        self.sinks = Some(sinks);
        self
    }

    /// Also writes the natural logarithm of each row's sum of exponentials, f32 `[T, H]`.
    /// Tokens here belong to no sequence, so it lies as `q` does; [`Attention`](super::Attention::lse) puts heads first.
    pub fn lse(mut self, lse: &'a Tensor<f32>) -> Self {
        self.lse = Some(lse);
        self
    }

    /// Also writes each row's largest scaled score, f32 `[T, H]`. NaN scores are passed over.
    pub fn max_logits(mut self, max_logits: &'a Tensor<f32>) -> Self {
        self.max_logits = Some(max_logits);
        self
    }

    /// Cuts every list into this many parts, 1 to 128, instead of the plan's number. The parts follow the lists' lengths on
    /// the device.
    pub fn splits(mut self, splits: usize) -> Self {
        self.splits = Some(splits);
        self
    }

    /// Memory for the splits' partial results: contiguous, 16-byte aligned, [`workspace_bytes`](Self::workspace_bytes)
    /// long or longer. Without one the lists are not split, unless [`splits`](Self::splits) asks for it: then
    /// [`launch`](Self::launch) fails.
    pub fn workspace(mut self, workspace: &'a Tensor<u8>) -> Self {
        self.workspace = Some(workspace);
        self
    }

    /// Bytes of workspace that the number of splits needs, be it given or planned. 0 where it is one.
    pub fn workspace_bytes(&self) -> usize {
        let problem = self.problem();
        problem.workspace_bytes(self.wanted_splits(&problem))
    }

    /// Enqueues the operation. No tokens or heads is a no-op; no entries (`K` = 0) answers as for empty lists.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, a cache in another layout, views that the
    /// tensor memory accelerator cannot walk, outputs that overlap anything else, a workspace that is missing or small, or
    /// another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        match self.check(stream)? {
            Some(checked) => checked.launch(self, stream),
            None => Ok(()),
        }
    }

    fn problem(&self) -> Problem {
        Problem {
            tokens: self.q.dim(0),
            heads: self.q.dim(1),
            top_k: self.indices.dim(1),
            token_bytes: self.cache.token_bytes(),
        }
    }

    fn wanted_splits(&self, problem: &Problem) -> usize {
        self.splits.unwrap_or_else(|| sparse_plan::plan(problem, self.q.device().card()).splits)
    }

    fn check(&self, stream: &Stream) -> Result<Option<Checked>> {
        let check = CHECK;
        let Self { q, cache, indices, out, .. } = *self;
        check.rank("q", q, 3)?;
        check.rank("indices", indices, 2)?;
        let problem = self.problem();
        let Problem { tokens, heads, top_k, .. } = problem;
        check.shape("q", q, &[tokens, heads, WIDTH])?;
        check.shape("out", out, &[tokens, heads, LATENT])?;
        check.shape("indices", indices, &[tokens, top_k])?;
        let fp8 = match cache.layout() {
            CacheLayout::Bf16 => false,
            CacheLayout::Fp8Blocks => true,
            other => return check.fail("cache", other, "bf16, or e4m3 in blocks"),
        };
        let scale_log2 = self.scale * std::f32::consts::LOG2_E;
        if !(self.scale > 0.0 && scale_log2.is_finite()) {
            return check.fail("scale", self.scale, "positive and finite");
        }

        let device = stream.device();
        check.on("q", q, device)?;
        check.on("cache", cache.memory(), device)?;
        check.on("indices", indices, device)?;
        check.on("out", out, device)?;
        check.adjacent_columns("indices", indices)?;
        let query = row_strides("q", q)?;
        let output = row_strides("out", out)?;
        let tokens_per_length = self.check_lengths(stream, tokens)?;
        if let Some(sinks) = self.sinks {
            check.shape("sinks", sinks, &[heads])?;
            check.on("sinks", sinks, device)?;
            check.contiguous("sinks", sinks)?;
        }
        self.check_apart("out", out)?;
        for (name, tensor) in [("lse", self.lse), ("max_logits", self.max_logits)] {
            let Some(tensor) = tensor else { continue };
            check.shape(name, tensor, &[tokens, heads])?;
            check.on(name, tensor, device)?;
            check.distinct(name, tensor)?;
            self.check_apart(name, tensor)?;
            check.apart(name, tensor, "out", out)?;
        }
        if let (Some(lse), Some(max_logits)) = (self.lse, self.max_logits) {
            check.apart("lse", lse, "max_logits", max_logits)?;
        }
        let splits = self.check_splits(stream, &problem)?;

        check.extent("K", top_k.saturating_add(2 * sparse_plan::BLOCK_KEYS))?;
        check.extent("heads", heads.saturating_add(BLOCK_HEADS))?;
        check.extent("tokens", tokens)?;
        let blocks = check.extent("blocks", problem.row_blocks().saturating_mul(splits))?;
        let combine_blocks = check.extent("rows", tokens.saturating_mul(heads).div_ceil(COMBINE_ROWS))?;
        if tokens == 0 || heads == 0 {
            return Ok(None);
        }
        Ok(Some(Checked {
            problem,
            splits,
            fp8,
            blocks,
            combine_blocks,
            query,
            output,
            tokens_per_length,
            scale_log2,
        }))
    }

    /// Query tokens that share a length.
    fn check_lengths(&self, stream: &Stream, tokens: usize) -> Result<usize> {
        let Some(lengths) = self.lengths else { return Ok(1) };
        CHECK.rank("topk_length", lengths, 1)?;
        CHECK.on("topk_length", lengths, stream.device())?;
        CHECK.contiguous("topk_length", lengths)?;
        match lengths.dim(0) {
            0 if tokens == 0 => Ok(1),
            count if count > 0 && tokens.is_multiple_of(count) => Ok((tokens / count).max(1)),
            count => CHECK.fail(
                "topk_length",
                format_args!("{count} lengths"),
                format_args!("a divisor of {tokens}"),
            ),
        }
    }

    fn check_splits(&self, stream: &Stream, problem: &Problem) -> Result<usize> {
        let check = CHECK;
        if let Some(splits) = self.splits
            && !(1..=MAX_SPLITS).contains(&splits)
        {
            return check.fail("splits", splits, format_args!("in 1..={MAX_SPLITS}"));
        }
        let splits = match (self.splits, self.workspace) {
            (None, None) => 1,
            _ => self.wanted_splits(problem),
        };
        let bytes = problem.workspace_bytes(splits);
        check.workspace(
            self.workspace,
            bytes,
            format_args!("{bytes} bytes for {splits} splits"),
            stream.device(),
        )?;
        let Some(workspace) = self.workspace else { return Ok(splits) };
        self.check_apart("workspace", workspace)?;
        check.apart("workspace", workspace, "out", self.out)?;
        for (name, tensor) in [("lse", self.lse), ("max_logits", self.max_logits)] {
            if let Some(tensor) = tensor {
                check.apart("workspace", workspace, name, tensor)?;
            }
        }
        Ok(splits)
    }

    fn check_apart<T: Element>(&self, argument: &'static str, tensor: &Tensor<T>) -> Result<()> {
        CHECK.apart(argument, tensor, "q", self.q)?;
        CHECK.apart(argument, tensor, "cache", self.cache.memory())?;
        CHECK.apart(argument, tensor, "indices", self.indices)?;
        if let Some(lengths) = self.lengths {
            CHECK.apart(argument, tensor, "topk_length", lengths)?;
        }
        if let Some(sinks) = self.sinks {
            CHECK.apart(argument, tensor, "sinks", sinks)?;
        }
        Ok(())
    }
}

/// Strides, in elements, of a `[T, H, columns]` tensor.
struct RowStrides {
    token: usize,
    head: usize,
}

/// The tensor memory accelerator wants adjacent columns and 16-byte multiples elsewhere.
fn row_strides(argument: &'static str, tensor: &Tensor<bf16>) -> Result<RowStrides> {
    CHECK.adjacent_columns(argument, tensor)?;
    CHECK.distinct(argument, tensor)?;
    let (shape, strides) = (tensor.shape(), tensor.strides());
    let [tokens, heads, columns] = [shape[0], shape[1], shape[2]];
    let head = if heads > 1 { strides[1] } else { columns };
    let token = if tokens > 1 { strides[0] } else { heads.max(1) * head };
    let step = VECTOR_BYTES / size_of::<bf16>();
    if !head.is_multiple_of(step)
        || !token.is_multiple_of(step)
        || !tensor.address().is_multiple_of(VECTOR_BYTES as u64)
    {
        let got = format_args!("a view with strides {strides:?}").to_string();
        return CHECK.fail(argument, got, "a view whose rows are aligned to 16 bytes");
    }
    Ok(RowStrides { token, head })
}

struct Checked {
    problem: Problem,
    splits: usize,
    fp8: bool,
    blocks: u32,
    combine_blocks: u32,
    query: RowStrides,
    output: RowStrides,
    tokens_per_length: usize,
    scale_log2: f32,
}

impl Checked {
    fn launch(&self, op: &SparseAttention<'_>, stream: &Stream) -> Result<()> {
        let Problem { tokens, heads, top_k, .. } = self.problem;
        let row_map = |tensor: &Tensor<bf16>, columns: usize, strides: &RowStrides| {
            tensor.device().tensor_map(&TensorMapSpec {
                address: tensor.address(),
                dtype: DType::Bf16,
                extents: &[columns as u64, heads as u64, tokens as u64],
                strides: &[strides.head as u64 * 2, strides.token as u64 * 2],
                tile: &[64, BLOCK_HEADS as u32, 1],
                swizzle: Swizzle::B128,
            })
        };
        let (partial_output, partial_statistics) = match op.workspace {
            Some(workspace) if self.splits > 1 => {
                let output = workspace.address();
                (output, output + (self.splits * tokens * heads * LATENT * size_of::<f32>()) as u64)
            }
            _ => (0, 0),
        };
        let address = |tensor: Option<&Tensor<f32>>| tensor.map_or(0, Tensor::address);
        let strides = |tensor: Option<&Tensor<f32>>| {
            tensor.map_or([0; 2], |tensor| [0, 1].map(|i| tensor.strides()[i] as i64))
        };
        let (lse, max) = (strides(op.lse), strides(op.max_logits));
        let parameters = abi::NgMlaSparseParams {
            query: row_map(op.q, WIDTH, &self.query)?,
            output: row_map(op.out, LATENT, &self.output)?,
            cache: op.cache.memory().address(),
            indices: op.indices.address(),
            lengths: op.lengths.map_or(0, Tensor::address),
            sinks: address(op.sinks),
            lse: address(op.lse),
            max_logits: address(op.max_logits),
            partial_output,
            partial_statistics,
            status: stream.status_address(),
            index_stride: op.indices.strides()[0] as i64,
            lse_token_stride: lse[0],
            lse_head_stride: lse[1],
            max_token_stride: max[0],
            max_head_stride: max[1],
            tokens: tokens as i32,
            heads: heads as i32,
            top_k: top_k as i32,
            tokens_per_length: self.tokens_per_length as i32,
            cache_tokens: op.cache.tokens() as i32,
            splits: self.splits as i32,
            scale: op.scale,
            scale_log2: self.scale_log2,
        };
        let pairs = self.problem.in_pairs();
        let entry = match (self.fp8, pairs) {
            (false, false) => "mla_sparse_bf16",
            (false, true) => "mla_sparse_pair_bf16",
            (true, false) => "mla_sparse_fp8kv",
            (true, true) => "mla_sparse_pair_fp8kv",
        };
        let launch = KernelLaunch::new(entry, &parameters)
            .grid([self.blocks, 1, 1])
            .block(THREADS)
            .cluster([1 + u32::from(pairs), 1, 1])
            .shared(abi::NG_MLA_SPARSE_SHARED_BYTES)
            .reads(op.q)
            .reads(op.cache.memory())
            .reads(op.indices)
            .reads_each(op.lengths);
        if self.splits == 1 {
            return self.with_outputs(op, launch).launch(stream);
        }
        launch.writes_each(op.workspace).launch(stream)?;

        let parameters = abi::NgMlaSparseCombineParams {
            partial_output,
            partial_statistics,
            output: op.out.address(),
            sinks: address(op.sinks),
            lse: address(op.lse),
            max_logits: address(op.max_logits),
            output_token_stride: self.output.token as i64,
            output_head_stride: self.output.head as i64,
            lse_token_stride: lse[0],
            lse_head_stride: lse[1],
            max_token_stride: max[0],
            max_head_stride: max[1],
            tokens: tokens as i32,
            heads: heads as i32,
            splits: self.splits as i32,
            scale: op.scale,
        };
        let launch = KernelLaunch::new("mla_sparse_combine_bf16", &parameters)
            .grid([self.combine_blocks, 1, 1])
            .block(COMBINE_ROWS as u32 * 32)
            .reads_each(op.workspace);
        self.with_outputs(op, launch).launch(stream)
    }

    /// The uses of the kernel that writes the answers.
    fn with_outputs<'l>(&self, op: &SparseAttention<'_>, launch: KernelLaunch<'l>) -> KernelLaunch<'l> {
        launch.writes(op.out).reads_each(op.sinks).writes_each([op.lse, op.max_logits].into_iter().flatten())
    }
}
