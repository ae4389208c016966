//! What launches need of the driver: kernels, tensor maps, times.

use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Executor, Function, TimedEvent};
use crate::device::driver::Handle;
use crate::device::tensor_map::Swizzle;
use crate::device::{TensorMapSpec, abi, images, lock};
use crate::dtype::DType;
use crate::error::{Error, Result};

impl Executor {
    /// The kernel, loaded at its first launch and allowed its shared memory.
    pub(super) fn function(&self, entry: &str, arch: &str, shared: u32) -> Result<Handle> {
        let mut functions = lock(&self.functions);
        if !functions.contains_key(entry) {
            functions.insert(entry.to_owned(), self.load(entry, arch)?);
        }
        let Some(function) = functions.get_mut(entry) else {
            return Err(Error::KernelsNotBuilt { kernel: entry.to_owned() });
        };
        if shared > function.shared {
            // SAFETY: the function belongs to a module that lives as long as `self`.
            // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES; the size is at most the card's, which is an `int`.
            let code = unsafe { (self.driver.function_attribute)(function.function, 8, shared as c_int) };
            self.check(code, "cuFuncSetAttribute")?;
            function.shared = shared;
        }
        Ok(function.function)
    }

    fn load(&self, entry: &str, arch: &str) -> Result<Function> {
        let code = images::find_code(entry, arch)?;
        let failed = |reason: String| Error::Image { kernel: entry.to_owned(), reason };
        let text;
        let data: *const c_void = match &code {
            images::Code::Cubin(cubin) => cubin.as_ptr().cast(),
            images::Code::Ptx(ptx) => {
                text = CString::new(&**ptx).map_err(|_| failed("the PTX holds a zero".into()))?;
                text.as_ptr().cast()
            }
        };
        let mut module = std::ptr::null_mut();
        // SAFETY: `data` is an ELF file, which holds its own length, or text that ends in a zero; the driver copies.
        match unsafe { (self.driver.module_load)(&mut module, data) } {
            0 => {}
            // Invalid image, no binary for this card, unsupported PTX: an image newer than the driver, as a rule.
            code @ (200 | 209 | 222) => {
                let what = self.driver.error(code, "cuModuleLoadData");
                let version = self.driver.version();
                return Err(failed(format!("{what}; the driver is for CUDA {version}, images need 13.0")));
            }
            code => self.check(code, "cuModuleLoadData")?,
        }
        let name = CString::new(entry).map_err(|_| failed("its name holds a zero".into()))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded and `name` ends in a zero.
        let code = unsafe { (self.driver.module_function)(&mut function, module, name.as_ptr()) };
        if let Err(error) = self.check(code, "cuModuleGetFunction") {
            return Err(match error {
                Error::ContextLost { .. } => error,
                error => {
                    // SAFETY: nothing of the module is in use.
                    unsafe { (self.driver.module_unload)(module) };
                    failed(error.to_string())
                }
            });
        }
        // Up to 48 KiB need no permission.
        Ok(Function { module, function, shared: 48 << 10 })
    }

    pub(in crate::device) fn set_timing(&self, on: bool) -> Result<()> {
        if on {
            self.driver.elapsed()?;
        }
        self.timing.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Times of the timed launches so far, once they are done.
    pub(in crate::device) fn take_times(self: &Arc<Self>) -> Result<Vec<(String, Duration)>> {
        let own = |event| TimedEvent { executor: self.clone(), event };
        let times = std::mem::take(&mut *lock(&self.times));
        let times: Vec<_> =
            times.into_iter().map(|(kernel, start, end)| (kernel, own(start), own(end))).collect();
        times.into_iter().map(|(kernel, start, end)| Ok((kernel, end.since(&start)?))).collect()
    }

    pub(in crate::device) fn forget_times(self: &Arc<Self>) {
        for (_, start, end) in std::mem::take(&mut *lock(&self.times)) {
            for event in [start, end] {
                drop(TimedEvent { executor: self.clone(), event });
            }
        }
    }

    pub(in crate::device) fn tensor_map(&self, spec: &TensorMapSpec<'_>) -> Result<abi::NgTensorMap> {
        // CUtensorMapDataType; FP8 travels as bytes.
        let dtype = match spec.dtype {
            DType::E4m3 | DType::E5m2 | DType::Ue8m0 | DType::U8 => 0,
            DType::U32 => 2,
            DType::I32 => 3,
            DType::U64 => 4,
            DType::I64 => 5,
            DType::F16 => 6,
            DType::F32 => 7,
            DType::Bf16 => 9,
        };
        let swizzle = match spec.swizzle {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 2,
            Swizzle::B128 => 3,
        };
        self.bind()?;
        let mut map = abi::NgTensorMap { bytes: [0; 128] };
        // SAFETY: `map` has the size and alignment of a `CUtensorMap`; `spec.check` made sure that the slices have
        // `rank` elements, and the strides one fewer. The address is only recorded.
        // No interleaving, L2 promotion of 256 bytes, zeros out of bounds.
        let code = unsafe {
            (self.driver.encode_tiled)(
                map.bytes.as_mut_ptr().cast(),
                dtype,
                spec.extents.len() as u32,
                spec.address,
                spec.extents.as_ptr(),
                spec.strides.as_ptr(),
                spec.tile.as_ptr(),
                [1u32; 5].as_ptr(),
                0,
                swizzle,
                3,
                0,
            )
        };
        self.check(code, "cuTensorMapEncodeTiled")?;
        Ok(map)
    }
}
