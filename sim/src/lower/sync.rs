//! Barriers, warp-wide operations, bulk copies and wgmma.

use super::arithmetic::Spelling;
use super::program::{Arrive, Dst, Kind, S32, ScaleD, Shuffle, Vote, Wgmma, WgmmaA};
use super::{Lowered, Lowering};
use crate::ast::{Instruction, Operand};
use crate::counters::Class;
use crate::mbarrier::Mbarrier;
use crate::mma::{Accumulator, Element};
use crate::wgmma::{Kind as Elements, Shape};

impl Lowering<'_> {
    pub(super) fn sync(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let need = |count: usize| if o.len() < count { self.unknown::<()>(i) } else { Ok(()) };
        let kind = match s.name {
            "bar" | "barrier" => return self.barrier(i, s),
            "griddepcontrol" => match s.modifiers.as_slice() {
                ["wait"] => return Ok((Kind::GridWait, Class::Barrier)),
                ["launch_dependents"] => return Ok((Kind::GridRelease, Class::Barrier)),
                _ => return self.unknown(i),
            },
            "fence" if s.has("tensormap::generic") && s.has("acquire") => {
                need(1)?;
                return Ok((Kind::MapAcquire { at: self.address(&o[0])? }, Class::Barrier));
            }
            "cp" if s.modifiers.first() == Some(&"reduce") => {
                return Ok((self.bulk_reduction(i, s)?, Class::Bulk));
            }
            "discard" if o.len() == 2 => {
                return Ok((Kind::Discard { at: self.address(&o[0])? }, Class::Global));
            }
            "fence" | "membar" | "applypriority" | "pmevent" => {
                return Ok((Kind::Nothing, Class::Barrier));
            }
            "nanosleep" => return Ok((Kind::Yield, Class::Barrier)),
            "mbarrier" => return Ok((self.mbarrier(i, s)?, Class::Barrier)),
            "setmaxnreg" => {
                need(1)?;
                let Operand::Integer(count) = o[0] else { return self.unknown(i) };
                if !(24..=256).contains(&count) || count % 8 != 0 {
                    return self.error(format!("setmaxnreg {count}: a multiple of 8 from 24 to 256"));
                }
                let more = match s.modifiers.first() {
                    Some(&"inc") => true,
                    Some(&"dec") => false,
                    _ => return self.unknown(i),
                };
                return Ok((Kind::RegisterCount { count: count as u32, more }, Class::Other));
            }
            "wmma" => return Ok((self.wmma(i, s)?, Class::Tensor)),
            "mma" if s.last() == "f64" => return Ok((self.mma_double(i, s)?, Class::Tensor)),
            "mma" => return Ok((self.mma(i, s)?, Class::Tensor)),
            "movmatrix" => return Ok((self.transposition(i, s)?, Class::Warp)),
            "cp" if s.modifiers.first() == Some(&"async") && s.modifiers.get(1) != Some(&"bulk") => {
                return Ok((self.copy(i, s)?, Class::Global));
            }
            "cp" => return Ok((self.bulk(i, s)?, Class::Bulk)),
            "wgmma" => {
                let class =
                    if s.modifiers.first() == Some(&"mma_async") { Class::Tensor } else { Class::Barrier };
                return Ok((self.wgmma(i, s)?, class));
            }
            "shfl" => {
                need(5)?;
                let mode = match s.modifiers.get(1) {
                    Some(&"up") => Shuffle::Up,
                    Some(&"down") => Shuffle::Down,
                    Some(&"bfly") => Shuffle::Bfly,
                    Some(&"idx") => Shuffle::Idx,
                    _ => return self.unknown(i),
                };
                let (d, p) = match &o[0] {
                    Operand::Pair(d, p) if **p == Operand::Sink => (self.d32(d)?, None),
                    Operand::Pair(d, p) => (self.d32(d)?, Some(self.predicate(p)?)),
                    d => (self.d32(d)?, None),
                };
                Kind::Shuffle {
                    mode,
                    d,
                    p,
                    a: self.s32(&o[1])?,
                    b: self.s32(&o[2])?,
                    c: self.s32(&o[3])?,
                    members: self.s32(&o[4])?,
                }
            }
            "vote" => {
                need(3)?;
                let vote = match s.modifiers.get(1) {
                    Some(&"all") => Vote::All,
                    Some(&"any") => Vote::Any,
                    Some(&"uni") => Vote::Uni,
                    Some(&"ballot") => Vote::Ballot,
                    _ => return self.unknown(i),
                };
                let d = if vote == Vote::Ballot { self.d32(&o[0])? } else { self.predicate(&o[0])? };
                Kind::Vote { vote, d, a: self.sp(&o[1])?, members: self.s32(&o[2])? }
            }
            "match" => {
                need(3)?;
                let a = self.src(&o[1], if s.has("b64") { 8 } else { 4 })?;
                let members = self.s32(&o[2])?;
                match (s.modifiers.first(), &o[0]) {
                    (Some(&"any"), d) => Kind::Match { d: self.d32(d)?, a, members },
                    (Some(&"all"), Operand::Pair(d, p)) => {
                        Kind::MatchAll { d: self.d32(d)?, p: Some(self.predicate(p)?), a, members }
                    }
                    (Some(&"all"), d) => Kind::MatchAll { d: self.d32(d)?, p: None, a, members },
                    _ => return self.unknown(i),
                }
            }
            "redux" => {
                need(3)?;
                let f: fn(u32, u32) -> u32 = match (s.modifiers.get(1).copied(), s.last()) {
                    (Some("add"), _) => u32::wrapping_add,
                    (Some("min"), "u32") => u32::min,
                    (Some("max"), "u32") => u32::max,
                    (Some("min"), "s32") => |a, b| (a as i32).min(b as i32) as u32,
                    (Some("max"), "s32") => |a, b| (a as i32).max(b as i32) as u32,
                    (Some("and"), _) => |a, b| a & b,
                    (Some("or"), _) => |a, b| a | b,
                    (Some("xor"), _) => |a, b| a ^ b,
                    _ => return self.unknown(i),
                };
                Kind::Redux { f, d: self.d32(&o[0])?, a: self.s32(&o[1])?, members: self.s32(&o[2])? }
            }
            "elect" => {
                need(2)?;
                let (d, p) = match &o[0] {
                    Operand::Pair(d, p) if **d == Operand::Sink => (None, self.predicate(p)?),
                    Operand::Pair(d, p) => (Some(self.d32(d)?), self.predicate(p)?),
                    _ => return self.unknown(i),
                };
                Kind::Elect { d, p, members: self.s32(&o[1])? }
            }
            "activemask" => {
                need(1)?;
                Kind::ActiveMask { d: self.d32(&o[0])? }
            }
            _ => return self.unknown(i),
        };
        Ok((kind, Class::Warp))
    }

    fn barrier(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let kind = if s.has("warp") {
            let Some(members) = o.first() else { return self.unknown(i) };
            Kind::WarpBarrier { members: self.s32(members)? }
        } else if s.has("cluster") {
            let aligned = s.has("aligned");
            if s.has("arrive") { Kind::ClusterArrive { aligned } } else { Kind::ClusterWait { aligned } }
        } else {
            // `bar` is always aligned; `barrier` says so.
            let aligned = s.name == "bar" || s.has("aligned");
            if s.has("red") {
                let vote = match s.modifiers.iter().find(|m| matches!(**m, "popc" | "and" | "or")) {
                    Some(&"popc") => Vote::Ballot,
                    Some(&"and") => Vote::All,
                    _ => Vote::Any,
                };
                let (d, id, threads, p) = match &o[..] {
                    [d, id, threads, p] => (d, id, Some(self.s32(threads)?), p),
                    [d, id, p] => (d, id, None, p),
                    _ => return self.unknown(i),
                };
                let d = if vote == Vote::Ballot { self.d32(d)? } else { self.predicate(d)? };
                Kind::BarrierReduce { vote, id: self.s32(id)?, threads, d, p: self.sp(p)?, aligned }
            } else {
                let wait = !s.has("arrive");
                let Some(id) = o.first() else { return self.unknown(i) };
                let threads = o.get(1).map(|t| self.s32(t)).transpose()?;
                Kind::Barrier { id: self.s32(id)?, threads, wait, aligned }
            }
        };
        Ok((kind, Class::Barrier))
    }

    fn mbarrier(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let o = &i.operands;
        let need = |count: usize| if o.len() < count { self.unknown::<()>(i) } else { Ok(()) };
        let optional = |at: usize, otherwise: u32| match o.get(at) {
            Some(operand) => self.s32(operand),
            None => Ok(S32::Imm(otherwise)),
        };
        need(1)?;
        // Without a space the address is generic, and may be anybody's in the cluster.
        let peers = !s.has("shared") && !s.has("shared::cta");
        Ok(match s.modifiers[0] {
            "init" => {
                need(2)?;
                Kind::MbarrierInit { at: self.address(&o[0])?, count: self.s32(&o[1])? }
            }
            "inval" => Kind::MbarrierInvalidate { at: self.address(&o[0])? },
            "expect_tx" => {
                need(2)?;
                Kind::MbarrierExpect { at: self.address(&o[0])?, bytes: self.s32(&o[1])?, peers }
            }
            "complete_tx" => {
                need(2)?;
                Kind::MbarrierComplete { at: self.address(&o[0])?, bytes: self.s32(&o[1])?, peers }
            }
            "pending_count" => {
                need(2)?;
                let f: fn(&crate::row::Row64) -> crate::row::Row = |a| a.map(Mbarrier::pending_count);
                Kind::Narrow { f, d: self.d32(&o[0])?, a: self.s64(&o[1])? }
            }
            "arrive" | "arrive_drop" => {
                // The remote form has no state and may omit the sink.
                let (state, at) = match &o[0] {
                    Operand::Address(..) => (None, 0),
                    Operand::Sink => (None, 1),
                    d => (Some(self.d64(d)?), 1),
                };
                need(at + 1)?;
                let how = if s.has("expect_tx") {
                    need(at + 2)?;
                    Arrive::ExpectTx { bytes: self.s32(&o[at + 1])? }
                } else {
                    Arrive::Plain { count: optional(at + 1, 1)? }
                };
                Kind::MbarrierArrive {
                    at: self.address(&o[at])?,
                    state,
                    how,
                    drop: s.modifiers[0] == "arrive_drop",
                    goes_on: s.has("noComplete"),
                    peers,
                }
            }
            "try_wait" | "test_wait" => {
                need(3)?;
                let blocking = s.modifiers[0] == "try_wait";
                let p = self.predicate(&o[0])?;
                let at = self.address(&o[1])?;
                if s.has("parity") {
                    Kind::MbarrierWait { at, p, parity: self.s32(&o[2])?, blocking }
                } else {
                    Kind::MbarrierWaitState { at, p, state: self.s64(&o[2])?, blocking }
                }
            }
            _ => return self.unknown(i),
        })
    }

    fn bulk(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let o = &i.operands;
        let m = &s.modifiers;
        let need = |count: usize| if o.len() < count { self.unknown::<()>(i) } else { Ok(()) };
        if m.first() != Some(&"async") || m.get(1) != Some(&"bulk") {
            return self.unknown(i);
        }
        if m.iter().any(|m| m.starts_with("im2col")) {
            return self
                .error(format!("`{}`: im2col copies are not simulated; tiled ones are", i.opcode.join(".")));
        }
        match m.get(2) {
            Some(&"commit_group") => return Ok(Kind::BulkCommit),
            Some(&"wait_group") => {
                need(1)?;
                let Operand::Integer(pending) = o[0] else { return self.unknown(i) };
                return Ok(Kind::BulkWait { pending: pending as u32, read: s.has("read") });
            }
            Some(&"prefetch") if m.get(3) == Some(&"tensor") => {
                need(1)?;
                let Operand::Tensor(map, list) = &o[0] else { return self.unknown(i) };
                let coordinates = list.iter().map(|c| self.s32(c)).collect::<Lowered<Vec<_>>>()?;
                return Ok(Kind::TensorPrefetch { map: self.address(map)?, coordinates });
            }
            Some(&"prefetch") => {
                need(2)?;
                return Ok(Kind::BulkPrefetch { from: self.address(&o[0])?, bytes: self.s32(&o[1])? });
            }
            _ => {}
        }
        // The mask follows the barrier.
        let multicast = |at: usize| match (s.has("multicast::cluster"), o.get(at)) {
            (true, Some(mask)) => self.s32(mask).map(Some),
            (true, None) => self.unknown(i),
            (false, _) => Ok(None),
        };
        let load = s.has("mbarrier::complete_tx::bytes");
        let tensor = m.get(2) == Some(&"tensor");
        let coordinates = |operand: &Operand| -> Lowered<(super::program::Address, Vec<S32>)> {
            let Operand::Tensor(map, list) = operand else { return self.error("a tensor operand expected") };
            let list = list.iter().map(|c| self.s32(c)).collect::<Lowered<Vec<_>>>()?;
            Ok((self.address(map)?, list))
        };
        Ok(match (tensor, load) {
            (true, true) => {
                need(3)?;
                let (map, coordinates) = coordinates(&o[1])?;
                let (to, barrier) = (self.address(&o[0])?, self.address(&o[2])?);
                Kind::TensorLoad { to, map, coordinates, barrier, multicast: multicast(3)? }
            }
            (true, false) if s.has("bulk_group") => {
                need(2)?;
                let (map, coordinates) = coordinates(&o[0])?;
                Kind::TensorStore { map, coordinates, from: self.address(&o[1])?, reduce: None }
            }
            (false, true) if s.has("global") => {
                need(4)?;
                Kind::BulkLoad {
                    to: self.address(&o[0])?,
                    from: self.address(&o[1])?,
                    bytes: self.s32(&o[2])?,
                    barrier: self.address(&o[3])?,
                    multicast: multicast(4)?,
                }
            }
            (false, true) if m.get(2..4) == Some(&["shared::cluster", "shared::cta"][..]) => {
                need(4)?;
                Kind::BulkSend {
                    to: self.address(&o[0])?,
                    from: self.address(&o[1])?,
                    bytes: self.s32(&o[2])?,
                    barrier: self.address(&o[3])?,
                    reduce: None,
                }
            }
            (false, false) if s.has("bulk_group") => {
                need(3)?;
                Kind::BulkStore {
                    to: self.address(&o[0])?,
                    from: self.address(&o[1])?,
                    bytes: self.s32(&o[2])?,
                    reduce: None,
                }
            }
            _ => return self.unknown(i),
        })
    }

    fn wgmma(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let o = &i.operands;
        match s.modifiers.first() {
            Some(&"fence") => return Ok(Kind::WgmmaFence),
            Some(&"commit_group") => return Ok(Kind::WgmmaCommit),
            Some(&"wait_group") => {
                let Some(Operand::Integer(pending)) = o.first() else { return self.unknown(i) };
                return Ok(Kind::WgmmaWait { pending: *pending as u32 });
            }
            Some(&"mma_async") => {}
            _ => return self.unknown(i),
        }
        let shape = s.modifiers.iter().find_map(|m| {
            let rest = m.strip_prefix("m64n")?;
            let (n, k) = rest.split_once('k')?;
            Some((n.parse::<usize>().ok()?, k.parse::<u32>().ok()?))
        });
        let Some((n, k)) = shape else { return self.unknown(i) };
        let (middle, types) = s.modifiers.split_at(s.modifiers.len().saturating_sub(3));
        let saturate = s.has("satfinite");
        if middle.len() != 4 + usize::from(saturate) || middle[1..3] != ["sync", "aligned"] {
            return self.unknown(i);
        }
        let kind = match types {
            ["f32", "e4m3", "e4m3"] => Elements::E4m3E4m3,
            ["f32", "e4m3", "e5m2"] => Elements::E4m3E5m2,
            ["f32", "e5m2", "e4m3"] => Elements::E5m2E4m3,
            ["f32", "e5m2", "e5m2"] => Elements::E5m2E5m2,
            ["f32", "bf16", "bf16"] => Elements::Bf16,
            ["f32", "f16", "f16"] => Elements::F16,
            &[d, a, b] => match self.rare_elements(d, a, b, saturate) {
                Some(kind) => kind,
                None => return self.unknown(i),
            },
            _ => return self.unknown(i),
        };
        let integers = matches!(kind, Elements::Other { accumulator: Accumulator::S32 { .. }, .. });
        if saturate && !integers {
            return self.unknown(i);
        }
        if kind.depth() as u32 != k || o.len() < 4 {
            return self.unknown(i);
        }
        let Operand::Vector(d) = &o[0] else { return self.error("accumulator registers expected") };
        let d = d.iter().map(|d| self.d32(d)).collect::<Lowered<Vec<_>>>()?;
        if d.len() != kind.registers(n) {
            return self.error(format!("{} accumulator registers, {} expected", d.len(), kind.registers(n)));
        }
        let a = match &o[1] {
            Operand::Vector(list) if list.len() == 4 => {
                let mut registers = [0; 4];
                for (slot, operand) in registers.iter_mut().zip(list) {
                    match self.dst(operand)? {
                        Dst::R32(index) => *slot = index,
                        _ => return self.error("A's registers have 32 bits"),
                    }
                }
                WgmmaA::Registers(registers)
            }
            operand => WgmmaA::Descriptor(self.s64(operand)?),
        };
        let scale_d = match &o[3] {
            Operand::Integer(value) => ScaleD::Constant(*value != 0),
            operand => ScaleD::Predicate(self.sp(operand)?),
        };
        let immediates: Vec<i64> = o[4..]
            .iter()
            .map(|o| match o {
                Operand::Integer(value) => Ok(*value),
                _ => self.error("an immediate expected"),
            })
            .collect::<Lowered<_>>()?;
        let a_in_registers = matches!(a, WgmmaA::Registers(_));
        // Two scales, then the majorness of each operand in shared memory where the type leaves a choice.
        let majors = if kind.may_transpose() { 2 - usize::from(a_in_registers) } else { 0 };
        // Integers have no scales.
        let immediates = match (integers, immediates.is_empty()) {
            (true, true) => vec![1, 1],
            (true, false) => return self.unknown(i),
            _ => immediates,
        };
        if immediates.len() != 2 + majors
            || !immediates[..2].iter().all(|scale| matches!(scale, 1 | -1))
            || !immediates[2..].iter().all(|major| matches!(major, 0 | 1))
        {
            return self.error(format!("`{}` with the immediates {immediates:?}", i.opcode.join(".")));
        }
        if n == 0 || n > 256 || n % 8 != 0 {
            return self.error(format!("wgmma with N = {n}: N is a multiple of 8 from 8 to 256"));
        }
        if integers && n > 24 && n % 16 != 0 {
            return self.error(format!("wgmma on integers with N = {n}: past 24, N is a multiple of 16"));
        }
        let flag = |at: usize| immediates.get(at).copied().unwrap_or(0) == 1;
        let shape = Shape {
            n,
            kind,
            trans_a: !a_in_registers && flag(2),
            trans_b: if a_in_registers { flag(2) } else { flag(3) },
            negate_a: immediates[0] == -1,
            negate_b: immediates[1] == -1,
            a_in_registers,
        };
        Ok(Kind::Wgmma(Box::new(Wgmma { shape, k, d, a, b: self.s64(&o[2])?, scale_d })))
    }

    /// The types of wgmma beyond f32 sums of floats of 8 and 16 bits.
    fn rare_elements(&self, d: &str, a: &str, b: &str, saturate: bool) -> Option<Elements> {
        let (a, b) = (Element::named(a)?, Element::named(b)?);
        let accumulator = match d {
            "f16" if a.is_fp8() && b.is_fp8() => Accumulator::F16,
            "f16" if a == Element::F16 && b == a => Accumulator::F16,
            "f32" if a == Element::Tf32 && b == a => Accumulator::F32,
            "s32" if a.is_integer() && b.is_integer() => Accumulator::S32 { saturate },
            _ => return None,
        };
        Some(Elements::Other { a, b, accumulator })
    }
}
