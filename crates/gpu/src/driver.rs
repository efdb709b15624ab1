//! Asking the CUDA driver and compiler what is there, without running anything on the GPU.
//!
//! Both libraries are loaded when asked for. `cudarc` panics where one is missing, so its
//! presence is asked first, and each function here says what it found.

#![allow(unsafe_code, reason = "calls of the driver")]

use cudarc::driver::{CudaContext, result, sys};

/// Free and total bytes of a GPU, and the version of its instruction set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// The product, as the driver names it.
    pub(crate) name: String,
    /// Compute capability, for instance `(8, 9)`.
    pub(crate) capability: (i32, i32),
    /// Bytes nobody uses at the moment.
    pub(crate) free_bytes: u64,
    /// Bytes it has.
    pub(crate) total_bytes: u64,
}

/// Whether the driver's library (`libcuda.so.1`, `nvcuda.dll`) loads.
#[must_use]
pub(crate) fn driver_present() -> bool {
    // SAFETY: loading a library runs its initializers; the driver's are made to be run in any
    // process that looks for a GPU, and the library is not used through this handle.
    unsafe { sys::is_culib_present() }
}

/// Whether the run-time compiler's library (`libnvrtc.so`) loads.
#[must_use]
pub(crate) fn compiler_present() -> bool {
    // SAFETY: as in `driver_present`; NVRTC's initializers only set up its own tables.
    unsafe { cudarc::nvrtc::sys::is_culib_present() }
}

/// The CUDA version the driver implements, as `(major, minor)`; `None` without a driver.
#[must_use]
pub(crate) fn driver_version() -> Option<(i32, i32)> {
    if !driver_present() {
        return None;
    }
    let mut version = 0;
    // SAFETY: the pointer is to one writable `c_int` that outlives the call, which is the one
    // call that needs no `cuInit` before it.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
    Some((version / 1000, version % 1000 / 10))
}

/// The CUDA version of the run-time compiler, as `(major, minor)`; `None` without one.
#[must_use]
pub(crate) fn compiler_version() -> Option<(i32, i32)> {
    if !compiler_present() {
        return None;
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to writable `c_int`s that outlive the call.
    let status = unsafe { cudarc::nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    (status == cudarc::nvrtc::sys::nvrtcResult::NVRTC_SUCCESS).then_some((major, minor))
}

/// Number of GPUs, or what the driver said instead; `None` without a driver.
#[must_use]
pub(crate) fn gpu_count() -> Option<Result<usize, String>> {
    if !driver_present() {
        return None;
    }
    let count = result::init().and_then(|()| result::device::get_count());
    Some(count.map(|n| usize::try_from(n).unwrap_or(0)).map_err(said))
}

/// An error in the driver's own words.
fn said(error: result::DriverError) -> String {
    match error.error_string() {
        Ok(words) => words.to_string_lossy().into_owned(),
        Err(_) => format!("code {}", error.0 as u32),
    }
}

/// What the driver says about a GPU.
///
/// # Errors
///
/// The driver's words where it does not answer, or a sentence where there is no driver.
pub(crate) fn gpu(index: usize) -> Result<Gpu, String> {
    if !driver_present() {
        return Err("no CUDA driver".to_owned());
    }
    // The driver counts in `int`, and a larger number must not wrap to a smaller one.
    if i32::try_from(index).is_err() {
        return Err(format!("no number {index}"));
    }
    let ask = || {
        let context = CudaContext::new(index)?;
        let (free, total) = context.mem_get_info()?;
        Ok(Gpu {
            name: context.name()?,
            capability: context.compute_capability()?,
            free_bytes: free as u64,
            total_bytes: total as u64,
        })
    };
    ask().map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine may or may not have a GPU; either way the answers go together.
    #[test]
    fn answers_agree() {
        assert_eq!(driver_version().is_some(), driver_present());
        assert_eq!(gpu_count().is_some(), driver_present());
        assert_eq!(compiler_version().is_some(), compiler_present());
        let count = gpu_count().and_then(Result::ok).unwrap_or(0);
        assert!(gpu(count).is_err(), "the device after the last");
        for index in 0..count {
            let gpu = gpu(index).expect("a device the driver counted");
            assert!(gpu.free_bytes <= gpu.total_bytes && gpu.capability.0 > 0, "{gpu:?}");
        }
    }
}
