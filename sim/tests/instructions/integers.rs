//! Integer arithmetic of every width and sign.

use crate::table::{INTEGERS, Int, check, pairs, results, singles, triples};

/// `name.TYPE d, a, b` of every type.
fn binary(name: &str, definition: fn(Int, i128, i128) -> i128) {
    for ty in INTEGERS {
        let [d, a, b, _] = ty.registers();
        check(&format!("{name}.{} {d}, {a}, {b}", ty.name), &pairs(&ty.edges()), |[a, b, _]| {
            ty.wrap(definition(ty, ty.value(a), ty.value(b)))
        });
    }
}

#[test]
fn sums_and_differences_wrap() {
    binary("add", |_, a, b| a + b);
    binary("sub", |_, a, b| a - b);
}

#[test]
fn sums_and_differences_saturate() {
    let ty = INTEGERS[3];
    for (op, sign) in [("add.sat.s32 %r0, %a0, %a1", 1), ("sub.sat.s32 %r0, %a0, %a1", -1)] {
        check(op, &pairs(&ty.edges()), |[a, b, _]| {
            ty.wrap((ty.value(a) + sign * ty.value(b)).clamp(ty.least(), ty.most()))
        });
    }
}

/// The product of 64-bit values needs 128 bits, which i128 has for both signs.
fn product(a: i128, b: i128) -> (u128, bool) {
    (a.unsigned_abs() * b.unsigned_abs(), (a < 0) != (b < 0))
}

fn high(ty: Int, a: i128, b: i128) -> i128 {
    let (size, negative) = product(a, b);
    // The floor of the product over 2^bits.
    if negative { -(((size - 1) >> ty.bits) as i128) - 1 } else { (size >> ty.bits) as i128 }
}

fn high_of(ty: Int, a: i128, b: i128) -> i128 {
    if a == 0 || b == 0 { 0 } else { high(ty, a, b) }
}

#[test]
fn products() {
    binary("mul.lo", |_, a, b| a.wrapping_mul(b));
    binary("mul.hi", high_of);
    for (ty, d, wide) in INTEGERS
        .into_iter()
        .zip(["%r0", "%r0", "%rd0", "%rd0"])
        .map(|(ty, d)| (ty, d, Int { bits: 2 * ty.bits, ..ty }))
    {
        let [_, a, b, _] = ty.registers();
        check(&format!("mul.wide.{} {d}, {a}, {b}", ty.name), &pairs(&ty.edges()), |[a, b, _]| {
            wide.wrap(ty.value(a) * ty.value(b))
        });
        let c = if wide.bits == 64 { "%w2" } else { "%a2" };
        check(&format!("mad.wide.{} {d}, {a}, {b}, {c}", ty.name), &triples(&ty.edges()), |[a, b, c]| {
            wide.wrap(ty.value(a) * ty.value(b) + wide.value(c))
        });
    }
    // Worked by hand: (2^32 - 1)^2 = 2^64 - 2^33 + 1, and (-2^31)^2 = 2^62.
    assert_eq!(results("mul.hi.u32 %r0, %a0, %a1", &[[0xffff_ffff, 0xffff_ffff, 0]]), [0xffff_fffe]);
    assert_eq!(results("mul.hi.s32 %r0, %a0, %a1", &[[0x8000_0000, 0x8000_0000, 0]]), [0x4000_0000]);
    assert_eq!(results("mul.hi.u64 %rd0, %w0, %w1", &[[1 << 63, 6, 0]]), [3]);
    assert_eq!(results("mul.hi.s64 %rd0, %w0, %w1", &[[u64::MAX, 1, 0]]), [u64::MAX]);
}

#[test]
fn products_with_a_sum() {
    for ty in INTEGERS {
        let [d, a, b, c] = ty.registers();
        check(&format!("mad.lo.{} {d}, {a}, {b}, {c}", ty.name), &triples(&ty.edges()), |[a, b, c]| {
            ty.wrap(ty.value(a).wrapping_mul(ty.value(b)).wrapping_add(ty.value(c)))
        });
        check(&format!("mad.hi.{} {d}, {a}, {b}, {c}", ty.name), &triples(&ty.edges()), |[a, b, c]| {
            ty.wrap(high_of(ty, ty.value(a), ty.value(b)) + ty.value(c))
        });
    }
    let ty = INTEGERS[3];
    check("mad.hi.sat.s32 %r0, %a0, %a1, %a2", &triples(&ty.edges()), |[a, b, c]| {
        ty.wrap((high_of(ty, ty.value(a), ty.value(b)) + ty.value(c)).clamp(ty.least(), ty.most()))
    });
}

