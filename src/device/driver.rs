//! The CUDA driver's functions, each looked up by name before any is called.
//!
//! cudarc panics on a missing library or function, and takes the driver's result as a Rust enum, which a code newer
//! than the bindings must never become. So results are plain integers here and what is missing is an error.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// An object of the driver: context, stream, event, module, function or graph.
pub(super) type Handle = *mut c_void;

pub(super) const LAUNCH_CLUSTER: u32 = 4;
pub(super) const LAUNCH_PROGRAMMATIC: u32 = 6;

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LaunchAttribute {
    pub(super) id: u32,
    pub(super) padding: u32,
    /// A union of 64 bytes; the attributes in use hold up to three 32-bit numbers.
    pub(super) value: [u32; 16],
}

/// `CUlaunchConfig`.
#[repr(C)]
pub(super) struct LaunchConfig {
    pub(super) grid: [c_uint; 3],
    pub(super) block: [c_uint; 3],
    pub(super) shared: c_uint,
    pub(super) stream: Handle,
    pub(super) attributes: *const LaunchAttribute,
    pub(super) attribute_count: c_uint,
}

const _: () = {
    assert!(size_of::<LaunchAttribute>() == 72);
    assert!(size_of::<LaunchConfig>() == 56);
};

macro_rules! driver {
    ($($name:ident = $symbol:literal ($($argument:ty),*);)+) => {
        /// The functions that this crate calls.
        pub(super) struct Driver {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> u32,)+
            /// The newest name of it that the driver has. Only timing needs it, so it may be missing.
            elapsed: Option<unsafe extern "C" fn(*mut f32, Handle, Handle) -> u32>,
        }

        impl Driver {
            fn link(library: &libloading::Library) -> Result<Self> {
                Ok(Self {
                    $(
                        // SAFETY: the signature is that of the function in the driver's API of this name.
                        $name: *unsafe { library.get($symbol) }
                            .map_err(|_| Error::DriverTooOld { symbol: $symbol.to_owned() })?,
                    )+
                    elapsed: ["cuEventElapsedTime_v2", "cuEventElapsedTime"].into_iter().find_map(|name| {
                        // SAFETY: both versions have this signature.
                        unsafe { library.get(name) }.ok().map(|symbol| *symbol)
                    }),
                })
            }
        }
    };
}

