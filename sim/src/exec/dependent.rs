//! Launches that begin before the one that they depend on has ended.
//!
//! A programmatic launch starts as early as a card could let it, which is the order that finds most: before its
//! predecessor does anything, and runs until every block that the card holds stands at `griddepcontrol.wait`. Only then
//! the predecessor runs, to its end. A launch further down starts early too if every block of the one before it has
//! executed `griddepcontrol.launch_dependents` or ended by then. What a kernel touches of global memory before its wait
//! is held against what the unfinished ones before it touch, byte by byte. Where the chain itself begins
//! with a programmatic launch, nobody knows what that one follows: it may touch nothing before its wait.

use super::Grid;
use super::footprint::Footprint;
use super::warp::Wait;
use crate::fault::{Fault, FaultKind};
use crate::lower::program::{Program, Space};
use crate::machine::{Launch, Report};
use crate::memory::SHARED_WINDOW;
use crate::memory::global::Global;
use crate::profile::CardProfile;
use crate::row::Row64;
use crate::tma::Segment;
use std::ops::Range;

/// One launch of a chain.
pub(crate) struct Link<'a> {
    pub(crate) program: &'a Program,
    pub(crate) variables: &'a [u64],
    pub(crate) launch: &'a Launch<'a>,
    /// It may start before the one before it has ended.
    pub(crate) programmatic: bool,
}

/// How far a grid came.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Ended,
    /// It can do no more before the launches before it have ended.
    Parked,
}

/// What a launch of a chain knows of the others, and what it does to memory that concerns them.
#[derive(Debug, Default)]
pub(super) struct Dependence {
    /// The launch right before it has not ended.
    pub(super) waits: bool,
    /// Neither has one before that.
    older: bool,
    /// Blocks should wait for it before they end.
    pub(super) programmatic: bool,
    /// The launch before it is not part of the chain.
    pub(super) unknown: bool,
    /// A launch after this one may start before it has ended.
    watched: bool,
    /// What it reads and writes.
    reads: Footprint,
    writes: Footprint,
    /// Accesses that no wait has ordered: before the block's wait, and after it where an older launch than the one
    /// waited for still runs.
    early: [Early; 2],
}

#[derive(Debug, Default)]
struct Early {
    reads: Firsts,
    writes: Firsts,
}

/// Who touched bytes first.
#[derive(Debug, Default)]
struct Firsts {
    seen: Footprint,
    list: Vec<Culprit>,
}

#[derive(Debug)]
struct Culprit {
    bytes: Range<u64>,
    pc: u32,
    block: [u32; 3],
    warp: u32,
}

impl Firsts {
    fn add(&mut self, new: Culprit) {
        if !self.seen.add(&new.bytes) {
            return;
        }
        match self.list.last_mut() {
            Some(last)
                if (last.pc, last.block, last.warp) == (new.pc, new.block, new.warp)
                    && last.bytes.end == new.bytes.start =>
            {
                last.bytes.end = new.bytes.end;
            }
            _ => self.list.push(new),
        }
    }

    /// The first of them that touched what is in `others`, and where.
    fn meets(&self, others: &Footprint) -> Option<(&Culprit, u64)> {
        self.list.iter().find_map(|culprit| Some((culprit, others.first(&culprit.bytes)?)))
    }
}

