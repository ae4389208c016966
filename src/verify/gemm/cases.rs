//! The cases of this family: fixed shapes, and shapes drawn from the seed.

use super::edge_cases;
use super::forms;
use super::half_cases;
use super::properties::Property;
use super::{
    Depth, Form, Fp8Check, GradientCheck, HalfCheck, Rows, Sampling, SwigluCheck, TransposeCheck, Values,
    moderate,
};
use crate::device::Device;
use crate::dtype::bf16;
use crate::fp8::ScaleLayout;
use crate::gemm::Tile;
use crate::gemm::plan::{Input, Mode};
use crate::verify::{Case, Evidence, Source};

type Outcome = Result<Evidence, String>;

pub(super) const DENSE: Fp8Check<'_> = Fp8Check {
    rows: Rows::Dense(1),
    n: 128,
    k: 128,
    layout: ScaleLayout::RowMajor,
    tile: None,
    values: Values::Normal,
    form: Form::PLAIN,
    seed: 1,
};

pub(super) const HALF: HalfCheck<'_> = HalfCheck {
    rows: Rows::Dense(1),
    n: 64,
    k: 64,
    transposed: [false; 2],
    tile: None,
    values: Values::Normal,
    form: Form::PLAIN,
    seed: 1,
};

pub(super) const SWIGLU: SwigluCheck<'_> = SwigluCheck { product: DENSE, clamp: None, power_of_two: false };

pub(super) const GRADIENT: GradientCheck<'_> = GradientCheck {
    m: 72,
    n: 200,
    depth: Depth::Dense(640),
    e5m2: [false; 2],
    layout: ScaleLayout::RowMajor,
    aligned: true,
    accumulate: false,
    alpha: 1.0,
    tile: None,
    values: Values::Normal,
    seed: 1,
};

/// An extent below `most`, often at the border of a tile.
pub(super) fn extent(source: &mut Source, most: usize) -> usize {
    let borders = [1, 7, 8, 63, 64, 65, 127, 128, 129, 192];
    match source.below(2) {
        0 => borders[source.below(borders.len())].min(most),
        _ => 1 + source.below(most),
    }
}

pub(super) fn pick<V: Copy>(source: &mut Source, from: &[V]) -> V {
    from[source.below(from.len())]
}

pub(super) fn tile(source: &mut Source, input: Input, mode: Mode) -> Option<Tile> {
    match source.below(3) {
        0 => None,
        _ => Some(pick(source, &Tile::of(input, mode))),
    }
}

fn layout(source: &mut Source) -> ScaleLayout {
    pick(source, &[ScaleLayout::RowMajor, ScaleLayout::MnMajor])
}

fn run_fp8(source: &mut Source, device: &Device, check: Fp8Check<'_>) -> Outcome {
    match source.below(2) {
        0 => check.check_sampled::<f32>(device, Sampling::Thorough),
        _ => check.check_sampled::<bf16>(device, Sampling::Thorough),
    }
}

/// Any shape, layout, tile, kind of values and output.
fn drawn_dense(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed);
    let check = Fp8Check {
        rows: Rows::Dense(extent(source, 200)),
        n: extent(source, 300),
        k: 1 + source.below(1200),
        layout: layout(source),
        tile: tile(source, Input::Fp8, Mode::Dense),
        values: pick(source, &Values::ALL),
        form: Form::PLAIN,
        seed,
    };
    run_fp8(source, device, check)
}

/// Group sizes as routing makes them: many empty, most small.
fn sizes(source: &mut Source) -> Vec<usize> {
    let count = 1 + source.below(24);
    let mut sizes: Vec<usize> = (0..count)
        .map(|_| match source.below(6) {
            0..3 => source.below(6),
            3 => 60 + source.below(10),
            _ => 0,
        })
        .collect();
    sizes[count / 2] += 1;
    sizes
}

fn drawn_grouped(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x6400);
    let sizes = sizes(source);
    let check = Fp8Check {
        rows: Rows::Groups(&sizes),
        n: extent(source, 200),
        k: 1 + source.below(600),
        layout: layout(source),
        tile: tile(source, Input::Fp8, Mode::Contiguous),
        values: pick(source, &Values::ALL),
        form: Form::PLAIN,
        seed,
    };
    run_fp8(source, device, check)
}

