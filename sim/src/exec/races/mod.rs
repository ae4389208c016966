//! What the executor tells [`crate::race`], and faults out of its answers: ordinary accesses here, synchronisation and
//! asynchronous operations in the files beside.

mod copies;
mod synchronisation;

use copies::Flying;
pub(super) use copies::Issued;

use super::access::Place;
use super::warp::Warp;
use super::{Grid, Step, Trouble};
use crate::fault::{FaultKind, Side};
use crate::lower::program::{Op, Program};
use crate::memory::shared::WINDOW;
use crate::race::{Clash, Layout, MOST_WARPS, Manner, Order, Party, Races, Region, Space, Spot, Thread, Why};
use crate::schedule::InFlight;
use std::collections::{HashMap, HashSet};

/// The race checker of a launch, with what the executor keeps for it.
pub(super) struct Sanitizer {
    races: Races,
    layout: Layout,
    /// By opcode.
    orders: Vec<Order>,
    /// By slot: from the first to past the last live mbarrier, as shared addresses.
    barriers: Vec<(u32, u32)>,
    /// By warp: the `cp.async` that their lanes have not waited for.
    flying: HashMap<u32, Vec<Flying>>,
    /// By warp and lane: the last bulk store that it has not waited for.
    stores: HashMap<(u32, u32), u32>,
    /// Pairs of instructions whose clash was a warning.
    tolerated: HashSet<(u32, u32)>,
}

/// The accesses of one instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touch {
    access: crate::race::Access,
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
            flying: HashMap::new(),
            stores: HashMap::new(),
            tolerated: HashSet::new(),
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
        let manner = Manner { write, strong, constant: order == Order::Constant, ..Manner::READ };
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
        result.or_else(|clash| self.found(&clash, None))
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
            _ if party.manner.constant => "read through the read-only cache",
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
            Why::Constant => FaultKind::Constant { address, access, earlier },
        };
        Trouble { kind, lane }
    }

    /// A clash is a fault, whose instruction may not be the running one. In the compatible mode, where the hardware's own
    /// order may do, it is a warning for every pair of instructions.
    fn found(&mut self, clash: &Clash, blame: Option<(usize, u32)>) -> Step<()> {
        let trouble = self.clash(clash);
        self.tolerate(trouble, (clash.now.pc, clash.earlier.pc), blame)
    }

    fn tolerate(&mut self, trouble: Trouble, pair: (u32, u32), blame: Option<(usize, u32)>) -> Step<()> {
        if self.schedule.in_flight == InFlight::Strict {
            self.blame = blame.or(self.blame);
            return Err(trouble);
        }
        let first = self.races.as_mut().is_some_and(|s| s.tolerated.insert(pair));
        if first {
            self.warnings.insert(trouble.kind.to_string());
        }
        Ok(())
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
            Order::Map { scope, acquire } => {
                races.lanes(warp).fence(mask, live, scope);
                if acquire {
                    races.lanes(warp).fence_proxy(mask, live, &[Space::Map]);
                }
            }
            Order::BarrierInit => races.barriers_fenced(warp, mask),
            _ => {}
        }
    }

    /// A block has ended.
    pub(super) fn race_end_block(&mut self, slot: usize) {
        let block = self.number(slot);
        if let Some(sanitizer) = self.races.as_mut() {
            sanitizer.races.end_block(block);
            let warps = sanitizer.layout.warps_of(block);
            sanitizer.flying.retain(|warp, _| !warps.contains(warp));
            *sanitizer.span(slot) = (u32::MAX, 0);
        }
    }
}
