//! New keys in the indexer's cache against the oracle of quantisation.

use super::super::surrounded::{Place, Poison, Surrounded, text};
use super::super::{Case, Evidence, Source, exact};
use crate::device::Device;
use crate::device::abi::NG_STATUS_BAD_SLOT;
use crate::dtype::{E4m3, bf16, f16};
use crate::fp8::Fp8Rows;
use crate::mla::{Half, IndexerWrite};
use crate::quant::reference::quantize;

const WIDTH: usize = 128;

/// Keys to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexerWriteCheck {
    /// New keys.
    pub tokens: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Tokens of a page; 0: all keys in one row.
    pub page_tokens: usize,
    /// Whether a page has its scales behind its keys.
    pub together: bool,
    /// Whether scales are powers of two.
    pub power_of_two: bool,
    /// Whether keys are f16 instead of bf16.
    pub f16: bool,
    /// Whether some slots do not exist.
    pub bad: bool,
    /// How the keys lie.
    pub place: Place,
}

impl IndexerWriteCheck {
    /// Keys in pages of 64 with scales of their own.
    pub fn paged(tokens: usize, pages: usize) -> Self {
        let (place, page_tokens) = (Place::default(), 64);
        Self {
            tokens,
            pages,
            page_tokens,
            together: false,
            power_of_two: false,
            f16: false,
            bad: false,
            place,
        }
    }

    /// Runs one write into a cache of poison: written keys are right to the bit, and all others still poison.
    ///
    /// # Errors
    ///
    /// The first difference, in words.
    pub fn check(&self, device: &Device, seed: u64) -> Result<Evidence, String> {
        match self.f16 {
            true => self.of::<f16>(device, seed, f16::from_f32, f16::to_f64),
            false => self.of::<bf16>(device, seed, bf16::from_f32, bf16::to_f64),
        }
    }

    fn of<T: Half + Poison>(
        &self,
        device: &Device,
        seed: u64,
        narrow: fn(f32) -> T,
        widen: fn(T) -> f64,
    ) -> Result<Evidence, String> {
        let Self { tokens, pages, page_tokens, together, power_of_two, bad, place, .. } = *self;
        let source = &mut Source::new(seed);
        let (groups, rows) = if page_tokens == 0 { (1, pages) } else { (pages, page_tokens) };
        let total = groups * rows;
        let keys: Vec<T> = (0..tokens)
            .flat_map(|_| {
                let factor = [1.0, 1.0, 1e3, 1e-6, 0.0][source.below(5)];
                let mut key: Vec<f32> = source.normals(WIDTH, 1.0).iter().map(|x| x * factor).collect();
                if source.below(3) == 0 {
                    key[source.below(WIDTH)] =
                        [-0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY][source.below(4)];
                }
                key
            })
            .map(narrow)
            .collect();
        let order = source.permutation(total);
        let outside = [total as i32, i32::MAX, i32::MIN, -2];
        let slots: Vec<i32> = (0..tokens)
            .map(|token| match token % 5 {
                2 if bad => outside[token / 5 % 4],
                4 => -1,
                _ => order.get(token).map_or(-1, |slot| *slot as i32),
            })
            .collect();

        // Keys and scales of a page beside each other, or all scales behind all keys; every byte of it is compared.
        let margin = 16;
        let page = match together {
            true => (rows * (WIDTH + 4)).next_multiple_of(16),
            false => rows * WIDTH + 16,
        };
        let key_at = |slot: usize| margin + slot / rows * page + slot % rows * WIDTH;
        let (first_scale, scale_page) = match together {
            true => (margin + rows * WIDTH, page),
            false => (margin + groups * page, (rows * 4).next_multiple_of(16)),
        };
        let scale_at = |slot: usize| first_scale + slot / rows * scale_page + slot % rows * 4;
        let mut want = vec![0xFF; first_scale + groups * page.max(scale_page) + margin];
        let whole = device.tensor(&[want.len()], &want).map_err(text)?;
        let (shape, strides) = ([groups, rows, WIDTH], [page, WIDTH, 1]);
        let data = whole.reinterpreted::<E4m3>().as_strided(key_at(0), &shape, &strides).map_err(text)?;
        let strides = [scale_page / 4, 1];
        let scales =
            whole.reinterpreted::<f32>().as_strided(scale_at(0) / 4, &shape[..2], &strides).map_err(text)?;
        let cache = match page_tokens {
            0 => Fp8Rows::per_row(data.select(0, 0).map_err(text)?, scales.select(0, 0).map_err(text)?),
            _ => Fp8Rows::per_row(data, scales),
        }
        .map_err(text)?;
        let inputs = Surrounded::input(device, &[tokens, WIDTH], place, &keys).map_err(text)?;
        let targets = Surrounded::input(device, &[tokens], Place::default(), &slots).map_err(text)?;
        let stream = device.stream();
        IndexerWrite::new(inputs.view(), targets.view(), &cache)
            .power_of_two(power_of_two)
            .launch(&stream)
            .map_err(text)?;

        let mut status = 0;
        for (slot, key) in slots.iter().zip(keys.chunks(WIDTH)).filter(|(slot, _)| **slot != -1) {
            if !(0..total as i32).contains(slot) {
                status |= NG_STATUS_BAD_SLOT;
                continue;
            }
            let key: Vec<f64> = key.iter().map(|x| widen(*x)).collect();
            let quantized = quantize(&key, WIDTH, power_of_two);
            want[key_at(*slot as usize)..][..WIDTH].copy_from_slice(&quantized.codes);
            want[scale_at(*slot as usize)..][..4].copy_from_slice(&quantized.scales[0].to_le_bytes());
        }
        let mut evidence = Evidence::default();
        let got = whole.to_vec().map_err(text)?;
        evidence.digest(got.iter().map(|byte| u32::from(*byte)));
        evidence.canaries += want.iter().filter(|byte| **byte == 0xFF).count() as u64;
        evidence.exact(&format!("bytes of {self:?}"), &got, &want)?;
        exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
        Ok(evidence)
    }

    /// Any write.
    pub fn draw(source: &mut Source) -> Self {
        Self {
            tokens: source.below(70),
            pages: 1 + source.below(5),
            page_tokens: [0, 1, 5, 32, 64, 128][source.below(6)],
            together: source.below(2) == 0,
            power_of_two: source.below(2) == 0,
            f16: source.below(2) == 0,
            bad: source.below(3) == 0,
            place: Place::draw(source),
        }
    }
}

/// Cases that suit any device.
pub(in crate::verify) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, $check:expr) => {
            Case { family: "mla", name: $name, run: |device, seed| $check.check(device, seed) }
        };
    }
    vec![
        case!("indexer keys written to pages", IndexerWriteCheck::paged(70, 3)),
        case!("indexer keys in f16, scales behind the keys of a page, powers of two", {
            let together = IndexerWriteCheck { together: true, f16: true, ..IndexerWriteCheck::paged(33, 2) };
            IndexerWriteCheck { power_of_two: true, ..together }
        }),
        case!("indexer keys, slots that do not exist", {
            IndexerWriteCheck { bad: true, page_tokens: 32, ..IndexerWriteCheck::paged(40, 4) }
        }),
        Case {
            family: "mla",
            name: "drawn indexer keys",
            run: |device, seed| IndexerWriteCheck::draw(&mut Source::new(seed ^ 0x1D4E)).check(device, seed),
        },
    ]
}
