//! Every operation on drawn shapes, strides, offsets, overlaps and values: it runs, or it refuses with an argument's
//! name and leaves everything as it was. Values of indices, lengths and floats are any bits at all.

use crate::{in_time, on_seeds};
use narrowgauge::gemm::{BatchedHalfGemm, Fp8Gemm, GroupedFp8Gemm, HalfGemm};
use narrowgauge::mla::{
    Attention, CacheGather, CacheLayout, CachePageCopy, CachePageSwap, CacheWrite, LatentCache, Rope,
    RopeParameters, RopeTables,
};
use narrowgauge::norm::{Add, RmsNorm, RmsNormQuantize};
use narrowgauge::quant::Quantize;
use narrowgauge::routing::{
    Combine, Gate, GatherRows, GroupScore, Permutation, Permute, Router, Scoring, SwigluQuantize,
};
use narrowgauge::verify::{self, Source};
use narrowgauge::vocab::{Argmax, Embedding};
use narrowgauge::{Device, E4m3, Element, Error, Fp8Blocks, Fp8Rows, Result, Tensor, bf16};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A type with a value for any bits.
trait Drawn: Element + PartialEq {
    fn from_drawn(bits: u64) -> Self;
    fn to_bytes(self) -> Vec<u8>;
}

macro_rules! drawn {
    ($($type:ty, |$bits:ident| $make:expr, |$x:ident| $show:expr;)+) => {$(
        impl Drawn for $type {
            fn from_drawn($bits: u64) -> Self {
                $make
            }
            fn to_bytes(self) -> Vec<u8> {
                let $x = self;
                $show.to_le_bytes().to_vec()
            }
        }
    )+};
}
drawn! {
    f32, |bits| f32::from_bits(bits as u32), |x| x.to_bits();
    bf16, |bits| bf16::from_bits(bits as u16), |x| x.to_bits();
    E4m3, |bits| E4m3::from_bits(bits as u8), |x| x.to_bits();
    u8, |bits| bits as u8, |x| x;
    // Small ones as often as any.
    i32, |bits| if bits & 1 == 0 { (bits >> 8) as i32 % 12 } else { (bits >> 8) as i32 }, |x| x;
}

/// A whole allocation, to be read again.
type Snapshot = Box<dyn Fn() -> Vec<u8>>;

/// Where a view lies in an allocation.
struct Place {
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Place {
    fn of<T: Drawn>(&self, whole: &Tensor<T>) -> Result<Tensor<T>> {
        whole.as_strided(self.offset, &self.shape, &self.strides)
    }
}

/// Draws operands, and remembers every allocation as it was.
struct Operands {
    device: Device,
    source: Source,
    /// How often an operand is not what it should be, out of 100.
    odd: usize,
    before: Vec<(Snapshot, Vec<u8>)>,
    /// Allocations of bf16, for operands that overlap.
    shared: Vec<Tensor<bf16>>,
}

impl Operands {
    fn is_odd(&mut self) -> bool {
        self.source.below(100) < self.odd
    }

    /// One of these, or something else.
    fn extent(&mut self, usual: &[usize]) -> usize {
        let value = usual[self.source.below(usual.len())];
        if !self.is_odd() {
            return value;
        }
        [0, 1, value + 1, value.saturating_sub(1), 2 * value, 7, 129][self.source.below(7)]
    }

    fn shape(&mut self, want: &[usize]) -> Vec<usize> {
        let mut shape = want.to_vec();
        if self.is_odd() {
            match self.source.below(3) {
                0 => {
                    let at = self.source.below(shape.len());
                    shape[at] = self.extent(&[want[at]]);
                }
                1 if shape.len() > 1 => drop(shape.pop()),
                _ if shape.len() < 4 => shape.insert(0, 1 + self.source.below(2)),
                _ => shape.swap(0, 1),
            }
        }
        shape
    }

    /// A view of about this shape: dense, with gaps between rows, at any element, transposed or repeated. Narrow
    /// matrices, of slots of tokens, are dense by rule.
    fn tensor<T: Drawn>(&mut self, want: &[usize]) -> Result<Tensor<T>> {
        let (whole, place) = self.place::<T>(want)?;
        place.of(&whole)
    }

