//! Extents, strides, alignment and sizes: kinds 1 to 13.

use super::lab::Lab;
use super::{Row, row};
use crate::dtype::{E4m3, bf16};
use crate::error::Result;
use crate::fp8::{Fp8Blocks, Fp8Rows, ScaleLayout};
use crate::gemm::{
    BatchedHalfGemm, Fp8Gemm, Fp8GemmSwiglu, GroupedFp8Gemm, GroupedFp8GemmSwiglu, GroupedHalfGemm, HalfGemm,
    TransposeFp8,
};
use crate::mla::{Attention, LatentCache};
use crate::norm::{Add, RmsNorm, RmsNormQuantize};
use crate::quant::Quantize;
use crate::routing::{GatherRows, Permutation, SwigluQuantize};
use crate::tensor::Tensor;
use crate::verify::gemm::{Form, Fp8Check, HalfCheck, Rows, SwigluCheck, TransposeCheck, Values};
use crate::verify::surrounded::{Place, bits, text};
use crate::verify::{exact, norm, quant};
use crate::vocab::Embedding;

type Done = std::result::Result<(), String>;

const FP8: Fp8Check<'_> = Fp8Check {
    rows: Rows::Dense(3),
    n: 72,
    k: 144,
    layout: ScaleLayout::RowMajor,
    tile: None,
    values: Values::Integers,
    form: Form::PLAIN,
    seed: 11,
};
const HALF: HalfCheck<'_> = HalfCheck {
    rows: Rows::Dense(3),
    n: 72,
    k: 72,
    transposed: [false; 2],
    tile: None,
    values: Values::Integers,
    form: Form::PLAIN,
    seed: 11,
};

fn fp8(lab: &Lab<'_>, check: Fp8Check<'_>) -> Done {
    check.check::<bf16>(lab.device).map(drop)
}

fn half(lab: &Lab<'_>, check: HalfCheck<'_>) -> Done {
    check.check::<bf16>(lab.device).map(drop)
}

/// A view whose rows are 8 bytes behind a multiple of 16.
fn shifted(lab: &Lab<'_>, rows: usize, columns: usize) -> Tensor<bf16> {
    lab.halves(&[rows, columns + 8]).slice(1, 4..4 + columns).expect("inside")
}

fn rows_of(result: Result<Fp8Rows>) -> Result<()> {
    result.map(drop)
}

fn blocks_of(result: Result<Fp8Blocks>) -> Result<()> {
    result.map(drop)
}

/// An attention whose query or output is what the call says; everything else fits.
fn attention(lab: &Lab<'_>, query: &Tensor<bf16>, out: &Tensor<bf16>) -> Result<()> {
    let cache = LatentCache::new(lab.device, 2)?;
    let (batch, pages) = (query.dim(0), 2);
    let (table, lengths) = (lab.integers(&[batch, pages]), lab.integers(&[batch]));
    Attention::new(query, &cache, &table, &lengths, out).launch(&lab.stream)
}

fn transposed(lab: &Lab<'_>, [rows, columns]: [usize; 2], place: Place) -> Done {
    let check = TransposeCheck {
        matrices: None,
        rows,
        columns,
        padding: [place.padding; 2],
        offset: [place.offset; 2],
        seed: 3,
    };
    check.check(lab.device).map(drop)
}

