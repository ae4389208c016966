//! The CUDA executor over a stand-in for the driver: what is missing is a clear error, and work is ordered as it must be.
//!
//! Each test compiles the stand-in and runs one `#[ignore]`d scenario of this file in a child process that loads it.

use crate::harness::{self, between, child, is_child};
use narrowgauge::norm::Add;
use narrowgauge::{Device, Error, Tensor, bf16};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs a scenario of this file over the stand-in.
fn run(scenario: &str, flags: &[&str], environment: &[(&str, &str)]) -> String {
    harness::run(&format!("driver::scenario_{scenario}"), flags, environment)
}

fn rows(device: &Device) -> Tensor<bf16> {
    device.full(&[2, 8], bf16::ONE).unwrap()
}

#[test]
fn without_a_driver_there_is_one_clear_error() {
    if ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/local/nvidia/lib64"]
        .iter()
        .any(|folder| Path::new(folder).join("libcuda.so.1").exists())
    {
        eprintln!("skipped: this machine has a driver");
        return;
    }
    let text = child("driver::scenario_open", Path::new("/nonexistent"), &[]);
    assert!(text.contains("error: no CUDA driver"), "{text}");
}

#[test]
fn missing_functions_and_devices_are_clear_errors() {
    let text = run("open", &["-DWITHOUT_POOLS"], &[]);
    assert!(text.contains("error: the CUDA driver is too old: it has no cuMemAllocAsync"), "{text}");
    let text = run("open", &["-DWITHOUT_TENSOR_MAPS"], &[]);
    assert!(text.contains("error: the CUDA driver is too old: it has no cuTensorMapEncodeTiled"), "{text}");
    let text = run("open", &[], &[("FAKE_CUDA_FAIL", "cuInit!:100")]);
    assert!(text.contains("error: no CUDA device 0: the driver reports 0"), "{text}");
    let text = run("open", &[], &[("FAKE_CUDA_DEVICES", "0")]);
    assert!(text.contains("error: no CUDA device 0: the driver reports 0"), "{text}");
    let text = run("open", &[], &[("FAKE_CUDA_FAIL", "cuInit!:999")]);
    assert!(text.contains("error: CUDA error 999 in cuInit (unknown to this driver)"), "{text}");
    let text = run("open", &[], &[("FAKE_CUDA_FAIL", "cuStreamCreate:2")]);
    assert!(text.contains("error: CUDA error 2 in cuStreamCreate"), "{text}");
    assert!(text.contains("cuDevicePrimaryCtxRelease_v2"), "what was retained is released: {text}");
    let text = run("open", &[], &[]);
    assert!(text.contains("opened: NVIDIA H20 as H20 with 78"), "{text}");
    assert!(text.contains("cuDevicePrimaryCtxRelease_v2"), "{text}");
}

#[test]
#[ignore = "a scenario of the tests above"]
fn scenario_open() {
    if !is_child() {
        return;
    }
    match Device::cuda(0) {
        Ok(device) => {
            println!("opened: {} as {} with {}", device.name(), device.card(), device.card().sms);
            assert!(!device.is_simulated());
            assert!(matches!(Device::cuda(1), Err(Error::NoDevice { ordinal: 1, found: 1 })));
        }
        Err(error) => println!("error: {error}"),
    }
}

