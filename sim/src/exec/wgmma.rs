//! wgmma: four warps issue one operation; its registers stay theirs until the covering wait.

use super::registers::{BEING_READ, IN_FLIGHT, RESULT};
use super::step::Flow;
use super::warp::{Split, Wait};
use super::{Grid, Step};
use crate::fault::FaultKind;
use crate::lower::program::{Kind, Op, Program, ScaleD, Wgmma, WgmmaA};
use crate::memory::shared::{Shared, WINDOW};
use crate::row::Row;
use crate::schedule::{Fp8Accumulation, InFlight, Policy};
use crate::wgmma::{self as model, Kind as Elements, Operand, Which};
use std::collections::VecDeque;

/// Four warps that multiply together.
#[derive(Debug, Default)]
pub(super) struct Warpgroup {
    arrivals: [Option<Arrival>; 4],
    queue: VecDeque<Pending>,
}

/// What one warp says when it issues.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Arrival {
    pc: u32,
    a: u64,
    b: u64,
    scale_d: bool,
    group: u64,
}

/// Values and undefined bits of A's four registers in four warps.
type Snapshot = Box<([[Row; 4]; 4], [[Row; 4]; 4])>;

/// An operation that has not computed.
#[derive(Debug)]
struct Pending {
    arrival: Arrival,
    /// A's registers and their undefined bits, as they were at issue.
    a: Option<Snapshot>,
}

