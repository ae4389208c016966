//! How often each kernel ran, and what it counted or took.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::lock;

/// Totals of one kernel over the launches since [`Device::clear_records`](super::Device::clear_records).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LaunchRecord {
    /// The kernel's entry name.
    pub kernel: String,
    /// Launches, those of replayed graphs included.
    pub launches: u64,
    /// What the simulated card counted; `None` on a real one.
    #[cfg(feature = "sim")]
    pub counters: Option<narrowgauge_sim::Counters>,
    /// One of each launch, in their order, while [`Schedule::profile`](narrowgauge_sim::Schedule::profile) is on.
    #[cfg(feature = "sim")]
    pub profiles: Vec<narrowgauge_sim::Profile>,
    /// Warnings of the simulated card, without repeats.
    pub warnings: Vec<String>,
    /// Time on a card, where [`Device::set_timing`](super::Device::set_timing) asked for it (launches of graphs
    /// excluded). Never given by the simulated card.
    pub time: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Records(Mutex<BTreeMap<String, LaunchRecord>>);

impl Records {
    pub(super) fn update(&self, kernel: &str, change: impl FnOnce(&mut LaunchRecord)) {
        let mut records = lock(&self.0);
        match records.get_mut(kernel) {
            Some(record) => change(record),
            None => {
                let mut record = LaunchRecord { kernel: kernel.to_owned(), ..LaunchRecord::default() };
                change(&mut record);
                records.insert(kernel.to_owned(), record);
            }
        }
    }

    pub(super) fn all(&self) -> Vec<LaunchRecord> {
        lock(&self.0).values().cloned().collect()
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}