fn drawn_gradient(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x6AD);
    let mut offsets = vec![0];
    for group in 0..1 + source.below(6) {
        offsets.push(offsets[group] + source.below(4) as i32 * 128);
    }
    let check = GradientCheck {
        m: extent(source, 150),
        n: extent(source, 200),
        depth: match source.below(2) {
            0 => Depth::Dense(1 + source.below(900)),
            _ => Depth::Groups(&offsets, offsets[offsets.len() - 1] as usize + source.below(200)),
        },
        e5m2: [0; 2].map(|_| source.below(2) == 0),
        layout: layout(source),
        aligned: source.below(2) == 0,
        accumulate: source.below(2) == 0,
        alpha: pick(source, &[1.0, 2.0]),
        tile: pick(source, &[None, Some(Mode::KGrouped)])
            .map(|mode| pick(source, &Tile::of(Input::Fp8Fine, mode))),
        values: pick(source, &Values::ALL),
        seed,
    };
    match source.below(2) {
        0 => check.check::<f32>(device),
        _ => check.check::<bf16>(device),
    }
}

/// Every property on drawn shapes.
fn properties(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x9209);
    let mut all = Evidence::default();
    let sizes = sizes(source);
    let dense = Fp8Check {
        rows: Rows::Dense(2 + source.below(70)),
        n: 130 + source.below(200),
        k: 129 + source.below(400),
        layout: layout(source),
        tile: tile(source, Input::Fp8, Mode::Contiguous),
        values: Values::Normal,
        form: Form::PLAIN,
        seed,
    };
    let single = HalfCheck {
        rows: Rows::Dense(2 + source.below(70)),
        n: 2 + source.below(150),
        k: 17 + source.below(200),
        transposed: [false, source.below(2) == 0],
        tile: tile(source, Input::Bf16, Mode::Batched),
        seed,
        ..HALF
    };
    for property in Property::ALL {
        let (fp8, half) = match property {
            Property::Parts => (
                Fp8Check { rows: Rows::Groups(&sizes), ..dense },
                HalfCheck { rows: Rows::Batched(3, 5), ..single },
            ),
            _ => (dense, single),
        };
        all.add(&fp8.holds::<f32>(device, property)?);
        all.add(&half.holds::<bf16>(device, property)?);
    }
    Ok(all)
}

/// Any rows, options and tile.
fn drawn_swiglu(device: &Device, seed: u64) -> Outcome {
    let source = &mut Source::new(seed ^ 0x516);
    let sizes = sizes(source);
    let counts = [source.below(9), 0, source.below(70), 1];
    let rows = match source.below(3) {
        0 => Rows::Dense(extent(source, 200)),
        1 => Rows::Groups(&sizes),
        _ => Rows::Masked(&counts, 70),
    };
    let forms = Form::covering();
    let product = Fp8Check {
        rows,
        n: 256 * (1 + source.below(2)),
        k: 1 + source.below(700),
        layout: layout(source),
        tile: match source.below(3) {
            0 => None,
            _ => Some(pick(source, &Tile::of_swiglu(rows.mode()))),
        },
        values: pick(source, &Values::ALL),
        form: Form { accumulate: false, ..pick(source, &forms) },
        seed,
    };
    let check = SwigluCheck {
        product: if source.below(2) == 0 { moderate(product) } else { product },
        clamp: pick(source, &[None, Some(10.0)]),
        power_of_two: source.below(2) == 0,
    };
    check.check(device)
}