#[test]
fn products_of_24_bits() {
    let edges = [0, 1, 2, 0x7f_ffff, 0x80_0000, 0xff_ffff, 0x100_0001, 0xffff_ffff, 0x1234_5678];
    for (name, ty) in [
        ("u32", Int { name: "", bits: 24, signed: false }),
        ("s32", Int { name: "", bits: 24, signed: true }),
    ] {
        for (half, shift) in [("lo", 0), ("hi", 16)] {
            let of = |a, b| ((ty.value(a) * ty.value(b)) >> shift) as u32;
            check(&format!("mul24.{half}.{name} %r0, %a0, %a1"), &pairs(&edges), |[a, b, _]| of(a, b).into());
            check(&format!("mad24.{half}.{name} %r0, %a0, %a1, %a2"), &triples(&edges), |[a, b, c]| {
                of(a, b).wrapping_add(c as u32).into()
            });
        }
    }
}

#[test]
fn sums_of_absolute_differences() {
    for ty in INTEGERS {
        let [d, a, b, c] = ty.registers();
        check(&format!("sad.{} {d}, {a}, {b}, {c}", ty.name), &triples(&ty.edges()), |[a, b, c]| {
            ty.wrap((ty.value(a) - ty.value(b)).abs() + ty.value(c))
        });
    }
}

/// Two words at a time, the carry going from the lower to the upper: sums, differences and products of twice the width.
#[test]
fn carries() {
    for ty in &INTEGERS[2..] {
        let [d, a, b, c] = ty.registers();
        let (name, bits) = (ty.name, ty.bits);
        let spare = if bits == 32 { "%r1" } else { "%rd1" };
        let twice = |low: u64, high: u64| u128::from(low) | u128::from(high) << bits;
        let upper = |x: u128| ty.wrap((x >> bits) as i128);
        let rows = triples(&ty.edges());
        // The lower words are a and b, the upper ones b and c.
        check(&format!("add.cc.{name} {spare}, {a}, {b}; addc.{name} {d}, {b}, {c}"), &rows, |[a, b, c]| {
            upper(twice(a, b).wrapping_add(twice(b, c)))
        });
        check(&format!("sub.cc.{name} {spare}, {a}, {b}; subc.{name} {d}, {b}, {c}"), &rows, |[a, b, c]| {
            upper(twice(a, b).wrapping_sub(twice(b, c)))
        });
        // a·b + (c, c).
        let op = format!("mad.lo.cc.{name} {spare}, {a}, {b}, {c}; madc.hi.{name} {d}, {a}, {b}, {c}");
        check(&op, &rows, |[a, b, c]| {
            let product = (ty.value(a).wrapping_mul(ty.value(b))) as u128;
            upper(product.wrapping_add(twice(c, c)))
        });
        // A third word takes the second's carry.
        let last = format!(
            "add.cc.{name} {spare}, {a}, {b}; addc.cc.{name} {spare}, {a}, {b}; addc.{name} {d}, {c}, 0"
        );
        check(&last, &rows, |[a, b, c]| {
            let carry = |x: u64| u64::from(u128::from(a) + u128::from(b) + u128::from(x) >= 1 << bits);
            ty.wrap(i128::from(c) + i128::from(carry(carry(0))))
        });
        let last = format!(
            "sub.cc.{name} {spare}, {a}, {b}; subc.cc.{name} {spare}, {a}, {b}; subc.{name} {d}, {c}, 0"
        );
        check(&last, &rows, |[a, b, c]| {
            let borrow = |x: u64| u64::from(u128::from(a) < u128::from(b) + u128::from(x));
            ty.wrap(i128::from(c) - i128::from(borrow(borrow(0))))
        });
    }
    // Behind a subtraction, an addition finds the carry set where nothing was borrowed.
    for (a, b, set) in [(5, 5, 1), (5, 6, 0), (0, 0xffff_ffff, 0), (0xffff_ffff, 0, 1)] {
        assert_eq!(results("sub.cc.u32 %r1, %a0, %a1; addc.u32 %r0, 0, 0", &[[a, b, 0]]), [set], "{a} - {b}");
        let after_a_sum = "add.cc.u32 %r1, %a0, 1; subc.u32 %r0, %a1, 0";
        let minus = u64::from(a != 0xffff_ffff);
        assert_eq!(results(after_a_sum, &[[a, b, 0]]), [u64::from((b as u32).wrapping_sub(minus as u32))]);
    }
    // The upper half of (2^32 - 1)² is 2^32 - 2, the lower 1.
    let upper = "mad.hi.cc.u32 %r1, %a0, %a1, %a2; addc.u32 %r0, 0, 0";
    let lower = "mad.hi.cc.u32 %r1, %a0, %a1, 2; madc.lo.cc.u32 %r1, %a0, %a1, %a2; addc.u32 %r0, 0, 0";
    for (op, c, carry) in [(upper, 1, 0), (upper, 2, 1), (lower, 0xffff_fffd, 0), (lower, 0xffff_fffe, 1)] {
        assert_eq!(results(op, &[[0xffff_ffff, 0xffff_ffff, c]]), [carry], "{op}, {c:#x}");
    }
}

