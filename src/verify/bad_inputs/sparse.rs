//! Listed tokens: the kinds that the other attentions have, and what is bad about a list.

use super::lab::{Lab, is};
use super::{Class, Entry};
use crate::device::abi::{NG_STATUS_BAD_LENGTH, NG_STATUS_BAD_SLOT};
use crate::dtype::bf16;
use crate::mla::{CacheLayout, LatentCache, SparseAttention};
use crate::verify::mla::sparse::{SparseInputs, SparseShape};
use crate::verify::surrounded::{bits, text};
use crate::verify::{Source, exact};

type Done = Result<(), String>;

const NAME: &str = "SparseAttention";
const HEADS: usize = 4;
const LIST: usize = 70;

fn normal(layout: CacheLayout) -> SparseInputs {
    let shape = SparseShape { tokens: 2, heads: HEADS, top_k: LIST, pages: 3, page_tokens: 16, layout };
    SparseInputs::normal(&mut Source::new(42), shape)
}

/// Changed inputs in both layouts, with and without splits, against the oracle; `want` is the status.
fn compared(lab: &Lab<'_>, want: u32, change: impl Fn(&mut SparseInputs)) -> Done {
    for layout in [CacheLayout::Bf16, CacheLayout::Fp8Blocks] {
        for splits in [None, Some(2)] {
            let mut inputs = normal(layout);
            change(&mut inputs);
            exact("status", &[inputs.check(lab.device, splits)?.status.bits()], &[want])?;
        }
    }
    Ok(())
}

/// An attention over a bf16 cache with these shapes is refused.
fn refused(lab: &Lab<'_>, query: &[usize], out: &[usize], argument: &str, scale: f32) -> Done {
    let cache = LatentCache::new(lab.device, 1).map_err(text)?;
    let (query, indices) = (lab.halves(query), lab.integers(&[1, LIST]));
    lab.refuses::<bf16>(out, argument, |out, stream| {
        SparseAttention::new(&query, &cache, &indices, out).scale(scale).launch(stream)
    })
}

/// The calls of one kind.
pub(super) fn entries(number: u8) -> Vec<Entry> {
    let (class, run): (Class, fn(&Lab<'_>) -> Done) = match number {
        25 => (Class::NoOp, |lab| {
            let cache = LatentCache::new(lab.device, 1).map_err(text)?;
            let (query, indices) = (lab.halves(&[0, HEADS, 576]), lab.integers(&[0, LIST]));
            lab.does_nothing::<bf16>(&[0, HEADS, 512], |out, stream| {
                SparseAttention::new(&query, &cache, &indices, out).launch(stream)
            })
        }),
        35 => (Class::Masked, |lab| {
            [-2, i32::MIN, 48, i32::MAX]
                .into_iter()
                .try_for_each(|bad| compared(lab, NG_STATUS_BAD_SLOT, |inputs| inputs.indices[3] = bad))
        }),
        36 => (Class::Works, |lab| compared(lab, 0, |inputs| inputs.indices.fill(6))),
        43 => (Class::Works, |lab| compared(lab, 0, |inputs| inputs.lengths = Some(vec![0, 5]))),
        44 => (Class::Masked, |lab| {
            compared(lab, NG_STATUS_BAD_LENGTH, |inputs| inputs.lengths = Some(vec![LIST as i32 + 1, 5]))
        }),
        45 => (Class::Masked, |lab| {
            compared(lab, NG_STATUS_BAD_LENGTH, |inputs| inputs.lengths = Some(vec![5, -1]))
        }),
        47 => (Class::Works, |lab| {
            compared(lab, 0, |inputs| {
                inputs.lengths = Some(vec![9, 9]);
                inputs.indices.chunks_mut(LIST).for_each(|list| list[9..].fill(i32::MAX));
            })
        }),
        49 => (Class::Error, |lab| {
            refused(lab, &[1, HEADS, 512], &[1, HEADS, 512], "q", 1.0)?;
            refused(lab, &[1, HEADS, 576], &[1, HEADS, 576], "out", 1.0)
        }),
        51 => (Class::Works, |lab| {
            compared(lab, 0, |inputs| inputs.indices.iter_mut().for_each(|index| *index = (*index).max(-1)))
        }),
        52 => (Class::Propagated, |lab| {
            let mut inputs = normal(CacheLayout::Bf16);
            inputs.indices.iter_mut().filter(|index| **index == 6).for_each(|index| *index = 8);
            let clean = inputs.run(lab.device, None)?;
            inputs.indices[LIST + 1] = 6;
            inputs.cache[6 * 1152..][..2].fill(0xFF);
            let got = inputs.run(lab.device, None)?;
            is(got.output[HEADS * 512..].iter().all(|x| x.is_nan()), "who names it is NaN")?;
            let first = ..HEADS * 512;
            exact("the other query token", &bits(&got.output[first]), &bits(&clean.output[first]))
        }),
        53 => (Class::Works, |lab| {
            let mut inputs = normal(CacheLayout::Bf16);
            // One column, so that no infinities of both signs meet in a sum.
            inputs.query.fill(bf16::ZERO);
            inputs.query.chunks_mut(576).for_each(|row| row[575] = bf16::from_f32(3e38));
            let outputs = inputs.run(lab.device, None)?;
            is(outputs.output.iter().all(|x| x.is_finite()), "the softmax is finite")
        }),
        54 => (Class::Error, |lab| {
            [f32::NAN, f32::INFINITY, 0.0, -1.0, f32::MAX]
                .into_iter()
                .try_for_each(|scale| refused(lab, &[1, HEADS, 576], &[1, HEADS, 512], "scale", scale))
        }),
        56 => (Class::Error, |lab| {
            let cache = LatentCache::new(lab.device, 1).map_err(text)?;
            let (query, indices) = (lab.halves(&[1, HEADS, 576]), lab.integers(&[1, LIST]));
            let small = lab.zeros::<u8>(&[1024]);
            lab.refuses::<bf16>(&[1, HEADS, 512], "workspace", |out, stream| {
                SparseAttention::new(&query, &cache, &indices, out).splits(2).workspace(&small).launch(stream)
            })
        }),
        _ => return Vec::new(),
    };
    vec![Entry::Call { operation: NAME, class, run }]
}
