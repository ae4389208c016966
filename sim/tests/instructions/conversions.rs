//! `cvt`.

use crate::table::{
    BF16, E4M3, E5M2, F16, F32, Format, INTEGERS, Int, Row, To, check, pairs, results, singles,
};

const MODES: [(&str, To); 4] = [("rn", To::Nearest), ("rz", To::Zero), ("rm", To::Down), ("rp", To::Up)];

fn eight(name: &'static str, signed: bool) -> Int {
    Int { name, bits: 8, signed }
}

/// Every integer type, and the register that holds it in a conversion: at least as wide, and wider for 8 bits.
fn integers() -> Vec<(Int, &'static str, &'static str)> {
    let mut all: Vec<_> = INTEGERS.map(|ty| (ty, ty.registers()[0], ty.registers()[1])).to_vec();
    all.push((eight("u8", false), "%r0", "%a0"));
    all.push((eight("s8", true), "%r0", "%a0"));
    all
}

fn values() -> Vec<u64> {
    let mut all = vec![];
    for bits in [8, 16, 32, 64] {
        all.extend(Int { name: "", bits, signed: false }.edges());
    }
    all
}

/// Bits of a register so wide whose low bits are a value of `ty`.
fn extended(ty: Int, register: &str, value: i128) -> u64 {
    let bits = if register.starts_with("%rd") {
        64
    } else if register.starts_with("%h") {
        16
    } else {
        32
    };
    let kept = ty.value(ty.wrap(value));
    Int { name: "", bits, signed: false }.wrap(kept)
}

#[test]
fn integers_to_integers() {
    for (from, _, source) in integers() {
        for (to, into, _) in integers() {
            let rows = singles(&values());
            check(&format!("cvt.{}.{} {into}, {source}", to.name, from.name), &rows, |[a, ..]| {
                extended(to, into, from.value(a))
            });
            // Saturation is only for values that may not fit.
            if from.least() >= to.least() && from.most() <= to.most() {
                continue;
            }
            check(&format!("cvt.sat.{}.{} {into}, {source}", to.name, from.name), &rows, |[a, ..]| {
                extended(to, into, from.value(a).clamp(to.least(), to.most()))
            });
        }
    }
}

fn float_values() -> Vec<f64> {
    let mut all =
        vec![0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 3.5, 127.5, 128.0, 255.4, 255.5, 256.0, 32767.5, 65535.9];
    all.extend([
        2f64.powi(31) - 1.0,
        2f64.powi(31),
        2f64.powi(32),
        2f64.powi(52) + 0.5,
        2f64.powi(63),
        2f64.powi(64),
    ]);
    all.extend([1e30, 5e-324, 1e-40, f64::INFINITY]);
    all.iter().flat_map(|&x| [x, -x]).chain([f64::NAN]).collect()
}

/// To an integral value.
fn integral(x: f64, to: To) -> f64 {
    match to {
        To::Nearest => {
            let below = x.floor();
            match x - below {
                rest if rest > 0.5 || rest == 0.5 && below % 2.0 != 0.0 => below + 1.0,
                _ => below,
            }
        }
        To::Zero => {
            if x < 0.0 {
                x.ceil()
            } else {
                x.floor()
            }
        }
        To::Down => x.floor(),
        To::Up => x.ceil(),
    }
}

#[test]
fn floats_to_integers() {
    for (name, source, code, width) in [
        ("f32", "%a0", (|x| F32.round(x, To::Nearest)) as fn(f64) -> u64, 32),
        ("f64", "%w0", f64::to_bits, 64),
        ("f16", "%b0", |x| F16.round(x, To::Nearest), 16),
        ("bf16", "%b0", |x| BF16.round(x, To::Nearest), 16),
    ] {
        let rows: Vec<Row> = float_values().iter().map(|&x| [code(x), 0, 0]).collect();
        for (to, into, _) in integers().into_iter().filter(|(to, ..)| name != "bf16" || to.bits > 8) {
            for (mode, direction) in MODES {
                check(&format!("cvt.{mode}i.{}.{name} {into}, {source}", to.name), &rows, |[a, ..]| {
                    let x = match width {
                        32 => F32.value(a),
                        64 => f64::from_bits(a),
                        _ if name == "f16" => F16.value(a),
                        _ => BF16.value(a),
                    };
                    if x.is_nan() {
                        // Zero, but the top bit where either side has 64 bits.
                        let special = width == 64 || to.bits == 64;
                        return if special { extended(to, into, 1 << (to.bits - 1)) } else { 0 };
                    }
                    extended(to, into, (integral(x, direction) as i128).clamp(to.least(), to.most()))
                });
            }
        }
    }
    let subnormal = [[0x0040_0000, 0, 0], [0x8040_0000, 0, 0]];
    assert_eq!(results("cvt.rpi.s32.f32 %r0, %a0", &subnormal), [1, 0]);
    assert_eq!(results("cvt.rpi.ftz.s32.f32 %r0, %a0", &subnormal), [0, 0]);
    assert_eq!(results("cvt.rmi.ftz.s32.f32 %r0, %a0", &subnormal), [0, 0]);
}

