//! The selection against its oracle, exactly.

use super::super::surrounded::{Place, Surrounded, text};
use super::super::{Case, Evidence, Source, exact};
use crate::device::Device;
use crate::device::abi::{NG_STATUS_BAD_LENGTH, NG_STATUS_BAD_PAGE, NG_STATUS_NAN_SCORE};
use crate::mla::TopK;
use crate::mla::reference::top_k::top_k;

/// What scores are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Normal numbers.
    Normal,
    /// A few values, so that most of what is chosen is chosen for its place.
    Ties,
    /// Each larger than the one before: all that was listed is soon too small.
    Rising,
    /// Each smaller than the one before.
    Falling,
    /// Infinities, signed zeros, least numbers, NaN, in any order.
    Wild,
    /// One value, so that only places tell.
    Equal,
    /// Every 128th part of a row begins with its largest scores: a look at these promises too much of the rest.
    Clustered,
}

impl Scores {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Normal, Self::Ties, Self::Rising, Self::Falling, Self::Wild, Self::Equal, Self::Clustered];

    fn draw(self, source: &mut Source, column: usize, columns: usize) -> f32 {
        match self {
            Self::Normal => source.normal(),
            Self::Ties => source.integer(-3, 3),
            Self::Rising => column as f32 - 500.0,
            Self::Falling => 500.0 - column as f32,
            Self::Wild => match source.below(9) {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::NEG_INFINITY,
                3 => -0.0,
                4 => 0.0,
                5 => f32::from_bits(1),
                6 => -f32::from_bits(1),
                _ => source.normal(),
            },
            Self::Equal => f32::NEG_INFINITY,
            Self::Clustered if column % (columns / 128).max(1) < 36 => 10.0 + source.unit(),
            Self::Clustered => source.unit(),
        }
    }
}

/// A selection to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopKCheck {
    /// Rows, of which each `rows_per_end` share an end and a line of the page table.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// How many are chosen.
    pub k: usize,
    /// What scores are like.
    pub scores: Scores,
    /// Rows of a sequence; 0: all columns of every row count.
    pub rows_per_end: usize,
    /// Whether rows have starts, too.
    pub starts: bool,
    /// Tokens of a page of the cache that answers are places in; 0: they are columns.
    pub page_tokens: usize,
    /// Whether some starts, ends and pages are outside.
    pub bad: bool,
    /// How the scores lie.
    pub place: Place,
}

impl TopKCheck {
    /// All columns of rows that are aligned, as columns.
    pub fn plain(rows: usize, columns: usize, k: usize, scores: Scores) -> Self {
        let place = Place::default();
        Self { rows, columns, k, scores, rows_per_end: 0, starts: false, page_tokens: 0, bad: false, place }
    }

