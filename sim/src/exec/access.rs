//! Loads, stores, atomics and matrix transfers: every lane's access is located, aligned and checked.

use super::atomics::modify;
use super::operands::any64;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Address, Base, Dst, Kind, Rmw, S32, Space, Src, Type};
use crate::matrix;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::row::{Row, Row64};
use crate::schedule::InFlight;

const WINDOW_BYTES: u64 = 1 << 32;

/// Where an access lands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    Global(usize, usize),
    /// Slot of the block, and offset.
    Shared(usize, usize),
    Local(usize),
    Param(usize),
}

impl Grid<'_> {
    pub(super) fn locate(
        &self,
        w: usize,
        lane: usize,
        space: Space,
        address: u64,
        bytes: u32,
    ) -> Step<Place> {
        let (space, address) = match space {
            Space::Generic if address >= PARAM_WINDOW => (Space::Param, address - PARAM_WINDOW),
            Space::Generic if address >= LOCAL_WINDOW => (Space::Local, address - LOCAL_WINDOW),
            Space::Generic if address >= SHARED_WINDOW => (Space::Cluster, address - SHARED_WINDOW),
            Space::Generic => (Space::Global, address),
            // The hardware sees the low 32 bits, which is what others' kernels rely on.
            Space::Shared | Space::Cluster
                if (SHARED_WINDOW..LOCAL_WINDOW).contains(&address)
                    && self.schedule.in_flight == InFlight::Compatible =>
            {
                (space, address & (WINDOW_BYTES - 1))
            }
            space => (space, address),
        };
        let size = self.program.local_bytes as usize;
        let small = usize::try_from(address.min(WINDOW_BYTES)).unwrap_or(usize::MAX);
        let place = match space {
            Space::Shared | Space::Cluster if address < WINDOW_BYTES => {
                let fault = |kind| Trouble { kind, lane: Some(lane as u32) };
                let owner = self.owner(w, address, space == Space::Cluster).map_err(fault)?;
                owner.and_then(|(slot, local)| {
                    self.blocks[slot].shared.locate(local, bytes).map(|at| Place::Shared(slot, at))
                })
            }
            Space::Shared | Space::Cluster => None,
            Space::Local => (small + bytes as usize <= size).then(|| Place::Local(lane * size + small)),
            Space::Param => (small + bytes as usize <= self.params.len()).then_some(Place::Param(small)),
            _ => self.global.locate(address, u64::from(bytes)).map(|(slot, at)| Place::Global(slot, at)),
        };
        place.ok_or(Trouble {
            kind: FaultKind::OutOfBounds { space: space.name(), address, bytes },
            lane: Some(lane as u32),
        })
    }

    pub(super) fn bytes_at(&self, w: usize, place: Place, bytes: usize) -> (&[u8], u32) {
        match place {
            Place::Global(slot, at) => {
                let allocation = self.global.slot(slot);
                (&allocation.data[at..at + bytes], allocation.defined(at, bytes))
            }
            Place::Shared(slot, at) => {
                let shared = &self.blocks[slot].shared;
                (&shared.data[at..at + bytes], shared.defined.get(at, bytes))
            }
            Place::Local(at) => {
                let warp = &self.warps[w];
                (&warp.local[at..at + bytes], warp.local_defined.get(at, bytes))
            }
            Place::Param(at) => (&self.params[at..at + bytes], (1 << bytes) - 1),
        }
    }

    pub(super) fn bytes_of(&self, w: usize, place: Place, bytes: usize) -> &[u8] {
        self.bytes_at(w, place, bytes).0
    }

    pub(super) fn write_at(&mut self, w: usize, place: Place, bytes: &[u8], defined: u32) {
        let count = bytes.len();
        let all = (1u32 << count) - 1;
        match place {
            Place::Global(slot, at) => {
                let allocation = self.global.slot_mut(slot);
                allocation.data[at..at + count].copy_from_slice(bytes);
                allocation.put_defined(at, count, defined);
            }
            Place::Shared(slot, at) => {
                let shared = &mut self.blocks[slot].shared;
                shared.data[at..at + count].copy_from_slice(bytes);
                put_bits(&mut shared.defined, at, count, defined, all);
            }
            Place::Local(at) => {
                let warp = &mut self.warps[w];
                warp.local[at..at + count].copy_from_slice(bytes);
                put_bits(&mut warp.local_defined, at, count, defined, all);
            }
            Place::Param(_) => unreachable!("stores to parameters are refused before"),
        }
    }

    pub(super) fn aligned(&self, lane: usize, address: u64, to: u32) -> Step<()> {
        if address.is_multiple_of(u64::from(to)) {
            return Ok(());
        }
        Err(Trouble { kind: FaultKind::Misaligned { address, align: to }, lane: Some(lane as u32) })
    }

    /// Counts sectors of a global access, or wavefronts of a shared one.
    pub(super) fn count_access(
        &mut self,
        space: Space,
        addresses: &Row64,
        mask: u32,
        bytes: u32,
        store: bool,
    ) {
        let shared = match space {
            Space::Shared | Space::Cluster => true,
            Space::Global => false,
            Space::Generic => {
                let first = addresses[mask.trailing_zeros() as usize & 31];
                if first >= LOCAL_WINDOW {
                    return;
                }
                first >= SHARED_WINDOW
            }
            _ => return,
        };
        if shared {
            let (phases, extra) = wavefronts(addresses, mask, bytes);
            self.hotspots.shared(self.current_pc, phases, phases + extra);
            self.counters.bank_conflicts += u64::from(extra);
            return;
        }
        let mut sectors = [0u64; 32];
        let mut count = 0;
        for i in 0..32 {
            if mask >> i & 1 == 1 {
                let sector = addresses[i] / 32;
                if count == 0 || sectors[count - 1] != sector {
                    sectors[count] = sector;
                    count += 1;
                }
            }
        }
        let length = count;
        let list = &mut sectors[..length];
        if list.windows(2).any(|p| p[0] > p[1]) {
            list.sort_unstable();
            count = 1 + list.windows(2).filter(|p| p[0] != p[1]).count();
        }
        self.hotspots.global(self.current_pc, (mask.count_ones() * bytes).div_ceil(32), count as u32);
        self.profile_sectors(&sectors[..length], store, mask.count_ones() * bytes);
        if store {
            self.counters.store_sectors += count as u64;
        } else {
            self.counters.load_sectors += count as u64;
        }
    }

    pub(super) fn load(
        &mut self,
        w: usize,
        mask: u32,
        space: Space,
        ty: Type,
        to: &[Dst],
        from: &Address,
    ) -> Step<()> {
        let addresses = self.addresses(w, from, mask)?;
        let each = ty.bytes() as usize;
        let total = each * to.len();
        let mut values = [[0u64; 32]; 8];
        let mut shadows = [[0u64; 32]; 8];
        let mut undefined = false;
        let uniform = space == Space::Param && matches!(from.base, Base::None);
        let mut fetched: Option<usize> = None;
        let mut places = [None; 32];
        for lane in 0..32 {
            if mask >> lane & 1 == 0 {
                continue;
            }
            if let (true, Some(first)) = (uniform, fetched) {
                for value in &mut values[..to.len()] {
                    value[lane] = value[first];
                }
                continue;
            }
            fetched = Some(lane);
            let address = addresses[lane];
            self.aligned(lane, address, total as u32)?;
            let place = self.locate(w, lane, space, address, total as u32)?;
            places[lane] = Some(place);
            let (bytes, defined) = self.bytes_at(w, place, total);
            let all = (1u32 << total) - 1;
            for e in 0..to.len() {
                let part = &bytes[e * each..(e + 1) * each];
                let raw = match each {
                    1 => u64::from(part[0]),
                    2 => u64::from(u16::from_le_bytes([part[0], part[1]])),
                    4 => u64::from(u32::from_le_bytes([part[0], part[1], part[2], part[3]])),
                    _ => u64::from_le_bytes(part.try_into().expect("eight bytes")),
                };
                values[e][lane] = match ty {
                    Type::S8 => raw as i8 as i64 as u64,
                    Type::S16 => raw as i16 as i64 as u64,
                    Type::S32 => raw as i32 as i64 as u64,
                    _ => raw,
                };
            }
            if defined != all && self.schedule.checks {
                undefined = true;
                for (e, shadow) in shadows[..to.len()].iter_mut().enumerate() {
                    shadow[lane] = spread_bytes(!(defined >> (e * each)), each);
                }
            }
        }
        self.count_access(space, &addresses, mask, total as u32, false);
        self.touch(w, space, &addresses, mask, total as u32, false);
        if self.races.is_some() && space != Space::Param && space != Space::Local {
            self.race_read(w, &places, total)?;
        }
        for (e, &d) in to.iter().enumerate() {
            let shadow = if undefined { Some(&shadows[e]).filter(|s| any64(s, mask)) } else { None };
            // Sign extension fills 32 bits of a 32-bit register, 16 of a 16-bit one: the type's user masks.
            self.put(w, d, &values[e], mask, shadow)?;
        }
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        w: usize,
        mask: u32,
        space: Space,
        ty: Type,
        to: &Address,
        from: &[Src],
    ) -> Step<()> {
        let addresses = self.addresses(w, to, mask)?;
        let each = ty.bytes() as usize;
        let total = each * from.len();
        let mut values = [([0u64; 32], [0u64; 32]); 8];
        for (slot, &source) in values.iter_mut().zip(from) {
            *slot = self.get_bits(w, source)?;
        }
        let keep = if each == 8 { u64::MAX } else { (1 << (8 * each)) - 1 };
        let touch = self.race_begin(w, true);
        for lane in 0..32 {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let address = addresses[lane];
            self.aligned(lane, address, total as u32)?;
            let place = self.locate(w, lane, space, address, total as u32)?;
            let mut bytes = [0u8; 32];
            let mut defined = (1u32 << total) - 1;
            for (e, (value, shadow)) in values[..from.len()].iter().enumerate() {
                bytes[e * each..(e + 1) * each].copy_from_slice(&value[lane].to_le_bytes()[..each]);
                let shadow = shadow[lane] & keep;
                if shadow != 0 && self.schedule.checks {
                    defined &= !(undefined_bytes(shadow, each) << (e * each));
                }
            }
            if defined != (1u32 << total) - 1 && matches!(place, Place::Global(..)) {
                let kind = FaultKind::Uninitialised { used_as: "a value stored to global memory" };
                return Err(Trouble { kind, lane: Some(lane as u32) });
            }
            if let Place::Param(_) = place {
                let kind =
                    FaultKind::OutOfBounds { space: "parameter (read-only)", address, bytes: total as u32 };
                return Err(Trouble { kind, lane: Some(lane as u32) });
            }
            if let Some(touch) = &touch {
                self.race_touch(w, touch, place, total, 1 << lane, Some(&bytes[..total]))?;
            }
            self.write_at(w, place, &bytes[..total], defined);
        }
        self.count_access(space, &addresses, mask, total as u32, true);
        self.touch(w, space, &addresses, mask, total as u32, true);
        Ok(())
    }

    pub(super) fn atomic(&mut self, w: usize, mask: u32, kind: &Kind) -> Step<()> {
        let Kind::Atomic { space, ty, rmw, parts, at, c } = kind else {
            unreachable!("only atomics come here");
        };
        let addresses = self.addresses(w, at, mask)?;
        let operand = |source: &Src| {
            let (row, undefined) = self.get_bits(w, *source)?;
            self.demand(&undefined.map(|bits| bits & ty.mask()), mask, "an atomic's operand")?;
            Ok(row)
        };
        let operands = parts.iter().map(|(_, b)| operand(b)).collect::<Step<Vec<_>>>()?;
        let swaps = c.iter().map(operand).collect::<Step<Vec<_>>>()?;
        let bytes = ty.bytes();
        let whole = bytes * parts.len() as u32;
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            self.aligned(lane, addresses[lane], whole)?;
        }
        let touch = self.race_begin(w, true);
        let mut old = vec![[0; 32]; parts.len()];
        // Lane by lane: each finds what the ones before it left.
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            let mut places = Vec::with_capacity(parts.len());
            for (i, old) in old.iter_mut().enumerate() {
                let address = addresses[lane] + u64::from(bytes) * i as u64;
                let place = self.locate(w, lane, *space, address, bytes)?;
                let (data, defined) = self.bytes_at(w, place, bytes as usize);
                if defined != (1 << bytes) - 1 && *rmw != Rmw::Exch && self.schedule.checks {
                    let kind = FaultKind::Uninitialised { used_as: "an atomic's memory operand" };
                    return Err(Trouble { kind, lane: Some(lane as u32) });
                }
                let mut raw = [0; 8];
                raw[..bytes as usize].copy_from_slice(data);
                old[lane] = u64::from_le_bytes(raw);
                if let Some(touch) = &touch {
                    self.race_touch(w, touch, place, bytes as usize, 1 << lane, None)?;
                }
                places.push(place);
            }
            let swap = old.iter().zip(&operands).all(|(old, b)| old[lane] == b[lane] & ty.mask());
            for (i, &place) in places.iter().enumerate() {
                let (old, b) = (old[i][lane], operands[i][lane]);
                let global = matches!(place, Place::Global(..));
                let new = match swaps.get(i) {
                    Some(c) if swap => c[lane],
                    Some(_) => old,
                    None => modify(*rmw, *ty, old, b, global),
                };
                self.write_at(w, place, &new.to_le_bytes()[..bytes as usize], (1 << bytes) - 1);
            }
        }
        for (&(d, _), old) in parts.iter().zip(&old) {
            self.put(w, d, old, mask, None)?;
        }
        self.count_access(*space, &addresses, mask, whole, false);
        self.touch(w, *space, &addresses, mask, whole, false);
        self.touch(w, *space, &addresses, mask, whole, true);
        Ok(())
    }

    /// Whole cache lines of global memory lose their contents.
    pub(super) fn discard(&mut self, w: usize, mask: u32, at: &Address) -> Step<()> {
        const LINE: u32 = 128;
        const PART: u32 = 16;
        let addresses = self.addresses(w, at, mask)?;
        let touch = self.race_begin(w, true);
        for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
            self.aligned(lane, addresses[lane], LINE)?;
            for part in (0..LINE).step_by(PART as usize) {
                let place = self.locate(w, lane, Space::Global, addresses[lane] + u64::from(part), PART)?;
                let rubbish = [0xcd; PART as usize];
                if let Some(touch) = &touch {
                    self.race_touch(w, touch, place, PART as usize, 1 << lane, Some(&rubbish))?;
                }
                self.write_at(w, place, &rubbish, 0);
            }
        }
        self.touch(w, Space::Global, &addresses, mask, LINE, true);
        Ok(())
    }

    pub(super) fn load_matrix(
        &mut self,
        w: usize,
        mask: u32,
        to: &[u32],
        trans: bool,
        at: &Address,
    ) -> Step<()> {
        self.together(w, mask)?;
        let addresses = self.addresses(w, at, mask)?;
        let lanes = 8 * to.len();
        let mut rows = vec![[0u8; 16]; lanes];
        let mut shadows = vec![[0u8; 16]; lanes];
        let mut undefined = false;
        let mut places = [None; 32];
        for lane in 0..lanes {
            self.aligned(lane, addresses[lane], 16)?;
            let place = self.locate(w, lane, Space::Shared, addresses[lane], 16)?;
            places[lane] = Some(place);
            let (bytes, defined) = self.bytes_at(w, place, 16);
            rows[lane].copy_from_slice(bytes);
            for (i, byte) in shadows[lane].iter_mut().enumerate() {
                *byte = if defined >> i & 1 == 1 { 0 } else { 0xff };
            }
            undefined |= defined != 0xffff && self.schedule.checks;
        }
        self.count_access(Space::Shared, &addresses, ((1u64 << lanes) - 1) as u32, 16, false);
        self.race_read(w, &places, 16)?;
        let values = matrix::load(to.len(), trans, &rows);
        let shadows = undefined.then(|| matrix::load(to.len(), trans, &shadows));
        for (i, &d) in to.iter().enumerate() {
            self.put32(w, d, &values[i], mask, shadows.as_ref().map(|s| &s[i]))?;
        }
        Ok(())
    }

    pub(super) fn store_matrix(
        &mut self,
        w: usize,
        mask: u32,
        from: &[S32],
        trans: bool,
        at: &Address,
    ) -> Step<()> {
        self.together(w, mask)?;
        let addresses = self.addresses(w, at, mask)?;
        let mut values: Vec<Row> = Vec::new();
        let mut shadows: Vec<Row> = Vec::new();
        for &source in from {
            let (value, shadow) = self.get32(w, source)?;
            values.push(value);
            shadows.push(shadow.map_or([0; 32], |s| *s));
        }
        let rows = matrix::store(from.len(), trans, &values);
        let undefined = matrix::store(from.len(), trans, &shadows);
        let touch = self.race_begin(w, true);
        for lane in 0..rows.len() {
            self.aligned(lane, addresses[lane], 16)?;
            let place = self.locate(w, lane, Space::Shared, addresses[lane], 16)?;
            let mut defined = 0;
            for (i, &byte) in undefined[lane].iter().enumerate() {
                defined |= u32::from(byte == 0 || !self.schedule.checks) << i;
            }
            if let Some(touch) = &touch {
                self.race_touch(w, touch, place, 16, 1 << lane, Some(&rows[lane]))?;
            }
            self.write_at(w, place, &rows[lane], defined);
        }
        self.count_access(Space::Shared, &addresses, ((1u64 << rows.len()) - 1) as u32, 16, true);
        Ok(())
    }
}

