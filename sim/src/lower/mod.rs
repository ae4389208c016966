//! From the syntax tree to operations: registers get numbers, variables get offsets, opcodes get functions.

mod arithmetic;
mod carry;
pub(crate) mod control;
mod convert;
mod copies;
mod instruction;
mod maps;
mod matrices;
mod modifiers;
mod moves;
mod opcodes;
mod operands;
mod predicates;
pub(crate) mod program;
mod reductions;
pub(crate) mod rows;
mod sync;
mod transfer;
mod values;
mod wmma;

pub use opcodes::opcodes;

use crate::ast::{self, Ast, Function, Operand, Width};
use crate::machine::LoadError;
use crate::memory::shared::WINDOW;
use program::{Kind, Op, Program, SP};
use std::collections::HashMap;

/// A module variable, as memory of the card.
#[derive(Debug)]
pub(crate) struct ModuleVariable {
    pub(crate) size: u64,
    pub(crate) init: Vec<u8>,
    pub(crate) relocations: Vec<(u64, usize, i64)>,
}

/// Lowers every entry of a module.
pub(crate) fn module(
    ast: &Ast,
    only: Option<&str>,
) -> Result<(Vec<ModuleVariable>, Vec<Program>), LoadError> {
    let places: HashMap<&str, usize> =
        memory_variables(ast).enumerate().map(|(i, v)| (v.name.as_str(), i)).collect();
    let mut variables = Vec::new();
    for variable in memory_variables(ast) {
        let (mut relocations, mut init) = (Vec::new(), variable.init.clone());
        for (at, symbol, addend) in &variable.relocations {
            if let (Some(code), Some(place)) =
                (code_address(ast, symbol), init.get_mut(*at as usize..*at as usize + 8))
            {
                place.copy_from_slice(&code.to_le_bytes());
                continue;
            }
            let Some(&index) = places.get(symbol.as_str()) else {
                return Err(LoadError {
                    line: variable.line,
                    what: format!("initialiser names the unknown symbol `{symbol}`"),
                });
            };
            relocations.push((*at, index, *addend));
        }
        variables.push(ModuleVariable { size: variable.size, init, relocations });
    }
    let mut programs = Vec::new();
    for (index, function) in ast.functions.iter().enumerate() {
        if function.entry && only.is_none_or(|name| function.name == name) {
            programs.push(Lowering::new(ast, &places).program(index)?);
        }
    }
    Ok((variables, programs))
}

fn memory_variables(ast: &Ast) -> impl Iterator<Item = &ast::Variable> {
    ast.variables.iter().filter(|v| matches!(v.space, ast::Space::Global | ast::Space::Const))
}

/// Where functions have their addresses: outside all memory.
const CODE: u64 = 0xc0de << 48;

/// The address of a function that may be called through a pointer.
fn code_address(ast: &Ast, name: &str) -> Option<u64> {
    let index = ast.functions.iter().position(|f| !f.entry && f.name == name)?;
    Some(CODE + 16 * index as u64)
}

/// Bytes of an entry's parameters.
const PARAM_BYTES: u32 = 1 << 15;
/// Bytes of a thread's local memory.
const LOCAL_BYTES: u32 = 1 << 19;
/// Bytes of static shared memory: a bound for reading a module, and the card's own is a launch's.
const SHARED_BYTES: u32 = 1 << 20;
/// Calls within each other.
const CALLS: usize = 256;

/// A register of some class.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Register {
    Predicate(u32),
    R32(u32),
    R64(u32),
}

/// Where a named variable lives.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Absolute shared address.
    Shared(u32),
    /// Offset in the thread's local memory.
    Local(u32),
    /// Offset in the parameter block.
    Param(u32),
    /// Index of a module variable.
    Module(u32),
}

