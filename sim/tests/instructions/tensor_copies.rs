//! Tensor copies (TMA): every rank, element size, swizzle and overhang, byte by byte from the definitions.

use crate::rig::{Rig, rig, schedules};
use narrowgauge_sim::tensor_map::{Element, Swizzle, TensorMap};
use narrowgauge_sim::{FaultKind, Policy, Schedule};

/// The swizzle modes as the ISA tabulates them: where the eight 16-byte chunks of a 128-byte row go, row by row.
const SWIZZLE_32: [[u32; 8]; 2] = [[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6]];
const SWIZZLE_64: [[u32; 8]; 4] =
    [[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6], [2, 3, 0, 1, 6, 7, 4, 5], [3, 2, 1, 0, 7, 6, 5, 4]];
const SWIZZLE_128: [[u32; 8]; 8] = [
    [0, 1, 2, 3, 4, 5, 6, 7],
    [1, 0, 3, 2, 5, 4, 7, 6],
    [2, 3, 0, 1, 6, 7, 4, 5],
    [3, 2, 1, 0, 7, 6, 5, 4],
    [4, 5, 6, 7, 0, 1, 2, 3],
    [5, 4, 7, 6, 1, 0, 3, 2],
    [6, 7, 4, 5, 2, 3, 0, 1],
    [7, 6, 5, 4, 3, 2, 1, 0],
];

/// Where byte `at` of a packed box lies, the box being at a multiple of 1024.
pub fn swizzled(swizzle: Swizzle, at: usize) -> usize {
    let (row, chunk) = (at / 128, at % 128 / 16);
    let chunk = match swizzle {
        Swizzle::None => return at,
        Swizzle::B32 => SWIZZLE_32[row % 2][chunk],
        Swizzle::B64 => SWIZZLE_64[row % 4][chunk],
        Swizzle::B128 => SWIZZLE_128[row % 8][chunk],
    };
    row * 128 + 16 * chunk as usize + at % 16
}

#[derive(Clone)]
struct Case {
    element: Element,
    extents: Vec<u64>,
    strides: Vec<u64>,
    tile: Vec<u32>,
    steps: Vec<u32>,
    swizzle: Swizzle,
    nan: bool,
    at: Vec<i32>,
}

const BUFFER: usize = 1 << 15;

fn byte(at: usize) -> u8 {
    (at as u32).wrapping_mul(0x9e37_79b1).to_be_bytes()[0] | 1
}

fn content() -> Vec<u8> {
    (0..BUFFER).map(byte).collect()
}

