//! Machine code as cuobjdump lists it, and its loops.

use super::features::Features;
use std::collections::{BTreeMap, HashMap};

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sass {
    pub address: u64,
    pub guarded: bool,
    /// With its modifiers.
    pub opcode: String,
    /// Where it may jump to.
    pub target: Option<u64>,
}

impl Sass {
    /// The opcode without modifiers.
    pub fn stem(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }

    /// What a load or a store moves for each lane.
    pub fn bytes(&self) -> u32 {
        let wide = self.opcode.split('.').find_map(|modifier| match modifier {
            "U8" | "S8" => Some(1),
            "U16" | "S16" => Some(2),
            "64" => Some(8),
            "128" => Some(16),
            _ => None,
        });
        wide.unwrap_or(4)
    }

    /// Whether the instruction after it never follows.
    fn ends(&self) -> bool {
        !self.guarded && matches!(self.stem(), "BRA" | "EXIT" | "RET" | "BRX" | "JMP")
            // A condition behind the opcode: `BRA P1, …` or `BRA.U.ANY …`.
            && !self.opcode.contains(".ANY")
    }
}

/// A natural loop of machine code.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SassLoop {
    /// Address of its first instruction.
    pub start: u64,
    /// Static instructions of its body, nested loops included.
    pub instructions: usize,
    /// How many there are of each opcode, modifiers aside.
    pub opcodes: BTreeMap<String, usize>,
    /// The same, as far as PTX knows it.
    pub features: Features,
}

impl SassLoop {
    fn has(&self, wanted: impl Fn(&str) -> bool) -> usize {
        self.opcodes.iter().filter(|(opcode, _)| wanted(opcode)).map(|(_, count)| count).sum()
    }

    /// Too little happens in it to be a main loop: it polls, or makes a register uniform.
    fn small(&self) -> bool {
        self.has(|opcode| {
            !matches!(opcode, "SYNCS" | "BRA" | "NANOSLEEP" | "NOP" | "R2UR" | "VOTEU" | "PLOP3")
        }) == 0
    }
}

