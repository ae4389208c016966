//! Comparisons, selections and the logic of predicates.

use crate::table::{BF16, BITS, F16, F32, INTEGERS, Row, To, check, pairs, results, triples};
use std::cmp::Ordering;

/// Comparisons of floats: each holds for less, equal, greater, unordered.
const FLOATS: [(&str, [bool; 4]); 14] = [
    ("eq", [false, true, false, false]),
    ("ne", [true, false, true, false]),
    ("lt", [true, false, false, false]),
    ("le", [true, true, false, false]),
    ("gt", [false, false, true, false]),
    ("ge", [false, true, true, false]),
    ("equ", [false, true, false, true]),
    ("neu", [true, false, true, true]),
    ("ltu", [true, false, false, true]),
    ("leu", [true, true, false, true]),
    ("gtu", [false, false, true, true]),
    ("geu", [false, true, true, true]),
    ("num", [true, true, true, false]),
    ("nan", [false, false, false, true]),
];

/// The names of unsigned order stand for the first six.
const ORDER: [(&str, usize); 4] = [("lo", 2), ("ls", 3), ("hi", 4), ("hs", 5)];

fn place(order: Option<Ordering>) -> usize {
    match order {
        Some(Ordering::Less) => 0,
        Some(Ordering::Equal) => 1,
        Some(Ordering::Greater) => 2,
        None => 3,
    }
}

#[test]
fn integers_compare() {
    for ty in INTEGERS {
        let [_, a, b, _] = ty.registers();
        let mut tests: Vec<_> = FLOATS[..6].to_vec();
        if !ty.signed {
            tests.extend(ORDER.map(|(name, at)| (name, FLOATS[at].1)));
        }
        for (how, holds) in tests {
            check(&format!("setp.{how}.{} %p0, {a}, {b}", ty.name), &pairs(&ty.edges()), |[a, b, _]| {
                holds[place(Some(ty.value(a).cmp(&ty.value(b))))].into()
            });
        }
    }
    for ty in BITS {
        let [_, a, b, _] = ty.registers();
        for (how, equal) in [("eq", true), ("ne", false)] {
            check(&format!("setp.{how}.{} %p0, {a}, {b}", ty.name), &pairs(&ty.edges()), |[a, b, _]| {
                u64::from((a == b) == equal)
            });
        }
    }
    assert_eq!(results("setp.lt.s16 %p0, %b0, -1", &[[0xfffe, 0, 0], [0xffff, 0, 0], [1, 0, 0]]), [1, 0, 0]);
    assert_eq!(results("setp.eq.b16 %p0, %b0, -1", &[[0xffff, 0, 0], [0x1_0000, 0, 0]]), [1, 0]);
}

const SAMPLE: [f64; 9] = [0.0, -0.0, 1.0, -1.0, 1.5, 6e-8, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];

#[test]
fn floats_compare() {
    type Decode = fn(u64) -> f64;
    for (name, a, b, encode, decode) in [
        (
            "f32",
            "%a0",
            "%a1",
            (|x| F32.round(x, To::Nearest)) as fn(f64) -> u64,
            (|x| F32.value(x)) as Decode,
        ),
        ("f64", "%w0", "%w1", f64::to_bits, f64::from_bits),
        ("f16", "%b0", "%b1", |x| F16.round(x, To::Nearest), |x| F16.value(x)),
        ("bf16", "%b0", "%b1", |x| BF16.round(x, To::Nearest), |x| BF16.value(x)),
    ] {
        let rows = pairs(&SAMPLE.map(encode));
        for (how, holds) in FLOATS {
            check(&format!("setp.{how}.{name} %p0, {a}, {b}"), &rows, |[a, b, _]| {
                holds[place(decode(a).partial_cmp(&decode(b)))].into()
            });
        }
    }
    let subnormal = [[1, 0, 0], [0x8000_0001, 0, 0], [0x0080_0000, 0, 0]];
    assert_eq!(results("setp.eq.f32 %p0, %a0, 0f00000000", &subnormal), [0, 0, 0]);
    assert_eq!(results("setp.eq.ftz.f32 %p0, %a0, 0f00000000", &subnormal), [1, 1, 0]);
    assert_eq!(results("setp.gt.ftz.f16 %p0, %b0, %b1", &[[1, 0, 0], [0x400, 0, 0]]), [0, 1]);
}

#[test]
fn pairs_compare_by_halves() {
    for (name, format) in [("f16x2", F16), ("bf16x2", BF16)] {
        let codes = SAMPLE.map(|x| format.round(x, To::Nearest));
        let words: Vec<u64> =
            (0..codes.len()).map(|i| codes[i] | codes[(i + 2) % codes.len()] << 16).collect();
        for (how, holds) in FLOATS {
            let half = |a: u64, b: u64, by: u32| {
                let value = |x: u64| format.value(x >> by & 0xffff);
                u64::from(holds[place(value(a).partial_cmp(&value(b)))])
            };
            check(&format!("setp.{how}.{name} %p0|%p1, %a0, %a1"), &pairs(&words), |[a, b, _]| half(a, b, 0));
            check(
                &format!("setp.{how}.{name} %p0|%p1, %a0, %a1; mov.pred %p0, %p1"),
                &pairs(&words),
                |[a, b, _]| half(a, b, 16),
            );
            let one = format.round(1.0, To::Nearest);
            check(&format!("set.{how}.{name}.{name} %r0, %a0, %a1"), &pairs(&words), |[a, b, _]| {
                (half(a, b, 0) | half(a, b, 16) << 16) * one
            });
            check(&format!("set.{how}.u32.{name} %r0, %a0, %a1"), &pairs(&words), |[a, b, _]| {
                (half(a, b, 0) | half(a, b, 16) << 16) * 0xffff
            });
        }
    }
}

