//! What an opcode's spelling says about memory order.

use super::lanes::Scope;

/// Order of one opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// An ordinary access, or nothing to do with memory.
    Plain,
    /// Atomic, volatile, relaxed or stronger.
    Strong { scope: Scope, acquire: bool, release: bool },
    /// A load of what nothing writes in the same launch.
    Constant,
    /// Synchronises without a scope of its own to look at; only `.relaxed` takes that away.
    Relaxed,
    /// `fence`, `membar`.
    Fence(Scope),
    /// `fence.proxy.async`, of shared and of global memory.
    Proxy { shared: bool, global: bool },
    /// `fence.proxy.tensormap`: a fence, and what it acquires may be read as tensor maps.
    Map { scope: Scope, acquire: bool },
    /// `fence.mbarrier_init`.
    BarrierInit,
}

impl Order {
    pub(crate) fn of(opcode: &str) -> Self {
        let mut parts = opcode.split('.');
        let name = parts.next().unwrap_or_default();
        let modifiers: Vec<&str> = parts.collect();
        let has = |m: &str| modifiers.contains(&m);
        let scope = modifiers.iter().find_map(|m| match *m {
            "cta" => Some(Scope::Block),
            "cluster" => Some(Scope::Cluster),
            "gpu" | "sys" => Some(Scope::Card),
            _ => None,
        });
        match name {
            "fence" if has("proxy") => match modifiers.get(1) {
                Some(&"async") => {
                    let space = modifiers.get(2).copied();
                    Self::Proxy {
                        shared: space != Some("global"),
                        global: matches!(space, None | Some("global")),
                    }
                }
                Some(&"tensormap::generic") => {
                    Self::Map { scope: scope.unwrap_or(Scope::Card), acquire: has("acquire") }
                }
                _ => Self::Plain,
            },
            "tensormap" if has("cp_fenceproxy") => {
                Self::Map { scope: scope.unwrap_or(Scope::Card), acquire: false }
            }
            "fence" if has("mbarrier_init") => Self::BarrierInit,
            "fence" => Self::Fence(scope.unwrap_or(Scope::Card)),
            "membar" if has("proxy") => Self::Plain,
            "membar" => Self::Fence(scope.unwrap_or(Scope::Card)),
            "atom" | "red" => Self::Strong {
                scope: scope.unwrap_or(Scope::Card),
                acquire: has("acquire") || has("acq_rel"),
                release: has("release") || has("acq_rel"),
            },
            "ld" | "st" if has("volatile") || has("mmio") => {
                Self::Strong { scope: Scope::Card, acquire: has("acquire"), release: has("release") }
            }
            "ld" | "st" if has("relaxed") || has("acquire") || has("release") => Self::Strong {
                scope: scope.unwrap_or(Scope::Card),
                acquire: has("acquire"),
                release: has("release"),
            },
            "ld" if has("nc") => Self::Constant,
            "ldu" => Self::Constant,
            "mbarrier" | "barrier" if has("relaxed") => Self::Relaxed,
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let strong = |scope, acquire, release| Order::Strong { scope, acquire, release };
        for (opcode, want) in [
            ("ld.global.nc.f32", Order::Constant),
            ("ld.global.f32", Order::Plain),
            ("ld.weak.shared.u32", Order::Plain),
            ("ld.volatile.global.u32", strong(Scope::Card, false, false)),
            ("ld.acquire.gpu.global.u32", strong(Scope::Card, true, false)),
            ("st.release.cta.shared.u32", strong(Scope::Block, false, true)),
            ("st.relaxed.sys.global.u32", strong(Scope::Card, false, false)),
            ("atom.global.add.u32", strong(Scope::Card, false, false)),
            ("atom.acq_rel.cluster.shared::cluster.inc.u32", strong(Scope::Cluster, true, true)),
            ("red.release.gpu.global.add.u32", strong(Scope::Card, false, true)),
            ("membar.cta", Order::Fence(Scope::Block)),
            ("membar.gl", Order::Fence(Scope::Card)),
            ("fence.acq_rel.cluster", Order::Fence(Scope::Cluster)),
            ("fence.sc.sys", Order::Fence(Scope::Card)),
            ("fence.proxy.async", Order::Proxy { shared: true, global: true }),
            ("fence.proxy.async.shared::cta", Order::Proxy { shared: true, global: false }),
            ("fence.proxy.async.global", Order::Proxy { shared: false, global: true }),
            ("fence.proxy.alias", Order::Plain),
            ("fence.proxy.tensormap::generic.acquire.gpu", Order::Map { scope: Scope::Card, acquire: true }),
            (
                "fence.proxy.tensormap::generic.release.cta",
                Order::Map { scope: Scope::Block, acquire: false },
            ),
            ("fence.mbarrier_init.release.cluster", Order::BarrierInit),
            ("mbarrier.arrive.shared::cta.b64", Order::Plain),
            ("mbarrier.arrive.relaxed.cluster.shared::cluster.b64", Order::Relaxed),
            ("barrier.cluster.arrive.relaxed.aligned", Order::Relaxed),
        ] {
            assert_eq!(Order::of(opcode), want, "{opcode}");
        }
    }
}
