//! Profiles and images of what ran, on the simulated card.

use narrowgauge::norm::Add;
use narrowgauge::sim::Schedule;
use narrowgauge::{Card, Device, bf16};

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn launches_are_profiled_while_the_schedule_says_so() {
    let device = Device::simulated(Card::H20).unwrap();
    let stream = device.stream();
    let (a, out) = (device.zeros::<bf16>(&[4, 256]).unwrap(), device.zeros::<bf16>(&[4, 256]).unwrap());
    let add = || Add::new(&a, &a, &out).launch(&stream).unwrap();
    add();
    device.set_schedule(Schedule { profile: true, ..Schedule::default() }).unwrap();
    add();
    // Launches of graphs too.
    stream.capture(|stream| Add::new(&a, &a, &out).launch(stream)).unwrap().launch(&stream).unwrap();
    device.set_schedule(Schedule::default()).unwrap();
    add();
    let records = device.records().unwrap();
    let [record] = records.as_slice() else { panic!("one kernel: {records:?}") };
    assert_eq!((record.launches, record.profiles.len()), (4, 2));
    let profile = &record.profiles[0];
    assert_eq!(profile.kernel, record.kernel);
    assert_eq!(record.counters.as_ref().unwrap().instructions, 4 * profile.executions());
    // Two views of one input: each sector is asked for twice.
    let bytes = 4 * 256 * 2 / 32;
    assert_eq!((profile.unique_sectors(), profile.requested_sectors()), ((bytes, bytes), (2 * bytes, bytes)));

    let image = device.image(&record.kernel).unwrap();
    let line = profile.lines.iter().find(|line| line.load_sectors > 0).unwrap();
    let text = image.ptx.lines().nth(line.line as usize - 1).unwrap();
    assert!(text.contains(&line.opcode), "{text}");
    assert!(image.cubin.is_some_and(|cubin| cubin.starts_with(b"\x7fELF")));
}
