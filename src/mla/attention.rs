//! Attention in absorbed form over the paged latent cache.

use super::attention_launch::{Checked, RowStrides};
use super::plan::{self, Cut, MAX_SPLITS, Problem};
use super::{Half, LatentCache};
use crate::device::{Device, Stream};
use crate::dtype::{Element, bf16};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::{Checks, VECTOR_BYTES};

const CHECK: Checks = Checks::of("Attention");
const MAX_HEADS: usize = 128;
pub(super) const LATENT: usize = 512;
pub(super) const WIDTH: usize = 576;

/// How the tokens of a sequence are cut into pieces that different multiprocessors work on.
#[derive(Debug, Clone, Copy)]
enum Pieces {
    /// As the device finds best for the lengths, if there is a workspace.
    Scheduled,
    Equal(usize),
    Fixed(usize),
}

/// Multi-head latent attention in absorbed form: all heads share one key per cached token, and the value is the
/// first 512 of its 576 columns.
///
/// For every sequence `b`, query token `s` and head `h`, where `p` is the tokens of a page:
///
/// ```text
/// score[t] = q[b, s, h] · cache[page_table[b, t / p], t % p]       (576 products, accumulated in f32)
/// out[b, s, h] = Σ_t softmax(scale · score)[t] · cache[..][0..512]
/// lse[b, h, s] = ln Σ_t exp(scale · score[t])
/// ```
///
/// over the tokens `t < lengths[b] - S + s + 1`: the `S` query tokens are the last of the sequence and are in the
/// cache already (causal, aligned at the end); without [`causal`](Self::causal), over all of `lengths[b]`. Formula:
/// DeepSeek-V2, arXiv 2405.04434, section 2.1, with the up-projections absorbed into query and output.
///
/// - `q`: bf16 or f16 `[B, S, H, 576]`, 512 absorbed columns and then 64 rotary ones; `H` ≤ 128. With
///   [`ragged`](Self::ragged) queries `[T, H, 576]`.
/// - `cache`: [`LatentCache`] of the same type or FP8, in pages of a power of two of tokens (64 and more are fastest). FP8
///   tokens are widened to the type of `q` on the way: exactly, where that type has their codes times their scale; the scale
///   of a flat cache is applied to scores and answers instead
/// - `page_table`: i32 `[B, P]`; entries past a sequence's pages may hold anything
/// - `lengths`: i32 `[B]`, cached tokens of each sequence, the query tokens included
/// - `out`: of `q`'s type, `[B, S, H, 512]` or `[T, H, 512]`
///
/// A row that sees no token answers 0 and −inf. On the device, lengths are clamped to `0..=p·P`, offsets of ragged queries
/// to what they may be, and page ids outside the cache have no tokens; all are reported by [`Stream::status`]. Memory past
/// a sequence's length is never part of an answer, whatever it holds. NaN or infinity in a used token reaches that sequence only.
/// Scores that overflow f32 count as the largest finite ones.
///
/// The same input gives the same bits. With a [`workspace`](Self::workspace) the device cuts the work by the lengths of the
/// whole batch; with [`piece_tokens`](Self::piece_tokens), [`splits`](Self::splits), or without a workspace, a sequence's
/// bits do not depend on the rest of the batch (with `splits` they do on the `most` of [`ragged`](Self::ragged) queries); with
/// `piece_tokens` or without a workspace, nor do a row's on how many query tokens there are. Where the cut is left to the
/// device and there is a workspace, even an empty one, sequences of at most 32 rows (heads × query tokens) over a 16-bit cache
/// take a kernel that does not pad them to 64.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing runs until launch"]
#[non_exhaustive]
pub struct Attention<'a, T: Half = bf16> {
    pub(super) q: &'a Tensor<T>,
    pub(super) cache: &'a LatentCache,
    pub(super) page_table: &'a Tensor<i32>,
    pub(super) lengths: &'a Tensor<i32>,
    pub(super) out: &'a Tensor<T>,
    pub(super) scale: f32,
    pub(super) causal: bool,
    pub(super) ragged: Option<(&'a Tensor<i32>, usize)>,
    pub(super) sinks: Option<&'a Tensor<f32>>,
    pub(super) lse: Option<&'a Tensor<f32>>,
    pieces: Pieces,
    pub(super) workspace: Option<&'a Tensor<u8>>,
}