#[test]
fn one_stream_needs_no_events_and_two_wait_for_each_other() {
    let text = run("order", &[], &[]);
    let alone = between(&text, "[one stream]", "[end]");
    assert_eq!(alone.len(), 5, "load, look up, three launches and nothing else: {alone:?}");
    assert_eq!(alone.iter().filter(|line| line.starts_with("cuLaunchKernelEx")).count(), 3);

    let crossed = between(&text, "[reads another's result]", "[end]");
    let names: Vec<_> = crossed.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["cuEventRecord", "cuStreamWaitEvent", "cuLaunchKernelEx"], "{crossed:?}");

    let overwritten = between(&text, "[overwrites what another reads]", "[end]");
    let names: Vec<_> = overwritten.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["cuEventRecord", "cuStreamWaitEvent", "cuLaunchKernelEx"], "{overwritten:?}");

    let read = between(&text, "[host read]", "[end]");
    assert!(read[0].starts_with("cuEventRecord") && read[1].starts_with("cuStreamWaitEvent"), "{read:?}");
    assert!(
        read[2].starts_with("cuMemcpyDtoHAsync") && read[3].starts_with("cuStreamSynchronize"),
        "{read:?}"
    );

    let freed = between(&text, "[drop]", "[end]");
    let free = freed.iter().position(|line| line.starts_with("cuMemFreeAsync")).unwrap();
    assert!(freed[..free].iter().any(|line| line.starts_with("cuStreamWaitEvent")), "{freed:?}");
    assert!(!freed.iter().any(|line| line.contains("Synchronize")), "dropping blocks: {freed:?}");

    let closed = between(&text, "[close]", "[closed]");
    for what in ["cuModuleUnload", "cuStreamDestroy", "cuDevicePrimaryCtxRelease"] {
        assert!(closed.iter().any(|line| line.starts_with(what)), "{what}: {closed:?}");
    }
    assert!(!closed.iter().any(|line| line.contains("Synchronize")), "dropping blocks: {closed:?}");
    let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("cuMemAllocAsync"), count("cuMemFreeAsync"));
    assert_eq!(count("cuStreamCreate"), count("cuStreamDestroy"));
}

#[test]
#[ignore = "a scenario of the tests above"]
fn scenario_order() {
    if !is_child() {
        return;
    }
    let device = Device::cuda(0).unwrap();
    let (first, second) = (device.stream(), device.new_stream().unwrap());
    let (a, b, c, d) = (rows(&device), rows(&device), rows(&device), rows(&device));
    println!("[one stream]");
    for _ in 0..3 {
        Add::new(&a, &b, &c).launch(&first).unwrap();
    }
    println!("[end]\n[reads another's result]");
    Add::new(&c, &c, &d).launch(&second).unwrap();
    println!("[end]\n[overwrites what another reads]");
    Add::new(&a, &b, &c).launch(&first).unwrap();
    println!("[end]\n[host read]");
    d.to_vec().unwrap();
    println!("[end]\n[drop]");
    drop((c, d));
    println!("[end]");
    assert_eq!(device.records().unwrap()[0].launches, 5);
    println!("[close]");
    drop((a, b, first, second, device));
    println!("[closed]");
}

#[test]
fn a_capture_meets_no_other_work() {
    let text = run("capture", &[], &[]);
    let captured: Vec<_> = between(&text, "[capture]", "[end]");
    let begin = captured.iter().position(|line| line.starts_with("cuStreamBeginCapture")).unwrap();
    let end = captured.iter().position(|line| line.starts_with("cuStreamEndCapture")).unwrap();
    let stream = captured[begin].rsplit(' ').next().unwrap();
    for line in &captured[begin + 1..end] {
        let launch = line.starts_with("cuLaunchKernelEx");
        let touches = line.contains(&format!("on {stream}")) || line.contains(&format!(" {stream} "));
        assert!(launch || !touches, "{line:?} in the capture of {stream}: {captured:?}");
    }
    let replay = between(&text, "[replay elsewhere]", "[end]");
    assert!(replay.iter().any(|line| line.starts_with("cuStreamWaitEvent")), "{replay:?}");
    assert!(replay.last().unwrap().starts_with("cuGraphLaunch"), "{replay:?}");
    let gone = between(&text, "[drop graph]", "[end]");
    let at = |what: &str| gone.iter().position(|line| line.starts_with(what)).unwrap();
    assert!(at("cuGraphExecDestroy") < at("cuMemFreeAsync"), "{gone:?}");
    assert!(!gone.iter().any(|line| line.contains("Synchronize")), "dropping blocks: {gone:?}");
}

#[test]
#[ignore = "a scenario of the tests above"]
fn scenario_capture() {
    if !is_child() {
        return;
    }
    let device = Device::cuda(0).unwrap();
    let (first, second) = (device.stream(), device.new_stream().unwrap());
    let (a, b, c) = (rows(&device), rows(&device), rows(&device));
    Add::new(&a, &b, &c).launch(&first).unwrap();
    println!("[capture]");
    let graph = first
        .capture(|stream| {
            let inner = rows(&device);
            Add::new(&a, &b, &inner).launch(stream)?;
            // All of this is about work from before the capture.
            c.to_vec()?;
            Add::new(&c, &c, &b).launch(&second)?;
            stream.synchronize()?;
            device.synchronize()?;
            Add::new(&inner, &b, &c).launch(stream)
        })
        .unwrap();
    println!("[end]\n[replay elsewhere]");
    graph.launch(&second).unwrap();
    Add::new(&a, &b, &c).launch(&first).unwrap();
    graph.launch(&second).unwrap();
    println!("[end]");
    assert!(second.status().unwrap().is_clear());
    println!("[drop graph]");
    drop(graph);
    drop(second);
    println!("[end]");
}

