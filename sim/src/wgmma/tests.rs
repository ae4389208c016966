use super::*;
use crate::numeric::{bf16_from_f32, e4m3_from_f32, e5m2_from_f32, f16_from_f32};

const BASE: u32 = 1152;
const LEN: usize = 224 * 1024;

fn small(seed: usize, row: usize, k: usize) -> i32 {
    ((row * 37 + k * 11 + seed * 5 + row * k) % 9) as i32 - 4
}

fn code(format: Format, value: i32) -> Vec<u8> {
    let value = value as f32;
    match format {
        Format::E4m3 => vec![e4m3_from_f32(value)],
        Format::E5m2 => vec![e5m2_from_f32(value)],
        Format::Bf16 => bf16_from_f32(value).to_le_bytes().to_vec(),
        Format::F16 => f16_from_f32(value).to_le_bytes().to_vec(),
    }
}

/// A tile in shared memory, written element by element from the layout tables.
struct Tile {
    format: Format,
    span: u32,
    mn_major: bool,
    start: u32,
    leading: u32,
    stride: u32,
}

impl Tile {
    /// Dense strides for `rows` rows and `depth` elements along k; `padding` patterns between neighbours.
    fn new(
        format: Format,
        span: u32,
        mn_major: bool,
        start: u32,
        rows: usize,
        depth: usize,
        padding: u32,
    ) -> Self {
        let pattern = 8 * span.max(16) * (1 + padding);
        let (leading, stride) = match (mn_major, span) {
            (false, 0) => (pattern * rows as u32 / 8, pattern),
            (false, _) => (0, pattern),
            (true, 0) => (pattern * rows as u32 / 8, pattern),
            (true, _) => (pattern * depth as u32 / 8, pattern),
        };
        Tile { format, span, mn_major, start, leading, stride }
    }

    /// Byte address of element (r, k).
    fn address(&self, r: usize, k: usize) -> u32 {
        let size = self.format.bytes() as u32;
        let (r, k) = (r as u32, k as u32);
        let plain = match (self.mn_major, self.span) {
            (false, 0) => {
                (r / 8) * self.stride + (r % 8) * 16 + (k * size / 16) * self.leading + k * size % 16
            }
            (false, span) => {
                assert!(k * size < span);
                (r / 8) * self.stride + (r % 8) * span + k * size
            }
            (true, 0) => {
                let t = 16 / size;
                (r / t) * self.stride + (r % t) * size + (k % 8) * 16 + (k / 8) * self.leading
            }
            (true, span) => {
                let bytes = r * size;
                (bytes / span) * self.leading + bytes % span + (k % 8) * span + (k / 8) * self.stride
            }
        } + self.start;
        match self.span {
            0 => plain,
            span => plain ^ (((plain % (8 * span)) >> 7) << 4),
        }
    }

    fn fill(&self, shared: &mut [u8], rows: usize, depth: usize, seed: usize) {
        for r in 0..rows {
            for k in 0..depth {
                let at = (self.address(r, k) - BASE) as usize;
                let code = code(self.format, small(seed, r, k));
                assert!(shared[at..at + code.len()].iter().all(|byte| *byte == 0xff), "overlap in the test");
                shared[at..at + code.len()].copy_from_slice(&code);
            }
        }
    }

    /// The descriptor of step `step`.
    fn descriptor(&self, step: usize) -> u64 {
        let advance = match (self.mn_major, self.span) {
            (false, 0) => 2 * self.leading,
            (false, _) => 32,
            (true, 0) => 2 * self.leading,
            (true, _) => 2 * self.stride,
        } * step as u32;
        let mode: u64 = match self.span {
            0 => 0,
            128 => 1,
            64 => 2,
            _ => 3,
        };
        let field = |bytes: u32| u64::from((bytes & 0x3ffff) >> 4);
        field(self.start + advance) | field(self.leading) << 16 | field(self.stride) << 32 | mode << 62
    }

    fn check_ranges(&self, shape: &Shape, which: Which, rows: usize, step: usize) {
        let depth = shape.kind.depth();
        let mut want = vec![false; LEN];
        for r in 0..rows {
            for k in step * depth..(step + 1) * depth {
                let at = (self.address(r, k) - BASE) as usize;
                want[at..at + self.format.bytes()].fill(true);
            }
        }
        let ranges = operand_ranges(shape, which, self.descriptor(step), BASE, LEN).unwrap();
        assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "not coalesced");
        let mut got = vec![false; LEN];
        for range in ranges {
            got[range.start as usize..range.end as usize].fill(true);
        }
        assert!(got == want);
    }
}

