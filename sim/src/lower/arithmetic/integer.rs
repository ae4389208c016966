//! Integers and bits.

use super::Operation::{self, Bin32, Bin64, MulWide, Narrow, Shift64, Tri32, Tri64, Un32, Un64};
use super::{F2, F3, Rule, Spelling};
use crate::lower::rows::{self, map1, map2, map3};

/// A lane of a register read as some integer type.
trait Lane<Bits> {
    fn get(bits: Bits) -> Self;
    fn put(self) -> Bits;
}

macro_rules! lane {
    ($bits:ty, $($t:ty => $unsigned:ty),*) => {
        $(impl Lane<$bits> for $t {
            #[inline(always)]
            fn get(bits: $bits) -> Self {
                bits as Self
            }

            #[inline(always)]
            fn put(self) -> $bits {
                self as $unsigned as $bits
            }
        })*
    };
}

lane!(u32, u16 => u16, i16 => u16, u32 => u32, i32 => u32);
lane!(u64, u64 => u64, i64 => u64);

macro_rules! one {
    ($wrap:ident, $t:ty, |$a:ident| $value:expr) => {
        one!($wrap, $t, Spread, |$a| $value)
    };
    ($wrap:ident, $t:ty, $rule:ident, |$a:ident| $value:expr) => {
        $wrap(
            |a| {
                map1(a, |a| {
                    let $a = <$t>::get(a);
                    ($value).put()
                })
            },
            Rule::$rule,
        )
    };
}

macro_rules! two {
    ($wrap:ident, $t:ty, |$a:ident, $b:ident| $value:expr) => {
        two!($wrap, $t, Spread, |$a, $b| $value)
    };
    ($wrap:ident, $t:ty, $rule:ident, |$a:ident, $b:ident| $value:expr) => {
        $wrap(
            |a, b| {
                map2(a, b, |a, b| {
                    let ($a, $b) = (<$t>::get(a), <$t>::get(b));
                    ($value).put()
                })
            },
            Rule::$rule,
        )
    };
}

macro_rules! three {
    (Tri64, $t:ty, |$a:ident, $b:ident, $c:ident| $value:expr) => {
        Tri64(|a, b, c| {
            map3(a, b, c, |a, b, c| {
                let ($a, $b, $c) = (<$t>::get(a), <$t>::get(b), <$t>::get(c));
                ($value).put()
            })
        })
    };
    (Tri32, $t:ty, |$a:ident, $b:ident, $c:ident| $value:expr) => {
        Tri32(
            |a, b, c| {
                map3(a, b, c, |a, b, c| {
                    let ($a, $b, $c) = (<$t>::get(a), <$t>::get(b), <$t>::get(c));
                    ($value).put()
                })
            },
            Rule::Spread,
        )
    };
}

