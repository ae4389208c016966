//! `mma.sync` and `movmatrix`: every lane takes part.

use super::operands::any64;
use super::{Grid, Step};
use crate::fault::FaultKind;
use crate::lower::program::{Dst, Mma, S32, S64};
use crate::mma;
use crate::row::{Row, Row64};

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

    /// Products of f64: lane 4g + q has the elements of A in row g (and g + 8) and columns q, q + 4 …, those of B in
    /// rows q, q + 4 … and column g, and the sums in row g (and g + 8) and columns 2q and 2q + 1.
    pub(super) fn multiply_doubles(
        &mut self,
        w: usize,
        mask: u32,
        (rows, depth): (usize, usize),
        d: &[u32],
        [a, b, c]: [&[S64]; 3],
    ) -> Step<()> {
        self.whole_warp(w, mask)?;
        let fetch = |sources: &[S64]| sources.iter().map(|&s| self.get64(w, s)).collect::<Step<Vec<_>>>();
        let (a, b, c) = (fetch(a)?, fetch(b)?, fetch(c)?);
        let bits = |v: &super::operands::Value64, lane: usize| {
            (v.0[lane], v.1.as_ref().is_some_and(|s| s[lane] != 0))
        };
        let halves = rows / 8;
        let mut out: Vec<(Row64, Row64)> = vec![([0; 32], [0; 32]); d.len()];
        for (r, (values, shadow)) in out.iter_mut().enumerate() {
            for lane in 0..32 {
                let (g, column) = (lane / 4, 2 * (lane % 4) + r % 2);
                let (sum, mut unknown) = bits(&c[r], lane);
                let mut sum = f64::from_bits(sum);
                for k in 0..depth {
                    let (x, ux) = bits(&a[k / 4 * halves + r / 2], 4 * g + k % 4);
                    let (y, uy) = bits(&b[k / 4], 4 * column + k % 4);
                    sum = f64::from_bits(x).mul_add(f64::from_bits(y), sum);
                    unknown |= ux | uy;
                }
                values[lane] = crate::lower::rows::canonical64(sum);
                shadow[lane] = if unknown { u64::MAX } else { 0 };
            }
        }
        self.counters.tensor_macs += (rows * 8 * depth) as u64;
        for (&d, (values, shadow)) in d.iter().zip(&out) {
            self.put64(w, d, values, mask, Some(shadow).filter(|s| any64(s, mask)))?;
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
    pub(super) fn whole_warp(&self, w: usize, mask: u32) -> Step<()> {
        self.together(w, mask)?;
        if mask == u32::MAX {
            return Ok(());
        }
        Err(FaultKind::Divergence { present: mask, wanted: u32::MAX }.into())
    }

    /// Registers and their undefined bits.
    pub(super) fn fragment(&self, w: usize, sources: &[S32]) -> Step<(Vec<Row>, Vec<Row>)> {
        let (mut values, mut shadows) = (Vec::with_capacity(4), Vec::with_capacity(4));
        for &source in sources {
            let (value, shadow) = self.get32(w, source)?;
            values.push(value);
            shadows.push(shadow.map_or([0; 32], |s| *s));
        }
        Ok((values, shadows))
    }
}
