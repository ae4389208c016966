//! One instruction over tables of inputs, and the definitions that its results are compared with.

use crate::run;
use narrowgauge_sim::Schedule;

pub type Row = [u64; 3];

/// What an instruction leaves in its first operand, for every row. The inputs are %b0.. (16 bits), %a0.. (32) and %w0..
/// (64); a predicate counts as 1 or 0.
pub fn results(op: &str, inputs: &[Row]) -> Vec<u64> {
    let last = op.trim_end_matches(';').rsplit(';').next().unwrap().trim();
    let into = last.split_whitespace().nth(1).unwrap();
    let store = match into.trim_end_matches(',') {
        "%rd0" => "st.global.u64 [%out], %rd0;",
        "%h0" => "st.global.u16 [%out], %h0;",
        "%p0" | "%p0|%p1" => "selp.u32 %r39, 1, 0, %p0; st.global.u32 [%out], %r39;",
        "%r0" => "st.global.u32 [%out], %r0;",
        other => panic!("`{op}` writes {other}"),
    };
    let body = format!("{op}; {store}");
    let mut out = Vec::new();
    for part in inputs.chunks(1024) {
        let threads = part.len().next_multiple_of(32) as u32;
        let (got, _) = run(&body, part, threads, Schedule::default()).unwrap_or_else(|e| panic!("{op}: {e}"));
        out.extend(&got[..part.len()]);
    }
    out
}

/// Compares every row with its definition.
pub fn check(op: &str, inputs: &[Row], definition: impl Fn(Row) -> u64) {
    for (row, got) in inputs.iter().zip(results(op, inputs)) {
        let want = definition(*row);
        assert_eq!(got, want, "{op} of {row:#x?}: {got:#x}, not {want:#x}");
    }
}

/// `[[a]]`, `[[a, b]]` and `[[a, b, c]]` over all values.
pub fn singles(values: &[u64]) -> Vec<Row> {
    values.iter().map(|&a| [a, 0, 0]).collect()
}

pub fn pairs(values: &[u64]) -> Vec<Row> {
    values.iter().flat_map(|&a| values.iter().map(move |&b| [a, b, 0])).collect()
}

pub fn triples(values: &[u64]) -> Vec<Row> {
    pairs(values).iter().flat_map(|&[a, b, _]| values.iter().map(move |&c| [a, b, c])).collect()
}

/// An integer type of PTX.
#[derive(Clone, Copy)]
pub struct Int {
    pub name: &'static str,
    pub bits: u32,
    pub signed: bool,
}

const fn int(name: &'static str, bits: u32, signed: bool) -> Int {
    Int { name, bits, signed }
}

pub const INTEGERS: [Int; 6] = [
    int("u16", 16, false),
    int("s16", 16, true),
    int("u32", 32, false),
    int("s32", 32, true),
    int("u64", 64, false),
    int("s64", 64, true),
];

pub const BITS: [Int; 3] = [int("b16", 16, false), int("b32", 32, false), int("b64", 64, false)];

impl Int {
    /// Destination and sources.
    pub fn registers(self) -> [&'static str; 4] {
        match self.bits {
            16 => ["%h0", "%b0", "%b1", "%b2"],
            32 => ["%r0", "%a0", "%a1", "%a2"],
            _ => ["%rd0", "%w0", "%w1", "%w2"],
        }
    }

    pub fn value(self, bits: u64) -> i128 {
        let kept = i128::from(bits) & ((1 << self.bits) - 1);
        if self.signed && kept >> (self.bits - 1) == 1 { kept - (1 << self.bits) } else { kept }
    }

    pub fn wrap(self, value: i128) -> u64 {
        (value & ((1 << self.bits) - 1)) as u64
    }

    pub fn least(self) -> i128 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    pub fn most(self) -> i128 {
        (1 << (self.bits - u32::from(self.signed))) - 1
    }

    pub fn edges(self) -> Vec<u64> {
        let top = 1u128 << (self.bits - 1);
        [0, 1, 2, 3, 7, 100, top - 1, top, top + 1, top / 3, 2 * top - 1, 2 * top - 2, 2 * top - 100]
            .map(|x| x as u64)
            .to_vec()
    }
}

