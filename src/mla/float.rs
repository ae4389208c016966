//! Types that attentions read and write.

use crate::device::abi::{NG_FLOAT_BF16, NG_FLOAT_F16, NG_FLOAT_F32};
use crate::dtype::{Element, bf16, f16};

mod sealed {
    pub trait Float {
        /// The type's `NgFloat`.
        const TYPE: u32;
    }
}

/// A floating-point type of answers of attention: [`bf16`], [`f16`](struct@crate::f16) or `f32`.
pub trait Float: Element + sealed::Float {}

impl sealed::Float for bf16 {
    const TYPE: u32 = NG_FLOAT_BF16;
}
impl sealed::Float for f16 {
    const TYPE: u32 = NG_FLOAT_F16;
}
impl sealed::Float for f32 {
    const TYPE: u32 = NG_FLOAT_F32;
}
impl Float for bf16 {}
impl Float for f16 {}
impl Float for f32 {}
