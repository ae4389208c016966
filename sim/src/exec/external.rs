//! Functions that the system supplies: `assert` and `printf`.

use super::access::Place;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{External, Space};

/// Characters of a text that are read.
const LENGTH: u64 = 1000;

impl Grid<'_> {
    pub(super) fn external(
        &mut self,
        w: usize,
        mask: u32,
        which: External,
        arguments: &[u32],
        result: Option<u32>,
    ) -> Step<()> {
        let size = self.program.local_bytes as usize;
        let lane = mask.trailing_zeros() as usize;
        let argument = |i: usize, bytes: usize| {
            let place = Place::Local(lane * size + arguments[i] as usize);
            self.bytes_of(w, place, bytes).iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
        };
        match which {
            External::Assert => {
                let [message, file, function] = [0, 1, 3].map(|i| self.text(w, lane, argument(i, 8)));
                let line = argument(2, 4);
                let what = format!("assertion `{message}` fails in {function}, {file}:{line}");
                Err(Trouble { kind: FaultKind::Assertion(what), lane: Some(lane as u32) })
            }
            External::Print => {
                let format = self.text(w, lane, argument(0, 8));
                let line = self.program.ops[self.current_pc as usize].line;
                self.warnings.insert(format!("printf of {format:?} (PTX line {line}) prints nothing here"));
                if let Some(result) = result {
                    for lane in (0..32).filter(|&i| mask >> i & 1 == 1) {
                        self.write_at(w, Place::Local(lane * size + result as usize), &[0; 4], 0xf);
                    }
                }
                Ok(())
            }
        }
    }

    /// A text that ends with a zero.
    fn text(&self, w: usize, lane: usize, address: u64) -> String {
        let bytes: Vec<u8> = (address..address.saturating_add(LENGTH))
            .map_while(|at| {
                let place = self.locate(w, lane, Space::Generic, at, 1).ok()?;
                Some(self.bytes_of(w, place, 1)[0]).filter(|&byte| byte != 0)
            })
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