/// Runs launches in the order of their stream.
pub(crate) fn chain(
    profile: &CardProfile,
    global: &mut Global,
    links: &[Link<'_>],
) -> Result<Vec<Report>, Box<Fault>> {
    let mut grids = Vec::new();
    for (index, link) in links.iter().enumerate() {
        let mut grid = Grid::new(profile, link.program, link.variables, link.launch)?;
        let programmatic = link.programmatic;
        let (unknown, watched) =
            (index == 0 && programmatic, links.get(index + 1).is_some_and(|l| l.programmatic));
        grid.dependence = Some(Dependence { programmatic, unknown, watched, ..Dependence::default() });
        grids.push(grid);
    }
    // Launches before `oldest` have ended; those before `started` have started. `ended[i]` may hold early.
    let (mut oldest, mut started) = (0, 0);
    let mut ended = vec![false; links.len()];
    // Of each, the launches before it that had not ended when it started.
    let mut unfinished: Vec<Range<usize>> = Vec::new();
    while oldest < links.len() {
        if started == oldest {
            unfinished.push(oldest..oldest);
            started += 1;
        }
        while started < links.len()
            && links[started].programmatic
            && (started - 1 == oldest || ended[started - 1] || grids[started - 1].released())
        {
            unfinished.push(oldest..started);
            let before = &ended[oldest..started];
            grids[started].depend(!ended[started - 1], before.iter().any(|ended| !ended));
            match grids[started].run(global) {
                Ok(outcome) => ended[started] = outcome == Outcome::Ended,
                Err(fault) => return Err(blame(&mut grids, started, oldest, global).unwrap_or(fault)),
            }
            started += 1;
        }
        if !ended[oldest] {
            grids[oldest].depend(false, false);
            let result = grids[oldest].run(global);
            grids[oldest].hasty()?;
            result?;
            ended[oldest] = true;
        }
        for later in oldest..started {
            for before in unfinished[later].clone() {
                if ended[before] {
                    conflict(&grids[later], &grids[before], before + 1 == later)?;
                }
            }
        }
        while oldest < started && ended[oldest] {
            oldest += 1;
        }
    }
    Ok(grids.into_iter().map(Grid::report).collect())
}

/// A launch that started early has failed: if that is because it touched what is not there yet, that is the fault.
fn blame(grids: &mut [Grid<'_>], failed: usize, oldest: usize, global: &mut Global) -> Option<Box<Fault>> {
    grids[oldest].run(global).ok()?;
    conflict(&grids[failed], &grids[oldest], oldest + 1 == failed).err()
}

/// Whether `later` touched early what `before` works on.
fn conflict(later: &Grid<'_>, before: &Grid<'_>, direct: bool) -> Result<(), Box<Fault>> {
    let (Some(mine), Some(theirs)) = (&later.dependence, &before.dependence) else { return Ok(()) };
    for (waited, early) in mine.early.iter().enumerate() {
        if waited == 1 && direct {
            continue;
        }
        let found = [
            ("reads", "writes", &early.reads, &theirs.writes),
            ("writes", "writes", &early.writes, &theirs.writes),
            ("writes", "reads", &early.writes, &theirs.reads),
        ]
        .into_iter()
        .find_map(|(verb, other, early, touched)| {
            let (culprit, at) = early.meets(touched)?;
            Some((verb, other, at, culprit))
        });
        let Some((verb, other, at, culprit)) = found else { continue };
        let when = if waited == 0 {
            "before griddepcontrol.wait"
        } else {
            "after a griddepcontrol.wait for a launch that did not wait itself"
        };
        let what = format!("{verb} global memory at {at:#x} {when}, and {} {other} it", before.program.name);
        return Err(later.guilty(culprit, what));
    }
    Ok(())
}

impl Grid<'_> {
    fn guilty(&self, culprit: &Culprit, what: String) -> Box<Fault> {
        let op = &self.program.ops[culprit.pc as usize];
        Box::new(Fault {
            kernel: self.program.name.clone(),
            instruction: self.program.opcodes[op.opcode as usize].clone(),
            line: op.line,
            block: culprit.block,
            warp: culprit.warp,
            lane: None,
            kind: FaultKind::Dependency(what),
        })
    }

    /// Whether it touched memory before its wait for it does not know what.
    fn hasty(&self) -> Result<(), Box<Fault>> {
        let Some(Dependence { unknown: true, early: [early, _], .. }) = &self.dependence else {
            return Ok(());
        };
        let reads = early.reads.list.iter().map(|culprit| (culprit, "reads"));
        let writes = early.writes.list.iter().map(|culprit| (culprit, "writes"));
        match reads.chain(writes).min_by_key(|(culprit, _)| culprit.pc) {
            None => Ok(()),
            Some((culprit, verb)) => {
                let at = culprit.bytes.start;
                Err(self
                    .guilty(culprit, format!("{verb} global memory at {at:#x} before griddepcontrol.wait")))
            }
        }
    }

    /// Which launches before it have not ended.
    fn depend(&mut self, waits: bool, older: bool) {
        if let Some(dependence) = &mut self.dependence {
            (dependence.waits, dependence.older) = (waits, waits || older);
        }
        if !waits {
            for split in self.warps.iter_mut().flat_map(|w| &mut w.splits) {
                if split.wait == Wait::Dependency {
                    split.wait = Wait::Nothing;
                }
            }
        }
    }

    /// The launch before it has not ended.
    pub(super) fn depends(&self) -> bool {
        self.dependence.as_ref().is_some_and(|d| d.waits)
    }

    /// Every block has let the dependents go, or ended.
    fn released(&self) -> bool {
        self.all_started() && self.blocks.iter().all(|block| !block.live || block.released)
    }

    /// A block goes on after its wait.
    pub(super) fn waited(&mut self, w: usize) {
        let slot = self.slot(w);
        self.blocks[slot].waited = true;
    }

    /// Whether it matters what a warp touches now.
    #[inline]
    fn watches(&self, w: usize) -> bool {
        let Some(dependence) = &self.dependence else { return false };
        dependence.watched || dependence.older || !self.blocks[self.slot(w)].waited
    }

    /// Lanes read or write global memory.
    #[inline]
    pub(super) fn touch(
        &mut self,
        w: usize,
        space: Space,
        addresses: &Row64,
        mask: u32,
        bytes: u32,
        write: bool,
    ) {
        if !self.watches(w) || !matches!(space, Space::Global | Space::Generic) {
            return;
        }
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            if addresses[lane] < SHARED_WINDOW {
                self.touch_bytes(w, addresses[lane], bytes, write);
            }
        }
    }

    /// A bulk copy reads or writes global memory.
    pub(super) fn touch_segments(&mut self, w: usize, segments: &[Segment], write: bool) {
        if !self.watches(w) {
            return;
        }
        for segment in segments {
            if let Some(address) = segment.global {
                self.touch_bytes(w, address, segment.bytes, write);
            }
        }
    }

    fn touch_bytes(&mut self, w: usize, address: u64, bytes: u32, write: bool) {
        let block = &self.blocks[self.slot(w)];
        let (pc, warp) = (self.current_pc, self.warps[w].index);
        let Some(dependence) = &mut self.dependence else { return };
        let touched = if write { &mut dependence.writes } else { &mut dependence.reads };
        let range = address..address + u64::from(bytes);
        touched.add(&range);
        let early = match block.waited {
            false => &mut dependence.early[0],
            true if dependence.older => &mut dependence.early[1],
            true => return,
        };
        let early = if write { &mut early.writes } else { &mut early.reads };
        early.add(Culprit { bytes: range, pc, block: block.index, warp });
    }
}
