//! What must not compile: each block is a test that fails where the compiler takes it.
//!
//! An operation borrows its operands, so none can go before it was launched:
//!
//! ```compile_fail,E0505
//! use narrowgauge::{Device, Result, bf16, norm::Add};
//! fn wrong(device: &Device) -> Result<()> {
//!     let a = device.zeros::<bf16>(&[2, 8])?;
//!     let out = device.zeros::<bf16>(&[2, 8])?;
//!     let add = Add::new(&a, &a, &out);
//!     drop(out);
//!     add.launch(&device.stream())
//! }
//! ```
//!
//! Nor can it leave the place where they live:
//!
//! ```compile_fail,E0515
//! use narrowgauge::{Device, Result, bf16, norm::Add};
//! fn wrong(device: &Device) -> Result<Add<'static>> {
//!     let a = device.zeros::<bf16>(&[2, 8])?;
//!     Ok(Add::new(&a, &a, &a))
//! }
//! ```
//!
//! A stream is a handle, and what is gone cannot be launched on:
//!
//! ```compile_fail,E0382
//! use narrowgauge::{Device, Result, bf16, norm::Add};
//! fn wrong(device: &Device) -> Result<()> {
//!     let (a, stream) = (device.zeros::<bf16>(&[2, 8])?, device.new_stream()?);
//!     drop(stream);
//!     Add::new(&a, &a, &a).launch(&stream)
//! }
//! ```
//!
//! Rows and blocks of FP8 are types of their own, as their scales are different things:
//!
//! ```compile_fail,E0308
//! use narrowgauge::{Fp8Blocks, Fp8Rows, Tensor, bf16, gemm::Fp8Gemm};
//! fn wrong(a: &Fp8Rows, b: &Fp8Blocks, out: &Tensor<bf16>) -> Fp8Gemm {
//!     Fp8Gemm::new(b, a, out)
//! }
//! ```
//!
//! A product is written as floats or FP8 rows:
//!
//! ```compile_fail,E0277
//! use narrowgauge::{Fp8Blocks, Fp8Rows, Tensor, gemm::Fp8Gemm};
//! fn wrong(a: &Fp8Rows, b: &Fp8Blocks, out: &Tensor<i32>) {
//!     let _ = Fp8Gemm::new(a, b, out);
//! }
//! ```
//!
//! Floats are no powers of two, whatever their values:
//!
//! ```compile_fail,E0308
//! use narrowgauge::{E4m3, Fp8Rows, Result, Tensor, Ue8m0};
//! fn wrong(data: Tensor<E4m3>, scales: Tensor<f32>) -> Result<Fp8Rows<E4m3, Ue8m0>> {
//!     Fp8Rows::join(data, scales)
//! }
//! ```
//!
//! Device memory holds plain numbers only, for which every pattern of bits is a value:
//!
//! ```compile_fail,E0277
//! fn wrong(device: &narrowgauge::Device) {
//!     let _ = device.zeros::<bool>(&[1]);
//! }
//! ```
//!
//! Memory from a raw pointer is the caller's word:
//!
//! ```compile_fail,E0133
//! use narrowgauge::{Device, Tensor};
//! fn wrong(device: &Device) {
//!     let _ = Tensor::<f32>::from_raw(device, 0x1000, &[4], &[1], None);
//! }
//! ```
//!
//! A type becomes an element by an unsafe promise:
//!
//! ```compile_fail,E0200
//! #[derive(Clone, Copy, Debug, Default)]
//! struct Mine(u32);
//! impl narrowgauge::Element for Mine {
//!     const DTYPE: narrowgauge::DType = narrowgauge::DType::U32;
//! }
//! ```
//!
//! And cards come from the list, or from a device that describes itself:
//!
//! ```compile_fail,E0639
//! let card = narrowgauge::Card { sms: 1, ..narrowgauge::Card::find("h20").unwrap() };
//! ```
//!
//! What overlaps or is of another device cannot be told apart by types: those are errors of `launch`. The twin of the first
//! block, which compiles:
//!
//! ```
//! use narrowgauge::{Device, Result, bf16, norm::Add};
//! fn right(device: &Device) -> Result<()> {
//!     let a = device.zeros::<bf16>(&[2, 8])?;
//!     let out = device.zeros::<bf16>(&[2, 8])?;
//!     Add::new(&a, &a, &out).launch(&device.stream())?;
//!     // The launch keeps the memory for as long as it runs.
//!     drop(out);
//!     Ok(())
//! }
//! ```
