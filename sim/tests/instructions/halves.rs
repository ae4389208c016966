//! `.f16`, `.f16x2`, `.bf16` and `.bf16x2`.

use crate::table::{BF16, Exact, F16, Format, Row, To, check, pairs, results, singles, triples};

const KINDS: [(&str, Format); 2] = [("f16", F16), ("bf16", BF16)];

/// Zeros, subnormals, the ends of the range, infinities, NaN and ordinary values.
fn edges(format: Format) -> Vec<u64> {
    let one = (format.bias as u64) << format.fraction;
    let first = 1 << format.fraction;
    let infinity = format.last + 1;
    [0, 1, first - 1, first, one, one + 1, one + first / 2, 2 * one / 3, format.last, infinity, format.nan()]
        .into_iter()
        .flat_map(|code| if code == format.nan() { vec![code] } else { vec![code, code | 0x8000] })
        .collect()
}

/// Values of ordinary size, whose sums and products are exact in [`Exact`].
fn ordinary(format: Format) -> Vec<u64> {
    [1.0, -1.0, 1.5, 1.0078125, 3.0, -0.3, 0.09, 117.0, -250.0, 0.0]
        .map(|x| format.round(x, To::Nearest))
        .to_vec()
}

/// The scalar and the packed form of an instruction: the packed one has the row's values below, the next row's above.
fn both(op: &str, name: &str, rows: &[Row], sources: usize, definition: impl Fn(Row) -> u64) {
    let list = |prefix: &str| (0..sources).map(|i| format!(", {prefix}{i}")).collect::<String>();
    check(&format!("{op}.{name} %h0{}", list("%b")), rows, &definition);
    let packed: Vec<Row> = (0..rows.len())
        .map(|i| {
            let above = rows[(i + 1) % rows.len()];
            [0, 1, 2].map(|k| rows[i][k] & 0xffff | above[k] << 16)
        })
        .collect();
    check(&format!("{op}.{name}x2 %r0{}", list("%a")), &packed, |row| {
        definition(row.map(|x| x & 0xffff)) | definition(row.map(|x| x >> 16)) << 16
    });
}

fn flush(format: Format, code: u64) -> u64 {
    if code & 0x7fff < 1 << format.fraction { code & 0x8000 } else { code }
}

fn saturate(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 }
}

fn relu(x: f64) -> f64 {
    if x.is_nan() || x > 0.0 { x } else { 0.0 }
}

#[test]
fn sums_and_products() {
    type Op = fn(f64, f64) -> f64;
    for (name, format) in KINDS {
        for (op, f) in [("add", (|a, b| a + b) as Op), ("sub", |a, b| a - b), ("mul", |a, b| a * b)] {
            let value = |code| format.value(code);
            // Sums of bf16 from the opposite ends of its range are not exact in f64, but round as there.
            let of = |a, b| format.round(f(value(a), value(b)), To::Nearest);
            both(op, name, &pairs(&edges(format)), 2, |[a, b, _]| of(a, b));
            both(&format!("{op}.rn"), name, &pairs(&ordinary(format)), 2, |[a, b, _]| of(a, b));
        }
    }
    let value = |code| F16.value(flush(F16, code));
    both("add.ftz", "f16", &pairs(&edges(F16)), 2, |[a, b, _]| {
        flush(F16, F16.round(value(a) + value(b), To::Nearest))
    });
    both("mul.ftz", "f16", &pairs(&edges(F16)), 2, |[a, b, _]| {
        flush(F16, F16.round(value(a) * value(b), To::Nearest))
    });
    both("sub.sat", "f16", &pairs(&edges(F16)), 2, |[a, b, _]| {
        F16.round(saturate(F16.value(a) - F16.value(b)), To::Nearest)
    });
    both("add.ftz.sat", "f16", &pairs(&edges(F16)), 2, |[a, b, _]| {
        flush(F16, F16.round(saturate(value(a) + value(b)), To::Nearest))
    });
}

#[test]
fn fused_products_round_once() {
    for (name, format) in KINDS {
        let bits = format.fraction + 1;
        let exact = |[a, b, c]: Row| {
            let of = |code| Exact::of(format.value(code));
            of(a).times(of(b)).plus(of(c)).round(bits, To::Nearest)
        };
        let rows = triples(&ordinary(format));
        let code = |row, x: f64| if x == 0.0 { zero(format, row) } else { format.round(x, To::Nearest) };
        both("fma.rn", name, &rows, 3, |row| code(row, exact(row)));
        both("fma.rn.relu", name, &rows, 3, |row| format.round(relu(exact(row)), To::Nearest));
        for row in triples(&edges(format)) {
            let [a, b, c] = row.map(|code| format.value(code));
            if ![a, b, c].iter().all(|x| x.is_finite()) {
                let want = format.round(a.mul_add(b, c), To::Nearest);
                assert_eq!(results(&format!("fma.rn.{name} %h0, %b0, %b1, %b2"), &[row]), [want], "{row:x?}");
            }
        }
    }
    both("fma.rn.sat", "f16", &triples(&ordinary(F16)), 3, |row| {
        let [a, b, c] = row.map(|code| F16.value(code));
        F16.round(saturate(a.mul_add(b, c)), To::Nearest)
    });
    both("fma.rn.ftz", "f16", &triples(&edges(F16)[..8]), 3, |row| {
        let [a, b, c] = row.map(|code| F16.value(flush(F16, code)));
        flush(F16, F16.round(a.mul_add(b, c), To::Nearest))
    });
    // (1 + u)·1.5 = 1.5 + 1.5 u and (1 + 3u)·1.5 = 1.5 + 4.5 u lie halfway between neighbours, and a term that f32 could
    // not add decides.
    for (name, rows) in [
        ("bf16", [[0x3f81, 0x3fc0, 0x8d80, 0x3fc1], [0x3f83, 0x3fc0, 0x0d80, 0x3fc5]]),
        ("f16", [[0x3c01, 0x3e00, 0x8001, 0x3e01], [0x3c03, 0x3e00, 0x0001, 0x3e05]]),
    ] {
        for [a, b, c, want] in rows {
            assert_eq!(results(&format!("fma.rn.{name} %h0, %b0, %b1, %b2"), &[[a, b, c]]), [want]);
        }
    }
}

