//! Cards and their ceilings: what a plan is made for and what a measurement is compared with.

use std::borrow::Cow;
use std::fmt;

/// A card: its size and its published dense ceilings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Card {
    /// The marketing name, `H20`.
    pub name: Cow<'static, str>,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Boost clock, GHz.
    pub clock_ghz: f64,
    /// Dense FP8 tensor rate with f32 accumulation, TFLOPS; 0 where the card has no FP8 tensor cores.
    pub fp8_tflops: f64,
    /// Dense bf16 tensor rate with f32 accumulation, TFLOPS.
    pub bf16_tflops: f64,
    /// Memory bandwidth, GB/s.
    pub memory_gbps: f64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// L2 cache, bytes; 0 where unknown.
    pub l2_bytes: u64,
    /// Largest shared memory of one block, bytes.
    pub shared_per_block: u32,
    /// Shared memory of one multiprocessor, bytes.
    pub shared_per_sm: u32,
}

const GB: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;
const KIB: u32 = 1 << 10;

macro_rules! cards {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $cc:expr, $sms:literal, $clock:literal, $fp8:literal, $bf16:literal,
        $gbps:literal, $gb:literal, $l2:literal, $block:literal, $sm:literal;)+) => {
        impl Card {
            $($(#[$doc])*
            pub const $id: Self = Self {
                name: Cow::Borrowed($name),
                compute_capability: $cc,
                sms: $sms,
                clock_ghz: $clock,
                fp8_tflops: $fp8,
                bf16_tflops: $bf16,
                memory_gbps: $gbps,
                memory_bytes: $gb * GB,
                l2_bytes: $l2 * MIB,
                shared_per_block: $block * KIB,
                shared_per_sm: $sm * KIB,
            };)+

            /// Every card that this crate knows.
            pub const ALL: &'static [Self] = &[$(Self::$id),+];
        }
    };
}

cards! {
    /// H200 SXM.
    H200 = "H200", (9, 0), 132, 1.98, 1979.0, 989.0, 4800.0, 141, 60, 227, 228;
    /// H800 SXM.
    H800 = "H800", (9, 0), 132, 1.98, 1979.0, 989.0, 3350.0, 80, 50, 227, 228;
    /// H800 PCIe.
    H800_PCIE = "H800 PCIe", (9, 0), 114, 1.755, 1513.0, 756.0, 2000.0, 80, 50, 227, 228;
    /// H20 96 GB.
    H20 = "H20", (9, 0), 78, 1.98, 296.0, 148.0, 4000.0, 96, 60, 227, 228;
    /// A800 SXM 80 GB: no FP8 tensor cores.
    A800 = "A800", (8, 0), 108, 1.41, 0.0, 312.0, 2039.0, 80, 40, 163, 164;
    /// L20.
    L20 = "L20", (8, 9), 92, 2.52, 239.0, 119.5, 864.0, 48, 96, 99, 100;
    /// GeForce RTX 4090 D.
    RTX_4090_D = "RTX 4090 D", (8, 9), 114, 2.52, 294.0, 147.0, 1008.0, 24, 72, 99, 100;
    /// GeForce RTX 5090 D.
    RTX_5090_D = "RTX 5090 D", (12, 0), 170, 2.407, 297.0, 148.0, 1792.0, 32, 96, 99, 100;
}

impl Card {
    /// The card of that name, in any case and with `-`, `_` or nothing for spaces: `h20`, `rtx-4090-d`.
    pub fn find(name: &str) -> Option<Self> {
        let plain = |text: &str| text.to_lowercase().replace([' ', '-', '_'], "");
        Self::ALL.iter().find(|card| plain(&card.name) == plain(name)).cloned()
    }

    /// The card behind a driver's device name, if it is known and has that many multiprocessors; otherwise ceilings
    /// estimated from the clock and the architecture's rate per multiprocessor (0 where that is not known).
    #[cfg(feature = "cuda")]
    pub(crate) fn estimate(
        name: &str,
        compute_capability: (u32, u32),
        sms: u32,
        clock_ghz: f64,
        memory_gbps: f64,
    ) -> Self {
        let short = name.trim_start_matches("NVIDIA ").trim_start_matches("GeForce ");
        let known = Self::ALL
            .iter()
            .filter(|card| card.compute_capability == compute_capability && card.sms == sms)
            .find(|card| short.split([' ', '-']).next() == card.name.split(' ').next() || short == card.name);
        if let Some(card) = known {
            return card.clone();
        }
        // Dense operations per clock and multiprocessor.
        let (fp8, bf16) = match compute_capability {
            (9, 0) => (8192.0, 4096.0),
            (8, 0) => (0.0, 2048.0),
            (8, 9) => (1024.0, 512.0),
            _ => (0.0, 0.0),
        };
        let tflops = |rate: f64| rate * f64::from(sms) * clock_ghz / 1e3;
        Self {
            name: Cow::Owned(short.to_owned()),
            compute_capability,
            sms,
            clock_ghz,
            fp8_tflops: tflops(fp8),
            bf16_tflops: tflops(bf16),
            memory_gbps,
            memory_bytes: 0,
            l2_bytes: 0,
            shared_per_block: 0,
            shared_per_sm: 0,
        }
    }

    /// The architecture whose kernels the card runs, as in nvcc's `sm_90a`: `90a`.
    pub fn arch(&self) -> String {
        let (major, minor) = self.compute_capability;
        // The `a` features (wgmma, TMA in full) exist from 9.0 on and are tied to exactly that architecture.
        let suffix = if major >= 9 { "a" } else { "" };
        format!("{major}{minor}{suffix}")
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_found_by_any_spelling() {
        for card in Card::ALL {
            assert_eq!(Card::find(&card.name).as_ref(), Some(card));
        }
        assert_eq!(Card::find("h20"), Some(Card::H20));
        assert_eq!(Card::find("rtx-4090-d"), Some(Card::RTX_4090_D));
        assert_eq!(Card::find("h100"), None);
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn device_names_lead_to_cards() {
        let of = |name, cc, sms| Card::estimate(name, cc, sms, 1.98, 1000.0).name.into_owned();
        assert_eq!(of("NVIDIA H20", (9, 0), 78), "H20");
        assert_eq!(of("NVIDIA H20-3e", (9, 0), 78), "H20");
        assert_eq!(of("NVIDIA H200", (9, 0), 132), "H200");
        assert_eq!(of("NVIDIA H800", (9, 0), 132), "H800");
        assert_eq!(of("NVIDIA H800", (9, 0), 114), "H800 PCIe");
        assert_eq!(of("NVIDIA A800-SXM4-80GB", (8, 0), 108), "A800");
        assert_eq!(of("NVIDIA GeForce RTX 4090 D", (8, 9), 114), "RTX 4090 D");
        let other = Card::estimate("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.83, 3350.0);
        assert_eq!(other.name, "H100 80GB HBM3");
        assert!((other.fp8_tflops - 1979.0).abs() < 1.0 && (other.bf16_tflops - 989.5).abs() < 1.0);
    }

    #[test]
    fn architectures_are_named_as_nvcc_does() {
        assert_eq!(Card::H20.arch(), "90a");
        assert_eq!(Card::A800.arch(), "80");
        assert_eq!(Card::L20.arch(), "89");
        assert_eq!(Card::RTX_5090_D.arch(), "120a");
    }
}
