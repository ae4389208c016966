//! `wmma` and f64 `mma.sync`: small integers, whose products are exact in every order.

use crate::rig::{Rig, rig};
use narrowgauge_sim::FaultKind;

fn value(line: usize, k: usize, salt: usize) -> i32 {
    (line * 7 + k * 3 + salt) as i32 % 9 - 4
}

fn code(ty: &str, x: i32) -> Vec<u8> {
    let float = (x as f32).to_bits();
    match ty {
        "f16" if x == 0 => vec![0, 0],
        // The exponent moves from a bias of 127 to one of 15.
        "f16" => {
            let size = ((float & 0x7fff_ffff) >> 13) - (112 << 10);
            (size as u16 | (float >> 16) as u16 & 0x8000).to_le_bytes().to_vec()
        }
        "bf16" => ((float >> 16) as u16).to_le_bytes().to_vec(),
        "s8" => vec![x as u8],
        "u8" => vec![x as u8],
        "s32" => x.to_le_bytes().to_vec(),
        _ => float.to_le_bytes().to_vec(),
    }
}

/// A matrix in memory, `pad` elements behind each line.
fn matrix(
    ty: &str,
    (rows, columns): (usize, usize),
    by_rows: bool,
    pad: usize,
    f: impl Fn(usize, usize) -> i32,
) -> Vec<u8> {
    let (lines, along) = if by_rows { (rows, columns) } else { (columns, rows) };
    let element = |line, at| {
        let (r, c) = if by_rows { (line, at) } else { (at, line) };
        if at < along { f(r, c) } else { 0 }
    };
    let places = (0..lines).flat_map(|line| (0..along + pad).map(move |at| (line, at)));
    places.flat_map(|(line, at)| code(ty, element(line, at))).collect()
}

fn list(prefix: &str, from: usize, count: usize) -> String {
    let names: Vec<String> = (from..from + count).map(|i| format!("{prefix}{i}")).collect();
    format!("{{{}}}", names.join(", "))
}

struct Form {
    size: [usize; 3],
    element: &'static str,
    from: &'static str,
    to: &'static str,
    /// Registers of A, B, C and D.
    registers: [usize; 4],
}

const fn form(
    size: [usize; 3],
    element: &'static str,
    from: &'static str,
    to: &'static str,
    registers: [usize; 4],
) -> Form {
    Form { size, element, from, to, registers }
}

const FORMS: [Form; 12] = [
    form([16, 16, 16], "f16", "f32", "f32", [8, 8, 8, 8]),
    form([16, 16, 16], "f16", "f16", "f16", [8, 8, 4, 4]),
    form([16, 16, 16], "f16", "f16", "f32", [8, 8, 4, 8]),
    form([32, 8, 16], "f16", "f32", "f16", [8, 8, 8, 4]),
    form([8, 32, 16], "f16", "f32", "f32", [8, 8, 8, 8]),
    form([16, 16, 16], "bf16", "f32", "f32", [4, 4, 8, 8]),
    form([32, 8, 16], "bf16", "f32", "f32", [8, 2, 8, 8]),
    form([8, 32, 16], "bf16", "f32", "f32", [2, 8, 8, 8]),
    form([16, 16, 8], "tf32", "f32", "f32", [4, 4, 8, 8]),
    form([16, 16, 16], "s8", "s32", "s32", [2, 2, 8, 8]),
    form([32, 8, 16], "s8", "s32", "s32", [4, 1, 8, 8]),
    form([8, 32, 16], "s8", "s32", "s32", [1, 4, 8, 8]),
];

impl Form {
    fn name(&self) -> String {
        let [m, n, k] = self.size;
        format!("m{m}n{n}k{k}")
    }

    fn rig(&self, layouts: [bool; 3]) -> Rig {
        let ([m, n, k], [a, b, c, d]) = (self.size, self.registers);
        let name = self.name();
        let lay = |rows: bool| if rows { "row" } else { "col" };
        let line = |rows: bool, (r, c): (usize, usize), pad: usize| if rows { c + pad } else { r + pad };
        let (la, lb, lc) = (lay(layouts[0]), lay(layouts[1]), lay(layouts[2]));
        let types = if self.element == "f16" {
            format!("{}.{}", self.to, self.from)
        } else {
            format!("{}.{}.{}.{}", self.to, self.element, self.element, self.from)
        };
        let (ra, rb, rc, rd) = (list("%r", 0, a), list("%r", 8, b), list("%r", 16, c), list("%r", 24, d));
        let bytes = if self.to == "f16" { 2 } else { 4 };
        rig(&format!(
            "wmma.load.a.sync.aligned.{la}.{name}.global.{e} {ra}, [%b0], {sa};
            wmma.load.b.sync.aligned.{lb}.{name}.{e} {rb}, [%b1], {sb};
            wmma.load.c.sync.aligned.{lc}.{name}.global.{from} {rc}, [%b2];
            wmma.mma.sync.aligned.{la}.{lb}.{name}.{types} {rd}, {ra}, {rb}, {rc};
            mov.u32 %r40, smem;
            wmma.store.d.sync.aligned.row.{name}.shared.{to} [%r40], {rd}, {n};
            bar.warp.sync -1;
            mov.u32 %r41, %t;
        NEXT:
            mad.lo.u32 %r42, %r41, 4, %r40;
            ld.shared.b32 %r43, [%r42];
            mad.wide.u32 %rd1, %r41, 4, %out;
            st.global.b32 [%rd1], %r43;
            add.u32 %r41, %r41, 32;
            setp.lt.u32 %p0, %r41, {words};
            @%p0 bra NEXT;",
            e = self.element,
            from = self.from,
            to = self.to,
            sa = line(layouts[0], (m, k), 16),
            sb = line(layouts[1], (k, n), 32),
            words = m * n * bytes / 4,
        ))
        .words(m * n * bytes / 4)
        .buffer(matrix(self.element, (m, k), layouts[0], 16, |r, c| value(r, c, 1)))
        .buffer(matrix(self.element, (k, n), layouts[1], 32, |r, c| value(c, r, 5)))
        .buffer(matrix(self.from, (m, n), layouts[2], 0, |r, c| value(r, c, 2)))
    }