/// A floating-point format by its definition.
#[derive(Clone, Copy)]
pub struct Format {
    pub fraction: u32,
    pub bias: i32,
    /// Largest finite code.
    pub last: u64,
    pub width: u32,
}

pub const F16: Format = Format { fraction: 10, bias: 15, last: 0x7bff, width: 16 };
pub const BF16: Format = Format { fraction: 7, bias: 127, last: 0x7f7f, width: 16 };
pub const F32: Format = Format { fraction: 23, bias: 127, last: 0x7f7f_ffff, width: 32 };
pub const E4M3: Format = Format { fraction: 3, bias: 7, last: 0x7e, width: 8 };
pub const E5M2: Format = Format { fraction: 2, bias: 15, last: 0x7b, width: 8 };

#[derive(Clone, Copy, PartialEq)]
pub enum To {
    Nearest,
    Zero,
    Down,
    Up,
}

/// The rounding modifiers of arithmetic.
pub const DIRECTIONS: [(&str, To); 4] =
    [("rn", To::Nearest), ("rz", To::Zero), ("rm", To::Down), ("rp", To::Up)];

impl Format {
    fn magnitude(self, code: u64) -> f64 {
        let digits = (code & ((1 << self.fraction) - 1)) as f64 / (1u64 << self.fraction) as f64;
        let exponent = (code >> self.fraction) as i32;
        if exponent == 0 {
            digits * 2f64.powi(1 - self.bias)
        } else {
            (1.0 + digits) * 2f64.powi(exponent - self.bias)
        }
    }

    pub fn nan(self) -> u64 {
        (1 << (self.width - 1)) - 1
    }

    pub fn value(self, code: u64) -> f64 {
        let (sign, code) = (code >> (self.width - 1) & 1, code & self.nan());
        let size = match code {
            // e4m3 has no infinity, and one NaN.
            _ if code <= self.last => self.magnitude(code),
            _ if code == self.last + 1 && self.last != E4M3.last => f64::INFINITY,
            _ => f64::NAN,
        };
        if sign == 1 { -size } else { size }
    }

    /// The code of an exact value: found by search among the format's own values. Overflow is infinite (for directed
    /// rounding only outward).
    pub fn round(self, value: f64, to: To) -> u64 {
        if value.is_nan() {
            return self.nan();
        }
        let sign = u64::from(value.is_sign_negative()) << (self.width - 1);
        let size = value.abs();
        if size.is_infinite() {
            return sign | (self.last + 1);
        }
        let (mut low, mut high) = (0, self.last + 1);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.magnitude(middle) <= size { low = middle } else { high = middle }
        }
        let under = self.magnitude(low);
        let middle = (under + self.magnitude(low + 1)) / 2.0;
        let up = match to {
            _ if under == size => false,
            To::Nearest => size > middle || size == middle && low % 2 == 1,
            To::Zero => false,
            To::Down => value < 0.0,
            To::Up => value > 0.0,
        };
        sign | (low + u64::from(up))
    }
}

/// Exact arithmetic: multiples of 2^-60, for factors that are multiples of 2^-30 below 2^30.
#[derive(Clone, Copy, Debug)]
pub struct Exact(pub i128);

impl Exact {
    pub fn of(x: f64) -> Self {
        let units = x * 2f64.powi(30);
        assert!(units.fract() == 0.0 && units.abs() < 2f64.powi(60));
        Self((units as i128) << 30)
    }

    pub fn times(self, other: Self) -> Self {
        Self((self.0 >> 30) * (other.0 >> 30))
    }

    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Nearest or directed value with so many significant bits.
    pub fn round(self, bits: u32, to: To) -> f64 {
        let size = self.0.unsigned_abs();
        let drop = (128 - size.leading_zeros()).saturating_sub(bits);
        let (kept, rest) = (size >> drop, size & ((1 << drop) - 1));
        let half = (1u128 << drop) / 2;
        let up = match to {
            _ if rest == 0 => false,
            To::Nearest => rest > half || rest == half && kept % 2 == 1,
            To::Zero => false,
            To::Down => self.0 < 0,
            To::Up => self.0 > 0,
        };
        let value = (kept + u128::from(up)) as f64 * 2f64.powi(drop as i32 - 60);
        if self.0 < 0 { -value } else { value }
    }
}
