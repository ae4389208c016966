//! Devices, tensors, streams and graphs, on the device that `NARROWGAUGE_DEVICE` names; and the CUDA executor over a
//! stand-in for the driver.

#[cfg(all(feature = "cuda", target_os = "linux"))]
mod driver;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod harness;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod prepared;
#[cfg(feature = "sim")]
mod profiles;
mod streams;
mod tensors;
