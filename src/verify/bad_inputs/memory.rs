//! Aliases, devices, graphs, threads and lifetimes: kinds 21 to 24 and 56 to 64.

use super::lab::{Lab, is};
use super::{Row, row};
use crate::device::Stream;
use crate::dtype::bf16;
use crate::error::{Error, Result};
use crate::fp8::Fp8Rows;
use crate::gemm::{Fp8Gemm, HalfGemm};
use crate::mla::{Attention, LatentCache, Merge};
use crate::norm::{Add, RmsNorm};
use crate::quant::Quantize;
use crate::routing::{Combine, GatherRows, Permutation, Router};
use crate::tensor::Tensor;
use crate::verify::Source;
use crate::verify::exact;
use crate::verify::mla::AttentionInputs;
use crate::verify::surrounded::{bits, text};
use std::panic::{AssertUnwindSafe, catch_unwind};

type Done = std::result::Result<(), String>;

/// Refused, and the tensor that was the output is still what it was.
fn kept<T: crate::verify::surrounded::Poison>(
    lab: &Lab<'_>,
    argument: &str,
    tensor: &Tensor<T>,
    call: impl FnOnce(&Stream) -> Result<()>,
) -> Done {
    let before = tensor.to_vec().map_err(text)?;
    lab.refused(argument, call(&lab.stream))?;
    exact("the output", &bits(&tensor.to_vec().map_err(text)?), &bits(&before))
}

/// Half the rows of a matrix, and rows that overlap them by one.
fn overlapping(lab: &Lab<'_>) -> Result<[Tensor<bf16>; 2]> {
    let whole = lab.halves(&[8, 64]);
    Ok([whole.slice(0, 0..4)?, whole.slice(0, 3..7)?])
}

/// One attention over splits, with a workspace.
struct Split {
    inputs: AttentionInputs,
    query: Tensor<bf16>,
    cache: LatentCache,
    table: Tensor<i32>,
    lengths: Tensor<i32>,
}

impl Split {
    fn new(lab: &Lab<'_>) -> Result<Self> {
        let inputs = AttentionInputs::normal(&mut Source::new(56), &[150], 1, 4);
        let cache = LatentCache::new(lab.device, inputs.shape.cache_pages)?;
        cache.tensor().write(&inputs.cache)?;
        Ok(Self {
            query: lab.tensor(&[1, 1, 4, 576], &inputs.query),
            table: lab.tensor(&[1, inputs.shape.table_pages], &inputs.table),
            lengths: lab.tensor(&[1], &inputs.lengths),
            cache,
            inputs,
        })
    }

    fn run(&self, out: &Tensor<bf16>, workspace: Option<&Tensor<u8>>, stream: &Stream) -> Result<()> {
        let attention = Attention::new(&self.query, &self.cache, &self.table, &self.lengths, out).splits(2);
        match workspace {
            Some(workspace) => attention.workspace(workspace).launch(stream),
            None => attention.launch(stream),
        }
    }
}

fn two_streams(lab: &Lab<'_>) -> Done {
    let run = || -> Result<_> {
        let split = Split::new(lab)?;
        let workspace = lab.zeros::<u8>(&[1 << 19]);
        let (a, b) = (lab.halves(&[1, 1, 4, 512]), lab.halves(&[1, 1, 4, 512]));
        split.run(&a, Some(&workspace), &lab.stream)?;
        split.run(&b, Some(&workspace), &lab.device.new_stream()?)?;
        Ok((split.inputs, a.to_vec()?, b.to_vec()?))
    };
    let (inputs, a, b) = run().map_err(text)?;
    let want = inputs.run(lab.device, Some(2))?.output;
    exact("the first", &bits(&a), &bits(&want))?;
    exact("the second", &bits(&b), &bits(&want))
}

fn replay_after_drop(lab: &Lab<'_>) -> Done {
    let out = lab.halves(&[1, 8]);
    let graph = {
        let (a, b) = (lab.tensor(&[1, 8], &[bf16::ONE; 8]), lab.tensor(&[1, 8], &[bf16::ONE; 8]));
        lab.stream.capture(|stream| Add::new(&a, &b, &out).launch(stream)).map_err(text)?
    };
    let _in_their_place = [lab.halves(&[1, 8]), lab.halves(&[1, 8])];
    graph.launch(&lab.stream).map_err(text)?;
    exact("the sum", &out.to_vec().map_err(text)?, &[bf16::from_f32(2.0); 8])
}

