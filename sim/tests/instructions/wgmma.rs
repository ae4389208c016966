//! wgmma through PTX, against exact integer products and layouts from the ISA's tables.

use crate::rig::{Rig, rig, schedules};
use crate::tensor_copies::swizzled;
use narrowgauge_sim::tensor_map::Swizzle;
use narrowgauge_sim::{FaultKind, Fp8Accumulation, InFlight, Policy, Schedule};

/// An element type that holds −2 to 2, or 0 to 4 without a sign.
#[derive(Clone, Copy, PartialEq)]
struct Type {
    name: &'static str,
    bytes: usize,
    /// Codes of 0, 1 and 2; of integers there is no need.
    codes: [u32; 3],
}

const E4M3: Type = Type { name: "e4m3", bytes: 1, codes: [0, 0x38, 0x40] };
const E5M2: Type = Type { name: "e5m2", bytes: 1, codes: [0, 0x3c, 0x40] };
const BF16: Type = Type { name: "bf16", bytes: 2, codes: [0, 0x3f80, 0x4000] };
const F16: Type = Type { name: "f16", bytes: 2, codes: [0, 0x3c00, 0x4000] };
const TF32: Type = Type { name: "tf32", bytes: 4, codes: [0, 0x3f80_0000, 0x4000_0000] };
const S8: Type = Type { name: "s8", bytes: 1, codes: [0; 3] };
const U8: Type = Type { name: "u8", bytes: 1, codes: [0; 3] };

impl Type {
    fn is_integer(self) -> bool {
        self == S8 || self == U8
    }

    fn code(self, value: i32) -> u32 {
        if self.is_integer() {
            return value as u32 & 255;
        }
        let sign = if value < 0 { 1 << (8 * self.bytes - 1) } else { 0 };
        self.codes[value.unsigned_abs() as usize] | sign
    }

    /// Elements along k of one instruction.
    fn depth(self) -> usize {
        32 / self.bytes
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Layout {
    swizzle: Swizzle,
    mn_major: bool,
}

const K128: Layout = Layout { swizzle: Swizzle::B128, mn_major: false };

impl Layout {
    fn span(self) -> usize {
        match self.swizzle {
            Swizzle::None => 16,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        }
    }

    /// Bytes of a tile of `extent` rows and `steps` instructions along k, and the leading and stride byte offsets.
    fn strides(self, ty: Type, extent: usize, steps: usize) -> (usize, usize, usize) {
        let deep = steps * ty.depth();
        match (self.mn_major, self.swizzle) {
            // Eight rows of one span each; k runs along the span.
            (false, Swizzle::None) => {
                let column = extent * 16;
                (deep * ty.bytes / 16 * column, column, 128)
            }
            (false, _) => (extent * self.span(), 0, 8 * self.span()),
            // Eight k of one span each, then the next eight k, then the next span of rows.
            (true, Swizzle::None) => {
                let row = deep / 8 * 128;
                (extent / 8 * row, 128, row)
            }
            (true, _) => {
                let eight = 8 * self.span();
                let spans = (extent * ty.bytes).div_ceil(self.span());
                (spans * deep / 8 * eight, deep / 8 * eight, eight)
            }
        }
    }

    /// Where byte `b` of element (row, k) lies.
    fn place(self, ty: Type, extent: usize, steps: usize, row: usize, k: usize, b: usize) -> usize {
        let (_, leading, stride) = self.strides(ty, extent, steps);
        let span = self.span();
        let plain = match (self.mn_major, self.swizzle) {
            (false, Swizzle::None) => {
                let along = k * ty.bytes + b;
                row / 8 * stride + row % 8 * 16 + along / 16 * leading + along % 16
            }
            (false, _) => row / 8 * stride + row % 8 * span + k * ty.bytes + b,
            (true, Swizzle::None) => row / 8 * stride + row % 8 * ty.bytes + b + k % 8 * 16 + k / 8 * leading,
            (true, _) => {
                let along = row * ty.bytes + b;
                along / span * leading + along % span + k % 8 * span + k / 8 * stride
            }
        };
        swizzled(self.swizzle, plain)
    }

    /// Bytes that the start address moves by from one step along k to the next.
    fn advance(self, ty: Type, extent: usize, steps: usize) -> usize {
        let (_, leading, stride) = self.strides(ty, extent, steps);
        match (self.mn_major, self.swizzle) {
            (false, Swizzle::None) => 2 * leading,
            (false, _) => 32,
            (true, Swizzle::None) => 2 * leading,
            (true, _) => 2 * stride,
        }
    }

    /// The descriptor without its start address.
    fn descriptor(self, ty: Type, extent: usize, steps: usize) -> u64 {
        let (_, leading, stride) = self.strides(ty, extent, steps);
        let mode = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::B128 => 1,
            Swizzle::B64 => 2,
            Swizzle::B32 => 3,
        };
        (leading as u64 >> 4) << 16 | (stride as u64 >> 4) << 32 | mode << 62
    }
}

#[derive(Clone)]
struct Product {
    n: usize,
    a: Type,
    b: Type,
    /// None: A comes from registers.
    a_layout: Option<Layout>,
    b_layout: Layout,
    steps: usize,
    /// Add to accumulators of row + column rather than start afresh.
    accumulate: bool,
    signs: (i32, i32),
    /// Type of the accumulators.
    d: &'static str,
}

fn product(n: usize, a: Type, b: Type) -> Product {
    let (a_layout, b_layout, signs) = (Some(K128), K128, (1, 1));
    let d = if a.is_integer() { "s32" } else { "f32" };
    Product { n, a, b, a_layout, b_layout, steps: 2, accumulate: false, signs, d }
}

/// f16 of a small integer.
fn half(value: i32) -> u32 {
    if value == 0 {
        return 0;
    }
    let bits = (value as f32).to_bits();
    (bits >> 31) << 15 | ((bits >> 23 & 255) - 127 + 15) << 10 | (bits & 0x7f_ffff) >> 13
}

/// −2 to 2, without pattern.
fn value(row: usize, k: usize, salt: usize) -> i32 {
    let mixed = ((row * 131 + k) * 2 + salt) as u32;
    (mixed.wrapping_mul(0x9e37_79b1) >> 13) as i32 % 5 - 2
}

const B_AT: usize = 16384;

impl Product {
    fn a_value(&self, m: usize, k: usize) -> i32 {
        value(m, k, 0) + if self.a == U8 { 2 } else { 0 }
    }

