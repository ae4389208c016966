//! An FP8 product of any kind: its checks, its parameters, and its launch.

use super::gather::Gather;
use super::launch::{extents, kernel, operand, parameters, planned};
use super::options::{Options, check_groups, vector};
use super::output::Out;
use super::plan::{Input, Mode, Problem};
use crate::device::abi::{
    NG_GEMM_A_SCALES_UE8M0, NG_GEMM_B_SCALES_UE8M0, NG_GEMM_SCALES_POWER_OF_TWO, NgFp8GemmParams,
};
use crate::device::{Device, KernelLaunch, Stream};
use crate::error::Result;
use crate::fp8::{Operand, SCALE_BLOCK};
use crate::tensor::Tensor;
use crate::validate::Checks;
use std::fmt;
use std::mem::offset_of;

/// Operands and options.
#[derive(Debug, Clone)]
pub(super) struct Product {
    pub name: &'static str,
    pub mode: Mode,
    pub a: Operand,
    pub b: Operand,
    /// Offsets or counts of the groups.
    pub groups: Option<Tensor<i32>>,
    pub out: Out,
    /// Whether B has rows of gates and as many of ups, and the output is SwiGLU of both.
    pub swiglu: bool,
    pub options: Options,
}

/// A product that is ready to run: checked, planned, with its tensor maps. Made by `prepare` of every FP8 product; clones
/// are the same product.
///
/// It holds its operands, whose values may change between launches, and launching it allocates nothing.
#[derive(Clone)]
pub struct PreparedGemm {
    pub(super) name: &'static str,
    pub(super) device: Device,
    /// `None` where there is nothing to do.
    pub(super) launch: Option<KernelLaunch<'static>>,
}

const PARAMETERS: usize = size_of::<NgFp8GemmParams>();

impl PreparedGemm {
    /// Enqueues the product.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`](crate::Error::Argument) if the stream is on another device; otherwise what launching says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        if *stream.device() != self.device {
            let want = format!("on the operands' device, {}", self.device.name());
            return Checks::of(self.name).fail("stream", format_args!("on {}", stream.device().name()), want);
        }
        let Some(launch) = &self.launch else { return Ok(()) };
        // Each stream, and each graph, has a status word of its own.
        const STATUS: usize = offset_of!(NgFp8GemmParams, status);
        let mut parameters = [0; PARAMETERS];
        parameters.copy_from_slice(launch.parameters());
        parameters[STATUS..STATUS + 8].copy_from_slice(&stream.status_address().to_ne_bytes());
        launch.with_parameters(&parameters).launch(stream)
    }
}

impl fmt::Debug for PreparedGemm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = self.launch.as_ref().map_or("nothing to do", |launch| launch.entry());
        write!(f, "{} prepared for {}: {kernel}", self.name, self.device.name())
    }
}

impl Product {
    /// The ranks of the rows with their columns, and of B.
    fn ranks(&self) -> [usize; 2] {
        match self.mode {
            Mode::Dense => [2, 2],
            Mode::Contiguous => [2, 3],
            _ => [3, 3],
        }
    }

    /// Columns of the output.
    fn columns(&self) -> usize {
        self.b.extent(1) / if self.swiglu { 2 } else { 1 }
    }

    /// Rows of the output, of each matrix.
    fn rows(&self) -> usize {
        self.options.gather.as_ref().map_or(self.a.extent(1), Gather::rows)
    }

    fn shape(&self) -> Vec<usize> {
        let (m, n) = (self.rows(), self.columns());
        if self.ranks()[0] == 3 { vec![self.b.extent(2), m, n] } else { vec![m, n] }
    }

    fn validate(&self, device: &Device) -> Result<()> {
        let Self { a, b, out, options, .. } = self;
        let check = Checks::of(self.name);
        let [rank, b_rank] = self.ranks();
        let a_rank = if options.gather.is_some() { 2 } else { rank };
        check.rank("a", &a.data, a_rank)?;
        check.rank("b", &b.data, b_rank)?;
        if let Some(gather) = &options.gather {
            gather.check(check, rank - 1, a, device)?;
        }
        let (m, n, k) = (self.rows(), b.extent(1), a.extent(0));
        if b.extent(0) != k {
            let got = format!("of K = {}", b.extent(0));
            return check.fail("b", got, format_args!("of a's K = {k}"));
        }
        let groups = if b_rank == 3 { b.extent(2) } else { 1 };
        if a_rank == 3 && a.extent(2) != groups {
            let got = format!("of {groups} matrices");
            return check.fail("b", got, format_args!("of as many as a has, {}", a.extent(2)));
        }
        if self.swiglu && !n.is_multiple_of(2 * SCALE_BLOCK) {
            let want = format!("of twice as many as a multiple of {SCALE_BLOCK}: gates, then ups");
            return check.fail("b", format_args!("of {n} rows"), want);
        }
        let shape = self.shape();
        out.check(check, &shape, device)?;
        if let Some(gather) = &options.gather {
            gather.fits(check, &shape[..rank - 1], out)?;
        }
        for (operand, names) in [(a, ["a", "the scales of a"]), (b, ["b", "the scales of b"])] {
            operand.on(check, names[0], device)?;
            out.apart_from(check, operand, names)?;
        }
        check_groups(check, self.mode, self.groups.as_ref(), groups, out, device)?;
        options.check(check, out, [groups, n], b_rank, &shape, device)?;
        extents(check, m, n, k, groups)
    }