/// Every compiled variant, on shapes that are ragged in every direction.
fn every_variant(device: &Device, seed: u64) -> Outcome {
    let mut all = Evidence::default();
    let mut kinds = Values::ALL.into_iter().cycle().skip(seed as usize % 4);
    let fp8 = Fp8Check { rows: Rows::Dense(67), n: 136, k: 272, seed, ..DENSE };
    for (mode, rows) in [(Mode::Dense, fp8.rows), (Mode::Contiguous, Rows::Groups(&[1, 0, 66]))] {
        for (tile, values) in Tile::of(Input::Fp8, mode).into_iter().zip(&mut kinds) {
            let check = Fp8Check { rows, tile: Some(tile), values, ..fp8 };
            all.add(&check.check::<f32>(device)?);
            all.add(&check.check::<bf16>(device)?);
        }
    }
    for (e5m2, values) in [[false, true], [true, false], [true, true]].into_iter().zip(&mut kinds) {
        let form = Form { e5m2, ..Form::PLAIN };
        all.add(&Fp8Check { form, values, ..fp8 }.check::<bf16>(device)?);
    }
    for (tile, values) in Tile::of_swiglu(Mode::Dense).into_iter().zip(&mut kinds) {
        let product = Fp8Check { n: 512, tile: Some(tile), values, ..fp8 };
        all.add(&SwigluCheck { product, ..SWIGLU }.check(device)?);
    }
    for (tile, values) in Tile::of(Input::Bf16, Mode::Dense).into_iter().zip(&mut kinds) {
        let check = HalfCheck { rows: fp8.rows, n: 136, k: 136, tile: Some(tile), values, seed, ..HALF };
        all.add(&check.check::<f32>(device)?);
        all.add(&check.check::<bf16>(device)?);
    }
    for (tile, values) in Tile::of(Input::Fp8Fine, Mode::Dense).into_iter().zip(&mut kinds) {
        for e5m2 in [[false, false], [false, true], [true, false], [true, true]] {
            let check = GradientCheck { tile: Some(tile), e5m2, values, seed, ..GRADIENT };
            all.add(&check.check::<f32>(device)?);
        }
    }
    Ok(all)
}

fn invariance(device: &Device, seed: u64) -> Outcome {
    let counts: &[usize] =
        if device.is_simulated() { &[2, 17, 33, 128, 257] } else { &[2, 17, 33, 128, 257, 1024, 4096] };
    let mut all = Fp8Check { n: 136, k: 384, seed, ..DENSE }.holds_alone::<f32>(device, counts)?;
    all.add(&HalfCheck { n: 72, k: 200, seed, ..HALF }.holds_alone::<f32>(device, counts)?);
    Ok(all)
}