    fn b_value(&self, n: usize, k: usize) -> i32 {
        value(n, k, 1) + if self.b == U8 { 2 } else { 0 }
    }

    fn image(&self) -> Vec<u8> {
        let deep = self.steps * self.a.depth();
        let mut out = vec![0; B_AT + 65536];
        let mut put = |ty: Type, at: usize, value: i32, b: usize| out[at] = ty.code(value).to_le_bytes()[b];
        for k in 0..deep {
            if let Some(layout) = self.a_layout {
                for m in 0..64 {
                    for b in 0..self.a.bytes {
                        put(self.a, layout.place(self.a, 64, self.steps, m, k, b), self.a_value(m, k), b);
                    }
                }
            }
            for n in 0..self.n {
                for b in 0..self.b.bytes {
                    let at = B_AT + self.b_layout.place(self.b, self.n, self.steps, n, k, b);
                    put(self.b, at, self.b_value(n, k), b);
                }
            }
        }
        out
    }

    /// A's registers: of each step, each thread's four. Lane l holds, of rows g = l / 4 and g + 8, the elements from
    /// position (4 bytes) · (l mod 4) on, and those 16 bytes further.
    fn fragments(&self) -> Vec<u32> {
        let mut out = Vec::new();
        let each = 4 / self.a.bytes;
        for step in 0..self.steps {
            for t in 0..128 {
                let (warp, g, q) = (t / 32, t % 32 / 4, t % 4);
                for (down, right) in [(0, 0), (8, 0), (0, 1), (8, 1)] {
                    let row = 16 * warp + g + down;
                    let first = step * self.a.depth() + each * q + right * 16 / self.a.bytes;
                    out.push((0..each).fold(0, |word, i| {
                        let code = self.a.code(self.a_value(row, first + i));
                        word | code << (8 * self.a.bytes * i)
                    }));
                }
            }
        }
        out
    }

    /// Accumulator registers of a thread.
    fn registers(&self) -> usize {
        if self.d == "f16" { self.n / 4 } else { self.n / 2 }
    }