fn shape(n: usize, kind: Kind) -> Shape {
    Shape { n, kind, trans_a: false, trans_b: false, negate_a: false, negate_b: false, a_in_registers: false }
}

fn execute_flat(shape: &Shape, d: &mut [Vec<Row>], a: Operand<'_>, b: u64, scale: bool, shared: &[u8]) {
    let [d0, d1, d2, d3] = d else { unreachable!() };
    execute(shape, [d0, d1, d2, d3], a, b, scale, shared, BASE, Fp8Mode::Hopper).unwrap();
}

/// Runs all steps of a tile pair and compares with an integer product.
fn check(shape: &Shape, a_span: u32, b_span: u32, steps: usize, padding: u32) {
    let (a_format, b_format) = shape.kind.formats().unwrap();
    let depth = shape.kind.depth() * steps;
    let mut shared = vec![0xffu8; LEN];
    let a = Tile::new(a_format, a_span, shape.trans_a, 2048, 64, depth, padding);
    let b = Tile::new(b_format, b_span, shape.trans_b, 2048 + 96 * 1024, shape.n, depth, padding);
    a.fill(&mut shared, 64, depth, 1);
    b.fill(&mut shared, shape.n, depth, 2);
    let mut d = vec![vec![[0x7fff_ffffu32; 32]; shape.n / 2]; 4];
    for step in 0..steps {
        // Register fragments from the table: four elements of 8 bits or two of 16 a register.
        let size = a_format.bytes();
        let registers: [[Row; 4]; 4] = std::array::from_fn(|warp| {
            std::array::from_fn(|register| {
                std::array::from_fn(|lane| {
                    let per = 4 / size;
                    let row = 16 * warp + (lane >> 2) + if register & 1 == 1 { 8 } else { 0 };
                    let column = per * (lane & 3) + if register >= 2 { 4 * per } else { 0 };
                    let bytes: Vec<u8> = (0..per)
                        .flat_map(|i| code(a_format, small(1, row, step * shape.kind.depth() + column + i)))
                        .collect();
                    u32::from_le_bytes(bytes.try_into().unwrap())
                })
            })
        });
        let operand = if shape.a_in_registers {
            Operand::Registers(&registers)
        } else {
            a.check_ranges(shape, Which::A, 64, step);
            Operand::Descriptor(a.descriptor(step))
        };
        b.check_ranges(shape, Which::B, shape.n, step);
        execute_flat(shape, &mut d, operand, b.descriptor(step), step > 0, &shared);
    }
    let sign = if shape.negate_a != shape.negate_b { -1 } else { 1 };
    for (warp, fragment) in d.iter().enumerate() {
        for (i, register) in fragment.iter().enumerate() {
            for (lane, bits) in register.iter().enumerate() {
                let row = 16 * warp + (lane >> 2) + 8 * ((i >> 1) & 1);
                let column = 8 * (i >> 2) + 2 * (lane & 3) + (i & 1);
                let want: i32 = (0..depth).map(|k| small(1, row, k) * small(2, column, k)).sum();
                assert_eq!(f32::from_bits(*bits), (sign * want) as f32, "{shape:?} ({row}, {column})");
            }
        }
    }
}

#[test]
fn k_major_through_every_swizzle() {
    for kind in [Kind::E4m3E4m3, Kind::E5m2E4m3, Kind::Bf16, Kind::F16] {
        for span in [0, 32, 64, 128] {
            let steps = if span == 0 { 2 } else { span as usize / 32 };
            for n in [8, 24, 64, 136] {
                check(&shape(n, kind), span, span, steps, u32::from(n == 24));
            }
        }
    }
    check(&shape(256, Kind::E4m3E4m3), 128, 64, 2, 0);
    check(&shape(256, Kind::Bf16), 32, 128, 1, 0);
}

