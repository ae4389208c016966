//! Comparisons whose result is a value, and choices by a sign.

use super::operands::{any64, lanes};
use super::{Grid, Step};
use crate::lower::program::{Kind, Test};
use crate::lower::rows;

impl Grid<'_> {
    pub(super) fn select(&mut self, w: usize, kind: &Kind, mask: u32) -> Step<()> {
        match kind {
            Kind::SetValue { test, d, yes, packed, a, b, with } => {
                let (a, b) = (self.get(w, *a)?, self.get(w, *b)?);
                let by = |shift: u32| match test {
                    Test::Narrow(f) => {
                        f(&a.0.map(|x| (x >> shift) as u32), &b.0.map(|x| (x >> shift) as u32))
                    }
                    Test::Wide(f) => f(&a.0, &b.0),
                };
                let (mut row, mut shadow) = ([0; 32], [0; 32]);
                for half in 0..=u32::from(*packed) {
                    let bits = if *packed { 0xffff << (16 * half) } else { u64::MAX };
                    let defined = !lanes(&a.1, bits) & !lanes(&b.1, bits);
                    let (value, defined) = self.combined(w, by(16 * half), defined, *with);
                    for lane in 0..32 {
                        row[lane] |= (value >> lane & 1) * (yes << (16 * half));
                        shadow[lane] |= (1 ^ (defined >> lane & 1)) * (yes << (16 * half));
                    }
                }
                self.put32(w, *d, &row, mask, Some(&shadow).filter(|s| super::operands::any(s, mask)))
            }
            Kind::SetPacked { f, d, other, a, b, with } => {
                let (a, b) = (self.get32(w, *a)?, self.get32(w, *b)?);
                for (by, d) in [(0, Some(*d)), (16, *other)] {
                    let Some(d) = d else { continue };
                    let upper = |x: &crate::row::Row| rows::map1(x, |x| x >> by);
                    let undefined = [&a.1, &b.1].into_iter().flatten().fold(0, |lanes, s| {
                        (0..32).fold(lanes, |lanes, i| lanes | u32::from(s[i] >> by & 0xffff != 0) << i)
                    });
                    let (value, defined) = self.combined(w, f(&upper(&a.0), &upper(&b.0)), !undefined, *with);
                    self.warps[w].predicates[d as usize].put(value, defined, mask);
                }
                Ok(())
            }
            Kind::SelectSign { d, a, b, c, float } => {
                let (a, b, c) = (self.get(w, *a)?, self.get(w, *b)?, self.get32(w, *c)?);
                let (mut row, mut shadow) = ([0; 32], [0; 32]);
                for i in 0..32 {
                    let first = if *float { f32::from_bits(c.0[i]) >= 0.0 } else { c.0[i] as i32 >= 0 };
                    let chosen = if first { &a } else { &b };
                    row[i] = chosen.0[i];
                    shadow[i] = match &c.1 {
                        Some(c) if c[i] != 0 => u64::MAX,
                        _ => chosen.1.as_ref().map_or(0, |s| s[i]),
                    };
                }
                self.put(w, *d, &row, mask, Some(&shadow).filter(|s| any64(s, mask)))
            }
            _ => unreachable!("only comparisons and choices come here"),
        }
    }
}
