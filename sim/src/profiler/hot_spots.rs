//! Lines that waste bandwidth.

use super::{LineProfile, Profile};
use std::fmt;

/// A line that moves or waits for more than it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HotSpot<'a> {
    /// Lanes touch more than twice as many sectors as their bytes fill.
    Uncoalesced {
        /// The line.
        line: &'a LineProfile,
        /// Sectors that it requested.
        sectors: u64,
        /// Sectors that its bytes would fill, at least one an instruction.
        ideal: u64,
    },
    /// Accesses of shared memory take on average more than one wavefront beyond the minimum.
    BankConflicts {
        /// The line.
        line: &'a LineProfile,
    },
}

/// What is less than this share of the launch's own is nothing to report.
const SHARE: u64 = 100;

impl Profile {
    /// Lines that waste bandwidth, in the order of the program; a finer sieve than that of the
    /// [warnings](crate::Report::warnings). Small ones are left out: those whose excess is below a
    /// hundredth of the launch's requested sectors, or of its warp instructions.
    pub fn hot_spots(&self) -> Vec<HotSpot<'_>> {
        let (loads, stores) = self.requested_sectors();
        let instructions = self.executions();
        let mut found = Vec::new();
        for line in &self.lines {
            let sectors = line.load_sectors + line.store_sectors;
            let ideal = line.global_bytes.div_ceil(32).max(line.executions);
            if sectors > 2 * ideal && SHARE * (sectors - ideal) >= loads + stores {
                found.push(HotSpot::Uncoalesced { line, sectors, ideal });
            }
            if line.bank_conflicts > line.executions && SHARE * line.bank_conflicts >= instructions {
                found.push(HotSpot::BankConflicts { line });
            }
        }
        found
    }
}

impl<'a> HotSpot<'a> {
    /// The line.
    pub fn line(&self) -> &'a LineProfile {
        match self {
            Self::Uncoalesced { line, .. } | Self::BankConflicts { line } => line,
        }
    }
}

impl fmt::Display for HotSpot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncoalesced { line, sectors, ideal } => write!(
                f,
                "`{}` at PTX line {} is not coalesced: {sectors} sectors where {ideal} would do",
                line.opcode, line.line
            ),
            Self::BankConflicts { line } => write!(
                f,
                "`{}` at PTX line {} has bank conflicts: {} wavefronts too many in {} instructions",
                line.opcode, line.line, line.bank_conflicts, line.executions
            ),
        }
    }
}
