//! Host time of matrix products: on a card, of the products; on the simulated card, of simulating them.

#![allow(missing_docs, reason = "criterion_group! makes a public function")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use narrowgauge::gemm::{BatchedHalfGemm, Fp8Gemm, GroupedFp8Gemm};
use narrowgauge::verify::{self, Source};
use narrowgauge::{Device, E4m3, Fp8Blocks, Fp8Rows, bf16};

fn values(count: usize) -> Vec<E4m3> {
    Source::to_e4m3(&Source::new(1).normals(count, 1.0))
}

fn rows(device: &Device, m: usize, k: usize) -> Fp8Rows {
    let scales = device.full(&[m, k / 128], 0.5).unwrap();
    Fp8Rows::new(device.tensor(&[m, k], &values(m * k)).unwrap(), scales).unwrap()
}

fn gemm(criterion: &mut Criterion) {
    let device = verify::device().unwrap();
    let stream = device.stream();
    let mut group = criterion.benchmark_group(format!("gemm on {}", device.name()));
    group.sample_size(10);

    for (m, n, k) in [(512, 1024, 2048), (1, 2112, 1024)] {
        let a = rows(&device, m, k);
        let data = device.tensor(&[n, k], &values(n * k)).unwrap();
        let b = Fp8Blocks::new(data, device.full(&[n.div_ceil(128), k / 128], 2.0).unwrap()).unwrap();
        let out = device.empty::<bf16>(&[m, n]).unwrap();
        group.throughput(Throughput::Elements((m * n * k) as u64));
        group.bench_function(format!("fp8 {m}x{n}x{k}"), |bencher| {
            bencher.iter(|| {
                Fp8Gemm::new(&a, &b, &out).launch(&stream).unwrap();
                stream.synchronize().unwrap();
            });
        });
    }

    let (groups, m, n, k) = (16, 32, 512, 512);
    let a = rows(&device, m, k);
    let data = device.tensor(&[groups, n, k], &values(groups * n * k)).unwrap();
    let b = Fp8Blocks::new(data, device.full(&[groups, n / 128, k / 128], 2.0).unwrap()).unwrap();
    let offsets: Vec<i32> = (0..=groups).map(|group| (group * m / groups) as i32).collect();
    let offsets = device.tensor(&[groups + 1], &offsets).unwrap();
    let out = device.empty::<bf16>(&[m, n]).unwrap();
    group.throughput(Throughput::Elements((m * n * k) as u64));
    group.bench_function(format!("grouped fp8 {groups} experts, {m}x{n}x{k}"), |bencher| {
        bencher.iter(|| {
            GroupedFp8Gemm::new(&a, &b, &offsets, &out).launch(&stream).unwrap();
            stream.synchronize().unwrap();
        });
    });

    let (heads, m, n, k) = (16, 8, 512, 128);
    let tensor = |shape: &[usize]| {
        let count = shape.iter().product();
        device.tensor(shape, &Source::to_bf16(&Source::new(2).normals(count, 1.0))).unwrap()
    };
    let (a, b) = (tensor(&[heads, m, k]), tensor(&[heads, n, k]));
    let out = device.empty::<bf16>(&[heads, m, n]).unwrap();
    group.throughput(Throughput::Elements((heads * m * n * k) as u64));
    group.bench_function(format!("bf16 {heads} heads of {m}x{n}x{k}"), |bencher| {
        bencher.iter(|| {
            BatchedHalfGemm::new(&a, &b, &out).launch(&stream).unwrap();
            stream.synchronize().unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, gemm);
criterion_main!(benches);