/// `p|q`: the second gets the negated comparison, and both are combined with the third predicate.
#[test]
fn comparisons_combine() {
    let rows = triples(&[1, 2, 3]);
    let setup = "setp.eq.u32 %p2, %a2, 2";
    for (logic, f) in
        [("and", (|x, y| x && y) as fn(bool, bool) -> bool), ("or", |x, y| x || y), ("xor", |x, y| x != y)]
    {
        for (source, flip) in [("%p2", false), ("!%p2", true)] {
            let op = format!("{setup}; setp.lt.{logic}.u32 %p0|%p1, %a0, %a1, {source}");
            check(&op, &rows, |[a, b, c]| f(a < b, (c == 2) != flip).into());
            check(&format!("{op}; mov.pred %p0, %p1"), &rows, |[a, b, c]| f(a >= b, (c == 2) != flip).into());
        }
        let op = format!("{setup}; set.lt.{logic}.u32.u32 %r0, %a0, %a1, %p2");
        check(&op, &rows, |[a, b, c]| if f(a < b, c == 2) { 0xffff_ffff } else { 0 });
        let op = format!("{setup}; setp.lt.u32 %p3, %a0, %a1; {logic}.pred %p0, %p3, %p2");
        check(&op, &rows, |[a, b, c]| f(a < b, c == 2).into());
    }
    check("setp.lt.u32 %p1, %a0, %a1; not.pred %p0, %p1", &rows, |[a, b, _]| u64::from(a >= b));
    check("mov.pred %p0, 1", &rows, |_| 1);
    check("mov.pred %p0, 0", &rows, |_| 0);
}

#[test]
fn comparisons_give_values() {
    let nan = 0x7fc0_0000;
    let rows = [[0x3f80_0000, 0x4000_0000, 0], [0x4000_0000, 0x3f80_0000, 0], [nan, 0, 0]];
    assert_eq!(results("set.lt.u32.f32 %r0, %a0, %a1", &rows), [0xffff_ffff, 0, 0]);
    assert_eq!(results("set.gtu.f32.f32 %r0, %a0, %a1", &rows), [0, 0x3f80_0000, 0x3f80_0000]);
    assert_eq!(results("set.eq.ftz.s32.f32 %r0, %a0, %a1", &[[1, 0, 0], [1 << 24, 0, 0]]), [0xffff_ffff, 0]);
    let ty = INTEGERS[5];
    check("set.ge.u32.s64 %r0, %w0, %w1", &pairs(&ty.edges()), |[a, b, _]| {
        if ty.value(a) >= ty.value(b) { 0xffff_ffff } else { 0 }
    });
    check("set.le.f32.f64 %r0, %w0, %w1", &pairs(&SAMPLE.map(f64::to_bits)), |[a, b, _]| {
        if f64::from_bits(a) <= f64::from_bits(b) { 0x3f80_0000 } else { 0 }
    });
    let halves = pairs(&[0, 0x3c00, 0xbc00, 0x7fff]);
    check("set.ne.f16.f16 %h0, %b0, %b1", &halves, |[a, b, _]| {
        if a != b && a != 0x7fff && b != 0x7fff { 0x3c00 } else { 0 }
    });
    check(
        "set.eq.u16.f16 %h0, %b0, %b1",
        &halves,
        |[a, b, _]| if a == b && a != 0x7fff { 0xffff } else { 0 },
    );
    check(
        "set.eq.bf16.bf16 %h0, %b0, %b1",
        &pairs(&[0, 0x3f80]),
        |[a, b, _]| if a == b { 0x3f80 } else { 0 },
    );
}

#[test]
fn selections() {
    let rows: Vec<Row> = triples(&[0, 5, u64::MAX]);
    for (types, d, a, b, mask) in [
        (&["b16", "u16", "s16"][..], "%h0", "%b0", "%b1", 0xffff),
        (&["b32", "u32", "s32", "f32"], "%r0", "%a0", "%a1", 0xffff_ffff),
        (&["b64", "u64", "s64", "f64"], "%rd0", "%w0", "%w1", u64::MAX),
    ] {
        for ty in types {
            for (source, wanted) in [("%p1", true), ("!%p1", false)] {
                let op = format!("setp.eq.u32 %p1, %a2, 5; selp.{ty} {d}, {a}, {b}, {source}");
                check(&op, &rows, |[a, b, c]| if (c == 5) == wanted { a & mask } else { b & mask });
            }
            check(&format!("slct.{ty}.s32 {d}, {a}, {b}, %a2"), &rows, |[a, b, c]| {
                if c as u32 as i32 >= 0 { a & mask } else { b & mask }
            });
        }
    }
    // A zero of either sign chooses the first, NaN the second.
    for (c, first) in
        [(0, true), (0x8000_0000, true), (0x3f80_0000, true), (0xbf80_0000, false), (0x7fc0_0000, false)]
    {
        let want = if first { 1 } else { 2 };
        assert_eq!(results("slct.b32.f32 %r0, %a0, %a1, %a2", &[[1, 2, c]]), [want], "{c:#x}");
        assert_eq!(results("slct.ftz.u64.f32 %rd0, %w0, %w1, %a2", &[[1, 2, c]]), [want], "{c:#x}");
    }
}