/// The value of an integer in a format with so many digits, by integer arithmetic.
fn rounded(value: i128, digits: u32, to: To) -> f64 {
    let size = value.unsigned_abs();
    let drop = (128 - size.leading_zeros()).saturating_sub(digits);
    let (kept, rest) = (size >> drop, size & ((1 << drop) - 1));
    let up = match to {
        _ if rest == 0 => false,
        To::Nearest => 2 * rest > 1 << drop || 2 * rest == 1 << drop && kept % 2 == 1,
        To::Zero => false,
        To::Down => value < 0,
        To::Up => value > 0,
    };
    let value_of = (kept + u128::from(up)) as f64 * 2f64.powi(drop as i32);
    if value < 0 { -value_of } else { value_of }
}

#[test]
fn integers_to_floats() {
    for (from, _, source) in integers() {
        let mut inputs = values();
        inputs.extend([
            0x0100_0001,
            0x0180_8000,
            0x0180_8001,
            0x8080_8000,
            0x4040_0000_0000_0001,
            0x7fff_ffff_ffff_fc00,
        ]);
        let rows = singles(&inputs);
        for (mode, to) in MODES {
            check(&format!("cvt.{mode}.f32.{} %r0, {source}", from.name), &rows, |[a, ..]| {
                u64::from((rounded(from.value(a), 24, to) as f32).to_bits())
            });
            check(&format!("cvt.{mode}.f64.{} %rd0, {source}", from.name), &rows, |[a, ..]| {
                rounded(from.value(a), 53, to).to_bits()
            });
            check(&format!("cvt.{mode}.f16.{} %h0, {source}", from.name), &rows, |[a, ..]| {
                F16.round(rounded(from.value(a), 11, to), to)
            });
            if from.bits > 8 {
                check(&format!("cvt.{mode}.bf16.{} %h0, {source}", from.name), &rows, |[a, ..]| {
                    BF16.round(rounded(from.value(a), 8, to), to)
                });
            }
        }
    }
}

