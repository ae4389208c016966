//! What goes wrong around kernels: memory that runs out at any place, a context that dies in any call, images for
//! another card, owners that go in any order, many threads and streams. Over a stand-in for the CUDA driver in child
//! processes, and on the simulated card.

#[cfg(all(feature = "cuda", target_os = "linux"))]
mod driver;
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "../device/harness.rs"]
mod harness;
mod memory;
mod order;
mod threads;
