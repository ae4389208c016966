//! Single instructions against values worked out from the PTX ISA's text, and the faults of small wrong kernels.

mod atomics;
mod barriers;
mod bits;
mod bulk;
mod control;
mod conversions;
mod copies;
mod faults;
mod floats;
mod fragments;
mod halves;
mod integers;
mod listing;
mod maps;
mod matrix;
mod mbarrier;
mod memory;
mod mma;
mod moves;
mod partial;
mod predicates;
mod reductions;
mod rig;
mod table;
mod targets;
mod tensor_copies;
mod tensor_maps;
mod warp;
mod wgmma;
mod wide;

use narrowgauge_sim::{CardProfile, Fault, Launch, Machine, Module, Report, Schedule};

/// Runs `body` in one warp. It finds its inputs in %a0.. (b32) and %w0.. (b64), lane i reading row i, and stores through
/// %out (64-bit address of its own eight bytes).
fn run(
    body: &str,
    inputs: &[[u64; 3]],
    threads: u32,
    schedule: Schedule,
) -> Result<(Vec<u64>, Report), Box<Fault>> {
    let text = format!(
        r#"
.version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 in_ptr, .param .u64 out_ptr)
{{
    .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<40>; .reg .b32 %a<4>; .reg .b64 %rd<8>; .reg .b64 %w<4>;
    .reg .b64 %in, %out; .reg .b32 %t; .reg .b16 %b<4>;
    .shared .align 1024 .b8 smem[4096];
    ld.param.u64 %in, [in_ptr];
    ld.param.u64 %out, [out_ptr];
    mov.u32 %t, %tid.x;
    mad.wide.u32 %in, %t, 24, %in;
    mad.wide.u32 %out, %t, 8, %out;
    ld.global.u64 %w0, [%in]; ld.global.u64 %w1, [%in+8]; ld.global.u64 %w2, [%in+16];
    cvt.u32.u64 %a0, %w0; cvt.u32.u64 %a1, %w1; cvt.u32.u64 %a2, %w2;
    cvt.u16.u64 %b0, %w0; cvt.u16.u64 %b1, %w1; cvt.u16.u64 %b2, %w2;
    {body}
    ret;
}}"#
    );
    let module = Module::parse(&text).unwrap();
    let mut machine = Machine::new(CardProfile::H20);
    let rows: Vec<[u64; 3]> = (0..threads as usize).map(|i| inputs[i % inputs.len()]).collect();
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let from = machine.alloc(bytes.len() as u64).unwrap();
    machine.write(from, &bytes).unwrap();
    let to = machine.alloc(8 * u64::from(threads)).unwrap();
    machine.fill(to, 8 * u64::from(threads), 0).unwrap();
    let params: [&[u8]; 2] = [&from.to_le_bytes(), &to.to_le_bytes()];
    let launch = Launch {
        entry: "k",
        grid: [1; 3],
        block: [threads, 1, 1],
        cluster: [1; 3],
        shared_bytes: 0,
        params: &params,
        schedule,
    };
    let report = machine.launch(&module, &launch)?;
    let mut out = vec![0; 8 * threads as usize];
    machine.read(to, &mut out).unwrap();
    Ok((out.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect(), report))
}

fn fault(body: &str, threads: u32) -> Fault {
    *run(body, &[[0; 3]], threads, Schedule::default()).expect_err("the kernel is wrong")
}
