//! mma.sync: exact products through the ISA's fragment tables, and the rounding of Hopper's tensor core.

use crate::rig::{Rig, rig};
use narrowgauge_sim::FaultKind;

/// (row, column) of element i in lane l, as the ISA gives them from group and thread in the group.
type Table = fn(usize, usize, usize) -> (usize, usize);

struct Form {
    opcode: &'static str,
    rows: usize,
    depth: usize,
    /// Bytes of an element of A and B, and how values are encoded in A and in B.
    bytes: usize,
    a_code: fn(i32) -> u32,
    b_code: fn(i32) -> u32,
    /// Elements a lane holds of A, B and C.
    counts: (usize, usize, usize),
    a: Table,
    b: Table,
    c: Table,
    /// Encoding of C and D, and its bytes.
    out: fn(i32) -> u32,
    out_bytes: usize,
}

fn float(value: i32) -> u32 {
    (value as f32).to_bits()
}

fn bf16(value: i32) -> u32 {
    float(value) >> 16
}

/// Integers up to 2048 are exact.
fn f16(value: i32) -> u32 {
    if value == 0 {
        return 0;
    }
    let bits = float(value);
    (bits >> 31) << 15 | ((bits >> 23 & 255) - 127 + 15) << 10 | (bits & 0x7f_ffff) >> 13
}

/// −4 to 4.
fn e4m3(value: i32) -> u32 {
    [0, 0x38, 0x40, 0x44, 0x48][value.unsigned_abs() as usize] | if value < 0 { 0x80 } else { 0 }
}

fn e5m2(value: i32) -> u32 {
    [0, 0x3c, 0x40, 0x42, 0x44][value.unsigned_abs() as usize] | if value < 0 { 0x80 } else { 0 }
}

fn byte(value: i32) -> u32 {
    value as u32 & 255
}

fn word(value: i32) -> u32 {
    value as u32
}

const A_M16: Table = |g, q, i| (if i < 2 { g } else { g + 8 }, 2 * q + i % 2);
const A_K16: Table =
    |g, q, i| (if matches!(i, 0 | 1 | 4 | 5) { g } else { g + 8 }, 2 * q + i % 2 + if i < 4 { 0 } else { 8 });
const B_K8: Table = |g, q, i| (2 * q + i, g);
const B_K16: Table = |g, q, i| (2 * q + i % 2 + if i < 2 { 0 } else { 8 }, g);
const C_M16: Table = |g, q, i| (if i < 2 { g } else { g + 8 }, 2 * q + i % 2);
const A_BYTES_K16: Table = |g, q, i| (if i < 4 { g } else { g + 8 }, 4 * q + i % 4);
const A_BYTES_K32: Table = |g, q, i| {
    (if i < 4 || (8..12).contains(&i) { g } else { g + 8 }, 4 * q + i % 4 + if i < 8 { 0 } else { 16 })
};
const B_BYTES: Table = |g, q, i| (4 * q + i % 4 + if i < 4 { 0 } else { 16 }, g);
const A_TF32_K4: Table = |g, q, i| (if i == 0 { g } else { g + 8 }, q);
const A_TF32_K8: Table = |g, q, i| (if i % 2 == 0 { g } else { g + 8 }, if i < 2 { q } else { q + 4 });
const B_TF32: Table = |g, q, i| (if i == 0 { q } else { q + 4 }, g);

