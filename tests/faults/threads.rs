//! Several threads and streams on one device.

use narrowgauge::norm::Add;
use narrowgauge::{Device, Graph, Stream, Tensor, bf16};

pub const THREADS: usize = 4;
pub const LAUNCHES: usize = 20;

/// Each thread, on its own stream, adds its own tensor to itself into `shared`, again and again.
pub fn crowd(device: &Device, shared: &Tensor<bf16>) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let stream = device.new_stream().unwrap();
                let own = device.full(&[2, 8], bf16::from_f32(thread as f32)).unwrap();
                for _ in 0..LAUNCHES {
                    Add::new(&own, &own, shared).launch(&stream).unwrap();
                }
                stream.synchronize().unwrap();
            });
        }
    });
}

fn is_shareable<T: Send + Sync>() {}

#[test]
fn handles_go_between_threads() {
    is_shareable::<Device>();
    is_shareable::<Stream>();
    is_shareable::<Tensor<bf16>>();
    is_shareable::<Graph>();
    is_shareable::<narrowgauge::Error>();
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn many_threads_write_one_tensor_whole() {
    let device = narrowgauge::verify::device().unwrap();
    let shared = device.zeros(&[2, 8]).unwrap();
    crowd(&device, &shared);
    let values = shared.to_vec().unwrap();
    assert!(values.iter().all(|value| *value == values[0]), "halves of two launches: {values:?}");
    assert!((0..THREADS).any(|thread| values[0].to_f32() == 2.0 * thread as f32), "{values:?}");
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn threads_do_not_disturb_each_other() {
    let device = narrowgauge::verify::device().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let device = &device;
            scope.spawn(move || {
                let stream = device.new_stream().unwrap();
                let one = device.full(&[2, 8], bf16::ONE).unwrap();
                let sums: [Tensor<bf16>; 2] = [(); 2].map(|()| device.zeros(&[2, 8]).unwrap());
                for step in 0..LAUNCHES + thread {
                    Add::new(&sums[step % 2], &one, &sums[(step + 1) % 2]).launch(&stream).unwrap();
                }
                let want = (LAUNCHES + thread) as f32;
                let got = sums[(LAUNCHES + thread) % 2].to_vec().unwrap();
                assert_eq!(got, [bf16::from_f32(want); 16]);
            });
        }
    });
}

/// A capture on one thread's stream takes in nothing that another thread does.
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_capture_is_of_its_stream_alone() {
    let device = narrowgauge::verify::device().unwrap();
    let (a, b, c) = (
        device.full(&[2, 8], bf16::ONE).unwrap(),
        device.zeros(&[2, 8]).unwrap(),
        device.zeros(&[2, 8]).unwrap(),
    );
    let graph = device
        .stream()
        .capture(|stream| {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| Add::new(&a, &a, &c).launch(&device.new_stream()?));
                other.join().expect("does not panic")
            })?;
            Add::new(&a, &a, &b).launch(stream)
        })
        .unwrap();
    assert_eq!(graph.kernels().len(), 1);
    assert_eq!(c.to_vec().unwrap(), [bf16::from_f32(2.0); 16], "ran at once");
    assert_eq!(b.to_vec().unwrap(), [bf16::ZERO; 16], "was only captured");
    graph.launch(&device.stream()).unwrap();
    assert_eq!(b.to_vec().unwrap(), [bf16::from_f32(2.0); 16]);
}
