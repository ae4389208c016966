//! Logic, shifts, fields of bits and bytes.

use crate::table::{BITS, INTEGERS, check, pairs, results, singles, triples};

#[test]
fn logic() {
    for ty in BITS {
        let [d, a, b, _] = ty.registers();
        let name = ty.name;
        check(&format!("and.{name} {d}, {a}, {b}"), &pairs(&ty.edges()), |[a, b, _]| a & b);
        check(&format!("or.{name} {d}, {a}, {b}"), &pairs(&ty.edges()), |[a, b, _]| a | b);
        check(&format!("xor.{name} {d}, {a}, {b}"), &pairs(&ty.edges()), |[a, b, _]| a ^ b);
        check(&format!("not.{name} {d}, {a}"), &singles(&ty.edges()), |[a, ..]| ty.wrap(!a as i128));
        check(&format!("cnot.{name} {d}, {a}"), &singles(&ty.edges()), |[a, ..]| u64::from(a == 0));
    }
}

#[test]
fn every_table_of_three_inputs() {
    // 0xF0, 0xCC, 0xAA are the inputs whose bit i is the result's place in the table.
    for lut in (0..256).step_by(5).chain([0x80, 0xfe, 0x96, 0xe8, 0xca, 0x1a, 0x40]) {
        assert_eq!(
            results(
                &format!("lop3.b32 %r0, %a0, %a1, %a2, {lut}"),
                &[[0xf0f0_f0f0, 0xcccc_cccc, 0xaaaa_aaaa]]
            ),
            [lut * 0x0101_0101],
            "table {lut:#x}"
        );
    }
}

const COUNTS: [u64; 12] = [0, 1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 0xffff_ffff];

#[test]
fn shifts_clamp_their_count() {
    for ty in BITS.into_iter().chain(INTEGERS) {
        let [d, a, ..] = ty.registers();
        let rows: Vec<_> = ty.edges().into_iter().flat_map(|a| COUNTS.map(|count| [a, count, 0])).collect();
        let by = |count: u64| count.min(u64::from(ty.bits)) as u32;
        if ty.name.starts_with('b') {
            check(&format!("shl.{} {d}, {a}, %a1", ty.name), &rows, |[a, n, _]| {
                if by(n) == ty.bits { 0 } else { ty.wrap(i128::from(a) << by(n)) }
            });
        }
        check(&format!("shr.{} {d}, {a}, %a1", ty.name), &rows, |[a, n, _]| ty.wrap(ty.value(a) >> by(n)));
    }
}

#[test]
fn funnel_shifts() {
    let values = [0, 1, 0x8000_0001, 0xdead_beef, 0xffff_ffff];
    let rows: Vec<_> =
        pairs(&values).into_iter().flat_map(|[a, b, _]| COUNTS.map(|count| [a, b, count])).collect();
    let joined = |a: u64, b: u64| b << 32 | a;
    for (mode, count) in
        [("clamp", (|n| n.min(32)) as fn(u64) -> u64), ("wrap", (|n| n % 32) as fn(u64) -> u64)]
    {
        check(&format!("shf.l.{mode}.b32 %r0, %a0, %a1, %a2"), &rows, |[a, b, n]| {
            u64::from((u128::from(joined(a, b)) << count(n) >> 32) as u32)
        });
        check(&format!("shf.r.{mode}.b32 %r0, %a0, %a1, %a2"), &rows, |[a, b, n]| {
            u64::from((joined(a, b) >> count(n)) as u32)
        });
    }
}

#[test]
fn counting_and_finding() {
    for ty in &BITS[1..] {
        let [d, a, ..] = ty.registers();
        let rows = singles(&ty.edges());
        let bits = ty.bits;
        let bit = move |a: u64, i: u32| a >> i & 1 == 1;
        check(&format!("popc.{} %r0, {a}", ty.name), &rows, |[a, ..]| {
            (0..bits).filter(|&i| bit(a, i)).count() as u64
        });
        check(&format!("clz.{} %r0, {a}", ty.name), &rows, |[a, ..]| {
            (0..bits).rev().take_while(|&i| !bit(a, i)).count() as u64
        });
        check(&format!("brev.{} {d}, {a}", ty.name), &rows, |[a, ..]| {
            (0..bits).fold(0, |out, i| out | u64::from(bit(a, i)) << (bits - 1 - i))
        });
    }
    for ty in &INTEGERS[2..] {
        let [_, a, ..] = ty.registers();
        let rows = singles(&ty.edges());
        let found = |a: u64| {
            let seek = if ty.value(a) < 0 { 0 } else { 1 };
            (0..ty.bits).rev().find(|&i| a >> i & 1 == seek)
        };
        check(&format!("bfind.{} %r0, {a}", ty.name), &rows, |[a, ..]| found(a).unwrap_or(u32::MAX).into());
        check(&format!("bfind.shiftamt.{} %r0, {a}", ty.name), &rows, |[a, ..]| {
            found(a).map_or(u32::MAX, |at| ty.bits - 1 - at).into()
        });
    }
}

