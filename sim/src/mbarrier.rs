//! The state machine of an mbarrier object.

use std::fmt;

/// Largest count of arrivals, and largest magnitude of the transaction count.
pub const MOST: u32 = (1 << 20) - 1;

/// An mbarrier object; uninitialised by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mbarrier {
    live: bool,
    phase: u64,
    expected: u32,
    pending: u32,
    transactions: i64,
}

/// Misuse of an mbarrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MbarrierError {
    /// Any operation but `init` on an object that is not initialised.
    Uninitialised,
    /// `init` of a live object without `inval`.
    Reinitialised,
    /// A count outside 1..2^20.
    Count(u32),
    /// More arrivals than the phase has left.
    OverArrival {
        /// Arrivals of this operation.
        arrivals: u32,
        /// Arrivals that the phase still expects.
        pending: u32,
    },
    /// An arrival that was to leave its phase open ends it.
    Completes,
    /// The transaction count leaves ±(2^20 - 1).
    TransactionOverflow(i64),
    /// A waiter that polled for a phase and missed its end: the parity it waits for now means another phase.
    Aliased {
        /// The phase that it waits for.
        waited: u64,
        /// The phase that the object is in.
        phase: u64,
    },
    /// A state token of neither the current phase nor the one before.
    StaleState {
        /// The token's phase.
        token: u64,
        /// The phase that the object is in.
        phase: u64,
    },
}

impl fmt::Display for MbarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uninitialised => write!(f, "the mbarrier is not initialised"),
            Self::Reinitialised => write!(f, "mbarrier.init of a live mbarrier without mbarrier.inval"),
            Self::Count(count) => write!(f, "mbarrier count {count} is not in 1..={MOST}"),
            Self::OverArrival { arrivals, pending } => {
                write!(f, "{arrivals} arrivals, but the mbarrier's phase expects only {pending} more")
            }
            Self::Completes => write!(f, "an arrival marked .noComplete completes the mbarrier's phase"),
            Self::TransactionOverflow(count) => write!(f, "mbarrier tx-count {count} leaves ±{MOST}"),
            Self::Aliased { waited, phase } => write!(
                f,
                "parity aliasing: a waiter for the end of phase {waited} missed it, the mbarrier is in phase {phase} by now"
            ),
            Self::StaleState { token, phase } => {
                write!(f, "an mbarrier state of phase {token}, but the mbarrier is in phase {phase}")
            }
        }
    }
}

impl std::error::Error for MbarrierError {}

impl fmt::Display for Mbarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.live {
            return write!(f, "uninitialised");
        }
        let Mbarrier { phase, expected, pending, transactions, .. } = self;
        write!(f, "phase {phase}, {pending} of {expected} arrivals and {transactions} bytes outstanding")
    }
}

type Result<T> = std::result::Result<T, MbarrierError>;

fn counted(count: u32) -> Result<u32> {
    if (1..=MOST).contains(&count) { Ok(count) } else { Err(MbarrierError::Count(count)) }
}

impl Mbarrier {
    /// Whether `init` was called and `inval` was not.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Phases completed since `init`.
    pub fn phase(&self) -> u64 {
        self.phase
    }

    /// Makes the object live, in phase 0, expecting `count` arrivals a phase.
    pub fn init(&mut self, count: u32) -> Result<()> {
        if self.live {
            return Err(MbarrierError::Reinitialised);
        }
        let count = counted(count)?;
        *self = Mbarrier { live: true, phase: 0, expected: count, pending: count, transactions: 0 };
        Ok(())
    }

    /// Ends the object's life: its memory may be used otherwise.
    pub fn inval(&mut self) -> Result<()> {
        self.check()?;
        *self = Mbarrier::default();
        Ok(())
    }

    /// `count` arrivals. Returns the state token from before.
    pub fn arrive(&mut self, count: u32) -> Result<u64> {
        self.check()?;
        let count = counted(count)?;
        if count > self.pending {
            return Err(MbarrierError::OverArrival { arrivals: count, pending: self.pending });
        }
        let state = self.phase << 20 | u64::from(self.pending);
        self.pending -= count;
        self.turn();
        Ok(state)
    }

