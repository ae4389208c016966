//! The bare wgmma step on the host: how many multiply-accumulates a second the simulated tensor core makes.

// The group macro makes an undocumented function.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use narrowgauge_sim::row::Row;
use narrowgauge_sim::wgmma::{Fp8Mode, Kind, Operand, Shape, Which, execute, operand_ranges};

const BASE: u32 = 1024;

/// K-major, 128-byte swizzle.
fn descriptor(start: u32) -> u64 {
    u64::from(start >> 4) | (1024u64 >> 4) << 32 | 1 << 62
}

fn step(criterion: &mut Criterion) {
    let mut bits = 0x9e37_79b9_7f4a_7c15u64;
    // Numbers around one in every format.
    let fp8: Vec<u8> = (0..64 * 1024)
        .map(|_| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            (bits >> 40) as u8 & 0x9f | 0x20
        })
        .collect();
    let bf16: Vec<u8> = fp8.chunks_exact(2).flat_map(|pair| [pair[0], pair[1] & 0x81 | 0x3e]).collect();
    let mut group = criterion.benchmark_group("wgmma");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (name, kind, mode, shared) in [
        ("e4m3 hopper", Kind::E4m3E4m3, Fp8Mode::Hopper, &fp8),
        ("e4m3 exact", Kind::E4m3E4m3, Fp8Mode::ExactF32, &fp8),
        ("bf16", Kind::Bf16, Fp8Mode::Hopper, &bf16),
    ] {
        for n in [8, 64, 128, 256] {
            let shape = Shape {
                n,
                kind,
                trans_a: false,
                trans_b: false,
                negate_a: false,
                negate_b: false,
                a_in_registers: false,
            };
            let mut d = vec![vec![[0u32; 32]; n / 2]; 4];
            group.throughput(Throughput::Elements((64 * n * kind.depth()) as u64));
            group.bench_function(format!("{name} n{n}"), |bencher| {
                bencher.iter(|| {
                    let [d0, d1, d2, d3] = d.as_mut_slice() else { unreachable!("four warps") };
                    let d: [&mut [Row]; 4] = [d0, d1, d2, d3];
                    let (a, b) = (Operand::Descriptor(descriptor(1024)), descriptor(16 * 1024));
                    execute(&shape, d, a, b, false, black_box(shared), BASE, mode).expect("a legal step")
                });
            });
        }
    }
    group.finish();

    let shape = Shape {
        n: 256,
        kind: Kind::E4m3E4m3,
        trans_a: false,
        trans_b: false,
        negate_a: false,
        negate_b: false,
        a_in_registers: false,
    };
    criterion.bench_function("operand ranges n256", |bencher| {
        bencher.iter(|| operand_ranges(&shape, Which::B, black_box(descriptor(1024)), BASE, 64 * 1024));
    });
}

criterion_group!(benches, step);
criterion_main!(benches);
