//! A prepared product over a stand-in for the driver: a launch is one call of it and no allocation.

use crate::harness::{self, between, is_child};
use narrowgauge::gemm::plan::{Input, Mode};
use narrowgauge::gemm::{Fp8Gemm, Tile};
use narrowgauge::{Device, Fp8Blocks, Fp8Rows, bf16};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;

struct Counting;

thread_local! {
    // Of this thread: the harness allocates in its own as it pleases.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system's allocator, which is one; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Two runs of an instruction counter with different numbers tell what a launch takes.
fn launches() -> usize {
    std::env::var("NARROWGAUGE_LAUNCHES").map_or(8, |number| number.parse().unwrap())
}

#[test]
fn a_prepared_launch_is_one_call_and_allocates_nothing() {
    let text = harness::run("prepared::scenario_prepared", &[], &[]);
    let calls = between(&text, "[prepared]", "[end]");
    assert_eq!(calls.len(), launches(), "launches and nothing else: {calls:?}");
    assert!(calls.iter().all(|call| call.starts_with("cuLaunchKernelEx")), "{calls:?}");
    let asked = between(&text, "[asked each time]", "[end]");
    assert_eq!(
        asked.iter().filter(|call| call.starts_with("cuTensorMapEncodeTiled")).count(),
        2,
        "{asked:?}"
    );
    assert!(text.lines().any(|line| line == "0 allocations"), "{text}");
}

#[test]
#[ignore = "a scenario of the test above"]
fn scenario_prepared() {
    if !is_child() {
        return;
    }
    let images = PathBuf::from(std::env::var_os("NARROWGAUGE_IMAGES").unwrap());
    for tile in Tile::of(Input::Fp8, Mode::Dense) {
        for entry in tile.entries() {
            std::fs::write(images.join(format!("{entry}.90a.ptx")), ".version 8.0").unwrap();
            std::fs::write(images.join(format!("{entry}.90a.cubin")), "\x7fELF").unwrap();
        }
    }
    let device = Device::cuda(0).unwrap();
    let stream = device.stream();
    let a = Fp8Rows::new(device.zeros(&[64, 256]).unwrap(), device.zeros(&[64, 2]).unwrap()).unwrap();
    let b = Fp8Blocks::new(device.zeros(&[128, 256]).unwrap(), device.zeros(&[1, 2]).unwrap()).unwrap();
    let out = device.zeros::<bf16>(&[64, 128]).unwrap();
    let prepared = Fp8Gemm::new(&a, &b, &out).prepare(&device).unwrap();
    // Loads the kernel, and makes room for what is remembered of it.
    prepared.launch(&stream).unwrap();
    println!("[prepared]");
    let before = ALLOCATIONS.get();
    for _ in 0..launches() {
        prepared.launch(&stream).unwrap();
    }
    let after = ALLOCATIONS.get();
    println!("[end]\n[asked each time]");
    Fp8Gemm::new(&a, &b, &out).launch(&stream).unwrap();
    println!("[end]\n{} allocations", after - before);
}
