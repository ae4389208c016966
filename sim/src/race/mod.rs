//! Happens-before: who may touch what when.
//!
//! Every warp carries vector clocks ([`clock`], [`lanes`]), every piece of memory its last accesses ([`shadow`],
//! [`records`]), and whatever synchronises (barriers, mbarriers, flags in memory) hands knowledge on. The executor tells
//! this module what happens in the order in which it happens; the answer is a [`Clash`] where two accesses exclude each
//! other and nothing orders them, or where the async proxy meets a write that no fence made visible to it.
//!
//! Warps and blocks count launch-wide, so that blocks that ran one after the other still race.

mod barriers;
mod board;
mod clock;
mod lanes;
mod order;
mod records;
mod shadow;
#[cfg(test)]
mod tests;

pub(crate) use barriers::Unseen;
pub(crate) use clock::{Key, Know, MOST_WARPS, Space};
pub(crate) use lanes::{Lanes, Scope};
pub(crate) use order::Order;
pub(crate) use records::{Layout, Manner, Record, Why};

use barriers::{Barrier, Phased};
use board::Board;
use records::{Entry, IN_FLIGHT, Probe, Records};
use shadow::{MOST_RECORDS, Shadow};
use std::collections::HashMap;

/// The barrier of a cluster among those of its first block.
pub(crate) const CLUSTER_BARRIER: u32 = 16;

/// A memory with a shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Region {
    /// Shared memory of a block.
    Shared(u32),
    /// A global allocation, by slot.
    Global(usize),
}

impl Region {
    fn space(self) -> Space {
        if matches!(self, Self::Shared(_)) { Space::Shared } else { Space::Global }
    }
}

/// Bytes of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Spot {
    pub(crate) region: Region,
    pub(crate) at: usize,
    pub(crate) bytes: usize,
}

/// One lane of a warp, and which of its lanes have not exited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thread {
    pub(crate) warp: u32,
    pub(crate) lane: u32,
    pub(crate) live: u32,
}

/// What orders asynchronous operations of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Agent {
    /// A lane's bulk stores reading shared memory.
    StoreRead(u32, u32),
    /// A lane's bulk stores writing global memory.
    StoreWrite(u32, u32),
    /// wgmma of the warpgroup that begins with this warp.
    Wgmma(u32),
}

/// What an instruction of a warp is about to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    record: u32,
    it: Record,
}

impl Access {
    pub(crate) fn clock(&self) -> u32 {
        self.it.clock
    }

    pub(crate) fn writes(&self) -> bool {
        self.it.manner.write
    }
}

/// One side of a clash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) pc: u32,
    pub(crate) warp: u32,
    pub(crate) lane: u32,
    pub(crate) manner: Manner,
}

/// Two accesses that exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clash {
    pub(crate) why: Why,
    pub(crate) region: Region,
    pub(crate) at: usize,
    pub(crate) now: Party,
    pub(crate) earlier: Party,
}

/// The state of one launch.
#[derive(Debug)]
pub(crate) struct Races {
    records: Records,
    warps: Vec<Option<Box<Lanes>>>,
    shared: Vec<Shadow>,
    global: Vec<Shadow>,
    agents: HashMap<Agent, Key>,
    agent_count: u32,
    barriers: HashMap<(u32, u32), Barrier>,
    phased: HashMap<(u32, u32), Phased>,
    board: Board,
    layout: Layout,
    /// Out of numbers for records: nothing is checked any more.
    pub(crate) exhausted: bool,
}

