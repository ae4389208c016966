//! Attention in absorbed form over the paged latent cache.

use super::plan::{self, MAX_SPLITS, Problem};
use super::{CacheLayout, LatentCache};
use crate::device::{KernelLaunch, Stream, Swizzle, TensorMapSpec, abi};
use crate::dtype::{DType, Element, bf16};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES};

const CHECK: Checks = Checks::of("Attention");
const MAX_HEADS: usize = 128;
const LATENT: usize = 512;
const WIDTH: usize = 576;

/// Multi-head latent attention in absorbed form: all heads share one key per cached token, and the value is the
/// first 512 of its 576 columns.
///
/// For every sequence `b`, query token `s` and head `h`:
///
/// ```text
/// score[t] = q[b, s, h] · cache[page_table[b, t / 64], t % 64]       (576 products, accumulated in f32)
/// out[b, s, h] = Σ_t softmax(scale · score)[t] · cache[..][0..512]
/// lse[b, h, s] = ln Σ_t exp(scale · score[t])
/// ```
///
/// over the tokens `t < lengths[b] - S + s + 1`: the `S` query tokens are the last of the sequence and are in the
/// cache already (causal, aligned at the end). Formula: DeepSeek-V2, arXiv 2405.04434, section 2.1, with the
/// up-projections absorbed into query and output.
///
/// - `q`: bf16 `[B, S, H, 576]`, 512 absorbed columns and then 64 rotary ones; `H` ≤ 128
/// - `cache`: bf16 `[pages, 64, 576]`
/// - `page_table`: i32 `[B, P]`; entries past a sequence's pages may hold anything
/// - `lengths`: i32 `[B]`, cached tokens of each sequence, the query tokens included
/// - `out`: bf16 `[B, S, H, 512]`
///
/// A row that sees no token answers 0 and −inf. On the device, lengths are clamped to `0..=64·P` and page ids
/// outside the cache have no tokens; both are reported by [`Stream::status`]. Memory past a sequence's length is
/// never part of an answer, whatever it holds. NaN in a used token reaches that sequence only. Scores that overflow
/// f32 count as the largest finite ones.
///
/// The same input gives the same bits. A sequence's bits do not depend on the rest of the batch as long as the
/// number of splits is the same ([`splits`](Self::splits) fixes it).
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Attention<'a> {
    q: &'a Tensor<bf16>,
    cache: &'a LatentCache,
    page_table: &'a Tensor<i32>,
    lengths: &'a Tensor<i32>,
    out: &'a Tensor<bf16>,
    scale: f32,
    lse: Option<&'a Tensor<f32>>,
    splits: Option<usize>,
    workspace: Option<&'a Tensor<u8>>,
}

impl<'a> Attention<'a> {
    /// Attention of `q` over `cache` into `out`, with the scale of DeepSeek-V3 without YaRN, `(128 + 64)^-0.5`.
    pub fn new(
        q: &'a Tensor<bf16>,
        cache: &'a LatentCache,
        page_table: &'a Tensor<i32>,
        lengths: &'a Tensor<i32>,
        out: &'a Tensor<bf16>,
    ) -> Self {
        let scale = 192f32.sqrt().recip();
        Self { q, cache, page_table, lengths, out, scale, lse: None, splits: None, workspace: None }
    }

    /// What scores are multiplied by before the softmax: finite and positive. It belongs to the model
    /// (`qk_head_dim^-0.5`, times YaRN's `mscale²`), not to the width of the absorbed query.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// Also writes the natural logarithm of each row's sum of exponentials, f32 `[B, H, S]`.
    pub fn lse(mut self, lse: &'a Tensor<f32>) -> Self {
        self.lse = Some(lse);
        self
    }

    /// Cuts every sequence's pages into this many parts, 1 to 128, instead of the plan's number.
    pub fn splits(mut self, splits: usize) -> Self {
        self.splits = Some(splits);
        self
    }