fn forms() -> Vec<Form> {
    let base = || Form {
        opcode: "m16n8k16.row.col.f32.bf16.bf16.f32",
        rows: 16,
        depth: 16,
        bytes: 2,
        a_code: bf16,
        b_code: bf16,
        counts: (8, 4, 4),
        a: A_K16,
        b: B_K16,
        c: C_M16,
        out: float,
        out_bytes: 4,
    };
    let k8 = || Form { depth: 8, counts: (4, 2, 4), a: A_M16, b: B_K8, ..base() };
    let k32 = || Form { depth: 32, bytes: 1, counts: (16, 8, 4), a: A_BYTES_K32, b: B_BYTES, ..base() };
    let bytes_k16 = || Form { bytes: 1, counts: (8, 4, 4), a: A_BYTES_K16, b: B_BYTES, ..base() };
    let m8 = || Form {
        rows: 8,
        bytes: 1,
        counts: (4, 4, 2),
        a: |g, q, i| (g, 4 * q + i),
        b: B_BYTES,
        c: |g, q, i| (g, 2 * q + i),
        ..base()
    };
    let mut out = vec![
        base(),
        Form { opcode: "m16n8k8.row.col.f32.bf16.bf16.f32", ..k8() },
        Form { opcode: "m16n8k16.row.col.f32.f16.f16.f32", a_code: f16, b_code: f16, ..base() },
        Form { opcode: "m16n8k8.row.col.f32.f16.f16.f32", a_code: f16, b_code: f16, ..k8() },
        Form {
            opcode: "m16n8k16.row.col.f16.f16.f16.f16",
            a_code: f16,
            b_code: f16,
            out: f16,
            out_bytes: 2,
            ..base()
        },
        Form {
            opcode: "m16n8k8.row.col.f16.f16.f16.f16",
            a_code: f16,
            b_code: f16,
            out: f16,
            out_bytes: 2,
            ..k8()
        },
        Form {
            opcode: "m16n8k4.row.col.f32.tf32.tf32.f32",
            depth: 4,
            bytes: 4,
            a_code: float,
            b_code: float,
            counts: (2, 1, 4),
            a: A_TF32_K4,
            b: B_TF32,
            ..base()
        },
        Form {
            opcode: "m16n8k8.row.col.f32.tf32.tf32.f32",
            bytes: 4,
            a_code: float,
            b_code: float,
            counts: (4, 2, 4),
            a: A_TF32_K8,
            b: B_TF32,
            ..k8()
        },
    ];
    for (opcode, a_code, b_code) in [
        ("m16n8k32.row.col.f32.e4m3.e4m3.f32", e4m3 as fn(i32) -> u32, e4m3 as fn(i32) -> u32),
        ("m16n8k32.row.col.f32.e4m3.e5m2.f32", e4m3, e5m2),
        ("m16n8k32.row.col.f32.e5m2.e4m3.f32", e5m2, e4m3),
        ("m16n8k32.row.col.f32.e5m2.e5m2.f32", e5m2, e5m2),
    ] {
        out.push(Form { opcode, a_code, b_code, ..k32() });
    }
    out.push(Form {
        opcode: "m16n8k32.row.col.f16.e4m3.e5m2.f16",
        a_code: e4m3,
        b_code: e5m2,
        out: f16,
        out_bytes: 2,
        ..k32()
    });
    out.push(Form {
        opcode: "m16n8k16.row.col.f32.e4m3.e4m3.f32",
        a_code: e4m3,
        b_code: e4m3,
        ..bytes_k16()
    });
    out.push(Form {
        opcode: "m16n8k16.row.col.f16.e5m2.e5m2.f16",
        a_code: e5m2,
        b_code: e5m2,
        out: f16,
        out_bytes: 2,
        ..bytes_k16()
    });
    let integers = |opcode, form: Form| Form { opcode, a_code: byte, b_code: byte, out: word, ..form };
    out.push(integers("m16n8k32.row.col.s32.s8.s8.s32", k32()));
    out.push(integers("m16n8k32.row.col.satfinite.s32.s8.u8.s32", k32()));
    out.push(integers("m16n8k16.row.col.s32.u8.s8.s32", bytes_k16()));
    out.push(integers("m16n8k16.row.col.satfinite.s32.u8.u8.s32", bytes_k16()));
    out.push(integers("m8n8k16.row.col.s32.s8.s8.s32", m8()));
    out.push(integers("m8n8k16.row.col.satfinite.s32.u8.s8.s32", m8()));
    out
}

/// −3 to 3, or 0 to 6 where the type has no sign.
fn value(line: usize, k: usize, salt: u32, unsigned: bool) -> i32 {
    let mixed = ((line * 67 + k) as u32 * 2 + salt).wrapping_mul(0x9e37_79b1) >> 12;
    let value = (mixed % 7) as i32;
    if unsigned { value } else { value - 3 }
}

impl Form {
    fn types(&self) -> Vec<&str> {
        self.opcode.split('.').collect()
    }

    fn a_value(&self, row: usize, k: usize) -> i32 {
        let types = self.types();
        value(row, k, 0, types[types.len() - 3] == "u8")
    }