#[test]
fn floats_to_floats() {
    let mut inputs = float_values();
    // Ties of every target, their neighbours, and values that are ties only once rounded to f32.
    for digits in [7, 10, 23] {
        let unit = 2f64.powi(-digits);
        for odd in [0.5, 1.5] {
            inputs.extend([
                1.0 + odd * unit,
                1.0 + odd * unit + 2f64.powi(-45),
                -(1.0 + odd * unit - 2f64.powi(-45)),
            ]);
        }
    }
    inputs.extend([65504.0, 65519.0, 65520.0, 1e-7, 3e-8, 2.9e-8, 3.4e38, f64::from(f32::MAX), 1e39, 1e-46]);
    let wide: Vec<Row> = inputs.iter().map(|x| [x.to_bits(), 0, 0]).collect();
    let narrow: Vec<Row> = inputs.iter().map(|&x| [F32.round(x, To::Nearest), 0, 0]).collect();
    for (mode, to) in MODES {
        check(&format!("cvt.{mode}.f32.f64 %r0, %w0"), &wide, |[a, ..]| F32.round(f64::from_bits(a), to));
        check(&format!("cvt.{mode}.f16.f64 %h0, %w0"), &wide, |[a, ..]| F16.round(f64::from_bits(a), to));
        check(&format!("cvt.{mode}.bf16.f64 %h0, %w0"), &wide, |[a, ..]| BF16.round(f64::from_bits(a), to));
        check(&format!("cvt.{mode}.f16.f32 %h0, %a0"), &narrow, |[a, ..]| F16.round(F32.value(a), to));
        check(&format!("cvt.{mode}.bf16.f32 %h0, %a0"), &narrow, |[a, ..]| BF16.round(F32.value(a), to));
        check(&format!("cvt.{mode}i.f32.f32 %r0, %a0"), &narrow, |[a, ..]| {
            let x = F32.value(a);
            if x.is_nan() { 0x7fff_ffff } else { F32.round(integral(x, to).copysign(x), To::Nearest) }
        });
        check(&format!("cvt.{mode}i.f64.f64 %rd0, %w0"), &wide, |[a, ..]| {
            let x = f64::from_bits(a);
            if x.is_nan() { 0x7fff_ffff_ffff_ffff } else { integral(x, to).copysign(x).to_bits() }
        });
    }
    check("cvt.f64.f32 %rd0, %a0", &narrow, |[a, ..]| {
        let x = F32.value(a);
        if x.is_nan() { 0x7fff_ffff_ffff_ffff } else { x.to_bits() }
    });
    check("cvt.sat.f32.f32 %r0, %a0", &narrow, |[a, ..]| {
        let x = F32.value(a);
        if x > 0.0 { F32.round(x.min(1.0), To::Nearest) } else { 0 }
    });
    check("cvt.rn.sat.f16.f32 %h0, %a0", &narrow, |[a, ..]| {
        let x = F32.value(a);
        if x > 0.0 { F16.round(x.min(1.0), To::Nearest) } else { 0 }
    });
    check("cvt.rn.ftz.f32.f64 %r0, %w0", &wide, |[a, ..]| {
        let code = F32.round(f64::from_bits(a), To::Nearest);
        if code & 0x7f80_0000 == 0 { code & 0x8000_0000 } else { code }
    });
    let halves: Vec<Row> =
        (0..=0xffff).step_by(37).chain([0x8000, 0x7c00, 0xfc00, 0x7f80, 0xff80]).map(|x| [x, 0, 0]).collect();
    let back = |x: f64| if x.is_nan() { 0x7fff_ffff } else { F32.round(x, To::Nearest) };
    check("cvt.f32.f16 %r0, %b0", &halves, |[a, ..]| back(F16.value(a)));
    check("cvt.f32.bf16 %r0, %b0", &halves, |[a, ..]| back(BF16.value(a)));
    check("cvt.rn.bf16.f16 %h0, %b0", &halves, |[a, ..]| BF16.round(F16.value(a), To::Nearest));
    check("cvt.rn.f16.bf16 %h0, %b0", &halves, |[a, ..]| F16.round(BF16.value(a), To::Nearest));
}

fn relu(x: f64) -> f64 {
    if x.is_nan() || x > 0.0 { x } else { 0.0 }
}

fn finite(format: Format, code: u64) -> u64 {
    let sign = 1 << (format.width - 1);
    if code & (sign - 1) == format.last + 1 { code - 1 } else { code }
}

/// 8-bit codes saturate: infinities and what rounds beyond the last value.
fn eight_bits(format: Format, x: f64) -> u64 {
    if x.is_nan() {
        return 0x7f;
    }
    let code = format.round(x.clamp(-1e30, 1e30), To::Nearest);
    code & 0x80 | (code & 0x7f).min(format.last)
}

fn f32_inputs() -> Vec<u64> {
    let mut inputs =
        vec![0.0, 0.1, 1.0, 1.0625, 1.1875, 0.001953125, 0.0009765625, 0.00146484375, 17.0, 240.0, 448.0];
    inputs.extend([
        464.0,
        465.0,
        57344.0,
        61440.0,
        65504.0,
        65520.0,
        3.4e38,
        f64::INFINITY,
        1e-5,
        7e-6,
        1.00390625,
        1.01171875,
    ]);
    let both = inputs.into_iter().flat_map(|x| [x, -x]).map(|x| F32.round(x, To::Nearest));
    both.chain([0x7fff_ffff, 0xffc0_0000, 1, 0x8000_0001]).collect()
}

