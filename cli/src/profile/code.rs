//! What a cubin says about a kernel, and its machine code where a disassembler is at hand.

use super::sass::{self, SassLoop};
use super::tools;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol};
use std::process::Command;

/// Registers and stack of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of stack of a thread: spilled registers, and arrays that are indexed at run time.
    pub stack: u32,
}

/// The machine code of a kernel.
pub struct MachineCode {
    pub instructions: usize,
    /// Loads and stores of local memory: spills, and accesses to arrays on the stack.
    pub local_accesses: usize,
    /// What its stores to local memory write if each runs once: what ptxas calls spill stores. Where there are loads
    /// alone, what they read.
    pub spill_bytes: u32,
    pub loops: Vec<SassLoop>,
}

/// Attributes of `.nv.info`, each a format, a number, a size and a value.
const FORMAT_SIZED: u8 = 4;
const REGISTER_COUNT: u8 = 0x2f;
const FRAME_SIZE: u8 = 0x11;

/// What the cubin's `.nv.info` says about an entry.
pub fn resources(cubin: &[u8], entry: &str) -> Result<Resources, String> {
    let damaged = |e: object::Error| format!("the cubin is damaged: {e}");
    let file = ElfFile64::<Endianness>::parse(cubin).map_err(damaged)?;
    if file.elf_header().e_machine(file.endian()) != elf::EM_CUDA {
        return Err("the cubin is for another machine".into());
    }
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(entry) && symbol.kind() == object::SymbolKind::Text)
        .ok_or_else(|| format!("the cubin has no entry `{entry}`"))?;
    let index = u32::try_from(symbol.index().0).map_err(|e| e.to_string())?;
    let section = file.section_by_name(".nv.info").ok_or("the cubin has no .nv.info")?;
    let data = section.data().map_err(damaged)?;
    let (mut registers, mut stack) = (None, 0);
    let mut rest = data;
    while let [format, attribute, low, high, tail @ ..] = rest {
        let size = if *format == FORMAT_SIZED { usize::from(u16::from_le_bytes([*low, *high])) } else { 0 };
        let Some((value, after)) = tail.split_at_checked(size) else {
            return Err("the cubin's .nv.info is cut short".into());
        };
        rest = after;
        let word = |at: usize| value.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if let (Some(about), Some(number)) = (word(0), word(4))
            && about == index
        {
            match *attribute {
                REGISTER_COUNT => registers = Some(number),
                FRAME_SIZE => stack = number,
                _ => {}
            }
        }
    }
    let registers = registers.ok_or_else(|| format!("the cubin does not say what `{entry}` needs"))?;
    Ok(Resources { registers, stack })
}

/// Makes machine code of PTX, as the target that the PTX names.
pub fn assemble(ptx: &str) -> Result<Vec<u8>, String> {
    let ptxas = tools::find("ptxas").ok_or("ptxas is not at hand")?;
    let target = ptx
        .lines()
        .find_map(|line| line.trim().strip_prefix(".target"))
        .and_then(|rest| rest.split([',', ' ', '\t']).find(|word| word.starts_with("sm_")))
        .ok_or("the PTX names no target")?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (source, cubin) = (folder.path().join("kernel.ptx"), folder.path().join("kernel.cubin"));
    std::fs::write(&source, ptx).map_err(|e| e.to_string())?;
    tools::run(Command::new(ptxas).arg(format!("-arch={target}")).arg(&source).arg("-o").arg(&cubin))?;
    std::fs::read(&cubin).map_err(|e| e.to_string())
}

/// Disassembles an entry of a cubin.
pub fn machine_code(cubin: &[u8], entry: &str) -> Result<MachineCode, String> {
    let cuobjdump = tools::find("cuobjdump").ok_or("cuobjdump is not at hand")?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let file = folder.path().join("kernel.cubin");
    std::fs::write(&file, cubin).map_err(|e| e.to_string())?;
    let mut command = Command::new(&cuobjdump);
    if let Some(folder) = cuobjdump.parent() {
        // cuobjdump calls nvdisasm, by PATH.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders).map_err(|e| e.to_string())?);
    }
    let text = tools::run(command.arg("-sass").arg("-fun").arg(entry).arg(&file))?;
    let code = sass::parse(&text);
    if code.is_empty() {
        return Err(format!("cuobjdump shows no code of `{entry}`"));
    }
    let bytes = |stem| code.iter().filter(|i| i.stem() == stem).map(sass::Sass::bytes).sum::<u32>();
    Ok(MachineCode {
        spill_bytes: if bytes("STL") > 0 { bytes("STL") } else { bytes("LDL") },
        instructions: code.iter().filter(|instruction| instruction.opcode != "NOP").count(),
        local_accesses: code.iter().filter(|i| matches!(i.stem(), "LDL" | "STL")).count(),
        loops: sass::loops(&code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cubin_is_refused() {
        assert!(resources(b"junk", "k").unwrap_err().contains("damaged"));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(resources(&own, "k").unwrap_err().contains("another machine"));
    }
}
