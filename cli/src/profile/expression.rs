//! Whole-number expressions of adapters: `min(ceil(m, 64) * ceil(n, 64), 2 * sms)`.

/// Evaluates an expression; `name` gives the value of a name.
///
/// Numbers, names (letters, digits, `_` and `.`), `+ - * / %`, parentheses, and the functions `ceil(a, b)` (a / b rounded
/// up), `align(a, b)` (a rounded up to a multiple of b), `min(a, b)` and `max(a, b)`.
pub fn evaluate(text: &str, name: &dyn Fn(&str) -> Option<i64>) -> Result<i64, String> {
    let mut parser = Parser { rest: text, name };
    let value = parser.sum().and_then(|value| match parser.peek() {
        None => Ok(value),
        Some(other) => Err(format!("`{other}` is not expected")),
    });
    value.map_err(|why| format!("`{text}`: {why}"))
}

struct Parser<'a> {
    rest: &'a str,
    name: &'a dyn Fn(&str) -> Option<i64>,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) {
            return Ok(());
        }
        match self.peek() {
            Some(other) => Err(format!("`{wanted}` expected, not `{other}`")),
            None => Err(format!("`{wanted}` expected at the end")),
        }
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value = whole(value.checked_add(self.product()?))?;
            } else if self.take('-') {
                value = whole(value.checked_sub(self.product()?))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.factor()?;
        loop {
            if self.take('*') {
                value = whole(value.checked_mul(self.factor()?))?;
            } else if self.take('/') {
                let by = divisor(self.factor()?)?;
                value = whole(value.checked_div(by))?;
            } else if self.take('%') {
                let by = divisor(self.factor()?)?;
                value = whole(value.checked_rem(by))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn factor(&mut self) -> Result<i64, String> {
        if self.take('-') {
            return whole(self.factor()?.checked_neg());
        }
        if self.take('(') {
            let value = self.sum()?;
            self.expect(')')?;
            return Ok(value);
        }
        let Some(first) = self.peek() else { return Err("it ends too early".into()) };
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return Err(format!("`{first}` is not expected"));
        }
        self.rest = rest;
        if first.is_ascii_digit() {
            return word.parse().map_err(|_| format!("`{word}` is no whole number"));
        }
        if !self.take('(') {
            return (self.name)(word).ok_or_else(|| format!("there is no `{word}`"));
        }
        let a = self.sum()?;
        self.expect(',')?;
        let b = self.sum()?;
        self.expect(')')?;
        match word {
            "min" => Ok(a.min(b)),
            "max" => Ok(a.max(b)),
            "ceil" => divisor(b).map(|b| a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0)),
            "align" => {
                let b = divisor(b)?;
                whole((a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0)).checked_mul(b))
            }
            _ => Err(format!("there is no function `{word}`")),
        }
    }
}

fn whole(value: Option<i64>) -> Result<i64, String> {
    value.ok_or_else(|| "a value leaves 64 bits".to_owned())
}

fn divisor(value: i64) -> Result<i64, String> {
    if value > 0 { Ok(value) } else { Err(format!("division by {value}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<i64, String> {
        evaluate(text, &|name| match name {
            "m" => Some(130),
            "a.stride0" => Some(7),
            _ => None,
        })
    }

    #[test]
    fn precedence_and_functions() {
        for (text, wanted) in [
            ("2 + 3 * 4", 14),
            ("(2 + 3) * 4", 20),
            ("-3 + 10 / 3 % 2", -2),
            ("10 - 3 - 2", 5),
            ("ceil(m, 64)", 3),
            ("align(m, 64)", 192),
            ("min(m, max(2, 5)) * a.stride0", 35),
        ] {
            assert_eq!(value(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, wanted) in [
            ("", "ends too early"),
            ("2 +", "ends too early"),
            ("2 3", "`3` is not expected"),
            ("(2", "`)` expected at the end"),
            ("q", "there is no `q`"),
            ("f(1, 2)", "no function `f`"),
            ("min(1)", "`,` expected, not `)`"),
            ("1 / (2 - 2)", "division by 0"),
            ("2x", "`2x` is no whole number"),
            ("9223372036854775807 + 1", "leaves 64 bits"),
            ("$", "`$` is not expected"),
        ] {
            let error = value(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