    /// Memory for the splits' partial results: contiguous, 16-byte aligned, [`workspace_bytes`](Self::workspace_bytes)
    /// long or longer. Without one the pages are not split, unless [`splits`](Self::splits) asks for it: then
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

    /// Enqueues the operation. No sequences, tokens or heads is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, views that the tensor memory accelerator
    /// cannot walk, outputs that overlap anything else, a workspace that is missing or small, or another device;
    /// otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        match self.check(stream)? {
            Some(checked) => checked.launch(self, stream),
            None => Ok(()),
        }
    }

    fn problem(&self) -> Problem {
        let (q, table) = (self.q, self.page_table);
        Problem { batch: q.dim(0), tokens: q.dim(1), heads: q.dim(2), table_pages: table.dim(1) }
    }

    fn wanted_splits(&self, problem: &Problem) -> usize {
        self.splits.unwrap_or_else(|| plan::plan(problem, self.q.device().card()).splits)
    }

    fn check(&self, stream: &Stream) -> Result<Option<Checked>> {
        let check = CHECK;
        let Self { q, page_table, lengths, out, .. } = *self;
        let cache = self.cache.tensor();
        if self.cache.layout() != CacheLayout::Bf16 {
            return check.fail("cache", self.cache.layout(), CacheLayout::Bf16);
        }
        if self.cache.page_tokens() != plan::PAGE {
            return check.fail("cache", format_args!("pages of {}", self.cache.page_tokens()), "pages of 64");
        }
        check.rank("q", q, 4)?;
        check.rank("page_table", page_table, 2)?;
        let problem = self.problem();
        let Problem { batch, tokens, heads, table_pages } = problem;
        check.shape("q", q, &[batch, tokens, heads, WIDTH])?;
        check.shape("out", out, &[batch, tokens, heads, LATENT])?;
        check.shape("page_table", page_table, &[batch, table_pages])?;
        check.shape("lengths", lengths, &[batch])?;
        if heads > MAX_HEADS {
            return check.fail("q", format_args!("{heads} heads"), format_args!("at most {MAX_HEADS}"));
        }
        let log2_scale = self.scale * std::f32::consts::LOG2_E;
        if !(self.scale > 0.0 && log2_scale.is_finite()) {
            return check.fail("scale", self.scale, "positive and finite");
        }

        let device = stream.device();
        check.on("q", q, device)?;
        check.on("cache", cache, device)?;
        check.on("page_table", page_table, device)?;
        check.on("lengths", lengths, device)?;
        check.on("out", out, device)?;
        check.adjacent_columns("page_table", page_table)?;
        check.contiguous("lengths", lengths)?;
        let query = row_strides("q", q)?;
        let output = row_strides("out", out)?;
        check.apart("out", out, "q", q)?;
        check.apart("out", out, "cache", cache)?;
        check.apart("out", out, "page_table", page_table)?;
        check.apart("out", out, "lengths", lengths)?;
        if let Some(lse) = self.lse {
            check.shape("lse", lse, &[batch, heads, tokens])?;
            check.on("lse", lse, device)?;
            check.distinct("lse", lse)?;
            self.check_apart("lse", lse)?;
        }

        if let Some(splits) = self.splits
            && !(1..=MAX_SPLITS).contains(&splits)
        {
            return check.fail("splits", splits, format_args!("in 1..={MAX_SPLITS}"));
        }
        let splits = match (self.splits, self.workspace) {
            (None, None) => 1,
            _ => self.wanted_splits(&problem),
        };
        let bytes = problem.workspace_bytes(splits);
        if let Some(workspace) = self.workspace {
            check.on("workspace", workspace, device)?;
            check.contiguous("workspace", workspace)?;
            self.check_apart("workspace", workspace)?;
            if let Some(lse) = self.lse {
                check.apart("workspace", workspace, "lse", lse)?;
            }
            if workspace.len() < bytes {
                let got = format_args!("{} bytes", workspace.len()).to_string();
                return check.fail("workspace", got, format_args!("{bytes} bytes for {splits} splits"));
            }
            if !workspace.address().is_multiple_of(VECTOR_BYTES as u64) {
                return check.fail("workspace", "at an odd address", "aligned to 16 bytes");
            }
        } else if bytes > 0 {
            return check.fail("workspace", "missing", format_args!("{bytes} bytes for {splits} splits"));
        }

        // The kernel counts in i32, and its last tile of rows reaches past the end.
        let rows =
            check.extent("tokens * heads", tokens.saturating_mul(heads).saturating_add(plan::ROW_TILE))?;
        check.extent("page_table columns * 64", table_pages.saturating_mul(plan::PAGE))?;
        check.extent("cache pages", cache.dim(0))?;
        let blocks = check.extent("blocks", problem.row_blocks().saturating_mul(splits))?;
        let rows = rows as usize - plan::ROW_TILE;
        let combine_blocks = check.extent("rows", batch.saturating_mul(rows).div_ceil(COMBINE_ROWS))?;
        if batch == 0 || rows == 0 {
            return Ok(None);
        }
        Ok(Some(Checked { problem, splits, blocks, combine_blocks, query, output, log2_scale }))
    }

    fn check_apart<T: Element>(&self, argument: &'static str, tensor: &Tensor<T>) -> Result<()> {
        CHECK.apart(argument, tensor, "q", self.q)?;
        CHECK.apart(argument, tensor, "cache", self.cache.tensor())?;
        CHECK.apart(argument, tensor, "page_table", self.page_table)?;
        CHECK.apart(argument, tensor, "lengths", self.lengths)?;
        CHECK.apart(argument, tensor, "out", self.out)
    }
}

