//! Comparisons and classes of values.

use crate::lower::program::Type;
use crate::lower::rows::{self, f, flush};
use crate::numeric;
use crate::row::{Row, Row64};

/// A comparison of two registers, a bit per lane.
pub(crate) type Test32 = fn(&Row, &Row) -> u32;
pub(crate) type Test64 = fn(&Row64, &Row64) -> u32;

macro_rules! ordered {
    ($how:expr, $row:ty, $view:expr) => {
        Some(match $how {
            "eq" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a) == $view(b)),
            "ne" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a) != $view(b)),
            "lt" | "lo" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a) < $view(b)),
            "le" | "ls" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a) <= $view(b)),
            "gt" | "hi" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a) > $view(b)),
            "ge" | "hs" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a) >= $view(b)),
            _ => return None,
        })
    };
}

/// Comparisons of floats: those that end in `u` hold for NaN, the others do not.
macro_rules! floats {
    ($how:expr, $row:ty, $view:expr) => {
        Some(match $how {
            "ne" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a) < $view(b) || $view(a) > $view(b)),
            "equ" => {
                |a: &$row, b: &$row| rows::test2(a, b, |a, b| !($view(a) < $view(b) || $view(a) > $view(b)))
            }
            "neu" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a) != $view(b)),
            "ltu" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| !($view(a) >= $view(b))),
            "leu" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| !($view(a) > $view(b))),
            "gtu" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| !($view(a) <= $view(b))),
            "geu" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| !($view(a) < $view(b))),
            "num" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| !$view(a).is_nan() && !$view(b).is_nan()),
            "nan" => |a: &$row, b: &$row| rows::test2(a, b, |a, b| $view(a).is_nan() || $view(b).is_nan()),
            _ => return ordered!($how, $row, $view),
        })
    };
}

fn bf16(x: u32) -> f32 {
    numeric::bf16_to_f32(x as u16)
}

fn f16(x: u32) -> f32 {
    numeric::f16_to_f32(x as u16)
}

fn f16_flushed(x: u32) -> f32 {
    f16(if x & 0x7c00 == 0 { x & 0x8000 } else { x })
}

fn f32_flushed(x: u32) -> f32 {
    f(flush(x))
}

/// Comparison of 32-bit (or narrower) values.
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "unordered comparisons hold for NaN")]
pub(crate) fn compare32(how: &str, ty: Type, ftz: bool) -> Option<Test32> {
    match ty {
        Type::U16 if !ftz => ordered!(how, Row, |x: u32| x as u16),
        Type::S16 if !ftz => ordered!(how, Row, |x: u32| x as i16),
        Type::U32 if !ftz => ordered!(how, Row, |x: u32| x),
        Type::S32 if !ftz => ordered!(how, Row, |x: u32| x as i32),
        Type::F32 if ftz => floats!(how, Row, f32_flushed),
        Type::F32 => floats!(how, Row, f),
        Type::Bf16 if !ftz => floats!(how, Row, bf16),
        Type::F16 if ftz => floats!(how, Row, f16_flushed),
        Type::F16 => floats!(how, Row, f16),
        _ => None,
    }
}

/// Comparison of 64-bit values.
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "unordered comparisons hold for NaN")]
pub(crate) fn compare64(how: &str, ty: Type) -> Option<Test64> {
    match ty {
        Type::U64 => ordered!(how, Row64, |x: u64| x),
        Type::S64 => ordered!(how, Row64, |x: u64| x as i64),
        Type::F64 => floats!(how, Row64, f64::from_bits),
        _ => None,
    }
}

macro_rules! class {
    ($how:expr, $row:ty, $view:expr) => {
        Some(match $how {
            "finite" => |a: &$row, _: &$row| rows::test2(a, a, |a, _| $view(a).is_finite()),
            "infinite" => |a: &$row, _: &$row| rows::test2(a, a, |a, _| $view(a).is_infinite()),
            "number" => |a: &$row, _: &$row| rows::test2(a, a, |a, _| !$view(a).is_nan()),
            "notanumber" => |a: &$row, _: &$row| rows::test2(a, a, |a, _| $view(a).is_nan()),
            "normal" => |a: &$row, _: &$row| rows::test2(a, a, |a, _| $view(a).is_normal()),
            "subnormal" => |a: &$row, _: &$row| rows::test2(a, a, |a, _| $view(a).is_subnormal()),
            _ => return None,
        })
    };
}

/// `testp` of f32.
pub(crate) fn class32(how: &str) -> Option<Test32> {
    class!(how, Row, f)
}

/// `testp` of f64.
pub(crate) fn class64(how: &str) -> Option<Test64> {
    class!(how, Row64, f64::from_bits)
}
