//! What a plan costs, in cycles of the card's boost clock.
//!
//! A block multiplies its tiles one after the other, a stage of K at a time. Per stage the multiprocessor needs its
//! tensor core, its shared memory (filled by TMA, read by wgmma), its port to L2 and its instruction slots; the slowest
//! sets the pace. Blocks of all multiprocessors share L2 and memory. Rates come from [`Card`]; what a card's data
//! sheet does not say stands in the constants below with where it is from.

use super::plan::{Candidate, Mode, Problem};
use super::variants::STAGE_BYTES;
use crate::Card;

/// The cost of a plan by what takes it, in cycles.
///
/// `hbm`, `l2`, `fill` and `tensor` are what each resource would take if it alone counted and the work were spread
/// evenly; they overlap, so the largest counts. The others come on top of it: `total` says what remains.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Terms {
    /// Bytes of memory that must move at least once, or that L2 cannot hold.
    pub hbm: f64,
    /// Bytes between L2 and the multiprocessors.
    pub l2: f64,
    /// Writes of TMA to shared memory and reads of the tensor core from there.
    pub fill: f64,
    /// Multiply-accumulates of whole tiles.
    pub tensor: f64,
    /// What scaling and adding the partial sums adds to the loop.
    pub promotion: f64,
    /// What the busiest multiprocessor does beyond its share: the last wave is not full, or there is not one tile for each.
    pub quantisation: f64,
    /// Rounding and storing tiles, where nothing hides it.
    pub epilogue: f64,
    /// Adding the parts of a split K.
    pub reduction: f64,
    /// Until the first bytes arrive and after the last are stored.
    pub launch: f64,
    /// What of the launch goes on beside the kernel before it, where that one lets its successor start. Not in `total`.
    pub overlap: f64,
    /// What the memory has brought of the weights by the end of the kernel before. Not in `total`.
    pub prefetch: f64,
    /// All of it, for a launch behind nothing.
    pub total: f64,
}

/// The least that a product could take on a card, by its data sheet, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Floor {
    /// For the bytes that must move once, at the nominal bandwidth.
    pub memory: f64,
    /// For the multiply-accumulates of the expected rows, at the nominal rate.
    pub tensor: f64,
}

impl Floor {
    /// The floor of a problem on a card.
    pub fn of(problem: &Problem, card: &Card) -> Self {
        let rates = Rates::of(problem, card);
        let bytes = rates.a_bytes + rates.other_bytes;
        let per_cycle = f64::from(card.sms) * rates.nominal;
        Self {
            memory: bytes / (card.memory_gbps * 1e3),
            tensor: rates.macs / (per_cycle * card.clock_ghz * 1e3),
        }
    }

    /// The higher of the two.
    pub fn microseconds(&self) -> f64 {
        self.memory.max(self.tensor)
    }
}

