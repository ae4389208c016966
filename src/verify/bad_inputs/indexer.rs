//! The lightning indexer and the selection of the largest scores, among the kinds that they meet.

use super::lab::{Lab, is};
use super::{Row, row};
use crate::dtype::bf16;
use crate::fp8::Fp8Rows;
use crate::mla::{IndexerLogits, IndexerPages, IndexerWrite, PagedIndexerLogits, TopK};
use crate::verify::exact;
use crate::verify::mla::indexer::IndexerCheck;
use crate::verify::mla::indexer_write::IndexerWriteCheck;
use crate::verify::mla::top_k::{Scores, TopKCheck};

type Done = Result<(), String>;

/// One scale a row, all zeros.
fn keys(lab: &Lab<'_>, shape: &[usize]) -> Fp8Rows {
    let scales = lab.floats(&shape[..shape.len() - 1]);
    Fp8Rows::per_row(lab.codes(shape), scales).expect("these fit each other")
}

fn prefill(lab: &Lab<'_>, check: IndexerCheck) -> Done {
    check.check(lab.device, 8).map(drop)
}

fn top_k(lab: &Lab<'_>, check: TopKCheck) -> Done {
    check.check(lab.device, 8).map(drop)
}

fn written(lab: &Lab<'_>, check: IndexerWriteCheck) -> Done {
    check.check(lab.device, 8).map(drop)
}

