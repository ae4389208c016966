//! `cp.async` on single threads' bytes: the copies of Ampere.

use super::arithmetic::Spelling;
use super::program::{Copy, Kind, S32};
use super::{Lowered, Lowering, Register};
use crate::ast::{Instruction, Operand};

impl Lowering<'_> {
    /// `cp.async` without `bulk`.
    pub(super) fn copy(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<Kind> {
        let (m, o) = (&s.modifiers[1..], &i.operands);
        let copy = match (m.first().copied(), o.as_slice()) {
            (Some("commit_group"), []) => Copy::Commit,
            (Some("wait_all"), []) => Copy::WaitAll,
            (Some("wait_group"), [Operand::Integer(pending @ 0..)]) => {
                Copy::Wait { pending: *pending as u32 }
            }
            (Some("mbarrier"), [at]) if m.get(1) == Some(&"arrive") => {
                Copy::Arrive { at: self.address(at)?, counted: s.has("noinc") }
            }
            (Some(level @ ("ca" | "cg")), [to, from, Operand::Integer(bytes), rest @ ..]) => {
                let known = |m: &&str| {
                    matches!(*m, "shared" | "shared::cta" | "global")
                        || matches!(*m, "L2::cache_hint" | "L2::64B" | "L2::128B" | "L2::256B")
                };
                let sizes: &[i64] = if level == "ca" { &[4, 8, 16] } else { &[16] };
                if !m[1..].iter().all(known) || !sizes.contains(bytes) {
                    return self.unknown(i);
                }
                // The policy of a cache hint comes last.
                let rest = match (s.has("L2::cache_hint"), rest) {
                    (true, [rest @ .., _]) => rest,
                    (true, []) => return self.unknown(i),
                    (false, rest) => rest,
                };
                let (mut source_bytes, mut ignore) = (S32::Imm(*bytes as u32), None);
                match rest {
                    [] => {}
                    [one] if self.is_predicate(one) => ignore = Some(self.sp(one)?),
                    [one] => source_bytes = self.s32(one)?,
                    _ => return self.unknown(i),
                }
                Copy::Issue {
                    to: self.address(to)?,
                    from: self.address(from)?,
                    bytes: *bytes as u32,
                    source_bytes,
                    ignore,
                }
            }
            _ => return self.unknown(i),
        };
        Ok(Kind::Copy(Box::new(copy)))
    }

    fn is_predicate(&self, operand: &Operand) -> bool {
        match operand {
            Operand::Not(_) => true,
            Operand::Register(name) => matches!(self.registers.get(name), Some(Register::Predicate(_))),
            _ => false,
        }
    }
}
