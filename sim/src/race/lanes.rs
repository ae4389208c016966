//! What the lanes of one warp know, and the warp's clock.
//!
//! Lanes mostly learn together. Those that learned more on their own (an elected lane that waited) keep a knowledge of
//! their own until the warp synchronises.

use super::clock::{Clock, Key, Know, Space};

/// How far a synchronisation reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    Block,
    Cluster,
    Card,
}

/// One warp.
#[derive(Debug)]
pub(crate) struct Lanes {
    warp: u32,
    /// Ticks after every release: what happens later is not part of it.
    pub(crate) clock: u32,
    common: Know,
    /// Lanes with knowledge of their own; masks are disjoint.
    apart: Vec<(u32, Know)>,
    /// Messages that relaxed reads found: (lanes, how far a fence must reach to make use of it, message).
    found: Vec<(u32, Scope, Know)>,
}

impl Lanes {
    pub(crate) fn new(warp: u32) -> Self {
        Self { warp, clock: 1, common: Know::default(), apart: Vec::new(), found: Vec::new() }
    }

    /// What one lane knows of others.
    pub(crate) fn of(&self, lane: u32) -> &Know {
        self.apart.iter().find(|a| a.0 >> lane & 1 == 1).map_or(&self.common, |a| &a.1)
    }

    /// Whether all lanes know the same.
    pub(crate) fn agree(&self) -> bool {
        self.apart.is_empty()
    }

    /// What all lanes know.
    pub(crate) fn together(&self) -> Know {
        let mut know = self.common.clone();
        self.apart.iter().for_each(|(_, own)| know.join(own));
        know
    }

    /// What the lanes of `mask` know together, their own past included; the past ends here.
    pub(crate) fn release(&mut self, mask: u32, live: u32) -> Know {
        let know = self.snapshot(mask, live);
        self.clock += 1;
        know
    }

    fn snapshot(&self, mask: u32, live: u32) -> Know {
        let mut know = Know::default();
        let mut rest = mask;
        for (lanes, own) in &self.apart {
            if lanes & mask != 0 {
                know.join(own);
            }
            rest &= !lanes;
        }
        if rest != 0 || mask == 0 {
            know.join(&self.common);
        }
        if mask & live == live {
            know.base.raise(Key::warp(self.warp), self.clock);
        } else {
            for lane in (0..32).filter(|&l| mask >> l & 1 == 1) {
                know.base.raise(Key::lane(self.warp, lane), self.clock);
            }
        }
        know
    }

    /// The lanes of `mask` learn.
    pub(crate) fn acquire(&mut self, mask: u32, live: u32, message: &Know) {
        if mask & live == live {
            self.common.join(message);
            for (_, know) in &mut self.apart {
                know.join(message);
            }
            return;
        }
        let mut rest = mask;
        let mut split = Vec::new();
        for (lanes, know) in &mut self.apart {
            let both = *lanes & mask;
            rest &= !*lanes;
            if both == *lanes {
                know.join(message);
            } else if both != 0 {
                *lanes &= !both;
                let mut own = know.clone();
                own.join(message);
                split.push((both, own));
            }
        }
        if rest != 0 {
            let mut own = self.common.clone();
            own.join(message);
            split.push((rest, own));
        }
        self.apart.append(&mut split);
    }

    /// `bar.warp.sync`: the members learn all that each of them knew or did.
    pub(crate) fn synchronise(&mut self, members: u32, live: u32) {
        let know = self.release(members, live);
        if members & live == live {
            self.common = know;
            self.apart.clear();
        } else {
            self.apart.retain_mut(|(lanes, _)| {
                *lanes &= !members;
                *lanes != 0
            });
            self.apart.push((members, know));
        }
    }

    /// `fence.proxy.async`: what the lanes know and did becomes visible to the async proxy.
    pub(crate) fn fence_proxy(&mut self, mask: u32, live: u32, spaces: &[Space]) {
        self.spread(mask, live, |know, own| {
            for &space in spaces {
                know.fenced[space as usize].join(own);
            }
        });
    }

    /// A memory fence: what relaxed reads found becomes known, what is known may be carried by relaxed writes.
    pub(crate) fn fence(&mut self, mask: u32, live: u32, scope: Scope) {
        let mut found = std::mem::take(&mut self.found);
        for (lanes, wanted, message) in &mut found {
            if *wanted <= scope && *lanes & mask != 0 {
                self.acquire(*lanes & mask, live, message);
                *lanes &= !mask;
            }
        }
        found.retain(|f| f.0 != 0);
        self.found = found;
        self.spread(mask, live, |know, own| {
            for published in &mut know.published[..=scope as usize] {
                published.join(own);
            }
        });
    }

