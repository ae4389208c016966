//! A simulated NVIDIA card: PTX in, results and counters out.

pub mod ast;
