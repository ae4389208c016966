//! Runs a kernel that this project did not write on the operands of an operation.

use super::adapter::{Adapter, EXAMPLE, Names, Place};
use super::code;
use super::report::{Kernel, Traffic, traffic};
use crate::cases::{Operand, Prepared};
use narrowgauge::sim::{CardProfile, InFlight, Launch, Machine, Module, Schedule};
use narrowgauge::{DType, Device, E4m3, E5m2, Ue8m0, bf16, f16};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Another kernel's text and how it is called.
pub struct Foreign {
    path: PathBuf,
    ptx: Arc<str>,
    entry: String,
    module: Module,
    adapter: Adapter,
}

/// What it did, and how its outputs differ from ours.
pub struct Against {
    pub kernel: Kernel,
    pub operands: Vec<Traffic>,
    pub differences: Vec<Difference>,
    pub warnings: Vec<String>,
}

/// Two results of one output.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub operand: String,
    pub elements: usize,
    /// Elements with other values; NaN equals NaN.
    pub different: usize,
    /// The largest difference of two numbers.
    pub largest: f64,
    /// The largest of our own values.
    pub of: f64,
    /// Elements that are NaN on one side only.
    pub nan: usize,
}

impl Foreign {
    /// Reads the PTX and its adapter.
    pub fn load(path: &Path, adapter: Option<&Path>, entry: Option<&str>) -> Result<Self, String> {
        let read =
            |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
        let beside = path.with_extension("toml");
        let ptx = read(path)?;
        if adapter.is_none() && !beside.is_file() {
            let (kernel, wanted) = (path.display(), beside.display());
            return Err(format!(
                "how does {kernel} take the operands? {wanted} or --adapter says so, for example:\n\n{EXAMPLE}"
            ));
        }
        let adapter = adapter.unwrap_or(&beside);
        let text = read(adapter)?;
        let module = Module::parse(&ptx).map_err(|e| format!("{}: {e}", path.display()))?;
        let adapter = Adapter::parse(&text).map_err(|e| format!("{}: {e}", adapter.display()))?;
        let entries = module.entries();
        let entry = match (entry.or(adapter.entry.as_deref()), entries.as_slice()) {
            (Some(name), _) => name.to_owned(),
            (None, [only]) => (*only).to_owned(),
            (None, _) => {
                return Err(format!("--entry is needed: {} has {}", path.display(), entries.join(", ")));
            }
        };
        if !entries.contains(&entry.as_str()) {
            let all = entries.join(", ");
            return Err(format!("{} has no entry `{entry}`; it has {all}", path.display()));
        }
        Ok(Self { path: path.to_owned(), ptx: ptx.into(), entry, module, adapter })
    }

    /// The cubin beside the PTX, or what ptxas makes of it.
    fn cubin(&self) -> Result<Vec<u8>, String> {
        let beside = self.path.with_extension("cubin");
        if beside.is_file() {
            return std::fs::read(&beside).map_err(|e| format!("{}: {e}", beside.display()));
        }
        code::assemble(&self.ptx)
    }

