//! Rows of A that a list on the device names.

use super::{FP8, device, fp8, tiles, under_every_schedule};
use narrowgauge::gemm::plan::{Mode, Output};
use narrowgauge::gemm::{Fp8Gemm, GroupedFp8GemmSwiglu, MaskedFp8Gemm, Tile};
use narrowgauge::verify::gemm::{Form, Fp8Check, Fp8Inputs, Rows, Values};
use narrowgauge::{Device, E4m3, Error, Fp8Blocks, Fp8Rows, ScaleLayout, bf16, verify};

const LISTED: Form = Form { gathers: 1, ..Form::PLAIN };

/// More K blocks than stages, so that a stage is filled anew while its copies may fly; more tiles than one, with parts of
/// 64 rows that nobody needs.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn every_tile_gathers_under_every_schedule() {
    under_every_schedule(|device| {
        let mut ran = 0;
        for tile in tiles(Mode::Contiguous) {
            let check = Fp8Check { tile, form: LISTED, ..fp8(Rows::Groups(&[1, 0, 66, 5]), 136, 1680) };
            if check.is_possible(Output::Bf16) {
                check.check::<bf16>(device)?;
                ran += 1;
            }
        }
        if ran < 15 { Err(format!("{ran} tiles")) } else { Ok(()) }
    })
    .unwrap();
}

/// The operands of a small product whose list the test writes.
struct Operands {
    a: Fp8Rows,
    b: Fp8Blocks,
    inputs: Fp8Inputs,
}

const M: usize = 70;
const K: usize = 400;
const N: usize = 72;

fn operands(device: &Device) -> Result<Operands, Error> {
    let inputs = Fp8Check { values: Values::Normal, ..fp8(Rows::Dense(M), N, K) }.inputs();
    let [a, b] = inputs.e4m3();
    let scales = |rows: usize, scales: &[f32]| device.tensor(&[rows, 4], scales);
    Ok(Operands {
        a: Fp8Rows::new(device.tensor(&[M, K], &a)?, scales(M, &inputs.a_scales)?)?,
        b: Fp8Blocks::new(device.tensor(&[N, K], &b)?, scales(1, &inputs.b_scales)?)?,
        inputs,
    })
}

/// The rows of the whole product that a list names, zeros where it names none.
fn listed(whole: &[bf16], list: &[i32]) -> Vec<bf16> {
    let row = |index: &i32| match usize::try_from(*index) {
        Ok(index) if index < M => whole[index * N..][..N].to_vec(),
        _ => vec![bf16::ZERO; N],
    };
    list.iter().flat_map(row).collect()
}

/// Lists of every kind are followed or reported, at each launch as they are then, in a graph too.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_list_is_followed_or_reported() {
    let lists: [(Vec<i32>, bool); 6] = [
        ((0..67).rev().collect(), false),
        (vec![69; 67], false),
        (vec![-1; 67], false),
        ((0..67).map(|i| if i % 9 == 4 { 70 } else { i }).collect(), true),
        ((0..67).map(|i| [i, i32::MAX, i32::MIN, -2, 0x4000_0000][i as usize % 5]).collect(), true),
        ((0..67).map(|i| i * 7 % 70).collect(), false),
    ];
    under_every_schedule(|device| {
        let text = |error: Error| error.to_string();
        let Operands { a, b, inputs } = operands(device).map_err(text)?;
        let whole =
            Fp8Check { values: Values::Normal, ..fp8(Rows::Dense(M), N, K) }.run::<bf16>(device, &inputs)?;
        for tile in tiles(Mode::Dense).flatten().step_by(4) {
            let list = device.zeros::<i32>(&[67]).map_err(text)?;
            let out = device.full(&[67, N], bf16::NAN).map_err(text)?;
            let stream = device.new_stream().map_err(text)?;
            let product = Fp8Gemm::new(&a, &b, &out).gather(&list).batch_invariant().tile(tile);
            let prepared = product.prepare(device).map_err(text)?;
            let graph = stream.capture(|stream| prepared.launch(stream)).map_err(text)?;
            for (turn, (given, reported)) in lists.iter().enumerate() {
                list.write(given).map_err(text)?;
                out.write(&vec![bf16::NAN; 67 * N]).map_err(text)?;
                match turn % 2 {
                    0 => prepared.launch(&stream).map_err(text)?,
                    _ => graph.launch(&stream).map_err(text)?,
                }
                let name = format!("{tile}, {given:?}");
                verify::exact(&name, &out.to_vec().map_err(text)?, &listed(&whole, given))?;
                if stream.status().map_err(text)?.bad_row() != *reported {
                    return Err(format!("{name}: reported or not"));
                }
            }
        }
        Ok(())
    })
    .unwrap();
}

