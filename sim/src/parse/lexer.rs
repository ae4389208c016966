//! PTX text to tokens.

use crate::machine::LoadError;

/// A token and its line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: u32,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Identifier, directive, register or opcode, dots and `::` included.
    Word(String),
    /// Number as written.
    Number(String),
    /// Quoted text.
    Text,
    /// Punctuation.
    Mark(char),
}

/// Splits a module into tokens; comments vanish.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, LoadError> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut out = Vec::with_capacity(bytes.len() / 4);
    while at < bytes.len() {
        let byte = bytes[at];
        match byte {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b' ' | b'\t' | b'\r' | 0 => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at += 2;
                while at + 1 < bytes.len() && &bytes[at..at + 2] != b"*/" {
                    line += u32::from(bytes[at] == b'\n');
                    at += 1;
                }
                at += 2;
            }
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1;
                }
                at += 1;
                out.push(Token { kind: Kind::Text, line });
            }
            b'0'..=b'9' => {
                let start = at;
                while at < bytes.len() && number_byte(bytes, start, at) {
                    at += 1;
                }
                out.push(Token { kind: Kind::Number(text[start..at].to_owned()), line });
            }
            _ if word_start(byte) => {
                let start = at;
                at = word_end(bytes, at);
                out.push(Token { kind: Kind::Word(text[start..at].to_owned()), line });
            }
            b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>' | b',' | b';' | b':' | b'=' | b'+'
            | b'-' | b'!' | b'@' | b'|' => {
                out.push(Token { kind: Kind::Mark(byte as char), line });
                at += 1;
            }
            _ => {
                let shown = text[at..].chars().next().unwrap_or('?');
                return Err(LoadError { line, what: format!("unexpected character {shown:?}") });
            }
        }
    }
    Ok(out)
}

fn number_byte(bytes: &[u8], start: usize, at: usize) -> bool {
    let byte = bytes[at];
    // The sign of a decimal exponent; hexadecimal floats (0f…, 0d…) and integers have none.
    let exponent = matches!(byte, b'+' | b'-')
        && at > start
        && matches!(bytes[at - 1], b'e' | b'E')
        && bytes[start..at].contains(&b'.');
    byte.is_ascii_alphanumeric() || byte == b'.' || exponent
}

fn word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

fn word_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        if bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'_' | b'$' | b'%' | b'.') {
            at += 1;
        } else if bytes[at..].starts_with(b"::") {
            at += 2;
        } else {
            break;
        }
    }
    at
}
