//! `.f32` and `.f64`.

use crate::table::{DIRECTIONS, Exact, F32, Row, To, check, pairs, results, singles, triples};

const NAN32: u64 = 0x7fff_ffff;
const NAN64: u64 = 0x7fff_ffff_ffff_ffff;

fn bits(x: f32) -> u64 {
    if x.is_nan() { NAN32 } else { u64::from(x.to_bits()) }
}

fn wide(x: f64) -> u64 {
    if x.is_nan() { NAN64 } else { x.to_bits() }
}

fn f(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn d(x: u64) -> f64 {
    f64::from_bits(x)
}

/// A subnormal becomes a zero of its sign.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// Zeros, subnormals, the ends of the range, infinities, NaN and ordinary values.
fn edges() -> Vec<u64> {
    [
        0.0,
        -0.0,
        f32::from_bits(1),
        -f32::from_bits(0x7f_ffff),
        f32::MIN_POSITIVE,
        1e-30,
        -1.0,
        1.5,
        1.0 + f32::EPSILON,
        -3.75e5,
        f32::MAX,
        -f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ]
    .map(|x: f32| u64::from(x.to_bits()))
    .to_vec()
}

fn wide_edges() -> Vec<u64> {
    [
        0.0,
        -0.0,
        f64::from_bits(1),
        -f64::MIN_POSITIVE,
        1e-200,
        -1.0,
        1.5,
        1.0 + f64::EPSILON,
        -3.75e5,
        f64::MAX,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ]
    .map(f64::to_bits)
    .to_vec()
}

/// `[0, 1]`, NaN to zero.
fn saturate(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 }
}

#[test]
fn sums_products_and_fused_products_to_nearest() {
    for rounding in ["", ".rn"] {
        check(&format!("add{rounding}.f32 %r0, %a0, %a1"), &pairs(&edges()), |[a, b, _]| bits(f(a) + f(b)));
        check(&format!("sub{rounding}.f32 %r0, %a0, %a1"), &pairs(&edges()), |[a, b, _]| bits(f(a) - f(b)));
        check(&format!("mul{rounding}.f32 %r0, %a0, %a1"), &pairs(&edges()), |[a, b, _]| bits(f(a) * f(b)));
    }
    for op in ["fma.rn", "mad.rn"] {
        check(&format!("{op}.f32 %r0, %a0, %a1, %a2"), &triples(&edges()), |[a, b, c]| {
            bits(f(a).mul_add(f(b), f(c)))
        });
    }
}

#[test]
fn flushing_concerns_inputs_and_results() {
    let ftz = |op: fn(f32, f32) -> f32| move |[a, b, _]: Row| bits(flush(op(flush(f(a)), flush(f(b)))));
    let mut inputs = edges();
    // Products and differences that are subnormal though no input is.
    inputs.extend([f(0x0080_0001), 2e-20, 3e-20].map(|x: f32| u64::from(x.to_bits())));
    check("add.ftz.f32 %r0, %a0, %a1", &pairs(&inputs), ftz(|a, b| a + b));
    check("sub.rn.ftz.f32 %r0, %a0, %a1", &pairs(&inputs), ftz(|a, b| a - b));
    check("mul.rn.ftz.f32 %r0, %a0, %a1", &pairs(&inputs), ftz(|a, b| a * b));
    check("min.ftz.f32 %r0, %a0, %a1", &pairs(&inputs), ftz(least));
    check("max.ftz.f32 %r0, %a0, %a1", &pairs(&inputs), ftz(greatest));
    check("fma.rn.ftz.f32 %r0, %a0, %a1, %a2", &triples(&inputs), |[a, b, c]| {
        bits(flush(flush(f(a)).mul_add(flush(f(b)), flush(f(c)))))
    });
    check("neg.ftz.f32 %r0, %a0", &singles(&inputs), |[a, ..]| bits(-flush(f(a))));
    check("abs.ftz.f32 %r0, %a0", &singles(&inputs), |[a, ..]| bits(flush(f(a)).abs()));
}