/// Cases that suit any device.
pub(in crate::verify) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, |$device:ident, $seed:ident| $run:expr) => {
            Case { family: "gemm", name: $name, run: |$device, $seed| $run }
        };
    }
    vec![
        case!("FP8 1x2112x512, integers", |device, seed| {
            let values = Values::Integers;
            Fp8Check { n: 2112, k: 512, values, seed, ..DENSE }.check::<bf16>(device)
        }),
        case!("FP8 9x576x1024, all positive", |device, seed| {
            let values = Values::Positive;
            Fp8Check { rows: Rows::Dense(9), n: 576, k: 1024, values, seed, ..DENSE }.check::<f32>(device)
        }),
        case!("FP8 33x576x448, ragged blocks", |device, seed| {
            Fp8Check { rows: Rows::Dense(33), n: 576, k: 448, seed, ..DENSE }.check::<bf16>(device)
        }),
        case!("FP8 130x256x384, column-major scales, f32", |device, seed| {
            let layout = ScaleLayout::MnMajor;
            Fp8Check { rows: Rows::Dense(130), n: 256, k: 384, layout, seed, ..DENSE }.check::<f32>(device)
        }),
        case!("FP8 4x256x7168, 56 blocks of K", |device, seed| {
            Fp8Check { rows: Rows::Dense(4), n: 256, k: 7168, seed, ..DENSE }.check::<bf16>(device)
        }),
        case!("FP8 grouped, 6 experts, integers", |device, seed| {
            let (values, rows) = (Values::Integers, Rows::Groups(&[3, 0, 65, 1, 0, 17]));
            Fp8Check { rows, n: 192, k: 256, values, seed, ..DENSE }.check::<bf16>(device)
        }),
        case!("FP8 grouped, 3 experts, sparse", |device, seed| {
            let (values, rows) = (Values::Sparse, Rows::Groups(&[5, 64, 2]));
            Fp8Check { rows, n: 128, k: 512, values, seed, ..DENSE }.check::<f32>(device)
        }),
        case!("FP8 grouped, 256 experts", |device, seed| {
            let mut sizes = [0; 256];
            (0..40).for_each(|i| sizes[i * 37 % 256] = 1 + i % 3);
            Fp8Check { rows: Rows::Groups(&sizes), n: 64, k: 144, seed, ..DENSE }.check::<bf16>(device)
        }),
        case!("bf16 7x256x512 to f32, integers", |device, seed| {
            let values = Values::Integers;
            HalfCheck { rows: Rows::Dense(7), n: 256, k: 512, values, seed, ..HALF }.check::<f32>(device)
        }),
        // Router logits of DeepSeek-V3: every stage of the pipeline comes round many times.
        case!("bf16 5x256x7168 to f32", |device, seed| {
            HalfCheck { rows: Rows::Dense(5), n: 256, k: 7168, seed, ..HALF }.check::<f32>(device)
        }),
        case!("bf16 66x24x200", |device, seed| {
            HalfCheck { rows: Rows::Dense(66), n: 24, k: 200, seed, ..HALF }.check::<bf16>(device)
        }),
        case!("bf16 8 heads of 3x512x128", |device, seed| {
            HalfCheck { rows: Rows::Batched(8, 3), n: 512, k: 128, seed, ..HALF }.check::<bf16>(device)
        }),
        case!("bf16 and f16, every layout and output", |device, seed| half_cases::layouts(device, seed)),
        case!("bf16 and f16, extents at the edges", |device, seed| half_cases::edges(device, seed)),
        case!("bf16 and f16, groups with every epilogue", |device, seed| half_cases::groups(device, seed)),
        case!("bf16 and f16, every split of K", |device, seed| half_cases::splits(device, seed)),
        case!("FP8, every form", |device, seed| forms::forms(device, seed)),
        case!("FP8, every pair of types", |device, seed| forms::types(device, seed)),
        case!("FP8, rows that a list names", |device, seed| forms::gathered(device, seed)),
        case!("FP8, extents at the edges", |device, seed| forms::edges(device, seed)),
        case!("FP8, groups empty, huge and of one row", |device, seed| forms::groups(device, seed)),
        case!("FP8 by groups, extents at the edges", |device, seed| edge_cases::fp8_groups(device, seed)),
        case!("bf16 and f16 by groups, extents at the edges", |device, seed| {
            edge_cases::half_groups(device, seed)
        }),
        case!("SwiGLU, extents at the edges", |device, seed| edge_cases::swiglu(device, seed)),
        case!("weight gradients, extents at the edges", |device, seed| edge_cases::gradients(device, seed)),
        case!("FP8 dense, every output", |device, seed| forms::mode(device, seed, Rows::Dense(70))),
        case!("FP8 grouped, every output", |device, seed| {
            forms::mode(device, seed, Rows::Groups(&[1, 0, 66, 5]))
        }),
        case!("FP8 masked and batched, every output", |device, seed| {
            let mut all = forms::mode(device, seed, Rows::Masked(&[1, 0, 66, 5], 66))?;
            all.add(&forms::mode(device, seed, Rows::Batched(3, 20))?);
            Ok(all)
        }),
        case!("FP8, groups and batches as loops", |device, seed| forms::parts(device, seed)),
        case!("weight gradient 72x200x640, e5m2 by e4m3, added", |device, seed| {
            let check = GradientCheck { e5m2: [true, false], accumulate: true, alpha: 2.0, seed, ..GRADIENT };
            check.check::<f32>(device)
        }),
        case!("weight gradients of 5 experts, one without tokens", |device, seed| {
            let depth = Depth::Groups(&[0, 256, 256, 384, 896, 1024], 1024);
            GradientCheck { depth, values: Values::Integers, seed, ..GRADIENT }.check::<f32>(device)
        }),
        case!("weight gradients, a drawn shape", |device, seed| drawn_gradient(device, seed)),
        case!("SwiGLU 33x256x1024 with a clamp, where it bends", |device, seed| {
            let product = moderate(Fp8Check { rows: Rows::Dense(33), n: 512, k: 1024, seed, ..DENSE });
            SwigluCheck { product, clamp: Some(10.0), ..SWIGLU }.check(device)
        }),
        case!("SwiGLU of 6 experts, all positive", |device, seed| {
            let (values, rows) = (Values::Positive, Rows::Groups(&[3, 0, 65, 1, 0, 17]));
            let product = Fp8Check { rows, n: 512, k: 256, values, seed, ..DENSE };
            SwigluCheck { product, power_of_two: true, ..SWIGLU }.check(device)
        }),
        case!("SwiGLU, drawn rows and options", |device, seed| drawn_swiglu(device, seed)),
        case!("SwiGLU, rows, groups and tiles", |device, seed| {
            let product = Fp8Check { rows: Rows::Masked(&[5, 0, 9], 9), n: 256, k: 272, seed, ..DENSE };
            SwigluCheck { product, ..SWIGLU }.relations(device)
        }),
        case!("transposed, 3 matrices of 300x200", |device, seed| {
            let (matrices, padding, offset) = (Some(3), [56, 20], [0; 2]);
            TransposeCheck { matrices, rows: 300, columns: 200, padding, offset, seed }.check(device)
        }),
        case!("transposed, a drawn shape", |device, seed| TransposeCheck::drawn(seed).check(device)),
        case!("every tile, input and output", |device, seed| every_variant(device, seed)),
        case!("FP8, a drawn shape", |device, seed| drawn_dense(device, seed)),
        case!("FP8 grouped, a drawn shape", |device, seed| drawn_grouped(device, seed)),
        case!("bf16 or f16, a drawn shape", |device, seed| half_cases::drawn(device, seed)),
        case!("FP8 64x1536x1024, by projection and model", |device, seed| {
            Fp8Check { rows: Rows::Dense(64), n: 1536, k: 1024, seed, ..DENSE }.check_large::<bf16>(device)
        }),
        case!("bf16 64x512x1024, by projection and model, integers", |device, seed| {
            let values = Values::Integers;
            HalfCheck { rows: Rows::Dense(64), n: 512, k: 1024, values, seed, ..HALF }
                .check_large::<f32>(device)
        }),
        case!("a row alone and among others", |device, seed| invariance(device, seed)),
        case!("permutations, powers of two, zeros, tiles, graphs", |device, seed| properties(device, seed)),
    ]
}