impl Grid<'_> {
    pub(super) fn tensor(&mut self, w: usize, split: &mut Split, op: &Op, mask: u32) -> Step<Flow> {
        self.together(w, mask)?;
        if mask != u32::MAX {
            return Err(FaultKind::Divergence { present: mask, wanted: u32::MAX }.into());
        }
        match &op.kind {
            Kind::WgmmaFence => {
                self.warps[w].r32.fence();
                self.warps[w].wgmma_unfenced.clear();
                Ok(Flow::Next)
            }
            Kind::WgmmaCommit => {
                self.warps[w].wgmma_committed += 1;
                Ok(Flow::Next)
            }
            Kind::WgmmaWait { pending } => {
                let limit = self.warps[w].wgmma_committed.saturating_sub(u64::from(*pending));
                let (slot, group) = self.warpgroup(w);
                let due = |p: &Pending| p.arrival.group < limit;
                while self.blocks[slot].warpgroups[group].queue.front().is_some_and(due) {
                    self.compute_next(slot, group)?;
                }
                self.release_registers(w, limit);
                self.race_wait_wgmma(w, limit);
                Ok(Flow::Next)
            }
            Kind::Wgmma(wgmma) => self.issue(w, split.pc, wgmma),
            _ => unreachable!("every other operation is handled before"),
        }
    }

    fn issue(&mut self, w: usize, pc: u32, op: &Wgmma) -> Step<Flow> {
        let (slot, group) = self.warpgroup(w);
        let member = self.warps[w].index as usize % 4;
        let first = w - member;
        if 4 * group + 4 > self.per_block {
            let index = self.warps[w].index;
            return Err(FaultKind::Barrier(format!("warp {index} has no whole warpgroup")).into());
        }
        let a = match op.a {
            WgmmaA::Descriptor(source) => self.uniform64(w, source)?,
            WgmmaA::Registers(_) => 0,
        };
        let b = self.uniform64(w, op.b)?;
        let scale_d = match op.scale_d {
            ScaleD::Constant(value) => value,
            ScaleD::Predicate(p) => {
                let value = self.decision(w, p, u32::MAX, "a wgmma's scale-d")?;
                if value != 0 && value != u32::MAX {
                    return Err(FaultKind::Divergence { present: value, wanted: u32::MAX }.into());
                }
                value != 0
            }
        };
        self.fenced(w, pc, op)?;
        let arrival = Arrival { pc, a, b, scale_d, group: self.warps[w].wgmma_committed };
        let arrivals = &mut self.blocks[slot].warpgroups[group].arrivals;
        arrivals[member] = Some(arrival);
        if let Some(other) = arrivals.iter().flatten().find(|o| **o != arrival) {
            let what = format!("the warps of a warpgroup issue different wgmma: {other:x?} and {arrival:x?}");
            return Err(FaultKind::Descriptor(what).into());
        }
        if arrivals.iter().any(Option::is_none) {
            return Ok(Flow::Wait(Wait::Warpgroup));
        }
        *arrivals = [None; 4];
        let registers = match &op.a {
            WgmmaA::Registers(list) => Some(self.snapshot(first, list)?),
            WgmmaA::Descriptor(_) => None,
        };
        for warp in &mut self.warps[first..first + 4] {
            for &d in &op.d {
                warp.r32.states[d as usize] |= IN_FLIGHT;
            }
            for &a in op.a_registers() {
                warp.r32.states[a as usize] |= BEING_READ;
            }
            warp.wgmma_held.push((arrival.group, pc));
            if !warp.wgmma_unfenced.contains(&pc) {
                warp.wgmma_unfenced.push(pc);
            }
            for split in &mut warp.splits {
                if split.wait == Wait::Warpgroup {
                    split.wait = Wait::Nothing;
                    split.pc += 1;
                }
            }
        }
        self.race_operands(slot, first, op, &arrival)?;
        self.counters.tensor_macs += 64 * op.shape.n as u64 * u64::from(op.k);
        self.blocks[slot].warpgroups[group].queue.push_back(Pending { arrival, a: registers });
        if self.schedule.wgmma == Policy::Eager {
            self.compute_next(slot, group)?;
        }
        Ok(Flow::Next)
    }

    /// Whether a fence came between the last use of a wgmma's registers and the wgmma.
    fn fenced(&mut self, w: usize, pc: u32, op: &Wgmma) -> Step<()> {
        let file = &self.warps[w].r32;
        let touched = op.d.iter().chain(op.a_registers()).copied().find(|&r| file.unfenced(r));
        let program: &Program = self.program;
        let (earlier, shared) = (&self.warps[w].wgmma_unfenced, &mut self.wgmma_shared);
        let used = || {
            earlier.iter().find_map(|&other| {
                let Kind::Wgmma(before) = &program.ops[other as usize].kind else { return None };
                *shared.entry((other, pc)).or_insert_with(|| shared_register(before, op))
            })
        };
        let Some(register) = touched.or_else(used) else { return Ok(()) };
        let register = self.program.names32[register as usize].clone();
        if self.schedule.in_flight == InFlight::Compatible {
            self.warnings.insert(format!("wgmma.fence is missing: {register} was touched before a wgmma"));
        } else if self.schedule.checks {
            return Err(FaultKind::NoFence { register }.into());
        }
        Ok(())
    }

    /// Checks what each warp reads of shared memory: all of B, and of A the rows that it multiplies.
    fn race_operands(&mut self, slot: usize, first: usize, op: &Wgmma, arrival: &Arrival) -> Step<()> {
        if self.races.is_none() {
            return Ok(());
        }
        let len = self.blocks[slot].shared.data.len();
        let b = model::operand_ranges(&op.shape, Which::B, arrival.b, WINDOW, len)
            .map_err(FaultKind::Descriptor)?;
        let mut ranges: [_; 4] = std::array::from_fn(|_| b.clone());
        if let WgmmaA::Descriptor(_) = op.a {
            let a =
                model::a_ranges_of_warps(&op.shape, arrival.a, WINDOW, len).map_err(FaultKind::Descriptor)?;
            for (all, mut own) in ranges.iter_mut().zip(a) {
                all.append(&mut own);
            }
        }
        self.race_wgmma(first, arrival.group, &ranges)
    }

    /// The block's slot and the number of the warpgroup in it.
    fn warpgroup(&self, w: usize) -> (usize, usize) {
        (self.slot(w), self.warps[w].index as usize / 4)
    }

    fn uniform64(&self, w: usize, source: crate::lower::program::S64) -> Step<u64> {
        let row = self.sure64(w, source, u32::MAX, "a wgmma's descriptor")?;
        if row.iter().any(|&v| v != row[0]) {
            return Err(FaultKind::Descriptor("the lanes of a warp hold different descriptors".into()).into());
        }
        Ok(row[0])
    }

    fn snapshot(&self, first: usize, list: &[u32; 4]) -> Step<Snapshot> {
        let mut out = Box::new(([[[0; 32]; 4]; 4], [[[0; 32]; 4]; 4]));
        for warp in 0..4 {
            for (i, &register) in list.iter().enumerate() {
                let (value, shadow) = self.get32(first + warp, crate::lower::program::S32::Reg(register))?;
                out.0[warp][i] = value;
                out.1[warp][i] = shadow.map_or([0; 32], |s| *s);
            }
        }
        Ok(out)
    }

    /// Computes the oldest pending operation of a warpgroup.
    pub(super) fn compute_next(&mut self, slot: usize, group: usize) -> Step<bool> {
        let Some(pending) = self.blocks[slot].warpgroups[group].queue.pop_front() else { return Ok(false) };
        let program: &Program = self.program;
        let Kind::Wgmma(op) = &program.ops[pending.arrival.pc as usize].kind else {
            unreachable!("pending operations are wgmma");
        };
        let first = slot * self.per_block + 4 * group;
        let mut d: [Vec<Row>; 4] = std::array::from_fn(|w| {
            op.d.iter().map(|&r| self.warps[first + w].r32.values[r as usize]).collect()
        });
        let a = match &pending.a {
            Some(registers) => Operand::Registers(&registers.0),
            None => Operand::Descriptor(pending.arrival.a),
        };
        let Arrival { b, scale_d, .. } = pending.arrival;
        let shared = &self.blocks[slot].shared;
        multiply(&op.shape, &mut d, a, b, scale_d, &shared.data, self.schedule.fp8)?;
        let undefined = if self.schedule.checks { undefined_products(shared, op, &pending)? } else { None };
        for (w, rows) in d.iter().enumerate() {
            let file = &mut self.warps[first + w].r32;
            for (i, (&register, row)) in op.d.iter().zip(rows).enumerate() {
                file.values[register as usize] = *row;
                let mut shadow = if scale_d { file.shadow(register) } else { [0; 32] };
                if let Some(undefined) = &undefined {
                    for lane in 0..32 {
                        shadow[lane] |= undefined[w][i][lane];
                    }
                }
                file.set_shadow(register, &shadow);
            }
        }
        Ok(true)
    }

    /// Gives back the registers of every group before `limit`.
    fn release_registers(&mut self, w: usize, limit: u64) {
        let program: &Program = self.program;
        let warp = &mut self.warps[w];
        let (done, kept): (Vec<_>, Vec<_>) =
            warp.wgmma_held.iter().copied().partition(|&(group, _)| group < limit);
        for (list, hold) in [(&done, false), (&kept, true)] {
            for &(_, pc) in list {
                let Kind::Wgmma(op) = &program.ops[pc as usize].kind else { continue };
                let mut mark = |register: u32, bit: u8, result: u8| {
                    let state = &mut warp.r32.states[register as usize];
                    *state = if hold { *state | bit } else { *state & !bit | result };
                };
                op.d.iter().for_each(|&d| mark(d, IN_FLIGHT, RESULT));
                op.a_registers().iter().for_each(|&a| mark(a, BEING_READ, 0));
            }
        }
        warp.wgmma_held = kept;
    }

    /// What ptxas does about registers in flight: everything is waited for.
    pub(super) fn force_wgmma(&mut self, w: usize) -> Step<()> {
        let (slot, group) = self.warpgroup(w);
        while self.compute_next(slot, group)? {}
        self.release_registers(w, u64::MAX);
        self.race_wait_wgmma(w, self.warps[w].wgmma_committed + 1);
        Ok(())
    }
}