    fn place<T: Drawn>(&mut self, want: &[usize]) -> Result<(Tensor<T>, Place)> {
        let shape = self.shape(want);
        let mut strides = vec![1; shape.len()];
        let gapped = if want.len() == 2 && want[1] < 17 { self.is_odd() } else { self.source.below(3) == 0 };
        let gap = if gapped { 16 } else { 0 };
        for dim in (0..shape.len() - 1).rev() {
            strides[dim] =
                strides[dim + 1] * shape[dim + 1].max(1) + if dim + 2 == shape.len() { gap } else { 0 };
        }
        let mut offset = 16 * self.source.below(3);
        if self.is_odd() {
            match self.source.below(4) {
                0 => offset += 1 + self.source.below(8),
                1 => strides.reverse(),
                2 => strides[0] = self.source.below(4),
                _ => strides[0] += 1 + self.source.below(3),
            }
        }
        let reach: usize =
            shape.iter().zip(&strides).map(|(dim, stride)| dim.saturating_sub(1) * stride).sum();
        let whole = self.whole::<T>(offset + reach + 8)?;
        Ok((whole, Place { offset, shape, strides }))
    }

    fn whole<T: Drawn>(&mut self, len: usize) -> Result<Tensor<T>> {
        // Odd extents multiply: this is no test of the machine's memory.
        if len > 1 << 21 {
            return Err(Error::argument("drawing", "len", len, "small"));
        }
        let values: Vec<T> = (0..len).map(|_| T::from_drawn(self.source.bits())).collect();
        let whole = self.device.tensor(&[len], &values)?;
        let again = whole.clone();
        let read: Snapshot = Box::new(move || {
            again.to_vec().expect("memory can be read").into_iter().flat_map(T::to_bytes).collect()
        });
        self.before.push((read, values.into_iter().flat_map(T::to_bytes).collect()));
        Ok(whole)
    }

    /// A bf16 operand, which may lie in the memory of an earlier one.
    fn bf16(&mut self, want: &[usize]) -> Result<Tensor<bf16>> {
        let (whole, place) = self.place::<bf16>(want)?;
        let earlier = (self.is_odd() && !self.shared.is_empty())
            .then(|| self.shared[self.source.below(self.shared.len())].clone());
        if let Some(view) = earlier.and_then(|whole| place.of(&whole).ok()) {
            return Ok(view);
        }
        self.shared.push(whole.clone());
        place.of(&whole)
    }

    fn fp8_rows(&mut self, rows: usize, columns: usize) -> Result<Fp8Rows> {
        let groups = columns.div_ceil(128);
        let data = self.tensor(&[rows, columns])?;
        let scales = if self.source.below(2) == 0 {
            self.tensor(&[rows, groups])?
        } else {
            self.tensor(&[groups, rows])?.transpose(0, 1)?
        };
        Fp8Rows::new(data, scales)
    }

    fn fp8_blocks(&mut self, shape: &[usize]) -> Result<Fp8Blocks> {
        let mut blocks = shape.to_vec();
        let rank = blocks.len();
        blocks[rank - 2..].iter_mut().for_each(|extent| *extent = extent.div_ceil(128));
        let data = self.tensor(shape)?;
        Fp8Blocks::new(data, self.tensor(&blocks)?)
    }

    /// A number of tokens and slots, and the order of their ids, built or not.
    fn permutation(&mut self, tokens: usize, slots: usize, experts: usize) -> Result<Permutation> {
        let permutation = Permutation::empty(&self.device, tokens, slots, experts)?;
        let ids: Vec<i32> = (0..tokens * slots).map(|_| i32::from_drawn(self.source.bits())).collect();
        let ids = self.device.tensor(&[tokens, slots], &ids)?;
        Permute::new(&ids, &permutation).launch(&self.device.stream())?;
        Ok(permutation)
    }

    fn tables(&mut self) -> Result<RopeTables> {
        let parameters = RopeParameters {
            dim: self.extent(&[64]),
            base: 10_000.0,
            max_positions: self.extent(&[9]),
            yarn: None,
        };
        RopeTables::new(&self.device, &parameters)
    }

    /// Pairs of pages of which none is in two: that would be a race.
    fn pairs(&mut self, count: usize) -> Result<Tensor<i32>> {
        let shape = self.shape(&[count, 2]);
        let ids: Vec<i32> = (0..shape.iter().product::<usize>() as i32)
            .map(|id| if self.is_odd() { i32::from_drawn(self.source.bits()).min(-1) } else { id })
            .collect();
        self.device.tensor(&shape, &ids)
    }

