//! How a launch is scheduled: all of it follows from these few values, so every run can be repeated.

/// When an asynchronous operation completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// At issue.
    Eager,
    /// At a moment drawn from the seed. Some seeds also keep two or four clusters on the card at a time, so that blocks
    /// interleave; without need and without this policy clusters run one after the other.
    Random,
    /// When a wait asks for it, or when nothing else can run.
    Late,
}

/// What happens when a register that a wgmma in flight owns is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InFlight {
    /// A fault: ptxas would serialise the kernel.
    Strict,
    /// What ptxas does: wait for the operation first, with a warning. What else PTX forbids and hardware takes is let pass:
    /// generic addresses of shared memory in `ld.shared` or `st.shared`, and with a warning lanes that their warp-wide
    /// operation's member mask does not name, races, missing fences and branches and guards that nobody defined.
    Compatible,
}

/// How FP8 wgmma accumulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fp8Accumulation {
    /// As Hopper's tensor cores do: 13 fractional bits, truncated.
    Hopper,
    /// In f32.
    ExactF32,
}

/// Schedule and strictness of one launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Seed of every random choice.
    pub seed: u64,
    /// Completion of TMA copies.
    pub tma: Policy,
    /// Completion of wgmma.
    pub wgmma: Policy,
    /// Treatment of registers in flight.
    pub in_flight: InFlight,
    /// FP8 arithmetic.
    pub fp8: Fp8Accumulation,
    /// Whether definedness is checked. Bounds and alignment always are.
    pub checks: bool,
    /// Whether data races and missing proxy fences are looked for, where `checks` is on too.
    pub races: bool,
    /// Warp instructions one block may execute before it counts as stuck, and all blocks together while every warp that
    /// runs polls memory in vain.
    pub step_limit: u64,
    /// Whether the launch is profiled: [`Report::profile`](crate::Report::profile). Ordinary runs keep their speed.
    pub profile: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            seed: 0,
            tma: Policy::Eager,
            wgmma: Policy::Eager,
            in_flight: InFlight::Strict,
            fp8: Fp8Accumulation::Hopper,
            checks: true,
            races: true,
            step_limit: 200_000_000,
            profile: false,
        }
    }
}

impl Schedule {
    pub(crate) fn is_random(&self) -> bool {
        self.tma == Policy::Random || self.wgmma == Policy::Random
    }

    /// The same policy for every class of operation.
    pub fn with(policy: Policy, seed: u64) -> Self {
        Self { seed, tma: policy, wgmma: policy, ..Self::default() }
    }
}

/// SplitMix64: small, fast and good enough to pick the next warp.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