/// What every width and sign has. A quotient by zero, which PTX leaves open, is all ones, the remainder the dividend.
macro_rules! common {
    ($s:ident, $operands:ident, $bin:ident, $tri:ident, $t:ty, $double:ty) => {
        match ($s.name, $operands) {
            ("add", 3) if !$s.has("sat") => two!($bin, $t, Carry, |a, b| a.wrapping_add(b)),
            ("sub", 3) if !$s.has("sat") => two!($bin, $t, Carry, |a, b| a.wrapping_sub(b)),
            ("mul", 3) if $s.has("lo") => two!($bin, $t, Carry, |a, b| a.wrapping_mul(b)),
            ("mul", 3) if $s.has("hi") => {
                two!($bin, $t, |a, b| (((a as $double) * (b as $double)) >> <$t>::BITS) as $t)
            }
            ("mad", 4) if $s.has("lo") => three!($tri, $t, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
            ("mad", 4) if $s.has("hi") && !$s.has("sat") => {
                three!($tri, $t, |a, b, c| {
                    ((((a as $double) * (b as $double)) >> <$t>::BITS) as $t).wrapping_add(c)
                })
            }
            ("sad", 4) => three!($tri, $t, |a, b, c| c.wrapping_add(a.abs_diff(b) as $t)),
            ("div", 3) => two!($bin, $t, |a, b| if b == 0 { !0 } else { a.wrapping_div(b) }),
            ("rem", 3) => two!($bin, $t, |a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
            ("min", 3) if !$s.has("relu") => two!($bin, $t, |a, b| a.min(b)),
            ("max", 3) if !$s.has("relu") => two!($bin, $t, |a, b| a.max(b)),
            _ => return None,
        }
    };
}

fn halves(a: u32, b: u32, op: impl Fn(i32, i32) -> i32, signed: bool) -> u32 {
    let part = |x: u32, by: u32| {
        let half = (x >> by) as u16;
        if signed { i32::from(half as i16) } else { i32::from(half) }
    };
    op(part(a, 0), part(b, 0)) as u32 & 0xffff | (op(part(a, 16), part(b, 16)) as u32) << 16
}

fn packed(s: &Spelling<'_>) -> Option<F2> {
    macro_rules! pair {
        ($signed:expr, $op:expr) => {
            |a, b| map2(a, b, |a, b| halves(a, b, $op, $signed))
        };
    }
    Some(match (s.name, s.last() == "s16x2", s.has("relu")) {
        ("add", _, false) => pair!(false, |a, b| a + b),
        ("min", true, false) => pair!(true, i32::min),
        ("max", true, false) => pair!(true, i32::max),
        ("min", true, true) => pair!(true, |a: i32, b| a.min(b).max(0)),
        ("max", true, true) => pair!(true, |a: i32, b| a.max(b).max(0)),
        ("min", false, false) => pair!(false, i32::min),
        ("max", false, false) => pair!(false, i32::max),
        _ => return None,
    })
}

fn wide(s: &Spelling<'_>, operands: usize) -> Option<Operation> {
    Some(match (s.name, s.last(), operands) {
        ("mul", "u16", 3) => two!(Bin32, u16, |a, b| u32::from(a) * u32::from(b)),
        ("mul", "s16", 3) => two!(Bin32, i16, |a, b| i32::from(a) * i32::from(b)),
        ("mad", "u16", 4) => Tri32(
            |a, b, c| map3(a, b, c, |a, b, c| ((a & 0xffff) * (b & 0xffff)).wrapping_add(c)),
            Rule::Spread,
        ),
        ("mad", "s16", 4) => Tri32(
            |a, b, c| {
                map3(a, b, c, |a, b, c| {
                    (i32::from(a as i16) * i32::from(b as i16)).wrapping_add(c as i32) as u32
                })
            },
            Rule::Spread,
        ),
        ("mul", "u32", 3) | ("mad", "u32", 4) => {
            MulWide(|a, b, c| map3(a, b, c, |a, b, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)))
        }
        ("mul", "s32", 3) | ("mad", "s32", 4) => MulWide(|a, b, c| {
            map3(a, b, c, |a, b, c: u64| ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c))
        }),
        _ => return None,
    })
}

/// Products of the low 24 bits.
fn mul24(a: u32, b: u32, signed: bool, high: bool) -> u32 {
    let part = |x: u32| if signed { i64::from((x << 8) as i32 >> 8) } else { i64::from(x & 0xff_ffff) };
    ((part(a) * part(b)) >> if high { 16 } else { 0 }) as u32
}

fn twenty_four(s: &Spelling<'_>, operands: usize) -> Option<Operation> {
    macro_rules! product {
        ($signed:expr, $high:expr) => {
            if operands == 3 {
                Bin32(|a, b| map2(a, b, |a, b| mul24(a, b, $signed, $high)), Rule::Spread)
            } else {
                Tri32(
                    |a, b, c| map3(a, b, c, |a, b, c| mul24(a, b, $signed, $high).wrapping_add(c)),
                    Rule::Spread,
                )
            }
        };
    }
    Some(match (s.last(), s.has("lo"), s.has("hi")) {
        ("u32", true, false) => product!(false, false),
        ("u32", false, true) => product!(false, true),
        ("s32", true, false) => product!(true, false),
        ("s32", false, true) => product!(true, true),
        _ => return None,
    })
}

/// Part `i` of so many bits of `x`.
fn part(x: u32, i: u32, bits: u32, signed: bool) -> i32 {
    let up = 32 - bits;
    let moved = (x >> (i * bits)) << up;
    if signed { moved as i32 >> up } else { (moved >> up) as i32 }
}

/// Four products of bytes, or two of halves with the lower or upper two bytes, added to c.
fn dot(s: &Spelling<'_>) -> Option<F3> {
    macro_rules! sum {
        ($bits:expr, $first:expr, $x:expr, $y:expr) => {
            |a, b, c| {
                map3(a, b, c, |a, b, c| {
                    (0..32 / $bits).fold(c, |sum, i| {
                        let product = part(a, i, $bits, $x).wrapping_mul(part(b, $first + i, 8, $y));
                        sum.wrapping_add(product as u32)
                    })
                })
            }
        };
    }
    macro_rules! signs {
        ($bits:expr, $first:expr) => {
            match (s.at(s.modifiers.len().checked_sub(2)?), s.last()) {
                ("u32", "u32") => sum!($bits, $first, false, false),
                ("u32", "s32") => sum!($bits, $first, false, true),
                ("s32", "u32") => sum!($bits, $first, true, false),
                ("s32", "s32") => sum!($bits, $first, true, true),
                _ => return None,
            }
        };
    }
    Some(match (s.name, s.has("lo"), s.has("hi")) {
        ("dp4a", false, false) => signs!(8, 0),
        ("dp2a", true, false) => signs!(16, 0),
        ("dp2a", false, true) => signs!(16, 2),
        _ => return None,
    })
}