    /// `count` arrivals that no later phase expects either.
    pub fn arrive_drop(&mut self, count: u32) -> Result<u64> {
        self.check()?;
        let count = counted(count)?;
        if count > self.pending {
            return Err(MbarrierError::OverArrival { arrivals: count, pending: self.pending });
        }
        self.expected -= count;
        self.arrive(count)
    }

    /// Expects `bytes` more of asynchronous copies in this phase.
    pub fn expect_tx(&mut self, bytes: u32) -> Result<()> {
        self.transact(i64::from(bytes))
    }

    /// `bytes` of asynchronous copies have landed.
    pub fn complete_tx(&mut self, bytes: u32) -> Result<()> {
        self.transact(-i64::from(bytes))?;
        self.turn();
        Ok(())
    }

    /// One arrival more in this phase: a copy will make it.
    pub fn expect_arrival(&mut self) -> Result<()> {
        self.check()?;
        self.pending = counted(self.pending + 1)?;
        Ok(())
    }

    /// `count` arrivals of which the program promises that they do not end the phase (`.noComplete`).
    pub fn promise_open(&self, count: u32) -> Result<()> {
        self.check()?;
        if count >= self.pending && self.transactions == 0 { Err(MbarrierError::Completes) } else { Ok(()) }
    }

    /// `expect_tx`, then one arrival that no later phase expects either.
    pub fn arrive_drop_expect_tx(&mut self, bytes: u32) -> Result<u64> {
        self.check()?;
        if self.pending == 0 {
            return Err(MbarrierError::OverArrival { arrivals: 1, pending: 0 });
        }
        self.expect_tx(bytes)?;
        self.arrive_drop(1)
    }

    /// `expect_tx`, then one arrival.
    pub fn arrive_expect_tx(&mut self, bytes: u32) -> Result<u64> {
        self.check()?;
        if self.pending == 0 {
            return Err(MbarrierError::OverArrival { arrivals: 1, pending: 0 });
        }
        self.expect_tx(bytes)?;
        self.arrive(1)
    }

    /// Whether the phase of this parity is over. `last_seen` is the waiter's memory: the phase that it last polled
    /// in vain; it starts as `None` and belongs to one waiter and one object.
    pub fn test_parity(&self, parity: u32, last_seen: &mut Option<u64>) -> Result<bool> {
        self.check()?;
        let parity = u64::from(parity & 1);
        if let Some(waited) = *last_seen
            && waited & 1 == parity
            && self.phase >= waited + 2
        {
            return Err(MbarrierError::Aliased { waited, phase: self.phase });
        }
        let over = self.phase & 1 != parity;
        *last_seen = if over { None } else { Some(self.phase) };
        Ok(over)
    }

    /// Whether the phase of a state token is over.
    pub fn test_state(&self, state: u64) -> Result<bool> {
        self.check()?;
        let token = state >> 20;
        if token == self.phase {
            Ok(false)
        } else if token + 1 == self.phase {
            Ok(true)
        } else {
            Err(MbarrierError::StaleState { token, phase: self.phase })
        }
    }

    /// Pending arrivals in a state token (`mbarrier.pending_count`).
    pub fn pending_count(state: u64) -> u32 {
        (state & u64::from(MOST)) as u32
    }

    fn check(&self) -> Result<()> {
        if self.live { Ok(()) } else { Err(MbarrierError::Uninitialised) }
    }

    fn transact(&mut self, bytes: i64) -> Result<()> {
        self.check()?;
        let sum = self.transactions + bytes;
        if sum.abs() > i64::from(MOST) {
            return Err(MbarrierError::TransactionOverflow(sum));
        }
        self.transactions = sum;
        Ok(())
    }