fn swiglu(lab: &Lab<'_>, product: Fp8Check<'_>) -> Done {
    SwigluCheck { product, clamp: Some(10.0), power_of_two: false }.check(lab.device).map(drop)
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row!(1, "M = 0", [
            NoOp "Fp8Gemm" |lab| lab.does_nothing::<bf16>(&[0, 64], |out, stream| {
                Fp8Gemm::new(&lab.zero_rows(0, 128), &lab.blocks(&[64, 128]), out).launch(stream)
            }),
            NoOp "GroupedFp8Gemm" |lab| lab.does_nothing::<f32>(&[0, 64], |out, stream| {
                let offsets = lab.integers(&[3]);
                GroupedFp8Gemm::new(&lab.zero_rows(0, 128), &lab.blocks(&[2, 64, 128]), &offsets, out).launch(stream)
            }),
            NoOp "Fp8GemmSwiglu" |lab| {
                let (a, b) = (lab.zero_rows(0, 128), lab.blocks(&[256, 128]));
                Fp8GemmSwiglu::new(&a, &b, &lab.rows(0, 128)).launch(&lab.stream).map_err(text)
            },
            NoOp "HalfGemm" |lab| lab.does_nothing::<bf16>(&[0, 8], |out, stream| {
                HalfGemm::new(&lab.halves(&[0, 64]), &lab.halves(&[8, 64]), out).launch(stream)
            }),
            NoOp "BatchedHalfGemm" |lab| lab.does_nothing::<bf16>(&[2, 0, 8], |out, stream| {
                BatchedHalfGemm::new(&lab.halves(&[2, 0, 64]), &lab.halves(&[2, 8, 64]), out).launch(stream)
            }),
            NoOp "GroupedHalfGemm" |lab| lab.does_nothing::<bf16>(&[0, 8], |out, stream| {
                let offsets = lab.integers(&[3]);
                GroupedHalfGemm::new(&lab.halves(&[0, 64]), &lab.halves(&[2, 8, 64]), &offsets, out).launch(stream)
            }),
            NoOp "TransposeFp8" |lab| lab.does_nothing::<E4m3>(&[64, 0], |out, stream| {
                TransposeFp8::new(&lab.codes(&[0, 64]), out).launch(stream)
            }),
            NoOp "Quantize" |lab| Quantize::new(&lab.halves(&[0, 64]), &lab.rows(0, 64)).launch(&lab.stream).map_err(text),
            NoOp "RmsNorm" |lab| lab.does_nothing::<bf16>(&[0, 64], |out, stream| {
                RmsNorm::new(&lab.halves(&[0, 64]), &lab.halves(&[64]), out).launch(stream)
            }),
            NoOp "RmsNormQuantize" |lab| {
                let (x, weight) = (lab.halves(&[0, 64]), lab.halves(&[64]));
                RmsNormQuantize::new(&x, &weight, &lab.rows(0, 64)).launch(&lab.stream).map_err(text)
            },
            NoOp "Add" |lab| lab.does_nothing::<bf16>(&[0, 64], |out, stream| {
                Add::new(&lab.halves(&[0, 64]), &lab.halves(&[0, 64]), out).launch(stream)
            }),
            NoOp "SwigluQuantize" |lab| {
                SwigluQuantize::new(&lab.halves(&[0, 128]), &lab.rows(0, 64)).launch(&lab.stream).map_err(text)
            },
        ]),
        row!(2, "N = 0", [
            NoOp "Fp8Gemm" |lab| lab.does_nothing::<bf16>(&[3, 0], |out, stream| {
                Fp8Gemm::new(&lab.zero_rows(3, 128), &lab.blocks(&[0, 128]), out).launch(stream)
            }),
            NoOp "GroupedFp8Gemm" |lab| lab.does_nothing::<bf16>(&[3, 0], |out, stream| {
                let offsets = lab.tensor(&[2], &[0, 3]);
                GroupedFp8Gemm::new(&lab.zero_rows(3, 128), &lab.blocks(&[1, 0, 128]), &offsets, out).launch(stream)
            }),
            NoOp "Fp8GemmSwiglu" |lab| {
                let (a, b) = (lab.zero_rows(3, 128), lab.blocks(&[0, 128]));
                Fp8GemmSwiglu::new(&a, &b, &lab.rows(3, 0)).launch(&lab.stream).map_err(text)
            },
            NoOp "HalfGemm" |lab| lab.does_nothing::<f32>(&[3, 0], |out, stream| {
                HalfGemm::new(&lab.halves(&[3, 64]), &lab.halves(&[0, 64]), out).launch(stream)
            }),
            NoOp "RmsNorm" |lab| lab.does_nothing::<bf16>(&[3, 0], |out, stream| {
                RmsNorm::new(&lab.halves(&[3, 0]), &lab.halves(&[0]), out).launch(stream)
            }),
            NoOp "Quantize" |lab| Quantize::new(&lab.halves(&[3, 0]), &lab.rows(3, 0)).launch(&lab.stream).map_err(text),
        ]),
        row!(3, "K = 0", [
            Works "Fp8Gemm" |lab| fp8(lab, Fp8Check { k: 0, ..FP8 }),
            Works "GroupedFp8Gemm" |lab| fp8(lab, Fp8Check { k: 0, rows: Rows::Groups(&[2, 0, 5]), ..FP8 }),
            Works "HalfGemm" |lab| half(lab, HalfCheck { k: 0, ..HALF }),
            Works "BatchedHalfGemm" |lab| half(lab, HalfCheck { k: 0, rows: Rows::Batched(2, 3), ..HALF }),
            Works "GroupedHalfGemm" |lab| half(lab, HalfCheck { k: 0, rows: Rows::Groups(&[2, 0, 5]), ..HALF }),
            Works "MaskedHalfGemm" |lab| half(lab, HalfCheck { k: 0, rows: Rows::Masked(&[2, 0, 5], 6), ..HALF }),
        ]),
        row!(4, "K not a multiple of 128", [
            Works "Fp8Gemm" |lab| fp8(lab, Fp8Check { k: 300, ..FP8 }),
            Works "GroupedFp8Gemm" |lab| fp8(lab, Fp8Check { k: 129, rows: Rows::Groups(&[2, 0, 5]), ..FP8 }),
            Works "Fp8GemmSwiglu" |lab| swiglu(lab, Fp8Check { n: 256, k: 300, ..FP8 }),
            Works "GroupedFp8GemmSwiglu" |lab| {
                swiglu(lab, Fp8Check { n: 256, k: 129, rows: Rows::Groups(&[2, 0, 5]), ..FP8 })
            },
            Works "HalfGemm" |lab| half(lab, HalfCheck { k: 33, ..HALF }),
            Works "GroupedHalfGemm" |lab| half(lab, HalfCheck { k: 33, rows: Rows::Groups(&[2, 0, 5]), ..HALF }),
            Works "TransposeFp8" |lab| transposed(lab, [33, 129], Place::default()),
            Works "Quantize" |lab| {
                quant::check(lab.device, &quant::Problem { columns: 200, ..Default::default() }).map(drop)
            },
        ]),
        row!(5, "N not a multiple of 8", [
            Works "Fp8Gemm" |lab| fp8(lab, Fp8Check { n: 13, ..FP8 }),
            Works "GroupedFp8Gemm" |lab| fp8(lab, Fp8Check { n: 131, rows: Rows::Groups(&[2, 0, 5]), ..FP8 }),
            // A fresh scale is of 128 gates and as many ups.
            Error "Fp8GemmSwiglu" |lab| {
                let (a, b) = (lab.zero_rows(3, 128), lab.blocks(&[384, 128]));
                lab.refused("b", Fp8GemmSwiglu::new(&a, &b, &lab.rows(3, 192)).launch(&lab.stream))
            },
            Error "GroupedFp8GemmSwiglu" |lab| {
                let (a, b, offsets) = (lab.zero_rows(3, 128), lab.blocks(&[2, 130, 128]), lab.integers(&[3]));
                let out = lab.rows(3, 65);
                lab.refused("b", GroupedFp8GemmSwiglu::new(&a, &b, &offsets, &out).launch(&lab.stream))
            },
            Works "BatchedHalfGemm" |lab| half(lab, HalfCheck { n: 1, rows: Rows::Batched(3, 3), ..HALF }),
            Works "RmsNorm" |lab| {
                norm::check(lab.device, &norm::Problem { columns: 77, ..Default::default() }).map(drop)
            },
        ]),
        row!(6, "M = 1, 63, 64, 65, 127, 129", [
            Works "Fp8Gemm" |lab| [1, 63, 64, 65, 127, 129].into_iter().try_for_each(|m| {
                fp8(lab, Fp8Check { rows: Rows::Dense(m), ..FP8 })
            }),
            Works "HalfGemm" |lab| [1, 63, 64, 65, 127, 129].into_iter().try_for_each(|m| half(lab, HalfCheck { rows: Rows::Dense(m), ..HALF })),
        ]),
        row!(7, "offsets beyond 2^31 elements", [
            Works "Embedding" |lab| far_embedding(lab),
            Works "Add" |lab| far_add(lab),
            Works "HalfGemm" |lab| far_product(lab),
        ]),
        row!(8, "an extent beyond what kernels count", [
            Error "HalfGemm" |lab| {
                let long = lab.device.empty::<bf16>(&[1, 1 << 31]).map_err(text)?;
                lab.refuses::<f32>(&[1, 1], "K", |out, stream| HalfGemm::new(&long, &long, out).launch(stream))
            },
            Error "Permutation::empty" |lab| {
                lab.refused("entries", Permutation::empty(lab.device, 1 << 31, 2, 8).map(drop))
            },
            Error "LatentCache::new" |lab| lab.refused("pages * page_tokens", LatentCache::new(lab.device, 1 << 25).map(drop)),
            Error "Device::empty" |lab| {
                lab.refused("shape", lab.device.empty::<u64>(&[usize::MAX, usize::MAX]).map(drop))
            },
        ]),
        row!(9, "an address that is not 16-byte aligned", [
            Error "HalfGemm" |lab| lab.refuses::<bf16>(&[4, 8], "a", |out, stream| {
                HalfGemm::new(&shifted(lab, 4, 64), &lab.halves(&[8, 64]), out).launch(stream)
            }),
            Error "BatchedHalfGemm" |lab| lab.refuses::<bf16>(&[1, 4, 8], "b", |out, stream| {
                let b = shifted(lab, 8, 64).as_strided(0, &[1, 8, 64], &[0, 72, 1])?;
                BatchedHalfGemm::new(&lab.halves(&[1, 4, 64]), &b, out).launch(stream)
            }),
            Error "Fp8Rows::new" |lab| {
                let data = lab.codes(&[4, 144]).slice(1, 8..136).map_err(text)?;
                lab.refused("data", rows_of(Fp8Rows::new(data, lab.floats(&[4, 1]))))
            },
            Error "Fp8Blocks::new" |lab| {
                let data = lab.codes(&[4, 144]).slice(1, 1..129).map_err(text)?;
                lab.refused("data", blocks_of(Fp8Blocks::new(data, lab.floats(&[1, 1]))))
            },
            Error "Attention" |lab| lab.refuses::<bf16>(&[1, 1, 2, 512], "q", |out, _| {
                let query = lab.halves(&[1, 1, 2, 584]).slice(3, 4..580)?;
                attention(lab, &query, out)
            }),
            Works "TransposeFp8" |lab| transposed(lab, [40, 24], Place { offset: 5, padding: 0 }),
            Works "RmsNorm" |lab| {
                let place = Place { offset: 1, padding: 0 };
                norm::check(lab.device, &norm::Problem { place, ..Default::default() }).map(drop)
            },
            Works "Quantize" |lab| {
                let place = Place { offset: 3, padding: 0 };
                quant::check(lab.device, &quant::Problem { place, ..Default::default() }).map(drop)
            },
        ]),
        row!(10, "a row stride that is not a multiple of 16 bytes", [
            Error "HalfGemm" |lab| lab.refuses::<bf16>(&[4, 8], "a", |out, stream| {
                let a = lab.halves(&[4, 68]).slice(1, 0..64)?;
                HalfGemm::new(&a, &lab.halves(&[8, 64]), out).launch(stream)
            }),
            Error "Fp8Rows::new" |lab| {
                lab.refused("data", rows_of(Fp8Rows::new(lab.codes(&[4, 150]), lab.floats(&[4, 2]))))
            },
            Error "Fp8Blocks::new" |lab| {
                let data = lab.codes(&[2, 4 * 128 + 8]).as_strided(0, &[2, 4, 128], &[520, 128, 1]).map_err(text)?;
                lab.refused("data", blocks_of(Fp8Blocks::new(data, lab.floats(&[2, 1, 1]))))
            },
            Error "Attention" |lab| lab.refuses::<bf16>(&[1, 1, 2, 512], "q", |out, _| {
                let query = lab.halves(&[1, 1, 2, 580]).slice(3, 0..576)?;
                attention(lab, &query, out)
            }),
            Works "TransposeFp8" |lab| transposed(lab, [40, 24], Place { offset: 0, padding: 3 }),
            Works "Quantize" |lab| {
                let place = Place { offset: 0, padding: 3 };
                quant::check(lab.device, &quant::Problem { place, ..Default::default() }).map(drop)
            },
        ]),
        row!(11, "a buffer shorter than its shape", [
            Error "Device::tensor" |lab| lab.refused("values", lab.device.tensor(&[2, 2], &[1, 2, 3]).map(drop)),
            Error "Tensor::write" |lab| {
                let tensor = lab.tensor(&[2, 2], &[1, 2, 3, 4]);
                lab.refused("values", tensor.write(&[0; 3]))?;
                exact("the tensor", &tensor.to_vec().map_err(text)?, &[1, 2, 3, 4])
            },
            Error "Tensor::as_strided" |lab| {
                lab.refused("shape", lab.integers(&[8]).as_strided(1, &[2, 4], &[4, 1]).map(drop))
            },
            Error "Tensor::slice" |lab| lab.refused("range", lab.integers(&[8]).slice(0, 4..9).map(drop)),
            Error "Tensor::reshape" |lab| lab.refused("shape", lab.integers(&[8]).reshape(&[3, 3]).map(drop)),
            Error "Fp8Gemm" |lab| lab.refuses::<bf16>(&[2, 64], "out", |out, stream| {
                Fp8Gemm::new(&lab.zero_rows(3, 128), &lab.blocks(&[64, 128]), out).launch(stream)
            }),
            Error "TransposeFp8" |lab| lab.refuses::<E4m3>(&[8, 3], "out", |out, stream| {
                TransposeFp8::new(&lab.codes(&[4, 8]), out).launch(stream)
            }),
            Error "GatherRows" |lab| lab.refuses_rows([7, 128], "out", |out, stream| {
                let permutation = Permutation::empty(lab.device, 4, 2, 8)?;
                GatherRows::new(&lab.rows(4, 128), &permutation, out).launch(stream)
            }),
        ]),
        row!(12, "a buffer longer than its shape", [
            Works "Fp8Gemm" |lab| fp8(lab, FP8),
            Works "HalfGemm" |lab| half(lab, HALF),
            Works "Quantize" |lab| {
                let place = Place { offset: 8, padding: 8 };
                quant::check(lab.device, &quant::Problem { place, ..Default::default() }).map(drop)
            },
        ]),
        row!(13, "scales of the wrong shape or order", [
            Error "Fp8Rows::new" |lab| {
                lab.refused("scales", rows_of(Fp8Rows::new(lab.codes(&[3, 144]), lab.floats(&[3, 1]))))
            },
            Error "Fp8Rows::new, by columns" |lab| {
                lab.refused("scales", rows_of(Fp8Rows::new(lab.codes(&[3, 144]), lab.floats(&[2, 3]))))
            },
            Error "Fp8Blocks::new" |lab| {
                lab.refused("scales", blocks_of(Fp8Blocks::new(lab.codes(&[576, 144]), lab.floats(&[4, 2]))))
            },
            Error "Fp8Blocks::new, grouped" |lab| {
                lab.refused("scales", blocks_of(Fp8Blocks::new(lab.codes(&[2, 576, 144]), lab.floats(&[5, 2]))))
            },
            Error "Fp8Gemm, grouped weights" |lab| lab.refuses::<bf16>(&[4, 8], "b", |out, stream| {
                Fp8Gemm::new(&lab.zero_rows(4, 128), &lab.blocks(&[1, 8, 128]), out).launch(stream)
            }),
            Works "Fp8Gemm, scales by columns" |lab| fp8(lab, Fp8Check { layout: ScaleLayout::MnMajor, ..FP8 }),
        ], CannotCompile("src/compile_fail.rs, E0308: rows and blocks are types of their own")),
    ]
}

