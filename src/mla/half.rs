//! The 16-bit floats of queries, new tokens and answers.

use crate::dtype::{Element, bf16, f16};

mod sealed {
    pub trait Half {
        const IS_F16: bool;
        /// What kernels of this type have in their names.
        const SUFFIX: &'static str;
    }
}

/// A 16-bit float that attention computes with: [`bf16`] or [`f16`](struct@crate::f16).
pub trait Half: Element + sealed::Half {}

impl sealed::Half for bf16 {
    const IS_F16: bool = false;
    const SUFFIX: &'static str = "bf16";
}
impl Half for bf16 {}

impl sealed::Half for f16 {
    const IS_F16: bool = true;
    const SUFFIX: &'static str = "f16";
}
impl Half for f16 {}
