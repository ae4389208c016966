use super::module;
use crate::ast::{Operand, Space};

const TEXT: &str = r#"
.version 9.0
.target sm_90a
.address_size 64
.global .align 4 .u32 table[2] = {1, 0x10};
.extern .shared .align 1024 .b8 dynamic[];
.visible .entry k(.param .u64 .ptr .global .align 4 k_param_0, .param .align 64 .b8 k_param_1[128])
.maxntid 384, 1, 1
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>;
    ld.param.u64 %rd1, [k_param_0+8];
    // begin inline asm
    { .reg .pred P1; LAB: @!P1 bra LAB; mov.b32 %r1, {%r2, %r2}; }
    { .reg .pred P1;
    LAB:
    @P1 bra LAB; }
    // end inline asm
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1+-16], 0f3F800000;
    ret;
}
"#;

fn body(text: &str) -> crate::ast::Ast {
    module(&text.replace(".reg .b32 %r<3>;", ".reg .b32 %r<3>; .reg .b64 %rd<2>;")).unwrap()
}

#[test]
fn scopes_have_their_own_registers_and_labels() {
    let ast = body(TEXT);
    let function = &ast.functions[0];
    assert_eq!(function.body[1].guard, Some((true, "P1".into())));
    assert_eq!(function.body[3].guard, Some((false, "P1#2".into())));
    assert_eq!(function.body[3].operands, [Operand::Symbol("LAB#2".into(), 0)]);
    assert_eq!((function.labels["LAB"], function.labels["LAB#2"]), (1, 3));
}

#[test]
fn declarations_keep_sizes_and_alignments() {
    let ast = body(TEXT);
    assert_eq!(ast.variables[0].init, [1, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!(
        (ast.variables[1].space, ast.variables[1].size, ast.variables[1].align),
        (Space::Shared, 0, 1024)
    );
    let params = &ast.functions[0].params;
    assert_eq!((params[1].size, params[1].align), (128, 64));
    assert_eq!(ast.functions[0].directives, [("maxntid".to_owned(), vec![384, 1, 1])]);
}

#[test]
fn operands_keep_offsets_and_bits() {
    let ast = body(TEXT);
    let wait = &ast.functions[0].body[4];
    assert_eq!(wait.opcode[..3], ["mbarrier", "try_wait", "parity"]);
    assert_eq!(wait.operands[1], Operand::Address(Some(Box::new(Operand::Register("%r1".into()))), -16));
    assert_eq!(wait.operands[2], Operand::Float32(0x3f80_0000));
}

#[test]
fn errors_name_the_line() {
    let error = module(".version 9.0\n.target sm_90a\n.entry k() {\n mov.u32 %r1, ?;\n}").unwrap_err();
    assert_eq!(error.line, 4);
    let error = module(".version 9.0\n.entry k() {\n @%p1 ret;\n}").unwrap_err();
    assert!(error.to_string().contains("`%p1` is not declared"), "{error}");
}
