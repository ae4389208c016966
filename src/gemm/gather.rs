//! Rows of A that a list on the device names.

use super::output::Out;
use crate::device::{Device, KernelLaunch};
use crate::error::Result;
use crate::fp8::Operand;
use crate::tensor::Tensor;
use crate::validate::Checks;

/// A list of entries, of which so many in a row name the same row of A.
#[derive(Debug, Clone)]
pub(super) struct Gather {
    pub entries: Tensor<i32>,
    pub slots: usize,
}

/// Bytes of a copy: the least that exists of a row, or does not.
const PIECE: usize = 16;

impl Gather {
    /// Rows of the product, of each matrix.
    pub(super) fn rows(&self) -> usize {
        self.entries.shape().last().copied().unwrap_or(0)
    }

    pub(super) fn address(&self) -> u64 {
        self.entries.address()
    }

    pub(super) fn read_by<'a>(&self, launch: KernelLaunch<'a>) -> KernelLaunch<'a> {
        launch.reads(&self.entries)
    }

    /// What holds before the product's shape is known.
    pub(super) fn check(&self, check: Checks, rank: usize, a: &Operand, device: &Device) -> Result<()> {
        check.rank("gather", &self.entries, rank)?;
        check.contiguous("gather", &self.entries)?;
        check.on("gather", &self.entries, device)?;
        if self.slots == 0 || self.slots > i32::MAX as usize {
            return check.fail("slots", self.slots, format_args!("1 to {}", i32::MAX));
        }
        let k = a.extent(0);
        if !k.is_multiple_of(PIECE) {
            return check.fail("a", format_args!("K = {k}"), "a multiple of 16 where rows are gathered");
        }
        let stride = a.data.strides()[0];
        if u32::try_from(stride).is_err() {
            return check.fail(
                "a",
                format_args!("rows {stride} apart"),
                "less than 2^32 where rows are gathered",
            );
        }
        check.extent("rows of a", a.extent(1)).map(drop)
    }

    /// There is an entry for each row of the product, and none is written.
    pub(super) fn fits(&self, check: Checks, rows: &[usize], out: &Out) -> Result<()> {
        check.shape("gather", &self.entries, rows)?;
        out.apart(check, "gather", &self.entries)
    }

    /// The factor and the shift that divide any entry by the slots: 2 · entry · factor / 2^(32 + shift). The factor is at
    /// most 1 above 2^(31 + shift) / slots, which makes less than 1 / slots of difference for entries below 2^31.
    pub(super) fn divisor(&self) -> (u32, u32) {
        let shift = self.slots.next_power_of_two().trailing_zeros();
        ((((1u64 << (31 + shift)) / self.slots as u64) + 1) as u32, shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_divided() {
        let device = Device::simulated(crate::Card::H20).unwrap();
        for slots in [1, 2, 3, 6, 7, 8, 9, 100, 641, 65537, 0x4000_0000, 0x7FFF_FFFF] {
            let gather = Gather { entries: device.zeros(&[0]).unwrap(), slots };
            let (factor, shift) = gather.divisor();
            let near = |at: u64| [at.saturating_sub(1), at, at + 1];
            let multiples = [0, 1, 2, 1000, 0x7FFF_FFFF / slots as u64];
            for entry in multiples.iter().flat_map(|i| near(i * slots as u64)).chain(near(0x7FFF_FFFE)) {
                if entry < 1 << 31 {
                    let found = (2 * entry * u64::from(factor)) >> 32 >> shift;
                    assert_eq!(found, entry / slots as u64, "{entry} / {slots}");
                }
            }
        }
    }
}