    fn turn(&mut self) {
        if self.pending == 0 && self.transactions == 0 {
            self.phase += 1;
            self.pending = self.expected;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(count: u32) -> Mbarrier {
        let mut barrier = Mbarrier::default();
        barrier.init(count).unwrap();
        barrier
    }

    #[test]
    fn a_fresh_barrier_passes_parity_one() {
        let barrier = barrier(1);
        assert!(barrier.test_parity(1, &mut None).unwrap());
        assert!(!barrier.test_parity(0, &mut None).unwrap());
    }

    #[test]
    fn phases_turn_when_arrivals_and_bytes_are_complete() {
        let mut full = barrier(2);
        full.complete_tx(100).unwrap();
        full.arrive(1).unwrap();
        full.arrive_expect_tx(300).unwrap();
        assert_eq!(full.phase(), 0);
        full.complete_tx(199).unwrap();
        assert!(!full.test_parity(0, &mut None).unwrap());
        full.complete_tx(1).unwrap();
        assert!(full.test_parity(0, &mut None).unwrap());
        assert!(!full.test_parity(1, &mut None).unwrap());
        // Bytes that land early, even all of them, do not end a phase by themselves.
        full.expect_tx(64).unwrap();
        full.complete_tx(64).unwrap();
        assert_eq!(full.phase(), 1);
        full.arrive(2).unwrap();
        assert_eq!(full.phase(), 2);
    }

    #[test]
    fn dropped_arrivals_stay_dropped() {
        let mut barrier = barrier(3);
        barrier.arrive_drop(1).unwrap();
        barrier.arrive(2).unwrap();
        assert_eq!(barrier.phase(), 1);
        barrier.arrive(2).unwrap();
        assert_eq!(barrier.phase(), 2);
    }

    #[test]
    fn state_tokens() {
        let mut barrier = barrier(2);
        let state = barrier.arrive(1).unwrap();
        assert_eq!(Mbarrier::pending_count(state), 2);
        assert!(!barrier.test_state(state).unwrap());
        let last = barrier.arrive(1).unwrap();
        assert_eq!(Mbarrier::pending_count(last), 1);
        assert!(barrier.test_state(state).unwrap());
        barrier.arrive(2).unwrap();
        assert_eq!(barrier.test_state(state), Err(MbarrierError::StaleState { token: 0, phase: 2 }));
    }

    #[test]
    fn a_waiter_that_misses_its_phase_is_told() {
        let mut barrier = barrier(1);
        let mut memory = None;
        assert!(!barrier.test_parity(0, &mut memory).unwrap());
        barrier.arrive(1).unwrap();
        barrier.arrive(1).unwrap();
        let error = barrier.test_parity(0, &mut memory).unwrap_err();
        assert_eq!(error, MbarrierError::Aliased { waited: 0, phase: 2 });
        assert!(error.to_string().contains("parity aliasing"));
        // A waiter that skips phases knowingly is not accused.
        let mut skipping = None;
        assert!(barrier.test_parity(1, &mut skipping).unwrap());
        (0..3).for_each(|_| _ = barrier.arrive(1).unwrap());
        assert!(barrier.test_parity(0, &mut skipping).unwrap());
    }

    #[test]
    fn misuse() {
        let mut barrier = Mbarrier::default();
        assert_eq!(barrier.arrive(1), Err(MbarrierError::Uninitialised));
        assert_eq!(barrier.expect_tx(1), Err(MbarrierError::Uninitialised));
        assert_eq!(barrier.test_parity(0, &mut None), Err(MbarrierError::Uninitialised));
        assert_eq!(barrier.inval(), Err(MbarrierError::Uninitialised));
        assert_eq!(barrier.init(0), Err(MbarrierError::Count(0)));
        assert_eq!(barrier.init(1 << 20), Err(MbarrierError::Count(1 << 20)));
        barrier.init(2).unwrap();
        assert_eq!(barrier.init(2), Err(MbarrierError::Reinitialised));
        assert_eq!(barrier.arrive(3), Err(MbarrierError::OverArrival { arrivals: 3, pending: 2 }));
        barrier.arrive(1).unwrap();
        barrier.arrive_expect_tx(16).unwrap();
        assert_eq!(barrier.arrive_expect_tx(16), Err(MbarrierError::OverArrival { arrivals: 1, pending: 0 }));
        assert_eq!(barrier.to_string(), "phase 0, 0 of 2 arrivals and 16 bytes outstanding");
        assert_eq!(barrier.expect_tx(MOST), Err(MbarrierError::TransactionOverflow(i64::from(MOST) + 16)));
        barrier.inval().unwrap();
        barrier.init(1).unwrap();
        assert_eq!(barrier.complete_tx(1 << 20), Err(MbarrierError::TransactionOverflow(-(1 << 20))));
    }
}
