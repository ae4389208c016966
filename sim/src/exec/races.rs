//! What the executor tells [`crate::race`], and faults out of its answers.

use super::access::Place;
use super::asynchronous::Source;
use super::sent::Sent;
use super::warp::Warp;
use super::{Grid, Step, Trouble};
use crate::fault::{FaultKind, Side};
use crate::lower::program::{Op, Program};
use crate::memory::shared::WINDOW;
use crate::race::{
    Access, Agent, CLUSTER_BARRIER, Clash, Know, Layout, MOST_WARPS, Manner, Order, Party, Races, Region,
    Scope, Space, Spot, Thread, Unseen, Why,
};
use crate::tma::Segment;

/// The race checker of a launch, with what the executor keeps for it.
pub(super) struct Sanitizer {
    races: Races,
    layout: Layout,
    /// By opcode.
    orders: Vec<Order>,
    /// By slot: from the first to past the last live mbarrier, as shared addresses.
    barriers: Vec<(u32, u32)>,
}

/// A copy as it was issued.
#[derive(Debug)]
pub(super) struct Issued {
    /// By number of the block that gets it: the write in flight.
    writes: Vec<(u32, Access)>,
    know: Know,
    warp: u32,
    w: usize,
    lane: u32,
    pc: u32,
}

/// The accesses of one instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touch {
    access: Access,
    order: Order,
}

impl Sanitizer {
    /// None where the grid has more warps than the checker can count.
    pub(super) fn new(
        program: &Program,
        warps_per_block: usize,
        grid: [u32; 3],
        cluster: [u32; 3],
    ) -> Option<Box<Self>> {
        let blocks: u64 = grid.iter().map(|&n| u64::from(n)).product();
        if blocks * warps_per_block as u64 >= MOST_WARPS {
            return None;
        }
        let layout = Layout { warps_per_block: warps_per_block as u32, grid, cluster };
        Some(Box::new(Self {
            races: Races::new(layout),
            layout,
            orders: program.opcodes.iter().map(|o| Order::of(o)).collect(),
            barriers: Vec::new(),
        }))
    }

    /// Whether checking had to stop.
    pub(super) fn exhausted(&self) -> bool {
        self.races.exhausted
    }

    fn span(&mut self, slot: usize) -> &mut (u32, u32) {
        if slot >= self.barriers.len() {
            self.barriers.resize(slot + 1, (u32::MAX, 0));
        }
        &mut self.barriers[slot]
    }
}

fn id(warp: &Warp) -> u32 {
    warp.id as u32
}

