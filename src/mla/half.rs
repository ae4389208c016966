//! The 16-bit floats of queries, new tokens and answers.

use crate::dtype::{Element, bf16, f16};

mod sealed {
    pub trait Half {
        const IS_F16: bool;
    }
}

/// A 16-bit float that attention computes with: [`bf16`] or [`f16`](struct@crate::f16).
pub trait Half: Element + sealed::Half {}

impl sealed::Half for bf16 {
    const IS_F16: bool = false;
}
impl Half for bf16 {}

impl sealed::Half for f16 {
    const IS_F16: bool = true;
}
impl Half for f16 {}