    fn want(&self) -> Vec<u32> {
        let [m, n, k] = self.size;
        let sum = |r: usize, c: usize| {
            (0..k).map(|i| value(r, i, 1) * value(c, i, 5)).sum::<i32>() + value(r, c, 2)
        };
        let bytes = matrix(self.to, (m, n), true, 0, sum);
        bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect()
    }
}

#[test]
fn fragments_of_every_form_and_layout() {
    for form in FORMS {
        for layouts in [[true, false, true], [false, true, true], [true, true, false]] {
            let (name, element) = (form.name(), form.element);
            assert_eq!(form.rig(layouts).out(), form.want(), "{name} {element} {layouts:?}");
        }
    }
}

#[test]
fn fragments_are_checked() {
    let form = &FORMS[0];
    let rows = [true, true, true];
    let short = form.rig(rows).replace_buffer(0, vec![0; 64]).fault("wmma.load.a");
    assert!(matches!(short.kind, FaultKind::OutOfBounds { .. }), "{short}");
    let skew = form.rig(rows).edit("[%b2]", "[%b2+4]").fault("wmma.load.c");
    assert!(matches!(skew.kind, FaultKind::Misaligned { .. }), "{skew}");
    let unset = form.rig(rows).edit(
        "{%r24, %r25, %r26, %r27, %r28, %r29, %r30, %r31}, {%r0,",
        "{%r24, %r25, %r26, %r27, %r28, %r29, %r30, %r31}, {%r50,",
    );
    assert!(matches!(unset.fault("st.global.b32").kind, FaultKind::Uninitialised { .. }));
}

/// Lane 4g + q: rows g of A and columns g of B, k = q, q + 4 …; sums in columns 2q and 2q + 1.
#[test]
fn products_of_doubles() {
    for (rows, depth) in [(8, 4), (16, 4), (16, 8), (16, 16)] {
        let (a, b, c) = (rows / 8 * depth / 4, depth / 4, rows / 4);
        let names =
            |prefix: &str, count: usize| (0..count).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>();
        let (na, nb, nc) = (names("da", a), names("db", b), names("dc", c));
        let join = |n: &[String]| format!("{{{}}}", n.join(", "));
        let mut loads = String::new();
        for (buffer, list) in [(0, &na), (1, &nb), (2, &nc)] {
            for (i, name) in list.iter().enumerate() {
                let at = 8 * i;
                loads += &format!(
                    ".reg .f64 {name}; mad.wide.u32 %rd0, %t, {}, %b{buffer}; ld.global.f64 {name}, [%rd0+{at}];\n",
                    8 * list.len()
                );
            }
        }
        let stores: String =
            nc.iter().enumerate().map(|(i, n)| format!("st.global.f64 [%rd1+{}], {n};\n", 8 * i)).collect();
        let body = format!(
            "{loads} mma.sync.aligned.m{rows}n8k{depth}.row.col.f64.f64.f64.f64 {}, {}, {}, {};
            mad.wide.u32 %rd1, %t, {}, %out;
            {stores}",
            join(&nc),
            join(&na),
            join(&nb),
            join(&nc),
            8 * c
        );
        let halves = rows / 8;
        let doubles = |count: usize, f: &dyn Fn(usize, usize) -> i32| -> Vec<u8> {
            (0..32 * count).flat_map(|i| f64::from(f(i / count, i % count)).to_le_bytes()).collect()
        };
        let sum_at = |lane: usize, i: usize| (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
        let out = rig(&body)
            .words(64 * c)
            .buffer(doubles(a, &|l, i| value(l / 4 + 8 * (i % halves), l % 4 + 4 * (i / halves), 1)))
            .buffer(doubles(b, &|l, i| value(l / 4, l % 4 + 4 * i, 5)))
            .buffer(doubles(c, &|l, i| value(sum_at(l, i).0, sum_at(l, i).1, 2)))
            .out();
        let want: Vec<u32> = doubles(c, &|l, i| {
            let (r, s) = sum_at(l, i);
            (0..depth).map(|k| value(r, k, 1) * value(s, k, 5)).sum::<i32>() + value(r, s, 2)
        })
        .chunks_exact(4)
        .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
        .collect();
        assert_eq!(out, want, "m{rows}n8k{depth}");
    }
}
