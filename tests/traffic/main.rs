//! What kernels do beside their answers, on the simulated card: each byte of an operand is moved as often as the kernel's
//! plan says, nothing runs past the end of a row, and blocks have the threads and the shared memory that they use. A module
//! a family.

#![cfg(feature = "sim")]

mod gemm;
mod indexer;
mod mla;
mod norm;
mod other_products;
mod products;
mod quant;
mod routing;
mod sparse;
mod swiglu;
mod vocab;

use narrowgauge::sim::{Class, Counters, Profile, Schedule};
use narrowgauge::{Card, Device, E4m3, Fp8Rows, Result, ScaleLayout, Stream, Tensor, bf16};

/// One launch of a kernel.
struct Launched {
    kernel: String,
    /// Whether ptxas knows how many threads there are.
    bounded: bool,
    counters: Counters,
    profile: Profile,
}

impl Launched {
    /// Bytes that lanes loaded (or changed) and stored, repeats included.
    fn bytes(&self) -> (u64, u64) {
        let sum = |of: fn(&narrowgauge::sim::profiler::LineProfile) -> u64| -> u64 {
            self.profile.lines.iter().filter(|line| of(line) > 0).map(|line| line.global_bytes).sum()
        };
        (sum(|line| line.load_sectors), sum(|line| line.store_sectors))
    }

    /// Shuffles and votes.
    fn exchanges(&self) -> u64 {
        self.counters.class(Class::Warp)
    }

    /// Warp instructions whose opcode begins so.
    fn count(&self, opcode: &str) -> u64 {
        self.profile
            .lines
            .iter()
            .filter(|line| line.opcode.starts_with(opcode))
            .map(|line| line.executions)
            .sum()
    }

    fn fills_its_shared_memory(&self) {
        assert_eq!(self.profile.shared_written, self.profile.shared_bytes, "{}", self.kernel);
    }
}

/// The kernels of an operation, one launch of each, by name.
fn all(launch: impl Fn(&Device, &Stream) -> Result<()>) -> Vec<Launched> {
    let device = Device::simulated(Card::H20).unwrap();
    device.set_schedule(Schedule { profile: true, ..Schedule::default() }).unwrap();
    launch(&device, &device.stream()).unwrap();
    let launched = device.records().unwrap().into_iter().map(|mut record| {
        let profile = record.profiles.pop().unwrap();
        assert!(record.profiles.is_empty(), "{} ran twice", record.kernel);
        // A bound that is not the block's lets ptxas give registers to threads that never run.
        let ptx = device.image(&record.kernel).unwrap().ptx;
        let bound = ptx.split_once(".maxntid").map(|(_, rest)| rest.lines().next().unwrap());
        if let Some(bound) = bound {
            let threads: u32 = bound.split(',').map(|n| n.trim().parse::<u32>().unwrap()).product();
            assert_eq!(threads, profile.block.iter().product(), "{}", record.kernel);
        }
        Launched {
            kernel: record.kernel,
            bounded: bound.is_some(),
            counters: record.counters.unwrap(),
            profile,
        }
    });
    launched.collect()
}

/// The only kernel of an operation.
fn one(launch: impl Fn(&Device, &Stream) -> Result<()>) -> Launched {
    let mut launched = all(launch);
    assert_eq!(launched.len(), 1);
    launched.remove(0)
}

/// Rows that fill every lane of every pass take the instructions of rows that leave the last lane idle: nobody takes
/// another pass to find that nothing is left.
fn stops_at_the_end(columns: [usize; 2], launch: impl Fn(&Device, &Stream, usize) -> Result<()>) {
    let [full, short] = columns.map(|columns| one(|device, stream| launch(device, stream, columns)));
    assert_eq!(full.counters.instructions, short.counters.instructions, "{}", full.kernel);
}

fn ones(device: &Device, shape: &[usize]) -> Result<Tensor<bf16>> {
    device.full(shape, bf16::ONE)
}

fn narrow(device: &Device, rows: usize, columns: usize) -> Result<Fp8Rows> {
    // Rows begin at multiples of 16 bytes.
    let data =
        device.full(&[rows, columns.next_multiple_of(16)], E4m3::from_f32(1.0))?.slice(1, 0..columns)?;
    Fp8Rows::new(data, device.full(&[rows, columns.div_ceil(128)], 1.0f32)?)
}

fn narrow_out(device: &Device, rows: usize, columns: usize) -> Result<Fp8Rows> {
    Fp8Rows::empty(device, rows, columns, ScaleLayout::RowMajor)
}