#[test]
fn saturation_clamps_to_one_and_makes_nan_zero() {
    let mut inputs = edges();
    inputs.extend([0.25f32, 0.5, 0.75].map(|x| u64::from(x.to_bits())));
    check("add.sat.f32 %r0, %a0, %a1", &pairs(&inputs), |[a, b, _]| bits(saturate(f(a) + f(b))));
    check("sub.sat.f32 %r0, %a0, %a1", &pairs(&inputs), |[a, b, _]| bits(saturate(f(a) - f(b))));
    check("mul.rn.sat.f32 %r0, %a0, %a1", &pairs(&inputs), |[a, b, _]| bits(saturate(f(a) * f(b))));
    check("fma.rn.sat.f32 %r0, %a0, %a1, %a2", &triples(&inputs), |[a, b, c]| {
        bits(saturate(f(a).mul_add(f(b), f(c))))
    });
    check("add.ftz.sat.f32 %r0, %a0, %a1", &pairs(&inputs), |[a, b, _]| {
        bits(flush(saturate(flush(f(a)) + flush(f(b)))))
    });
}

/// Values whose sums and products [`Exact`] holds.
fn exact_values() -> Vec<u64> {
    [1.0, -1.0, 1.0 + f32::EPSILON, 1.0 - f32::EPSILON / 2.0, 3.0, -1.25e-2, 12345.678, -7654.321, 4194303.5]
        .map(|x: f32| u64::from(x.to_bits()))
        .to_vec()
}

