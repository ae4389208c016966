//! PTX text to the syntax tree of [`crate::ast`].

mod body;
mod lexer;
mod scope;
#[cfg(test)]
mod tests;
mod wide;

use crate::ast::{Ast, Function, Space, Variable, Width};
use crate::machine::LoadError;
use lexer::{Kind, Token};
use std::collections::HashMap;

/// Parses one module.
pub(crate) fn module(text: &str) -> Result<Ast, LoadError> {
    let mut parser = Parser { tokens: lexer::tokens(text)?, at: 0, depth: 0 };
    let mut ast =
        Ast { version: (0, 0), target: String::new(), variables: Vec::new(), functions: Vec::new() };
    while parser.peek().is_some() {
        parser.top_level(&mut ast)?;
    }
    Ok(ast)
}

/// Brackets within brackets that an operand or an initialiser may have.
const DEPTH: u32 = 64;
/// Registers of one `%r<n>`.
const REGISTERS: u32 = 1 << 20;
/// Bytes of one variable: more than any card has memory.
const BYTES: u64 = 1 << 40;
/// Bytes of one variable with initial values, which the text must spell out in part.
const INITIAL_BYTES: u64 = 1 << 28;

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
}

type Parsed<T> = Result<T, LoadError>;

impl Parser {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(0, |t| t.line)
    }

    fn error<T>(&self, what: impl Into<String>) -> Parsed<T> {
        Err(LoadError { line: self.line(), what: what.into() })
    }

    fn is(&self, mark: char) -> bool {
        self.peek() == Some(&Kind::Mark(mark))
    }

    fn eat(&mut self, mark: char) -> bool {
        let found = self.is(mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Parsed<()> {
        if self.eat(mark) { Ok(()) } else { self.error(format!("`{mark}` expected, found {}", self.found())) }
    }

    fn found(&self) -> String {
        match self.peek() {
            Some(Kind::Word(w) | Kind::Number(w)) => format!("`{w}`"),
            Some(Kind::Mark(c)) => format!("`{c}`"),
            Some(Kind::Text) => "a string".into(),
            None => "the end of the text".into(),
        }
    }

    fn word(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(Kind::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => self.error(format!("a name expected, found {}", self.found())),
        }
    }

    fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Some(Kind::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek_word() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn integer(&mut self) -> Parsed<i64> {
        let negative = self.eat('-');
        match self.peek() {
            Some(Kind::Number(text)) => {
                let Some(value) = integer(text) else {
                    return self.error(format!("`{text}` is not an integer"));
                };
                self.at += 1;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            _ => self.error(format!("an integer expected, found {}", self.found())),
        }
    }

    fn small(&mut self) -> Parsed<u32> {
        let value = self.integer()?;
        u32::try_from(value).or_else(|_| self.error(format!("{value} is out of range")))
    }

    /// Skips what stands before `mark`, and the mark.
    fn skip_past(&mut self, mark: char) -> Parsed<()> {
        while !self.eat(mark) {
            if self.peek().is_none() {
                return self.error(format!("`{mark}` expected, found the end of the text"));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Before something that may hold its like; `depth` goes down again behind it.
    fn descend(&mut self) -> Parsed<()> {
        if self.depth == DEPTH {
            return self.error(format!("more than {DEPTH} brackets within each other"));
        }
        self.depth += 1;
        Ok(())
    }

    fn skip_to_line_end(&mut self) {
        let line = self.line();
        while self.peek().is_some() && self.line() == line {
            self.at += 1;
        }
    }

    fn top_level(&mut self, ast: &mut Ast) -> Parsed<()> {
        let word = self.word()?;
        match word.as_str() {
            ".version" => {
                if let Some(Kind::Number(text)) = self.peek().cloned() {
                    let mut parts = text.split('.').map(|p| p.parse().unwrap_or(0));
                    ast.version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
                }
                self.at += 1;
                Ok(())
            }
            ".target" => {
                ast.target = self.word()?;
                self.skip_to_line_end_of_list();
                Ok(())
            }
            ".address_size" | ".pragma" => {
                self.at += 1;
                self.eat(';');
                Ok(())
            }
            ".file" | ".loc" => {
                self.at -= 1;
                self.skip_to_line_end();
                Ok(())
            }
            ".section" => {
                self.skip_past('{')?;
                self.skip_past('}')
            }
            ".visible" | ".weak" | ".common" => Ok(()),
            ".extern" => {
                if matches!(self.peek_word(), Some(".func" | ".entry")) {
                    return Ok(());
                }
                let space = self.space()?;
                let variable = self.variables(space, true)?;
                ast.variables.extend(variable);
                self.expect(';')
            }
            ".entry" | ".func" => {
                if let Some(function) = self.function(word == ".entry")? {
                    ast.functions.push(function);
                }
                Ok(())
            }
            ".global" | ".const" | ".shared" => {
                self.at -= 1;
                let space = self.space()?;
                let variables = self.variables(space, false)?;
                ast.variables.extend(variables);
                self.expect(';')
            }
            _ => self.error(format!("`{word}` is not a module-level directive that the simulator knows")),
        }
    }

    fn skip_to_line_end_of_list(&mut self) {
        while self.eat(',') {
            self.at += 1;
        }
    }

    fn space(&mut self) -> Parsed<Space> {
        let word = self.word()?;
        Ok(match word.as_str() {
            ".reg" => Space::Reg,
            ".param" => Space::Param,
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" | ".shared::cta" => Space::Shared,
            ".local" => Space::Local,
            _ => return self.error(format!("`{word}` is not a state space")),
        })
    }

    /// `.align 16 .b8 name[128] = {…}, name2` up to, not including, the final mark.
    fn variables(&mut self, space: Space, external: bool) -> Parsed<Vec<Variable>> {
        let mut align = 0;
        let mut lanes = 1;
        let (width, float) = loop {
            let word = self.word()?;
            match word.as_str() {
                ".align" => {
                    align = u64::from(self.small()?);
                    if !align.is_power_of_two() || align > 1 << 16 {
                        return self.error(format!("{align} is not an alignment"));
                    }
                }
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".ptr" => {
                    // Attributes of a pointer parameter: `.ptr .global .align 8`.
                    while matches!(self.peek_word(), Some(".global" | ".shared" | ".const" | ".local")) {
                        self.at += 1;
                    }
                    if self.eat_word(".align") {
                        self.integer()?;
                    }
                }
                ".attribute" => {
                    self.skip_past(')')?;
                }
                _ => match width(&word) {
                    Some(found) => break found,
                    None => return self.error(format!("`{word}` is not a type")),
                },
            }
        };
        let mut out = Vec::new();
        loop {
            if matches!(self.peek_word(), Some(".ptr")) {
                self.at += 1;
                while matches!(self.peek_word(), Some(".global" | ".shared" | ".const" | ".local")) {
                    self.at += 1;
                }
                if self.eat_word(".align") {
                    self.integer()?;
                }
            }
            let line = self.line();
            let name = self.word()?;
            let element = bytes(width) * lanes;
            if self.eat('<') {
                let count = self.small()?;
                if count > REGISTERS {
                    return self.error(format!("{count} registers are too many"));
                }
                self.expect('>')?;
                for i in 0..count {
                    out.push(variable(format!("{name}{i}"), space, width, float, element, align, external));
                }
            } else {
                let mut size = element;
                let mut unsized_array = false;
                let mut extents = Vec::new();
                while self.eat('[') {
                    if self.eat(']') {
                        unsized_array = true;
                        extents.push(0);
                    } else {
                        // A negative one is larger than any memory, too.
                        let extent = self.integer()? as u64;
                        match size.checked_mul(extent) {
                            Some(product) if product <= BYTES => size = product,
                            _ => return self.error(format!("`{name}` is larger than any memory")),
                        }
                        extents.push(extent);
                        self.expect(']')?;
                    }
                }
                let mut made = variable(name, space, width, float, size, align, external);
                made.line = line;
                if self.eat('=') {
                    if made.size > INITIAL_BYTES {
                        return self.error(format!("`{}` is too large for initial values", made.name));
                    }
                    self.initialiser(&mut made, element, &extents)?;
                    if unsized_array {
                        made.size = made.init.len() as u64;
                    } else if made.init.len() as u64 > made.size {
                        return self.error(format!("`{}` has more initial values than room", made.name));
                    }
                } else if unsized_array {
                    made.size = 0;
                }
                out.push(made);
            }
            if space == Space::Param || !self.eat(',') {
                return Ok(out);
            }
        }
    }

    /// A value, or a list in braces: what it leaves out of its extents is zero.
    fn initialiser(&mut self, into: &mut Variable, element: u64, extents: &[u64]) -> Parsed<()> {
        if !self.eat('{') {
            return self.initial_value(into);
        }
        self.descend()?;
        let start = into.init.len();
        while !self.eat('}') {
            self.initialiser(into, element, extents.get(1..).unwrap_or_default())?;
            self.eat(',');
        }
        self.depth -= 1;
        let whole = start + (element * extents.iter().product::<u64>()) as usize;
        if into.init.len() < whole {
            into.init.resize(whole, 0);
        }
        Ok(())
    }

    fn initial_value(&mut self, into: &mut Variable) -> Parsed<()> {
        let element = bytes(into.width) as usize;
        let value = match self.peek().cloned() {
            Some(Kind::Word(word)) => {
                self.at += 1;
                let symbol = if word == "generic" {
                    self.expect('(')?;
                    let inner = self.word()?;
                    self.expect(')')?;
                    inner
                } else {
                    word
                };
                let addend = if self.eat('+') { self.integer()? } else { 0 };
                into.relocations.push((into.init.len() as u64, symbol, addend));
                0
            }
            Some(Kind::Number(text)) if text.starts_with("0f") || text.starts_with("0F") => {
                self.at += 1;
                i64::from(u32::from_str_radix(&text[2..], 16).unwrap_or(0))
            }
            Some(Kind::Number(text)) if text.starts_with("0d") || text.starts_with("0D") => {
                self.at += 1;
                u64::from_str_radix(&text[2..], 16).unwrap_or(0) as i64
            }
            _ => self.integer()?,
        };
        into.init.extend_from_slice(&value.to_le_bytes()[..element]);
        Ok(())
    }

    fn parameters(&mut self) -> Parsed<Vec<Variable>> {
        let mut out = Vec::new();
        if self.eat('(') {
            while !self.eat(')') {
                let space = self.space()?;
                out.extend(self.variables(space, false)?);
                self.eat(',');
            }
        }
        Ok(out)
    }

    fn function(&mut self, entry: bool) -> Parsed<Option<Function>> {
        let line = self.line();
        let returns = if entry { Vec::new() } else { self.parameters()? };
        let name = self.word()?;
        let params = self.parameters()?;
        let mut directives = Vec::new();
        loop {
            match self.peek() {
                Some(Kind::Mark(';')) => {
                    self.at += 1;
                    return Ok(None);
                }
                Some(Kind::Mark('{')) => break,
                Some(Kind::Word(_)) => {
                    let name = self.word()?;
                    let mut numbers = Vec::new();
                    while let Some(Kind::Number(_)) = self.peek() {
                        numbers.push(self.small()?);
                        self.eat(',');
                    }
                    if self.eat('=') {
                        self.at += 1;
                    }
                    if name == ".pragma" {
                        self.at += 1;
                        self.eat(';');
                    }
                    directives.push((name.trim_start_matches('.').to_owned(), numbers));
                }
                _ => return self.error(format!("a function body expected, found {}", self.found())),
            }
        }
        let mut function = Function {
            name,
            entry,
            returns,
            params,
            variables: Vec::new(),
            directives,
            body: Vec::new(),
            labels: HashMap::new(),
            target_lists: HashMap::new(),
            line,
        };
        body::read(self, &mut function)?;
        Ok(Some(function))
    }
}

fn variable(
    name: String,
    space: Space,
    width: Width,
    float: bool,
    size: u64,
    align: u64,
    external: bool,
) -> Variable {
    let align = if align == 0 { bytes(width) } else { align };
    let (init, relocations) = (Vec::new(), Vec::new());
    Variable { name, space, width, float, size, align, external, init, relocations, line: 0 }
}

fn width(word: &str) -> Option<(Width, bool)> {
    Some(match word {
        ".pred" => (Width::Pred, false),
        ".b8" | ".u8" | ".s8" => (Width::B8, false),
        ".b16" | ".u16" | ".s16" => (Width::B16, false),
        ".f16" | ".bf16" => (Width::B16, true),
        ".b32" | ".u32" | ".s32" => (Width::B32, false),
        ".f32" | ".f16x2" | ".bf16x2" => (Width::B32, true),
        ".b64" | ".u64" | ".s64" => (Width::B64, false),
        ".f64" => (Width::B64, true),
        ".b128" => (Width::B128, false),
        _ => return None,
    })
}

pub(crate) fn bytes(width: Width) -> u64 {
    match width {
        Width::Pred | Width::B8 => 1,
        Width::B16 => 2,
        Width::B32 => 4,
        Width::B64 => 8,
        Width::B128 => 16,
    }
}

fn integer(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches('U');
    let lower = digits.to_ascii_lowercase();
    let value = if let Some(hex) = lower.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()?
    } else if let Some(binary) = lower.strip_prefix("0b") {
        u64::from_str_radix(binary, 2).ok()?
    } else if lower.len() > 1 && lower.starts_with('0') {
        u64::from_str_radix(&lower[1..], 8).ok()?
    } else {
        lower.parse().ok()?
    };
    Some(value as i64)
}
