//! Hand-written CUDA kernels for low-precision mixture-of-experts inference, wrapped in safe Rust.