#[test]
fn every_direction_of_rounding() {
    let exact = |x: u64| Exact::of(f(x).into());
    for (name, to) in DIRECTIONS {
        let rows = pairs(&exact_values());
        // An exact zero of opposite terms is -0 only where rounding is down.
        let sign = |value: f64| if value == 0.0 && to == To::Down { -0.0 } else { value };
        let back = |value: Exact| bits(sign(value.round(24, to)) as f32);
        check(&format!("add.{name}.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| back(exact(a).plus(exact(b))));
        check(&format!("sub.{name}.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| {
            back(exact(a).plus(Exact(-exact(b).0)))
        });
        check(&format!("mul.{name}.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| back(exact(a).times(exact(b))));
        check(&format!("fma.{name}.f32 %r0, %a0, %a1, %a2"), &triples(&exact_values()), |[a, b, c]| {
            back(exact(a).times(exact(b)).plus(exact(c)))
        });
        check(&format!("mul.{name}.ftz.sat.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| {
            bits(saturate(exact(a).times(exact(b)).round(24, to) as f32))
        });
    }
}

/// What rounding does where the result leaves the range.
#[test]
fn directed_rounding_at_the_ends() {
    let max = u64::from(f32::MAX.to_bits());
    let (infinite, tiny) = (0x7f80_0000, 1);
    let minus = 0x8000_0000;
    for (op, row, want) in [
        ("add.rz.f32 %r0, %a0, %a1", [max, max, 0], max),
        ("add.rm.f32 %r0, %a0, %a1", [max, max, 0], max),
        ("add.rp.f32 %r0, %a0, %a1", [max, max, 0], infinite),
        ("add.rm.f32 %r0, %a0, %a1", [max | minus, max | minus, 0], infinite | minus),
        ("add.rp.f32 %r0, %a0, %a1", [max | minus, max | minus, 0], max | minus),
        ("mul.rp.f32 %r0, %a0, %a1", [tiny, tiny, 0], tiny),
        ("mul.rm.f32 %r0, %a0, %a1", [tiny, tiny | minus, 0], tiny | minus),
        ("mul.rz.f32 %r0, %a0, %a1", [tiny, tiny | minus, 0], minus),
        ("fma.rp.f32 %r0, %a0, %a1, %a2", [tiny, tiny, 0x3f80_0000], 0x3f80_0001),
        ("fma.rm.f32 %r0, %a0, %a1, %a2", [tiny, tiny | minus, 0x3f80_0000], 0x3f7f_ffff),
        ("fma.rz.f32 %r0, %a0, %a1, %a2", [tiny, tiny, 0xbf80_0000], 0xbf7f_ffff),
    ] {
        assert_eq!(results(op, &[row]), [want], "{op} of {row:x?}");
    }
}

#[test]
fn quotients_and_roots() {
    check("div.rn.f32 %r0, %a0, %a1", &pairs(&edges()), |[a, b, _]| bits(f(a) / f(b)));
    check("rcp.rn.f32 %r0, %a0", &singles(&edges()), |[a, ..]| bits(1.0 / f(a)));
    check("sqrt.rn.f32 %r0, %a0", &singles(&edges()), |[a, ..]| bits(f(a).sqrt()));
    check("div.rn.ftz.f32 %r0, %a0, %a1", &pairs(&edges()), |[a, b, _]| {
        bits(flush(flush(f(a)) / flush(f(b))))
    });
    // A directed quotient times the divisor (a root times itself) is on the right side of the dividend, and its
    // neighbour is on the other.
    let values: Vec<u64> =
        [1f32, 3.0, 7.0, 0.1, 123.456, 2f32.powi(-40), 9.0, 2.25].map(|x| u64::from(x.to_bits())).to_vec();
    let product = |q: f32, b: f32| f64::from(q) * f64::from(b);
    for row @ [a, b, _] in pairs(&values) {
        let (a, b) = (f(a), f(b));
        let quotient = |name: &str| f(results(&format!("div.{name}.f32 %r0, %a0, %a1"), &[row])[0]);
        let (down, up, zero) = (quotient("rm"), quotient("rp"), quotient("rz"));
        assert!(product(down, b) <= a.into() && product(down.next_up(), b) > a.into(), "{a} / {b} down");
        assert!(product(up, b) >= a.into() && product(up.next_down(), b) < a.into(), "{a} / {b} up");
        assert_eq!(zero, down);
        let negated = [row[0] | 0x8000_0000, row[1], 0];
        assert_eq!(f(results("div.rz.f32 %r0, %a0, %a1", &[negated])[0]), -down);
        let root = |name: &str| f(results(&format!("sqrt.{name}.f32 %r0, %a0"), &[row])[0]);
        let (down, up) = (root("rm"), root("rp"));
        assert!(product(down, down) <= a.into() && product(down.next_up(), down.next_up()) > a.into());
        assert!(product(up, up) >= a.into() && product(up.next_down(), up.next_down()) < a.into());
        assert_eq!(root("rz"), down);
    }
    assert_eq!(results("rcp.rp.f32 %r0, %a0", &[[bits(3.0), 0, 0]]), [0x3eaa_aaab]);
    assert_eq!(results("rcp.rm.f32 %r0, %a0", &[[bits(3.0), 0, 0]]), [0x3eaa_aaaa]);
    assert_eq!(results("rcp.rz.f32 %r0, %a0", &[[bits(-3.0), 0, 0]]), [0xbeaa_aaaa]);
}

/// Approximations: exact where the ISA says what the result is, else within the bound that it gives.
#[test]
fn approximations() {
    let inf = f32::INFINITY;
    for (op, cases) in [
        ("rcp.approx.f32", vec![(0.0, inf), (-0.0, -inf), (inf, 0.0), (-inf, -0.0), (4.0, 0.25)]),
        ("rcp.approx.ftz.f32", vec![(1e-40, inf), (-1e-40, -inf), (inf, 0.0), (4.0, 0.25)]),
        ("rsqrt.approx.f32", vec![(0.0, inf), (-0.0, -inf), (inf, 0.0), (4.0, 0.5), (-1.0, f32::NAN)]),
        ("rsqrt.approx.ftz.f32", vec![(1e-40, inf), (-1e-40, -inf)]),
        ("sqrt.approx.f32", vec![(0.0, 0.0), (-0.0, -0.0), (inf, inf), (4.0, 2.0), (-1.0, f32::NAN)]),
        ("sqrt.approx.ftz.f32", vec![(1e-40, 0.0), (-1e-40, -0.0)]),
        ("ex2.approx.f32", vec![(0.0, 1.0), (-inf, 0.0), (inf, inf), (3.0, 8.0), (-149.0, f(1))]),
        ("ex2.approx.ftz.f32", vec![(-149.0, 0.0), (1e-40, 1.0), (10.0, 1024.0)]),
        ("lg2.approx.f32", vec![(0.0, -inf), (-0.0, -inf), (inf, inf), (8.0, 3.0), (-1.0, f32::NAN)]),
        ("lg2.approx.ftz.f32", vec![(1e-40, -inf), (0.5, -1.0)]),
        ("sin.approx.f32", vec![(0.0, 0.0), (-0.0, -0.0), (inf, f32::NAN)]),
        ("sin.approx.ftz.f32", vec![(1e-40, 0.0)]),
        ("cos.approx.f32", vec![(0.0, 1.0), (inf, f32::NAN)]),
        ("cos.approx.ftz.f32", vec![(1e-40, 1.0)]),
        ("tanh.approx.f32", vec![(0.0, 0.0), (inf, 1.0), (-inf, -1.0), (-0.0, -0.0)]),
    ] {
        for (x, want) in cases.into_iter().chain([(f32::NAN, f32::NAN)]) {
            let got = results(&format!("{op} %r0, %a0"), &[[bits(x), 0, 0]])[0];
            assert_eq!(got, bits(want), "{op} of {x}");
        }
    }
    let inputs: Vec<f32> = (1..200).map(|i| i as f32 * 0.017).collect();
    let rows: Vec<Row> = inputs.iter().map(|&x| [bits(x), 0, 0]).collect();
    for (op, exact, relative, absolute) in [
        ("rcp.approx.f32", (|x| 1.0 / x) as fn(f64) -> f64, 2f64.powi(-23), 0.0),
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), 2f64.powf(-22.9), 0.0),
        ("sqrt.approx.f32", f64::sqrt, 2f64.powi(-23), 0.0),
        ("ex2.approx.f32", f64::exp2, 2f64.powi(-22), 0.0),
        ("lg2.approx.f32", f64::log2, 0.0, 2f64.powi(-22)),
        ("sin.approx.f32", f64::sin, 0.0, 2f64.powf(-20.5)),
        ("cos.approx.f32", f64::cos, 0.0, 2f64.powf(-20.5)),
        ("tanh.approx.f32", f64::tanh, 2f64.powi(-11), 0.0),
    ] {
        for (x, got) in inputs.iter().zip(results(&format!("{op} %r0, %a0"), &rows)) {
            let want = exact((*x).into());
            let error = (f64::from(f(got)) - want).abs();
            assert!(error <= relative * want.abs() + absolute, "{op} of {x}: {} not {want}", f(got));
        }
    }
}

#[test]
fn quick_division() {
    let huge = 2f32.powi(127);
    for (op, a, b, want) in [
        ("div.approx.f32", 6.0, 3.0, 2.0),
        ("div.approx.f32", 1e30, huge, 0.0),
        ("div.approx.f32", -1e30, huge, -0.0),
        ("div.approx.f32", f32::INFINITY, huge, f32::NAN),
        ("div.approx.f32", 1.0, f32::INFINITY, 0.0),
        ("div.approx.ftz.f32", 1e-40, 1.0, 0.0),
        ("div.full.f32", 6.0, 3.0, 2.0),
        ("div.full.f32", 1.0, 0.0, f32::INFINITY),
        ("div.full.ftz.f32", -1.0, 1e-40, f32::NEG_INFINITY),
    ] {
        let got = results(&format!("{op} %r0, %a0, %a1"), &[[bits(a), bits(b), 0]])[0];
        assert_eq!(got, bits(want), "{op} of {a} and {b}");
    }
}

/// The operand that is a number, and -0 below +0.
fn least(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

fn greatest(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                b
            } else {
                a
            }
        }
        _ => {
            if a > b {
                a
            } else {
                b
            }
        }
    }
}

