//! Tensors: values, views, and what is refused.

use narrowgauge::verify::{self, Source};
use narrowgauge::{DType, Device, E4m3, E5m2, Element, Error, Tensor, Ue8m0, bf16, f16};

fn device() -> Device {
    verify::device().unwrap()
}

fn numbered(device: &Device, shape: &[usize]) -> Tensor<i32> {
    let len: usize = shape.iter().product();
    device.tensor(shape, &(0..len as i32).collect::<Vec<_>>()).unwrap()
}

fn argument<T: std::fmt::Debug>(result: narrowgauge::Result<T>, operation: &str, argument: &str) {
    match result.unwrap_err() {
        Error::Argument { operation: found, argument: name, .. } => {
            assert_eq!((found, name), (operation, argument));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn values_come_back_in_every_type() {
    fn check<T: Element + PartialEq>(device: &Device, dtype: DType, values: &[T]) {
        let tensor = device.tensor(&[values.len()], values).unwrap();
        assert_eq!(tensor.to_vec().unwrap(), values);
        assert_eq!(tensor.dtype(), dtype);
        assert_eq!(device.zeros::<T>(&[3]).unwrap().to_vec().unwrap(), vec![T::default(); 3]);
        assert_eq!(device.full(&[3], values[0]).unwrap().to_vec().unwrap(), vec![values[0]; 3]);
    }
    let device = device();
    check(&device, DType::F32, &[1.5f32, -0.0, f32::MAX]);
    check(&device, DType::Bf16, &[bf16::from_f32(1.5), bf16::MAX]);
    check(&device, DType::E4m3, &[E4m3::MAX, E4m3::NAN, E4m3::from_f32(-0.3)]);
    check(&device, DType::F16, &[f16::from_f32(1.5), f16::MIN]);
    check(&device, DType::E5m2, &[E5m2::MAX, E5m2::NAN, E5m2::INFINITY]);
    check(&device, DType::Ue8m0, &[Ue8m0::MAX, Ue8m0::NAN, Ue8m0::MIN]);
    check(&device, DType::I32, &[i32::MIN, 7]);
    check(&device, DType::U32, &[u32::MAX, 7]);
    check(&device, DType::I64, &[i64::MIN, 7]);
    check(&device, DType::U64, &[u64::MAX, 7]);
    check(&device, DType::U8, &[255u8, 0]);
}

#[test]
fn views_see_what_their_strides_say() {
    let device = device();
    let whole = numbered(&device, &[2, 3, 4]);
    assert_eq!((whole.strides(), whole.len(), whole.rank()), ([12, 4, 1].as_slice(), 24, 3));
    assert_eq!(
        whole.slice(2, 1..3).unwrap().select(0, 1).unwrap().to_vec().unwrap(),
        [13, 14, 17, 18, 21, 22]
    );
    let turned = whole.transpose(0, 2).unwrap();
    assert_eq!(turned.shape(), [4, 3, 2]);
    assert_eq!(turned.select(1, 0).unwrap().to_vec().unwrap(), [0, 12, 1, 13, 2, 14, 3, 15]);
    let row = whole.select(0, 1).unwrap().select(0, 2).unwrap();
    assert_eq!((row.to_vec().unwrap(), row.is_contiguous()), (vec![20, 21, 22, 23], true));
    let spread = row.reshape(&[1, 4]).unwrap().expand(0, 3).unwrap();
    assert_eq!(spread.to_vec().unwrap(), [20, 21, 22, 23].repeat(3));
    let diagonal = whole.as_strided(1, &[2], &[13]).unwrap();
    assert_eq!(diagonal.to_vec().unwrap(), [1, 14]);
    assert_eq!(whole.reshape(&[6, 4]).unwrap().slice(0, 5..6).unwrap().to_vec().unwrap(), [20, 21, 22, 23]);
    assert_eq!(whole.reshape(&[2, 2, 2, 3]).unwrap().transpose(1, 3).unwrap().dim(1), 3);
}

#[test]
fn a_view_of_rank_four_is_gathered_in_order() {
    let device = device();
    let (shape, mut source) = ([2, 3, 4, 5], Source::new(4));
    let whole = numbered(&device, &shape);
    for _ in 0..50 {
        let order = source.permutation(4);
        let mut view = whole.clone();
        let mut dims = [0, 1, 2, 3];
        for (to, wanted) in order.iter().enumerate() {
            let from = dims.iter().position(|dim| dim == wanted).unwrap();
            view = view.transpose(from, to).unwrap();
            dims.swap(from, to);
        }
        let mut want = Vec::new();
        let extent = |dim: usize| shape[order[dim]];
        for index in 0..whole.len() {
            let (mut rest, mut position) = (index, [0; 4]);
            for dim in (0..4).rev() {
                position[order[dim]] = rest % extent(dim);
                rest /= extent(dim);
            }
            want.push((((position[0] * 3 + position[1]) * 4 + position[2]) * 5 + position[3]) as i32);
        }
        assert_eq!(view.to_vec().unwrap(), want, "{order:?}");
    }
}

#[test]
fn writes_go_through_views_and_keep_neighbours() {
    let device = device();
    let whole = numbered(&device, &[3, 2]);
    whole.slice(0, 1..2).unwrap().write(&[-1, -2]).unwrap();
    assert_eq!(whole.to_vec().unwrap(), [0, 1, -1, -2, 4, 5]);
    argument(whole.slice(1, 0..1).unwrap().write(&[0; 3]), "Tensor::write", "self");
    argument(whole.write(&[0; 5]), "Tensor::write", "values");
    assert_eq!(whole.to_vec().unwrap(), [0, 1, -1, -2, 4, 5]);
}

#[test]
fn empty_tensors_are_fine_everywhere() {
    let device = device();
    let empty = device.tensor::<f32>(&[0, 4], &[]).unwrap();
    assert!(empty.is_empty() && empty.is_contiguous() && empty.address() != 0);
    assert_eq!(empty.to_vec().unwrap(), []);
    empty.write(&[]).unwrap();
    assert_eq!(empty.transpose(0, 1).unwrap().reshape(&[4, 0]).unwrap().shape(), [4, 0]);
    let some = numbered(&device, &[2, 2]);
    let end = some.slice(0, 2..2).unwrap();
    assert_eq!((end.to_vec().unwrap(), end.address()), (vec![], some.address()));
    assert!(!end.overlaps(&some));
    assert_eq!(device.zeros::<f32>(&[0]).unwrap().len(), 0);
}

#[test]
fn what_is_out_of_range_is_refused() {
    let device = device();
    let tensor = numbered(&device, &[2, 3]);
    argument(tensor.slice(0, 1..3), "Tensor::slice", "range");
    #[expect(clippy::reversed_empty_ranges, reason = "that is the test")]
    let backwards = 2..1;
    argument(tensor.slice(0, backwards), "Tensor::slice", "range");
    argument(tensor.slice(2, 0..1), "Tensor::slice", "dim");
    argument(tensor.select(1, 3), "Tensor::select", "index");
    argument(tensor.select(0, 0).unwrap().select(0, 0), "Tensor::select", "self");
    argument(tensor.reshape(&[4]), "Tensor::reshape", "shape");
    argument(tensor.reshape(&[]), "Tensor::reshape", "shape");
    argument(tensor.transpose(0, 1).unwrap().reshape(&[6]), "Tensor::reshape", "self");
    argument(tensor.transpose(0, 2), "Tensor::transpose", "dim");
    argument(tensor.expand(1, 2), "Tensor::expand", "dim");
    argument(tensor.as_strided(0, &[2, 4], &[3, 1]), "Tensor::as_strided", "shape");
    argument(tensor.as_strided(usize::MAX, &[1], &[1]), "Tensor::as_strided", "shape");
    argument(tensor.as_strided(0, &[2], &[usize::MAX]), "Tensor::as_strided", "shape");
    argument(tensor.as_strided(0, &[2], &[]), "Tensor::as_strided", "strides");
    argument(device.tensor(&[2, 2], &[1, 2, 3]), "Device::tensor", "values");
    argument(device.empty::<u8>(&[]), "Device::empty", "shape");
    argument(device.empty::<u8>(&[1; 5]), "Device::empty", "shape");
    argument(device.empty::<u64>(&[usize::MAX, usize::MAX, 0]), "Device::empty", "shape");
    argument(device.empty::<u64>(&[1 << 60, 2]), "Device::empty", "shape");
}

#[test]
fn more_than_the_card_holds_is_an_error_and_not_the_end() {
    let device = device();
    let wanted = 1u64 << 50;
    assert_eq!(device.empty::<u8>(&[wanted as usize]).unwrap_err(), Error::OutOfMemory { requested: wanted });
    assert_eq!(numbered(&device, &[2]).to_vec().unwrap(), [0, 1]);
}

#[test]
fn overlap_is_exact_for_interleaved_columns() {
    let device = device();
    let wide = numbered(&device, &[4, 10]);
    let columns = |range| wide.slice(1, range).unwrap();
    assert!(!columns(0..5).overlaps(&columns(5..10)));
    assert!(columns(0..6).overlaps(&columns(5..10)));
    assert!(!columns(0..5).slice(0, 0..2).unwrap().overlaps(&columns(0..5).slice(0, 2..4).unwrap()));
    assert!(wide.overlaps(&wide.transpose(0, 1).unwrap()));
    assert!(!wide.overlaps(&numbered(&device, &[4, 10])));
    // Heads of [4, 2, 5]: the first three columns of each head against the last two.
    let heads = wide.reshape(&[4, 2, 5]).unwrap();
    assert!(!heads.slice(2, 0..3).unwrap().overlaps(&heads.slice(2, 3..5).unwrap()));
    assert!(heads.slice(2, 0..4).unwrap().overlaps(&heads.slice(2, 3..5).unwrap()));
    // Rows of different strides: may touch, so they count as overlapping.
    let odd = wide.as_strided(5, &[3, 2], &[9, 1]).unwrap();
    assert!(odd.overlaps(&columns(0..5)));
    assert!(wide.same_as(&wide.clone()) && !wide.same_as(&wide.transpose(0, 1).unwrap()));
}

/// Against the sets of elements: "no" must always be true.
#[test]
fn no_overlap_is_never_claimed_wrongly() {
    let device = device();
    let whole = numbered(&device, &[400]);
    let mut source = Source::new(11);
    let mut apart = 0;
    for _ in 0..3000 {
        let mut view = || {
            let shape: Vec<_> = (0..1 + source.below(3)).map(|_| 1 + source.below(4)).collect();
            let strides: Vec<_> = shape.iter().map(|_| [1, 2, 3, 5, 10, 20, 40][source.below(7)]).collect();
            whole.as_strided(source.below(40), &shape, &strides).unwrap()
        };
        let (a, b) = (view(), view());
        let (mine, theirs) = (a.to_vec().unwrap(), b.to_vec().unwrap());
        if !a.overlaps(&b) {
            apart += 1;
            assert!(
                mine.iter().all(|element| !theirs.contains(element)),
                "{a:?} at {mine:?}, {b:?} at {theirs:?}"
            );
        }
        assert_eq!(a.overlaps(&b), b.overlaps(&a));
    }
    assert!(apart > 300, "{apart}");
}

#[test]
fn views_keep_the_memory() {
    let device = device();
    let view = numbered(&device, &[2, 2]).select(0, 1).unwrap();
    let other = numbered(&device, &[2, 2]);
    assert_eq!(view.to_vec().unwrap(), [2, 3]);
    assert!(!view.overlaps(&other));
}

#[test]
fn devices_opened_apart_differ() {
    let (a, b) = (device(), device());
    assert_eq!(a, a.clone());
    assert_ne!(a, b);
    assert!(!numbered(&a, &[2]).same_as(&numbered(&b, &[2])));
    argument(verify::open("sim:h100"), "verify::open", "name");
    argument(verify::open("h20"), "verify::open", "name");
    argument(verify::open("cuda:x"), "verify::open", "name");
}