#[test]
fn mn_major_through_every_swizzle() {
    for kind in [Kind::Bf16, Kind::F16] {
        for span in [0, 32, 64, 128] {
            let whole = (span as usize / 2).max(8);
            for n in [whole, 2 * whole, 256] {
                for (trans_a, trans_b) in [(false, true), (true, false), (true, true)] {
                    let shape = Shape { trans_a, trans_b, ..shape(n, kind) };
                    let k_span = if trans_a && trans_b { span } else { 128 };
                    let (a, b) = if trans_a { (span, k_span) } else { (k_span, span) };
                    check(&shape, a, b, 2, u32::from(n == whole));
                }
            }
        }
    }
    // N smaller than one span.
    check(&Shape { trans_b: true, ..shape(40, Kind::Bf16) }, 128, 128, 2, 0);
}

#[test]
fn every_n() {
    for n in (8..=256).step_by(8) {
        check(&Shape { negate_b: true, ..shape(n, Kind::E4m3E5m2) }, 128, 128, 1, 0);
    }
}

#[test]
fn a_from_registers_and_signs() {
    for kind in [Kind::E4m3E4m3, Kind::E5m2E5m2, Kind::Bf16, Kind::F16] {
        for (negate_a, negate_b) in [(false, false), (true, false), (true, true)] {
            let shape = Shape { a_in_registers: true, negate_a, negate_b, ..shape(64, kind) };
            check(&shape, 128, 128, 4, 0);
        }
    }
}

/// The wider pattern (LBO and SBO far apart) with gaps between, filled with NaN.
#[test]
fn padded_strides() {
    for span in [32, 64, 128] {
        check(&shape(48, Kind::E4m3E4m3), span, span, 1, 1);
        check(&Shape { trans_b: true, ..shape(128, Kind::Bf16) }, span, span, 1, 1);
    }
}

#[test]
fn exact_mode_keeps_what_hopper_drops() {
    let mut shared = vec![0u8; 16 * 1024];
    // A is all ones; B's column is 1, then 2^-9 (the smallest e4m3) everywhere else. No swizzle.
    shared[..2048].fill(0x38);
    for n in 0..8usize {
        for k in 0..32usize {
            shared[2048 + k / 16 * 128 + n * 16 + k % 16] = if k == 0 { 0x7e } else { 1 };
        }
    }
    let layout = |start: u64, leading: u64| (start >> 4) | (leading >> 4) << 16 | (128u64 >> 4) << 32;
    let run = |mode| {
        let mut d: [[Row; 4]; 4] = [[[0; 32]; 4]; 4];
        let [d0, d1, d2, d3] = &mut d;
        let shape = shape(8, Kind::E4m3E4m3);
        let a = Operand::Descriptor(layout(1024, 1024));
        execute(&shape, [d0, d1, d2, d3], a, layout(3072, 128), false, &shared, 1024, mode).unwrap();
        f32::from_bits(d[1][2][7])
    };
    assert_eq!(run(Fp8Mode::Hopper), 448.0);
    assert_eq!(run(Fp8Mode::ExactF32), 448.0 + 31.0 / 512.0);
}

#[test]
fn illegal_descriptors_say_why() {
    let tile = Tile::new(Format::Bf16, 128, false, 2048, 64, 64, 0);
    let good = tile.descriptor(0);
    let n64 = shape(64, Kind::Bf16);
    let error =
        |shape: &Shape, descriptor| operand_ranges(shape, Which::B, descriptor, BASE, LEN).unwrap_err();
    assert!(operand_ranges(&n64, Which::B, good, BASE, LEN).is_ok());
    assert!(error(&n64, good | 1 << 14).contains("reserved"));
    assert!(error(&n64, good | 1 << 53).contains("reserved"));
    assert!(error(&n64, good + 8).contains("boundary"));
    assert!(error(&n64, good | 3 << 49).contains("base offset 3"));
    assert!(error(&n64, good + 7).contains("no room"));
    assert!(error(&n64, good + (1 << 32)).contains("stride byte offset"));
    assert!(error(&n64, good & !0x3fff).contains("outside"));
    assert!(error(&n64, good | 0x3f00).contains("outside"));
    assert!(error(&Shape { trans_b: true, ..shape(64, Kind::E4m3E4m3) }, good).contains("K-major"));
    assert!(error(&shape(12, Kind::Bf16), good).contains("multiple of 8"));
    // A pattern that starts 3 rows into an aligned kilobyte, and says so.
    let shifted = good + ((3 * 128) >> 4);
    assert!(operand_ranges(&n64, Which::B, shifted | 3 << 49, BASE, LEN).is_ok());
    assert!(error(&n64, shifted | 2 << 49).contains("row 3"));
}
