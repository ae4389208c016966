//! Statements of a function body.

use super::lexer::Kind;
use super::scope::Scopes;
use super::{Parsed, Parser, wide};
use crate::ast::{Function, Instruction, Operand, Space};

/// Reads `{ … }` into the function.
pub(super) fn read(parser: &mut Parser, function: &mut Function) -> Parsed<()> {
    let mut body = Body { parser, function, scopes: Scopes::new(), scope_of: Vec::new() };
    for variable in body.function.params.iter().chain(&body.function.returns) {
        body.scopes.declare(&variable.name);
    }
    body.parser.expect('{')?;
    loop {
        if body.parser.peek().is_none() {
            return body.parser.error("the text ends inside a function body");
        }
        if body.parser.eat('{') {
            body.scopes.open();
        } else if body.parser.eat('}') {
            if !body.scopes.close() {
                break;
            }
        } else {
            body.statement()?;
        }
    }
    body.resolve_labels();
    wide::split(function);
    Ok(())
}

struct Body<'a> {
    parser: &'a mut Parser,
    function: &'a mut Function,
    scopes: Scopes,
    /// Scope of each instruction, for labels that are declared after their use.
    scope_of: Vec<usize>,
}

impl Body<'_> {
    fn statement(&mut self) -> Parsed<()> {
        if self.parser.eat(';') {
            return Ok(());
        }
        let guard = if self.parser.eat('@') {
            let negated = self.parser.eat('!');
            let name = self.parser.word()?;
            Some((negated, self.register(&name)?))
        } else {
            None
        };
        let line = self.parser.line();
        let word = self.parser.word()?;
        match word.as_str() {
            ".reg" | ".local" | ".shared" | ".param" => {
                self.parser.at -= 1;
                let space = self.parser.space()?;
                loop {
                    let mut variables = self.parser.variables(space, false)?;
                    for variable in &mut variables {
                        variable.name = self.scopes.declare(&variable.name);
                    }
                    // A `.param` of a call sequence is memory of the thread.
                    if space == Space::Param {
                        variables.iter_mut().for_each(|v| v.space = Space::Local);
                    }
                    self.function.variables.extend(variables);
                    if !self.parser.eat(',') {
                        break;
                    }
                    self.parser.at -= 1;
                }
                return self.parser.expect(';');
            }
            ".loc" | ".file" => {
                self.parser.at -= 1;
                self.parser.skip_to_line_end();
                return Ok(());
            }
            ".pragma" => {
                self.parser.at += 1;
                return self.parser.expect(';');
            }
            _ => {}
        }
        if guard.is_none() && self.parser.eat(':') {
            return self.label(&word);
        }
        let opcode = word.split('.').map(str::to_owned).collect::<Vec<_>>();
        let mut operands = Vec::new();
        if !self.parser.is(';') {
            loop {
                operands.push(self.operand()?);
                if !self.parser.eat(',') {
                    break;
                }
            }
        }
        self.parser.expect(';')?;
        self.function.body.push(Instruction { guard, opcode, operands, line });
        self.scope_of.push(self.scopes.current());
        Ok(())
    }

    fn label(&mut self, name: &str) -> Parsed<()> {
        let unique = self.scopes.label(name);
        if self.parser.eat_word(".branchtargets") || self.parser.eat_word(".calltargets") {
            let mut targets = vec![self.parser.word()?];
            while self.parser.eat(',') {
                targets.push(self.parser.word()?);
            }
            self.function.target_lists.insert(unique, targets);
            return self.parser.expect(';');
        }
        if self.parser.eat_word(".callprototype") {
            return self.parser.skip_past(';');
        }
        self.function.labels.insert(unique, self.function.body.len());
        Ok(())
    }

    fn register(&self, name: &str) -> Parsed<String> {
        match self.scopes.variable(name) {
            Some(unique) => Ok(unique.to_owned()),
            None => self.parser.error(format!("`{name}` is not declared")),
        }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let first = self.simple()?;
        if self.parser.eat('|') {
            let second = self.simple()?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn simple(&mut self) -> Parsed<Operand> {
        if self.parser.eat('{') {
            return Ok(Operand::Vector(self.list('}')?));
        }
        if self.parser.eat('(') {
            return Ok(Operand::List(self.list(')')?));
        }
        if self.parser.eat('[') {
            return self.address();
        }
        if self.parser.eat('!') {
            let name = self.parser.word()?;
            return Ok(Operand::Not(self.register(&name)?));
        }
        match self.parser.peek().cloned() {
            Some(Kind::Word(word)) => {
                self.parser.at += 1;
                if word == "_" {
                    return Ok(Operand::Sink);
                }
                let signed = self.parser.eat('+') || self.parser.is('-');
                let addend = if signed { self.parser.integer()? } else { 0 };
                Ok(self.name(word, addend))
            }
            Some(Kind::Number(_) | Kind::Mark('-')) => self.number(),
            _ => self.parser.error(format!("an operand expected, found {}", self.parser.found())),
        }
    }

    fn name(&self, word: String, addend: i64) -> Operand {
        match self.scopes.variable(&word) {
            Some(unique) if self.is_memory(unique) => Operand::Symbol(unique.to_owned(), addend),
            Some(unique) => Operand::Register(unique.to_owned()),
            None if word.starts_with('%') || word == "WARP_SZ" => Operand::Register(word),
            None => Operand::Symbol(word, addend),
        }
    }

    fn is_memory(&self, unique: &str) -> bool {
        // Registers of PTX start with `%` by nvcc's habit only; inline assembly declares plain names.
        let own = |v: &crate::ast::Variable| v.name == unique && v.space != Space::Reg;
        !unique.starts_with('%')
            && (self.function.params.iter().any(own)
                || self.function.returns.iter().any(own)
                || self.function.variables.iter().rev().any(own))
    }

    fn number(&mut self) -> Parsed<Operand> {
        let negative = self.parser.eat('-');
        let Some(Kind::Number(text)) = self.parser.peek().cloned() else {
            return self.parser.error("a number expected");
        };
        let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
        if text.starts_with("0f") || text.starts_with("0F") {
            let Some(bits) = hex(&text[2..]) else { return self.parser.error("a bad hexadecimal float") };
            self.parser.at += 1;
            return Ok(Operand::Float32(bits as u32 ^ u32::from(negative) << 31));
        }
        if text.starts_with("0d") || text.starts_with("0D") {
            let Some(bits) = hex(&text[2..]) else { return self.parser.error("a bad hexadecimal float") };
            self.parser.at += 1;
            return Ok(Operand::Float64(bits ^ u64::from(negative) << 63));
        }
        if text.contains('.') {
            let Ok(value) = text.parse::<f64>() else { return self.parser.error("a bad float") };
            self.parser.at += 1;
            return Ok(Operand::Float64(if negative { -value } else { value }.to_bits()));
        }
        self.parser.at -= usize::from(negative);
        Ok(Operand::Integer(self.parser.integer()?))
    }

    fn list(&mut self, end: char) -> Parsed<Vec<Operand>> {
        self.parser.descend()?;
        let mut out = Vec::new();
        while !self.parser.eat(end) {
            out.push(self.operand()?);
            if !self.parser.is(end) {
                self.parser.expect(',')?;
            }
        }
        self.parser.depth -= 1;
        Ok(out)
    }

    /// After `[`.
    fn address(&mut self) -> Parsed<Operand> {
        if matches!(self.parser.peek(), Some(Kind::Number(_) | Kind::Mark('-'))) {
            let offset = self.parser.integer()?;
            self.parser.expect(']')?;
            return Ok(Operand::Address(None, offset));
        }
        let word = self.parser.word()?;
        let base = self.name(word, 0);
        if self.parser.eat(',') {
            self.parser.descend()?;
            let coordinates = match self.simple()? {
                Operand::Vector(list) => list,
                other => vec![other],
            };
            self.parser.depth -= 1;
            self.parser.expect(']')?;
            return Ok(Operand::Tensor(Box::new(base), coordinates));
        }
        let offset = if self.parser.eat('+') || self.parser.is('-') { self.parser.integer()? } else { 0 };
        self.parser.expect(']')?;
        Ok(Operand::Address(Some(Box::new(base)), offset))
    }

    fn resolve_labels(&mut self) {
        for (instruction, &scope) in self.function.body.iter_mut().zip(&self.scope_of) {
            for operand in &mut instruction.operands {
                if let Operand::Symbol(name, 0) = operand
                    && let Some(unique) = self.scopes.find_label(name, scope)
                {
                    *name = unique.to_owned();
                }
            }
        }
        let lists = std::mem::take(&mut self.function.target_lists);
        for (name, targets) in lists {
            let resolved = targets
                .into_iter()
                .map(|t| self.scopes.find_label(&t, 0).map_or(t.clone(), str::to_owned))
                .collect();
            self.function.target_lists.insert(name, resolved);
        }
    }
}