fn funnel(s: &Spelling<'_>) -> Option<F3> {
    fn left(a: u32, b: u32, by: u32) -> u32 {
        (((u64::from(b) << 32 | u64::from(a)) << by) >> 32) as u32
    }
    fn right(a: u32, b: u32, by: u32) -> u32 {
        ((u64::from(b) << 32 | u64::from(a)) >> by) as u32
    }
    Some(match (s.has("l"), s.has("r"), s.has("wrap"), s.has("clamp")) {
        (true, false, true, false) => |a, b, c| map3(a, b, c, |a, b, c| left(a, b, c & 31)),
        (true, false, false, true) => |a, b, c| map3(a, b, c, |a, b, c| left(a, b, c.min(32))),
        (false, true, true, false) => |a, b, c| map3(a, b, c, |a, b, c| right(a, b, c & 31)),
        (false, true, false, true) => |a, b, c| map3(a, b, c, |a, b, c| right(a, b, c.min(32))),
        _ => return None,
    })
}

fn permutation(s: &Spelling<'_>) -> Option<(F3, Rule)> {
    /// Byte sources of the special modes, by the selector's two low bits, as a selector of the plain mode.
    macro_rules! mode {
        ($table:expr) => {
            (|a, b, c| map3(a, b, c, |a, b, c| rows::prmt(a, b, $table[(c & 3) as usize])), Rule::Through)
        };
    }
    if s.at(0) != "b32" {
        return None;
    }
    if s.modifiers.len() == 1 {
        return Some((|a, b, c| map3(a, b, c, rows::prmt), Rule::Through));
    }
    Some(match s.at(1) {
        "f4e" => mode!([0x3210, 0x4321, 0x5432, 0x6543]),
        "b4e" => mode!([0x5670, 0x6701, 0x7012, 0x0123]),
        "rc8" => mode!([0x0000, 0x1111, 0x2222, 0x3333]),
        "ecl" => mode!([0x3210, 0x3211, 0x3222, 0x3333]),
        "ecr" => mode!([0x0000, 0x1110, 0x2210, 0x3210]),
        "rc16" => mode!([0x1010, 0x3232, 0x1010, 0x3232]),
        _ => return None,
    })
}

/// Position of the highest bit that is not a copy of the sign, or all ones.
fn highest(magnitude: u64, width: u32, shift: bool) -> u32 {
    if magnitude == 0 {
        return u32::MAX;
    }
    let at = 63 - magnitude.leading_zeros();
    if shift { width - 1 - at } else { at }
}

fn find(s: &Spelling<'_>) -> Option<Operation> {
    macro_rules! by {
        ($wrap:ident $(, $rule:expr)?; $width:expr, $magnitude:expr) => {
            if s.has("shiftamt") {
                $wrap(|a| map1(a, |a| highest($magnitude(a), $width, true)) $(, $rule)?)
            } else {
                $wrap(|a| map1(a, |a| highest($magnitude(a), $width, false)) $(, $rule)?)
            }
        };
    }
    Some(match s.last() {
        "u32" => by!(Un32, Rule::Spread; 32, u64::from),
        "s32" => by!(Un32, Rule::Spread; 32, |a: u32| u64::from(a ^ ((a as i32) >> 31) as u32)),
        "u64" => by!(Narrow; 64, |a: u64| a),
        "s64" => by!(Narrow; 64, |a: u64| a ^ ((a as i64) >> 63) as u64),
        _ => return None,
    })
}

fn nth_set(mask: u32, base: u32, offset: u32) -> u32 {
    let offset = offset as i32;
    let set = |at: i64| (0..32).contains(&at) && mask >> at & 1 == 1;
    let base = i64::from(base);
    if offset == 0 {
        return if set(base) { base as u32 } else { u32::MAX };
    }
    let mut left = offset.unsigned_abs();
    let mut at = base;
    while (0..32).contains(&at) {
        if set(at) {
            left -= 1;
            if left == 0 {
                return at as u32;
            }
        }
        at += i64::from(offset.signum());
    }
    u32::MAX
}