    /// Every thread's accumulators, when element (row, column) is `f` of it.
    fn accumulators(&self, f: impl Fn(usize, usize) -> i32) -> Vec<u32> {
        let mut out = Vec::new();
        for t in 0..128 {
            let (warp, g, q) = (t / 32, t % 32 / 4, t % 4);
            for i in 0..self.registers() {
                out.push(match self.d {
                    "f16" => {
                        let (m, n) = (16 * warp + g + 8 * (i % 2), 8 * (i / 2) + 2 * q);
                        half(f(m, n)) | half(f(m, n + 1)) << 16
                    }
                    d => {
                        let (m, n) = (16 * warp + g + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * q + i % 2);
                        if d == "s32" { f(m, n) as u32 } else { (f(m, n) as f32).to_bits() }
                    }
                });
            }
        }
        out
    }

    /// What the accumulators hold before: row + column, or what nothing may read.
    fn before(&self) -> Vec<u32> {
        if self.accumulate {
            return self.accumulators(|m, n| (m + n) as i32);
        }
        vec![if self.d == "f16" { 0x7fff_7fff } else { 0x7fff_ffff }; 128 * self.registers()]
    }

    fn want(&self) -> Vec<u32> {
        let deep = self.steps * self.a.depth();
        self.accumulators(|m, n| {
            let sum: i32 = (0..deep).map(|k| self.a_value(m, k) * self.b_value(n, k)).sum();
            let start = if self.accumulate { (m + n) as i32 } else { 0 };
            start + self.signs.0 * self.signs.1 * sum
        })
    }

    fn instruction(&self, step: usize) -> String {
        let registers: Vec<String> = (0..self.registers()).map(|i| format!("%d{i}")).collect();
        let a = match self.a_layout {
            Some(_) => "%rd20".to_owned(),
            None => "{%r20, %r21, %r22, %r23}".to_owned(),
        };
        let scales =
            if self.a.is_integer() { String::new() } else { format!(", {}, {}", self.signs.0, self.signs.1) };
        let majors = match (self.a.bytes, self.a_layout) {
            (1 | 4, _) => String::new(),
            (_, None) => format!(", {}", u32::from(self.b_layout.mn_major)),
            (_, Some(a)) => format!(", {}, {}", u32::from(a.mn_major), u32::from(self.b_layout.mn_major)),
        };
        format!(
            "wgmma.mma_async.sync.aligned.m64n{}k{}.{}.{}.{} {{{}}}, {a}, %rd21, {}{scales}{majors};\n",
            self.n,
            self.a.depth(),
            self.d,
            self.a.name,
            self.b.name,
            registers.join(", "),
            if step == 0 && !self.accumulate { "%p8" } else { "%p9" }
        )
    }