/// The sign of an exact zero: the terms' own where they agree, else positive.
fn zero(format: Format, [a, b, c]: Row) -> u64 {
    let product = (a ^ b) & 0x8000;
    let exact = format.value(a) * format.value(b) == 0.0 && format.value(c) == 0.0;
    if exact && product == c & 0x8000 { product } else { 0 }
}

#[test]
fn lesser_and_greater() {
    for (name, format) in KINDS {
        for (op, greater) in [("min", false), ("max", true)] {
            let nan = |code: u64| code & 0x7fff > format.last + 1;
            let pick = |a: u64, b: u64| match (nan(a), nan(b)) {
                (true, true) => format.nan(),
                (true, _) => b,
                (_, true) => a,
                _ => {
                    let (x, y) = (format.value(a), format.value(b));
                    let first = if x == y { a & 0x8000 != 0 } else { x < y };
                    if first != greater { a } else { b }
                }
            };
            let rows = pairs(&edges(format));
            both(op, name, &rows, 2, |[a, b, _]| pick(a, b));
            let either = |a, b| nan(a) || nan(b);
            both(
                &format!("{op}.NaN"),
                name,
                &rows,
                2,
                |[a, b, _]| {
                    if either(a, b) { format.nan() } else { pick(a, b) }
                },
            );
            let signed = |a: u64, b: u64| match pick(a & 0x7fff, b & 0x7fff) {
                size if nan(size) => size,
                size => size | (a ^ b) & 0x8000,
            };
            both(&format!("{op}.xorsign.abs"), name, &rows, 2, |[a, b, _]| signed(a, b));
            both(&format!("{op}.NaN.xorsign.abs"), name, &rows, 2, |[a, b, _]| {
                if either(a, b) { format.nan() } else { signed(a, b) }
            });
            if name == "f16" {
                both(&format!("{op}.ftz"), name, &rows, 2, |[a, b, _]| pick(flush(F16, a), flush(F16, b)));
            }
        }
    }
}

#[test]
fn signs() {
    for (name, format) in KINDS {
        both("neg", name, &singles(&edges(format)), 1, |[a, ..]| a ^ 0x8000);
        both("abs", name, &singles(&edges(format)), 1, |[a, ..]| a & 0x7fff);
    }
}

#[test]
fn approximations() {
    for (op, name, format, f, bound) in [
        ("ex2.approx", "f16", F16, f64::exp2 as fn(f64) -> f64, 2f64.powf(-9.9)),
        ("ex2.approx.ftz", "bf16", BF16, f64::exp2, 2f64.powi(-7)),
        ("tanh.approx", "f16", F16, f64::tanh, 2f64.powf(-10.987)),
        ("tanh.approx", "bf16", BF16, f64::tanh, 2f64.powi(-8)),
    ] {
        let inputs: Vec<u64> = (-40..40).map(|i| format.round(f64::from(i) / 8.0, To::Nearest)).collect();
        let (scalar, packed) = (format!("{op}.{name} %h0, %b0"), format!("{op}.{name}x2 %r0, %a0"));
        for (code, got) in inputs.iter().zip(results(&scalar, &singles(&inputs))) {
            let (want, got) = (f(format.value(*code)), format.value(got));
            // The bound, and the last digit that rounding to the format costs.
            let allowed = bound * want.abs() + 2f64.powi(-(format.fraction as i32)) * want.abs() / 2.0;
            assert!((got - want).abs() <= allowed, "{op}.{name} of {}: {got}", format.value(*code));
        }
        let rows = singles(&[inputs[3] << 16 | inputs[60]]);
        let parts = results(&scalar, &singles(&[inputs[60], inputs[3]]));
        assert_eq!(results(&packed, &rows), [parts[1] << 16 | parts[0]]);
    }
    for (op, x, want) in [
        ("ex2.approx.f16 %h0, %b0", 0xfc00, 0),
        ("ex2.approx.f16 %h0, %b0", 0x7c00, 0x7c00),
        ("ex2.approx.f16 %h0, %b0", 0xcd00, 0x10),
        ("ex2.approx.ftz.bf16 %h0, %b0", 0xff80, 0),
        ("ex2.approx.ftz.bf16 %h0, %b0", 0xc302, 0),
        ("tanh.approx.f16 %h0, %b0", 0xfc00, 0xbc00),
        ("tanh.approx.bf16 %h0, %b0", 0x7f80, 0x3f80),
    ] {
        assert_eq!(results(op, &[[x, 0, 0]]), [want], "{op} of {x:#x}");
    }
}
