//! Moves, packing and addresses.

use crate::one;

#[test]
fn copying_undefined_registers_is_no_fault() {
    // The upper half is never written, and masked away before it is stored.
    let body = "mov.b32 %r0, {%h1, %h2}; mov.u16 %h3, 5; mov.b32 %r1, {%h3, %h2}; and.b32 %r2, %r1, 0xffff;
        st.global.u32 [%out], %r2;";
    assert_eq!(one(body, [0; 3]), 5);
}