    fn rig(&self) -> Rig {
        let bytes = B_AT + self.b_layout.strides(self.b, self.n, self.steps).0;
        assert!(self.a_layout.is_none_or(|a| a.strides(self.a, 64, self.steps).0 <= B_AT));
        let mut body = format!(
            ".reg .b32 %d<{}>;
            setp.ne.u32 %p8, %t, %t;
            setp.eq.u32 %p9, %t, %t;
            mov.u32 %r0, dyn;
            mul.lo.u32 %r1, %t, 4;
        COPY:
            cvt.u64.u32 %rd0, %r1;
            add.u64 %rd0, %rd0, %b0;
            ld.global.u32 %r2, [%rd0];
            add.u32 %r3, %r0, %r1;
            st.shared.u32 [%r3], %r2;
            add.u32 %r1, %r1, 512;
            setp.lt.u32 %p0, %r1, {bytes};
            @%p0 bra COPY;
            fence.proxy.async.shared::cta;
            bar.sync 0;
            and.b32 %r4, %r0, 0x3ffff;
            shr.u32 %r4, %r4, 4;
            cvt.u64.u32 %rd1, %r4;
            mad.wide.u32 %rd3, %t, {}, %b2;\n",
            self.registers(),
            4 * self.registers()
        );
        for i in 0..self.registers() {
            body += &format!("ld.global.b32 %d{i}, [%rd3+{}];\n", 4 * i);
        }
        // A's registers of both steps, before anything is issued.
        let from_registers = self.a_layout.is_none();
        body += "wgmma.fence.sync.aligned;\n";
        for step in 0..self.steps {
            if from_registers {
                if step > 0 {
                    // The registers are read by the step before.
                    body += "wgmma.commit_group.sync.aligned;\n wgmma.wait_group.sync.aligned 0;\n";
                }
                body += &format!(
                    "mad.wide.u32 %rd2, %t, 16, %b1;
                    ld.global.v4.u32 {{%r20, %r21, %r22, %r23}}, [%rd2+{}];
                    wgmma.fence.sync.aligned;\n",
                    step * 128 * 16
                );
            }
            if let Some(layout) = self.a_layout {
                let advance = step * layout.advance(self.a, 64, self.steps);
                body += &format!(
                    "or.b64 %rd20, %rd1, {:#x};\n add.u64 %rd20, %rd20, {};\n",
                    layout.descriptor(self.a, 64, self.steps),
                    advance / 16
                );
            }
            let advance = step * self.b_layout.advance(self.b, self.n, self.steps);
            body += &format!(
                "add.u64 %rd21, %rd1, {};\n or.b64 %rd21, %rd21, {:#x};\n",
                (B_AT + advance) / 16,
                self.b_layout.descriptor(self.b, self.n, self.steps)
            );
            body += &self.instruction(step);
        }
        body += "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n";
        body += &format!("mad.wide.u32 %rd2, %t, {}, %out;\n", 4 * self.registers());
        for i in 0..self.registers() {
            body += &format!("st.global.b32 [%rd2+{}], %d{i};\n", 4 * i);
        }
        rig(&body)
            .module(".extern .shared .align 1024 .b8 dyn[];")
            .dynamic(bytes as u32)
            .threads(128)
            .words(128 * self.registers())
            .buffer(self.image())
            .numbers(self.fragments())
            .numbers(self.before())
    }

    fn check(&self, what: &str) {
        for schedule in schedules().take(3) {
            assert_eq!(self.rig().schedule(schedule).out(), self.want(), "{what} under {schedule:?}");
        }
    }
}

#[test]
fn every_type_at_sampled_widths() {
    let eights = [(E4M3, E4M3), (E4M3, E5M2), (E5M2, E4M3), (E5M2, E5M2), (BF16, BF16), (F16, F16)];
    for (i, (a, b)) in eights.into_iter().enumerate() {
        for n in [8, 24, 64, 104, 192, 256].into_iter().skip(i % 2).step_by(2) {
            product(n, a, b).check(&format!("{}, {}, n {n}", a.name, b.name));
        }
    }
}

#[test]
fn every_width() {
    for n in (8..=256).step_by(8) {
        let product = Product { steps: 1, accumulate: n % 16 == 0, ..product(n, E4M3, E4M3) };
        assert_eq!(product.rig().out(), product.want(), "n {n}");
    }
}

#[test]
fn a_from_registers() {
    for ty in [E4M3, E5M2, BF16, F16] {
        for accumulate in [false, true] {
            let product = Product { a_layout: None, accumulate, ..product(48, ty, ty) };
            product.check(&format!("{} from registers", ty.name));
        }
    }
    let mn_major = Layout { mn_major: true, ..K128 };
    Product { a_layout: None, b_layout: mn_major, ..product(64, BF16, BF16) }
        .check("B as it lies, A from registers");
}

#[test]
fn rarer_types_and_accumulators() {
    for (a, b) in [(S8, S8), (S8, U8), (U8, S8), (U8, U8), (TF32, TF32)] {
        for (n, accumulate, a_layout) in [(16, true, Some(K128)), (48, false, None)] {
            let product = Product { accumulate, a_layout, ..product(n, a, b) };
            product.check(&format!("{}, {}, n {n}", a.name, b.name));
        }
    }
    for (a, b) in [(F16, F16), (E4M3, E4M3), (E4M3, E5M2), (E5M2, E4M3), (E5M2, E5M2)] {
        for (n, accumulate, a_layout) in [(8, true, Some(K128)), (72, false, Some(K128)), (24, true, None)] {
            let signs = if accumulate { (-1, 1) } else { (1, 1) };
            let product = Product { d: "f16", accumulate, a_layout, signs, ..product(n, a, b) };
            product.check(&format!("f16 sums of {}, {}, n {n}", a.name, b.name));
        }
    }
    let mn_major = Layout { mn_major: true, ..K128 };
    let transposed = product(64, F16, F16);
    Product { d: "f16", a_layout: Some(mn_major), b_layout: mn_major, ..transposed }
        .check("f16 sums, MN-major");
}

#[test]
fn integers_wrap_unless_they_saturate() {
    let product = Product { steps: 1, accumulate: true, ..product(8, U8, U8) };
    let near = vec![i32::MAX as u32; 512];
    let rig = product.rig().replace_buffer(2, near.iter().flat_map(|w| w.to_le_bytes()).collect());
    let sums = Product { accumulate: false, ..product.clone() }.want();
    let wrapped: Vec<u32> = sums.iter().map(|sum| sum.wrapping_add(i32::MAX as u32)).collect();
    assert_eq!(rig.out(), wrapped);
    assert_eq!(rig.edit(".s32.u8.u8", ".satfinite.s32.u8.u8").out(), near);
}

#[test]
fn undefined_operands_of_rarer_types() {
    for (a, b, d) in [(S8, U8, "s32"), (TF32, TF32, "f32"), (F16, F16, "f16"), (E4M3, E5M2, "f16")] {
        // The first row of B is missing: column 0 of D is undefined, column 1 is not.
        let product = Product { steps: 1, d, ..product(8, a, b) };
        let hole = product.rig().edit(
            "st.shared.u32 [%r3], %r2;",
            &format!(
                "sub.u32 %r9, %r1, {B_AT};\n setp.ge.u32 %p3, %r9, 32;\n @%p3 st.shared.u32 [%r3], %r2;"
            ),
        );
        let wrong = hole.fault("st.global.b32 [%rd2+0]");
        assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }) && wrong.lane == Some(0), "{wrong}");
        let kept = hole.edit("bar.sync 0;", "bar.sync 0;\n and.b32 %r9, %t, 3;\n setp.ne.u32 %p3, %r9, 0;");
        let kept = (0..product.registers()).fold(kept, |rig, i| {
            let store = format!("st.global.b32 [%rd2+{}], %d{i};", 4 * i);
            rig.edit(&store, &format!("@%p3 {store}"))
        });
        assert!(kept.run().is_ok(), "{}: columns 2 and up are whole", a.name);
    }
}

