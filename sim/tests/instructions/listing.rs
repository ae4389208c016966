//! Every opcode that the simulator knows has a test.

use narrowgauge_sim::{Module, opcodes};
use std::collections::BTreeSet;
use std::path::Path;

/// Whether some text names the opcode as PTX does: `name.modifier`, or alone before an operand or the end of a statement.
fn names(text: &str, opcode: &str) -> bool {
    text.match_indices(opcode).any(|(at, _)| {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        let mut after = text[at + opcode.len()..].chars();
        let whole = !(before.is_alphanumeric() || matches!(before, '_' | '.' | '%'));
        whole
            && match after.next() {
                Some('.') => after.next().is_some_and(|c| c.is_alphanumeric() || c == '{'),
                Some(';') => true,
                Some(' ') => after
                    .next()
                    .is_some_and(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '%' | '(')),
                _ => false,
            }
    })
}

/// The texts of the tests.
fn sources() -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut text = String::new();
    // What is about several blocks has a folder of its own.
    for folder in ["instructions", "blocks"] {
        for entry in std::fs::read_dir(tests.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != "listing.rs" {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_opcode_is_tested() {
    let text = sources();
    // Names that a loop puts together with their modifiers.
    let quoted =
        |opcode: &str| text.contains(&format!("(\"{opcode}\"")) || text.contains(&format!("\"{opcode}\","));
    let missing: Vec<_> = opcodes().filter(|o| !names(&text, o) && !quoted(o)).collect();
    assert!(opcodes().count() > 70);
    assert!(missing.is_empty(), "no test of {missing:?}");
}

/// Every spelling that a test has, with every number of operands of one kind: read or refused.
#[test]
fn missing_operands_are_refused() {
    let known: Vec<_> = opcodes().collect();
    let text = sources();
    let words = text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_' | ':')));
    let spellings: BTreeSet<_> =
        words.filter(|word| word.split_once('.').is_some_and(|(name, _)| known.contains(&name))).collect();
    assert!(spellings.len() > 500, "{}", spellings.len());
    let mut refused = 0;
    for spelling in spellings {
        for operand in ["%r0", "%d0", "%h0", "%p0", "[%r0]", "[%d0]", "{}", "{%r0, %r1}", "0", "x"] {
            for count in 0..5 {
                let operands = vec![operand; count].join(", ");
                let text = format!(
                    ".version 9.0\n.target sm_90a\n.global .b32 x;\n.visible .entry k()\n{{\n.reg .b16 %h<2>; .reg .b32 %r<4>; .reg .b64 %d<4>; .reg .pred %p<2>;\n{spelling} {operands};\n}}"
                );
                let outcome = std::panic::catch_unwind(|| Module::parse(&text).is_err());
                refused += usize::from(outcome.unwrap_or_else(|_| panic!("{spelling} {operands}")));
            }
        }
    }
    assert!(refused > 20_000, "{refused}");
}

/// What was not understood is not ignored.
#[test]
fn modifiers_that_mean_nothing_are_refused() {
    for wrong in [
        "add.rm.ftz.f64 %d0, %d1, %d2",
        "add.sat.u32 %r0, %r1, %r2",
        "add.relu.f32 %r0, %r1, %r2",
        "fma.rn.sat.bf16x2 %r0, %r1, %r2, %r3",
        "max.ftz.bf16x2 %r0, %r1, %r2",
        "min.NaN.u32 %r0, %r1, %r2",
        "cvt.rn.relu.f32.f64 %r0, %d1",
        "cvt.rn.e4m3x2.f32 %r0, %r1, %r2",
        "setp.lt.sat.f32 %p0, %r0, %r1",
        "shf.l.b32 %r0, %r1, %r2, %r3",
        "prmt.b32.f5e %r0, %r1, %r2, %r3",
        "mul.u32 %r0, %r1, %r2",
        "ld.global.frozen.u32 %r0, [%d0]",
        "ld.release.gpu.global.u32 %r0, [%d0]",
        "st.acquire.gpu.global.u32 [%d0], %r0",
        "st.global.f16x2 [%d0], %r0",
        "atom.global.add.rz.f32 %r0, [%d0], %r1",
        "fence.proxy.texture",
        "bar.sync.relaxing 0",
        "shfl.sync.rotate.b32 %r0, %r1, 1, 31, -1",
        "cp.async.bulk.commit_group.later",
        "mbarrier.init.shared::cta.b32 [%r0], 1",
    ] {
        let text = format!(
            ".version 9.0\n.target sm_90a\n.visible .entry k()\n{{\n.reg .b32 %r<4>; .reg .b64 %d<4>; .reg .pred %p<2>;\n{wrong};\n}}"
        );
        let error = Module::parse(&text).map(|_| ()).expect_err(wrong);
        assert!(error.what.contains(wrong.split(' ').next().unwrap()), "{error}");
    }
}
