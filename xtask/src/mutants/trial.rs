//! What becomes of one mutant: compiled and tested family by family, as far as needed.

use super::Mutant;
use super::images::{self, Images};
use super::suite::{Answer, Limit, Suite};
use crate::variants::Variant;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub enum Verdict {
    /// A variant does not compile.
    Broken,
    /// The PTX of every variant stays as it is.
    Identical,
    Survived,
    Caught {
        /// "by a failure", "by the time limit".
        how: &'static str,
        what: String,
    },
    /// Noticed, and a defect of the simulator.
    Panicked(String),
}

/// Family by family: the kernels that may change, and the test programs that then have to notice.
pub type Families = Vec<(&'static str, &'static [&'static str])>;

pub struct Trial {
    pub suite: Suite,
    pub images: Images,
    /// Where the tests find the mutant's images.
    pub folder: PathBuf,
    pub seed: u64,
    pub limits: HashMap<&'static str, Limit>,
    /// What the tests of the sound kernels took.
    pub sound: Duration,
}

impl Trial {
    /// A mutant that a family's tests catch is not compiled for the families after it, nor, caught in one variant of each
    /// kernel, for their other variants.
    pub fn verdict(&mut self, mutant: &Mutant, families: &Families) -> Result<Verdict, String> {
        let users = self.images.users(&mutant.file)?;
        let text = mutant.edit.apply(&mutant.text);
        let mut verdict = Verdict::Identical;
        for (family, tests) in families {
            let users = users.iter().filter(|user| user.source.split('/').next() == Some(*family));
            let mut changed = BTreeMap::new();
            for stage in stages(users.cloned()) {
                let Some(more) = self.images.mutate(&mutant.file, &text, &stage)? else {
                    return Ok(Verdict::Broken);
                };
                if more.is_empty() {
                    continue;
                }
                changed.extend(more);
                verdict = Verdict::Survived;
                if let Some(noticed) = self.noticed(&changed, tests)? {
                    return Ok(noticed);
                }
            }
        }
        Ok(verdict)
    }

    /// What the first test that notices these images says.
    fn noticed(
        &mut self,
        changed: &BTreeMap<String, String>,
        tests: &'static [&'static str],
    ) -> Result<Option<Verdict>, String> {
        for test in tests {
            let limit = self.limit(test)?;
            images::write(&self.folder, changed)?;
            let caught =
                |how, what| Ok(Some(Verdict::Caught { how, what: format!("caught by {test}: {what}") }));
            match self.suite.run(test, &self.folder, self.seed, limit)?.0 {
                Answer::Passed => {}
                Answer::Failed(reason) => return caught("by a failure", short(&reason)),
                Answer::TimedOut => return caught("by the time limit", "time limit".to_owned()),
                Answer::Broke(reason) => return Ok(Some(Verdict::Panicked(reason))),
            }
        }
        Ok(None)
    }

    /// Four times what the sound kernels take, and more.
    fn limit(&mut self, test: &'static str) -> Result<Limit, String> {
        if let Some(limit) = self.limits.get(test) {
            return Ok(*limit);
        }
        images::write(&self.folder, &BTreeMap::new())?;
        let begun = Instant::now();
        let generous = Limit { processor: Duration::from_secs(1800), wall: Duration::from_secs(3600) };
        let sound = self.suite.run(test, &self.folder, self.seed, generous)?;
        self.sound += begun.elapsed();
        match sound {
            (Answer::Passed, taken) => {
                let processor = taken * 4 + Duration::from_secs(10);
                let limit = Limit { processor, wall: processor.max(Duration::from_secs(600)) * 2 };
                self.limits.insert(test, limit);
                Ok(limit)
            }
            (other, _) => Err(format!("the tests of {test} do not pass on the sound kernels: {other:?}")),
        }
    }
}

/// One variant of each kernel, which is quickly compiled and mostly enough; then the others.
fn stages(users: impl Iterator<Item = Variant>) -> [Vec<Variant>; 2] {
    let mut seen = HashSet::new();
    let (first, others) = users.partition(|user| seen.insert(user.source.clone()));
    [first, others]
}

fn short(text: &str) -> String {
    text.chars().take(140).collect()
}
