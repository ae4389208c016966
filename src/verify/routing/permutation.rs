//! The permutation, and what moves rows by it.

use super::super::quant::Fp8Output;
use super::super::surrounded::{Place, Surrounded, bits, text};
use super::super::{Evidence, Source, exact};
use crate::device::Device;
use crate::device::abi::NG_STATUS_BAD_EXPERT;
use crate::dtype::E4m3;
use crate::fp8::{Fp8Rows, ScaleLayout};
use crate::routing::reference::{self, Order};
use crate::routing::{Combine, GatherRows, Permutation, Permute};

/// Ids as a router or a caller may give them: random experts, with -1 and nonsense among them where `bad` says so.
pub fn draw_ids(entries: usize, experts: usize, bad: bool, seed: u64) -> Vec<i32> {
    let mut source = Source::new(seed);
    let outside = [-1, experts as i32, i32::MIN, i32::MAX];
    (0..entries)
        .map(|_| match source.below(5) {
            0 if bad => outside[source.below(4)],
            _ => source.below(experts) as i32,
        })
        .collect()
}

pub(super) fn permuted(
    device: &Device,
    [tokens, slots, experts]: [usize; 3],
    ids: &[i32],
) -> Result<(Permutation, Order), String> {
    let permutation = Permutation::empty(device, tokens, slots, experts).map_err(text)?;
    permute(device, &permutation, ids)?;
    Ok((permutation, reference::permute(ids, experts)))
}

pub(super) fn permute(device: &Device, permutation: &Permutation, ids: &[i32]) -> Result<(), String> {
    let shape = [permutation.tokens(), permutation.slots()];
    let input = Surrounded::input(device, &shape, Place::default(), ids).map_err(text)?;
    Permute::new(input.view(), permutation).launch(&device.stream()).map_err(text)
}

/// Orders two sets of entries by expert, into the same memory, and compares everything with the oracle.
pub fn check_permute(device: &Device, shape: [usize; 3], bad: bool, seed: u64) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let [tokens, slots, experts] = shape;
    let permutation = Permutation::empty(device, tokens, slots, experts).map_err(text)?;
    let stream = device.stream();
    let entries = tokens * slots;
    // The last without a third of its entries, which is nothing to report.
    let mut partly = draw_ids(entries, experts, false, seed ^ 1);
    partly.iter_mut().step_by(3).for_each(|id| *id = -1);
    for ids in [draw_ids(entries, experts, bad, seed), partly] {
        permute(device, &permutation, &ids)?;
        let want = reference::permute(&ids, experts);
        let got = permutation.counts().to_vec().map_err(text)?;
        evidence.digest(got.iter().map(|x| *x as u32));
        evidence.exact("counts", &got, &want.counts)?;
        let got = permutation.offsets().to_vec().map_err(text)?;
        evidence.digest(got.iter().map(|x| *x as u32));
        evidence.exact("offsets", &got, &want.offsets)?;
        let got = permutation.source().to_vec().map_err(text)?;
        evidence.digest(got.iter().map(|x| *x as u32));
        evidence.exact("source", &got, &want.source)?;
        let got = permutation.position().to_vec().map_err(text)?;
        evidence.digest(got.iter().map(|x| *x as u32));
        evidence.exact("position", &got, &want.position)?;
        let outside = ids.iter().any(|id| *id != -1 && !(0..experts as i32).contains(id));
        let status = if outside { NG_STATUS_BAD_EXPERT } else { 0 };
        exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
    }
    Ok(evidence)
}

/// Gathers FP8 rows in the order of a permutation.
pub fn check_gather(
    device: &Device,
    shape: [usize; 3],
    columns: usize,
    layout: ScaleLayout,
    bad: bool,
    seed: u64,
) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    let [tokens, slots, experts] = shape;
    let (permutation, order) = permuted(device, shape, &draw_ids(tokens * slots, experts, bad, seed))?;
    let groups = columns.div_ceil(128);
    let mut source = Source::new(seed);
    let codes: Vec<_> = (0..tokens * columns).map(|_| E4m3::from_bits(source.bits() as u8)).collect();
    let scales = source.powers(tokens * groups, -10, 10);
    let place = Place { offset: 0, padding: columns.next_multiple_of(16) - columns };
    let data = Surrounded::input(device, &[tokens, columns], place, &codes).map_err(text)?;
    // The other way round than the output's.
    let rows = match layout {
        ScaleLayout::RowMajor => {
            let columns: Vec<_> =
                (0..tokens * groups).map(|at| scales[at % tokens * groups + at / tokens]).collect();
            let place = Place { offset: 0, padding: tokens.next_multiple_of(4) - tokens };
            let scales = Surrounded::input(device, &[groups, tokens], place, &columns).map_err(text)?;
            Fp8Rows::new(data.view().clone(), scales.view().transpose(0, 1).map_err(text)?)
        }
        ScaleLayout::MnMajor => {
            let scales =
                Surrounded::input(device, &[tokens, groups], Place::default(), &scales).map_err(text)?;
            Fp8Rows::new(data.view().clone(), scales.view().clone())
        }
    };
    let rows = rows.map_err(text)?;
    let out = Fp8Output::new(device, tokens * slots, columns, layout).map_err(text)?;
    GatherRows::new(&rows, &permutation, &out.rows).launch(&device.stream()).map_err(text)?;
    let (got_codes, got_scales) = out.finish(&mut evidence)?;
    let token = |entry: &i32| usize::try_from(*entry).ok().map(|entry| entry / slots);
    let row = |entry| match token(entry) {
        Some(token) => {
            codes[token * columns..(token + 1) * columns].iter().map(|code| code.to_bits()).collect()
        }
        None => vec![0; columns],
    };
    let scale_row = |entry| match token(entry) {
        Some(token) => scales[token * groups..(token + 1) * groups].to_vec(),
        None => vec![0.0; groups],
    };
    evidence.exact("codes", &got_codes, &order.source.iter().flat_map(row).collect::<Vec<_>>())?;
    evidence.exact("scales", &got_scales, &order.source.iter().flat_map(scale_row).collect::<Vec<_>>())?;
    device.stream().status().map(drop).map_err(text)?;
    Ok(evidence)
}

/// Gathers rows to experts that do nothing, and combines them with weights that sum to one: the tokens come back.
pub fn check_round_trip(
    device: &Device,
    [tokens, experts]: [usize; 2],
    columns: usize,
    seed: u64,
) -> Result<Evidence, String> {
    let mut evidence = Evidence::default();
    const SLOTS: usize = 4;
    let (permutation, order) =
        permuted(device, [tokens, SLOTS, experts], &draw_ids(tokens * SLOTS, experts, false, seed))?;
    let mut source = Source::new(seed);
    let x = Source::to_bf16(&source.normals(tokens * columns, 1.0));
    let moved: Vec<_> = order
        .source
        .iter()
        .flat_map(|entry| x[*entry as usize / SLOTS * columns..][..columns].iter().copied())
        .collect();
    let rows =
        Surrounded::input(device, &[tokens * SLOTS, columns], Place::default(), &moved).map_err(text)?;
    let weights = device.full(&[tokens, SLOTS], 0.25).map_err(text)?;
    let out = Surrounded::output(device, &[tokens, columns], Place::default()).map_err(text)?;
    Combine::new(rows.view(), &permutation, &weights, out.view()).launch(&device.stream()).map_err(text)?;
    let got = out.finish("tokens", &mut evidence)?;
    evidence.exact("tokens", &bits(&got), &bits(&x))?;
    Ok(evidence)
}
