//! What the children run: the checks of the families' own tests, under every completion policy.

use narrowgauge::gemm::Tile;
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::routing::{GatherRows, Permutation, Permute};
use narrowgauge::verify::gemm::{Form, Fp8Check, Rows, Values};
use narrowgauge::verify::mla::AttentionInputs;
use narrowgauge::verify::{self, Source};
use narrowgauge::{Card, Device, E4m3, Fp8Rows, ScaleLayout, bf16};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Fp8,
    Attention,
    Gather,
    /// A product of rows that a list names.
    Listed,
}

impl Check {
    pub const ALL: [Check; 4] = [Check::Fp8, Check::Attention, Check::Gather, Check::Listed];

    /// The kernels whose sources its mutants change.
    pub fn entries(self) -> &'static [&'static str] {
        match self {
            Check::Fp8 | Check::Listed => &["gemm_fp8_64x128"],
            Check::Attention => &["mla_attention_bf16"],
            Check::Gather => &["gather_rows_e4m3"],
        }
    }

    pub fn run(self) -> Result<(), String> {
        let device = Device::simulated(Card::H20).map_err(|error| error.to_string())?;
        for (policy, schedule) in verify::schedules() {
            device.set_schedule(schedule).map_err(|error| error.to_string())?;
            let result = match self {
                Check::Fp8 => fp8(&device, Form::PLAIN),
                Check::Listed => fp8(&device, Form { gathers: 1, ..Form::PLAIN }),
                Check::Attention => attention(&device),
                Check::Gather => gather(&device),
            };
            result.map_err(|error| format!("{policy}: {error}"))?;
        }
        Ok(())
    }
}

/// More K blocks than the ring has stages, so that stages are used again.
fn fp8(device: &Device, form: Form) -> Result<(), String> {
    let tile =
        Tile::of(Input::Fp8, Mode::Dense).into_iter().find(|tile| (tile.rows(), tile.columns()) == (64, 128));
    let check = Fp8Check {
        rows: Rows::Dense(66),
        n: 136,
        k: 1072,
        layout: ScaleLayout::RowMajor,
        tile: Some(tile.ok_or("no tile of 64x128")?),
        values: Values::Integers,
        form,
        seed: 3,
    };
    check.check::<bf16>(device).map(drop)
}

/// Three pages, the last one partly filled, several query tokens.
fn attention(device: &Device) -> Result<(), String> {
    AttentionInputs::normal(&mut Source::new(3), &[150, 64], 3, 12).check(device, None).map(drop)
}

fn gather(device: &Device) -> Result<(), String> {
    let (tokens, slots, experts, columns) = (5, 2, 4, 256);
    let ids = [3, 0, 1, 2, 0, 3, 2, 1, 1, 0];
    let mut source = Source::new(3);
    let data: Vec<E4m3> = (0..tokens * columns).map(|_| E4m3::from_f32(source.normal())).collect();
    let run = || {
        let rows = Fp8Rows::new(device.tensor(&[tokens, columns], &data)?, device.full(&[tokens, 2], 1.0)?)?;
        let out = Fp8Rows::empty(device, tokens * slots, columns, ScaleLayout::RowMajor)?;
        let permutation = Permutation::empty(device, tokens, slots, experts)?;
        let stream = device.stream();
        Permute::new(&device.tensor(&[tokens, slots], &ids)?, &permutation).launch(&stream)?;
        GatherRows::new(&rows, &permutation, &out).launch(&stream)?;
        out.data().to_vec()
    };
    let got = run().map_err(|error: narrowgauge::Error| error.to_string())?;
    let mut order: Vec<usize> = (0..tokens * slots).collect();
    order.sort_by_key(|entry| ids[*entry]);
    let want: Vec<E4m3> =
        order.iter().flat_map(|entry| data[entry / slots * columns..][..columns].iter().copied()).collect();
    verify::exact("gathered rows", &got, &want)
}