    /// Notes a fence of the lanes of `mask` wherever they keep what they know. A fence is a fact about the past of those
    /// who made it: that others of the warp may hear of it early does no harm, since they must know that past, too.
    fn spread(&mut self, mask: u32, live: u32, note: impl Fn(&mut Know, &Clock)) {
        let own = self.snapshot(mask, live).base;
        let apart = self.apart.iter().fold(0, |m, a| m | a.0);
        for (_, know) in self.apart.iter_mut().filter(|a| a.0 & mask != 0) {
            note(know, &own);
        }
        if mask & !apart != 0 {
            note(&mut self.common, &own);
        }
        self.clock += 1;
    }

    /// A relaxed read found a message that a fence reaching `wanted` may use.
    pub(crate) fn find(&mut self, lane: u32, wanted: Scope, message: &Know) {
        match self.found.iter_mut().find(|f| f.0 == 1 << lane && f.1 == wanted) {
            Some(found) => found.2.join(message),
            None => self.found.push((1 << lane, wanted, message.clone())),
        }
    }

    /// What a relaxed write of a lane carries to readers as far away as `scope`: what it knows and a fence has published.
    pub(crate) fn carried(&self, lane: u32, scope: Scope) -> Option<Know> {
        let know = self.of(lane);
        let published = &know.published[scope as usize];
        if published.is_empty() {
            return None;
        }
        let base = published.meet(&know.base, Key::lane(self.warp, lane));
        Some(Know { base, ..know.clone() })
    }

    /// An asynchronous agent's work up to `clock` is seen by the lanes of `mask`.
    pub(crate) fn observe(&mut self, mask: u32, live: u32, agent: Key, clock: u32) {
        let mut message = Know::default();
        message.base.raise(agent, clock);
        self.acquire(mask, live, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = u32::MAX;

    #[test]
    fn a_release_covers_the_past_and_not_the_future() {
        let mut warp = Lanes::new(4);
        let before = warp.clock;
        let message = warp.release(ALL, ALL);
        assert!(message.base.knows(4, ALL, before));
        assert!(!message.base.knows(4, 1, warp.clock));
    }

    #[test]
    fn a_lane_releases_for_itself_and_for_what_its_warp_agreed_on() {
        let mut warp = Lanes::new(0);
        let agreed = warp.clock;
        warp.synchronise(ALL, ALL);
        let alone = warp.clock;
        let message = warp.release(1, ALL);
        assert!(message.base.knows(0, ALL, agreed));
        assert!(message.base.knows(0, 1, alone) && !message.base.knows(0, 2, alone));
    }

    #[test]
    fn what_a_lane_learns_alone_its_warp_learns_when_it_synchronises() {
        let mut writer = Lanes::new(1);
        let when = writer.clock;
        let message = writer.release(ALL, ALL);
        let mut warp = Lanes::new(0);
        warp.acquire(1, ALL, &message);
        assert!(warp.of(0).base.knows(1, ALL, when) && !warp.of(1).base.knows(1, ALL, when));
        warp.synchronise(3, ALL);
        assert!(warp.of(1).base.knows(1, ALL, when) && !warp.of(2).base.knows(1, ALL, when));
        warp.synchronise(ALL, ALL);
        assert!(warp.of(2).base.knows(1, ALL, when) && warp.agree());
    }

    #[test]
    fn proxy_fences_cover_what_came_before_them() {
        let mut warp = Lanes::new(0);
        let before = warp.clock;
        warp.fence_proxy(ALL, ALL, &[Space::Shared]);
        let after = warp.clock;
        let message = warp.release(ALL, ALL);
        let [shared, global, _] = &message.fenced;
        assert!(shared.knows(0, ALL, before) && !shared.knows(0, 1, after) && !global.knows(0, 1, before));
        // A fence after the barrier, by the thread that issues, counts too.
        let mut issuer = Lanes::new(1);
        issuer.acquire(ALL, ALL, &message);
        issuer.fence_proxy(1, ALL, &[Space::Global]);
        assert!(issuer.of(0).fenced[1].knows(0, ALL, after));
    }

    #[test]
    fn fences_make_relaxed_accesses_synchronise_as_far_as_they_reach() {
        let mut writer = Lanes::new(0);
        let when = writer.clock;
        assert!(writer.carried(0, Scope::Card).is_none());
        writer.fence(ALL, ALL, Scope::Block);
        assert!(writer.carried(0, Scope::Card).is_none());
        let message = writer.carried(0, Scope::Block).unwrap();
        assert!(message.base.knows(0, 1, when) && !message.base.knows(0, 2, when));
        let mut reader = Lanes::new(1);
        reader.find(3, Scope::Card, &message);
        reader.fence(ALL, ALL, Scope::Block);
        assert!(!reader.of(3).base.knows(0, 1, when));
        reader.fence(ALL, ALL, Scope::Card);
        assert!(reader.of(3).base.knows(0, 1, when) && !reader.of(4).base.knows(0, 1, when));
    }
}