impl<'a, T: Half> Attention<'a, T> {
    /// Attention of `q` over `cache` into `out`, with the scale of DeepSeek-V3 without YaRN, `(128 + 64)^-0.5`.
    pub fn new(
        q: &'a Tensor<T>,
        cache: &'a LatentCache,
        page_table: &'a Tensor<i32>,
        lengths: &'a Tensor<i32>,
        out: &'a Tensor<T>,
    ) -> Self {
        Self {
            q,
            cache,
            page_table,
            lengths,
            out,
            scale: 192f32.sqrt().recip(),
            causal: true,
            ragged: None,
            sinks: None,
            lse: None,
            pieces: Pieces::Scheduled,
            workspace: None,
        }
    }

    /// What scores are multiplied by before the softmax: finite and positive. It belongs to the model
    /// (`qk_head_dim^-0.5`, times YaRN's `mscale²`), not to the width of the absorbed query.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// Whether a query token sees only the tokens up to its own, which is the default; otherwise all of the sequence.
    pub fn causal(mut self, causal: bool) -> Self {
        self.causal = causal;
        self
    }

    /// Different numbers of query tokens: sequence `b` has the tokens `offsets[b]..offsets[b + 1]` of `q` and `out`, `[T, H, ..]`.
    ///
    /// `offsets` is i32 `[B + 1]` and does not decrease; `most` is the largest number of any sequence. On the device, what
    /// leaves `0..=T`, decreases or exceeds `most` is cut off and reported as `bad_offsets`; tokens of no sequence are not
    /// written. Where decreasing offsets give a token to two sequences, its answer is that of either.
    pub fn ragged(mut self, offsets: &'a Tensor<i32>, most: usize) -> Self {
        self.ragged = Some((offsets, most));
        self
    }

    /// Attention sinks, f32 `[H]`: a head's answers are multiplied by `exp(lse) / (exp(lse) + exp(sink))`, as if it saw one
    /// more token with this score and a value of zero. +inf makes them 0, −inf changes nothing. `lse` is without the sink.
    pub fn sinks(mut self, sinks: &'a Tensor<f32>) -> Self {
        self.sinks = Some(sinks);
        self
    }

    /// Also writes the natural logarithm of each row's sum of exponentials, f32 `[B, H, S]`, or `[H, T]` of ragged queries.
    pub fn lse(mut self, lse: &'a Tensor<f32>) -> Self {
        self.lse = Some(lse);
        self
    }

    /// Cuts every sequence's tokens into this many parts, 1 to 128, instead of leaving it to the device.
    pub fn splits(mut self, splits: usize) -> Self {
        self.pieces = Pieces::Equal(splits);
        self
    }

    /// Cuts every sequence into pieces of this many tokens, rounded up to a multiple of 64: a sequence's bits then depend
    /// neither on the rest of the batch nor on the card (batch invariance).
    pub fn piece_tokens(mut self, tokens: usize) -> Self {
        self.pieces = Pieces::Fixed(tokens);
        self
    }

    /// Memory for partial results: contiguous, 16-byte aligned, [`workspace_bytes`](Self::workspace_bytes)
    /// long or longer. Without one nothing is cut, unless [`splits`](Self::splits) or
    /// [`piece_tokens`](Self::piece_tokens) asks for it: then [`launch`](Self::launch) fails.
    pub fn workspace(mut self, workspace: &'a Tensor<u8>) -> Self {
        self.workspace = Some(workspace);
        self
    }

    /// Bytes of workspace that the cut needs, be it given or left to the device; it depends on shapes alone. 0 where nothing is
    /// cut.
    pub fn workspace_bytes(&self) -> usize {
        let problem = self.problem();
        problem.workspace_bytes(self.wanted_cut(&problem))
    }