pub(crate) struct Lowering<'a> {
    ast: &'a Ast,
    ops: Vec<Op>,
    opcodes: Vec<String>,
    opcode_index: HashMap<String, u32>,
    names32: Vec<String>,
    names64: Vec<String>,
    /// Which of `names32` are declared with at most 16 bits.
    narrow: Vec<bool>,
    predicates: u32,
    module: HashMap<String, Place>,
    /// Of the function that is being lowered.
    registers: HashMap<String, Register>,
    places: HashMap<String, Place>,
    labels: HashMap<String, u32>,
    shared: u32,
    local: u32,
    /// Entry op, and offsets and sizes of returns and parameters, of the functions lowered so far.
    functions: HashMap<String, Callee>,
    line: u32,
}

#[derive(Debug, Clone)]
struct Callee {
    start: u32,
    returns: Vec<(u32, u32)>,
    params: Vec<(u32, u32)>,
}

/// Who is called.
enum Target {
    Name(String),
    Pointer(program::S64),
}

/// A call to patch: operation, callee, arguments, results, and the names in scope.
type Call = (usize, Target, Vec<Operand>, Vec<Operand>, HashMap<String, Place>);

type Lowered<T> = Result<T, LoadError>;

impl<'a> Lowering<'a> {
    fn new(ast: &'a Ast, memory: &HashMap<&str, usize>) -> Self {
        let module = memory.iter().map(|(name, &i)| ((*name).to_owned(), Place::Module(i as u32))).collect();
        Self {
            ast,
            ops: Vec::new(),
            opcodes: Vec::new(),
            opcode_index: HashMap::new(),
            names32: Vec::new(),
            names64: Vec::new(),
            narrow: Vec::new(),
            predicates: carry::CONDITION_CODE + 1,
            module,
            registers: HashMap::new(),
            places: HashMap::new(),
            labels: HashMap::new(),
            shared: 0,
            local: 0,
            functions: HashMap::new(),
            line: 0,
        }
    }

    fn error<T>(&self, what: impl Into<String>) -> Lowered<T> {
        Err(LoadError { line: self.line, what: what.into() })
    }

    fn program(mut self, entry: usize) -> Lowered<Program> {
        let ast = self.ast;
        let function = &ast.functions[entry];
        // Static shared variables of the module; the unsized one begins where they end.
        let mut dynamic = Vec::new();
        for variable in ast.variables.iter().filter(|v| v.space == ast::Space::Shared) {
            if variable.size == 0 {
                dynamic.push(variable);
            } else {
                let at = self.reserve_shared(variable)?;
                self.module.insert(variable.name.clone(), Place::Shared(at));
            }
        }
        let order = self.call_order(entry)?;
        // Functions first: their addresses must be known to the callers.
        let mut params = Vec::new();
        let mut param_bytes = 0;
        for variable in &function.params {
            let (at, end) = self.room(param_bytes, variable, PARAM_BYTES)?;
            params.push((at, variable.size as u32));
            param_bytes = end;
        }
        for &index in &order {
            for variable in ast.functions[index].variables.iter().filter(|v| v.space == ast::Space::Shared) {
                if variable.size == 0 {
                    dynamic.push(variable);
                } else {
                    let at = self.reserve_shared(variable)?;
                    self.module.insert(variable.name.clone(), Place::Shared(at));
                }
            }
        }
        let alignment = dynamic.iter().map(|v| v.align).max().unwrap_or(1);
        let start = align(WINDOW + self.shared, alignment as u32);
        for variable in dynamic {
            self.module.insert(variable.name.clone(), Place::Shared(start));
        }
        self.shared = start - WINDOW;
        // The entry is lowered first so that execution begins at operation 0; calls are patched afterwards.
        let mut calls = Vec::new();
        self.function(entry, Some(&params), &mut calls)?;
        for &index in order.iter().filter(|&&i| i != entry) {
            self.function(index, None, &mut calls)?;
        }
        self.patch(calls)?;
        let directive =
            |name: &str| function.directives.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        if directive("blocksareclusters").is_some() {
            return self.error("`.blocksareclusters` is not supported");
        }
        let triple = |v: Vec<u32>| [0, 1, 2].map(|i| v.get(i).copied().unwrap_or(1));
        let asked = self.ops.iter().filter_map(|op| match op.kind {
            Kind::RegisterCount { count, more: true } => Some(count),
            _ => None,
        });
        Ok(Program {
            name: function.name.clone(),
            most_registers: asked.max(),
            ops: self.ops,
            opcodes: self.opcodes,
            names32: self.names32,
            names64: self.names64,
            predicates: self.predicates as usize,
            params,
            param_bytes,
            static_shared: self.shared,
            local_bytes: self.local,
            required_threads: directive("reqntid").map(triple),
            max_threads: directive("maxntid").map(|v| v.iter().fold(1u32, |all, n| all.saturating_mul(*n))),
            registers: directive("maxnreg").and_then(|v| v.first().copied()),
            least_blocks: directive("minnctapersm").and_then(|v| v.first().copied()),
            required_cluster: directive("reqnctapercluster").map(triple),
            explicit_cluster: directive("explicitcluster").is_some(),
            max_cluster_rank: directive("maxclusterrank").and_then(|v| v.first().copied()),
        })
    }