    fn b_value(&self, column: usize, k: usize) -> i32 {
        let types = self.types();
        value(column, k, 1, types[types.len() - 2] == "u8")
    }

    fn c_value(row: usize, column: usize) -> i32 {
        3 * row as i32 - 5 * column as i32
    }

    /// Words of a lane's elements.
    fn pack(codes: impl Iterator<Item = u32>, bytes: usize) -> Vec<u32> {
        let codes: Vec<u32> = codes.collect();
        let pack =
            |chunk: &[u32]| chunk.iter().rev().fold(0u64, |w, c| w << (8 * bytes) | u64::from(*c)) as u32;
        codes.chunks(4 / bytes).map(pack).collect()
    }

    /// A buffer with each lane's words of A, B and C, and the registers of each.
    fn rig(
        &self,
        c_of: impl Fn(usize, usize) -> u32,
        a_of: impl Fn(usize, usize) -> u32,
        b_of: impl Fn(usize, usize) -> u32,
    ) -> Rig {
        let mut words = Vec::new();
        for lane in 0..32 {
            let (g, q) = (lane / 4, lane % 4);
            let a = Self::pack(
                (0..self.counts.0).map(|i| (self.a)(g, q, i)).map(|(row, k)| a_of(row, k)),
                self.bytes,
            );
            let b = Self::pack(
                (0..self.counts.1).map(|i| (self.b)(g, q, i)).map(|(k, column)| b_of(column, k)),
                self.bytes,
            );
            let c = Self::pack(
                (0..self.counts.2).map(|i| (self.c)(g, q, i)).map(|(row, column)| c_of(row, column)),
                self.out_bytes,
            );
            for (list, room) in [(a, 4), (b, 2), (c, 4)] {
                words.extend(list.iter());
                words.extend(vec![0; room - list.len()]);
            }
        }
        let names = |from: usize, count: usize| {
            let list: Vec<String> = (from..from + count).map(|i| format!("%r{i}")).collect();
            format!("{{{}}}", list.join(", "))
        };
        let (a, b, c) = (
            (self.counts.0 * self.bytes).div_ceil(4),
            (self.counts.1 * self.bytes).div_ceil(4),
            (self.counts.2 * self.out_bytes).div_ceil(4),
        );
        let zero: String = (20..24).map(|i| format!("mov.u32 %r{i}, 0;\n")).collect();
        rig(&format!(
            "mad.wide.u32 %rd0, %t, 40, %b0;
            ld.global.v2.u32 {{%r0, %r1}}, [%rd0];
            ld.global.v2.u32 {{%r2, %r3}}, [%rd0+8];
            ld.global.v2.u32 {{%r4, %r5}}, [%rd0+16];
            ld.global.v2.u32 {{%r6, %r7}}, [%rd0+24];
            ld.global.v2.u32 {{%r8, %r9}}, [%rd0+32];
            {zero}
            mma.sync.aligned.{} {}, {}, {}, {};
            mad.wide.u32 %rd1, %t, 16, %out;
            st.global.v4.u32 [%rd1], {{%r20, %r21, %r22, %r23}};",
            self.opcode,
            names(20, c),
            names(0, a),
            names(4, b),
            names(6, c)
        ))
        .numbers(words)
        .words(128)
    }

    /// D by lanes from D by rows and columns.
    fn fragments(&self, d: impl Fn(usize, usize) -> u32) -> Vec<u32> {
        let mut out = Vec::new();
        for lane in 0..32 {
            let (g, q) = (lane / 4, lane % 4);
            let mut words = Self::pack(
                (0..self.counts.2).map(|i| (self.c)(g, q, i)).map(|(r, c)| d(r, c)),
                self.out_bytes,
            );
            words.resize(4, 0);
            out.extend(words);
        }
        out
    }
}

#[test]
fn exact_products_in_every_form() {
    for form in forms() {
        let got = form
            .rig(
                |row, column| (form.out)(Form::c_value(row, column)),
                |row, k| (form.a_code)(form.a_value(row, k)),
                |column, k| (form.b_code)(form.b_value(column, k)),
            )
            .out();
        let want = form.fragments(|row, column| {
            let sum: i32 = (0..form.depth).map(|k| form.a_value(row, k) * form.b_value(column, k)).sum();
            (form.out)(Form::c_value(row, column) + sum)
        });
        assert_eq!(got, want, "{}", form.opcode);
        assert!(form.rows == 16 || form.counts.2 == 2);
    }
}