/// Rows that a block of the combination takes.
const COMBINE_ROWS: usize = 4;
/// Threads of an attention block: two consumer warpgroups and a producer.
const ATTENTION_THREADS: u32 = 384;

/// Strides, in elements, of a `[B, S, H, columns]` tensor seen as `[B, S · H, columns]`.
struct RowStrides {
    batch: usize,
    row: usize,
}

struct Checked {
    problem: Problem,
    splits: usize,
    blocks: u32,
    combine_blocks: u32,
    query: RowStrides,
    output: RowStrides,
    log2_scale: f32,
}

impl Checked {
    fn launch(&self, op: &Attention<'_>, stream: &Stream) -> Result<()> {
        let Problem { batch, tokens, heads, table_pages } = self.problem;
        let rows = tokens * heads;
        let row_map = |tensor: &Tensor<bf16>, columns: usize, strides: &RowStrides| {
            tensor.device().tensor_map(&TensorMapSpec {
                address: tensor.address(),
                dtype: DType::Bf16,
                extents: &[columns as u64, rows as u64, batch as u64],
                strides: &[strides.row as u64 * 2, strides.batch as u64 * 2],
                tile: &[64, plan::ROW_TILE as u32, 1],
                swizzle: Swizzle::B128,
            })
        };
        let cache = op.cache.tensor();
        let (partial_output, partial_statistics) = match op.workspace {
            Some(workspace) if self.splits > 1 => {
                let output = workspace.address();
                (output, output + (self.splits * batch * rows * LATENT * size_of::<f32>()) as u64)
            }
            _ => (0, 0),
        };
        let (lse, lse_strides) = match op.lse {
            Some(lse) => (lse.address(), [0, 1, 2].map(|i| lse.strides()[i] as i64)),
            None => (0, [0; 3]),
        };
        let parameters = abi::NgMlaAttentionParams {
            query: row_map(op.q, WIDTH, &self.query)?,
            cache: cache.device().tensor_map(&TensorMapSpec {
                address: cache.address(),
                dtype: DType::Bf16,
                extents: &[WIDTH as u64, plan::PAGE as u64, op.cache.pages() as u64],
                strides: &[WIDTH as u64 * 2, (plan::PAGE * WIDTH) as u64 * 2],
                tile: &[64, plan::PAGE as u32, 1],
                swizzle: Swizzle::B128,
            })?,
            output: row_map(op.out, LATENT, &self.output)?,
            page_table: op.page_table.address(),
            lengths: op.lengths.address(),
            lse,
            partial_output,
            partial_statistics,
            status: stream.status_address(),
            table_stride: op.page_table.strides()[0] as i64,
            lse_batch_stride: lse_strides[0],
            lse_head_stride: lse_strides[1],
            lse_token_stride: lse_strides[2],
            batch: batch as i32,
            tokens: tokens as i32,
            heads: heads as i32,
            table_pages: table_pages as i32,
            cache_pages: op.cache.pages() as i32,
            splits: self.splits as i32,
            scale: op.scale,
            scale_log2: self.log2_scale,
        };
        let entry = if self.splits > 1 { "mla_attention_split_bf16" } else { "mla_attention_bf16" };
        let mut launch = KernelLaunch::new(entry, &parameters)
            .grid([self.blocks, 1, 1])
            .block(ATTENTION_THREADS)
            .shared(abi::NG_MLA_SHARED_BYTES)
            .reads(op.q)
            .reads(cache)
            .reads(op.page_table)
            .reads(op.lengths);
        if self.splits == 1 {
            launch = launch.writes(op.out);
            if let Some(lse) = op.lse {
                launch = launch.writes(lse);
            }
            return launch.launch(stream);
        }
        if let Some(workspace) = op.workspace {
            launch = launch.writes(workspace);
        }
        launch.launch(stream)?;

        let parameters = abi::NgMlaCombineParams {
            partial_output,
            partial_statistics,
            output: op.out.address(),
            lse,
            output_batch_stride: self.output.batch as i64,
            output_row_stride: self.output.row as i64,
            lse_batch_stride: lse_strides[0],
            lse_head_stride: lse_strides[1],
            lse_token_stride: lse_strides[2],
            batch: batch as i32,
            tokens: tokens as i32,
            heads: heads as i32,
            splits: self.splits as i32,
            scale: op.scale,
            scale_log2: self.log2_scale,
        };
        let mut launch = KernelLaunch::new("mla_combine_bf16", &parameters)
            .grid([self.combine_blocks, 1, 1])
            .block(COMBINE_ROWS as u32 * 32)
            .writes(op.out);
        if let Some(workspace) = op.workspace {
            launch = launch.reads(workspace);
        }
        if let Some(lse) = op.lse {
            launch = launch.writes(lse);
        }
        launch.launch(stream)
    }
}

