//! Vector clocks, sparse: who knows how much of whose past.
//!
//! An entry for a warp speaks for all its lanes. A lane that released something on its own, without its warp, has an
//! entry of its own ahead of the warp's. Asynchronous operations (copies, wgmma) are agents beside the warps.

/// Whose clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(u32);

const LANE: u32 = 1 << 30;
const AGENT: u32 = 2 << 30;

/// Warps that a launch may have: a lane's key has 30 bits.
pub(crate) const MOST_WARPS: u64 = 1 << 25;

impl Key {
    /// Every lane of a warp; warps count launch-wide.
    pub(crate) fn warp(warp: u32) -> Self {
        Self(warp)
    }

    pub(crate) fn lane(warp: u32, lane: u32) -> Self {
        Self(LANE | (32 * warp + lane))
    }

    /// The n-th asynchronous agent of the launch.
    pub(crate) fn agent(n: u32) -> Self {
        Self(AGENT | n)
    }

    fn is_lane(self) -> bool {
        self.0 & AGENT == 0 && self.0 & LANE != 0
    }

    /// The warp of a lane's key.
    fn warp_of(self) -> Self {
        Self((self.0 & !LANE) / 32)
    }
}

/// A vector clock; what it does not name stands at 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Sorted by key: warps, lanes, agents.
    entries: Vec<(Key, u32)>,
}

impl Clock {
    pub(crate) fn get(&self, key: Key) -> u32 {
        match self.entries.binary_search_by_key(&key, |e| e.0) {
            Ok(at) => self.entries[at].1,
            Err(_) => 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same for a key that its warp's entry may speak for.
    fn reach(&self, key: Key) -> u32 {
        let warp = if key.is_lane() { self.get(key.warp_of()) } else { 0 };
        self.get(key).max(warp)
    }

    /// The smaller of both, entry by entry; of `own`, what this clock says.
    pub(crate) fn meet(&self, other: &Self, own: Key) -> Self {
        let mut out = Self::default();
        for &(key, _) in self.entries.iter().chain(&other.entries) {
            out.raise(key, self.reach(key).min(other.reach(key)));
        }
        out.raise(own, self.reach(own));
        out.entries.retain(|e| e.1 > 0);
        out
    }

    pub(crate) fn raise(&mut self, key: Key, to: u32) {
        match self.entries.binary_search_by_key(&key, |e| e.0) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(to),
            Err(at) => self.entries.insert(at, (key, to)),
        }
    }

    /// Whether what these lanes of a warp did up to `clock` is known.
    pub(crate) fn knows(&self, warp: u32, lanes: u32, clock: u32) -> bool {
        self.get(Key::warp(warp)) >= clock
            || (0..32).all(|lane| lanes >> lane & 1 == 0 || self.get(Key::lane(warp, lane)) >= clock)
    }

    /// The larger of both, entry by entry.
    pub(crate) fn join(&mut self, other: &Self) {
        if other.entries.is_empty() {
            return;
        }
        if self.entries.is_empty() {
            self.entries.clone_from(&other.entries);
            return;
        }
        let mut missing = 0;
        let mut at = 0;
        for &(key, clock) in &other.entries {
            while at < self.entries.len() && self.entries[at].0 < key {
                at += 1;
            }
            match self.entries.get_mut(at) {
                Some(mine) if mine.0 == key => mine.1 = mine.1.max(clock),
                _ => missing += 1,
            }
        }
        if missing > 0 {
            self.merge(other, missing);
        }
        self.prune();
    }

    fn merge(&mut self, other: &Self, missing: usize) {
        let mut out = Vec::with_capacity(self.entries.len() + missing);
        let (mut mine, mut theirs) = (self.entries.iter().peekable(), other.entries.iter().peekable());
        loop {
            match (mine.peek(), theirs.peek()) {
                (Some(&&a), Some(&&b)) if a.0 == b.0 => {
                    out.push((a.0, a.1.max(b.1)));
                    mine.next();
                    theirs.next();
                }
                (Some(&&a), Some(&&b)) if a.0 < b.0 => {
                    out.push(a);
                    mine.next();
                }
                (_, Some(&&b)) => {
                    out.push(b);
                    theirs.next();
                }
                (Some(&&a), None) => {
                    out.push(a);
                    mine.next();
                }
                (None, None) => break,
            }
        }
        self.entries = out;
    }

    /// Forgets lanes that their warp's entry has caught up with.
    fn prune(&mut self) {
        let Some(first) = self.entries.iter().position(|e| e.0.is_lane()) else { return };
        let warps = self.entries[..first].to_vec();
        let behind = |key: Key, clock: u32| {
            key.is_lane()
                && warps.binary_search_by_key(&key.warp_of(), |e| e.0).is_ok_and(|at| warps[at].1 >= clock)
        };
        self.entries.retain(|&(key, clock)| !behind(key, clock));
    }
}

/// Memory that a proxy fence speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Shared,
    Global,
    /// Global memory as tensor maps are read.
    Map,
}