fn bit_mask(position: u32, width: u32, clamp: bool) -> u32 {
    if clamp && position > 31 {
        return 0;
    }
    let (first, count) = (position & 31, width & 31);
    let low = u32::MAX << first;
    if first + count > 31 || clamp && width > 31 { low } else { low & !(u32::MAX << (first + count)) }
}

fn extended(a: u32, width: u32, clamp: bool, signed: bool) -> u32 {
    let count = width & 31;
    if clamp && width > 31 {
        return a;
    }
    let above = u32::MAX << count;
    if signed && count > 0 && a >> (count - 1) & 1 == 1 { a | above } else { a & !above }
}

fn bits(s: &Spelling<'_>, operands: usize) -> Option<Operation> {
    macro_rules! logic {
        ($op:expr, $rule:expr) => {
            match s.last() {
                "b16" | "b32" => Bin32(|a, b| map2(a, b, $op), $rule),
                "b64" => Bin64(|a, b| map2(a, b, $op), $rule),
                _ => return None,
            }
        };
    }
    macro_rules! shift {
        ($t:ty, $rule:expr, $op:tt, $past:expr) => {
            Bin32(
                |a, b| {
                    map2(a, b, |a, b| {
                        let a = <$t as Lane<u32>>::get(a);
                        (if b >= <$t>::BITS { $past(a) } else { a $op b }).put()
                    })
                },
                $rule,
            )
        };
    }
    let clamp = s.has("clamp");
    Some(match (s.name, s.last(), operands) {
        ("and", _, 3) => logic!(|a, b| a & b, Rule::And),
        ("or", _, 3) => logic!(|a, b| a | b, Rule::Or),
        ("xor", _, 3) => logic!(|a, b| a ^ b, Rule::Xor),
        ("not", "b16", 2) => Un32(|a| map1(a, |a| !a & 0xffff), Rule::Move),
        ("not", "b32", 2) => Un32(|a| map1(a, |a| !a), Rule::Move),
        ("not", "b64", 2) => Un64(|a| map1(a, |a| !a), Rule::Move),
        ("cnot", "b16", 2) => one!(Un32, u16, |a| u16::from(a == 0)),
        ("cnot", "b32", 2) => one!(Un32, u32, |a| u32::from(a == 0)),
        ("cnot", "b64", 2) => one!(Un64, u64, |a| u64::from(a == 0)),
        ("shl", "b16", 3) => shift!(u16, Rule::Through, <<, |_| 0),
        ("shl", "b32", 3) => shift!(u32, Rule::Through, <<, |_| 0),
        ("shl", "b64", 3) => Shift64(rows::shift_left64, Rule::Through),
        ("shr", "b16" | "u16", 3) => shift!(u16, Rule::Through, >>, |_| 0),
        ("shr", "b32" | "u32", 3) => shift!(u32, Rule::Through, >>, |_| 0),
        ("shr", "b64" | "u64", 3) => Shift64(rows::shift_right64, Rule::Through),
        ("shr", "s16", 3) => shift!(i16, Rule::Through, >>, |a: i16| a >> 15),
        ("shr", "s32", 3) => shift!(i32, Rule::Through, >>, |a: i32| a >> 31),
        ("shr", "s64", 3) => Shift64(rows::shift_right_signed64, Rule::Through),
        ("shf", "b32", 4) => Tri32(funnel(s)?, Rule::Through),
        ("popc", "b32", 2) => one!(Un32, u32, |a| a.count_ones()),
        ("popc", "b64", 2) => Narrow(|a| map1(a, u64::count_ones)),
        ("clz", "b32", 2) => one!(Un32, u32, |a| a.leading_zeros()),
        ("clz", "b64", 2) => Narrow(|a| map1(a, u64::leading_zeros)),
        ("brev", "b32", 2) => one!(Un32, u32, Through, |a| a.reverse_bits()),
        ("brev", "b64", 2) => one!(Un64, u64, Through, |a| a.reverse_bits()),
        ("bfind", _, 2) => return find(s),
        ("bfe", "u32", 4) => {
            Tri32(|a, b, c| map3(a, b, c, |a, b, c| rows::bfe(a.into(), b, c, false, 32) as u32), Rule::Field)
        }
        ("bfe", "s32", 4) => {
            Tri32(|a, b, c| map3(a, b, c, |a, b, c| rows::bfe(a.into(), b, c, true, 32) as u32), Rule::Field)
        }
        ("fns", "b32", 4) => Tri32(|a, b, c| map3(a, b, c, nth_set), Rule::Spread),
        ("bmsk", "b32", 3) if clamp => two!(Bin32, u32, |a, b| bit_mask(a, b, true)),
        ("bmsk", "b32", 3) if s.has("wrap") => two!(Bin32, u32, |a, b| bit_mask(a, b, false)),
        ("szext", "u32", 3) if clamp => two!(Bin32, u32, |a, b| extended(a, b, true, false)),
        ("szext", "u32", 3) if s.has("wrap") => two!(Bin32, u32, |a, b| extended(a, b, false, false)),
        ("szext", "s32", 3) if clamp => two!(Bin32, u32, |a, b| extended(a, b, true, true)),
        ("szext", "s32", 3) if s.has("wrap") => two!(Bin32, u32, |a, b| extended(a, b, false, true)),
        ("prmt", _, 4) => {
            let (f, rule) = permutation(s)?;
            Tri32(f, rule)
        }
        ("vabsdiff4", "u32", 4) if byte_wise(s) => {
            Tri32(|a, b, c| map3(a, b, c, |a, b, _| distances(a, b)), Rule::Spread)
        }
        ("vabsdiff4", "add", 4) if byte_wise(s) => Tri32(
            |a, b, c| {
                map3(a, b, c, |a, b, c| {
                    distances(a, b).to_le_bytes().iter().fold(c, |sum, &x| sum.wrapping_add(x.into()))
                })
            },
            Rule::Spread,
        ),
        ("dp4a" | "dp2a", _, 4) => Tri32(dot(s)?, Rule::Spread),
        _ => return None,
    })
}

