//! Is a launch possible at all?

use crate::lower::program::Program;
use crate::machine::Launch;
use crate::profile::CardProfile;

/// The parameter block, if it is.
pub(super) fn launch(
    profile: &CardProfile,
    program: &Program,
    launch: &Launch<'_>,
) -> Result<Vec<u8>, String> {
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    if threads == 0 || threads > 1024 {
        return Err(format!("{threads} threads in a block, 1 to 1024 are possible"));
    }
    let [x, y, z] = launch.grid;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65_535 || z > 65_535 {
        return Err(format!("a grid of {x}×{y}×{z} blocks"));
    }
    if let Some(required) = program.required_threads
        && required != launch.block
    {
        return Err(format!("blocks of {:?} threads where the kernel requires {required:?}", launch.block));
    }
    if let Some(most) = program.max_threads.filter(|&most| threads > u64::from(most)) {
        return Err(format!("{threads} threads in a block of a kernel compiled for at most {most}"));
    }
    if launch.cluster != [1, 1, 1] {
        return Err(format!("clusters of {:?} blocks are not simulated yet", launch.cluster));
    }
    let shared = u64::from(program.static_shared) + u64::from(launch.shared_bytes);
    if shared > u64::from(profile.shared_per_block) {
        return Err(format!("{shared} bytes of shared memory, {} are possible", profile.shared_per_block));
    }
    if launch.params.len() != program.params.len() {
        return Err(format!("{} parameters, the kernel has {}", launch.params.len(), program.params.len()));
    }
    let mut out = vec![0; program.param_bytes as usize];
    for (i, (bytes, &(at, size))) in launch.params.iter().zip(&program.params).enumerate() {
        if bytes.len() != size as usize {
            return Err(format!("parameter {i} has {} bytes, the kernel's has {size}", bytes.len()));
        }
        out[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    Ok(out)
}