/// A register of two wgmma that only a fence between them keeps apart: accumulators of one shape need none.
fn shared_register(before: &Wgmma, after: &Wgmma) -> Option<u32> {
    let chained = (before.shape.n, before.k) == (after.shape.n, after.k);
    let accumulators: &[u32] = if chained { &[] } else { &before.d };
    let (a, d) = (before.a_registers(), &before.d);
    let mine = after.d.iter().find(|r| accumulators.contains(r) || a.contains(r));
    mine.or_else(|| after.a_registers().iter().find(|r| d.contains(r))).copied()
}

fn multiply(
    shape: &model::Shape,
    d: &mut [Vec<Row>; 4],
    a: Operand<'_>,
    b: u64,
    scale_d: bool,
    shared: &[u8],
    mode: Fp8Accumulation,
) -> Step<()> {
    let [d0, d1, d2, d3] = d;
    model::execute(shape, [d0, d1, d2, d3], a, b, scale_d, shared, WINDOW, mode)
        .map_err(|what| FaultKind::Descriptor(what).into())
}

/// Which elements of the product depend on undefined operands: products of indicator matrices.
fn undefined_products(shared: &Shared, op: &Wgmma, pending: &Pending) -> Step<Option<[Vec<Row>; 4]>> {
    let mut clean = true;
    let mut look = |which, descriptor| -> Step<()> {
        let len = shared.data.len();
        let ranges = model::operand_ranges(&op.shape, which, descriptor, WINDOW, len)
            .map_err(FaultKind::Descriptor)?;
        clean &= ranges.iter().all(|r| shared.defined.all(r.start as usize, (r.end - r.start) as usize));
        Ok(())
    };
    look(Which::B, pending.arrival.b)?;
    match &pending.a {
        None => look(Which::A, pending.arrival.a)?,
        Some(registers) => clean &= registers.1.iter().flatten().flatten().all(|&s| s == 0),
    }
    if clean {
        return Ok(None);
    }
    let one: u32 = match op.shape.kind {
        // 1 in e4m3, 0.5 in e5m2: any positive number will do.
        Elements::E4m3E4m3 | Elements::E4m3E5m2 | Elements::E5m2E4m3 | Elements::E5m2E5m2 => 0x3838_3838,
        Elements::Bf16 => 0x3f80_3f80,
        Elements::F16 => 0x3c00_3c00,
        Elements::Other { a, .. } if a.bytes() == 1 => 0x3838_3838,
        Elements::Other { .. } => 0x3f80_3f80,
    };
    let width = op.shape.kind.bytes();
    let len = shared.data.len();
    let ones: Vec<u8> = (0..len).map(|i| one.to_le_bytes()[i % 4]).collect();
    let marks: Vec<u8> = (0..len)
        .map(|i| {
            let element = i / width * width;
            let defined = shared.defined.all(element, width.min(len - element));
            if defined { 0 } else { ones[i] }
        })
        .collect();
    let ones_a = [[[one; 32]; 4]; 4];
    let marks_a = pending.a.as_ref().map(|registers| {
        registers.1.map(|warp| {
            warp.map(|row| {
                row.map(|s| {
                    let step = 8 * width as u32;
                    let keep = ((1u64 << step) - 1) as u32;
                    (0..32 / step).fold(0, |m, i| {
                        let field = keep << (i * step);
                        m | if s & field != 0 { one & field } else { 0 }
                    })
                })
            })
        })
    });
    let n = op.shape.n / 2;
    let mut d: [Vec<Row>; 4] = std::array::from_fn(|_| vec![[0; 32]; n]);
    let mode = Fp8Accumulation::ExactF32;
    let (a, b) = (pending.arrival.a, pending.arrival.b);
    let mut shape = op.shape.clone();
    (shape.negate_a, shape.negate_b) = (false, false);
    if let Elements::Other { a, .. } = shape.kind {
        // Types of the same extent; an element of 32 bits counts as two.
        shape.kind = if a.bytes() == 1 { Elements::E4m3E4m3 } else { Elements::Bf16 };
    }
    match &marks_a {
        // A in registers, B in shared memory: two images of each.
        Some(marks_a) => {
            multiply(&shape, &mut d, Operand::Registers(marks_a), b, false, &ones, mode)?;
            multiply(&shape, &mut d, Operand::Registers(&ones_a), b, true, &marks, mode)?;
        }
        None => {
            marked(&shape, a, b, &marks, &ones, &mut d)?;
        }
    }
    let bits = |value: u32, bits: u32| if value == 0 { 0 } else { bits };
    if op.shape.kind.registers(op.shape.n) == n {
        d.iter_mut().flatten().flatten().for_each(|value| *value = bits(*value, u32::MAX));
        return Ok(Some(d));
    }
    // Two f16 in a register are neighbours in a row.
    Ok(Some(d.map(|rows| {
        let pair = |r: usize| -> Row {
            let first = 4 * (r / 2) + 2 * (r % 2);
            std::array::from_fn(|lane| {
                bits(rows[first][lane], 0xffff) | bits(rows[first + 1][lane], 0xffff_0000)
            })
        };
        (0..n / 2).map(pair).collect()
    })))
}

/// A marked × B ones + A ones × B marked, when both operands lie in shared memory: each operand's own ranges
/// take its image, the rest of the memory the other's.
fn marked(
    shape: &model::Shape,
    a: u64,
    b: u64,
    marks: &[u8],
    ones: &[u8],
    d: &mut [Vec<Row>; 4],
) -> Step<()> {
    for (which, descriptor, accumulate) in [(Which::A, a, false), (Which::B, b, true)] {
        let mut image = ones.to_vec();
        let ranges = model::operand_ranges(shape, which, descriptor, WINDOW, marks.len())
            .map_err(FaultKind::Descriptor)?;
        for range in ranges {
            let range = range.start as usize..range.end as usize;
            image[range.clone()].copy_from_slice(&marks[range]);
        }
        multiply(shape, d, Operand::Descriptor(a), b, accumulate, &image, Fp8Accumulation::ExactF32)?;
    }
    Ok(())
}