/// Of the nominal bandwidth, what copies reach: 4.3 of 4.8 TB/s measured on an H200.
const HBM_SHARE: f64 = 0.9;
/// Of the nominal tensor rate, what products of random numbers reach for long: the large cards run into their power limit
/// (bf16 769 to 798 of 989 TFLOPS measured on an H200, FP8 1520 to 1550 of 1979 published for an H800), an H20 does not
/// (282 of 296).
const TENSOR_SHARE: f64 = 0.8;
const SMALL_TENSOR_SHARE: f64 = 0.95;
/// Multiply-accumulates of FP8 a cycle and multiprocessor that divide the two kinds.
const SMALL_TENSOR: f64 = 2000.0;
/// What of the resources that are not the slowest shows all the same, since overlap has gaps. An estimate; between plans
/// that wait for memory all alike it decides for the one that asks less of everything else.
const GAPS: f64 = 0.03;
/// Bytes a cycle that a multiprocessor gets from L2, and that all of them together get: what DeepGEMM's planner assumes for
/// Hopper (64, and 8 TB/s at 1.3 GHz).
const L2_PER_SM: f64 = 64.0;
const L2_TOTAL: f64 = 6153.0;
/// Bytes a cycle of shared memory: 32 banks of four.
const SHARED: f64 = 128.0;
/// Single-precision lanes of a multiprocessor: fused multiply-adds a cycle.
const FLOAT_LANES: f64 = 128.0;
/// Cycles that a warpgroup's instructions beside the multiply-adds take for each stage: about 34 a warp (descriptors,
/// barriers, scales), the four warps of a warpgroup on a scheduler each. From the machine code of the loops.
const LOOP_OVERHEAD: f64 = 34.0;
/// Cycles from the end of a warpgroup's products until its first multiply-add, and from its barrier until its next
/// products. An estimate.
const HAND_OVER: f64 = 90.0;
/// Cycles from a TMA request until its bytes from memory are there. An estimate from microbenchmarks of Hopper
/// (about half a microsecond under load).
const LATENCY: f64 = 1000.0;
/// Cycles for which a warp that gathers rows is busy with a stage: a part for each instruction of four rows, and one for
/// the rest (about 10 and 280 instructions in the machine code, two cycles each beside the math warps: an estimate). Three warps take
/// turns, each with two stages in flight.
const GATHER_FOUR_ROWS: f64 = 20.0;
const GATHER_STAGE: f64 = 560.0;
const GATHER_WARPS: f64 = 3.0;
const GATHER_STAGES: f64 = 6.0;
/// Cycles until they are there from L2. An estimate, as above.
const L2_LATENCY: f64 = 600.0;
/// Microseconds of a launch in which no product can run: its blocks start, make barriers, fetch tensor maps and the first
/// stage; at the end the last stores drain. From published times of DeepGEMM at M = 64 on an H800, less their bytes.
const LAUNCH_US: f64 = 2.0;
/// Microseconds of it before the first request for bytes, and after the last store. Estimates; the rest is their latency.
const START_US: f64 = 0.8;
const DRAIN_US: f64 = 0.7;
/// Cycles of an epilogue before and after its stores: barriers and the way to L2. An estimate.
const STORE_LATENCY: f64 = 400.0;
/// Instructions of a lane for each output of SwiGLU and its quantisation. From the machine code.
const SWIGLU: f64 = 40.0;
/// Cycles of the two cluster barriers around a reduction, and bytes a cycle between the multiprocessors of a cluster.
/// Estimates.
const CLUSTER_BARRIERS: f64 = 500.0;
const CLUSTER_BYTES: f64 = 32.0;
/// Graphics processing clusters, whose bounds no thread block cluster crosses.
const GPCS: usize = 8;

/// What a card does in a cycle, and what of a problem does not depend on the variant.
pub(crate) struct Rates<'a> {
    card: &'a Card,
    hbm: f64,
    /// Multiply-accumulates of a multiprocessor, nominal and for long.
    nominal: f64,
    tensor: f64,
    promotes: bool,
    launch: f64,
    start: f64,
    drain: f64,
    /// Rows of all groups, and groups that have any, as expected.
    rows: f64,
    groups: f64,
    /// Stages of K of one tile.
    k_blocks: f64,
    /// Multiply-accumulates without padding.
    macs: f64,
    a_bytes: f64,
    b_bytes: f64,
    /// Bytes of memory apart from A.
    other_bytes: f64,
}

impl Terms {
    /// The largest of the terms.
    pub fn limiter(&self) -> &'static str {
        let named = Self { overlap: 0.0, prefetch: 0.0, ..*self }.named();
        named.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or("launch", |(name, _)| name)
    }

    /// The terms by name, the total left out.
    pub fn named(&self) -> [(&'static str, f64); 11] {
        [
            ("hbm", self.hbm),
            ("l2", self.l2),
            ("fill", self.fill),
            ("tensor", self.tensor),
            ("promotion", self.promotion),
            ("quantisation", self.quantisation),
            ("epilogue", self.epilogue),
            ("reduction", self.reduction),
            ("launch", self.launch),
            ("overlap", self.overlap),
            ("prefetch", self.prefetch),
        ]
    }

    /// The total in microseconds of a card.
    pub fn microseconds(&self, card: &Card) -> f64 {
        self.total / (card.clock_ghz * 1e3)
    }

    /// What a launch adds to the time of the one before it, in microseconds of a card: it starts while that one drains.
    pub fn dependent_microseconds(&self, card: &Card) -> f64 {
        (self.total - self.overlap - self.prefetch) / (card.clock_ghz * 1e3)
    }
}

/// Multiprocessors that clusters of so many blocks reach: beyond pairs, each GPC leaves what does not divide.
pub(crate) fn usable_sms(card: &Card, cluster: usize) -> usize {
    let sms = card.sms as usize;
    let whole = sms / GPCS / cluster * cluster * GPCS;
    if cluster <= 2 || whole == 0 { sms / cluster * cluster } else { whole }
}

/// The next whole number of one that is not negative; on x86 `f64::ceil` is a call.
fn up(value: f64) -> f64 {
    let whole = value as i64 as f64;
    if whole < value { whole + 1.0 } else { whole }
}

