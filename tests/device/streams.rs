//! Streams, graphs, status words and records, through operations on the device of `NARROWGAUGE_DEVICE`.

use narrowgauge::norm::Add;
use narrowgauge::verify;
use narrowgauge::vocab::Embedding;
use narrowgauge::{Device, Error, Tensor, bf16};

fn rows(device: &Device, value: f32) -> Tensor<bf16> {
    device.full(&[2, 8], bf16::from_f32(value)).unwrap()
}

fn first(tensor: &Tensor<bf16>) -> f32 {
    tensor.to_vec().unwrap()[0].to_f32()
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_graph_replays_on_the_values_of_the_moment() {
    let device = verify::device().unwrap();
    let stream = device.stream();
    let (a, b, sum, twice) = (rows(&device, 1.0), rows(&device, 2.0), rows(&device, 0.0), rows(&device, 0.0));
    let graph = stream
        .capture(|stream| {
            Add::new(&a, &b, &sum).launch(stream)?;
            Add::new(&sum, &sum, &twice).launch(stream)
        })
        .unwrap();
    assert_eq!(graph.kernels().collect::<Vec<_>>(), ["add_bf16"; 2]);
    assert_eq!(first(&twice), 0.0, "capturing must not run anything");
    device.clear_records();
    graph.launch(&stream).unwrap();
    assert_eq!(first(&twice), 6.0);
    a.write(&[bf16::from_f32(4.0); 16]).unwrap();
    graph.launch(&device.new_stream().unwrap()).unwrap();
    assert_eq!(first(&twice), 12.0);
    let records = device.records().unwrap();
    assert_eq!(
        records.iter().map(|r| (r.kernel.as_str(), r.launches)).collect::<Vec<_>>(),
        [("add_bf16", 4)]
    );
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_graph_owns_what_it_names() {
    let device = verify::device().unwrap();
    let sum = rows(&device, 0.0);
    let graph = {
        let (a, b) = (rows(&device, 1.0), rows(&device, 2.0));
        device.stream().capture(|stream| Add::new(&a, &b, &sum).launch(stream)).unwrap()
    };
    let _other = rows(&device, 9.0);
    graph.launch(&device.stream()).unwrap();
    assert_eq!(first(&sum), 3.0);
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn the_status_word_tells_once_and_through_graphs() {
    let device = verify::device().unwrap();
    let stream = device.stream();
    let (table, out) = (rows(&device, 1.0), rows(&device, 0.0));
    let ids = device.tensor(&[2], &[0, 7]).unwrap();
    let embed = |stream: &narrowgauge::Stream| Embedding::new(&table, &ids, &out).launch(stream);
    assert!(stream.status().unwrap().is_clear());
    embed(&stream).unwrap();
    assert!(stream.status().unwrap().bad_token());
    assert!(stream.status().unwrap().is_clear());
    let graph = stream.capture(embed).unwrap();
    assert!(stream.status().unwrap().is_clear());
    graph.launch(&stream).unwrap();
    assert!(stream.status().unwrap().bad_token());
    assert!(stream.status().unwrap().is_clear());
}

#[test]
fn a_failed_capture_leaves_the_stream_usable() {
    let device = verify::device().unwrap();
    let stream = device.stream();
    let wanted = Error::Fault("of the body".into());
    assert_eq!(stream.capture(|_| Err(wanted.clone())).unwrap_err(), wanted);
    let nested = stream.capture(|stream| stream.capture(|_| Ok(())).map(drop)).unwrap_err();
    assert!(matches!(nested, Error::Capture(_)), "{nested}");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = stream.capture(|_| panic!("in the body"));
    }));
    assert!(panicked.is_err());
    let status = stream.capture(|stream| stream.status().map(drop)).unwrap_err();
    assert!(matches!(status, Error::Capture(_)), "{status}");
    let empty = stream.capture(|_| Ok(())).unwrap();
    empty.launch(&stream).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(empty.kernels().len(), 0);
}

#[test]
fn a_graph_belongs_to_its_device() {
    let (device, other) = (verify::device().unwrap(), verify::device().unwrap());
    let graph = device.stream().capture(|_| Ok(())).unwrap();
    let error = graph.launch(&other.stream()).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "stream", .. }), "{error}");
}

#[cfg(feature = "sim")]
#[test]
fn nothing_on_the_simulated_card_is_called_a_time() {
    let device = Device::simulated(narrowgauge::Card::H20).unwrap();
    assert!(device.is_simulated() && device.name().starts_with("simulated"));
    assert!(matches!(device.stream().record_event().unwrap_err(), Error::Unsupported { .. }));
    assert!(matches!(device.set_timing(true).unwrap_err(), Error::Unsupported { .. }));
}
