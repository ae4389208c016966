//! Who accessed what when: one record per warp, clock and instruction; shadow cells hold numbers of records.

use super::clock::{Key, Know, Space};
use super::lanes::Scope;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Where warps belong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) warps_per_block: u32,
    /// Blocks of the grid in x, y, z, and of a cluster.
    pub(crate) grid: [u32; 3],
    pub(crate) cluster: [u32; 3],
}

impl Layout {
    pub(crate) fn block(&self, warp: u32) -> u32 {
        warp / self.warps_per_block
    }

    pub(crate) fn warps_of(&self, block: u32) -> std::ops::Range<u32> {
        block * self.warps_per_block..(block + 1) * self.warps_per_block
    }

    /// Index of a block in the grid.
    pub(crate) fn index(&self, block: u32) -> [u32; 3] {
        let [x, y, _] = self.grid;
        [block % x, block / x % y, block / x / y]
    }

    /// The first block of a block's cluster.
    pub(crate) fn cluster_of(&self, block: u32) -> u32 {
        let index = self.index(block);
        let [x, y, z]: [u32; 3] =
            std::array::from_fn(|axis| index[axis] / self.cluster[axis] * self.cluster[axis]);
        x + self.grid[0] * (y + self.grid[1] * z)
    }
}

/// How an access behaves towards others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Manner {
    pub(crate) write: bool,
    /// Through the async proxy.
    pub(crate) asynchronous: bool,
    /// Atomic, volatile or relaxed and stronger: it does not race with its like within this reach.
    pub(crate) strong: Option<Scope>,
    /// A read that holds only of memory that nothing writes in the same launch.
    pub(crate) constant: bool,
}

impl Manner {
    pub(crate) const READ: Self = Self { write: false, asynchronous: false, strong: None, constant: false };
    pub(crate) const WRITE: Self = Self { write: true, ..Self::READ };
    pub(crate) const ASYNC_READ: Self = Self { asynchronous: true, ..Self::READ };
    pub(crate) const ASYNC_WRITE: Self = Self { asynchronous: true, ..Self::WRITE };
}

/// One access, or many of the same warp and clock by the same instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    /// The asynchronous agent that performed it, else the warp's lanes did.
    pub(crate) agent: Option<Key>,
    pub(crate) clock: u32,
    /// Warp that executed or issued it.
    pub(crate) warp: u32,
    /// Operation.
    pub(crate) pc: u32,
    pub(crate) manner: Manner,
}

/// An asynchronous operation that has not completed is known to nobody.
pub(crate) const IN_FLIGHT: u32 = u32::MAX;

/// Lanes of a record, as a shadow cell names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) record: u32,
    pub(crate) lanes: u32,
}

/// Accesses that do not exclude each other: reads, and strong accesses.
#[derive(Debug, Default, Clone)]
pub(crate) struct Set {
    pub(crate) entries: Vec<Entry>,
    pub(crate) writes: bool,
    /// More than [`MOST`] were here, of several blocks; `entries` keeps a few of them.
    pub(crate) crowded: bool,
}

/// A block has at most 32 warps, each with at most one live read and one live strong access of a cell: more than this are
/// of several blocks.
const MOST: usize = 72;
/// From more blocks than this on, a few of the accesses stand for all.
const MOST_BLOCKS: usize = 8;

#[derive(Default)]
pub(crate) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u32(u32::from(b)));
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0.rotate_left(26) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Folded<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// Who asks: an access about to happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe<'a> {
    pub(crate) record: u32,
    pub(crate) it: Record,
    /// Lanes whose past is the access's own.
    pub(crate) own: u32,
    pub(crate) know: &'a Know,
    pub(crate) space: Space,
}

/// Why two accesses exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nothing orders them.
    Race,
    /// They are ordered, but no fence made the earlier write visible to the async proxy.
    Proxy,
    /// One writes what the other takes for constant, in whatever order.
    Constant,
}

/// Two accesses that exclude each other; `other` came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) why: Why,
    pub(crate) other: Entry,
}