    /// Runs it on copies of the operands, on a card of the same kind, and compares its outputs.
    pub fn run(
        &self,
        device: &Device,
        prepared: &Prepared,
        extents: &[(&'static str, i64)],
        schedule: Schedule,
    ) -> Result<Against, String> {
        self.go(device, prepared, extents, schedule).map_err(|e| format!("{}: {e}", self.path.display()))
    }

    fn go(
        &self,
        device: &Device,
        prepared: &Prepared,
        extents: &[(&'static str, i64)],
        schedule: Schedule,
    ) -> Result<Against, String> {
        let card = device.card();
        // Its host code may have asked for clusters of more than eight blocks.
        let mut machine = Machine::new(CardProfile { non_portable_clusters: true, ..card.simulated() });
        let mut places = Vec::new();
        let mut ours = Vec::new();
        for operand in &prepared.operands.0 {
            let memory = operand.memory().map_err(|e| e.to_string())?;
            let bytes = memory.len() as u64;
            let address = machine.alloc(bytes.max(16)).map_err(|e| e.to_string())?;
            // Outputs begin as NaN.
            let begin = if operand.output { vec![0xff; memory.len()] } else { memory.clone() };
            machine.write(address, &begin).map_err(|e| e.to_string())?;
            places.push(Place {
                name: operand.name.to_owned(),
                address,
                bytes,
                dtype: operand.dtype,
                shape: operand.shape.clone(),
                strides: operand.strides.clone(),
            });
            ours.push(memory);
        }
        let mut extents = extents.to_vec();
        extents.push(("sms", i64::from(card.sms)));
        for scratch in &self.adapter.scratch {
            let names = Names { extents: &extents, places: &places };
            let bytes: u64 = names.size(&format!("scratch {}", scratch.name), &scratch.bytes)?;
            let address = machine.alloc(bytes).map_err(|e| e.to_string())?;
            if let Some(value) = scratch.fill {
                machine.fill(address, bytes, value).map_err(|e| e.to_string())?;
            }
            places.push(Place {
                name: scratch.name.clone(),
                address,
                bytes,
                dtype: DType::U8,
                shape: Vec::new(),
                strides: Vec::new(),
            });
        }
        let names = Names { extents: &extents, places: &places };
        let parameters = self.adapter.parameters.iter().enumerate();
        let parameters: Vec<Vec<u8>> = parameters
            .map(|(i, parameter)| parameter.encode(&names).map_err(|e| format!("parameter {i}: {e}")))
            .collect::<Result<_, _>>()?;
        let parameters: Vec<&[u8]> = parameters.iter().map(Vec::as_slice).collect();
        let launch = Launch {
            entry: &self.entry,
            grid: names.triple("grid", &self.adapter.grid)?,
            block: names.triple("block", &self.adapter.block)?,
            cluster: self.adapter.cluster.as_ref().map_or(Ok([1; 3]), |c| names.triple("cluster", c))?,
            shared_bytes: self.adapter.shared.as_ref().map_or(Ok(0), |s| names.size("shared", s))?,
            params: &parameters,
            schedule: Schedule { in_flight: InFlight::Compatible, ..schedule },
        };
        let report = machine.launch(&self.module, &launch).map_err(|fault| fault.to_string())?;
        let profile = report.profile.ok_or("the launch was not profiled")?;

        let operands: Vec<(&Operand, u64)> = prepared
            .operands
            .0
            .iter()
            .zip(&places)
            .map(|(operand, place)| (operand, place.address))
            .collect();
        let mut differences = Vec::new();
        for ((operand, address), ours) in operands.iter().zip(&ours) {
            if operand.output && operand.ideal > 0 {
                let mut theirs = vec![0; ours.len()];
                machine.read(*address, &mut theirs).map_err(|e| e.to_string())?;
                differences.push(compare(operand, ours, &theirs));
            }
        }
        Ok(Against {
            operands: traffic(&operands, &[&profile]),
            kernel: Kernel::new(profile, self.ptx.clone(), &self.cubin()),
            differences,
            warnings: report.warnings,
        })
    }
}

fn compare(operand: &Operand, ours: &[u8], theirs: &[u8]) -> Difference {
    let mut out = Difference {
        operand: operand.name.to_owned(),
        elements: operand.shape.iter().product(),
        different: 0,
        largest: 0.0,
        of: 0.0,
        nan: 0,
    };
    for index in 0..out.elements {
        let (mut rest, mut at) = (index, 0);
        for (dim, stride) in operand.shape.iter().zip(&operand.strides).rev() {
            at += rest % dim * stride;
            rest /= dim;
        }
        let (a, b) = (number(operand.dtype, ours, at), number(operand.dtype, theirs, at));
        out.different += usize::from(!(a == b || a.is_nan() && b.is_nan()));
        out.nan += usize::from(a.is_nan() != b.is_nan());
        if (a - b).abs() > out.largest {
            out.largest = (a - b).abs();
        }
        if a.abs() > out.of {
            out.of = a.abs();
        }
    }
    out
}

fn number(dtype: DType, bytes: &[u8], at: usize) -> f64 {
    let size = dtype.size();
    let mut raw = [0; 8];
    raw[..size].copy_from_slice(&bytes[at * size..][..size]);
    let word = u64::from_le_bytes(raw);
    match dtype {
        DType::F32 => f64::from(f32::from_bits(word as u32)),
        DType::Bf16 => bf16::from_bits(word as u16).to_f64(),
        DType::F16 => f16::from_bits(word as u16).to_f64(),
        DType::E4m3 => f64::from(E4m3::from_bits(word as u8).to_f32()),
        DType::E5m2 => f64::from(E5m2::from_bits(word as u8).to_f32()),
        DType::Ue8m0 => f64::from(Ue8m0::from_bits(word as u8).to_f32()),
        DType::I32 => f64::from(word as i32),
        DType::I64 => word as i64 as f64,
        _ => word as f64,
    }
}