/// What a thread, or a message, knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Know {
    /// What happened before.
    pub(crate) base: Clock,
    /// Of that, what a fence has made visible to the async proxy, by [`Space`].
    pub(crate) fenced: [Clock; 3],
    /// Of that, what its threads have fenced as far as a scope reaches: what relaxed writes carry.
    pub(crate) published: [Clock; 3],
    /// Initialisations of mbarriers that a fence for them alone has made known.
    pub(crate) inits: Clock,
    /// Something of it came from another block.
    pub(crate) foreign: bool,
}

impl Know {
    pub(crate) fn join(&mut self, other: &Self) {
        self.base.join(&other.base);
        self.inits.join(&other.inits);
        for (mine, theirs) in self.fenced.iter_mut().zip(&other.fenced) {
            mine.join(theirs);
        }
        for (mine, theirs) in self.published.iter_mut().zip(&other.published) {
            mine.join(theirs);
        }
        self.foreign |= other.foreign;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_take_the_larger_of_each_entry() {
        let mut a = Clock::default();
        a.raise(Key::warp(3), 5);
        a.raise(Key::agent(0), 2);
        a.raise(Key::agent(0), 1);
        let mut b = Clock::default();
        b.raise(Key::warp(3), 4);
        b.raise(Key::warp(1), 9);
        b.raise(Key::agent(7), 1);
        a.join(&b);
        let got = [Key::warp(1), Key::warp(3), Key::agent(0), Key::agent(7), Key::warp(0)].map(|k| a.get(k));
        assert_eq!(got, [9, 5, 2, 1, 0]);
        let mut empty = Clock::default();
        empty.join(&a);
        assert_eq!(empty, a);
    }

    #[test]
    fn a_lane_may_be_ahead_of_its_warp() {
        let mut clock = Clock::default();
        clock.raise(Key::warp(2), 3);
        clock.raise(Key::lane(2, 5), 7);
        assert!(clock.knows(2, 1 << 5, 7) && clock.knows(2, u32::MAX, 3));
        assert!(!clock.knows(2, 1 << 5 | 1, 7) && !clock.knows(2, 1 << 5, 8) && !clock.knows(1, 1, 1));
        let mut all = Clock::default();
        all.raise(Key::warp(2), 7);
        clock.join(&all);
        assert_eq!(clock, all, "the lane's entry says no more than the warp's");
        let mut less = Clock::default();
        less.raise(Key::lane(2, 1), 4);
        less.raise(Key::agent(1), 4);
        let met = clock.meet(&less, Key::lane(2, 9));
        assert_eq!([met.get(Key::lane(2, 1)), met.get(Key::lane(2, 9)), met.get(Key::agent(1))], [4, 7, 0]);
        assert!(!met.knows(2, 4, 1));
    }
}