    /// Enqueues the operation. No sequences, tokens or heads is a no-op.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) for shapes that do not fit, a cache of another 16-bit type or with pages of other
    /// than a power of two of tokens, views that the tensor memory accelerator cannot walk, outputs that overlap anything else,
    /// a workspace that is missing or small, or another device; otherwise what the device says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        match self.check(stream)? {
            Some(checked) => checked.launch(self, stream),
            None => Ok(()),
        }
    }

    /// Of ragged queries.
    pub(super) fn offsets(&self) -> Option<&'a Tensor<i32>> {
        self.ragged.map(|(offsets, _)| offsets)
    }

    fn problem(&self) -> Problem {
        let (q, rank) = (self.q, self.q.rank());
        let dim = |from_last: usize| if rank >= from_last { q.dim(rank - from_last) } else { 1 };
        let tokens = self.ragged.map_or_else(|| dim(3), |(_, most)| most);
        let table = if self.page_table.rank() == 2 { self.page_table.dim(1) } else { 0 };
        let capacity = table.saturating_mul(self.cache.page_tokens());
        Problem { batch: self.lengths.len(), tokens, heads: dim(2), capacity }
    }

    /// Rows of the products that are not padded to 64, if any. Their sums are added in another order, so a row's bits depend
    /// on how many there are: only where the device's cut makes them depend on the whole batch anyway.
    fn few_rows(&self, problem: &Problem) -> Option<usize> {
        let free = matches!(self.pieces, Pieces::Scheduled) && self.workspace.is_some();
        if free && !self.cache.layout().is_fp8() { problem.few_rows() } else { None }
    }

    fn wanted_cut(&self, problem: &Problem) -> Cut {
        match self.pieces {
            Pieces::Scheduled => problem.scheduled(self.q.device().card()),
            Pieces::Equal(splits) => Cut::Equal { pieces: splits },
            Pieces::Fixed(tokens) => problem.fixed(tokens),
        }
    }

    /// Shapes of queries, answers and logarithms.
    fn check_shapes(&self, batch: usize) -> Result<()> {
        let (check, q) = (CHECK, self.q);
        let (tokens, heads) = match self.ragged {
            None => {
                check.shape("q", q, &[batch, q.dim(1), q.dim(2), WIDTH])?;
                check.shape("out", self.out, &[batch, q.dim(1), q.dim(2), LATENT])?;
                (q.dim(1), q.dim(2))
            }
            Some((offsets, _)) => {
                check.shape("q", q, &[q.dim(0), q.dim(1), WIDTH])?;
                check.shape("out", self.out, &[q.dim(0), q.dim(1), LATENT])?;
                check.shape("offsets", offsets, &[batch + 1])?;
                (q.dim(0), q.dim(1))
            }
        };
        if heads > MAX_HEADS {
            return check.fail("q", format_args!("{heads} heads"), format_args!("at most {MAX_HEADS}"));
        }
        if let Some(lse) = self.lse {
            match self.ragged {
                None => check.shape("lse", lse, &[batch, heads, tokens])?,
                Some(_) => check.shape("lse", lse, &[heads, tokens])?,
            }
        }
        if let Some(sinks) = self.sinks {
            check.shape("sinks", sinks, &[heads])?;
        }
        Ok(())
    }

    fn check_cache(&self, device: &Device) -> Result<()> {
        let (check, cache) = (CHECK, self.cache);
        check.on("cache", cache.memory(), device)?;
        if !cache.layout().is_fp8() && cache.layout().dtype() != Some(T::DTYPE) {
            return check.fail("cache", cache.layout(), format_args!("{}, as the queries are", T::SUFFIX));
        }
        if !cache.page_tokens().is_power_of_two() {
            return check.fail(
                "cache",
                format_args!("pages of {} tokens", cache.page_tokens()),
                "a power of two",
            );
        }
        Ok(())
    }

    fn check(&self, stream: &Stream) -> Result<Option<Checked>> {
        let check = CHECK;
        let Self { q, page_table, lengths, out, .. } = *self;
        check.rank("q", q, if self.ragged.is_some() { 3 } else { 4 })?;
        check.rank("page_table", page_table, 2)?;
        let batch = if self.ragged.is_some() { page_table.dim(0) } else { q.dim(0) };
        self.check_shapes(batch)?;
        check.shape("page_table", page_table, &[batch, page_table.dim(1)])?;
        check.shape("lengths", lengths, &[batch])?;
        let problem = self.problem();
        let Problem { tokens, heads, .. } = problem;
        // Codes of a flat cache are multiplied as they are.
        let (_, value_scale) = self.cache.layout().code();
        let scale = self.scale * value_scale;
        if !(self.scale > 0.0 && scale > 0.0 && (scale * std::f32::consts::LOG2_E).is_finite()) {
            return check.fail("scale", self.scale, "positive and finite");
        }

        let device = stream.device();
        check.on("q", q, device)?;
        check.on("page_table", page_table, device)?;
        check.on("lengths", lengths, device)?;
        check.on("out", out, device)?;
        self.check_cache(device)?;
        check.adjacent_columns("page_table", page_table)?;
        check.contiguous("lengths", lengths)?;
        let query = row_strides("q", q)?;
        let output = row_strides("out", out)?;
        check.apart("out", out, "q", q)?;
        check.apart("out", out, "cache", self.cache.memory())?;
        check.apart("out", out, "page_table", page_table)?;
        check.apart("out", out, "lengths", lengths)?;
        if let Some((offsets, _)) = self.ragged {
            check.on("offsets", offsets, device)?;
            check.contiguous("offsets", offsets)?;
            check.apart("out", out, "offsets", offsets)?;
        }
        if let Some(sinks) = self.sinks {
            check.on("sinks", sinks, device)?;
            check.contiguous("sinks", sinks)?;
            check.apart("out", out, "sinks", sinks)?;
        }
        if let Some(lse) = self.lse {
            check.on("lse", lse, device)?;
            check.distinct("lse", lse)?;
            self.check_apart("lse", lse)?;
        }

        match self.pieces {
            Pieces::Equal(splits) if !(1..=MAX_SPLITS).contains(&splits) => {
                return check.fail("splits", splits, format_args!("in 1..={MAX_SPLITS}"));
            }
            Pieces::Fixed(0) => return check.fail("piece_tokens", 0, "at least 1"),
            _ => {}
        }
        let cut = match (self.pieces, self.workspace) {
            (Pieces::Scheduled, None) => Cut::Equal { pieces: 1 },
            _ => self.wanted_cut(&problem),
        };
        self.check_workspace(problem.workspace_bytes(cut), device)?;

        // The kernels count in i32, and their last group of rows reaches past the end.
        let last_group = plan::ROW_TILE * problem.cluster();
        check.extent("tokens * heads", tokens.saturating_mul(heads).saturating_add(last_group))?;
        if self.ragged.is_some() {
            check
                .extent("query tokens * heads", q.dim(0).saturating_mul(heads).saturating_add(last_group))?;
        }
        check.extent("page_table columns * page tokens", problem.capacity.saturating_add(plan::BLOCK))?;
        let groups = batch.saturating_mul(problem.groups());
        check.extent("blocks of all groups", groups.saturating_mul(problem.blocks().saturating_add(8)))?;
        let blocks = check.extent("blocks", problem.workers(cut).saturating_mul(problem.cluster()))?;
        check.extent("workspace slots", problem.slots(cut).saturating_mul(last_group))?;
        if batch == 0 || tokens == 0 || heads == 0 || q.dim(0) == 0 {
            return Ok(None);
        }
        let few = self.few_rows(&problem);
        Ok(Some(Checked { problem, cut, blocks, query, output, scale, value_scale, few }))
    }

    fn check_workspace(&self, bytes: usize, device: &Device) -> Result<()> {
        CHECK.workspace(self.workspace, bytes, format_args!("{bytes} bytes"), device)?;
        let Some(workspace) = self.workspace else { return Ok(()) };
        self.check_apart("workspace", workspace)?;
        match self.lse {
            Some(lse) => CHECK.apart("workspace", workspace, "lse", lse),
            None => Ok(()),
        }
    }

    fn check_apart<U: Element>(&self, argument: &'static str, tensor: &Tensor<U>) -> Result<()> {
        CHECK.apart(argument, tensor, "q", self.q)?;
        CHECK.apart(argument, tensor, "cache", self.cache.memory())?;
        CHECK.apart(argument, tensor, "page_table", self.page_table)?;
        CHECK.apart(argument, tensor, "lengths", self.lengths)?;
        CHECK.apart(argument, tensor, "out", self.out)?;
        if let Some((offsets, _)) = self.ragged {
            CHECK.apart(argument, tensor, "offsets", offsets)?;
        }
        match self.sinks {
            Some(sinks) => CHECK.apart(argument, tensor, "sinks", sinks),
            None => Ok(()),
        }
    }
}