    fn cache(&mut self) -> Result<LatentCache> {
        let (pages, page_tokens) = (self.extent(&[1, 3]), self.extent(&[1, 16, 64]));
        let scale = if self.is_odd() { f32::from_drawn(self.source.bits()) } else { 0.1 };
        let layouts =
            [CacheLayout::Bf16, CacheLayout::F16, CacheLayout::Fp8Blocks, CacheLayout::Fp8Flat { scale }];
        LatentCache::with_layout(&self.device, pages, page_tokens, layouts[self.source.below(4)])
    }
}

type Operation = fn(&mut Operands) -> Result<()>;

const OPERATIONS: &[(&str, Operation)] = &[
    ("Quantize", |o| {
        let (m, n) = (o.extent(&[1, 3, 9]), o.extent(&[128, 256, 272, 16]));
        let (x, out) = (o.bf16(&[m, n])?, o.fp8_rows(m, n)?);
        Quantize::new(&x, &out).launch(&o.device.stream())
    }),
    ("RmsNorm", |o| {
        let (m, n) = (o.extent(&[1, 3]), o.extent(&[64, 300]));
        let (x, weight, out) = (o.bf16(&[m, n])?, o.bf16(&[n])?, o.bf16(&[m, n])?);
        let epsilon = if o.is_odd() { f32::from_drawn(o.source.bits()) } else { 1e-6 };
        RmsNorm::new(&x, &weight, &out).epsilon(epsilon).launch(&o.device.stream())
    }),
    ("RmsNormQuantize", |o| {
        let (m, n) = (o.extent(&[1, 3]), o.extent(&[128, 272]));
        let (x, weight, out, plain) = (o.bf16(&[m, n])?, o.bf16(&[n])?, o.fp8_rows(m, n)?, o.bf16(&[m, n])?);
        RmsNormQuantize::new(&x, &weight, &out).bf16_output(&plain).launch(&o.device.stream())
    }),
    ("Add", |o| {
        let (m, n) = (o.extent(&[1, 3]), o.extent(&[8, 300]));
        let (a, b, out) = (o.bf16(&[m, n])?, o.bf16(&[m, n])?, o.bf16(&[m, n])?);
        Add::new(&a, &b, &out).launch(&o.device.stream())
    }),
    ("Embedding", |o| {
        let (v, t, n) = (o.extent(&[7]), o.extent(&[3]), o.extent(&[8, 130]));
        let (table, ids, out) = (o.bf16(&[v, n])?, o.tensor(&[t])?, o.bf16(&[t, n])?);
        Embedding::new(&table, &ids, &out).launch(&o.device.stream())
    }),
    ("Argmax", |o| {
        let (t, v) = (o.extent(&[3]), o.extent(&[1, 300]));
        let (logits, out) = (o.tensor(&[t, v])?, o.tensor(&[t])?);
        Argmax::new(&logits, &out).launch(&o.device.stream())
    }),
    ("Fp8Gemm", |o| {
        let (m, n, k) = (o.extent(&[1, 5, 65]), o.extent(&[8, 24, 130]), o.extent(&[16, 128, 272]));
        let (a, b, out) = (o.fp8_rows(m, k)?, o.fp8_blocks(&[n, k])?, o.bf16(&[m, n])?);
        Fp8Gemm::new(&a, &b, &out).launch(&o.device.stream())
    }),
    ("Fp8Gemm to f32", |o| {
        let (m, n, k) = (o.extent(&[1, 5]), o.extent(&[8, 24]), o.extent(&[16, 128]));
        let (a, b, out) = (o.fp8_rows(m, k)?, o.fp8_blocks(&[n, k])?, o.tensor::<f32>(&[m, n])?);
        Fp8Gemm::new(&a, &b, &out).launch(&o.device.stream())
    }),
    ("GroupedFp8Gemm", |o| {
        let (g, m, n, k) = (o.extent(&[1, 3]), o.extent(&[5, 65]), o.extent(&[8, 24]), o.extent(&[128, 144]));
        let (a, b, out) = (o.fp8_rows(m, k)?, o.fp8_blocks(&[g, n, k])?, o.bf16(&[m, n])?);
        // Rarely in order, and often far outside.
        let offsets = o.tensor(&[g + 1])?;
        GroupedFp8Gemm::new(&a, &b, &offsets, &out).launch(&o.device.stream())
    }),
    ("HalfGemm", |o| {
        let (m, n, k) = (o.extent(&[1, 5, 65]), o.extent(&[8, 24]), o.extent(&[8, 64, 136]));
        let (a, b, out) = (o.bf16(&[m, k])?, o.bf16(&[n, k])?, o.bf16(&[m, n])?);
        HalfGemm::new(&a, &b, &out).launch(&o.device.stream())
    }),
    ("BatchedHalfGemm", |o| {
        let (h, m, n, k) = (o.extent(&[1, 3]), o.extent(&[5]), o.extent(&[8, 24]), o.extent(&[8, 64]));
        let (a, b, out) = (o.bf16(&[h, m, k])?, o.bf16(&[h, n, k])?, o.tensor::<f32>(&[h, m, n])?);
        BatchedHalfGemm::new(&a, &b, &out).launch(&o.device.stream())
    }),
    ("Router", |o| {
        let (t, e, groups) = (o.extent(&[1, 5]), o.extent(&[8, 64, 256]), o.extent(&[1, 4]));
        let kept = o.extent(&[1, groups]);
        let k = o.extent(&[1, e.checked_div(groups).unwrap_or(1).clamp(1, 8)]);
        let (logits, weights, ids) = (o.tensor(&[t, e])?, o.tensor(&[t, k])?, o.tensor(&[t, k])?);
        let mut bias = vec![0.5; e];
        if o.is_odd() && e > 0 {
            bias[0] = f32::NAN;
        }
        let bias = o.device.tensor(&[e], &bias)?;
        let gate = Gate::new(Scoring::Sigmoid, k).groups(groups, kept, GroupScore::TopTwo);
        let router = Router::<f32>::new(&logits, gate, &weights, &ids).bias(&bias);
        router.launch(&o.device.stream())
    }),
    ("Permute", |o| {
        let (t, k, e) = (o.extent(&[1, 5, 40]), o.extent(&[1, 4]), o.extent(&[1, 8, 300]));
        let permutation = Permutation::empty(&o.device, t, k, e)?;
        let ids = o.tensor(&[t, k])?;
        Permute::new(&ids, &permutation).launch(&o.device.stream())
    }),
    ("GatherRows", |o| {
        let (t, k, e, n) = (o.extent(&[1, 5]), o.extent(&[1, 4]), o.extent(&[8]), o.extent(&[128, 272]));
        let permutation = o.permutation(t, k, e)?;
        let (rows, out) = (o.fp8_rows(t, n)?, o.fp8_rows(t * k, n)?);
        GatherRows::new(&rows, &permutation, &out).launch(&o.device.stream())
    }),
    ("SwigluQuantize", |o| {
        let (t, k, n) = (o.extent(&[1, 5]), o.extent(&[1, 4]), o.extent(&[128, 272]));
        let permutation = o.permutation(t, k, 8)?;
        let up = o.extent(&[n, n + 16]);
        let (gate_up, out) = (o.bf16(&[t * k, n + up])?, o.fp8_rows(t * k, n)?);
        let stream = o.device.stream();
        SwigluQuantize::new(&gate_up, &out).up_offset(up).permutation(&permutation).launch(&stream)
    }),
    ("Combine", |o| {
        let (t, k, n) = (o.extent(&[1, 5]), o.extent(&[1, 4]), o.extent(&[8, 130]));
        let permutation = o.permutation(t, k, 8)?;
        let (rows, weights, out) = (o.bf16(&[t * k, n])?, o.tensor(&[t, k])?, o.bf16(&[t, n])?);
        let shared = o.bf16(&[t, n])?;
        Combine::new(&rows, &permutation, &weights, &out).shared(&shared).launch(&o.device.stream())
    }),
    ("Rope", |o| {
        let (t, h) = (o.extent(&[1, 3]), o.extent(&[1, 4]));
        let (x, positions, out) = (o.bf16(&[t, h, 64])?, o.tensor(&[t])?, o.bf16(&[t, h, 64])?);
        let tables = o.tables()?;
        Rope::new(&x, &positions, &tables, &out).launch(&o.device.stream())
    }),
    ("CacheWrite", |o| {
        let t = o.extent(&[1, 3]);
        let (latent, key) = (o.bf16(&[t, 512])?, o.bf16(&[t, 64])?);
        let (positions, slots, tables) = (o.tensor(&[t])?, o.tensor(&[t])?, o.tables()?);
        let cache = o.cache()?;
        CacheWrite::new(&latent, &key, &positions, &slots, &tables, &cache).launch(&o.device.stream())
    }),
    ("CacheGather", |o| {
        let (b, p, t) = (o.extent(&[1, 3]), o.extent(&[1, 2]), o.extent(&[1, 9]));
        let (table, offsets, starts) = (o.tensor(&[b, p])?, o.tensor(&[b + 1])?, o.tensor(&[b])?);
        let cache = o.cache()?;
        let out = o.bf16(&[t, 576])?;
        CacheGather::new(&cache, &table, &offsets, &out).starts(&starts).launch(&o.device.stream())
    }),
    ("CachePageCopy", |o| {
        let (cache, n) = (o.cache()?, o.extent(&[1, 3]));
        CachePageCopy::new(&cache, &cache, &o.pairs(n)?).launch(&o.device.stream())
    }),
    ("CachePageSwap", |o| {
        let (first, n) = (o.cache()?, o.extent(&[1, 3]));
        let second = match o.is_odd() {
            true => o.cache()?,
            false => LatentCache::with_layout(&o.device, 2, first.page_tokens(), first.layout())?,
        };
        CachePageSwap::new(&first, &second, &o.pairs(n)?).launch(&o.device.stream())
    }),
    ("Attention", |o| {
        let (b, s, h, p) = (o.extent(&[1, 2]), o.extent(&[1]), o.extent(&[1, 4]), o.extent(&[1, 2]));
        let (q, out) = (o.bf16(&[b, s, h, 576])?, o.bf16(&[b, s, h, 512])?);
        let (table, lengths, lse) = (o.tensor(&[b, p])?, o.tensor(&[b])?, o.tensor(&[b, h, s])?);
        let cache = LatentCache::new(&o.device.clone(), o.extent(&[2]))?;
        let splits = o.extent(&[1, 2]);
        let attention = Attention::new(&q, &cache, &table, &lengths, &out).lse(&lse).splits(splits);
        let workspace = o.tensor(&[attention.workspace_bytes() + 16])?;
        let scale = if o.is_odd() { f32::from_drawn(o.source.bits()) } else { 0.07 };
        attention.scale(scale).workspace(&workspace).launch(&o.device.stream())
    }),
];

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn operations_run_or_refuse() {
    let device = verify::device().unwrap();
    let counts: RefCell<BTreeMap<&str, [usize; 2]>> = RefCell::default();
    on_seeds(400, |seed| {
        let mut source = Source::new(seed);
        let (name, operation) = OPERATIONS[source.below(OPERATIONS.len())];
        // Half of the cases have nothing odd but their values.
        let odd = [0, 0, 10, 30][source.below(4)];
        let device = device.clone();
        let (outcome, touched) = in_time(name, move || {
            let (before, shared) = (Vec::new(), Vec::new());
            let mut operands = Operands { device: device.clone(), source, odd, before, shared };
            let outcome = operation(&mut operands).and_then(|()| device.synchronize());
            let touched = outcome.is_err() && operands.before.iter().any(|(read, before)| read() != *before);
            (outcome, touched)
        })?;
        match &outcome {
            Ok(()) => {}
            Err(Error::Argument { .. }) if odd > 0 && touched => {
                return Err(format!("{name} refused ({outcome:?}), and wrote before"));
            }
            Err(Error::Argument { .. }) if odd > 0 => {}
            Err(error) => return Err(format!("{name} with {odd} % odd operands: {error}")),
        }
        counts.borrow_mut().entry(name).or_default()[usize::from(outcome.is_err())] += 1;
        Ok(())
    });
    if std::env::var_os("NARROWGAUGE_SEED").is_some() {
        return;
    }
    let mut all = [0; 2];
    for (name, [ran, refused]) in counts.borrow().iter() {
        println!("{name:16} ran {ran:4}, refused {refused:4}");
        assert!(*ran > 0, "{name} never ran");
        all = [all[0] + ran, all[1] + refused];
    }
    assert_eq!(counts.borrow().len(), OPERATIONS.len());
    assert!(all[0] > all[1] && all[1] * 20 > all[0], "{all:?} ran and were refused");
}