/// Published layers in full: on a card a matter of seconds, on the simulated one of hours.
pub(in crate::verify) fn large_cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, $check:expr) => {
            Case {
                family: "gemm",
                name: $name,
                run: |device, seed| {
                    let check = $check;
                    let values = if seed % 2 == 0 { Values::Normal } else { Values::Positive };
                    match seed % 2 {
                        0 => check(values, seed).check_large::<bf16>(device),
                        _ => check(values, seed).check_large::<f32>(device),
                    }
                },
            }
        };
    }
    fn dense([rows, n, k]: [usize; 3], values: Values, seed: u64) -> Fp8Check<'static> {
        Fp8Check { rows: Rows::Dense(rows), n, k, values, seed, ..DENSE }
    }
    vec![
        case!("FP8 4096x2112x7168", |values, seed| dense([4096, 2112, 7168], values, seed)),
        case!("FP8 4096x24576x1536", |values, seed| dense([4096, 24_576, 1536], values, seed)),
        case!("FP8 4096x7168x16384", |values, seed| dense([4096, 7168, 16_384], values, seed)),
        case!("FP8 4096x4096x7168", |values, seed| dense([4096, 4096, 7168], values, seed)),
        case!("FP8 4096x7168x2048", |values, seed| dense([4096, 7168, 2048], values, seed)),
        case!("FP8 grouped, 32 experts of 4096x7168", |values, seed| Fp8Check {
            rows: Rows::Groups(&[64; 32]),
            n: 4096,
            k: 7168,
            values,
            seed,
            ..DENSE
        }),
        case!("bf16 128 heads of 128x512x128", |values, seed| HalfCheck {
            rows: Rows::Batched(128, 128),
            n: 512,
            k: 128,
            values,
            seed,
            ..HALF
        }),
    ]
}
