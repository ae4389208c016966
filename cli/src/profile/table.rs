//! Tables of text.

/// Rows under a head; columns are right-aligned unless their head begins with `<`.
pub struct Table {
    head: Vec<String>,
    left: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<S: AsRef<str>>(head: &[S]) -> Self {
        let names = head.iter().map(|name| name.as_ref());
        Self {
            left: names.clone().map(|name| name.starts_with('<')).collect(),
            head: names.map(|name| name.trim_start_matches('<').to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every line begins with `indent`.
    pub fn text(&self, indent: &str) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|i| all().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let mut out = String::new();
        for row in all() {
            let mut line = indent.to_owned();
            for (i, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[i] - cell.chars().count());
                line.push_str(if i == 0 { "" } else { "  " });
                line.push_str(&if self.left[i] { format!("{cell}{pad}") } else { format!("{pad}{cell}") });
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A number in a table: zero is a dot, so that the others stand out.
pub fn count(value: u64) -> String {
    if value == 0 { "·".to_owned() } else { number(value) }
}

/// 1234567 as 1,234,567.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A mean: whole numbers without a fraction.
pub fn mean(value: f64) -> String {
    if value == 0.0 {
        "·".to_owned()
    } else if (value - value.round()).abs() < 0.05 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["<a", "bb"]);
        table.row(["long".to_owned(), count(1_234_567)]);
        table.row(["x".to_owned(), count(0)]);
        assert_eq!(table.text(" "), " a            bb\n long  1,234,567\n x             ·\n");
    }

    #[test]
    fn means_lose_an_empty_fraction() {
        assert_eq!([mean(3.0), mean(2.55), mean(0.0)], ["3", "2.5", "·"]);
    }
}
