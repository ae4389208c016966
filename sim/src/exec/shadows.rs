//! Undefined bits of a result, from those of the sources. Each function gives none where no lane of `mask` has any.

use super::operands::{Value32, Value64, any, any64};
use crate::lower::program::Rule;
use crate::lower::rows;
use crate::row::{Row, Row64};

const NONE: Row = [0; 32];
const NONE64: Row64 = [0; 32];

fn all32(shadow: u32) -> u32 {
    if shadow == 0 { 0 } else { u32::MAX }
}

fn all64(shadow: u64) -> u64 {
    if shadow == 0 { 0 } else { u64::MAX }
}

/// The lowest undefined bit and all above it.
fn upward(shadow: u32) -> u32 {
    shadow | shadow.wrapping_neg()
}

fn parts(shadow: u32, bits: u32, apart: u32) -> u32 {
    let part = (1 << bits) - 1;
    let first = if shadow & part == 0 { 0 } else { 1 };
    let second = if shadow >> bits & part == 0 { 0 } else { 1 << apart };
    (first | second) * ((1 << apart) - 1)
}

/// What a rule makes of all the sources' undefined bits together.
fn pooled(rule: Rule, shadow: u32) -> u32 {
    match rule {
        Rule::Move | Rule::Xor => shadow,
        Rule::Carry => upward(shadow),
        Rule::Halves => parts(shadow, 16, 16),
        Rule::Shorten => parts(shadow, 16, 8),
        Rule::Lengthen => parts(shadow, 8, 16),
        _ => all32(shadow),
    }
}

pub(super) fn one(rule: Rule, f: fn(&Row) -> Row, s: &Row, mask: u32) -> Option<Row> {
    let out = if rule == Rule::Through { f(s) } else { s.map(|s| pooled(rule, s)) };
    Some(out).filter(|s| any(s, mask))
}

pub(super) fn two(rule: Rule, f: fn(&Row, &Row) -> Row, a: &Value32, b: &Value32, mask: u32) -> Option<Row> {
    if a.1.is_none() && b.1.is_none() {
        return None;
    }
    let (sa, sb) = (a.1.as_deref().unwrap_or(&NONE), b.1.as_deref().unwrap_or(&NONE));
    let moved = if rule == Rule::Through { f(sa, &b.0) } else { NONE };
    let mut out = NONE;
    for i in 0..32 {
        let (x, y, u, v) = (a.0[i], b.0[i], sa[i], sb[i]);
        out[i] = match rule {
            Rule::And => u & (y | v) | v & (x | u),
            Rule::Or => u & (!y | v) | v & (!x | u),
            Rule::Through if v == 0 => moved[i],
            Rule::Join(bits) => {
                let part = (1 << bits) - 1;
                (all32(u) & part) << bits | all32(v) & part
            }
            _ => pooled(rule, u | v),
        };
    }
    Some(out).filter(|s| any(s, mask))
}

pub(super) fn three(
    rule: Rule,
    f: fn(&Row, &Row, &Row) -> Row,
    [a, b, c]: [&Value32; 3],
    mask: u32,
) -> Option<Row> {
    if a.1.is_none() && b.1.is_none() && c.1.is_none() {
        return None;
    }
    let [sa, sb, sc] = [a, b, c].map(|v| v.1.as_deref().unwrap_or(&NONE));
    let moved = match rule {
        Rule::Through => f(sa, sb, &c.0),
        Rule::Field => f(sa, &b.0, &c.0),
        _ => NONE,
    };
    let mut out = NONE;
    for i in 0..32 {
        out[i] = match rule {
            Rule::Through if sc[i] == 0 => moved[i],
            Rule::Field if sb[i] | sc[i] == 0 => moved[i],
            _ => pooled(rule, sa[i] | sb[i] | sc[i]),
        };
    }
    Some(out).filter(|s| any(s, mask))
}

/// Bits of the result that some choice of the undefined bits would change.
pub(super) fn lop3(a: &Value32, b: &Value32, c: &Value32, lut: u8, mask: u32) -> Option<Row> {
    if a.1.is_none() && b.1.is_none() && c.1.is_none() {
        return None;
    }
    let part = |v: &Value32, i: usize| v.1.as_ref().map_or(0, |s| s[i]);
    let mut out = NONE;
    for i in 0..32 {
        let (mut every, mut some) = (u32::MAX, 0);
        for choice in 0..8u32 {
            let pick = |v: &Value32, bit: u32| v.0[i] ^ if choice >> bit & 1 == 1 { part(v, i) } else { 0 };
            let result = rows::lop3(pick(a, 0), pick(b, 1), pick(c, 2), lut);
            every &= result;
            some |= result;
        }
        out[i] = every ^ some;
    }
    Some(out).filter(|s| any(s, mask))
}

fn pooled64(rule: Rule, shadow: u64) -> u64 {
    match rule {
        Rule::Move | Rule::Xor => shadow,
        Rule::Carry => shadow | shadow.wrapping_neg(),
        _ => all64(shadow),
    }
}

pub(super) fn one64(rule: Rule, f: fn(&Row64) -> Row64, s: &Row64, mask: u32) -> Option<Row64> {
    let out = if rule == Rule::Through { f(s) } else { s.map(|s| pooled64(rule, s)) };
    Some(out).filter(|s| any64(s, mask))
}

pub(super) fn two64(rule: Rule, a: &Value64, b: &Value64, mask: u32) -> Option<Row64> {
    if a.1.is_none() && b.1.is_none() {
        return None;
    }
    let (sa, sb) = (a.1.as_deref().unwrap_or(&NONE64), b.1.as_deref().unwrap_or(&NONE64));
    let mut out = NONE64;
    for i in 0..32 {
        let (x, y, u, v) = (a.0[i], b.0[i], sa[i], sb[i]);
        out[i] = match rule {
            Rule::And => u & (y | v) | v & (x | u),
            Rule::Or => u & (!y | v) | v & (!x | u),
            _ => pooled64(rule, u | v),
        };
    }
    Some(out).filter(|s| any64(s, mask))
}

pub(super) fn union64(parts: [&Option<Box<Row64>>; 3], mask: u32) -> Option<Row64> {
    if parts.iter().all(|p| p.is_none()) {
        return None;
    }
    let mut out = NONE64;
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = all64(parts.iter().fold(0, |u, p| u | p.as_ref().map_or(0, |s| s[i])));
    }
    Some(out).filter(|s| any64(s, mask))
}
