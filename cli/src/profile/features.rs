//! What a loop does, in terms that PTX and machine code share: by it a loop of one is found in the other.

use narrowgauge::sim::Class;

/// Instructions of a loop's body by what both languages agree on; integer work, conversions and control are left out,
/// because ptxas rewrites them freely.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Features([f64; COUNT]);

const COUNT: usize = 13;
const TENSOR: usize = 0;
const BULK: usize = 1;
const SHARED: usize = 2;
const WARP: usize = 3;
const FLOAT: usize = 4;
/// Four widths each: at most 2, 4, 8 and 16 bytes a lane.
const LOADS: usize = 5;
const STORES: usize = 9;

/// Of two loops that fit as well as each other, the weights decide by what is rare.
const WEIGHTS: [f64; COUNT] = [64.0, 64.0, 8.0, 8.0, 1.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0];

fn width(bytes: u32) -> usize {
    match bytes {
        0..=2 => 0,
        3..=4 => 1,
        5..=8 => 2,
        _ => 3,
    }
}

impl Features {
    /// Adds a PTX instruction.
    pub fn ptx(&mut self, class: Class, opcode: &str) {
        let mut parts = opcode.split('.');
        let first = parts.next().unwrap_or_default();
        let at = match class {
            Class::Tensor => TENSOR,
            Class::Bulk if first == "cp" && (opcode.contains(".tensor") || opcode.contains(".bulk.")) => {
                if opcode.contains("group") && !opcode.contains("shared") {
                    return;
                }
                BULK
            }
            Class::Shared => SHARED,
            Class::Warp => WARP,
            Class::Float => FLOAT,
            Class::Global => {
                let vector =
                    parts.clone().find_map(|part| part.strip_prefix('v')?.parse::<u32>().ok()).unwrap_or(1);
                let bits = parts
                    .next_back()
                    .and_then(|ty| ty.trim_start_matches(|c: char| c.is_alphabetic()).parse().ok());
                let bytes = vector * bits.unwrap_or(32) / 8;
                (if first == "ld" { LOADS } else { STORES }) + width(bytes)
            }
            _ => return,
        };
        self.0[at] += 1.0;
    }

    /// Adds an instruction of machine code.
    pub fn sass(&mut self, opcode: &str) {
        let mut parts = opcode.split('.');
        let stem = parts.next().unwrap_or_default();
        let bytes = parts.fold(4, |bytes, part| match part {
            "128" => 16,
            "64" => 8,
            "U16" | "S16" => 2,
            "U8" | "S8" => 1,
            _ => bytes,
        });
        let at = match stem {
            "LDG" => LOADS + width(bytes),
            "STG" | "ATOMG" | "ATOM" | "RED" | "REDG" => STORES + width(bytes),
            "LDS" | "STS" | "LDSM" | "STSM" | "ATOMS" => SHARED,
            "SHFL" | "VOTE" | "MATCH" | "REDUX" => WARP,
            "FADD" | "FMUL" | "FFMA" | "FSETP" | "FMNMX" | "FSEL" | "MUFU" => FLOAT,
            _ if stem.ends_with("MMA") => TENSOR,
            _ if stem.starts_with("UBLK") || stem.starts_with("UTMA") && stem != "UTMACCTL" => BULK,
            _ => return,
        };
        self.0[at] += 1.0;
    }

    fn dot(&self, other: &Self) -> f64 {
        self.0.iter().zip(&other.0).zip(WEIGHTS).map(|((a, b), weight)| a * b * weight).sum()
    }

    /// How alike two bodies are, whatever the times that one is unrolled: the cosine between them, 1 for the same.
    pub fn likeness(&self, other: &Self) -> f64 {
        let lengths = (self.dot(self) * other.dot(other)).sqrt();
        if lengths == 0.0 { 0.0 } else { self.dot(other) / lengths }
    }

    /// How many times `self` is in `other`.
    pub fn times_in(&self, other: &Self) -> f64 {
        let own = self.dot(self);
        if own == 0.0 { 0.0 } else { self.dot(other) / own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ptx(all: &[(Class, &str)]) -> Features {
        let mut out = Features::default();
        all.iter().for_each(|(class, opcode)| out.ptx(*class, opcode));
        out
    }

    fn sass(all: &[&str]) -> Features {
        let mut out = Features::default();
        all.iter().for_each(|opcode| out.sass(opcode));
        out
    }

    #[test]
    fn an_unrolled_copy_is_found_by_its_width() {
        let copy = ptx(&[
            (Class::Global, "ld.global.nc.v4.u32"),
            (Class::Integer, "add.s64"),
            (Class::Global, "st.global.v4.u32"),
        ]);
        let wide = sass(&["LDG.E.128", "IADD3", "STG.E.128", "LDG.E.128.CONSTANT", "STG.E.128", "BRA"]);
        let narrow = sass(&["LDG.E.U16", "STG.E.U16"]);
        assert!(copy.likeness(&wide) > 0.99 && copy.likeness(&narrow) == 0.0);
        assert_eq!(copy.times_in(&wide), 2.0);
    }

    #[test]
    fn products_and_copies_are_told_apart() {
        let product = ptx(&[(Class::Tensor, "wgmma.mma_async.sync"), (Class::Float, "fma.rn.f32")]);
        let copy = ptx(&[
            (Class::Bulk, "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"),
            (Class::Bulk, "cp.async.bulk.commit_group"),
        ]);
        assert_eq!(product.likeness(&sass(&["QGMMA.64x64x32.F32", "FFMA"])), 1.0);
        assert_eq!(copy.likeness(&sass(&["UTMALDG.3D", "UTMACCTL.PF"])), 1.0);
        assert_eq!(Features::default().likeness(&copy), 0.0);
        assert_eq!(Features::default().times_in(&copy), 0.0);
    }
}