/// Elements between two rows, so that the third begins behind element 2³¹.
const FAR: usize = (1 << 30) + 16;

fn far(
    lab: &Lab<'_>,
    rows: usize,
    columns: usize,
    values: &[bf16],
) -> std::result::Result<Tensor<bf16>, String> {
    let place = || {
        let whole = lab.device.empty::<bf16>(&[(rows - 1) * FAR + columns])?;
        for (row, values) in values.chunks(columns).enumerate() {
            whole.slice(0, row * FAR..row * FAR + columns)?.write(values)?;
        }
        whole.as_strided(0, &[rows, columns], &[FAR, 1])
    };
    place().map_err(text)
}

/// The rows one by one: what lies between them is gigabytes.
fn near(tensor: &Tensor<bf16>) -> std::result::Result<Vec<bf16>, String> {
    let rows = (0..tensor.dim(0)).map(|row| tensor.select(0, row).and_then(|row| row.to_vec()));
    rows.collect::<Result<Vec<_>>>().map(|rows| rows.concat()).map_err(text)
}

fn numbered(count: usize) -> Vec<bf16> {
    (0..count).map(|i| bf16::from_f32(i as f32)).collect()
}

fn far_embedding(lab: &Lab<'_>) -> Done {
    let values = numbered(24);
    let table = far(lab, 3, 8, &values)?;
    let ids = lab.tensor(&[2], &[2, 1]);
    let got = lab.writes::<bf16>(&[2, 8], |out, stream| Embedding::new(&table, &ids, out).launch(stream))?;
    exact("rows", &got, &[&values[16..], &values[8..16]].concat())
}

fn far_add(lab: &Lab<'_>) -> Done {
    let values = numbered(24);
    let (x, out) = (far(lab, 3, 8, &values)?, far(lab, 3, 8, &values)?);
    Add::new(&x, &x, &out).launch(&lab.stream).map_err(text)?;
    let want: Vec<bf16> = values.iter().map(|x| bf16::from_f32(2.0 * x.to_f32())).collect();
    exact("sums", &bits(&near(&out)?), &bits(&want))
}

fn far_product(lab: &Lab<'_>) -> Done {
    let values = numbered(24);
    let (a, out) = (far(lab, 3, 8, &values)?, far(lab, 3, 8, &values)?);
    let mut identity = vec![bf16::ZERO; 64];
    identity.iter_mut().step_by(9).for_each(|x| *x = bf16::ONE);
    HalfGemm::new(&a, &lab.tensor(&[8, 8], &identity), &out).launch(&lab.stream).map_err(text)?;
    exact("A · I", &near(&out)?, &values)
}
