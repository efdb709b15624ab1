//! NVIDIA's run-time compiler: from CUDA C++ to a binary for one architecture.

use cudarc::nvrtc::{result, sys};
use std::ffi::{CStr, CString};
use std::path::PathBuf;

/// Version of the compiler, or `None` where there is none.
pub(crate) fn version() -> Option<(i32, i32)> {
    // SAFETY: looks for the library and asks its version, into two numbers that are there.
    unsafe {
        if !sys::is_culib_present() {
            return None;
        }
        let (mut major, mut minor) = (0, 0);
        sys::nvrtcVersion(&mut major, &mut minor).result().ok()?;
        Some((major, minor))
    }
}

/// The folder of CUDA's headers, looked for where cubecl-cuda does.
fn headers() -> Result<PathBuf, String> {
    let named = std::env::var_os("CUDA_PATH").map(PathBuf::from);
    let usual = ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from);
    let mut all = named.into_iter().chain(usual.into_iter().filter(|path| path.exists()));
    let found = all.next().or_else(|| {
        let system = PathBuf::from("/usr");
        system.join("bin/nvcc").exists().then_some(system)
    });
    found.map(|path| path.join("include")).ok_or_else(|| "CUDA's headers were not found".to_owned())
}

/// Compiles `source` for `arch`, for instance `sm_90a`.
pub(crate) fn compile(source: &str, arch: &str) -> Result<Vec<u8>, String> {
    let include = headers()?;
    let options = [
        format!("--gpu-architecture={arch}"),
        format!("--include-path={}", include.display()),
        format!("--include-path={}", include.join("cccl").display()),
    ];
    let source = CString::new(source).map_err(|_| "a kernel with a zero byte".to_owned())?;
    let words = |error: sys::nvrtcResult| format!("NVRTC failed: {error:?}");
    // SAFETY: the source outlives the program, which is made here and destroyed on every path; the
    // binary's length is what the compiler says.
    unsafe {
        let mut program =
            result::create_program(source.as_c_str(), None).map_err(|error| words(error.0))?;
        let compiled = result::compile_program(program, &options);
        let binary = match compiled {
            Err(_) => Err(result::get_program_log(program).map_or_else(
                |error| words(error.0),
                |log| CStr::from_ptr(log.as_ptr()).to_string_lossy().into_owned(),
            )),
            Ok(()) => {
                let mut size = 0;
                let asked = sys::nvrtcGetCUBINSize(program, &mut size).result();
                asked.map_err(|error| words(error.0)).and_then(|()| {
                    let mut binary = vec![0_u8; size];
                    let got = sys::nvrtcGetCUBIN(program, binary.as_mut_ptr().cast()).result();
                    got.map(|()| binary).map_err(|error| words(error.0))
                })
            }
        };
        let _ = sys::nvrtcDestroyProgram(&mut program);
        binary
    }
}
