//! Shadow memory: for every piece of memory the last plain write and the accesses since. Pages come into being with the
//! first access, in pieces of 16 bytes, and are cut finer where accesses are smaller.

use super::records::{Conflict, Entry, Probe, Records};

const PAGE: usize = 4096;
const COARSE: u32 = 4;

/// Last write and the accesses since; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cell {
    /// Record and lane, see [`tag`].
    write: u32,
    /// Record and lane, or with [`SET`] the number of a set.
    since: u32,
}

const SET: u32 = 1 << 31;

/// Records that fit into a tag.
pub(crate) const MOST_RECORDS: u32 = 1 << 26;

fn tag(record: u32, lane: u32) -> u32 {
    record << 5 | lane
}

fn entry(tag: u32) -> Entry {
    Entry { record: tag >> 5, lanes: 1 << (tag & 31) }
}

#[derive(Debug)]
struct Page {
    /// Log2 of a cell's bytes.
    shift: u32,
    cells: Vec<Cell>,
}

impl Page {
    fn refine(&mut self, shift: u32) {
        let times = 1 << (self.shift - shift);
        self.cells = self.cells.iter().flat_map(|&cell| std::iter::repeat_n(cell, times)).collect();
        self.shift = shift;
    }
}

/// Shadow of one allocation, or of one block's shared memory.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    pages: Vec<Option<Box<Page>>>,
}

impl Shadow {
    /// Cells of `at..at + bytes`, of which all lie in one page.
    fn cells(&mut self, at: usize, bytes: usize) -> &mut [Cell] {
        let page = at / PAGE;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let fits = (at | bytes).trailing_zeros().min(COARSE);
        let page = self.pages[page].get_or_insert_with(|| {
            Box::new(Page { shift: fits, cells: vec![Cell::default(); PAGE >> fits] })
        });
        if page.shift > fits {
            page.refine(fits);
        }
        let at = at % PAGE;
        &mut page.cells[at >> page.shift..(at + bytes) >> page.shift]
    }

    /// An access of `lanes` to `at..at + bytes`: checks it against the past and becomes part of it. On a conflict, the
    /// offset tells where; `same` says whether a write leaves the memory as it is.
    pub(crate) fn access(
        &mut self,
        records: &mut Records,
        probe: &Probe<'_>,
        lanes: u32,
        at: usize,
        bytes: usize,
        same: impl Fn() -> bool,
    ) -> Result<(), (usize, Conflict)> {
        let end = at + bytes;
        let mut at = at;
        while at < end {
            let part = (PAGE - at % PAGE).min(end - at);
            let cells = self.cells(at, part);
            let step = part / cells.len().max(1);
            // Neighbours mostly have the same past.
            let mut last: Option<(Cell, Cell)> = None;
            for (i, cell) in cells.iter_mut().enumerate() {
                if let Some((old, new)) = last
                    && *cell == old
                {
                    *cell = new;
                    continue;
                }
                let old = *cell;
                let new = advance(records, probe, lanes, old).or_else(|conflict| {
                    let other = records.get(conflict.other.record);
                    // Threads of a block whose same instruction writes what is there already: which of them wins does
                    // not matter.
                    let alike = records.same_block(other, &probe.it)
                        && other.pc == probe.it.pc
                        && other.agent.is_none();
                    if probe.it.manner.write && other.manner.write && alike && same() {
                        Ok(Cell { write: tag(probe.record, lanes.trailing_zeros()), since: 0 })
                    } else {
                        Err((at + i * step, conflict))
                    }
                })?;
                *cell = new;
                last = Some((old, new));
            }
            at += part;
        }
        Ok(())
    }

    /// A write in flight has completed: its cells, unless somebody took them since, get its final record.
    pub(crate) fn complete(&mut self, from: u32, to: (u32, u32), at: usize, bytes: usize) {
        let end = at + bytes;
        let mut at = at;
        while at < end {
            let part = (PAGE - at % PAGE).min(end - at);
            for cell in self.cells(at, part) {
                if cell.write == tag(from, 0) {
                    cell.write = tag(to.0, to.1);
                }
            }
            at += part;
        }
    }
}

fn advance(records: &mut Records, probe: &Probe<'_>, lanes: u32, old: Cell) -> Result<Cell, Conflict> {
    let own = tag(probe.record, lanes.trailing_zeros());
    let plain_write = probe.it.manner.write && probe.it.manner.strong.is_none();
    let single = lanes.is_power_of_two();
    if single && if plain_write { old == Cell { write: own, since: 0 } } else { old.since == own } {
        return Ok(old);
    }
    if old.write != 0 {
        records.follows(probe, entry(old.write))?;
    }
    if old.since == 0 {
        return Ok(match (plain_write, single) {
            (true, _) => Cell { write: own, since: 0 },
            (false, true) => Cell { write: old.write, since: own },
            (false, false) => Cell { write: old.write, since: SET | records.with(probe, 0, lanes) },
        });
    }
    let set = if old.since & SET != 0 {
        records.follows_all(probe, old.since & !SET)?;
        old.since & !SET
    } else {
        let one = entry(old.since);
        let record = *records.get(one.record);
        if probe.it.manner.write || record.manner.write {
            records.follows(probe, one)?;
        }
        if plain_write {
            0
        } else if single
            && record.warp == probe.it.warp
            && one.lanes == lanes
            && record.agent.is_none()
            && record.manner == probe.it.manner
        {
            // The same lane, later.
            return Ok(Cell { write: old.write, since: own });
        } else {
            records.single(one)
        }
    };
    if plain_write {
        return Ok(Cell { write: own, since: 0 });
    }
    let set = records.with(probe, set, lanes);
    let since = match records.set(set).entries[..] {
        [one] if one.lanes.is_power_of_two() && !records.set(set).crowded => {
            tag(one.record, one.lanes.trailing_zeros())
        }
        _ => SET | set,
    };
    Ok(Cell { write: old.write, since })
}