driver! {
    init = "cuInit"(c_uint);
    driver_version = "cuDriverGetVersion"(*mut c_int);
    error_name = "cuGetErrorName"(u32, *mut *const c_char);
    device_count = "cuDeviceGetCount"(*mut c_int);
    device_get = "cuDeviceGet"(*mut c_int, c_int);
    device_name = "cuDeviceGetName"(*mut c_char, c_int, c_int);
    device_memory = "cuDeviceTotalMem_v2"(*mut usize, c_int);
    device_attribute = "cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
    primary_retain = "cuDevicePrimaryCtxRetain"(*mut Handle, c_int);
    primary_release = "cuDevicePrimaryCtxRelease_v2"(c_int);
    set_current = "cuCtxSetCurrent"(Handle);
    alloc = "cuMemAlloc_v2"(*mut u64, usize);
    free = "cuMemFree_v2"(u64);
    alloc_async = "cuMemAllocAsync"(*mut u64, usize, Handle);
    free_async = "cuMemFreeAsync"(u64, Handle);
    copy_to_device = "cuMemcpyHtoDAsync_v2"(u64, *const c_void, usize, Handle);
    copy_to_host = "cuMemcpyDtoHAsync_v2"(*mut c_void, u64, usize, Handle);
    set_bytes = "cuMemsetD8Async"(u64, u8, usize, Handle);
    stream_create = "cuStreamCreate"(*mut Handle, c_uint);
    stream_destroy = "cuStreamDestroy_v2"(Handle);
    stream_synchronize = "cuStreamSynchronize"(Handle);
    stream_wait = "cuStreamWaitEvent"(Handle, Handle, c_uint);
    stream_is_capturing = "cuStreamIsCapturing"(Handle, *mut c_int);
    capture_begin = "cuStreamBeginCapture_v2"(Handle, c_int);
    capture_end = "cuStreamEndCapture"(Handle, *mut Handle);
    event_create = "cuEventCreate"(*mut Handle, c_uint);
    event_destroy = "cuEventDestroy_v2"(Handle);
    event_record = "cuEventRecord"(Handle, Handle);
    event_query = "cuEventQuery"(Handle);
    event_synchronize = "cuEventSynchronize"(Handle);
    module_load = "cuModuleLoadData"(*mut Handle, *const c_void);
    module_unload = "cuModuleUnload"(Handle);
    module_function = "cuModuleGetFunction"(*mut Handle, Handle, *const c_char);
    function_attribute = "cuFuncSetAttribute"(Handle, c_int, c_int);
    launch = "cuLaunchKernelEx"(*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
    graph_instantiate = "cuGraphInstantiateWithFlags"(*mut Handle, Handle, u64);
    graph_destroy = "cuGraphDestroy"(Handle);
    graph_exec_destroy = "cuGraphExecDestroy"(Handle);
    graph_launch = "cuGraphLaunch"(Handle, Handle);
    encode_tiled = "cuTensorMapEncodeTiled"(
        *mut c_void, c_uint, c_uint, u64, *const u64, *const u64, *const u32, *const u32,
        c_uint, c_uint, c_uint, c_uint
    );
}

impl Driver {
    /// The driver, loaded and initialised at the first call. It is never unloaded: objects may be dropped at any
    /// time up to the end of the process.
    pub(super) fn get() -> Result<&'static Self> {
        static DRIVER: OnceLock<Result<Driver>> = OnceLock::new();
        DRIVER.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self> {
        let library = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"]
            .into_iter()
            // SAFETY: loading NVIDIA's driver library runs its initialisers, which have no preconditions.
            .find_map(|name| unsafe { libloading::Library::new(name) }.ok())
            .ok_or(Error::NoDriver)?;
        let driver = Self::link(&library)?;
        std::mem::forget(library);
        // SAFETY: takes no pointers.
        match unsafe { (driver.init)(0) } {
            0 => Ok(driver),
            // CUDA_ERROR_NO_DEVICE
            100 => Err(Error::NoDevice { ordinal: 0, found: 0 }),
            code => Err(driver.error(code, "cuInit")),
        }
    }

    pub(super) fn elapsed(&self) -> Result<unsafe extern "C" fn(*mut f32, Handle, Handle) -> u32> {
        self.elapsed.ok_or_else(|| Error::DriverTooOld { symbol: "cuEventElapsedTime".to_owned() })
    }

    /// The error for a result that is not 0.
    pub(super) fn error(&self, code: u32, what: &str) -> Error {
        let mut name = std::ptr::null();
        // SAFETY: `name` is a valid place for the answer; the answer is null or a static string.
        let name = unsafe {
            if (self.error_name)(code, &mut name) == 0 && !name.is_null() {
                CStr::from_ptr(name).to_string_lossy()
            } else {
                "unknown to this driver".into()
            }
        };
        Error::Driver { code, what: format!("{what} ({name})") }
    }

    /// `Ok` for result 0.
    pub(super) fn check(&self, code: u32, what: &str) -> Result<()> {
        if code == 0 { Ok(()) } else { Err(self.error(code, what)) }
    }

    /// The driver's version as in 13.0.
    pub(super) fn version(&self) -> String {
        let mut version = 0;
        // SAFETY: `version` is a valid place for the answer.
        unsafe { (self.driver_version)(&mut version) };
        format!("{}.{}", version / 1000, version % 1000 / 10)
    }

    pub(super) fn attribute(&self, device: c_int, attribute: c_int) -> Result<u32> {
        let mut value = 0;
        // SAFETY: `value` is a valid place for the answer.
        let code = unsafe { (self.device_attribute)(&mut value, attribute, device) };
        self.check(code, "cuDeviceGetAttribute")?;
        Ok(u32::try_from(value).unwrap_or(0))
    }
}

/// Whether a result means that the context is dead: nothing but a new process helps.
pub(super) fn is_sticky(code: u32) -> bool {
    // Deinitialised; uncorrectable memory error; illegal address; launch timeout; context destroyed; assert; then
    // hardware stack error, illegal instruction, misaligned address, address space, program counter, launch failure.
    matches!(code, 4 | 214 | 700 | 702 | 709 | 710 | 714..=719)
}