/// Reads `/*0a40*/  @P1 BRA 0xb70 ;` and the like; everything else is skipped.
pub fn parse(text: &str) -> Vec<Sass> {
    text.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Sass> {
    let (address, rest) = text.trim_start().strip_prefix("/*")?.split_once("*/")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (code, _) = rest.split_once(';')?;
    let mut words = code.split_whitespace();
    let mut opcode = words.next()?;
    let mut guarded = false;
    if opcode.starts_with('@') {
        guarded = true;
        opcode = words.next()?;
    }
    let operands: Vec<&str> = words.collect();
    let jump = opcode.split('.').next() == Some("BRA");
    // A predicate before the target is a condition too.
    guarded |= jump && operands.len() > 1;
    let target = operands.last().and_then(|last| last.strip_prefix("0x")).filter(|_| jump);
    let target = target.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    Some(Sass { address, guarded, opcode: opcode.to_owned(), target })
}

/// The natural loops, by address: headers that dominate a jump back to them. Loops that only wait, or that make a
/// register uniform, are left out.
pub fn loops(code: &[Sass]) -> Vec<SassLoop> {
    let place: HashMap<u64, usize> = code.iter().enumerate().map(|(i, sass)| (sass.address, i)).collect();
    let mut leaders = vec![false; code.len()];
    let jump = |sass: &Sass| sass.target.and_then(|target| place.get(&target).copied());
    for (i, sass) in code.iter().enumerate() {
        let target = jump(sass);
        if let Some(target) = target {
            leaders[target] = true;
        }
        if (target.is_some() || sass.ends()) && i + 1 < code.len() {
            leaders[i + 1] = true;
        }
    }
    if let Some(first) = leaders.first_mut() {
        *first = true;
    }
    let starts: Vec<usize> = (0..code.len()).filter(|&i| leaders[i]).collect();
    let end = |block: usize| starts.get(block + 1).copied().unwrap_or(code.len());
    let block_of = |i: usize| starts.partition_point(|&start| start <= i) - 1;
    let mut predecessors = vec![Vec::new(); starts.len()];
    for block in 0..starts.len() {
        let last = &code[end(block) - 1];
        if let Some(target) = jump(last) {
            predecessors[block_of(target)].push(block);
        }
        if !last.ends() && block + 1 < starts.len() {
            predecessors[block + 1].push(block);
        }
    }
    let dominators = dominators(&predecessors);
    let mut found: Vec<(Vec<bool>, SassLoop)> = Vec::new();
    for header in 0..starts.len() {
        let mut left: Vec<usize> =
            predecessors[header].iter().copied().filter(|&from| dominators[from][header]).collect();
        if left.is_empty() {
            continue;
        }
        let mut inside = vec![false; starts.len()];
        inside[header] = true;
        while let Some(block) = left.pop() {
            if !std::mem::replace(&mut inside[block], true) {
                left.extend(&predecessors[block]);
            }
        }
        let mut body = SassLoop { start: code[starts[header]].address, ..SassLoop::default() };
        for block in (0..starts.len()).filter(|&block| inside[block]) {
            for sass in &code[starts[block]..end(block)] {
                body.instructions += 1;
                body.features.sass(&sass.opcode);
                *body.opcodes.entry(sass.stem().to_owned()).or_default() += 1;
            }
        }
        found.push((inside, body));
    }
    let uniform = |inside: &[bool]| {
        (0..starts.len())
            .filter(|&block| inside[block])
            .any(|block| code[end(block) - 1].opcode.contains(".ANY"))
            && inside.iter().filter(|inside| **inside).count() == 1
    };
    found
        .into_iter()
        .filter(|(inside, body)| !body.small() && !uniform(inside))
        .map(|(_, body)| body)
        .collect()
}

/// Which blocks dominate each block; execution begins at the first.
fn dominators(predecessors: &[Vec<usize>]) -> Vec<Vec<bool>> {
    let count = predecessors.len();
    let mut all = vec![vec![true; count]; count];
    if let Some(first) = all.first_mut() {
        first.fill(false);
        first[0] = true;
    }
    loop {
        let mut changed = false;
        for block in 1..count {
            let mut own = vec![!predecessors[block].is_empty(); count];
            for &from in &predecessors[block] {
                own.iter_mut().zip(&all[from]).for_each(|(mine, theirs)| *mine &= theirs);
            }
            own[block] = true;
            changed |= own != all[block];
            all[block] = own;
        }
        if !changed {
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop with a poll in line, one with a poll behind the end, and a jump that makes a register uniform.
    const LISTING: &str = "
        Function : e
        /*0000*/                   S2R R2, SR_TID.X ;      /* 0x0000000000027919 */
                                                           /* 0x000e220000002100 */
        /*0010*/              @!P0 BRA 0x90 ;
        /*0020*/                   FADD R1, R1, R1 ;
        /*0030*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR9+0x18000], R24 ;
        /*0040*/              @!P1 BRA 0x30 ;
        /*0050*/                   QGMMA.64x64x32.F32.E4M3.E4M3 R24, gdesc[UR16], RZ, !UPT ;
        /*0060*/                   FFMA R1, R1, R1, R2 ;
        /*0070*/              @!P2 BRA P3, 0x20 ;
        /*0080*/                   EXIT ;
        /*0090*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR9+0x18030], R0 ;
        /*00a0*/              @!P0 BRA 0x110 ;
        /*00b0*/                   R2UR UR1, R2 ;
        /*00c0*/                   UTMALDG.3D [UR8], [UR22] ;
        /*00d0*/               @P0 BRA.U.ANY 0xb0 ;
        /*00e0*/                   IADD3 R1, R1, 0x1, RZ ;
        /*00f0*/              @!P0 BRA 0x90 ;
        /*0100*/                   EXIT ;
        /*0110*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR9+0x18030], R0 ;
        /*0120*/              @!P0 BRA 0x110 ;
        /*0130*/                   BRA 0xb0 ;
        /*0140*/                   BRA 0x140;
";

    #[test]
    fn accesses_say_how_wide_they_are() {
        let code = parse(
            "/*0010*/ STL.128 [R1+0x8], R4 ;\n/*0020*/ @P0 LDL.LU.64 R2, [R1] ;\n/*0030*/ STL [R1], R2 ;",
        );
        assert_eq!(code.iter().map(Sass::bytes).collect::<Vec<_>>(), [16, 8, 4]);
    }

    #[test]
    fn lines_are_read() {
        let code = parse(LISTING);
        assert_eq!(code.len(), 21);
        assert_eq!((code[1].target, code[1].guarded), (Some(0x90), true));
        assert_eq!((code[5].stem(), code[5].target), ("QGMMA", None));
        assert!(code[7].guarded && code[7].target == Some(0x20));
        assert!(!code[20].guarded && code[20].target == Some(0x140));
    }

    #[test]
    fn main_loops_are_found_and_polls_are_not() {
        let loops = loops(&parse(LISTING));
        let [tensor, bulk] = loops.as_slice() else { panic!("two loops: {loops:?}") };
        assert_eq!((tensor.start, tensor.instructions, tensor.opcodes["QGMMA"]), (0x20, 6, 1));
        assert_eq!(tensor.opcodes["FFMA"], 1);
        // The poll behind the end belongs to it.
        assert_eq!((bulk.start, bulk.instructions, bulk.opcodes["UTMALDG"]), (0x90, 10, 1));
    }

    #[test]
    fn no_code_has_no_loops() {
        assert!(loops(&[]).is_empty());
    }
}
