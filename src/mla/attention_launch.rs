//! The kernels of an attention whose arguments fit: a schedule, the attention, and the combination of its pieces.

use super::attention::{Attention, LATENT, WIDTH};
use super::plan::{Cut, Problem, ROW_TILE};
use super::{Half, LatentCache};
use crate::device::{KernelLaunch, Stream, Swizzle, TensorMapSpec, abi};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Tensor;

/// Rows that a block of the combination takes.
const COMBINE_ROWS: usize = 4;
const SCHEDULE_THREADS: u32 = 1024;
/// Threads of an attention block: two consumer warpgroups and a producer.
const THREADS: u32 = 384;
const SHARED_BYTES: u32 = 222_816;
/// With the scales of FP8 tokens.
const FP8_SHARED_BYTES: u32 = 224_864;
/// Of rows that are few, by their number.
const fn few_shared_bytes(rows: usize) -> u32 {
    match rows {
        8 => 208_312,
        16 => 219_768,
        24 => 231_224,
        _ => 218_080,
    }
}

/// Columns of a tile in shared memory, of which a token has nine.
const TILE_COLUMNS: usize = 64;

/// Strides, in elements, of a `[B, S, H, columns]` tensor seen as `[B, S · H, columns]`.
pub(super) struct RowStrides {
    pub(super) batch: usize,
    pub(super) row: usize,
}

pub(super) struct Checked {
    pub(super) problem: Problem,
    pub(super) cut: Cut,
    pub(super) blocks: u32,
    pub(super) query: RowStrides,
    pub(super) output: RowStrides,
    /// Of raw scores, the scale of a flat cache included.
    pub(super) scale: f32,
    pub(super) value_scale: f32,
    /// Rows of the products, where they are few.
    pub(super) few: Option<usize>,
}

/// Where partial results and the schedule are.
#[derive(Clone, Copy, Default)]
struct Workspace {
    output: u64,
    statistics: u64,
    cuts: u64,
}

/// Strides of the logarithms by sequence, head and token.
struct LseStrides {
    address: u64,
    strides: [i64; 3],
}

impl Checked {
    pub(super) fn launch<T: Half>(&self, op: &Attention<'_, T>, stream: &Stream) -> Result<()> {
        let workspace = self.workspace(op);
        if let Cut::Scheduled { workers } = self.cut {
            self.schedule(op, workspace, workers, stream)?;
        }
        let lse = match op.lse {
            None => LseStrides { address: 0, strides: [0; 3] },
            Some(lse) => {
                let strides: Vec<i64> = lse.strides().iter().map(|stride| *stride as i64).collect();
                let strides = match strides[..] {
                    [batch, head, token] => [batch, head, token],
                    [head, token] => [0, head, token],
                    _ => [0; 3],
                };
                LseStrides { address: lse.address(), strides }
            }
        };
        self.attend(op, workspace, &lse, stream)?;
        if self.problem.slots(self.cut) > 0 { self.combine(op, workspace, &lse, stream) } else { Ok(()) }
    }

    fn workspace<T: Half>(&self, op: &Attention<'_, T>) -> Workspace {
        let slots = self.problem.slots(self.cut);
        match op.workspace {
            Some(memory) if slots > 0 => {
                let rows = (slots * self.problem.cluster() * ROW_TILE * size_of::<f32>()) as u64;
                let output = memory.address();
                let statistics = output + rows * LATENT as u64;
                let cuts = match self.cut {
                    Cut::Scheduled { .. } => statistics + rows * 2,
                    _ => 0,
                };
                Workspace { output, statistics, cuts }
            }
            _ => Workspace::default(),
        }
    }

    /// Pieces of each group, and the blocks of each where they are given.
    fn pieces(&self) -> (i32, i32) {
        match self.cut {
            Cut::Equal { pieces } => (pieces as i32, 0),
            Cut::Fixed { blocks, pieces } => (pieces as i32, blocks.min(self.problem.blocks().max(1)) as i32),
            Cut::Scheduled { .. } => (1, 0),
        }
    }