impl Races {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            records: Records::new(layout),
            warps: Vec::new(),
            shared: Vec::new(),
            global: Vec::new(),
            agents: HashMap::new(),
            agent_count: 0,
            barriers: HashMap::new(),
            phased: HashMap::new(),
            board: Board::default(),
            layout,
            exhausted: false,
        }
    }

    /// A block has ended: its shared memory and barriers are gone, its accesses to global memory stay.
    pub(crate) fn end_block(&mut self, block: u32) {
        if let Some(shadow) = self.shared.get_mut(block as usize) {
            *shadow = Shadow::default();
        }
        let warps = self.layout.warps_of(block);
        for warp in warps.clone() {
            if let Some(lanes) = self.warps.get_mut(warp as usize) {
                *lanes = None;
            }
        }
        self.records.forget(&warps);
        self.barriers.retain(|key, _| key.0 != block);
        self.phased.retain(|key, _| key.0 != block || key.1 == CLUSTER_BARRIER);
        self.agents.retain(|agent, _| {
            let (Agent::StoreRead(w, _) | Agent::StoreWrite(w, _) | Agent::Wgmma(w)) = agent;
            !warps.contains(w)
        });
    }

    /// The lanes of a warp.
    pub(crate) fn lanes(&mut self, warp: u32) -> &mut Lanes {
        lanes_of(&mut self.warps, warp)
    }

    fn agent(&mut self, agent: Agent) -> Key {
        if let Some(&key) = self.agents.get(&agent) {
            return key;
        }
        let key = self.new_agent();
        self.agents.insert(agent, key);
        key
    }

    fn new_agent(&mut self) -> Key {
        self.agent_count += 1;
        Key::agent(self.agent_count)
    }

    fn number(&mut self, record: Record) -> Access {
        self.exhausted |= self.records.count() >= MOST_RECORDS;
        let number = if self.exhausted { 0 } else { self.records.number(record) };
        Access { record: number, it: record }
    }

    /// A warp's instruction begins to access memory.
    pub(crate) fn begin(&mut self, warp: u32, pc: u32, manner: Manner) -> Access {
        let clock = self.lanes(warp).clock;
        self.number(Record { agent: None, clock, warp, pc, manner })
    }

    /// An asynchronous operation of `agent`, issued by `warp`, that will be known by the agent's `clock`.
    pub(crate) fn begin_async(
        &mut self,
        agent: Agent,
        clock: u32,
        warp: u32,
        pc: u32,
        manner: Manner,
    ) -> Access {
        let agent = Some(self.agent(agent));
        self.number(Record { agent, clock, warp, pc, manner })
    }

    /// A write that nobody can know yet.
    pub(crate) fn begin_unseen(&mut self, warp: u32, pc: u32, manner: Manner) -> Access {
        self.number(Record { agent: Some(Key::agent(0)), clock: IN_FLIGHT, warp, pc, manner })
    }

    /// A copy that an mbarrier counts: as it is issued, or with `done` as it completes in the current phase.
    pub(crate) fn begin_copy(
        &mut self,
        barrier: (u32, u32),
        done: bool,
        warp: u32,
        pc: u32,
        manner: Manner,
    ) -> Access {
        let (agent, clock) = match self.barriers.get_mut(&barrier) {
            Some(b) => {
                b.counted = (b.clock + 1, warp, pc);
                (b.agent, if done { b.clock + 1 } else { IN_FLIGHT })
            }
            None => (self.new_agent(), IN_FLIGHT),
        };
        self.number(Record { agent: Some(agent), clock, warp, pc, manner })
    }

    /// Lanes access `at..at + bytes` at once.
    pub(crate) fn access(
        &mut self,
        access: &Access,
        spot: Spot,
        lanes: u32,
        same: impl Fn() -> bool,
    ) -> Result<(), Clash> {
        if self.exhausted {
            return Ok(());
        }
        let warp = access.it.warp as usize;
        let know = self.warps[warp].as_ref().expect("the warp began an access").of(lanes.trailing_zeros());
        let probe =
            Probe { record: access.record, it: access.it, own: lanes, know, space: spot.region.space() };
        let shadow = pick(&mut self.shared, &mut self.global, spot.region);
        touch(&mut self.records, shadow, &probe, lanes, spot, same)
    }

    /// A lane's copy reads a tensor map in global memory.
    pub(crate) fn access_map(&mut self, warp: u32, pc: u32, lane: u32, spot: Spot) -> Result<(), Clash> {
        let clock = self.lanes(warp).clock;
        let access = self.number(Record { agent: None, clock, warp, pc, manner: Manner::ASYNC_READ });
        if self.exhausted {
            return Ok(());
        }
        let own = 1 << lane;
        let know = self.warps[warp as usize].as_ref().expect("the warp has a clock").of(lane);
        let probe = Probe { record: access.record, it: access.it, own, know, space: Space::Map };
        let shadow = pick(&mut self.shared, &mut self.global, spot.region);
        touch(&mut self.records, shadow, &probe, own, spot, || false)
    }

    /// The same for an asynchronous operation, issued by `lane` or, with none, by its whole warp. `know` is what was
    /// known when it was issued.
    pub(crate) fn access_async(
        &mut self,
        access: &Access,
        know: &Know,
        lane: Option<u32>,
        spot: Spot,
    ) -> Result<(), Clash> {
        if self.exhausted {
            return Ok(());
        }
        let own = lane.map_or(u32::MAX, |lane| 1 << lane);
        let probe = Probe { record: access.record, it: access.it, own, know, space: spot.region.space() };
        let shadow = pick(&mut self.shared, &mut self.global, spot.region);
        touch(&mut self.records, shadow, &probe, 1, spot, || false)
    }

    /// A write in flight has become `to`, of a lane or (lane 0) of an asynchronous agent.
    pub(crate) fn complete(&mut self, from: &Access, to: &Access, spot: Spot, lane: u32) {
        let shadow = pick(&mut self.shared, &mut self.global, spot.region);
        shadow.complete(from.record, (to.record, lane), spot.at, spot.bytes);
    }

    /// The lanes of `mask` have seen an agent's work up to `clock`.
    pub(crate) fn observe(&mut self, warp: u32, mask: u32, live: u32, agent: Agent, clock: u32) {
        if clock > 0 && self.agents.contains_key(&agent) {
            let key = self.agent(agent);
            self.lanes(warp).observe(mask, live, key, clock);
        }
    }

    /// A strong write by a lane leaves what the lane knows for readers; `add` for read-modify-writes.
    pub(crate) fn post(
        &mut self,
        place: (Region, usize),
        by: Thread,
        scope: Scope,
        release: bool,
        add: bool,
    ) {
        let lanes = self.lanes(by.warp);
        let messages = if release {
            vec![(scope, lanes.release(1 << by.lane, by.live))]
        } else {
            [Scope::Block, Scope::Cluster, Scope::Card]
                .into_iter()
                .filter(|&s| s <= scope)
                .filter_map(|s| lanes.carried(by.lane, s).map(|know| (s, know)))
                .collect()
        };
        self.board.post(place, self.layout.block(by.warp), add, messages);
    }

    /// A strong read by a lane finds what writers left.
    pub(crate) fn find(&mut self, place: (Region, usize), by: Thread, scope: Scope, acquire: bool) {
        let block = self.layout.block(by.warp);
        for (distance, know) in self.board.read(place, block, scope, &self.layout) {
            let lanes = self.lanes(by.warp);
            if acquire {
                lanes.acquire(1 << by.lane, by.live, &know);
            } else {
                lanes.find(by.lane, distance, &know);
            }
        }
    }
}

