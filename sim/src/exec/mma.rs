//! `mma.sync` and `movmatrix`: every lane takes part.

use super::{Grid, Step};
use crate::fault::FaultKind;
use crate::lower::program::{Dst, Mma, S32};
use crate::mma;
use crate::row::Row;

impl Grid<'_> {
    pub(super) fn multiply_synchronously(&mut self, w: usize, mask: u32, op: &Mma) -> Step<()> {
        self.whole_warp(w, mask)?;
        let (a, sa) = self.fragment(w, &op.a)?;
        let (b, sb) = self.fragment(w, &op.b)?;
        let (c, sc) = self.fragment(w, &op.c)?;
        let d = mma::multiply(&op.shape, &a, &b, &c, self.profile.compute_capability);
        self.counters.tensor_macs += (op.shape.rows * 8 * op.shape.depth) as u64;
        let clean = [&sa, &sb, &sc].iter().all(|s| s.iter().flatten().all(|&s| s == 0));
        let shadows = (!clean && self.schedule.checks).then(|| mma::undefined(&op.shape, &sa, &sb, &sc));
        for (i, &to) in op.d.iter().enumerate() {
            // A result that nobody wants is dropped.
            if let Dst::R32(register) = to {
                self.put32(w, register, &d[i], mask, shadows.as_ref().map(|s| &s[i]))?;
            }
        }
        Ok(())
    }

    pub(super) fn transpose(&mut self, w: usize, mask: u32, d: u32, a: S32) -> Step<()> {
        self.whole_warp(w, mask)?;
        let (value, shadow) = self.get32(w, a)?;
        let shadow = shadow.map(|s| mma::transpose(&s));
        self.put32(w, d, &mma::transpose(&value), mask, shadow.as_ref())
    }

    /// All 32 lanes, none of them exited.
    fn whole_warp(&self, w: usize, mask: u32) -> Step<()> {
        self.together(w, mask)?;
        if mask == u32::MAX {
            return Ok(());
        }
        Err(FaultKind::Divergence { present: mask, wanted: u32::MAX }.into())
    }

    /// Registers and their undefined bits.
    fn fragment(&self, w: usize, sources: &[S32]) -> Step<(Vec<Row>, Vec<Row>)> {
        let (mut values, mut shadows) = (Vec::with_capacity(4), Vec::with_capacity(4));
        for &source in sources {
            let (value, shadow) = self.get32(w, source)?;
            values.push(value);
            shadows.push(shadow.map_or([0; 32], |s| *s));
        }
        Ok((values, shadows))
    }
}