    fn reserve_shared(&mut self, variable: &ast::Variable) -> Lowered<u32> {
        let (at, end) = self.room(WINDOW + self.shared, variable, WINDOW + SHARED_BYTES)?;
        self.shared = end - WINDOW;
        Ok(at)
    }

    /// Where a variable begins and ends that is the next one after `used`.
    fn room(&mut self, used: u32, variable: &ast::Variable, limit: u32) -> Lowered<(u32, u32)> {
        let at = align(used, variable.align as u32);
        match u32::try_from(variable.size).ok().and_then(|size| at.checked_add(size)) {
            Some(end) if end <= limit => Ok((at, end)),
            _ => {
                self.line = variable.line;
                self.error(format!("no card has room for `{}` of {} bytes", variable.name, variable.size))
            }
        }
    }

    /// Functions that an entry reaches, itself first. Recursion has no place in static frames.
    fn call_order(&self, entry: usize) -> Lowered<Vec<usize>> {
        fn visit(this: &Lowering<'_>, at: usize, path: &mut Vec<usize>, out: &mut Vec<usize>) -> Lowered<()> {
            if path.contains(&at) || path.len() == CALLS {
                let name = &this.ast.functions[at].name;
                return Err(LoadError {
                    line: this.ast.functions[at].line,
                    what: format!(
                        "`{name}` is recursive or called too deeply, which the simulator does not support"
                    ),
                });
            }
            if out.contains(&at) {
                return Ok(());
            }
            out.push(at);
            path.push(at);
            for instruction in this.ast.functions[at].body.iter().filter(|i| i.opcode[0] == "call") {
                for operand in &instruction.operands {
                    if let Operand::Symbol(name, _) = operand
                        && let Some(callee) =
                            this.ast.functions.iter().position(|f| !f.entry && f.name == *name)
                    {
                        visit(this, callee, path, out)?;
                    }
                }
                if instruction.operands.iter().any(|o| matches!(o, Operand::Register(_))) {
                    // Whoever is meant; that it does not call itself is seen when it happens.
                    for (callee, _) in
                        this.ast.functions.iter().enumerate().filter(|(_, f)| this.is_pointed_at(f))
                    {
                        visit(this, callee, &mut Vec::new(), out)?;
                    }
                }
            }
            path.pop();
            Ok(())
        }
        let mut out = Vec::new();
        visit(self, entry, &mut Vec::new(), &mut out)?;
        Ok(out)
    }

    /// Somebody takes a function's address.
    fn is_pointed_at(&self, function: &Function) -> bool {
        let named = |o: &Operand| matches!(o, Operand::Symbol(name, _) if *name == function.name);
        let moved = |i: &ast::Instruction| i.opcode[0] != "call" && i.operands.iter().any(named);
        !function.entry
            && (self.ast.functions.iter().any(|f| f.body.iter().any(moved))
                || self.ast.variables.iter().any(|v| v.relocations.iter().any(|r| r.1 == function.name)))
    }