/// The tensor memory accelerator wants adjacent columns, 16-byte multiples elsewhere, and tokens × heads as one axis.
fn row_strides(argument: &'static str, tensor: &Tensor<bf16>) -> Result<RowStrides> {
    CHECK.adjacent_columns(argument, tensor)?;
    let (shape, strides) = (tensor.shape(), tensor.strides());
    let [batch, tokens, heads, columns] = [shape[0], shape[1], shape[2], shape[3]];
    let fail = |want| CHECK.fail(argument, format_args!("a view with strides {strides:?}"), want);
    let row = match (tokens, heads) {
        (0 | 1, 0 | 1) => columns,
        (_, 0 | 1) => strides[1],
        _ => strides[2],
    };
    if heads > 1 && tokens > 1 && strides[1] != heads * row {
        return fail("a view whose tokens follow each other like its heads");
    }
    let rows = tokens * heads;
    let batch = if batch > 1 { strides[0] } else { rows.max(1) * row };
    if row < columns || batch < rows.saturating_sub(1) * row + columns {
        return fail("a view whose rows do not overlap");
    }
    let step = VECTOR_BYTES / size_of::<bf16>();
    if !row.is_multiple_of(step)
        || !batch.is_multiple_of(step)
        || !tensor.address().is_multiple_of(VECTOR_BYTES as u64)
    {
        return fail("a view whose rows are aligned to 16 bytes");
    }
    Ok(RowStrides { batch, row })
}