#[test]
fn a_dead_context_is_named_and_left_alone() {
    let text = run("lost", &[], &[("FAKE_CUDA_FAIL", "cuLaunchKernelEx:700")]);
    assert!(
        text.contains("launch: the CUDA context is lost: an earlier call failed with error 700"),
        "{text}"
    );
    let after = between(&text, "[lost]", "[end]");
    assert!(
        after.iter().all(|line| !line.starts_with("cu") || line.starts_with("cuDevicePrimaryCtxRelease"))
    );
    // A failure that leaves the context alive does not.
    let text = run("lost", &[], &[("FAKE_CUDA_FAIL", "cuLaunchKernelEx:1")]);
    assert!(text.contains("launch: CUDA error 1 in add_bf16"), "{text}");
}

#[test]
#[ignore = "a scenario of the tests above"]
fn scenario_lost() {
    if !is_child() {
        return;
    }
    let device = Device::cuda(0).unwrap();
    let stream = device.stream();
    let (a, b, c) = (rows(&device), rows(&device), rows(&device));
    Add::new(&a, &b, &c).launch(&stream).unwrap();
    let error = Add::new(&a, &b, &c).launch(&stream).unwrap_err();
    println!("launch: {error}");
    println!("[lost]");
    if matches!(error, Error::ContextLost { .. }) {
        assert!(device.is_lost());
        assert_eq!(c.to_vec().unwrap_err(), error);
        assert_eq!(stream.synchronize().unwrap_err(), error);
        assert_eq!(device.zeros::<u8>(&[1]).unwrap_err(), error);
        assert_eq!(device.new_stream().unwrap_err(), error);
        assert_eq!(stream.capture(|_| Ok(())).unwrap_err(), error);
        drop((a, b, c, stream, device));
    } else {
        assert!(!device.is_lost());
        c.to_vec().unwrap();
    }
    println!("[end]");
}

#[test]
fn without_pools_memory_is_freed_late_and_only_once() {
    let text = run("pools", &[], &[("FAKE_CUDA_NO_POOLS", "1")]);
    let dropped = between(&text, "[drop]", "[end]");
    assert!(!dropped.iter().any(|line| line.contains("Free") || line.contains("Synchronize")), "{dropped:?}");
    let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("cuMemAlloc_v2"), count("cuMemFree_v2"), "{text}");
    assert_eq!(count("cuMemAllocAsync"), 0);
}

#[test]
#[ignore = "a scenario of the tests above"]
fn scenario_pools() {
    if !is_child() {
        return;
    }
    let device = Device::cuda(0).unwrap();
    let (a, b) = (rows(&device), rows(&device));
    Add::new(&a, &a, &b).launch(&device.stream()).unwrap();
    println!("[drop]");
    drop((a, b));
    println!("[end]");
    drop(rows(&device));
}

#[test]
fn images_and_times_fail_with_their_reasons() {
    let text = run("image", &[], &[("FAKE_CUDA_FAIL", "cuModuleLoadData!:209")]);
    assert!(text.contains("launch: kernel add_bf16: cannot load its image: CUDA error 209"), "{text}");
    assert!(text.contains("the driver is for CUDA 12.2"), "{text}");
    assert!(text.contains("times: Ok"), "{text}");
    let text = run("image", &["-DWITHOUT_ELAPSED"], &[]);
    assert!(text.contains("launch: Ok"), "{text}");
    assert!(text.contains("times: the CUDA driver is too old: it has no cuEventElapsedTime"), "{text}");
}