    fn function(
        &mut self,
        index: usize,
        params: Option<&[(u32, u32)]>,
        calls: &mut Vec<Call>,
    ) -> Lowered<()> {
        let function: &Function = &self.ast.functions[index];
        self.line = function.line;
        self.registers.clear();
        self.places = self.module.clone();
        self.labels.clear();
        let first = self.ops.len();
        let mut callee = Callee { start: first as u32, returns: Vec::new(), params: Vec::new() };
        for (i, variable) in function.params.iter().enumerate() {
            match params {
                Some(offsets) => {
                    self.places.insert(variable.name.clone(), Place::Param(offsets[i].0));
                }
                None => {
                    let place = self.local_variable(variable)?;
                    callee.params.push(place);
                }
            }
        }
        for variable in &function.returns {
            let place = self.local_variable(variable)?;
            callee.returns.push(place);
        }
        for variable in &function.variables {
            match variable.space {
                ast::Space::Reg => self.register_variable(variable)?,
                ast::Space::Local | ast::Space::Param => {
                    self.local_variable(variable)?;
                }
                ast::Space::Shared => {}
                _ => return self.error(format!("`{}` cannot be declared in a function", variable.name)),
            }
        }
        self.functions.insert(function.name.clone(), callee);
        // One operation per instruction, so labels can be numbered before anything is lowered.
        for (label, &at) in &function.labels {
            self.labels.insert(label.clone(), (first + at) as u32);
        }
        for instruction in &function.body {
            self.line = instruction.line;
            if instruction.opcode[0] == "call" {
                let (target, arguments, results) = self.call_parts(instruction)?;
                calls.push((self.ops.len(), target, arguments, results, self.places.clone()));
            }
            let guard = match &instruction.guard {
                Some((negated, name)) => Some(SP { reg: self.predicate_named(name)?, negated: *negated }),
                None => None,
            };
            let (kind, class) = self.instruction(function, instruction)?;
            let opcode = self.opcode(&instruction.opcode);
            self.ops.push(Op {
                guard,
                kind,
                class,
                meet: program::AT_RETURN,
                line: instruction.line,
                opcode,
                poll: polls(&instruction.opcode),
            });
        }
        // A body may end on a label.
        let end = if function.entry { Kind::Exit } else { Kind::Return };
        let opcode = self.opcode(&["ret".to_owned()]);
        let class = crate::counters::Class::Control;
        self.ops.push(Op {
            guard: None,
            kind: end,
            class,
            meet: program::AT_RETURN,
            line: self.line,
            opcode,
            poll: false,
        });
        control::meeting_points(&mut self.ops, first);
        Ok(())
    }

    fn opcode(&mut self, parts: &[String]) -> u32 {
        let text = parts.join(".");
        let next = self.opcodes.len() as u32;
        *self.opcode_index.entry(text.clone()).or_insert_with(|| {
            self.opcodes.push(text);
            next
        })
    }

    fn local_variable(&mut self, variable: &ast::Variable) -> Lowered<(u32, u32)> {
        if variable.space == ast::Space::Reg {
            return self.error("functions with register parameters are not supported");
        }
        let (at, end) = self.room(self.local, variable, LOCAL_BYTES)?;
        self.local = end;
        self.places.insert(variable.name.clone(), Place::Local(at));
        Ok((at, variable.size as u32))
    }

    fn register_variable(&mut self, variable: &ast::Variable) -> Lowered<()> {
        let register = match variable.width {
            Width::Pred => {
                self.predicates += 1;
                Register::Predicate(self.predicates - 1)
            }
            Width::B8 | Width::B16 | Width::B32 => {
                self.names32.push(variable.name.clone());
                self.narrow.push(variable.width != Width::B32);
                Register::R32(self.names32.len() as u32 - 1)
            }
            Width::B64 => {
                self.names64.push(variable.name.clone());
                Register::R64(self.names64.len() as u32 - 1)
            }
            Width::B128 => {
                return self.error(format!("`{}` is wider than a register", variable.name));
            }
        };
        self.registers.insert(variable.name.clone(), register);
        Ok(())
    }

    fn is_narrow(&self, register: u32) -> bool {
        self.narrow[register as usize]
    }

