//! Modifiers that each opcode of memory and synchronisation may have: what nobody reads must at least be known, since a
//! modifier that is passed over may be one that changes the result.

/// Lists whose members may occur, in any order and number.
type Known = &'static [&'static [&'static str]];

const SCALARS: &[&str] =
    &["b8", "u8", "s8", "b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64"];
const HALVES: &[&str] = &["f16", "bf16", "f16x2", "bf16x2", "noftz"];
const VECTORS: &[&str] = &["v2", "v4", "v8"];
const SCOPES: &[&str] = &["cta", "cluster", "gpu", "sys"];
const SPACES: &[&str] = &[
    "global",
    "const",
    "local",
    "shared",
    "shared::cta",
    "shared::cluster",
    "param",
    "param::entry",
    "param::func",
];
const CACHES: &[&str] = &[
    "ca",
    "cg",
    "cs",
    "cv",
    "lu",
    "nc",
    "wb",
    "wt",
    "L1::evict_first",
    "L1::evict_last",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::no_allocate",
    "L2::cache_hint",
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
    "L2::64B",
    "L2::128B",
    "L2::256B",
];
const OPERATIONS: &[&str] = &["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"];
const COUNTED: &[&str] = &["async", "weak", "mbarrier::complete_tx::bytes"];

fn known(opcode: &str) -> Option<Known> {
    Some(match opcode {
        "ld" | "ldu" => &[
            &["weak", "volatile", "relaxed", "acquire", "mmio", "b128"],
            SCALARS,
            VECTORS,
            SCOPES,
            SPACES,
            CACHES,
        ],
        "st" => &[
            &["volatile", "relaxed", "release", "mmio", "b128"],
            COUNTED,
            SCALARS,
            VECTORS,
            SCOPES,
            SPACES,
            CACHES,
        ],
        "atom" | "red" => &[
            &["relaxed", "acquire", "release", "acq_rel", "L2::cache_hint", "b128"],
            OPERATIONS,
            COUNTED,
            SCALARS,
            HALVES,
            VECTORS,
            SCOPES,
            SPACES,
        ],
        "ldmatrix" | "stmatrix" => {
            &[&["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta", "b16"]]
        }
        "fence" => &[
            &["sc", "acq_rel", "acquire", "release", "proxy", "alias", "async", "mbarrier_init"],
            &["tensormap::generic", "async::generic", "global", "shared::cta", "shared::cluster"],
            &["sync_restrict::shared::cta", "sync_restrict::shared::cluster"],
            SCOPES,
        ],
        "membar" => &[&["cta", "gl", "sys", "proxy", "alias"]],
        "bar" | "barrier" => &[
            &["cta", "cluster", "warp", "sync", "arrive", "wait", "red", "aligned", "popc", "and", "or"],
            &["u32", "pred", "acquire", "release", "relaxed"],
        ],
        "mbarrier" => &[
            &["init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx", "test_wait", "try_wait"],
            &["pending_count", "noComplete", "parity", "relaxed", "acquire", "release", "cta", "cluster"],
            &["shared", "shared::cta", "shared::cluster", "b64"],
        ],
        "shfl" => &[&["sync", "up", "down", "bfly", "idx", "b32"]],
        "vote" => &[&["sync", "all", "any", "uni", "ballot", "pred", "b32"]],
        "match" => &[&["any", "all", "sync", "b32", "b64"]],
        "redux" => &[&["sync", "add", "min", "max", "and", "or", "xor", "u32", "s32", "b32"]],
        "elect" => &[&["sync"]],
        "activemask" => &[&["b32"]],
        "prefetch" | "prefetchu" => {
            &[&["L1", "L2", "L2::evict_last", "L2::evict_normal", "tensormap"], SPACES]
        }
        "applypriority" | "discard" => &[&["global", "L2", "L2::evict_normal"]],
        "nanosleep" => &[&["u32"]],
        "griddepcontrol" => &[&["wait", "launch_dependents"]],
        "setmaxnreg" => &[&["inc", "dec", "sync", "aligned", "u32"]],
        "cp" => &[
            &["async", "bulk", "tensor", "1d", "2d", "3d", "4d", "5d", "tile", "prefetch", "L2", "read"],
            &["mbarrier::complete_tx::bytes", "bulk_group", "multicast::cluster", "commit_group"],
            &["wait_group", "wait_all", "mbarrier", "arrive", "noinc", "reduce", "noftz"],
            OPERATIONS,
            SCALARS,
            HALVES,
            SPACES,
            CACHES,
        ],
        _ => return None,
    })
}

/// The first modifier of an opcode that means nothing to it.
pub(super) fn stranger<'a>(opcode: &str, modifiers: &[&'a str]) -> Option<&'a str> {
    let known = known(opcode)?;
    let named = |m: &&str| known.iter().any(|list| list.contains(m));
    // im2col has an answer of its own.
    modifiers.iter().copied().find(|m| !named(m) && !m.starts_with("im2col"))
}