#[test]
fn lesser_and_greater() {
    for (name, pick) in [("min", least as fn(f32, f32) -> f32), ("max", greatest)] {
        let rows = pairs(&edges());
        check(&format!("{name}.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| bits(pick(f(a), f(b))));
        check(&format!("{name}.NaN.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| {
            if f(a).is_nan() || f(b).is_nan() { NAN32 } else { bits(pick(f(a), f(b))) }
        });
        let signed = |a: u64, b: u64| {
            let sign = (a ^ b) & 0x8000_0000;
            let size = bits(pick(f(a).abs(), f(b).abs()));
            if f(size).is_nan() { size } else { size | sign }
        };
        check(&format!("{name}.xorsign.abs.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| signed(a, b));
        check(&format!("{name}.NaN.xorsign.abs.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| {
            if f(a).is_nan() || f(b).is_nan() { NAN32 } else { signed(a, b) }
        });
    }
    for (op, pick) in [("min.f64", false), ("max.f64", true)] {
        check(&format!("{op} %rd0, %w0, %w1"), &pairs(&wide_edges()), |[a, b, _]| {
            let (x, y) = (d(a), d(b));
            match (x.is_nan(), y.is_nan()) {
                (true, _) => wide(y),
                (_, true) => wide(x),
                _ if x == y => {
                    if x.is_sign_negative() != pick {
                        a
                    } else {
                        b
                    }
                }
                _ => {
                    if (x < y) != pick {
                        a
                    } else {
                        b
                    }
                }
            }
        });
    }
}

#[test]
fn signs() {
    check("neg.f32 %r0, %a0", &singles(&edges()), |[a, ..]| bits(-f(a)));
    check("abs.f32 %r0, %a0", &singles(&edges()), |[a, ..]| bits(f(a).abs()));
    // The sign of the first on the second.
    check("copysign.f32 %r0, %a0, %a1", &pairs(&edges()), |[a, b, _]| a & 0x8000_0000 | b & 0x7fff_ffff);
    check("copysign.f64 %rd0, %w0, %w1", &pairs(&wide_edges()), |[a, b, _]| a & 1 << 63 | b & !(1 << 63));
    check("neg.f64 %rd0, %w0", &singles(&wide_edges()[..12]), |[a, ..]| wide(-d(a)));
    check("abs.f64 %rd0, %w0", &singles(&wide_edges()[..12]), |[a, ..]| wide(d(a).abs()));
}

#[test]
fn doubles() {
    let rows = pairs(&wide_edges());
    for rounding in ["", ".rn"] {
        check(&format!("add{rounding}.f64 %rd0, %w0, %w1"), &rows, |[a, b, _]| wide(d(a) + d(b)));
        check(&format!("sub{rounding}.f64 %rd0, %w0, %w1"), &rows, |[a, b, _]| wide(d(a) - d(b)));
        check(&format!("mul{rounding}.f64 %rd0, %w0, %w1"), &rows, |[a, b, _]| wide(d(a) * d(b)));
    }
    check("div.rn.f64 %rd0, %w0, %w1", &rows, |[a, b, _]| wide(d(a) / d(b)));
    for op in ["fma.rn", "mad.rn"] {
        check(&format!("{op}.f64 %rd0, %w0, %w1, %w2"), &triples(&wide_edges()), |[a, b, c]| {
            wide(d(a).mul_add(d(b), d(c)))
        });
    }
    check("rcp.rn.f64 %rd0, %w0", &singles(&wide_edges()), |[a, ..]| wide(1.0 / d(a)));
    check("sqrt.rn.f64 %rd0, %w0", &singles(&wide_edges()), |[a, ..]| wide(d(a).sqrt()));
    for (op, x, want) in [
        ("rcp.approx.ftz.f64", 4.0, 0.25),
        ("rcp.approx.ftz.f64", f64::from_bits(1), f64::INFINITY),
        ("rcp.approx.ftz.f64", f64::NEG_INFINITY, -0.0),
        ("rsqrt.approx.ftz.f64", 4.0, 0.5),
        ("rsqrt.approx.f64", 0.25, 2.0),
        ("rsqrt.approx.f64", 0.0, f64::INFINITY),
    ] {
        assert_eq!(
            results(&format!("{op} %rd0, %w0"), &[[x.to_bits(), 0, 0]]),
            [want.to_bits()],
            "{op} of {x}"
        );
    }
    let third = results("rcp.approx.ftz.f64 %rd0, %w0", &[[3f64.to_bits(), 0, 0]])[0];
    assert!(third & 0xffff_ffff == 0 && (d(third) - 1.0 / 3.0).abs() < 2f64.powi(-21));
}

#[test]
fn doubles_in_every_direction() {
    // Sums and products of these have at most 106 digits, of which an integer loses none.
    let values = [(1i64 << 52) + 1, -(1 << 52) - 3, (1 << 53) - 1, 3, -5, 0x1234_5678_9abc];
    let rows = triples(&values.map(|x| (x as f64).to_bits()));
    let whole = |x: u64| d(x) as i128;
    for (name, to) in DIRECTIONS {
        let back = |exact: i128| {
            let (size, negative) = (exact.unsigned_abs(), exact < 0);
            let cut = (128 - size.leading_zeros()).saturating_sub(53);
            let (kept, rest) = (size >> cut, size & ((1 << cut) - 1));
            let outward = match to {
                To::Up => rest != 0 && !negative,
                To::Down => rest != 0 && negative,
                _ => false,
            };
            let value = (kept + u128::from(outward)) as f64 * 2f64.powi(cut as i32);
            let zero = if to == To::Down { -0.0 } else { 0.0 };
            wide(if exact == 0 {
                zero
            } else if negative {
                -value
            } else {
                value
            })
        };
        if to == To::Nearest {
            continue;
        }
        check(&format!("add.{name}.f64 %rd0, %w0, %w1"), &rows, |[a, b, _]| back(whole(a) + whole(b)));
        check(&format!("sub.{name}.f64 %rd0, %w0, %w1"), &rows, |[a, b, _]| back(whole(a) - whole(b)));
        check(&format!("mul.{name}.f64 %rd0, %w0, %w1"), &rows, |[a, b, _]| back(whole(a) * whole(b)));
        check(&format!("fma.{name}.f64 %rd0, %w0, %w1, %w2"), &rows, |[a, b, c]| {
            back(whole(a) * whole(b) + whole(c))
        });
        let up = to == To::Up;
        for (op, row, near) in [
            ("div", [1f64, 3.0], 1.0 / 3.0),
            ("div", [-2.0, 3.0], -2.0 / 3.0),
            ("rcp", [3.0, 0.0], 1.0 / 3.0),
            ("sqrt", [2.0, 0.0], 2f64.sqrt()),
            ("sqrt", [3.0, 0.0], 3f64.sqrt()),
        ] {
            let sources = if op == "div" { "%w0, %w1" } else { "%w0" };
            let got = d(results(
                &format!("{op}.{name}.f64 %rd0, {sources}"),
                &[[row[0].to_bits(), row[1].to_bits(), 0]],
            )[0]);
            // How far the result is from the exact one, by an error term that f64 holds.
            let rest = match op {
                "div" => -got.mul_add(row[1], -row[0]) * row[1].signum(),
                "rcp" => -got.mul_add(row[0], -1.0),
                _ => -got.mul_add(got, -row[0]),
            };
            let low = up || to == To::Zero && near < 0.0;
            assert!(if low { rest < 0.0 } else { rest > 0.0 }, "{op}.{name} of {row:?}: {got:e}");
            assert!((got - near).abs() <= f64::EPSILON, "{op}.{name} of {row:?}: {got:e}");
        }
    }
}

#[test]
fn classes_of_values() {
    let class = |op: &str| results(&format!("testp.{op}.f32 %p0, %a0"), &singles(&edges()));
    let of = |test: fn(&f32) -> bool| edges().iter().map(|&x| u64::from(test(&f(x)))).collect::<Vec<_>>();
    assert_eq!(class("finite"), of(|x| x.abs() <= f32::MAX));
    assert_eq!(class("infinite"), of(|x| x.abs() == f32::INFINITY));
    assert_eq!(class("number"), of(|x| x == x));
    assert_eq!(class("notanumber"), of(|x| x != x));
    assert_eq!(class("normal"), of(|x| x.abs() >= f32::MIN_POSITIVE && x.abs() <= f32::MAX));
    assert_eq!(class("subnormal"), of(|x| *x != 0.0 && x.abs() < f32::MIN_POSITIVE));
    assert_eq!(results("testp.subnormal.f64 %p0, %w0", &[[1, 0, 0], [0, 0, 0], [1 << 52, 0, 0]]), [1, 0, 0]);
    assert_eq!(results("testp.infinite.f64 %p0, %w0", &[[0x7ff << 52, 0, 0], [NAN64, 0, 0]]), [1, 0]);
}

#[test]
fn the_format_of_the_definition_is_f32() {
    for x in [0f32, 1.0, -2.5, 1e-40, f32::MAX] {
        assert_eq!(F32.value(bits(x)), x.into());
        assert_eq!(F32.round(x.into(), To::Nearest), bits(x));
    }
}
