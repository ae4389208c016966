//! Operations on registers, and where the others are.

use super::operands::{any, any64};
use super::registers::FULL;
use super::step::Flow;
use super::warp::{Split, Wait};
use super::{Grid, Step, shadows};
use crate::lower::program::{Kind, Logic, Op, Rule, Space, Special};
use crate::lower::rows;
use crate::row::{Row, Row64};

impl Grid<'_> {
    pub(super) fn execute(&mut self, w: usize, split: &mut Split, op: &Op, mask: u32) -> Step<Flow> {
        match &op.kind {
            Kind::Un32 { f, rule, d, a } => {
                let (a, sa) = self.get32(w, *a)?;
                let shadow = sa.and_then(|s| shadows::one(*rule, *f, &s, mask));
                self.put32(w, *d, &f(&a), mask, shadow.as_ref())?;
            }
            Kind::Bin32 { f, rule, d, a, b } => {
                let (a, b) = (self.get32(w, *a)?, self.get32(w, *b)?);
                let shadow = shadows::two(*rule, *f, &a, &b, mask);
                self.put32(w, *d, &f(&a.0, &b.0), mask, shadow.as_ref())?;
            }
            Kind::Tri32 { f, rule, d, a, b, c } => {
                let (a, b, c) = (self.get32(w, *a)?, self.get32(w, *b)?, self.get32(w, *c)?);
                let shadow = shadows::three(*rule, *f, [&a, &b, &c], mask);
                self.put32(w, *d, &f(&a.0, &b.0, &c.0), mask, shadow.as_ref())?;
            }
            Kind::Lop3 { d, a, b, c, lut } => {
                let (a, b, c) = (self.get32(w, *a)?, self.get32(w, *b)?, self.get32(w, *c)?);
                let row = rows::map3(&a.0, &b.0, &c.0, |a, b, c| rows::lop3(a, b, c, *lut));
                let shadow = shadows::lop3(&a, &b, &c, *lut, mask);
                self.put32(w, *d, &row, mask, shadow.as_ref())?;
            }
            Kind::Un64 { f, rule, d, a } => {
                let (a, sa) = self.get64(w, *a)?;
                let shadow = sa.and_then(|s| shadows::one64(*rule, *f, &s, mask));
                self.put64(w, *d, &f(&a), mask, shadow.as_ref())?;
            }
            Kind::Bin64 { f, rule, d, a, b } => {
                let (a, b) = (self.get64(w, *a)?, self.get64(w, *b)?);
                let shadow = shadows::two64(*rule, &a, &b, mask);
                self.put64(w, *d, &f(&a.0, &b.0), mask, shadow.as_ref())?;
            }
            Kind::Tri64 { f, d, a, b, c } => {
                let (a, b, c) = (self.get64(w, *a)?, self.get64(w, *b)?, self.get64(w, *c)?);
                let shadow = shadows::union64([&a.1, &b.1, &c.1], mask);
                self.put64(w, *d, &f(&a.0, &b.0, &c.0), mask, shadow.as_ref())?;
            }
            Kind::Shift64 { f, rule, d, a, b } => {
                let ((a, sa), (b, sb)) = (self.get64(w, *a)?, self.get32(w, *b)?);
                let shadow = match (sa, sb) {
                    (None, None) => None,
                    (Some(sa), None) if *rule != Rule::Spread => Some(f(&sa, &b)),
                    (sa, sb) => shadows::union64([&sa, &sb.map(|s| Box::new(s.map(u64::from))), &None], FULL),
                };
                self.put64(w, *d, &f(&a, &b), mask, shadow.filter(|s| any64(s, mask)).as_ref())?;
            }
            Kind::BitField { d, a, b, position, length, signed, wide } => {
                let a = self.get(w, *a)?;
                let b = b.map(|b| self.get(w, b)).transpose()?;
                let (p, l) = (self.get32(w, *position)?, self.get32(w, *length)?);
                let bits = if *wide { 64 } else { 32 };
                let mut row = [0; 32];
                let mut shadow = [0; 32];
                for i in 0..32 {
                    let unknown =
                        p.1.as_ref().is_some_and(|s| s[i] != 0) || l.1.as_ref().is_some_and(|s| s[i] != 0);
                    let sa = a.1.as_ref().map_or(0, |s| s[i]);
                    match &b {
                        Some(b) => {
                            row[i] = rows::bfi(a.0[i], b.0[i], p.0[i], l.0[i], bits);
                            shadow[i] = rows::bfi(sa, b.1.as_ref().map_or(0, |s| s[i]), p.0[i], l.0[i], bits);
                        }
                        None => {
                            row[i] = rows::bfe(a.0[i], p.0[i], l.0[i], *signed, bits);
                            shadow[i] = rows::bfe(sa, p.0[i], l.0[i], *signed, bits);
                        }
                    }
                    if unknown {
                        shadow[i] = u64::MAX;
                    }
                }
                self.put(w, *d, &row, mask, Some(&shadow).filter(|s| any64(s, mask)))?;
            }
            Kind::Narrow { f, d, a } => {
                let (a, sa) = self.get64(w, *a)?;
                let shadow =
                    sa.map(|s| s.map(|s| if s == 0 { 0 } else { u32::MAX })).filter(|s| any(s, mask));
                self.put32(w, *d, &f(&a), mask, shadow.as_ref())?;
            }
            Kind::Carry { .. } => self.carry(w, mask, &op.kind)?,
            Kind::MulWide { f, d, a, b, c } => {
                let (a, b, c) = (self.get32(w, *a)?, self.get32(w, *b)?, self.get64(w, *c)?);
                let wide = |s: &Option<Box<Row>>| s.as_ref().map(|s| Box::new(s.map(u64::from)));
                let shadow = if a.1.is_none() && b.1.is_none() && c.1.is_none() {
                    None
                } else {
                    shadows::union64([&wide(&a.1), &wide(&b.1), &c.1], mask)
                };
                self.put64(w, *d, &f(&a.0, &b.0, &c.0), mask, shadow.as_ref())?;
            }
            Kind::Convert { .. } => self.convert(w, &op.kind, mask)?,
            Kind::Set32 { f, d, other, a, b, with } => {
                let (a, b) = (self.get32(w, *a)?, self.get32(w, *b)?);
                let value = f(&a.0, &b.0);
                let defined = !lanes32(&a.1, &b.1);
                self.set(w, *d, *other, value, defined, *with, mask);
            }
            Kind::Set64 { f, d, other, a, b, with } => {
                let (a, b) = (self.get64(w, *a)?, self.get64(w, *b)?);
                let value = f(&a.0, &b.0);
                let defined = !lanes64(&a.1, &b.1);
                self.set(w, *d, *other, value, defined, *with, mask);
            }
            Kind::SetValue { .. } | Kind::SetPacked { .. } | Kind::SelectSign { .. } => {
                self.select(w, &op.kind, mask)?
            }
            Kind::Select32 { d, a, b, p } => {
                let (value, defined) = self.predicate(w, *p);
                let (a, b) = (self.get32(w, *a)?, self.get32(w, *b)?);
                let mut row = [0; 32];
                for i in 0..32 {
                    row[i] = if value >> i & 1 == 1 { a.0[i] } else { b.0[i] };
                }
                let shadow = if a.1.is_none() && b.1.is_none() && defined & mask == mask {
                    None
                } else {
                    let part = |s: &Option<Box<Row>>, i: usize| s.as_ref().map_or(0, |s| s[i]);
                    let mut out = [0; 32];
                    for i in 0..32 {
                        out[i] = match (defined >> i & 1, value >> i & 1) {
                            (0, _) => part(&a.1, i) | part(&b.1, i) | (a.0[i] ^ b.0[i]),
                            (_, 1) => part(&a.1, i),
                            _ => part(&b.1, i),
                        };
                    }
                    Some(out).filter(|s| any(s, mask))
                };
                self.put32(w, *d, &row, mask, shadow.as_ref())?;
            }
            Kind::Select64 { d, a, b, p } => {
                let (value, defined) = self.predicate(w, *p);
                let (a, b) = (self.get64(w, *a)?, self.get64(w, *b)?);
                let part = |s: &Option<Box<Row64>>, i: usize| s.as_ref().map_or(0, |s| s[i]);
                let (mut row, mut out) = ([0; 32], [0; 32]);
                for i in 0..32 {
                    row[i] = if value >> i & 1 == 1 { a.0[i] } else { b.0[i] };
                    out[i] = match (defined >> i & 1, value >> i & 1) {
                        (0, _) => part(&a.1, i) | part(&b.1, i) | (a.0[i] ^ b.0[i]),
                        (_, 1) => part(&a.1, i),
                        _ => part(&b.1, i),
                    };
                }
                self.put64(w, *d, &row, mask, Some(&out).filter(|s| any64(s, mask)))?;
            }
            Kind::PredLogic { logic, d, a, b } => {
                let (value, defined) = combine(*logic, self.predicate(w, *a), self.predicate(w, *b));
                self.warps[w].predicates[*d as usize].put(value, defined, mask);
            }
            Kind::PredMove { d, a } => {
                let (value, defined) = self.predicate(w, *a);
                self.warps[w].predicates[*d as usize].put(value, defined, mask);
            }
            Kind::PredImmediate { d, value } => {
                let value = if *value { FULL } else { 0 };
                self.warps[w].predicates[*d as usize].put(value, FULL, mask);
            }
            Kind::Pack { d, parts, bits } => {
                let (mut row, mut shadow) = ([0u64; 32], [0u64; 32]);
                for (i, part) in parts.iter().enumerate() {
                    let (value, undefined) = self.get(w, *part)?;
                    let keep = if *bits == 64 { u64::MAX } else { (1u64 << bits) - 1 };
                    for lane in 0..32 {
                        row[lane] |= (value[lane] & keep) << (*bits as usize * i);
                        shadow[lane] |=
                            undefined.as_ref().map_or(0, |u| u[lane] & keep) << (*bits as usize * i);
                    }
                }
                self.put(w, *d, &row, mask, Some(&shadow).filter(|s| any64(s, mask)))?;
            }
            Kind::Unpack { parts, a, bits } => {
                let (value, undefined) = self.get(w, *a)?;
                let keep = if *bits == 64 { u64::MAX } else { (1u64 << bits) - 1 };
                for (i, part) in parts.iter().enumerate() {
                    let by = *bits as usize * i;
                    let row = value.map(|v| v >> by & keep);
                    let shadow =
                        undefined.as_ref().map(|u| u.map(|v| v >> by & keep)).filter(|s| any64(s, mask));
                    self.put(w, *part, &row, mask, shadow.as_ref())?;
                }
            }
            Kind::Special { d, which } => {
                let row = self.special(w, *which);
                self.put(w, *d, &row, mask, None)?;
            }
            Kind::SpaceTest { p, a, space: Space::Shared } => self.in_shared(w, mask, *p, *a, false)?,
            Kind::SpaceTest { p, a, space: Space::Cluster } => self.in_shared(w, mask, *p, *a, true)?,
            Kind::SpaceTest { p, a, space } => {
                let (value, shadow) = self.get64(w, *a)?;
                let hits =
                    (0..32).fold(0, |m, i| m | u32::from(super::access::in_space(value[i], *space)) << i);
                let defined = shadow.map_or(FULL, |s| !(0..32).fold(0, |m, i| m | u32::from(s[i] != 0) << i));
                self.warps[w].predicates[*p as usize].put(hits, defined, mask);
            }
            Kind::VariableAddress { d, index, offset } => {
                let address = self.variables[*index as usize].wrapping_add(*offset as u64);
                self.put64(w, *d, &[address; 32], mask, None)?;
            }
            Kind::Load { space, ty, to, from } => self.load(w, mask, *space, *ty, to, from)?,
            Kind::Store { space, ty, to, from } => self.store(w, mask, *space, *ty, to, from)?,
            Kind::Atomic { .. } => self.atomic(w, mask, &op.kind)?,
            Kind::MapReplace { field, space, at, value } => {
                self.map_replace(w, mask, *field, *space, at, *value)?
            }
            Kind::MapCopy { to, from } => self.map_copy(w, mask, to, from)?,
            Kind::LoadMatrix { to, trans, at } => self.load_matrix(w, mask, to, *trans, at)?,
            Kind::StoreMatrix { from, trans, at } => self.store_matrix(w, mask, from, *trans, at)?,
            Kind::MapRank { d, a, rank } => {
                self.map_rank(w, mask, *d, *a, *rank)?;
            }
            Kind::RankOf { d, a } => self.rank_of(w, mask, *d, *a)?,
            Kind::ExplicitCluster { d } => {
                let value = if self.explicit_cluster { FULL } else { 0 };
                self.warps[w].predicates[*d as usize].put(value, FULL, mask);
            }
            Kind::Shuffle { members, .. }
            | Kind::Vote { members, .. }
            | Kind::Match { members, .. }
            | Kind::MatchAll { members, .. }
            | Kind::Redux { members, .. }
            | Kind::Elect { members, .. } => {
                if self.part_by_members(w, split, *members, mask)? {
                    return Ok(Flow::Again);
                }
                let members = self.members(w, *members, mask)?;
                let Some(mask) = self.assemble(w, split.pc, mask, members) else {
                    return Ok(Flow::Wait(Wait::Lanes(members)));
                };
                self.warp_wide(w, &op.kind, mask, members)?;
            }
            Kind::ActiveMask { d } => self.put32(w, *d, &[mask; 32], mask, None)?,
            Kind::WarpBarrier { members } => {
                if self.part_by_members(w, split, *members, mask)? {
                    return Ok(Flow::Again);
                }
                let members = self.members(w, *members, mask)?;
                return Ok(self.warp_barrier(w, mask, members));
            }
            Kind::Discard { at } => self.discard(w, mask, at)?,
            Kind::MapAcquire { at } => {
                self.map_acquire(w, mask, at)?;
                self.race_fence(w, op, mask);
            }
            Kind::Mma(mma) => self.multiply_synchronously(w, mask, mma)?,
            Kind::MmaDouble { rows, depth, d, a, b, c } => {
                self.multiply_doubles(w, mask, (*rows, *depth), d, [a, b, c])?
            }
            Kind::Fragment(fragment) => self.fragments(w, mask, fragment)?,
            Kind::External { which, arguments, result } => {
                self.external(w, mask, *which, arguments, *result)?
            }
            Kind::Transpose { d, a } => self.transpose(w, mask, *d, *a)?,
            Kind::Copy(copy) => self.copy(w, mask, copy)?,
            Kind::RegisterCount { count, more } => return self.set_registers(w, mask, *count, *more),
            Kind::GridWait if self.depends() => return Ok(Flow::Wait(Wait::Dependency)),
            Kind::GridWait => self.waited(w),
            Kind::GridRelease => {
                let slot = self.slot(w);
                self.blocks[slot].released = true;
            }
            Kind::Nothing => self.race_fence(w, op, mask),
            Kind::Yield => return Ok(Flow::Yield),
            _ => return self.synchronise(w, split, op, mask),
        }
        Ok(Flow::Next)
    }

    fn set(
        &mut self,
        w: usize,
        d: u32,
        other: Option<u32>,
        value: u32,
        defined: u32,
        with: Option<(Logic, crate::lower::program::SP)>,
        mask: u32,
    ) {
        let first = self.combined(w, value, defined, with);
        let second = self.combined(w, !value, defined, with);
        let predicates = &mut self.warps[w].predicates;
        predicates[d as usize].put(first.0, first.1, mask);
        if let Some(other) = other {
            predicates[other as usize].put(second.0, second.1, mask);
        }
    }

    /// A comparison's result together with the predicate it is combined with.
    pub(super) fn combined(
        &self,
        w: usize,
        value: u32,
        defined: u32,
        with: Option<(Logic, crate::lower::program::SP)>,
    ) -> (u32, u32) {
        match with {
            Some((logic, p)) => combine(logic, (value, defined), self.predicate(w, p)),
            None => (value, defined),
        }
    }

    fn special(&self, w: usize, which: Special) -> Row64 {
        let lanes = |f: &dyn Fn(u32) -> u32| {
            let mut row = [0; 32];
            for (i, slot) in row.iter_mut().enumerate() {
                *slot = u64::from(f(i as u32));
            }
            row
        };
        let same = |value: u32| [u64::from(value); 32];
        let [tx, ty, _] = self.threads;
        let block = &self.blocks[self.slot(w)];
        let first = 32 * self.warps[w].index;
        match which {
            Special::Tid(0) => lanes(&|i| (first + i) % tx),
            Special::Tid(1) => lanes(&|i| (first + i) / tx % ty),
            Special::Tid(_) => lanes(&|i| (first + i) / tx / ty),
            Special::Ntid(axis) => same(self.threads[axis]),
            Special::Ctaid(axis) => same(block.index[axis]),
            Special::Clusterid(axis) => same(block.index[axis] / self.cluster[axis]),
            Special::ClusterCtaid(axis) => same(block.index[axis] % self.cluster[axis]),
            Special::ClusterNctaid(axis) => same(self.cluster[axis]),
            Special::ClusterCtarank => same(block.rank),
            Special::ClusterNctarank => same(self.cluster_size() as u32),
            Special::Nctaid(axis) => same(self.size[axis]),
            Special::Nclusterid(axis) => same(self.size[axis] / self.cluster[axis]),
            Special::Laneid => lanes(&|i| i),
            Special::Warpid => same(self.warps[w].index),
            Special::Nwarpid => same(self.per_block as u32),
            Special::Smid => same((block.linear % u64::from(self.profile.sms)) as u32),
            Special::Nsmid => same(self.profile.sms),
            Special::Gridid => same(0),
            Special::LanemaskEq => lanes(&|i| 1 << i),
            Special::LanemaskLt => lanes(&|i| (1 << i) - 1),
            Special::LanemaskLe => lanes(&|i| (1 << i) | ((1 << i) - 1)),
            Special::LanemaskGt => lanes(&|i| !((1 << i) | ((1 << i) - 1))),
            Special::LanemaskGe => lanes(&|i| !((1 << i) - 1)),
            Special::Clock => [self.clock; 32],
            Special::ClockHigh => [self.clock >> 32; 32],
            Special::GridWorkspace(half) => same((self.workspace.unwrap_or(0) >> (32 * half)) as u32),
            Special::DynamicShared => same(self.dynamic_shared),
            Special::TotalShared => same(block.shared.data.len() as u32),
        }
    }
}

fn combine(logic: Logic, (a, da): (u32, u32), (b, db): (u32, u32)) -> (u32, u32) {
    match logic {
        Logic::And => (a & b, da & db | da & !a | db & !b),
        Logic::Or => (a | b, da & db | da & a | db & b),
        Logic::Xor => (a ^ b, da & db),
    }
}

/// Lanes in which either value has an undefined bit.
fn lanes32(a: &Option<Box<Row>>, b: &Option<Box<Row>>) -> u32 {
    [a, b].into_iter().flatten().fold(0, |m, s| m | (0..32).fold(0, |m, i| m | u32::from(s[i] != 0) << i))
}

fn lanes64(a: &Option<Box<Row64>>, b: &Option<Box<Row64>>) -> u32 {
    [a, b].into_iter().flatten().fold(0, |m, s| m | (0..32).fold(0, |m, i| m | u32::from(s[i] != 0) << i))
}