#[test]
fn every_layout() {
    for ty in [E4M3, BF16] {
        for swizzle in [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            // As many steps as lie in one span.
            let layout = Layout { swizzle, mn_major: false };
            let steps = (layout.span() / 32).max(1);
            let product = Product { a_layout: Some(layout), b_layout: layout, steps, ..product(40, ty, ty) };
            product.check(&format!("{} K-major, span {}", ty.name, layout.span()));
        }
    }
    for ty in [BF16, F16] {
        for a in [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            for (a_mn, b_mn) in [(true, false), (false, true), (true, true)] {
                let a_layout = Layout { swizzle: a, mn_major: a_mn };
                let b_layout = Layout { swizzle: a, mn_major: b_mn };
                // K-major operands need both steps in one span.
                let steps = if a == Swizzle::B32 { 1 } else { 2 };
                let product = Product {
                    a_layout: Some(a_layout),
                    b_layout,
                    steps,
                    accumulate: true,
                    ..product(128, ty, ty)
                };
                product.check(&format!("{} A {a_mn} B {b_mn} {a:?}", ty.name));
            }
        }
    }
    // Two different layouts.
    let b_layout = Layout { swizzle: Swizzle::B32, mn_major: true };
    Product { b_layout, ..product(48, BF16, BF16) }.check("A K-major in 128, B N-major in 32");
}

#[test]
fn scales() {
    for (a, b) in [(-1, 1), (1, -1), (-1, -1)] {
        for ty in [E4M3, BF16] {
            let negated = Product { signs: (a, b), accumulate: true, ..product(16, ty, ty) };
            negated.check(&format!("{} scaled by {a} and {b}", ty.name));
        }
    }
    // A constant scale-d is as good as a predicate.
    let plain = product(16, E4M3, E4M3);
    let constant =
        plain.rig().edit("%rd21, %p8, 1, 1;", "%rd21, 0, 1, 1;").edit("%rd21, %p9, 1, 1;", "%rd21, 1, 1, 1;");
    assert_eq!(constant.out(), plain.want());
}