#[test]
fn bytes_differ_by_so_much() {
    let rows = [[0x01ff_8000, 0x0200_7f00, 1000], [0, 0xffff_ffff, 0xffff_ffff]];
    assert_eq!(results("vabsdiff4.u32.u32.u32 %r0, %a0, %a1, %a2", &rows), [0x01ff_0100, 0xffff_ffff]);
    let sums = [1000 + 1 + 255 + 1, 4 * 255 - 1];
    assert_eq!(results("vabsdiff4.u32.u32.u32.add %r0, %a0, %a1, %a2", &rows), sums);
}

#[test]
fn quotients_round_toward_zero() {
    // A zero divisor's result is the machine's own affair.
    for ty in INTEGERS {
        let [d, a, b, _] = ty.registers();
        let rows: Vec<_> = pairs(&ty.edges()).into_iter().filter(|row| row[1] != 0).collect();
        check(&format!("div.{} {d}, {a}, {b}", ty.name), &rows, |[a, b, _]| {
            ty.wrap(ty.value(a) / ty.value(b))
        });
        check(&format!("rem.{} {d}, {a}, {b}", ty.name), &rows, |[a, b, _]| {
            ty.wrap(ty.value(a) % ty.value(b))
        });
    }
}

#[test]
fn lesser_and_greater() {
    binary("min", |_, a, b| a.min(b));
    binary("max", |_, a, b| a.max(b));
    let ty = INTEGERS[3];
    check("min.relu.s32 %r0, %a0, %a1", &pairs(&ty.edges()), |[a, b, _]| {
        ty.wrap(ty.value(a).min(ty.value(b)).max(0))
    });
    check("max.relu.s32 %r0, %a0, %a1", &pairs(&ty.edges()), |[a, b, _]| {
        ty.wrap(ty.value(a).max(ty.value(b)).max(0))
    });
}

#[test]
fn signs() {
    for ty in INTEGERS.into_iter().filter(|ty| ty.signed) {
        let [d, a, ..] = ty.registers();
        check(&format!("abs.{} {d}, {a}", ty.name), &singles(&ty.edges()), |[a, ..]| {
            ty.wrap(ty.value(a).abs())
        });
        check(&format!("neg.{} {d}, {a}", ty.name), &singles(&ty.edges()), |[a, ..]| ty.wrap(-ty.value(a)));
    }
}

#[test]
fn two_halves_at_once() {
    let edges = [0, 0x0001_ffff, 0x7fff_8000, 0x8000_7fff, 0xffff_ffff, 0x1234_fedc, 0x0000_0001];
    for (name, signed) in [("u16x2", false), ("s16x2", true)] {
        let ty = Int { name, bits: 16, signed };
        let halves = |a: u64, b: u64, f: &dyn Fn(i128, i128) -> i128| {
            let part = |by: u32| ty.wrap(f(ty.value(a >> by), ty.value(b >> by)));
            part(0) | part(16) << 16
        };
        type Op = fn(i128, i128) -> i128;
        let mut cases: Vec<(&str, Op)> =
            vec![("add", |a, b| a + b), ("min", |a, b| a.min(b)), ("max", |a, b| a.max(b))];
        if signed {
            cases.push(("min.relu", |a, b| a.min(b).max(0)));
            cases.push(("max.relu", |a, b| a.max(b).max(0)));
        }
        for (op, f) in cases {
            check(&format!("{op}.{name} %r0, %a0, %a1"), &pairs(&edges), |[a, b, _]| halves(a, b, &f));
        }
    }
}

#[test]
fn dot_products() {
    let edges = [0, 0x0102_0304, 0xffff_ffff, 0x807f_7f80, 0x8000_7fff, 0x1234_5678];
    let part =
        |x: u64, i: u32, bits: u32, signed: bool| Int { name: "", bits, signed }.value(x >> (i * bits));
    for (first, x) in [("u32", false), ("s32", true)] {
        for (second, y) in [("u32", false), ("s32", true)] {
            check(&format!("dp4a.{first}.{second} %r0, %a0, %a1, %a2"), &triples(&edges), |[a, b, c]| {
                let sum: i128 = (0..4).map(|i| part(a, i, 8, x) * part(b, i, 8, y)).sum();
                (sum as u32).wrapping_add(c as u32).into()
            });
            for (half, from) in [("lo", 0), ("hi", 2)] {
                check(
                    &format!("dp2a.{half}.{first}.{second} %r0, %a0, %a1, %a2"),
                    &triples(&edges),
                    |[a, b, c]| {
                        let sum: i128 = (0..2).map(|i| part(a, i, 16, x) * part(b, from + i, 8, y)).sum();
                        (sum as u32).wrapping_add(c as u32).into()
                    },
                );
            }
        }
    }
    // 1·4 + 2·3 + 3·2 + 4·1 + 5.
    assert_eq!(results("dp4a.u32.u32 %r0, %a0, %a1, %a2", &[[0x0102_0304, 0x0403_0201, 5]]), [25]);
}