fn panic_after_launch(lab: &Lab<'_>) -> Done {
    let out = lab.halves(&[1, 8]);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let one = lab.tensor(&[1, 8], &[bf16::ONE; 8]);
        Add::new(&one, &one, &out).launch(&lab.stream)?;
        // Without the hook's message: nothing is wrong.
        std::panic::resume_unwind(Box::new(()));
        #[expect(unreachable_code, reason = "gives the closure its type")]
        Ok::<(), Error>(())
    }));
    is(ended.is_err(), "it panicked")?;
    exact("the sum", &out.to_vec().map_err(text)?, &[bf16::from_f32(2.0); 8])
}

fn many_threads(lab: &Lab<'_>) -> Done {
    let one = lab.tensor(&[1, 8], &[bf16::ONE; 8]);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (stream, one, device) = (lab.stream.clone(), &one, lab.device);
                scope.spawn(move || {
                    let out = device.zeros::<bf16>(&[1, 8])?;
                    for _ in 0..8 {
                        Add::new(one, one, &out).launch(&stream)?;
                    }
                    out.to_vec()
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let sums = thread.join().map_err(|_| "a thread panicked".to_owned())?.map_err(text)?;
            exact("sums", &sums, &[bf16::from_f32(2.0); 8])
        })
    })
}

