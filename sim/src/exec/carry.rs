//! Sums and products that keep a carry.

use super::operands::any64;
use super::{Grid, Step};
use crate::lower::program::{Carried, Kind, Type};

impl Grid<'_> {
    pub(super) fn carry(&mut self, w: usize, mask: u32, kind: &Kind) -> Step<()> {
        let Kind::Carry { how, ty, d, sources, takes, gives } = kind else {
            unreachable!("only sums with a carry come here");
        };
        let values = sources.iter().map(|&s| self.get_bits(w, s)).collect::<Step<Vec<_>>>()?;
        let (carry, known) = takes.map_or((0, u32::MAX), |p| self.predicate(w, p));
        let bits = 8 * ty.bytes();
        let (mut row, mut shadow, mut out, mut defined) = ([0; 32], [0; 32], 0u32, 0u32);
        for i in 0..32 {
            let of = |k: usize| values[k].0[i] & ty.mask();
            let carry = u128::from(carry >> i & 1);
            let (sum, over) = match how {
                Carried::Add => over(u128::from(of(0)) + u128::from(of(1)) + carry, bits),
                // The carry of a subtraction says that nothing was borrowed, which addc behind it sees.
                Carried::Sub => {
                    let borrowed = if takes.is_some() { 1 - carry } else { 0 };
                    let (from, by) = (u128::from(of(0)), u128::from(of(1)) + borrowed);
                    ((from.wrapping_sub(by)) as u64 & ty.mask(), from >= by)
                }
                Carried::MadLow => {
                    over(u128::from(of(0).wrapping_mul(of(1)) & ty.mask()) + u128::from(of(2)) + carry, bits)
                }
                Carried::MadHigh => {
                    over(u128::from(high(of(0), of(1), *ty)) + u128::from(of(2)) + carry, bits)
                }
            };
            let clean = values.iter().all(|v| v.1[i] & ty.mask() == 0) && known >> i & 1 == 1;
            row[i] = sum;
            shadow[i] = if clean { 0 } else { u64::MAX };
            out |= u32::from(over) << i;
            defined |= u32::from(clean) << i;
        }
        self.put(w, *d, &row, mask, Some(&shadow).filter(|s| any64(s, mask)))?;
        if let Some(register) = gives {
            self.warps[w].predicates[*register as usize].put(out, defined, mask);
        }
        Ok(())
    }
}

/// A sum cut to so many bits, and whether it was cut.
fn over(sum: u128, bits: u32) -> (u64, bool) {
    let kept = sum & ((1 << bits) - 1);
    (kept as u64, kept != sum)
}

/// The upper half of a product.
fn high(a: u64, b: u64, ty: Type) -> u64 {
    let bits = 8 * ty.bytes();
    let wide = |x: u64| match ty {
        Type::S32 => i128::from(x as i32),
        Type::S64 => i128::from(x as i64),
        _ => i128::from(x),
    };
    ((wide(a).wrapping_mul(wide(b)) as u128 >> bits) as u64) & ty.mask()
}