#[test]
fn two_at_once() {
    let rows = pairs(&f32_inputs());
    for (name, format) in [("f16", F16), ("bf16", BF16)] {
        for (mode, to) in [("rn", To::Nearest), ("rz", To::Zero)] {
            for (suffix, clamp, saturate) in [
                ("", false, false),
                (".relu", true, false),
                (".satfinite", false, true),
                (".relu.satfinite", true, true),
            ] {
                let one = |a: u64| {
                    let x = F32.value(a);
                    let code = format.round(if clamp { relu(x) } else { x }, to);
                    if saturate { finite(format, code) } else { code }
                };
                // The first source is the upper half.
                check(&format!("cvt.{mode}{suffix}.{name}x2.f32 %r0, %a0, %a1"), &rows, |[a, b, _]| {
                    one(a) << 16 | one(b)
                });
                check(&format!("cvt.{mode}{suffix}.{name}.f32 %h0, %a0"), &rows, |[a, ..]| one(a));
            }
        }
    }
    for (name, format) in [("e4m3", E4M3), ("e5m2", E5M2)] {
        for (suffix, clamp) in [("", false), (".relu", true)] {
            let one = |x: f64| eight_bits(format, if clamp { relu(x) } else { x });
            check(&format!("cvt.rn.satfinite{suffix}.{name}x2.f32 %h0, %a0, %a1"), &rows, |[a, b, _]| {
                one(F32.value(a)) << 8 | one(F32.value(b))
            });
            let halves: Vec<Row> =
                (0..=0xffffu64).step_by(17).map(|x| [x << 16 | ((x * 7) & 0xffff), 0, 0]).collect();
            check(&format!("cvt.rn.satfinite{suffix}.{name}x2.f16x2 %h0, %a0"), &halves, |[a, ..]| {
                one(F16.value(a >> 16)) << 8 | one(F16.value(a & 0xffff))
            });
            // Every code, above and below.
            let codes: Vec<Row> = (0..256u64).map(|x| [x << 8 | (255 - x), 0, 0]).collect();
            check(&format!("cvt.rn{suffix}.f16x2.{name}x2 %r0, %b0"), &codes, |[a, ..]| {
                let back = |code: u64| {
                    let x = format.value(code);
                    F16.round(if clamp { relu(x) } else { x }, To::Nearest)
                };
                back(a >> 8 & 255) << 16 | back(a & 255)
            });
        }
    }
    assert_eq!(results("cvt.rn.bf16x2.f32 %r0, %a0, %a1", &[[0x3f80_0000, 0xc000_0000, 0]]), [0x3f80_c000]);
}

#[test]
fn tf32() {
    // Ten digits: 1 + 2^-11 is a tie, which goes to the even neighbour or away from zero.
    let (tie, above, odd) = (0x3f80_1000, 0x3f80_1001, 0x3f80_3000);
    let minus = 0x8000_0000;
    for (op, x, want) in [
        ("cvt.rna.tf32.f32", tie, 0x3f80_2000),
        ("cvt.rna.tf32.f32", tie | minus, 0xbf80_2000),
        ("cvt.rna.tf32.f32", tie - 1, 0x3f80_0000),
        ("cvt.rna.tf32.f32", 0x7f7f_ffff, 0x7f80_0000),
        ("cvt.rna.satfinite.tf32.f32", 0x7f7f_ffff, 0x7f7f_e000),
        ("cvt.rn.tf32.f32", tie, 0x3f80_0000),
        ("cvt.rn.tf32.f32", above, 0x3f80_2000),
        ("cvt.rn.tf32.f32", odd, 0x3f80_4000),
        ("cvt.rn.relu.tf32.f32", tie | minus, 0),
        ("cvt.rz.tf32.f32", odd, 0x3f80_2000),
        ("cvt.rn.satfinite.tf32.f32", 0xff80_0000, 0xff7f_e000),
        ("cvt.rz.relu.tf32.f32", odd, 0x3f80_2000),
        ("cvt.rn.tf32.f32", 0x7fc0_0000, 0x7fff_ffff),
    ] {
        assert_eq!(results(&format!("{op} %r0, %a0"), &[[x, 0, 0]]), [want], "{op} of {x:#x}");
    }
}