/// Four unsigned bytes a word, all of them.
fn byte_wise(s: &Spelling<'_>) -> bool {
    (0..3).all(|i| s.at(i) == "u32")
}

/// Byte by byte, how far apart they are.
fn distances(a: u32, b: u32) -> u32 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u32::from_le_bytes(std::array::from_fn(|i| a[i].abs_diff(b[i])))
}

/// Sums, products, quotients and choices of integers.
pub(super) fn operation(s: &Spelling<'_>, operands: usize) -> Option<Operation> {
    if s.has("wide") {
        return wide(s, operands);
    }
    if s.last().ends_with("16x2") && operands == 3 {
        return Some(Bin32(packed(s)?, Rule::Halves));
    }
    if let Some(found) = bits(s, operands) {
        return Some(found);
    }
    Some(match (s.name, s.last(), operands) {
        ("neg", "s16", 2) => one!(Un32, i16, |a| a.wrapping_neg()),
        ("neg", "s32", 2) => one!(Un32, i32, |a| a.wrapping_neg()),
        ("neg", "s64", 2) => one!(Un64, i64, |a| a.wrapping_neg()),
        ("abs", "s16", 2) => one!(Un32, i16, |a| a.wrapping_abs()),
        ("abs", "s32", 2) => one!(Un32, i32, |a| a.wrapping_abs()),
        ("abs", "s64", 2) => one!(Un64, i64, |a| a.wrapping_abs()),
        ("add", "s32", 3) if s.has("sat") => two!(Bin32, i32, |a, b| a.saturating_add(b)),
        ("sub", "s32", 3) if s.has("sat") => two!(Bin32, i32, |a, b| a.saturating_sub(b)),
        ("min", "s32", 3) if s.has("relu") => two!(Bin32, i32, |a, b| a.min(b).max(0)),
        ("max", "s32", 3) if s.has("relu") => two!(Bin32, i32, |a, b| a.max(b).max(0)),
        ("mad", "s32", 4) if s.has("hi") && s.has("sat") => {
            three!(Tri32, i32, |a, b, c| { (((i64::from(a) * i64::from(b)) >> 32) as i32).saturating_add(c) })
        }
        ("mul24", _, 3) | ("mad24", _, 4) => return twenty_four(s, operands),
        (_, "u16", _) => common!(s, operands, Bin32, Tri32, u16, u32),
        (_, "s16", _) => common!(s, operands, Bin32, Tri32, i16, i32),
        (_, "u32", _) => common!(s, operands, Bin32, Tri32, u32, u64),
        (_, "s32", _) => common!(s, operands, Bin32, Tri32, i32, i64),
        (_, "u64", _) => common!(s, operands, Bin64, Tri64, u64, u128),
        (_, "s64", _) => common!(s, operands, Bin64, Tri64, i64, i128),
        _ => return None,
    })
}
