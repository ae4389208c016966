//! Relations between products, over drawn shapes and schedules.

use super::common::device_under;
use super::{FP8, HALF, config, fp8, fp8_tile, half_tile, layouts};
use narrowgauge::gemm::plan::Mode;
use narrowgauge::verify::gemm::properties::Property;
use narrowgauge::verify::gemm::{Form, Fp8Check, HalfCheck, Rows, Values};
use narrowgauge::{ScaleLayout, bf16, f16};
use proptest::prelude::*;

/// Every relation but the one between a product and its parts, which needs groups or batches.
fn properties() -> impl Strategy<Value = Property> {
    prop::sample::select(&Property::ALL[..Property::ALL.len() - 1])
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn fp8_products_are_related(
        property in properties(),
        (m, n, k) in (2..80usize, 129..330usize, 129..520usize),
        (layout, tile, wide, seed) in (layouts(), fp8_tile(Mode::Dense), any::<bool>(), any::<u64>()),
    ) {
        let check = Fp8Check { rows: Rows::Dense(m), n, k, layout, tile, values: Values::Normal, form: Form::PLAIN, seed };
        let device = device_under(seed);
        let held = if wide { check.holds::<f32>(&device, property) } else { check.holds::<bf16>(&device, property) };
        held.map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn half_products_are_related(
        property in properties(),
        (m, n, k) in (2..80usize, 2..200usize, 17..300usize),
        (tile, wide, seed) in (half_tile(), any::<bool>(), any::<u64>()),
    ) {
        let check = HalfCheck { rows: Rows::Dense(m), n, k, tile, values: Values::Normal, seed, ..HALF };
        let device = device_under(seed);
        let held = if wide { check.holds::<f32>(&device, property) } else { check.holds::<bf16>(&device, property) };
        held.map_err(TestCaseError::fail)?;
    }

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn groups_and_batches_are_loops(
        sizes in prop::collection::vec(prop_oneof![Just(0), 1..9usize, 60..70usize], 1..8),
        (n, k) in (1..140usize, 1..300usize),
        (batch, across) in (1..5usize, any::<bool>()),
        (layout, tile, half_tile, seed) in (layouts(), fp8_tile(Mode::Contiguous), half_tile(), any::<u64>()),
    ) {
        let device = device_under(seed);
        let sizes = [&sizes[..], &[1]].concat();
        Fp8Check { rows: Rows::Groups(&sizes), n, k, layout, tile, values: Values::Normal, form: Form::PLAIN, seed }
            .holds::<bf16>(&device, Property::Parts)
            .map_err(TestCaseError::fail)?;
        for rows in [Rows::Batched(batch, sizes[0] + 1), Rows::Groups(&sizes)] {
            let transposed = [false, across];
            HalfCheck { rows, n, k, transposed, tile: half_tile, values: Values::Normal, form: Form::PLAIN, seed }
                .holds::<f32>(&device, Property::Parts)
                .map_err(TestCaseError::fail)?;
        }
    }
}

/// Relations that hold in every mode and with any epilogue.
const GENERAL: [Property; 8] = [
    Property::RowOrder,
    Property::ColumnOrder,
    Property::PowersOfTwo,
    Property::Negation,
    Property::ZeroBlocks,
    Property::BlockOrder,
    Property::Tiles,
    Property::Parts,
];

proptest! {
    #![proptest_config(config(24))]

    #[test]
    #[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
    fn products_of_every_form_and_mode_are_related(
        (property, form, types, output) in (0..GENERAL.len(), 0..24usize, 0..8usize, 0..3usize),
        (mode, n, k) in (0..4usize, 129..330usize, 129..400usize),
        (layout, seed) in (layouts(), any::<u64>()),
    ) {
        let rows = [Rows::Dense(37), Rows::Groups(&[3, 0, 34]), Rows::Masked(&[2, 0, 33, 9], 33), Rows::Batched(3, 9)][mode];
        let property = match (GENERAL[property], rows) {
            (Property::Parts, Rows::Dense(_)) => Property::Tiles,
            (property, _) => property,
        };
        // Half of the time e4m3 by e4m3.
        let e5m2 = [types & 5 == 5, types & 6 == 6];
        let form = Form { e5m2, ..Form::covering()[form] };
        let check = Fp8Check { layout, values: Values::Normal, form, seed, ..fp8(rows, n, k) };
        let device = device_under(seed);
        let held = match output {
            0 => check.holds::<f32>(&device, property),
            1 => check.holds::<bf16>(&device, property),
            _ => {
                // What f16 holds.
                let form = Form { alpha: 2f32.powi(-9), ..form };
                Fp8Check { form, values: Values::Integers, ..check }.holds::<f16>(&device, property)
            }
        };
        held.map_err(TestCaseError::fail)?;
    }
}

/// With every epilogue, granularity and pair of types.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_rows_bits_do_not_depend_on_the_other_rows_in_any_form() {
    let device = super::device();
    for (index, form) in Form::covering().into_iter().enumerate().step_by(5) {
        let form = Form { e5m2: [index % 4 == 1, index % 4 == 2], ..form };
        let check = Fp8Check { values: Values::Normal, form, ..fp8(Rows::Dense(1), 136, 272) };
        check.holds_alone::<f32>(&device, &[2, 17, 129]).unwrap();
    }
}

/// First, in the middle and last of every number of rows that trust is asked for.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_rows_bits_do_not_depend_on_the_other_rows() {
    let device = super::device();
    let counts = [2, 17, 33, 128, 257];
    let layout = ScaleLayout::MnMajor;
    let check = Fp8Check { n: 136, k: 400, layout, values: Values::Normal, ..FP8 };
    check.holds_alone::<f32>(&device, &counts).unwrap();
    HalfCheck { n: 136, k: 200, values: Values::Normal, ..HALF }
        .holds_alone::<f32>(&device, &counts)
        .unwrap();
    let many = [1024, 4096];
    Fp8Check { n: 16, k: 144, ..check }.holds_alone::<bf16>(&device, &many).unwrap();
    HalfCheck { n: 16, k: 40, values: Values::Normal, ..HALF }.holds_alone::<bf16>(&device, &many).unwrap();
}