impl Grid<'_> {
    fn number(&self, slot: usize) -> u32 {
        self.blocks[slot].linear as u32
    }

    fn order(&self, op: &Op) -> Order {
        self.races.as_ref().map_or(Order::Plain, |s| s.orders[op.opcode as usize])
    }

    fn region(&self, place: Place) -> Option<(Region, usize)> {
        match place {
            Place::Global(slot, at) => Some((Region::Global(slot), at)),
            Place::Shared(slot, at) => Some((Region::Shared(self.number(slot)), at)),
            Place::Local(_) | Place::Param(_) => None,
        }
    }

    /// The running instruction of a warp begins to access memory in a manner that its opcode may strengthen.
    pub(super) fn race_begin(&mut self, w: usize, write: bool) -> Option<Touch> {
        let sanitizer = self.races.as_mut()?;
        let pc = self.current_pc;
        let order = sanitizer.orders[self.program.ops[pc as usize].opcode as usize];
        let strong = match order {
            Order::Strong { scope, .. } => Some(scope),
            _ => None,
        };
        let manner = Manner { write, asynchronous: false, strong };
        let access = sanitizer.races.begin(id(&self.warps[w]), pc, manner);
        Some(Touch { access, order })
    }

    /// Lanes of the running instruction access one place; before a write changes it. `new` is what a plain write brings.
    pub(super) fn race_touch(
        &mut self,
        w: usize,
        touch: &Touch,
        place: Place,
        bytes: usize,
        lanes: u32,
        new: Option<&[u8]>,
    ) -> Step<()> {
        if let Place::Shared(slot, at) = place {
            self.off_barriers(slot, at, bytes, lanes)?;
        }
        self.race_place(w, touch, place, bytes, lanes, new)
    }

    fn race_place(
        &mut self,
        w: usize,
        touch: &Touch,
        place: Place,
        bytes: usize,
        lanes: u32,
        new: Option<&[u8]>,
    ) -> Step<()> {
        let Some((region, at)) = self.region(place) else { return Ok(()) };
        let mut sanitizer = self.races.take().expect("an access has begun");
        let result = sanitizer.races.access(&touch.access, Spot { region, at, bytes }, lanes, || {
            new.is_some_and(|new| self.bytes_of(w, place, bytes) == new)
        });
        let live = self.warps[w].live;
        if let Order::Strong { scope, acquire, release } = touch.order {
            let (warp, write) = (id(&self.warps[w]), touch.access.writes());
            for lane in (0..32).filter(|&l| lanes >> l & 1 == 1) {
                let by = Thread { warp, lane, live };
                if new.is_none() {
                    sanitizer.races.find((region, at), by, scope, acquire);
                }
                if write {
                    sanitizer.races.post((region, at), by, scope, release, new.is_none());
                }
            }
        }
        self.races = Some(sanitizer);
        result.map_err(|clash| self.clash(&clash))
    }

    /// The same for a read of many lanes, of which neighbours often share a place.
    pub(super) fn race_read(&mut self, w: usize, places: &[Option<Place>; 32], bytes: usize) -> Step<()> {
        let Some(touch) = self.race_begin(w, false) else { return Ok(()) };
        let mut lane = 0;
        while lane < 32 {
            let Some(place) = places[lane] else {
                lane += 1;
                continue;
            };
            let mut lanes = 0u32;
            while lane < 32 && places[lane] == Some(place) {
                lanes |= 1 << lane;
                lane += 1;
            }
            // A lane that came to know more than its neighbours answers for itself.
            if lanes.is_power_of_two() || self.lanes_agree(w) {
                self.race_touch(w, &touch, place, bytes, lanes, None)?;
            } else {
                for one in (0..32).map(|l| lanes & 1 << l).filter(|&l| l != 0) {
                    self.race_touch(w, &touch, place, bytes, one, None)?;
                }
            }
        }
        Ok(())
    }

    fn lanes_agree(&mut self, w: usize) -> bool {
        let warp = id(&self.warps[w]);
        self.races.as_mut().is_none_or(|s| s.races.lanes(warp).agree())
    }

    /// An ordinary access must not meet a live mbarrier.
    fn off_barriers(&self, slot: usize, at: usize, bytes: usize, lanes: u32) -> Step<()> {
        let Some(&(first, end)) = self.races.as_ref().and_then(|s| s.barriers.get(slot)) else {
            return Ok(());
        };
        let from = WINDOW + at as u32;
        let to = from + bytes as u32;
        if to <= first || from >= end {
            return Ok(());
        }
        let mut inside = (from & !7..to).step_by(8);
        let live = |at: &u32| self.blocks[slot].mbarriers.get(at).is_some_and(|b| b.is_live());
        match inside.find(live) {
            Some(address) => {
                Err(Trouble { kind: FaultKind::OnBarrier { address }, lane: Some(lanes.trailing_zeros()) })
            }
            None => Ok(()),
        }
    }

    fn side(&self, party: &Party) -> Side {
        let op = &self.program.ops[party.pc as usize];
        let sanitizer = self.races.as_ref().expect("a clash has a checker");
        let what = match (party.manner.asynchronous, party.manner.strong.is_some(), party.manner.write) {
            (true, _, true) => "asynchronous write",
            (true, _, false) => "asynchronous read",
            (_, true, true) => "atomic or strong write",
            (_, true, false) => "strong read",
            (_, _, true) => "write",
            (_, _, false) => "read",
        };
        Side {
            instruction: self.program.opcodes[op.opcode as usize].clone(),
            line: op.line,
            block: sanitizer.layout.index(sanitizer.layout.block(party.warp)),
            warp: party.warp % sanitizer.layout.warps_per_block,
            lane: party.lane,
            what,
        }
    }

    fn clash(&self, clash: &Clash) -> Trouble {
        let (space, address) = match clash.region {
            Region::Shared(_) => ("shared", u64::from(WINDOW) + clash.at as u64),
            Region::Global(slot) => ("global", self.global.slot(slot).base + clash.at as u64),
        };
        let [access, earlier] = [clash.now, clash.earlier].map(|party| Box::new(self.side(&party)));
        let lane = Some(access.lane);
        let kind = match clash.why {
            Why::Race => FaultKind::Race { space, address, access, earlier },
            Why::Proxy => FaultKind::Proxy { space, address, access, earlier },
        };
        Trouble { kind, lane }
    }

    /// `fence` and its like.
    pub(super) fn race_fence(&mut self, w: usize, op: &Op, mask: u32) {
        let order = self.order(op);
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        let Some(sanitizer) = self.races.as_mut() else { return };
        let races = &mut sanitizer.races;
        match order {
            Order::Fence(scope) => races.lanes(warp).fence(mask, live, scope),
            Order::Proxy { shared, global } => {
                let spaces = [(shared, Space::Shared), (global, Space::Global)];
                let spaces: Vec<Space> = spaces.into_iter().filter(|s| s.0).map(|s| s.1).collect();
                races.lanes(warp).fence_proxy(mask, live, &spaces);
                if shared {
                    races.barriers_fenced(warp, mask);
                }
            }
            Order::BarrierInit => races.barriers_fenced(warp, mask),
            _ => {}
        }
    }

    /// `bar.warp.sync` of these lanes is complete.
    pub(super) fn race_warp_barrier(&mut self, w: usize, lanes: u32) {
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.lanes(warp).synchronise(lanes, live);
        }
    }

    /// Lanes arrive at a barrier of a block.
    pub(super) fn race_arrive(&mut self, w: usize, barrier: u32, mask: u32) {
        let (block, warp) = (self.number(self.slot(w)), id(&self.warps[w]));
        let live = self.warps[w].live;
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.arrive((block, barrier), warp, mask, live);
        }
    }

    /// It opens.
    pub(super) fn race_open(&mut self, slot: usize, barrier: u32) {
        let block = self.number(slot);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.open((block, barrier));
        }
    }

    /// Lanes pass it.
    pub(super) fn race_pass(&mut self, w: usize, barrier: u32, mask: u32) {
        let (block, warp) = (self.number(self.slot(w)), id(&self.warps[w]));
        let live = self.warps[w].live;
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.pass((block, barrier), warp, mask, live, false);
        }
    }

    /// Lanes arrive at the barrier of their cluster.
    pub(super) fn race_cluster_arrive(&mut self, w: usize, mask: u32) {
        let place = self.cluster_place(self.slot(w));
        let relaxed = self.order(&self.program.ops[self.current_pc as usize]) == Order::Relaxed;
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        if let Some(sanitizer) = self.races.as_mut().filter(|_| !relaxed) {
            sanitizer.races.arrive(place, warp, mask, live);
        }
    }

    /// It opens; `slot` is one of the cluster's.
    pub(super) fn race_cluster_open(&mut self, slot: usize) {
        let place = self.cluster_place(slot);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.open(place);
        }
    }

    /// Lanes pass it.
    pub(super) fn race_cluster_pass(&mut self, w: usize, mask: u32) {
        let place = self.cluster_place(self.slot(w));
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.pass(place, warp, mask, live, true);
        }
    }

    fn cluster_place(&self, slot: usize) -> (u32, u32) {
        (self.number(slot - self.blocks[slot].rank as usize), CLUSTER_BARRIER)
    }

    /// `mbarrier.init` and `mbarrier.inval` by a lane.
    pub(super) fn race_barrier_storage(
        &mut self,
        w: usize,
        lane: u32,
        slot: usize,
        address: u32,
        init: bool,
    ) -> Step<()> {
        let Some(touch) = self.race_begin(w, true) else { return Ok(()) };
        let place = Place::Shared(slot, (address - WINDOW) as usize);
        self.race_place(w, &touch, place, 8, 1 << lane, None)?;
        let (block, warp) = (self.number(slot), id(&self.warps[w]));
        if let Some(sanitizer) = self.races.as_mut().filter(|_| init) {
            sanitizer.races.barrier_init((block, address), warp, lane);
            let span = sanitizer.span(slot);
            *span = (span.0.min(address), span.1.max(address + 8));
        }
        Ok(())
    }

    /// A lane uses an mbarrier of a block, itself or through a copy.
    pub(super) fn race_barrier_use(
        &mut self,
        w: usize,
        lane: u32,
        slot: usize,
        address: u32,
        asynchronous: bool,
    ) -> Step<()> {
        let (block, warp) = (self.number(slot), id(&self.warps[w]));
        let Some(sanitizer) = self.races.as_mut() else { return Ok(()) };
        sanitizer.races.barrier_seen((block, address), warp, lane, asynchronous).map_err(|unseen| {
            let fence = unseen == Unseen::Unfenced;
            Trouble { kind: FaultKind::BarrierUnseen { address, fence }, lane: Some(lane) }
        })
    }

    /// Lanes arrive at mbarriers: those that name the same one arrive together.
    pub(super) fn race_barrier_arrivals(&mut self, w: usize, lanes: &[(u32, usize, u32)]) -> Step<()> {
        self.for_each_barrier(w, lanes, |races, place, warp, live, mask| {
            races.barrier_arrive(place, warp, mask, live);
        })
    }

    /// Lanes look at mbarriers; those of `over` see that a phase is over.
    pub(super) fn race_barrier_wait(&mut self, w: usize, lanes: &[(u32, usize, u32)], over: u32) -> Step<()> {
        self.for_each_barrier(w, lanes, |races, place, warp, live, mask| {
            if mask & over != 0 {
                races.barrier_wait(place, warp, mask & over, live);
            }
        })
    }

    /// Checks that lanes may use their barriers, then tells of each barrier and its lanes, unless the instruction is
    /// relaxed.
    fn for_each_barrier(
        &mut self,
        w: usize,
        lanes: &[(u32, usize, u32)],
        tell: impl Fn(&mut Races, (u32, u32), u32, u32, u32),
    ) -> Step<()> {
        if self.races.is_none() {
            return Ok(());
        }
        let relaxed = self.order(&self.program.ops[self.current_pc as usize]) == Order::Relaxed;
        let mut told = 0u32;
        for &(first, slot, address) in lanes {
            if told >> first & 1 == 1 {
                continue;
            }
            let same = |l: &&(u32, usize, u32)| (l.1, l.2) == (slot, address);
            let same = lanes.iter().filter(same).fold(0u32, |m, l| m | 1 << l.0);
            told |= same;
            for lane in (0..32).filter(|&l| same >> l & 1 == 1) {
                self.race_barrier_use(w, lane, slot, address, false)?;
            }
            let (block, warp, live) = (self.number(slot), id(&self.warps[w]), self.warps[w].live);
            if let Some(sanitizer) = self.races.as_mut().filter(|_| !relaxed) {
                tell(&mut sanitizer.races, (block, address), warp, live, same);
            }
        }
        Ok(())
    }

    /// A phase of an mbarrier is over.
    pub(super) fn race_barrier_turn(&mut self, slot: usize, address: u32) {
        let block = self.number(slot);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.barrier_turn((block, address));
        }
    }

    /// A lane issues a copy into the shared memory of blocks, which an mbarrier in each of them counts.
    pub(super) fn race_issue_load(
        &mut self,
        w: usize,
        lane: u32,
        source: &Source,
        targets: &[usize],
        barrier: u32,
    ) -> Step<Option<Issued>> {
        let (warp, pc) = (id(&self.warps[w]), self.current_pc);
        let Some(sanitizer) = self.races.as_mut() else { return Ok(None) };
        let know = sanitizer.races.lanes(warp).of(lane).clone();
        let mut writes = Vec::new();
        for &slot in targets {
            self.race_barrier_use(w, lane, slot, barrier, true)?;
            // What is sent from register or shared memory is looked at when it arrives.
            let Source::Global { segments, .. } = source else { continue };
            for segment in segments {
                let at = (segment.shared - WINDOW) as usize;
                self.off_barriers(slot, at, segment.bytes as usize, 1 << lane)?;
            }
            let block = self.number(slot);
            let Some(sanitizer) = self.races.as_mut() else { continue };
            let races = &mut sanitizer.races;
            let write = races.begin_copy((block, barrier), false, warp, pc, Manner::ASYNC_WRITE);
            let result = segments.iter().try_for_each(|segment| {
                let (at, bytes) = ((segment.shared - WINDOW) as usize, segment.bytes as usize);
                races.access_async(
                    &write,
                    &know,
                    Some(lane),
                    Spot { region: Region::Shared(block), at, bytes },
                )
            });
            result.map_err(|clash| self.clash(&clash))?;
            writes.push((block, write));
        }
        Ok(Some(Issued { writes, know, w, warp, lane, pc }))
    }

    /// The copy's bytes have arrived in a block.
    pub(super) fn race_finish_load(
        &mut self,
        issued: &Issued,
        source: &Source,
        slot: usize,
        barrier: u32,
    ) -> Step<()> {
        let block = self.number(slot);
        let (warp, pc) = (issued.warp, issued.pc);
        let Some(mut sanitizer) = self.races.take() else { return Ok(()) };
        let races = &mut sanitizer.races;
        let place = (block, barrier);
        let begin = |races: &mut Races, manner| races.begin_copy(place, true, warp, pc, manner);
        let read = begin(races, Manner::ASYNC_READ);
        let mut accesses = Vec::new();
        match source {
            Source::Global { segments, .. } => {
                let written = begin(races, Manner::ASYNC_WRITE);
                let flying = issued.writes.iter().find(|write| write.0 == block);
                for segment in segments {
                    let (at, bytes) = ((segment.shared - WINDOW) as usize, segment.bytes as usize);
                    if let Some((_, flying)) = flying {
                        races.complete(flying, &written, Spot { region: Region::Shared(block), at, bytes });
                    }
                    if let Some(address) = segment.global
                        && let Some((slot, at)) = self.global.locate(address, bytes as u64)
                    {
                        accesses.push((read, Spot { region: Region::Global(slot), at, bytes }));
                    }
                }
            }
            Source::Sent(sent) => {
                let (to, bytes, plain) = sent.destination();
                let shared = |block, at: u32, bytes: u32| Spot {
                    region: Region::Shared(block),
                    at: (at - WINDOW) as usize,
                    bytes: bytes as usize,
                };
                let manner = match sent {
                    Sent::Copy { slot, from, .. } => {
                        accesses.push((read, shared(self.number(*slot), *from, bytes)));
                        Manner::ASYNC_WRITE
                    }
                    _ if plain => Manner::WRITE,
                    _ => Manner { strong: Some(Scope::Cluster), ..Manner::WRITE },
                };
                accesses.push((begin(races, manner), shared(block, to, bytes)));
            }
        }
        let result = accesses.iter().try_for_each(|(access, spot)| {
            races.access_async(access, &issued.know, Some(issued.lane), *spot)
        });
        self.races = Some(sanitizer);
        result.map_err(|clash| {
            // Its instruction is to blame, not the running one.
            self.blame = Some((issued.w, issued.pc));
            self.clash(&clash)
        })
    }

    /// A lane issues a store of a bulk group.
    pub(super) fn race_issue_store(
        &mut self,
        w: usize,
        lane: u32,
        group: u64,
        segments: &[Segment],
        strong: bool,
    ) -> Step<()> {
        let (block, warp, pc) = (self.number(self.slot(w)), id(&self.warps[w]), self.current_pc);
        let Some(mut sanitizer) = self.races.take() else { return Ok(()) };
        let races = &mut sanitizer.races;
        let know = races.lanes(warp).of(lane).clone();
        let clock = group as u32 + 1;
        let reading = Agent::StoreRead(warp, lane);
        let read = races.begin_async(reading, clock, warp, pc, Manner::ASYNC_READ);
        let strong = strong.then_some(Scope::Card);
        let manner = Manner { strong, ..Manner::ASYNC_WRITE };
        let written = races.begin_async(Agent::StoreWrite(warp, lane), clock, warp, pc, manner);
        let mut result = Ok(());
        for segment in segments.iter() {
            let (at, bytes) = ((segment.shared - WINDOW) as usize, segment.bytes as usize);
            let shared = Region::Shared(block);
            result = result.and_then(|()| {
                races.access_async(&read, &know, Some(lane), Spot { region: shared, at, bytes })
            });
            if let Some((slot, at)) =
                segment.global.and_then(|address| self.global.locate(address, u64::from(segment.bytes)))
            {
                let global = Region::Global(slot);
                result = result.and_then(|()| {
                    races.access_async(&written, &know, Some(lane), Spot { region: global, at, bytes })
                });
            }
        }
        self.races = Some(sanitizer);
        result.map_err(|clash| self.clash(&clash))
    }

    /// A lane has waited for its bulk groups before `limit`, or for their reads.
    pub(super) fn race_wait_stores(&mut self, w: usize, lane: u32, limit: u64, read: bool) {
        let (warp, live) = (id(&self.warps[w]), self.warps[w].live);
        let Some(sanitizer) = self.races.as_mut() else { return };
        let races = &mut sanitizer.races;
        races.observe(warp, 1 << lane, live, Agent::StoreRead(warp, lane), limit as u32);
        if !read {
            races.observe(warp, 1 << lane, live, Agent::StoreWrite(warp, lane), limit as u32);
        }
    }

    /// A warpgroup issues a wgmma: each warp reads ranges of shared memory.
    pub(super) fn race_wgmma(
        &mut self,
        first: usize,
        group: u64,
        ranges: &[Vec<std::ops::Range<u32>>; 4],
    ) -> Step<()> {
        let (block, pc) = (self.number(self.slot(first)), self.current_pc);
        let Some(mut sanitizer) = self.races.take() else { return Ok(()) };
        let races = &mut sanitizer.races;
        let agent = Agent::Wgmma(id(&self.warps[first]));
        let mut result = Ok(());
        for (member, ranges) in ranges.iter().enumerate() {
            let warp = id(&self.warps[first + member]);
            let know = races.lanes(warp).together();
            let read = races.begin_async(agent, group as u32 + 1, warp, pc, Manner::ASYNC_READ);
            for range in ranges {
                let (at, bytes) = (range.start as usize, (range.end - range.start) as usize);
                let region = Region::Shared(block);
                result = result.and_then(|()| {
                    races
                        .access_async(&read, &know, None, Spot { region, at, bytes })
                        .map_err(|clash| (member, clash))
                });
            }
        }
        self.races = Some(sanitizer);
        result.map_err(|(member, clash)| {
            self.blame = Some((first + member, pc));
            self.clash(&clash)
        })
    }

    /// A warp has waited for the wgmma groups of its warpgroup before `limit`.
    pub(super) fn race_wait_wgmma(&mut self, w: usize, limit: u64) {
        let first = w - self.warps[w].index as usize % 4;
        let (leader, warp) = (id(&self.warps[first]), id(&self.warps[w]));
        let live = self.warps[w].live;
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.observe(warp, live, live, Agent::Wgmma(leader), limit as u32);
        }
    }

    /// A block has ended.
    pub(super) fn race_end_block(&mut self, slot: usize) {
        let block = self.number(slot);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.end_block(block);
            *sanitizer.span(slot) = (u32::MAX, 0);
        }
    }
}