fn lanes_of(warps: &mut Vec<Option<Box<Lanes>>>, warp: u32) -> &mut Lanes {
    let at = warp as usize;
    if at >= warps.len() {
        warps.resize_with(at + 1, || None);
    }
    warps[at].get_or_insert_with(|| Box::new(Lanes::new(warp)))
}

fn pick<'a>(shared: &'a mut Vec<Shadow>, global: &'a mut Vec<Shadow>, region: Region) -> &'a mut Shadow {
    match region {
        Region::Shared(block) => grown(shared, block as usize),
        Region::Global(slot) => grown(global, slot),
    }
}

fn grown(shadows: &mut Vec<Shadow>, at: usize) -> &mut Shadow {
    if at >= shadows.len() {
        shadows.resize_with(at + 1, Shadow::default);
    }
    &mut shadows[at]
}

fn touch(
    records: &mut Records,
    shadow: &mut Shadow,
    probe: &Probe<'_>,
    lanes: u32,
    spot: Spot,
    same: impl Fn() -> bool,
) -> Result<(), Clash> {
    shadow.access(records, probe, lanes, spot.at, spot.bytes, same).map_err(|(at, conflict)| {
        let party = |record: &Record, lanes: u32| Party {
            pc: record.pc,
            warp: record.warp,
            lane: lanes.trailing_zeros(),
            manner: record.manner,
        };
        let Entry { record, lanes: theirs } = conflict.other;
        Clash {
            why: conflict.why,
            region: spot.region,
            at,
            now: party(&probe.it, probe.own),
            earlier: party(records.get(record), theirs),
        }
    })
}
