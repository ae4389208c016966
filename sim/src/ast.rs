//! The syntax tree of one PTX module, as close to the text as the executor can use.

/// A whole module.
#[derive(Debug, Clone, PartialEq)]
pub struct Ast {
    /// `.version`, major and minor.
    pub version: (u32, u32),
    /// `.target`, first name (`sm_90a`).
    pub target: String,
    /// Module-scope `.global`, `.const` and `.shared` variables.
    pub variables: Vec<Variable>,
    /// Entries and functions that have a body; pure declarations are dropped.
    pub functions: Vec<Function>,
}

/// State space of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// `.reg`
    Reg,
    /// `.param`
    Param,
    /// `.global`
    Global,
    /// `.const`
    Const,
    /// `.shared`
    Shared,
    /// `.local`
    Local,
}

/// Scalar type of a variable or register, by width; the instruction says how the bits are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Width {
    /// `.pred`
    Pred,
    /// `.b8`, `.u8`, `.s8`
    B8,
    /// `.b16`, `.u16`, `.s16`, `.f16`, `.bf16`
    B16,
    /// `.b32`, `.u32`, `.s32`, `.f32`, `.f16x2`, `.bf16x2`
    B32,
    /// `.b64`, `.u64`, `.s64`, `.f64`
    B64,
    /// `.b128`
    B128,
}

/// A register, parameter or memory variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// Name as the body's operands spell it: names in inner scopes are made unique by the parser.
    pub name: String,
    /// Where it lives.
    pub space: Space,
    /// Element width.
    pub width: Width,
    /// Whether the declared type is floating point.
    pub float: bool,
    /// Bytes in all (0 for `extern .shared x[]`, whose size is the launch's dynamic shared memory).
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// `extern`.
    pub external: bool,
    /// Initial bytes, or empty. Addresses of other variables are in `relocations`.
    pub init: Vec<u8>,
    /// (byte offset in `init`, symbol, addend) of pointer-sized initialisers.
    pub relocations: Vec<(u64, String, i64)>,
    /// Line of the declaration.
    pub line: u32,
}

/// An `.entry` or `.func` with a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Name.
    pub name: String,
    /// `.entry` rather than `.func`.
    pub entry: bool,
    /// Return parameters of a `.func`.
    pub returns: Vec<Variable>,
    /// Parameters in order.
    pub params: Vec<Variable>,
    /// Registers (ranges such as `%r<5>` expanded on first use or in full), and `.shared`/`.local`/`.param` variables
    /// of the body, inner scopes included.
    pub variables: Vec<Variable>,
    /// `.maxntid`, `.reqntid`, `.reqnctapercluster`, `.minnctapersm`, `.maxnreg` … with their numbers.
    pub directives: Vec<(String, Vec<u32>)>,
    /// Instructions in order. Labels are resolved: `labels[name]` is an index into this list (may equal its length).
    pub body: Vec<Instruction>,
    /// Unique label name to index in `body`.
    pub labels: std::collections::HashMap<String, usize>,
    /// `.branchtargets` / `.calltargets` lists by label, for `brx.idx` and indirect calls.
    pub target_lists: std::collections::HashMap<String, Vec<String>>,
    /// Line of the header.
    pub line: u32,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Guard: (negated, predicate register).
    pub guard: Option<(bool, String)>,
    /// The opcode split at dots, without them: `["ld", "param", "u64"]`. `shared::cta` stays one part.
    pub opcode: Vec<String>,
    /// Operands in order. Destination pairs `d|p` are one [`Operand::Pair`].
    pub operands: Vec<Operand>,
    /// Line in the PTX text, from 1.
    pub line: u32,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register or special register (`%tid.x`, `%clock64`), by its unique name.
    Register(String),
    /// `!%p`.
    Not(String),
    /// `_`.
    Sink,
    /// An integer literal (any base, sign applied; `U` suffix dropped), as the 64 bits it denotes.
    Integer(i64),
    /// `0fXXXXXXXX` or a decimal float, as f32 bits where `0f`, else f64 bits.
    Float32(u32),
    /// `0dXXXXXXXXXXXXXXXX` or a decimal float literal.
    Float64(u64),
    /// A symbol used as a value: variable, function, label; with an addend (`sym+4`).
    Symbol(String, i64),
    /// `[base+offset]`; base is a register, a symbol or absent (`[16]`).
    Address(Option<Box<Operand>>, i64),
    /// `{a, b, …}`.
    Vector(Vec<Operand>),
    /// `d|p`.
    Pair(Box<Operand>, Box<Operand>),
    /// `[map, {c0, c1}]`: tensor address: map operand, then coordinates (and im2col offsets, if any).
    Tensor(Box<Operand>, Vec<Operand>),
    /// Call target's parenthesised list `(a, b)`.
    List(Vec<Operand>),
}