impl<'a> Rates<'a> {
    pub(crate) fn of(problem: &Problem, card: &'a Card) -> Self {
        let element = problem.input.element_bytes() as f64;
        let tflops = if element == 1.0 { card.fp8_tflops } else { card.bf16_tflops };
        let (m, n, k, groups) =
            (problem.m as f64, problem.n as f64, problem.k as f64, problem.groups.max(1) as f64);
        let each = if problem.expected_rows > 0 { (problem.expected_rows as f64).min(m) } else { m };
        let (rows, groups) = match problem.mode {
            Mode::Dense => (m, 1.0),
            // Rows that fall to groups at random leave some without any.
            Mode::Contiguous => (m, (groups * (1.0 - (-m / groups).exp())).max(1.0)),
            Mode::Masked => (each * groups, groups),
            Mode::Batched | Mode::KGrouped => (m * groups, groups),
        };
        // A list may name rows many times.
        let a_rows = if problem.a_rows > 0 { rows.min(problem.a_rows as f64) } else { rows };
        let grouped_k = problem.mode == Mode::KGrouped;
        let per_tile_k = if grouped_k { k / groups } else { k };
        let rate = |tflops: f64| tflops * 1e3 / 2.0 / (f64::from(card.sms) * card.clock_ghz);
        let (nominal, fp8) = (rate(tflops), rate(card.fp8_tflops));
        let stage_k = problem.input.k_per_stage() as f64;
        let scales = if element == 1.0 { 1.0 + 4.0 / 128.0 } else { 1.0 };
        let out = rows * n * problem.output.bytes() as f64 * if problem.accumulate { 2.0 } else { 1.0 };
        let sides = problem.sides() as f64;
        let b_bytes = if grouped_k { n * k * element * scales } else { sides * groups * n * k * element };
        Self {
            card,
            hbm: card.memory_gbps * HBM_SHARE / card.clock_ghz,
            nominal,
            tensor: nominal * if fp8 < SMALL_TENSOR { SMALL_TENSOR_SHARE } else { TENSOR_SHARE },
            promotes: element == 1.0,
            launch: LAUNCH_US * 1e3 * card.clock_ghz,
            start: START_US * 1e3 * card.clock_ghz,
            drain: DRAIN_US * 1e3 * card.clock_ghz,
            rows,
            groups,
            macs: sides * rows * n * per_tile_k,
            k_blocks: (per_tile_k / stage_k).ceil(),
            a_bytes: if grouped_k { m * k } else { a_rows * k } * element * scales,
            b_bytes,
            other_bytes: b_bytes + out,
        }
    }

    /// Expected rows of tiles, over all groups.
    fn row_tiles(&self, problem: &Problem, height: f64) -> f64 {
        let own = self.rows / self.groups;
        match problem.mode {
            Mode::Dense => up(own / height),
            Mode::Batched | Mode::KGrouped => self.groups * up(own / height),
            // A group ends anywhere in its last tile.
            Mode::Contiguous | Mode::Masked => self.groups * (own / height + 0.5).max(1.0),
        }
    }

    /// Whether there are four tiles, or parts of one, for every block that runs at once: another wave is then a small part.
    pub(crate) fn filled(&self, problem: &Problem, candidate: &Candidate) -> bool {
        let shape = candidate.tile.shape();
        let rows = self.row_tiles(problem, (shape.rows * shape.cluster) as f64) * shape.cluster as f64;
        let blocks = rows * (problem.n as f64 / shape.columns as f64) * f64::from(candidate.split);
        blocks >= 4.0 * (self.card.sms as usize * shape.blocks_per_sm) as f64
    }

