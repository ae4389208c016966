//! Small edits of kernel sources: what a slip of the hand does to CUDA C++, found in the text's tokens.

use std::ops::Range;

/// One change of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub kind: &'static str,
    /// The bytes that are replaced.
    pub range: Range<usize>,
    pub replacement: String,
}

impl Edit {
    pub fn apply(&self, text: &str) -> String {
        [&text[..self.range.start], &self.replacement, &text[self.range.end..]].concat()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Number,
    Text,
    Punctuation,
}

#[derive(Clone, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// Operators of more than one character, the longest first.
const LONG: [&str; 22] = [
    "<<=", ">>=", "...", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=", "/=", "|=", "&=",
    "^=", "->", "::", "++", "--",
];

const SWAPS: [(&str, &str); 22] = [
    ("+", "-"),
    ("-", "+"),
    ("*", "/"),
    ("/", "*"),
    ("%", "/"),
    ("<<", ">>"),
    (">>", "<<"),
    ("&", "|"),
    ("|", "&"),
    ("^", "|"),
    ("<", "<="),
    ("<=", "<"),
    (">", ">="),
    (">=", ">"),
    ("==", "!="),
    ("!=", "=="),
    ("&&", "||"),
    ("||", "&&"),
    ("+=", "-="),
    ("-=", "+="),
    ("|=", "&="),
    ("*=", "/="),
];

const WORD_SWAPS: [(&str, &str); 6] = [
    ("min", "max"),
    ("max", "min"),
    ("fminf", "fmaxf"),
    ("fmaxf", "fminf"),
    ("true", "false"),
    ("false", "true"),
];

/// Words of statements whose loss is a fault of synchronisation.
const SYNCHRONISES: [&str; 8] =
    ["wait", "barrier", "fence", "sync", "arrive", "commit", "release", "advance"];

/// Every edit of a source, in the order of the text.
pub fn all(source: &str) -> Vec<Edit> {
    let tokens = without_declarations(tokens(source));
    let mut edits = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let mut replace = |kind, replacement: String| {
            edits.push(Edit { kind, range: token.start..token.end(), replacement });
        };
        match token.kind {
            Kind::Punctuation => {
                if let Some((_, to)) = SWAPS.iter().find(|(from, _)| *from == token.text) {
                    replace("operator", (*to).to_owned());
                }
            }
            Kind::Word => {
                if let Some((_, to)) = WORD_SWAPS.iter().find(|(from, _)| *from == token.text) {
                    replace("operator", (*to).to_owned());
                }
            }
            Kind::Number => constants(token.text).into_iter().for_each(|text| replace("constant", text)),
            Kind::Text => {}
        }
        edits.extend(negation(source, &tokens, index));
        edits.extend(dropped(source, &tokens, index));
        edits.extend(swapped(source, &tokens, index));
    }
    edits
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut line_start = true;
    while let Some(next) = source[at..].chars().next() {
        let rest = &source[at..];
        let length = |accept: fn(char) -> bool| rest.find(|c| !accept(c)).unwrap_or(rest.len());
        let (kind, size) = if next == '\n' {
            line_start = true;
            at += 1;
            continue;
        } else if next.is_whitespace() {
            at += next.len_utf8();
            continue;
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
            continue;
        } else if next == '#' && line_start {
            let mut lines = rest.split_inclusive('\n');
            let mut size = 0;
            for line in lines.by_ref() {
                size += line.len();
                if !line.trim_end().ends_with('\\') {
                    break;
                }
            }
            at += size;
            continue;
        } else if next.is_ascii_alphabetic() || next == '_' {
            (Kind::Word, length(|c| c.is_ascii_alphanumeric() || c == '_'))
        } else if next.is_ascii_digit() {
            let mut size = length(|c| c.is_ascii_alphanumeric() || c == '.' || c == '\'');
            if rest[..size].ends_with(['e', 'E']) && !rest.starts_with("0x") {
                let sign = &rest[size..];
                size += 1 + sign[1..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(sign.len() - 1);
            }
            (Kind::Number, size)
        } else if next == '"' || next == '\'' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == next && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            (Kind::Text, end.map_or(rest.len(), |end| end + 2))
        } else {
            let long = LONG.iter().find(|operator| rest.starts_with(**operator));
            (Kind::Punctuation, long.map_or(next.len_utf8(), |operator| operator.len()))
        };
        found.push(Token { kind, text: &source[at..at + size], start: at });
        line_start = false;
        at += size;
    }
    found
}