impl Case {
    fn map(&self) -> impl Fn(&[u64]) -> TensorMap + 'static {
        let case = self.clone();
        move |buffers| TensorMap {
            element: case.element,
            address: buffers[0],
            extents: case.extents.clone(),
            strides: case.strides.clone(),
            tile: case.tile.clone(),
            element_strides: case.steps.clone(),
            swizzle: case.swizzle,
            nan_fill: case.nan,
        }
    }

    fn size(&self) -> usize {
        self.element.bytes() as usize
    }

    /// For each element of the box in its order: offset in the buffer, or none outside the tensor.
    fn elements(&self) -> Vec<Option<usize>> {
        let rank = self.extents.len();
        let counts: Vec<u32> = (0..rank)
            .map(|d| if d == 0 { self.tile[0] } else { self.tile[d].div_ceil(self.steps[d]) })
            .collect();
        let total: u32 = counts.iter().product();
        (0..total)
            .map(|mut index| {
                let mut offset = Some(0i64);
                for (d, &count) in counts.iter().enumerate() {
                    let i = index % count;
                    index /= count;
                    let step = if d == 0 { 1 } else { self.steps[d] };
                    let position = i64::from(self.at[d]) + i64::from(i * step);
                    let stride = if d == 0 { self.size() as i64 } else { self.strides[d - 1] as i64 };
                    let inside = position >= 0 && position < self.extents[d] as i64;
                    offset = offset.filter(|_| inside).map(|o| o + position * stride);
                }
                offset.map(|o| o as usize)
            })
            .collect()
    }

    /// The box as it lies in shared memory.
    fn in_shared(&self) -> Vec<u8> {
        let fill: &[u8] = match (self.nan, self.size()) {
            (false, _) => &[0; 8],
            (true, 2) => &[0xff, 0x7f],
            (true, 4) => &[0xff, 0xff, 0xff, 0x7f],
            (true, _) => &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        };
        let elements = self.elements();
        let mut out = vec![0; elements.len() * self.size()];
        for (i, offset) in elements.iter().enumerate() {
            for b in 0..self.size() {
                out[swizzled(self.swizzle, i * self.size() + b)] = match offset {
                    Some(offset) => byte(offset + b),
                    None => fill[b],
                };
            }
        }
        out
    }

    fn coordinates(&self) -> String {
        let list: Vec<String> = self.at.iter().map(i32::to_string).collect();
        format!("{{{}}}", list.join(", "))
    }

    fn load(&self) -> Rig {
        let bytes = self.elements().len() * self.size();
        let (rank, at) = (self.extents.len(), self.coordinates());
        rig(&format!(
            "mov.u32 %r0, smem;
            setp.eq.u32 %p0, %t, 0;
            @%p0 mbarrier.init.shared::cta.b64 [%r0+31744], 1;
            fence.mbarrier_init.release.cluster;
            bar.sync 0;
            @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0+31744], {bytes};
            @%p0 cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r0], [%m0, {at}], [%r0+31744];
        WAIT:
            mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r0+31744], 0;
            @!%p1 bra WAIT;
            {}",
            copy_out(bytes)
        ))
        .words(bytes / 4)
        .buffer(content())
        .map(self.map())
    }

    fn store(&self) -> Rig {
        let bytes = self.elements().len() * self.size();
        let (rank, at) = (self.extents.len(), self.coordinates());
        rig(&format!(
            "mov.u32 %r0, smem;
            setp.eq.u32 %p0, %t, 0;
            mov.u32 %r1, %t;
        FILL:
            setp.ge.u32 %p1, %r1, {};
            @%p1 bra FILLED;
            mad.lo.u32 %r2, %r1, 4, %r0;
            mad.lo.u32 %r3, %r1, 0x01000193, 0x811c9dc5;
            st.shared.u32 [%r2], %r3;
            add.u32 %r1, %r1, 32;
            bra FILL;
        FILLED:
            fence.proxy.async.shared::cta;
            bar.sync 0;
            @%p0 cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group [%m0, {at}], [%r0];
            @%p0 cp.async.bulk.commit_group;
            @%p0 cp.async.bulk.wait_group 0;",
            bytes / 4
        ))
        .buffer(content())
        .map(self.map())
    }

    /// The buffer after the store.
    fn stored(&self) -> Vec<u8> {
        let mut out = content();
        for (i, offset) in self.elements().into_iter().enumerate() {
            let Some(offset) = offset else { continue };
            for b in 0..self.size() {
                let from = swizzled(self.swizzle, i * self.size() + b);
                let word = (from as u32 / 4).wrapping_mul(0x0100_0193).wrapping_add(0x811c_9dc5);
                out[offset + b] = word.to_le_bytes()[from % 4];
            }
        }
        out
    }
}

/// All threads copy shared bytes to the output.
fn copy_out(bytes: usize) -> String {
    format!(
        "mov.u32 %r1, %t;
    COPY:
        setp.ge.u32 %p2, %r1, {};
        @%p2 exit;
        mad.lo.u32 %r2, %r1, 4, %r0;
        ld.shared.u32 %r3, [%r2];
        mad.wide.u32 %rd0, %r1, 4, %out;
        st.global.u32 [%rd0], %r3;
        add.u32 %r1, %r1, 32;
        bra COPY;",
        bytes / 4
    )
}

fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // Two dimensions: every swizzle with rows of its span and less, inside and over every edge.
    for (swizzle, rows) in [
        (Swizzle::None, vec![16, 48, 256]),
        (Swizzle::B32, vec![32, 16]),
        (Swizzle::B64, vec![64, 32]),
        (Swizzle::B128, vec![128, 64]),
    ] {
        for row in rows {
            for (element, nan) in [
                (Element::U8, false),
                (Element::Bf16, true),
                (Element::F32, true),
                (Element::U64, false),
                (Element::F64, true),
            ] {
                let size = element.bytes();
                let inner = row / size;
                if inner > 256 {
                    continue;
                }
                let width = 320 / size;
                for at in [[0, 0], [3, 5], [-2, -1], [(width - inner / 2) as i32, 34], [width as i32, 0]] {
                    out.push(Case {
                        element,
                        extents: vec![u64::from(width), 40],
                        strides: vec![336],
                        tile: vec![inner, 19],
                        steps: vec![1, 1],
                        swizzle,
                        nan,
                        at: at.to_vec(),
                    });
                }
            }
        }
    }
    // One, three, four and five dimensions, with steps between the elements.
    for (swizzle, rank, steps, at) in [
        (Swizzle::None, 1, [1; 5], [5, 0, 0, 0, 0]),
        (Swizzle::None, 1, [1; 5], [-3, 0, 0, 0, 0]),
        (Swizzle::B32, 3, [1; 5], [1, 2, 3, 0, 0]),
        (Swizzle::B32, 3, [1, 2, 1, 1, 1], [0, -1, 5, 0, 0]),
        (Swizzle::None, 4, [1, 1, 2, 3, 1], [-1, 1, 0, 1, 0]),
        (Swizzle::B32, 4, [1; 5], [6, 4, 5, 2, 0]),
        (Swizzle::None, 5, [1, 2, 1, 2, 1], [0, 1, -1, 1, 1]),
        (Swizzle::B32, 5, [1; 5], [2, 2, 2, 2, 2]),
    ] {
        out.push(Case {
            element: Element::F32,
            extents: [9, 6, 7, 4, 3][..rank].to_vec(),
            strides: [48, 288, 2032, 8128][..rank - 1].to_vec(),
            tile: [8, 4, 3, 3, 2][..rank].to_vec(),
            steps: steps[..rank].to_vec(),
            swizzle,
            nan: rank % 2 == 0,
            at: at[..rank].to_vec(),
        });
    }
    out
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { element, extents, tile, steps, swizzle, nan, at, .. } = self;
        write!(f, "{element:?} {extents:?}, box {tile:?} by {steps:?} at {at:?}, {swizzle:?}, NaN {nan}")
    }
}

#[test]
fn loads_put_every_byte_where_the_tables_say() {
    for (case, schedule) in cases().iter().zip(schedules().cycle()) {
        let want: Vec<u32> =
            case.in_shared().chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
        assert_eq!(case.load().schedule(schedule).out(), want, "{case:?} under {schedule:?}");
    }
}

#[test]
fn stores_write_what_lies_inside_and_nothing_else() {
    for (case, schedule) in cases().iter().zip(schedules().cycle()) {
        let store = case.store().schedule(schedule);
        if case.at.iter().any(|&c| c < 0) {
            let wrong = store.fault("cp.async.bulk.tensor");
            assert!(wrong.to_string().contains("negative"), "{case:?}: {wrong}");
        } else {
            let ran = store.run().unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
            assert_eq!(ran.buffers[0], case.stored(), "{case:?} under {schedule:?}");
        }
    }
}

fn plain() -> Case {
    Case {
        element: Element::U8,
        extents: vec![128, 32],
        strides: vec![128],
        tile: vec![128, 8],
        steps: vec![1, 1],
        swizzle: Swizzle::B128,
        nan: false,
        at: vec![0, 8],
    }
}

#[test]
fn the_box_counts_whole_where_it_overhangs() {
    // 8 rows are asked for, 3 exist: all of the box's bytes are counted, and one less leaves the waiter waiting.
    let case = Case { at: vec![0, 29], ..plain() };
    assert_eq!(case.load().run().unwrap().report.counters.bulk_load_bytes, 3 * 128);
    for schedule in schedules() {
        let wrong = case.load().edit("], 1024;", "], 1040;").schedule(schedule).run().unwrap_err();
        assert!(wrong.to_string().contains("16 bytes outstanding"), "{wrong}");
    }
}

#[test]
fn nothing_of_a_box_may_be_read_before_it_has_come() {
    let hasty = || plain().load().edit("@!%p1 bra WAIT;", "").edit("try_wait", "test_wait");
    let wrong = hasty().schedule(Schedule::with(Policy::Late, 0)).racing().run().unwrap_err();
    assert!(matches!(wrong.kind, FaultKind::Uninitialised { .. }), "{wrong}");
    // At issue, nothing shows.
    assert!(hasty().racing().run().is_ok());
}

