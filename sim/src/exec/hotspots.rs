//! Instructions whose accesses waste most of their wavefronts or sectors, as warnings with their line.

use super::Grid;

/// A line is worth a warning from so many wasted wavefronts or sectors on, and from one in so many of the launch's.
const LEAST: u64 = 64;
const SHARE: u64 = 10;

/// What the accesses of one instruction cost: wavefronts of shared memory or sectors of global memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    accesses: u64,
    needed: u64,
    taken: u64,
}

/// By operation.
#[derive(Debug)]
pub(super) struct Hotspots {
    shared: Vec<Cost>,
    global: Vec<Cost>,
}

impl Hotspots {
    pub(super) fn new(operations: usize) -> Self {
        Self { shared: vec![Cost::default(); operations], global: vec![Cost::default(); operations] }
    }

    pub(super) fn shared(&mut self, pc: u32, needed: u32, taken: u32) {
        note(&mut self.shared, pc, needed, taken);
    }

    pub(super) fn global(&mut self, pc: u32, needed: u32, taken: u32) {
        note(&mut self.global, pc, needed, taken);
    }
}

fn note(costs: &mut [Cost], pc: u32, needed: u32, taken: u32) {
    let cost = &mut costs[pc as usize];
    cost.accesses += 1;
    cost.needed += u64::from(needed);
    cost.taken += u64::from(taken);
}

/// Costs that are mostly waste, and a fair share of all.
fn wasteful(costs: &[Cost]) -> Vec<(u32, Cost)> {
    let all: u64 = costs.iter().map(|cost| cost.taken).sum();
    let bad = |cost: &Cost| {
        let waste = cost.taken.saturating_sub(cost.needed);
        waste >= LEAST && waste > cost.needed && SHARE * waste >= all
    };
    (0..).zip(costs.iter().copied()).filter(|(_, cost)| bad(cost)).collect()
}

impl Grid<'_> {
    /// At the end of a launch.
    pub(super) fn warn_of_hotspots(&mut self) {
        for (pc, Cost { accesses, needed, taken }) in wasteful(&self.hotspots.shared) {
            let (instruction, line) = self.spelled(pc);
            self.warnings.insert(format!(
                "bank conflicts: `{instruction}` (PTX line {line}) takes {taken} wavefronts in {accesses} accesses that need {needed}"
            ));
        }
        for (pc, Cost { accesses, needed, taken }) in wasteful(&self.hotspots.global) {
            let (instruction, line) = self.spelled(pc);
            self.warnings.insert(format!(
                "uncoalesced: `{instruction}` (PTX line {line}) touches {taken} sectors in {accesses} accesses whose bytes fit {needed}"
            ));
        }
    }

    fn spelled(&self, pc: u32) -> (String, u32) {
        let op = &self.program.ops[pc as usize];
        (self.program.opcodes[op.opcode as usize].clone(), op.line)
    }
}
