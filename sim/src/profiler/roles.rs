//! From gathered counts to a profile: roles and loops.

use super::loops::Loops;
use super::recorder::{Recorder, Role};
use super::{Counts, LineProfile, LoopProfile, Profile, RoleProfile};
use crate::lower::program::Program;

/// The innermost loop in which a warp executed most instructions, loops that only wait left out.
pub(super) fn main_loop(loops: &Loops, executions: &[u32]) -> Option<usize> {
    let mut sums = vec![0u64; loops.all.len()];
    for (innermost, &count) in loops.innermost.iter().zip(executions) {
        if let Some(index) = *innermost {
            sums[index] += u64::from(count);
        }
    }
    let busy = |&index: &usize| sums[index] > 0 && !loops.all[index].waits;
    // Of equals the first.
    (0..sums.len()).rev().filter(busy).max_by_key(|&index| sums[index])
}

impl Recorder {
    /// The profile of a launch that has ended, up to what only the launch knows.
    pub(crate) fn finish(self, program: &Program) -> Profile {
        let mut executions = vec![0; program.ops.len()];
        for role in self.roles.values() {
            for (sum, count) in executions.iter_mut().zip(&role.executions) {
                *sum += count;
            }
        }
        let loops = &self.loops;
        let ran: Vec<usize> =
            (0..loops.all.len()).filter(|&index| executions[loops.all[index].header] > 0).collect();
        let number = |index: usize| ran.iter().position(|&other| other == index);
        let counts = |executions: &[u64], inside: Option<usize>| {
            let mut counts = Counts::default();
            for (at, (&count, op)) in executions.iter().zip(&program.ops).enumerate() {
                let innermost = loops.innermost[at];
                if inside.is_none_or(|outer| innermost.is_some_and(|inner| loops.within(inner, outer))) {
                    counts.executions += count;
                    counts.by_class[op.class as usize] += count;
                    if loops.polls(at) {
                        counts.polling += count;
                        counts.polling_by_class[op.class as usize] += count;
                    }
                }
            }
            counts
        };
        let trips = |executions: &[u64], index: usize| -> u64 {
            loops.all[index].latches.iter().map(|&at| executions[at]).sum()
        };
        let mut roles: Vec<RoleProfile> = self
            .roles
            .iter()
            .map(|(&main, Role { warps, executions })| RoleProfile {
                main_loop: main.and_then(number),
                warps: *warps,
                counts: counts(executions, None),
                in_loop: main.map_or_else(Counts::default, |main| counts(executions, Some(main))),
                trips: main.map_or(0, |main| trips(executions, main)),
                by_line: executions.clone(),
            })
            .collect();
        roles.sort_by_key(|role| std::cmp::Reverse(role.counts.executions));
        let of_loop = |&index: &usize| {
            let inside = counts(&executions, Some(index));
            let found = &loops.all[index];
            LoopProfile {
                line: program.ops[found.header].line,
                last_line: found.latches.iter().map(|&at| program.ops[at].line).max().unwrap_or(0),
                parent: found.parent.and_then(number),
                waits: found.waits,
                trips: trips(&executions, index),
                executions: inside.executions,
                polling: inside.polling,
            }
        };
        let of_line = |at: usize| {
            let (op, line) = (&program.ops[at], &self.lines[at]);
            let [loads, stores, bank_conflicts, waits, tensor_macs] = line.watched;
            LineProfile {
                line: op.line,
                opcode: program.opcodes[op.opcode as usize].clone(),
                class: op.class,
                executions: executions[at],
                lanes: line.lanes,
                load_sectors: loads + line.bulk_loads,
                store_sectors: stores + line.bulk_stores,
                global_bytes: line.bytes,
                bank_conflicts,
                waits,
                tensor_macs,
                innermost: loops.innermost[at].and_then(number),
            }
        };
        Profile {
            kernel: program.name.clone(),
            lines: (0..program.ops.len()).map(of_line).collect(),
            loops: ran.iter().map(of_loop).collect(),
            roles,
            regions: self.regions(),
            shared_written: self.shared_written,
            ..Profile::default()
        }
    }
}