/// Whether a generic address belongs to a space.
pub(super) fn in_space(address: u64, space: Space) -> bool {
    let window = |from: u64| (from..from + WINDOW_BYTES).contains(&address);
    match space {
        Space::Shared | Space::Cluster => window(SHARED_WINDOW),
        Space::Local => window(LOCAL_WINDOW),
        Space::Param => window(PARAM_WINDOW),
        Space::Global | Space::Generic => address < SHARED_WINDOW,
    }
}

fn put_bits(bits: &mut crate::memory::bits::Bits, at: usize, count: usize, defined: u32, all: u32) {
    if defined == all {
        bits.put(at, count, true);
    } else {
        for i in 0..count {
            bits.put(at + i, 1, defined >> i & 1 == 1);
        }
    }
}

/// A bit a byte to eight bits a byte.
fn spread_bytes(bytes: u32, count: usize) -> u64 {
    (0..count).fold(0, |m, i| m | if bytes >> i & 1 == 1 { 0xff << (8 * i) } else { 0 })
}

fn undefined_bytes(shadow: u64, count: usize) -> u32 {
    (0..count).fold(0, |m, i| m | u32::from(shadow >> (8 * i) & 0xff != 0) << i)
}

/// Phases with an access, and wavefronts beyond one for each: 32 lanes of up to 4 bytes, 16 of 8, 8 of 16 make a phase.
fn wavefronts(addresses: &Row64, mask: u32, bytes: u32) -> (u32, u32) {
    let lanes = match bytes {
        0..=4 => 32,
        8 => 16,
        _ => 8,
    };
    let (mut phases, mut extra) = (0, 0);
    for phase in (0..32).step_by(lanes) {
        let words = (bytes as usize / 4).max(1);
        let mut seen: [u64; 32] = [u64::MAX; 32];
        let mut hits = [0u32; 32];
        let (mut all, mut count) = ([0u64; 64], 0);
        for lane in phase..phase + lanes {
            if mask >> lane & 1 == 0 {
                continue;
            }
            for word in 0..words as u64 {
                let at = addresses[lane] / 4 + word;
                let bank = (at % 32) as usize;
                if seen[bank] != at {
                    seen[bank] = at;
                    hits[bank] += 1;
                    all[count] = at;
                    count += 1;
                }
            }
        }
        // A word is broadcast to every lane that wants it, also when it comes back after another one of its bank.
        if hits.iter().any(|&hits| hits > 2) {
            all[..count].sort_unstable();
            hits = [0; 32];
            for (i, &at) in all[..count].iter().enumerate() {
                hits[(at % 32) as usize] += u32::from(i == 0 || all[i - 1] != at);
            }
        }
        let most = hits.iter().max().copied().unwrap_or(0);
        phases += most.min(1);
        extra += most.saturating_sub(1);
    }
    (phases, extra)
}