    fn call_parts(&self, instruction: &ast::Instruction) -> Lowered<(Target, Vec<Operand>, Vec<Operand>)> {
        let mut lists = Vec::new();
        let mut target = None;
        for operand in &instruction.operands {
            match operand {
                Operand::List(list) => lists.push((target.is_some(), list.clone())),
                Operand::Symbol(symbol, _) if target.is_none() => target = Some(Target::Name(symbol.clone())),
                // The prototype behind a pointer's arguments.
                Operand::Symbol(..) => {}
                _ => target = Some(Target::Pointer(self.s64(operand)?)),
            }
        }
        let Some(target) = target else { return self.error("a call without a target") };
        let mut results = Vec::new();
        let mut arguments = Vec::new();
        for (after, list) in lists {
            if after { arguments = list } else { results = list }
        }
        Ok((target, arguments, results))
    }

    fn patch(&mut self, calls: Vec<Call>) -> Lowered<()> {
        for (at, target, arguments, results, places) in calls {
            self.line = self.ops[at].line;
            let local = |operand: &Operand| match operand {
                Operand::Symbol(symbol, 0) => match places.get(symbol) {
                    Some(Place::Local(at)) => Some(*at),
                    _ => None,
                },
                _ => None,
            };
            let name = match target {
                Target::Name(name) => name,
                Target::Pointer(target) => {
                    let place = |operand| local(operand).ok_or(());
                    let (Ok(given), Ok(wanted)) = (
                        arguments.iter().map(place).collect::<Result<Vec<_>, ()>>(),
                        results.iter().map(place).collect::<Result<Vec<_>, ()>>(),
                    ) else {
                        return self.error("an argument that is not a .param variable");
                    };
                    let fits = |c: &&(u64, Callee)| {
                        c.1.params.len() == given.len() && c.1.returns.len() == wanted.len()
                    };
                    let callees: Vec<(u64, Callee)> = self
                        .functions
                        .iter()
                        .filter_map(|(name, callee)| Some((code_address(self.ast, name)?, callee.clone())))
                        .collect();
                    let candidates =
                        callees.iter().filter(fits).map(|(address, callee)| program::Candidate {
                            address: *address,
                            target: callee.start,
                            arguments: given
                                .iter()
                                .zip(&callee.params)
                                .map(|(&from, &(to, n))| (from, to, n))
                                .collect(),
                            results: callee
                                .returns
                                .iter()
                                .zip(&wanted)
                                .map(|(&(from, n), &to)| (from, to, n))
                                .collect(),
                        });
                    self.ops[at].kind = Kind::CallIndirect { target, candidates: candidates.collect() };
                    continue;
                }
            };
            let Some(callee) = self.functions.get(&name).cloned() else {
                let which = match (name.as_str(), arguments.len()) {
                    ("__assertfail", 5) => program::External::Assert,
                    ("vprintf", 2) => program::External::Print,
                    _ => return self.error(format!("`{name}` is called but has no body in this module")),
                };
                let Some(arguments) = arguments.iter().map(local).collect() else {
                    return self.error("an argument that is not a .param variable");
                };
                let result = results.first().and_then(local);
                self.ops[at].kind = Kind::External { which, arguments, result };
                continue;
            };
            let mut into = Vec::new();
            for (operand, &(to, size)) in arguments.iter().zip(&callee.params) {
                let Some(from) = local(operand) else {
                    return self.error("an argument that is not a .param variable");
                };
                into.push((from, to, size));
            }
            let mut back = Vec::new();
            for (operand, &(from, size)) in results.iter().zip(&callee.returns) {
                let Some(to) = local(operand) else {
                    return self.error("a result that is not a .param variable");
                };
                back.push((from, to, size));
            }
            self.ops[at].kind = Kind::Call { target: callee.start, arguments: into, results: back };
        }
        Ok(())
    }
}

/// Whether loops that wait for another thread are made of this instruction.
fn polls(opcode: &[String]) -> bool {
    let strong = |m: &String| matches!(m.as_str(), "volatile" | "relaxed" | "acquire" | "mmio" | "cv");
    match opcode[0].as_str() {
        "ld" => opcode.iter().any(strong),
        "atom" => true,
        _ => false,
    }
}

fn align(at: u32, to: u32) -> u32 {
    at.next_multiple_of(to.max(1))
}
