//! A product of 16-bit floats of any kind: its checks, its parameters, and its launch.

use super::half_operand::Values;
use super::launch::{extents, kernel, parameters, planned};
use super::options::{Options, check_groups, vector};
use super::output::Out;
use super::plan::{Input, Mode, Problem};
use super::product::PreparedGemm;
use crate::device::abi::{NG_GEMM_A_TRANSPOSED, NG_GEMM_B_TRANSPOSED, NG_GEMM_F16, NgFp8GemmParams};
use crate::device::{Device, KernelLaunch};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::validate::Checks;

/// Operands and options.
#[derive(Debug, Clone)]
pub(super) struct HalfProduct {
    pub name: &'static str,
    pub mode: Mode,
    pub a: Values,
    pub b: Values,
    /// Offsets or counts of the groups.
    pub groups: Option<Tensor<i32>>,
    pub out: Out,
    pub options: Options,
}

impl HalfProduct {
    /// The ranks of A and B.
    fn ranks(&self) -> [usize; 2] {
        match self.mode {
            Mode::Dense => [2, 2],
            Mode::Contiguous => [2, 3],
            _ => [3, 3],
        }
    }

    fn validate(&self, device: &Device) -> Result<()> {
        let Self { a, b, out, options, .. } = self;
        let check = Checks::of(self.name);
        let [a_rank, b_rank] = self.ranks();
        a.check(check, "a", a_rank, device)?;
        b.check(check, "b", b_rank, device)?;
        let (m, n, k, groups) = (a.extent(1), b.extent(1), a.extent(0), b.extent(2));
        if b.extent(0) != k {
            let got = format!("of K = {}", b.extent(0));
            return check.fail("b", got, format_args!("of a's K = {k}"));
        }
        if a_rank == 3 && a.extent(2) != groups {
            let got = format!("of {groups} matrices");
            return check.fail("b", got, format_args!("of as many as a has, {}", a.extent(2)));
        }
        let shape = [a.extent(2), m, n];
        let shape = &shape[3 - a_rank..];
        out.check(check, shape, device)?;
        a.apart(check, out, "a")?;
        b.apart(check, out, "b")?;
        check_groups(check, self.mode, self.groups.as_ref(), groups, out, device)?;
        options.check(check, out, [groups, n], b_rank, shape, device)?;
        extents(check, m, n, k, groups)
    }

    fn problem(&self) -> Problem {
        let Self { mode, a, b, out, options, .. } = self;
        Problem {
            a_transposed: a.transposed(),
            mode: *mode,
            accumulate: options.accumulate,
            groups: if *mode == Mode::Dense { 1 } else { b.extent(2) },
            expected_rows: options.expected_rows,
            batch_invariant: options.batch_invariant,
            ..Problem::dense(a.input(), out.output(), a.extent(1), b.extent(1), a.extent(0))
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
        let [out_batch_stride, out_row_stride] = out.strides();
        let (bias, bias_group_stride) = vector(&options.bias);
        let common = parameters(&problem, [a.map(device, a_rows)?, b.map(device, b_rows)?]);
        let params = NgFp8GemmParams {
            offsets: self.groups.as_ref().map_or(0, Tensor::address),
            out: out.address(),
            bias,
            row_weights: vector(&options.row_weights).0,
            out_batch_stride,
            out_row_stride,
            bias_group_stride,
            alpha: options.alpha,
            flags: out.store_flags()
                | common.flags
                | flag(problem.input == Input::F16, NG_GEMM_F16)
                | flag(a.transposed(), NG_GEMM_A_TRANSPOSED)
                | flag(b.transposed(), NG_GEMM_B_TRANSPOSED),
            ..common
        };
        let mut launch = b.read_by(a.read_by(kernel(&plan, &params)));
        launch = self.groups.iter().fold(launch, KernelLaunch::reads);
        let launch = Some(out.written_by(options.read_by(launch)));
        Ok(PreparedGemm { name: self.name, device: device.clone(), launch })
    }
}
