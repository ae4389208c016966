//! Messages that strong writes leave in memory for strong reads to find.

use super::clock::Know;
use super::lanes::Scope;
use super::{Layout, Region};
use std::collections::HashMap;

#[derive(Debug)]
struct Message {
    reach: Scope,
    block: u32,
    know: Know,
}

/// All messages of a launch, by the place of the write.
#[derive(Debug, Default)]
pub(crate) struct Board {
    places: HashMap<(Region, usize), Vec<Message>>,
}

impl Board {
    /// A write replaces what was there; a read-modify-write adds to it.
    pub(crate) fn post(
        &mut self,
        place: (Region, usize),
        block: u32,
        add: bool,
        messages: Vec<(Scope, Know)>,
    ) {
        if messages.is_empty() && !self.places.contains_key(&place) {
            return;
        }
        let list = self.places.entry(place).or_default();
        if !add {
            list.clear();
        }
        for (reach, know) in messages {
            match list.iter_mut().find(|m| m.reach == reach && m.block == block) {
                Some(old) => old.know.join(&know),
                None => list.push(Message { reach, block, know }),
            }
        }
    }

    /// What a strong read of a block finds, each with the distance that it came.
    pub(crate) fn read(
        &self,
        place: (Region, usize),
        block: u32,
        scope: Scope,
        layout: &Layout,
    ) -> Vec<(Scope, Know)> {
        let mut out = Vec::new();
        for message in self.places.get(&place).into_iter().flatten() {
            let distance = if message.block == block {
                Scope::Block
            } else if layout.cluster_of(message.block) == layout.cluster_of(block) {
                Scope::Cluster
            } else {
                Scope::Card
            };
            if message.reach >= distance && scope >= distance {
                let mut know = message.know.clone();
                know.foreign |= message.block != block;
                out.push((distance, know));
            }
        }
        out
    }
}