#[test]
#[ignore = "a scenario of the tests above"]
fn scenario_image() {
    if !is_child() {
        return;
    }
    let show = |what: &str, result: narrowgauge::Result<()>| match result {
        Ok(()) => println!("{what}: Ok"),
        Err(error) => println!("{what}: {error}"),
    };
    let device = Device::cuda(0).unwrap();
    let (a, b) = (rows(&device), rows(&device));
    show("launch", Add::new(&a, &a, &b).launch(&device.stream()));
    show("times", device.set_timing(true));
    if Add::new(&a, &a, &b).launch(&device.stream()).is_ok() {
        let records = device.records().unwrap();
        assert_eq!(records[0].time.is_some(), device.set_timing(true).is_ok());
    }
    let stream = device.stream();
    if let (Ok(start), Ok(end)) = (stream.record_event(), stream.record_event()) {
        assert!(end.since(&start).unwrap().as_nanos() > 0);
        assert_eq!(start.since(&end).unwrap().as_nanos(), 0);
    }
}

#[test]
fn an_engine_on_cudarc_shares_its_stream_and_memory() {
    let text = run("adopt", &[], &[]);
    let launched = between(&text, "[its stream]", "[end]");
    assert!(
        launched.last().unwrap().ends_with("1 attributes")
            && !launched.iter().any(|line| line.contains("Wait"))
    );
    let chained = between(&text, "[per thread]", "[end]");
    let names: Vec<_> = chained.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let last = names.len() - 3;
    assert_eq!(names[last..], ["cuStreamWaitEvent", "cuLaunchKernelEx", "cuEventRecord"], "{chained:?}");
    let text = run("capturing", &[], &[("FAKE_CUDA_CAPTURING", "1")]);
    assert!(text.contains("launch: stream capture: somebody else is capturing the stream"), "{text}");
}

#[test]
#[ignore = "a scenario of the test above"]
fn scenario_adopt() {
    if !is_child() {
        return;
    }
    let context = narrowgauge::cudarc::driver::CudaContext::new(0).unwrap();
    let device = Device::from_cudarc(context.clone(), context.new_stream().unwrap()).unwrap();
    let (a, b) = (rows(&device), rows(&device));
    println!("[its stream]");
    Add::new(&a, &a, &b).launch(&device.stream()).unwrap();
    println!("[end]");

    // Somebody else's memory stays as long as a launch may use it.
    struct Owner(Arc<AtomicBool>);
    impl Drop for Owner {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let gone = Arc::new(AtomicBool::new(false));
    let owner = Some(Arc::new(Owner(gone.clone())) as Arc<dyn std::any::Any + Send + Sync>);
    // SAFETY: the memory of `a` outlives the view, on the same device.
    let view = unsafe { Tensor::<bf16>::from_raw(&device, a.address(), &[2, 8], &[8, 1], owner) }.unwrap();
    assert_eq!(view.to_vec().unwrap(), a.to_vec().unwrap());
    Add::new(&view, &view, &b).launch(&device.stream()).unwrap();
    drop(view);
    assert!(!gone.load(Ordering::Relaxed), "a launch is under way");
    device.synchronize().unwrap();
    assert!(gone.load(Ordering::Relaxed));
    for (address, shape, strides) in [(0, [2, 8], [8, 1]), (3, [2, 8], [8, 1]), (64, [2, 8], [usize::MAX, 1])]
    {
        // SAFETY: refused before anything is made of it.
        let refused = unsafe { Tensor::<bf16>::from_raw(&device, address, &shape, &strides, None) };
        assert!(matches!(refused, Err(Error::Argument { .. })));
    }

    let threaded = Device::from_cudarc(context.clone(), context.per_thread_stream()).unwrap();
    let (a, b) = (rows(&threaded), rows(&threaded));
    println!("[per thread]");
    Add::new(&a, &a, &b).launch(&threaded.stream()).unwrap();
    println!("[end]");
    assert!(matches!(threaded.stream().capture(|_| Ok(())), Err(Error::Capture(_))));
    assert_eq!(b.to_vec().unwrap().len(), 16);
}

#[test]
#[ignore = "a scenario of the test above"]
fn scenario_capturing() {
    if !is_child() {
        return;
    }
    let context = narrowgauge::cudarc::driver::CudaContext::new(0).unwrap();
    let device = Device::from_cudarc(context.clone(), context.new_stream().unwrap()).unwrap();
    let (a, b) = (rows(&device), rows(&device));
    println!("launch: {}", Add::new(&a, &a, &b).launch(&device.stream()).unwrap_err());
}