    pub(crate) fn terms(&self, problem: &Problem, candidate: &Candidate) -> Terms {
        let shape = candidate.tile.shape();
        let (height, width) = (shape.rows as f64, shape.columns as f64);
        // Of weights.
        let across = width * problem.sides() as f64;
        let (split, cluster) = (f64::from(candidate.split), shape.cluster as f64);
        let resident = shape.blocks_per_sm as f64;
        let warpgroups = f64::from(candidate.variant.consumers());
        let sms = usable_sms(self.card, candidate.cluster()) as f64;

        // One stage of one block.
        let stage = STAGE_BYTES as f64;
        let k_elements = problem.input.k_per_stage() as f64;
        let tensor = height * across * k_elements / self.tensor;
        let loaded = (height + across) * stage;
        // wgmma takes rows by 64, and reads as much as a stage holds.
        let read = if shape.source.swapped { loaded } else { (height.max(64.0) + across) * stage };
        let fill = (loaded + read) / SHARED;
        let requested = (height + across / cluster) * stage;
        let in_flight = shape.stages as f64 * loaded / LATENCY;
        let promotion = if self.promotes { height * across / FLOAT_LANES } else { 0.0 };
        let issue = promotion + warpgroups * LOOP_OVERHEAD;
        // A warpgroup by itself: its products, then its sums, unless it keeps two sets of them.
        let chain = if shape.source.overlapped {
            (tensor / warpgroups).max(promotion / warpgroups + LOOP_OVERHEAD) + HAND_OVER / 2.0
        } else {
            tensor / warpgroups + promotion / warpgroups + LOOP_OVERHEAD + HAND_OVER
        };

        // The pace of so many blocks on one multiprocessor, without and with the warpgroups' own work.
        let gather = if problem.gather {
            let busy = (GATHER_STAGE + height / 4.0 * GATHER_FOUR_ROWS) / GATHER_WARPS;
            busy.max(LATENCY / GATHER_STAGES.min(shape.stages as f64))
        } else {
            0.0
        };
        let feed = |blocks: f64| {
            let copies = requested / (blocks * in_flight).min(L2_PER_SM);
            (blocks * tensor.max(fill).max(copies)).max(gather)
        };
        let pace = |blocks: f64| feed(blocks).max(blocks * issue).max(chain);

        let tiles = self.row_tiles(problem, height * cluster) * cluster * up(problem.n as f64 / width);
        let blocks = tiles * split;
        let k_blocks = up(self.k_blocks / split);
        let share = blocks / sms;
        let most = up(share - 1e-9).max(1.0);
        let whole = (most / resident) as i64 as f64;
        let left = most - whole * resident;
        let rounds = |pace: &dyn Fn(f64) -> f64| {
            k_blocks * (whole * pace(resident) + if left > 0.0 { pace(left) } else { 0.0 })
        };
        let even = share * k_blocks * feed(resident) / resident;
        let (fed, paced) = (rounds(&feed), rounds(&pace));

        // Tiles of one column follow each other, so an A beyond half of L2 comes again for each wave, or for each column.
        let columns = up(problem.n as f64 / width);
        let waves = (tiles / (sms * resident)).min(columns);
        let again = if self.a_bytes * 2.0 > self.card.l2_bytes as f64 && problem.mode == Mode::Dense {
            waves.max(1.0)
        } else {
            1.0
        };
        let hbm = (self.a_bytes * again + self.other_bytes) / self.hbm;
        let l2 = (blocks * k_blocks * requested) / L2_TOTAL.min(f64::from(self.card.sms) * L2_PER_SM);

        let accumulate = if problem.accumulate { 2.0 } else { 1.0 };
        let stored = height * width * problem.output.bytes() as f64 * accumulate / split;
        let each = if problem.swiglu { SWIGLU / split } else { 1.0 };
        let one = stored / L2_PER_SM + each * height * width / FLOAT_LANES + STORE_LATENCY;
        // Another block's products hide it.
        let hidden = resident > 1.0 || shape.source.swapped;
        let epilogue = if hidden { one } else { one * most };
        let reduction = if candidate.split > 1 {
            CLUSTER_BARRIERS + height * across * 4.0 / CLUSTER_BYTES * (split - 1.0) / split
        } else {
            0.0
        };
        let (even_fill, even_tensor) = (share * k_blocks * fill, share * k_blocks * tensor);
        let used = [hbm, l2, even_fill, even_tensor];
        let gaps = GAPS * (used.iter().sum::<f64>() - used.iter().copied().fold(0.0, f64::max));
        // The rings' worth of weights that blocks send for before they wait, as far as the kernel before leaves time for it.
        let prefetches = shape.source.swapped && matches!(problem.mode, Mode::Dense | Mode::Batched);
        let prefetch = if prefetches {
            let rings = blocks.min(sms * resident) * shape.stages as f64 * across * stage;
            (rings.min(self.b_bytes) / self.hbm).min(self.drain)
        } else {
            0.0
        };
        let overlap = self.start + if prefetches { LATENCY - L2_LATENCY } else { 0.0 };
        let body = (paced + epilogue).max(hbm + one).max(l2 + one) + gaps;
        Terms {
            hbm,
            l2,
            fill: even_fill,
            tensor: even_tensor,
            promotion: paced - fed,
            quantisation: (fed - even).max(0.0),
            epilogue,
            reduction,
            launch: self.launch,
            overlap,
            prefetch,
            total: body + reduction + self.launch,
        }
    }
}