/// All records and sets of a launch.
#[derive(Debug)]
pub(crate) struct Records {
    list: Vec<Record>,
    /// (warp, operation, kind of access) to its newest record.
    newest: Folded<(u32, u32, u32), u32>,
    sets: Vec<Set>,
    steps: Folded<(u32, u32, u32), u32>,
    layout: Layout,
}

impl Records {
    pub(crate) fn new(layout: Layout) -> Self {
        let nobody = Record { agent: None, clock: 0, warp: 0, pc: 0, manner: Manner::READ };
        Self {
            list: vec![nobody],
            newest: Folded::default(),
            sets: vec![Set::default()],
            steps: Folded::default(),
            layout,
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.list.len() as u32
    }

    pub(crate) fn get(&self, record: u32) -> &Record {
        &self.list[record as usize]
    }

    pub(crate) fn set(&self, set: u32) -> &Set {
        &self.sets[set as usize]
    }

    /// The number of a record; the same warp, clock and operation share one.
    pub(crate) fn number(&mut self, record: Record) -> u32 {
        let manner = record.manner;
        let kind = u32::from(manner.write) | u32::from(manner.asynchronous) << 1;
        let key = (record.warp, record.pc, kind);
        if let Some(&at) = self.newest.get(&key) {
            let old = &self.list[at as usize];
            if old.clock == record.clock && old.agent == record.agent && old.manner == manner {
                return at;
            }
        }
        let at = self.list.len() as u32;
        self.list.push(record);
        self.newest.insert(key, at);
        at
    }

    /// These warps have ended: none of their records is asked for again by its key.
    pub(crate) fn forget(&mut self, warps: &std::ops::Range<u32>) {
        self.newest.retain(|key, _| !warps.contains(&key.0));
    }

    fn block(&self, record: &Record) -> u32 {
        self.layout.block(record.warp)
    }

    pub(crate) fn same_block(&self, a: &Record, b: &Record) -> bool {
        self.block(a) == self.block(b)
    }

    fn reaches(&self, scope: Scope, a: &Record, b: &Record) -> bool {
        let (a, b) = (self.block(a), self.block(b));
        match scope {
            Scope::Block => a == b,
            Scope::Cluster => self.layout.cluster_of(a) == self.layout.cluster_of(b),
            Scope::Card => true,
        }
    }

    /// Whether two accesses may go on at the same time.
    fn compatible(&self, a: &Record, b: &Record) -> bool {
        if !a.manner.write && !b.manner.write {
            return true;
        }
        let (Some(one), Some(two)) = (a.manner.strong, b.manner.strong) else { return false };
        self.reaches(one.min(two), a, b)
    }

    fn excludes_writes(a: &Record, b: &Record) -> bool {
        a.manner.constant && b.manner.write || a.manner.write && b.manner.constant
    }

    /// Whether `earlier` happened before the probe.
    fn before(&self, probe: &Probe<'_>, earlier: Entry) -> bool {
        let record = self.get(earlier.record);
        match record.agent {
            Some(agent) => probe.know.base.get(agent) >= record.clock,
            None => {
                record.warp == probe.it.warp && earlier.lanes & !probe.own == 0
                    || probe.know.base.knows(record.warp, earlier.lanes, record.clock)
            }
        }
    }

    /// Whether the probe may follow `earlier`.
    pub(crate) fn follows(&self, probe: &Probe<'_>, earlier: Entry) -> Result<(), Conflict> {
        let record = self.get(earlier.record);
        if Self::excludes_writes(record, &probe.it) {
            return Err(Conflict { why: Why::Constant, other: earlier });
        }
        if !self.before(probe, earlier) {
            if self.compatible(record, &probe.it) {
                return Ok(());
            }
            return Err(Conflict { why: Why::Race, other: earlier });
        }
        let crosses = probe.it.manner.asynchronous && !record.manner.asynchronous && record.manner.write;
        let fenced = &probe.know.fenced[probe.space as usize];
        let visible = || match record.agent {
            Some(agent) => fenced.get(agent) >= record.clock,
            None => fenced.knows(record.warp, earlier.lanes, record.clock),
        };
        if crosses && !visible() {
            return Err(Conflict { why: Why::Proxy, other: earlier });
        }
        Ok(())
    }

    /// Whether the probe may follow every access of a set.
    pub(crate) fn follows_all(&self, probe: &Probe<'_>, set: u32) -> Result<(), Conflict> {
        let set = self.set(set);
        let alone = !probe.know.foreign;
        for &entry in &set.entries {
            let record = self.get(entry.record);
            if !probe.it.manner.write && !record.manner.write {
                continue;
            }
            if set.crowded && !Self::excludes_writes(record, &probe.it) {
                // Most of the crowd is forgotten: only a block that never heard of others certainly races with it.
                if alone && self.block(record) != self.block(&probe.it) && !self.compatible(record, &probe.it)
                {
                    return Err(Conflict { why: Why::Race, other: entry });
                }
                continue;
            }
            self.follows(probe, entry)?;
        }
        Ok(())
    }

    /// The set of one entry.
    pub(crate) fn single(&mut self, entry: Entry) -> u32 {
        let key = (0, entry.record, entry.lanes);
        if let Some(&known) = self.steps.get(&key) {
            return known;
        }
        let at = self.sets.len() as u32;
        let writes = self.get(entry.record).manner.write;
        self.sets.push(Set { entries: vec![entry], writes, crowded: false });
        self.steps.insert(key, at);
        at
    }

    /// The set with the probe in it, without what the probe stands for from now on.
    pub(crate) fn with(&mut self, probe: &Probe<'_>, set: u32, lanes: u32) -> u32 {
        let key = (set, probe.record, lanes);
        if let Some(&known) = self.steps.get(&key) {
            return known;
        }
        let old = self.set(set);
        let (write, strong) = (probe.it.manner.write, probe.it.manner.strong.is_some());
        let mut new = Set { entries: Vec::new(), writes: old.writes || write, crowded: old.crowded };
        if !old.crowded {
            let mut mine = Entry { record: probe.record, lanes };
            for &entry in &old.entries {
                if entry.record == probe.record {
                    mine.lanes |= entry.lanes;
                    continue;
                }
                let record = self.get(entry.record);
                let covered = (write || !record.manner.write)
                    && (record.manner.strong.is_some() || !strong)
                    && (probe.it.manner.constant || !record.manner.constant)
                    && record.manner.asynchronous == probe.it.manner.asynchronous
                    && self.before(probe, entry);
                if !covered {
                    new.entries.push(entry);
                }
            }
            new.entries.push(mine);
            new.writes = new.entries.iter().any(|e| self.get(e.record).manner.write);
            let mut blocks: Vec<u32> = new.entries.iter().map(|e| self.block(self.get(e.record))).collect();
            blocks.dedup();
            if new.entries.len() > MOST || blocks.len() > MOST_BLOCKS {
                new = self.crowd(&new);
            }
        } else {
            new.entries.clone_from(&old.entries);
            let same = |e: &Entry| {
                let record = self.get(e.record);
                record.manner == probe.it.manner && self.block(record) == self.block(&probe.it)
            };
            let kind = old.entries.iter().filter(|e| self.get(e.record).manner == probe.it.manner).count();
            if kind < 2 && !old.entries.iter().any(same) {
                new.entries.push(Entry { record: probe.record, lanes });
            } else {
                return set;
            }
        }
        let at = self.sets.len() as u32;
        self.sets.push(new);
        self.steps.insert(key, at);
        at
    }

    /// Two of each kind and of different blocks stay.
    fn crowd(&self, full: &Set) -> Set {
        let mut kept: Vec<Entry> = Vec::new();
        for &entry in &full.entries {
            let record = self.get(entry.record);
            let alike: Vec<&Record> =
                kept.iter().map(|k| self.get(k.record)).filter(|k| k.manner == record.manner).collect();
            if alike.len() < 2 && alike.iter().all(|k| self.block(k) != self.block(record)) {
                kept.push(entry);
            }
        }
        Set { entries: kept, writes: full.writes, crowded: true }
    }
}