fn nothing(lab: &Lab<'_>, [tokens, columns]: [usize; 2]) -> Done {
    let (q, weights) = (lab.codes(&[tokens, 4, 128]), lab.floats(&[tokens, 4]));
    let keys = keys(lab, &[columns, 128]);
    lab.does_nothing::<f32>(&[tokens, columns], |out, stream| {
        IndexerLogits::new(&q, &keys, &weights, out).launch(stream)
    })
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row!(1, "M = 0", [
            NoOp "IndexerLogits" |lab| nothing(lab, [0, 9]),
            NoOp "IndexerWrite" |lab| written(lab, IndexerWriteCheck::paged(0, 1)),
            NoOp "TopK" |lab| lab.does_nothing::<i32>(&[0, 4], |out, stream| {
                TopK::new(&lab.floats(&[0, 9]), out).launch(stream)
            }),
        ]),
        row!(2, "N = 0", [
            NoOp "IndexerLogits" |lab| nothing(lab, [3, 0]),
            Works "TopK" |lab| {
                let scores = lab.floats(&[2, 0]);
                let chosen = lab.writes::<i32>(&[2, 3], |out, stream| TopK::new(&scores, out).launch(stream))?;
                exact("nothing to choose from", &chosen, &[-1; 6])
            },
        ]),
        row!(9, "an address that is not 16-byte aligned", [
            Error "IndexerLogits, q" |lab| lab.refuses::<f32>(&[2, 8], "q", |out, stream| {
                let q = lab.codes(&[2, 4, 144]).slice(2, 8..136)?;
                IndexerLogits::new(&q, &keys(lab, &[8, 128]), &lab.floats(&[2, 4]), out).launch(stream)
            }),
            Error "IndexerLogits, scales" |lab| lab.refuses::<f32>(&[2, 8], "keys", |out, stream| {
                let keys = keys(lab, &[9, 128]).slice_rows(1..9)?;
                IndexerLogits::new(&lab.codes(&[2, 4, 128]), &keys, &lab.floats(&[2, 4]), out).launch(stream)
            }),
        ]),
        row!(18, "FP8 data that is NaN", [
            Propagated "IndexerLogits" |lab| prefill(lab, IndexerCheck { nan: true, ..IndexerCheck::prefill(5, 64, 200) }),
            Propagated "PagedIndexerLogits" |lab| {
                prefill(lab, IndexerCheck { nan: true, ..IndexerCheck::decode(2, 2, 32, 200) })
            },
        ]),
        row!(19, "NaN, infinities and all zeros to be quantised", [
            Propagated "IndexerWrite" |lab| written(lab, IndexerWriteCheck::paged(40, 1)),
        ]),
        row!(21, "an output that overlaps an input", [
            Error "IndexerWrite" |lab| {
                let (cache, slots) = (keys(lab, &[1, 64, 128]), lab.integers(&[2]));
                let inside = cache.data().reinterpreted::<bf16>().select(0, 0).and_then(|page| page.slice(0, 0..2));
                let inside = inside.and_then(|keys| keys.as_strided(0, &[2, 128], &[128, 1])).map_err(|e| e.to_string())?;
                lab.refused("cache", IndexerWrite::new(&inside, &slots, &cache).launch(&lab.stream))
            },
            Error "IndexerLogits" |lab| {
                let both = lab.floats(&[4, 4]);
                let q = lab.codes(&[4, 4, 128]);
                lab.refused("out", IndexerLogits::new(&q, &keys(lab, &[4, 128]), &both, &both).launch(&lab.stream))
            },
        ]),
        row!(26, "top_k = 0", [
            NoOp "TopK" |lab| lab.does_nothing::<i32>(&[3, 0], |out, stream| {
                TopK::new(&lab.floats(&[3, 9]), out).launch(stream)
            }),
        ]),
        row!(27, "top_k beyond the experts or beyond 16", [
            Error "TopK, 2049" |lab| lab.refuses::<i32>(&[1, 2049], "out", |out, stream| {
                TopK::new(&lab.floats(&[1, 5000]), out).launch(stream)
            }),
            Works "TopK, more than there are" |lab| top_k(lab, TopKCheck::plain(2, 30, 100, Scores::Normal)),
        ]),
        row!(31, "a token with some NaN", [
            Masked "TopK" |lab| top_k(lab, TopKCheck::plain(2, 500, 100, Scores::Wild)),
        ]),
        row!(33, "equal logits", [
            Works "TopK" |lab| top_k(lab, TopKCheck::plain(2, 5000, 600, Scores::Ties)),
        ]),
        row!(35, "ids outside what there is", [
            Masked "IndexerWrite, slots" |lab| {
                written(lab, IndexerWriteCheck { bad: true, page_tokens: 32, ..IndexerWriteCheck::paged(40, 3) })
            },
        ]),
        row!(42, "no sequences", [
            NoOp "PagedIndexerLogits" |lab| {
                let (keys, table, lengths) = (keys(lab, &[2, 64, 128]), lab.integers(&[0, 2]), lab.integers(&[0]));
                let (q, weights) = (lab.codes(&[0, 1, 4, 128]), lab.floats(&[0, 1, 4]));
                lab.does_nothing::<f32>(&[0, 100], |out, stream| {
                    let pages = IndexerPages::new(&keys, &table, &lengths);
                    PagedIndexerLogits::new(&q, pages, &weights, out).launch(stream)
                })
            },
        ]),
        row!(43, "a length of zero", [
            NoOp "PagedIndexerLogits" |lab| {
                let (keys, table, lengths) = (keys(lab, &[2, 64, 128]), lab.integers(&[3, 2]), lab.integers(&[3]));
                let (q, weights) = (lab.codes(&[3, 2, 4, 128]), lab.floats(&[3, 2, 4]));
                lab.does_nothing::<f32>(&[6, 100], |out, stream| {
                    let pages = IndexerPages::new(&keys, &table, &lengths);
                    PagedIndexerLogits::new(&q, pages, &weights, out).launch(stream)
                })
            },
            Works "TopK" |lab| {
                let (scores, ends) = (lab.floats(&[2, 50]), lab.integers(&[2]));
                let chosen =
                    lab.writes::<i32>(&[2, 3], |out, stream| TopK::new(&scores, out).ends(&ends).launch(stream))?;
                exact("nothing to choose from", &chosen, &[-1; 6])?;
                is(lab.status()?.is_clear(), "that is nothing to report")
            },
        ]),
        row!(44, "a length beyond the page table", [
            Masked "PagedIndexerLogits" |lab| {
                prefill(lab, IndexerCheck { bad: true, ..IndexerCheck::decode(5, 2, 64, 150) })
            },
            Masked "IndexerLogits, bounds" |lab| {
                prefill(lab, IndexerCheck { bad: true, ..IndexerCheck::prefill(7, 64, 150) })
            },
            Masked "TopK, bounds" |lab| {
                let plain = TopKCheck::plain(6, 500, 100, Scores::Normal);
                top_k(lab, TopKCheck { bad: true, rows_per_end: 1, starts: true, ..plain })
            },
        ]),
        row!(46, "a page in use that the cache does not have", [
            Masked "PagedIndexerLogits" |lab| {
                let check = IndexerCheck { page_tokens: 32, bad: true, ..IndexerCheck::decode(6, 1, 64, 200) };
                prefill(lab, check)
            },
            Masked "TopK, places" |lab| {
                let plain = TopKCheck::plain(4, 500, 100, Scores::Normal);
                top_k(lab, TopKCheck { bad: true, rows_per_end: 2, page_tokens: 64, ..plain })
            },
        ]),
        row!(48, "a page that two sequences share", [
            Works "PagedIndexerLogits" |lab| {
                let keys = keys(lab, &[2, 64, 128]);
                keys.data().write(&vec![crate::dtype::E4m3::from_f32(1.0); 2 * 64 * 128]).map_err(|e| e.to_string())?;
                keys.scales().reshape(&[128]).and_then(|scales| scales.write(&[1.0; 128])).map_err(|e| e.to_string())?;
                let q = lab.tensor(&[2, 1, 4, 128], &[crate::dtype::E4m3::from_f32(1.0); 2 * 4 * 128]);
                let weights = lab.tensor(&[2, 1, 4], &[0.5; 8]);
                let (table, lengths) = (lab.tensor(&[2, 1], &[1, 1]), lab.tensor(&[2], &[9, 9]));
                let logits = lab.writes::<f32>(&[2, 9], |out, stream| {
                    let pages = IndexerPages::new(&keys, &table, &lengths);
                    PagedIndexerLogits::new(&q, pages, &weights, out).launch(stream)
                })?;
                exact("logits of both", &logits, &[256.0; 18])
            },
        ]),
    ]
}