fn form(opcode: &str) -> Form {
    forms().into_iter().find(|f| f.opcode == opcode).unwrap()
}

/// All rows of A and columns of B alike; D is then one number.
fn one(form: &Form, c: u32, a: &[u32], b: &[u32]) -> u32 {
    let at = |list: &[u32], k: usize| list.get(k).copied().unwrap_or(0);
    let out = form.rig(|_, _| c, |_, k| at(a, k), |_, k| at(b, k)).out();
    let got = if form.out_bytes == 2 { out[0] & 0xffff } else { out[0] };
    assert_eq!(out, form.fragments(|_, _| got));
    got
}

#[test]
fn sixteen_bit_terms_keep_25_bits_and_sums_are_cut() {
    let bf = form("m16n8k16.row.col.f32.bf16.bf16.f32");
    let power = |e: i32| ((127 + e) as u32) << 7;
    let unit = power(0);
    // Two halves of a last place add up to one, though each alone would be lost; quarters of it are kept too.
    assert_eq!(one(&bf, 0, &[unit, power(-12), power(-12)], &[unit, power(-12), power(-12)]), 0x3f80_0001);
    let quarters = [unit, power(-12), power(-12), power(-12), power(-12)];
    assert_eq!(one(&bf, 0, &quarters, &[unit, power(-13), power(-13), power(-13), power(-13)]), 0x3f80_0001);
    let eighths = [
        unit,
        power(-13),
        power(-13),
        power(-13),
        power(-13),
        power(-13),
        power(-13),
        power(-13),
        power(-13),
    ];
    assert_eq!(one(&bf, 0, &eighths, &eighths), 0x3f80_0000, "eight terms of 2^-26 are lost");
    // Three quarters of a last place are cut, not rounded.
    assert_eq!(one(&bf, 0, &quarters[..4], &[unit, power(-13), power(-13), power(-13)]), 0x3f80_0000);
    // A NaN and an infinity.
    assert_eq!(one(&bf, 0x7f80_0000, &[unit], &[unit]), 0x7f80_0000);
    assert_eq!(one(&bf, 0x7f80_0000, &[unit], &[0xff80]), 0x7fff_ffff);
}

#[test]
fn eight_bit_products_are_converted_and_c_is_added_last() {
    let fp8 = form("m16n8k32.row.col.f32.e4m3.e4m3.f32");
    let big = (2f32.powi(24)).to_bits();
    // 2^24 + 3 rounds to the nearest even number; a fused and cut sum would leave 2^24 + 2.
    assert_eq!(one(&fp8, big, &[e4m3(3)], &[e4m3(1)]), (2f32.powi(24) + 4.0).to_bits());
    // Products are summed from nothing, so small ones beside a large C survive together: 4 · 1/4 in each half.
    let quarter = 0x28;
    assert_eq!(one(&fp8, big, &[quarter; 32], &[e4m3(1); 32]), (2f32.powi(24) + 8.0).to_bits());
    let short = form("m16n8k16.row.col.f32.e4m3.e4m3.f32");
    assert_eq!(one(&short, big, &[e4m3(3)], &[e4m3(1)]), (2f32.powi(24) + 4.0).to_bits());
}

#[test]
fn half_accumulators_are_rounded_to_nearest() {
    let half = form("m16n8k16.row.col.f16.f16.f16.f16");
    // 2048 + 3 lies between 2050 and 2052.
    assert_eq!(one(&half, f16(2048), &[f16(3)], &[f16(1)]), f16(2052));
    assert_eq!(one(&half, f16(2048), &[f16(1)], &[f16(1)]), f16(2048));
    // One rounding for all of k: 1 + 1 + 1 is 3 before it meets 2048.
    assert_eq!(one(&half, f16(2048), &[f16(1); 3], &[f16(1); 3]), f16(2052));
    assert_eq!(one(&half, 0x7bff, &[0x7bff], &[f16(1)]), 0x7c00, "past the largest number lies infinity");
}