    fn problem(&self) -> Problem {
        let Self { mode, a, b, out, options, .. } = self;
        Problem {
            a_e5m2: a.e5m2,
            b_e5m2: b.e5m2,
            mode: *mode,
            accumulate: options.accumulate,
            swiglu: self.swiglu,
            groups: if *mode == Mode::Dense { 1 } else { b.extent(2) },
            expected_rows: options.expected_rows,
            batch_invariant: options.batch_invariant,
            gather: options.gather.is_some(),
            a_rows: if options.gather.is_some() { a.extent(1) } else { 0 },
            ..Problem::dense(Input::Fp8, out.output(), self.rows(), self.columns(), a.extent(0))
        }
    }

    /// Checks it, chooses a kernel and makes its parameters. They lack the status word, which is the stream's.
    pub(super) fn prepare(&self, device: &Device) -> Result<PreparedGemm> {
        self.validate(device)?;
        let problem = self.problem();
        if self.out.is_empty() || problem.groups == 0 {
            return Ok(PreparedGemm { name: self.name, device: device.clone(), launch: None });
        }
        let plan = planned(Checks::of(self.name), &problem, device.card(), self.options.tile)?;
        let Self { a, b, out, options, .. } = self;
        let [a_rows, b_rows] = plan.tile.copied_rows();
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        // Without K no scale is read.
        let scales = |operand: &Operand| if problem.k == 0 { (0, [0; 3]) } else { operand.scales.placed() };
        let (a_scales, [a_scales_batch_stride, a_scales_row_stride, a_scales_block_stride]) = scales(a);
        let (b_scales, [b_scales_group_stride, b_scales_row_stride, b_scales_block_stride]) = scales(b);
        let (out_scales, [out_scales_row_stride, out_scales_block_stride]) = out.scales();
        let [out_batch_stride, out_row_stride] = out.strides();
        let (column_scales, column_scales_group_stride) = vector(&b.column_scales);
        let (bias, bias_group_stride) = vector(&options.bias);
        let (gather_multiplier, gather_shift) = options.gather.as_ref().map_or((0, 0), Gather::divisor);
        // Checked where it is used, with a list.
        let a_row_stride = a.data.strides()[a.data.rank() - 2] as u32;
        let common =
            parameters(&problem, [operand(device, &a.data, a_rows)?, operand(device, &b.data, b_rows)?]);
        let params = NgFp8GemmParams {
            a_scales,
            b_scales,
            offsets: self.groups.as_ref().map_or(0, Tensor::address),
            gather: options.gather.as_ref().map_or(0, Gather::address),
            out: out.address(),
            out_scales,
            column_scales,
            bias,
            row_weights: vector(&options.row_weights).0,
            a_scales_batch_stride,
            a_scales_row_stride,
            a_scales_block_stride,
            b_scales_group_stride,
            b_scales_row_stride,
            b_scales_block_stride,
            out_batch_stride,
            out_row_stride,
            out_scales_row_stride,
            out_scales_block_stride,
            column_scales_group_stride,
            bias_group_stride,
            alpha: options.alpha,
            clamp: options.clamp.unwrap_or(0.0),
            flags: out.store_flags()
                | common.flags
                | flag(a.scales.are_codes(), NG_GEMM_A_SCALES_UE8M0)
                | flag(b.scales.are_codes(), NG_GEMM_B_SCALES_UE8M0)
                | flag(options.power_of_two, NG_GEMM_SCALES_POWER_OF_TWO),
            a_rows: a.extent(1) as u32,
            a_data: a.data.address(),
            a_row_stride,
            gather_multiplier,
            gather_shift,
            ..common
        };
        let mut launch = b.read_by(a.read_by(kernel(&plan, &params)));
        launch = self.groups.iter().fold(launch, KernelLaunch::reads);
        launch = options.gather.iter().fold(launch, |launch, gather| gather.read_by(launch));
        launch = options.read_by(launch);
        let launch = Some(out.written_by(launch));
        Ok(PreparedGemm { name: self.name, device: device.clone(), launch })
    }
}