/// Leaves out what cannot change a running kernel: assertions at compile time, template heads, and names of types and
/// namespaces.
fn without_declarations(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    let mut kept = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let skip_to = match tokens[index].text {
            "static_assert" | "using" | "typedef" => {
                tokens[index..].iter().position(|token| token.text == ";").map(|end| index + end + 1)
            }
            "template" => {
                let mut depth = 0i32;
                let end = tokens[index + 1..].iter().position(|token| {
                    depth += match token.text {
                        "<" => 1,
                        ">" => -1,
                        ">>" => -2,
                        _ => 0,
                    };
                    depth <= 0
                });
                end.map(|end| index + end + 2)
            }
            _ => None,
        };
        match skip_to {
            Some(next) => index = next,
            None => {
                kept.push(tokens[index].clone());
                index += 1;
            }
        }
    }
    kept
}

/// One more, one less and twice as much of an integer; twice of a float.
fn constants(text: &str) -> Vec<String> {
    let hexadecimal = text.strip_prefix("0x");
    let is_float = hexadecimal.is_none() && text.contains(['.', 'e', 'E']);
    if is_float {
        let digits = text.trim_end_matches(['f', 'F']);
        return match digits.parse::<f64>() {
            Ok(0.0) => vec![format!("1.0{}", &text[digits.len()..])],
            Ok(value) => vec![format!("{:e}{}", value * 2.0, &text[digits.len()..])],
            Err(_) => Vec::new(),
        };
    }
    let digits = hexadecimal.unwrap_or(text).trim_end_matches(['u', 'U', 'l', 'L']);
    let suffix = &hexadecimal.unwrap_or(text)[digits.len()..];
    let radix = if hexadecimal.is_some() { 16 } else { 10 };
    let Ok(value) = u64::from_str_radix(&digits.replace('\'', ""), radix) else { return Vec::new() };
    let show = |value: u64| match hexadecimal {
        Some(_) => format!("{value:#x}{suffix}"),
        None => format!("{value}{suffix}"),
    };
    let mut changed = vec![value.checked_add(1)];
    if value > 0 {
        changed.push(Some(value - 1));
    }
    if value > 1 {
        changed.push(value.checked_mul(2));
    }
    changed.into_iter().flatten().map(show).collect()
}