/// A device of its own: one that is opened apart is another, even of the same card.
fn elsewhere(lab: &Lab<'_>) -> std::result::Result<crate::Device, String> {
    crate::verify::open(if lab.device.is_simulated() { "sim:h20" } else { "cuda:0" }).map_err(text)
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row!(21, "an output that overlaps an input", [
            Error "Merge" |lab| {
                let partial = lab.floats(&[2, 3, 4, 8]);
                let out = partial.select(0, 1).map_err(text)?;
                kept(lab, "out", &out, |stream| Merge::new(&partial, &lab.floats(&[2, 4, 3]), &out).launch(stream))
            },
            Error "HalfGemm" |lab| {
                let whole = lab.halves(&[16, 64]);
                let (b, out) = (whole.slice(0, 0..8).map_err(text)?, whole.as_strided(256, &[4, 8], &[64, 1]).map_err(text)?);
                kept(lab, "out", &out, |stream| HalfGemm::new(&lab.halves(&[4, 64]), &b, &out).launch(stream))
            },
            Error "Fp8Gemm" |lab| {
                let out = lab.floats(&[4, 8]);
                let scales = out.slice(1, 0..1).map_err(text)?;
                let a = Fp8Rows::new(lab.codes(&[4, 64]), scales).map_err(text)?;
                kept(lab, "out", &out, |stream| Fp8Gemm::new(&a, &lab.blocks(&[8, 64]), &out).launch(stream))
            },
            Error "Quantize, a scale for all rows" |lab| {
                let whole = lab.halves(&[4, 64]);
                let scales = lab.floats(&[4, 1]);
                let rows = Fp8Rows::new(lab.codes(&[4, 64]), scales.clone()).map_err(text)?;
                let one = scales.slice(0, 0..1).and_then(|scale| scale.expand(0, 4)).map_err(text)?;
                let rows = Fp8Rows::new(rows.data().clone(), one).map_err(text)?;
                kept(lab, "out.scales", &scales, |stream| Quantize::new(&whole, &rows).launch(stream))
            },
            Error "GatherRows" |lab| {
                let both = lab.zero_rows(8, 64);
                let permutation = Permutation::empty(lab.device, 4, 2, 8).map_err(text)?;
                let first = both.slice_rows(0..4).map_err(text)?;
                kept(lab, "out.data", both.data(), |stream| GatherRows::new(&first, &permutation, &both).launch(stream))
            },
            Error "Combine" |lab| {
                let rows = lab.halves(&[8, 64]);
                let permutation = Permutation::empty(lab.device, 4, 2, 8).map_err(text)?;
                let out = rows.slice(0, 0..4).map_err(text)?;
                kept(lab, "out", &out, |stream| {
                    Combine::new(&rows, &permutation, &lab.floats(&[4, 2]), &out).launch(stream)
                })
            },
            Error "Router" |lab| {
                let logits = lab.floats(&[4, 64]);
                let weights = logits.slice(1, 0..8).and_then(|w| w.as_strided(0, &[4, 8], &[8, 1])).map_err(text)?;
                let bias = lab.floats(&[64]);
                lab.refuses::<i32>(&[4, 8], "weights", |ids, stream| {
                    Router::new(&logits, crate::verify::routing::V3, &weights, ids).bias(&bias).launch(stream)
                })
            },
            Error "Attention" |lab| {
                let cache = LatentCache::new(lab.device, 4).map_err(text)?;
                let out = cache.tensor().as_strided(0, &[1, 1, 4, 512], &[2048, 2048, 512, 1]).map_err(text)?;
                let (query, table, lengths) =
                    (lab.halves(&[1, 1, 4, 576]), lab.integers(&[1, 2]), lab.integers(&[1]));
                kept(lab, "out", &out, |stream| Attention::new(&query, &cache, &table, &lengths, &out).launch(stream))
            },
            Works "RmsNorm, the output is the input" |lab| {
                let (x, weight) = (lab.halves(&[4, 64]), lab.halves(&[64]));
                RmsNorm::new(&x, &weight, &x).launch(&lab.stream).map_err(text)
            },
        ]),
        row!(22, "an output that may be an input, but with other strides", [
            Error "RmsNorm" |lab| {
                let [x, out] = overlapping(lab).map_err(text)?;
                kept(lab, "out", &out, |stream| RmsNorm::new(&x, &lab.halves(&[64]), &out).launch(stream))
            },
            Error "Add" |lab| {
                let [x, out] = overlapping(lab).map_err(text)?;
                kept(lab, "out", &out, |stream| Add::new(&x, &lab.halves(&[4, 64]), &out).launch(stream))
            },
            Error "Combine, shared" |lab| {
                let [shared, out] = overlapping(lab).map_err(text)?;
                let permutation = Permutation::empty(lab.device, 4, 2, 8).map_err(text)?;
                let (rows, weights) = (lab.halves(&[8, 64]), lab.floats(&[4, 2]));
                kept(lab, "out", &out, |stream| {
                    Combine::new(&rows, &permutation, &weights, &out).shared(&shared).launch(stream)
                })
            },
        ]),
        row!(23, "operands on different devices", [
            Error "Add" |lab| {
                let other = elsewhere(lab)?;
                let foreign = other.zeros::<bf16>(&[4, 64]).map_err(text)?;
                lab.refuses::<bf16>(&[4, 64], "b", |out, stream| Add::new(&lab.halves(&[4, 64]), &foreign, out).launch(stream))
            },
            Error "HalfGemm" |lab| {
                let other = elsewhere(lab)?;
                let foreign = other.zeros::<bf16>(&[8, 64]).map_err(text)?;
                lab.refuses::<bf16>(&[4, 8], "b", |out, stream| {
                    HalfGemm::new(&lab.halves(&[4, 64]), &foreign, out).launch(stream)
                })
            },
            Error "Fp8Rows::new" |lab| {
                let scales = elsewhere(lab)?.zeros::<f32>(&[4, 1]).map_err(text)?;
                lab.refused("scales", Fp8Rows::new(lab.codes(&[4, 64]), scales).map(drop))
            },
            Error "Attention" |lab| {
                let cache = LatentCache::new(&elsewhere(lab)?, 1).map_err(text)?;
                let (query, table, lengths) =
                    (lab.halves(&[1, 1, 4, 576]), lab.integers(&[1, 1]), lab.integers(&[1]));
                lab.refuses::<bf16>(&[1, 1, 4, 512], "cache", |out, stream| {
                    Attention::new(&query, &cache, &table, &lengths, out).launch(stream)
                })
            },
        ]),
        row!(
            24,
            "a buffer that was freed",
            [],
            CannotCompile("src/compile_fail.rs, E0505 and E0515: an operation that outlives its operands")
        ),
        row!(56, "a workspace that is missing, small, misaligned or shared by two streams", [
            Error "Attention, missing" |lab| {
                let split = Split::new(lab).map_err(text)?;
                lab.refuses::<bf16>(&[1, 1, 4, 512], "workspace", |out, stream| split.run(out, None, stream))
            },
            Error "Attention, small" |lab| {
                let (split, small) = (Split::new(lab).map_err(text)?, lab.zeros::<u8>(&[1000]));
                lab.refuses::<bf16>(&[1, 1, 4, 512], "workspace", |out, stream| split.run(out, Some(&small), stream))
            },
            Error "Attention, misaligned" |lab| {
                let split = Split::new(lab).map_err(text)?;
                let odd = lab.zeros::<u8>(&[1 << 19]).slice(0, 8..1 << 19).map_err(text)?;
                lab.refuses::<bf16>(&[1, 1, 4, 512], "workspace", |out, stream| split.run(out, Some(&odd), stream))
            },
            Works "Attention, on two streams" |lab| two_streams(lab),
        ]),
        row!(57, "calls that cannot be captured", [
            Error "Stream::status" |lab| {
                let mut captured = Ok(());
                let one = lab.tensor(&[1, 8], &[bf16::ONE; 8]);
                let out = lab.halves(&[1, 8]);
                let graph = lab.stream.capture(|stream| {
                    captured = stream.status().map(drop);
                    Add::new(&one, &one, &out).launch(stream)
                });
                is(matches!(captured, Err(Error::Capture(_))), "reading the status is refused")?;
                graph.and_then(|graph| graph.launch(&lab.stream)).map_err(text)?;
                exact("the capture went on", &out.to_vec().map_err(text)?, &[bf16::from_f32(2.0); 8])
            },
            Error "Stream::capture" |lab| {
                let nested = lab.stream.capture(|stream| stream.capture(|_| Ok(())).map(drop));
                is(matches!(nested, Err(Error::Capture(_))), "a capture in a capture is refused")
            },
        ]),
        row!(58, "a replay after the buffers' owners are gone", [
            Works "Graph::launch" |lab| replay_after_drop(lab),
        ]),
        row!(59, "a stream of another device", [
            Error "Add" |lab| {
                let (stream, one, out) = (elsewhere(lab)?.stream(), lab.halves(&[1, 8]), lab.halves(&[1, 8]));
                kept(lab, "a", &out, |_| Add::new(&one, &one, &out).launch(&stream))
            },
            Error "Graph::launch" |lab| {
                let (graph, other) = (lab.stream.capture(|_| Ok(())).map_err(text)?, elsewhere(lab)?.stream());
                lab.refused("stream", graph.launch(&other))
            },
        ], CannotCompile("src/compile_fail.rs, E0382: a stream that is gone")),
        row!(
            60,
            "no driver, no device, no kernels for the card",
            [],
            Elsewhere(
                "tests/device: without_a_driver_there_is_one_clear_error, \
                       missing_functions_and_devices_are_clear_errors; tests/faults: an_image_for_another_card_is_named"
            )
        ),
        row!(
            61,
            "a context that is lost",
            [],
            Elsewhere(
                "tests/device: a_dead_context_is_named_and_left_alone; tests/faults: a_context_may_die_in_any_call"
            )
        ),
        row!(62, "no memory left", [
            Error "Device::empty" |lab| {
                let wanted = 1u64 << 50;
                let refused = lab.device.empty::<u8>(&[wanted as usize]).map(drop);
                is(refused == Err(Error::OutOfMemory { requested: wanted }), "it says how much was wanted")?;
                lab.still_alive()
            },
        ], Elsewhere("tests/faults: memory_may_end_at_every_allocation, retrying_after_a_free_is_fine")),
        row!(63, "one handle in several threads", [
            Works "Add" |lab| many_threads(lab),
        ]),
        row!(64, "a panic between launch and wait", [
            Works "Add" |lab| panic_after_launch(lab),
        ], Elsewhere("tests/faults: a_panic_between_launch_and_wait_frees_behind_the_kernel")),
    ]
}