/// The kernels want adjacent columns, 16-byte multiples elsewhere, and tokens × heads as one axis.
fn row_strides<T: Half>(argument: &'static str, tensor: &Tensor<T>) -> Result<RowStrides> {
    CHECK.adjacent_columns(argument, tensor)?;
    let (shape, strides) = (tensor.shape(), tensor.strides());
    // Ragged rows are those of one sequence.
    let outer = shape.len() - 3;
    let batch_extent = if outer == 1 { shape[0] } else { 1 };
    let [tokens, heads, columns] = [shape[outer], shape[outer + 1], shape[outer + 2]];
    let fail = |want| CHECK.fail(argument, format_args!("a view with strides {strides:?}"), want);
    let row = match (tokens, heads) {
        (0 | 1, 0 | 1) => columns,
        (_, 0 | 1) => strides[outer],
        _ => strides[outer + 1],
    };
    if heads > 1 && tokens > 1 && strides[outer] != heads * row {
        return fail("a view whose tokens follow each other like its heads");
    }
    let rows = tokens * heads;
    let batch = if batch_extent > 1 { strides[0] } else { rows.max(1) * row };
    if row < columns || batch < rows.saturating_sub(1) * row + columns {
        return fail("a view whose rows do not overlap");
    }
    let step = VECTOR_BYTES / size_of::<T>();
    if !row.is_multiple_of(step)
        || !batch.is_multiple_of(step)
        || !tensor.address().is_multiple_of(VECTOR_BYTES as u64)
    {
        return fail("a view whose rows are aligned to 16 bytes");
    }
    Ok(RowStrides { batch, row })
}