    /// Runs it and compares.
    ///
    /// # Errors
    ///
    /// The first difference, in words.
    pub fn check(&self, device: &Device, seed: u64) -> Result<Evidence, String> {
        let Self { rows, columns, k, page_tokens, .. } = *self;
        let mut evidence = Evidence::default();
        let mut source = Source::new(seed);
        let sequences = rows / self.rows_per_end.max(1);
        let per_end = rows.checked_div(sequences).unwrap_or(1);
        let outside = |source: &mut Source| [-1, columns as i32 + 1, i32::MAX, i32::MIN][source.below(4)];
        let mut bounds = |count: usize, low: usize, high: usize| -> Vec<i32> {
            let inside = |source: &mut Source| (low + source.below(high - low + 1)) as i32;
            let one = |i| if self.bad && i % 3 == 0 { outside(&mut source) } else { inside(&mut source) };
            (0..count).map(one).collect()
        };
        let starts = bounds(rows, 0, columns / 3);
        let ends = bounds(sequences, columns / 4, columns);
        let clamp = |value: i32| i64::from(value).clamp(0, columns as i64);
        let range = |row: usize| {
            let start = if self.starts { clamp(starts[row]) } else { 0 };
            let after = (per_end - 1 - row % per_end) as i64;
            let end = if self.rows_per_end > 0 { clamp(ends[row / per_end]) - after } else { columns as i64 };
            start as usize..end.max(start) as usize
        };

        // What does not count is NaN, and must not be reported.
        let mut values = vec![f32::NAN; rows * columns];
        let mut status = 0;
        for row in 0..rows {
            for column in range(row) {
                let value = self.scores.draw(&mut source, column, columns);
                status |= if value.is_nan() { NG_STATUS_NAN_SCORE } else { 0 };
                values[row * columns + column] = value;
            }
        }
        let is_bad = |values: &[i32]| values.iter().any(|value| i64::from(*value) != clamp(*value));
        if (self.starts && is_bad(&starts)) || (self.rows_per_end > 0 && is_bad(&ends)) {
            status |= NG_STATUS_BAD_LENGTH;
        }
        let table_pages = if page_tokens > 0 { columns.div_ceil(page_tokens) } else { 0 };
        let cache_pages = sequences * table_pages + 1;
        let mut table: Vec<i32> =
            source.permutation(cache_pages)[1..].iter().map(|page| *page as i32).collect();
        if self.bad {
            table.iter_mut().step_by(5).enumerate().for_each(|(i, page)| {
                *page = [-1, cache_pages as i32, i32::MIN, i32::MAX][i % 4];
            });
        }
        let mut want = Vec::with_capacity(rows * k);
        for row in 0..rows {
            let chosen = top_k(&values[row * columns..(row + 1) * columns], range(row), k);
            for column in chosen {
                if page_tokens == 0 || column < 0 {
                    want.push(column);
                    continue;
                }
                let page = table[row / per_end * table_pages + column as usize / page_tokens];
                let mapped = (0..cache_pages as i32).contains(&page);
                status |= if mapped { 0 } else { NG_STATUS_BAD_PAGE };
                let place = column as usize % page_tokens;
                want.push(if mapped { page * page_tokens as i32 + place as i32 } else { -1 });
            }
        }

        let input = Surrounded::input(device, &[rows, columns], self.place, &values).map_err(text)?;
        let starts = device.tensor(&[rows], &starts).map_err(text)?;
        let ends = device.tensor(&[sequences], &ends).map_err(text)?;
        let table = device.tensor(&[sequences, table_pages], &table).map_err(text)?;
        let out = Surrounded::output(device, &[rows, k], Place { offset: 1, padding: 3 }).map_err(text)?;
        let mut operation = TopK::new(input.view(), out.view());
        if self.starts {
            operation = operation.starts(&starts);
        }
        if self.rows_per_end > 0 {
            operation = operation.ends(&ends);
        }
        if page_tokens > 0 {
            operation = operation.page_table(&table, page_tokens, cache_pages);
        }
        let stream = device.stream();
        operation.launch(&stream).map_err(text)?;
        let got = out.finish("columns", &mut evidence)?;
        evidence.exact(&format!("columns of {self:?}, {k} a row"), &got, &want)?;
        exact("status", &[stream.status().map_err(text)?.bits()], &[status])?;
        Ok(evidence)
    }

    /// Any selection of up to so many columns.
    pub fn draw(source: &mut Source, most: usize) -> Self {
        let columns = 1 + source.below(most);
        let rows_per_end = source.below(4);
        Self {
            rows: rows_per_end.max(1) * (1 + source.below(3)),
            columns,
            k: [1 + source.below(2048), 512, 1 + source.below(40)][source.below(3)],
            scores: Scores::ALL[source.below(Scores::ALL.len())],
            rows_per_end,
            starts: source.below(2) == 0,
            page_tokens: [0, 0, 1, 64][source.below(4)],
            bad: source.below(3) == 0,
            place: Place::draw(source),
        }
    }
}

/// Cases that suit any device.
pub(in crate::verify) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, $check:expr) => {
            Case { family: "mla", name: $name, run: |device, seed| $check.check(device, seed) }
        };
    }
    vec![
        case!("top 512 of 3x3000", TopKCheck::plain(3, 3000, 512, Scores::Normal)),
        case!("top 2048 of 2x40000", TopKCheck::plain(2, 40_000, 2048, Scores::Normal)),
        case!("top 1024 of 2x20000, ties", TopKCheck::plain(2, 20_000, 1024, Scores::Ties)),
        case!("top 2048 of 20000, rising", TopKCheck::plain(1, 20_000, 2048, Scores::Rising)),
        case!("top 2048 of 40000, a misleading sample", {
            TopKCheck::plain(1, 40_000, 2048, Scores::Clustered)
        }),
        case!(
            "top 512 of sequences in pages",
            TopKCheck {
                rows_per_end: 2,
                page_tokens: 64,
                bad: true,
                place: Place { offset: 3, padding: 5 },
                ..TopKCheck::plain(6, 1500, 512, Scores::Wild)
            }
        ),
        Case {
            family: "mla",
            name: "a drawn selection",
            run: |device, seed| TopKCheck::draw(&mut Source::new(seed ^ 0x70CC), 12_000).check(device, seed),
        },
    ]
}