#[test]
fn tf32_ignores_thirteen_bits() {
    let tf32 = form("m16n8k8.row.col.f32.tf32.tf32.f32");
    assert_eq!(one(&tf32, 0, &[0x3f80_1fff], &[float(1)]), float(1));
    assert_eq!(one(&tf32, 0, &[0x3f80_2000], &[float(1)]), 0x3f80_2000);
    let short = form("m16n8k4.row.col.f32.tf32.tf32.f32");
    assert_eq!(one(&short, float(5), &[0xbf80_1fff; 4], &[float(2); 4]), float(-3));
}

#[test]
fn integers_wrap_or_saturate() {
    let wrap = form("m16n8k32.row.col.s32.s8.s8.s32");
    assert_eq!(one(&wrap, i32::MAX as u32, &[127], &[127]), (i32::MAX as u32).wrapping_add(16129));
    let saturate = Form { opcode: "m16n8k32.row.col.satfinite.s32.s8.s8.s32", ..wrap };
    assert_eq!(one(&saturate, i32::MAX as u32, &[127], &[127]), i32::MAX as u32);
    assert_eq!(one(&saturate, i32::MIN as u32, &[127], &[0x80]), i32::MIN as u32);
    assert_eq!(one(&saturate, 7, &[0x80; 32], &[0x80; 32]), 7 + 32 * 16384);
}

#[test]
fn undefined_elements_spoil_their_rows_and_columns() {
    let bf = form("m16n8k16.row.col.f32.bf16.bf16.f32");
    let plain = |row: usize, k: usize| bf16(bf.a_value(row, k));
    let rig = || bf.rig(|_, _| 0, plain, |column, k| bf16(bf.b_value(column, k)));
    // %r30 was never written: rows 8 to 15 depend on it, which are D's registers 2 and 3.
    let spoilt = || rig().edit("{%r0, %r1, %r2, %r3}", "{%r0, %r30, %r2, %r3}");
    let wrong = spoilt().fault("st.global.v4");
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
    let clean = spoilt()
        .edit("st.global.v4.u32 [%rd1], {%r20, %r21, %r22, %r23};", "st.global.v2.u32 [%rd1], {%r20, %r21};");
    assert!(clean.run().is_ok());
    let wrong = rig().edit("mma.sync", "setp.eq.u32 %p0, %t, 3;\n @%p0 exit;\n mma.sync").fault("mma.sync");
    assert!(matches!(wrong.kind, FaultKind::Divergence { wanted: u32::MAX, .. }), "{wrong}");
}

#[test]
fn movmatrix_transposes() {
    let element = |r: u32, c: u32| 100 * r + c;
    let fragment =
        |lane: u32| element(lane / 4, 2 * (lane % 4)) | element(lane / 4, 2 * (lane % 4) + 1) << 16;
    let out = rig("mad.wide.u32 %rd0, %t, 4, %b0;
        ld.global.u32 %r0, [%rd0];
        movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0;
        st.global.u32 [%at], %r1;")
    .numbers((0..32).map(fragment))
    .out();
    for lane in 0..32u32 {
        let (r, c) = (lane / 4, 2 * (lane % 4));
        assert_eq!(out[lane as usize], element(c, r) | element(c + 1, r) << 16, "lane {lane}");
    }
}

#[test]
fn what_hopper_lacks_is_refused_at_load() {
    for wrong in [
        "mma.sync.aligned.m16n8k16.col.col.f32.bf16.bf16.f32 {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%r8, %r9}, {%r0, %r1, %r2, %r3};",
        "mma.sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16 {%r0, %r1}, {%r4, %r5, %r6, %r7}, {%r8, %r9}, {%r0, %r1};",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.f16.f32 {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%r8, %r9}, {%r0, %r1, %r2, %r3};",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6}, {%r8, %r9}, {%r0, %r1, %r2, %r3};",
        "mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%r8, %r9}, {%r0, %r1, %r2, %r3};",
        "wmma.load.a.sync.aligned.row.m8n8k32.shared.s4 {%r0}, [smem], 32;",
    ] {
        let error = rig(wrong).illegal().load().unwrap_err();
        assert!(error.what.contains(wrong.split(' ').next().unwrap()), "{error}");
    }
}
