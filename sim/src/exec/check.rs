//! Is a launch possible at all?

/// Blocks of a cluster that every card of the architecture can hold, and those that some can.
const PORTABLE: u32 = 8;
const MOST: u32 = 16;

use crate::lower::program::Program;
use crate::machine::Launch;
use crate::profile::CardProfile;

/// The parameter block and the cluster's shape, if it is.
pub(super) fn launch(
    profile: &CardProfile,
    program: &Program,
    launch: &Launch<'_>,
) -> Result<(Vec<u8>, [u32; 3]), String> {
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
    let cluster = cluster(profile, program, launch)?;
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
    Ok((out, cluster))
}

fn cluster(profile: &CardProfile, program: &Program, launch: &Launch<'_>) -> Result<[u32; 3], String> {
    let asked = launch.cluster != [1; 3];
    let cluster = match program.required_cluster {
        Some(required) if asked && launch.cluster != required => {
            return Err(format!(
                "clusters of {:?} blocks where the kernel requires {required:?}",
                launch.cluster
            ));
        }
        Some(required) => required,
        None if program.explicit_cluster && !asked => {
            return Err("the kernel wants a cluster size, and the launch gives none".into());
        }
        None => launch.cluster,
    };
    let size = cluster.iter().try_fold(1u32, |size, &n| size.checked_mul(n)).unwrap_or(u32::MAX);
    let most = if profile.non_portable_clusters { MOST } else { PORTABLE };
    if size == 0 || size > most {
        let how = if size > PORTABLE && size <= MOST {
            "; up to 16 when the card's profile allows clusters that are not portable"
        } else {
            ""
        };
        return Err(format!("clusters of {cluster:?} blocks: 1 to {most} blocks are possible{how}"));
    }
    if let Some(most) = program.max_cluster_rank.filter(|&most| size > most) {
        return Err(format!("clusters of {size} blocks of a kernel compiled for at most {most}"));
    }
    if (0..3).any(|axis| !launch.grid[axis].is_multiple_of(cluster[axis])) {
        return Err(format!(
            "a grid of {:?} blocks is no whole number of clusters of {cluster:?}",
            launch.grid
        ));
    }
    Ok(cluster)
}
