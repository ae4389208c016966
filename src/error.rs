//! The one error type of the crate.

use std::fmt::Display;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Nothing ran and no output was touched unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument does not fit the operation; found on the host, before anything ran.
    #[error("{operation}: {argument} is {got}, but it must be {want}")]
    Argument {
        /// The operation, as its Rust path is written (`Fp8Gemm`, `Tensor::slice`).
        operation: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What was given.
        got: String,
        /// What the operation wants.
        want: String,
    },
    /// This machine has no CUDA driver library.
    #[error("no CUDA driver: none of libcuda.so.1, libcuda.so or nvcuda.dll can be loaded")]
    NoDriver,
    /// There is no CUDA device of that number.
    #[error("no CUDA device {ordinal}: the driver reports {found}")]
    NoDevice {
        /// The number asked for.
        ordinal: usize,
        /// How many the driver reports.
        found: usize,
    },
    /// The driver lacks something that this crate calls.
    #[error("the CUDA driver is too old: it has no {symbol}; install an R580 driver or newer")]
    DriverTooOld {
        /// The missing function.
        symbol: String,
    },
    /// No kernel variant exists for the device's architecture.
    #[error("kernel {kernel} is not built for {found}: this build has it for {built}")]
    UnsupportedArch {
        /// The kernel's entry name.
        kernel: String,
        /// The device's architecture, as in `sm_90a`.
        found: String,
        /// The architectures that it was built for.
        built: String,
    },
    /// The crate was built without nvcc and without prebuilt images.
    #[error("kernel {kernel} was not built: run `cargo xtask setup`, or set NVCC, and build again")]
    KernelsNotBuilt {
        /// The kernel's entry name.
        kernel: String,
    },
    /// A kernel's image was found but cannot be loaded.
    #[error("kernel {kernel}: cannot load its image: {reason}")]
    Image {
        /// The kernel's entry name.
        kernel: String,
        /// What the loader said.
        reason: String,
    },
    /// A call of the CUDA driver failed.
    #[error("CUDA error {code} in {what}")]
    Driver {
        /// The driver's `CUresult`.
        code: u32,
        /// The function that failed, and the driver's name of the error where it has one.
        what: String,
    },
    /// An earlier kernel killed the CUDA context: nothing works until the process is started anew.
    #[error("the CUDA context is lost: an earlier call failed with error {code}; restart the process")]
    ContextLost {
        /// The `CUresult` that killed it.
        code: u32,
    },
    /// A kernel broke a rule on the simulated card. Outputs may have been written in part.
    #[error("{0}")]
    Fault(String),
    /// The device has not enough memory left. Retrying after freeing is fine.
    #[error("out of device memory: {requested} bytes wanted")]
    OutOfMemory {
        /// The bytes asked for.
        requested: u64,
    },
    /// The call cannot be part of a stream capture, or the capture failed.
    #[error("stream capture: {0}")]
    Capture(String),
    /// The device of this kind cannot do what was asked.
    #[error("{operation} is not possible on {device}")]
    Unsupported {
        /// What was asked.
        operation: &'static str,
        /// The device's name.
        device: String,
    },
}

impl Error {
    /// An [`Error::Argument`] from anything printable.
    pub fn argument(
        operation: &'static str,
        argument: &'static str,
        got: impl Display,
        want: impl Display,
    ) -> Self {
        Error::Argument { operation, argument, got: got.to_string(), want: want.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_names_everything() {
        let error = Error::argument("Fp8Gemm", "k", 100, "a multiple of 128");
        assert_eq!(error.to_string(), "Fp8Gemm: k is 100, but it must be a multiple of 128");
    }
}
