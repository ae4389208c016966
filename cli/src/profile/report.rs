//! What a profile of an operation holds, before it is printed.

use super::against::Against;
use super::code::{self, MachineCode, Resources};
use super::features::Features;
use super::sass::SassLoop;
use crate::cases::{Case, Operand, Prepared};
use narrowgauge::Device;
use narrowgauge::sim::Class;
use narrowgauge::sim::profiler::{LineProfile, Profile, RoleProfile};
use std::cmp::Reverse;
use std::sync::Arc;

/// A profile of one operation.
pub struct Report {
    pub name: String,
    pub device: String,
    /// Multiply-accumulates that the operation needs.
    pub ideal_macs: u64,
    pub operands: Vec<Traffic>,
    pub kernels: Vec<Kernel>,
    /// Another kernel on the same operands.
    pub against: Option<Against>,
}

/// Bytes between the multiprocessors and one operand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    pub name: String,
    /// Read, written, or both.
    pub how: &'static str,
    /// What must move once.
    pub ideal: u64,
    /// Sectors touched, each once a launch.
    pub unique: u64,
    /// Sectors touched, every time.
    pub requested: u64,
}

/// One launch of a kernel.
pub struct Kernel {
    pub profile: Profile,
    pub ptx: Arc<str>,
    pub resources: Result<Resources, String>,
    pub code: Result<MachineCode, String>,
}

const SECTOR: u64 = 32;
/// Loops that are less alike than this are not the same: ptxas never changes that much.
const ALIKE: f64 = 0.8;

impl Report {
    /// Of everything that the device recorded.
    pub fn new(device: &Device, case: &Case, prepared: &Prepared) -> Result<Self, String> {
        let mut kernels = Vec::new();
        for record in device.records().map_err(|e| e.to_string())? {
            let image = device.image(&record.kernel).map_err(|e| e.to_string())?;
            let cubin = image.cubin.ok_or("there is no cubin beside the PTX".to_owned());
            for profile in record.profiles {
                kernels.push(Kernel::new(profile, image.ptx.clone(), &cubin));
            }
        }
        let profiles: Vec<&Profile> = kernels.iter().map(|kernel| &kernel.profile).collect();
        let operands =
            prepared.operands.0.iter().map(|operand| (operand, operand.address)).collect::<Vec<_>>();
        Ok(Self {
            name: case.name.clone(),
            device: device.name().to_owned(),
            ideal_macs: (case.flops / 2.0) as u64,
            operands: traffic(&operands, &profiles),
            kernels,
            against: None,
        })
    }
}

impl Kernel {
    pub fn new<C: AsRef<[u8]>>(profile: Profile, ptx: Arc<str>, cubin: &Result<C, String>) -> Self {
        let entry = profile.kernel.as_str();
        Self {
            resources: match cubin {
                Ok(cubin) => code::resources(cubin.as_ref(), entry),
                Err(why) => Err(why.clone()),
            },
            code: match cubin {
                Ok(cubin) => code::machine_code(cubin.as_ref(), entry),
                Err(why) => Err(why.clone()),
            },
            profile,
            ptx,
        }
    }

    /// What the main loop of a role is good for.
    pub fn role_name(&self, role: &RoleProfile) -> &'static str {
        match role.main_loop {
            None => "no loop",
            Some(_) if role.in_loop.class(Class::Tensor) > 0 => "tensor loop",
            Some(_) if role.in_loop.class(Class::Bulk) > 0 => "copy loop",
            Some(_) => "loop",
        }
    }

    /// The loop of machine code that a role's main loop became, and how many of its trips that covers, as far as what
    /// both do can tell; none where no loop is alike.
    pub fn sass_loop(&self, role: &RoleProfile) -> Option<(&SassLoop, usize)> {
        let main = role.main_loop?;
        let mut features = Features::default();
        for line in self.profile.lines.iter().filter(|line| line.innermost == Some(main)) {
            features.ptx(line.class, &line.opcode);
        }
        let likeness = |found: &&SassLoop| features.likeness(&found.features);
        let trips = |found: &SassLoop| features.times_in(&found.features);
        // ptxas merges a few instructions, and never most of them.
        let whole = |found: &&SassLoop| likeness(found) >= ALIKE && trips(found) >= 0.6;
        let loops = self.code.as_ref().ok()?.loops.iter().filter(whole);
        // Of equals the innermost.
        let best = loops
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)).then(b.instructions.cmp(&a.instructions)))?;
        Some((best, trips(best).round().max(1.0) as usize))
    }

    /// The lines that were executed most; of equals, those that do more.
    pub fn hottest(&self, most: usize) -> Vec<&LineProfile> {
        let mut lines: Vec<_> = self.profile.lines.iter().filter(|line| line.executions > 0).collect();
        lines.sort_by_key(|line| {
            let sectors = line.load_sectors + line.store_sectors;
            Reverse((line.executions, line.tensor_macs, sectors, line.bank_conflicts, line.waits))
        });
        lines.truncate(most);
        lines
    }

    /// The text of a line of its PTX.
    pub fn line(&self, number: u32) -> &str {
        (number as usize).checked_sub(1).and_then(|at| self.ptx.lines().nth(at)).unwrap_or_default().trim()
    }
}

/// Traffic of every operand at its address, and of everything else.
pub fn traffic(operands: &[(&Operand, u64)], profiles: &[&Profile]) -> Vec<Traffic> {
    let mut all: Vec<Traffic> = operands
        .iter()
        .map(|(operand, _)| Traffic {
            name: operand.name.to_owned(),
            how: "untouched",
            ideal: operand.ideal,
            ..Traffic::default()
        })
        .collect();
    let mut other = Traffic { name: "other".to_owned(), ..Traffic::default() };
    for region in profiles.iter().flat_map(|profile| &profile.regions) {
        let inside = |address: u64| (region.address..region.address + region.bytes.max(1)).contains(&address);
        let to = match operands.iter().position(|(_, address)| inside(*address)) {
            Some(index) => &mut all[index],
            None => &mut other,
        };
        to.unique += SECTOR * (region.unique_loads + region.unique_stores);
        to.requested += SECTOR * (region.load_sectors + region.store_sectors);
        let how = match (region.load_sectors > 0, region.store_sectors > 0) {
            (true, true) => "read, written",
            (true, false) => "read",
            (false, _) => "written",
        };
        to.how =
            if to.requested == 0 || ["untouched", "", how].contains(&to.how) { how } else { "read, written" };
    }
    if other.requested > 0 {
        all.push(other);
    }
    all
}