    fn schedule<T: Half>(
        &self,
        op: &Attention<'_, T>,
        workspace: Workspace,
        workers: usize,
        stream: &Stream,
    ) -> Result<()> {
        let Problem { batch, tokens, heads, capacity } = self.problem;
        let parameters = abi::NgMlaScheduleParams {
            lengths: op.lengths.address(),
            query_offsets: op.offsets().map_or(0, Tensor::address),
            cuts: workspace.cuts,
            status: stream.status_address(),
            batch: batch as i32,
            tokens: tokens as i32,
            query_tokens: self.query_tokens(op),
            heads: heads as i32,
            groups: self.problem.groups() as i32,
            cluster: self.problem.cluster() as i32,
            table_tokens: capacity as i32,
            causal: op.causal.into(),
            workers: workers as i32,
        };
        KernelLaunch::new("mla_schedule_i32", &parameters)
            .block(SCHEDULE_THREADS)
            .reads(op.lengths)
            .reads_each(op.offsets())
            .writes_each(op.workspace)
            .launch(stream)
    }

    fn query_tokens<T: Half>(&self, op: &Attention<'_, T>) -> i32 {
        op.ragged.map_or(0, |_| op.q.dim(0) as i32)
    }

    fn attend<T: Half>(
        &self,
        op: &Attention<'_, T>,
        workspace: Workspace,
        lse: &LseStrides,
        stream: &Stream,
    ) -> Result<()> {
        let Problem { batch, tokens, heads, capacity } = self.problem;
        let (device, cache) = (op.q.device(), op.cache);
        let element = size_of::<T>() as u64;
        let page = cache.page_tokens();
        let cluster = self.problem.cluster();
        let (rows, sequences) = match op.ragged {
            None => (tokens * heads, batch),
            Some(_) => (op.q.dim(0) * heads, 1),
        };
        let (pieces, piece_blocks) = self.pieces();
        let (cache_layout, _) = cache.layout().code();
        let query = device.tensor_map(&TensorMapSpec {
            address: op.q.address(),
            dtype: T::DTYPE,
            extents: &[WIDTH as u64, rows as u64, sequences as u64],
            strides: &[self.query.row as u64 * element, self.query.batch as u64 * element],
            tile: &[TILE_COLUMNS as u32, self.few.unwrap_or(ROW_TILE) as u32, 1],
            swizzle: Swizzle::B128,
        })?;
        let narrow = cache.layout().is_fp8();
        let parameters = abi::NgMlaAttentionParams {
            query,
            cache: if narrow { query } else { cache_map(cache, T::DTYPE, page.min(ROW_TILE / cluster))? },
            tokens_at: cache.memory().address(),
            page_table: op.page_table.address(),
            lengths: op.lengths.address(),
            query_offsets: op.offsets().map_or(0, Tensor::address),
            sinks: op.sinks.map_or(0, Tensor::address),
            cuts: workspace.cuts,
            output: op.out.address(),
            lse: lse.address,
            partial_output: workspace.output,
            partial_statistics: workspace.statistics,
            status: stream.status_address(),
            table_stride: op.page_table.strides()[0] as i64,
            output_batch_stride: self.output_batch_stride(op),
            output_row_stride: self.output.row as i64,
            lse_batch_stride: lse.strides[0],
            lse_head_stride: lse.strides[1],
            lse_token_stride: lse.strides[2],
            tokens: tokens as i32,
            query_tokens: self.query_tokens(op),
            heads: heads as i32,
            groups: self.problem.groups() as i32,
            cluster: cluster as i32,
            table_tokens: capacity as i32,
            page_shift: page.trailing_zeros() as i32,
            cache_pages: cache.pages() as i32,
            pieces,
            piece_blocks,
            causal: op.causal.into(),
            cache_layout,
            value_scale: self.value_scale,
            scale: self.scale,
            scale_log2: self.scale * std::f32::consts::LOG2_E,
        };
        let (entry, shared) = match (narrow, cluster, self.few) {
            (false, _, Some(rows)) => {
                (format!("mla_attention_few_{}_{rows}", T::SUFFIX), few_shared_bytes(rows))
            }
            (true, ..) => (format!("mla_attention_fp8_{}", T::SUFFIX), FP8_SHARED_BYTES),
            (false, 2, _) => (format!("mla_attention_{}_c2", T::SUFFIX), SHARED_BYTES),
            (false, ..) => (format!("mla_attention_{}", T::SUFFIX), SHARED_BYTES),
        };
        KernelLaunch::new(&entry, &parameters)
            .grid([self.blocks, 1, 1])
            .cluster([if narrow { 1 } else { cluster as u32 }, 1, 1])
            .block(THREADS)
            .shared(shared)
            .reads(op.q)
            .reads(cache.memory())
            .reads(op.page_table)
            .reads(op.lengths)
            .writes(op.out)
            .reads_each(op.offsets())
            .reads_each(op.sinks)
            .writes_each(op.lse)
            .writes_each(op.workspace)
            .launch(stream)
    }

