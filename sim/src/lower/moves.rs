//! Moves, address conversions and special registers.

use super::arithmetic::Spelling;
use super::instruction::type_named;
use super::program::{Kind, Rule, S32, S64, Space, Special, Type};
use super::{Lowered, Lowering, Place, Register, rows};
use crate::ast::{Instruction, Operand};
use crate::counters::Class;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};

impl Lowering<'_> {
    pub(super) fn moves(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let kind = match s.name {
            "prefetch" | "prefetchu" => Kind::Nothing,
            "createpolicy" => copy64(self.d64(&o[0])?, S64::Imm(0)),
            "mapa" => {
                let bytes = if s.last() == "u64" { 8 } else { 4 };
                Kind::MapRank { d: self.dst(&o[0])?, a: self.src(&o[1], bytes)?, rank: self.s32(&o[2])? }
            }
            "getctarank" => {
                let bytes = if s.last() == "u64" { 8 } else { 4 };
                Kind::RankOf { d: self.d32(&o[0])?, a: self.src(&o[1], bytes)? }
            }
            "cvta" => return self.cvta(i, s),
            "isspacep" => {
                let space = match s.last() {
                    "global" => Space::Global,
                    "shared" | "shared::cta" => Space::Shared,
                    "shared::cluster" => Space::Cluster,
                    "local" => Space::Local,
                    "param" | "param::entry" => Space::Param,
                    _ => return self.unknown(i),
                };
                Kind::SpaceTest { p: self.predicate(&o[0])?, a: self.s64(&o[1])?, space }
            }
            _ => return self.mov(i, s),
        };
        Ok((kind, Class::Integer))
    }

    fn cvta(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let o = &i.operands;
        let d = self.d64(&o[0])?;
        let window = match s.modifiers.iter().find(|m| !matches!(**m, "to" | "u64")) {
            Some(&"global") | Some(&"const") => {
                if let Operand::Symbol(..) = o[1] {
                    return Ok((self.symbol64(d, &o[1])?, Class::Integer));
                }
                0
            }
            Some(&"shared") | Some(&"shared::cta") | Some(&"shared::cluster") => SHARED_WINDOW,
            Some(&"local") => LOCAL_WINDOW,
            Some(&"param") | Some(&"param::entry") => PARAM_WINDOW,
            _ => return self.unknown(i),
        };
        let a = self.s64(&o[1])?;
        let f: super::arithmetic::G2 = if s.has("to") {
            |a, b| rows::map2(a, b, u64::wrapping_sub)
        } else {
            |a, b| rows::map2(a, b, u64::wrapping_add)
        };
        Ok((Kind::Bin64 { f, rule: Rule::Spread, d, a, b: S64::Imm(window) }, Class::Integer))
    }

    fn symbol64(&self, d: u32, operand: &Operand) -> Lowered<Kind> {
        if let Operand::Symbol(name, addend) = operand
            && let Some(Place::Module(index)) = self.places.get(name)
        {
            return Ok(Kind::VariableAddress { d, index: *index, offset: *addend });
        }
        Ok(copy64(d, self.s64(operand)?))
    }

    fn mov(&self, i: &Instruction, s: &Spelling<'_>) -> Lowered<(Kind, Class)> {
        let [to, from] = &i.operands[..] else { return self.unknown(i) };
        let Some(ty) = type_named(s.last()) else { return self.unknown(i) };
        let bytes = ty.bytes();
        let kind = match (to, from) {
            (Operand::Vector(parts), _) | (_, Operand::Vector(parts)) if parts.is_empty() => {
                return self.unknown(i);
            }
            (Operand::Vector(parts), a) => {
                let bits = 8 * bytes / parts.len() as u32;
                let parts = parts.iter().map(|p| self.dst(p)).collect::<Lowered<Vec<_>>>()?;
                Kind::Unpack { parts, a: self.src(a, bytes)?, bits }
            }
            (d, Operand::Vector(parts)) => {
                let bits = 8 * bytes / parts.len() as u32;
                let parts = parts
                    .iter()
                    .map(|p| self.src(p, if bits == 64 { 8 } else { 4 }))
                    .collect::<Lowered<Vec<_>>>()?;
                Kind::Pack { d: self.dst(d)?, parts, bits }
            }
            (d, a) if ty == Type::Pred => match a {
                Operand::Register(name) if name == "%is_explicit_cluster" => {
                    Kind::ExplicitCluster { d: self.predicate(d)? }
                }
                Operand::Integer(value) => Kind::PredImmediate { d: self.predicate(d)?, value: *value != 0 },
                _ => Kind::PredMove { d: self.predicate(d)?, a: self.sp(a)? },
            },
            (d, Operand::Register(name)) if !self.registers.contains_key(name) && name != "WARP_SZ" => {
                let Some(which) = special(name) else {
                    return self.error(format!("the simulator does not know the special register `{name}`"));
                };
                Kind::Special { d: self.dst(d)?, which }
            }
            (d, a) if bytes == 8 => {
                let d = self.d64(d)?;
                if matches!(a, Operand::Register(n) if matches!(self.registers.get(n), Some(Register::R32(_))))
                {
                    return self.unknown(i);
                }
                self.symbol64(d, a)?
            }
            (d, a) => {
                let mut a = self.s32(a)?;
                if let (2, S32::Imm(value)) = (bytes, &mut a) {
                    *value &= 0xffff;
                }
                Kind::Un32 { f: |a| *a, rule: Rule::Move, d: self.d32(d)?, a }
            }
        };
        Ok((kind, Class::Integer))
    }
}

fn copy64(d: u32, a: S64) -> Kind {
    Kind::Un64 { f: |a| *a, rule: Rule::Move, d, a }
}

fn special(name: &str) -> Option<Special> {
    let axis = |suffix: &str| match suffix {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((base, suffix)) = name.rsplit_once('.') {
        let axis = axis(suffix)?;
        return Some(match base {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" => Special::Ctaid(axis),
            "%nctaid" => Special::Nctaid(axis),
            "%cluster_ctaid" => Special::ClusterCtaid(axis),
            "%cluster_nctaid" => Special::ClusterNctaid(axis),
            "%clusterid" => Special::Clusterid(axis),
            "%nclusterid" => Special::Nclusterid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::Laneid,
        "%warpid" => Special::Warpid,
        "%nwarpid" => Special::Nwarpid,
        "%smid" => Special::Smid,
        "%nsmid" => Special::Nsmid,
        "%gridid" => Special::Gridid,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%clock" | "%clock64" | "%globaltimer" | "%globaltimer_lo" => Special::Clock,
        // As the driver sets them for a cooperative launch.
        "%envreg1" => Special::GridWorkspace(1),
        "%envreg2" => Special::GridWorkspace(0),
        "%clock_hi" | "%globaltimer_hi" => Special::ClockHigh,
        "%cluster_ctarank" => Special::ClusterCtarank,
        "%cluster_nctarank" => Special::ClusterNctarank,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        _ => return None,
    })
}