#[test]
fn eight_bit_products_are_summed_as_the_hardware_does() {
    // 1 · 1 in k = 0 and 2^-6 · 2^-8 in another: under 2^-13 of the largest term, it is cut off, unless sums are exact.
    let image = || {
        let layout = K128;
        let mut out = vec![0u8; B_AT + 65536];
        for row in 0..64 {
            out[layout.place(E5M2, 64, 1, row, 0, 0)] = 0x3c;
            out[layout.place(E5M2, 64, 1, row, 1, 0)] = (15 - 6) << 2;
        }
        for row in 0..8 {
            out[B_AT + layout.place(E5M2, 8, 1, row, 0, 0)] = 0x3c;
            out[B_AT + layout.place(E5M2, 8, 1, row, 1, 0)] = (15 - 8) << 2;
        }
        out
    };
    let one = Product { steps: 1, ..product(8, E5M2, E5M2) }.rig().replace_buffer(0, image());
    assert_eq!(one.out(), vec![1f32.to_bits(); 512]);
    let exact = Schedule { fp8: Fp8Accumulation::ExactF32, ..Schedule::default() };
    assert_eq!(one.schedule(exact).out(), vec![(1.0 + 2f32.powi(-14)).to_bits(); 512]);
}

const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";

#[test]
fn accumulators_in_flight_may_not_be_touched() {
    for schedule in schedules() {
        let hasty = product(16, E4M3, E4M3).rig().edit(WAIT, "").schedule(schedule);
        let wrong = hasty.fault("st.global.b32 [%rd2+0]");
        assert!(matches!(wrong.kind, FaultKind::InFlight { ref register } if register == "%d0"), "{wrong}");
        // What an assembler makes of it: it waits, and says so.
        let compatible = Schedule { in_flight: InFlight::Compatible, ..schedule };
        let ran = hasty.schedule(compatible).run().unwrap();
        assert_eq!(ran.out, product(16, E4M3, E4M3).want());
        assert!(ran.report.warnings.iter().any(|w| w.contains("serialised")), "{:?}", ran.report.warnings);
    }
}

#[test]
fn registers_of_a_may_be_read_but_not_changed() {
    let from_registers = || Product { a_layout: None, steps: 1, ..product(8, BF16, BF16) };
    let touched = from_registers()
        .rig()
        .edit("wgmma.commit_group.sync.aligned;\n", "mov.u32 %r22, 0;\n wgmma.commit_group.sync.aligned;\n");
    let wrong = touched.fault("mov.u32 %r22, 0;");
    assert!(matches!(wrong.kind, FaultKind::InFlight { ref register } if register == "%r22"), "{wrong}");
    let read = from_registers().rig().edit(
        "wgmma.commit_group.sync.aligned;\n",
        "mov.u32 %r24, %r22;\n wgmma.commit_group.sync.aligned;\n",
    );
    assert_eq!(read.schedule(Schedule::with(Policy::Late, 0)).out(), from_registers().want());
}

/// Two groups on accumulators of their own: the first of `%d`, the second of `%e`.
fn two_groups(pending: u32, read: &str) -> Rig {
    let one = Product { steps: 1, ..product(8, E4M3, E4M3) };
    let second = one.instruction(0).replace("%d", "%e");
    one.rig()
        .edit(".reg .b32 %d<4>;", ".reg .b32 %d<4>;\n .reg .b32 %e<4>;\n mov.b32 %e0, %e1;")
        .edit(
            "wgmma.commit_group.sync.aligned;\n",
            &format!("wgmma.commit_group.sync.aligned;\n{second}wgmma.commit_group.sync.aligned;\n"),
        )
        .edit(WAIT, &format!(
                "wgmma.wait_group.sync.aligned {pending};\n mov.b32 %d3, {read};\n wgmma.wait_group.sync.aligned 0;"
            ))
}

#[test]
fn a_wait_leaves_the_newest_groups_in_flight() {
    for schedule in schedules() {
        assert!(two_groups(1, "%d2").schedule(schedule).run().is_ok());
        assert!(two_groups(0, "%e2").schedule(schedule).run().is_ok());
        let wrong = two_groups(1, "%e2").schedule(schedule).fault("mov.b32 %d3, %");
        assert!(matches!(wrong.kind, FaultKind::InFlight { ref register } if register == "%e2"), "{wrong}");
        let wrong = two_groups(2, "%d2").schedule(schedule).fault("mov.b32 %d3, %");
        assert!(matches!(wrong.kind, FaultKind::InFlight { .. }), "{wrong}");
    }
}

