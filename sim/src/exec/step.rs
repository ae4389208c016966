//! One operation after the other.

use super::operands::{any, any64};
use super::registers::FULL;
use super::warp::{Split, Wait};
use super::{Grid, Step, Trouble, shadows};
use crate::fault::FaultKind;
use crate::lower::program::{
    AT_RETURN, Dst, Kind, Logic, Op, Program, Rule, S32, Shuffle, Space, Special, Src, Vote,
};
use crate::lower::rows;
use crate::row::{Row, Row64};
use crate::schedule::InFlight;

/// What a split does after an operation.
pub(super) enum Flow {
    /// The next operation.
    Next,
    /// Waits; whoever ends the wait may move it on.
    Wait(Wait),
    /// Lets others run, then the next operation.
    Yield,
}

impl Grid<'_> {
    /// Runs a split until it blocks, ends, or has had its turn; whether it gave up its turn by polling in vain.
    pub(super) fn run_split(
        &mut self,
        w: usize,
        state: &mut Option<Split>,
        quantum: u32,
        steps: &mut u32,
    ) -> Step<bool> {
        let program: &Program = self.program;
        while *steps < quantum {
            let Some(split) = state.as_mut() else { return Ok(false) };
            if split.pc == split.meet {
                if !self.warps[w].arrive(split) {
                    *state = None;
                }
                continue;
            }
            if split.pc == AT_RETURN {
                self.leave(w, split)?;
                continue;
            }
            let op = &program.ops[split.pc as usize];
            self.current_pc = split.pc;
            self.profile_step(w, split.pc, split.mask);
            self.counters.instructions += 1;
            self.counters.by_class[op.class as usize] += 1;
            self.clock += 1;
            *steps += 1;
            let mut mask = split.mask;
            if let Some(guard) = op.guard {
                let used_as =
                    if matches!(op.kind, Kind::Branch { .. }) { "a branch condition" } else { "a guard" };
                mask = self.decision(w, guard, mask, used_as)?;
                if mask == 0 {
                    split.pc += 1;
                    continue;
                }
            }
            match &op.kind {
                Kind::Branch { target } => {
                    if mask == split.mask {
                        split.pc = *target;
                    } else {
                        self.warps[w].diverge(split, mask, *target, op.meet);
                    }
                }
                Kind::BranchIndexed { index, targets } => {
                    self.branch_indexed(w, split, mask, *index, targets, op)?
                }
                Kind::Return => {
                    if mask == split.mask {
                        self.leave(w, split)?;
                    } else {
                        self.warps[w].diverge(split, mask, AT_RETURN, op.meet);
                    }
                }
                Kind::Exit => {
                    self.leaves_nothing(w, mask)?;
                    split.mask &= !mask;
                    split.pc += 1;
                    let gone = split.mask == 0;
                    if gone {
                        *state = None;
                    }
                    self.warps[w].exit(mask);
                    self.cluster_exit(w, mask);
                    for other in &mut self.warps[w].splits {
                        if matches!(other.wait, Wait::Lanes(_)) {
                            other.wait = Wait::Nothing;
                        }
                    }
                    if self.warps[w].live == 0 {
                        self.same_registers(w)?;
                        self.warp_left(w)?;
                    }
                }
                Kind::Call { target, arguments, .. } => {
                    if mask != split.mask {
                        // The lanes that call part from the others, and meet them behind the call.
                        let here = split.pc;
                        self.warps[w].diverge(split, mask, here, here + 1);
                        continue;
                    }
                    self.copy_local(w, mask, arguments);
                    let at = split.pc;
                    self.warps[w].call(split, at, *target);
                }
                Kind::Trap => {
                    return Err(Trouble { kind: FaultKind::Trap, lane: Some(mask.trailing_zeros()) });
                }
                _ => match self.execute(w, split, op, mask) {
                    Ok(Flow::Next) => {
                        split.pc += 1;
                        if op.poll && self.polls_in_vain(w, op, mask) {
                            return Ok(true);
                        }
                    }
                    Ok(Flow::Yield) => {
                        split.pc += 1;
                        return Ok(true);
                    }
                    Ok(Flow::Wait(wait)) => {
                        split.wait = wait;
                        self.counters.waits += 1;
                        return Ok(false);
                    }
                    Err(trouble) => {
                        let register = match (&trouble.kind, self.schedule.in_flight) {
                            (FaultKind::InFlight { register }, InFlight::Compatible) => register.clone(),
                            _ => return Err(trouble),
                        };
                        self.force_wgmma(w)?;
                        self.warnings
                            .insert(format!("serialised: {register} touched before the covering wgmma wait"));
                    }
                },
            }
        }
        Ok(false)
    }

    /// Whether a load or atomic at this operation brought what it brought the last time.
    fn polls_in_vain(&mut self, w: usize, op: &Op, mask: u32) -> bool {
        let to: Vec<Dst> = match &op.kind {
            Kind::Load { to, .. } => to.clone(),
            Kind::Atomic { parts, .. } => parts.iter().map(|&(d, _)| d).collect(),
            _ => return false,
        };
        let mut seen = u64::from(mask);
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            for &d in &to {
                let value = match d {
                    Dst::R32(d) | Dst::R16(d) => u64::from(self.warps[w].r32.values[d as usize][lane]),
                    Dst::R64(d) => self.warps[w].r64.values[d as usize][lane],
                    Dst::Sink => 0,
                };
                seen = (seen ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            }
        }
        self.warps[w].polled(self.current_pc, seen)
    }

    fn leave(&mut self, w: usize, split: &mut Split) -> Step<()> {
        let program: &Program = self.program;
        if let Some(op) = self.warps[w].leave(split)
            && let Kind::Call { results, .. } = &program.ops[op as usize].kind
        {
            self.copy_local(w, split.mask, results);
        }
        Ok(())
    }

    fn branch_indexed(
        &mut self,
        w: usize,
        split: &mut Split,
        mask: u32,
        index: S32,
        targets: &[u32],
        op: &Op,
    ) -> Step<()> {
        let row = self.sure32(w, index, mask, "a branch condition")?;
        if let Some(lane) = (0..32).find(|&i| mask >> i & 1 == 1 && row[i] as usize >= targets.len()) {
            let what = format!("branch index {} of {} targets", row[lane], targets.len());
            return Err(Trouble { kind: FaultKind::Barrier(what), lane: Some(lane as u32) });
        }
        let mut rest = mask;
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let same =
                (0..32).filter(|&i| rest >> i & 1 == 1 && row[i] == row[first]).fold(0, |m, i| m | 1 << i);
            rest &= !same;
            let target = targets[row[first] as usize];
            if same == split.mask {
                split.pc = target;
            } else {
                let here = split.pc;
                self.warps[w].diverge(split, same, target, op.meet);
                if rest != 0 {
                    split.pc = here;
                }
            }
        }
        Ok(())
    }

    fn execute(&mut self, w: usize, split: &mut Split, op: &Op, mask: u32) -> Step<Flow> {
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
                let members = self.members(w, *members, mask)?;
                let Some(mask) = self.assemble(w, split.pc, mask, members) else {
                    return Ok(Flow::Wait(Wait::Lanes(members)));
                };
                self.warp_wide(w, &op.kind, mask, members)?;
            }
            Kind::ActiveMask { d } => self.put32(w, *d, &[mask; 32], mask, None)?,
            Kind::WarpBarrier { members } => {
                let members = self.members(w, *members, mask)?;
                return Ok(self.warp_barrier(w, mask, members));
            }
            Kind::Discard { at } => self.discard(w, mask, at)?,
            Kind::MapAcquire { at } => {
                self.map_acquire(w, mask, at)?;
                self.race_fence(w, op, mask);
            }
            Kind::Mma(mma) => self.multiply_synchronously(w, mask, mma)?,
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

    /// The member mask of a warp-wide operation; it must name every lane that executes it. Hardware goes on when it does
    /// not, as if it had.
    fn members(&mut self, w: usize, members: S32, mask: u32) -> Step<u32> {
        let row = self.sure32(w, members, mask, "a member mask")?;
        let wanted = row[mask.trailing_zeros() as usize];
        let Some(lane) = (0..32).find(|&i| mask >> i & 1 == 1 && row[i] >> i & 1 == 0) else {
            return Ok(wanted);
        };
        if self.schedule.in_flight == InFlight::Strict {
            let kind = FaultKind::Divergence { present: mask, wanted: row[lane] };
            return Err(Trouble { kind, lane: Some(lane as u32) });
        }
        let op = &self.program.ops[self.current_pc as usize];
        let opcode = &self.program.opcodes[op.opcode as usize];
        self.warnings.insert(format!(
            "{opcode} (PTX line {}) by lanes that its member mask {:#x} does not name",
            op.line, row[lane]
        ));
        Ok(wanted | mask)
    }

    /// Lanes that execute a warp-wide operation together, or none while some are missing.
    fn assemble(&mut self, w: usize, pc: u32, mask: u32, members: u32) -> Option<u32> {
        let warp = &mut self.warps[w];
        let wanted = members & warp.live;
        if wanted & !mask == 0 {
            return Some(mask);
        }
        let waits = |s: &&mut Split| s.pc == pc && s.wait == Wait::Lanes(members);
        let present = warp.splits.iter_mut().filter(waits).fold(mask, |m, s| m | s.mask);
        if wanted & !present != 0 {
            return None;
        }
        for split in warp.splits.iter_mut().filter(waits) {
            split.wait = Wait::Nothing;
            split.pc += 1;
        }
        Some(present)
    }

    fn warp_barrier(&mut self, w: usize, mask: u32, members: u32) -> Flow {
        let program: &Program = self.program;
        let warp = &mut self.warps[w];
        let wanted = members & warp.live;
        let waits = |s: &&mut Split| {
            s.wait == Wait::Lanes(members)
                && matches!(program.ops[s.pc as usize].kind, Kind::WarpBarrier { .. })
        };
        let present = warp.splits.iter_mut().filter(waits).fold(mask, |m, s| m | s.mask);
        if wanted & !present != 0 {
            return Flow::Wait(Wait::Lanes(members));
        }
        for split in warp.splits.iter_mut().filter(waits) {
            split.wait = Wait::Nothing;
            split.pc += 1;
        }
        self.race_warp_barrier(w, present);
        Flow::Next
    }

    fn warp_wide(&mut self, w: usize, kind: &Kind, mask: u32, members: u32) -> Step<()> {
        match kind {
            Kind::Shuffle { mode, d, p, a, b, c, .. } => {
                let (value, shadow) = self.get32(w, *a)?;
                let b = self.sure32(w, *b, mask, "a shuffle's lane")?;
                let c = self.sure32(w, *c, mask, "a shuffle's clamp")?;
                let (mut row, mut undefined, mut valid) = ([0; 32], [0; 32], 0);
                for i in 0..32usize {
                    if mask >> i & 1 == 0 {
                        continue;
                    }
                    let segment = c[i] >> 8 & 31;
                    let lane = i as u32;
                    let limit = (lane & segment) | (c[i] & 31 & !segment);
                    let by = b[i] & 31;
                    let (from, inside) = match mode {
                        Shuffle::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= limit as i32),
                        Shuffle::Down => (lane + by, lane + by <= limit),
                        Shuffle::Bfly => (lane ^ by, lane ^ by <= limit),
                        Shuffle::Idx => {
                            let from = (lane & segment) | (by & !segment);
                            (from, from <= limit)
                        }
                    };
                    let inside = match mode {
                        Shuffle::Bfly => (lane ^ by) <= limit,
                        _ => inside,
                    };
                    let from = if inside { from as usize } else { i };
                    valid |= u32::from(inside) << i;
                    row[i] = value[from];
                    undefined[i] = shadow.as_ref().map_or(0, |s| s[from]);
                    // A lane that does not take part has no value to give.
                    if mask >> from & 1 == 0 {
                        undefined[i] = u32::MAX;
                    }
                }
                let undefined = Some(&undefined).filter(|s| any(s, mask));
                self.put32(w, *d, &row, mask, undefined)?;
                if let Some(p) = p {
                    self.warps[w].predicates[*p as usize].put(valid, FULL, mask);
                }
            }
            Kind::Vote { vote, d, a, .. } => {
                let value = self.decision(w, *a, mask, "a vote")?;
                let result = match vote {
                    Vote::Ballot => return self.put32(w, *d, &[value; 32], mask, None),
                    Vote::All => value == mask,
                    Vote::Any => value != 0,
                    Vote::Uni => value == mask || value == 0,
                };
                self.warps[w].predicates[*d as usize].put(if result { FULL } else { 0 }, FULL, mask);
            }
            Kind::Match { d, a, .. } => {
                let (value, shadow) = self.get(w, *a)?;
                if let Some(shadow) = shadow {
                    self.demand(&shadow, mask, "a match")?;
                }
                let mut row = [0; 32];
                for i in 0..32 {
                    row[i] = (0..32)
                        .filter(|&j| mask >> j & 1 == 1 && value[j] == value[i])
                        .fold(0, |m, j| m | 1 << j);
                }
                self.put32(w, *d, &row, mask, None)?;
            }
            Kind::MatchAll { d, p, a, .. } => {
                let (value, shadow) = self.get(w, *a)?;
                if let Some(shadow) = shadow {
                    self.demand(&shadow, mask, "a match")?;
                }
                let first = value[mask.trailing_zeros() as usize & 31];
                let agree = (0..32).all(|i| mask >> i & 1 == 0 || value[i] == first);
                self.put32(w, *d, &[if agree { mask } else { 0 }; 32], mask, None)?;
                if let Some(p) = p {
                    self.warps[w].predicates[*p as usize].put(if agree { FULL } else { 0 }, FULL, mask);
                }
            }
            Kind::Redux { f, d, a, .. } => {
                let (value, shadow) = self.get32(w, *a)?;
                let result = (0..32).filter(|&i| mask >> i & 1 == 1).map(|i| value[i]).reduce(f).unwrap_or(0);
                let undefined = shadow.filter(|s| any(s, mask)).map(|_| [u32::MAX; 32]);
                self.put32(w, *d, &[result; 32], mask, undefined.as_ref())?;
            }
            Kind::Elect { d, p, .. } => {
                let leader = (members & mask).trailing_zeros();
                if let Some(d) = d {
                    self.put32(w, *d, &[leader; 32], mask, None)?;
                }
                self.warps[w].predicates[*p as usize].put(1 << leader, FULL, mask);
            }
            _ => unreachable!("only warp-wide operations come here"),
        }
        Ok(())
    }

    /// An aligned operation: every lane that has not exited takes part.
    pub(super) fn together(&self, w: usize, mask: u32) -> Step<()> {
        let live = self.warps[w].live;
        if mask == live { Ok(()) } else { Err(FaultKind::Divergence { present: mask, wanted: live }.into()) }
    }

    fn copy_local(&mut self, w: usize, mask: u32, moves: &[(u32, u32, u32)]) {
        let size = self.program.local_bytes as usize;
        let warp = &mut self.warps[w];
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            for &(from, to, bytes) in moves {
                let (from, to) = (lane * size + from as usize, lane * size + to as usize);
                warp.local.copy_within(from..from + bytes as usize, to);
                for i in 0..bytes as usize {
                    let defined = warp.local_defined.get(from + i, 1) == 1;
                    warp.local_defined.put(to + i, 1, defined);
                }
            }
        }
    }

    /// A value and its undefined bits.
    pub(super) fn get_bits(&self, w: usize, s: Src) -> Step<(Row64, Row64)> {
        let (row, shadow) = self.get(w, s)?;
        Ok((row, shadow.map_or([0; 32], |s| *s)))
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