#[test]
fn hints_change_nothing() {
    let case = plain();
    let hinted = case
        .load()
        .edit("bytes [%r0]", "bytes.L2::cache_hint [%r0]")
        .edit("[%r0+31744];\n        WAIT", "[%r0+31744], %rd7;\n        WAIT")
        .edit("bar.sync 0;", "bar.sync 0;\n createpolicy.fractional.L2::evict_first.b64 %rd7, 1.0;");
    assert_eq!(hinted.out(), case.load().out());
    let own = case.load().edit("2d.shared::cluster.global.tile", "2d.shared::cta.global");
    assert_eq!(own.out(), case.load().out());
    let hinted = case
        .store()
        .edit(".bulk_group [%m0", ".bulk_group.L2::cache_hint [%m0")
        .edit("], [%r0];", "], [%r0], 0x12f0000000000000;");
    assert_eq!(hinted.run().unwrap().buffers[0], case.stored());
}

#[test]
fn prefetches_move_nothing_but_are_counted_and_checked() {
    let prefetch = |text: &str| {
        rig(&format!(
            "prefetch.tensormap [%m0];\n setp.eq.u32 %p0, %t, 0;\n {text}\n st.global.u32 [%at], 1;"
        ))
        .buffer(content())
        .map(plain().map())
        .racing()
    };
    let one = "@%p0 cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%m0, {0, 0}];";
    let inside = prefetch(one).run().unwrap();
    assert_eq!(inside.out, [1; 32]);
    let whole = inside.report.counters.bulk_prefetch_bytes;
    assert_eq!(whole, plain().load().run().unwrap().report.counters.bulk_load_bytes);
    assert_eq!(inside.report.counters.bulk_load_bytes, 0);
    // What lies outside of the tensor is not fetched.
    let half = prefetch(&one.replace("{0, 0}", "{0, -4}")).run().unwrap();
    let outside = prefetch(&one.replace("{0, 0}", "{0, -1000}")).run().unwrap();
    assert!((1..whole).contains(&half.report.counters.bulk_prefetch_bytes));
    assert_eq!(outside.report.counters.bulk_prefetch_bytes, 0);
    let hinted = one.replace("tile [", "tile.L2::cache_hint [").replace("];", "], 0x12f0000000000000;");
    assert_eq!(prefetch(&hinted).out(), [1; 32]);

    let wrong = prefetch(&one.replace("2d", "1d").replace("{0, 0}", "{0}")).fault("cp.async.bulk.prefetch");
    assert!(matches!(wrong.kind, FaultKind::Descriptor(ref what) if what.contains("rank 2")), "{wrong}");
    let bent = prefetch(&format!("add.u64 %rd9, %m0, 32;\n {}", one.replace("%m0", "%rd9")));
    assert!(matches!(bent.fault("cp.async.bulk.prefetch").kind, FaultKind::Misaligned { align: 64, .. }));
}

#[test]
fn illegal_copies_say_why() {
    let descriptor = |rig: Rig, what: &str| {
        let wrong = rig.fault("cp.async.bulk.tensor");
        assert!(matches!(wrong.kind, FaultKind::Descriptor(ref text) if text.contains(what)), "{wrong}");
    };
    descriptor(plain().load().edit("bytes [%r0]", "bytes [%r0+128]"), "multiple of 1024");
    descriptor(plain().load().edit("tensor.2d", "tensor.1d").edit("{0, 8}", "{0}"), "rank 2");
    let none = || Case { swizzle: Swizzle::None, ..plain() };
    descriptor(none().load().edit("bytes [%r0]", "bytes [%r0+64]"), "multiple of 128");
    descriptor(none().store().edit("[%r0];", "[%r0+16];"), "multiple of 128");
    descriptor(plain().load().edit("[%m0, ", "[%b0, "), "");
    let bent =
        plain().load().edit("[%m0, ", "[%rd9, ").edit("bar.sync 0;", "bar.sync 0;\n add.u64 %rd9, %m0, 32;");
    assert!(matches!(bent.fault("cp.async.bulk.tensor").kind, FaultKind::Misaligned { align: 64, .. }));
    let far = plain().load().edit("bytes [%r0]", "bytes [%r0+32768]");
    assert!(matches!(far.fault("cp.async.bulk.tensor").kind, FaultKind::OutOfBounds { space: "shared", .. }));
    for im2col in [
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r0], [%m0, {0, 0, 0}], [%r0], {%h0};",
        "cp.async.bulk.tensor.3d.global.shared::cta.im2col_no_offs.bulk_group [%m0, {0, 0, 0}], [%r0];",
    ] {
        let error = rig(im2col).buffer(content()).map(plain().map()).load().unwrap_err();
        assert!(error.what.contains("im2col"), "{error}");
    }
}
