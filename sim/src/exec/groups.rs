//! Lanes of a split that must go group by group: through pointers to several functions, or with several member masks.

use super::warp::Split;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::lower::program::{Candidate, S32, S64};

impl Grid<'_> {
    /// Lanes that call one function go together, the others after them.
    pub(super) fn call_indirect(
        &mut self,
        w: usize,
        split: &mut Split,
        target: S64,
        candidates: &[Candidate],
    ) -> Step<()> {
        let row = self.sure64(w, target, split.mask, "a function's address")?;
        let here = split.pc;
        let first = row[split.mask.trailing_zeros() as usize];
        let others =
            (0..32).filter(|&i| split.mask >> i & 1 == 1 && row[i] != first).fold(0, |m, i| m | 1u32 << i);
        if others != 0 {
            self.warps[w].diverge(split, others, here, here + 1);
            split.pc = here;
            return Ok(());
        }
        let lane = Some(split.mask.trailing_zeros());
        let Some(candidate) = candidates.iter().find(|c| c.address == first) else {
            let what = format!("a call of {first:#x}, where no function of these parameters is");
            return Err(Trouble { kind: FaultKind::Barrier(what), lane });
        };
        if self.warps[w].is_in(split, candidate.target) {
            let what = "a function calls itself, which the simulator does not support".to_owned();
            return Err(Trouble { kind: FaultKind::Barrier(what), lane });
        }
        self.copy_local(w, split.mask, &candidate.arguments);
        self.warps[w].call(split, here, candidate.target);
        Ok(())
    }

    /// Lanes that name different members at one operation execute it group by group; whether there were several.
    pub(super) fn part_by_members(
        &mut self,
        w: usize,
        split: &mut Split,
        members: S32,
        mask: u32,
    ) -> Step<bool> {
        if let S32::Imm(_) = members {
            return Ok(false);
        }
        let row = self.sure32(w, members, mask, "a member mask")?;
        let like = |lane: u32| {
            (0..32)
                .filter(|&i| mask >> i & 1 == 1 && row[i] == row[lane as usize])
                .fold(0, |m, i| m | 1u32 << i)
        };
        let mut rest = mask & !like(mask.trailing_zeros());
        let parted = rest != 0;
        let here = split.pc;
        while rest != 0 {
            let group = like(rest.trailing_zeros());
            rest &= !group;
            self.warps[w].diverge(split, group, here, here + 1);
            split.pc = here;
        }
        Ok(parted)
    }
}
