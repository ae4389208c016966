//! Faults with their place, and who waits for what.

use super::warp::{Split, Wait, Warp};
use super::{Grid, Trouble};
use crate::fault::Fault;
use std::collections::BTreeMap;

/// Entries of a report; a grid may have thousands of warps.
const LINES: usize = 24;

impl Grid<'_> {
    /// A fault that no single instruction is to blame for.
    pub(super) fn fault(&self, trouble: Trouble, slot: usize) -> Box<Fault> {
        self.fault_at(trouble, slot * self.per_block, None)
    }

    pub(super) fn fault_at(&self, trouble: Trouble, w: usize, pc: Option<u32>) -> Box<Fault> {
        let (w, pc) = self.blame.map_or((w, pc), |(w, pc)| (w, Some(pc)));
        let op = pc.and_then(|pc| self.program.ops.get(pc as usize));
        Box::new(Fault {
            kernel: self.program.name.clone(),
            instruction: op.map_or(String::new(), |op| self.program.opcodes[op.opcode as usize].clone()),
            line: op.map_or(0, |op| op.line),
            block: self.blocks[self.slot(w)].index,
            warp: self.warps[w].index,
            lane: trouble.lane,
            kind: trouble.kind,
        })
    }

    fn line(&self, pc: u32) -> u32 {
        self.program.ops.get(pc as usize).map_or(0, |op| op.line)
    }

    /// `warp 3`, with its block where there are several.
    fn name(&self, warp: &Warp) -> String {
        if self.blocks.len() == 1 {
            return format!("warp {}", warp.index);
        }
        let [x, y, z] = self.blocks[warp.slot].index;
        format!("block ({x}, {y}, {z}) warp {}", warp.index)
    }

    /// Who waits for what, for a deadlock's report.
    pub(super) fn who_waits(&self) -> String {
        let mut lines = Vec::new();
        for warp in &self.warps {
            for Split { pc, mask, wait, .. } in &warp.splits {
                let what = match wait {
                    Wait::Nothing => continue,
                    Wait::Barrier(id) => {
                        let named = &self.blocks[warp.slot].named[*id as usize];
                        let wanted = self.threads_of(warp.slot, named);
                        format!("barrier {id} ({} of {wanted} threads arrived)", named.arrived)
                    }
                    Wait::Mbarrier(at) => match self.blocks[warp.slot].mbarriers.get(at) {
                        Some(barrier) => format!("mbarrier {at:#x} ({barrier})"),
                        None => format!("mbarrier {at:#x}"),
                    },
                    Wait::Lanes(members) => format!("lanes {members:#010x}"),
                    Wait::Registers(count) => self.registers_left(warp.slot, *count),
                    Wait::Warpgroup => "the other warps of its warpgroup".into(),
                    Wait::Dependency => "the launch before it".into(),
                    Wait::ClusterBarrier => self.cluster_state(warp.slot),
                };
                let (name, line) = (self.name(warp), self.line(*pc));
                lines.push(format!("{name} lanes {mask:#010x} at PTX line {line} wait for {what}"));
            }
        }
        join(lines)
    }

    /// Where the warps run that wait for nothing, for a livelock's report.
    pub(super) fn who_spins(&self) -> String {
        let mut places: BTreeMap<u32, Vec<&Warp>> = BTreeMap::new();
        for warp in &self.warps {
            for split in warp.splits.iter().filter(|s| s.wait == Wait::Nothing) {
                places.entry(self.line(split.pc)).or_default().push(warp);
            }
        }
        let place = |(line, warps): (u32, Vec<&Warp>)| {
            let name = self.name(warps[0]);
            match warps.len() {
                1 => format!("{name} at PTX line {line}"),
                more => format!("{name} and {} others at PTX line {line}", more - 1),
            }
        };
        join(places.into_iter().map(place).collect())
    }
}

fn join(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(LINES);
    lines.truncate(LINES);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("; ")
}