#[test]
fn operands_overwritten_too_early_show_when_completion_is_late() {
    let early = product(8, E4M3, E4M3).rig().edit(
        "wgmma.commit_group.sync.aligned;\n",
        "wgmma.commit_group.sync.aligned;\n mov.u32 %r30, 0;\n add.u32 %r31, %r0, 0;\n st.shared.v4.u32 [%r31], {%r30, %r30, %r30, %r30};\n",
    );
    let want = product(8, E4M3, E4M3).want();
    assert_eq!(early.clone().racing().out(), want, "eager completion hides it");
    assert_ne!(early.schedule(Schedule::with(Policy::Late, 0)).racing().out(), want);
}

#[test]
fn warpgroups_act_as_one() {
    let rig_of = || product(8, E4M3, E4M3).rig();
    let split = rig_of().edit(
        "and.b32 %r4, %r0, 0x3ffff;",
        "shr.u32 %r9, %t, 5;\n shl.b32 %r9, %r9, 10;\n add.u32 %r4, %r0, %r9;",
    );
    let wrong = split.run().unwrap_err();
    assert!(
        matches!(wrong.kind, FaultKind::Descriptor(ref what) if what.contains("different wgmma")),
        "{wrong}"
    );
    let lanes = rig_of().edit(
        "and.b32 %r4, %r0, 0x3ffff;",
        "and.b32 %r9, %t, 1;\n shl.b32 %r9, %r9, 10;\n add.u32 %r4, %r0, %r9;",
    );
    let wrong = lanes.run().unwrap_err();
    assert!(matches!(wrong.kind, FaultKind::Descriptor(ref what) if what.contains("lanes")), "{wrong}");
    let wrong = rig_of().threads(64).run().unwrap_err();
    assert!(wrong.to_string().contains("whole warpgroup"), "{wrong}");
    let diverged = rig_of().edit(
        "wgmma.fence.sync.aligned;\n",
        "setp.eq.u32 %p1, %t, 77;\n @%p1 exit;\n wgmma.fence.sync.aligned;\n",
    );
    assert!(matches!(diverged.run().unwrap_err().kind, FaultKind::Divergence { .. }));
}

#[test]
fn undefined_operands_make_undefined_products() {
    let wrong = product(8, E4M3, E4M3).rig().edit("st.shared.u32 [%r3], %r2;", "").run().unwrap_err();
    assert!(
        matches!(wrong.kind, FaultKind::Uninitialised { used_as: "a value stored to global memory" }),
        "{wrong}"
    );
    // scale-d true reads the accumulators; false does not.
    let fresh = product(8, E4M3, E4M3).rig().edit("ld.global.b32 %d0, [%rd3+0];\n", "");
    assert_eq!(fresh.out(), product(8, E4M3, E4M3).want());
    let wrong = product(8, E4M3, E4M3)
        .rig()
        .edit("ld.global.b32 %d0, [%rd3+0];\n", "")
        .edit("%rd21, %p8,", "%rd21, %p9,");
    assert!(matches!(wrong.run().unwrap_err().kind, FaultKind::Uninitialised { .. }));
}

#[test]
fn illegal_forms_are_named_at_load() {
    let good = product(8, E4M3, E4M3).rig().text();
    assert!(narrowgauge_sim::Module::parse(&good).is_ok());
    for (from, to) in [
        ("m64n8k32", "m64n12k32"),
        ("m64n8k32", "m64n8k16"),
        ("m64n8k32", "m64n264k32"),
        (".f32.e4m3.e4m3", ".f32.e4m3.bf16"),
        ("{%d0, %d1, %d2, %d3}", "{%d0, %d1, %d2}"),
        (", 1, 1;", ", 1, 1, 0, 1;"),
        (", 1, 1;", ", 2, 1;"),
        ("k32.f32", "k32.satfinite.f32"),
    ] {
        assert!(good.contains(from));
        assert!(narrowgauge_sim::Module::parse(&good.replace(from, to)).is_err(), "{to}");
    }
}