    /// Ragged sequences are found by their offsets alone.
    fn output_batch_stride<T: Half>(&self, op: &Attention<'_, T>) -> i64 {
        if op.ragged.is_some() { 0 } else { self.output.batch as i64 }
    }

    fn combine<T: Half>(
        &self,
        op: &Attention<'_, T>,
        workspace: Workspace,
        lse: &LseStrides,
        stream: &Stream,
    ) -> Result<()> {
        let Problem { batch, tokens, heads, capacity } = self.problem;
        let cluster = self.problem.cluster();
        let (pieces, piece_blocks) = self.pieces();
        let parameters = abi::NgMlaCombineParams {
            lengths: op.lengths.address(),
            query_offsets: op.offsets().map_or(0, Tensor::address),
            sinks: op.sinks.map_or(0, Tensor::address),
            cuts: workspace.cuts,
            output: op.out.address(),
            lse: lse.address,
            partial_output: workspace.output,
            partial_statistics: workspace.statistics,
            output_batch_stride: self.output_batch_stride(op),
            output_row_stride: self.output.row as i64,
            lse_batch_stride: lse.strides[0],
            lse_head_stride: lse.strides[1],
            lse_token_stride: lse.strides[2],
            tokens: tokens as i32,
            query_tokens: self.query_tokens(op),
            heads: heads as i32,
            groups: self.problem.groups() as i32,
            cluster: cluster as i32,
            table_tokens: capacity as i32,
            pieces,
            piece_blocks,
            causal: op.causal.into(),
            value_scale: self.value_scale,
            scale: self.scale,
            scale_log2: self.scale * std::f32::consts::LOG2_E,
        };
        // A schedule cuts at most one group at the end of each worker.
        let groups = match self.cut {
            Cut::Scheduled { workers } => workers - 1,
            _ => batch * self.problem.groups(),
        };
        if groups == 0 {
            return Ok(());
        }
        let entry = format!("mla_combine_{}", T::SUFFIX);
        KernelLaunch::new(&entry, &parameters)
            .grid([(groups * cluster * ROW_TILE / COMBINE_ROWS) as u32, 1, 1])
            .block(COMBINE_ROWS as u32 * 32)
            .reads(op.lengths)
            .writes(op.out)
            .reads_each(op.offsets())
            .reads_each(op.sinks)
            .reads_each(op.workspace)
            .writes_each(op.lse)
            .launch(stream)
    }
}

/// How the tokens of a 16-bit cache are copied, so many of one page at a time: columns in tiles, so that one copy makes a
/// tile of them.
fn cache_map(cache: &LatentCache, dtype: DType, tokens: usize) -> Result<abi::NgTensorMap> {
    let (token, page) = (cache.token_bytes() as u64, cache.page_tokens() as u64);
    cache.memory().device().tensor_map(&TensorMapSpec {
        address: cache.memory().address(),
        dtype,
        extents: &[TILE_COLUMNS as u64, page, (WIDTH / TILE_COLUMNS) as u64, cache.pages() as u64],
        strides: &[token, (TILE_COLUMNS * dtype.size()) as u64, page * token],
        tile: &[TILE_COLUMNS as u32, tokens as u32, 1, 1],
        swizzle: Swizzle::B128,
    })
}
