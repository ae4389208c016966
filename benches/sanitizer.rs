//! What the simulated card's checks cost a launch, in processor time of the host and as ratios: with the race checker,
//! without it, and without any check. `cargo bench --bench sanitizer --profile dev` measures it as tests run.

use narrowgauge::gemm::Fp8Gemm;
use narrowgauge::mla::{Attention, LatentCache};
use narrowgauge::verify::mla::AttentionInputs;
use narrowgauge::verify::{self, Source};
use narrowgauge::{Card, Device, Fp8Blocks, Fp8Rows, bf16};
use narrowgauge_sim::Schedule;
use std::time::Duration;

/// Processor time of this thread, which is the one that simulates.
#[cfg(target_os = "linux")]
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number comes first"))
}

#[cfg(not(target_os = "linux"))]
fn spent() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

/// The shortest of a few runs.
fn cost(mut launch: impl FnMut()) -> f64 {
    let once = |()| {
        let begun = spent();
        launch();
        (spent() - begun).as_secs_f64()
    };
    [(); 5].map(once).into_iter().fold(f64::INFINITY, f64::min)
}

fn row(device: &Device, what: &str, mut launch: impl FnMut()) {
    for (name, schedule) in verify::schedules() {
        let [races, checks, bare] = [(true, true), (true, false), (false, false)].map(|(checks, races)| {
            device.set_schedule(Schedule { checks, races, ..schedule }).expect("a simulated device");
            cost(&mut launch)
        });
        println!(
            "{what:<40} {name:>7} {:>9.0} ms {:>12.2} {:>12.2}",
            1e3 * races,
            races / checks,
            races / bare
        );
    }
}

fn main() {
    let device = Device::simulated(Card::H20).expect("the simulated card is always there");
    let stream = device.stream();
    println!("{:<40} {:>7} {:>12} {:>12} {:>12}", "", "policy", "all checks", "/ no races", "/ no checks");

    for (m, n, k) in [(64, 1024, 2048), (512, 1024, 2048)] {
        let values = |count| Source::to_e4m3(&Source::new(1).normals(count, 1.0));
        let a = device.tensor(&[m, k], &values(m * k)).unwrap();
        let a = Fp8Rows::new(a, device.full(&[m, k / 128], 0.5).unwrap()).unwrap();
        let b = device.tensor(&[n, k], &values(n * k)).unwrap();
        let b = Fp8Blocks::new(b, device.full(&[n / 128, k / 128], 2.0).unwrap()).unwrap();
        let out = device.empty::<bf16>(&[m, n]).unwrap();
        row(&device, &format!("FP8 GEMM {m}x{n}x{k}"), || {
            Fp8Gemm::new(&a, &b, &out).launch(&stream).unwrap();
            stream.synchronize().unwrap();
        });
    }

    for (lengths, heads) in [(&[512, 300, 64, 1][..], 16), (&[1024], 128)] {
        let inputs = AttentionInputs::normal(&mut Source::new(2), lengths, 1, heads);
        let shape = &inputs.shape;
        let query = device.tensor(&[shape.batch(), 1, heads, 576], &inputs.query).unwrap();
        let cache = LatentCache::new(&device, shape.cache_pages).unwrap();
        cache.tensor().write(&inputs.cache).unwrap();
        let table = device.tensor(&[shape.batch(), shape.table_pages], &inputs.table).unwrap();
        let lengths = device.tensor(&[shape.batch()], &inputs.lengths).unwrap();
        let out = device.empty::<bf16>(&[shape.batch(), 1, heads, 512]).unwrap();
        row(&device, &format!("attention, {heads} heads, {:?} tokens", inputs.lengths), || {
            let attention =
                Attention::new(&query, &cache, &table, &lengths, &out).scale(inputs.shape.scale as f32);
            let workspace = device.empty::<u8>(&[attention.workspace_bytes()]).unwrap();
            attention.workspace(&workspace).launch(&stream).unwrap();
            stream.synchronize().unwrap();
        });
    }
}