/// The index of the bracket that closes the one at `open`.
fn closing(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth -= 1;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// `if (c)` becomes `if (!(c))`, and so with `while`.
fn negation(source: &str, tokens: &[Token<'_>], index: usize) -> Option<Edit> {
    if !matches!(tokens[index].text, "if" | "while") {
        return None;
    }
    let open = (index + 1..index + 3).find(|at| tokens.get(*at).is_some_and(|token| token.text == "("))?;
    let range = tokens[open].end()..tokens[closing(tokens, open)?].start;
    let replacement = format!("!({})", &source[range.clone()]);
    Some(Edit { kind: "negation", range, replacement })
}

/// A simple statement that begins at `index` becomes an empty one.
fn dropped(source: &str, tokens: &[Token<'_>], index: usize) -> Option<Edit> {
    let before = tokens.get(index.checked_sub(1)?)?.text;
    let begins =
        matches!(before, ";" | "{" | "}" | "else") || before == ")" && heads_statement(tokens, index - 1);
    let first = tokens[index].text;
    let is_plain = tokens[index].kind == Kind::Word
        && !matches!(
            first,
            "if" | "for" | "while" | "else" | "do" | "switch" | "case" | "const" | "constexpr"
        )
        && !matches!(first, "auto" | "struct" | "enum" | "namespace" | "extern" | "static" | "__device__");
    if !begins || !is_plain {
        return None;
    }
    let mut end = index;
    while tokens.get(end)?.text != ";" {
        if matches!(tokens[end].text, "(" | "[") {
            end = closing(tokens, end)?;
        } else if matches!(tokens[end].text, "{" | "}" | ")") {
            return None;
        }
        end += 1;
    }
    if first == "return" && end != index + 1 {
        return None;
    }
    let range = tokens[index].start..tokens[end].start;
    let text = &source[range.clone()];
    let synchronises = SYNCHRONISES.iter().any(|word| text.contains(word));
    let kind = if synchronises { "dropped synchronisation" } else { "dropped statement" };
    Some(Edit { kind, range, replacement: String::new() })
}

/// Whether the bracket that closes at `close` belongs to an `if`, `for` or `while`.
fn heads_statement(tokens: &[Token<'_>], close: usize) -> bool {
    let mut depth = 0;
    for index in (0..=close).rev() {
        match tokens[index].text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" => {
                depth -= 1;
                if depth == 0 {
                    let word = |back: usize| index.checked_sub(back).map(|at| tokens[at].text);
                    let is_head = |word: Option<&str>| matches!(word, Some("if" | "for" | "while"));
                    return is_head(word(1)) || word(1) == Some("constexpr") && is_head(word(2));
                }
            }
            _ => {}
        }
    }
    false
}

/// Two neighbouring names, `a.b` among them, change places where the operator between them does not commute.
fn swapped(source: &str, tokens: &[Token<'_>], index: usize) -> Option<Edit> {
    let joins = |at: usize| tokens.get(at).is_some_and(|token| matches!(token.text, "." | "->" | "::"));
    // The last token of the name that begins at `from`.
    let name = |from: usize| {
        let is_word = |at: usize| tokens.get(at).is_some_and(|token| token.kind == Kind::Word);
        let mut last = is_word(from).then_some(from)?;
        while joins(last + 1) && is_word(last + 2) {
            last += 2;
        }
        Some(last)
    };
    if index > 0 && joins(index - 1) {
        return None;
    }
    let left = name(index)?;
    let operator = tokens.get(left + 1)?;
    if !matches!(operator.text, "," | "-" | "/" | "%" | "<" | "<=" | ">" | ">=" | "<<" | ">>") {
        return None;
    }
    let right = name(left + 2)?;
    // What is called, indexed or declared is no operand, and `a<b>` is a type.
    let is_other = tokens.get(right + 1).is_some_and(|next| {
        let calls = matches!(next.text, "(" | "[" | "<" | "::") || next.kind == Kind::Word;
        calls || operator.text == "<" && next.text == ">"
    });
    if is_other {
        return None;
    }
    let text = |from: usize, to: usize| &source[tokens[from].start..tokens[to].end()];
    let (first, second) = (text(index, left), text(left + 2, right));
    let between = &source[tokens[left].end()..tokens[left + 2].start];
    let range = tokens[index].start..tokens[right].end();
    (first != second).then(|| Edit { kind: "swap", range, replacement: format!("{second}{between}{first}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(source: &str, kind: &str) -> Vec<String> {
        all(source).iter().filter(|edit| edit.kind == kind).map(|edit| edit.apply(source)).collect()
    }

    #[test]
    fn operators_and_constants() {
        assert_eq!(edited("x = a + 1; // b - c", "operator"), ["x = a - 1; // b - c"]);
        assert_eq!(edited("a <<= 1; b->c; d::e;", "operator"), [""; 0]);
        assert_eq!(edited("f(0, 16u, 0xffull);", "constant").len(), 7);
        assert_eq!(edited("x = 2.5e-3f;", "constant"), ["x = 5e-3f;"]);
        assert_eq!(edited("#pragma unroll 1\n#define X \\\n 2 + 3\n", "constant"), [""; 0]);
        assert_eq!(edited("static_assert(1 < 2, \"\"); template <int N = 3> void f();", "constant"), [""; 0]);
    }

    #[test]
    fn conditions_are_negated_whole() {
        assert_eq!(edited("if constexpr (a && b) c();", "negation"), ["if constexpr (!(a && b)) c();"]);
    }

    #[test]
    fn simple_statements_are_dropped() {
        let source = "{ const int a = f(); if (a) g(a); ptx::fence(); return; return a; }";
        assert_eq!(edited(source, "dropped synchronisation"), [source.replace("ptx::fence()", "")]);
        let dropped = edited(source, "dropped statement");
        assert_eq!(dropped, [source.replace("g(a)", ""), source.replacen("return", "", 1)]);
    }

    #[test]
    fn neighbours_change_places() {
        assert_eq!(edited("f(a, b, 1);", "swap"), ["f(b, a, 1);"]);
        assert_eq!(edited("x = a + b; y = a - b;", "swap"), ["x = a + b; y = b - a;"]);
        assert_eq!(
            edited("if (row < p.rows) f(x::y<int>(p.a), g(b));", "swap"),
            ["if (p.rows < row) f(x::y<int>(p.a), g(b));"]
        );
    }
}