#[test]
fn fields() {
    for ty in &INTEGERS[2..] {
        let [d, a, ..] = ty.registers();
        for position in [0u32, 1, 8, 31, 32, 40, 63, 64, 255] {
            for length in [0u32, 1, 8, 31, 32, 33, 64, 255] {
                let op = format!("bfe.{} {d}, {a}, {position}, {length}", ty.name);
                check(&op, &singles(&ty.edges()), |[a, ..]| {
                    // Bits past the source read as the sign; past the field, as the field's own top bit.
                    let top = (position + length).saturating_sub(1).min(ty.bits - 1);
                    let fill = ty.signed && length > 0 && a >> top & 1 == 1;
                    (0..ty.bits).fold(0, |out, i| {
                        let inside = i < length && position + i < ty.bits;
                        let bit = if inside { a >> (position + i) & 1 == 1 } else { fill };
                        out | u64::from(bit) << i
                    })
                });
            }
        }
    }
    for ty in &BITS[1..] {
        let [d, a, b, _] = ty.registers();
        for position in [0u32, 1, 8, 31, 32, 63, 64, 255] {
            for length in [0u32, 1, 8, 31, 32, 64, 255] {
                let op = format!("bfi.{} {d}, {a}, {b}, {position}, {length}", ty.name);
                check(&op, &pairs(&ty.edges()[5..9]), |[a, b, _]| {
                    (0..ty.bits).fold(0, |out, i| {
                        let inside = i >= position && i - position < length;
                        let from = if inside { a >> (i - position) } else { b >> i };
                        out | (from & 1) << i
                    })
                });
            }
        }
    }
}

#[test]
fn masks_and_extensions() {
    let values = [0, 1, 5, 16, 31, 32, 33, 36, 255];
    check("bmsk.clamp.b32 %r0, %a0, %a1", &pairs(&values), |[a, b, _]| {
        (0..32).filter(|i| *i >= a && *i < a + b).fold(0, |out, i| out | 1 << i)
    });
    check("bmsk.wrap.b32 %r0, %a0, %a1", &pairs(&values), |[a, b, _]| {
        let (a, b) = (a % 32, b % 32);
        // A width that reaches past bit 31 fills up to it.
        (0..32).filter(|i| *i >= a && *i < a + b).fold(0, |out, i| out | 1 << i)
    });
    let words = [0u64, 1, 0x80, 0xdead_beef, 0x7fff_ffff, 0xffff_ffff];
    let rows: Vec<_> = words.into_iter().flat_map(|a| values.map(|b| [a, b, 0])).collect();
    for (mode, signed) in [("u32", false), ("s32", true)] {
        for clamp in [true, false] {
            let name = if clamp { "clamp" } else { "wrap" };
            check(&format!("szext.{name}.{mode} %r0, %a0, %a1"), &rows, |[a, b, _]| {
                let width = if clamp { b } else { b % 32 };
                if width > 31 {
                    return a;
                }
                let fill = signed && width > 0 && a >> (width - 1) & 1 == 1;
                (0..32).fold(0, |out, i| out | if i < width { a & 1 << i } else { u64::from(fill) << i })
            });
        }
    }
}

#[test]
fn the_nth_bit_that_is_set() {
    let mask = 0b1001_0110;
    for (base, offset, want) in [
        (0, 0, u32::MAX),
        (1, 0, 1),
        (0, 1, 1),
        (0, 2, 2),
        (0, 3, 4),
        (0, 4, 7),
        (0, 5, u32::MAX),
        (7, -1i32, 7),
        (7, -2, 4),
        (7, -4, 1),
        (7, -5, u32::MAX),
        (3, 1, 4),
        (3, -1, 2),
    ] {
        let row = [mask, base, u64::from(offset as u32)];
        assert_eq!(results("fns.b32 %r0, %a0, %a1, %a2", &[row]), [u64::from(want)], "{base} {offset}");
    }
}

#[test]
fn permuted_bytes() {
    let (a, b) = (0x8322_1100u64, 0x77e6_55c4);
    let bytes: Vec<u64> = (0..8).map(|i| (b << 32 | a) >> (8 * i) & 255).collect();
    let rows: Vec<_> = [0x3210, 0x5410, 0x7632, 0x0123, 0x4567, 0xba98, 0xfedc, 0x0f70]
        .map(|selector| [a, b, selector])
        .to_vec();
    check("prmt.b32 %r0, %a0, %a1, %a2", &rows, |[_, _, selector]| {
        (0..4).fold(0, |out, i| {
            let pick = selector >> (4 * i) & 15;
            let byte = bytes[(pick & 7) as usize];
            out | if pick < 8 { byte } else { (byte >> 7) * 255 } << (8 * i)
        })
    });
    // The table of the special modes, as bytes from the top down, for selectors 0 to 3.
    for (mode, table) in [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ] {
        let rows: Vec<_> = (0..4).map(|selector| [a, b, selector]).collect();
        check(&format!("prmt.b32.{mode} %r0, %a0, %a1, %a2"), &rows, |[_, _, selector]| {
            table[selector as usize].iter().fold(0, |out, &i: &usize| out << 8 | bytes[i])
        });
    }
}

#[test]
fn immediates_stand_for_registers() {
    assert_eq!(results("add.s32 %r0, %a0, -5", &[[3, 0, 0]]), [0xffff_fffe]);
    assert_eq!(results("and.b16 %h0, %b0, -2", &[[0xffff, 0, 0]]), [0xfffe]);
    assert_eq!(results("mul.lo.s64 %rd0, %w0, -1", &[[7, 0, 0]]), [-7i64 as u64]);
    check("mad.lo.s32 %r0, %a0, %a1, 3", &triples(&[2, 5]), |[a, b, _]| a * b + 3);
}
