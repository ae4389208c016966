//! The opcodes that the simulator knows, and which family lowers each.

/// Who lowers an opcode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Family {
    /// One to three sources to one result, lane by lane.
    Arithmetic,
    /// Results that are predicates, or that a predicate chooses.
    Predicate,
    Move,
    Convert,
    /// Memory.
    Transfer,
    Control,
    /// Barriers, warp-wide and asynchronous operations.
    Sync,
}

use Family::{Arithmetic, Control, Convert, Move, Predicate, Sync, Transfer};

const TABLE: &[(Family, &[&str])] = &[
    (
        Arithmetic,
        &[
            "abs",
            "add",
            "addc",
            "and",
            "bfe",
            "bfi",
            "bfind",
            "bmsk",
            "brev",
            "clz",
            "cnot",
            "copysign",
            "cos",
            "div",
            "dp2a",
            "dp4a",
            "ex2",
            "fma",
            "fns",
            "lg2",
            "lop3",
            "mad",
            "mad24",
            "madc",
            "max",
            "min",
            "mul",
            "mul24",
            "neg",
            "not",
            "or",
            "popc",
            "prmt",
            "rcp",
            "rem",
            "rsqrt",
            "sad",
            "shf",
            "shl",
            "shr",
            "sin",
            "sqrt",
            "sub",
            "subc",
            "szext",
            "tanh",
            "vabsdiff4",
            "xor",
        ],
    ),
    (Predicate, &["selp", "set", "setp", "slct", "testp"]),
    (Move, &["createpolicy", "cvta", "getctarank", "isspacep", "mapa", "mov", "prefetch", "prefetchu"]),
    (Convert, &["cvt"]),
    (Transfer, &["atom", "ld", "ldmatrix", "ldu", "red", "st", "stmatrix", "tensormap"]),
    (Control, &["bra", "brkpt", "brx", "call", "exit", "ret", "trap"]),
    (
        Sync,
        &[
            "activemask",
            "applypriority",
            "bar",
            "barrier",
            "cp",
            "discard",
            "elect",
            "fence",
            "griddepcontrol",
            "match",
            "mbarrier",
            "membar",
            "mma",
            "movmatrix",
            "nanosleep",
            "pmevent",
            "redux",
            "setmaxnreg",
            "shfl",
            "vote",
            "wgmma",
            "wmma",
        ],
    ),
];

/// Names of the opcodes that [`Module::parse`](crate::Module::parse) accepts in some form, without their modifiers.
pub fn opcodes() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|(_, names)| names.iter().copied())
}

/// The family of an opcode's name.
pub(super) fn family(name: &str) -> Option<Family> {
    TABLE.iter().find(|(_, names)| names.contains(&name)).map(|(family, _)| *family)
}