/// The first product of experts as a whole: rows by a list, SwiGLU, quantisation. Two scales of B in a k-block.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn gathered_rows_go_through_swiglu() {
    const GROUPS: usize = 3;
    let offsets = [0, 70, 70, 75];
    let list: Vec<i32> = (0..75).map(|i| [i * 11 % 70, -1][usize::from(i == 33)]).collect();
    under_every_schedule(|device| {
        let run = || {
            let Operands { a, inputs, .. } = operands(device)?;
            let weights =
                Fp8Check { values: Values::Normal, ..fp8(Rows::Batched(GROUPS, 1), 256, K) }.inputs();
            let b = Fp8Blocks::new(
                device.tensor(&[GROUPS, 256, K], &weights.e4m3()[1])?,
                device.tensor(&[GROUPS, 2, 4], &weights.b_scales)?,
            )?;
            let offsets = device.tensor(&[GROUPS + 1], &offsets)?;
            let on_device = device.tensor(&[75], &list)?;
            let bits = |rows: &Fp8Rows| {
                let codes: Vec<u8> = rows.data().to_vec()?.iter().map(|code| code.to_bits()).collect();
                Ok::<_, Error>((codes, rows.scales().to_vec()?))
            };
            let mut gathered = Vec::new();
            for tile in Tile::of_swiglu(Mode::Contiguous) {
                let out = Fp8Rows::empty(device, 75, 128, ScaleLayout::RowMajor)?;
                let product = GroupedFp8GemmSwiglu::new(&a, &b, &offsets, &out).gather(&on_device);
                product.batch_invariant().tile(tile).launch(&device.stream())?;
                gathered.push((tile, bits(&out)?));
            }
            let (mut data, mut scales) = (Vec::new(), Vec::new());
            for index in &list {
                match usize::try_from(*index) {
                    Ok(row) => {
                        data.extend_from_slice(&inputs.e4m3()[0][row * K..][..K]);
                        scales.extend_from_slice(&inputs.a_scales[row * 4..][..4]);
                    }
                    Err(_) => {
                        data.extend_from_slice(&[E4m3::from_f32(0.0); K]);
                        scales.extend_from_slice(&[0.0; 4]);
                    }
                }
            }
            let copy = Fp8Rows::new(device.tensor(&[75, K], &data)?, device.tensor(&[75, 4], &scales)?)?;
            let out = Fp8Rows::empty(device, 75, 128, ScaleLayout::RowMajor)?;
            let product = GroupedFp8GemmSwiglu::new(&copy, &b, &offsets, &out);
            product.batch_invariant().launch(&device.stream())?;
            Ok((gathered, bits(&out)?))
        };
        let (gathered, (codes, scales)) = run().map_err(|error: Error| error.to_string())?;
        for (tile, (got, got_scales)) in gathered {
            verify::exact(&format!("{tile}, codes"), &got, &codes)?;
            verify::exact(&format!("{tile}, scales"), &got_scales, &scales)?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn no_rows_and_no_lists() {
    let device = device();
    let stream = device.stream();
    let Operands { a, b, .. } = operands(&device).unwrap();
    // A list of nothing.
    let out = device.empty::<bf16>(&[0, N]).unwrap();
    Fp8Gemm::new(&a, &b, &out).gather(&device.zeros(&[0]).unwrap()).launch(&stream).unwrap();
    assert!(stream.status().unwrap().is_clear());
    // Rows of nothing: each is reported and zero.
    let none = a.slice_rows(0..0).unwrap();
    let out = device.full(&[3, N], bf16::NAN).unwrap();
    Fp8Gemm::new(&none, &b, &out).gather(&device.zeros(&[3]).unwrap()).launch(&stream).unwrap();
    assert!(stream.status().unwrap().bad_row());
    assert_eq!(out.to_vec().unwrap(), vec![bf16::ZERO; 3 * N]);
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn lists_that_do_not_fit_are_refused() {
    let device = device();
    let stream = device.stream();
    let Operands { a, b, .. } = operands(&device).unwrap();
    let out = device.full(&[5, N], bf16::NAN).unwrap();
    let list = |rows: usize| device.zeros::<i32>(&[rows]).unwrap();
    let refused = |result: Result<(), Error>, want: &str| {
        let told = result.unwrap_err().to_string();
        assert!(told.contains(want), "{told}");
    };
    refused(Fp8Gemm::new(&a, &b, &out).gather(&list(4)).launch(&stream), "out");
    refused(Fp8Gemm::new(&a, &b, &out).gather(&device.zeros(&[5, 1]).unwrap()).launch(&stream), "gather");
    refused(Fp8Gemm::new(&a, &b, &out).gather_entries(&list(5), 0).launch(&stream), "slots");
    let apart = list(10).as_strided(0, &[5], &[2]).unwrap();
    refused(Fp8Gemm::new(&a, &b, &out).gather(&apart).launch(&stream), "gather");
    // Pieces of 16 bytes exist or do not.
    let check = Fp8Check { form: LISTED, ..Fp8Check { n: 8, k: 24, rows: Rows::Dense(2), ..FP8 } };
    assert!(check.run::<bf16>(&device, &check.inputs()).unwrap_err().contains("multiple of 16"));
    // Masked groups take one matrix of rows, and a list for each group.
    let b = Fp8Blocks::join(b.data().reshape(&[1, N, K]).unwrap(), b.scales().reshape(&[1, 1, 4]).unwrap())
        .unwrap();
    let out = device.full(&[1, 5, N], bf16::NAN).unwrap();
    let counts = device.full(&[1], 5).unwrap();
    refused(MaskedFp8Gemm::new(&a, &b, &counts, &out).gather(&list(5)).launch(&stream), "gather");
    let entries = device.zeros::<i32>(&[1, 5]).unwrap();
    MaskedFp8Gemm::new(&a, &b, &counts, &out).gather(&entries).launch(&stream).unwrap();
}
